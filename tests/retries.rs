//! When failed events are tried again: by class of error, in the lane, and outside of it.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "shared/accounts.rs"]
mod accounts;

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use polybus::testing::{Progress, TestBus};
use polybus::transport::{Admin, Outgoing, Publisher, Transport};
use polybus::{
    Bus, Context, ErrorClass, Event, FailureKind, RawEvent, Retryable, State, Topic, Verdict,
};
use tokio::time::Instant;

use self::accounts::test_bus;

const DELAYED: &str = r#"
    retry = { max_attempts = 5, base = "1s", max = "2s", delayed = { pauses = ["1m", "10m"], after_attempts = 2 } }
"#;

async fn publish(bus: &Bus, id: &str, key: &str) {
    bus.publish(Event::builder("user.created").key(key).id(id))
        .await
        .unwrap();
}

async fn settle(bus: &TestBus) {
    bus.settle_within("2h").await.unwrap();
}

/// What a handler saw: the event, the attempt, and when, in whole seconds.
#[derive(Clone)]
struct Seen {
    since: Instant,
    calls: Arc<Mutex<Vec<(String, u32, u64)>>>,
}

impl Seen {
    fn new() -> Self {
        let (since, calls) = (Instant::now(), Arc::default());
        Self { since, calls }
    }

    fn note(&self, event: &Event, context: &Context) {
        assert_eq!(context.topic(), "users", "an event stays one of its topic");
        let call = (
            event.id().to_owned(),
            context.attempt(),
            self.since.elapsed().as_secs(),
        );
        self.calls.lock().unwrap().push(call);
    }

    fn of(&self, id: &str) -> Vec<(u32, u64)> {
        let calls = self.calls.lock().unwrap();
        let of = calls.iter().filter(|(known, ..)| known == id);
        of.map(|(_, attempt, at)| (*attempt, *at)).collect()
    }
}

/// Fails what is called `bad`.
async fn handle(
    RawEvent(event): RawEvent,
    context: Context,
    State(seen): State<Seen>,
) -> Result<(), MailError> {
    seen.note(&event, &context);
    match event.id() {
        "bad" => Err(MailError::Down),
        "wrong" => Err(MailError::NoAddress),
        _ => Ok(()),
    }
}

#[derive(Debug)]
enum MailError {
    Down,
    NoAddress,
}

impl fmt::Display for MailError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

impl std::error::Error for MailError {}

