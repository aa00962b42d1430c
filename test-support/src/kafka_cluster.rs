//! A Kafka of three nodes.

use std::net::SocketAddr;
use std::thread;

use crate::backend::unblock;
use crate::error::Error;
use crate::kafka::{KafkaServer, Quorum, cluster_id, native_behind};
use crate::kafka_options::KafkaOptions;
use crate::kafka_tools::KafkaPrograms;
use crate::names::free_port;
use crate::proxy::TcpProxy;

/// How many nodes there are.
const NODES: usize = 3;

/// Each record is on all nodes, and accepted when two have it: one may be away.
const LINES: [&str; 10] = [
    "default.replication.factor=3",
    "min.insync.replicas=2",
    "offsets.topic.replication.factor=3",
    "transaction.state.log.replication.factor=3",
    "transaction.state.log.min.isr=2",
    "share.coordinator.state.topic.replication.factor=3",
    "share.coordinator.state.topic.min.isr=2",
    "broker.session.timeout.ms=3000",
    "broker.heartbeat.interval.ms=500",
    // More than one, so that their leaders are different nodes.
    "offsets.topic.num.partitions=3",
];

impl KafkaServer {
    /// Three nodes of one cluster, processes of this machine, each broker and controller, and each with a
    /// proxy of its own in front of it, as after [`start_behind`](Self::start_behind). Topics have three
    /// replicas, of which two must have a record. Waits until all serve (90 s at most, usually 8 s).
    ///
    /// # Errors
    ///
    /// [`Error::NotInstalled`] without Java or Kafka's jars, and when a node does not come up.
    ///
    /// # Cancel safety
    ///
    /// Nodes that were being started when the future was dropped are ended again.
    pub async fn start_cluster() -> Result<Vec<(Self, TcpProxy)>, Error> {
        let mut proxies = Vec::with_capacity(NODES);
        for _ in 0..NODES {
            proxies.push(TcpProxy::start().await?);
        }
        let addresses: Vec<SocketAddr> = proxies.iter().map(TcpProxy::address).collect();
        let nodes = unblock(move || start_nodes(&addresses)).await?;
        let nodes = nodes.into_iter().zip(proxies);
        let nodes = nodes.map(|((server, behind), proxy)| {
            proxy.set_server(&behind);
            (server, proxy)
        });
        Ok(nodes.collect())
    }
}

/// All at once: none is ready before two of them have found each other.
fn start_nodes(proxies: &[SocketAddr]) -> Result<Vec<(KafkaServer, String)>, Error> {
    let programs = KafkaPrograms::find()?;
    let options = LINES
        .iter()
        .fold(KafkaOptions::new(), |options, line| options.line(*line));
    let controllers: Vec<u16> = proxies.iter().map(|_| free_port()).collect();
    let id = cluster_id();
    thread::scope(|scope| {
        let starting = proxies.iter().enumerate().map(|(index, proxy)| {
            let quorum = Quorum {
                cluster: &id,
                controllers: &controllers,
                index,
            };
            let (programs, options) = (&programs, &options);
            scope.spawn(move || native_behind(programs, options, Some(&quorum), *proxy))
        });
        let starting: Vec<_> = starting.collect();
        let started = starting.into_iter().map(|node| {
            node.join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        });
        started.collect()
    })
}
