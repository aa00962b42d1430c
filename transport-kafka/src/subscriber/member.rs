//! The thread of a subscriber: the only one that polls the client.
//!
//! What the client reads ahead comes to a queue of its own. The thread empties it, by batches, into
//! the subscriber's queue as long as that has room, and polls the client's main queue always: so a
//! reader that pauses holds up neither the heartbeat nor a rebalance, and nothing has to be
//! paused in the client, which would throw away what it has read ahead.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use polybus_core::topic::TopicPattern;
use polybus_core::transport::Subscription;
use polybus_core::{Error, ErrorKind, Result};
use rdkafka::ClientConfig;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use tokio::sync::oneshot;

use super::committer::Committer;
use super::context::Events;
use super::handover::{Handover, Unwritten};
use super::packed::{Packed, Packer};
use super::probation::Probation;
use super::queue::Queue;
use super::reading::Owned;
use super::shared::{Orders, Shared};
use super::start;
use crate::asking::Partition;
use crate::client;
use crate::config::KafkaConfig;
use crate::error::{Origin, is_stale};

/// The longest the thread sleeps. Whatever there is to do wakes it; this bounds what a lost
/// wake-up could cost.
pub(super) const LONGEST_SLEEP: Duration = Duration::from_millis(100);

/// How long to wait for a share that may be empty without a word. A member gets what is free
/// with the group's first answer, some milliseconds after it asked.
const SILENT_SHARE: Duration = Duration::from_secs(2);

/// How long the thread waits for the client at a time while it leaves the group.
pub(super) const LEAVING_POLL: Duration = Duration::from_millis(20);

/// How long leaving the group may take where nobody said: after a failure, or if the subscriber
/// was dropped.
const LEAVING_DEADLINE: Duration = Duration::from_secs(5);

/// What a member is made of.
pub(super) struct Plan {
    pub(super) config: Arc<KafkaConfig>,
    pub(super) client: ClientConfig,
    pub(super) origin: Origin,
    pub(super) subscription: Subscription,
    pub(super) shared: Arc<Shared>,
    pub(super) probation: Probation,
}

/// A member of a group.
pub(super) struct Member {
    // Both keep the client, as their records need it; it goes last, on this thread.
    pub(super) owned: Vec<Owned>,
    pub(super) queue: Queue,
    pub(super) consumer: Arc<BaseConsumer<Events>>,
    pub(super) plan: Plan,
    /// The partitions that there were when the group was joined.
    pub(super) subscribed: HashSet<Partition>,
    pub(super) handover: Option<Handover>,
    pub(super) unwritten: HashMap<Partition, Unwritten>,
    /// Something that was done was lost to another member, which does it again.
    pub(super) repeated: bool,
    pub(super) committer: Committer,
    pub(super) next_commit: Instant,
    /// How often the group has given a share of the partitions.
    pub(super) shares: u64,
    /// Nothing is waited for any more but what the server is told.
    pub(super) leaving: bool,
    /// Ends the member.
    pub(super) failure: Option<Error>,
    pub(super) brokers_away: bool,
    pub(super) missing_since: Option<Instant>,
    /// When the queue is looked into, whatever the client said of it.
    pub(super) next_look: Instant,
    pub(super) packer: Packer,
    pub(super) batch: Vec<Packed>,
}

/// Runs a member: joins, says so, reads until told to leave, leaves and says so.
pub(super) fn run(
    plan: Plan,
    joined: oneshot::Sender<Result<()>>,
    left: oneshot::Sender<Result<()>>,
) {
    let shared = Arc::clone(&plan.shared);
    shared.adopt_thread();
    // Also when this thread panics.
    let _end = EndOnDrop(Arc::clone(&shared));
    let mut member = match Member::new(plan) {
        Ok(member) => member,
        Err(error) => {
            let _ = joined.send(Err(error));
            return;
        }
    };
    let result = member.join();
    let is_member = result.is_ok();
    // If nobody waits any more the orders are to leave.
    let _ = joined.send(result);
    if is_member {
        member.read_until_told();
    }
    if let Some(error) = member.failure.take() {
        shared.report(error);
    }
    let deadline = match shared.orders() {
        Orders::Leave(deadline) => deadline,
        Orders::Read => Instant::now() + LEAVING_DEADLINE,
    };
    // `recv` is not to wait any longer, while taking the client down may take its time.
    let result = member.leave(deadline);
    shared.end();
    let _ = left.send(result.map_err(|code| member.plan.origin.code("close", code)));
}

struct EndOnDrop(Arc<Shared>);

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        self.0.end();
    }
}

