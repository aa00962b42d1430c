use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::future::join_all;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::builder::BusBuilder;
use crate::config::Config;
use crate::dead_letters::DeadLetters;
#[cfg(feature = "asyncapi")]
use crate::format::Formats;
use crate::middleware::{Prepare, Publishing};
use crate::report::{CloseReport, SubscriptionReport};
use crate::routing::{RouteTable, WantedTopic};
use crate::runtime::Observer;
use crate::status::SubscriptionStatus;
use crate::stores::Stores;
use crate::subscription::{Subscribe, SubscriptionTask};
use crate::time::IntoDuration;
use crate::topics::Topics;
use crate::transport::{DynPublisher, DynTransport, TopicSpec, Transport};
use crate::validation::Validation;
use crate::version::Migrations;
use crate::{Error, ErrorKind, Result, Text, Topic};

/// One event bus over all transports of a config. Clones are handles to the same bus.
///
/// Made by [`Bus::from_file`] or [`Bus::builder`]. A bus that is dropped without
/// [`close`](Self::close) or [`run_until`](Self::run_until) stops its subscriptions like a
/// crash: what was not settled is delivered again.
#[derive(Clone)]
pub struct Bus {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) config: Config,
    pub(crate) routes: Arc<RouteTable>,
    pub(crate) transports: BTreeMap<Text, Connected>,
    pub(crate) publishing: Arc<Publishing>,
    pub(crate) prepare: Arc<Prepare>,
    /// Where it is kept which events were handled.
    pub(crate) stores: Stores,
    /// Sees what subscriptions do, in a test.
    pub(crate) observer: Option<Arc<dyn Observer>>,
    /// The steps between versions of data.
    pub(crate) migrations: Arc<Migrations>,
    /// What events are held to.
    pub(crate) validation: Arc<Validation>,
    /// How events may stand on the wire.
    #[cfg(feature = "asyncapi")]
    pub(crate) formats: Formats,
    subscriptions: Mutex<Vec<SubscriptionTask>>,
    /// Cancelled when a subscription ends, whenever it was started.
    pub(crate) any_ended: CancellationToken,
    closed: AtomicBool,
}

/// What is agreed on about events.
pub(crate) struct Contracts {
    pub(crate) migrations: Migrations,
    pub(crate) validation: Arc<Validation>,
    #[cfg(feature = "asyncapi")]
    pub(crate) formats: Formats,
}

/// A transport and the publisher that the bus shares.
#[derive(Debug, Clone)]
pub(crate) struct Connected {
    pub(crate) transport: DynTransport,
    pub(crate) publisher: DynPublisher,
}

impl Bus {
    /// Reads a config file and connects to every transport in it.
    ///
    /// # Errors
    ///
    /// [`Config`](ErrorKind::Config) and its relatives with file, line and key for what is wrong
    /// in the file; [`Connect`](ErrorKind::Connect) naming the address if a server can't be reached
    /// within the transport's connect deadline.
    pub async fn from_file(path: impl AsRef<Path>) -> Result<Self> {
        Self::builder().config_file(path).build().await
    }

    /// Starts a bus with more than a file: a transport of one's own, or everything in memory.
    pub fn builder() -> BusBuilder {
        BusBuilder::new()
    }

