//! Strict routes on a real Redis and a real Kafka: what another program wrote wrongly is put away.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use polybus::{Bus, Config, Event, FailureKind, Payload, State};
use polybus_test_support::{KafkaServer, RedisServer, unique_name};
use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::validation::UserCreated;

const PATIENCE: Duration = Duration::from_secs(60);

async fn bus(transport: &str, topic: &str, validate: &str) -> Bus {
    let (redis, kafka) = tokio::join!(RedisServer::shared(), KafkaServer::shared());
    let transport_section = match transport {
        "redis" => format!("kind = 'redis-streams'\nurl = '{}'", redis.url()),
        _ => format!("kind = 'kafka'\nbrokers = ['{}']", kafka.brokers()),
    };
    let text = format!(
        "service.name = 'users'\n[transports.t]\n{transport_section}\n\
         [[routes]]\npattern = 'user.*'\ntransport = 't'\ntopic = '{topic}'\nvalidate = '{validate}'\n\
         [subscriptions.s]\ngroup = '{topic}'\n"
    );
    let config = Config::parse(&text, "polybus.toml").unwrap();
    let bus = Bus::builder().config(config).build().await.unwrap();
    bus.topics().ensure().await.unwrap();
    bus
}

async fn take(Payload(user): Payload<UserCreated>, State(log): State<Arc<Mutex<Vec<String>>>>) {
    log.lock().unwrap().push(user.user_id);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_invalid_goes_to_the_dead_letter_with_its_report() {
    for transport in ["redis", "kafka"] {
        let topic = unique_name("strict");
        let other = bus(transport, &topic, "off").await;
        let own = bus(transport, &topic, "strict").await;
        let invalid = Event::builder("user.created").data_version("1.0.0");
        let invalid = invalid.json(&json!({ "user_id": "", "email": "x", "age": 200 }));
        other.publish(invalid.unwrap()).await.unwrap();
        own.publish(UserCreated::good("u1")).await.unwrap();
        own.publish(UserCreated::bad()).await.unwrap_err();

        let log: Arc<Mutex<Vec<String>>> = Arc::default();
        let subscription = own.subscribe("s").state(Arc::clone(&log)).on(take);
        let subscription = subscription.start().await.unwrap();
        let deadline = Instant::now() + PATIENCE;
        while subscription.counts().dead_lettered + subscription.counts().handled < 2 {
            assert!(
                Instant::now() < deadline,
                "{transport}: {:?}",
                subscription.counts()
            );
            sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(*log.lock().unwrap(), ["u1"], "on {transport}");
        let letters = own.dead_letters(format!("{topic}.dlq"));
        let letters: Vec<_> = letters.list().await.unwrap();
        let [letter] = &letters[..] else {
            panic!("{transport} has {} dead letters", letters.len());
        };
        let provenance = letter.provenance();
        assert_eq!(
            provenance.kind,
            Some(FailureKind::Invalid),
            "on {transport}"
        );
        let mut pointers: Vec<_> = provenance
            .faults
            .iter()
            .map(|it| it.pointer.as_str())
            .collect();
        pointers.sort_unstable();
        assert_eq!(pointers, ["/data/age", "/data/email", "/data/user_id"]);
        for bus in [own, other] {
            bus.close("10s").await.unwrap().into_result().unwrap();
        }
    }
}
