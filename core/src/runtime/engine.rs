mod batching;
mod decide;

use std::collections::VecDeque;
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::{BoxFuture, join_all};
use futures::stream::{FuturesUnordered, StreamExt};
use tokio::time::{Instant, timeout, timeout_at};
use tracing::Instrument;

use super::batch::{BatchLimits, Batches, RunningBatch};
use super::control::Arrivals;
use super::dead_letter::{DeadLetters, Held};
use super::job::{Job, Task, Working};
use super::lanes::{LaneId, Lanes};
use super::source::{Read, Reader, Settled, Settlements};
use super::{Control, Counters, Counts, Observer, Progress, Shutdown, Source};
use crate::config::{Ordering, SubscriptionConfig};
use crate::event::on_behalf_of;
use crate::handler::{CallInfo, Failure, Handled, HandlerSet, Registered};
use crate::transport::{Delivery, Settlement, Subscriber};
use crate::{Error, ErrorKind, Text, Topic};

/// How long a subscription that fails gives its running handlers.
const DRAIN_AFTER_FAILURE: Duration = Duration::from_secs(10);

/// A subscription, ready to run.
pub struct Consumer {
    /// The subscription's name.
    pub name: Text,
    /// The consumer group.
    pub group: Text,
    /// The settings.
    pub settings: SubscriptionConfig,
    /// The handlers.
    pub handlers: Arc<HandlerSet>,
    /// When batches of events are handed to batch handlers.
    pub batch: BatchLimits,
    /// What it reads.
    pub sources: Vec<Source>,
    /// Counts what it does.
    pub counters: Arc<Counters>,
    /// Pauses it, and says how it is doing.
    pub control: Arc<Control>,
    /// Sees what it does, if somebody looks.
    pub observer: Option<Arc<dyn Observer>>,
}

impl fmt::Debug for Consumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consumer")
            .field("name", &self.name)
            .field("group", &self.group)
            .field("handlers", &self.handlers)
            .field("sources", &self.sources)
            .finish_non_exhaustive()
    }
}

/// How a subscription ended.
#[derive(Debug)]
#[non_exhaustive]
pub struct Finished {
    /// What it did.
    pub counts: Counts,
    /// Deliveries that were given back unfinished at the end; their group gets them again.
    pub unfinished: usize,
    /// Why it ended by itself.
    pub error: Option<Error>,
}

impl Consumer {
    /// Runs until a stop is requested, or the subscription fails; then lets handlers that run
    /// finish within the request's time, settles, and leaves the group.
    ///
    /// # Cancel safety
    ///
    /// Dropped, it ends like a crash: what is not settled is delivered again.
    pub async fn run(self, shutdown: Shutdown) -> Finished {
        let mut engine = Engine::new(self, shutdown);
        engine.run().await;
        engine.finish().await
    }
}

struct Engine {
    name: Text,
    group: Text,
    settings: SubscriptionConfig,
    handlers: Arc<HandlerSet>,
    counters: Arc<Counters>,
    control: Arc<Control>,
    observer: Option<Arc<dyn Observer>>,
    shutdown: Shutdown,
    /// For each source, by index.
    settlements: Vec<Settlements>,
    dead_letters: Vec<DeadLetters>,
    calls: Vec<CallInfo>,
    named_topics: Vec<Vec<Topic>>,
    /// The readers that do not read at the moment.
    readers: Vec<Reader>,
    reads: FuturesUnordered<BoxFuture<'static, (Reader, Read)>>,
    settles: FuturesUnordered<BoxFuture<'static, Settled>>,
    lanes: Lanes,
    /// Jobs that may start as soon as one of `concurrency` places is free.
    ready: VecDeque<Job>,
    running: FuturesUnordered<Working<Handled>>,
    /// Batches that have not started.
    batches: Batches,
    running_batches: FuturesUnordered<RunningBatch>,
    /// Jobs that keep their lane without a handler at work.
    held: FuturesUnordered<Working<Held>>,
    /// When deliveries came that are not done.
    arrivals: Arrivals,
    /// Deliveries that are not settled yet.
    in_flight: usize,
    unfinished: usize,
    stopping: bool,
    error: Option<Error>,
}

