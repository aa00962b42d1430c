use std::time::Duration;

use crate::Text;
use crate::runtime::{Counts, LastError, PartitionStatus};

/// How a subscription is doing. See [`Bus::status`](crate::Bus::status).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct SubscriptionStatus {
    /// Its name.
    pub name: Text,
    /// Its consumer group.
    pub group: Text,
    /// What it is at.
    pub state: SubscriptionState,
    /// How many events it has received and not settled.
    pub in_flight: usize,
    /// How many bytes the events have that it has received and is not done with.
    pub in_flight_bytes: usize,
    /// How long ago the oldest event was received that is not done; `None` if all are.
    pub oldest: Option<Duration>,
    /// What it has received from, partition by partition. How far its group is behind is the
    /// servers' to say: [`Subscription::lag`](crate::Subscription::lag).
    pub partitions: Vec<PartitionStatus>,
    /// What it has done since it started.
    pub counts: Counts,
    /// What went wrong last, if anything did: in reading, handling, settling, or putting away. It
    /// stays when all is well again.
    pub last_error: Option<LastError>,
}

/// What a subscription is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SubscriptionState {
    /// It reads and handles.
    Running,
    /// It reads nothing more until it is resumed, and handles what it has received.
    Paused,
    /// It finishes what its handlers have started.
    Stopping,
    /// It was stopped, and has left its group.
    Ended,
    /// It finishes what its handlers have started, or is out of its group, to go on from another
    /// place: see [`Subscription::seek`](crate::Subscription::seek).
    Seeking,
    /// It failed, and starts again after a pause.
    Restarting,
    /// It stopped by itself, or is about to.
    Failed,
}
