//! The task that reads: one connection of its own, which blocks on the server.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use polybus_core::{Result, Topic};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::client::{Cmd, Value};
use crate::cluster::{Course, Place, slot_of};
use crate::connection::Connection;
use crate::entry;
use crate::error::Failure;
use crate::leased::{Leased, first_id, milliseconds};
use crate::member::{Arrival, Member, ReadBy, Reading};
use crate::reply::{self, EntryId};
use crate::resp::{Cursor, Part};
use crate::scripts;
use crate::wire::Wire;

/// The first pause before the next attempt to connect; it doubles up to `MAX_PAUSE`.
const MIN_PAUSE: Duration = Duration::from_millis(20);
const MAX_PAUSE: Duration = Duration::from_secs(1);

/// How many reads are out at once while there is much to read.
const READS_OUT: usize = 2;

/// How large entries are taken to be before the first has come: the largest that a bus lets
/// through unless it is told otherwise. The first read is a small one therefore.
const FIRST_ENTRY_SIZE: usize = 1024 * 1024;

/// How many pending entries are looked at in one step.
const PAGE: usize = 100;

/// Reads until the member stops or fails for good: all streams that are not leased, or on a cluster
/// those of a slot; or one that is, until the lease ends. No answer of the server is ever dropped
/// while its connection lives: whoever waits for one waits for nothing else.
///
/// A leased stream is read by a script that looks at the lease first, so that a member that lost it
/// without noticing gets nothing. A script can't wait; an `XREAD` before it does, which takes nothing.
pub(crate) async fn run(member: Arc<Member>, slot: Option<u16>, mut leased: Option<Leased>) {
    let mut pause = MIN_PAUSE;
    let mut told = None;
    let stop = leased.as_ref().map_or(&member.stop, |it| &it.stop).clone();
    while !stop.is_cancelled() {
        let mut session = Session::new(&member, slot, leased.clone(), told.take());
        let ended = session.run().await;
        member.note_reading(session.read_by(), None);
        if session.has_read {
            pause = MIN_PAUSE;
        }
        leased = session.leased.take();
        match ended {
            Ok(End::Stopped) => return,
            Ok(End::Fenced) => {
                let source = leased.map(|it| it.source);
                if let Some(partition) = source.and_then(|it| member.partition(it)) {
                    partition.lose();
                }
                return;
            }
            Ok(End::Elsewhere(place)) => {
                tracing::debug!(transport = %member.config.name, group = %member.group, slot,
                    "the streams of a slot are at another node now");
                told = place;
            }
            Err(error) if !error.retryable() => {
                tracing::error!(transport = %member.config.name, group = %member.group, %error,
                    "reading ended");
                member.inbox.end(error);
                return;
            }
            Err(error) => {
                tracing::warn!(transport = %member.config.name, group = %member.group, %error,
                    "reading was interrupted and goes on after a pause");
                member.inbox.report(error);
            }
        }
        tokio::select! {
            () = sleep(pause) => {}
            () = stop.cancelled() => return,
        }
        pause = (pause * 2).min(MAX_PAUSE);
    }
}

/// Why a session ended that did not fail.
enum End {
    Stopped,
    /// The lease is not ours any more.
    Fenced,
    /// The streams are at this place, or at the one that is known now.
    Elsewhere(Option<Place>),
}

/// What is done on one connection.
struct Session<'a> {
    member: &'a Member,
    slot: Option<u16>,
    leased: Option<Leased>,
    stop: CancellationToken,
    /// Where a node of the cluster says that the streams are.
    told: Option<Place>,
    /// All streams of the member, of which those are read that are of the slot, or leased.
    known: Arc<[Topic]>,
    streams: Vec<(u32, Topic)>,
    /// About the bytes of an entry, from what came last.
    entry_size: usize,
    /// The server answered a read.
    has_read: bool,
    /// The last answer was as long as was asked for.
    has_more: bool,
}