impl Engine {
    fn new(consumer: Consumer, shutdown: Shutdown) -> Self {
        let mut engine = Self {
            name: consumer.name,
            group: consumer.group,
            settings: consumer.settings,
            handlers: consumer.handlers,
            counters: consumer.counters,
            control: consumer.control,
            observer: consumer.observer,
            shutdown,
            settlements: Vec::new(),
            dead_letters: Vec::new(),
            calls: Vec::new(),
            named_topics: Vec::new(),
            readers: Vec::new(),
            reads: FuturesUnordered::new(),
            settles: FuturesUnordered::new(),
            lanes: Lanes::default(),
            ready: VecDeque::new(),
            running: FuturesUnordered::new(),
            batches: Batches::new(consumer.batch),
            running_batches: FuturesUnordered::new(),
            held: FuturesUnordered::new(),
            arrivals: Arrivals::default(),
            in_flight: 0,
            unfinished: 0,
            stopping: false,
            error: None,
        };
        for (index, source) in consumer.sources.into_iter().enumerate() {
            let token = engine.shutdown.token();
            let mut call = CallInfo::new(engine.name.clone(), source.transport.clone(), token);
            call.migrations = engine.handlers.migrations().cloned();
            engine.calls.push(call);
            engine
                .settlements
                .push(Settlements::new(index, source.subscriber.settler()));
            engine.dead_letters.push(DeadLetters::new(
                source.transport,
                source.prefix,
                source.publisher,
                source.admin,
                Arc::clone(&engine.control),
            ));
            engine.readers.push(Reader::new(index, source.subscriber));
            engine.named_topics.push(source.topics);
        }
        engine
    }

    async fn run(&mut self) {
        loop {
            let paused = self.control.is_paused();
            if !paused {
                self.start_reads();
            }
            self.batches.expire();
            poll_fn(|context| {
                self.start_ready(context);
                Poll::Ready(())
            })
            .await;
            self.start_settles();
            self.control
                .note_progress(self.in_flight, self.arrivals.oldest());
            if self.stopping && self.is_drained() {
                return;
            }
            tokio::select! {
                Some((reader, read)) = self.reads.next() => self.on_read(reader, read),
                Some((job, handled)) = self.running.next() => self.on_handled(job, handled),
                Some((jobs, handled)) = self.running_batches.next() => self.on_batch_handled(jobs, handled),
                () = self.batches.due(), if self.batches.is_collecting() => {}
                Some((job, held)) = self.held.next() => self.on_held(job, held),
                Some(settled) = self.settles.next() => self.on_settled(settled),
                () = self.control.resumed(), if paused && !self.stopping => {}
                () = self.shutdown.requested(), if !self.stopping => self.begin_stop(),
                () = self.shutdown.drain_expired(), if self.stopping => return,
            }
        }
    }

    /// Whether everything that was started has ended and is settled.
    fn is_drained(&self) -> bool {
        self.reads.is_empty()
            && self.running.is_empty()
            && self.running_batches.is_empty()
            && self.held.is_empty()
            && self.settlements.iter().all(Settlements::is_empty)
    }

    /// Lets idle readers read, once half of the window is free: reading one event whenever one
    /// was settled would cost a round trip each.
    fn start_reads(&mut self) {
        let window = self.settings.max_in_flight;
        if self.stopping || self.in_flight > window / 2 {
            return;
        }
        let room = window - self.in_flight;
        for reader in self.readers.drain(..) {
            self.reads.push(Box::pin(reader.read(
                room,
                self.shutdown.clone(),
                Arc::clone(&self.control),
            )));
        }
    }

    fn on_read(&mut self, reader: Reader, read: Read) {
        let source = reader.source;
        self.readers.push(reader);
        match read {
            Read::Stopped => {}
            Read::Deliveries(deliveries) => {
                self.in_flight += deliveries.len();
                self.counters.received(deliveries.len());
                let arrival = self.arrivals.arrived(deliveries.len());
                for delivery in deliveries {
                    self.accept(source, arrival, delivery);
                }
            }
            Read::Failed(error) if error.retryable() => {
                self.control.note_error(&error);
                tracing::warn!(subscription = %self.name, transport = %self.calls[source].transport,
                    %error, "reading failed, trying again");
            }
            Read::Failed(error) => self.fail(error),
        }
    }

