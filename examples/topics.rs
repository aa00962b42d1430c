//! Plans the topics of a config, applies the plan, and plans again: nothing is left to do.
//!
//! In memory, without a server:
//!
//! ```sh
//! cargo run --example topics
//! ```
//!
//! On a real Kafka, by the profile `development` of the file (one replica):
//!
//! ```sh
//! ./scripts/servers up
//! cargo run --features full --example topics -- examples/topics.toml
//! ./scripts/servers down
//! ```

use polybus::Bus;

#[tokio::main]
async fn main() -> polybus::Result<()> {
    let own = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/topics.toml");
    let builder = match std::env::args().nth(1) {
        Some(config) => Bus::builder().config_file(config),
        None => Bus::builder().config_file(own).in_memory(),
    };
    let bus = builder.build().await?;

    let plan = bus.topics().plan().await?;
    println!("{plan}\n");
    // A plan with something that would delete events, or can't be done, is refused as a whole.
    plan.apply().await?;

    let left = bus.topics().plan().await?;
    println!("after it was applied:\n{left}\n");
    assert!(left.is_empty(), "nothing is left to do");

    let topic = "filops.deals.status";
    if let Some(deals) = bus.topics().describe("kafka", topic).await? {
        println!(
            "{topic}: {} partitions, {} events",
            deals.partitions, deals.events
        );
    }
    bus.close("10s").await?.into_result()
}
