//! Listing, looking at one, replaying, purging.

use std::time::Duration;

use polybus::runtime::provenance;
use polybus::testing::{Fault, TestBus};
use polybus::{ErrorKind, Letter, Purge, Replay};

use super::{failing, publish, start, test_bus, with_letters};

fn ids(letters: &[Letter]) -> Vec<&str> {
    letters.iter().map(|it| it.event().unwrap().id()).collect()
}

async fn letters(bus: &TestBus) -> Vec<Letter> {
    bus.bus().dead_letters("users.dlq").list().await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn listing_goes_by_pages_and_changes_nothing() {
    let bus = with_letters(&failing(&["a", "b", "c"])).await;
    let dlq = bus.bus().dead_letters("users.dlq");
    for _ in 0..2 {
        let first = dlq.list().limit(2).page().await.unwrap();
        assert_eq!(ids(&first.letters), ["a", "b"]);
        let second = dlq.list().limit(2).after(&first).page().await.unwrap();
        assert_eq!(ids(&second.letters), ["c"]);
        let third = dlq.list().limit(2).after(&second).page().await.unwrap();
        assert!(third.letters.is_empty());
    }
    let report = dlq.replay(Replay::to_origin()).await.unwrap();
    assert_eq!(report.replayed, 3, "listing took nothing from a replay");
}

#[tokio::test(start_paused = true)]
async fn one_letter_is_found_by_each_of_its_names() {
    let bus = with_letters(&failing(&["a", "b", "c"])).await;
    let dlq = bus.bus().dead_letters("users.dlq");
    let all = letters(&bus).await;
    let (position, id) = (
        all[1].position().to_string(),
        all[1].provenance().id.clone(),
    );
    for name in ["b", &position, &id] {
        let found = dlq.inspect(name).await.unwrap().unwrap();
        assert_eq!(found.event().unwrap().id(), "b", "{name}");
    }
    assert!(dlq.inspect("nobody").await.unwrap().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_replay_brings_back_what_was_received_and_says_so() {
    let failing = failing(&["a", "b"]);
    let bus = with_letters(&failing).await;
    let before = letters(&bus).await;
    failing.lock().unwrap().clear();
    let dlq = bus.bus().dead_letters("users.dlq");
    let report = dlq.replay(Replay::to_origin()).await.unwrap();
    assert_eq!(
        (report.replayed, report.passed_over, report.returned),
        (2, 0, 0)
    );
    bus.settle().await;
    let published = bus.published_raw("user.created");
    let again: Vec<_> = published.iter().skip(4).collect();
    assert_eq!(again.len(), 2);
    for (again, letter) in again.iter().zip(&before) {
        assert_eq!(again.topic.name(), "users");
        assert_eq!(Some(&again.event), letter.event());
        let names: Vec<_> = again.headers.iter().map(|(name, _)| name).collect();
        assert_eq!(names, [provenance::REPLAYED, provenance::REPLAY]);
    }
    bus.handled("mailer").assert_len(4);
    let nothing = dlq.replay(Replay::to_origin()).await.unwrap();
    assert_eq!(nothing.replayed, 0, "each letter is replayed once");
}

#[tokio::test(start_paused = true)]
async fn a_replay_that_is_cut_off_goes_on_where_it_was() {
    let failing = failing(&["a", "b", "c"]);
    let bus = with_letters(&failing).await;
    failing.lock().unwrap().clear();
    let dlq = bus.bus().dead_letters("users.dlq");
    let report = dlq.replay(Replay::to_origin().limit(1)).await.unwrap();
    assert_eq!(report.replayed, 1);
    bus.inject(Fault::reject("user.created"));
    let error = dlq.replay(Replay::to_origin()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Connect);
    let report = dlq.replay(Replay::to_origin()).await.unwrap();
    assert_eq!(report.replayed, 1, "the one that was refused");
    bus.settle().await;
    bus.handled("mailer").assert_len(4);
    bus.published_raw("user.created").assert_len(4 + 3);
}

#[tokio::test(start_paused = true)]
async fn what_fails_again_is_left_for_the_next_replay() {
    let bus = with_letters(&failing(&["a", "b"])).await;
    let dlq = bus.bus().dead_letters("users.dlq");
    for round in 1..=2 {
        let report = dlq.replay(Replay::to_origin()).await.unwrap();
        assert_eq!(report.replayed, 2, "round {round}");
        bus.settle_within(Duration::from_secs(600)).await.unwrap();
    }
    let all = letters(&bus).await;
    let replayed: Vec<_> = all.iter().map(|it| it.provenance().replayed).collect();
    assert_eq!(replayed, [0, 0, 1, 1, 2, 2]);
}

#[tokio::test(start_paused = true)]
async fn a_filter_has_a_progress_of_its_own() {
    let failing = failing(&["a", "b", "c"]);
    let bus = with_letters(&failing).await;
    failing.lock().unwrap().clear();
    let dlq = bus.bus().dead_letters("users.dlq");
    let only_b = || Replay::to_origin().filter("only-b", |it| it.event().unwrap().id() == "b");
    let report = dlq.replay(only_b()).await.unwrap();
    assert_eq!((report.replayed, report.passed_over), (1, 2));
    let report = dlq.replay(only_b()).await.unwrap();
    assert_eq!((report.replayed, report.passed_over), (0, 0));
    let report = dlq.replay(Replay::to_origin()).await.unwrap();
    assert_eq!(report.replayed, 3);
}

#[tokio::test(start_paused = true)]
async fn a_replay_goes_elsewhere_also_to_another_transport() {
    let bus = with_letters(&failing(&["a"])).await;
    let dlq = bus.bus().dead_letters("users.dlq");
    let elsewhere = Replay::to("repaired").on("two");
    let report = dlq.replay(elsewhere).await.unwrap();
    assert_eq!(report.replayed, 1);
    let published = bus.published_raw("user.created");
    let last = published.last().unwrap();
    assert_eq!(
        (last.transport.as_str(), last.topic.name()),
        ("two", "repaired")
    );
    let error = dlq.replay(Replay::to("x").on("three")).await;
    assert_eq!(
        error.unwrap().replayed,
        0,
        "nothing was left to be replayed"
    );
}

#[tokio::test(start_paused = true)]
async fn a_replay_to_its_group_reaches_no_other_and_begins_its_attempts_anew() {
    let failing = failing(&["a", "b"]);
    let bus = test_bus(
        "retry.delayed = { pauses = ['1m', '1h'], after_attempts = 1 }
         [subscriptions.other]
         group = 'others'",
    )
    .await;
    start(&bus, &failing).await;
    let other = bus.subscribe("other").on_any(async || {});
    other.start().await.unwrap();
    for id in ["a", "b"] {
        publish(&bus, id).await;
    }
    bus.settle_within(Duration::from_secs(600)).await.unwrap();
    assert_eq!(letters(&bus).await.len(), 2);
    failing.lock().unwrap().remove("a");
    let dlq = bus.bus().dead_letters("users.dlq");
    let report = dlq.replay(Replay::to_its_group().limit(1)).await.unwrap();
    assert_eq!((report.replayed, report.left), (1, 0));
    let report = dlq.replay(Replay::to_its_group()).await.unwrap();
    assert_eq!(report.replayed, 1, "it goes on where it was");
    bus.settle_within(Duration::from_secs(600)).await.unwrap();
    bus.handled("mailer").assert_len(1);
    bus.handled("other").assert_len(2);
    let all = letters(&bus).await;
    assert_eq!(ids(&all), ["a", "b", "b"]);
    let again = all[2].provenance();
    assert_eq!((again.topic.as_str(), again.attempts), ("users", 2));
    assert_eq!(
        (again.position, again.replayed),
        (all[1].provenance().position, 1)
    );
}

#[tokio::test(start_paused = true)]
async fn what_can_not_go_to_its_group_alone_is_left_for_another_replay() {
    let failing = failing(&["a"]);
    let bus = with_letters(&failing).await;
    failing.lock().unwrap().clear();
    let dlq = bus.bus().dead_letters("users.dlq");
    let report = dlq.replay(Replay::to_its_group()).await.unwrap();
    assert_eq!((report.replayed, report.left), (0, 1));
    let report = dlq.replay(Replay::to_origin()).await.unwrap();
    assert_eq!(report.replayed, 1);
    let elsewhere = dlq.replay(Replay::to_its_group().on("two")).await;
    assert_eq!(elsewhere.unwrap_err().kind(), ErrorKind::Config);
}

#[tokio::test(start_paused = true)]
async fn purged_letters_are_gone_and_others_stay() {
    let bus = with_letters(&failing(&["a", "b", "c"])).await;
    let dlq = bus.bus().dead_letters("users.dlq");
    let all = letters(&bus).await;
    let none = Purge::older_than("1h").unwrap();
    assert_eq!(dlq.purge(none).await.unwrap(), 0);
    assert_eq!(dlq.purge(Purge::through(&all[0])).await.unwrap(), 1);
    assert_eq!(ids(&letters(&bus).await), ["b", "c"]);
    let report = dlq.replay(Replay::to_origin().limit(1)).await.unwrap();
    assert_eq!(report.replayed, 1);
    assert_eq!(dlq.purge(Purge::all()).await.unwrap(), 2);
    assert!(letters(&bus).await.is_empty());
    publish(&bus, "a").await;
    bus.settle_within(Duration::from_secs(600)).await.unwrap();
    let after = letters(&bus).await;
    assert!(ids(&after).contains(&"a"), "the topic goes on");
}

#[tokio::test(start_paused = true)]
async fn a_topic_that_nobody_or_several_have_is_an_error_that_says_so() {
    let bus = test_bus("").await;
    let error = bus.bus().dead_letters("none.dlq").list().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TopicNotFound);
    start(&bus, &failing(&["a"])).await;
    for transport in ["one", "two"] {
        let spec = polybus::transport::TopicSpec::new("users.dlq");
        bus.topics().create(transport, &[spec]).await.unwrap();
    }
    let both = bus.bus().dead_letters("users.dlq");
    let error = both.list().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains("one, two"), "{error}");
    assert!(both.on("two").list().await.unwrap().is_empty());
}
