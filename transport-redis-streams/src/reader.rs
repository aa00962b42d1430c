//! The task that reads: one connection of its own, which blocks on the server.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use polybus_core::{Result, Topic};
use tokio::time::{Instant, sleep};

use crate::client::{Cmd, Value};
use crate::connection::Connection;
use crate::member::{Arrival, Member, pairs};
use crate::reply::{self, EntryId};
use crate::scripts;

/// The first pause before the next attempt to connect; it doubles up to `MAX_PAUSE`.
const MIN_PAUSE: Duration = Duration::from_millis(20);
const MAX_PAUSE: Duration = Duration::from_secs(1);

/// How large entries are taken to be before the first has come: the largest that a bus lets
/// through unless it is told otherwise. The first read is a small one therefore.
const FIRST_ENTRY_SIZE: usize = 1024 * 1024;

/// How many pending entries are looked at in one step.
const PAGE: usize = 100;

/// Reads until the member stops or fails for good. No answer of the server is ever dropped
/// while its connection lives: whoever waits for one waits for nothing else.
pub(crate) async fn run(member: Arc<Member>) {
    let mut pause = MIN_PAUSE;
    while !member.stop.is_cancelled() {
        let mut session = Session::new(&member);
        let Err(error) = session.run().await else {
            return;
        };
        member.reading.store(0, Ordering::Relaxed);
        if session.has_read {
            pause = MIN_PAUSE;
        }
        if !error.retryable() {
            tracing::error!(transport = %member.config.name, group = %member.group, %error,
                "reading ended");
            member.inbox.end(error);
            return;
        }
        tracing::warn!(transport = %member.config.name, group = %member.group, %error,
            "reading was interrupted and goes on after a pause");
        member.inbox.report(error);
        tokio::select! {
            () = sleep(pause) => {}
            () = member.stop.cancelled() => return,
        }
        pause = (pause * 2).min(MAX_PAUSE);
    }
}

/// What is done on one connection.
struct Session<'a> {
    member: &'a Member,
    /// The streams that are read, and their index by name.
    streams: Arc<[Topic]>,
    index: HashMap<Vec<u8>, u32>,
    /// About the bytes of an entry, from what came last.
    entry_size: usize,
    /// The server answered a read.
    has_read: bool,
}

impl<'a> Session<'a> {
    fn new(member: &'a Member) -> Self {
        Self {
            member,
            streams: Arc::new([]),
            index: HashMap::new(),
            entry_size: FIRST_ENTRY_SIZE,
            has_read: false,
        }
    }

    async fn run(&mut self) -> Result<()> {
        let client = self.member.link.client();
        let connection = tokio::select! {
            connection = client.open(self.member.deadline()) => connection?,
            () = self.member.stop.cancelled() => return Ok(()),
        };
        self.announce(&connection).await?;
        self.recover(&connection).await?;
        while self.wait_for_room().await {
            self.read(&connection).await?;
            if !self.has_read {
                self.has_read = true;
                self.member.inbox.recovered();
            }
        }
        Ok(())
    }

    /// Notes which connection a stop has to unblock.
    async fn announce(&self, connection: &Connection) -> Result<()> {
        let mut command = Cmd::new();
        command.arg("CLIENT").arg("ID");
        let id = self.call(connection, &command).await?;
        let id = reply::number(&id).ok_or_else(|| self.member.malformed("receive"))?;
        self.member.reading.store(id, Ordering::Relaxed);
        Ok(())
    }

    /// Delivers what is pending for this member and not in hand: what it had before it was
    /// started again under its name, and what was on its way when the connection was lost.
    async fn recover(&mut self, connection: &Connection) -> Result<()> {
        for (source, stream) in self.member.streams().iter().enumerate() {
            let source = u32::try_from(source).expect("streams are counted in 32 bits");
            let mut start = "-".to_owned();
            while self.wait_for_room().await {
                // Until what is claimed elsewhere is in hand it looks like what was lost.
                let _claiming = self.member.claiming.lock().await;
                let Some(page) = self.pending(connection, stream, &start).await? else {
                    break;
                };
                let Some(last) = page.last().copied() else {
                    break;
                };
                let held = &self.member.held;
                let missing = page.iter().filter(|id| !held.contains(source, **id));
                let missing: Vec<EntryId> = missing.copied().collect();
                if !missing.is_empty() {
                    self.take_own(connection, source, stream, &missing).await?;
                }
                if page.len() < PAGE {
                    break;
                }
                start = format!("({last}");
            }
        }
        Ok(())
    }

    /// A page of the ids that are pending for this member; nothing if the group is gone.
    async fn pending(
        &self,
        connection: &Connection,
        stream: &Topic,
        start: &str,
    ) -> Result<Option<Vec<EntryId>>> {
        let mut command = Cmd::new();
        command
            .arg("XPENDING")
            .arg(stream.name())
            .arg(self.member.group.as_str())
            .arg(start)
            .arg("+")
            .arg(PAGE)
            .arg(self.member.name.as_str());
        let reply = match connection.call(&command, self.member.deadline()).await {
            Ok(reply) => reply,
            Err(failure) if failure.has_code("NOGROUP") => {
                self.member.heal(connection).await?;
                return Ok(None);
            }
            Err(failure) => return Err(self.member.error(failure, "receive")),
        };
        let id = |item: Value| reply::entry_id(reply::array(item)?.first()?);
        let ids: Option<Vec<_>> =
            reply::array(reply).and_then(|items| items.into_iter().map(id).collect());
        ids.map(Some)
            .ok_or_else(|| self.member.malformed("receive"))
    }

