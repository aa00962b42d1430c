//! The consumer runtime: one for all transports.
//!
//! One loop for each subscription owns its sources. A delivery goes to the lane of its key: one
//! runs at a time for each key, different keys run side by side up to the subscription's
//! concurrency, and events without a key are unordered. A failed event waits in its lane for
//! the next attempt while other lanes go on; what fails for good is published as a dead letter,
//! and settled once the dead letter is confirmed.
//!
//! Events for a batch handler are collected on the way out of their lanes: while a batch is
//! collected, the next events of its keys join it; once it runs, they wait as behind one event.
//!
//! The loop polls a handler where it stands, so one that returns at once costs no task. Handlers
//! that compute for long belong on [`spawn_blocking`](tokio::task::spawn_blocking).

mod batch;
mod claims;
mod control;
mod counters;
mod dead_letter;
mod engine;
mod job;
mod lanes;
mod observer;
mod partitions;
mod restart;
mod shutdown;
mod source;
mod window;

pub use batch::BatchLimits;
pub use claims::{Idempotency, IdempotencyKey};
pub use control::{Control, LastError};
pub use counters::{Counters, Counts};
pub use dead_letter::provenance;
pub use engine::{Consumer, Finished};
pub use observer::{Observer, Progress, Step};
pub use partitions::PartitionStatus;
pub use shutdown::Shutdown;
pub use source::Source;
