//! The config file.
//!
//! ```toml
//! [service]
//! name = "deal-monitor"            # the source of events and the default group
//! prefix = "${STAGE:-}"            # before the name of every topic, as `staging.`
//!
//! [transports.redis]
//! kind = "redis-streams"
//! url  = "${REDIS_URL:-redis://127.0.0.1:6379}"
//!
//! [[routes]]
//! pattern   = "user.*"
//! transport = "redis"
//! topic     = "user-events"        # or a template: `events.{1}`
//! batch     = { max_events = 500, max_bytes = "1MiB", max_wait = "1ms" }
//! retry     = { max_attempts = 5, base = "200ms", max = "30s" }
//!
//! codec     = "json"               # or `message_pack`, `avro`, `protobuf`
//!
//! [publishing]                     # bounds of what waits to be published
//! max_queued_events = 100_000
//!
//! [subscriptions.deal-watch]       # settings of the subscription of this name
//! concurrency = 64
//! retry       = { max_attempts = 5, base = "200ms", max = "30s" }
//! # and outside of the lane: retry = { .., delayed = { pauses = ["1m", "10m"] } }
//! idempotency = { store = "redis", lease = "30s", retain = "7d" }
//!
//! [topics.user-events]             # what `Bus::topics().plan()` makes of the topic
//! partitions = 12
//! retention  = "30d"
//! ```
//!
//! # The environment
//!
//! Within a text, `${VAR}` stands for the value of a variable and `${VAR:-default}` for a
//! default where it is unset or empty; `$$` is a dollar sign. A number or a truth value may be
//! given so as well: `concurrency = "${WORKERS}"`. A value can't bring structure with it.
//!
//! A variable `POLYBUS__section__key` overrides the key, or adds it. Its value is read as
//! TOML and, where it is none, as text:
//! `POLYBUS__subscriptions__deal-watch__concurrency=128`, `POLYBUS__routes__0__topic=users`. A
//! key that the file has may be spelled in upper case, and with `_` for `-`.

//!
//! # Profiles
//!
//! A profile says what is different where the program runs. It is chosen by the program
//! ([`Config::from_file_in_profile`]), else by the variable `POLYBUS__profile`, else by the file:
//!
//! ```toml
//! profile = "${STAGE:-development}"
//!
//! [profiles.development.transports.screen]
//! kind = "console"
//!
//! [[profiles.development.routes]]       # a route that the others have not
//! pattern   = "debug.*"
//! transport = "screen"
//! topic     = "debug"
//!
//! [profiles.production.transports.kafka]
//! brokers  = ["kafka-0:9093", "kafka-1:9093"]
//! user     = "accounts"
//! password = "${KAFKA_PASSWORD}"
//! ```
//!
//! What a profile says stands over what the file says outside of profiles. Tables are merged; a
//! transport of another `kind` replaces the one of its name whole; routes are added, each in the place
//! of one with the same pattern. Variables stand over all of it.
//!
//! Profiles that are not chosen are checked too, whether the variables are set that they name or not: an
//! unknown key or a wrong value is an error wherever the file is read. What is within the section of a
//! transport is for the transport to judge, when it connects.
//!
//! Two profiles bring something of themselves, where the config says nothing:
//!
//! | | `development` | `production` |
//! |---|---|---|
//! | `topic_defaults` | 12 partitions, 1 replica | 12 partitions, 3 replicas, `retention = "30d"` |
//! | transports of kind `kafka` | | `acks = "all"`, `tls = true`, `sasl_mechanism = "SCRAM-SHA-512"` |
//!
//! A config that sets `tls` itself gets neither that nor the login, and one with a
//! `certificate_file` or a `sasl_mechanism` keeps its own.

mod build;
mod delayed;
mod deserialize;
mod environment;
mod fault;
pub mod fields;
mod from_environment;
mod idempotency;
mod model;
mod origin;
mod profile;
mod publishing;
mod section;
mod subscription;
mod toml;
mod topics;
mod tree;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

pub use delayed::{DelayedRetry, DelayedTopic};
pub(crate) use fault::nearest;
pub use idempotency::IdempotencyConfig;
pub(crate) use model::RouteOrigins;
pub use model::{DefaultRoute, RouteConfig, RoutingConfig, ServiceConfig, TransportSection};
pub use origin::Origin;
pub use publishing::{
    BatchConfig, CircuitBreakerConfig, DedupConfig, FailedConfig, FallbackConfig, GroupBy,
    OnUnknown, Priority, PublishConfig, PublishingConfig, RateLimitConfig, Validate, WhenOpen,
};
pub use section::Section;
pub use subscription::{
    DeadLetter, DeadLetterTopic, OnFailure, Ordering, RetryConfig, SubscriptionConfig, Unhandled,
};

