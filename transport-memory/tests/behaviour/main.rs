//! What the memory transport does, through its public API.

// Clippy takes only the test functions themselves for tests, not what they share.
#![allow(clippy::unwrap_used)]

mod admin;
mod groups;
mod publishing;
mod redelivery;
mod transactions;
mod waiting;

use polybus_core::transport::{
    AckToken, Delivery, Outcome, Outgoing, Publisher, Settlement, Settler, Subscriber,
    Subscription, Transport,
};
use polybus_core::{Error, ErrorKind, Event, Topic};
use polybus_memory::{MemorySettler, MemorySubscriber, MemoryTransport};

/// An event with this id, and with a key unless it is empty.
fn event(id: &str, key: &str) -> Event {
    let event = Event::builder("deal.closed").source("test").id(id);
    let event = match key {
        "" => event,
        key => event.key(key),
    };
    event.build().unwrap()
}

fn outgoing(topic: &str, id: &str) -> Outgoing {
    Outgoing::new(Topic::new(topic), event(id, ""))
}

/// Publishes events with these ids and no key.
async fn publish(transport: &MemoryTransport, topic: &str, ids: &[&str]) {
    let batch: Vec<_> = ids.iter().map(|id| outgoing(topic, id)).collect();
    publish_all(transport, &batch).await;
}

/// Publishes events with ids and keys, spelled `id:key`.
async fn publish_keyed(transport: &MemoryTransport, topic: &str, events: &[&str]) {
    let batch = events.iter().map(|spelled| {
        let (id, key) = spelled.split_once(':').unwrap();
        Outgoing::new(Topic::new(topic), event(id, key))
    });
    publish_all(transport, &batch.collect::<Vec<_>>()).await;
}

async fn publish_all(transport: &MemoryTransport, batch: &[Outgoing]) {
    let publisher = transport.publisher().await.unwrap();
    let outcomes = publisher.publish(batch).await;
    assert!(outcomes.iter().all(Outcome::is_accepted), "{outcomes:?}");
}

async fn subscribe(transport: &MemoryTransport, group: &str, topics: &[&str]) -> MemorySubscriber {
    let topics = topics.iter().map(|topic| Topic::new(*topic));
    let subscription = Subscription::new(group, topics);
    transport.subscribe(subscription).await.unwrap()
}

/// What is there now, without waiting.
async fn recv_now(subscriber: &mut MemorySubscriber, max: usize) -> Vec<Delivery> {
    tokio::select! {
        biased;
        deliveries = subscriber.recv(max) => deliveries.unwrap(),
        () = std::future::ready(()) => Vec::new(),
    }
}

/// The ids of events; `raw` for what is none.
fn ids(deliveries: &[Delivery]) -> Vec<&str> {
    let id = |delivery| match Delivery::event(delivery) {
        Ok(event) => event.id(),
        Err(_) => "raw",
    };
    deliveries.iter().map(id).collect()
}

fn attempts(deliveries: &[Delivery]) -> Vec<u32> {
    deliveries.iter().map(Delivery::attempt).collect()
}

fn tokens(deliveries: &[Delivery], settlement: Settlement) -> Vec<(AckToken, Settlement)> {
    let tokens = deliveries.iter().map(Delivery::token);
    tokens.map(|token| (token, settlement)).collect()
}

async fn settle(subscriber: &MemorySubscriber, deliveries: &[Delivery], settlement: Settlement) {
    let batch = tokens(deliveries, settlement);
    let results = subscriber.settler().settle(&batch).await;
    assert!(results.iter().all(Result::is_ok), "{results:?}");
}

async fn ack(subscriber: &MemorySubscriber, deliveries: &[Delivery]) {
    settle(subscriber, deliveries, Settlement::Ack).await;
}

async fn release(subscriber: &MemorySubscriber, deliveries: &[Delivery]) {
    settle(subscriber, deliveries, Settlement::Release).await;
}

/// The kinds of error of a settlement; `None` where it worked.
async fn settle_kinds(
    settler: &MemorySettler,
    deliveries: &[Delivery],
    settlement: Settlement,
) -> Vec<Option<ErrorKind>> {
    let results = settler.settle(&tokens(deliveries, settlement)).await;
    let kinds = results.iter().map(|it| it.as_ref().err().map(Error::kind));
    kinds.collect()
}
