use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError, RwLock};
use std::task::{Context, Poll};

use foldhash::fast::RandomState;
use futures::future::join_all;
use tokio::sync::oneshot;
use tokio::time::{Duration, Instant, timeout_at};

use super::bulk::Bulk;
use super::failed::FailedEvent;
use super::layers::Layers;
use super::pipeline::{Entry, Pipeline, Sink};
use super::reply::{Completed, Reply, never_answered};
use super::room::closed;
use super::route::{Fallback, Route};
use super::shared::Shared;
use crate::codec::Codec;
use crate::config::{Config, PublishConfig, Validate};
use crate::routing::{Partitioned, Resolved, RouteTable};
use crate::transport::{DynPublisher, Outcome, Outgoing, Publisher};
use crate::validation::Validation;
use crate::{Error, Result, Text, Topic};

/// How many event types a bus remembers the way of, as the route table does.
const REMEMBERED_TYPES: usize = 4096;

/// How long tasks that were told to end may take to do so. They wait for nothing then.
const TASKS_END_WITHIN: Duration = Duration::from_secs(1);

/// Publishing over all routes and transports of a bus.
#[derive(Debug)]
pub struct Publishing {
    pub(super) shared: Arc<Shared>,
    /// One for each transport.
    pub(super) pipelines: Vec<Arc<Pipeline>>,
    pub(super) publishers: Vec<(Text, DynPublisher)>,
    /// As in the config; the default is the last one.
    pub(super) routes: Vec<(usize, Arc<Route>)>,
    /// How much a transaction may hold.
    pub(super) transactions: TransactionLimits,
    pub(super) validation: Option<Arc<Validation>>,
    ways: RwLock<HashMap<Text, Arc<Way>, RandomState>>,
}

/// How much one transaction may hold.
#[derive(Debug)]
pub(super) struct TransactionLimits {
    pub(super) max_events: usize,
    pub(super) max_bytes: usize,
}

/// The way of an event type: its route, and the batches that its events travel in.
#[derive(Debug)]
pub struct Way {
    event_type: Text,
    resolved: Arc<Resolved>,
    place: Place,
    validate: Validate,
}

/// Where the events of a [`Way`] gather.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    pub(super) pipeline: usize,
    pub(super) group: u32,
}

/// What became of an event, and where.
#[derive(Debug)]
#[must_use = "an event that was not accepted is lost unless somebody looks"]
#[non_exhaustive]
pub struct Published {
    /// The outcome.
    pub outcome: Outcome,
    /// The transport that answered: the route's, or its fallback.
    pub transport: Text,
    /// The topic there.
    pub topic: Topic,
}

/// The outcome of an event that was enqueued, when it is there.
///
/// Dropped, the event is published all the same; one that still waited for room was not taken yet
/// and goes to the failed events.
#[must_use = "what becomes of the event is lost if nobody awaits it"]
pub struct Enqueued {
    way: Arc<Way>,
    waiting: Waiting,
}

enum Waiting {
    ForOutcome(oneshot::Receiver<Completed>),
    ForRoom(Pin<Box<dyn Future<Output = Completed> + Send>>),
}

/// What publishing holds and what became of the rest, in counts since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct PublishStats {
    /// Events without an outcome, waiting or sent.
    pub queued_events: usize,
    /// Their bytes.
    pub queued_bytes: usize,
    /// Batches that are out.
    pub batches_in_flight: usize,
    /// Events that were accepted.
    pub accepted: u64,
    /// Events that were rejected for good.
    pub rejected: u64,
    /// Events of which nobody knows whether they are stored.
    pub unknown: u64,
    /// How often an event was sent again.
    pub retried: u64,
    /// Failed events that are kept.
    pub failed_kept: usize,
    /// Failed events that were written to the spill file.
    pub failed_spilled: u64,
    /// Failed events that there was no room for.
    pub failed_dropped: u64,
}

