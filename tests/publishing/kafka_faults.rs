//! Publishing on a real Kafka that dies, is cut off, is full, or refuses.

use polybus::{Effect, ErrorKind, Event};
use polybus_test_support::{KafkaServer, Request, Strike, TcpProxy, Then, unique_name};

use crate::faults::{Ledger, bus, in_time, named, other, stream_over};

const PRODUCE: Request = Request::Kafka(0);

fn section(brokers: &str, delivery_deadline: &str) -> String {
    format!(
        "kind = 'kafka'\nbrokers = ['{brokers}']\ndelivery_deadline = '{delivery_deadline}'\n\
         connect_deadline = '10s'"
    )
}

/// A Kafka that is reached through a proxy, and a topic with one partition.
struct Proxied {
    proxy: TcpProxy,
    server: KafkaServer,
    topic: String,
}

impl Proxied {
    async fn start() -> Self {
        let proxy = TcpProxy::start().await.unwrap();
        let server = KafkaServer::start_behind(&proxy).await.unwrap();
        let topic = unique_name("proxied");
        server.create_topic(&topic, 1).await.unwrap();
        Self {
            proxy,
            server,
            topic,
        }
    }

    fn section(&self, delivery_deadline: &str) -> String {
        section(&self.proxy.address().to_string(), delivery_deadline)
    }

    async fn stored(&self) -> Vec<String> {
        stored(&self.server, &self.topic).await
    }
}

/// The value of every record, which is the id of its event, as Kafka's own consumer reads them.
async fn stored(server: &KafkaServer, topic: &str) -> Vec<String> {
    let count: u64 = server.end_offsets(topic).await.unwrap().iter().sum();
    if count == 0 {
        return Vec::new();
    }
    let arguments = [
        "--topic",
        topic,
        "--from-beginning",
        "--max-messages",
        &count.to_string(),
        "--timeout-ms",
        "30000",
    ];
    let class = "org.apache.kafka.tools.consumer.ConsoleConsumer";
    let text = server.run_tool(class, &arguments, "").await.unwrap();
    let first_word = |line: &str| line.split(' ').next().unwrap().to_owned();
    let lines: Vec<_> = text.lines().map(first_word).collect();
    assert_eq!(lines.len() as u64, count);
    lines
}

#[tokio::test(flavor = "multi_thread")]
async fn over_a_kill_and_a_restart_of_kafka_every_outcome_is_true() {
    let server = KafkaServer::start().await.unwrap();
    let topic = unique_name("killed");
    server.create_topic(&topic, 4).await.unwrap();
    let bus = bus(&section(server.brokers(), "60s"), &topic, "", "").await;
    let ledger = stream_over(&bus, async {
        server.kill().await.unwrap();
        server.restart().await.unwrap();
    })
    .await;
    let stored = stored(&server, &topic).await;
    ledger.check(&stored);
    ledger.check_order(&stored);
    ledger.check_kept(&bus);
}

