//! Codecs, chosen by route and read by content type, on memory.

use std::sync::{Arc, Mutex};

use apache_avro::AvroSchema;
use polybus::version::Migration;
use polybus::{Bus, Codec, Config, ErrorKind, Event, Payload, RawEvent, State, TestBus};
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[event(type = "order.placed", version = "2.0.0", key = id, avro = "schemas/order.avsc")]
pub(crate) struct OrderPlaced {
    pub(crate) id: String,
    pub(crate) cents: i64,
    pub(crate) note: Option<String>,
}

#[derive(Event, Serialize, Deserialize, Clone, PartialEq, prost::Message)]
#[event(type = "order.paid", key = id, protobuf = "schemas/order.proto")]
pub(crate) struct OrderPaid {
    #[prost(string, tag = "1")]
    pub(crate) id: String,
    #[prost(int64, tag = "2")]
    pub(crate) cents: i64,
}

#[derive(Event, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(untagged)]
enum OrderEvent {
    Placed(OrderPlaced),
    Paid(OrderPaid),
}

#[derive(Event, Serialize, Deserialize, AvroSchema, Clone, Debug, PartialEq)]
#[event(type = "stock.counted", avro)]
struct StockCounted {
    pieces: i32,
}

pub(crate) fn placed() -> OrderPlaced {
    OrderPlaced {
        id: "o1".to_owned(),
        cents: 995,
        note: None,
    }
}

pub(crate) fn paid() -> OrderPaid {
    OrderPaid {
        id: "o1".to_owned(),
        cents: 995,
    }
}

fn config(codec: &str) -> Config {
    let text = format!(
        "service.name = 'orders'\n[transports.t]\nkind = 'memory'\n\
         [[routes]]\npattern = '*'\ntransport = 't'\ntopic = 'orders'\ncodec = '{codec}'\n\
         [subscriptions.s]\nretry = {{ max_attempts = 1 }}\n"
    );
    Config::parse(&text, "polybus.toml").unwrap()
}

async fn bus(codec: &str) -> TestBus {
    TestBus::on(Bus::builder().config(config(codec)))
        .await
        .unwrap()
}

type Seen<T> = Arc<Mutex<Vec<T>>>;

async fn see(Payload(order): Payload<OrderEvent>, State(seen): State<Seen<OrderEvent>>) {
    seen.lock().unwrap().push(order);
}

