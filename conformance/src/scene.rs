//! What a case works with: names of its own, clients, steps that tell where it is.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use polybus_core::Topic;
use polybus_core::transport::{
    Admin, Capabilities, DynAdmin, DynTransport, RawRecord, Subscription, TopicSpec, Transport,
};
use tokio::time::Instant;

use crate::erased::ErasedHarness;
use crate::failure::{Check, Failure};
use crate::harness::{Fault, Tuning};
use crate::member::Member;
use crate::random::Random;
use crate::sender::Sender;

/// How many partitions a topic has whose events are to be shared out.
pub(crate) const PARTITIONS: u32 = 4;

/// The world of one case. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Scene(Arc<Inner>);

struct Inner {
    case: &'static str,
    run: Arc<str>,
    harness: Arc<dyn ErasedHarness>,
    capabilities: Capabilities,
    tuning: Tuning,
    random: Random,
    names: AtomicU32,
    steps: Mutex<BTreeMap<u64, (String, Instant)>>,
    next_step: AtomicU64,
    killed: AtomicBool,
    paused: AtomicBool,
}

/// A step that is under way until it is dropped.
pub(crate) struct Step {
    scene: Scene,
    number: u64,
}

/// A client of the server, as another process would have it.
#[derive(Clone)]
pub(crate) struct Client {
    transport: DynTransport,
    scene: Scene,
}

impl Scene {
    pub(crate) fn new(
        case: &'static str,
        run: Arc<str>,
        harness: Arc<dyn ErasedHarness>,
        capabilities: Capabilities,
        seed: u64,
    ) -> Self {
        let tuning = harness.tuning();
        Self(Arc::new(Inner {
            case,
            run,
            harness,
            capabilities,
            tuning,
            random: Random::new(seed),
            names: AtomicU32::new(0),
            steps: Mutex::default(),
            next_step: AtomicU64::new(0),
            killed: AtomicBool::new(false),
            paused: AtomicBool::new(false),
        }))
    }

    pub(crate) fn capabilities(&self) -> Capabilities {
        self.0.capabilities
    }

    pub(crate) fn tuning(&self) -> &Tuning {
        &self.0.tuning
    }

    pub(crate) fn random(&self) -> &Random {
        &self.0.random
    }

    pub(crate) fn harness(&self) -> &dyn ErasedHarness {
        &*self.0.harness
    }

    /// When a call that must come to an end has to be over.
    pub(crate) fn patience(&self) -> Instant {
        Instant::now() + self.0.tuning.patience
    }

    /// A name that nobody else uses.
    pub(crate) fn name(&self) -> String {
        let number = self.0.names.fetch_add(1, Ordering::Relaxed);
        format!("{}.{number}", self.namespace())
    }

    /// What all names of this case start with. Without `_`: some servers hold it equal to `.`.
    pub(crate) fn namespace(&self) -> String {
        format!(
            "conformance.{}.{}",
            self.0.run,
            self.0.case.replace('_', "-")
        )
    }

    /// Tells where the case is, until the step is dropped.
    pub(crate) fn step(&self, what: impl Display) -> Step {
        let number = self.0.next_step.fetch_add(1, Ordering::Relaxed);
        let mut steps = self.0.steps.lock().unwrap_or_else(PoisonError::into_inner);
        steps.insert(number, (what.to_string(), Instant::now()));
        Step {
            scene: self.clone(),
            number,
        }
    }

    /// The steps that are under way, oldest first.
    pub(crate) fn steps_under_way(&self) -> Vec<String> {
        let steps = self.0.steps.lock().unwrap_or_else(PoisonError::into_inner);
        let line = |(what, since): &(String, Instant)| {
            format!("{what} (for {:.1} s)", since.elapsed().as_secs_f32())
        };
        steps.values().map(line).collect()
    }

    pub(crate) async fn connect(&self) -> Check<Client> {
        let _step = self.step("connecting");
        let transport = self.0.harness.connect().await.map_err(Failure::new)?;
        Ok(Client {
            transport,
            scene: self.clone(),
        })
    }

    /// A new topic with one partition.
    pub(crate) async fn topic(&self) -> Check<Topic> {
        self.create(1).await
    }

    /// A new topic with several partitions, where there are any.
    pub(crate) async fn partitioned_topic(&self) -> Check<Topic> {
        self.create(PARTITIONS).await
    }

    /// Two new topics that are written in one step.
    pub(crate) async fn kindred_topics(&self) -> Check<[Topic; 2]> {
        let name = || {
            let family = self.namespace();
            self.0.harness.topic_name(&self.name(), &family)
        };
        let (one, other) = (name(), name());
        let one = self.create_named(&one, 1).await?;
        Ok([one, self.create_named(&other, PARTITIONS).await?])
    }