#[tokio::test(flavor = "multi_thread")]
async fn over_resets_of_the_network_to_kafka_every_outcome_is_true() {
    let kafka = Proxied::start().await;
    let bus = bus(&kafka.section("60s"), &kafka.topic, "", "").await;
    let ledger = stream_over(&bus, async {
        let proxy = &kafka.proxy;
        for strike in [
            Strike::LoseReply,
            Strike::LoseRequest,
            Strike::BreakReply(9),
        ] {
            proxy.strike(PRODUCE, strike, Then::GoOn).happened().await;
        }
        for _ in 0..3 {
            proxy.reset();
            // Until the bus is through again.
            proxy
                .strike(PRODUCE, Strike::LoseReply, Then::GoOn)
                .happened()
                .await;
        }
    })
    .await;
    let stored = kafka.stored().await;
    ledger.check(&stored);
    ledger.check_order(&stored);
    ledger.check_kept(&bus);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reply_of_kafka_that_is_lost_is_asked_for_again_and_the_event_stored_once() {
    let kafka = Proxied::start().await;
    let bus = bus(&kafka.section("60s"), &kafka.topic, "", "").await;
    let mut ledger = Ledger::default();
    ledger.publish(&bus, named("before", None)).await;
    let struck = kafka.proxy.strike(PRODUCE, Strike::LoseReply, Then::GoOn);
    ledger.publish(&bus, named("lost", None)).await;
    struck.happened().await;
    ledger.publish(&bus, named("next", None)).await;
    assert_eq!(ledger.accepted, ["before", "lost", "next"]);
    let stored = kafka.stored().await;
    assert_eq!(stored, ["before", "lost", "next"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_reply_or_request_that_stays_lost_is_unknown() {
    let kafka = Proxied::start().await;
    let bus = bus(&kafka.section("3s"), &kafka.topic, "", "").await;
    let mut ledger = Ledger::default();
    ledger.publish(&bus, named("before", None)).await;
    for (id, strike) in [
        ("reply", Strike::LoseReply),
        ("request", Strike::LoseRequest),
    ] {
        let struck = kafka.proxy.strike(PRODUCE, strike, Then::StayCut);
        ledger.publish(&bus, named(id, None)).await;
        struck.happened().await;
        ledger.check_unknown(id);
        kafka.proxy.mend();
        let after = format!("after-{id}");
        // The client may still be waiting to connect again.
        while !ledger.accepted.contains(&after) {
            ledger.rejected.remove(&after);
            assert!(!ledger.unknown.contains_key(&after));
            ledger.publish(&bus, named(&after, None)).await;
        }
    }
    let stored = kafka.stored().await;
    ledger.check(&stored);
    assert!(stored.contains(&"reply".to_owned()));
    assert!(!stored.contains(&"request".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kafka_that_says_nothing_holds_nobody_past_the_deadline() {
    let kafka = Proxied::start().await;
    let retry = "retry = { max_attempts = 1 }";
    let bus = bus(&kafka.section("3s"), &kafka.topic, retry, "").await;
    let mut ledger = Ledger::default();
    ledger.publish(&bus, named("before", None)).await;
    kafka.proxy.half_open();
    let silent = (0..250).map(|number| named(number, None)).collect();
    ledger.publish_all(&bus, silent).await;
    assert_eq!(ledger.accepted, ["before"]);
    assert_eq!(ledger.unknown.len() + ledger.rejected.len(), 250);
    ledger.check(&kafka.stored().await);
    ledger.check_kept(&bus);
}

#[tokio::test(flavor = "multi_thread")]
async fn while_kafka_is_silent_the_bus_is_full_and_not_more() {
    let server = KafkaServer::start().await.unwrap();
    let topic = unique_name("full");
    server.create_topic(&topic, 1).await.unwrap();
    let bounds = "[publishing]\nmax_queued_events = 5";
    let bus = bus(&section(server.brokers(), "60s"), &topic, "", bounds).await;
    let mut ledger = Ledger::default();
    ledger.publish(&bus, named("before", None)).await;
    server.pause().await.unwrap();
    let taken: Vec<_> = (0..5)
        .map(|number| bus.enqueue(named(number, None)).unwrap())
        .collect();
    let error = bus.try_publish(named("over", None)).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.effect()),
        (ErrorKind::Full, Effect::NotApplied)
    );
    ledger.rejected.insert("over".to_owned(), error);
    let waits = bus.publish(named("waits", None));
    server.resume().await.unwrap();
    for (number, pending) in taken.into_iter().enumerate() {
        in_time(pending).await.unwrap();
        ledger.accepted.push(number.to_string());
    }
    in_time(waits).await.unwrap();
    ledger.accepted.push("waits".to_owned());
    ledger.check(&stored(&server, &topic).await);
}

fn large(id: &str, size: usize) -> Event {
    let mut data = format!("{id} ");
    data.extend(std::iter::repeat_n('x', size));
    named(id, None).to_builder().data(data).build().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_batch_only_the_event_over_the_brokers_limit_is_rejected() {
    let server = KafkaServer::shared().await;
    let topic = unique_name("large");
    server.create_topic(&topic, 1).await.unwrap();
    let limit = [
        "--alter",
        "--entity-type",
        "topics",
        "--entity-name",
        &topic,
        "--add-config",
        "max.message.bytes=100000",
    ];
    let class = "kafka.admin.ConfigCommand";
    server.run_tool(class, &limit, "").await.unwrap();
    let bus = bus(&section(server.brokers(), "20s"), &topic, "", "").await;
    for round in 0..5 {
        let mut ledger = Ledger::default();
        let id = |name: &str| format!("{round}-{name}");
        let mut events: Vec<_> = (0..40)
            .map(|number| named(id(&number.to_string()), None))
            .collect();
        events.insert(20, large(&id("large"), 300_000));
        ledger.publish_all(&bus, events).await;
        ledger.check_rejected(&id("large"), ErrorKind::TooLarge);
        assert_eq!(ledger.rejected.len(), 1, "{:?}", ledger.rejected);
        assert_eq!(ledger.accepted.len(), 40);
        let stored = stored(server, &topic).await;
        let prefix = format!("{round}-");
        let stored: Vec<_> = stored
            .into_iter()
            .filter(|it| it.starts_with(&prefix))
            .collect();
        ledger.check(&stored);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_kafka_does_not_make_by_itself_is_told_of() {
    let server = KafkaServer::shared().await;
    let topic = unique_name("made");
    server.create_topic(&topic, 1).await.unwrap();
    let missing = unique_name("missing");
    let route =
        format!("[[routes]]\npattern = 'other.*'\ntransport = 'server'\ntopic = '{missing}'");
    let bus = bus(&section(server.brokers(), "20s"), &topic, "", &route).await;
    let mut ledger = Ledger::default();
    let events = vec![named(1, None), other("other"), named(2, None)];
    ledger.publish_all(&bus, events).await;
    ledger.check_rejected("other", ErrorKind::TopicNotFound);
    let error = &ledger.rejected["other"];
    assert_eq!(error.topic(), Some(missing.as_str()));
    assert!(error.to_string().contains("create it first"), "{error}");
    ledger.check(&stored(server, &topic).await);
    assert!(server.end_offsets(&missing).await.is_err());
}
