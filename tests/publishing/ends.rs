//! Flushing and closing.

use std::time::Duration;

use polybus::{Effect, ErrorKind, Outcome};
use tokio::time::Instant;

use crate::fake::{Answer, Fake, event, keyed};

#[tokio::test(start_paused = true)]
async fn a_flush_waits_for_what_was_given_before_and_for_nothing_later() {
    let fake = Fake::gated();
    let bus = fake
        .bus("batch = { max_events = 1, max_concurrent_batches = 2 }")
        .await;
    let before = bus.enqueue(event("before")).unwrap();
    fake.called(1).await;
    let mut flush = Box::pin(bus.flush("1h"));
    assert!(futures::poll!(flush.as_mut()).is_pending());
    let later = bus.enqueue(event("later")).unwrap();
    fake.called(2).await;
    fake.let_through(1);
    flush.await.unwrap();
    assert_eq!(fake.stored_ids(), ["before"]);
    before.await.unwrap();
    fake.let_through(1);
    later.await.unwrap();
    bus.flush("0s").await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_flush_ends_at_its_deadline() {
    let fake = Fake::gated();
    let bus = fake.bus("").await;
    let pending = bus.enqueue(event(0)).unwrap();
    let start = Instant::now();
    let error = bus.flush("2s").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert_eq!(start.elapsed(), Duration::from_secs(2));
    drop(pending);
}

#[tokio::test(start_paused = true)]
async fn closing_publishes_what_was_enqueued_though_nobody_awaits_it() {
    let fake = Fake::new().pauses([Duration::from_millis(5); 10]);
    let bus = fake.bus("batch = { max_events = 3 }").await;
    for id in 0..10 {
        drop(bus.enqueue(keyed(id, "k")).unwrap());
    }
    let report = bus.close("1s").await.unwrap();
    assert!(report.unsent().is_empty());
    let ids: Vec<_> = (0..10).map(|id| id.to_string()).collect();
    assert_eq!(fake.stored_ids(), ids);
    report.into_result().unwrap();
}

#[tokio::test(start_paused = true)]
async fn closing_returns_what_it_could_not_send_and_tells_who_waits() {
    // `out` gets no answer, `again` waits for its retry, `behind` for its key, `queued` for its turn.
    let fake = Fake::gated().script(|event, _| match event.id() {
        "again" => Answer::Reject,
        _ => Answer::Accept,
    });
    let route = "batch = { max_concurrent_batches = 1 }\nretry = { base = '1h', max = '1h' }";
    let bus = fake.bus(route).await;
    let again = bus.enqueue(keyed("again", "k")).unwrap();
    fake.let_through(1);
    fake.called(1).await;
    while bus.publish_stats().retried == 0 {
        tokio::task::yield_now().await;
    }
    let behind = bus.enqueue(keyed("behind", "k")).unwrap();
    let out = bus.enqueue(event("out")).unwrap();
    fake.called(2).await;
    let queued = bus.enqueue(event("queued")).unwrap();
    let start = Instant::now();
    let report = bus.close("3s").await.unwrap();
    assert!(
        start.elapsed() <= Duration::from_secs(4),
        "{:?}",
        start.elapsed()
    );
    let mut unsent: Vec<_> = report
        .unsent()
        .iter()
        .map(|it| (it.event().unwrap().id(), it.error().effect(), it.attempts()))
        .collect();
    unsent.sort_unstable_by_key(|(id, ..)| *id);
    let not = Effect::NotApplied;
    let expected = [
        ("again", not, 1),
        ("behind", not, 0),
        ("out", Effect::Unknown, 1),
        ("queued", not, 0),
    ];
    assert_eq!(unsent, expected);
    for (pending, effect) in [
        (again, not),
        (behind, not),
        (queued, not),
        (out, Effect::Unknown),
    ] {
        assert_eq!(pending.await.unwrap_err().effect(), effect);
    }
    let stats = bus.publish_stats();
    assert_eq!(
        (stats.rejected, stats.unknown, stats.queued_events),
        (3, 1, 0)
    );
    assert_eq!((stats.queued_bytes, stats.batches_in_flight), (0, 0));
    let error = report.into_result().unwrap_err();
    assert!(
        error.to_string().starts_with("4 events were not published"),
        "{error}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_closed_bus_takes_nothing() {
    let fake = Fake::new();
    let bus = fake.bus("").await;
    let _ = bus.close("1s").await.unwrap();
    assert_eq!(
        bus.publish(event(0)).await.unwrap_err().kind(),
        ErrorKind::Closed
    );
    assert_eq!(
        bus.try_publish(event(0)).await.unwrap_err().kind(),
        ErrorKind::Closed
    );
    assert_eq!(bus.enqueue(event(0)).unwrap_err().kind(), ErrorKind::Closed);
    for outcome in bus.publish_all([event(0)]).await {
        assert!(matches!(outcome, Outcome::Rejected(error) if error.kind() == ErrorKind::Closed));
    }
    assert!(fake.calls().is_empty());
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_room_is_told_of_the_end() {
    let fake = Fake::gated();
    let config = fake.config("", "[publishing]\nmax_queued_events = 1");
    let bus = fake.builder(&config).build().await.unwrap();
    let first = bus.enqueue(event("first")).unwrap();
    let mut waits = Box::pin(bus.publish(event("waits")));
    assert!(futures::poll!(waits.as_mut()).is_pending());
    let never_polled = bus.enqueue(event("never polled")).unwrap();
    let report = bus.close("1s").await.unwrap();
    assert_eq!(report.unsent().len(), 1);
    assert_eq!(waits.await.unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(first.await.unwrap_err().effect(), Effect::Unknown);
    drop(never_polled);
    let failed = bus.failed().read();
    assert_eq!(failed[0].event().unwrap().id(), "never polled");
}
