//! Failing and starting again, draining, stopping one of several, and what a subscription says of
//! itself meanwhile.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use polybus::memory::MemoryTransport;
use polybus::testing::TestBus;
use polybus::transport::{
    Capabilities, Delivery, DynAdmin, DynPublisher, DynSettler, DynSubscriber, DynTransport,
    Subscriber, Subscription as Membership, Transport, TransportConfig, TransportFactory,
};
use polybus::{
    Bus, Config, Context, Error, ErrorKind, RawEvent, Result, Start, State, Subscription,
    SubscriptionState,
};
use tokio::sync::{Notify, Semaphore};
use tokio::task::yield_now;
use tokio::time::{Instant, sleep, timeout, timeout_at};

fn config(settings: &str) -> Config {
    let config = format!(
        r#"
        [service]
        name = "test"
        [transports.local]
        kind = "memory"
        [[routes]]
        pattern = "order.*"
        transport = "local"
        topic = "orders"
        [[routes]]
        pattern = "user.*"
        transport = "local"
        topic = "users"
        [subscriptions.sub]
        {settings}
        "#
    );
    Config::parse(&config, "test.toml").unwrap()
}

async fn publish(bus: &Bus, event_type: &'static str, id: &str) {
    bus.event(event_type).id(id).publish().await.unwrap();
}

#[derive(Clone, Default)]
struct Handled(Arc<Mutex<Vec<String>>>);

impl Handled {
    fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

async fn note(RawEvent(event): RawEvent, State(handled): State<Handled>) {
    handled.0.lock().unwrap().push(event.id().to_owned());
}

/// A memory transport whose readers fail for good when they are told to.
#[derive(Clone)]
struct Breakable {
    inner: DynTransport,
    state: Arc<Breaks>,
}

#[derive(Default)]
struct Breaks {
    breaks: Notify,
    stays: AtomicBool,
    refuses: AtomicBool,
    joined: AtomicUsize,
    /// How long it takes to leave, in milliseconds.
    leaving_takes: AtomicU64,
}

struct BreakableSubscriber(DynSubscriber, Arc<Breaks>);

impl Breakable {
    fn new() -> Self {
        Self {
            inner: DynTransport::new(MemoryTransport::new()),
            state: Arc::default(),
        }
    }

    async fn bus(&self, settings: &str) -> Bus {
        let builder = Bus::builder().register(self.clone());
        builder.config(config(settings)).build().await.unwrap()
    }

    fn joined(&self) -> usize {
        self.state.joined.load(Ordering::SeqCst)
    }
}

fn broken() -> Error {
    Error::new(ErrorKind::Unauthorized, "the reader was thrown out")
}

#[async_trait]
impl TransportFactory for Breakable {
    fn kind(&self) -> &str {
        "memory"
    }

    async fn connect(&self, _: TransportConfig) -> Result<DynTransport> {
        Ok(DynTransport::new(self.clone()))
    }
}

impl Transport for Breakable {
    type Publisher = DynPublisher;
    type Subscriber = BreakableSubscriber;
    type Admin = DynAdmin;

    fn capabilities(&self) -> Capabilities {
        let mut capabilities = self.inner.capabilities();
        capabilities.reset &= !self.state.stays.load(Ordering::SeqCst);
        capabilities
    }

    async fn publisher(&self) -> Result<DynPublisher> {
        self.inner.publisher().await
    }

    async fn subscribe(&self, membership: Membership) -> Result<BreakableSubscriber> {
        self.state.joined.fetch_add(1, Ordering::SeqCst);
        if self.state.refuses.load(Ordering::SeqCst) {
            return Err(broken());
        }
        let subscriber = self.inner.subscribe(membership).await?;
        Ok(BreakableSubscriber(subscriber, Arc::clone(&self.state)))
    }

    fn admin(&self) -> DynAdmin {
        self.inner.admin()
    }
}

impl Subscriber for BreakableSubscriber {
    type Settler = DynSettler;

    async fn recv(&mut self, max: usize) -> Result<Vec<Delivery>> {
        tokio::select! {
            biased;
            () = self.1.breaks.notified() => Err(broken()),
            received = self.0.recv(max) => received,
        }
    }

    fn settler(&self) -> DynSettler {
        self.0.settler()
    }

