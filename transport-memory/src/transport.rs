use std::fmt;
use std::sync::Arc;

use polybus_core::idempotency::IdempotencyStore;
use polybus_core::transport::{Capabilities, KeyOrder, Subscription, Transport};
use polybus_core::{Event, Result, Text};

use crate::broker::Broker;
use crate::{MemoryAdmin, MemoryConfig, MemoryPublisher, MemorySubscriber};

/// A client of a broker in memory. Clones are clients of the same broker.
#[derive(Clone)]
pub struct MemoryTransport {
    client: Client,
}

/// The broker, and the name under which errors speak of the transport.
#[derive(Clone)]
pub(crate) struct Client {
    pub(crate) name: Text,
    pub(crate) broker: Arc<Broker>,
}

impl MemoryTransport {
    /// A new broker with the default settings, named `memory`.
    pub fn new() -> Self {
        Self::with_broker(&MemoryConfig::default())
    }

    /// A new broker with settings, named `memory`.
    ///
    /// # Errors
    ///
    /// [`Config`](polybus_core::ErrorKind::Config) for a bound of 0.
    pub fn with_config(config: &MemoryConfig) -> Result<Self> {
        config.validate()?;
        Ok(Self::with_broker(config))
    }

    /// The same client under another name, which its errors carry.
    #[must_use]
    pub fn named(mut self, name: impl Into<Text>) -> Self {
        self.client.name = name.into();
        self
    }

    /// What was published to a topic and is still held, in order: settled events too, raw records
    /// not. Nothing for a topic that does not exist.
    pub fn events(&self, topic: &str) -> Vec<Event> {
        self.client.broker.lock().events(topic)
    }

    /// The names of the topics there are, sorted.
    pub fn topics(&self) -> Vec<Text> {
        self.client.broker.lock().topics()
    }

    fn with_broker(config: &MemoryConfig) -> Self {
        Self {
            client: Client {
                name: Text::new_static("memory"),
                broker: Arc::new(Broker::new(config)),
            },
        }
    }
}

impl fmt::Debug for Client {
    /// Without what the broker holds: events are many, and may be private.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("name", &self.name).finish()
    }
}

impl Default for MemoryTransport {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for MemoryTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryTransport")
            .field("name", &self.client.name)
            .field("topics", &self.topics())
            .finish()
    }
}

impl Transport for MemoryTransport {
    type Publisher = MemoryPublisher;
    type Subscriber = MemorySubscriber;
    type Admin = MemoryAdmin;

    fn capabilities(&self) -> Capabilities {
        Capabilities::none()
            .with_key_order(KeyOrder::Group)
            .with_delivery_count()
            .with_release()
            .with_start_at_time()
            .with_creates_topics()
            .with_discovery()
            .with_transactions()
            .with_exactly_once()
            .with_forward()
            .with_browse()
            .with_purge()
            .with_idempotency()
            .with_reset()
            .with_manage_topics()
    }

    async fn publisher(&self) -> Result<MemoryPublisher> {
        Ok(MemoryPublisher::new(self.client.clone()))
    }

    async fn subscribe(&self, subscription: Subscription) -> Result<MemorySubscriber> {
        Ok(MemorySubscriber::new(self.client.clone(), &subscription))
    }

    fn admin(&self) -> MemoryAdmin {
        MemoryAdmin::new(self.client.clone())
    }

    fn idempotency(&self) -> Option<Arc<dyn IdempotencyStore>> {
        Some(self.client.broker.idempotency())
    }
}