impl Retryable for MailError {
    fn class(&self) -> ErrorClass {
        match self {
            Self::NoAddress => ErrorClass::Permanent,
            Self::Down => ErrorClass::TransientFor(Duration::from_secs(100)),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_error_type_says_its_class_and_its_pause_itself() {
    let bus = test_bus("retry = { max_attempts = 3, base = '1s', max = '1s' }").await;
    let seen = Seen::new();
    let subscription = bus.subscribe("mailer").state(seen.clone());
    let subscription = subscription.retryable::<MailError>().on_any(handle);
    subscription.start().await.unwrap();
    publish(&bus, "wrong", "k").await;
    publish(&bus, "bad", "k").await;
    settle(&bus).await;
    assert_eq!(seen.of("wrong"), [(1, 0)]);
    assert_eq!(seen.of("bad"), [(1, 0), (2, 100), (3, 200)]);
}

#[tokio::test(start_paused = true)]
async fn an_error_that_is_classified_as_permanent_is_not_tried_again() {
    let bus = test_bus("").await;
    let seen = Seen::new();
    let subscription = bus.subscribe("mailer").state(seen.clone());
    let subscription = subscription.classify(|error: &MailError| match error {
        MailError::NoAddress => ErrorClass::Permanent,
        MailError::Down => ErrorClass::Transient,
    });
    subscription.on_any(handle).start().await.unwrap();
    publish(&bus, "wrong", "k").await;
    publish(&bus, "bad", "k").await;
    settle(&bus).await;
    assert_eq!(seen.of("wrong").len(), 1);
    assert_eq!(seen.of("bad").len(), 5);
    let letters = bus.bus().dead_letters("users.dlq").list().await.unwrap();
    let kinds: Vec<_> = letters.iter().map(|it| it.provenance().kind).collect();
    assert_eq!(
        kinds,
        [Some(FailureKind::Permanent), Some(FailureKind::Transient)]
    );
}

#[tokio::test(start_paused = true)]
async fn batch_handlers_errors_are_classified_too() {
    use polybus::Batch;
    #[derive(polybus::Event, serde::Serialize, serde::Deserialize)]
    #[event(type = "user.created")]
    struct UserCreated {}
    async fn index(batch: Batch<UserCreated>) -> Result<(), MailError> {
        assert!(!batch.is_empty());
        Err(MailError::NoAddress)
    }
    let bus = test_bus("").await;
    let subscription = bus.subscribe("mailer");
    let subscription = subscription.classify(|_: &MailError| ErrorClass::Permanent);
    subscription.on_batch(index).start().await.unwrap();
    bus.publish_all([UserCreated {}, UserCreated {}]).await;
    settle(&bus).await;
    bus.retried("mailer").assert_empty();
    bus.dead_letters().assert_len(2);
}

#[tokio::test(start_paused = true)]
async fn long_pauses_are_made_outside_of_the_lane() {
    let bus = test_bus(DELAYED).await;
    let seen = Seen::new();
    let subscription = bus.subscribe("mailer").state(seen.clone());
    subscription.on_any(handle).start().await.unwrap();
    publish(&bus, "bad", "k").await;
    publish(&bus, "behind", "k").await;
    settle(&bus).await;
    let behind = seen.of("behind");
    assert!(behind[0].1 < 10, "the key goes on: {behind:?}");
    let bad = seen.of("bad");
    let attempts: Vec<_> = bad.iter().map(|(attempt, _)| *attempt).collect();
    assert_eq!(attempts, [1, 2, 3, 4, 5]);
    let pauses: Vec<_> = bad.windows(2).map(|two| two[1].1 - two[0].1).collect();
    assert!(pauses[0] <= 1, "{pauses:?}");
    for (pause, expected) in pauses[1..].iter().zip([60, 600, 600]) {
        assert!((expected - 1..=expected + 1).contains(pause), "{pauses:?}");
    }
    let letters = bus.dead_letters();
    let letter = letters.only();
    assert_eq!((letter.attempts(), letter.origin_topic()), (5, "users"));
    assert_eq!(letter.topic.name(), "users.dlq");
    let letters = bus.bus().dead_letters("users.dlq").list().await.unwrap();
    let from = letters[0].provenance();
    assert_eq!(
        from.id, "one/users/0:0/accounts",
        "that of the event's first place"
    );
    let apart = from
        .failed_at
        .unwrap()
        .duration_since(from.first_failed_at.unwrap());
    assert!(apart.as_nanos() >= 0);
    assert!(letters[0].headers().is_empty());
    let counts = bus.bus().status()[0].counts;
    assert_eq!(
        (counts.retried, counts.delayed, counts.dead_lettered),
        (1, 3, 1)
    );
}

#[tokio::test(start_paused = true)]
async fn only_the_group_that_failed_tries_again() {
    let bus = test_bus(DELAYED).await;
    let (seen, other) = (Seen::new(), Seen::new());
    let subscription = bus.subscribe("mailer").state(seen.clone());
    subscription.on_any(handle).start().await.unwrap();
    async fn take(RawEvent(event): RawEvent, context: Context, State(seen): State<Seen>) {
        seen.note(&event, &context);
    }
    let audit = bus.subscribe("audit").group("audit").state(other.clone());
    audit.on_any(take).start().await.unwrap();
    publish(&bus, "bad", "k").await;
    settle(&bus).await;
    assert_eq!(seen.of("bad").len(), 5);
    assert_eq!(other.of("bad").len(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_waits_stays_with_the_group_when_the_subscription_stops() {
    let bus = test_bus(DELAYED).await;
    let seen = Seen::new();
    let subscription = bus.subscribe("mailer").state(seen.clone());
    let subscription = subscription.on_any(handle).start().await.unwrap();
    publish(&bus, "bad", "k").await;
    while subscription.counts().delayed == 0 {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let one = bus.transport("one").unwrap().clone();
    bus.close("10s").await.unwrap().into_result().unwrap();
    let topics = [Topic::new("users"), Topic::new("users.retry.accounts.1m")];
    let lag = one.admin().lag("accounts", &topics).await.unwrap();
    assert!(lag[0].is_zero(), "the event's place is settled");
    assert_eq!(
        lag[1].waiting + lag[1].pending,
        1,
        "its next attempt is not"
    );
}

#[tokio::test(start_paused = true)]
async fn a_long_pause_that_a_handler_asks_for_is_made_outside_of_the_lane() {
    async fn later(
        RawEvent(event): RawEvent,
        context: Context,
        State(seen): State<Seen>,
    ) -> Verdict {
        seen.note(&event, &context);
        match context.attempt() {
            1 => Verdict::Retry {
                after: Some(Duration::from_secs(300)),
            },
            _ => Verdict::Ack,
        }
    }
    let bus = test_bus(DELAYED).await;
    let seen = Seen::new();
    let subscription = bus.subscribe("mailer").state(seen.clone());
    subscription.on_any(later).start().await.unwrap();
    publish(&bus, "a", "k").await;
    settle(&bus).await;
    let calls = seen.of("a");
    assert_eq!(calls.len(), 2);
    assert!(
        (299..=301).contains(&calls[1].1),
        "in the topic of 10 min, and in its own time: {calls:?}"
    );
    let history = bus.history("mailer");
    let steps: Vec<_> = history.iter().map(|it| it.progress).collect();
    assert_eq!(steps, [Progress::Delayed, Progress::Handled]);
}

#[tokio::test(start_paused = true)]
async fn what_somebody_else_put_where_events_wait_is_handled_as_it_is() {
    let bus = test_bus(DELAYED).await;
    let handled = Arc::new(Mutex::new(Vec::new()));
    async fn take(RawEvent(event): RawEvent, State(seen): State<Arc<Mutex<Vec<String>>>>) {
        seen.lock().unwrap().push(event.id().to_owned());
    }
    let subscription = bus.subscribe("mailer").state(Arc::clone(&handled));
    subscription.on_any(take).start().await.unwrap();
    let publisher = bus.transport("one").unwrap().publisher().await.unwrap();
    let event = Event::builder("user.created")
        .source("s")
        .id("foreign")
        .build()
        .unwrap();
    let foreign = Outgoing::new(Topic::new("users.retry.accounts.1m"), event);
    assert!(publisher.publish(&[foreign]).await[0].is_accepted());
    settle(&bus).await;
    assert_eq!(*handled.lock().unwrap(), ["foreign"]);
}