/// What was left at the end of publishing.
#[derive(Debug)]
#[non_exhaustive]
pub struct Closed {
    /// Events that were not sent, or whose outcome nobody waited for any longer.
    pub unsent: Vec<FailedEvent>,
    /// What went wrong with the transports.
    pub errors: Vec<Error>,
}

impl Publishing {
    /// Publishing over the routes of a config, with the publisher of each of its transports. To be
    /// called within a runtime, on which what waits is sent.
    ///
    /// `validation` holds what events of routes that validate are held to.
    ///
    /// # Panics
    ///
    /// If a transport of the config has no publisher.
    pub fn new(
        config: &Config,
        publishers: &BTreeMap<Text, DynPublisher>,
        validation: Option<Arc<Validation>>,
    ) -> Self {
        let shared = Arc::new(Shared::new(&config.publishing));
        let names: Vec<_> = publishers.keys().collect();
        let pipelines = names
            .iter()
            .map(|name| Arc::new(Pipeline::new((*name).clone(), Arc::clone(&shared))));
        let pipelines = pipelines.collect();
        let default = config.routing.default.as_ref();
        let routes = config.routes.iter();
        let settings = routes.map(|route| (&route.transport, &route.publish));
        let settings = settings.chain(default.map(|route| (&route.transport, &route.publish)));
        let mut routes = Routes {
            all: config,
            publishers,
            validation: validation.as_ref(),
            known: Vec::new(),
        };
        let routes = settings.map(|(transport, publish)| {
            let pipeline = names.binary_search(&transport);
            let pipeline = pipeline.expect("routes name only transports of the config");
            (pipeline, routes.find(transport, publish))
        });
        Self {
            routes: routes.collect(),
            shared,
            pipelines,
            publishers: publishers
                .iter()
                .map(|(name, publisher)| (name.clone(), publisher.clone()))
                .collect(),
            transactions: TransactionLimits {
                max_events: config.publishing.max_transaction_events,
                max_bytes: config.publishing.max_transaction_bytes,
            },
            validation,
            ways: RwLock::default(),
        }
    }

    /// The way of an event type: one look-up in a hash map after the first time.
    ///
    /// # Errors
    ///
    /// Those of [`RouteTable::resolve`].
    pub fn way(&self, table: &RouteTable, event_type: &str) -> Result<Arc<Way>> {
        // A panic can't leave the map half changed.
        let ways = self.ways.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(way) = ways.get(event_type) {
            return Ok(Arc::clone(way));
        }
        drop(ways);
        let resolved = table.resolve(event_type)?;
        let route = resolved.route.unwrap_or(self.routes.len() - 1);
        let (pipeline, route) = &self.routes[route];
        let name = route.group(&resolved.topic, event_type);
        let validate = route.validate;
        let way = Arc::new(Way {
            place: Place {
                group: self.pipelines[*pipeline].group(route, name),
                pipeline: *pipeline,
            },
            event_type: event_type.into(),
            resolved,
            validate,
        });
        let mut ways = self.ways.write().unwrap_or_else(PoisonError::into_inner);
        if ways.len() < REMEMBERED_TYPES {
            ways.insert(event_type.into(), Arc::clone(&way));
        }
        Ok(way)
    }

    /// Publishes an event of a size in bytes and waits for its outcome. Waits for room where there
    /// is none.
    ///
    /// # Cancel safety
    ///
    /// Dropped, the event may or may not be published.
    pub async fn publish(&self, way: &Way, outgoing: Outgoing, size: usize) -> Published {
        let room = &self.shared.room;
        let charge = room.charge(size);
        if room.try_take(1, charge).is_err() {
            match room.take(1, charge).await {
                Ok(mut taken) => taken.hand_over(charge),
                Err(error) => return way.published(Completed::of(Outcome::Rejected(error))),
            }
        }
        self.send_one(way, outgoing, charge).await
    }

