//! Reading as a member of a group.

mod commits;
mod committer;
mod context;
pub(crate) mod decode;
mod handover;
mod member;
mod packed;
mod probation;
mod queue;
mod reading;
mod shared;
mod start;
mod steps;

use std::collections::VecDeque;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use polybus_core::transport::{Delivery, Subscriber, Subscription};
use polybus_core::{ErrorKind, Result, Text};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use self::member::Plan;
pub(crate) use self::packed::Packer;
pub(crate) use self::probation::Probation;
pub(crate) use self::shared::Shared;
use self::shared::{Limits, Received};
pub(crate) use self::start::offset_of;
pub(crate) use self::steps::Steps;
use crate::client;
use crate::config::KafkaConfig;
use crate::error::Origin;
use crate::ids::Ids;
use crate::settle::KafkaSettler;

/// How long a subscriber that is dropped, not closed, may take to leave its group.
const DROPPED_DEADLINE: Duration = Duration::from_secs(5);

/// How long a mark may hold up what is to be handed out, or leaving a group.
const MARKS_DEADLINE: Duration = Duration::from_secs(2);

/// Reads as one member of a group.
///
/// A thread of its own polls the client, keeps the membership alive and reads ahead, up to
/// `buffer_events` and `buffer_bytes`. When partitions are handed over to another member, what
/// was received and not taken by `recv` is dropped, what was delivered is waited for up to
/// `drain_deadline`, and what is settled by then is committed.
///
/// Dropping it is a crash that is noticed at once: the member leaves the group, what was settled
/// is committed, everything else is delivered again.
#[derive(Debug)]
pub struct KafkaSubscriber {
    shared: Arc<Shared>,
    origin: Origin,
    probation: Probation,
    /// Received, and not handed out yet.
    received: VecDeque<Delivery>,
    left: Option<oneshot::Receiver<Result<()>>>,
    ended: Option<oneshot::Receiver<()>>,
    /// For a subscription that is exactly-once.
    steps: Option<Arc<Steps>>,
}

impl KafkaSubscriber {
    /// Joins a group, on a thread made for it.
    pub(crate) async fn join(
        config: Arc<KafkaConfig>,
        client_id: &Text,
        origin: Origin,
        subscription: Subscription,
        ids: &Arc<Ids>,
    ) -> Result<Self> {
        if subscription.topics.is_empty() && subscription.patterns.is_empty() {
            let why = "a subscription names at least one topic or pattern";
            return Err(origin.error("subscribe", ErrorKind::Config, why));
        }
        let shared = Arc::new(Shared::new(Limits {
            events: config.buffer_events,
            bytes: config.buffer_bytes,
            unsettled: config.unsettled_limit,
        }));
        let (name, instance) = names(&config, client_id, &subscription, &origin)?;
        let steps = match subscription.exactly_once {
            true => {
                let id = ids.take(&subscription.group);
                let client = client::transactional(&config, client_id, &id.to_string());
                let deadline = Instant::now() + config.connect_deadline;
                let (shared, lasts) = (Arc::clone(&shared), config.delivery_deadline);
                let steps = Steps::new(shared, origin.clone(), client, lasts, id, deadline);
                Some(Arc::new(steps.await?))
            }
            false => None,
        };
        let marks = client::marking(&config, &name, &subscription.group);
        let within = config.operation_deadline.min(MARKS_DEADLINE);
        let probation = Probation::new(marks, origin.clone(), within);
        let plan = Plan {
            client: client::member(&config, &name, &subscription.group, instance.as_ref()),
            config,
            origin: origin.clone(),
            subscription,
            shared: Arc::clone(&shared),
            probation: probation.clone(),
        };
        let (joined_sender, joined) = oneshot::channel();
        let (left_sender, left) = oneshot::channel();
        let (ended_sender, ended) = oneshot::channel();
        // From here on dropping it, as by dropping this future, tells the thread to leave.
        let subscriber = Self {
            shared,
            origin,
            probation,
            received: VecDeque::new(),
            left: Some(left),
            ended: Some(ended),
            steps,
        };
        let thread = thread::Builder::new().name("polybus-kafka-read".to_owned());
        let spawned = thread.spawn(move || {
            member::run(plan, joined_sender, left_sender);
            let _ = ended_sender.send(());
        });
        let origin = &subscriber.origin;
        let failed = || origin.error("subscribe", ErrorKind::Transport, "no thread could be made");
        spawned.map_err(|error| failed().with_source(error))?;
        match joined.await {
            Ok(joined) => joined.map(|()| subscriber),
            Err(_) => Err(subscriber.ended("subscribe")),
        }
    }

