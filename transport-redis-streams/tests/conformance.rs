//! The conformance suite on a real Redis.

use std::time::Duration;

use polybus_conformance::{BoxError, Fault, Harness, Unsupported};
use polybus_core::transport::Outgoing;
use polybus_core::{Event, Topic};
use polybus_redis_streams::{RedisConfig, RedisTransport};
use polybus_test_support::RedisServer;

/// A key that holds no stream.
const NO_STREAM: &str = "polybus-conformance-no-stream";

struct RedisHarness {
    server: RedisServer,
}

impl Harness for RedisHarness {
    type Transport = RedisTransport;

    async fn start() -> Result<Self, BoxError> {
        let server = RedisServer::start().await?;
        let client = redis::Client::open(server.url())?;
        let mut connection = client.get_multiplexed_async_connection().await?;
        let mut set = redis::cmd("SET");
        set.arg(NO_STREAM).arg("a string");
        let () = set.query_async(&mut connection).await?;
        Ok(Self { server })
    }

    async fn connect(&self) -> Result<RedisTransport, BoxError> {
        let mut config = RedisConfig::new(self.server.url());
        config.discovery_interval = Some(Duration::from_millis(100));
        Ok(RedisTransport::connect(config).await?)
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

polybus_conformance::main!(RedisHarness);
