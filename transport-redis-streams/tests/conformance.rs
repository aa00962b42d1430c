//! The conformance suite on a real Redis.

use polybus_conformance::{BoxError, Fault, Harness, Unsupported};
use polybus_redis_streams::{RedisConfig, RedisTransport};
use polybus_test_support::RedisServer;

struct RedisHarness {
    server: RedisServer,
}

impl Harness for RedisHarness {
    type Transport = RedisTransport;

    async fn start() -> Result<Self, BoxError> {
        Ok(Self {
            server: RedisServer::start().await?,
        })
    }

    async fn connect(&self) -> Result<RedisTransport, BoxError> {
        Ok(RedisTransport::connect(RedisConfig::new(self.server.url())).await?)
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
