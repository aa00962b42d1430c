use std::time::Duration;

use serde::Deserialize;

use super::{Origin, fields};
use crate::Text;

/// Leases below it could not be renewed in time.
const SHORTEST_LEASE: Duration = Duration::from_millis(100);

/// Keeps an event that comes twice from being handled twice: `idempotency` of a subscription.
///
/// [`idempotency`](crate::idempotency) says what it promises and what not.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct IdempotencyConfig {
    /// Where it is kept which events were handled: the name of a transport that can keep it, as
    /// one of kind `redis-streams`; of a store that was given to the bus; or `"memory"`, for this
    /// process alone.
    pub store: Text,
    /// How long an event is kept from others whose handler does not report back: after the death
    /// of a process its events wait for so long. Renewed while a handler runs. At least 100 ms.
    /// Default: 30 s.
    #[serde(
        default = "IdempotencyConfig::default_lease",
        deserialize_with = "fields::duration"
    )]
    pub lease: Duration,
    /// How long it is known that an event was handled: one that comes again later is handled
    /// again. At least `lease`. Default: 7 days.
    #[serde(
        default = "IdempotencyConfig::default_retain",
        deserialize_with = "fields::duration"
    )]
    pub retain: Duration,
    #[serde(skip)]
    pub(super) origin: Origin,
}

impl IdempotencyConfig {
    /// The defaults, with a store.
    pub fn new(store: impl Into<Text>) -> Self {
        Self {
            store: store.into(),
            lease: Self::default_lease(),
            retain: Self::default_retain(),
            origin: Origin::Code,
        }
    }

    /// Sets [`lease`](Self::lease).
    #[must_use]
    pub fn with_lease(mut self, lease: Duration) -> Self {
        self.lease = lease;
        self
    }

    /// Sets [`retain`](Self::retain).
    #[must_use]
    pub fn with_retain(mut self, retain: Duration) -> Self {
        self.retain = retain;
        self
    }

    /// Where the store was named.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// The first key whose value contradicts another's, and how.
    pub(super) fn contradiction(&self) -> Option<(&'static [&'static str], String)> {
        let (lease, retain) = (self.lease, self.retain);
        if lease < SHORTEST_LEASE {
            let what = format!(
                "{lease:?} is too short to be renewed in time; give it {SHORTEST_LEASE:?} or more"
            );
            return Some((&["idempotency", "lease"], what));
        }
        if retain < lease {
            let what = format!("{retain:?} is below `lease`, which is {lease:?}");
            return Some((&["idempotency", "retain"], what));
        }
        None
    }

    fn default_lease() -> Duration {
        Duration::from_secs(30)
    }

    fn default_retain() -> Duration {
        Duration::from_secs(7 * 86_400)
    }
}
