//! Subscriptions whose events take effect once on what their handlers publish.
//!
//! They go in steps. A step is what `recv` gave: its events are handled, side by side but for those
//! of one key, and each until its outcome is certain, retries included. What the handlers published,
//! dead letters among it, and the acknowledgement of the events are then stored by the transport
//! at once. Nothing is stored before, so an attempt that failed, a member that died and a handler
//! that runs twice leave no trace. No step begins before the one before it is stored: a position
//! never passes an event that is not done.

mod attempt;
mod commit;

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::stream::{self, StreamExt};
use tokio::time::{sleep, sleep_until};

use super::window::Window;
use super::{Consumer, Control, Counters, Finished, Observer, Progress, Shutdown, Step};
use crate::backoff;
use crate::config::{Ordering, SubscriptionConfig};
use crate::handler::{CallInfo, Classifiers, HandlerSet};
use crate::middleware::Prepare;
use crate::topic::TopicPrefix;
use crate::transport::{
    Delivery, DynAdmin, DynSettler, DynSubscriber, Outgoing, Settlement, Settler, Subscriber,
};
use crate::validation::Validation;
use crate::{Error, Text, Topic};

/// How many events a step has at most: all wait for the slowest of them.
const MOST_EVENTS: usize = 500;

/// How long a subscription that fails gives its running handlers.
const DRAIN_AFTER_FAILURE: Duration = Duration::from_secs(10);

/// A subscription that is exactly-once, ready to run.
pub struct ExactlyOnce {
    subscriber: DynSubscriber,
    work: Work,
}

/// Everything but the reading.
struct Work {
    name: Text,
    group: Text,
    settings: SubscriptionConfig,
    handlers: Arc<HandlerSet>,
    classifiers: Classifiers,
    counters: Arc<Counters>,
    control: Arc<Control>,
    observer: Option<Arc<dyn Observer>>,
    validation: Option<Arc<Validation>>,
    transport: Text,
    settler: DynSettler,
    admin: DynAdmin,
    /// The topics that were named. It may read others that discovery finds.
    named_topics: Vec<Topic>,
    /// What stands before the names of the transport's topics.
    prefix: TopicPrefix,
    prepare: Arc<Prepare>,
    shutdown: Shutdown,
    unfinished: usize,
    error: Mutex<Option<Error>>,
}

/// What became of an event.
#[derive(Debug)]
struct Decided {
    progress: Progress,
    attempt: u32,
    /// What is stored with its acknowledgement.
    published: Vec<Outgoing>,
}

/// An event and what became of it.
type Done = (Delivery, Decided);

impl ExactlyOnce {
    /// A subscription of one source. What its handlers publish goes the way that `prepare` knows.
    ///
    /// # Panics
    ///
    /// Without a source, or with several.
    pub fn new(mut consumer: Consumer, prepare: Arc<Prepare>, shutdown: Shutdown) -> Self {
        assert_eq!(consumer.sources.len(), 1, "it reads from one transport");
        let source = consumer.sources.remove(0);
        let work = Work {
            transport: source.transport,
            settler: source.subscriber.settler(),
            admin: source.admin,
            named_topics: source.topics,
            prefix: source.prefix,
            name: consumer.name,
            group: consumer.group,
            settings: consumer.settings,
            handlers: consumer.handlers,
            classifiers: consumer.classifiers,
            counters: consumer.counters,
            control: consumer.control,
            observer: consumer.observer,
            validation: consumer.validation,
            prepare,
            shutdown,
            unfinished: 0,
            error: Mutex::new(None),
        };
        Self {
            subscriber: source.subscriber,
            work,
        }
    }

    /// Runs until a stop is requested, or the subscription fails; then lets handlers that run
    /// finish within the request's time, stores what is done, and leaves the group.
    ///
    /// # Cancel safety
    ///
    /// Dropped, it ends like a crash: a step is stored whole or not at all.
    pub async fn run(self) -> Finished {
        let Self {
            mut subscriber,
            mut work,
        } = self;
        let mut failures = 0;
        while !work.shutdown.is_requested() {
            match work.read(&mut subscriber, failures).await {
                None => {}
                Some(Ok(deliveries)) => {
                    failures = 0;
                    work.step(deliveries).await;
                }
                Some(Err(error)) if error.retryable() => {
                    failures += 1;
                    work.control.note_error(&error);
                    tracing::warn!(subscription = %work.name, %error, "reading failed, trying again");
                }
                Some(Err(error)) => work.fail(error),
            }
        }
        work.finish(subscriber).await
    }
}

impl Work {
    /// The next deliveries. `None` if a stop or a pause came first.
    async fn read(
        &self,
        subscriber: &mut DynSubscriber,
        failures: u32,
    ) -> Option<crate::Result<Vec<Delivery>>> {
        let (shutdown, control) = (&self.shutdown, &self.control);
        let changed = control.changed();
        if control.is_paused() {
            control.note_idle(true);
            tokio::select! {
                () = changed => {}
                () = shutdown.requested() => {}
            }
            return None;
        }
        let most = self.settings.max_in_flight.min(MOST_EVENTS);
        let reading = async {
            if failures > 0 {
                sleep(backoff::reconnect(failures)).await;
            }
            subscriber.recv(most).await
        };
        tokio::select! {
            biased;
            () = shutdown.requested() => None,
            () = control.paused() => None,
            received = reading => Some(received),
        }
    }

