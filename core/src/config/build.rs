//! A config from its tree.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::deserialize::deserialize;
use super::fault::Shown;
use super::model::RouteOrigins;
use super::topics::TopicKeys;
use super::tree::{Node, Path, Table, Value};
use super::{
    BatchConfig, CircuitBreakerConfig, Config, DedupConfig, DefaultRoute, FallbackConfig,
    OnUnknown, Origin, Priority, PublishConfig, PublishingConfig, RateLimitConfig, RetryConfig,
    RouteConfig, RoutingConfig, Section, ServiceConfig, SubscriptionConfig, TopicConfig,
    TransportSection, Validate, fields,
};
use crate::transport::TopicSpec;
use crate::{Codec, Pattern, Result, Text};

/// The keys of a config file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Keys {
    service: ServiceConfig,
    /// Read apart, because its values may be secret and must not show in errors.
    #[serde(default, rename = "transports")]
    _transports: IgnoredAny,
    /// Likewise.
    #[serde(default, rename = "schema_registry")]
    _schema_registry: IgnoredAny,
    #[serde(default)]
    routing: RoutingKeys,
    #[serde(default)]
    publishing: PublishingConfig,
    #[serde(default)]
    routes: Vec<RouteKeys>,
    #[serde(default)]
    subscriptions: BTreeMap<Text, SubscriptionConfig>,
    #[serde(default)]
    topics: BTreeMap<Text, TopicKeys>,
    #[serde(default)]
    topic_defaults: TopicKeys,
    /// Both are read before, and here for the list of known keys.
    #[serde(default, rename = "profile")]
    _profile: IgnoredAny,
    #[serde(default, rename = "profiles")]
    _profiles: IgnoredAny,
}

/// What every transport has. The other keys are its factory's to judge.
#[derive(Deserialize)]
struct TransportKeys {
    kind: Text,
    prefix: Option<Text>,
}

#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
struct RoutingKeys {
    default: Option<DefaultKeys>,
}

/// A table of a route: its own keys, and how its events are published. Not flattened, because
/// unknown keys would go unseen.
macro_rules! route_keys {
    ($name:ident { $($key:ident: $type:ty),* }) => {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct $name {
            $($key: $type,)*
            partitions: Option<u32>,
            #[serde(default)]
            batch: BatchConfig,
            #[serde(default)]
            priority: Priority,
            #[serde(default)]
            retry: RetryConfig,
            #[serde(default)]
            on_unknown: OnUnknown,
            #[serde(default)]
            validate: Validate,
            dedup: Option<DedupConfig>,
            rate_limit: Option<RateLimitConfig>,
            circuit_breaker: Option<CircuitBreakerConfig>,
            #[serde(default, deserialize_with = "fields::optional_duration")]
            timeout: Option<Duration>,
            fallback: Option<FallbackConfig>,
            #[serde(default)]
            codec: Codec,
            #[serde(default)]
            schema_registry: bool,
        }

        impl $name {
            fn publish(&self) -> PublishConfig {
                PublishConfig {
                    batch: self.batch.clone(),
                    priority: self.priority,
                    retry: self.retry.clone(),
                    on_unknown: self.on_unknown,
                    validate: self.validate,
                    dedup: self.dedup.clone(),
                    rate_limit: self.rate_limit.clone(),
                    circuit_breaker: self.circuit_breaker.clone(),
                    timeout: self.timeout,
                    fallback: self.fallback.clone(),
                }
            }
        }
    };
}

route_keys!(DefaultKeys {
    transport: Text,
    topic: Text
});
route_keys!(RouteKeys {
    pattern: Pattern,
    transport: Text,
    topic: Text,
    format: Option<Text>
});

pub(super) fn config(root: &Node, file_name: &str) -> Result<Config> {
    let mut keys: Keys = deserialize(root, Path::ROOT, Shown::Values)?;
    check_service(root, &keys.service)?;
    for (name, subscription) in &mut keys.subscriptions {
        check_subscription(root, name, subscription)?;
        if let Some(idempotency) = &mut subscription.idempotency {
            idempotency.origin = origin(root, &["subscriptions", name, "idempotency", "store"]);
        }
    }
    Ok(Config {
        service: keys.service,
        transports: transports(root)?,
        schema_registry: schema_registry(root),
        routing: routing(root, keys.routing)?,
        publishing: keys.publishing,
        routes: routes(root, keys.routes)?,
        subscriptions: keys.subscriptions,
        topics: topics(root, keys.topics)?,
        topic_defaults: topic_defaults(root, keys.topic_defaults)?,
        profile: None,
        file: Some(file_name.into()),
    })
}

