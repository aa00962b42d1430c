//! Events that are stored all or none, with and without acknowledgements.

use polybus_core::Effect;
use polybus_memory::MemoryConfig;
use tokio::time::{Duration, timeout};

use super::*;

fn small() -> MemoryTransport {
    let mut config = MemoryConfig::default();
    config.max_events = 4;
    config.delivery_deadline = Duration::from_secs(5);
    MemoryTransport::with_config(&config).unwrap()
}

fn batch(topic: &str, count: usize) -> Vec<Outgoing> {
    (0..count)
        .map(|number| outgoing(topic, &number.to_string()))
        .collect()
}

#[tokio::test(start_paused = true)]
async fn a_transaction_waits_until_there_is_room_for_all_of_it() {
    let transport = small();
    let mut reader = subscribe(&transport, "g", &["full"]).await;
    publish(&transport, "full", &["a", "b", "c"]).await;
    let publisher = transport.publisher().await.unwrap();
    let mut all = batch("empty", 1);
    all.extend(batch("full", 2));
    let mut waiting = Box::pin(publisher.publish_together(&all));
    assert!(timeout(Duration::from_secs(1), &mut waiting).await.is_err());
    // Nothing of it, though one of its topics has room.
    assert!(transport.events("empty").is_empty());
    let held = recv_now(&mut reader, 1).await;
    ack(&reader, &held).await;
    assert_eq!(waiting.await.unwrap().len(), 3);
    assert_eq!(transport.events("empty").len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_transaction_without_room_stores_nothing() {
    let transport = small();
    let _reader = subscribe(&transport, "g", &["full"]).await;
    publish(&transport, "full", &["a", "b", "c"]).await;
    let publisher = transport.publisher().await.unwrap();
    let mut all = batch("empty", 1);
    all.extend(batch("full", 2));
    let error = publisher.publish_together(&all).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.effect()),
        (ErrorKind::Full, Effect::NotApplied)
    );
    assert_eq!(error.topic(), Some("full"));
    let never = publisher.publish_together(&batch("empty", 5)).await;
    let error = never.unwrap_err();
    assert_eq!(
        (error.kind(), error.retryable()),
        (ErrorKind::TooLarge, false)
    );
    assert!(transport.events("empty").is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_step_wakes_who_waits_for_room() {
    let transport = small();
    let mut reader = subscribe(&transport, "g", &["t"]).await;
    publish(&transport, "t", &["a", "b", "c", "d"]).await;
    let held = recv_now(&mut reader, 4).await;
    let publisher = transport.publisher().await.unwrap();
    let more = batch("t", 1);
    let mut waiting = Box::pin(publisher.publish(&more));
    assert!(timeout(Duration::from_secs(1), &mut waiting).await.is_err());
    let acks: Vec<_> = held.iter().map(Delivery::token).collect();
    let settler = reader.settler();
    settler
        .settle_together(&acks, &batch("u", 2))
        .await
        .unwrap();
    assert!(waiting.await[0].is_accepted());
    assert_eq!(transport.events("u").len(), 2);
}

#[tokio::test]
async fn a_step_of_what_was_settled_in_part_is_stale() {
    let transport = MemoryTransport::new();
    let mut reader = subscribe(&transport, "g", &["t"]).await;
    publish(&transport, "t", &["a", "b"]).await;
    let held = recv_now(&mut reader, 2).await;
    ack(&reader, &held[..1]).await;
    let acks: Vec<_> = held.iter().map(Delivery::token).collect();
    let step = reader
        .settler()
        .settle_together(&acks, &batch("u", 1))
        .await;
    assert_eq!(step.unwrap_err().kind(), ErrorKind::Stale);
    assert!(transport.events("u").is_empty());
}
