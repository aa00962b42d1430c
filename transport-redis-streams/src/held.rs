//! Which entries this member has in hand: delivered, and not settled.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::pin::pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use foldhash::fast::RandomState;
use polybus_core::transport::{AckToken, Settlement};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::reply::EntryId;

/// The entries in hand.
#[derive(Default)]
pub(crate) struct Held {
    state: Mutex<State>,
    /// Something is not in hand any more.
    freed: Notify,
}

#[derive(Default)]
struct State {
    /// Of the last delivery.
    epoch: u32,
    /// By the index of their stream.
    streams: Vec<Entries>,
    /// How many there are that were not given back.
    count: usize,
    closed: bool,
}

/// Each is looked up three times: the hash is a quick one.
type Entries = HashMap<EntryId, Holding, RandomState>;

struct Holding {
    epoch: u32,
    /// When the server is known to have given it to us, or to have heard of us, at the earliest.
    fresh: Instant,
    /// Given back: whoever claims it may have it, we too.
    released: bool,
}

/// What is to be done to settle a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Course {
    /// Acknowledge: it is ours beyond doubt.
    Ack,
    /// Acknowledge if it is ours still.
    AckIfOwn,
    /// Give back if it is ours still.
    Release,
    /// Nothing: the entry was given back, or delivered again since.
    Stale,
    /// Nothing: this member has left the group.
    Closed,
}

/// An entry in hand, as of its delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct InHand {
    pub(crate) source: u32,
    pub(crate) id: EntryId,
    pub(crate) epoch: u32,
}

impl From<AckToken> for InHand {
    fn from(token: AckToken) -> Self {
        Self {
            source: token.source,
            id: EntryId::new(token.id[0], token.id[1]),
            epoch: token.epoch,
        }
    }
}

impl From<InHand> for AckToken {
    fn from(entry: InHand) -> Self {
        Self::new(
            entry.source,
            entry.epoch,
            [entry.id.milliseconds, entry.id.sequence],
        )
    }
}

impl Held {
    /// How many entries are in hand and not given back.
    pub(crate) fn count(&self) -> usize {
        self.lock().count
    }

    /// Whether fewer entries are in hand than `max`, were these `more` among them.
    pub(crate) fn has_room(&self, more: usize, max: usize) -> bool {
        self.count().saturating_add(more) < max
    }

