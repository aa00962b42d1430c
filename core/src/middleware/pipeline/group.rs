//! Events on their way, and the groups and batches they travel in.

use std::collections::VecDeque;
use std::sync::Arc;

use super::keys::{NO_KEY, hash_of};
use crate::middleware::reply::Reply;
use crate::middleware::route::Route;
use crate::transport::Outgoing;
use crate::{Error, Text};

/// An event that waits.
#[derive(Debug)]
pub(in crate::middleware) struct Entry {
    pub(in crate::middleware) outgoing: Outgoing,
    pub(in crate::middleware) meta: Meta,
}

/// What is known of an event beside itself.
#[derive(Debug)]
pub(in crate::middleware) struct Meta {
    /// Of its topic and key.
    pub(super) hash: u32,
    /// Where its key is kept while it has its place.
    pub(super) slot: u32,
    pub(in crate::middleware) group: u32,
    /// What it takes of the room.
    pub(in crate::middleware) bytes: u32,
    /// How often it was sent.
    pub(in crate::middleware) attempts: u32,
    /// Whether an earlier attempt may have stored it.
    pub(in crate::middleware) unsure: bool,
    /// When it was given, counted in flushes.
    pub(super) epoch: u64,
    pub(in crate::middleware) reply: Reply,
    /// Why the last attempt failed.
    pub(in crate::middleware) error: Option<Error>,
}

impl Entry {
    #[inline]
    pub(in crate::middleware) fn new(
        outgoing: Outgoing,
        group: u32,
        bytes: u32,
        reply: Reply,
    ) -> Self {
        let hash = hash_of(&outgoing);
        let meta = Meta {
            hash,
            slot: NO_KEY,
            group,
            bytes,
            attempts: 0,
            unsure: false,
            epoch: 0,
            reply,
            error: None,
        };
        Self { outgoing, meta }
    }
}

/// Events that go to the transport in one call.
#[derive(Debug)]
pub(in crate::middleware) struct Batch {
    pub(super) id: u32,
    pub(in crate::middleware) group: u32,
    pub(in crate::middleware) route: Arc<Route>,
    pub(in crate::middleware) outgoing: Vec<Outgoing>,
    pub(in crate::middleware) meta: Vec<Meta>,
    pub(super) bytes: usize,
}

impl Batch {
    pub(super) fn new(id: u32, group: u32, route: Arc<Route>, capacity: usize) -> Self {
        Self {
            id,
            group,
            route,
            outgoing: Vec::with_capacity(capacity),
            meta: Vec::with_capacity(capacity),
            bytes: 0,
        }
    }

    pub(in crate::middleware) fn len(&self) -> usize {
        self.meta.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.meta.is_empty()
    }

    /// Whether so much more may go with it. One event alone always may.
    pub(in crate::middleware) fn fits(&self, events: usize, bytes: usize) -> bool {
        let limits = &self.route.batch;
        self.is_empty()
            || (self.len() + events <= limits.max_events && self.bytes + bytes <= limits.max_bytes)
    }

    #[inline]
    pub(super) fn push(&mut self, entry: Entry) {
        self.bytes += entry.meta.bytes as usize;
        self.outgoing.push(entry.outgoing);
        self.meta.push(entry.meta);
    }

    pub(in crate::middleware) fn into_entries(self) -> impl Iterator<Item = Entry> {
        let entries = self.outgoing.into_iter().zip(self.meta);
        entries.map(|(outgoing, meta)| Entry { outgoing, meta })
    }
}

/// So many events leave beside the batches that are out, if no more are out than that. Beside more,
/// as many leave as are out: so callers that wait for their events share two or three batches of a
/// good size, and neither the server nor they are without work. That one of several batches came back
/// is no reason to send a small one in its place: each would then be as small as the one before.
const WORTH_A_BATCH: usize = 64;

/// Events that share batches.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) route: Arc<Route>,
    /// How many batches are out, or being filled by their caller.
    pub(super) in_flight: usize,
    /// How many events these have, ..
    pub(super) events_out: usize,
    /// .. and how many bytes.
    pub(super) bytes_out: usize,
    /// Sets that are sent as they are, before the queue: their keys are theirs already.
    pub(super) sets: VecDeque<Vec<Entry>>,
    pub(super) queue: VecDeque<Entry>,
    pub(super) queued_bytes: usize,
    /// Counts the batches that were taken.
    pub(super) taken: u64,
    /// Whether a task watches `max_wait`.
    pub(super) watched: bool,
}

impl Group {
    pub(super) fn new(route: Arc<Route>) -> Self {
        Self {
            route,
            in_flight: 0,
            events_out: 0,
            bytes_out: 0,
            sets: VecDeque::new(),
            queue: VecDeque::new(),
            queued_bytes: 0,
            taken: 0,
            watched: false,
        }
    }

    pub(super) fn is_waiting(&self) -> bool {
        !self.queue.is_empty() || !self.sets.is_empty()
    }

    pub(super) fn has_capacity(&self) -> bool {
        let limits = &self.route.batch;
        self.in_flight == 0
            || (self.in_flight < limits.max_concurrent_batches
                && self.bytes_out < limits.max_concurrent_bytes)
    }

    /// Whether a batch leaves, if it may.
    pub(super) fn is_due(&self) -> bool {
        let limits = &self.route.batch;
        self.in_flight == 0
            || self.route.at_once
            || !self.sets.is_empty()
            || self.queue.len() >= limits.max_events.min(self.events_out.max(WORTH_A_BATCH))
            || self.queued_bytes >= limits.max_bytes
    }
}

/// Groups by their names. When there are too many, further names of a route share one.
#[derive(Debug, Default)]
pub(super) struct GroupNames {
    names: std::collections::HashMap<(usize, Text), u32, foldhash::fast::RandomState>,
}

/// A publisher that makes topics up must not fill the memory.
const MAX_GROUPS: usize = 4096;

impl GroupNames {
    /// The group of a name, or of all names of the route beyond the bound, as `Err` if it is to
    /// be made under the number given.
    pub(super) fn find(&mut self, route: &Arc<Route>, name: Text, next: u32) -> Result<u32, u32> {
        let address = Arc::as_ptr(route).addr();
        if let Some(group) = self.names.get(&(address, name.clone())) {
            return Ok(*group);
        }
        let name = if self.names.len() >= MAX_GROUPS {
            Text::default()
        } else {
            name
        };
        match self.names.entry((address, name)) {
            std::collections::hash_map::Entry::Occupied(known) => Ok(*known.get()),
            std::collections::hash_map::Entry::Vacant(vacant) => {
                vacant.insert(next);
                Err(next)
            }
        }
    }
}