    fn accept(&mut self, source: usize, arrival: u64, delivery: Delivery) {
        tracing::trace!(subscription = %self.name, topic = %delivery.topic(),
            position = %delivery.position(), event_type = delivery.event().ok().map(crate::Event::event_type),
            event_id = delivery.event().ok().map(crate::Event::id), "received");
        let lane = self.lane(source, &delivery);
        let mut job = Job::new(Task {
            source,
            arrival,
            lane: None,
            attempt: delivery.attempt(),
            delivery,
        });
        if self.stopping {
            self.release(job);
        } else if self.is_own_dead_letter(&job) {
            self.counters.unhandled(1);
            self.settle(job, Settlement::Ack, Progress::Unhandled);
        } else {
            job.lane = lane;
            match self.lanes.enter(job) {
                Some(job) => self.ready.push_back(job),
                None => self.join_batch(lane),
            }
        }
    }

    fn lane(&self, source: usize, delivery: &Delivery) -> Option<LaneId> {
        match self.settings.ordering {
            Ordering::Key => {
                let topic = delivery.topic().name();
                delivery
                    .key()
                    .map(|key| self.lanes.lane(source, topic, key))
            }
            Ordering::None => None,
        }
    }

    /// Whether a topic that discovery found holds the subscription's own dead letters: handling
    /// them would put them away again, and again.
    fn is_own_dead_letter(&self, job: &Job) -> bool {
        let topic = job.delivery.topic();
        let prefix = &self.dead_letters[job.source].prefix;
        self.settings.dead_letter.covers(topic, prefix)
            && !self.named_topics[job.source].contains(topic)
    }

    /// Starts jobs while there are places. A handler that returns at once is done right here.
    fn start_ready(&mut self, context: &mut Context<'_>) {
        while self.running.len() + self.running_batches.len() < self.settings.concurrency {
            if let Some(batch) = self.batches.next_collected() {
                self.start_batch(batch);
                continue;
            }
            let Some(job) = self.ready.pop_front() else {
                return;
            };
            if !self.settlements[job.source].is_current(job.delivery.token()) {
                self.release(job);
                continue;
            }
            if let Some(mut work) = self.start(job) {
                match Pin::new(&mut work).poll(context) {
                    Poll::Ready((job, handled)) => self.on_handled(job, handled),
                    Poll::Pending => self.running.push(work),
                }
            }
        }
    }

    /// Starts the handler of a job, or decides about it where none can run.
    fn start(&mut self, job: Job) -> Option<Working<Handled>> {
        let event = match job.delivery.event() {
            Ok(event) => event,
            Err(undecodable) => {
                let reason = format!("not an event: {}", undecodable.error);
                self.counters.undecodable(1);
                self.dead_letter(job, &reason);
                return None;
            }
        };
        let handlers = Arc::clone(&self.handlers);
        let handler = match handlers.find(event) {
            Some((_, Registered::One(handler))) => handler,
            Some((index, Registered::Batch(_))) => {
                self.collect(index, job);
                return None;
            }
            None => {
                self.on_unhandled(job);
                return None;
            }
        };
        let span = tracing::debug_span!("handle", subscription = %self.name,
            topic = %job.delivery.topic(), event_type = event.event_type(), event_id = event.id(),
            attempt = job.attempt);
        let call = &mut self.calls[job.source];
        call.attempt = job.attempt;
        let limit = self.settings.handler_timeout;
        call.deadline = limit.map(|limit| Instant::now() + limit);
        let start = || on_behalf_of(Some(event), || handler.call(&job.delivery, call));
        match span.in_scope(start) {
            Ok(future) => {
                let late = |limit| Err(Failure::late(limit));
                let future = limited(future, limit, late);
                // An empty span costs nothing to enter; a boxed future more does.
                Some(if span.is_disabled() {
                    Working::new(job, future)
                } else {
                    Working::new(job, Box::pin(future.instrument(span)))
                })
            }
            Err(failure) => {
                self.on_handled(job, Err(failure));
                None
            }
        }
    }

