use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use polybus_core::idempotency::IdempotencyStore;
use polybus_core::transport::{
    Capabilities, DynTransport, KeyOrder, Subscription, Transport, TransportConfig,
    TransportFactory,
};
use polybus_core::{ErrorKind, Result};
use tokio::time::Instant;

use crate::admin::RedisAdmin;
use crate::client::{Client, Cmd};
use crate::config::RedisConfig;
use crate::connection::{Connection, Link};
use crate::idempotency::RedisIdempotency;
use crate::publisher::RedisPublisher;
use crate::reply;
use crate::subscriber::RedisSubscriber;

/// A Redis server, of version 7.0 or newer, as a transport: a topic is a stream.
///
/// See the [crate's page](crate) for what it promises and how events stand in a stream.
#[derive(Clone)]
pub struct RedisTransport {
    client: Client,
    config: RedisConfig,
    link: Arc<Link>,
    idempotency: Arc<RedisIdempotency>,
}

impl RedisTransport {
    /// Connects to the server and checks that it can be used. Warns (by `tracing`) of a
    /// `maxmemory-policy` that deletes whole streams.
    ///
    /// # Errors
    ///
    /// [`Config`](polybus_core::ErrorKind::Config) for a setting that can't work;
    /// [`Connect`](polybus_core::ErrorKind::Connect) if the server can't be reached within the
    /// connect deadline, naming the address;
    /// [`Unauthorized`](polybus_core::ErrorKind::Unauthorized) if it refuses the login;
    /// [`Unsupported`](polybus_core::ErrorKind::Unsupported) if it is older than 7.0.
    pub async fn connect(config: RedisConfig) -> Result<Self> {
        config
            .validate()
            .map_err(|(key, why)| config.wrong(key, why))?;
        let client = Client::new(&config)?;
        let connection = client
            .open(Instant::now() + config.connect_deadline)
            .await?;
        warn_of_eviction(&config, &connection).await;
        let link = Arc::new(Link::new(client.clone(), Some(connection)));
        let idempotency = RedisIdempotency::new(&client, config.operation_deadline);
        Ok(Self {
            client,
            config,
            link,
            idempotency: Arc::new(idempotency),
        })
    }
}

impl Transport for RedisTransport {
    type Publisher = RedisPublisher;
    type Subscriber = RedisSubscriber;
    type Admin = RedisAdmin;

    fn capabilities(&self) -> Capabilities {
        Capabilities::none()
            .with_key_order(KeyOrder::Member)
            .with_durable()
            .with_delivery_count()
            .with_release()
            .with_start_at_time()
            .with_creates_topics()
            .with_discovery()
            .with_transactions()
            .with_forward()
            .with_begin()
            .with_browse()
            .with_purge()
            .with_idempotency()
            .with_reset()
    }

    async fn publisher(&self) -> Result<RedisPublisher> {
        RedisPublisher::connect(&self.client, &self.config).await
    }

    async fn subscribe(&self, subscription: Subscription) -> Result<RedisSubscriber> {
        if subscription.exactly_once {
            let why = "Redis can't store what is published and the acknowledgement of an event in one step";
            let error = self.client.origin().plain(ErrorKind::Unsupported, why);
            return Err(error.with_operation("subscribe").with_note(
                "read and publish on a transport that can, or handle events at least once",
            ));
        }
        RedisSubscriber::join(&self.client, &self.config, subscription).await
    }

    fn admin(&self) -> RedisAdmin {
        RedisAdmin::new(Arc::clone(&self.link), self.config.operation_deadline)
    }

    fn idempotency(&self) -> Option<Arc<dyn IdempotencyStore>> {
        let store = Arc::clone(&self.idempotency);
        Some(store)
    }
}

impl fmt::Debug for RedisTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisTransport")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

/// Makes [`RedisTransport`]s from config sections of kind [`redis-streams`](crate::KIND).
#[derive(Debug, Clone, Copy, Default)]
pub struct RedisFactory;

#[async_trait]
impl TransportFactory for RedisFactory {
    fn kind(&self) -> &str {
        crate::KIND
    }

    async fn connect(&self, config: TransportConfig) -> Result<DynTransport> {
        let mut settings: RedisConfig = config.section.parse()?;
        let invalid = |(key, why)| config.section.invalid(key, why);
        settings.validate().map_err(invalid)?;
        settings.name = config.name;
        settings.service = config.service;
        Ok(DynTransport::new(RedisTransport::connect(settings).await?))
    }
}

/// The policies `allkeys-*` delete whole streams, with what nobody has read yet. Many users may
/// not ask for it; then nothing is said.
async fn warn_of_eviction(config: &RedisConfig, connection: &Connection) {
    let mut command = Cmd::new();
    command.arg("CONFIG").arg("GET").arg("maxmemory-policy");
    let deadline = Instant::now() + config.operation_deadline;
    let Ok(settings) = connection.call(&command, deadline).await else {
        return;
    };
    let policy = reply::field(&settings, "maxmemory-policy").and_then(reply::text);
    if let Some(policy) = policy.filter(|policy| policy.starts_with("allkeys-")) {
        tracing::warn!(
            transport = %config.name,
            policy,
            "the server deletes whole streams when its memory is full: set `maxmemory-policy noeviction`"
        );
    }
}