impl Member {
    fn new(plan: Plan) -> Result<Self> {
        let mut consumer = BaseConsumer::from_config_and_context(&plan.client, Events::default())
            .map_err(|error| plan.origin.client("subscribe", error))?;
        let shared = Arc::clone(&plan.shared);
        consumer.set_nonempty_callback(move || shared.wake_thread());
        let consumer = Arc::new(consumer);
        plan.shared.adopt_consumer(Arc::downgrade(&consumer));
        let committer = Committer::new(Arc::clone(&consumer), Arc::clone(&plan.shared));
        let committer = committer.map_err(|error| {
            let why = "no thread could be made";
            let failed = plan.origin.error("subscribe", ErrorKind::Transport, why);
            failed.with_source(error)
        })?;
        let next_commit = Instant::now() + plan.config.commit_interval;
        Ok(Self {
            owned: Vec::new(),
            queue: Queue::new(&consumer, &plan.shared),
            consumer,
            plan,
            subscribed: HashSet::new(),
            handover: None,
            unwritten: HashMap::new(),
            repeated: false,
            committer,
            next_commit,
            shares: 0,
            leaving: false,
            failure: None,
            brokers_away: false,
            missing_since: None,
            next_look: Instant::now(),
            packer: Packer::default(),
            batch: Vec::new(),
        })
    }

    /// Settles the group's position, joins it and waits for a share of the partitions.
    fn join(&mut self) -> Result<()> {
        let Plan {
            config,
            origin,
            subscription,
            ..
        } = &self.plan;
        let (within, origin) = (config.connect_deadline, origin.clone());
        let partitions = start::partitions(&self.consumer, subscription, within, &origin)?;
        let topics = subscription.topics.iter().map(|t| t.name().to_owned());
        let patterns = subscription.patterns.iter().map(TopicPattern::to_regex);
        let names: Vec<String> = topics.chain(patterns).collect();
        let deadline = Instant::now() + config.join_deadline;
        self.subscribed = partitions.iter().cloned().collect();
        let is_settled = self.settle_start(&partitions, deadline)?;
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        self.consumer
            .subscribe(&names)
            .map_err(|error| origin.client("subscribe", error))?;
        match partitions.is_empty() {
            // Nothing to share out: the group answers when a topic appears.
            true => Ok(()),
            false => self.wait_for_share(is_settled, deadline),
        }
    }

    /// Waits until the group has given a share, which may be empty. In the broker-side protocol
    /// an empty one is not told of.
    fn wait_for_share(&mut self, is_settled: bool, deadline: Instant) -> Result<()> {
        let origin = self.plan.origin.clone();
        let may_be_silent = is_settled && client::is_broker_side(&self.plan.config);
        let until = match may_be_silent {
            true => deadline.min(Instant::now() + SILENT_SHARE),
            false => deadline,
        };
        while self.shares == 0 {
            if self.plan.shared.orders() != Orders::Read {
                return Err(origin.error("subscribe", ErrorKind::Closed, "given up"));
            }
            self.serve();
            if let Some(error) = self.failure.take() {
                return Err(error.with_operation("subscribe"));
            }
            if Instant::now() >= until {
                let why = "the group did not let the member in before `join_deadline`";
                return match may_be_silent {
                    true => Ok(()),
                    false => Err(origin.error("subscribe", ErrorKind::Timeout, why)),
                };
            }
            if self.shares == 0 {
                thread::park_timeout(LONGEST_SLEEP);
            }
        }
        Ok(())
    }

    /// Settles the group's position before anybody is a member: later only members may. Returns
    /// whether it could; where there are members it is settled with what the group gives this
    /// one.
    fn settle_start(&mut self, partitions: &[Partition], deadline: Instant) -> Result<bool> {
        let failed = |own: &Self, error| own.plan.origin.client("subscribe", error);
        let left = deadline.saturating_duration_since(Instant::now());
        let start = self.plan.subscription.start;
        let positions = start::positions(&self.consumer, partitions, start, |_| true, left)
            .map_err(|error| failed(self, error))?;
        match self.commit_start(&positions.new, deadline) {
            Ok(()) => Ok(true),
            Err(code) if is_stale(code) => Ok(false),
            Err(code) => Err(self.plan.origin.code("subscribe", code)),
        }
    }

    fn read_until_told(&mut self) {
        while self.plan.shared.orders() == Orders::Read && self.failure.is_none() {
            self.serve();
            let read_some = self.read();
            self.commit_if_due();
            if !read_some {
                // The committer's answer wakes the thread.
                let until_commit = match self.committer.is_busy {
                    true => LONGEST_SLEEP,
                    false => self.next_commit.saturating_duration_since(Instant::now()),
                };
                thread::park_timeout(until_commit.min(LONGEST_SLEEP));
            }
        }
    }

    /// Polls the main queue, and does what follows from what the client tells.
    pub(super) fn serve(&mut self) {
        self.poll_main();
        // A failure is logged; the interval's next commit tries again.
        let _ = self.take_commit_answer();
        self.hand_over_if_drained();
        while self.handover.is_none()
            && let Some(rebalance) = self.consumer.context().next_rebalance()
        {
            self.rebalance(rebalance);
        }
    }

    /// Takes everything from the main queue: rebalances and errors.
    pub(super) fn poll_main(&mut self) {
        let consumer = Arc::clone(&self.consumer);
        loop {
            let told = consumer.context().told();
            match consumer.poll(Duration::ZERO) {
                Some(Ok(message)) => self.take(&message),
                Some(Err(error)) => self.fail(&error),
                None if consumer.context().told() == told => break,
                None => {}
            }
        }
        self.plan.shared.push(&mut self.batch);
    }
}
