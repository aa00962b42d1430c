//! Data that name their schemas in a registry: a memory transport, and a registry by other authors.

use std::sync::{Arc, Mutex};

use polybus::codec::{DataSchema, Frame};
use polybus::registry::{MemoryRegistry, SchemaRegistry};
use polybus::transport::{Admin, Outgoing, Publisher, RawRecord, Transport};
use polybus::version::Migration;
use polybus::{
    Bus, Config, Error, ErrorKind, Event, Headers, Payload, Result, State, TestBus, Topic,
};
use polybus_test_support::SchemaRegistryServer;
use serde::{Deserialize, Serialize};

use super::codecs::{OrderPaid, OrderPlaced, paid, placed};

/// An older minor version of an order: without a note.
#[derive(Event, Serialize, Deserialize)]
#[event(type = "order.placed", version = "2.0.0", key = id, avro = "schemas/order_older.avsc")]
struct Older {
    id: String,
    cents: i64,
}

/// The major version before.
#[derive(Event, Serialize, Deserialize)]
#[event(type = "order.placed", version = "1.0.0", key = id, avro = "schemas/order_first.avsc")]
struct First {
    id: String,
    euros: i64,
}

fn config(url: &str, codec: &str, more: &str) -> Config {
    let text = format!(
        "service.name = 'orders'\n[transports.t]\nkind = 'memory'\n\
         [schema_registry]\nurl = '{url}'\ntimeout = '2s'\n\
         [[routes]]\npattern = '{pattern}'\ntransport = 't'\ntopic = 'orders'\ncodec = '{codec}'\n\
         schema_registry = true\n{more}\n\
         [subscriptions.s]\nretry = {{ max_attempts = 1 }}\n",
        pattern = if codec == "avro" {
            "order.placed"
        } else {
            "order.paid"
        },
    );
    Config::parse(&text, "polybus.toml").unwrap()
}

async fn bus(url: &str, codec: &str, more: &str) -> TestBus {
    let builder = Bus::builder().config(config(url, codec, more));
    TestBus::on(builder).await.unwrap()
}

type Seen<T> = Arc<Mutex<Vec<T>>>;

async fn take(Payload(order): Payload<OrderPlaced>, State(seen): State<Seen<OrderPlaced>>) {
    seen.lock().unwrap().push(order);
}

async fn take_paid(Payload(order): Payload<OrderPaid>, State(seen): State<Seen<OrderPaid>>) {
    seen.lock().unwrap().push(order);
}

/// What stands in the topic, read past all layers of ours.
async fn stored(bus: &Bus) -> Vec<Event> {
    let admin = bus.transport("t").unwrap().admin();
    let stored = admin.browse(&Topic::new("orders"), &[], 100).await.unwrap();
    let stored = stored.iter();
    stored.map(|it| it.event().unwrap().clone()).collect()
}

/// Publishes a record as another program would.
async fn write(bus: &Bus, headers: Headers, value: Vec<u8>) {
    let record = RawRecord::new(None, headers, Some(value.into()));
    let outgoing = Outgoing::raw(Topic::new("orders"), record);
    let publisher = bus.transport("t").unwrap().publisher().await.unwrap();
    let outcomes = publisher.publish(&[outgoing]).await;
    assert!(matches!(outcomes[..], [polybus::Outcome::Accepted(_)]));
}

#[tokio::test]
async fn data_name_their_schema_and_are_read_by_it() {
    let registry = SchemaRegistryServer::start().await.unwrap();
    let bus = bus(&registry.url(), "avro", "").await;
    let seen = Seen::default();
    let subscription = bus.subscribe("s").state(Arc::clone(&seen));
    subscription.on(take).start().await.unwrap();
    bus.publish(placed()).await.unwrap();
    bus.publish(Older {
        id: "o2".into(),
        cents: 7,
    })
    .await
    .unwrap();
    bus.settle().await;
    bus.dead_letters().assert_empty();
    let older = OrderPlaced {
        id: "o2".into(),
        cents: 7,
        note: None,
    };
    assert_eq!(*seen.lock().unwrap(), [placed(), older]);
    let ids: Vec<_> = stored(&bus)
        .await
        .iter()
        .map(|event| {
            assert_eq!(event.content_type(), Some("application/avro"));
            Frame::parse(event.data().unwrap()).unwrap().schema
        })
        .collect();
    assert_eq!(ids.len(), 2);
    assert_ne!(ids[0], ids[1]);
}

