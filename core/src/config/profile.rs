//! Profiles: what a config says beside what it always says, where it is run.

use super::environment::Environment;
use super::fault::nearest;
use super::origin::Origin;
use super::tree::{Node, Path, Value};
use crate::{Result, Text};

const PROFILE: &str = "profile";
const PROFILES: &str = "profiles";
const ROUTES: &str = "routes";
const TRANSPORTS: &str = "transports";
const KIND: &str = "kind";

const DEVELOPMENT: &str = "development";
const PRODUCTION: &str = "production";

/// The profile that a config is read in.
pub(super) struct Profile {
    pub(super) name: Text,
}

/// The profiles that a tree declares, by name, each over the rest.
pub(super) fn all(root: &Node) -> Result<Vec<(Text, Node)>> {
    let declared = root.child(PROFILES).map_or(Ok(&[][..]), entries)?;
    let mut rest = root.clone();
    if let Value::Table(table) = &mut rest.value {
        table.remove(PROFILE);
        table.remove(PROFILES);
    }
    let over = declared.iter().map(|(name, profile)| {
        let mut over = rest.clone();
        merge(&mut over, profile.clone());
        (name.clone(), over)
    });
    Ok(over.collect())
}

/// Takes the profiles out of the tree, and puts what the chosen one says over the rest. `asked` is
/// the program's choice; else a variable's counts, else the file's.
pub(super) fn overlay(
    root: &mut Node,
    asked: Option<&str>,
    environment: &Environment,
) -> Result<Option<Profile>> {
    let chosen = choose(root, asked, environment)?;
    let Value::Table(table) = &mut root.value else {
        return Ok(None);
    };
    table.remove(PROFILE);
    let declared = table.child(PROFILES).cloned();
    table.remove(PROFILES);
    let profiles = declared.as_ref().map_or(Ok(&[][..]), entries)?;
    let Some((name, origin)) = chosen else {
        return Ok(None);
    };
    let known = profiles.iter().map(|(name, _)| name.as_str());
    let found = profiles.iter().find(|(known, _)| *known == name);
    match found {
        Some((_, profile)) => merge(root, profile.clone()),
        None if [DEVELOPMENT, PRODUCTION].contains(&name.as_str()) => {}
        None => {
            let known = known.chain([DEVELOPMENT, PRODUCTION]);
            let error = origin.error(PROFILE, &format!("there is no profile `{name}`"));
            return Err(match nearest(&name, known) {
                Some(near) => error.with_note(format!("did you mean `{near}`?")),
                None => error.with_note(format!("declare it: [profiles.{name}]")),
            });
        }
    }
    Ok(Some(Profile { name }))
}

impl Profile {
    /// Adds what the profile brings of itself, where the config says nothing.
    pub(super) fn fill(&self, root: &mut Node) {
        let origin = Origin::profile(&self.name);
        let defaults: &[(&str, Value)] = match self.name.as_str() {
            DEVELOPMENT => &[
                ("partitions", Value::Integer(12)),
                ("replication", Value::Integer(1)),
            ],
            PRODUCTION => &[
                ("partitions", Value::Integer(12)),
                ("replication", Value::Integer(3)),
                ("retention", Value::String("30d".to_owned())),
            ],
            _ => return,
        };
        let Value::Table(table) = &mut root.value else {
            return;
        };
        let topics = table.child_or_table("topic_defaults", &origin);
        for (key, value) in defaults {
            add(topics, key, value.clone(), &origin);
        }
        if self.name != PRODUCTION {
            return;
        }
        let Some(transports) = table.child_mut(TRANSPORTS) else {
            return;
        };
        if let Value::Table(transports) = &mut transports.value {
            for (_, transport) in transports.nodes_mut() {
                secure(transport, &origin);
            }
        }
    }
}

/// Kafka in production: all replicas, encrypted, with a login.
fn secure(transport: &mut Node, origin: &Origin) {
    let text = |text: &str| Value::String(text.to_owned());
    if text_of(transport, KIND) != Some("kafka") {
        return;
    }
    // Whoever says something of encryption or of logins has said all of it.
    let says = |key| transport.child(key).is_some();
    let encrypts = !says("tls");
    let logs_in = encrypts && !says("certificate_file") && !says("sasl_mechanism");
    add(transport, "acks", text("all"), origin);
    if encrypts {
        add(transport, "tls", Value::Boolean(true), origin);
    }
    if logs_in {
        add(transport, "sasl_mechanism", text("SCRAM-SHA-512"), origin);
    }
}

