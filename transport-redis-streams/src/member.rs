//! A member of a group: what the tasks of a subscriber and its settlers share.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use polybus_core::event::EventId;
use polybus_core::text::format_text;
use polybus_core::transport::{AckToken, Delivery, Losses, Position, Start, Subscription};
use polybus_core::{Error, ErrorKind, Result, Text, Topic};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::client::Cmd;
use crate::cluster::{Node, slot_of};
use crate::config::RedisConfig;
use crate::connection::Link;
use crate::entry::{self, Read};
use crate::error::Failure;
use crate::held::Held;
use crate::inbox::Inbox;
use crate::leases;
use crate::reply::{self, Entry, EntryId};
use crate::scripts;
use crate::tenure::Partition;

/// What the tasks of a subscriber and its settlers share.
pub(crate) struct Member {
    pub(crate) config: RedisConfig,
    pub(crate) group: Text,
    pub(crate) name: Text,
    /// What it is called in the lists of members of partitioned topics.
    pub(crate) entry: Text,
    pub(crate) takeover_after: Duration,
    /// For everything but the reads that block.
    pub(crate) link: Link,
    pub(crate) held: Held,
    pub(crate) inbox: Inbox,
    /// Those of partitioned topics; they are the first of the streams.
    pub(crate) partitions: Vec<Partition>,
    streams: RwLock<Arc<[Topic]>>,
    /// A stream was added.
    pub(crate) added: Notify,
    /// Something was released: a walk finds it.
    pub(crate) released: Notify,
    /// Held while entries are claimed, until they are in hand: whoever looks meanwhile at what
    /// is pending for this member would take them for lost.
    pub(crate) claiming: tokio::sync::Mutex<()>,
    /// The tasks are to end.
    pub(crate) stop: CancellationToken,
    /// The connections that read.
    reading: Mutex<HashMap<ReadBy, Reading>>,
    losses: Losses,
}

/// What a connection reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum ReadBy {
    /// All streams that are not leased, or on a cluster those of a slot.
    Slot(Option<u16>),
    /// A partition, by its source.
    Partition(u32),
}

/// A connection that reads.
#[derive(Clone)]
pub(crate) struct Reading {
    /// Its id, for `CLIENT UNBLOCK`.
    pub(crate) id: u64,
    /// Where it leads, on a cluster.
    pub(crate) node: Option<Node>,
}

/// An entry on its way to the application.
pub(crate) struct Arrival {
    pub(crate) id: EntryId,
    pub(crate) read: Read,
    /// How many times it has been delivered, this time included.
    pub(crate) attempt: u32,
}

impl Arrival {
    /// An entry that was delivered so many times, as the server counts them.
    pub(crate) fn of(entry: Entry, count: Option<u64>) -> Self {
        // Entries without fields do not exist; the list is empty then, and undecodable.
        let fields = entry.fields.unwrap_or_default();
        let bytes = |value| reply::bytes(value).unwrap_or_default();
        let pairs = fields
            .chunks_exact(2)
            .map(|it| (bytes(&it[0]), bytes(&it[1])));
        Self {
            id: entry.id,
            read: entry::read(pairs),
            attempt: attempt(count),
        }
    }
}

/// A count of deliveries as the server keeps it.
fn attempt(count: Option<u64>) -> u32 {
    let deliveries = count.unwrap_or(1) % scripts::STARTS;
    u32::try_from(deliveries.max(1)).unwrap_or(u32::MAX)
}

impl Member {
    pub(crate) fn new(
        config: RedisConfig,
        name: Text,
        subscription: &Subscription,
        link: Link,
    ) -> Self {
        let partitions = Partition::all(subscription);
        let streams = partitions.iter().map(|it| it.stream.clone()).collect();
        Self {
            inbox: Inbox::new(config.read_ahead, config.read_ahead_bytes),
            config,
            group: subscription.group.clone(),
            entry: leases::entry(&name),
            name,
            takeover_after: subscription.takeover_after,
            link,
            held: Held::default(),
            partitions,
            streams: RwLock::new(streams),
            added: Notify::new(),
            released: Notify::new(),
            claiming: tokio::sync::Mutex::new(()),
            stop: CancellationToken::new(),
            reading: Mutex::default(),
            losses: subscription.losses.clone(),
        }
    }

