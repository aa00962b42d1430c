use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::bus::{Bus, Inner};
use crate::config::{OnFailure, SubscriptionConfig};
use crate::handler::{
    BatchHandler, Classifiers, ErrorClass, Handler, HandlerSet, HandlerSetBuilder, Retryable,
};
use crate::lifecycle::{Joining, Reads};
use crate::middleware::Prepare;
use crate::report::SubscriptionReport;
use crate::routing::{Reading, Running};
use crate::runtime::{
    BatchLimits, Consumer, Control, Counters, Counts, ExactlyOnce, Finished, Shutdown,
};
use crate::status::{SubscriptionState, SubscriptionStatus};
use crate::stores::InCode;
use crate::takes::Takes;
use crate::time::IntoDuration;
use crate::transport::{DynAdmin, Losses, Start, Transport};
use crate::{Error, ErrorKind, Result, Text, Topic};

/// A subscription in the making. See [`Bus::subscribe`].
///
/// The topics follow from the routes: every one that could carry an event type that the handlers
/// take, over all transports.
#[must_use = "a subscription does nothing until `start` is called"]
pub struct Subscribe<S = ()> {
    bus: Bus,
    name: Text,
    pub(crate) settings: SubscriptionConfig,
    pub(crate) idempotency: InCode,
    handlers: HandlerSetBuilder,
    classifiers: Classifiers,
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
            idempotency: InCode::default(),
            handlers,
            classifiers: Classifiers::default(),
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
            idempotency,
            handlers,
            classifiers,
            batch,
            state: _,
        } = self;
        Subscribe {
            bus,
            name,
            settings,
            idempotency,
            handlers,
            classifiers,
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

    /// Says which errors of the handlers are worth another try, for errors of a type. It decides
    /// about an error of that type, and about one that was caused by one; the first of several
    /// that knows the error. Without one every error is tried again, unless it is a
    /// [`Permanent`](crate::Permanent) or one of polybus that is not retryable.
    ///
    /// ```no_run
    /// # use polybus::{Bus, ErrorClass};
    /// # #[derive(Debug)] enum MailError { NoSuchAddress, ServerIsDown }
    /// # impl std::fmt::Display for MailError {
    /// #     fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result { f.write_str("no mail") }
    /// # }
    /// # impl std::error::Error for MailError {}
    /// # async fn welcome() -> Result<(), MailError> { Ok(()) }
    /// # async fn example(bus: Bus) -> polybus::Result<()> {
    /// let mails = bus.subscribe("welcome-mails").classify(|error: &MailError| match error {
    ///     MailError::NoSuchAddress => ErrorClass::Permanent, // a dead letter at once
    ///     MailError::ServerIsDown => ErrorClass::Transient,
    /// });
    /// mails.on_pattern("user.created", welcome).start().await?;
    /// # Ok(()) }
    /// ```
    pub fn classify<E: std::error::Error + 'static>(
        mut self,
        classify: impl Fn(&E) -> ErrorClass + Send + Sync + 'static,
    ) -> Self {
        self.classifiers.add(classify);
        self
    }

    /// Lets the errors of a type say themselves whether they are worth another try: this is
    /// [`classify`](Self::classify) with what the type knows.
    ///
    /// ```no_run
    /// # use polybus::{Bus, ErrorClass, Retryable};
    /// # use std::time::Duration;
    /// # #[derive(Debug)] enum MailError { NoSuchAddress, TooManyMails }
    /// # impl std::fmt::Display for MailError {
    /// #     fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result { f.write_str("no mail") }
    /// # }
    /// # impl std::error::Error for MailError {}
    /// impl Retryable for MailError {
    ///     fn class(&self) -> ErrorClass {
    ///         match self {
    ///             Self::NoSuchAddress => ErrorClass::Permanent,
    ///             Self::TooManyMails => ErrorClass::TransientFor(Duration::from_secs(30)),
    ///         }
    ///     }
    /// }
    /// # async fn welcome() -> Result<(), MailError> { Ok(()) }
    /// # async fn example(bus: Bus) -> polybus::Result<()> {
    /// let mails = bus.subscribe("welcome-mails").retryable::<MailError>();
    /// mails.on_pattern("user.created", welcome).start().await?;
    /// # Ok(()) }
    /// ```
    pub fn retryable<E: Retryable + 'static>(self) -> Self {
        self.classify(E::class)
    }

    /// Sets the consumer group. Default: `group` in the config, else that of the service, else the
    /// service's name.
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

    /// Stores what handlers publish in a [`Transaction`](crate::Transaction) and the
    /// acknowledgement of their events in one step, also without a handler that takes one. See
    /// [`SubscriptionConfig::exactly_once`]. Default: `exactly_once` in the config.
    pub fn exactly_once(mut self) -> Self {
        self.settings.exactly_once = true;
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
    /// the group's events, or one that is [exactly-once](Self::exactly_once) and has batch handlers
    /// or several transports; [`Unsupported`](ErrorKind::Unsupported) for that on a transport that
    /// can't; those of the transports' `subscribe`.
    ///
    /// # Cancel safety
    ///
    /// Dropped, the subscription does not run; the group may have been made on the servers.
    pub async fn start(mut self) -> Result<Subscription> {
        let bus = &self.bus.inner;
        self.handlers.migrations(Arc::clone(&bus.migrations));
        let idempotency = self.find_idempotency(&self.bus)?;
        let handlers = self.handlers.build()?;
        let batch = self.batch?;
        let room = &mut self.settings.max_in_flight;
        if handlers.has_batches() {
            *room = (*room).max(batch.max_events.saturating_mul(2));
        }
        self.settings.exactly_once |= handlers.is_transactional();
        self.settings.check()?;
        let joining = Arc::new(joining(&self.bus, &self.settings, &handlers)?);
        if self.settings.exactly_once {
            check_exactly_once(&self.name, handlers.has_batches(), &joining)?;
            check_settings(&self.name, &self.settings, idempotency.is_some())?;
        }
        let topics = topics(&joining);
        let takes = Takes {
            contracts: handlers.contracts().to_vec(),
            interests: handlers.interests(),
            settings: self.settings.clone(),
        };
        self.bus.check_group(&self.name, &joining.group, &topics)?;
        let consumer = Consumer {
            name: self.name.clone(),
            group: joining.group.clone(),
            settings: self.settings,
            handlers: Arc::new(handlers),
            classifiers: self.classifiers,
            batch,
            idempotency,
            sources: joining.join().await?,
            counters: Arc::new(Counters::with_losses(joining.losses.clone())),
            control: Arc::default(),
            observer: self.bus.inner.observer.clone(),
            validation: self.bus.inner.validation(),
        };
        let handle = Subscription {
            name: self.name.clone(),
            group: joining.group.clone(),
            counters: Arc::clone(&consumer.counters),
            control: Arc::clone(&consumer.control),
            shutdown: Shutdown::new(),
            ended: CancellationToken::new(),
            admins: joining.admins().into(),
            bus: Arc::downgrade(&self.bus.inner),
        };
        let any_ended = bus.any_ended.clone();
        self.bus.adopt(&self.name, &handle.group, &topics, || {
            let prepare = Arc::clone(&bus.prepare);
            SubscriptionTask {
                task: spawn(consumer, joining, &handle, prepare, any_ended),
                handle: handle.clone(),
                topics: topics.clone(),
                takes,
            }
        })?;
        Ok(handle)
    }
}

