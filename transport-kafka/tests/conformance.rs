//! The conformance suite on a real Kafka.

use std::time::Duration;

use polybus_conformance::{BoxError, Fault, Harness, Tuning, Unsupported};
use polybus_core::transport::Outgoing;
use polybus_core::{Event, Topic};
use polybus_kafka::{KafkaConfig, KafkaTransport};
use polybus_test_support::KafkaServer;

struct KafkaHarness {
    server: KafkaServer,
}

impl Harness for KafkaHarness {
    type Transport = KafkaTransport;

    async fn start() -> Result<Self, BoxError> {
        Ok(Self {
            server: KafkaServer::start().await?,
        })
    }

    async fn connect(&self) -> Result<KafkaTransport, BoxError> {
        let mut config = KafkaConfig::new([self.server.brokers()]);
        // The shortest that brokers allow: a member that dies is missed after this time.
        config.session_timeout = Duration::from_secs(6);
        Ok(KafkaTransport::connect(config).await?)
    }

    fn rejected(&self, topic: &Topic) -> Result<Outgoing, Unsupported> {
        // More than any topic here takes.
        let event = Event::builder("too.large").source("conformance");
        let event = event.data(vec![0; 10 << 20]).build();
        let event = event.map_err(|error| Unsupported::because(error.to_string()))?;
        Ok(Outgoing::new(topic.clone(), event))
    }

    fn can_disrupt(&self, fault: Fault) -> Result<(), Unsupported> {
        match fault {
            Fault::Kill | Fault::Restart | Fault::Pause | Fault::Resume => Ok(()),
            other => Err(Unsupported::because(format!("the harness can't {other}"))),
        }
    }

    async fn disrupt(&self, fault: Fault) -> Result<(), BoxError> {
        match fault {
            Fault::Kill => self.server.kill().await?,
            Fault::Restart => {
                self.server.kill().await?;
                self.server.restart().await?;
            }
            Fault::Pause => self.server.pause().await?,
            Fault::Resume => self.server.resume().await?,
            other => return Err(format!("the harness can't {other}").into()),
        }
        Ok(())
    }

    fn tuning(&self) -> Tuning {
        Tuning::default().patience(Duration::from_secs(40))
    }
}

polybus_conformance::main!(KafkaHarness);
