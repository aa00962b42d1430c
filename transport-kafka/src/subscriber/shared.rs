//! What a subscriber, its settlers and its thread share.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock};
use std::thread::Thread;
use std::time::Instant;

use polybus_core::transport::{AckToken, Settlement};
use polybus_core::watermark::Watermark;
use polybus_core::{Error, Topic};
use tokio::sync::Notify;

use super::packed::Packed;
use super::steps::Handle;
use crate::asking::Partition;

/// What is ready to be received, what was delivered, and what the thread is to do.
#[derive(Debug)]
pub(crate) struct Shared {
    state: Mutex<State>,
    /// How often an ownership has begun, ended or been about to. Changed under the lock.
    ownerships: AtomicU64,
    /// The ownership that [`is_current`](Shared::is_current) has found last. 0: none.
    found: AtomicU64,
    limits: Limits,
    /// Told when there is something to receive.
    pub(super) arrived: Notify,
    thread: OnceLock<Thread>,
    consumer: OnceLock<Handle>,
}

/// How much is kept, at most.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) events: usize,
    pub(super) bytes: u64,
    /// Deliveries of one partition behind one that is not settled.
    pub(super) unsettled: usize,
}

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<Packed>,
    bytes: u64,
    sources: Vec<Source>,
    error: Option<Error>,
    ended: bool,
    orders: Orders,
    /// What the thread waits for, so that it is woken for nothing else.
    wants: Wants,
}

/// A partition that is or was assigned to this member.
#[derive(Debug)]
struct Source {
    topic: Topic,
    partition: i32,
    watermark: Watermark,
    /// It is being handed over: nothing of it is to be started any more.
    revoking: bool,
    queued: usize,
    /// The position that was written with what was published.
    transacted: Option<u64>,
}

/// What the thread is asked to do.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum Orders {
    #[default]
    Read,
    /// Commit what is settled and leave the group, until a point in time.
    Leave(Instant),
}

#[derive(Debug, Default)]
struct Wants {
    room: bool,
    /// A partition is read no further until something of it is settled.
    progress: bool,
    /// A partition is handed over once everything of it is settled.
    drained: bool,
}

/// How much more may be put into the queue.
#[derive(Debug, Clone, Copy)]
pub(super) struct Room {
    pub(super) events: usize,
    pub(super) bytes: u64,
}

impl Room {
    pub(super) fn is_none(self) -> bool {
        self.events == 0 || self.bytes == 0
    }

    /// Counts a record, of which the last one may be larger than what was left.
    pub(super) fn take(&mut self, record: &Packed) {
        self.events -= 1;
        self.bytes = self.bytes.saturating_sub(record.size());
    }
}

/// What is there to be received.
pub(super) enum Received {
    Records(Vec<(Topic, Packed)>),
    Error(Error),
    Nothing,
    Ended,
}

/// What acknowledging deliveries comes to.
pub(super) enum Plan {
    /// They were all acknowledged before.
    Done,
    /// Where partitions go on then.
    Next(Vec<(Partition, i64)>),
}

/// Why deliveries can't be acknowledged together.
pub(super) enum Unplanned {
    NotOwned,
    /// An earlier delivery is not settled.
    Gap(Topic),
}

/// Why a delivery can't be settled: it belongs to another member by now.
pub(crate) struct NotOwned {
    pub(crate) topic: Option<Topic>,
}

impl Shared {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            state: Mutex::default(),
            ownerships: AtomicU64::new(0),
            found: AtomicU64::new(0),
            limits,
            arrived: Notify::new(),
            thread: OnceLock::new(),
            consumer: OnceLock::new(),
        }
    }

    /// Makes the calling thread the one that is woken.
    pub(super) fn adopt_thread(&self) {
        let _ = self.thread.set(std::thread::current());
    }

    pub(super) fn wake_thread(&self) {
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state
            .lock()
            .expect("nothing panics while it holds the state")
    }
}

/// The side of the subscriber and its settlers.
impl Shared {
    /// Takes up to `max` records, and notes them as delivered.
    pub(super) fn receive(&self, max: usize) -> Received {
        let mut state = self.state();
        if state.queue.is_empty() {
            return match (state.error.take(), state.ended) {
                (Some(error), _) => Received::Error(error),
                (None, true) => Received::Ended,
                (None, false) => Received::Nothing,
            };
        }
        let count = max.clamp(1, state.queue.len());
        let State {
            queue,
            sources,
            bytes,
            ..
        } = &mut *state;
        let records = queue.drain(..count).map(|record| {
            let source = &mut sources[record.token.source as usize];
            source.queued -= 1;
            source.watermark.push(record.token.id[0]);
            *bytes -= record.size();
            (source.topic.clone(), record)
        });
        let records = records.collect();
        // Half empty, so that a slow reader does not wake the thread for each event.
        let roomy =
            state.queue.len() * 2 <= self.limits.events && state.bytes * 2 <= self.limits.bytes;
        let wake = roomy && std::mem::take(&mut state.wants.room);
        drop(state);
        if wake {
            self.wake_thread();
        }
        Received::Records(records)
    }