#[tokio::test]
async fn protobuf_says_which_message_it_is() {
    let registry = SchemaRegistryServer::start().await.unwrap();
    let bus = bus(&registry.url(), "protobuf", "").await;
    let seen = Seen::default();
    let subscription = bus.subscribe("s").state(Arc::clone(&seen));
    subscription.on(take_paid).start().await.unwrap();
    bus.publish(paid()).await.unwrap();
    bus.settle().await;
    assert_eq!(*seen.lock().unwrap(), [paid()]);
    let stored = stored(&bus).await;
    let frame = Frame::parse(stored[0].data().unwrap()).unwrap();
    assert_eq!(frame.body, b"\0\x0a\x02o1\x10\xe3\x07");
}

#[tokio::test]
async fn what_other_programs_wrote_without_an_envelope_is_read_by_its_schema() {
    let registry = SchemaRegistryServer::start().await.unwrap();
    let bus = bus(&registry.url(), "avro", "format = 'plain'").await;
    let seen = Seen::default();
    let subscription = bus.subscribe("s").state(Arc::clone(&seen));
    subscription.on(take).start().await.unwrap();
    bus.publish(placed()).await.unwrap();
    bus.settle().await;
    write(&bus, Headers::new(), b"\0\0\0\0\x01\x04o3\x0e\0".to_vec()).await;
    bus.settle().await;
    bus.dead_letters().assert_empty();
    let other = OrderPlaced {
        id: "o3".into(),
        cents: 7,
        note: None,
    };
    assert_eq!(*seen.lock().unwrap(), [placed(), other]);
}

#[tokio::test]
async fn a_step_on_json_migrates_avro_whose_schema_is_registered() {
    let registry = SchemaRegistryServer::start().await.unwrap();
    let step = Migration::new("order.placed", "1.0.0", "2.0.0", |mut data| {
        let euros = data["euros"].take().as_i64().ok_or("no euros")?;
        data["cents"] = (euros * 100).into();
        Ok(data)
    });
    let builder = Bus::builder().config(config(&registry.url(), "avro", ""));
    let bus = TestBus::on(builder.migration(step)).await.unwrap();
    let seen = Seen::default();
    let subscription = bus.subscribe("s").state(Arc::clone(&seen));
    subscription.on(take).start().await.unwrap();
    bus.publish(First {
        id: "o1".into(),
        euros: 9,
    })
    .await
    .unwrap();
    bus.settle().await;
    bus.dead_letters().assert_empty();
    assert_eq!(seen.lock().unwrap()[0].cents, 900);
}

/// Delivers garbage and gives the reason of its dead letter, whose bytes are as they came.
async fn reason(bus: &TestBus, data: &'static [u8]) -> String {
    let seen = Seen::<OrderPlaced>::default();
    let subscription = bus.subscribe("s").state(seen);
    subscription.on(take).start().await.unwrap();
    let event = bus.event("order.placed").data("application/avro", data);
    event.publish().await.unwrap();
    bus.settle().await;
    let letters = bus.dead_letters();
    let letter = letters.only();
    assert_eq!(letter.event().unwrap().data().unwrap()[..], *data);
    letter.reason().to_owned()
}

#[tokio::test]
async fn an_unknown_schema_becomes_a_dead_letter_with_the_bytes() {
    let registry = SchemaRegistryServer::start().await.unwrap();
    let bus = bus(&registry.url(), "avro", "").await;
    let reason = reason(&bus, b"\0\0\0\0\x63data").await;
    assert!(reason.contains("has no schema 99"), "{reason}");
}

