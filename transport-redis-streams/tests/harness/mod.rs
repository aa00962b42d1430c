//! What connects the conformance suite to a real Redis.

use std::time::Duration;

use polybus_conformance::{BoxError, Fault, Harness, Unsupported};
use polybus_core::transport::Outgoing;
use polybus_core::{Event, Topic};
use polybus_redis_streams::{RedisConfig, RedisTransport};
use polybus_test_support::{Certificates, RedisOptions, RedisServer};

/// A user with the rights that the transport's documentation asks for.
const USER: &str = "user app on >app-password ~* \
    +@read +@write +@stream +@connection +@transaction +@scripting -@dangerous";

/// A key that holds no stream.
const NO_STREAM: &str = "polybus-conformance-no-stream";

/// A server, behind TLS and a login if `SECURE`; every topic is partitioned if `SPLIT`.
pub(crate) struct RedisHarness<const SECURE: bool, const SPLIT: bool = false> {
    server: RedisServer,
    certificates: Option<Certificates>,
}

impl<const SECURE: bool, const SPLIT: bool> Harness for RedisHarness<SECURE, SPLIT> {
    type Transport = RedisTransport;

    async fn start() -> Result<Self, BoxError> {
        let (server, certificates) = if SECURE {
            let certificates = Certificates::generate()?;
            let options = RedisOptions::new().guarded().tls(&certificates);
            (options.line(USER).start().await?, Some(certificates))
        } else {
            (RedisServer::start().await?, None)
        };
        let client = redis::Client::open(server.url())?;
        let mut connection = client.get_multiplexed_async_connection().await?;
        let mut set = redis::cmd("SET");
        set.arg(NO_STREAM).arg("a string");
        let () = set.query_async(&mut connection).await?;
        Ok(Self {
            server,
            certificates,
        })
    }

    async fn connect(&self) -> Result<RedisTransport, BoxError> {
        let mut config = RedisConfig::new(self.server.url());
        if let (Some(url), Some(certificates)) = (self.server.tls_url(), &self.certificates) {
            config = RedisConfig::new(url);
            config.user = Some("app".into());
            config.password = Some("app-password".into());
            config.ca_file = Some(certificates.authority());
            config.certificate_file = Some(certificates.client());
            config.key_file = Some(certificates.client_key());
        }
        config.discovery_interval = Some(Duration::from_millis(100));
        Ok(RedisTransport::connect(config).await?)
    }

    fn splits_topics(&self) -> bool {
        SPLIT
    }

    fn rejected(&self, _: &Topic) -> Result<Outgoing, Unsupported> {
        let event = Event::builder("conformance.refused").source("polybus-conformance");
        let event = event.build().expect("all required attributes are set");
        Ok(Outgoing::new(NO_STREAM.into(), event))
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
}
