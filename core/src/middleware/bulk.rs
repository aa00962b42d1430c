//! Many events of one caller, who sends the batches himself.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use foldhash::fast::RandomState;
use futures::stream::{FuturesUnordered, StreamExt};

use super::pipeline::{Batch, Entry, Filling, Flight, Landed, Pipeline, Sink, Stopped};
use super::publishing::{Place, Publishing};
use super::reply::{Completed, Reply, Tally, never_answered};
use super::room::Taken;
use crate::transport::{Outcome, Outgoing};
use crate::{Error, ErrorKind, Result};

/// How many events are given to a pipeline under one lock: so few that they stay in the cache that
/// is closest to the processor until then.
const CHUNK_EVENTS: usize = 64;

/// How many bytes of events are gathered before they are given to a pipeline.
const CHUNK_BYTES: u32 = 1 << 20;

type Sending = Pin<Box<dyn Future<Output = (Flight, Landed)> + Send>>;

/// The events of one call of `publish_all`.
pub(super) struct Bulk<'a> {
    publishing: &'a Publishing,
    outcomes: Vec<Option<Outcome>>,
    /// For those whose batches somebody else sends.
    tally: Option<Arc<Tally>>,
    /// What is not yet given, by pipeline.
    chunks: Vec<Chunk<'a>>,
    out: FuturesUnordered<Numbered>,
}

/// What is gathered for one pipeline, and the batches that this caller fills there.
struct Chunk<'a> {
    pipeline: &'a Arc<Pipeline>,
    entries: Vec<Entry>,
    /// How many events may still come, those that are gathered included.
    expected: usize,
    bytes: u32,
    groups: Groups,
    /// Full batches, to be sent.
    full: Vec<Flight>,
    /// Room for what is being given.
    room: Option<Taken>,
}

/// The caller's batches of one group.
struct Own {
    group: u32,
    open: Option<Flight>,
    out: usize,
}

/// The caller's batches by group. Mostly the next event goes where the last one went.
#[derive(Default)]
struct Groups {
    all: Vec<Own>,
    by_group: HashMap<u32, usize, RandomState>,
    last: usize,
}

impl Groups {
    fn own(&mut self, group: u32) -> &mut Own {
        let hit = self
            .all
            .get(self.last)
            .is_some_and(|own| own.group == group);
        if !hit {
            self.last = *self.by_group.entry(group).or_insert_with(|| {
                self.all.push(Own {
                    group,
                    open: None,
                    out: 0,
                });
                self.all.len() - 1
            });
        }
        &mut self.all[self.last]
    }
}

/// A batch that is out, with the index of its chunk.
struct Numbered {
    chunk: usize,
    sending: Sending,
}

impl Future for Numbered {
    type Output = (usize, Flight, Landed);

    fn poll(mut self: Pin<&mut Self>, context: &mut std::task::Context<'_>) -> Poll<Self::Output> {
        let chunk = self.chunk;
        let sending = self.sending.as_mut().poll(context);
        sending.map(|(flight, landed)| (chunk, flight, landed))
    }
}

impl<'a> Bulk<'a> {
    pub(super) fn new(publishing: &'a Publishing, expected: usize) -> Self {
        Self {
            publishing,
            outcomes: Vec::with_capacity(expected),
            tally: None,
            chunks: Vec::new(),
            out: FuturesUnordered::new(),
        }
    }

    /// Keeps the place of an event that can't be published.
    pub(super) fn refuse(&mut self, error: Error) {
        self.outcomes.push(Some(Outcome::Rejected(error)));
    }

    /// Takes an event. Returns the chunk to [give](Self::give) before the next one.
    #[inline]
    pub(super) fn add(&mut self, outgoing: Outgoing, size: usize, place: Place) -> Option<usize> {
        let index = u32::try_from(self.outcomes.len()).expect("outcomes of so many fit nowhere");
        self.outcomes.push(None);
        let room = &self.publishing.shared.room;
        let (max_events, max_bytes) = room.limits();
        let charge = room.charge(size);
        let number = self.chunk(place.pipeline);
        let chunk = &mut self.chunks[number];
        let entry = Entry::new(outgoing, place.group, charge, Reply::Own(index));
        if chunk.entries.capacity() == 0 {
            chunk.entries.reserve(chunk.expected.clamp(1, CHUNK_EVENTS));
        }
        chunk.entries.push(entry);
        chunk.bytes += charge;
        // With the next event as large as this one, the chunk must still find room.
        let full = chunk.entries.len() >= CHUNK_EVENTS.min(max_events as usize)
            || chunk.bytes.saturating_add(charge) > CHUNK_BYTES.min(max_bytes);
        full.then_some(number)
    }

