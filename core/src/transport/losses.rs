use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Counts the events that a server deleted before a group was done with them, as far as the
/// transport notices. Each clone counts into the same.
///
/// ```
/// use polybus_core::Topic;
/// use polybus_core::transport::{Losses, Subscription};
///
/// let losses = Losses::default();
/// let subscription = Subscription::new("mailer", [Topic::new("users")]).losses(&losses);
/// subscription.losses.add(2);
/// assert_eq!(losses.count(), 2);
/// ```
#[derive(Debug, Clone, Default)]
pub struct Losses(Arc<AtomicU64>);

impl Losses {
    /// Counts so many more.
    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    /// How many there were.
    pub fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
