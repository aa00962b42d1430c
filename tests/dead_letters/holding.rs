//! What a dead letter holds, and when it is published.

use std::time::Duration;

use polybus::testing::{Fault, Progress};
use polybus::transport::{
    Admin, Headers, Outgoing, Publisher, RawRecord, Subscriber, Subscription as Membership,
    Transport,
};
use polybus::{Event, FailureKind, Topic};

use super::{GROUP, failing, publish, start, test_bus, with_letters};

#[tokio::test(start_paused = true)]
async fn a_letter_says_where_it_comes_from_and_why() {
    let bus = with_letters(&failing(&["b"])).await;
    let letters = bus.bus().dead_letters("users.dlq").list().await.unwrap();
    assert_eq!(letters.len(), 1);
    let letter = &letters[0];
    let from = letter.provenance();
    assert_eq!(
        (from.transport.as_str(), from.topic.as_str()),
        ("one", "users")
    );
    assert_eq!(from.position.unwrap().to_string(), "0:1");
    assert_eq!(from.id, format!("one/users/0:1/{GROUP}"));
    assert_eq!(
        (from.group.as_str(), from.subscription.as_str()),
        (GROUP, "mailer")
    );
    assert_eq!(from.handler.as_deref(), Some("*"));
    assert_eq!((from.attempts, from.reason.as_str()), (2, "b fails"));
    assert_eq!(from.kind, Some(FailureKind::Transient));
    assert!(from.first_failed_at.unwrap() <= from.failed_at.unwrap());
    let event = letter.event().unwrap();
    assert_eq!(
        (event.id(), event.data().unwrap().as_ref()),
        ("b", b"b".as_slice())
    );
    assert!(letter.headers().is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_was_received_is_kept_byte_by_byte() {
    let bus = test_bus("").await;
    start(&bus, &failing(&["e"])).await;
    let publisher = bus.transport("one").unwrap().publisher().await.unwrap();
    let headers = |name: &str| {
        let mut headers = Headers::new();
        headers.push(name, Some("x".into()));
        headers.push("null", None);
        headers
    };
    let record = RawRecord::new(
        Some("key".into()),
        headers("own"),
        Some(vec![0, 255].into()),
    );
    let event = Event::builder("user.created")
        .source("s")
        .id("e")
        .data("bytes");
    let event = event.build().unwrap();
    let topic = Topic::new("users");
    let batch = [
        Outgoing::raw(topic.clone(), record.clone()),
        Outgoing::new(topic, event.clone()).with_headers(headers("hop")),
    ];
    for outcome in publisher.publish(&batch).await {
        assert!(outcome.is_accepted());
    }
    bus.settle().await;
    let letters = bus.bus().dead_letters("users.dlq").list().await.unwrap();
    let (raw, event_letter) = match letters[0].record().is_some() {
        true => (&letters[0], &letters[1]),
        false => (&letters[1], &letters[0]),
    };
    assert_eq!(raw.record(), Some(&record));
    assert_eq!(raw.provenance().kind, Some(FailureKind::Undecodable));
    assert_eq!(event_letter.event(), Some(&event));
    assert_eq!(event_letter.headers(), &headers("hop"));
}

#[tokio::test(start_paused = true)]
async fn the_topic_of_a_letter_can_be_named_the_other_way_round() {
    let bus = test_bus(r#"dead_letter = "dlq.{topic}""#).await;
    start(&bus, &failing(&["a"])).await;
    publish(&bus, "a").await;
    bus.settle().await;
    let letters = bus.bus().dead_letters("dlq.users").list().await.unwrap();
    assert_eq!(letters.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_letter_that_can_not_be_published_holds_its_key_and_nothing_is_lost() {
    let bus = test_bus("").await;
    let fault = bus.inject(Fault::reject_dead_letter("*").times(5));
    start(&bus, &failing(&["a"])).await;
    publish(&bus, "a").await;
    publish(&bus, "behind").await;
    bus.settle().await;
    assert_eq!(fault.hits(), 5);
    bus.dead_letters().assert_len(1);
    let history = bus.history("mailer");
    let steps: Vec<_> = history
        .iter()
        .map(|it| (it.event.as_ref().unwrap().id(), it.progress))
        .collect();
    assert_eq!(
        steps,
        [
            ("a", Progress::Retried),
            ("a", Progress::DeadLettered),
            ("behind", Progress::Handled),
        ]
    );
}

/// On a transport that can't, the letter is published first: a crash in between leaves both.
#[tokio::test(start_paused = true)]
async fn in_memory_the_letter_and_the_acknowledgement_are_one_step() {
    let bus = with_letters(&failing(&["a", "b", "c"])).await;
    let counts = bus.bus().status()[0].counts;
    assert_eq!(
        (counts.dead_lettered, counts.stale, counts.unsettled),
        (3, 0, 0)
    );
    let lag = bus.topics().lag("one", GROUP, "users").await.unwrap();
    assert!(lag.is_zero());
    assert_eq!(bus.bus().status()[0].in_flight, 0);
}

#[tokio::test(start_paused = true)]
async fn an_event_that_is_put_away_twice_has_the_same_id_both_times() {
    let bus = with_letters(&failing(&["a"])).await;
    let transport = bus.transport("one").unwrap();
    let groups = ["other", "other"];
    let mut positions = Vec::new();
    for group in groups {
        let membership = Membership::new(group, [Topic::new("users")]);
        let mut member = transport.subscribe(membership).await.unwrap();
        let deliveries = member.recv(1).await.unwrap();
        positions.push(deliveries[0].position());
        member
            .close(tokio::time::Instant::now() + Duration::from_secs(1))
            .await
            .unwrap();
    }
    assert_eq!(
        positions[0], positions[1],
        "the id is made of the position, which stays"
    );
    let letters = bus.bus().dead_letters("users.dlq").list().await.unwrap();
    let expected = format!("one/users/{}/{GROUP}", positions[0]);
    assert_eq!(letters[0].provenance().id, expected);
    let described = transport
        .admin()
        .describe(&[Topic::new("users.dlq")])
        .await
        .unwrap();
    assert_eq!(described[0].as_ref().unwrap().events, 1);
}
