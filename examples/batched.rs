//! Many events in batches, one at a time, and without waiting: `cargo run --example batched`, or
//! with a config whose routes take `reading.*`, on the servers that it names:
//!
//! ```sh
//! eval "$(./scripts/servers up)"
//! cargo run --features full --example batched -- examples/polybus.toml
//! ./scripts/servers down
//! ```

use polybus::{Bus, Config, Event, Outcome};
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize)]
#[event(type = "reading.taken", key = sensor)]
struct Reading {
    sensor: String,
    celsius: f64,
}

const CONFIG: &str = r#"
    [service]
    name = "weather"

    [transports.local]
    kind = "memory"

    [[routes]]
    pattern   = "reading.*"
    transport = "local"
    topic     = "readings"
    batch     = { max_events = 200, max_wait = "1ms", max_concurrent_batches = 4 }
    retry     = { max_attempts = 5, base = "100ms", max = "5s" }

    [publishing]
    max_queued_events = 10_000
"#;

fn reading(number: u32) -> Reading {
    Reading {
        sensor: format!("s{}", number % 50),
        celsius: f64::from(number % 400) / 10.0,
    }
}

#[tokio::main]
async fn main() -> polybus::Result<()> {
    let config = match std::env::args().nth(1) {
        Some(path) => Config::from_file(path)?,
        None => Config::parse(CONFIG, "batched.toml")?,
    };
    let bus = Bus::builder().config(config).build().await?;
    bus.topics().ensure().await?;

    // Taken from the iterator as there is room; one outcome for each, in order.
    let outcomes = bus.publish_all((0..10_000).map(reading)).await;
    let accepted = outcomes.iter().filter(|it| it.is_accepted()).count();
    println!("{accepted} of {} accepted", outcomes.len());
    for outcome in &outcomes {
        if let Outcome::Rejected(error) | Outcome::Unknown(error) = outcome {
            println!("{error}");
        }
    }

    // One of another type, which may take another route.
    let indoors = bus.event("reading.taken.indoors").json(&reading(3))?;
    println!("{}", indoors.key("s3").publish().await?.topic);

    // One at a time, and one whose outcome comes later.
    let receipt = bus.publish(reading(1)).await?;
    println!(
        "{} {} {}",
        receipt.transport, receipt.topic, receipt.position
    );
    let later = bus.enqueue(reading(2))?;
    println!("enqueued");
    println!("{}", later.await?.position);

    bus.flush("5s").await?;
    println!("{:?}", bus.publish_stats());
    let report = bus.close("5s").await?;
    for unsent in report.unsent() {
        println!("not sent: {:?}: {}", unsent.event(), unsent.error());
    }
    report.into_result()
}
