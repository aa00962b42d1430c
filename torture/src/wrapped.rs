//! A transport within another: it tells what is settled, ends the process at crash points, and breaks
//! promises where it is told to.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use polybus::idempotency::{Claim, Claimed, IdempotencyStore};
use polybus::transport::{
    AckToken, Capabilities, Delivery, DynAdmin, DynPublisher, DynSettler, DynSubscriber,
    DynTransport, Outcome, Outgoing, Position, Publisher, Settlement, Settler, Start, Subscriber,
    Subscription, Transport, TransportConfig, TransportFactory,
};
use polybus::{Error, ErrorKind, Result, Topic};
use tokio::time::{Duration, Instant, sleep};

use crate::consumer::Crash;
use crate::journal::{Journal, Step};
use crate::server::stream_name;
use crate::task::{CrashPoint, Kind, Mutant, Task};

/// How long a mutant that stores later waits.
const LATER: Duration = Duration::from_secs(5);

/// For how long a mutant marks.
const MARKED_FOR: Duration = Duration::from_secs(3_600);

/// One event in so many is what a mutant errs with.
const ERRS_EVERY: u64 = 97;

/// After so many deliveries a mutant gives no more.
const FALLS_ASLEEP_AFTER: u64 = 1_000;

/// Makes the transport of a task.
#[derive(Debug, Clone)]
pub(crate) struct Wrapped {
    task: Arc<Task>,
    kind: Kind,
}