    fn start_settles(&mut self) {
        let batches = self.settlements.iter_mut().filter_map(Settlements::send);
        self.settles.extend(batches);
    }

    fn on_settled(&mut self, settled: Settled) {
        let source = &mut self.settlements[settled.source];
        let mut again = 0;
        let mut results = settled.results.into_iter();
        for (token, settlement) in settled.batch {
            match results.next().unwrap_or_else(|| Err(missing_result())) {
                Ok(()) => {}
                Err(error) if error.retryable() => {
                    if again == 0 {
                        self.control.note_error(&error);
                        tracing::warn!(subscription = %self.name, %error, "settling failed, trying again");
                    }
                    again += 1;
                    source.push(token, settlement);
                    continue;
                }
                Err(error) if error.kind() == ErrorKind::Stale => self.counters.stale(1),
                Err(error) => {
                    self.counters.unsettled(1);
                    self.control.note_error(&error);
                    tracing::error!(subscription = %self.name, %error, "an event could not be settled");
                }
            }
            self.in_flight -= 1;
        }
        source.sent(again > 0);
    }

    fn fail(&mut self, error: Error) {
        tracing::error!(subscription = %self.name, %error, "the subscription failed");
        self.control.note_error(&error);
        self.control.fail();
        self.error.get_or_insert(error);
        self.shutdown.request(DRAIN_AFTER_FAILURE);
    }

    /// Gives back what has not started. What runs goes on.
    fn begin_stop(&mut self) {
        self.stopping = true;
        let ready = std::mem::take(&mut self.ready);
        let waiting: Vec<Job> = self.lanes.drain_waiting().collect();
        let collected = self.batches.drain();
        for job in ready.into_iter().chain(waiting).chain(collected) {
            self.release(job);
        }
    }

    /// Gives back what did not end in time, settles, and leaves the groups.
    async fn finish(mut self) -> Finished {
        let running = std::mem::take(&mut self.running)
            .into_iter()
            .filter_map(Working::into_job);
        let held = std::mem::take(&mut self.held)
            .into_iter()
            .filter_map(Working::into_job);
        let batches = std::mem::take(&mut self.running_batches)
            .into_iter()
            .flat_map(RunningBatch::into_jobs);
        for job in running.chain(held).chain(batches).collect::<Vec<_>>() {
            self.release(job);
        }
        let deadline = self.shutdown.deadline();
        let settled = timeout_at(deadline, self.settle_rest()).await;
        if settled.is_err() {
            tracing::warn!(subscription = %self.name, "settlements were not taken in time");
        }
        self.control
            .note_progress(self.in_flight, self.arrivals.oldest());
        let closing = self
            .readers
            .drain(..)
            .map(|reader| reader.subscriber.close(deadline));
        for closed in join_all(closing).await {
            self.error = self.error.or(closed.err());
        }
        Finished {
            counts: self.counters.snapshot(),
            unfinished: self.unfinished,
            error: self.error,
        }
    }

    /// Waits for the readers and sends what is still to be settled, once more if it must.
    async fn settle_rest(&mut self) {
        while let Some((reader, read)) = self.reads.next().await {
            self.on_read(reader, read);
        }
        loop {
            self.start_settles();
            let Some(settled) = self.settles.next().await else {
                return;
            };
            self.on_settled(settled);
        }
    }
}

/// Gives a handler up that takes longer than the limit. Costs nothing without one.
fn limited<T: Send + 'static>(
    handler: BoxFuture<'static, T>,
    limit: Option<Duration>,
    late: impl FnOnce(Duration) -> T + Send + 'static,
) -> BoxFuture<'static, T> {
    let Some(limit) = limit else { return handler };
    Box::pin(async move {
        let ended = timeout(limit, handler).await;
        ended.unwrap_or_else(|_| late(limit))
    })
}

fn missing_result() -> Error {
    Error::new(
        ErrorKind::Transport,
        "the transport reported no result for a settlement",
    )
    .with_operation("settle")
}