    pub(crate) fn new(
        config: Config,
        routes: Arc<RouteTable>,
        transports: BTreeMap<Text, Connected>,
        publishing: Publishing,
        stores: Stores,
        observer: Option<Arc<dyn Observer>>,
        contracts: Contracts,
    ) -> Self {
        let publishing = Arc::new(publishing);
        let service = config.service.clone();
        let prepare = Prepare::new(Arc::clone(&publishing), Arc::clone(&routes), service);
        let inner = Inner {
            publishing,
            prepare: Arc::new(prepare),
            stores,
            config,
            routes,
            transports,
            observer,
            migrations: Arc::new(contracts.migrations),
            validation: contracts.validation,
            #[cfg(feature = "asyncapi")]
            formats: contracts.formats,
            subscriptions: Mutex::default(),
            any_ended: CancellationToken::new(),
            closed: AtomicBool::new(false),
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// Starts a subscription. Its settings are those of `[subscriptions.<name>]` in the config,
    /// or the defaults.
    pub fn subscribe(&self, name: impl Into<Text>) -> Subscribe {
        Subscribe::new(self.clone(), name.into())
    }

    /// How every subscription is doing, in the order in which they were started. Those of a bus
    /// that was closed are in the [report](CloseReport).
    ///
    /// ```no_run
    /// # fn example(bus: polybus::Bus) {
    /// for subscription in bus.status() {
    ///     println!("{}: {:?}, {} in flight", subscription.name, subscription.state, subscription.in_flight);
    /// }
    /// # }
    /// ```
    pub fn status(&self) -> Vec<SubscriptionStatus> {
        let subscriptions = self.subscriptions();
        subscriptions.iter().map(SubscriptionTask::status).collect()
    }

    /// Creates topics and reads their state.
    pub fn topics(&self) -> Topics {
        Topics::new(self.clone())
    }

    /// What failed for good in a topic: looks at it, sends it on its way again, deletes it.
    ///
    /// ```no_run
    /// # use polybus::{Bus, Replay};
    /// # async fn example(bus: Bus) -> polybus::Result<()> {
    /// let letters = bus.dead_letters("user-events.dlq");
    /// for letter in letters.list().await? {
    ///     println!("{}: {}", letter.position(), letter.provenance().reason);
    /// }
    /// let report = letters.replay(Replay::to_origin()).await?;
    /// println!("{} sent on their way again", report.replayed);
    /// # Ok(()) }
    /// ```
    pub fn dead_letters(&self, topic: impl Into<Topic>) -> DeadLetters {
        DeadLetters::new(self.clone(), topic.into())
    }

    /// The routes of the config, compiled.
    pub fn routes(&self) -> &RouteTable {
        &self.inner.routes
    }

    /// A transport by its name in the config.
    pub fn transport(&self, name: &str) -> Option<&DynTransport> {
        self.inner
            .transports
            .get(name)
            .map(|connected| &connected.transport)
    }

    /// Runs until `shutdown` is ready or a subscription fails, then closes the bus within the
    /// service's `shutdown_deadline` (default 30 s).
    ///
    /// # Errors
    ///
    /// The error of a subscription that failed, or of the [close](Self::close).
    ///
    /// # Cancel safety
    ///
    /// Dropped, the bus goes on.
    pub async fn run_until(&self, shutdown: impl Future<Output = ()>) -> Result<()> {
        self.warn_of_unused_settings();
        tokio::select! {
            () = shutdown => {}
            () = self.inner.any_ended.cancelled() => {}
        }
        let report = self
            .close(self.inner.config.service.shutdown_deadline)
            .await?;
        report.into_result()
    }

    /// Stops: subscriptions take nothing more in and finish what their handlers have started,
    /// settle and leave their groups; what was published waits for its outcome. Ends within the
    /// deadline and says what was left over: events without an outcome are in the report, with
    /// the reason. Later calls find nothing to do.
    ///
    /// ```no_run
    /// # async fn example(bus: polybus::Bus) -> polybus::Result<()> {
    /// let report = bus.close("10s").await?;
    /// assert_eq!(report.unfinished(), 0);
    /// assert!(report.unsent().is_empty());
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// [`Config`](ErrorKind::Config) if the deadline is no duration. What goes wrong in closing is
    /// in the report.
    pub async fn close(&self, deadline: impl IntoDuration) -> Result<CloseReport> {
        let within = deadline.into_duration()?;
        let deadline = Instant::now() + within;
        self.inner.closed.store(true, Ordering::Release);
        let subscriptions = std::mem::take(&mut *self.subscriptions());
        subscriptions
            .iter()
            .for_each(|task| task.request_stop(within));
        let finishing = subscriptions.into_iter().map(|task| task.finish(deadline));
        let subscriptions: Vec<SubscriptionReport> = join_all(finishing).await;
        let closed = self.inner.publishing.close(deadline).await;
        Ok(CloseReport {
            subscriptions,
            unsent: closed.unsent,
            errors: closed.errors,
        })
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.inner.closed.load(Ordering::Acquire)
    }

    /// Refuses a subscription that would take events from another one of this bus.
    pub(crate) fn check_group(
        &self,
        name: &str,
        group: &str,
        topics: &[(Text, Text)],
    ) -> Result<()> {
        self.check_group_among(&self.subscriptions(), name, group, topics)
    }

    /// Starts a subscription and keeps it, unless the bus was closed or another one took its
    /// group while it joined.
    pub(crate) fn adopt(
        &self,
        name: &str,
        group: &str,
        topics: &[(Text, Text)],
        start: impl FnOnce() -> SubscriptionTask,
    ) -> Result<()> {
        let mut subscriptions = self.subscriptions();
        self.check_group_among(&subscriptions, name, group, topics)?;
        subscriptions.push(start());
        Ok(())
    }

    fn check_group_among(
        &self,
        subscriptions: &[SubscriptionTask],
        name: &str,
        group: &str,
        topics: &[(Text, Text)],
    ) -> Result<()> {
        if self.is_closed() {
            return Err(closed());
        }
        let running = subscriptions.iter().filter(|task| task.group() == group);
        for other in running {
            if let Some((transport, topic)) =
                topics.iter().find(|topic| other.topics.contains(topic))
            {
                return Err(Error::new(
                    ErrorKind::Config,
                    format!(
                        "subscriptions `{}` and `{name}` would share the events of one group",
                        other.name()
                    ),
                )
                .with_transport(transport.clone())
                .with_topic(topic.clone())
                .with_note(format!(
                    "both read as group `{group}`, so each would miss the other's events"
                ))
                .with_note(format!("set `group` under [subscriptions.{name}]")));
            }
        }
        Ok(())
    }

    /// A subscription in the config that no code starts is usually a misspelt name.
    fn warn_of_unused_settings(&self) {
        let running = self.subscriptions();
        for name in self.inner.config.subscriptions.keys() {
            if !running.iter().any(|task| task.name() == name) {
                tracing::warn!(subscription = %name, "the config has settings for a subscription that does not run");
            }
        }
    }

    /// The subscriptions that have ended and are still the bus's to close.
    pub(crate) fn ended_subscriptions(&self) -> Vec<Text> {
        let subscriptions = self.subscriptions();
        let ended = subscriptions.iter().filter(|task| task.has_ended());
        ended.map(|task| task.name().clone()).collect()
    }

    /// The topics of each transport that the config and the subscriptions need.
    pub(crate) fn wanted_topics(&self) -> Result<BTreeMap<Text, Vec<WantedTopic>>> {
        let running: Vec<_> = {
            let subscriptions = self.subscriptions();
            subscriptions
                .iter()
                .map(SubscriptionTask::running)
                .collect()
        };
        let inner = &self.inner;
        let mut wanted = inner.routes.wanted_topics(&inner.config, &running)?;
        for (transport, topics) in &mut wanted {
            let specs = topics.iter_mut().map(|topic| &mut topic.spec);
            self.use_known_partitions(transport, specs);
        }
        Ok(wanted)
    }

    /// Where the transport divides topics itself, everybody goes by the number of partitions that the
    /// config says of a topic: a default for servers that divide them is none for it.
    pub(crate) fn use_known_partitions<'a>(
        &self,
        transport: &str,
        specs: impl Iterator<Item = &'a mut TopicSpec>,
    ) {
        let connected = self.inner.transports.get(transport);
        if connected.is_some_and(|it| it.transport.capabilities().splits_topics) {
            for spec in specs {
                let topic = Topic::new(spec.name.clone());
                spec.partitions = self.inner.routes.topic(transport, &topic).partitions();
            }
        }
    }

    fn subscriptions(&self) -> MutexGuard<'_, Vec<SubscriptionTask>> {
        self.inner.lock_subscriptions()
    }
}

impl Inner {
    /// What events are held to, unless no route validates.
    pub(crate) fn validation(&self) -> Option<Arc<Validation>> {
        (!self.validation.is_off()).then(|| Arc::clone(&self.validation))
    }

    pub(crate) fn lock_subscriptions(&self) -> MutexGuard<'_, Vec<SubscriptionTask>> {
        // A list of handles can't be left half changed by a panic.
        let subscriptions = self.subscriptions.lock();
        subscriptions.unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inner").finish_non_exhaustive()
    }
}

pub(crate) fn closed() -> Error {
    Error::new(ErrorKind::Closed, "the bus is closed")
}

impl fmt::Debug for Bus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bus")
            .field("service", &self.inner.config.service.name)
            .field("transports", &self.inner.transports.keys())
            .finish_non_exhaustive()
    }
}