    /// The streams that are read, by their index in [`AckToken::source`].
    pub(crate) fn streams(&self) -> Arc<[Topic]> {
        let streams = self.streams.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&streams)
    }

    /// A stream by its index.
    pub(crate) fn stream(&self, source: u32) -> Option<Topic> {
        self.streams().get(source as usize).cloned()
    }

    /// The partition that a source is, if it is one.
    pub(crate) fn partition(&self, source: u32) -> Option<&Partition> {
        self.partitions.get(source as usize)
    }

    /// Whether there are streams that are read without a lease.
    pub(crate) fn has_plain_streams(&self) -> bool {
        self.streams().len() > self.partitions.len()
    }

    /// Adds streams that are not read yet. Their groups must exist.
    pub(crate) fn add_streams(&self, streams: impl IntoIterator<Item = Topic>) {
        let mut known = self.streams.write().unwrap_or_else(PoisonError::into_inner);
        let mut all = known.to_vec();
        for stream in streams {
            if !all.contains(&stream) {
                all.push(stream);
            }
        }
        *known = all.into();
        drop(known);
        self.added.notify_one();
    }

    /// The deadline of a command that is sent now.
    pub(crate) fn deadline(&self) -> Instant {
        Instant::now() + self.config.operation_deadline
    }

    /// For how long a delivery is ours beyond doubt after the server heard of us. The rest of
    /// the time is for a command on its way, and for a process that is halted meanwhile.
    pub(crate) fn certain_for(&self) -> Duration {
        self.takeover_after * 2 / 3
    }

    /// Notes which connection reads something, or that none does.
    pub(crate) fn note_reading(&self, by: ReadBy, reading: Option<Reading>) {
        let mut known = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
        match reading {
            Some(reading) => known.insert(by, reading),
            None => known.remove(&by),
        };
    }

    /// Ends the reads that block on the server, of one partition or all, if it lets us.
    pub(crate) async fn unblock(&self, partition: Option<u32>) {
        let reading = self
            .reading
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        for (by, reading) in reading {
            if partition.is_some_and(|source| by != ReadBy::Partition(source)) {
                continue;
            }
            let connection = match (&reading.node, self.link.nodes()) {
                (Some(node), Some(nodes)) => nodes.current_at(node),
                _ => self.link.current(),
            };
            let Some(connection) = connection else {
                continue;
            };
            let mut command = Cmd::new();
            command.arg("CLIENT").arg("UNBLOCK").arg(reading.id);
            // If the server refuses, the read ends by itself in time.
            let _ = connection.call(&command, self.deadline()).await;
        }
    }

    /// The streams by where they are: what is done to those of one server waits for no other.
    pub(crate) fn streams_by_server(&self) -> Vec<Vec<(u32, Topic)>> {
        let mut nodes: Vec<Option<Node>> = Vec::new();
        let mut servers: Vec<Vec<(u32, Topic)>> = Vec::new();
        for (source, stream) in (0..).zip(self.streams().iter()) {
            let slot = slot_of(stream.name());
            let place = self.link.nodes().and_then(|nodes| nodes.place(slot));
            let node = place.map(|place| place.node);
            let stream = (source, stream.clone());
            match nodes.iter().position(|known| *known == node) {
                Some(server) => servers[server].push(stream),
                None => {
                    nodes.push(node);
                    servers.push(vec![stream]);
                }
            }
        }
        servers
    }

    /// Creates the group on a stream if it is not there, and the stream with it. Whether it did.
    pub(crate) async fn create_group(&self, stream: &Topic, start: &str) -> Result<bool> {
        let mut command = Cmd::new();
        command
            .arg("XGROUP")
            .arg("CREATE")
            .arg(stream.name())
            .arg(self.group.as_str())
            .arg(start)
            .arg("MKSTREAM");
        let created = self
            .link
            .ask(stream.name(), &command, self.deadline())
            .await;
        let created = created.and_then(|created| match created {
            Ok(_) => Ok(true),
            Err(failure) if failure.has_code("BUSYGROUP") => Ok(false),
            Err(failure) => Err(self.error(failure, "subscribe")),
        });
        created.map_err(|error| error.with_topic(stream.name()))
    }

    /// Creates the group of a stream again if it is gone: the server was wiped, or fell back to a
    /// replica that did not have it. From the beginning, because what was stored since must not be
    /// skipped. Whoever reads is told.
    pub(crate) async fn heal(&self, stream: &Topic) -> Result<()> {
        if !self.create_group(stream, "0").await? {
            return Ok(());
        }
        let why =
            "the consumer group was gone from the server: it was created again, from the beginning";
        tracing::warn!(transport = %self.config.name, topic = %stream, group = %self.group, why);
        let error = self.link.client().origin().plain(ErrorKind::Transport, why);
        let error = error.with_operation("receive").with_topic(stream.name());
        self.inbox.report(error);
        Ok(())
    }

    /// Waits until fewer entries wait, and are in hand, than may.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub(crate) async fn room(&self) {
        loop {
            self.held.room(self.config.max_pending).await;
            self.inbox.room().await;
            if self.held.has_room(0, self.config.max_pending) {
                return;
            }
        }
    }

    /// Hands entries that the server gave us at `fresh` or later to the application, but for
    /// those that it has in hand, and those of a partition that is not ours any more.
    pub(crate) fn deliver(&self, source: u32, arrivals: Vec<Arrival>, fresh: Instant) {
        let (topic, partition) = match (self.partition(source), self.stream(source)) {
            (Some(partition), _) if !partition.is_ours(self.takeover_after) => return,
            (Some(partition), _) => (partition.topic.clone(), partition.number),
            (None, Some(topic)) => (topic, 0),
            (None, None) => return,
        };
        let ids = arrivals.iter().map(|arrival| arrival.id);
        let taken = self.held.take(source, ids, fresh);
        let mut deliveries = Vec::with_capacity(arrivals.len());
        let mut bytes = 0;
        for (arrival, taken) in arrivals.into_iter().zip(taken) {
            let Some(taken) = taken else {
                continue;
            };
            let read = arrival.read;
            bytes += read.size;
            let (token, topic) = (AckToken::from(taken), topic.clone());
            let delivery = delivery(
                read,
                token,
                topic,
                taken.id.position(partition),
                &self.config.name,
            );
            deliveries.push(delivery.with_attempt(arrival.attempt));
        }
        self.inbox.push(deliveries, bytes);
    }

    /// Counts entries that were trimmed or deleted while they were pending.
    pub(crate) fn count_lost(&self, stream: &Topic, count: usize) {
        if count == 0 {
            return;
        }
        self.losses.add(count as u64);
        tracing::warn!(
            transport = %self.config.name,
            topic = %stream,
            group = %self.group,
            count,
            "pending entries were deleted from the stream before they were acknowledged"
        );
    }

    pub(crate) fn error(&self, failure: Failure, operation: &'static str) -> Error {
        self.link.client().origin().error(failure, operation)
    }

    pub(crate) fn malformed(&self, operation: &'static str) -> Error {
        self.link.client().origin().malformed(operation)
    }

    pub(crate) fn closed(&self, operation: &'static str) -> Error {
        Error::new(ErrorKind::Closed, "the subscriber is closed")
            .with_operation(operation)
            .with_transport(self.config.name.clone())
    }
}

