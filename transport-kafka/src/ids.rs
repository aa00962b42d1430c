//! The names by which brokers know those who publish in transactions.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use polybus_core::Text;

use crate::config::KafkaConfig;

/// Gives out the transactional ids of one transport. The next one for the same purpose has the
/// number that is free, so that a process that starts again takes the ids of the one before, and
/// with them what that one left open.
#[derive(Debug)]
pub(crate) struct Ids {
    base: String,
    taken: Mutex<HashMap<String, BTreeSet<u32>>>,
}

/// A transactional id that nobody else of the transport has. Dropped, it is free again.
pub(crate) struct Id {
    ids: Arc<Ids>,
    purpose: String,
    number: u32,
}

impl Ids {
    /// The ids of the config, or some that no other process has.
    pub(crate) fn new(config: &KafkaConfig, client_id: &Text) -> Self {
        let base = config.transactional_id.clone().unwrap_or_else(|| {
            // What tells two processes apart that start at the same time.
            let salt = RandomState::new().hash_one((std::process::id(), SystemTime::now()));
            format!("{client_id}-{salt:016x}")
        });
        Self {
            base,
            taken: Mutex::default(),
        }
    }

    pub(crate) fn take(self: &Arc<Self>, purpose: &str) -> Id {
        let mut taken = self.lock();
        let numbers = taken.entry(purpose.to_owned()).or_default();
        let free = (0..).find(|number| !numbers.contains(number));
        let number = free.expect("fewer than 2^32 ids are taken");
        numbers.insert(number);
        drop(taken);
        Id {
            ids: Arc::clone(self),
            purpose: purpose.to_owned(),
            number,
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, BTreeSet<u32>>> {
        // A set of numbers can't be left half changed by a panic.
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}", self.ids.base, self.purpose, self.number)
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl Drop for Id {
    fn drop(&mut self) {
        if let Some(numbers) = self.ids.lock().get_mut(&self.purpose) {
            numbers.remove(&self.number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(id: Option<&str>) -> Arc<Ids> {
        let mut config = KafkaConfig::new(["a:9092"]);
        config.transactional_id = id.map(str::to_owned);
        Arc::new(Ids::new(&config, &"shop".into()))
    }

    #[test]
    fn the_lowest_free_number_of_a_purpose_comes_next() {
        let ids = ids(Some("shop-1"));
        let (first, second) = (ids.take("publish"), ids.take("publish"));
        assert_eq!(first.to_string(), "shop-1-publish-0");
        assert_eq!(second.to_string(), "shop-1-publish-1");
        assert_eq!(ids.take("audit").to_string(), "shop-1-audit-0");
        drop(first);
        assert_eq!(ids.take("publish").to_string(), "shop-1-publish-0");
    }

    #[test]
    fn without_a_setting_two_transports_have_different_ids() {
        let names = [ids(None), ids(None)].map(|ids| ids.take("publish").to_string());
        assert_ne!(names[0], names[1]);
        assert!(names[0].starts_with("shop-"), "{names:?}");
    }
}
