//! A handler that takes many events at once, with a verdict for each.
//!
//! ```sh
//! cargo run --example batch_handler                               # in memory
//! ./scripts/servers up
//! cargo run --features full --example batch_handler examples/polybus.toml
//! ./scripts/servers down
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use polybus::testing::TestBus;
use polybus::{Batch, Bus, Config, Event, State, Verdict};
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize)]
#[event(type = "deal.status.changed", version = "1.0.0", key = deal_id)]
struct StatusChanged {
    deal_id: String,
    status: String,
}

/// Stands for a search engine that takes many documents in one request, and refuses some.
#[derive(Clone, Default)]
struct SearchIndex {
    requests: Arc<AtomicUsize>,
    documents: Arc<AtomicUsize>,
}

impl SearchIndex {
    /// Whether each document was taken.
    fn store<'a>(&self, statuses: impl Iterator<Item = &'a str>) -> Vec<bool> {
        self.requests.fetch_add(1, Ordering::Relaxed);
        let stored: Vec<_> = statuses.map(|status| status != "lost").collect();
        let taken = stored.iter().filter(|stored| **stored).count();
        self.documents.fetch_add(taken, Ordering::Relaxed);
        stored
    }
}

async fn index(batch: Batch<StatusChanged>, State(index): State<SearchIndex>) -> Vec<Verdict> {
    let stored = index.store(batch.iter().map(|entry| entry.payload.status.as_str()));
    let verdict = |stored: bool| match stored {
        true => Verdict::Ack,
        false => Verdict::DeadLetter {
            reason: "the index has no such status".into(),
        },
    };
    stored.into_iter().map(verdict).collect()
}

fn changed(number: usize) -> StatusChanged {
    let status = if number == 4_321 { "lost" } else { "active" };
    StatusChanged {
        deal_id: format!("d{}", number % 100),
        status: status.into(),
    }
}

#[tokio::main]
async fn main() -> polybus::Result<()> {
    // A `Bus`, for real: this one waits, and shows what was put away.
    let bus = match std::env::args().nth(1) {
        Some(path) => TestBus::on(Bus::builder().config(Config::from_file(path)?)).await?,
        None => TestBus::from_file(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/examples/polybus.toml"
        )),
    };
    bus.topics().ensure().await?;
    let search = SearchIndex::default();
    bus.subscribe("deal-watch")
        .state(search.clone())
        .on_batch(index)
        .batch(500, "50ms")
        .start()
        .await?;

    for outcome in bus.publish_all((0..10_000).map(changed)).await {
        outcome.into_result()?;
    }
    bus.settle().await;

    let requests = search.requests.load(Ordering::Relaxed);
    let documents = search.documents.load(Ordering::Relaxed);
    println!("{documents} documents in {requests} requests");
    println!("{}", bus.dead_letters());
    // On a server others may have left something for the group.
    assert!(documents >= 9_999 && !bus.dead_letters().is_empty());
    bus.close("10s").await?.into_result()
}