    /// Waits until fewer entries are in hand than `max`.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub(crate) async fn room(&self, max: usize) {
        loop {
            let mut freed = pin!(self.freed.notified());
            freed.as_mut().enable();
            if self.has_room(0, max) {
                return;
            }
            freed.await;
        }
    }

    /// Takes entries of one stream in hand that the server gave us at `fresh` or later. `None`
    /// for those that are in hand already, which must not be delivered twice.
    pub(crate) fn take(
        &self,
        source: u32,
        ids: impl Iterator<Item = EntryId>,
        fresh: Instant,
    ) -> Vec<Option<InHand>> {
        let mut guard = self.lock();
        let state = &mut *guard;
        let entries = state.of(source);
        let mut epoch = state.epoch;
        let mut count = 0;
        let entries = &mut state.streams[entries];
        let taken = ids
            .map(|id| {
                epoch = epoch.wrapping_add(1);
                let holding = Holding {
                    epoch,
                    fresh,
                    released: false,
                };
                match entries.entry(id) {
                    Entry::Occupied(known) if !known.get().released => {
                        let known = known.into_mut();
                        known.fresh = known.fresh.max(fresh);
                        return None;
                    }
                    Entry::Occupied(mut known) => drop(known.insert(holding)),
                    Entry::Vacant(vacant) => drop(vacant.insert(holding)),
                }
                count += 1;
                Some(InHand { source, id, epoch })
            })
            .collect();
        state.epoch = epoch;
        state.count += count;
        taken
    }

    /// Whether an entry is in hand, given back or not.
    pub(crate) fn contains(&self, source: u32, id: EntryId) -> bool {
        let guard = self.lock();
        guard
            .streams
            .get(source as usize)
            .is_some_and(|entries| entries.contains_key(&id))
    }

    /// Whether a delivery is the last one of its entry and the entry ours, beyond doubt.
    pub(crate) fn is_current(&self, token: AckToken, takeover_after: Duration) -> bool {
        let mut guard = self.lock();
        !guard.closed
            && guard.current(token.into()).is_some_and(|holding| {
                !holding.released && holding.fresh.elapsed() < takeover_after
            })
    }

    /// What is to be done to settle each of a batch. What is to be released counts as given back
    /// from here on, before the server hears of it: a claim that follows must find it so.
    pub(crate) fn plan(
        &self,
        batch: &[(AckToken, Settlement)],
        certain_for: Duration,
    ) -> Vec<Course> {
        let mut guard = self.lock();
        let state = &mut *guard;
        let closed = state.closed;
        let mut released = 0;
        let course = |&(token, settlement): &(AckToken, Settlement)| {
            if closed {
                return Course::Closed;
            }
            let entry = InHand::from(token);
            let known = state
                .streams
                .get_mut(entry.source as usize)
                .and_then(|entries| entries.get_mut(&entry.id));
            let release = settlement != Settlement::Ack;
            match known {
                Some(holding) if holding.epoch != entry.epoch => Course::Stale,
                Some(holding) if release => {
                    released += usize::from(!holding.released);
                    holding.released = true;
                    Course::Release
                }
                Some(holding) if holding.released => Course::Stale,
                Some(holding) if holding.fresh.elapsed() < certain_for => Course::Ack,
                // Not in hand any more: settled before, or lost to another. The server knows.
                None if release => Course::Release,
                Some(_) | None => Course::AckIfOwn,
            }
        };
        let courses = batch.iter().map(course).collect();
        state.count -= released;
        drop(guard);
        self.freed.notify_waiters();
        courses
    }

    /// Lets entries go that are settled, or another's.
    pub(crate) fn remove(&self, entries: impl IntoIterator<Item = InHand>) {
        let mut guard = self.lock();
        for entry in entries {
            if let Some(holding) = guard.current(entry) {
                guard.count -= usize::from(!holding.released);
                guard.streams[entry.source as usize].remove(&entry.id);
            }
        }
        drop(guard);
        self.freed.notify_waiters();
    }

    /// How many entries of one stream are in hand and not given back.
    pub(crate) fn count_of(&self, source: u32) -> usize {
        let guard = self.lock();
        let entries = guard.streams.get(source as usize);
        entries.map_or(0, |it| it.values().filter(|it| !it.released).count())
    }

    /// Lets all entries of one stream go: it is another's by now. What is settled late asks the
    /// server.
    pub(crate) fn forget(&self, source: u32) {
        let mut guard = self.lock();
        let state = &mut *guard;
        if let Some(entries) = state.streams.get_mut(source as usize) {
            state.count -= entries.values().filter(|it| !it.released).count();
            entries.clear();
        }
        drop(guard);
        self.freed.notify_waiters();
    }

    /// Lets entries go that were given back and that the server gave us longer ago than `age`: others
    /// have them, and of most nobody tells us. A late settlement asks the server then.
    pub(crate) fn forget_released(&self, age: Duration) {
        let now = Instant::now();
        for entries in &mut self.lock().streams {
            entries.retain(|_, it| !it.released || now.duration_since(it.fresh) < age);
        }
    }

    /// The entries that the server last heard of longer ago than `age`, and are not given back.
    pub(crate) fn older_than(&self, age: Duration) -> Vec<InHand> {
        let guard = self.lock();
        let now = Instant::now();
        let mut found = Vec::new();
        for (source, entries) in guard.streams.iter().enumerate() {
            let source = u32::try_from(source).expect("streams are counted in 32 bits");
            let old = entries.iter().filter(|(_, holding)| {
                !holding.released && now.duration_since(holding.fresh) >= age
            });
            found.extend(old.map(|(id, holding)| InHand {
                source,
                id: *id,
                epoch: holding.epoch,
            }));
        }
        found
    }

    /// Notes that the server heard of an entry.
    pub(crate) fn refresh(&self, entry: InHand, fresh: Instant) {
        if let Some(holding) = self.lock().current(entry) {
            holding.fresh = holding.fresh.max(fresh);
        }
    }

    /// Refuses settlements from now on. Returns how many entries were in hand.
    pub(crate) fn close(&self) -> usize {
        let mut guard = self.lock();
        guard.closed = true;
        guard.streams.iter().map(HashMap::len).sum()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The index of a stream's entries, which are there after the call.
    fn of(&mut self, source: u32) -> usize {
        let index = source as usize;
        if self.streams.len() <= index {
            self.streams.resize_with(index + 1, Entries::default);
        }
        index
    }

    /// The holding of a delivery, if it is the last one of its entry.
    fn current(&mut self, entry: InHand) -> Option<&mut Holding> {
        let entries = self.streams.get_mut(entry.source as usize)?;
        let holding = entries.get_mut(&entry.id)?;
        (holding.epoch == entry.epoch).then_some(holding)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: EntryId = EntryId::new(1, 0);
    const CERTAIN: Duration = Duration::from_secs(40);
    const TAKEOVER: Duration = Duration::from_secs(60);

    fn take(held: &Held) -> Option<AckToken> {
        let taken = held.take(3, [ID].into_iter(), Instant::now());
        taken[0].map(AckToken::from)
    }

    fn plan(held: &Held, token: AckToken, settlement: Settlement) -> Course {
        held.plan(&[(token, settlement)], CERTAIN)[0]
    }

    #[test]
    fn what_is_in_hand_is_not_taken_twice() {
        let held = Held::default();
        let token = take(&held).unwrap();
        assert_eq!(token.source, 3);
        assert!(held.contains(3, ID) && held.is_current(token, TAKEOVER));
        assert_eq!(take(&held), None);
        held.remove([token.into()]);
        assert!(!held.contains(3, ID) && !held.is_current(token, TAKEOVER));
        assert_ne!(
            take(&held).unwrap(),
            token,
            "a delivery has an epoch of its own"
        );
    }

    #[test]
    fn what_was_given_back_can_be_taken_again_and_its_old_token_is_stale() {
        let held = Held::default();
        let old = take(&held).unwrap();
        assert_eq!(plan(&held, old, Settlement::Release), Course::Release);
        assert!(!held.is_current(old, TAKEOVER));
        assert_eq!(plan(&held, old, Settlement::Ack), Course::Stale);
        let new = take(&held).unwrap();
        assert_eq!(plan(&held, old, Settlement::Ack), Course::Stale);
        assert_eq!(plan(&held, old, Settlement::Release), Course::Stale);
        held.remove([old.into()]);
        assert_eq!(plan(&held, new, Settlement::Ack), Course::Ack);
    }

    #[test]
    fn what_is_not_in_hand_is_asked_of_the_server() {
        let held = Held::default();
        let token = AckToken::new(9, 1, [1, 0]);
        assert_eq!(plan(&held, token, Settlement::Ack), Course::AckIfOwn);
        assert_eq!(plan(&held, token, Settlement::Release), Course::Release);
    }

    #[tokio::test(start_paused = true)]
    async fn certainty_goes_by_when_the_server_last_heard_of_us() {
        let held = Held::default();
        let token = take(&held).unwrap();
        tokio::time::advance(CERTAIN).await;
        assert_eq!(plan(&held, token, Settlement::Ack), Course::AckIfOwn);
        assert!(held.is_current(token, TAKEOVER));
        assert_eq!(held.older_than(CERTAIN), [token.into()]);
        held.refresh(token.into(), Instant::now());
        assert_eq!(plan(&held, token, Settlement::Ack), Course::Ack);
        assert_eq!(held.older_than(CERTAIN), []);
        tokio::time::advance(TAKEOVER).await;
        assert!(!held.is_current(token, TAKEOVER));
        assert_eq!(plan(&held, token, Settlement::Release), Course::Release);
        assert_eq!(
            held.older_than(CERTAIN),
            [],
            "what is given back is not kept"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_given_back_is_no_more_in_hand_and_forgotten_in_time() {
        let held = Held::default();
        let (first, second) = (EntryId::new(1, 0), EntryId::new(2, 0));
        let taken = held.take(0, [first, second].into_iter(), Instant::now());
        let tokens: Vec<AckToken> = taken.into_iter().flatten().map(AckToken::from).collect();
        assert!(!held.has_room(0, 2) && !held.has_room(1, 3) && held.has_room(0, 3));
        for _ in 0..2 {
            plan(&held, tokens[0], Settlement::Release);
            assert_eq!(held.count(), 1);
        }
        held.room(2).await;
        held.remove([tokens[1].into(), tokens[1].into()]);
        assert_eq!(held.count(), 0);
        held.forget_released(TAKEOVER);
        assert!(held.contains(0, first));
        tokio::time::advance(TAKEOVER).await;
        held.forget_released(TAKEOVER);
        assert!(!held.contains(0, first));
        assert_eq!(plan(&held, tokens[0], Settlement::Ack), Course::AckIfOwn);
    }

    #[test]
    fn what_is_forgotten_of_a_stream_is_asked_of_the_server_and_makes_room() {
        let held = Held::default();
        let now = Instant::now();
        let ids = [EntryId::new(1, 0), EntryId::new(2, 0)];
        let taken = held.take(0, ids.into_iter(), now);
        let other = held.take(1, [ID].into_iter(), now);
        let tokens: Vec<AckToken> = taken.into_iter().flatten().map(AckToken::from).collect();
        plan(&held, tokens[0], Settlement::Release);
        assert_eq!((held.count_of(0), held.count()), (1, 2));
        held.forget(0);
        held.forget(7);
        assert_eq!((held.count_of(0), held.count()), (0, 1));
        assert_eq!(plan(&held, tokens[1], Settlement::Ack), Course::AckIfOwn);
        assert!(!held.is_current(tokens[1], TAKEOVER));
        assert!(held.is_current(other[0].unwrap().into(), TAKEOVER));
    }

    #[test]
    fn a_closed_one_settles_nothing() {
        let held = Held::default();
        let token = take(&held).unwrap();
        assert_eq!(held.close(), 1);
        assert_eq!(plan(&held, token, Settlement::Ack), Course::Closed);
        assert!(!held.is_current(token, TAKEOVER));
    }
}