    async fn take_own(
        &self,
        connection: &Connection,
        source: u32,
        stream: &Topic,
        ids: &[EntryId],
    ) -> Result<()> {
        let member = self.member;
        let mut command = scripts::call(
            scripts::TAKE_OWN,
            stream.name(),
            &[&member.group, &member.name],
        );
        scripts::push_ids(&mut command, ids.iter().copied());
        let sent = Instant::now();
        let reply = self.call(connection, &command).await?;
        let taken = reply::array(reply).ok_or_else(|| member.malformed("receive"))?;
        let mut arrivals = Vec::with_capacity(taken.len());
        let mut deleted = 0;
        for item in taken {
            let item = reply::array(item).and_then(|item| <[Value; 3]>::try_from(item).ok());
            let Some([_, count, entry]) = item else {
                return Err(member.malformed("receive"));
            };
            match reply::entry(entry) {
                Some(entry) => arrivals.push(Arrival {
                    entry,
                    attempt: attempt(reply::number(&count)),
                }),
                None => deleted += 1,
            }
        }
        member.count_lost(stream, deleted);
        member.deliver(source, arrivals, sent);
        Ok(())
    }

    /// Waits until there is something to read and room for it. False if the member stops.
    async fn wait_for_room(&mut self) -> bool {
        let ready = async {
            self.member.inbox.room().await;
            while self.member.streams().is_empty() {
                self.member.added.notified().await;
            }
        };
        tokio::select! {
            biased;
            () = self.member.stop.cancelled() => false,
            () = ready => true,
        }
    }

    async fn read(&mut self, connection: &Connection) -> Result<()> {
        self.refresh_streams();
        let block = self.block();
        let command = self.command(block);
        let sent = Instant::now();
        let deadline = self.member.deadline() + block;
        match connection.call(&command, deadline).await {
            Ok(Value::Nil) => Ok(()),
            Ok(reply) => self.deliver(reply, sent),
            Err(failure) if failure.has_code("NOGROUP") => self.member.heal(connection).await,
            // What a deleted stream does to a read that waits for it.
            Err(failure) if failure.has_code("UNBLOCKED") => Ok(()),
            Err(failure) => Err(self.member.error(failure, "receive")),
        }
    }

    fn refresh_streams(&mut self) {
        let streams = self.member.streams();
        if Arc::ptr_eq(&streams, &self.streams) {
            return;
        }
        self.index = (0..)
            .zip(streams.iter())
            .map(|(source, stream)| (stream.name().as_bytes().to_vec(), source))
            .collect();
        self.streams = streams;
    }

    /// How long a read waits. An entry may have been ours for that long when it comes, so it is
    /// a small part of the time after which it may be taken from us.
    fn block(&self) -> Duration {
        let bound = self.member.takeover_after / 4;
        let block = self.member.config.block.min(bound);
        // 0 would be without end.
        block.max(Duration::from_millis(1))
    }

    fn command(&self, block: Duration) -> Cmd {
        let member = self.member;
        let room = member.config.read_ahead_bytes / self.entry_size / self.streams.len().max(1);
        let mut command = Cmd::new();
        command
            .arg("XREADGROUP")
            .arg("GROUP")
            .arg(member.group.as_str())
            .arg(member.name.as_str())
            .arg("COUNT")
            .arg(member.config.count.min(room).max(1))
            .arg("BLOCK")
            .arg(u64::try_from(block.as_millis()).unwrap_or(u64::MAX))
            .arg("STREAMS");
        for stream in self.streams.iter() {
            command.arg(stream.name());
        }
        for _ in self.streams.iter() {
            command.arg(">");
        }
        command
    }

    /// `[[stream, [entry, ...]], ...]`. One entry that can't be understood does not keep the
    /// others from being delivered.
    fn deliver(&mut self, reply: Value, sent: Instant) -> Result<()> {
        let streams = pairs(reply).ok_or_else(|| self.member.malformed("receive"))?;
        for (stream, entries) in streams {
            let source = reply::bytes(&stream).and_then(|name| self.index.get(name));
            let (Some(source), Some(entries)) = (source.copied(), reply::array(entries)) else {
                return Err(self.member.malformed("receive"));
            };
            let mut arrivals = Vec::with_capacity(entries.len());
            for entry in entries {
                match reply::entry(entry) {
                    Some(entry) => arrivals.push(Arrival { entry, attempt: 1 }),
                    None => tracing::error!(
                        transport = %self.member.config.name,
                        group = %self.member.group,
                        "an entry without an id was received, and is left pending"
                    ),
                }
            }
            self.note_size(&arrivals);
            self.member.deliver(source, arrivals, sent);
        }
        Ok(())
    }

    fn note_size(&mut self, arrivals: &[Arrival]) {
        let size = |arrival: &Arrival| -> usize {
            let fields = arrival.entry.fields.iter().flatten();
            fields
                .map(|field| reply::bytes(field).map_or(0, <[u8]>::len))
                .sum()
        };
        if !arrivals.is_empty() {
            let bytes: usize = arrivals.iter().map(size).sum();
            // Large ones are remembered for a while: where one was, others are likely.
            self.entry_size = (bytes / arrivals.len()).max(self.entry_size / 2).max(1);
        }
    }

    async fn call(&self, connection: &Connection, command: &Cmd) -> Result<Value> {
        connection
            .call(command, self.member.deadline())
            .await
            .map_err(|failure| self.member.error(failure, "receive"))
    }
}

/// A count of deliveries as the server keeps it.
pub(crate) fn attempt(count: Option<u64>) -> u32 {
    let deliveries = count.unwrap_or(1) % scripts::STARTS;
    u32::try_from(deliveries.max(1)).unwrap_or(u32::MAX)
}
