//! The memory transport keeps the contract of a transport.

use polybus_conformance::{BoxError, Harness, Unsupported};
use polybus_core::transport::Outgoing;
use polybus_core::{Event, Topic};
use polybus_memory::{MemoryConfig, MemoryTransport};

/// What a topic holds in these tests.
const TOPIC_BYTES: usize = 64 * 1024 * 1024;

struct MemoryHarness {
    broker: MemoryTransport,
}

impl Harness for MemoryHarness {
    type Transport = MemoryTransport;

    async fn start() -> Result<Self, BoxError> {
        let config = MemoryConfig::default().max_bytes(TOPIC_BYTES as u64);
        let broker = MemoryTransport::with_config(&config)?;
        Ok(Self { broker })
    }

    async fn connect(&self) -> Result<MemoryTransport, BoxError> {
        Ok(self.broker.clone())
    }

    fn rejected(&self, topic: &Topic) -> Result<Outgoing, Unsupported> {
        let larger_than_a_topic = Event::builder("conformance.too.large")
            .source("polybus-memory")
            .data(vec![0; TOPIC_BYTES + 1])
            .build()
            .map_err(|error| Unsupported::because(error.to_string()))?;
        Ok(Outgoing::new(topic.clone(), larger_than_a_topic))
    }
}

polybus_conformance::main!(MemoryHarness);
