//! What publishing allocates. In a process of its own, since the counter replaces the allocator.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use bytes::Bytes;
use polybus::{Bus, Config, Event, Outcome, Text};

const EVENTS: u64 = 10_000;

const CONFIG: &str = r#"
    [service]
    name = "test"
    [transports.local]
    kind = "memory"
    [[routes]]
    pattern = "test.*"
    transport = "local"
    topic = "tests"
"#;

fn allocations_per_event(keyed: bool) -> f64 {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let config = Config::parse(CONFIG, "polybus.toml").unwrap();
        let bus = Bus::builder().config(config).build().await.unwrap();
        let data = Bytes::from_static(b"encoded already");
        let events = || {
            let data = data.clone();
            (0..EVENTS).map(move |number| {
                let event = Event::builder(Text::new_static("test.event")).data(data.clone());
                match keyed {
                    true => event.key(Text::from(number.to_string())),
                    false => event,
                }
            })
        };
        // What is made once: the topic, the table of keys.
        assert!(
            bus.publish_all(events())
                .await
                .iter()
                .all(Outcome::is_accepted)
        );
        let publishing = Box::pin(bus.publish_all(events()));
        let mut outcomes = Vec::new();
        let counted = allocation_counter::measure(|| {
            outcomes = futures::executor::block_on(publishing);
        });
        assert_eq!(outcomes.len() as u64, EVENTS);
        assert!(outcomes.iter().all(Outcome::is_accepted));
        // The text of a number is the test's own.
        let own = if keyed { 1.0 } else { 0.0 };
        counted.count_total as f64 / EVENTS as f64 - own
    })
}

#[test]
fn an_event_of_many_costs_two_allocations_at_most() {
    for keyed in [false, true] {
        let allocations = allocations_per_event(keyed);
        assert!(
            allocations <= 2.0,
            "{allocations} for an event, with a key: {keyed}"
        );
    }
}
