//! Sending again, and what is kept of what failed.

use std::time::Duration;

use polybus::{Effect, ErrorKind, Outcome};
use tokio::time::Instant;

use crate::fake::{Answer, Fake, event, keyed};

const RETRY: &str = "retry = { max_attempts = 3, base = '100ms', max = '1s' }";

#[tokio::test(start_paused = true)]
async fn what_is_rejected_for_a_passing_reason_is_sent_again_after_a_pause() {
    let fake = Fake::new().script(|_, attempt| match attempt {
        1 | 2 => Answer::Reject,
        _ => Answer::Accept,
    });
    let bus = fake.bus(RETRY).await;
    let start = Instant::now();
    bus.publish(event(0)).await.unwrap();
    let took = start.elapsed();
    // Half to all of 100 ms and of 200 ms.
    let expected = Duration::from_millis(150)..=Duration::from_millis(303);
    assert!(expected.contains(&took), "{took:?}");
    assert_eq!(bus.publish_stats().retried, 2);
    assert!(bus.failed().read().is_empty());
}

#[tokio::test(start_paused = true)]
async fn after_the_last_attempt_the_event_and_its_error_are_kept() {
    let fake = Fake::new().script(|_, _| Answer::Reject);
    let bus = fake.bus(RETRY).await;
    let error = bus.publish(event("lost")).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.effect()),
        (ErrorKind::Connect, Effect::NotApplied)
    );
    assert_eq!(fake.calls().len(), 3);
    let failed = bus.failed().read();
    assert_eq!(failed[0].event().unwrap().id(), "lost");
    assert_eq!(failed[0].error().kind(), ErrorKind::Connect);
    assert_eq!(
        (failed[0].attempts(), failed[0].topic().name()),
        (3, "tests")
    );
    assert_eq!(bus.publish_stats().failed_kept, 1);
}

#[tokio::test(start_paused = true)]
async fn what_is_rejected_for_good_and_what_is_unknown_is_not_sent_again() {
    for (answer, effect) in [
        (Answer::RejectForGood, Effect::NotApplied),
        (Answer::Lose, Effect::Unknown),
    ] {
        let fake = Fake::new().script(move |_, _| answer);
        let bus = fake.bus(RETRY).await;
        let error = bus.publish(event(0)).await.unwrap_err();
        assert_eq!(error.effect(), effect);
        assert_eq!(fake.calls().len(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_unknown_is_sent_again_where_the_route_says_so() {
    let fake = Fake::new().script(|_, attempt| match attempt {
        1 => Answer::StoreUnknown,
        _ => Answer::Accept,
    });
    let bus = fake.bus(&format!("{RETRY}\non_unknown = 'retry'")).await;
    bus.publish(event(0)).await.unwrap();
    assert_eq!(fake.stored_ids(), ["0", "0"]);
}

#[tokio::test(start_paused = true)]
async fn what_may_be_stored_is_not_called_rejected_by_a_later_attempt() {
    let fake = Fake::new().script(|_, attempt| match attempt {
        1 => Answer::StoreUnknown,
        _ => Answer::RejectForGood,
    });
    let bus = fake.bus(&format!("{RETRY}\non_unknown = 'retry'")).await;
    let error = bus.publish(event(0)).await.unwrap_err();
    assert_eq!(error.effect(), Effect::Unknown);
    assert_eq!(bus.publish_stats().unknown, 1);
}

#[tokio::test(start_paused = true)]
async fn later_events_of_the_key_wait_for_a_retry_and_others_do_not() {
    let fake = Fake::new().script(|event, attempt| match (event.id(), attempt) {
        ("a1", 1..=2) => Answer::Reject,
        _ => Answer::Accept,
    });
    let bus = fake.bus(RETRY).await;
    let events = [("a1", "a"), ("b1", "b"), ("a2", "a"), ("b2", "b")];
    let pending: Vec<_> = events
        .into_iter()
        .map(|(id, key)| bus.enqueue(keyed(id, key)).unwrap())
        .collect();
    for receipt in pending {
        receipt.await.unwrap();
    }
    assert_eq!(fake.stored_ids(), ["b1", "b2", "a1", "a2"]);
}

#[tokio::test(start_paused = true)]
async fn an_event_that_a_later_one_of_its_key_has_passed_is_not_sent_again() {
    let fake = Fake::new().script(|event, _| match event.id() {
        "first" => Answer::Reject,
        _ => Answer::Accept,
    });
    let bus = fake.bus(RETRY).await;
    let events = [keyed("first", "k"), keyed("second", "k")];
    let outcomes = bus.publish_all(events).await;
    assert!(matches!(outcomes[0], Outcome::Rejected(_)), "{outcomes:?}");
    assert!(outcomes[1].is_accepted());
    assert_eq!(fake.calls().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn failed_events_are_taken_and_published_again() {
    let fake = Fake::new().script(|_, attempt| match attempt {
        1 => Answer::RejectForGood,
        _ => Answer::Accept,
    });
    let bus = fake.bus("").await;
    let outcomes = bus.publish_all((0..5).map(event)).await;
    assert!(outcomes.iter().all(|it| matches!(it, Outcome::Rejected(_))));
    assert_eq!(bus.failed().take(2).len(), 2);
    let outcomes = bus.failed().republish().await;
    assert!(outcomes.len() == 3 && outcomes.iter().all(Outcome::is_accepted));
    assert_eq!(fake.stored_ids(), ["2", "3", "4"]);
    assert!(bus.failed().read().is_empty());
}

#[tokio::test(start_paused = true)]
async fn failed_events_without_room_are_dropped_aloud() {
    let fake = Fake::new().script(|_, _| Answer::RejectForGood);
    let config = fake.config("", "[publishing.failed]\nmax_events = 2");
    let bus = fake.builder(&config).build().await.unwrap();
    let _ = bus.publish_all((0..5).map(event)).await;
    let kept: Vec<_> = bus.failed().read();
    let ids: Vec<_> = kept.iter().map(|it| it.event().unwrap().id()).collect();
    assert_eq!(ids, ["3", "4"]);
    assert_eq!(bus.publish_stats().failed_dropped, 3);
}

#[tokio::test(start_paused = true)]
async fn failed_events_go_to_the_spill_as_lines_of_json() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("failed.jsonl");
    let fake = Fake::new().script(|_, _| Answer::RejectForGood);
    let failed = format!(
        "[publishing.failed]\nmax_events = 2\nspill = '{}'",
        path.display()
    );
    let config = fake.config("", &failed);
    let bus = fake.builder(&config).build().await.unwrap();
    let events = (0..5).map(|id| {
        // Data over two lines must not break the line.
        let event = event(id).to_builder().content_type("application/json");
        event.data("{\n\"a\":1}").build().unwrap()
    });
    let _ = bus.publish_all(events).await;
    let stats = bus.publish_stats();
    assert_eq!((stats.failed_kept, stats.failed_spilled), (2, 3));
    let _ = bus.close("1s").await.unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<serde_json::Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let ids: Vec<_> = lines.iter().map(|it| it["event"]["id"].clone()).collect();
    assert_eq!(ids, ["0", "1", "2", "3", "4"]);
    assert_eq!(lines[0]["event"]["data"]["a"], 1);
    assert_eq!(lines[0]["error"]["kind"], "Unauthorized");
    assert_eq!(lines[0]["error"]["effect"], "not_applied");
    assert_eq!(
        (&lines[0]["transport"], &lines[0]["topic"]),
        (&"fake".into(), &"tests".into())
    );
}
