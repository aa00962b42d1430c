//! One config, two servers: 10,000 events go to Redis Streams and Kafka by their type, all are
//! handled, and the counts are checked against the servers.
//!
//! ```sh
//! ./scripts/servers up
//! cargo run --release --features full --example routed
//! ./scripts/servers down
//! ```

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use polybus::{Bus, Context, Event, Outcome, Payload, RawEvent, State};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

const USERS: usize = 4_000;
const DEALS: usize = 5_000;
const PROVIDERS: usize = 1_000;

/// Where the routes of `polybus.toml` send them.
const TOPICS: [(&str, &str, usize); 3] = [
    ("redis", "user-events", USERS),
    ("kafka", "filops.deals.status", DEALS),
    ("kafka", "filops.providers.pricing", PROVIDERS),
];

#[derive(Event, Serialize, Deserialize)]
#[event(type = "user.created", key = user_id)]
struct UserCreated {
    user_id: String,
    name: String,
    email: String,
}

#[derive(Event, Serialize, Deserialize)]
#[event(type = "deal.status.changed", key = deal_id)]
struct DealStatusChanged {
    deal_id: String,
    provider_id: String,
    old_status: String,
    new_status: String,
}

#[derive(Event, Serialize, Deserialize)]
#[event(type = "provider.pricing.updated", key = provider_id)]
struct ProviderPricingUpdated {
    provider_id: String,
    price: u64,
}

/// Counts what was handled, by topic.
#[derive(Clone, Default)]
struct Tally {
    handled: Arc<Mutex<BTreeMap<String, usize>>>,
    changed: Arc<Notify>,
}

impl Tally {
    fn count(&self, context: &Context) {
        let topic = format!("{} {}", context.transport(), context.topic());
        *self
            .handled
            .lock()
            .expect("no handler panics")
            .entry(topic)
            .or_default() += 1;
        self.changed.notify_one();
    }

    fn total(&self) -> usize {
        self.handled
            .lock()
            .expect("no handler panics")
            .values()
            .sum()
    }

    async fn wait_for(&self, total: usize) {
        while self.total() < total {
            self.changed.notified().await;
        }
    }
}

async fn deal_changed(
    Payload(deal): Payload<DealStatusChanged>,
    State(tally): State<Tally>,
    context: Context,
) {
    assert_eq!(deal.new_status, "ACTIVE");
    tally.count(&context);
}

async fn any_other(RawEvent(_): RawEvent, State(tally): State<Tally>, context: Context) {
    tally.count(&context);
}

#[tokio::main]
async fn main() -> polybus::Result<()> {
    let config = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/polybus.toml");
    let bus = Bus::from_file(config).await?;
    bus.topics().ensure().await?;
    let before = stored(&bus).await?;

    let tally = Tally::default();
    let from = polybus::Start::Now;
    bus.subscribe("deal-watch")
        .from(from)
        .state(tally.clone())
        .on(deal_changed)
        .on_any(any_other)
        .start()
        .await?;

    let outcomes = publish(&bus).await;
    let accepted = outcomes
        .iter()
        .filter(|outcome| outcome.is_accepted())
        .count();
    println!("published {accepted} of {} events", outcomes.len());
    assert_eq!(accepted, USERS + DEALS + PROVIDERS);

    let handled = tokio::time::timeout(Duration::from_secs(60), tally.wait_for(accepted)).await;
    handled.expect("all events are handled within a minute");
    print!("{}", bus.close("10s").await?);

    let bus = Bus::from_file(config).await?;
    let after = stored(&bus).await?;
    println!(
        "{:<32}{:>10}{:>10}{:>10}",
        "transport topic", "published", "handled", "on server"
    );
    for (index, (transport, topic, published)) in TOPICS.into_iter().enumerate() {
        let name = format!("{transport} {topic}");
        let handled = tally
            .handled
            .lock()
            .expect("no handler panics")
            .get(&name)
            .copied();
        let kept = after[index] - before[index];
        println!(
            "{name:<32}{published:>10}{:>10}{kept:>10}",
            handled.unwrap_or_default()
        );
        assert_eq!(
            (handled, kept),
            (Some(published), published as u64),
            "{name}"
        );
    }
    bus.close("10s").await?.into_result()
}

/// 10,000 events of three types, side by side.
async fn publish(bus: &Bus) -> Vec<Outcome> {
    let users = bus.publish_all((0..USERS).map(|number| UserCreated {
        user_id: format!("user-{}", number % 100),
        name: "John Doe".into(),
        email: "john@example.com".into(),
    }));
    let deals = bus.publish_all((0..DEALS).map(|number| DealStatusChanged {
        deal_id: format!("deal-{}", number % 100),
        provider_id: "f01234".into(),
        old_status: "PENDING".into(),
        new_status: "ACTIVE".into(),
    }));
    let providers = bus.publish_all((0..PROVIDERS).map(|number| ProviderPricingUpdated {
        provider_id: format!("f0{}", number % 10),
        price: number as u64,
    }));
    let (users, deals, providers) = tokio::join!(users, deals, providers);
    users.into_iter().chain(deals).chain(providers).collect()
}

/// How many events each topic holds on its server: `XLEN`, or end minus beginning offsets.
async fn stored(bus: &Bus) -> polybus::Result<Vec<u64>> {
    let mut stored = Vec::new();
    for (transport, topic, _) in TOPICS {
        let described = bus.topics().describe(transport, topic).await?;
        stored.push(described.map_or(0, |topic| topic.events));
    }
    Ok(stored)
}
