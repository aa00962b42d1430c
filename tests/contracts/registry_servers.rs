//! Data that name their schemas in a registry, on a real Redis and a real Kafka.

use std::fmt::Debug;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use polybus::codec::Frame;
use polybus::event::EventData;
use polybus::transport::{Admin, Transport};
use polybus::{Bus, Config, Event, Payload, State, Topic};
use polybus_test_support::{KafkaServer, RedisServer, SchemaRegistryServer, unique_name};
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep};

use super::codecs::{OrderPaid, OrderPlaced, paid, placed};

const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, PartialEq, Event, Serialize, Deserialize, JsonSchema)]
#[event(type = "order.packed", version = "1.0.0", key = id, schema)]
struct OrderPacked {
    id: String,
    #[schemars(range(min = 1))]
    parcels: u32,
}

/// A bus on one server, with a registry; the handlers of its subscription take one type.
struct Stage {
    bus: Bus,
    topic: String,
    _registry: SchemaRegistryServer,
}

impl Stage {
    async fn new(transport: &str, codec: &str) -> Self {
        let registry = SchemaRegistryServer::start().await.unwrap();
        let (redis, kafka) = tokio::join!(RedisServer::shared(), KafkaServer::shared());
        let section = match transport {
            "redis" => format!("kind = 'redis-streams'\nurl = '{}'", redis.url()),
            _ => format!("kind = 'kafka'\nbrokers = ['{}']", kafka.brokers()),
        };
        let topic = unique_name("registered");
        let text = format!(
            "service.name = 'orders'\n[transports.t]\n{section}\n\
             [schema_registry]\nurl = '{}'\n\
             [[routes]]\npattern = 'order.*'\ntransport = 't'\ntopic = '{topic}'\ncodec = '{codec}'\n\
             schema_registry = true\nvalidate = 'strict'\n\
             [subscriptions.s]\ngroup = '{topic}'\nretry = {{ max_attempts = 1 }}\n",
            registry.url()
        );
        let config = Config::parse(&text, "polybus.toml").unwrap();
        let bus = Bus::builder().config(config).build().await.unwrap();
        bus.topics().ensure().await.unwrap();
        Self {
            bus,
            topic,
            _registry: registry,
        }
    }

    /// What stands in the topic, read past all layers of ours.
    async fn stored(&self) -> Vec<Event> {
        let admin = self.bus.transport("t").unwrap().admin();
        let topic = Topic::new(&self.topic);
        let stored = admin.browse(&topic, &[], 100).await.unwrap();
        let stored = stored.iter();
        stored.map(|it| it.event().unwrap().clone()).collect()
    }

    /// Publishes a good event and one that names a schema that nobody registered, and handles both: the
    /// first reaches the handler, of the second a dead letter keeps the bytes.
    async fn check<T>(self, good: T, content_type: &str)
    where
        T: EventData + Serialize + DeserializeOwned + Clone + PartialEq + Debug,
    {
        async fn take<T>(Payload(taken): Payload<T>, State(seen): State<Arc<Mutex<Vec<T>>>>) {
            seen.lock().unwrap().push(taken);
        }
        self.bus.publish(good.clone()).await.unwrap();
        let [stored] = &self.stored().await[..] else {
            panic!("one event is stored");
        };
        assert_eq!(stored.content_type(), Some(content_type));
        let known = Frame::parse(stored.data().unwrap())
            .expect("a frame")
            .schema;

        // Written past the checks of publishing, as another program would.
        let unknown: &[u8] = b"\0\x7f\xff\xff\xffdata";
        let other = stored.to_builder().id("e2").data(unknown);
        let other =
            polybus::transport::Outgoing::new(Topic::new(&self.topic), other.build().unwrap());
        let publisher = self.bus.transport("t").unwrap().publisher().await.unwrap();
        let outcomes = polybus::transport::Publisher::publish(&publisher, &[other]).await;
        assert!(
            matches!(outcomes[..], [polybus::Outcome::Accepted(_)]),
            "{outcomes:?}"
        );

        let seen = Arc::new(Mutex::new(Vec::new()));
        let subscription = self
            .bus
            .subscribe("s")
            .state(Arc::clone(&seen))
            .on(take::<T>);
        let subscription = subscription.start().await.unwrap();
        let deadline = Instant::now() + PATIENCE;
        while subscription.counts().dead_lettered + subscription.counts().handled < 2 {
            assert!(Instant::now() < deadline, "{:?}", subscription.counts());
            sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(*seen.lock().unwrap(), [good]);
        let letters = self.bus.dead_letters(format!("{}.dlq", self.topic));
        let letters = letters.list().await.unwrap();
        let [letter] = &letters[..] else {
            panic!("{} dead letters", letters.len());
        };
        assert_eq!(letter.event().unwrap().data().unwrap()[..], *unknown);
        let reason = &letter.provenance().reason;
        assert!(reason.contains("has no schema 2147483647"), "{reason}");
        assert!(known < 2_147_483_647);
        self.bus.close("10s").await.unwrap().into_result().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn avro_is_read_by_its_schema_and_put_away_without() {
    for transport in ["redis", "kafka"] {
        let stage = Stage::new(transport, "avro").await;
        stage
            .check::<OrderPlaced>(placed(), "application/avro")
            .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn protobuf_is_read_by_its_schema_and_put_away_without() {
    for transport in ["redis", "kafka"] {
        let stage = Stage::new(transport, "protobuf").await;
        stage
            .check::<OrderPaid>(paid(), "application/protobuf")
            .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn json_names_its_json_schema_and_is_put_away_without() {
    for transport in ["redis", "kafka"] {
        let stage = Stage::new(transport, "json").await;
        let packed = OrderPacked {
            id: "o1".into(),
            parcels: 2,
        };
        let bad = OrderPacked {
            parcels: 0,
            ..packed.clone()
        };
        stage.bus.publish(bad).await.unwrap_err();
        stage.check(packed, "application/json").await;
    }
}