/// Puts every transport and the schema registry into memory: what their sections say is not read.
pub(super) fn replace_transports(root: &mut Node) {
    let Value::Table(table) = &mut root.value else {
        return;
    };
    if let Some(registry) = table.child_mut("schema_registry") {
        registry.value = Value::Table(Table::default());
    }
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
            let prefix = section.child("prefix").cloned();
            *section = Table::default();
            section.push("kind", Node::new(kind, node.origin.clone()));
            // Topics have the same names as on servers.
            if let Some(prefix) = prefix {
                section.push("prefix", prefix);
            }
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
    if service.group.as_ref().is_some_and(Text::is_empty) {
        return Err(origin(root, &["service", "group"]).error("service.group", "is empty"));
    }
    let Some(text) = &service.origin else {
        return Ok(());
    };
    if Pattern::parse(text).is_ok_and(|it| it.is_literal()) {
        return Ok(());
    }
    let origin = origin(root, &["service", "origin"]);
    let what = format!("`{text}` is not the beginning of an event type");
    Err(origin
        .error("service.origin", &what)
        .with_note("write words with dots between them, as `eu.de`"))
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
    let sections = kinds
        .into_iter()
        .map(|(name, TransportKeys { kind, prefix })| {
            let origin = origin(node, &[&name]);
            let table = node.child(&name).and_then(Node::as_table);
            let mut table = table.cloned().unwrap_or_default();
            table.remove("kind");
            table.remove("prefix");
            let section = Section::new(table, origin.clone(), path(&[KEY, &name]));
            let section = TransportSection {
                kind,
                prefix,
                section,
                origin,
            };
            (name, section)
        });
    Ok(sections.collect())
}

fn topics(root: &Node, topics: BTreeMap<Text, TopicKeys>) -> Result<BTreeMap<Text, TopicConfig>> {
    let topics = topics.into_iter().map(|(name, keys)| {
        let place = ["topics", name.as_str()];
        if name.is_empty() {
            return Err(origin(root, &place).error(&path(&place), "the name is empty"));
        }
        check_properties(root, &place, &keys)?;
        let topic = TopicConfig {
            transport: keys.transport.clone(),
            spec: keys.spec(&name),
            origin: origin(root, &place),
        };
        Ok((name, topic))
    });
    topics.collect()
}

fn topic_defaults(root: &Node, keys: TopicKeys) -> Result<TopicSpec> {
    let place = ["topic_defaults"];
    check_properties(root, &place, &keys)?;
    if keys.transport.is_some() {
        let place = [place[0], "transport"];
        let error = origin(root, &place).error(&path(&place), "is not for all topics");
        return Err(error.with_note("set it under [topics.<name>]"));
    }
    Ok(keys.spec(""))
}

fn check_properties(root: &Node, place: &[&str], keys: &TopicKeys) -> Result<()> {
    let Some((property, key)) = keys.misplaced() else {
        return Ok(());
    };
    let place = [place, &["properties", property]].concat();
    let what = format!("has a key of its own: `{key}`");
    Err(origin(root, &place).error(&path(&place), &what))
}

fn schema_registry(root: &Node) -> Option<Section> {
    const KEY: &str = "schema_registry";
    let node = root.child(KEY)?;
    let table = node.as_table().cloned().unwrap_or_default();
    Some(Section::new(table, node.origin.clone(), KEY.to_owned()))
}

fn routing(root: &Node, routing: RoutingKeys) -> Result<RoutingConfig> {
    let Some(keys) = routing.default else {
        return Ok(RoutingConfig::default());
    };
    let node = root.child("routing").and_then(|node| node.child("default"));
    let node = node.expect("what was read is there");
    let publish = checked(keys.publish(), node, "routing.default")?;
    Ok(RoutingConfig {
        default: Some(DefaultRoute {
            transport: keys.transport,
            topic: keys.topic,
            codec: keys.codec,
            schema_registry: keys.schema_registry,
            partitions: keys.partitions,
            publish,
            origins: RouteOrigins {
                pattern: node.origin.clone(),
                ..route_origins(node)
            },
        }),
    })
}

fn routes(root: &Node, routes: Vec<RouteKeys>) -> Result<Vec<RouteConfig>> {
    let nodes = root.child("routes").map_or(&[][..], Node::elements);
    let routes = routes.into_iter().zip(nodes).enumerate();
    let routes = routes.map(|(index, (keys, node))| {
        let publish = checked(keys.publish(), node, &format!("routes[{index}]"))?;
        Ok(RouteConfig {
            pattern: keys.pattern,
            transport: keys.transport,
            topic: keys.topic,
            format: keys.format,
            codec: keys.codec,
            schema_registry: keys.schema_registry,
            partitions: keys.partitions,
            publish,
            origins: route_origins(node),
        })
    });
    routes.collect()
}

fn route_origins(node: &Node) -> RouteOrigins {
    RouteOrigins {
        pattern: origin(node, &["pattern"]),
        transport: origin(node, &["transport"]),
        topic: origin(node, &["topic"]),
        fallback: origin(node, &["fallback", "transport"]),
        format: origin(node, &["format"]),
        codec: origin(node, &["codec"]),
        schema_registry: origin(node, &["schema_registry"]),
        partitions: origin(node, &["partitions"]),
    }
}

fn checked(publish: PublishConfig, node: &Node, start: &str) -> Result<PublishConfig> {
    let Some((keys, what)) = publish.contradiction() else {
        return Ok(publish);
    };
    let path = format!("{start}.{}", path(keys));
    Err(origin(node, keys).error(&path, &what))
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
