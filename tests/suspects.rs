//! What may have ended the process of a member that had it, in memory: it runs alone and noted, and
//! becomes a dead letter if it was noted before.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use polybus::memory::MemoryTransport;
use polybus::transport::{
    AckToken, Admin, Capabilities, Delivery, DynAdmin, DynPublisher, DynSettler, DynSubscriber,
    DynTransport, Settlement, Settler, Subscriber, Subscription as Membership, Transport,
    TransportConfig, TransportFactory,
};
use polybus::{
    Batch, Bus, Config, Context, Event, FailureKind, Payload, RawEvent, Result, State, Topic,
};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep};

/// How many starts were noted, by offset.
type Starts = Arc<Mutex<HashMap<u64, u32>>>;

/// Memory that notes starts, as a server does.
#[derive(Clone)]
struct Noting {
    inner: DynTransport,
    starts: Starts,
    /// As a server that knows only positions.
    counts_nothing: bool,
}

struct NotingSubscriber {
    inner: DynSubscriber,
    starts: Starts,
}

struct NotingSettler {
    inner: DynSettler,
    starts: Starts,
}

impl Transport for Noting {
    type Publisher = DynPublisher;
    type Subscriber = NotingSubscriber;
    type Admin = DynAdmin;

    fn capabilities(&self) -> Capabilities {
        let mut capabilities = self.inner.capabilities().with_begin();
        capabilities.delivery_count = !self.counts_nothing;
        capabilities
    }

    async fn publisher(&self) -> Result<DynPublisher> {
        self.inner.publisher().await
    }

    async fn subscribe(&self, membership: Membership) -> Result<NotingSubscriber> {
        Ok(NotingSubscriber {
            inner: self.inner.subscribe(membership).await?,
            starts: self.starts.clone(),
        })
    }

    fn admin(&self) -> DynAdmin {
        self.inner.admin()
    }
}

impl Subscriber for NotingSubscriber {
    type Settler = NotingSettler;

    async fn recv(&mut self, max: usize) -> Result<Vec<Delivery>> {
        self.inner.recv(max).await
    }

    fn settler(&self) -> NotingSettler {
        NotingSettler {
            inner: self.inner.settler(),
            starts: self.starts.clone(),
        }
    }

    async fn close(self, deadline: Instant) -> Result<()> {
        self.inner.close(deadline).await
    }
}

impl Settler for NotingSettler {
    async fn settle(&self, batch: &[(AckToken, Settlement)]) -> Vec<Result<()>> {
        self.inner.settle(batch).await
    }

    async fn forward(&self, batch: &[(AckToken, polybus::transport::Outgoing)]) -> Vec<Result<()>> {
        self.inner.forward(batch).await
    }

    fn is_current(&self, token: AckToken) -> bool {
        self.inner.is_current(token)
    }

    async fn begin(&self, token: AckToken) -> Result<u32> {
        tokio::task::yield_now().await;
        let mut starts = self.starts.lock().unwrap();
        let noted = starts.entry(token.id[0]).or_default();
        *noted += 1;
        Ok(*noted - 1)
    }
}

struct Factory(Noting);

#[async_trait]
impl TransportFactory for Factory {
    fn kind(&self) -> &str {
        "noting"
    }

    async fn connect(&self, _: TransportConfig) -> Result<DynTransport> {
        Ok(DynTransport::new(self.0.clone()))
    }
}

#[derive(Event, Serialize, Deserialize)]
#[event(type = "work.todo")]
struct Work {}

const EVENTS: u64 = 6;

/// A bus on which all events were with two members that died, and the second one was noted as at
/// work when one of them did.
async fn after_crashes() -> (Bus, Noting) {
    let (bus, noting) = noting_bus(false, "").await;
    for number in 0..EVENTS {
        let event = Event::builder("work.todo").id(number.to_string());
        bus.publish(event.json(&Work {}).unwrap()).await.unwrap();
    }
    for _ in 0..2 {
        let membership = Membership::new("group", [Topic::new("work")]);
        let mut member = noting.inner.subscribe(membership).await.unwrap();
        let taken = member.recv(100).await.unwrap();
        assert_eq!(taken.len() as u64, EVENTS);
    }
    noting.starts.lock().unwrap().insert(1, 1);
    (bus, noting)
}

