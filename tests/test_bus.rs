//! The bus for tests of a service: what it sees, when it has settled, what it lets go wrong.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "shared/accounts.rs"]
mod accounts;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use polybus::testing::{Fault, Progress, TestBus};
use polybus::transport::{Outgoing, Publisher, RawRecord, Transport};
use polybus::{
    Bus, Config, Context, ErrorKind, Event, Outcome, Payload, Permanent, Result, State, Topic,
};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

#[derive(Event, Serialize, Deserialize, Debug, PartialEq)]
#[event(type = "user.created", key = id)]
struct UserCreated {
    id: String,
    nr: u32,
}

#[derive(Event, Serialize, Deserialize, Debug, PartialEq)]
#[event(type = "mail.sent", key = to)]
struct MailSent {
    to: String,
}

async fn test_bus() -> TestBus {
    accounts::test_bus("retry = { max_attempts = 4, base = '10s', max = '30s' }").await
}

fn user(id: &str, nr: u32) -> UserCreated {
    UserCreated { id: id.into(), nr }
}

/// Handles a user by publishing a mail.
async fn mail(Payload(user): Payload<UserCreated>, State(bus): State<Bus>) -> Result<()> {
    bus.publish(MailSent { to: user.id }).await.map(drop)
}

async fn start_mailer(bus: &Bus) {
    let subscription = bus.subscribe("mailer").state(bus.clone()).on(mail);
    subscription.start().await.unwrap();
}

/// Notes nothing: the bus does.
async fn take(Payload(_): Payload<UserCreated>) {}

/// The numbers of the users that `mailer` handled, in order.
fn handled(bus: &TestBus) -> Vec<u32> {
    let number = |it: &polybus::testing::Handling| {
        let user: UserCreated = polybus::Codec::decode(it.event.as_ref().unwrap()).unwrap();
        user.nr
    };
    bus.handled("mailer").iter().map(number).collect()
}

#[tokio::test(start_paused = true)]
async fn settled_means_that_what_handlers_published_is_handled_too() {
    async fn relay(Payload(user): Payload<UserCreated>, State(bus): State<Bus>) -> Result<()> {
        if user.nr > 0 {
            bus.publish(self::user(&user.id, user.nr - 1)).await?;
        }
        Ok(())
    }
    let bus = test_bus().await;
    let subscription = bus.subscribe("mailer").state(bus.bus().clone()).on(relay);
    subscription.start().await.unwrap();
    bus.publish(user("u1", 20)).await.unwrap();
    bus.settle().await;
    assert_eq!(handled(&bus), (0..=20).rev().collect::<Vec<_>>());
    bus.published::<UserCreated>().assert_len(21);
}

#[tokio::test(start_paused = true)]
async fn published_events_are_seen_decoded_and_raw() {
    let bus = test_bus().await;
    start_mailer(&bus).await;
    bus.publish(user("u1", 1)).await.unwrap();
    bus.publish(user("u2", 2)).await.unwrap();
    bus.settle().await;
    assert_eq!(
        *bus.published::<UserCreated>(),
        [user("u1", 1), user("u2", 2)]
    );
    bus.published::<MailSent>().assert_len(2);
    let raw = bus.published_raw("*.sent");
    assert_eq!(raw.len(), 2);
    assert_eq!(
        (raw[0].transport.as_str(), raw[0].topic.name()),
        ("two", "mails")
    );
    assert_eq!(raw[0].payload::<MailSent>().unwrap().to, "u1");
    bus.published_raw("deal.*").assert_empty();
    bus.dead_letters().assert_empty();
}

#[tokio::test(start_paused = true)]
async fn a_failed_assertion_says_what_there_is_instead() {
    let bus = test_bus().await;
    bus.publish(user("u7", 1)).await.unwrap();
    let text = bus.published::<UserCreated>().to_string();
    for part in ["user.created", "u7", "users", "found 1"] {
        assert!(text.contains(part), "`{part}` is not in: {text}");
    }
    let published = bus.published::<UserCreated>();
    let check = std::panic::AssertUnwindSafe(|| published.assert_empty().len());
    assert!(std::panic::catch_unwind(check).is_err());
}

#[tokio::test(start_paused = true)]
async fn pauses_between_retries_pass_at_once() {
    async fn third(
        Payload(_): Payload<UserCreated>,
        context: Context,
    ) -> std::result::Result<(), &'static str> {
        (context.attempt() == 3).then_some(()).ok_or("not yet")
    }
    let bus = test_bus().await;
    let subscription = bus.subscribe("mailer").on(third).start().await.unwrap();
    let started = Instant::now();
    bus.publish(user("u1", 1)).await.unwrap();
    bus.settle().await;
    assert!(
        started.elapsed() >= Duration::from_secs(15),
        "the retries paused"
    );
    let attempts: Vec<_> = bus
        .history("mailer")
        .iter()
        .map(|it| (it.attempt, it.progress))
        .collect();
    let expected = [
        (1, Progress::Retried),
        (2, Progress::Retried),
        (3, Progress::Handled),
    ];
    assert_eq!(attempts, expected);
    bus.retried("mailer").assert_len(2);
    bus.handled("mailer").assert_len(1);
    assert_eq!(subscription.counts().retried, 2);
}

