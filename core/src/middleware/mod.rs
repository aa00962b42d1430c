//! What stands between a bus and its transports when it publishes, the same for all of them.
//!
//! An event's way, from the outside in:
//!
//! 1. **Room**: the whole bus holds a bounded number of events and bytes without an outcome.
//! 2. **Batch**: events gather while others of their group are out. An event does not leave while
//!    an earlier one of its topic and key is out or waits to be sent again.
//! 3. **Fallback**, 4. **retry**: what was rejected for a passing reason is sent again after a
//!    pause that doubles; after the last attempt it goes to the route's fallback, if it has one,
//!    else to the failed events, and its caller is told.
//! 5. The route's [`layers`] around the transport's publisher: validate, deduplicate, rate limit,
//!    circuit breaker, timeout.
//!
//! A retry that would put an event behind a later one of its key does not happen: where a
//! transport rejected an event in the middle of a batch and took a later one of its key, the
//! event fails at once.
//!
//! A transaction gathers its events first and goes past all that, in one call of the transport;
//! only their room, their checks and the retry are the same.
//!
//! The contract of a transport knows nothing of all this.

mod bulk;
mod commit;
mod failed;
pub mod layers;
mod pipeline;
mod prepare;
mod publishing;
mod reply;
mod room;
mod route;
mod shared;
mod transaction;

pub use failed::FailedEvent;
pub use prepare::{Prepare, Prepared};
pub use publishing::{Closed, Enqueued, Place, PublishStats, Published, Publishing, Way};
pub use transaction::Transaction;