async fn noting_bus(counts_nothing: bool, retry: &str) -> (Bus, Noting) {
    let noting = Noting {
        inner: DynTransport::new(MemoryTransport::new()),
        starts: Starts::default(),
        counts_nothing,
    };
    let config = format!(
        r#"
        [service]
        name = "group"
        [transports.server]
        kind = "noting"
        [[routes]]
        pattern = "work.*"
        transport = "server"
        topic = "work"
        [subscriptions.worker]
        retry = {{ max_attempts = 2, base = "10ms", max = "10ms" {retry} }}
        "#
    );
    let builder = Bus::builder().config(Config::parse(&config, "test.toml").unwrap());
    let builder = builder.register(Factory(noting.clone()));
    (builder.build().await.unwrap(), noting)
}

async fn until_done(bus: &Bus) {
    while !bus
        .topics()
        .lag("server", "group", "work")
        .await
        .unwrap()
        .is_zero()
    {
        sleep(Duration::from_millis(1)).await;
    }
}

async fn check_letters(bus: &Bus) {
    let letters = bus.dead_letters("work.dlq").list().await.unwrap();
    assert_eq!(letters.len(), 1);
    assert_eq!(letters[0].event().unwrap().id(), "1");
    let from = letters[0].provenance();
    assert_eq!(from.kind, Some(FailureKind::ProcessEnded));
    assert!(
        from.reason.contains("at least 2 processes"),
        "{}",
        from.reason
    );
}

#[derive(Clone, Default)]
struct Seen {
    running: Arc<AtomicUsize>,
    ids: Arc<Mutex<Vec<String>>>,
}

