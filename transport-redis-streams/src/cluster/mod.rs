//! A Redis Cluster: which node has which slot.

mod nodes;
mod redirect;
mod slot;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use polybus_core::{Effect, Error, ErrorKind, Result};
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::client::{Client, Cmd, Value};
use crate::connection::Connection;
use crate::reply;

pub(crate) use nodes::{Course, Nodes, Place};
pub(crate) use redirect::{PATIENCE, Redirect, pause};
pub(crate) use slot::{SLOTS, slot_of};

/// The shortest time between two questions who has which slot.
const GAP: Duration = Duration::from_millis(50);

/// In place of an index: nobody has the slot.
const NOBODY: u16 = u16::MAX;

/// Where a node is reached.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Node {
    pub(crate) host: Arc<str>,
    pub(crate) port: u16,
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// What everybody who uses the cluster knows of it.
pub(crate) struct Cluster {
    /// Those that the config names.
    seeds: Vec<Node>,
    map: Mutex<Arc<SlotMap>>,
    /// Held by the one who asks for the map; the others wait for what it learns.
    asking: tokio::sync::Mutex<Asking>,
}

struct Asking {
    next: Instant,
    /// With whom to begin, so that one that is behind the times is not asked each time.
    begin: usize,
}

/// Who has which slot, as far as is known: a node that is asked for a slot of another says so.
#[derive(Debug, Clone)]
pub(crate) struct SlotMap {
    /// Changes with the map.
    version: u64,
    nodes: Vec<Node>,
    /// By slot, the index of its node.
    owners: Vec<u16>,
}

impl Cluster {
    pub(crate) fn new(seeds: Vec<Node>) -> Self {
        Self {
            seeds,
            map: Mutex::new(Arc::new(SlotMap::empty())),
            asking: tokio::sync::Mutex::new(Asking {
                next: Instant::now(),
                begin: 0,
            }),
        }
    }

    pub(crate) fn map(&self) -> Arc<SlotMap> {
        Arc::clone(&self.map.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Notes that a slot was moved.
    pub(crate) fn note_moved(&self, slot: u16, node: Node) {
        let mut map = self.map.lock().unwrap_or_else(PoisonError::into_inner);
        if map.owner(slot) != Some(&node) {
            Arc::make_mut(&mut map).assign(slot, node);
        }
    }

    /// A connection to any node, for what does not depend on a key.
    pub(crate) async fn open_any(&self, client: &Client) -> Result<Connection> {
        let candidates = self.candidates(0);
        let open = |node: Client| async move { node.open_directly().await };
        self.try_each(client, &candidates, open).await
    }

    /// Asks for the map, unless it is another than that of version `outdated` by now.
    ///
    /// # Errors
    ///
    /// What the last node that was asked said, or why it could not be asked.
    pub(crate) async fn refresh(
        &self,
        client: &Client,
        outdated: u64,
        deadline: Instant,
    ) -> Result<()> {
        let late = || {
            client
                .origin()
                .unreachable("its nodes did not answer in time")
        };
        let asking = timeout_at(deadline, self.asking.lock()).await;
        let mut asking = asking.map_err(|_| late())?;
        if self.map().version != outdated {
            return Ok(());
        }
        sleep_until(asking.next.min(deadline)).await;
        asking.next = Instant::now() + GAP;
        asking.begin = asking.begin.wrapping_add(1);
        let candidates = self.candidates(asking.begin);
        let ask = self.try_each(client, &candidates, ask_for_map);
        let found = timeout_at(deadline, ask).await.map_err(|_| late())??;
        let mut map = self.map.lock().unwrap_or_else(PoisonError::into_inner);
        let version = map.version + 1;
        *map = Arc::new(SlotMap { version, ..found });
        Ok(())
    }

    /// Tries one after the other until one succeeds. One that hangs keeps none of the others from
    /// being tried.
    async fn try_each<T, F>(
        &self,
        client: &Client,
        nodes: &[Node],
        attempt: impl Fn(Client) -> F,
    ) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        let count = u32::try_from(nodes.len()).unwrap_or(u32::MAX);
        let patience = client.connect_deadline() / count.saturating_add(1);
        let mut failed = client.origin().unreachable("it has no nodes");
        for node in nodes {
            let at = client.at(node.host.to_string(), node.port);
            match timeout_at(Instant::now() + patience, attempt(at)).await {
                Ok(Ok(found)) => return Ok(found),
                Ok(Err(error)) => failed = error,
                Err(_) => {
                    let origin = client.origin();
                    failed = origin.unreachable(&format!("{node} did not answer in time"));
                }
            }
            if failed.kind() == ErrorKind::Unauthorized {
                break;
            }
        }
        Err(failed)
    }

    /// Whom to ask: those that have slots, then those of the config.
    fn candidates(&self, begin: usize) -> Vec<Node> {
        let map = self.map();
        let mut candidates = map.nodes.clone();
        if !candidates.is_empty() {
            let begin = begin % candidates.len();
            candidates.rotate_left(begin);
        }
        for seed in &self.seeds {
            if !candidates.contains(seed) {
                candidates.push(seed.clone());
            }
        }
        candidates
    }
}

impl fmt::Display for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the cluster of")?;
        self.seeds.iter().try_for_each(|seed| write!(f, " {seed}"))
    }
}