    async fn close(self, deadline: Instant) -> Result<()> {
        let takes = Duration::from_millis(self.1.leaving_takes.load(Ordering::SeqCst));
        let late = |_| Error::new(ErrorKind::Timeout, "it had no time to leave");
        timeout_at(deadline, sleep(takes)).await.map_err(late)?;
        self.0.close(deadline).await
    }
}

async fn start(bus: &Bus) -> (Subscription, Handled) {
    let handled = Handled::default();
    let sub = bus.subscribe("sub").state(handled.clone());
    let sub = sub.on_pattern("order.*", note).start().await.unwrap();
    (sub, handled)
}

/// Lets the reader fail, and the failure be noticed.
async fn break_it(transport: &Breakable) {
    transport.state.breaks.notify_one();
    sleep(Duration::from_millis(100)).await;
}

#[tokio::test(start_paused = true)]
async fn a_subscription_that_fails_starts_again_after_a_pause_and_loses_nothing() {
    let transport = Breakable::new();
    let bus = transport.bus("on_failure = 'restart'").await;
    let (sub, handled) = start(&bus).await;
    publish(&bus, "order.placed", "o1").await;
    sleep(Duration::from_millis(100)).await;
    break_it(&transport).await;
    assert_eq!(sub.status().state, SubscriptionState::Restarting);
    publish(&bus, "order.placed", "o2").await;
    assert_eq!(handled.all(), ["o1"]);
    sleep(Duration::from_secs(2)).await;
    assert_eq!(handled.all(), ["o1", "o2"]);
    let status = sub.status();
    assert_eq!(status.state, SubscriptionState::Running);
    assert_eq!(status.counts.restarts, 1);
    let error = status.last_error.unwrap().message;
    assert!(error.contains("thrown out"), "{error}");
    bus.close("10s").await.unwrap().into_result().unwrap();
}

#[tokio::test(start_paused = true)]
async fn it_tries_again_with_longer_pauses_for_as_long_as_it_takes() {
    let transport = Breakable::new();
    let bus = transport.bus("on_failure = 'restart'").await;
    let (sub, handled) = start(&bus).await;
    transport.state.refuses.store(true, Ordering::SeqCst);
    break_it(&transport).await;
    sleep(Duration::from_secs(600)).await;
    let tries = transport.joined() - 1;
    assert!((10..40).contains(&tries), "{tries} within ten minutes");
    transport.state.refuses.store(false, Ordering::SeqCst);
    publish(&bus, "order.placed", "o1").await;
    sleep(Duration::from_secs(61)).await;
    assert_eq!(handled.all(), ["o1"]);
    assert_eq!(sub.counts().restarts, 1);
}

#[tokio::test(start_paused = true)]
async fn a_bus_ends_with_a_subscription_that_fails_unless_it_starts_again() {
    let transport = Breakable::new();
    let bus = transport.bus("").await;
    let (sub, _) = start(&bus).await;
    transport.state.breaks.notify_one();
    let error = bus.run_until(std::future::pending()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unauthorized);
    assert_eq!(sub.status().state, SubscriptionState::Failed);

    let transport = Breakable::new();
    let bus = transport.bus("on_failure = 'restart'").await;
    start(&bus).await;
    transport.state.breaks.notify_one();
    bus.run_until(sleep(Duration::from_secs(60))).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_stop_between_failure_and_restart_is_a_stop_with_its_reason() {
    let transport = Breakable::new();
    let bus = transport.bus("on_failure = 'restart'").await;
    let (sub, _) = start(&bus).await;
    transport.state.refuses.store(true, Ordering::SeqCst);
    break_it(&transport).await;
    let started = Instant::now();
    let report = bus.close("10s").await.unwrap();
    assert_eq!(started.elapsed(), Duration::ZERO);
    let error = report.subscriptions[0].error.as_ref().unwrap();
    assert_eq!(error.kind(), ErrorKind::Unauthorized);
    assert_eq!(sub.status().state, SubscriptionState::Failed);
}

#[tokio::test(start_paused = true)]
async fn a_subscription_that_can_not_join_again_after_a_seek_fails_or_starts_again() {
    for (settings, state) in [
        ("", SubscriptionState::Failed),
        ("on_failure = 'restart'", SubscriptionState::Running),
    ] {
        let transport = Breakable::new();
        let bus = transport.bus(settings).await;
        let (sub, handled) = start(&bus).await;
        publish(&bus, "order.placed", "o1").await;
        sleep(Duration::from_millis(100)).await;
        transport.state.refuses.store(true, Ordering::SeqCst);
        let error = sub.seek(Start::Beginning, "10s").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unauthorized);
        transport.state.refuses.store(false, Ordering::SeqCst);
        sleep(Duration::from_secs(5)).await;
        assert_eq!(sub.status().state, state);
        let twice = state == SubscriptionState::Running;
        assert_eq!(
            handled.all().len(),
            if twice { 2 } else { 1 },
            "it was moved"
        );
        let again = sub.seek(Start::Now, "10s").await;
        assert_eq!(again.is_ok(), twice, "{again:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_seek_on_a_transport_that_can_not_move_groups_is_refused_and_stops_nothing() {
    let transport = Breakable::new();
    transport.state.stays.store(true, Ordering::SeqCst);
    let bus = transport.bus("").await;
    let (sub, _) = start(&bus).await;
    let error = sub.seek(Start::Beginning, "10s").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert_eq!(error.transport(), Some("local"));
    assert_eq!(transport.joined(), 1, "it never left");
}

#[tokio::test(start_paused = true)]
async fn several_seeks_have_their_turns_and_a_stop_ends_them() {
    let bus = test_bus().await;
    let gate = Arc::new(Semaphore::new(0));
    let sub = bus.subscribe("sub").state(Arc::clone(&gate));
    let sub = sub.on_pattern("order.*", pass).start().await.unwrap();
    publish(&bus, "order.placed", "o1").await;
    sleep(Duration::from_secs(1)).await;
    let seeks = async {
        let back = sub.seek(Start::Beginning, "60s");
        let ahead = sub.seek(Start::Now, "60s");
        let state = async {
            sleep(Duration::from_secs(1)).await;
            assert_eq!(sub.status().state, SubscriptionState::Seeking);
            gate.add_permits(1);
        };
        tokio::join!(back, ahead, state)
    };
    let (back, ahead, ()) = seeks.await;
    back.unwrap();
    ahead.unwrap();
    assert_eq!(
        sub.counts().handled,
        1,
        "it was handled before, and skipped then"
    );
    publish(&bus, "order.placed", "o2").await;
    sleep(Duration::from_secs(1)).await;
    let stop = async {
        sleep(Duration::from_secs(1)).await;
        assert_eq!(sub.status().state, SubscriptionState::Seeking);
        sub.stop("5s").await
    };
    let (sought, stopped) = tokio::join!(sub.seek(Start::Now, "60s"), stop);
    assert_eq!(sought.unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(stopped.unwrap().unfinished, 1);
    let late = sub.seek(Start::Now, "1s").await.unwrap_err();
    assert_eq!(late.kind(), ErrorKind::Closed);
}

/// Whoever has not left is a member still, for the server: then its group can't be moved.
#[tokio::test(start_paused = true)]
async fn leaving_for_a_seek_has_its_time_beside_that_of_the_handlers() {
    let transport = Breakable::new();
    let bus = transport.bus("").await;
    let gate = Gate::new(Semaphore::new(0));
    let sub = bus.subscribe("sub").state(Arc::clone(&gate));
    let sub = sub.on_pattern("order.*", pass).start().await.unwrap();
    publish(&bus, "order.placed", "o1").await;
    sleep(Duration::from_secs(1)).await;
    assert_eq!(sub.counts().received, 1);
    transport.state.leaving_takes.store(2_000, Ordering::SeqCst);
    sub.seek(Start::Beginning, "1s").await.unwrap();
    assert_eq!(sub.status().last_error, None);
    gate.add_permits(1);
    sub.drain("30s").await.unwrap();
    assert_eq!(sub.counts().handled, 1);
}

type Gate = Arc<Semaphore>;

async fn pass(State(gate): State<Gate>) {
    gate.acquire().await.unwrap().forget();
}

async fn test_bus() -> TestBus {
    TestBus::on(Bus::builder().config(config("")))
        .await
        .unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_drain_waits_until_all_is_handled_and_settled_and_keeps_the_place() {
    let bus = test_bus().await;
    let gate = Arc::new(Semaphore::new(0));
    let sub = bus.subscribe("sub").state(Arc::clone(&gate));
    let sub = sub.on_pattern("order.*", pass).start().await.unwrap();
    for id in ["o1", "o2", "o3"] {
        publish(&bus, "order.placed", id).await;
    }
    sleep(Duration::from_secs(1)).await;
    let error = sub.drain("5s").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(error.to_string().contains("3 events left"), "{error}");

    let draining = sub.drain("60s");
    let working = async {
        publish(&bus, "order.placed", "o4").await;
        sleep(Duration::from_secs(10)).await;
        gate.add_permits(10);
    };
    let (drained, ()) = tokio::join!(draining, working);
    drained.unwrap();
    let status = sub.status();
    assert_eq!(status.state, SubscriptionState::Paused);
    assert_eq!((status.in_flight, status.counts.handled), (0, 3));
    sub.drain("1s").await.unwrap();

    sub.resume();
    bus.settle().await;
    assert_eq!(sub.counts().handled, 4);
}

#[tokio::test(start_paused = true)]
async fn one_subscription_stops_and_the_bus_and_its_others_go_on() {
    let bus = test_bus().await;
    let handled = Handled::default();
    let orders = bus.subscribe("orders").group("a").state(handled.clone());
    let orders = orders.on_pattern("order.*", note).start().await.unwrap();
    let users = bus.subscribe("users").group("b").state(handled.clone());
    users.on_pattern("user.*", note).start().await.unwrap();
    publish(&bus, "order.placed", "o1").await;
    bus.settle().await;
    let stopping = async {
        sleep(Duration::from_secs(1)).await;
        let report = orders.stop("10s").await.unwrap();
        assert_eq!((report.name.as_str(), report.unfinished), ("orders", 0));
        assert!(report.error.is_none());
        assert_eq!(orders.status().state, SubscriptionState::Ended);
        let again = orders.stop("10s").await.unwrap_err();
        assert_eq!(again.kind(), ErrorKind::Closed);
        let drained = orders.drain("10s").await.unwrap_err();
        assert_eq!(drained.kind(), ErrorKind::Closed);

        publish(&bus, "user.created", "u1").await;
        publish(&bus, "order.placed", "o2").await;
        sleep(Duration::from_secs(1)).await;
        assert_eq!(handled.all(), ["o1", "u1"], "the bus runs on");
        let again = bus.subscribe("orders").group("a").state(handled.clone());
        again.on_pattern("order.*", note).start().await.unwrap();
        sleep(Duration::from_secs(1)).await;
        assert_eq!(handled.all(), ["o1", "u1", "o2"]);
    };
    bus.run_until(stopping).await.unwrap();
}

/// The handler may see the stop, and make room, before the subscription does: that is chance, so
/// it is done many times.
#[tokio::test]
async fn a_handler_that_ends_by_the_stop_makes_room_for_nothing() {
    async fn until_the_stop(event: RawEvent, handled: State<Handled>, context: Context) {
        note(event, handled).await;
        context.stopping().cancelled().await;
    }
    for _ in 0..100 {
        let bus = Bus::builder().config(config("concurrency = 1"));
        let (bus, handled) = (bus.build().await.unwrap(), Handled::default());
        let subscription = bus.subscribe("sub").state(handled.clone());
        let subscription = subscription.on_any(until_the_stop).start().await.unwrap();
        publish(&bus, "user.updated", "runs").await;
        publish(&bus, "user.updated", "waits").await;
        let both_are_there = async {
            while handled.all().is_empty() || subscription.counts().received < 2 {
                yield_now().await;
            }
        };
        timeout(Duration::from_secs(60), both_are_there)
            .await
            .expect("both are received, and one is handled");
        let report = bus.close("30s").await.unwrap();
        assert_eq!(handled.all(), ["runs"], "nothing starts after the stop");
        assert_eq!(report.subscriptions[0].counts.handled, 1);
        report.into_result().unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_subscription_says_what_it_received_from_and_how_far_it_is_behind() {
    let bus = test_bus().await;
    let gate = Arc::new(Semaphore::new(2));
    let sub = bus.subscribe("sub").state(Arc::clone(&gate));
    let sub = sub.on_any(pass).start().await.unwrap();
    assert!(sub.status().partitions.is_empty());
    for (event_type, id) in [
        ("order.placed", "o1"),
        ("user.created", "u1"),
        ("order.placed", "o2"),
    ] {
        publish(&bus, event_type, id).await;
    }
    sleep(Duration::from_secs(1)).await;
    sub.pause();
    publish(&bus, "order.placed", "o3").await;
    sleep(Duration::from_secs(1)).await;
    let partitions = sub.status().partitions;
    let read: Vec<_> = partitions
        .iter()
        .map(|it| {
            (
                it.topic.name(),
                it.partition,
                it.received,
                it.last_received.offset(),
            )
        })
        .collect();
    assert_eq!(read, [("orders", 0, 2, 1), ("users", 0, 1, 0)]);

    let lags = sub.lag().await.unwrap();
    let total = |topic: &str| {
        let lag = lags.iter().find(|it| it.topic.name() == topic).unwrap().lag;
        lag.waiting + lag.pending
    };
    assert_eq!(lags.len(), 2);
    assert_eq!(
        total("orders") + total("users"),
        2,
        "4 were published and 2 handled"
    );
    sub.resume();
    gate.add_permits(10);
    bus.settle().await;
    assert!(sub.lag().await.unwrap().iter().all(|it| it.lag.is_zero()));
}
