//! Receiving: what wakes it, and what dropping it loses (nothing).

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use polybus_core::topic::{TopicPart, TopicPattern};
use tokio::task::JoinHandle;

use super::*;

/// A receive that waits beside the test.
async fn recv_beside(
    mut subscriber: MemorySubscriber,
) -> JoinHandle<(MemorySubscriber, Vec<Delivery>)> {
    let receiving = tokio::spawn(async move {
        let deliveries = subscriber.recv(10).await.unwrap();
        (subscriber, deliveries)
    });
    tokio::task::yield_now().await;
    assert!(!receiving.is_finished());
    receiving
}

#[tokio::test]
async fn an_event_wakes_every_group_that_waits() {
    let transport = MemoryTransport::new();
    let one = recv_beside(subscribe(&transport, "one", &["t"]).await).await;
    let two = recv_beside(subscribe(&transport, "two", &["t"]).await).await;
    publish(&transport, "t", &["1"]).await;
    for receiving in [one, two] {
        let (_subscriber, deliveries) = receiving.await.unwrap();
        assert_eq!(ids(&deliveries), ["1"]);
    }
}

#[tokio::test]
async fn a_release_a_freed_key_and_a_death_wake_the_others() {
    let transport = MemoryTransport::new();
    let mut busy = subscribe(&transport, "g", &["t"]).await;
    let idle = subscribe(&transport, "g", &["t"]).await;
    publish_keyed(&transport, "t", &["1:a"]).await;
    let held = busy.recv(1).await.unwrap();

    let receiving = recv_beside(idle).await;
    release(&busy, &held).await;
    let (idle, deliveries) = receiving.await.unwrap();
    assert_eq!(ids(&deliveries), ["1"]);
    ack(&idle, &deliveries).await;

    publish_keyed(&transport, "t", &["2:a", "3:a"]).await;
    let held = busy.recv(1).await.unwrap();
    let receiving = recv_beside(idle).await;
    ack(&busy, &held).await;
    let (idle, deliveries) = receiving.await.unwrap();
    assert_eq!(ids(&deliveries), ["3"]);
    ack(&idle, &deliveries).await;

    publish_keyed(&transport, "t", &["4:a"]).await;
    assert_eq!(busy.recv(1).await.unwrap().len(), 1);
    let receiving = recv_beside(idle).await;
    drop(busy);
    let (_idle, deliveries) = receiving.await.unwrap();
    assert_eq!(ids(&deliveries), ["4"]);
}

#[tokio::test]
async fn what_another_member_set_aside_is_there_for_the_holder_of_its_key() {
    let transport = MemoryTransport::new();
    let mut holder = subscribe(&transport, "g", &["t"]).await;
    let mut other = subscribe(&transport, "g", &["t"]).await;
    publish_keyed(&transport, "t", &["1:a"]).await;
    let held = holder.recv(1).await.unwrap();
    publish_keyed(&transport, "t", &["2:a"]).await;
    assert!(recv_now(&mut other, 10).await.is_empty());
    assert_eq!(ids(&holder.recv(10).await.unwrap()), ["2"]);
    drop(held);
}

#[tokio::test]
async fn a_new_topic_that_fits_wakes_a_group_that_waits_for_it() {
    let transport = MemoryTransport::new();
    let any = TopicPattern::new([TopicPart::Any]);
    let subscription = Subscription::new("g", []).patterns([any]);
    let subscriber = transport.subscribe(subscription).await.unwrap();
    let receiving = recv_beside(subscriber).await;
    publish(&transport, "new", &["1"]).await;
    let (_subscriber, deliveries) = receiving.await.unwrap();
    assert_eq!(ids(&deliveries), ["1"]);
}

