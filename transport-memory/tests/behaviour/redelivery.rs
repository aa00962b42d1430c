//! What was delivered and not acknowledged.

use tokio::time::Instant;

use super::*;

#[tokio::test]
async fn a_released_event_comes_back_at_once_and_counts_up() {
    let transport = MemoryTransport::new();
    let mut subscriber = subscribe(&transport, "g", &["t"]).await;
    publish(&transport, "t", &["1", "2"]).await;
    for attempt in 1..4 {
        let deliveries = subscriber.recv(1).await.unwrap();
        assert_eq!(ids(&deliveries), ["1"]);
        assert_eq!(attempts(&deliveries), [attempt]);
        release(&subscriber, &deliveries).await;
    }
    let deliveries = subscriber.recv(10).await.unwrap();
    assert_eq!(ids(&deliveries), ["1", "2"]);
    assert_eq!(attempts(&deliveries), [4, 1]);
}

#[tokio::test]
async fn what_a_closed_member_held_goes_to_another() {
    let transport = MemoryTransport::new();
    let mut one = subscribe(&transport, "g", &["t"]).await;
    let mut two = subscribe(&transport, "g", &["t"]).await;
    publish_keyed(&transport, "t", &["1:a", "2:a", "3:b"]).await;
    let deliveries = one.recv(10).await.unwrap();
    ack(&one, &deliveries[..1]).await;
    one.close(Instant::now()).await.unwrap();
    let deliveries = two.recv(10).await.unwrap();
    assert_eq!(ids(&deliveries), ["2", "3"]);
    assert_eq!(attempts(&deliveries), [2, 2]);
}

#[tokio::test]
async fn what_a_dead_member_held_goes_to_the_next_one_before_anything_newer() {
    let transport = MemoryTransport::new();
    let mut dead = subscribe(&transport, "g", &["t"]).await;
    publish_keyed(&transport, "t", &["1:a", "2:a"]).await;
    assert_eq!(dead.recv(10).await.unwrap().len(), 2);
    drop(dead);
    publish_keyed(&transport, "t", &["3:a"]).await;
    let mut next = subscribe(&transport, "g", &["t"]).await;
    let deliveries = next.recv(10).await.unwrap();
    assert_eq!(ids(&deliveries), ["1", "2", "3"]);
    assert_eq!(attempts(&deliveries), [2, 2, 1]);
}

#[tokio::test]
async fn a_settlement_of_a_member_that_left_is_stale_and_settles_nothing() {
    let transport = MemoryTransport::new().named("bus");
    let mut dead = subscribe(&transport, "g", &["t"]).await;
    let settler = dead.settler();
    publish(&transport, "t", &["1"]).await;
    let old = dead.recv(1).await.unwrap();
    assert!(settler.is_current(old[0].token()));
    drop(dead);
    assert!(!settler.is_current(old[0].token()));
    let mut next = subscribe(&transport, "g", &["t"]).await;
    assert_eq!(next.recv(1).await.unwrap().len(), 1);
    for settlement in [Settlement::Ack, Settlement::Release] {
        let results = settler.settle(&tokens(&old, settlement)).await;
        let error = results[0].as_ref().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Stale);
        assert_eq!(error.operation(), Some("settle"));
        assert_eq!(error.transport(), Some("bus"));
    }
    drop(next);
    let mut last = subscribe(&transport, "g", &["t"]).await;
    assert_eq!(attempts(&last.recv(1).await.unwrap()), [3]);
}

#[tokio::test]
async fn a_settlement_after_a_release_is_stale_once_another_has_the_event() {
    let transport = MemoryTransport::new();
    let mut one = subscribe(&transport, "g", &["t"]).await;
    let mut two = subscribe(&transport, "g", &["t"]).await;
    publish(&transport, "t", &["1"]).await;
    let old = one.recv(1).await.unwrap();
    release(&one, &old).await;
    assert!(!one.settler().is_current(old[0].token()));
    let new = two.recv(1).await.unwrap();
    assert!(two.settler().is_current(new[0].token()));
    let stale = [Some(ErrorKind::Stale)];
    for settlement in [Settlement::Ack, Settlement::Release] {
        assert_eq!(settle_kinds(&one.settler(), &old, settlement).await, stale);
    }
    assert_eq!(
        settle_kinds(&two.settler(), &old, Settlement::Ack).await,
        stale
    );
    ack(&two, &new).await;
}

#[tokio::test]
async fn a_batch_is_settled_in_any_order_one_result_for_each() {
    let transport = MemoryTransport::new();
    let mut subscriber = subscribe(&transport, "g", &["t", "u"]).await;
    publish(&transport, "t", &["1", "2"]).await;
    publish(&transport, "u", &["3"]).await;
    let mut other = subscribe(&transport, "h", &["t"]).await;
    let foreign = other.recv(1).await.unwrap();
    let deliveries = subscriber.recv(10).await.unwrap();
    let token = |index: usize| deliveries[index].token();
    let batch = [
        (token(2), Settlement::Ack),
        (token(1), Settlement::Release),
        (foreign[0].token(), Settlement::Ack),
        (AckToken::new(99, token(0).epoch, [0, 1]), Settlement::Ack),
        (token(0), Settlement::Ack),
        (token(0), Settlement::Ack),
    ];
    let results = subscriber.settler().settle(&batch).await;
    let worked: Vec<_> = results.iter().map(Result::is_ok).collect();
    assert_eq!(worked, [true, true, false, false, true, true]);
    assert_eq!(ids(&recv_now(&mut subscriber, 10).await), ["2"]);
    assert!(recv_now(&mut subscriber, 10).await.is_empty());
}

#[tokio::test]
async fn a_live_member_keeps_what_it_has_however_long_it_takes() {
    let transport = MemoryTransport::new();
    let subscription = Subscription::new("g", [Topic::new("t")]);
    let subscription = subscription.takeover_after(std::time::Duration::ZERO);
    let mut slow = transport.subscribe(subscription.clone()).await.unwrap();
    let mut idle = transport.subscribe(subscription).await.unwrap();
    publish(&transport, "t", &["1"]).await;
    let deliveries = slow.recv(1).await.unwrap();
    assert!(recv_now(&mut idle, 1).await.is_empty());
    ack(&slow, &deliveries).await;
}