#[tokio::test]
async fn garbage_behind_a_known_schema_becomes_a_dead_letter_with_the_bytes() {
    let registry = SchemaRegistryServer::start().await.unwrap();
    let bus = bus(&registry.url(), "avro", "").await;
    bus.publish(placed()).await.unwrap();
    let reason = reason(&bus, b"\0\0\0\0\x01\xff\xff\xff").await;
    assert!(reason.contains("not what the handler takes"), "{reason}");
}

#[tokio::test]
async fn without_the_registry_what_comes_becomes_a_dead_letter_and_what_goes_is_refused() {
    let registry = SchemaRegistryServer::start().await.unwrap();
    let bus = bus(&registry.url(), "avro", "retry = { max_attempts = 1 }").await;
    registry.kill().await.unwrap();
    let reason = reason(&bus, b"\0\0\0\0\x01\x04o1\x0e\0").await;
    assert!(reason.contains("can't be reached"), "{reason}");
    let error = bus.publish(placed()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Connect, "{error}");
    assert!(error.retryable());
}

/// A registry that can't be reached while schemas with a note are asked for, some times.
#[derive(Debug)]
struct Failing {
    left: Mutex<u32>,
    inner: MemoryRegistry,
}

#[async_trait::async_trait]
impl SchemaRegistry for Failing {
    async fn register(&self, subject: &str, schema: &DataSchema) -> Result<u32> {
        if schema.text().contains("note") {
            let mut left = self.left.lock().unwrap();
            if *left > 0 {
                *left -= 1;
                return Err(Error::new(ErrorKind::Connect, "not now"));
            }
        }
        self.inner.register(subject, schema).await
    }

    async fn schema(&self, id: u32) -> Result<DataSchema> {
        self.inner.schema(id).await
    }
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_the_registry_keeps_its_order() {
    let registry = Failing {
        left: Mutex::new(4),
        inner: MemoryRegistry::default(),
    };
    let gathered = "batch = { max_wait = '5ms' }\nretry = { max_attempts = 20 }";
    let config = config("http://nowhere.invalid", "avro", gathered);
    let builder = Bus::builder().config(config).schema_registry(registry);
    let bus = TestBus::on(builder).await.unwrap();
    let second = Older {
        id: "o1".into(),
        cents: 7,
    };
    let (first, second) = tokio::join!(bus.publish(placed()), bus.publish(second));
    first.unwrap();
    second.unwrap();
    let stored = stored(&bus).await;
    let sizes = stored.iter().map(|event| event.data().unwrap().len());
    assert_eq!(
        sizes.collect::<Vec<_>>(),
        [11, 9],
        "the order of publishing"
    );
}

#[tokio::test]
async fn a_bus_in_memory_has_a_registry_of_its_own() -> Result<()> {
    let config = config("http://nowhere.invalid", "avro", "");
    let bus = TestBus::on(Bus::builder().config(config).in_memory()).await?;
    let seen = Seen::default();
    let subscription = bus.subscribe("s").state(Arc::clone(&seen));
    subscription.on(take).start().await?;
    bus.publish(placed()).await?;
    bus.settle().await;
    assert_eq!(*seen.lock().unwrap(), [placed()]);
    Ok(())
}

#[tokio::test]
async fn a_route_that_asks_for_a_registry_needs_one_and_a_codec_with_schemas() {
    let text = "service.name = 's'\n[transports.t]\nkind = 'memory'\n\
        [[routes]]\npattern = '*'\ntransport = 't'\ntopic = 't'\ncodec = 'avro'\nschema_registry = true\n";
    for (text, parts) in [
        (text.to_owned(), ["polybus.toml:9", "no schema registry"]),
        (
            text.replace("avro", "message_pack"),
            ["polybus.toml:9", "`message_pack`"],
        ),
        (
            text.replace("'*'", "'user.created'")
                .replace("avro", "json")
                .replace("codec", "format = 'flat'\ncodec")
                + "[schema_registry]\nurl = 'http://nowhere.invalid'\n",
            ["polybus.toml:8", "`flat`"],
        ),
    ] {
        let config = Config::parse(&text, "polybus.toml").unwrap();
        let error = Bus::builder().config(config).build().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        for part in parts {
            assert!(error.to_string().contains(part), "{error}");
        }
    }
}