#[tokio::test(start_paused = true)]
async fn a_route_says_how_data_are_written_and_the_content_type_how_they_are_read() {
    let expected = [OrderEvent::Placed(placed()), OrderEvent::Paid(paid())];
    for (codec, writable) in [
        (Codec::Json, &expected[..]),
        (Codec::MessagePack, &expected[..]),
        (Codec::Avro, &expected[..1]),
        (Codec::Protobuf, &expected[1..]),
    ] {
        let bus = bus(codec.name()).await;
        let seen = Seen::default();
        let subscription = bus.subscribe("s").state(Arc::clone(&seen));
        subscription.on(see).start().await.unwrap();
        for event in writable {
            bus.publish(event.clone()).await.unwrap();
        }
        bus.settle().await;
        assert_eq!(*seen.lock().unwrap(), writable, "{codec:?}");
        for recorded in bus.published_raw("order.*").iter() {
            assert_eq!(recorded.event.content_type(), Some(codec.content_type()));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_subscription_reads_every_codec_from_one_topic() {
    let bus = bus("json").await;
    let seen = Seen::default();
    let subscription = bus.subscribe("s").state(Arc::clone(&seen));
    subscription.on(see).start().await.unwrap();
    for (event_type, codec, data) in [
        ("order.placed", Codec::Avro, encoded(&placed(), Codec::Avro)),
        (
            "order.placed",
            Codec::MessagePack,
            encoded(&placed(), Codec::MessagePack),
        ),
        (
            "order.paid",
            Codec::Protobuf,
            encoded(&paid(), Codec::Protobuf),
        ),
    ] {
        let event = bus.event(event_type).data(codec.content_type(), data);
        event.publish().await.unwrap();
    }
    bus.settle().await;
    bus.dead_letters().assert_empty();
    assert_eq!(seen.lock().unwrap().len(), 3);
}

fn encoded<T: polybus::EventData + Serialize>(value: &T, codec: Codec) -> Vec<u8> {
    value.encode_data(codec).unwrap().to_vec()
}

#[tokio::test]
async fn a_shape_of_json_and_another_codec_contradict_each_other() {
    let mut config = config("message_pack");
    config.routes[0].format = Some("flat".into());
    let error = Bus::builder().config(config).build().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config, "{error}");
    assert!(error.to_string().contains("`message_pack`"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn the_schema_may_be_derived() {
    let bus = bus("avro").await;
    let event = StockCounted { pieces: -3 };
    bus.publish(event.clone()).await.unwrap();
    let published = bus.published_raw("stock.counted");
    assert_eq!(
        published.only().event.content_type(),
        Some("application/avro")
    );
    let read: StockCounted = polybus::EventData::from_event(&published.only().event).unwrap();
    assert_eq!(read, event);
}

#[tokio::test(start_paused = true)]
async fn a_type_that_lacks_what_its_route_needs_is_refused_with_advice() {
    for (codec, advice) in [
        ("avro", "#[event(avro ="),
        ("protobuf", "#[event(protobuf)]"),
    ] {
        let bus = bus(codec).await;
        let error = match codec {
            "avro" => bus.publish(paid()).await.unwrap_err(),
            _ => bus.publish(placed()).await.unwrap_err(),
        };
        assert_eq!(error.kind(), ErrorKind::Encode, "{error}");
        assert!(error.to_string().contains(advice), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn garbage_becomes_a_dead_letter_with_its_bytes() {
    let bus = bus("json").await;
    let seen = Seen::<OrderEvent>::default();
    let subscription = bus.subscribe("s").state(Arc::clone(&seen));
    subscription.on(see).start().await.unwrap();
    let garbage: [(&str, Codec, &[u8]); 4] = [
        ("order.placed", Codec::Avro, b"\xc3\x01not the finger"),
        ("order.placed", Codec::Avro, b"\0\0\0\0\x07data"),
        ("order.paid", Codec::Protobuf, b"\x0a\xff\xff"),
        ("order.placed", Codec::MessagePack, b"\xdd\xff\xff\xff\xff"),
    ];
    for (event_type, codec, data) in garbage {
        let event = bus.event(event_type).data(codec.content_type(), data);
        event.publish().await.unwrap();
    }
    bus.settle().await;
    assert!(seen.lock().unwrap().is_empty());
    let letters = bus.dead_letters();
    let kept = letters
        .iter()
        .map(|letter| letter.event().unwrap().data().unwrap().to_vec());
    let kept: Vec<_> = kept.collect();
    for (_, _, data) in garbage {
        assert!(kept.iter().any(|kept| kept == data), "{data:?} is lost");
    }
}

async fn take(Payload(order): Payload<OrderPlaced>, State(seen): State<Seen<OrderPlaced>>) {
    seen.lock().unwrap().push(order);
}

/// A bus that reads version 1 of an order by a step on JSON.
async fn migrating(seen: &Seen<OrderPlaced>) -> TestBus {
    let step = Migration::new("order.placed", "1.0.0", "2.0.0", |mut data| {
        let euros = data["euros"].take().as_i64().ok_or("no euros")?;
        data["cents"] = (euros * 100).into();
        Ok(data)
    });
    let builder = Bus::builder().config(config("json")).migration(step);
    let bus = TestBus::on(builder).await.unwrap();
    let subscription = bus.subscribe("s").state(Arc::clone(seen));
    subscription.on(take).start().await.unwrap();
    bus
}

#[tokio::test(start_paused = true)]
async fn a_step_on_json_migrates_message_pack_too() {
    let seen = Seen::default();
    let bus = migrating(&seen).await;
    let old = serde_json::json!({ "id": "o1", "euros": 9 });
    let data = Codec::MessagePack.encode(&old).unwrap();
    let event = bus
        .event("order.placed")
        .data(Codec::MessagePack.content_type(), data)
        .extension("dataversion", "1.0.0");
    event.publish().await.unwrap();
    bus.settle().await;
    bus.dead_letters().assert_empty();
    assert_eq!(seen.lock().unwrap()[0].cents, 900);
}

#[tokio::test(start_paused = true)]
async fn a_step_on_json_says_that_it_can_not_migrate_protobuf() {
    let seen = Seen::default();
    let bus = migrating(&seen).await;
    let event = bus
        .event("order.placed")
        .data(Codec::Protobuf.content_type(), &b"\x0a\x02o1"[..])
        .extension("dataversion", "1.0.0");
    event.publish().await.unwrap();
    bus.settle().await;
    let letters = bus.dead_letters();
    let reason = letters.only().reason().to_owned();
    assert!(reason.contains("no step on JSON"), "{reason}");
}

#[tokio::test(start_paused = true)]
async fn a_raw_handler_has_the_bytes_as_they_came() {
    async fn raw(RawEvent(event): RawEvent, State(seen): State<Seen<Vec<u8>>>) {
        seen.lock().unwrap().push(event.data().unwrap().to_vec());
    }
    let bus = bus("protobuf").await;
    let seen = Seen::default();
    let subscription = bus.subscribe("s").state(Arc::clone(&seen));
    subscription.on_any(raw).start().await.unwrap();
    bus.publish(paid()).await.unwrap();
    bus.settle().await;
    assert_eq!(*seen.lock().unwrap(), [b"\x0a\x02o1\x10\xe3\x07".to_vec()]);
}