#[derive(Debug)]
struct Wrapping {
    inner: DynTransport,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct WrappedPublisher {
    inner: DynPublisher,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct WrappedSubscriber {
    inner: DynSubscriber,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct WrappedSettler {
    inner: DynSettler,
    shared: Arc<Shared>,
}

struct WrappedStore {
    inner: Arc<dyn IdempotencyStore>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    task: Arc<Task>,
    journal: Journal,
    crash: Crash,
    /// The ids of what was delivered and is not settled.
    open: Mutex<HashMap<AckToken, String>>,
    /// A dead letter was published by this process.
    put_away: AtomicBool,
    counted: AtomicU64,
}

impl Wrapped {
    /// The transport of a kind that a task has: its own, or the one that keeps what was handled.
    pub(crate) fn new(task: &Task, kind: Kind) -> Self {
        Self {
            task: Arc::new(task.clone()),
            kind,
        }
    }
}

#[async_trait]
impl TransportFactory for Wrapped {
    fn kind(&self) -> &str {
        match self.kind {
            Kind::Kafka => "kafka",
            Kind::Redis => "redis-streams",
        }
    }

    async fn connect(&self, config: TransportConfig) -> Result<DynTransport> {
        let inner = match self.kind {
            Kind::Kafka => polybus::kafka::KafkaFactory::new().connect(config).await?,
            Kind::Redis => polybus::redis_streams::RedisFactory.connect(config).await?,
        };
        let journal = Journal::open(&self.task.directory, &self.task.journal("settled"))
            .map_err(|error| Error::new(ErrorKind::Config, error.to_string()))?;
        let shared = Arc::new(Shared {
            task: Arc::clone(&self.task),
            journal,
            crash: Crash::new(self.task.crash),
            open: Mutex::default(),
            put_away: AtomicBool::new(false),
            counted: AtomicU64::new(0),
        });
        Ok(DynTransport::new(Wrapping { inner, shared }))
    }
}

impl Shared {
    fn is(&self, mutant: Mutant) -> bool {
        self.task.mutant == Some(mutant)
    }

    /// Whether the mutant errs with the next one.
    fn errs(&self, mutant: Mutant) -> bool {
        self.is(mutant)
            && self.counted.fetch_add(1, Ordering::Relaxed) % ERRS_EVERY == ERRS_EVERY - 1
    }

    fn received(&self, deliveries: &[Delivery]) {
        let mut open = self.open();
        for delivery in deliveries {
            let id = delivery.event().map_or("?", |event| event.id());
            open.insert(delivery.token(), id.to_owned());
        }
    }

    fn acknowledged(&self, token: AckToken) {
        let id = self.open().remove(&token);
        if let Some(id) = id {
            self.journal.note(Step::Ack { id });
        }
    }

    fn open(&self) -> MutexGuard<'_, HashMap<AckToken, String>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Transport for Wrapping {
    type Publisher = WrappedPublisher;
    type Subscriber = WrappedSubscriber;
    type Admin = DynAdmin;

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    async fn publisher(&self) -> Result<WrappedPublisher> {
        Ok(WrappedPublisher {
            inner: self.inner.publisher().await?,
            shared: Arc::clone(&self.shared),
        })
    }

    async fn subscribe(&self, mut subscription: Subscription) -> Result<WrappedSubscriber> {
        if self.shared.is(Mutant::GroupAtNow) {
            subscription.start = Start::Now;
        }
        if self.shared.is(Mutant::DeleteConsumer) {
            delete_consumers(&self.shared.task).await;
        }
        if self.shared.is(Mutant::NoLease) {
            subscription.topics = unleased(&subscription.topics);
        }
        Ok(WrappedSubscriber {
            inner: self.inner.subscribe(subscription).await?,
            shared: Arc::clone(&self.shared),
        })
    }

    fn admin(&self) -> DynAdmin {
        self.inner.admin()
    }

    fn idempotency(&self) -> Option<Arc<dyn IdempotencyStore>> {
        let store = WrappedStore {
            inner: self.inner.idempotency()?,
            shared: Arc::clone(&self.shared),
        };
        Some(Arc::new(store))
    }
}

#[async_trait]
impl IdempotencyStore for WrappedStore {
    async fn claim(&self, claims: &[Claim], lease: Duration) -> Result<Vec<Claimed>> {
        let claimed = self.inner.claim(claims, lease).await?;
        if self.shared.is(Mutant::MarkBeforeSuccess) {
            self.inner.complete(claims, MARKED_FOR).await?;
        }
        Ok(claimed)
    }

    async fn renew(&self, claims: &[Claim], lease: Duration) -> Result<Vec<bool>> {
        self.inner.renew(claims, lease).await
    }

    async fn complete(&self, claims: &[Claim], retain: Duration) -> Result<Vec<bool>> {
        let retain = match self.shared.is(Mutant::ForgetMarks) {
            true => Duration::from_millis(1),
            false => retain,
        };
        let completed = self.inner.complete(claims, retain).await?;
        for (claim, _) in claims.iter().zip(&completed).filter(|(_, done)| **done) {
            // A key ends with the id.
            let id = claim.key.rsplit(':').next().unwrap_or_default().to_owned();
            self.shared.journal.note(Step::Marked { id });
        }
        Ok(completed)
    }

    async fn release(&self, claims: &[Claim]) -> Result<Vec<bool>> {
        self.inner.release(claims).await
    }
}

impl Publisher for WrappedPublisher {
    async fn publish(&self, batch: &[Outgoing]) -> Vec<Outcome> {
        let topic = &self.shared.task.topic;
        let dead_letters = batch.iter().any(|it| it.topic.name() != topic);
        let later = match dead_letters {
            true => self.shared.is(Mutant::AckBeforeDeadLetter),
            false => self.shared.is(Mutant::AcceptBeforeStored),
        };
        if later {
            let (inner, batch) = (self.inner.clone(), batch.to_vec());
            let count = batch.len();
            tokio::spawn(async move {
                sleep(LATER).await;
                drop(inner.publish(&batch).await);
            });
            return (0..count)
                .map(|_| Outcome::Accepted(Position::new(0, 0)))
                .collect();
        }
        let outcomes = self.inner.publish(batch).await;
        if dead_letters && outcomes.iter().any(Outcome::is_accepted) {
            self.shared.put_away.store(true, Ordering::Release);
        }
        let lie = |outcome: Outcome| match self.shared.errs(Mutant::RejectStored) {
            true => Outcome::Rejected(Error::new(ErrorKind::Unsupported, "a lie")),
            false => outcome,
        };
        outcomes.into_iter().map(lie).collect()
    }

    async fn publish_together(&self, batch: &[Outgoing]) -> Result<Vec<Position>> {
        self.inner.publish_together(batch).await
    }

    async fn flush(&self, deadline: Instant) -> Result<()> {
        self.inner.flush(deadline).await
    }

    async fn close(&self, deadline: Instant) -> Result<()> {
        self.inner.close(deadline).await
    }
}

impl Subscriber for WrappedSubscriber {
    type Settler = WrappedSettler;

    async fn recv(&mut self, max: usize) -> Result<Vec<Delivery>> {
        if self.shared.is(Mutant::LostWakeUp)
            && self.shared.counted.load(Ordering::Acquire) > FALLS_ASLEEP_AFTER
        {
            return std::future::pending().await;
        }
        let mut deliveries = self.inner.recv(max).await?;
        if self.shared.is(Mutant::LostWakeUp) {
            let count = deliveries.len() as u64;
            self.shared.counted.fetch_add(count, Ordering::AcqRel);
        }
        self.shared.received(&deliveries);
        self.mutate(&mut deliveries).await;
        Ok(deliveries)
    }

    fn settler(&self) -> WrappedSettler {
        WrappedSettler {
            inner: self.inner.settler(),
            shared: Arc::clone(&self.shared),
        }
    }

    async fn close(self, deadline: Instant) -> Result<()> {
        self.inner.close(deadline).await
    }
}

impl WrappedSubscriber {
    async fn mutate(&mut self, deliveries: &mut Vec<Delivery>) {
        let shared = &self.shared;
        if shared.is(Mutant::CommitBeforeProcessing) {
            let all: Vec<_> = deliveries.iter().map(acked).collect();
            drop(self.inner.settler().settle(&all).await);
        }
        if shared.is(Mutant::NoEpoch) {
            // So many were settled of an ownership that was over.
            let late = shared.counted.swap(0, Ordering::AcqRel) as usize;
            let taken: Vec<_> = deliveries.iter().rev().take(late).map(acked).collect();
            drop(self.inner.settler().settle(&taken).await);
            let mut open = shared.open();
            for (token, _) in taken {
                open.remove(&token);
            }
        }
        if shared.is(Mutant::Reorder) {
            deliveries.reverse();
        }
        if shared.is(Mutant::DeliverTwice) {
            let again = deliveries.iter().filter_map(|it| {
                let event = it.event().ok()?.clone();
                let again = Delivery::new(it.token(), it.topic().clone(), it.position(), event);
                shared.errs(Mutant::DeliverTwice).then_some(again)
            });
            let again: Vec<_> = again.collect();
            deliveries.extend(again);
        }
        if shared.is(Mutant::DropSome) {
            let dropped: Vec<_> = deliveries
                .extract_if(.., |_| shared.errs(Mutant::DropSome))
                .map(|it| acked(&it))
                .collect();
            drop(self.inner.settler().settle(&dropped).await);
        }
    }
}

fn acked(delivery: &Delivery) -> (AckToken, Settlement) {
    (delivery.token(), Settlement::Ack)
}

impl Settler for WrappedSettler {
    async fn settle(&self, batch: &[(AckToken, Settlement)]) -> Vec<Result<()>> {
        let shared = &self.shared;
        shared.crash.pass(CrashPoint::BeforeAck);
        if shared.put_away.load(Ordering::Acquire) {
            shared.crash.pass(CrashPoint::DeadLetter);
        }
        let mut settled = batch.to_vec();
        if shared.is(Mutant::NoEpoch) {
            let open = shared.open();
            let late = batch.iter().map(|(token, _)| token);
            let late = late.filter(|it| open.contains_key(it) && !self.inner.is_current(**it));
            shared
                .counted
                .fetch_add(late.count() as u64, Ordering::AcqRel);
        }
        if shared.is(Mutant::ReleaseIsAck) {
            settled.iter_mut().for_each(|(_, it)| *it = Settlement::Ack);
        }
        if shared.is(Mutant::CommitHighestSeen) {
            let open: Vec<_> = shared.open().keys().copied().collect();
            settled.extend(open.into_iter().map(|token| (token, Settlement::Ack)));
        }
        let forgotten = settled.iter().any(|_| shared.errs(Mutant::ForgetAck));
        let mut results = match forgotten || shared.is(Mutant::CommitBeforeProcessing) {
            true => settled.iter().map(|_| Ok(())).collect(),
            false => self.inner.settle(&settled).await,
        };
        results.truncate(batch.len());
        for ((token, settlement), result) in batch.iter().zip(&results) {
            if *settlement == Settlement::Ack && result.is_ok() {
                shared.acknowledged(*token);
            } else {
                shared.open().remove(token);
            }
        }
        shared.crash.pass(CrashPoint::AfterAck);
        results
    }

    async fn settle_together(
        &self,
        acks: &[AckToken],
        batch: &[Outgoing],
    ) -> Result<Vec<Position>> {
        let shared = &self.shared;
        shared.crash.pass(CrashPoint::BeforeAck);
        let positions = self.inner.settle_together(acks, batch).await?;
        for token in acks {
            shared.acknowledged(*token);
        }
        shared.crash.pass(CrashPoint::AfterAck);
        Ok(positions)
    }

    async fn forward(&self, batch: &[(AckToken, Outgoing)]) -> Vec<Result<()>> {
        let shared = &self.shared;
        if shared.is(Mutant::AckBeforeDeadLetter) {
            // So that it can do the one before the other.
            let refused = |_| Err(Error::new(ErrorKind::Unsupported, "not in one step"));
            return batch.iter().map(refused).collect();
        }
        let results = self.inner.forward(batch).await;
        for ((token, _), result) in batch.iter().zip(&results) {
            if result.is_ok() {
                shared.acknowledged(*token);
                shared.put_away.store(true, Ordering::Release);
            }
        }
        if shared.put_away.load(Ordering::Acquire) {
            shared.crash.pass(CrashPoint::DeadLetter);
        }
        results
    }

    async fn begin(&self, token: AckToken) -> Result<u32> {
        self.inner.begin(token).await
    }

    fn is_current(&self, token: AckToken) -> bool {
        let shared = &self.shared;
        // What was acknowledged too early would be taken for somebody else's by now.
        shared.is(Mutant::CommitBeforeProcessing)
            || shared.is(Mutant::NoEpoch)
            || self.inner.is_current(token)
    }
}

/// The streams of partitioned topics, as if they were topics of their own.
fn unleased(topics: &[Topic]) -> Vec<Topic> {
    let streams = |topic: &Topic| {
        let name = topic.name().to_owned();
        (0..topic.partitions().unwrap_or(0)).map(move |it| stream_name(&name, it).into())
    };
    topics.iter().flat_map(streams).collect()
}

/// Throws away what other members of the group have in hand.
async fn delete_consumers(task: &Task) {
    let delete = async {
        let client = redis::Client::open(format!("redis://{}", task.direct))?;
        let mut connection = client.get_multiplexed_async_connection().await?;
        let consumers: Vec<HashMap<String, redis::Value>> = redis::cmd("XINFO")
            .arg(&["CONSUMERS", &task.topic, "torture"])
            .query_async(&mut connection)
            .await?;
        for consumer in consumers {
            let name: String = redis::from_redis_value_ref(&consumer["name"])?;
            redis::cmd("XGROUP")
                .arg(&["DELCONSUMER", &task.topic, "torture", &name])
                .exec_async(&mut connection)
                .await?;
        }
        Ok::<_, redis::RedisError>(())
    };
    if let Err(error) = delete.await {
        eprintln!("delete-consumer: {error}");
    }
}
