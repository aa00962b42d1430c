//! The consumer runtime: one for all transports.
//!
//! One loop for each subscription owns its sources. A delivery goes to the lane of its key: one
//! runs at a time for each key, different keys run side by side up to the subscription's
//! concurrency, and events without a key are unordered. A failed event waits in its lane for
//! the next attempt while other lanes go on; what fails for good is published as a dead letter,
//! and settled once the dead letter is confirmed. Where long pauses are configured, a failed event
//! leaves its lane: it is stored in a topic that the subscription reads too.
//!
//! An event that may have ended the process of a member that had it is handled on trial: one at a
//! time, and noted on the server before. If it does so again, it becomes a dead letter.
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
mod delayed;
mod engine;
mod exactly_once;
mod job;
mod lanes;
mod observer;
mod partitions;
pub mod provenance;
mod recess;
mod restart;
mod shutdown;
mod source;
mod window;

pub use batch::BatchLimits;
pub use claims::{Idempotency, IdempotencyKey};
pub use control::{Control, LastError};
pub use counters::{Counters, Counts};
pub use delayed::DelayedSubscriber;
pub use engine::{Consumer, Finished};
pub use exactly_once::ExactlyOnce;
pub use observer::{Observer, Progress, Step};
pub use partitions::PartitionStatus;
pub use provenance::Provenance;
pub use shutdown::Shutdown;
pub use source::Source;
