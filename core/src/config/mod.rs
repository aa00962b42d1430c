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
//! [publishing]                     # bounds of what waits to be published
//! max_queued_events = 100_000
//!
//! [subscriptions.deal-watch]       # settings of the subscription of this name
//! concurrency = 64
//! retry       = { max_attempts = 5, base = "200ms", max = "30s" }
//! # and outside of the lane: retry = { .., delayed = { pauses = ["1m", "10m"] } }
//! idempotency = { store = "redis", lease = "30s", retain = "7d" }
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

mod build;
mod delayed;
mod deserialize;
mod environment;
mod fault;
pub mod fields;
mod idempotency;
mod model;
mod origin;
mod publishing;
mod section;
mod subscription;
mod toml;
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

use crate::topic::TopicPrefix;
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
    /// Settings of all routes.
    pub routing: RoutingConfig,
    /// Settings of publishing on all routes.
    pub publishing: PublishingConfig,
    /// The routes in the order of the file. The most specific pattern wins, not the first.
    pub routes: Vec<RouteConfig>,
    /// Settings of subscriptions by name. One that is not here has the defaults:
    /// [`subscription`](Self::subscription).
    pub subscriptions: BTreeMap<Text, SubscriptionConfig>,
    pub(crate) file: Option<Text>,
}

impl Config {
    /// A config without transports and routes, for making one in code.
    pub fn new(service: impl Into<Text>) -> Self {
        Self {
            service: ServiceConfig::new(service),
            transports: BTreeMap::new(),
            routing: RoutingConfig::default(),
            publishing: PublishingConfig::default(),
            routes: Vec::new(),
            subscriptions: BTreeMap::new(),
            file: None,
        }
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

    /// Reads a TOML file for a test: every transport is of kind `memory`, under its own name and
    /// with its `prefix`. What else its section says is not read, so that no variable in it need
    /// be set.
    ///
    /// # Errors
    ///
    /// As [`from_file`](Self::from_file).
    pub fn from_file_in_memory(path: impl AsRef<Path>) -> Result<Self> {
        let (text, name) = read_file(path.as_ref())?;
        Self::parse_in_memory(&text, &name)
    }

    /// Reads TOML text and the environment of the process. Errors call the text `file_name`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) with file, line, the key's path and
    /// advice: for text that is not TOML, an unknown or missing key, a wrong value, a malformed
    /// pattern, values that contradict each other, and a variable that is not set.
    pub fn parse(text: &str, file_name: &str) -> Result<Self> {
        read(text, file_name, &Environment::of_process(), |_| {})
    }

    /// Reads TOML text for a test, as [`from_file_in_memory`](Self::from_file_in_memory).
    ///
    /// # Errors
    ///
    /// As [`parse`](Self::parse).
    pub fn parse_in_memory(text: &str, file_name: &str) -> Result<Self> {
        let environment = Environment::of_process();
        read(text, file_name, &environment, build::replace_transports)
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
        read(text, file_name, &Environment::new(variables), |_| {})
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

/// `change` sees the tree after the variables over the file and before those within it.
fn read(
    text: &str,
    file_name: &str,
    environment: &Environment,
    change: impl FnOnce(&mut tree::Node),
) -> Result<Config> {
    let mut root = toml::read(text, file_name)?;
    environment.override_values(&mut root)?;
    change(&mut root);
    environment.substitute(&mut root, tree::Path::ROOT)?;
    build::config(&root, file_name)
}
