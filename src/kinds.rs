//! The kinds of transport that come with polybus, and the features they need.

use std::sync::Arc;

use crate::config::Origin;
use crate::transport::TransportFactory;
use crate::{Error, ErrorKind};

pub(crate) const MEMORY: &str = "memory";

/// Every kind of ours and the cargo feature that brings it.
const FEATURES: [(&str, &str); 4] = [
    (MEMORY, "memory"),
    ("redis-streams", "redis-streams"),
    ("kafka", "kafka"),
    ("console", "console"),
];

/// The kinds that are compiled in.
pub(crate) fn built_in() -> Vec<Arc<dyn TransportFactory>> {
    vec![
        #[cfg(feature = "memory")]
        Arc::new(polybus_memory::MemoryFactory::new()),
        #[cfg(feature = "redis-streams")]
        Arc::new(polybus_redis_streams::RedisFactory),
        #[cfg(feature = "kafka")]
        Arc::new(polybus_kafka::KafkaFactory::new()),
        #[cfg(feature = "console")]
        Arc::new(crate::console::ConsoleFactory),
    ]
}

/// The error for a kind that nobody registered: the feature that brings it, or the known ones.
pub(crate) fn unknown<'a>(
    kind: &str,
    transport: &str,
    origin: &Origin,
    known: impl Iterator<Item = &'a String>,
) -> Error {
    if let Some((_, feature)) = FEATURES.iter().find(|(ours, _)| *ours == kind) {
        return Error::new(
            ErrorKind::MissingFeature,
            format!("transport `{transport}` ({origin}) needs the feature `{feature}`"),
        )
        .with_note(format!(
            "polybus = {{ version = \"{}\", features = [\"{feature}\"] }}",
            env!("CARGO_PKG_VERSION")
        ));
    }
    let known: Vec<_> = known.map(|kind| format!("`{kind}`")).collect();
    Error::new(
        ErrorKind::UnknownTransport,
        format!("transport `{transport}` ({origin}) is of the unknown kind `{kind}`"),
    )
    .with_note(format!("known kinds: {}", known.join(", ")))
    .with_note("register a kind of your own with `Bus::builder().register(factory)`")
}
