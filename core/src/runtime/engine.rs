mod arriving;
mod batching;
mod claiming;
mod decide;
mod deferring;
mod loose;
mod rules;
mod stopping;
mod suspects;

use std::collections::VecDeque;
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use tokio::time::Instant;
use tracing::Instrument;

use self::arriving::{Arrived, new_job};
use self::claiming::next_answer;
use self::deferring::limited;
pub(super) use self::rules::{ask, failure_of};
use self::suspects::Suspicion;
use super::batch::{BatchLimits, Batches, Collected, RunningBatch};
use super::claims::{Claims, Idempotency};
use super::dead_letter::{DeadLetters, Held, Reason};
use super::job::{Job, Trial, Working};
use super::lanes::{LaneId, Lanes};
use super::source::{Read, Reader, Settled, Settlements, missing_result};
use super::window::Window;
use super::{Control, Counters, Counts, Observer, Progress, Shutdown, Source};
use crate::config::{Ordering, SubscriptionConfig};
use crate::event::on_behalf_of;
use crate::handler::{
    CallInfo, Classifiers, Failure, FailureKind, Handled, HandlerSet, Registered,
};
use crate::transport::{Delivery, Settlement, Subscriber};
use crate::validation::Validation;
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
    /// Which errors of handlers are worth another try.
    pub classifiers: Classifiers,
    /// When batches of events are handed to batch handlers.
    pub batch: BatchLimits,
    /// Keeps it from handling an event twice, if that is wanted.
    pub idempotency: Option<Idempotency>,
    /// What it reads.
    pub sources: Vec<Source>,
    /// Counts what it does.
    pub counters: Arc<Counters>,
    /// Pauses it, and says how it is doing.
    pub control: Arc<Control>,
    /// Sees what it does, if somebody looks.
    pub observer: Option<Arc<dyn Observer>>,
    /// What events of routes that validate are held to, if there are such routes.
    pub validation: Option<Arc<Validation>>,
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
    classifiers: Classifiers,
    counters: Arc<Counters>,
    control: Arc<Control>,
    observer: Option<Arc<dyn Observer>>,
    validation: Option<Arc<Validation>>,
    shutdown: Shutdown,
    /// For each source, by index.
    settlements: Vec<Settlements>,
    dead_letters: Vec<DeadLetters>,
    /// What a handler is told, for each source. Shared with the handlers that keep it.
    calls: Vec<Arc<CallInfo>>,
    named_topics: Vec<Vec<Topic>>,
    /// The first source of the same transport: events of a key share a lane, those that were put
    /// off too.
    lane_sources: Vec<usize>,
    /// Which events are suspect of ending their process.
    suspicions: Vec<Suspicion>,
    /// Suspects that wait until no other one runs.
    suspects: VecDeque<Job>,
    /// A suspect runs, or is about to.
    trial: bool,
    /// How many run beside which none may.
    beside: usize,
    /// The readers that do not read at the moment.
    readers: Vec<Reader>,
    reads: FuturesUnordered<BoxFuture<'static, (Reader, Read)>>,
    settles: FuturesUnordered<BoxFuture<'static, Settled>>,
    /// What has come and was not looked at yet.
    arrived: VecDeque<Arrived>,
    lanes: Lanes,
    /// Jobs that may start as soon as one of `concurrency` places is free.
    ready: VecDeque<Job>,
    running: FuturesUnordered<Working<Handled>>,
    /// Jobs whose handler has returned and whose verdict comes later.
    deferred: FuturesUnordered<Working<Handled>>,
    /// Batches that have not started.
    batches: Batches,
    running_batches: FuturesUnordered<RunningBatch>,
    /// Jobs that keep their lane without a handler at work.
    held: FuturesUnordered<Working<Held>>,
    /// The claims that jobs need to start, where they do.
    claims: Option<Claims>,
    /// What was received and is not done.
    window: Window,
    unfinished: usize,
    stopping: bool,
    error: Option<Error>,
}

