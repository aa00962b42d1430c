//! A Redis Cluster.

use std::net::{Ipv4Addr, SocketAddr};
use std::thread;
use std::time::{Duration, Instant};

use crate::Certificates;
use crate::backend::unblock;
use crate::error::Error;
use crate::names::free_port;
use crate::probe::ask_redis;
use crate::redis::RedisServer;
use crate::redis_options::RedisOptions;

/// How long the nodes may take to agree (2 s on a machine that has nothing else to do).
const AGREEMENT_DEADLINE: Duration = Duration::from_secs(60);

const POLL: Duration = Duration::from_millis(50);

const SLOTS: usize = 16_384;

/// How many nodes have slots.
const PRIMARIES: usize = 3;

/// Three nodes that share the slots, and a replica of each if asked for, all processes of this
/// machine. A node that is silent for a second is taken for dead.
#[derive(Debug)]
pub struct RedisCluster {
    nodes: Vec<RedisServer>,
}

impl RedisCluster {
    /// Starts three nodes, and waits until they serve together (60 s at most; 3 s are usual). Without
    /// the slots of a dead node the others serve none.
    ///
    /// # Errors
    ///
    /// [`Error::NotInstalled`] without `redis-server`; [`Error::Io`] when the nodes do not agree.
    ///
    /// # Cancel safety
    ///
    /// What was being started when the future was dropped is ended again.
    pub async fn start() -> Result<Self, Error> {
        Self::start_nodes(PRIMARIES, None).await
    }

    /// As [`start`](Self::start), with a replica of each: node 3 is that of node 0, and so on.
    ///
    /// # Errors
    ///
    /// As [`start`](Self::start).
    ///
    /// # Cancel safety
    ///
    /// As [`start`](Self::start).
    pub async fn start_with_replicas() -> Result<Self, Error> {
        Self::start_nodes(2 * PRIMARIES, None).await
    }

    /// As [`start`](Self::start), with a port for TLS at each node, over which they also speak to
    /// one another. The certificates must outlive the nodes.
    ///
    /// # Errors
    ///
    /// As [`start`](Self::start).
    ///
    /// # Cancel safety
    ///
    /// As [`start`](Self::start).
    pub async fn start_with_tls(certificates: &Certificates) -> Result<Self, Error> {
        Self::start_nodes(PRIMARIES, Some(certificates)).await
    }

    /// The nodes. At first the first has the slots to 5460, the second those to 10922, the third
    /// the rest.
    #[must_use]
    pub fn nodes(&self) -> &[RedisServer] {
        &self.nodes
    }

    /// The nodes' addresses as `redis://127.0.0.1:PORT`.
    #[must_use]
    pub fn urls(&self) -> Vec<String> {
        self.nodes
            .iter()
            .map(|node| node.url().to_owned())
            .collect()
    }

    /// Kills all nodes, starts them again on their data, and waits until they serve together.
    ///
    /// # Errors
    ///
    /// As [`start`](Self::start).
    pub async fn restart(&self) -> Result<(), Error> {
        for node in &self.nodes {
            node.kill().await?;
        }
        for node in &self.nodes {
            node.restart().await?;
        }
        self.agreed().await
    }

    /// Waits until all nodes serve together (60 s at most).
    ///
    /// # Errors
    ///
    /// [`Error::Io`] when they don't.
    pub async fn agreed(&self) -> Result<(), Error> {
        let ports: Vec<u16> = self.nodes.iter().map(port).collect();
        unblock(move || wait_for_agreement(&ports)).await
    }

    /// Begins to move a slot from one node to another: what the first has not (any more) is asked
    /// of the second.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] when a node refuses.
    pub async fn begin_move(&self, slot: u16, from: usize, to: usize) -> Result<(), Error> {
        let (from, to) = (port(&self.nodes[from]), port(&self.nodes[to]));
        unblock(move || {
            let (from_id, to_id) = (id(from)?, id(to)?);
            order(to, &format!("CLUSTER SETSLOT {slot} IMPORTING {from_id}"))?;
            order(from, &format!("CLUSTER SETSLOT {slot} MIGRATING {to_id}"))
        })
        .await
    }

    /// Moves what is in a slot that is being moved.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] when a node refuses.
    pub async fn move_keys(&self, slot: u16, from: usize, to: usize) -> Result<(), Error> {
        let (from, to) = (port(&self.nodes[from]), port(&self.nodes[to]));
        unblock(move || {
            loop {
                let keys = ask(from, &format!("CLUSTER GETKEYSINSLOT {slot} 100"))?;
                let keys: Vec<&str> = keys.lines().skip(2).step_by(2).collect();
                if keys.is_empty() {
                    return Ok(());
                }
                let keys = keys.join(" ");
                order(
                    from,
                    &format!("MIGRATE 127.0.0.1 {to} \"\" 0 5000 KEYS {keys}"),
                )?;
            }
        })
        .await
    }

