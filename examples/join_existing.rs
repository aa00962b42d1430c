//! A service that joins existing systems: it reads and writes the wire shapes of five of them, each
//! chosen by its route. In memory, without a server; on Kafka and Redis Streams they are the same.
//!
//! ```sh
//! cargo run --example join_existing
//! ```

use std::error::Error;

use polybus::transport::{Admin, Outgoing, Publisher, RawRecord, Transport};
use polybus::{Bus, Config, Event, Headers, Payload, TestBus, Topic};
use serde::{Deserialize, Serialize};

const CONFIG: &str = r#"
    [service]
    name = "newcomer"
    [transports.local]
    kind = "memory"

    [[routes]]
    pattern = "deal.status.changed"
    transport = "local"
    topic = "filops.deals.status"
    format = "flat"

    [[routes]]
    pattern = "entity.created"
    transport = "local"
    topic = "dictamesh.events"
    format = "entity"

    [[routes]]
    pattern = "policy.created"
    transport = "local"
    topic = "policies"
    format = "domain"

    [[routes]]
    pattern = "content.created"
    transport = "local"
    topic = "content-events"
    format = "metadata_payload"

    [[routes]]
    pattern = "user.created"
    transport = "local"
    topic = "user-events"
    format = "header_body"
"#;

#[derive(Event, Serialize, Deserialize, Debug)]
#[event(type = "deal.status.changed", version = "1.0.0", key = deal_id)]
struct DealStatusChanged {
    deal_id: String,
    new_status: String,
}

#[derive(Event, Serialize, Deserialize, Debug)]
#[event(type = "entity.created", version = "1.0.0", subject = customer_id)]
struct EntityCreated {
    customer_id: String,
}

#[derive(Event, Serialize, Deserialize, Debug)]
#[event(type = "policy.created", version = "1.0.0", subject = policy_number)]
#[serde(rename_all = "camelCase")]
struct PolicyCreated {
    policy_number: String,
}

#[derive(Event, Serialize, Deserialize, Debug)]
#[event(type = "content.created", version = "1.0.0", key = content_id)]
#[serde(rename_all = "camelCase")]
struct ContentCreated {
    content_id: String,
}

#[derive(Event, Serialize, Deserialize, Debug)]
#[event(type = "user.created", version = "1.0.0", key = user_id)]
#[serde(rename_all = "camelCase")]
struct UserCreated {
    user_id: String,
}

/// Everything that the systems say: one handler, which the compiler holds to all of it.
#[derive(Event, Serialize, Deserialize, Debug)]
#[serde(untagged)]
enum Theirs {
    Deal(DealStatusChanged),
    Entity(EntityCreated),
    Policy(PolicyCreated),
    Content(ContentCreated),
    User(UserCreated),
}

/// What the programs that are there already write.
const SAMPLES: [(&str, &str); 5] = [
    (
        "filops.deals.status",
        r#"{"id":"4c6b","timestamp":"2025-03-01T12:00:00.000Z","type":"deal.status.changed","source":"deal-monitor","version":"1.0","payload":{"deal_id":"deal-123","new_status":"ACTIVE"}}"#,
    ),
    (
        "dictamesh.events",
        r#"{"id":"20251108-x","type":"entity.created","source":"customer-adapter","subject":"customer:123","timestamp":"2025-11-08T10:00:00.123456789+01:00","data":{"customer_id":"123"},"metadata":{"tenant":"t1"},"correlation_id":"c9"}"#,
    ),
    (
        "policies",
        r#"{"id":"event-uuid","type":"policy.created","aggregateId":"policy-123","aggregateType":"Policy","version":1,"data":{"policyNumber":"POL-12345"},"metadata":{"userId":"user-789"},"timestamp":"2025-01-05T08:00:00.000Z"}"#,
    ),
    (
        "content-events",
        r#"{"metadata":{"eventId":"m1","eventType":"content.created","eventVersion":"1.0.0","timestamp":"2025-06-01T00:00:00Z","source":"cms-service","correlationId":"req-123"},"payload":{"contentId":"p1"}}"#,
    ),
    (
        "user-events",
        r#"{"header":{"id":"h1","type":"user.created","origin":"user-service","timestamp":"2025-02-02T02:02:02.000Z","version":"1.0.0"},"body":{"userId":"123"}}"#,
    ),
];

async fn handle(Payload(event): Payload<Theirs>) {
    println!("  read  {event:?}");
}

/// Writes a record as the other programs do.
async fn write(bus: &Bus, topic: &str, value: &'static str) -> Result<(), Box<dyn Error>> {
    let record = RawRecord::new(None, Headers::new(), Some(value.into()));
    let transport = bus.transport("local").ok_or("the config has it")?;
    let publisher = transport.publisher().await?;
    let outgoing = Outgoing::raw(Topic::new(topic), record);
    publisher.publish(&[outgoing]).await;
    Ok(())
}

/// Shows what stands in a topic last.
async fn show(bus: &Bus, topic: &str) -> Result<(), Box<dyn Error>> {
    let admin = bus.transport("local").ok_or("the config has it")?.admin();
    let records = admin.browse(&Topic::new(topic), &[], 10).await?;
    let last = records.last().and_then(|delivery| delivery.record());
    let value = last.and_then(|record| record.value.as_deref());
    let value = value.ok_or("what was published is there")?;
    println!("  wrote {topic}: {}", String::from_utf8_lossy(value));
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let config = Config::parse(CONFIG, "join_existing.toml")?;
    let bus = TestBus::on(Bus::builder().config(config)).await?;
    bus.subscribe("newcomer").on(handle).start().await?;

    println!("what the others wrote:");
    for (topic, value) in SAMPLES {
        write(&bus, topic, value).await?;
    }
    bus.settle().await;

    println!("what we write:");
    let deal_id = "deal-7".to_owned();
    let new_status = "CLOSED".to_owned();
    bus.publish(DealStatusChanged {
        deal_id,
        new_status,
    })
    .await?;
    let customer_id = "customer:7".to_owned();
    bus.publish(EntityCreated { customer_id }).await?;
    let policy_number = "POL-7".to_owned();
    bus.publish(PolicyCreated { policy_number }).await?;
    let content_id = "p7".to_owned();
    bus.publish(ContentCreated { content_id }).await?;
    let user_id = "7".to_owned();
    bus.publish(UserCreated { user_id }).await?;
    for (topic, _) in SAMPLES {
        show(&bus, topic).await?;
    }
    bus.settle().await;
    bus.dead_letters().assert_empty();
    bus.handled("newcomer").assert_len(10);
    Ok(())
}