#[tokio::test(start_paused = true)]
async fn dead_letters_come_with_where_they_are_from() {
    async fn refuse(Payload(_): Payload<UserCreated>) -> std::result::Result<(), Permanent> {
        Err(Permanent::new("no such country"))
    }
    let bus = test_bus().await;
    bus.subscribe("mailer").on(refuse).start().await.unwrap();
    bus.publish(user("u1", 1)).await.unwrap();
    // And a record that is no event.
    let one = bus.transport("one").unwrap().publisher().await.unwrap();
    let record = RawRecord::new(None, polybus::Headers::new(), Some("garbage".into()));
    let garbage = [Outgoing::raw(Topic::new("users"), record.clone())];
    assert!(one.publish(&garbage).await[0].is_accepted());
    bus.settle().await;

    let letters = bus.dead_letters();
    letters.assert_len(2);
    let of_event = letters.iter().find(|it| it.event().is_some()).unwrap();
    assert_eq!(of_event.event().unwrap().key(), Some("u1"));
    assert_eq!(of_event.reason(), "no such country");
    assert_eq!(of_event.topic.name(), "users.dlq");
    let origin = (of_event.origin_transport(), of_event.origin_topic());
    assert_eq!(origin, ("one", "users"));
    assert_eq!(
        (of_event.group(), of_event.subscription()),
        ("accounts", "mailer")
    );
    assert_eq!(of_event.attempts(), 1);
    let of_garbage = letters.iter().find(|it| it.event().is_none()).unwrap();
    assert_eq!(of_garbage.record(), Some(&record));
    bus.published_raw("*").assert_len(1);
    bus.handled("mailer").assert_empty();
}