    /// Ends the move of a slot: it is the second node's now.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] when a node refuses: the first one does while it has keys of the slot.
    pub async fn end_move(&self, slot: u16, from: usize, to: usize) -> Result<(), Error> {
        let (from, to) = (port(&self.nodes[from]), port(&self.nodes[to]));
        unblock(move || {
            let to_id = id(to)?;
            // The new one first, so that never none of them has it.
            order(to, &format!("CLUSTER SETSLOT {slot} NODE {to_id}"))?;
            order(from, &format!("CLUSTER SETSLOT {slot} NODE {to_id}"))
        })
        .await
    }

    /// Moves a slot with all that is in it.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] when a node refuses.
    pub async fn move_slot(&self, slot: u16, from: usize, to: usize) -> Result<(), Error> {
        self.begin_move(slot, from, to).await?;
        self.move_keys(slot, from, to).await?;
        self.end_move(slot, from, to).await
    }

    async fn start_nodes(count: usize, certificates: Option<&Certificates>) -> Result<Self, Error> {
        let mut nodes = Vec::with_capacity(count);
        let mut buses = Vec::with_capacity(count);
        for _ in 0..count {
            let bus = free_port();
            let options = match certificates {
                None => RedisOptions::new(),
                Some(certificates) => RedisOptions::new()
                    .tls(certificates)
                    .line("tls-cluster yes"),
            };
            let options = options
                .line("cluster-enabled yes")
                .line("cluster-node-timeout 1000")
                .line(format!("cluster-port {bus}"))
                .line("repl-diskless-sync-delay 0");
            nodes.push(options.start().await?);
            buses.push(bus);
        }
        let ports: Vec<u16> = nodes.iter().map(port).collect();
        let announced = nodes.iter().map(|node| {
            let url = node.tls_url().unwrap_or(node.url());
            let port = url.rsplit(':').next().and_then(|port| port.parse().ok());
            port.expect("the address of a server of ours ends with its port")
        });
        let announced: Vec<u16> = announced.collect();
        unblock(move || join(&ports, &announced, &buses)).await?;
        Ok(Self { nodes })
    }
}

/// Makes one cluster of nodes that know nothing of each other.
fn join(ports: &[u16], announced: &[u16], buses: &[u16]) -> Result<(), Error> {
    let share = SLOTS.div_ceil(PRIMARIES);
    for (index, port) in ports.iter().take(PRIMARIES).enumerate() {
        let first = index * share;
        let last = (first + share).min(SLOTS) - 1;
        order(*port, &format!("CLUSTER ADDSLOTSRANGE {first} {last}"))?;
    }
    for (epoch, port) in (1..).zip(ports) {
        order(*port, &format!("CLUSTER SET-CONFIG-EPOCH {epoch}"))?;
    }
    for (other, bus) in announced.iter().zip(buses).skip(1) {
        order(ports[0], &format!("CLUSTER MEET 127.0.0.1 {other} {bus}"))?;
    }
    let known = format!("cluster_known_nodes:{}", ports.len());
    for port in ports {
        wait(*port, "CLUSTER INFO", &known)?;
    }
    for (replica, primary) in ports.iter().skip(PRIMARIES).zip(ports) {
        let primary = id(*primary)?;
        // A node that is not known yet is refused.
        wait(*replica, "CLUSTER NODES", &primary)?;
        order(*replica, &format!("CLUSTER REPLICATE {primary}"))?;
    }
    for replica in ports.iter().skip(PRIMARIES) {
        wait(*replica, "INFO replication", "master_link_status:up")?;
    }
    wait_for_agreement(ports)
}

fn wait_for_agreement(ports: &[u16]) -> Result<(), Error> {
    ports
        .iter()
        .try_for_each(|port| wait(*port, "CLUSTER INFO", "cluster_state:ok"))
}

fn wait(port: u16, command: &str, wanted: &str) -> Result<(), Error> {
    let deadline = Instant::now() + AGREEMENT_DEADLINE;
    loop {
        let answer = ask(port, command);
        if answer.as_ref().is_ok_and(|answer| answer.contains(wanted)) {
            return Ok(());
        }
        if Instant::now() >= deadline {
            return Err(failed(format!("port {port} has no `{wanted}`: {answer:?}")));
        }
        thread::sleep(POLL);
    }
}

/// The id of a node.
fn id(port: u16) -> Result<String, Error> {
    let answer = ask(port, "CLUSTER MYID")?;
    let id = answer.lines().nth(1).unwrap_or_default().trim();
    Ok(id.to_owned())
}

/// Sends a command that answers `OK`, or, for `MIGRATE`, that there was nothing to do.
fn order(port: u16, command: &str) -> Result<(), Error> {
    let answer = ask(port, command)?;
    if answer.starts_with("+OK") || answer.starts_with("+NOKEY") {
        return Ok(());
    }
    Err(failed(format!("port {port}, {command}: {answer}")))
}

fn ask(port: u16, command: &str) -> Result<String, Error> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let answer = ask_redis(address, &format!("{command}\r\nQUIT\r\n"));
    answer.map_err(Error::io(format!("ask a node of the cluster: {command}")))
}

fn failed(what: String) -> Error {
    Error::io("wait for the cluster")(std::io::Error::other(what))
}

fn port(server: &RedisServer) -> u16 {
    server
        .port()
        .expect("the address of a server of ours ends with its port")
}
