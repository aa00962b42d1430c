//! The AsyncAPI document of a service.

mod document;
mod message;
mod schema;
mod servers;

use std::fmt;

use serde_json::Value;

use crate::bus::Bus;
use crate::event::Contract;
use crate::{Error, ErrorKind, EventData, Pattern, Result, Text};

/// The [AsyncAPI](https://www.asyncapi.com) 3.0 document of a service, from its config, its routes, the
/// handlers of the subscriptions that run, and the types that it publishes. Made by
/// [`Bus::asyncapi`].
///
/// - A server for each transport (for each broker of a Kafka), with how to log in, and no password.
/// - A channel for each topic that is published to or read from, with what the config wants of it.
/// - A message for each event type, as it stands on the wire by its route's codec and format: content type,
///   headers, and the schema of the payload where the Rust type tells one (JSON Schema, also of what a format
///   puts around the data; Avro and Protobuf in their own language). How a format of one's own looks is said
///   by [`Format::layout`](crate::format::Format::layout).
/// - An operation for each event type that is published (`send`), and for each topic that a
///   subscription reads (`receive`).
///
/// ```
/// # use polybus::{Bus, Config, Event};
/// # use serde::{Deserialize, Serialize};
/// #[derive(Event, Serialize, Deserialize)]
/// #[event(type = "user.created", version = "1.2.0")]
/// struct UserCreated { user_id: String }
///
/// # #[tokio::main]
/// # async fn main() -> polybus::Result<()> {
/// # let config = Config::parse(r#"
/// #     service.name = "accounts"
/// #     transports.local.kind = "memory"
/// #     routes = [{ pattern = "user.*", transport = "local", topic = "user-events" }]
/// # "#, "polybus.toml")?;
/// # let bus = Bus::builder().config(config).build().await?;
/// let document = bus.asyncapi().version("2.1.0").publishes::<UserCreated>();
/// let yaml = document.to_yaml()?;
/// assert!(yaml.contains("address: user-events"));
/// # Ok(()) }
/// ```
///
/// A document can be made without a server: `Bus::builder().config(config).in_memory()` still has the
/// servers of the config.
#[derive(Clone)]
#[must_use = "a document is made by `to_yaml` or `to_json`"]
pub struct AsyncApi {
    bus: Bus,
    title: Text,
    version: Text,
    description: Option<Text>,
    published: Vec<Contract>,
}

/// What a subscription reads, and what of it it handles.
struct Receives {
    subscription: Text,
    group: Text,
    /// Transports and topics.
    topics: Vec<(Text, Text)>,
    contracts: Vec<Contract>,
    interests: Vec<Pattern>,
}

impl AsyncApi {
    pub(crate) fn new(bus: Bus) -> Self {
        let title = bus.inner.config.service.name.clone();
        Self {
            bus,
            title,
            version: Text::new_static("1.0.0"),
            description: None,
            published: Vec::new(),
        }
    }

    /// Names the service. Default: its name in the config.
    pub fn title(mut self, title: impl Into<Text>) -> Self {
        self.title = title.into();
        self
    }

    /// Sets the version of the document. Default: `1.0.0`.
    pub fn version(mut self, version: impl Into<Text>) -> Self {
        self.version = version.into();
        self
    }

    /// Says what the service is for. Default: nothing.
    pub fn description(mut self, description: impl Into<Text>) -> Self {
        self.description = Some(description.into());
        self
    }

    /// Adds the event types of a Rust type that the service publishes. Those that it handles are known
    /// from its subscriptions.
    pub fn publishes<T: EventData>(mut self) -> Self {
        let origin = self.bus.inner.config.service.origin.as_deref();
        self.published.extend(Contract::of::<T>(origin));
        self
    }

    /// The document.
    ///
    /// # Errors
    ///
    /// [`NoRoute`](ErrorKind::NoRoute) for a type that is published and that no route takes;
    /// [`Config`](ErrorKind::Config) for settings of a transport that can't be read.
    pub fn to_value(&self) -> Result<Value> {
        let receives = self.bus.receives();
        document::write(self, &self.bus.inner, &receives)
    }

    /// The document as JSON, in lines.
    ///
    /// # Errors
    ///
    /// As [`to_value`](Self::to_value).
    pub fn to_json(&self) -> Result<String> {
        let value = self.to_value()?;
        serde_json::to_string_pretty(&value).map_err(unwritten)
    }

    /// The document as YAML.
    ///
    /// # Errors
    ///
    /// As [`to_value`](Self::to_value).
    pub fn to_yaml(&self) -> Result<String> {
        serde_saphyr::to_string(&self.to_value()?).map_err(unwritten)
    }
}

impl Bus {
    /// The AsyncAPI document of this service: what it publishes, what it handles, and where.
    pub fn asyncapi(&self) -> AsyncApi {
        AsyncApi::new(self.clone())
    }

    fn receives(&self) -> Vec<Receives> {
        let subscriptions = self.inner.lock_subscriptions();
        let receives = subscriptions.iter().map(|task| Receives {
            subscription: task.name().clone(),
            group: task.group().clone(),
            topics: task.topics.clone(),
            contracts: task.takes.contracts.clone(),
            interests: task.takes.interests.clone(),
        });
        receives.collect()
    }
}

impl fmt::Debug for AsyncApi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AsyncApi")
            .field("title", &self.title)
            .field("version", &self.version)
            .field("published", &self.published)
            .finish_non_exhaustive()
    }
}

fn unwritten(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::new(ErrorKind::Encode, "the document can't be written").with_source(error)
}
