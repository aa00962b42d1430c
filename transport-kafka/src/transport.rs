use std::sync::Arc;

use polybus_core::transport::{Capabilities, KeyOrder, Subscription, Transport};
use polybus_core::{Error, ErrorKind, Result, Text};
use rdkafka::error::KafkaError;
use tokio::task::spawn_blocking;

use crate::admin::KafkaAdmin;
use crate::asking::Asking;
use crate::config::KafkaConfig;
use crate::error::Origin;
use crate::ids::Ids;
use crate::publisher::KafkaPublisher;
use crate::subscriber::KafkaSubscriber;
use crate::{access, properties};

/// A Kafka cluster.
///
/// ```no_run
/// use polybus_core::transport::Transport;
/// use polybus_kafka::{KafkaConfig, KafkaTransport};
///
/// # async fn example() -> polybus_core::Result<()> {
/// let kafka = KafkaTransport::connect(KafkaConfig::new(["127.0.0.1:9092"])).await?;
/// let publisher = kafka.publisher().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct KafkaTransport {
    config: Arc<KafkaConfig>,
    client_id: Text,
    origin: Origin,
    asking: Arc<Asking>,
    ids: Arc<Ids>,
}

impl KafkaTransport {
    /// Reaches a cluster. Errors call the transport `kafka`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] for a setting that is wrong; [`ErrorKind::Connect`] if no broker
    /// answers within `connect_deadline`, naming the addresses and the client's last reason;
    /// [`ErrorKind::Unauthorized`], at once, if the brokers refuse the login or TLS with this client,
    /// or their certificate is not accepted.
    pub async fn connect(config: KafkaConfig) -> Result<Self> {
        Self::connect_as("kafka".into(), "polybus".into(), config).await
    }

    /// Reaches a cluster under a name, for a service.
    pub(crate) async fn connect_as(name: Text, service: Text, config: KafkaConfig) -> Result<Self> {
        let origin = Origin::new(name.clone(), config.brokers());
        config.validate().map_err(|(key, why)| {
            origin.error("connect", ErrorKind::Config, format!("`{key}` {why}"))
        })?;
        properties::warn(&config, &name);
        let client_id = config.client_id.as_deref().map_or(service, Text::from);
        let config = Arc::new(config);
        let asking =
            Asking::new(&config, &client_id).map_err(|error| not_made(&config, &origin, error))?;
        let asking = Arc::new(asking);
        let (asked, within) = (Arc::clone(&asking), config.connect_deadline);
        match spawn_blocking(move || asked.reach(within)).await {
            Ok(Ok(())) => Ok(Self {
                ids: Arc::new(Ids::new(&config, &client_id)),
                config,
                client_id,
                origin,
                asking,
            }),
            Ok(Err(told)) => {
                let late = format!("no broker answered within {within:?}");
                Err(told.into_error(&config, &origin, late))
            }
            Err(_) => {
                Err(origin.error("connect", ErrorKind::Closed, "the runtime is shutting down"))
            }
        }
    }
}

/// A client that can't be made, mostly because OpenSSL does not like a file.
fn not_made(config: &KafkaConfig, origin: &Origin, error: KafkaError) -> Error {
    let advice = match &error {
        KafkaError::ClientCreation(why) => access::advice_on_files(config, why),
        _ => None,
    };
    let error = origin.client("connect", error);
    match advice {
        Some(advice) => error.with_note(advice),
        None => error,
    }
}

impl Transport for KafkaTransport {
    type Publisher = KafkaPublisher;
    type Subscriber = KafkaSubscriber;
    type Admin = KafkaAdmin;

    fn capabilities(&self) -> Capabilities {
        Capabilities::none()
            .with_key_order(KeyOrder::Group)
            .with_partitions()
            .with_durable()
            .with_start_at_time()
            .with_discovery()
            .with_transactions()
            .with_exactly_once()
            .with_begin()
            .with_browse()
            .with_purge()
            .with_reset()
            .with_manage_topics()
    }

    async fn publisher(&self) -> Result<KafkaPublisher> {
        let (origin, ids) = (self.origin.clone(), Arc::clone(&self.ids));
        KafkaPublisher::connect(&self.config, &self.client_id, origin, ids).await
    }

    async fn subscribe(&self, subscription: Subscription) -> Result<KafkaSubscriber> {
        KafkaSubscriber::join(
            Arc::clone(&self.config),
            &self.client_id,
            self.origin.clone(),
            subscription,
            &self.ids,
        )
        .await
    }

    fn admin(&self) -> KafkaAdmin {
        KafkaAdmin::new(
            Arc::clone(&self.config),
            self.client_id.clone(),
            self.origin.clone(),
            Arc::clone(&self.asking),
        )
    }
}

impl std::fmt::Debug for KafkaTransport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KafkaTransport")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}