    fn chunk(&mut self, pipeline: usize) -> usize {
        let pipeline = &self.publishing.pipelines[pipeline];
        let known = self
            .chunks
            .iter()
            .position(|chunk| Arc::ptr_eq(chunk.pipeline, pipeline));
        known.unwrap_or_else(|| {
            let expected = self.outcomes.capacity() - self.outcomes.len();
            self.chunks.push(Chunk::new(pipeline, expected));
            self.chunks.len() - 1
        })
    }

    /// Gives what is gathered to its pipeline, in order. Waits for room, and for own batches to
    /// come back where too many are out.
    pub(super) async fn give(&mut self, number: usize) {
        let entries = std::mem::take(&mut self.chunks[number].entries);
        let bytes = std::mem::take(&mut self.chunks[number].bytes);
        let to_come = self.outcomes.capacity() - self.outcomes.len();
        self.chunks[number].expected = entries.len() + to_come;
        let events = u32::try_from(entries.len()).expect("a chunk is bounded");
        match self.room(events, bytes).await {
            Ok(room) => self.chunks[number].room = Some(room),
            Err(error) => return self.reject(entries, &error),
        }
        let mut entries = entries.into_iter();
        loop {
            let chunk = &mut self.chunks[number];
            let pipeline = chunk.pipeline;
            let mut filling = FillingChunk {
                chunk,
                tally: &mut self.tally,
            };
            let stopped = pipeline.place(&mut entries, &mut filling);
            self.launch_full(number);
            match stopped {
                Stopped::Done => break,
                Stopped::Full => {}
                Stopped::Behind(entry) => {
                    // It goes first: the events of a key keep their order.
                    let rest = std::iter::once(*entry).chain(entries);
                    entries = rest.collect::<Vec<_>>().into_iter();
                    self.one_back().await;
                }
            }
        }
        self.chunks[number].room = None;
    }

    /// Waits for all outcomes, in the order of the events.
    pub(super) async fn finish(mut self) -> Vec<Outcome> {
        for number in 0..self.chunks.len() {
            self.give(number).await;
        }
        self.launch_open();
        while !self.out.is_empty() {
            self.one_back().await;
        }
        if let Some(tally) = self.tally.take() {
            for (index, outcome) in tally.wait().await {
                self.outcomes[index as usize] = Some(outcome);
            }
        }
        let outcomes = std::mem::take(&mut self.outcomes).into_iter();
        let unknown = || Outcome::Unknown(never_answered());
        outcomes
            .map(|outcome| outcome.unwrap_or_else(unknown))
            .collect()
    }

    async fn room(&mut self, events: u32, bytes: u32) -> Result<Taken> {
        let room = &self.publishing.shared.room;
        match room.try_take(events, bytes) {
            Ok(()) => return Ok(room.taken(events, bytes)),
            Err(error) if error.kind() == ErrorKind::Closed => return Err(error),
            Err(_) => {}
        }
        // What fills this caller's own batches may be all there is.
        self.launch_open();
        let mut taking = std::pin::pin!(room.take(events, bytes));
        loop {
            tokio::select! {
                taken = &mut taking => return taken,
                Some((number, flight, landed)) = self.out.next() => {
                    self.land(number, flight, landed);
                }
            }
        }
    }

    fn reject(&mut self, entries: Vec<Entry>, error: &Error) {
        for entry in entries {
            let error = error.duplicate().with_topic(entry.outgoing.topic.name());
            if let Reply::Own(index) = entry.meta.reply {
                self.outcomes[index as usize] = Some(Outcome::Rejected(error));
            }
        }
    }

    fn launch_full(&mut self, number: usize) {
        for flight in std::mem::take(&mut self.chunks[number].full) {
            self.launch(number, flight);
        }
    }