#[tokio::test(start_paused = true)]
async fn what_does_not_settle_is_named() {
    async fn hang(Payload(_): Payload<UserCreated>) {
        std::future::pending::<()>().await;
    }
    let bus = test_bus().await;
    bus.subscribe("mailer").on(hang).start().await.unwrap();
    bus.publish(user("u1", 1)).await.unwrap();
    let error = bus.settle_within("5s").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    let text = error.to_string();
    for part in [
        "5s",
        "accounts",
        "users",
        "one",
        "1 delivered and not settled",
    ] {
        assert!(text.contains(part), "`{part}` is not in: {text}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_subscription_that_ended_is_not_waited_for() {
    let bus = {
        let config = r#"
            [service]
            name = "accounts"
            [transports.one]
            kind = "memory"
            [[routes]]
            pattern = "*"
            transport = "one"
            topic = "all"
            [subscriptions.mailer]
            unhandled = "stop"
        "#;
        let config = Config::parse(config, "test.toml").unwrap();
        TestBus::on(Bus::builder().config(config)).await.unwrap()
    };
    bus.subscribe("mailer").on(take).start().await.unwrap();
    bus.publish(MailSent { to: "u1".into() }).await.unwrap();
    let started = Instant::now();
    let error = bus.settle_within("1h").await.unwrap_err();
    assert!(started.elapsed() < Duration::from_secs(60));
    assert!(error.to_string().contains("`mailer` has ended"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn the_nth_publish_fails() {
    let bus = test_bus().await;
    start_mailer(&bus).await;
    let fault = bus.inject(Fault::reject("mail.*").nth(2));
    for nr in 1..=3 {
        bus.publish(user(&format!("u{nr}"), nr)).await.unwrap();
    }
    bus.settle().await;
    assert_eq!(fault.hits(), 1);
    // The bus publishes again by itself, so the handler does not notice.
    bus.retried("mailer").assert_empty();
    let mails = bus.published::<MailSent>();
    let to: Vec<_> = mails.iter().map(|mail| mail.to.as_str()).collect();
    assert_eq!(to, ["u1", "u3", "u2"]);
}

#[tokio::test(start_paused = true)]
async fn a_publish_that_fails_for_good_fails_its_handler() {
    let bus = test_bus().await;
    start_mailer(&bus).await;
    // As often as the bus tries by default.
    let fault = bus.inject(Fault::reject("mail.*").times(5));
    bus.publish(user("u1", 1)).await.unwrap();
    bus.settle().await;
    assert_eq!(fault.hits(), 5);
    assert_eq!(bus.retried("mailer").only().key(), Some("u1"));
    bus.published::<MailSent>().assert_len(1);
}

#[tokio::test(start_paused = true)]
async fn one_of_a_batch_fails_and_the_others_keep_their_places() {
    let bus = test_bus().await;
    bus.inject(Fault::reject("user.*").nth(2).times(2));
    let outcomes = bus.publish_all((0..5).map(|nr| user("u1", nr))).await;
    let accepted: Vec<_> = outcomes.iter().map(Outcome::is_accepted).collect();
    assert_eq!(accepted, [true, false, false, true, true]);
    let stored: Vec<_> = bus
        .published::<UserCreated>()
        .iter()
        .map(|it| it.nr)
        .collect();
    assert_eq!(stored, [0, 3, 4]);
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_leaves_the_event_stored() {
    let bus = test_bus().await;
    bus.inject(Fault::lose_answer("user.*"));
    let error = bus.publish(user("u1", 1)).await.unwrap_err();
    assert_eq!(error.effect(), polybus::Effect::Unknown);
    bus.published::<UserCreated>().assert_len(1);
}

#[tokio::test(start_paused = true)]
async fn a_refused_dead_letter_holds_its_event_until_it_is_taken() {
    async fn refuse(Payload(_): Payload<UserCreated>) -> std::result::Result<(), Permanent> {
        Err(Permanent::new("no"))
    }
    let bus = test_bus().await;
    bus.subscribe("mailer").on(refuse).start().await.unwrap();
    let fault = bus.inject(Fault::reject_dead_letter("user.*").times(3));
    bus.publish(user("u1", 1)).await.unwrap();
    bus.settle().await;
    assert_eq!(fault.hits(), 3);
    bus.dead_letters().assert_len(1);
}

#[tokio::test(start_paused = true)]
async fn an_event_is_delivered_again_after_it_was_handled() {
    static CALLS: AtomicU32 = AtomicU32::new(0);
    async fn count(Payload(_): Payload<UserCreated>) {
        CALLS.fetch_add(1, Ordering::Relaxed);
    }
    let bus = test_bus().await;
    bus.subscribe("mailer").on(count).start().await.unwrap();
    bus.inject(Fault::redeliver("user.created").nth(2));
    for nr in 1..=3 {
        bus.publish(user(&format!("u{nr}"), nr)).await.unwrap();
    }
    bus.settle().await;
    assert_eq!(CALLS.load(Ordering::Relaxed), 4);
    let mut handled = handled(&bus);
    handled.sort_unstable();
    assert_eq!(handled, [1, 2, 2, 3]);
}

#[tokio::test(start_paused = true)]
async fn a_late_event_holds_up_its_key_and_no_other() {
    let bus = test_bus().await;
    bus.subscribe("mailer").on(take).start().await.unwrap();
    bus.inject(Fault::delay("user.created", "20s"));
    let started = Instant::now();
    for (id, nr) in [("u1", 1), ("u1", 2), ("u2", 3)] {
        bus.publish(user(id, nr)).await.unwrap();
    }
    bus.settle().await;
    assert_eq!(handled(&bus), [3, 1, 2]);
    assert!(started.elapsed() >= Duration::from_secs(20));
}

#[tokio::test(start_paused = true)]
async fn two_events_of_a_key_change_places() {
    let bus = test_bus().await;
    bus.subscribe("mailer").on(take).start().await.unwrap();
    bus.inject(Fault::reorder("user.created").nth(2));
    for nr in 1..=4 {
        bus.publish(user("u1", nr)).await.unwrap();
    }
    bus.settle().await;
    assert_eq!(handled(&bus), [1, 3, 2, 4]);
}

#[tokio::test(start_paused = true)]
async fn an_event_that_none_follows_comes_all_the_same() {
    let bus = test_bus().await;
    bus.subscribe("mailer").on(take).start().await.unwrap();
    bus.inject(Fault::reorder("user.created"));
    bus.publish(user("u1", 1)).await.unwrap();
    bus.settle().await;
    assert_eq!(handled(&bus), [1]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn it_settles_with_the_real_clock_and_many_threads_at_work() {
    let bus = Arc::new(test_bus().await);
    start_mailer(&bus).await;
    let publishing = (0..200).map(|nr| {
        let bus = Arc::clone(&bus);
        tokio::spawn(async move { bus.publish(user(&format!("u{}", nr % 7), nr)).await })
    });
    for published in futures::future::join_all(publishing).await {
        published.unwrap().unwrap();
    }
    bus.settle().await;
    bus.handled("mailer").assert_len(200);
    bus.published::<MailSent>().assert_len(200);
}
