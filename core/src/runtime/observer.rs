use crate::Text;
use crate::transport::Delivery;

/// Sees every step of a subscription's deliveries, in the order in which they happen.
///
/// Called by the loop that runs the subscription: it must return at once.
pub trait Observer: Send + Sync + 'static {
    /// A delivery was handled, or an attempt of it failed.
    fn observe(&self, step: &Step<'_>);
}

/// What happened to a delivery.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Step<'a> {
    /// The subscription's name.
    pub subscription: &'a Text,
    /// The transport's name in the config.
    pub transport: &'a Text,
    /// The delivery.
    pub delivery: &'a Delivery,
    /// Which attempt it was, starting at 1.
    pub attempt: u32,
    /// What came of it.
    pub progress: Progress,
}

/// What came of a delivery, or of one attempt at it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Progress {
    /// A handler finished it.
    Handled,
    /// A handler dropped it.
    Dropped,
    /// No handler takes it, and it was acknowledged.
    Unhandled,
    /// It had been handled before, and was acknowledged.
    Duplicate,
    /// The attempt failed and another one follows.
    Retried,
    /// The attempt failed and another one follows after a long pause, outside of the lane.
    Delayed,
    /// It was put away as a dead letter.
    DeadLettered,
    /// It was given back to its group.
    Released,
}

impl Progress {
    /// The name that traces show.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Handled => "ack",
            Self::Dropped => "drop",
            Self::Unhandled => "unhandled",
            Self::Duplicate => "duplicate",
            Self::Retried => "retry",
            Self::Delayed => "delay",
            Self::DeadLettered => "dead-letter",
            Self::Released => "release",
        }
    }
}