    /// Publishes an event as [`publish`](Self::publish) does, unless there is no room.
    ///
    /// # Errors
    ///
    /// [`Full`](crate::ErrorKind::Full), [`Closed`](crate::ErrorKind::Closed).
    ///
    /// # Cancel safety
    ///
    /// Dropped, the event may or may not be published.
    pub async fn try_publish(
        &self,
        way: &Way,
        outgoing: Outgoing,
        size: usize,
    ) -> Result<Published> {
        let charge = self.shared.room.charge(size);
        let taken = self.shared.room.try_take(1, charge);
        taken.map_err(|error| error.with_topic(outgoing.topic.name()))?;
        Ok(self.send_one(way, outgoing, charge).await)
    }

    /// Takes an event and returns at once. Where there is no room, the event is taken when the
    /// future is polled and there is some.
    pub fn enqueue(&self, way: Arc<Way>, outgoing: Outgoing, size: usize) -> Enqueued {
        let room = &self.shared.room;
        let charge = room.charge(size);
        let (sender, receiver) = oneshot::channel();
        let entry = Entry::new(outgoing, way.place.group, charge, Reply::One(sender));
        let pipeline = &self.pipelines[way.place.pipeline];
        let waiting = if room.try_take(1, charge).is_ok() {
            pipeline.enqueue(entry);
            Waiting::ForOutcome(receiver)
        } else {
            let held = Held {
                pipeline: Arc::clone(pipeline),
                entry: Some(entry),
            };
            Waiting::ForRoom(Box::pin(held.enqueue(receiver)))
        };
        Enqueued { way, waiting }
    }

    /// Publishes many events. `next` gives each with its place and size, or the error that keeps it
    /// from being published, and `None` after the last. Returns the outcomes in that order.
    ///
    /// # Cancel safety
    ///
    /// Dropped, any part may be published.
    pub async fn publish_all(
        &self,
        expected: usize,
        mut next: impl FnMut() -> Option<Result<(Place, Outgoing, usize)>>,
    ) -> Vec<Outcome> {
        let mut bulk = Bulk::new(self, expected);
        while let Some(routed) = next() {
            match routed {
                Err(error) => bulk.refuse(error),
                Ok((place, outgoing, size)) => {
                    if let Some(chunk) = bulk.add(outgoing, size, place) {
                        bulk.give(chunk).await;
                    }
                }
            }
        }
        bulk.finish().await
    }

    /// Waits until everything published before has its outcome, and the transports' own queues
    /// are empty.
    ///
    /// # Errors
    ///
    /// [`Timeout`](crate::ErrorKind::Timeout) at the deadline.
    pub async fn flush(&self, deadline: Instant) -> Result<()> {
        let flushing = self.pipelines.iter().map(|it| it.flush(deadline));
        join_all(flushing)
            .await
            .into_iter()
            .collect::<Result<()>>()?;
        self.flush_transactions(deadline).await?;
        let flushing = self.publishers.iter().map(|(name, publisher)| async move {
            let flushed = publisher.flush(deadline).await;
            flushed.map_err(|error| error.with_transport(name.clone()))
        });
        join_all(flushing).await.into_iter().collect()
    }

    /// Takes no more events, waits for outcomes until the deadline, and closes the transports.
    /// What has no outcome by then is given up and returned.
    pub async fn close(&self, deadline: Instant) -> Closed {
        self.shared.room.close();
        // What is late is in what this returns.
        let flushing = self.pipelines.iter().map(|it| it.flush(deadline));
        let _ = join_all(flushing).await;
        let _ = self.flush_transactions(deadline).await;
        self.shared.cut.cancel();
        self.pipelines.iter().for_each(|it| it.give_up());
        self.shared.tasks.close();
        let end = deadline.max(Instant::now() + TASKS_END_WITHIN);
        if timeout_at(end, self.shared.tasks.wait()).await.is_err() {
            tracing::error!("a task of publishing did not end when told to");
        }
        let closing = self.publishers.iter().map(|(name, publisher)| async move {
            let closed = publisher.close(deadline).await;
            closed.map_err(|error| error.with_transport(name.clone()))
        });
        let errors = join_all(closing).await.into_iter();
        let errors = errors.filter_map(Result::err).collect();
        self.shared.failed.end();
        Closed {
            unsent: self.shared.unsent.take(),
            errors,
        }
    }

