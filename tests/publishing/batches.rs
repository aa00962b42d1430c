//! When events leave, and with whom.

use std::time::Duration;

use futures::future::join_all;
use polybus::{ErrorKind, Outcome};
use tokio::time::Instant;

use crate::fake::{Fake, event, event_of, keyed};

fn sizes(fake: &Fake) -> Vec<usize> {
    fake.calls().iter().map(Vec::len).collect()
}

#[tokio::test(start_paused = true)]
async fn a_lone_event_does_not_wait_for_others() {
    let fake = Fake::new();
    let bus = fake.bus("batch = { max_wait = '1h' }").await;
    let start = Instant::now();
    for id in 0..3 {
        bus.publish(event(id)).await.unwrap();
    }
    bus.enqueue(event(3)).unwrap().await.unwrap();
    assert_eq!(start.elapsed(), Duration::ZERO);
    assert_eq!(sizes(&fake), [1, 1, 1, 1]);
}

#[tokio::test(start_paused = true)]
async fn events_gather_while_a_batch_is_out() {
    let fake = Fake::gated();
    let bus = fake.bus("batch = { max_wait = '1h' }").await;
    let pending: Vec<_> = (0..10).map(|id| bus.enqueue(event(id)).unwrap()).collect();
    fake.called(1).await;
    assert_eq!(sizes(&fake), [1]);
    fake.let_through(1);
    fake.called(2).await;
    fake.let_through(1);
    for receipt in join_all(pending).await {
        receipt.unwrap();
    }
    assert_eq!(sizes(&fake), [1, 9]);
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_comes_back_lets_no_small_one_leave_beside_others() {
    let fake = Fake::gated();
    let bus = fake.bus("batch = { max_wait = '1h' }").await;
    let events = (0..100).map(|id| bus.enqueue(event(id)).unwrap());
    let mut pending: Vec<_> = events.collect();
    fake.called(2).await;
    fake.let_through(1);
    pending.remove(0).await.unwrap();
    // The clock goes on when nobody has anything to do.
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(sizes(&fake), [1, 64]);
    fake.let_through(2);
    for receipt in join_all(pending).await {
        receipt.unwrap();
    }
    assert_eq!(sizes(&fake), [1, 64, 35]);
}

#[tokio::test(start_paused = true)]
async fn a_full_batch_leaves_beside_others_up_to_their_limit() {
    let fake = Fake::gated();
    let route = "batch = { max_events = 4, max_wait = '1h', max_concurrent_batches = 3 }";
    let bus = fake.bus(route).await;
    let pending: Vec<_> = (0..20).map(|id| bus.enqueue(event(id)).unwrap()).collect();
    fake.called(3).await;
    assert_eq!(sizes(&fake), [1, 4, 4]);
    fake.let_through(20);
    for receipt in join_all(pending).await {
        receipt.unwrap();
    }
    assert_eq!(sizes(&fake), [1, 4, 4, 4, 4, 3]);
    assert_eq!(fake.most_open(), 3);
}

#[tokio::test(start_paused = true)]
async fn bytes_fill_a_batch_too() {
    let fake = Fake::gated();
    let size = event(1000).size();
    let route = format!("batch = {{ max_bytes = {}, max_wait = '1h' }}", 3 * size);
    let bus = fake.bus(&route).await;
    let events = (1000..1009).map(|id| bus.enqueue(event(id)).unwrap());
    let pending: Vec<_> = events.collect();
    fake.let_through(20);
    for receipt in join_all(pending).await {
        receipt.unwrap();
    }
    assert!(
        sizes(&fake).iter().all(|size| *size <= 3),
        "{:?}",
        sizes(&fake)
    );
}

#[tokio::test(start_paused = true)]
async fn what_gathered_for_max_wait_leaves_beside_the_batch_that_is_out() {
    let fake = Fake::gated();
    let bus = fake.bus("batch = { max_wait = '5ms' }").await;
    let pending: Vec<_> = (0..3).map(|id| bus.enqueue(event(id)).unwrap()).collect();
    fake.called(1).await;
    let start = Instant::now();
    while fake.calls().len() < 2 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert!(
        start.elapsed() <= Duration::from_millis(11),
        "twice the wait at most"
    );
    assert_eq!(sizes(&fake), [1, 2]);
    fake.let_through(2);
    for receipt in join_all(pending).await {
        receipt.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn what_came_while_no_batch_might_leave_waits_no_longer_than_max_wait_once_one_may() {
    let fake = Fake::gated();
    let route = "batch = { max_events = 4, max_wait = '5ms', max_concurrent_batches = 2 }";
    let bus = fake.bus(route).await;
    let mut pending: Vec<_> = (0..5).map(|id| bus.enqueue(event(id)).unwrap()).collect();
    fake.called(2).await;
    assert_eq!(sizes(&fake), [1, 4]);
    // Nothing waits any more, so nobody watches.
    tokio::time::sleep(Duration::from_millis(50)).await;
    pending.extend((5..7).map(|id| bus.enqueue(event(id)).unwrap()));
    fake.let_through(1);
    pending.remove(0).await.unwrap();
    assert_eq!(sizes(&fake), [1, 4]);
    tokio::time::sleep(Duration::from_millis(11)).await;
    assert_eq!(sizes(&fake), [1, 4, 2], "twice the wait at most");
    fake.let_through(2);
    for receipt in join_all(pending).await {
        receipt.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn high_priority_does_not_gather_and_is_ahead_of_what_does() {
    let fake = Fake::gated();
    let high = "[[routes]]\npattern = 'test.high'\ntransport = 'fake'\ntopic = 'tests'\n\
                priority = 'high'";
    let config = fake.config("batch = { max_wait = '1h' }", high);
    let bus = fake.builder(&config).build().await.unwrap();
    let normal: Vec<_> = (0..5).map(|id| bus.enqueue(event(id)).unwrap()).collect();
    let high = ["a", "b"].map(|id| bus.enqueue(event_of("test.high", id, None)).unwrap());
    fake.called(3).await;
    assert_eq!(fake.calls(), [vec!["0"], vec!["a"], vec!["b"]]);
    fake.let_through(4);
    for receipt in join_all(normal.into_iter().chain(high)).await {
        receipt.unwrap();
    }
    assert_eq!(fake.calls()[3], ["1", "2", "3", "4"]);
}

#[tokio::test(start_paused = true)]
async fn batches_hold_what_the_route_groups_together() {
    for (group_by, expected) in [
        ("'topic'", vec![vec!["0", "1", "2", "3", "4", "5"]]),
        (
            "'type'",
            vec![vec!["0", "3"], vec!["1", "4"], vec!["2", "5"]],
        ),
        ("2", vec![vec!["0", "1", "3", "4"], vec!["2", "5"]]),
    ] {
        let fake = Fake::new();
        let bus = fake
            .bus(&format!("batch = {{ group_by = {group_by} }}"))
            .await;
        let types = ["test.a.x", "test.a.y", "test.b"].into_iter().cycle();
        let events = types.zip(0..6).map(|(name, id)| event_of(name, id, None));
        for outcome in bus.publish_all(events).await {
            assert!(outcome.is_accepted());
        }
        assert_eq!(fake.calls(), expected, "{group_by}");
    }
}

#[tokio::test(start_paused = true)]
async fn one_call_fills_batches_and_keeps_the_order_of_outcomes() {
    let fake = Fake::new().script(|event, _| match event.id().parse::<u32>().unwrap() % 7 {
        0 => crate::fake::Answer::RejectForGood,
        1 => crate::fake::Answer::Lose,
        _ => crate::fake::Answer::Accept,
    });
    let bus = fake.bus("batch = { max_events = 100 }").await;
    let keys = ["a", "b", "c"];
    let events = (0..1000).map(|id| keyed(id, keys[id % 3]));
    let outcomes = bus.publish_all(events).await;
    for (id, outcome) in outcomes.iter().enumerate() {
        let right = match id % 7 {
            0 => matches!(outcome, Outcome::Rejected(_)),
            1 => matches!(outcome, Outcome::Unknown(_)),
            _ => outcome.is_accepted(),
        };
        assert!(right, "{id}: {outcome:?}");
    }
    assert_eq!(sizes(&fake), [100; 10]);
}

#[tokio::test(start_paused = true)]
async fn what_can_not_be_routed_has_its_place_among_the_outcomes() {
    let fake = Fake::new();
    let bus = fake.bus("").await;
    let events = [event(0), event_of("nobody", 1, None), event(2)];
    let outcomes = bus.publish_all(events).await;
    assert!(outcomes[0].is_accepted() && outcomes[2].is_accepted());
    let Outcome::Rejected(error) = &outcomes[1] else {
        panic!("{outcomes:?}");
    };
    assert_eq!(error.kind(), ErrorKind::NoRoute);
}

#[tokio::test(start_paused = true)]
async fn room_is_bounded_over_the_bus() {
    let fake = Fake::gated();
    let config = fake.config("", "[publishing]\nmax_queued_events = 3");
    let bus = fake.builder(&config).build().await.unwrap();
    let pending = [0, 1, 2].map(|id| bus.enqueue(event(id)).unwrap());
    let error = bus.try_publish(event(3)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Full, "{error}");
    assert_eq!(bus.publish_stats().queued_events, 3);

    let mut late = bus.enqueue(event("late")).unwrap();
    let mut waiting = Box::pin(bus.publish(event("waits")));
    assert!(futures::poll!(&mut late).is_pending());
    assert!(futures::poll!(waiting.as_mut()).is_pending());
    fake.let_through(10);
    late.await.unwrap();
    waiting.await.unwrap();
    join_all(pending)
        .await
        .into_iter()
        .for_each(|it| drop(it.unwrap()));
    bus.try_publish(event(4)).await.unwrap();
    let stats = bus.publish_stats();
    assert_eq!((stats.queued_events, stats.queued_bytes), (0, 0));
    assert_eq!(stats.accepted, 6);
}

#[tokio::test(start_paused = true)]
async fn one_call_with_more_events_than_room_ends() {
    for limit in ["max_queued_events = 7", "max_queued_bytes = 100"] {
        let fake = Fake::new().pauses([Duration::from_millis(3); 4]);
        let config = fake.config("", &format!("[publishing]\n{limit}"));
        let bus = fake.builder(&config).build().await.unwrap();
        let keys = ["a", "b"];
        let events = (0..500).map(|id| keyed(id, keys[id % 2]));
        let outcomes = bus.publish_all(events).await;
        assert!(outcomes.iter().all(Outcome::is_accepted));
        assert_eq!(bus.publish_stats().queued_bytes, 0);
        let ids: Vec<_> = (0..500).map(|id| id.to_string()).collect();
        for key in 0..2 {
            let of_key = |ids: &[String]| -> Vec<String> {
                let of_key = |id: &&String| id.parse::<usize>().unwrap() % 2 == key;
                ids.iter().filter(of_key).cloned().collect()
            };
            assert_eq!(of_key(&fake.stored_ids()), of_key(&ids));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_dropped_call_makes_room_for_the_next() {
    let fake = Fake::gated();
    let config = fake.config("", "[publishing]\nmax_queued_events = 2");
    let bus = fake.builder(&config).build().await.unwrap();
    {
        let mut lone = Box::pin(bus.publish(keyed(0, "k")));
        assert!(futures::poll!(lone.as_mut()).is_pending());
        let mut many = Box::pin(bus.publish_all((1..10).map(|id| keyed(id, "k"))));
        assert!(futures::poll!(many.as_mut()).is_pending());
    }
    fake.let_through(10);
    bus.publish(keyed(10, "k")).await.unwrap();
    bus.flush("1s").await.unwrap();
    assert_eq!(bus.publish_stats().queued_events, 0);
}