/// What the handlers have to read, and as whom.
fn joining(bus: &Bus, settings: &SubscriptionConfig, handlers: &HandlerSet) -> Result<Joining> {
    let bus = &bus.inner;
    let service = &bus.config.service;
    let reads = |reading: Reading| Reads {
        connected: bus.transports[&reading.transport].clone(),
        prefix: bus.config.topic_prefix(&reading.transport),
        reading,
    };
    let readings = bus.routes.reading(&handlers.interests())?.into_iter();
    Ok(Joining {
        group: service.group_of(settings).clone(),
        settings: settings.clone(),
        reads: readings.map(reads).collect(),
        losses: Losses::default(),
    })
}

/// What is a contradiction to steps that are stored whole.
fn check_settings(name: &str, settings: &SubscriptionConfig, idempotency: bool) -> Result<()> {
    let (setting, note) = if settings.retry.delayed.is_some() {
        ("retry.delayed", "its retries wait within the step")
    } else if idempotency {
        ("idempotency", "its events take effect once as it is")
    } else if settings.on_failure == OnFailure::Restart {
        ("on_failure", "it can't be started again by itself")
    } else {
        return Ok(());
    };
    let what = format!("subscription `{name}` is exactly-once and has `{setting}`");
    Err(Error::new(ErrorKind::Config, what)
        .with_operation("subscribe")
        .with_note(format!("leave one of the two out: {note}")))
}

