//! What has been received, by all members of a group together.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use polybus_core::Event;
use polybus_core::transport::{Delivery, Position};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::failure::{Check, ensure};
use crate::member::{Member, event_of};
use crate::sender::{ids, number_of};

/// How many ids a message names before it only counts.
const NAMED: usize = 8;

/// The events that a group is to get, and those it got.
pub(crate) struct Journal {
    expected: BTreeSet<String>,
    allowed: BTreeSet<String>,
    state: Mutex<State>,
    complete: watch::Sender<bool>,
}

struct State {
    missing: BTreeSet<String>,
    entries: Vec<Entry>,
    last_progress: Instant,
}

/// One delivery of an event.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) id: String,
    pub(crate) key: Option<String>,
    pub(crate) topic: String,
    pub(crate) position: Position,
}

impl Journal {
    /// A journal that is complete when each of these events has come.
    pub(crate) fn of(events: &[Event]) -> Self {
        Self::of_ids(ids(events))
    }

    pub(crate) fn of_ids(ids: impl IntoIterator<Item = String>) -> Self {
        let expected: BTreeSet<String> = ids.into_iter().collect();
        let state = State {
            missing: expected.clone(),
            entries: Vec::new(),
            last_progress: Instant::now(),
        };
        Self {
            complete: watch::Sender::new(expected.is_empty()),
            expected,
            allowed: BTreeSet::new(),
            state: Mutex::new(state),
        }
    }

    /// Events that may come and need not.
    pub(crate) fn allowing(mut self, ids: impl IntoIterator<Item = String>) -> Self {
        self.allowed.extend(ids);
        self
    }

    /// Notes deliveries. One that is no event, or not an expected one, is a failure.
    #[track_caller]
    pub(crate) fn record(&self, batch: &[Delivery]) -> Check {
        let mut state = self.lock();
        for delivery in batch {
            let event = event_of(delivery)?;
            ensure!(
                self.expected.contains(event.id()) || self.allowed.contains(event.id()),
                "`{}` came from `{}`, where nobody expects it",
                event.id(),
                delivery.topic()
            );
            if state.missing.remove(event.id()) {
                state.last_progress = Instant::now();
            }
            state.entries.push(Entry {
                id: event.id().to_owned(),
                key: event.key().map(str::to_owned),
                topic: delivery.topic().name().to_owned(),
                position: delivery.position(),
            });
        }
        if state.missing.is_empty() {
            self.complete.send_replace(true);
        }
        Ok(())
    }

    /// Notes an event that came before the journal was made.
    #[track_caller]
    pub(crate) fn note_earlier(&self, id: &str) -> Check {
        ensure!(
            self.expected.contains(id) || self.allowed.contains(id),
            "`{id}` came, and was rejected when it was published"
        );
        let mut state = self.lock();
        state.missing.remove(id);
        self.complete.send_replace(state.missing.is_empty());
        Ok(())
    }

    pub(crate) fn is_complete(&self) -> bool {
        *self.complete.borrow()
    }

    pub(crate) async fn completed(&self) {
        let mut complete = self.complete.subscribe();
        complete
            .wait_for(|complete| *complete)
            .await
            .expect("the journal owns the sender");
    }

    pub(crate) fn last_progress(&self) -> Instant {
        self.lock().last_progress
    }

    pub(crate) fn entries(&self) -> Vec<Entry> {
        self.lock().entries.clone()
    }

    /// Waiting starts now.
    pub(crate) fn start_waiting(&self) {
        self.lock().last_progress = Instant::now();
    }

    /// How many different events have come.
    pub(crate) fn received(&self) -> usize {
        self.expected.len() - self.lock().missing.len()
    }

    /// Nothing is lost.
    #[track_caller]
    pub(crate) fn ensure_complete(&self) -> Check {
        let missing = self.lock().missing.clone();
        ensure!(
            missing.is_empty(),
            "lost: {} of {} events never came: {}",
            missing.len(),
            self.expected.len(),
            some(&missing)
        );
        Ok(())
    }

    /// Everything came exactly once.
    #[track_caller]
    pub(crate) fn ensure_once(&self) -> Check {
        self.ensure_complete()?;
        let mut times = BTreeMap::<String, usize>::new();
        for entry in self.entries() {
            *times.entry(entry.id).or_default() += 1;
        }
        let repeated: BTreeSet<_> = times
            .into_iter()
            .filter(|(_, times)| *times > 1)
            .map(|(id, times)| format!("{id} ({times} times)"))
            .collect();
        ensure!(
            repeated.is_empty(),
            "duplicated: {} of {} events came more than once: {}",
            repeated.len(),
            self.expected.len(),
            some(&repeated)
        );
        Ok(())
    }

    /// The first deliveries of each label's events of one key came in the order of their
    /// numbers. What has no key is not looked at.
    #[track_caller]
    pub(crate) fn ensure_order_per_key(&self) -> Check {
        let mut seen = BTreeSet::new();
        let mut last = BTreeMap::<(String, String), (usize, String)>::new();
        for entry in self.entries() {
            let (Some(key), Some(number)) = (entry.key, number_of(&entry.id)) else {
                continue;
            };
            if !seen.insert(entry.id.clone()) {
                continue;
            }
            let place = (entry.topic, key);
            if let Some((before, earlier)) = last.get(&place) {
                ensure!(
                    number > *before,
                    "out of order: `{}` of key `{}` came after `{earlier}`",
                    entry.id,
                    place.1
                );
            }
            last.insert(place, (number, entry.id));
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Display for Journal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} events", self.expected.len())
    }
}

/// All members receive and acknowledge until the journal has what it expects.
pub(crate) async fn work_together(members: &mut [Member], journal: &Journal) -> Check {
    let work = members.iter_mut().map(|member| member.work(journal));
    futures::future::try_join_all(work).await?;
    Ok(())
}

/// The first few of many.
pub(crate) fn some(ids: &BTreeSet<String>) -> String {
    let named: Vec<_> = ids.iter().take(NAMED).map(String::as_str).collect();
    let rest = ids.len().saturating_sub(NAMED);
    let rest = if rest == 0 {
        String::new()
    } else {
        format!(" and {rest} more")
    };
    format!("{}{rest}", named.join(", "))
}
