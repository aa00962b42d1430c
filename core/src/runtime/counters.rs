use std::sync::atomic::{AtomicU64, Ordering};

use crate::transport::Losses;

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// What a subscription has done so far, counted while it runs.
        #[derive(Debug, Default)]
        pub struct Counters {
            $($name: AtomicU64,)*
            losses: Losses,
        }

        /// What a subscription has done.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
        #[non_exhaustive]
        pub struct Counts {
            $($(#[$doc])* pub $name: u64,)*
            /// Events that the server deleted before the group was done with them, as far as the
            /// transport noticed: on Redis Streams, entries that were trimmed while they were
            /// pending. What was deleted before anybody read it is seen by nobody.
            pub deleted: u64,
        }

        impl Counters {
            /// Counts that begin with none, but for what a transport counts.
            pub fn with_losses(losses: Losses) -> Self {
                Self { losses, ..Self::default() }
            }

            /// The counts at this moment.
            pub fn snapshot(&self) -> Counts {
                Counts {
                    $($name: self.$name.load(Ordering::Relaxed),)*
                    deleted: self.losses.count(),
                }
            }

            $(pub(super) fn $name(&self, count: usize) {
                self.$name.fetch_add(count as u64, Ordering::Relaxed);
            })*
        }
    };
}

counters! {
    /// Deliveries received, redeliveries included.
    received,
    /// Events that a handler finished.
    handled,
    /// Events that a handler dropped.
    dropped,
    /// Events that no handler takes, acknowledged.
    unhandled,
    /// Events that had been handled before, acknowledged.
    duplicates,
    /// Events that were handled while another one had taken their claim: they may have been
    /// handled twice.
    claims_lost,
    /// Attempts that failed and were followed by another.
    retried,
    /// Attempts that failed and are followed by another after a long pause, outside of the lane.
    delayed,
    /// Events put away as dead letters.
    dead_lettered,
    /// Records that were no events.
    undecodable,
    /// Deliveries given back unhandled, at a stop or when they belonged to another member.
    released,
    /// How often it started again after a failure.
    restarts,
    /// Settlements that came too late: another member has the event.
    stale,
    /// Settlements that the transport refused for good; the events come again.
    unsettled,
}
