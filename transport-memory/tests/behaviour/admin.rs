//! Management, and the factory.

use polybus_core::config::Section;
use polybus_core::transport::{
    Admin, KeyOrder, Lag, TopicDescription, TopicSpec, TransportConfig, TransportFactory,
};
use polybus_memory::MemoryFactory;

use super::*;

fn topics(names: &[&str]) -> Vec<Topic> {
    names.iter().map(|name| Topic::new(*name)).collect()
}

#[tokio::test]
async fn topics_are_made_once_and_described_in_the_order_asked() {
    let transport = MemoryTransport::new();
    let admin = transport.admin();
    publish(&transport, "t", &["1", "2"]).await;
    let specs = [TopicSpec::new("t").partitions(8), TopicSpec::new("u")];
    admin.ensure_topics(&specs).await.unwrap();
    let described = admin.describe(&topics(&["u", "none", "t"])).await.unwrap();
    let expected = [
        Some(TopicDescription::new("u", 1, 0)),
        None,
        Some(TopicDescription::new("t", 1, 2)),
    ];
    assert_eq!(described, expected);
    admin.health().await.unwrap();
}

#[tokio::test]
async fn lag_tells_waiting_from_pending() {
    let transport = MemoryTransport::new();
    let admin = transport.admin();
    let lag = async |group: &str| admin.lag(group, &topics(&["t"])).await.unwrap()[0];
    publish(&transport, "t", &["1", "2", "3"]).await;
    assert_eq!(lag("unknown").await, Lag::new(3, 0));
    let mut subscriber = subscribe(&transport, "g", &["t"]).await;
    assert_eq!(lag("g").await, Lag::new(3, 0));
    let deliveries = subscriber.recv(2).await.unwrap();
    assert_eq!(lag("g").await, Lag::new(1, 2));
    release(&subscriber, &deliveries[..1]).await;
    ack(&subscriber, &deliveries[1..]).await;
    assert_eq!(lag("g").await, Lag::new(2, 0));
    let deliveries = subscriber.recv(10).await.unwrap();
    ack(&subscriber, &deliveries).await;
    assert!(lag("g").await.is_zero());
}

#[tokio::test]
async fn the_lag_of_a_topic_that_does_not_exist_is_an_error_that_names_it() {
    let transport = MemoryTransport::new().named("bus");
    let error = transport
        .admin()
        .lag("g", &topics(&["none"]))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TopicNotFound);
    assert_eq!(error.operation(), Some("lag"));
    assert_eq!(error.transport(), Some("bus"));
    assert_eq!(error.topic(), Some("none"));
    assert!(transport.topics().is_empty(), "asking makes no topic");
}

#[tokio::test]
async fn the_factory_gives_each_section_a_broker_of_its_own() {
    let factory = MemoryFactory::new();
    assert_eq!(factory.kind(), "memory");
    let config = TransportConfig::new("bus", "service", Section::default());
    let one = factory.connect(config.clone()).await.unwrap();
    let two = factory.connect(config).await.unwrap();
    let publisher = one.publisher().await.unwrap();
    assert!(publisher.publish(&[outgoing("t", "1")]).await[0].is_accepted());
    let described = two.admin().describe(&topics(&["t"])).await.unwrap();
    assert_eq!(described, [None]);
    let error = two.admin().lag("g", &topics(&["t"])).await.unwrap_err();
    assert_eq!(error.transport(), Some("bus"));
}

#[test]
fn capabilities_are_declared() {
    let capabilities = MemoryTransport::new().capabilities();
    assert_eq!(capabilities.key_order, KeyOrder::Group);
    assert!(capabilities.delivery_count && capabilities.release);
    assert!(capabilities.start_at_time && capabilities.creates_topics);
    assert!(capabilities.discovery);
    assert!(!capabilities.durable && !capabilities.partitions);
}
