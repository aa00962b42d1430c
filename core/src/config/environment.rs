//! The environment's part in a config: variables within values, and variables over them.

use std::collections::BTreeMap;

use super::Origin;
use super::toml::read_value;
use super::tree::{Node, Path, Table, Value};
use crate::{Error, Result, Text};

/// What a variable's name begins with that overrides a setting.
const PREFIX: &str = "POLYBUS__";

/// Environment variables by name.
pub(super) struct Environment(BTreeMap<String, String>);

impl Environment {
    pub(super) fn new<K: Into<String>, V: Into<String>>(
        variables: impl IntoIterator<Item = (K, V)>,
    ) -> Self {
        let variables = variables.into_iter();
        Self(
            variables
                .map(|(name, value)| (name.into(), value.into()))
                .collect(),
        )
    }

    /// The process's variables whose names and values are text.
    pub(super) fn of_process() -> Self {
        let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        Self(std::env::vars_os().filter_map(text).collect())
    }

    /// The variable that chooses a profile, and which.
    pub(super) fn profile(&self) -> Option<(&str, &str)> {
        let mut variables = self.0.iter();
        let is_profile = |name: &str| name.strip_prefix(PREFIX).is_some_and(is_profile);
        let (name, profile) = variables.find(|(name, _)| is_profile(name))?;
        let chosen = !profile.is_empty();
        chosen.then_some((name.as_str(), profile.as_str()))
    }

    /// The value of a variable, `None` where it is unset or empty.
    pub(super) fn variable(&self, name: &str) -> Option<&str> {
        let value = self.0.get(name).map(String::as_str);
        value.filter(|value| !value.is_empty())
    }

    /// Whether a variable overrides what these keys, with `__` between them, lead to.
    pub(super) fn overrides(&self, keys: &str) -> bool {
        let mut names = self.0.keys();
        names.any(|name| {
            let name = name.strip_prefix(PREFIX);
            name.is_some_and(|name| name.eq_ignore_ascii_case(keys))
        })
    }

    /// Puts the value of every variable `POLYBUS__section__key` into the tree.
    pub(super) fn override_values(&self, root: &mut Node) -> Result<()> {
        for (name, text) in &self.0 {
            if let Some(keys) = name.strip_prefix(PREFIX).filter(|keys| !is_profile(keys)) {
                let origin = Origin::variable(name);
                let keys: Vec<_> = keys.split("__").collect();
                if keys.contains(&"") {
                    return Err(origin
                        .error("", "the name has an empty key")
                        .with_note("write `POLYBUS__section__key`"));
                }
                set(root, Path::ROOT, &keys, text, &origin)?;
            }
        }
        Ok(())
    }

    /// The ways to what the variables `POLYBUS__section__key` set, with dots between the keys.
    pub(super) fn overridden(&self) -> impl Iterator<Item = String> {
        let names = self.0.keys();
        names.filter_map(|name| Some(name.strip_prefix(PREFIX)?.replace("__", ".")))
    }

    /// Replaces `${VAR}` in every text of the file.
    pub(super) fn substitute(&self, node: &mut Node, path: Path<'_>) -> Result<()> {
        self.walk(node, path, &mut None).map(drop)
    }

    /// The same, but texts with a variable that is not set are left out. Returns the ways to them.
    pub(super) fn substitute_known(&self, root: &mut Node) -> Result<Vec<String>> {
        let mut left_out = Some(Vec::new());
        self.walk(root, Path::ROOT, &mut left_out)?;
        Ok(left_out.unwrap_or_default())
    }

    /// Replaces variables in a node and below it. `false`: it is to be left out.
    fn walk(
        &self,
        node: &mut Node,
        path: Path<'_>,
        left_out: &mut Option<Vec<String>>,
    ) -> Result<bool> {
        let from_file = matches!(node.origin, Origin::File { .. });
        let mut result = Ok(());
        let mut keep = |kept: Result<bool>| {
            kept.unwrap_or_else(|error| {
                result = Err(error);
                true
            })
        };
        match &mut node.value {
            Value::String(text) if from_file && text.contains('$') => match self.replace(text) {
                Ok(replaced) => {
                    *text = replaced.text;
                    node.environment = replaced.variable.then(|| text.clone());
                }
                Err(fault) => {
                    if let (true, Some(left_out)) = (fault.is_unset, left_out) {
                        left_out.push(path.to_string());
                        return Ok(false);
                    }
                    let error = node.origin.error(&path.to_string(), &fault.what);
                    return Err(error.with_note(fault.advice));
                }
            },
            Value::Array(nodes) => {
                let mut index = 0;
                nodes.retain_mut(|node| {
                    index += 1;
                    keep(self.walk(node, Path::Index(&path, index - 1), left_out))
                });
            }
            Value::Table(table) => {
                table.retain(|key, node| keep(self.walk(node, Path::Key(&path, key), left_out)));
            }
            _ => {}
        }
        result.map(|()| true)
    }