    fn ended(&self, operation: &'static str) -> polybus_core::Error {
        self.origin.error(
            operation,
            ErrorKind::Closed,
            "the subscriber has ended; an earlier error says why",
        )
    }
}

/// The name of the member, and that by which it keeps its place if it does.
fn names(
    config: &KafkaConfig,
    client_id: &Text,
    subscription: &Subscription,
    origin: &Origin,
) -> Result<(Text, Option<Text>)> {
    let member = subscription.member.as_ref().or(config.member.as_ref());
    let instance = member.filter(|_| config.static_membership);
    if config.static_membership && instance.is_none() {
        let why = "`static_membership` needs the name of the member";
        let error = origin.error("subscribe", ErrorKind::Config, why);
        return Err(error.with_note("set `member` of the transport, another for each process"));
    }
    Ok((member.unwrap_or(client_id).clone(), instance.cloned()))
}

impl Subscriber for KafkaSubscriber {
    type Settler = KafkaSettler;

    async fn recv(&mut self, max: usize) -> Result<Vec<Delivery>> {
        loop {
            if !self.received.is_empty() {
                // They stay until they are handed out: a dropped call loses none.
                self.probation.admit(&self.received).await;
                let count = max.clamp(1, self.received.len());
                let handed = self.received.drain(..count);
                return Ok(handed.map(|it| self.probation.told(it)).collect());
            }
            let arrived = self.shared.arrived.notified();
            match self.shared.receive(max) {
                Received::Records(records) => {
                    let records = records.into_iter();
                    let deliveries: Vec<_> = records
                        .map(|(topic, record)| decode::delivery(&record, topic, &self.origin))
                        .collect();
                    if self.probation.covers(&deliveries) {
                        return Ok(deliveries);
                    }
                    self.received.extend(deliveries);
                }
                Received::Error(error) => return Err(error),
                Received::Ended => return Err(self.ended("recv")),
                Received::Nothing => arrived.await,
            }
        }
    }

    fn settler(&self) -> KafkaSettler {
        let (shared, probation) = (Arc::clone(&self.shared), self.probation.clone());
        KafkaSettler::new(shared, probation, self.origin.clone(), self.steps.clone())
    }

    async fn close(mut self, deadline: Instant) -> Result<()> {
        // While the partitions are still this member's: the next one has marks of its own. Without
        // an answer they stay, which costs the next one some care and nothing else.
        let soon = deadline.min(Instant::now() + MARKS_DEADLINE);
        let _ = timeout_at(soon, self.probation.leave(&self.shared)).await;
        self.shared.order_to_leave(deadline.into_std());
        let (Some(left), Some(ended)) = (self.left.take(), self.ended.take()) else {
            return Ok(());
        };
        // The thread keeps the deadline too; a client that hangs is not waited for.
        let left = timeout_at(deadline, left).await;
        let result = match left {
            Ok(Ok(result)) => result.map_err(|error| error.with_operation("close")),
            // It had ended before, by an error that `recv` reported.
            Ok(Err(_)) => Ok(()),
            Err(_) => Err(self.origin.error(
                "close",
                ErrorKind::Timeout,
                "the server did not take the settlements before the deadline",
            )),
        };
        if timeout_at(deadline, ended).await.is_err() {
            tracing::warn!("the client's threads are still being taken down");
        }
        result
    }
}

impl Drop for KafkaSubscriber {
    fn drop(&mut self) {
        let deadline = std::time::Instant::now() + DROPPED_DEADLINE;
        self.shared.order_to_leave(deadline);
        self.probation.end();
    }
}