    pub(crate) fn settle(&self, batch: &[(AckToken, Settlement)]) -> Vec<Result<(), NotOwned>> {
        let mut state = self.state();
        let results = batch
            .iter()
            .map(|(token, settlement)| state.settle(*token, *settlement))
            .collect();
        let wake = state.wants.progress || state.wants.drained;
        drop(state);
        if wake {
            self.wake_thread();
        }
        results
    }

    /// Whether a delivery may be started. Asked for each, mostly many of one ownership in a row:
    /// those take no lock.
    pub(crate) fn is_current(&self, token: AckToken) -> bool {
        let found = remembered(self.ownerships.load(Ordering::Acquire), token);
        if found.is_some_and(|found| self.found.load(Ordering::Relaxed) == found) {
            return true;
        }
        let state = self.state();
        let source = state.sources.get(token.source as usize);
        let is_current = source
            .is_some_and(|source| source.watermark.epoch() == token.epoch && !source.revoking);
        if is_current
            && let Some(found) = remembered(self.ownerships.load(Ordering::Acquire), token)
        {
            self.found.store(found, Ordering::Relaxed);
        }
        is_current
    }

    /// Makes `is_current` look again. To be called while the state is locked.
    fn ownerships_change(&self) {
        self.ownerships.fetch_add(1, Ordering::AcqRel);
    }

    /// Tells the thread to leave the group. The first deadline stays.
    pub(super) fn order_to_leave(&self, deadline: Instant) {
        let mut state = self.state();
        if state.orders == Orders::Read {
            state.orders = Orders::Leave(deadline);
        }
        drop(state);
        self.wake_thread();
    }
}

/// The side of what is settled together with events.
impl Shared {
    /// Where partitions go on once deliveries are acknowledged.
    pub(super) fn plan(&self, acks: &[AckToken]) -> Result<Plan, Unplanned> {
        let state = self.state();
        let mut next = Vec::new();
        let mut open = 0;
        for acks in by_source(acks) {
            let source = state.sources.get(acks[0].source as usize);
            let source = source.ok_or(Unplanned::NotOwned)?;
            let mut watermark = source.watermark.clone();
            let before = watermark.position();
            for ack in &acks {
                let settled = watermark.ack(ack.epoch, ack.id[0]);
                settled.map_err(|_| Unplanned::NotOwned)?;
            }
            let position = watermark.position();
            let beyond =
                |position: Option<u64>, ack: &AckToken| position.is_some_and(|it| it > ack.id[0]);
            if !acks.iter().all(|ack| beyond(position, ack)) {
                return Err(Unplanned::Gap(source.topic.clone()));
            }
            open += acks.iter().filter(|ack| !beyond(before, ack)).count();
            let partition = (source.topic.name().to_owned(), source.partition);
            let position = position.and_then(|it| i64::try_from(it).ok());
            next.extend(position.map(|position| (partition, position)));
        }
        match open {
            0 if !acks.is_empty() => Ok(Plan::Done),
            _ => Ok(Plan::Next(next)),
        }
    }

    /// Notes that deliveries are acknowledged, and the server knows.
    pub(super) fn settled_together(&self, acks: &[AckToken]) {
        let mut state = self.state();
        for ack in acks {
            // What is another member's by now is no matter of this one.
            let _ = state.settle(*ack, Settlement::Ack);
            if let Some(source) = state.sources.get_mut(ack.source as usize) {
                source.transacted = source.watermark.position();
            }
        }
        drop(state);
        self.wake_thread();
    }

    /// The position of a partition that was written with what was published.
    pub(super) fn transacted(&self, source: u32) -> Option<u64> {
        self.state().sources[source as usize].transacted
    }

    pub(super) fn adopt_consumer(&self, consumer: Handle) {
        let _ = self.consumer.set(consumer);
    }

    pub(super) fn consumer(&self) -> Option<Handle> {
        self.consumer.get().cloned()
    }
}

/// The side of the thread.
impl Shared {
    pub(super) fn orders(&self) -> Orders {
        self.state().orders
    }

    /// Begins an ownership of a partition. Returns its source and epoch.
    pub(super) fn own(&self, topic: &Topic, partition: i32) -> (u32, u32) {
        let mut state = self.state();
        let known = state
            .sources
            .iter()
            .position(|source| source.partition == partition && source.topic == *topic);
        let index = known.unwrap_or_else(|| {
            state.sources.push(Source {
                topic: topic.clone(),
                partition,
                watermark: Watermark::new(),
                revoking: false,
                queued: 0,
                transacted: None,
            });
            state.sources.len() - 1
        });
        let source = &mut state.sources[index];
        source.revoking = false;
        source.transacted = None;
        let epoch = source.watermark.begin();
        self.ownerships_change();
        let index = u32::try_from(index).expect("a member has fewer than 2^32 partitions");
        (index, epoch)
    }

    /// How much may be read; notes whether the thread waits for more room.
    pub(super) fn room(&self) -> Room {
        let mut state = self.state();
        let room = Room {
            events: self.limits.events.saturating_sub(state.queue.len()),
            bytes: self.limits.bytes.saturating_sub(state.bytes),
        };
        state.wants.room = room.is_none();
        state.wants.progress = false;
        room
    }

