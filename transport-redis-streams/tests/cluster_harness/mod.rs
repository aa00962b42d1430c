//! What connects the conformance suite to a real Redis Cluster.

use std::time::Duration;

use polybus_conformance::{BoxError, Fault, Harness, Unsupported};
use polybus_core::transport::Outgoing;
use polybus_core::{Event, Topic};
use polybus_redis_streams::{RedisConfig, RedisTransport};
use polybus_test_support::RedisCluster;

/// A key that holds no stream.
const NO_STREAM: &str = "polybus-conformance-no-stream";

/// A cluster; every topic is partitioned if `SPLIT`.
pub(crate) struct ClusterHarness<const SPLIT: bool> {
    cluster: RedisCluster,
}

impl<const SPLIT: bool> Harness for ClusterHarness<SPLIT> {
    type Transport = RedisTransport;

    async fn start() -> Result<Self, BoxError> {
        let cluster = RedisCluster::start().await?;
        let mut set = redis::cmd("SET");
        set.arg(NO_STREAM).arg("a string");
        for node in cluster.nodes() {
            let client = redis::Client::open(node.url())?;
            let mut connection = client.get_multiplexed_async_connection().await?;
            // Two of the nodes refuse it.
            let _: Result<(), _> = set.query_async(&mut connection).await;
        }
        Ok(Self { cluster })
    }

    async fn connect(&self) -> Result<RedisTransport, BoxError> {
        // One node is enough to find the others.
        let mut config = RedisConfig::with_nodes(self.cluster.urls().into_iter().take(1));
        config.discovery_interval = Some(Duration::from_millis(100));
        Ok(RedisTransport::connect(config).await?)
    }

    fn splits_topics(&self) -> bool {
        SPLIT
    }

    fn topic_name(&self, name: &str, family: &str) -> String {
        name.replacen(family, &format!("{{{family}}}"), 1)
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

    /// What is done to the server is done to all nodes.
    async fn disrupt(&self, fault: Fault) -> Result<(), BoxError> {
        for node in self.cluster.nodes() {
            match fault {
                Fault::Kill => node.kill().await?,
                Fault::Pause => node.pause().await?,
                Fault::Resume => node.resume().await?,
                Fault::Restart => {}
                other => return Err(format!("the harness can't {other}").into()),
            }
        }
        match fault {
            Fault::Restart => self.cluster.restart().await?,
            Fault::Resume => self.cluster.agreed().await?,
            _ => {}
        }
        Ok(())
    }
}
