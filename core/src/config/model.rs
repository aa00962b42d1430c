use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use super::{Origin, PublishConfig, Section, SubscriptionConfig, fields};
use crate::{Codec, Pattern, Text};

/// Settings of the service: `[service]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct ServiceConfig {
    /// The service's name: the `source` of its events and the default consumer group. Not empty.
    pub name: Text,
    /// The consumer group of subscriptions that name none. Default: the service's name.
    #[serde(default)]
    pub group: Option<Text>,
    /// How long an orderly end may take. Default: 30 s.
    #[serde(
        default = "ServiceConfig::default_deadline",
        deserialize_with = "fields::duration"
    )]
    pub shutdown_deadline: Duration,
    /// The largest event that may be published, in bytes, its attributes included. Default:
    /// 1 MiB.
    #[serde(
        default = "ServiceConfig::default_event_size",
        deserialize_with = "fields::size"
    )]
    pub max_event_size: usize,
    /// What stands before the name of every topic, on every transport, as `"staging."`. A name that
    /// begins with it is left as it is. Default: nothing.
    #[serde(default)]
    pub prefix: Text,
    /// Where the service runs, as `"eu.de"`: what stands, with a dot, before the types of the
    /// events that it publishes, and of those that its typed handlers take. Routes and patterns
    /// are of the whole type. Default: nothing.
    #[serde(default)]
    pub origin: Option<Text>,
    /// A folder of JSON Schemas, relative to the config file: `user.created@1.json` is that of major
    /// version 1 of the data of `user.created`, `user.created.json` that of every version without one of
    /// its own. They hold on routes that validate, in place of those of Rust types. Read once, at the
    /// start. Needs the feature `schema`. Default: none.
    #[serde(default)]
    pub schemas: Option<PathBuf>,
}

impl ServiceConfig {
    /// The defaults under a name.
    pub fn new(name: impl Into<Text>) -> Self {
        Self {
            name: name.into(),
            group: None,
            shutdown_deadline: Self::default_deadline(),
            max_event_size: Self::default_event_size(),
            prefix: Text::default(),
            origin: None,
            schemas: None,
        }
    }

    /// The consumer group of a subscription: its own, else the service's, else the service's name.
    pub fn group_of<'a>(&'a self, subscription: &'a SubscriptionConfig) -> &'a Text {
        let group = subscription.group.as_ref().or(self.group.as_ref());
        group.unwrap_or(&self.name)
    }

    fn default_deadline() -> Duration {
        Duration::from_secs(30)
    }

    fn default_event_size() -> usize {
        1 << 20
    }
}

/// A transport: `[transports.<name>]`.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct TransportSection {
    /// The kind under which its factory is registered.
    pub kind: Text,
    /// What stands before the name of every topic here, in place of the service's
    /// [`prefix`](ServiceConfig::prefix). Default: that one.
    pub prefix: Option<Text>,
    /// The other settings, which the factory reads.
    pub section: Section,
    /// Where the transport was declared.
    pub origin: Origin,
}

impl TransportSection {
    /// A transport of a kind, declared in code.
    pub fn new(kind: impl Into<Text>, section: Section) -> Self {
        Self {
            kind: kind.into(),
            prefix: None,
            section,
            origin: Origin::Code,
        }
    }
}

/// Settings of all routes: `[routing]`.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct RoutingConfig {
    /// Where an event goes that no route takes. Default: nowhere, publishing it is an error.
    pub default: Option<DefaultRoute>,
}

/// Where an event goes that no route takes.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct DefaultRoute {
    /// The transport's name.
    pub transport: Text,
    /// The topic's name or template, as in [`RouteConfig::topic`].
    pub topic: Text,
    /// How data is written. Default: JSON.
    pub codec: Codec,
    /// Whether the schemas of the data stand in a [registry](crate::registry), and data name theirs.
    /// Default: `false`.
    pub schema_registry: bool,
    /// Into how many partitions the topic is divided, as in [`RouteConfig::partitions`].
    pub partitions: Option<u32>,
    /// How the events are published.
    pub publish: PublishConfig,
    pub(crate) origins: RouteOrigins,
}

impl DefaultRoute {
    /// A default made in code.
    pub fn new(transport: impl Into<Text>, topic: impl Into<Text>) -> Self {
        Self {
            transport: transport.into(),
            topic: topic.into(),
            codec: Codec::default(),
            schema_registry: false,
            partitions: None,
            publish: PublishConfig::default(),
            origins: RouteOrigins::default(),
        }
    }
}

/// A route: `[[routes]]`.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct RouteConfig {
    /// The event types that take the route. No two routes have the same pattern.
    pub pattern: Pattern,
    /// The name of the transport they travel on.
    pub transport: Text,
    /// The topic they travel in: a name, in which `{type}` stands for the event type and `{1}`,
    /// `{2}` for its segments, counted from 1. `{{` and `}}` are braces, as in the hash tag of
    /// `{{user}}-events`.
    pub topic: Text,
    /// The [format](crate::format) of the topic's records. Default: the transport's own, CloudEvents.
    pub format: Option<Text>,
    /// How data is written. Default: JSON.
    pub codec: Codec,
    /// Whether the schemas of the data stand in a [registry](crate::registry), and data name theirs.
    /// Default: `false`.
    pub schema_registry: bool,
    /// Into how many partitions the topic is divided, 1 to 1,024. Order per key then holds across
    /// all members of a group on Redis Streams too. Everything that names the topic must say the
    /// same, in every service; the number can't be changed later. Default: as the server has it,
    /// and undivided on Redis Streams.
    pub partitions: Option<u32>,
    /// How the events are published.
    pub publish: PublishConfig,
    pub(crate) origins: RouteOrigins,
}

impl RouteConfig {
    /// A route made in code.
    pub fn new(pattern: Pattern, transport: impl Into<Text>, topic: impl Into<Text>) -> Self {
        Self {
            pattern,
            transport: transport.into(),
            topic: topic.into(),
            format: None,
            codec: Codec::default(),
            schema_registry: false,
            partitions: None,
            publish: PublishConfig::default(),
            origins: RouteOrigins::default(),
        }
    }

    /// Where the route's pattern was set.
    pub fn origin(&self) -> &Origin {
        &self.origins.pattern
    }
}

/// Where the keys of a route were set.
#[derive(Debug, Clone, Default)]
pub(crate) struct RouteOrigins {
    pub(crate) pattern: Origin,
    pub(crate) transport: Origin,
    pub(crate) topic: Origin,
    pub(crate) fallback: Origin,
    pub(crate) format: Origin,
    pub(crate) codec: Origin,
    pub(crate) schema_registry: Origin,
    pub(crate) partitions: Origin,
}