    fn launch_open(&mut self) {
        for number in 0..self.chunks.len() {
            let groups = &mut self.chunks[number].groups.all;
            let open: Vec<_> = groups
                .iter_mut()
                .filter_map(|own| own.open.take())
                .collect();
            for flight in open {
                self.launch(number, flight);
            }
        }
    }

    /// Sends a batch from here. One that is answered at once is not put aside.
    fn launch(&mut self, number: usize, flight: Flight) {
        let mut sending: Sending = Box::pin(flight.send());
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        match sending.as_mut().poll(&mut context) {
            Poll::Ready((flight, landed)) => self.land(number, flight, landed),
            // Polled again with its own waker before anybody waits.
            Poll::Pending => self.out.push(Numbered {
                chunk: number,
                sending,
            }),
        }
    }

    async fn one_back(&mut self) {
        if let Some((number, flight, landed)) = self.out.next().await {
            self.land(number, flight, landed);
        }
    }

    fn land(&mut self, number: usize, mut flight: Flight, landed: Landed) {
        let group = flight.batch().group;
        self.chunks[number].groups.own(group).out -= 1;
        let mut sink = Outcomes {
            outcomes: &mut self.outcomes,
            tally: &mut self.tally,
        };
        flight.land(landed, &mut sink);
    }
}

impl<'a> Chunk<'a> {
    fn new(pipeline: &'a Arc<Pipeline>, expected: usize) -> Self {
        Self {
            pipeline,
            entries: Vec::new(),
            expected,
            bytes: 0,
            groups: Groups::default(),
            full: Vec::new(),
            room: None,
        }
    }
}

struct FillingChunk<'a, 'b> {
    chunk: &'a mut Chunk<'b>,
    tally: &'a mut Option<Arc<Tally>>,
}

impl Filling for FillingChunk<'_, '_> {
    fn open_batch(&mut self, group: u32, bytes: u32) -> Option<&mut Batch> {
        let Chunk { groups, full, .. } = &mut *self.chunk;
        let own = groups.own(group);
        let fits = own.open.as_mut()?.batch().fits(1, bytes as usize);
        if !fits {
            full.extend(own.open.take());
        }
        own.open.as_mut().map(Flight::batch)
    }

    fn has_full(&self) -> bool {
        !self.chunk.full.is_empty()
    }

    fn is_open(&mut self, group: u32) -> bool {
        self.chunk.groups.own(group).open.is_some()
    }

    fn has_out(&mut self, group: u32) -> bool {
        self.chunk.groups.own(group).out > 0
    }

    fn capacity(&self) -> usize {
        // Over many groups, few of the coming events are of this one.
        self.chunk.expected / self.chunk.groups.all.len().max(1) + 1
    }

    fn opened(&mut self, mut flight: Flight) {
        let own = self.chunk.groups.own(flight.batch().group);
        own.out += 1;
        own.open = Some(flight);
    }

    fn placed(&mut self, bytes: u32) {
        let Chunk { groups, full, .. } = &mut *self.chunk;
        if let Some(own) = groups.all.get_mut(groups.last)
            && own
                .open
                .as_mut()
                .is_some_and(|open| !open.batch().fits(1, 0))
        {
            full.extend(own.open.take());
        }
        if let Some(room) = &mut self.chunk.room {
            room.hand_over(bytes);
        }
    }

    fn ticket(&mut self, reply: Reply) -> Reply {
        ticket(self.tally, reply)
    }
}

/// Where the outcomes of the caller's own batches go.
struct Outcomes<'a> {
    outcomes: &'a mut [Option<Outcome>],
    tally: &'a mut Option<Arc<Tally>>,
}

impl Sink for Outcomes<'_> {
    fn done(&mut self, reply: Reply, completed: Completed) {
        match reply {
            Reply::Own(index) => self.outcomes[index as usize] = Some(completed.outcome),
            other => other.send(completed),
        }
    }

    fn later(&mut self, reply: Reply) -> Reply {
        ticket(self.tally, reply)
    }
}

fn ticket(tally: &mut Option<Arc<Tally>>, reply: Reply) -> Reply {
    match reply {
        Reply::Own(index) => Reply::Many(tally.get_or_insert_default().share(index)),
        other => other,
    }
}
