//! What connects the conformance suite to a real Kafka.

use std::time::Duration;

use polybus_conformance::{BoxError, Fault, Harness, Tuning, Unsupported};
use polybus_core::transport::Outgoing;
use polybus_core::{Event, Topic};
use polybus_kafka::{KafkaConfig, KafkaTransport, SaslMechanism};
use polybus_test_support::{Certificates, KafkaOptions, KafkaServer};

const USER: &str = "app";
const PASSWORD: &str = "app-password";

/// A server, behind TLS and a login if `SECURE`.
pub(crate) struct KafkaHarness<const SECURE: bool> {
    server: KafkaServer,
    certificates: Option<Certificates>,
}

impl<const SECURE: bool> Harness for KafkaHarness<SECURE> {
    type Transport = KafkaTransport;

    async fn start() -> Result<Self, BoxError> {
        let (server, certificates) = if SECURE {
            let certificates = Certificates::generate()?;
            let options = KafkaOptions::new().secure(&certificates);
            let server = options.user(USER, PASSWORD).start().await?;
            (server, Some(certificates))
        } else {
            (KafkaServer::start().await?, None)
        };
        Ok(Self {
            server,
            certificates,
        })
    }

    async fn connect(&self) -> Result<KafkaTransport, BoxError> {
        let mut config = KafkaConfig::new([self.server.brokers()]);
        if let (Some(brokers), Some(certificates)) =
            (self.server.sasl_brokers(), &self.certificates)
        {
            config = KafkaConfig::new([brokers]);
            config.tls = true;
            config.ca_file = Some(certificates.authority());
            config.sasl_mechanism = Some(SaslMechanism::ScramSha512);
            config.user = Some(USER.into());
            config.password = Some(PASSWORD.into());
        }
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