impl Engine {
    fn new(consumer: Consumer, shutdown: Shutdown) -> Self {
        let control = Arc::clone(&consumer.control);
        let claims = consumer
            .idempotency
            .map(|settings| Claims::new(settings, &consumer.group, &consumer.handlers, control));
        let window = Window::new(&consumer.settings);
        let mut engine = Self {
            name: consumer.name,
            group: consumer.group,
            settings: consumer.settings,
            handlers: consumer.handlers,
            classifiers: consumer.classifiers,
            counters: consumer.counters,
            control: consumer.control,
            observer: consumer.observer,
            validation: consumer.validation,
            shutdown,
            settlements: Vec::new(),
            dead_letters: Vec::new(),
            calls: Vec::new(),
            named_topics: Vec::new(),
            lane_sources: Vec::new(),
            suspicions: Vec::new(),
            suspects: VecDeque::new(),
            trial: false,
            beside: 0,
            readers: Vec::new(),
            reads: FuturesUnordered::new(),
            settles: FuturesUnordered::new(),
            arrived: VecDeque::new(),
            lanes: Lanes::default(),
            ready: VecDeque::new(),
            running: FuturesUnordered::new(),
            deferred: FuturesUnordered::new(),
            batches: Batches::new(consumer.batch),
            running_batches: FuturesUnordered::new(),
            held: FuturesUnordered::new(),
            claims,
            window,
            unfinished: 0,
            stopping: false,
            error: None,
        };
        for source in consumer.sources {
            engine.add(source);
        }
        engine
    }

    fn add(&mut self, source: Source) {
        let index = self.readers.len();
        let can = source.capabilities;
        let settler = source.subscriber.settler();
        let same = |call: &Arc<CallInfo>| call.transport == source.transport;
        let lane_source = self.calls.iter().position(same).unwrap_or(index);
        self.lane_sources.push(lane_source);
        let attempts = self.settings.retry.max_attempts;
        self.suspicions.push(Suspicion::new(can, attempts));
        let (token, transport) = (self.shutdown.token(), source.transport.clone());
        let mut call = CallInfo::new(self.name.clone(), transport, token);
        call.migrations = self.handlers.migrations().cloned();
        call.validation.clone_from(&self.validation);
        self.calls.push(Arc::new(call));
        self.dead_letters.push(DeadLetters {
            transport: source.transport,
            prefix: source.prefix,
            publisher: source.publisher,
            admin: source.admin,
            // The claim of an event ends in its store between the two steps.
            forwarder: (can.forward && self.claims.is_none()).then(|| settler.clone()),
            control: Arc::clone(&self.control),
            ensured: Arc::default(),
        });
        self.settlements.push(Settlements::new(index, settler));
        self.readers.push(Reader::new(index, source.subscriber));
        self.named_topics.push(source.topics);
    }

    async fn run(&mut self) {
        let control = Arc::clone(&self.control);
        loop {
            // Before anything is started: a handler that has seen the stop may have made room.
            if !self.stopping && self.shutdown.is_requested() {
                self.begin_stop();
            }
            let changed = control.changed();
            let paused = control.is_paused();
            self.batches.expire();
            poll_fn(|context| {
                self.start_work(context);
                Poll::Ready(())
            })
            .await;
            // After what has come was looked at: it says how much more there is room for.
            if !paused {
                self.start_reads();
            }
            self.claims.iter_mut().for_each(Claims::send);
            self.start_settles();
            self.control.note_progress(&self.window);
            if paused {
                let idle = self.reads.is_empty() && self.window.events() == 0;
                self.control.note_idle(idle);
            }
            if self.stopping && self.is_drained() {
                return;
            }
            tokio::select! {
                Some((reader, read)) = self.reads.next() => self.on_read(reader, read),
                Some((job, handled)) = self.running.next() => self.on_returned(job, handled),
                Some((job, handled)) = self.deferred.next() => self.on_handled(job, handled),
                Some((jobs, handled)) = self.running_batches.next() => self.on_batch_handled(jobs, handled),
                () = self.batches.due(), if self.batches.is_collecting() => {}
                Some((job, held)) = self.held.next() => self.on_held(job, held),
                answer = next_answer(self.claims.as_mut()), if self.claims.is_some() => self.on_claims(answer),
                Some(settled) = self.settles.next() => self.on_settled(settled),
                () = changed, if paused && !self.stopping => {}
                () = self.shutdown.requested(), if !self.stopping => {}
                () = self.shutdown.drain_expired(), if self.stopping => return,
            }
        }
    }