    async fn create(&self, partitions: u32) -> Check<Topic> {
        let name = self.name();
        self.create_named(&name, partitions).await
    }

    pub(crate) async fn create_named(&self, name: &str, partitions: u32) -> Check<Topic> {
        let _step = self.step(format_args!("creating topic `{name}`"));
        let client = self.connect().await?;
        client
            .admin()
            .ensure_topics(&[self.topic_spec(name, partitions)])
            .await?;
        Ok(self.named(name, partitions))
    }

    /// A topic by its name, with its number of partitions where they are named.
    pub(crate) fn named(&self, name: &str, partitions: u32) -> Topic {
        let topic = Topic::new(name);
        match self.0.harness.splits_topics() {
            true => topic.with_partitions(partitions),
            false => topic,
        }
    }

    pub(crate) fn topic_spec(&self, name: &str, partitions: u32) -> TopicSpec {
        let mut spec = TopicSpec::new(name);
        if self.0.capabilities.partitions {
            spec = spec.partitions(partitions);
        }
        self.0.harness.topic_spec(spec)
    }

    pub(crate) fn undecodable(&self) -> RawRecord {
        self.0.harness.undecodable()
    }

    pub(crate) async fn disrupt(&self, fault: Fault) -> Check {
        let _step = self.step(fault);
        self.note(fault);
        self.0.harness.disrupt(fault).await.map_err(Failure::new)
    }

    /// Gives the others their server back, whatever the case left undone.
    pub(crate) async fn recover(&self) -> Check {
        if self.0.paused.load(Ordering::SeqCst) {
            self.disrupt(Fault::Resume).await?;
        }
        if self.0.killed.load(Ordering::SeqCst) {
            self.disrupt(Fault::Restart).await?;
        }
        Ok(())
    }

    fn note(&self, fault: Fault) {
        match fault {
            Fault::Kill => self.0.killed.store(true, Ordering::SeqCst),
            Fault::Restart => self.0.killed.store(false, Ordering::SeqCst),
            Fault::Pause => self.0.paused.store(true, Ordering::SeqCst),
            Fault::Resume => self.0.paused.store(false, Ordering::SeqCst),
        }
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        let steps = &self.scene.0.steps;
        let mut steps = steps.lock().unwrap_or_else(PoisonError::into_inner);
        steps.remove(&self.number);
    }
}

impl Client {
    pub(crate) fn transport(&self) -> &DynTransport {
        &self.transport
    }

    pub(crate) fn admin(&self) -> DynAdmin {
        self.transport.admin()
    }

    pub(crate) async fn sender(&self) -> Check<Sender> {
        let _step = self.scene.step("making a publisher");
        Ok(Sender::new(
            self.transport.publisher().await?,
            self.scene.clone(),
        ))
    }

    /// Joins a group that reads from the beginning.
    pub(crate) async fn join(&self, group: &str, topics: &[Topic]) -> Check<Member> {
        self.subscribe(Subscription::new(group, topics.iter().cloned()))
            .await
    }

    /// Joins as a member whose events others may take over soon.
    pub(crate) async fn join_mortal(&self, group: &str, topics: &[Topic]) -> Check<Member> {
        let soon = self.scene.tuning().takeover_after;
        self.subscribe(Subscription::new(group, topics.iter().cloned()).takeover_after(soon))
            .await
    }

    pub(crate) async fn subscribe(&self, subscription: Subscription) -> Check<Member> {
        let group = subscription.group.clone();
        let _step = self.scene.step(format_args!("joining group `{group}`"));
        let subscriber = self.transport.subscribe(subscription).await?;
        Ok(Member::new(subscriber, self.scene.clone()))
    }
}

/// Asking again and again for something that can't be awaited, up to a deadline.
pub(crate) struct Asking {
    what: String,
    deadline: Instant,
    _step: Step,
}

impl Asking {
    /// Until `what` holds.
    pub(crate) fn until(scene: &Scene, what: impl Display) -> Self {
        let what = what.to_string();
        Self {
            deadline: scene.patience(),
            _step: scene.step(format_args!("waiting until {what}")),
            what,
        }
    }

    /// It does not hold yet, and this was found instead.
    pub(crate) async fn again(&mut self, found: String) -> Check {
        if Instant::now() > self.deadline {
            let what = &self.what;
            return Err(Failure::new(format!("never: {what}; at last {found}")));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
        Ok(())
    }
}
