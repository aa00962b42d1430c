//! Counts what publishing allocates. In a program of its own, since the counter replaces the
//! allocator.

use bytes::Bytes;
use polybus::{BoxError, Bus, Config, Event, Text};

const EVENTS: usize = 100_000;

/// Short enough to be held without an allocation of their own.
const KEYS: [&str; 4] = ["north", "east", "south", "west"];

const CONFIG: &str = r#"
    [service]
    name = "bench"
    [transports.local]
    kind = "memory"
    [[routes]]
    pattern = "bench.*"
    transport = "local"
    topic = "events"
"#;

fn main() -> Result<(), BoxError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let config = Config::parse(CONFIG, "bench.toml")?;
    let bus = runtime.block_on(Bus::builder().config(config).build())?;
    let payload = Bytes::from(vec![b'x'; 200]);
    let events = || {
        (0..EVENTS).map(|number| {
            Event::builder(Text::new_static("bench.measured"))
                .key(KEYS[number % KEYS.len()])
                .data(payload.clone())
        })
    };
    // What is made once: the topic, the table of keys.
    runtime.block_on(bus.publish_all(events()));
    let counted = allocation_counter::measure(|| {
        let outcomes = runtime.block_on(bus.publish_all(events()));
        assert!(outcomes.iter().all(polybus::Outcome::is_accepted));
    });
    println!(
        "publish_all in memory: {:.2} allocations and {:.0} bytes allocated for an event",
        counted.count_total as f64 / EVENTS as f64,
        counted.bytes_total as f64 / EVENTS as f64
    );
    Ok(())
}