/// What an entry holds, as it is delivered.
pub(crate) fn delivery(
    read: entry::Read,
    token: AckToken,
    topic: Topic,
    position: Position,
    transport: &Text,
) -> Delivery {
    match read.content {
        Ok(event) => Delivery::new(token, topic, position, event).with_headers(read.headers),
        Err((record, error)) => {
            let error = error
                .with_operation("receive")
                .with_transport(transport.clone())
                .with_topic(topic.name());
            Delivery::undecodable(token, topic, position, record, error)
        }
    }
}

/// A name that no other member has.
pub(crate) fn unique_name(service: &str) -> Text {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname")
        .or_else(|_| std::env::var("HOSTNAME"))
        .unwrap_or_default();
    let host = match host.trim() {
        "" => "host",
        host => host,
    };
    let process = std::process::id();
    format_text!("{service}/{host}/{process}/{}", EventId::generate())
}

/// The id behind which a new group starts.
pub(crate) fn start_id(start: Start) -> Option<String> {
    match start {
        Start::Beginning => Some("0".to_owned()),
        Start::Now => Some("$".to_owned()),
        // The group gets what is behind the id: the last one possible in the millisecond before.
        Start::Time(time) => match u64::try_from(time.as_millisecond()) {
            Ok(milliseconds) if milliseconds > 0 => {
                Some(format!("{}-{}", milliseconds - 1, u64::MAX))
            }
            _ => Some("0".to_owned()),
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_starts_behind_the_last_entry_it_skips() {
        let at = |time: &str| Start::Time(time.parse().unwrap());
        for (start, id) in [
            (Start::Beginning, "0"),
            (Start::Now, "$"),
            (at("1970-01-01T00:00:00Z"), "0"),
            (at("1969-01-01T00:00:00Z"), "0"),
            (at("1970-01-01T00:00:01.5009Z"), "1499-18446744073709551615"),
        ] {
            assert_eq!(start_id(start).unwrap(), id);
        }
    }

    #[test]
    fn made_up_names_are_unique() {
        assert_ne!(unique_name("a"), unique_name("a"));
        assert!(unique_name("deals").starts_with("deals/"));
    }
}
