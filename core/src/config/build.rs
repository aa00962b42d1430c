//! A config from its tree.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::deserialize::deserialize;
use super::fault::Shown;
use super::model::RouteOrigins;
use super::tree::{Node, Path, Table, Value};
use super::{
    Config, DefaultRoute, Origin, RouteConfig, RoutingConfig, Section, ServiceConfig,
    SubscriptionConfig, TransportSection,
};
use crate::{Pattern, Result, Text};

/// The keys of a config file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Keys {
    service: ServiceConfig,
    /// Read apart, because its values may be secret and must not show in errors.
    #[serde(default, rename = "transports")]
    _transports: IgnoredAny,
    #[serde(default)]
    routing: RoutingKeys,
    #[serde(default)]
    routes: Vec<RouteKeys>,
    #[serde(default)]
    subscriptions: BTreeMap<Text, SubscriptionConfig>,
}

/// What every transport has. The other keys are its factory's to judge.
#[derive(Deserialize)]
struct TransportKeys {
    kind: Text,
}

#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
struct RoutingKeys {
    default: Option<DefaultKeys>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DefaultKeys {
    transport: Text,
    topic: Text,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RouteKeys {
    pattern: Pattern,
    transport: Text,
    topic: Text,
}

pub(super) fn config(root: &Node, file_name: &str) -> Result<Config> {
    let keys: Keys = deserialize(root, Path::ROOT, Shown::Values)?;
    check_service(root, &keys.service)?;
    for (name, subscription) in &keys.subscriptions {
        check_subscription(root, name, subscription)?;
    }
    Ok(Config {
        service: keys.service,
        transports: transports(root)?,
        routing: routing(root, keys.routing),
        routes: routes(root, keys.routes),
        subscriptions: keys.subscriptions,
        file: Some(file_name.into()),
    })
}

/// Puts every transport into memory: what its section says is not read.
pub(super) fn replace_transports(root: &mut Node) {
    let Value::Table(table) = &mut root.value else {
        return;
    };
    let Some(Node {
        value: Value::Table(transports),
        ..
    }) = table.child_mut("transports")
    else {
        return;
    };
    for (_, node) in transports.nodes_mut() {
        if let Value::Table(section) = &mut node.value {
            let kind = Value::String("memory".to_owned());
            *section = Table::default();
            section.push("kind", Node::new(kind, node.origin.clone()));
        }
    }
}

fn check_service(root: &Node, service: &ServiceConfig) -> Result<()> {
    if service.name.is_empty() {
        let origin = origin(root, &["service", "name"]);
        return Err(origin
            .error("service.name", "is empty")
            .with_note("name the service: it is the source of its events"));
    }
    Ok(())
}

fn check_subscription(root: &Node, name: &str, subscription: &SubscriptionConfig) -> Result<()> {
    let Some((keys, what)) = subscription.contradiction() else {
        return Ok(());
    };
    let keys = [&["subscriptions", name][..], keys].concat();
    Err(origin(root, &keys).error(&path(&keys), &what))
}

fn transports(root: &Node) -> Result<BTreeMap<Text, TransportSection>> {
    const KEY: &str = "transports";
    let Some(node) = root.child(KEY) else {
        return Ok(BTreeMap::new());
    };
    let kinds: BTreeMap<Text, TransportKeys> = deserialize(node, Path::Start(KEY), Shown::Nothing)?;
    let sections = kinds.into_iter().map(|(name, TransportKeys { kind })| {
        let origin = origin(node, &[&name]);
        let table = node.child(&name).and_then(Node::as_table);
        let mut table = table.cloned().unwrap_or_default();
        table.remove("kind");
        let section = Section::new(table, origin.clone(), path(&[KEY, &name]));
        let section = TransportSection {
            kind,
            section,
            origin,
        };
        (name, section)
    });
    Ok(sections.collect())
}

fn routing(root: &Node, routing: RoutingKeys) -> RoutingConfig {
    let place = |key| origin(root, &["routing", "default", key]);
    RoutingConfig {
        default: routing.default.map(|default| DefaultRoute {
            transport: default.transport,
            topic: default.topic,
            origins: RouteOrigins {
                pattern: origin(root, &["routing", "default"]),
                transport: place("transport"),
                topic: place("topic"),
            },
        }),
    }
}

fn routes(root: &Node, routes: Vec<RouteKeys>) -> Vec<RouteConfig> {
    let nodes = root.child("routes").map_or(&[][..], Node::elements);
    let routes = routes.into_iter().zip(nodes).map(|(route, node)| {
        let place = |key| origin(node, &[key]);
        RouteConfig {
            pattern: route.pattern,
            transport: route.transport,
            topic: route.topic,
            origins: RouteOrigins {
                pattern: place("pattern"),
                transport: place("transport"),
                topic: place("topic"),
            },
        }
    });
    routes.collect()
}

/// Where the value was set that the keys lead to, or else the last one on the way.
fn origin(node: &Node, keys: &[&str]) -> Origin {
    match keys.split_first() {
        Some((key, rest)) => node
            .child(key)
            .map_or_else(|| node.origin.clone(), |child| origin(child, rest)),
        None => node.origin.clone(),
    }
}

fn path(keys: &[&str]) -> String {
    let start = String::new();
    keys.iter().fold(start, |path, key| {
        Path::Key(&Path::Start(&path), key).to_string()
    })
}
