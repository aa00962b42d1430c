//! The cases of consuming.

mod end_to_end;
mod idempotent;
mod kafka;
mod lanes;
mod mixed;
mod redis;

pub use kafka::Measured;
use polybus::BoxError;

use crate::Bench;
use crate::publish::memory;

/// The names of all cases.
pub const CASES: &[&str] = &[
    "memory",
    "memory-10m",
    "lanes-10",
    "lanes-100000",
    "mixed-100",
    "redis-key",
    "kafka-key",
    "kafka-batch",
    "kafka-plain",
    "e2e-kafka",
    "e2e-redis",
    "idempotent-memory",
    "idempotent-redis",
];

pub async fn run(case: &str, bench: &mut Bench) -> Result<(), BoxError> {
    match case {
        "memory" => memory::to_handler(case, bench, 1_000_000).await,
        "memory-10m" => memory::ten_million(case, bench).await,
        "lanes-10" => lanes::cost(case, bench, 10).await,
        "lanes-100000" => lanes::cost(case, bench, 100_000).await,
        "mixed-100" => mixed::against_the_ideal(case, bench).await,
        "redis-key" => redis::by_key(case, bench).await,
        "kafka-key" => kafka::by_key(case, bench).await,
        "kafka-batch" => kafka::in_batches(case, bench).await,
        "kafka-plain" => kafka::payload_only(case, bench).await,
        "e2e-kafka" => end_to_end::kafka(case, bench).await,
        "e2e-redis" => end_to_end::redis(case, bench).await,
        "idempotent-memory" => idempotent::memory(case, bench).await,
        "idempotent-redis" => idempotent::redis(case, bench).await,
        _ => Err(format!("there is no case `{case}`").into()),
    }
}
