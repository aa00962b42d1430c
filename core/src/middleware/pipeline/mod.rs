//! The way of one transport's events: gathered, sent, sent again, answered.

mod flight;
mod group;
mod keys;
mod lane;
mod state;

#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout_at};

use super::failed::FailedEvent;
use super::reply::{Completed, Reply};
use super::route::Route;
use super::shared::Shared;
use crate::transport::Outcome;
use crate::{Error, ErrorKind, Result, Text};

pub(super) use flight::{Flight, Landed, Sink};
pub(super) use group::{Batch, Entry};
use state::State;

/// The pipeline of one transport, for all its routes: order per key goes across them.
///
/// No task stands behind it while nothing waits. A caller whose event finds the way free sends it
/// from where it stands; what gathers is sent by a task for each batch that goes on to the next
/// one, and ends when nothing waits.
#[derive(Debug)]
pub(super) struct Pipeline {
    pub(super) transport: Text,
    pub(super) shared: Arc<Shared>,
    state: Mutex<State>,
    /// Told whenever an epoch may be over.
    progress: Notify,
}

impl Pipeline {
    pub(super) fn new(transport: Text, shared: Arc<Shared>) -> Self {
        Self {
            transport,
            shared,
            state: Mutex::new(State::new()),
            progress: Notify::new(),
        }
    }

    /// The number of the group of a route under a name.
    pub(super) fn group(&self, route: &Arc<Route>, name: Text) -> u32 {
        self.lock().group(route, name)
    }