fn check_exactly_once(name: &str, has_batches: bool, joining: &Joining) -> Result<()> {
    let wrong = |what: String| Error::new(ErrorKind::Config, what).with_operation("subscribe");
    if has_batches {
        let what = format!("subscription `{name}` is exactly-once and has a batch handler");
        let note = "take one event at a time: events are stored in batches all the same";
        return Err(wrong(what).with_note(note));
    }
    let [reads] = &joining.reads[..] else {
        let names = joining.reads.iter().map(|it| it.reading.transport.as_str());
        let names: Vec<_> = names.collect();
        let what =
            format!("subscription `{name}` is exactly-once and reads from several transports");
        return Err(wrong(what)
            .with_note(format!("they are {}", names.join(", ")))
            .with_note("make a subscription for each"));
    };
    if !reads.connected.transport.capabilities().exactly_once {
        let what = format!("subscription `{name}` can't be exactly-once on this transport");
        return Err(Error::new(ErrorKind::Unsupported, what)
            .with_operation("subscribe")
            .with_transport(reads.reading.transport.clone())
            .with_note("it can't store an acknowledgement and what is published in one step")
            .with_note("route the events to a transport that can, or publish with `State<Bus>`"));
    }
    Ok(())
}

/// Runs a subscription until it is stopped or has failed.
fn spawn(
    consumer: Consumer,
    joining: Arc<Joining>,
    handle: &Subscription,
    prepare: Arc<Prepare>,
    any_ended: CancellationToken,
) -> Task {
    let shutdown = handle.shutdown.clone();
    let (ended, any_ended) = (handle.ended.clone().drop_guard(), any_ended.drop_guard());
    Task(tokio::spawn(async move {
        let _ended = ended;
        let join = move || {
            let joining = Arc::clone(&joining);
            async move { joining.join().await }
        };
        let exactly_once = consumer.settings.exactly_once;
        let run = move |consumer: Consumer, shutdown| -> BoxFuture<'static, Finished> {
            if exactly_once {
                let steps = ExactlyOnce::new(consumer, Arc::clone(&prepare), shutdown);
                Box::pin(steps.run())
            } else {
                Box::pin(consumer.run(shutdown))
            }
        };
        let finished = consumer.run_on(run, join, shutdown.clone()).await;
        if shutdown.is_requested() && finished.error.is_none() {
            // It was stopped, which is no reason for a bus to end.
            any_ended.disarm();
        }
        finished
    }))
}

fn topics(joining: &Joining) -> Vec<(Text, Text)> {
    let topics = |Reads { reading, .. }: &Reads| {
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
    joining.reads.iter().flat_map(topics).collect()
}

/// A subscription that runs. Dropping it does not stop it: the bus owns it.
#[derive(Debug, Clone)]
pub struct Subscription {
    name: Text,
    group: Text,
    counters: Arc<Counters>,
    pub(crate) control: Arc<Control>,
    shutdown: Shutdown,
    ended: CancellationToken,
    /// Who is asked how far its group is behind.
    pub(crate) admins: Arc<[(Text, DynAdmin, Vec<Topic>)]>,
    pub(crate) bus: Weak<Inner>,
}

impl Subscription {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its consumer group.
    pub fn group(&self) -> &str {
        &self.group
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
            in_flight_bytes: self.control.in_flight_bytes(),
            oldest: oldest.map(|oldest| oldest.elapsed()),
            counts: self.counts(),
            partitions: self.control.partitions(),
            last_error: self.control.last_error(),
        }
    }

    fn state(&self) -> SubscriptionState {
        let ended = self.ended.is_cancelled();
        if self.control.is_restarting() && !ended {
            SubscriptionState::Restarting
        } else if self.control.is_failed() {
            SubscriptionState::Failed
        } else if ended {
            SubscriptionState::Ended
        } else if self.control.is_in_recess() && !self.shutdown.is_requested() {
            SubscriptionState::Seeking
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

    /// Takes the task from its bus.
    pub(crate) fn take_task(&self) -> Option<SubscriptionTask> {
        let bus = self.bus.upgrade()?;
        let mut tasks = bus.lock_subscriptions();
        let index = tasks.iter().position(|task| task.is(self))?;
        Some(tasks.remove(index))
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
    pub(crate) takes: Takes,
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
    fn is(&self, handle: &Subscription) -> bool {
        Arc::ptr_eq(&self.handle.control, &handle.control)
    }

    /// What it reads, where the names of topics are known.
    pub(crate) fn running(&self) -> Running {
        let admins = self.handle.admins.iter();
        let topics = admins.flat_map(|(transport, _, topics)| {
            topics
                .iter()
                .map(|topic| (transport.clone(), topic.clone()))
        });
        Running::new(
            self.handle.name.clone(),
            self.handle.group.clone(),
            self.takes.settings.clone(),
            topics.collect(),
        )
    }

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