    /// What publishing holds and did.
    pub fn stats(&self) -> PublishStats {
        let Shared {
            room,
            counters,
            failed,
            ..
        } = &*self.shared;
        let (queued_events, queued_bytes) = room.held();
        let failed = failed.counts();
        let in_flight = self.pipelines.iter().map(|it| it.batches_in_flight());
        PublishStats {
            queued_events,
            queued_bytes,
            batches_in_flight: in_flight.sum(),
            accepted: counters.accepted.load(Ordering::Relaxed),
            rejected: counters.rejected.load(Ordering::Relaxed),
            unknown: counters.unknown.load(Ordering::Relaxed),
            retried: counters.retried.load(Ordering::Relaxed),
            failed_kept: failed.kept,
            failed_spilled: failed.spilled,
            failed_dropped: failed.dropped,
        }
    }

    /// The events that failed for good and are kept, the oldest first.
    pub fn failed(&self) -> Vec<FailedEvent> {
        self.shared.failed.read()
    }

    /// Takes up to so many of the [failed events](Self::failed) out, the oldest first.
    pub fn take_failed(&self, most: usize) -> Vec<FailedEvent> {
        self.shared.failed.take(most)
    }

    async fn send_one(&self, way: &Way, outgoing: Outgoing, charge: u32) -> Published {
        let pipeline = &self.pipelines[way.place.pipeline];
        let entry = Entry::new(outgoing, way.place.group, charge, Reply::Own(0));
        let receiver = match pipeline.send_now(entry) {
            Ok(flight) => {
                let (flight, landed) = flight.send().await;
                let mut sink = One::default();
                flight.land(landed, &mut sink);
                match sink {
                    One {
                        completed: Some(completed),
                        ..
                    } => return way.published(completed),
                    One { later, .. } => later,
                }
            }
            Err(mut entry) => {
                let (sender, receiver) = oneshot::channel();
                entry.meta.reply = Reply::One(sender);
                pipeline.enqueue(entry);
                Some(receiver)
            }
        };
        let completed = match receiver {
            Some(receiver) => answer(receiver.await),
            None => Completed::of(Outcome::Unknown(never_answered())),
        };
        way.published(completed)
    }
}

impl Way {
    /// The event type whose way it is.
    pub fn event_type(&self) -> &str {
        &self.event_type
    }

    /// Where its events gather.
    pub fn place(&self) -> Place {
        self.place
    }

    /// How strict the way is with the events on it.
    pub fn validate(&self) -> Validate {
        self.validate
    }

    /// How data is written on the way.
    pub fn codec(&self) -> Codec {
        self.resolved.codec
    }

    /// Whether the schemas of its data stand in a registry.
    pub fn is_registered(&self) -> bool {
        self.resolved.schema_registry
    }

    /// The topic.
    pub fn topic(&self) -> &Topic {
        &self.resolved.topic
    }

    /// The transport's name.
    pub fn transport(&self) -> &Text {
        &self.resolved.transport
    }

    /// The index of its route; that of the default is given.
    pub(super) fn route_index(&self, default: usize) -> usize {
        self.resolved.route.unwrap_or(default)
    }

    fn published(&self, completed: Completed) -> Published {
        let Completed { outcome, fallback } = completed;
        let (transport, topic) = match &fallback {
            None => (self.transport(), self.topic().clone()),
            Some(it) => (&it.transport, it.topic_for(self.topic())),
        };
        Published {
            outcome,
            transport: transport.clone(),
            topic,
        }
    }
}

impl Future for Enqueued {
    type Output = Published;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Published> {
        let completed = match &mut self.waiting {
            Waiting::ForOutcome(receiver) => Pin::new(receiver).poll(context).map(answer),
            Waiting::ForRoom(waiting) => waiting.as_mut().poll(context),
        };
        completed.map(|completed| self.way.published(completed))
    }
}

