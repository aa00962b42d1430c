use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures::future::try_join_all;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::bus::Bus;
use crate::config::SubscriptionConfig;
use crate::handler::{BatchHandler, Handler, HandlerSetBuilder};
use crate::report::SubscriptionReport;
use crate::routing::Reading;
use crate::runtime::{
    BatchLimits, Consumer, Control, Counters, Counts, Finished, Shutdown, Source,
};
use crate::status::{SubscriptionState, SubscriptionStatus};
use crate::time::IntoDuration;
use crate::transport::{Start, Subscription as Membership, Transport};
use crate::{Error, ErrorKind, Result, Text};

/// A subscription in the making. See [`Bus::subscribe`].
///
/// The topics follow from the routes: every one that could carry an event type that the handlers
/// take, over all transports.
#[must_use = "a subscription does nothing until `start` is called"]
pub struct Subscribe<S = ()> {
    bus: Bus,
    name: Text,
    settings: SubscriptionConfig,
    handlers: HandlerSetBuilder,
    batch: Result<BatchLimits>,
    state: S,
}

impl Subscribe {
    pub(crate) fn new(bus: Bus, name: Text) -> Self {
        let config = &bus.inner.config;
        let settings = config.subscription(&name);
        let handlers = HandlerSetBuilder::new().with_origin(config.service.origin.clone());
        Self {
            bus,
            name,
            settings,
            handlers,
            batch: Ok(BatchLimits::default()),
            state: (),
        }
    }
}