/// A read on its way.
struct Read {
    /// How many commands stand before it, which are answered too: an `ASKING`, the one that waits.
    before: usize,
    /// How many entries of each stream were asked for.
    count: usize,
    /// When it was sent: what it brings is ours since then at the earliest.
    since: Instant,
    deadline: Instant,
}

/// Where a session reads.
struct Desk {
    wire: Wire,
    /// The one that showed the way.
    shared: Connection,
    /// On a cluster.
    place: Option<Place>,
    /// The entry that ended the last wait.
    woken_by: Option<EntryId>,
}

impl Desk {
    /// Waits for the answer to the first of the reads that are out.
    async fn answer(&mut self, read: &Read) -> Result<&[u8], Failure> {
        for _ in 0..read.before {
            match self.wire.answer(read.deadline).await {
                Ok(answer) => self.woken_by = first_id(answer).or(self.woken_by),
                // What matters of it the read itself is answered as well.
                Err(Failure::Server(_)) => {}
                Err(failure) => return Err(failure),
            }
        }
        self.wire.answer(read.deadline).await
    }
}

impl<'a> Session<'a> {
    fn new(
        member: &'a Member,
        slot: Option<u16>,
        leased: Option<Leased>,
        told: Option<Place>,
    ) -> Self {
        let stop = leased.as_ref().map_or(&member.stop, |it| &it.stop).clone();
        Self {
            member,
            slot,
            leased,
            stop,
            told,
            known: Arc::new([]),
            streams: Vec::new(),
            entry_size: FIRST_ENTRY_SIZE,
            has_read: false,
            has_more: false,
        }
    }

    fn read_by(&self) -> ReadBy {
        match &self.leased {
            Some(leased) => ReadBy::Partition(leased.source),
            None => ReadBy::Slot(self.slot),
        }
    }

    async fn run(&mut self) -> Result<End> {
        let stop = self.stop.clone();
        let mut desk = tokio::select! {
            desk = self.open() => desk?,
            () = stop.cancelled() => return Ok(End::Stopped),
        };
        self.announce(&mut desk).await?;
        self.recover().await?;
        let mut out = VecDeque::with_capacity(READS_OUT);
        let ended = self.read_on(&mut desk, &mut out).await;
        // What is out still is answered as well, or fails at once.
        for read in out {
            // Of a leased stream what the first of them brought is missing, and comes again before.
            if let Ok(answer) = desk.answer(&read).await
                && self.leased.is_none()
            {
                self.deliver(answer, &read)?;
            }
        }
        ended
    }

    /// Reads until there is a reason to stop. While the server has more than one read takes, the
    /// next one is out when an answer comes, so that the two of us work at the same time.
    async fn read_on(&mut self, desk: &mut Desk, out: &mut VecDeque<Read>) -> Result<End> {
        loop {
            if out.is_empty() {
                // What has come goes to its handler first: to send the next read takes longer.
                tokio::task::yield_now().await;
                if !self.wait_for_room().await {
                    return Ok(End::Stopped);
                }
                out.push_back(self.send(desk, true).await?);
            }
            while self.has_more && out.len() < READS_OUT && self.may_read_ahead(out) {
                out.push_back(self.send(desk, false).await?);
            }
            let Some(read) = out.pop_front() else {
                continue;
            };
            if let Some(end) = self.answer(desk, read).await? {
                return Ok(end);
            }
            if !self.has_read {
                self.has_read = true;
                self.member.inbox.recovered();
            }
        }
    }

    fn may_read_ahead(&self, out: &VecDeque<Read>) -> bool {
        let asked: usize = out.iter().map(|read| read.count).sum();
        let member = self.member;
        !self.stop.is_cancelled()
            && member.inbox.has_room(asked)
            && member.held.has_room(asked, member.config.max_pending)
    }