    /// Whether a partition may be read on; notes if the thread waits for settlements of it.
    pub(super) fn may_read(&self, source: u32) -> bool {
        let mut state = self.state();
        let found = &state.sources[source as usize];
        let full = found.watermark.held() + found.queued >= self.limits.unsettled;
        let may = !full && !found.revoking;
        state.wants.progress |= full;
        may
    }

    /// Puts records into the queue.
    pub(super) fn push(&self, records: &mut Vec<Packed>) {
        if records.is_empty() {
            return;
        }
        let mut state = self.state();
        for record in records.iter() {
            state.bytes += record.size();
            state.sources[record.token.source as usize].queued += 1;
        }
        state.queue.extend(records.drain(..));
        drop(state);
        self.arrived.notify_one();
    }

    /// Takes back what is queued of partitions that are to be handed over.
    pub(super) fn revoke(&self, sources: &[u32]) {
        let mut state = self.state();
        let State {
            queue,
            sources: all,
            bytes,
            wants,
            ..
        } = &mut *state;
        queue.retain(|record| {
            let keep = !sources.contains(&record.token.source);
            if !keep {
                *bytes -= record.size();
            }
            keep
        });
        for source in sources {
            let source = &mut all[*source as usize];
            source.queued = 0;
            source.revoking = true;
        }
        self.ownerships_change();
        wants.drained = true;
    }

    /// Whether everything that was delivered of some partitions is settled or released.
    pub(super) fn is_drained(&self, sources: &[u32]) -> bool {
        let state = self.state();
        sources
            .iter()
            .all(|source| state.sources[*source as usize].watermark.outstanding() == 0)
    }

    /// Whether everything of a partition that was read is settled.
    pub(super) fn is_idle(&self, source: u32) -> bool {
        let state = self.state();
        let source = &state.sources[source as usize];
        source.watermark.held() == 0 && source.queued == 0 && !source.revoking
    }

    /// Up to where a partition is done.
    pub(super) fn position(&self, source: u32) -> Option<u64> {
        self.state().sources[source as usize].watermark.position()
    }

    /// Ends the ownership of partitions, given what is committed of each. Returns up to where
    /// each was done; `None`, and nothing ended, if it is to be `lossless` and more has been
    /// settled in between.
    pub(super) fn disown(
        &self,
        committed: &[(u32, Option<u64>)],
        lossless: bool,
    ) -> Option<Vec<Option<u64>>> {
        let mut state = self.state();
        let positions = committed
            .iter()
            .map(|(source, _)| state.sources[*source as usize].watermark.position());
        let positions: Vec<_> = positions.collect();
        let complete = positions
            .iter()
            .zip(committed)
            .all(|(position, (_, committed))| position <= committed);
        if lossless && !complete {
            return None;
        }
        for (source, _) in committed {
            let source = &mut state.sources[*source as usize];
            source.revoking = false;
            source.watermark.begin();
        }
        self.ownerships_change();
        state.wants.drained = false;
        Some(positions)
    }

    /// Reports an error to the next call of `recv` that finds nothing else.
    pub(super) fn report(&self, error: Error) {
        self.state().error = Some(error);
        self.arrived.notify_one();
    }

    /// Nothing comes any more.
    pub(super) fn end(&self) {
        let mut state = self.state();
        state.ended = true;
        state.queue.clear();
        state.bytes = 0;
        for source in &mut state.sources {
            source.watermark.begin();
        }
        self.ownerships_change();
        drop(state);
        self.arrived.notify_one();
    }
}

/// An ownership in one number, never 0, as long as each part is within its bits.
fn remembered(ownerships: u64, token: AckToken) -> Option<u64> {
    let fits = ownerships < 1 << 23 && token.source < 1 << 20 && token.epoch < 1 << 20;
    let packed = ownerships << 40 | u64::from(token.source) << 20 | u64::from(token.epoch);
    fits.then_some(1 << 63 | packed)
}

fn by_source(acks: &[AckToken]) -> Vec<Vec<AckToken>> {
    let mut sorted = acks.to_vec();
    sorted.sort_by_key(|ack| (ack.source, ack.id[0]));
    let runs = sorted.chunk_by(|one, next| one.source == next.source);
    runs.map(<[AckToken]>::to_vec).collect()
}

impl State {
    fn settle(&mut self, token: AckToken, settlement: Settlement) -> Result<(), NotOwned> {
        let source = self
            .sources
            .get_mut(token.source as usize)
            .ok_or(NotOwned { topic: None })?;
        let settled = match settlement {
            Settlement::Ack => source.watermark.ack(token.epoch, token.id[0]),
            // Whatever else may come: it is not done.
            _ => source.watermark.release(token.epoch, token.id[0]),
        };
        settled.map_err(|_| NotOwned {
            topic: Some(source.topic.clone()),
        })
    }
}

#[cfg(test)]
#[path = "shared_tests.rs"]
mod tests;