impl std::fmt::Debug for Enqueued {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Enqueued")
            .field("topic", self.way.topic())
            .finish_non_exhaustive()
    }
}

fn answer(received: Result<Completed, oneshot::error::RecvError>) -> Completed {
    received.unwrap_or_else(|_| Completed::of(Outcome::Unknown(never_answered())))
}

/// The routes of a config. Those with the same settings on the same transport share batches,
/// unless a layer of theirs keeps state of its own.
struct Routes<'a> {
    all: &'a Config,
    publishers: &'a BTreeMap<Text, DynPublisher>,
    validation: Option<&'a Arc<Validation>>,
    known: Vec<(&'a Text, &'a PublishConfig, Arc<Route>)>,
}

impl<'a> Routes<'a> {
    fn find(&mut self, transport: &'a Text, config: &'a PublishConfig) -> Arc<Route> {
        let shareable = config.dedup.is_none()
            && config.rate_limit.is_none()
            && config.circuit_breaker.is_none();
        let known = self.known.iter().filter(|_| shareable);
        let mut known = known.filter(|(name, known, _)| *name == transport && *known == config);
        if let Some((_, _, route)) = known.next() {
            return Arc::clone(route);
        }
        let fallback = config.fallback.as_ref().map(|fallback| Fallback {
            transport: fallback.transport.clone(),
            topic: fallback.topic.clone(),
            route_prefix: self.all.topic_prefix(transport),
            prefix: self.all.topic_prefix(&fallback.transport),
            partitioned: Partitioned::of(self.all),
            publisher: self.publisher(&fallback.transport),
        });
        let layers = Layers::of_config(config, self.validation);
        let publisher = layers.around(self.publisher(transport));
        let route = Arc::new(Route::new(config, publisher, fallback));
        self.known.push((transport, config, Arc::clone(&route)));
        route
    }

    fn publisher(&self, transport: &str) -> DynPublisher {
        let publisher = self.publishers.get(transport);
        publisher
            .expect("routes name only transports of the config")
            .clone()
    }
}

/// The outcome of one event that its caller sends.
#[derive(Default)]
struct One {
    completed: Option<Completed>,
    later: Option<oneshot::Receiver<Completed>>,
}

impl Sink for One {
    fn done(&mut self, _: Reply, completed: Completed) {
        self.completed = Some(completed);
    }

    fn later(&mut self, _: Reply) -> Reply {
        let (sender, receiver) = oneshot::channel();
        self.later = Some(receiver);
        Reply::One(sender)
    }
}

/// An event that waits for room in its future.
struct Held {
    pipeline: Arc<Pipeline>,
    /// `None` once it is taken.
    entry: Option<Entry>,
}

impl Held {
    async fn enqueue(mut self, receiver: oneshot::Receiver<Completed>) -> Completed {
        let bytes = self.entry.as_ref().map_or(0, |entry| entry.meta.bytes);
        match self.pipeline.shared.room.take(1, bytes).await {
            Err(error) => Completed::of(Outcome::Rejected(error)),
            Ok(mut taken) => {
                if let Some(entry) = self.entry.take() {
                    taken.hand_over(bytes);
                    self.pipeline.enqueue(entry);
                }
                answer(receiver.await)
            }
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let Some(entry) = self.entry.take() else {
            return;
        };
        let shared = &self.pipeline.shared;
        let error = if shared.cut.is_cancelled() {
            closed()
        } else {
            let message = "the future of an enqueued event was dropped while it waited for room";
            Error::new(crate::ErrorKind::Full, message).with_operation("enqueue")
        };
        let transport = &self.pipeline.transport;
        tracing::warn!(%transport, topic = %entry.outgoing.topic, %error, "an event was not published");
        let failed = FailedEvent::new(transport, entry.outgoing, error, 0);
        shared.failed.keep(failed);
    }
}
