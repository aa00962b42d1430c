//! A config from its tree.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::deserialize::deserialize;
use super::fault::Shown;
use super::model::RouteOrigins;
use super::tree::{Node, Path};
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
    #[serde(default)]
    transports: BTreeMap<Text, TransportKeys>,
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
        transports: transports(root, keys.transports),
        routing: routing(root, keys.routing),
        routes: routes(root, keys.routes),
        subscriptions: keys.subscriptions,
        file: Some(file_name.into()),
    })
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

fn transports(
    root: &Node,
    transports: BTreeMap<Text, TransportKeys>,
) -> BTreeMap<Text, TransportSection> {
    let transports = transports.into_iter().map(|(name, keys)| {
        let place = ["transports", name.as_str()];
        let origin = origin(root, &place);
        let table = place.iter().try_fold(root, |node, key| node.child(key));
        let mut table = table.and_then(Node::as_table).cloned().unwrap_or_default();
        table.remove("kind");
        let section = TransportSection {
            kind: keys.kind,
            section: Section::new(table, origin.clone(), path(&place)),
            origin,
        };
        (name, section)
    });
    transports.collect()
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