impl<S: Clone + Send + Sync + 'static> Subscribe<S> {
    /// Sets the state that the handlers after it take with `State<T>`.
    pub fn state<T: Clone + Send + Sync + 'static>(self, state: T) -> Subscribe<T> {
        let Self {
            bus,
            name,
            settings,
            handlers,
            batch,
            state: _,
        } = self;
        Subscribe {
            bus,
            name,
            settings,
            handlers,
            batch,
            state,
        }
    }

    /// Adds a handler for the event types of its `Payload<T>`. One without does not compile.
    pub fn on<Args: 'static>(mut self, handler: impl Handler<Args, S>) -> Self {
        self.handlers.on(handler, self.state.clone());
        self
    }

    /// Adds a handler for the event types that a pattern takes. The most specific handler gets
    /// an event, and one for the very type comes before any pattern.
    pub fn on_pattern<Args: 'static>(
        mut self,
        pattern: &str,
        handler: impl Handler<Args, S>,
    ) -> Self {
        self.handlers
            .on_pattern(pattern, handler, self.state.clone());
        self
    }

    /// Adds a handler for every event that no other handler takes.
    pub fn on_any<Args: 'static>(self, handler: impl Handler<Args, S>) -> Self {
        self.on_pattern("*", handler)
    }

    /// Adds a handler for several events at once: those of the event types of its `Batch<T>`. One
    /// without does not compile.
    ///
    /// It returns what becomes of each entry: a `Vec` with one `Verdict` or `Result` for each, in
    /// their order; or `()`, a `Verdict` or an error for all. Each entry is settled, tried again or
    /// put away by itself, and one whose data is not that of a `T` is put away alone.
    ///
    /// The order of a key holds: a batch may hold several events of it, in their order, and the
    /// next ones wait until the batch is done. Entries of one key that are to be tried again come
    /// again in their order, after the pause of the first, and before the next events of the key.
    /// An entry that succeeds after one of its key that failed is done all the same: a handler
    /// that must not skip returns `Retry` for it too.
    ///
    /// A batch takes one of the `concurrency` places.
    pub fn on_batch<Args: 'static>(mut self, handler: impl BatchHandler<Args, S>) -> Self {
        self.handlers.on_batch(handler, self.state.clone());
        self
    }

    /// Sets when a batch is handed to its handler: when it has `max_events`, or when its first
    /// event has waited for `max_wait`. Default: 100 events, 50 ms.
    ///
    /// So that batches can fill up while one runs, `max_in_flight` is at least twice `max_events`.
    /// A wrong value is an error of [`start`](Self::start).
    ///
    /// ```no_run
    /// # use polybus::{Batch, Bus, Event};
    /// # #[derive(Event, serde::Serialize, serde::Deserialize)]
    /// # #[event(type = "user.created")]
    /// # struct UserCreated {}
    /// # async fn index(users: Batch<UserCreated>) {}
    /// # async fn example(bus: Bus) -> polybus::Result<()> {
    /// bus.subscribe("index").on_batch(index).batch(500, "50ms").start().await?;
    /// # Ok(()) }
    /// ```
    pub fn batch(mut self, max_events: usize, max_wait: impl IntoDuration) -> Self {
        self.batch = BatchLimits::new(max_events, max_wait);
        self
    }

    /// Sets the consumer group. Default: `group` in the config, else the service's name.
    pub fn group(mut self, group: impl Into<Text>) -> Self {
        self.settings.group = Some(group.into());
        self
    }

    /// Sets where the group starts if it has no position yet. Default: `start` in the config,
    /// else the beginning.
    pub fn from(mut self, start: Start) -> Self {
        self.settings.start = start;
        self
    }

    /// Joins the group on every transport that carries events for the handlers, and starts
    /// handling. When it returns, every event accepted from now on reaches the group.
    ///
    /// # Errors
    ///
    /// [`UnreachableHandler`](ErrorKind::UnreachableHandler) for a handler that no route can ever
    /// reach; [`InvalidPattern`](ErrorKind::InvalidPattern); [`Config`](ErrorKind::Config) for
    /// no handler, two for the same pattern, steps between versions of data that lead to no handler, wrong limits of batches, or another subscription of this bus that would share
    /// the group's events; those of the transports' `subscribe`.
    ///
    /// # Cancel safety
    ///
    /// Dropped, the subscription does not run; the group may have been made on the servers.
    pub async fn start(mut self) -> Result<Subscription> {
        let migrations = Arc::clone(&self.bus.inner.migrations);
        self.handlers.migrations(migrations);
        let handlers = self.handlers.build()?;
        let batch = self.batch?;
        if handlers.has_batches() {
            let least = batch.max_events.saturating_mul(2);
            self.settings.max_in_flight = self.settings.max_in_flight.max(least);
        }
        let readings = self.bus.inner.routes.reading(&handlers.interests())?;
        let service = &self.bus.inner.config.service.name;
        let group = self
            .settings
            .group
            .clone()
            .unwrap_or_else(|| service.clone());
        let topics = topics(&readings);
        self.bus.check_group(&self.name, &group, &topics)?;
        let joining = readings
            .into_iter()
            .map(|reading| join(&self.bus, &self.settings, &group, reading));
        let counters = Arc::new(Counters::default());
        let control = Arc::new(Control::new());
        let consumer = Consumer {
            name: self.name.clone(),
            group: group.clone(),
            settings: self.settings.clone(),
            handlers: Arc::new(handlers),
            batch,
            sources: try_join_all(joining).await?,
            counters: Arc::clone(&counters),
            control: Arc::clone(&control),
            observer: self.bus.inner.observer.clone(),
        };
        let shutdown = Shutdown::new();
        let ended = CancellationToken::new();
        let handle = Subscription {
            name: self.name.clone(),
            group: group.clone(),
            counters,
            control,
            shutdown: shutdown.clone(),
            ended: ended.clone(),
        };
        let any_ended = self.bus.inner.any_ended.clone();
        self.bus.adopt(&self.name, &group, &topics, || {
            let guards = (ended.drop_guard(), any_ended.drop_guard());
            let task = tokio::spawn(async move {
                let _guards = guards;
                consumer.run(shutdown).await
            });
            SubscriptionTask {
                handle: handle.clone(),
                topics: topics.clone(),
                task: Task(task),
            }
        })?;
        Ok(handle)
    }
}

async fn join(
    bus: &Bus,
    settings: &SubscriptionConfig,
    group: &Text,
    reading: Reading,
) -> Result<Source> {
    let connected = &bus.inner.transports[&reading.transport];
    let membership = Membership::new(group.clone(), reading.topics.clone())
        .patterns(reading.patterns)
        .start(settings.start)
        .takeover_after(settings.takeover_after);
    Ok(Source {
        subscriber: connected.transport.subscribe(membership).await?,
        publisher: connected.publisher.clone(),
        prefix: bus.inner.config.topic_prefix(&reading.transport),
        admin: connected.transport.admin(),
        topics: reading.topics,
        transport: reading.transport,
    })
}