#[tokio::test(start_paused = true)]
async fn suspects_run_alone_and_the_one_that_was_noted_not_at_all() {
    async fn handle(RawEvent(event): RawEvent, context: Context, State(seen): State<Seen>) {
        assert_eq!(
            seen.running.fetch_add(1, Ordering::SeqCst),
            0,
            "two at once"
        );
        sleep(Duration::from_millis(5)).await;
        seen.running.fetch_sub(1, Ordering::SeqCst);
        assert_eq!(context.attempt(), 3);
        seen.ids.lock().unwrap().push(event.id().to_owned());
    }
    let (bus, noting) = after_crashes().await;
    let seen = Seen::default();
    let worker = bus.subscribe("worker").state(seen.clone());
    worker.on_any(handle).start().await.unwrap();
    until_done(&bus).await;
    assert_eq!(*seen.ids.lock().unwrap(), ["0", "2", "3", "4", "5"]);
    check_letters(&bus).await;
    let starts = noting.starts.lock().unwrap();
    assert!(
        (0..EVENTS).all(|offset| starts.contains_key(&offset)),
        "{starts:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_suspect_is_a_batch_of_its_own() {
    async fn index(batch: Batch<Work>, State(seen): State<Seen>) {
        let mut ids = seen.ids.lock().unwrap();
        let of_batch: Vec<_> = batch.iter().map(|entry| entry.event.id()).collect();
        ids.push(of_batch.join("+"));
    }
    let (bus, _) = after_crashes().await;
    let seen = Seen::default();
    let worker = bus.subscribe("worker").state(seen.clone());
    worker
        .on_batch(index)
        .batch(100, "1s")
        .start()
        .await
        .unwrap();
    until_done(&bus).await;
    assert_eq!(*seen.ids.lock().unwrap(), ["0", "2", "3", "4", "5"]);
    check_letters(&bus).await;
}

#[tokio::test(start_paused = true)]
async fn what_was_with_one_member_that_died_is_still_one_batch_of_its_key() {
    async fn index(batch: Batch<Work>, State(seen): State<Seen>) {
        seen.ids.lock().unwrap().push(batch.len().to_string());
    }
    let (bus, noting) = noting_bus(false, "").await;
    for number in 0..EVENTS {
        let event = Event::builder("work.todo").id(number.to_string()).key("k");
        bus.publish(event.json(&Work {}).unwrap()).await.unwrap();
    }
    let membership = Membership::new("group", [Topic::new("work")]);
    let mut member = noting.inner.subscribe(membership).await.unwrap();
    assert_eq!(member.recv(100).await.unwrap().len() as u64, EVENTS);
    drop(member);
    let seen = Seen::default();
    let worker = bus.subscribe("worker").state(seen.clone());
    let worker = worker.on_batch(index).batch(100, "1s");
    worker.start().await.unwrap();
    until_done(&bus).await;
    assert_eq!(*seen.ids.lock().unwrap(), [EVENTS.to_string()]);
}

#[tokio::test(start_paused = true)]
async fn what_is_no_suspect_goes_on_beside_one() {
    async fn handle(Payload(_): Payload<Work>, context: Context, State(seen): State<Seen>) {
        let suspect = context.attempt() > 1;
        let running = seen
            .running
            .fetch_add(usize::from(suspect), Ordering::SeqCst);
        assert!(!suspect || running == 0, "two suspects at once");
        sleep(Duration::from_millis(if suspect { 50 } else { 1 })).await;
        seen.running
            .fetch_sub(usize::from(suspect), Ordering::SeqCst);
        let what = if suspect { "suspect" } else { "other" };
        seen.ids.lock().unwrap().push(what.to_owned());
    }
    let (bus, _) = after_crashes().await;
    bus.publish(Work {}).await.unwrap();
    let seen = Seen::default();
    let worker = bus.subscribe("worker").state(seen.clone());
    worker.on(handle).start().await.unwrap();
    until_done(&bus).await;
    let order = seen.ids.lock().unwrap().clone();
    assert_eq!(order[0], "other", "{order:?}");
    assert_eq!(order.len() as u64, EVENTS);
}

/// It may be the culprit, and the suspect would be blamed for it.
#[tokio::test(start_paused = true)]
async fn what_was_with_a_member_that_died_does_not_run_beside_a_suspect() {
    /// How many suspects and others that were delivered before run.
    #[derive(Clone, Default)]
    struct Running(Arc<Mutex<[usize; 2]>>);

    async fn handle(RawEvent(_): RawEvent, context: Context, State(running): State<Running>) {
        let kind = match context.attempt() {
            1 => return,
            2 => 1,
            _ => 0,
        };
        {
            let mut running = running.0.lock().unwrap();
            running[kind] += 1;
            assert!(*running == [1, 0] || running[0] == 0, "{running:?}");
        }
        sleep(Duration::from_millis(5)).await;
        running.0.lock().unwrap()[kind] -= 1;
    }
    let (bus, noting) = noting_bus(false, "").await;
    for round in 0..3 {
        for number in 0..EVENTS {
            let event = Event::builder("work.todo").id(format!("{round}-{number}"));
            bus.publish(event.json(&Work {}).unwrap()).await.unwrap();
        }
        if round < 2 {
            let membership = Membership::new("group", [Topic::new("work")]);
            let mut member = noting.inner.subscribe(membership).await.unwrap();
            let taken = member.recv(100).await.unwrap();
            assert_eq!(taken.len() as u64, (round + 1) * EVENTS);
        }
    }
    let worker = bus.subscribe("worker").state(Running::default());
    let worker = worker.on_any(handle).start().await.unwrap();
    until_done(&bus).await;
    assert_eq!(worker.counts().handled, 3 * EVENTS);
    assert!(bus.close("1s").await.unwrap().into_result().is_ok());
    let starts = noting.starts.lock().unwrap();
    assert!((0..EVENTS).all(|it| starts[&it] == 1), "{starts:?}");
}

#[tokio::test(start_paused = true)]
async fn suspects_that_wait_are_given_back_at_a_stop() {
    async fn handle(RawEvent(_): RawEvent) {
        sleep(Duration::from_secs(5)).await;
    }
    let (bus, noting) = after_crashes().await;
    let worker = bus
        .subscribe("worker")
        .on_any(handle)
        .start()
        .await
        .unwrap();
    sleep(Duration::from_secs(1)).await;
    let report = bus.close("20s").await.unwrap();
    let counts = worker.counts();
    assert_eq!(counts.handled, 1);
    assert_eq!(
        counts.handled + counts.released + counts.dead_lettered,
        EVENTS
    );
    assert_eq!(report.unfinished() as u64, counts.released);
    let lag = noting
        .admin()
        .lag("group", &[Topic::new("work")])
        .await
        .unwrap();
    assert_eq!(lag[0].waiting + lag[0].pending, counts.released);
}

/// On a transport that counts nothing what was delivered before is suspect; an attempt that was made
/// before a long pause is no delivery.
#[tokio::test(start_paused = true)]
async fn what_waited_for_its_next_attempt_is_no_suspect() {
    async fn handle(RawEvent(_): RawEvent, context: Context) -> Result<(), String> {
        match context.attempt() {
            1 => Err("not yet".to_owned()),
            _ => Ok(()),
        }
    }
    let delayed = r#", delayed = { pauses = ["1m"], after_attempts = 1 }"#;
    let (bus, noting) = noting_bus(true, delayed).await;
    let worker = bus
        .subscribe("worker")
        .on_any(handle)
        .start()
        .await
        .unwrap();
    bus.publish(Work {}).await.unwrap();
    while worker.counts().handled == 0 {
        sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(worker.counts().delayed, 1);
    assert!(noting.starts.lock().unwrap().is_empty());
}