    /// A connection of its own to where the streams are.
    async fn open(&mut self) -> Result<Desk> {
        let member = self.member;
        let deadline = member.deadline();
        let (place, shared) = match (member.link.nodes(), self.slot) {
            (Some(nodes), Some(slot)) => {
                let (place, shared) = match self.told.take() {
                    Some(place) => nodes.reach_at(place, deadline).await?,
                    None => nodes.reach(slot, deadline).await?,
                };
                (Some(place), shared)
            }
            _ => (None, member.link.connection(deadline).await?),
        };
        let wire = shared.server().open_wire(deadline).await?;
        Ok(Desk {
            wire,
            shared,
            place,
            woken_by: None,
        })
    }

    /// Notes which connection a stop has to unblock.
    async fn announce(&self, desk: &mut Desk) -> Result<()> {
        let mut command = Cmd::new();
        command.arg("CLIENT").arg("ID");
        let deadline = self.member.deadline();
        let id = desk.wire.call(&command, deadline).await;
        let id = id.map_err(|failure| self.member.error(failure, "receive"))?;
        let id = reply::number(&id).ok_or_else(|| self.member.malformed("receive"))?;
        let node = desk.place.as_ref().map(|place| place.node.clone());
        self.member
            .note_reading(self.read_by(), Some(Reading { id, node }));
        Ok(())
    }

