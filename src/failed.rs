use crate::bus::Bus;
use crate::middleware::FailedEvent;
use crate::transport::Outcome;

/// The events that a bus could not publish. See [`Bus::failed`].
///
/// ```no_run
/// # async fn example(bus: polybus::Bus) {
/// for failed in bus.failed().read() {
///     println!("{:?} on {}: {}", failed.event(), failed.topic(), failed.error());
/// }
/// let outcomes = bus.failed().republish().await;
/// # let _ = outcomes; }
/// ```
#[derive(Debug)]
pub struct Failed<'a> {
    bus: &'a Bus,
}

impl<'a> Failed<'a> {
    pub(crate) fn new(bus: &'a Bus) -> Self {
        Self { bus }
    }

    /// The events, the oldest first. They stay.
    pub fn read(&self) -> Vec<FailedEvent> {
        self.bus.inner.publishing.failed()
    }

    /// Takes up to so many events out, the oldest first. They are the caller's then.
    pub fn take(&self, most: usize) -> Vec<FailedEvent> {
        self.bus.inner.publishing.take_failed(most)
    }

    /// Takes all events out and publishes them, each on its route as it is now, with its identity
    /// as it was. What fails again is kept again.
    ///
    /// An event whose outcome was unknown may be stored twice by this.
    ///
    /// # Cancel safety
    ///
    /// Dropped, any part may have been published, and the rest is lost: spawn it where that
    /// matters.
    pub async fn republish(&self) -> Vec<Outcome> {
        let taken = self.take(usize::MAX).into_iter();
        let events = taken.filter_map(FailedEvent::into_event);
        self.bus.publish_all(events.collect::<Vec<_>>()).await
    }
}