    /// Handles deliveries and stores what comes of them.
    async fn step(&mut self, deliveries: Vec<Delivery>) {
        let control = Arc::clone(&self.control);
        self.counters.received(deliveries.len());
        let mut window = Window::new(&self.settings);
        window.received(deliveries.len());
        deliveries.iter().for_each(|it| window.hold(it));
        control.note_received(&self.transport, &deliveries);
        control.note_progress(&window);
        let decided = self.handle(&deliveries).await;
        // Only what no undecided event of its partition stands before may be stored.
        let (mut done, mut left, mut held) = (Vec::new(), Vec::new(), HashSet::new());
        for (delivery, decided) in deliveries.into_iter().zip(decided) {
            let source = delivery.token().source;
            match decided {
                Some(decided) if !held.contains(&source) => done.push((delivery, decided)),
                _ => {
                    held.insert(source);
                    left.push(delivery);
                }
            }
        }
        left.extend(self.commit(done).await);
        self.release(left).await;
        control.note_progress(&Window::new(&self.settings));
    }

    /// Handles deliveries. What has no outcome was not to be started, or is given up.
    async fn handle(&self, deliveries: &[Delivery]) -> Vec<Option<Decided>> {
        let decided: Vec<_> = deliveries.iter().map(|_| Mutex::new(None)).collect();
        let lanes = self.lanes(deliveries).into_iter().map(|lane| async {
            for index in lane {
                match self.decide(&deliveries[index]).await {
                    Some(outcome) => *locked(&decided[index]) = Some(outcome),
                    None => return,
                }
            }
        });
        let handling =
            stream::iter(lanes).for_each_concurrent(self.settings.concurrency, |lane| lane);
        tokio::select! {
            () = handling => {}
            () = self.shutdown.drain_expired() => {}
        }
        let decided = decided.into_iter();
        decided
            .map(|it| it.into_inner().unwrap_or_else(PoisonError::into_inner))
            .collect()
    }

    /// The deliveries, by their index, that are handled one after the other.
    fn lanes(&self, deliveries: &[Delivery]) -> Vec<Vec<usize>> {
        let mut lanes: Vec<Vec<usize>> = Vec::new();
        let mut of_key = HashMap::new();
        for (index, delivery) in deliveries.iter().enumerate() {
            let key = match self.settings.ordering {
                Ordering::Key => delivery.key().map(Cow::Borrowed),
                Ordering::Partition => {
                    let partition = delivery.position().partition();
                    Some(Cow::Owned(partition.to_string()))
                }
                Ordering::None => None,
            };
            let known = key.map(|key| of_key.entry((delivery.topic(), key)));
            match known {
                Some(entry) => {
                    let lane = *entry.or_insert(lanes.len());
                    if lane == lanes.len() {
                        lanes.push(Vec::new());
                    }
                    lanes[lane].push(index);
                }
                None => lanes.push(vec![index]),
            }
        }
        lanes
    }

    fn fail(&self, error: Error) {
        tracing::error!(subscription = %self.name, %error, "the subscription failed");
        self.control.note_error(&error);
        self.control.fail();
        locked(&self.error).get_or_insert(error);
        self.shutdown.request(DRAIN_AFTER_FAILURE);
    }

    /// Gives deliveries back to their group.
    async fn release(&mut self, deliveries: Vec<Delivery>) {
        if deliveries.is_empty() {
            return;
        }
        self.counters.released(deliveries.len());
        if self.shutdown.is_requested() {
            self.unfinished += deliveries.len();
        }
        for delivery in &deliveries {
            self.observe(delivery, delivery.attempt(), Progress::Released);
        }
        let released = deliveries
            .iter()
            .map(|it| (it.token(), Settlement::Release));
        let released: Vec<_> = released.collect();
        // What is not released here is so by leaving the group.
        tokio::select! {
            _ = self.settler.settle(&released) => {}
            () = self.time_is_up() => {}
        }
    }

    /// Waits for a stop, and until it must have ended.
    async fn time_is_up(&self) {
        self.shutdown.requested().await;
        sleep_until(self.shutdown.deadline()).await;
    }

    fn observe(&self, delivery: &Delivery, attempt: u32, progress: Progress) {
        tracing::debug!(subscription = %self.name, topic = %delivery.topic(),
            event_id = delivery.event().ok().map(crate::Event::id), attempt, outcome = progress.as_str(), "settled");
        if let Some(observer) = &self.observer {
            observer.observe(&Step {
                subscription: &self.name,
                transport: &self.transport,
                delivery,
                attempt,
                progress,
            });
        }
    }

    fn call(&self) -> CallInfo {
        let token = self.shutdown.token();
        let mut call = CallInfo::new(self.name.clone(), self.transport.clone(), token);
        call.migrations = self.handlers.migrations().cloned();
        call.validation.clone_from(&self.validation);
        call
    }

    /// Where the dead letters of a topic go, if anywhere.
    fn dead_letter_topic(&self, topic: &Topic) -> Option<Topic> {
        self.settings.dead_letter.topic(topic, &self.prefix)
    }

    async fn finish(self, subscriber: DynSubscriber) -> Finished {
        let deadline = self.shutdown.deadline();
        let closed = subscriber.close(deadline).await;
        let error = self.error.into_inner();
        Finished {
            counts: self.counters.snapshot(),
            unfinished: self.unfinished,
            error: error
                .unwrap_or_else(PoisonError::into_inner)
                .or(closed.err()),
        }
    }
}

impl fmt::Debug for ExactlyOnce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExactlyOnce")
            .field("name", &self.work.name)
            .field("group", &self.work.group)
            .finish_non_exhaustive()
    }
}

/// Nothing in here can be left half changed by a panic.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
