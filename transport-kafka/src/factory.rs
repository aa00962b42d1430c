use async_trait::async_trait;
use polybus_core::Result;
use polybus_core::transport::{DynTransport, TransportConfig, TransportFactory};

use crate::config::KafkaConfig;
use crate::transport::KafkaTransport;

/// Makes Kafka transports from config sections with `kind = "kafka"`.
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
pub struct KafkaFactory;

impl KafkaFactory {
    /// The factory.
    pub const fn new() -> Self {
        Self
    }
}

#[async_trait]
impl TransportFactory for KafkaFactory {
    fn kind(&self) -> &str {
        "kafka"
    }

    async fn connect(&self, config: TransportConfig) -> Result<DynTransport> {
        let settings: KafkaConfig = config.section.parse()?;
        let invalid = |(key, why): (&str, String)| config.section.invalid(key, &why);
        settings.validate().map_err(invalid)?;
        let transport = KafkaTransport::connect_as(config.name, config.service, settings).await?;
        Ok(DynTransport::new(transport))
    }
}