    /// Replaces `${VAR}`, `${VAR:-default}` and `$$`. Any other `$` stands for itself.
    fn replace(&self, text: &str) -> Result<Replaced, Fault> {
        let mut replaced = Replaced::default();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('$') {
            replaced.text.push_str(before);
            if let Some(after) = after.strip_prefix('$') {
                replaced.text.push('$');
                rest = after;
            } else if let Some(after) = after.strip_prefix('{') {
                let (reference, after) = after.split_once('}').ok_or_else(Fault::unclosed)?;
                replaced.text.push_str(self.value(reference)?);
                replaced.variable = true;
                rest = after;
            } else {
                replaced.text.push('$');
                rest = after;
            }
        }
        replaced.text.push_str(rest);
        Ok(replaced)
    }

    /// The value of what stands between the braces. As in a shell, a default holds for a
    /// variable that is unset or empty.
    fn value<'a>(&'a self, reference: &'a str) -> Result<&'a str, Fault> {
        let (name, default) = match reference.split_once(":-") {
            Some((name, default)) => (name, Some(default)),
            None => (reference, None),
        };
        let legal = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if name.is_empty() || !name.chars().all(legal) {
            return Err(Fault::malformed());
        }
        let value = self.0.get(name).map(String::as_str);
        match default {
            Some(default) => Ok(value.filter(|value| !value.is_empty()).unwrap_or(default)),
            None => value.ok_or_else(|| Fault::unset(name)),
        }
    }
}

/// Whether the keys of a variable are the one that chooses the profile, which was read before.
fn is_profile(keys: &str) -> bool {
    keys.eq_ignore_ascii_case("profile")
}

#[derive(Default)]
struct Replaced {
    text: String,
    /// Whether a variable is part of it.
    variable: bool,
}

/// What is wrong with a reference to a variable. Never names a value.
struct Fault {
    what: String,
    advice: String,
    is_unset: bool,
}

impl Fault {
    fn unset(name: &str) -> Self {
        Self {
            what: format!("the environment variable `{name}` is not set"),
            advice: format!("set it, or give a default: `${{{name}:-default}}`"),
            is_unset: true,
        }
    }

    fn unclosed() -> Self {
        Self {
            what: "a `${` has no `}`".to_owned(),
            advice: "write `${VAR}` for a variable's value, `$$` for a dollar sign".to_owned(),
            is_unset: false,
        }
    }

    fn malformed() -> Self {
        Self {
            what: "what stands in `${}` is not the name of a variable".to_owned(),
            advice: "write `${VAR}` or `${VAR:-default}`; `$$` is a dollar sign".to_owned(),
            is_unset: false,
        }
    }
}

/// Puts the value of a variable at the place that `keys` lead to, making tables on the way.
fn set(node: &mut Node, path: Path<'_>, keys: &[&str], text: &str, origin: &Origin) -> Result<()> {
    let Some((key, rest)) = keys.split_first() else {
        *node = value_of(text, origin);
        return Ok(());
    };
    match &mut node.value {
        Value::Table(table) => {
            let key = existing_key(table, key, origin)?.unwrap_or_else(|| new_key(key));
            let child = table.child_or_table(&key, origin);
            set(child, Path::Key(&path, &key), rest, text, origin)
        }
        Value::Array(nodes) => {
            let count = nodes.len();
            let index = key.parse::<usize>().ok().filter(|index| *index < count);
            let Some(index) = index else {
                return Err(origin.error(
                    &path.to_string(),
                    &format!("`{key}` is not the index of one of its {count} entries"),
                ));
            };
            set(
                &mut nodes[index],
                Path::Index(&path, index),
                rest,
                text,
                origin,
            )
        }
        _ => {
            let what = format!("has no keys, so there is no `{key}` to override");
            Err(origin.error(&path.to_string(), &what))
        }
    }
}

/// The key of a table that part of a variable's name means: the same text, or else the one key
/// that differs only in case and in `-` for `_`, since many shells allow neither lower case by
/// custom nor `-` at all.
fn existing_key(table: &Table, key: &str, origin: &Origin) -> Result<Option<Text>, Error> {
    if table.child(key).is_some() {
        return Ok(Some(key.into()));
    }
    let normal = |key: &str| key.to_ascii_lowercase().replace('-', "_");
    let wanted = normal(key);
    let mut alike = table.keys().filter(|key| normal(key) == wanted);
    match (alike.next(), alike.next()) {
        (Some(first), Some(second)) => {
            let what = format!("`{key}` may mean `{first}` or `{second}`");
            Err(origin
                .error("", &what)
                .with_note("spell the key in the variable's name as in the file"))
        }
        (first, _) => Ok(first.map(Text::new)),
    }
}

fn new_key(key: &str) -> Text {
    if key.contains(|c: char| c.is_ascii_lowercase()) {
        key.into()
    } else {
        key.to_ascii_lowercase().into()
    }
}

/// The text as a TOML value, or else as text.
fn value_of(text: &str, origin: &Origin) -> Node {
    let value = read_value(text, origin).unwrap_or_else(|| Value::String(text.to_owned()));
    let scalar = !matches!(value, Value::Array(_) | Value::Table(_));
    Node {
        environment: scalar.then(|| text.to_owned()),
        value,
        origin: origin.clone(),
    }
}
