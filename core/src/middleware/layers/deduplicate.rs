use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use foldhash::fast::RandomState;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::split::{collect, publish_rest};
use super::{PublishLayer, Stage};
use crate::config::DedupConfig;
use crate::event::EventId;
use crate::transport::{DynPublisher, Outcome, Outgoing, Position, Publisher};
use crate::{Result, Text};

/// Publishes events of one identity (`source` and `id`) only once within a window: a second one
/// is accepted at the position of the first, without being sent.
///
/// An event that failed is forgotten, so that it can be sent again. One that comes while the first
/// is out waits for its outcome. Only this process's own events are known.
#[derive(Debug)]
pub struct Deduplicate(DedupConfig);

impl Deduplicate {
    /// The window of a config.
    pub fn new(config: &DedupConfig) -> Self {
        Self(config.clone())
    }
}

impl PublishLayer for Deduplicate {
    fn stage(&self) -> Stage {
        Stage::Deduplicate
    }

    fn wrap(&self, inner: DynPublisher) -> DynPublisher {
        DynPublisher::new(Deduplicated {
            inner,
            seen: Mutex::new(Seen {
                window: self.0.window,
                max_events: self.0.max_events,
                known: HashMap::default(),
                accepted: VecDeque::new(),
            }),
            changed: Notify::new(),
        })
    }
}

#[derive(Debug)]
struct Deduplicated {
    inner: DynPublisher,
    seen: Mutex<Seen>,
    /// Told when events are no longer out.
    changed: Notify,
}

type Identity = (Text, EventId);

#[derive(Debug)]
struct Seen {
    window: Duration,
    max_events: usize,
    known: HashMap<Identity, Known, RandomState>,
    /// Those that were accepted, in their order.
    accepted: VecDeque<(Instant, Identity)>,
}

#[derive(Debug, Clone, Copy)]
enum Known {
    Out,
    Accepted(Position),
}

/// The events of a batch that are out for the first time. Dropped, they are forgotten.
struct Claims<'a> {
    by: &'a Deduplicated,
    identities: Vec<Option<Identity>>,
    /// Whether there are any. Without them, nobody need be told of their end.
    any: bool,
}

impl Seen {
    fn forget_old(&mut self) {
        let now = Instant::now();
        while let Some((since, identity)) = self.accepted.front() {
            let old = now.duration_since(*since) >= self.window;
            if !old && self.accepted.len() <= self.max_events {
                return;
            }
            self.known.remove(identity);
            self.accepted.pop_front();
        }
    }
}

impl Deduplicated {
    /// Claims what is new of the events without an outcome, and answers for what was accepted
    /// before. The others are out just now.
    fn claim(&self, batch: &[Outgoing], outcomes: &mut [Option<Outcome>]) -> Claims<'_> {
        let mut seen = self.lock();
        seen.forget_old();
        let mut identities: Vec<Option<Identity>> = vec![None; batch.len()];
        for (index, outgoing) in batch.iter().enumerate() {
            let Some(event) = outgoing.event().filter(|_| outcomes[index].is_none()) else {
                continue;
            };
            let identity = (Text::from(event.source()), EventId::from(event.id()));
            match seen.known.get(&identity) {
                Some(Known::Accepted(position)) => {
                    outcomes[index] = Some(Outcome::Accepted(*position));
                }
                Some(Known::Out) => {}
                None => {
                    seen.known.insert(identity.clone(), Known::Out);
                    identities[index] = Some(identity);
                }
            }
        }
        Claims {
            by: self,
            any: identities.iter().any(Option::is_some),
            identities,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        // A panic can only leave an event as out that its claim forgets.
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Publishes what is claimed, or no event at all.
    async fn publish_claimed(
        &self,
        claims: Claims<'_>,
        batch: &[Outgoing],
        outcomes: &mut [Option<Outcome>],
    ) {
        let claimed = claims.identities.iter().zip(batch).enumerate();
        let (indexes, rest): (Vec<usize>, Vec<Outgoing>) = claimed
            .filter(|(index, (identity, outgoing))| {
                let raw = outgoing.event().is_none() && outcomes[*index].is_none();
                identity.is_some() || raw
            })
            .map(|(index, (_, outgoing))| (index, outgoing.clone()))
            .unzip();
        if rest.is_empty() {
            return;
        }
        let mut answers: Vec<Option<Outcome>> = rest.iter().map(|_| None).collect();
        publish_rest(&self.inner, &rest, &mut answers).await;
        for (index, answer) in indexes.into_iter().zip(answers) {
            outcomes[index] = answer;
        }
        claims.settle(outcomes);
    }
}

impl Claims<'_> {
    fn settle(mut self, outcomes: &[Option<Outcome>]) {
        let mut seen = self.by.lock();
        let now = Instant::now();
        for (identity, outcome) in self.identities.iter_mut().zip(outcomes) {
            let Some(Outcome::Accepted(position)) = outcome else {
                continue;
            };
            if let Some(identity) = identity.take() {
                let known = Known::Accepted(*position);
                seen.known.insert(identity.clone(), known);
                seen.accepted.push_back((now, identity));
            }
        }
    }
}

impl Drop for Claims<'_> {
    fn drop(&mut self) {
        if !self.any {
            return;
        }
        let mut seen = self.by.lock();
        for identity in self.identities.iter().flatten() {
            seen.known.remove(identity);
        }
        drop(seen);
        self.by.changed.notify_waiters();
    }
}

impl Publisher for Deduplicated {
    async fn publish(&self, batch: &[Outgoing]) -> Vec<Outcome> {
        let mut outcomes: Vec<Option<Outcome>> = batch.iter().map(|_| None).collect();
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            let claims = self.claim(batch, &mut outcomes);
            let claimed = claims.any;
            self.publish_claimed(claims, batch, &mut outcomes).await;
            if outcomes.iter().all(Option::is_some) {
                return collect(outcomes);
            }
            // A copy of an event of this batch has its answer now; others wait for other batches.
            if !claimed {
                changed.await;
            }
        }
    }

    async fn flush(&self, deadline: Instant) -> Result<()> {
        self.inner.flush(deadline).await
    }

    async fn close(&self, deadline: Instant) -> Result<()> {
        self.inner.close(deadline).await
    }
}