    /// Delivers what is pending for this member and not in hand: what it had before it was
    /// started again under its name, and what was on its way when the connection was lost.
    async fn recover(&mut self) -> Result<()> {
        self.refresh_streams();
        for (source, stream) in &self.streams {
            let source = *source;
            let mut start = "-".to_owned();
            while self.wait_for_room().await {
                // Until what is claimed elsewhere is in hand it looks like what was lost.
                let _claiming = self.member.claiming.lock().await;
                let Some(page) = self.pending(stream, &start).await? else {
                    break;
                };
                let Some(last) = page.last().copied() else {
                    break;
                };
                let held = &self.member.held;
                let missing = page.iter().filter(|id| !held.contains(source, **id));
                let missing: Vec<EntryId> = missing.copied().collect();
                if !missing.is_empty() {
                    self.take_own(source, stream, &missing).await?;
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
    async fn pending(&self, stream: &Topic, start: &str) -> Result<Option<Vec<EntryId>>> {
        let mut command = Cmd::new();
        command
            .arg("XPENDING")
            .arg(stream.name())
            .arg(self.member.group.as_str())
            .arg(start)
            .arg("+")
            .arg(PAGE)
            .arg(self.member.name.as_str());
        let link = &self.member.link;
        let deadline = self.member.deadline();
        let reply = match link.ask(stream.name(), &command, deadline).await? {
            Ok(reply) => reply,
            Err(failure) if failure.has_code("NOGROUP") => {
                self.member.heal(stream).await?;
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

    async fn take_own(&self, source: u32, stream: &Topic, ids: &[EntryId]) -> Result<()> {
        let member = self.member;
        let mut command = scripts::call(
            scripts::TAKE_OWN,
            stream.name(),
            &[&member.group, &member.name],
        );
        scripts::push_ids(&mut command, ids.iter().copied());
        let sent = Instant::now();
        let reply = member
            .link
            .call_of(stream.name(), &command, "receive", member.deadline())
            .await?;
        let taken = reply::array(reply).ok_or_else(|| member.malformed("receive"))?;
        let mut arrivals = Vec::with_capacity(taken.len());
        let mut deleted = 0;
        for item in taken {
            let item = reply::array(item).and_then(|item| <[Value; 3]>::try_from(item).ok());
            let Some([_, count, entry]) = item else {
                return Err(member.malformed("receive"));
            };
            match reply::entry(entry) {
                Some(entry) => arrivals.push(Arrival::of(entry, reply::number(&count))),
                None => deleted += 1,
            }
        }
        member.count_lost(stream, deleted);
        member.deliver(source, arrivals, sent);
        Ok(())
    }

    /// Waits until there is something to read and room for it. False if the member stops.
    async fn wait_for_room(&self) -> bool {
        let ready = async {
            self.member.room().await;
            while self.leased.is_none() && !self.member.has_plain_streams() {
                self.member.added.notified().await;
            }
        };
        tokio::select! {
            biased;
            () = self.stop.cancelled() => false,
            () = ready => true,
        }
    }

    /// Sends a read. One that may block is alone: nothing waits behind it for long.
    async fn send(&mut self, desk: &mut Desk, may_block: bool) -> Result<Read> {
        self.refresh_streams();
        if let (Some(leased), Some(woken_by)) = (&mut self.leased, desk.woken_by) {
            // Where the group has been moved ahead of it, it must not wake us again and again.
            leased.last = leased.last.max(woken_by);
        }
        let (block, count) = (self.block(), self.count());
        let mut packed = Vec::new();
        let asking = desk.place.as_ref().is_some_and(|place| place.asking);
        let block_for = may_block.then_some(block);
        let commands = match &self.leased {
            Some(leased) => leased.commands(self.member, count, block_for),
            None => vec![self.command(count, block_for)],
        };
        let before = commands.len().saturating_sub(1) + usize::from(asking) * commands.len();
        for command in commands {
            if asking {
                packed.extend(Cmd::new().arg("ASKING").get_packed_command());
            }
            packed.extend(command.get_packed_command());
        }
        let since = Instant::now();
        // It may have to wait for one that blocks.
        let deadline = self.member.deadline() + block;
        let sent = desk.wire.send(&packed, deadline).await;
        sent.map_err(|failure| self.member.error(failure, "receive"))?;
        Ok(Read {
            before,
            count,
            since,
            deadline,
        })
    }

    async fn answer(&mut self, desk: &mut Desk, read: Read) -> Result<Option<End>> {
        match desk.answer(&read).await {
            Ok(answer) => self.deliver(answer, &read)?,
            Err(failure) => {
                if failure.has_code("READONLY") {
                    desk.shared.outdate();
                }
                return self.refused(desk.place.as_ref(), failure).await;
            }
        }
        Ok(None)
    }

    /// What to do when the server refuses a read.
    async fn refused(&mut self, place: Option<&Place>, failure: Failure) -> Result<Option<End>> {
        let member = self.member;
        if failure.has_code("NOGROUP") {
            // The server does not say which of them it is.
            for (_, stream) in &self.streams {
                member.heal(stream).await?;
            }
            if let Some(leased) = &mut self.leased {
                leased.last = EntryId::default();
            }
            return Ok(None);
        }
        if failure.has_code(scripts::FENCED) {
            return Ok(Some(End::Fenced));
        }
        // What a deleted stream does to a read that waits for it.
        if failure.has_code("UNBLOCKED") {
            return Ok(None);
        }
        if let (Some(place), Some(slot), Some(nodes)) = (place, self.slot, member.link.nodes()) {
            match nodes.follow(slot, &failure, place, member.deadline()).await {
                Some(Course::There(place)) => return Ok(Some(End::Elsewhere(Some(place)))),
                Some(Course::Anew) => return Ok(Some(End::Elsewhere(None))),
                None => {}
            }
        }
        Err(member.error(failure, "receive"))
    }

    fn refresh_streams(&mut self) {
        let known = self.member.streams();
        if Arc::ptr_eq(&known, &self.known) {
            return;
        }
        let streams = (0..).zip(known.iter().cloned());
        let ours = |(source, stream): &(u32, Topic)| match &self.leased {
            Some(leased) => *source == leased.source,
            None => {
                self.member.partition(*source).is_none()
                    && self.slot.is_none_or(|slot| slot_of(stream.name()) == slot)
            }
        };
        self.streams = streams.filter(ours).collect();
        self.known = known;
    }

    /// How long a read waits. An entry may have been ours for that long when it comes, so it is
    /// a small part of the time after which it may be taken from us.
    fn block(&self) -> Duration {
        let bound = self.member.takeover_after / 4;
        let block = self.member.config.block.min(bound);
        // 0 would be without end.
        block.max(Duration::from_millis(1))
    }

    /// How many entries a read asks for from each stream.
    fn count(&self) -> usize {
        let config = &self.member.config;
        let bytes = config.read_ahead_bytes / self.entry_size;
        let pending = config.max_pending.saturating_sub(self.member.held.count());
        let room = bytes.min(pending) / self.streams.len().max(1);
        config.count.min(room).max(1)
    }

    fn command(&self, count: usize, block: Option<Duration>) -> Cmd {
        let member = self.member;
        let mut command = Cmd::new();
        command
            .arg("XREADGROUP")
            .arg("GROUP")
            .arg(member.group.as_str())
            .arg(member.name.as_str())
            .arg("COUNT")
            .arg(count);
        if let Some(block) = block {
            command.arg("BLOCK").arg(milliseconds(block));
        }
        command.arg("STREAMS");
        for (_, stream) in &self.streams {
            command.arg(stream.name());
        }
        for _ in &self.streams {
            command.arg(">");
        }
        command
    }

    /// `[[stream, [entry, ...]], ...]`, or nothing.
    fn deliver(&mut self, answer: &[u8], read: &Read) -> Result<()> {
        self.has_more = false;
        let mut cursor = Cursor::new(answer);
        let streams = match cursor.part() {
            Some(Part::Nil) => return Ok(()),
            Some(Part::Array(count)) => count,
            _ => return Err(self.member.malformed("receive")),
        };
        for _ in 0..streams {
            let stream = self.stream(&mut cursor, read);
            stream.ok_or_else(|| self.member.malformed("receive"))?;
        }
        Ok(())
    }

    /// `[stream, [entry, ...]]`. One entry that can't be understood does not keep the others from
    /// being delivered.
    fn stream(&mut self, cursor: &mut Cursor<'_>, read: &Read) -> Option<()> {
        if cursor.array()? != 2 {
            return None;
        }
        let source = self.source(cursor.bytes()?)?;
        let count = cursor.array()?;
        let mut arrivals = Vec::with_capacity(count.min(read.count));
        for _ in 0..count {
            let mut inside = cursor.clone();
            cursor.skip()?;
            match arrival(&mut inside) {
                Some(arrival) => arrivals.push(arrival),
                None => tracing::error!(
                    transport = %self.member.config.name,
                    group = %self.member.group,
                    "an entry without an id was received, and is left pending"
                ),
            }
        }
        self.has_more |= arrivals.len() >= read.count;
        self.note_size(&arrivals);
        if let Some(leased) = &mut self.leased {
            leased.last = arrivals.last().map_or(leased.last, |arrival| arrival.id);
            if !leased.is_held(self.member) {
                // They are pending, and go to whoever takes the lease.
                return Some(());
            }
        }
        self.member.deliver(source, arrivals, read.since);
        Some(())
    }

    fn note_size(&mut self, arrivals: &[Arrival]) {
        if !arrivals.is_empty() {
            let bytes: usize = arrivals.iter().map(|arrival| arrival.read.size).sum();
            // Large ones are remembered for a while: where one was, others are likely.
            self.entry_size = (bytes / arrivals.len()).max(self.entry_size / 2).max(1);
        }
    }

    fn source(&self, name: &[u8]) -> Option<u32> {
        let named = |(_, stream): &&(u32, Topic)| stream.name().as_bytes() == name;
        self.streams.iter().find(named).map(|(source, _)| *source)
    }
}

/// `[id, [field, value, ...]]`
fn arrival(cursor: &mut Cursor<'_>) -> Option<Arrival> {
    if cursor.array()? != 2 {
        return None;
    }
    let id = EntryId::parse(cursor.bytes()?)?;
    let fields = match cursor.part()? {
        Part::Array(count) => count / 2,
        // One that was deleted has none.
        Part::Nil => 0,
        _ => return None,
    };
    let fields = (0..fields).map_while(|_| Some((cursor.bytes()?, cursor.bytes()?)));
    let read = entry::read(fields);
    let attempt = 1;
    Some(Arrival { id, read, attempt })
}