impl SlotMap {
    fn empty() -> Self {
        Self {
            version: 0,
            nodes: Vec::new(),
            owners: vec![NOBODY; usize::from(SLOTS)],
        }
    }

    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    /// The nodes that have slots.
    pub(crate) fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    pub(crate) fn owner(&self, slot: u16) -> Option<&Node> {
        let owner = self.owners.get(usize::from(slot))?;
        self.nodes.get(usize::from(*owner))
    }

    fn assign(&mut self, slot: u16, node: Node) {
        let index = self.index_of(node);
        self.owners[usize::from(slot)] = index;
        self.version += 1;
    }

    fn index_of(&mut self, node: Node) -> u16 {
        let index = self.nodes.iter().position(|known| *known == node);
        let index = index.unwrap_or_else(|| {
            self.nodes.push(node);
            self.nodes.len() - 1
        });
        // There are no more nodes with slots than slots. Were there, the slot would be nobody's.
        u16::try_from(index).unwrap_or(NOBODY)
    }

    /// `[[first, last, [host, port, ...], replica, ...], ...]`. A node that does not know its own
    /// name leaves it out: it is where it was reached.
    fn read(reply: Value, reached_at: &str) -> Option<Self> {
        let mut map = Self::empty();
        for range in reply::array(reply)? {
            let mut items = reply::array(range)?.into_iter();
            let first = usize::try_from(reply::number(&items.next()?)?).ok()?;
            let last = usize::try_from(reply::number(&items.next()?)?).ok()?;
            let primary = reply::array(items.next()?)?;
            let host = reply::text(primary.first()?).filter(|host| !host.is_empty() && host != "?");
            let node = Node {
                host: host.as_deref().unwrap_or(reached_at).into(),
                port: u16::try_from(reply::number(primary.get(1)?)?).ok()?,
            };
            let index = map.index_of(node);
            map.owners.get_mut(first..=last)?.fill(index);
        }
        Some(map)
    }
}

/// Asks one node who has which slot.
async fn ask_for_map(node: Client) -> Result<SlotMap> {
    let connection = node.open_directly().await?;
    let mut command = Cmd::new();
    command.arg("CLUSTER").arg("SLOTS");
    // The caller ends it earlier.
    let deadline = Instant::now() + node.connect_deadline();
    let origin = node.origin();
    let reply = connection.call(&command, deadline).await;
    let reply = reply.map_err(|failure| {
        let error = origin.error(failure, "connect");
        error.with_effect(Effect::NotApplied)
    })?;
    let map = SlotMap::read(reply, node.host()).ok_or_else(|| origin.malformed("connect"))?;
    if map.nodes.is_empty() {
        return Err(origin.unreachable("it knows of no node that has slots"));
    }
    Ok(map)
}

/// Nobody has a slot.
fn uncovered(client: &Client, slot: u16) -> Error {
    let why = format!("no node has slot {slot}");
    client.origin().unreachable(&why)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bulk(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    fn range(first: i64, last: i64, host: Value, port: i64) -> Value {
        let primary = Value::Array(vec![host, Value::Int(port), bulk("id")]);
        let replica = Value::Array(vec![bulk("replica"), Value::Int(1)]);
        Value::Array(vec![Value::Int(first), Value::Int(last), primary, replica])
    }

    fn shown(map: &SlotMap, slot: u16) -> String {
        map.owner(slot).map_or("nobody".to_owned(), Node::to_string)
    }

    #[test]
    fn a_map_is_read_with_its_gaps_and_its_nameless_nodes() {
        let ranges = vec![
            range(0, 10, bulk("a"), 1),
            range(11, 20, Value::Nil, 2),
            range(21, 21, bulk("a"), 1),
            range(16_383, 16_383, bulk(""), 3),
        ];
        let map = SlotMap::read(Value::Array(ranges), "me").unwrap();
        for (slot, node) in [
            (0, "a:1"),
            (10, "a:1"),
            (11, "me:2"),
            (21, "a:1"),
            (22, "nobody"),
            (16_383, "me:3"),
        ] {
            assert_eq!(shown(&map, slot), node, "{slot}");
        }
        assert_eq!(map.nodes().len(), 3);
    }

    #[test]
    fn an_answer_of_another_shape_is_no_map() {
        for reply in [
            Value::Nil,
            Value::Array(vec![Value::Nil]),
            Value::Array(vec![range(0, 16_384, bulk("a"), 1)]),
            Value::Array(vec![range(5, 4, Value::Nil, 70_000)]),
            Value::Array(vec![range(-1, 4, Value::Nil, 1)]),
        ] {
            assert!(SlotMap::read(reply, "me").is_none());
        }
    }

    #[test]
    fn what_a_node_says_of_a_slot_changes_that_slot_and_the_version() {
        let node = |port| Node {
            host: "a".into(),
            port,
        };
        let cluster = Cluster::new(vec![node(1)]);
        cluster.note_moved(7, node(2));
        let map = cluster.map();
        assert_eq!(
            (shown(&map, 7), shown(&map, 8)),
            ("a:2".to_owned(), "nobody".to_owned())
        );
        let version = map.version();
        cluster.note_moved(7, node(2));
        assert_eq!(cluster.map().version(), version);
        cluster.note_moved(7, node(3));
        assert_ne!(cluster.map().version(), version);
        assert_eq!(cluster.candidates(1), [node(3), node(2), node(1)]);
    }
}