fn topics(readings: &[Reading]) -> Vec<(Text, Text)> {
    let topics = |reading: &Reading| {
        let named = reading.topics.iter().map(|topic| Text::from(topic.name()));
        let open = reading
            .patterns
            .iter()
            .map(|pattern| Text::from(pattern.to_string()));
        let transport = reading.transport.clone();
        named
            .chain(open)
            .map(move |topic| (transport.clone(), topic))
            .collect::<Vec<_>>()
    };
    readings.iter().flat_map(topics).collect()
}

/// A subscription that runs. Dropping it does not stop it: the bus owns it.
#[derive(Debug, Clone)]
pub struct Subscription {
    name: Text,
    group: Text,
    counters: Arc<Counters>,
    control: Arc<Control>,
    shutdown: Shutdown,
    ended: CancellationToken,
}

impl Subscription {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it has done so far.
    pub fn counts(&self) -> Counts {
        self.counters.snapshot()
    }

    /// How it is doing.
    pub fn status(&self) -> SubscriptionStatus {
        let oldest = self.control.oldest();
        SubscriptionStatus {
            name: self.name.clone(),
            group: self.group.clone(),
            state: self.state(),
            in_flight: self.control.in_flight(),
            oldest: oldest.map(|oldest| oldest.elapsed()),
            counts: self.counts(),
            last_error: self.control.last_error(),
        }
    }

    fn state(&self) -> SubscriptionState {
        if self.control.is_failed() {
            SubscriptionState::Failed
        } else if self.ended.is_cancelled() {
            SubscriptionState::Ended
        } else if self.shutdown.is_requested() {
            SubscriptionState::Stopping
        } else if self.control.is_paused() {
            SubscriptionState::Paused
        } else {
            SubscriptionState::Running
        }
    }

    /// Lets it read nothing more until [`resume`](Self::resume). What it has received is handled
    /// and settled; its place in the group stays. Its events wait on the server: another member of
    /// the group does not get those of its share.
    pub fn pause(&self) {
        self.control.pause();
    }

    /// Lets it read again after [`pause`](Self::pause).
    pub fn resume(&self) {
        self.control.resume();
    }

    /// Waits until it has ended: the bus was closed, or it failed. Cancel safe.
    pub async fn ended(&self) {
        self.ended.cancelled().await;
    }
}

/// A subscription's task, which the bus owns and awaits.
pub(crate) struct SubscriptionTask {
    handle: Subscription,
    /// What it reads: transport and topic, or pattern of topics.
    pub(crate) topics: Vec<(Text, Text)>,
    task: Task,
}

/// Ends with the bus that owns it.
struct Task(JoinHandle<Finished>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl SubscriptionTask {
    pub(crate) fn name(&self) -> &Text {
        &self.handle.name
    }

    pub(crate) fn group(&self) -> &Text {
        &self.handle.group
    }

    pub(crate) fn status(&self) -> SubscriptionStatus {
        self.handle.status()
    }

    pub(crate) fn request_stop(&self, within: Duration) {
        self.handle.shutdown.request(within);
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.handle.ended.is_cancelled()
    }

    /// Waits for the end, which was asked for.
    pub(crate) async fn finish(mut self, deadline: Instant) -> SubscriptionReport {
        let (counts, unfinished, error) = match timeout_at(deadline, &mut self.task.0).await {
            Ok(Ok(finished)) => (finished.counts, finished.unfinished, finished.error),
            Ok(Err(panic)) => {
                let error = Error::new(ErrorKind::Handler, "the subscription's task failed");
                (self.handle.counts(), 0, Some(error.with_source(panic)))
            }
            Err(_) => {
                let error = Error::new(ErrorKind::Timeout, "the subscription did not stop in time");
                (self.handle.counts(), 0, Some(error))
            }
        };
        SubscriptionReport {
            name: self.handle.name.clone(),
            counts,
            unfinished,
            error,
        }
    }
}

impl<S> fmt::Debug for Subscribe<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscribe")
            .field("name", &self.name)
            .field("handlers", &self.handlers)
            .finish_non_exhaustive()
    }
}