pub use topics::TopicConfig;

use crate::topic::TopicPrefix;
use crate::transport::TopicSpec;
use crate::{Result, Text};
use environment::Environment;

/// What a config file says.
///
/// Parsing checks syntax, keys and each value; [`RouteTable::compile`](crate::routing::RouteTable::compile)
/// checks the routes against each other and against the transports.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Config {
    /// Settings of the service.
    pub service: ServiceConfig,
    /// The transports by name.
    pub transports: BTreeMap<Text, TransportSection>,
    /// The settings of the [schema registry](crate::registry), which its client reads. Default: none.
    pub schema_registry: Option<Section>,
    /// Settings of all routes.
    pub routing: RoutingConfig,
    /// Settings of publishing on all routes.
    pub publishing: PublishingConfig,
    /// The routes in the order of the file. The most specific pattern wins, not the first.
    pub routes: Vec<RouteConfig>,
    /// Settings of subscriptions by name. One that is not here has the defaults:
    /// [`subscription`](Self::subscription).
    pub subscriptions: BTreeMap<Text, SubscriptionConfig>,
    /// What topics are to be like that a bus creates, by name, with or without the
    /// [prefix](Self::topic_prefix).
    pub topics: BTreeMap<Text, TopicConfig>,
    /// What holds for every topic that says nothing else: `[topic_defaults]`. Its name is empty.
    pub topic_defaults: TopicSpec,
    /// The profile that the config was read in. Default: none.
    pub profile: Option<Text>,
    pub(crate) file: Option<Text>,
}

impl Config {
    /// A config without transports and routes, for making one in code.
    pub fn new(service: impl Into<Text>) -> Self {
        Self {
            service: ServiceConfig::new(service),
            transports: BTreeMap::new(),
            schema_registry: None,
            routing: RoutingConfig::default(),
            publishing: PublishingConfig::default(),
            routes: Vec::new(),
            subscriptions: BTreeMap::new(),
            topics: BTreeMap::new(),
            topic_defaults: TopicSpec::new(""),
            profile: None,
            file: None,
        }
    }

    /// The error for a config without a schema registry, at the first route that asks for one. `None` if
    /// none does.
    pub fn first_registered(&self) -> Option<crate::Error> {
        let what = "there is no schema registry";
        let mut routes = self.routes.iter().enumerate();
        let route = routes.find(|(_, route)| route.schema_registry);
        if let Some((index, route)) = route {
            let path = format!("routes[{index}].schema_registry");
            return Some(route.origins.schema_registry.error(&path, what));
        }
        let default = self.routing.default.as_ref();
        let default = default.filter(|route| route.schema_registry)?;
        let origin = &default.origins.schema_registry;
        Some(origin.error("routing.default.schema_registry", what))
    }

    /// Reads a TOML file and the environment of the process.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) if the file can't be read, and as
    /// [`parse`](Self::parse).
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self> {
        let (text, name) = read_file(path.as_ref())?;
        Self::parse(&text, &name)
    }

    /// Reads a TOML file in a [profile](self#profiles), whichever the file or a variable names.
    ///
    /// # Errors
    ///
    /// As [`from_file`](Self::from_file), and if there is no such profile.
    pub fn from_file_in_profile(path: impl AsRef<Path>, profile: &str) -> Result<Self> {
        let (text, name) = read_file(path.as_ref())?;
        Reading::new(&Environment::of_process(), &name)
            .profile(profile)
            .read(&text)
    }

    /// Reads a TOML file for a test: every transport is of kind `memory`, under its own name and
    /// with its `prefix`. What else its section says is not read, so that no variable in it need
    /// be set. In a [profile](self#profiles), unless that is `None` and nobody else names one.
    ///
    /// # Errors
    ///
    /// As [`from_file`](Self::from_file).
    pub fn from_file_in_memory(path: impl AsRef<Path>, profile: Option<&str>) -> Result<Self> {
        let (text, name) = read_file(path.as_ref())?;
        let environment = Environment::of_process();
        let mut reading = Reading::new(&environment, &name).in_memory();
        reading.profile = profile;
        reading.read(&text)
    }

    /// Reads TOML text and the environment of the process. Errors call the text `file_name`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) with file, line, the key's path and
    /// advice: for text that is not TOML, an unknown or missing key, a wrong value, a malformed
    /// pattern, values that contradict each other, and a variable that is not set.
    pub fn parse(text: &str, file_name: &str) -> Result<Self> {
        Reading::new(&Environment::of_process(), file_name).read(text)
    }