fn add(node: &mut Node, key: &str, value: Value, origin: &Origin) {
    if let Value::Table(table) = &mut node.value
        && table.child(key).is_none()
    {
        table.push(key, Node::new(value, origin.clone()));
    }
}

/// The profile that is asked for, and where.
fn choose(
    root: &Node,
    asked: Option<&str>,
    environment: &Environment,
) -> Result<Option<(Text, Origin)>> {
    if let Some(asked) = asked {
        return Ok(Some((asked.into(), Origin::Code)));
    }
    if let Some((variable, name)) = environment.profile() {
        return Ok(Some((name.into(), Origin::variable(variable))));
    }
    let Some(node) = root.child(PROFILE) else {
        return Ok(None);
    };
    let mut node = node.clone();
    environment.substitute(&mut node, Path::Key(&Path::ROOT, PROFILE))?;
    match node.value {
        // From `${STAGE:-}`: none.
        Value::String(name) if name.is_empty() => Ok(None),
        Value::String(name) => Ok(Some((name.into(), node.origin))),
        other => {
            let what = format!("must be the name of a profile, not {}", other.describe());
            Err(node.origin.error(PROFILE, &what))
        }
    }
}

/// The profiles that are declared.
fn entries(profiles: &Node) -> Result<&[(Text, Node)]> {
    let Some(table) = profiles.as_table() else {
        let error = profiles.origin.error(PROFILES, "must be a table");
        return Err(error.with_note("write [profiles.<name>], and below it what it changes"));
    };
    for (name, profile) in table.iter() {
        let path = Path::Start(PROFILES);
        let path = Path::Key(&path, name);
        if profile.as_table().is_none() {
            return Err(profile.origin.error(&path.to_string(), "must be a table"));
        }
        for key in [PROFILE, PROFILES] {
            if let Some(inner) = profile.child(key) {
                let path = Path::Key(&path, key).to_string();
                return Err(inner
                    .origin
                    .error(&path, "a profile has no profiles of its own"));
            }
        }
    }
    Ok(table.entries())
}

/// Puts one tree over another: tables are merged, and routes added to those that there are, in the
/// place of one with the same pattern. Anything else is replaced.
fn merge(root: &mut Node, over: Node) {
    merge_by(root, over, &|key, present, node| match key {
        ROUTES => match (&mut present.value, &mut node.value) {
            (Value::Array(routes), Value::Array(more)) => {
                more.drain(..).for_each(|route| add_route(routes, route));
                true
            }
            _ => false,
        },
        TRANSPORTS => {
            merge_by(present, node.clone(), &|_, present, node| {
                // One of another kind has nothing of that which it replaces.
                let (old, new) = (text_of(present, KIND), text_of(node, KIND));
                let replaces = new.is_some() && old != new;
                if replaces {
                    present.clone_from(node);
                }
                replaces
            });
            true
        }
        _ => false,
    });
}

/// Merges tables; `own` may do it for an entry that both have, and says whether it did.
fn merge_by(present: &mut Node, over: Node, own: &dyn Fn(&str, &mut Node, &mut Node) -> bool) {
    let (Value::Table(table), Value::Table(_)) = (&mut present.value, &over.value) else {
        *present = over;
        return;
    };
    let Value::Table(over) = over.value else {
        return;
    };
    for (key, mut node) in over.into_entries() {
        match table.child_mut(&key) {
            None => table.push(key, node),
            Some(present) => {
                if !own(&key, present, &mut node) {
                    merge_by(present, node, &|_, _, _| false);
                }
            }
        }
    }
}

/// The text under a key.
fn text_of<'a>(node: &'a Node, key: &str) -> Option<&'a str> {
    match &node.child(key)?.value {
        Value::String(text) => Some(text),
        _ => None,
    }
}

fn add_route(routes: &mut Vec<Node>, route: Node) {
    let pattern = text_of(&route, "pattern");
    let same = |it: &Node| pattern.is_some() && text_of(it, "pattern") == pattern;
    match routes.iter().position(same) {
        Some(index) => routes[index] = route,
        None => routes.push(route),
    }
}