#[tokio::test]
async fn a_dropped_receive_loses_neither_events_nor_the_wake_up() {
    let transport = MemoryTransport::new();
    let mut subscriber = subscribe(&transport, "g", &["t"]).await;
    for id in ["1", "2", "3"] {
        assert!(recv_now(&mut subscriber, 10).await.is_empty());
        publish(&transport, "t", &[id]).await;
        let deliveries = subscriber.recv(10).await.unwrap();
        assert_eq!(ids(&deliveries), [id]);
        assert_eq!(attempts(&deliveries), [1]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_receive_without_events_sleeps() {
    let transport = MemoryTransport::new();
    let mut subscriber = subscribe(&transport, "g", &["t"]).await;
    // Paused time goes on only while every task sleeps.
    let hour = std::time::Duration::from_secs(3600);
    let received = tokio::time::timeout(hour, subscriber.recv(1)).await;
    assert!(received.is_err());
}

#[tokio::test]
async fn no_more_is_returned_than_asked_for_and_at_least_one() {
    let transport = MemoryTransport::new();
    let mut subscriber = subscribe(&transport, "g", &["t", "u"]).await;
    publish(&transport, "t", &["1", "2"]).await;
    publish(&transport, "u", &["3", "4"]).await;
    assert_eq!(subscriber.recv(3).await.unwrap().len(), 3);
    assert_eq!(subscriber.recv(0).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_publisher_that_never_waits_leaves_its_thread_to_readers() {
    let transport = MemoryTransport::new();
    let mut subscriber = subscribe(&transport, "g", &["t"]).await;
    let receiving = tokio::spawn(async move { subscriber.recv(1).await.unwrap().len() });
    let publisher = transport.publisher().await.unwrap();
    let batch = [outgoing("t", "1")];
    for _ in 0..10_000 {
        assert!(publisher.publish(&batch).await[0].is_accepted());
        if receiving.is_finished() {
            return;
        }
    }
    panic!("the reader never had its turn");
}

/// What members did in the test below: how often each event was acknowledged.
#[derive(Default)]
struct Journal {
    acked: std::sync::Mutex<HashMap<String, usize>>,
    left: AtomicUsize,
}

/// Receives, drops every third receive, releases and dies now and then, until all is acked.
async fn member(transport: MemoryTransport, journal: Arc<Journal>) {
    let mut subscriber = subscribe(&transport, "g", &["t", "u"]).await;
    for turn in 0_usize.. {
        if journal.left.load(Ordering::SeqCst) == 0 {
            return;
        }
        let deliveries = tokio::select! {
            deliveries = subscriber.recv(7) => deliveries.unwrap(),
            () = tokio::task::yield_now() => continue,
        };
        match turn % 50 {
            10 => subscriber = subscribe(&transport, "g", &["t", "u"]).await,
            20 | 30 => release(&subscriber, &deliveries).await,
            _ => {
                ack(&subscriber, &deliveries).await;
                let mut acked = journal.acked.lock().unwrap();
                for id in ids(&deliveries) {
                    *acked.entry(id.to_owned()).or_default() += 1;
                }
                journal.left.fetch_sub(deliveries.len(), Ordering::SeqCst);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn under_load_with_deaths_releases_and_dropped_receives_each_event_is_acked_once() {
    const EVENTS: usize = 20_000;
    let transport = MemoryTransport::new();
    let journal = Arc::new(Journal::default());
    journal.left.store(EVENTS, Ordering::SeqCst);
    let members: Vec<_> = (0..3)
        .map(|_| tokio::spawn(member(transport.clone(), Arc::clone(&journal))))
        .collect();
    for start in (0..EVENTS).step_by(20) {
        let batch = (start..start + 20).map(|id| {
            let topic = Topic::new(["t", "u"][id % 2]);
            Outgoing::new(topic, event(&id.to_string(), &(id % 16).to_string()))
        });
        publish_all(&transport, &batch.collect::<Vec<_>>()).await;
    }
    for member in members {
        member.await.unwrap();
    }
    let acked = journal.acked.lock().unwrap();
    assert_eq!(acked.len(), EVENTS);
    assert!(acked.values().all(|times| *times == 1));
}