    /// Reads TOML text for a test, as [`from_file_in_memory`](Self::from_file_in_memory).
    ///
    /// # Errors
    ///
    /// As [`parse`](Self::parse).
    pub fn parse_in_memory(text: &str, file_name: &str) -> Result<Self> {
        Reading::new(&Environment::of_process(), file_name)
            .in_memory()
            .read(text)
    }

    /// Reads TOML text, with these environment variables instead of the process's.
    ///
    /// # Errors
    ///
    /// As [`parse`](Self::parse).
    pub fn parse_with<K: Into<String>, V: Into<String>>(
        text: &str,
        file_name: &str,
        variables: impl IntoIterator<Item = (K, V)>,
    ) -> Result<Self> {
        Reading::new(&Environment::new(variables), file_name).read(text)
    }

    /// What stands before the names of a transport's topics: its own `prefix`, or the service's.
    pub fn topic_prefix(&self, transport: &str) -> TopicPrefix {
        let section = self.transports.get(transport);
        let own = section.and_then(|section| section.prefix.as_ref());
        TopicPrefix::new(own.unwrap_or(&self.service.prefix).clone())
    }

    /// Where the folder of schemas is.
    pub(crate) fn schemas(&self) -> Option<PathBuf> {
        let folder = self.service.schemas.as_ref()?;
        let beside = self
            .file
            .as_deref()
            .and_then(|file| Path::new(file).parent());
        Some(beside.map_or_else(|| folder.clone(), |beside| beside.join(folder)))
    }

    /// The settings of the subscription of a name, the defaults if it has none.
    pub fn subscription(&self, name: &str) -> SubscriptionConfig {
        self.subscriptions.get(name).cloned().unwrap_or_default()
    }
}

/// The text of a file and what errors call it.
fn read_file(path: &Path) -> Result<(String, String)> {
    let name = path.display().to_string();
    let text = std::fs::read_to_string(path).map_err(|error| {
        let origin = Origin::file(&name.as_str().into(), 0);
        let what = format!("the config file can't be read: {error}");
        origin.error("", &what).with_source(error)
    })?;
    Ok((text, name))
}

/// How a config is read.
struct Reading<'a> {
    environment: &'a Environment,
    /// What the text is called.
    name: &'a str,
    profile: Option<&'a str>,
    in_memory: bool,
}

impl<'a> Reading<'a> {
    fn new(environment: &'a Environment, name: &'a str) -> Self {
        Self {
            environment,
            name,
            profile: None,
            in_memory: false,
        }
    }

    fn profile(self, profile: &'a str) -> Self {
        Self {
            profile: Some(profile),
            ..self
        }
    }

    fn in_memory(self) -> Self {
        Self {
            in_memory: true,
            ..self
        }
    }

    fn read(self, text: &str) -> Result<Config> {
        let root = toml::read(text, self.name)?;
        self.finish(root)
    }

    /// A profile stands over the file, variables over both, and variables within come last.
    fn finish(self, mut root: tree::Node) -> Result<Config> {
        let declared = profile::all(&root)?;
        let profile = profile::overlay(&mut root, self.profile, self.environment)?;
        self.environment.override_values(&mut root)?;
        if self.in_memory {
            build::replace_transports(&mut root);
        }
        self.environment.substitute(&mut root, tree::Path::ROOT)?;
        if let Some(profile) = &profile {
            profile.fill(&mut root);
        }
        let mut config = build::config(&root, self.name)?;
        config.profile = profile.map(|profile| profile.name);
        for (name, other) in declared {
            if config.profile.as_ref() != Some(&name) {
                self.check_other(&name, other)?;
            }
        }
        Ok(config)
    }

    /// Looks for what is wrong in a profile that is not chosen. The variables of its place need not be set
    /// here, so what is made of them may be missing, and those that are set over the file are not for it.
    fn check_other(&self, name: &str, mut root: tree::Node) -> Result<()> {
        if self.in_memory {
            build::replace_transports(&mut root);
        }
        let elsewhere = |error: crate::Error| {
            error.with_note(format!("in the profile `{name}`, which is not chosen"))
        };
        let unknown = self.environment.substitute_known(&mut root);
        let mut unknown = unknown.map_err(elsewhere)?;
        unknown.extend(self.environment.overridden());
        let Err(error) = build::config(&root, self.name) else {
            return Ok(());
        };
        // As loosely as keys are found that variables name.
        let normal = |text: &str| text.to_ascii_lowercase().replace('-', "_");
        let message = normal(error.message());
        if unknown.iter().any(|path| message.contains(&normal(path))) {
            return Ok(());
        }
        Err(elsewhere(error))
    }
}