    /// Sends an event that has its room from where the caller stands, if it can leave at once.
    #[expect(
        clippy::result_large_err,
        reason = "the event goes straight into the queue; a box would be an allocation for each"
    )]
    pub(super) fn send_now(self: &Arc<Self>, mut entry: Entry) -> Result<Flight, Entry> {
        let mut state = self.lock();
        let group = state.at(entry.meta.group);
        let free = !group.is_waiting() && group.has_capacity();
        if !free || !group.is_due() {
            return Err(entry);
        }
        state.locate(&mut entry);
        if !state.is_free(&entry) {
            return Err(entry);
        }
        let mut batch = state.open(entry.meta.group, 1);
        state.join(entry, &mut batch);
        drop(state);
        Ok(Flight::new(self, batch))
    }

    /// Lets an event that has its room wait for its batch.
    pub(super) fn enqueue(self: &Arc<Self>, entry: Entry) {
        self.enqueue_locked(&mut self.lock(), entry);
    }

    /// Adds as many of the entries as may go now to batches that the caller sends itself, and lets
    /// others wait. Stops where the caller has something to do.
    pub(super) fn place<F: Filling>(
        self: &Arc<Self>,
        entries: &mut std::vec::IntoIter<Entry>,
        filling: &mut F,
    ) -> Stopped {
        let mut state = self.lock();
        while !filling.has_full() {
            let Some(mut entry) = entries.next() else {
                return Stopped::Done;
            };
            let (group, bytes) = (entry.meta.group, entry.meta.bytes);
            state.locate(&mut entry);
            if let Some(batch) = filling.open_batch(group, bytes)
                && state.may_join(&entry, batch)
            {
                state.join(entry, batch);
                filling.placed(bytes);
                continue;
            }
            if filling.is_open(group) || !state.is_free(&entry) {
                entry.meta.reply = filling.ticket(entry.meta.reply);
                self.enqueue_locked(&mut state, entry);
                filling.placed(bytes);
                continue;
            }
            let waiting = state.at(group);
            let own = filling.has_out(group);
            if own && !waiting.has_capacity() {
                return Stopped::Behind(Box::new(entry));
            }
            let full = filling.capacity() >= waiting.route.batch.max_events;
            let may_open = !waiting.is_waiting()
                && waiting.has_capacity()
                && (waiting.is_due() || own || full);
            if may_open {
                let most = waiting.route.batch.max_events;
                let capacity = filling.capacity().min(most);
                let mut batch = state.open(group, capacity);
                state.join(entry, &mut batch);
                filling.opened(Flight::new(self, batch));
            } else {
                entry.meta.reply = filling.ticket(entry.meta.reply);
                self.enqueue_locked(&mut state, entry);
            }
            filling.placed(bytes);
        }
        Stopped::Full
    }

    /// Waits until everything given before has its outcome.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Timeout`] at the deadline.
    pub(super) async fn flush(&self, deadline: Instant) -> Result<()> {
        let epoch = self.lock().epochs().end();
        let over = async {
            loop {
                let mut progress = std::pin::pin!(self.progress.notified());
                progress.as_mut().enable();
                if self.lock().epochs().is_over(epoch) {
                    return;
                }
                progress.await;
            }
        };
        timeout_at(deadline, over).await.map_err(|_| {
            let message = "events that were published have no outcome at the deadline";
            Error::new(ErrorKind::Timeout, message)
                .with_operation("flush")
                .with_transport(self.transport.clone())
        })
    }

    /// Gives up what still waits. Its callers are told, and it is kept as unsent.
    pub(super) fn give_up(&self) {
        let left = self.lock().drain();
        self.give_up_entries(left);
    }

    pub(super) fn batches_in_flight(&self) -> usize {
        self.lock().in_flight()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // What is done under the lock does not panic half way.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enqueue_locked(self: &Arc<Self>, state: &mut State, entry: Entry) {
        let group = entry.meta.group;
        state.enqueue(entry);
        let mut batches = Vec::new();
        state.ready(group, false, &mut batches);
        self.start(batches);
        self.watch_locked(state, group);
    }

    /// Sees to it that what gathers leaves after `max_wait`, if it may.
    fn watch_locked(self: &Arc<Self>, state: &mut State, group: u32) {
        let waiting = state.at(group);
        if waiting.is_waiting() && waiting.has_capacity() && !waiting.watched {
            waiting.watched = true;
            let max_wait = waiting.route.batch.max_wait;
            let watch = Arc::clone(self).watch(group, max_wait);
            self.shared.spawn(watch);
        }
    }

    /// A task for each batch, which goes on to what waits then.
    fn start(self: &Arc<Self>, batches: Vec<Batch>) {
        for batch in batches {
            let flight = Flight::new(self, batch);
            self.shared.spawn(flight.run());
        }
    }

    /// Sends what has gathered for `max_wait` without a batch leaving, until nothing gathers.
    async fn watch(self: Arc<Self>, group: u32, max_wait: Duration) {
        let mut taken = self.lock().at(group).taken;
        loop {
            tokio::select! {
                () = sleep(max_wait) => {}
                () = self.shared.cut.cancelled() => return,
            }
            let mut batches = Vec::new();
            let mut state = self.lock();
            if state.at(group).taken == taken {
                state.ready(group, true, &mut batches);
            }
            let waiting = state.at(group);
            taken = waiting.taken;
            waiting.watched = waiting.is_waiting();
            let done = !waiting.watched;
            drop(state);
            self.start(batches);
            if done {
                return;
            }
        }
    }

    /// Sends a set of events again after a pause.
    async fn send_later(self: Arc<Self>, group: u32, set: Vec<Entry>, pause: Duration) {
        tokio::select! {
            () = sleep(pause) => {}
            () = self.shared.cut.cancelled() => {
                let mut state = self.lock();
                set.iter().for_each(|entry| state.finish(&entry.meta));
                drop(state);
                return self.give_up_entries(set);
            }
        }
        let mut batches = Vec::new();
        let mut state = self.lock();
        state.send_again(group, set);
        state.ready(group, false, &mut batches);
        drop(state);
        self.start(batches);
    }

    fn give_up_entries(&self, entries: Vec<Entry>) {
        for Entry { outgoing, meta } in entries {
            let error = meta.error.unwrap_or_else(|| {
                let message = "the bus was closed before the event was sent";
                Error::new(ErrorKind::Closed, message)
                    .with_operation("publish")
                    .with_transport(self.transport.clone())
                    .with_topic(outgoing.topic.name())
            });
            self.shared.room.give_back(1, meta.bytes);
            let outcome = Outcome::from_error(error.duplicate());
            self.shared.counters.count(&outcome);
            let unsent = FailedEvent::new(&self.transport, outgoing, error, meta.attempts);
            self.shared.unsent.add(unsent);
            meta.reply.send(Completed::of(outcome));
        }
        self.progress.notify_waiters();
    }
}

/// Why placing events stopped.
pub(super) enum Stopped {
    /// All have their place.
    Done,
    /// A batch is full and is to be sent before the next event.
    Full,
    /// The event needs one of the caller's own batches to come back.
    Behind(Box<Entry>),
}

/// A caller that fills batches and sends them itself.
pub(super) trait Filling {
    /// The batch of a group that has room for an event, if one is open. A full one is set aside.
    fn open_batch(&mut self, group: u32, bytes: u32) -> Option<&mut Batch>;
    /// Whether a full batch was set aside.
    fn has_full(&self) -> bool;
    /// Whether a batch of the group is open.
    fn is_open(&mut self, group: u32) -> bool;
    /// Whether the caller has batches of the group out.
    fn has_out(&mut self, group: u32) -> bool;
    /// How many of the events that may come are of one group.
    fn capacity(&self) -> usize;
    /// Takes a batch that was opened.
    fn opened(&mut self, flight: Flight);
    /// An event has its place.
    fn placed(&mut self, bytes: u32);
    /// The reply of an event whose batch somebody else sends.
    fn ticket(&mut self, reply: Reply) -> Reply;
}