    /// Lets idle readers read what the window has room for, shared among them.
    fn start_reads(&mut self) {
        if self.stopping || self.readers.is_empty() {
            return;
        }
        let Some(room) = self.window.room() else {
            return;
        };
        let room = room.div_ceil(self.settlements.len());
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
                self.counters.received(deliveries.len());
                let transport = &self.calls[source].transport;
                self.control.note_received(transport, &deliveries);
                let arrival = self.window.received(deliveries.len());
                let arrived = Arrived {
                    source,
                    arrival,
                    deliveries,
                };
                match self.stopping {
                    true => self.give_back(arrived),
                    false => self.arrived.push_back(arrived),
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

    /// Makes a job of a delivery, which starts when it may.
    fn accept(&mut self, source: usize, arrival: u64, delivery: Delivery) {
        tracing::trace!(subscription = %self.name, topic = %delivery.topic(),
            position = %delivery.position(), event_type = delivery.event().ok().map(crate::Event::event_type),
            event_id = delivery.event().ok().map(crate::Event::id), "received");
        self.bind_loose();
        self.window.hold(&delivery);
        let lane = self.lane(source, &delivery);
        let mut job = new_job(source, arrival, delivery);
        if self.stopping {
            self.release(job);
        } else if self.is_own_dead_letter(source, job.delivery.topic()) {
            self.counters.unhandled(1);
            self.settle(job, Settlement::Ack, Progress::Unhandled);
        } else {
            job.lane = lane;
            self.enlist(&mut job);
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
                let source = self.lane_sources[source];
                delivery
                    .key()
                    .map(|key| self.lanes.lane(source, topic, key))
            }
            Ordering::Partition => {
                let (topic, position) = (delivery.topic().name(), delivery.position());
                let partition = position.partition();
                Some(self.lanes.partition_lane(source, topic, partition))
            }
            Ordering::None => None,
        }
    }

    /// Whether a topic that discovery found holds the subscription's own dead letters, or events
    /// that wait for their next attempt: handling them would put them away again, and again.
    fn is_own_dead_letter(&self, source: usize, topic: &Topic) -> bool {
        // A source of its own reads what waits: what somebody put there by hand is handled.
        let named = &self.named_topics[source];
        if named.contains(topic) || self.lane_sources[source] != source {
            return false;
        }
        let delayed = self.settings.retry.delayed.as_ref();
        let prefix = &self.dead_letters[source].prefix;
        self.settings.dead_letter.covers(topic, prefix)
            || delayed.is_some_and(|delayed| delayed.topic.covers(topic, prefix))
    }

    /// Whether another handler may run.
    fn has_place(&self) -> bool {
        self.running.len() + self.running_batches.len() < self.settings.concurrency
    }

    /// Starts jobs while there are places. A handler that returns at once is done right here.
    fn start_ready(&mut self, context: &mut Context<'_>) {
        while self.has_place() {
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
            if self.is_suspect(&job) {
                self.try_suspect(job);
                continue;
            }
            let job = self.admit(job).and_then(|job| self.ask_rules(job));
            let Some(job) = job.and_then(|job| self.beside_suspects(job)) else {
                continue;
            };
            if let Some(mut work) = self.start(job) {
                match Pin::new(&mut work).poll(context) {
                    Poll::Ready((job, handled)) => self.on_returned(job, handled),
                    Poll::Pending => self.running.push(work),
                }
            }
        }
    }

    /// Starts the handler of a job, or decides about it where none can run.
    fn start(&mut self, mut job: Job) -> Option<Working<Handled>> {
        let event = match job.delivery.event() {
            Ok(event) => event,
            Err(undecodable) => {
                let (kind, text) = (
                    FailureKind::Undecodable,
                    format!("not an event: {}", undecodable.error()),
                );
                self.counters.undecodable(1);
                self.dead_letter(job, Reason::new(kind, &text));
                return None;
            }
        };
        let handlers = Arc::clone(&self.handlers);
        let handler = match handlers.find(event) {
            Some((_, Registered::One(handler))) => handler,
            Some((handler, Registered::Batch(_))) => {
                if job.trial == Trial::Running {
                    let jobs = vec![job];
                    self.start_batch(Collected { handler, jobs });
                } else {
                    self.collect(handler, job);
                }
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
        let call = Arc::make_mut(&mut self.calls[job.source]);
        call.attempt = job.attempt;
        let limit = self.settings.handler_timeout;
        call.deadline = limit.map(|limit| Instant::now() + limit);
        let call = &self.calls[job.source];
        let start = || on_behalf_of(Some(event), || handler.call(&job.delivery, call));
        match span.in_scope(start) {
            Ok(started) => {
                job.later = started.later;
                let late = |limit| Err(Failure::late(limit));
                let future = limited(started.future, limit, late);
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
            self.window.settled();
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
}
