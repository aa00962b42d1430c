//! Storing what came of a step.

use std::collections::VecDeque;

use tokio::time::sleep;

use super::attempt::{Letter, Why};
use super::{Done, Work};
use crate::backoff;
use crate::handler::FailureKind;
use crate::runtime::Progress;
use crate::transport::{AckToken, Delivery, Outgoing, Position, Settler};
use crate::{Effect, Error, ErrorKind, Result};

impl Work {
    /// Stores what is done, in its order, as much at once as a transaction may hold. Gives back what
    /// could not be stored: it is another member's by now, or the time of a stop is over.
    pub(super) async fn commit(&self, done: Vec<Done>) -> Vec<Delivery> {
        let mut parts = self.parts(done);
        let mut left = Vec::new();
        let mut failures = 0;
        let mut undecided = false;
        while let Some(mut part) = parts.pop_front() {
            let error = match self.store(&part).await {
                None => {
                    left.extend(
                        part.into_iter()
                            .chain(parts.into_iter().flatten())
                            .map(|(it, _)| it),
                    );
                    return left;
                }
                Some(Ok(_)) => {
                    (failures, undecided) = (0, false);
                    self.stored(&part);
                    continue;
                }
                Some(Err(error)) => error,
            };
            self.control.note_error(&error);
            failures += 1;
            undecided |= error.effect() == Effect::Unknown;
            if error.kind() == ErrorKind::Stale {
                undecided = false;
                let current = |(it, _): &mut Done| !self.settler.is_current(it.token());
                let stale = part.extract_if(.., current).map(|(it, _)| it);
                let known = left.len();
                left.extend(stale);
                self.counters.stale(left.len() - known);
            } else if !undecided && !error.retryable() {
                part = match self.isolate(part, &error, &mut parts).await {
                    Some(part) => part,
                    None => continue,
                };
            }
            if !part.is_empty() {
                tracing::warn!(subscription = %self.name, %error, failures,
                    "what was handled could not be stored, trying again");
                parts.push_front(part);
                tokio::select! {
                    () = sleep(backoff::reconnect(failures)) => {}
                    // The next attempt ends it.
                    () = self.time_is_up() => {}
                }
            }
        }
        left
    }

    /// What is done, in parts that a transaction can hold.
    fn parts(&self, done: Vec<Done>) -> VecDeque<Vec<Done>> {
        let mut parts: VecDeque<Vec<Done>> = VecDeque::new();
        let (mut events, mut bytes) = (0, 0);
        for (delivery, decided) in done {
            let sizes = decided.published.iter().map(Outgoing::size);
            let (more, size) = (decided.published.len(), sizes.sum::<usize>());
            if parts.is_empty() || !self.prepare.has_room(events + more, bytes + size) {
                parts.push_back(Vec::new());
                (events, bytes) = (0, 0);
            }
            (events, bytes) = (events + more, bytes + size);
            if let Some(part) = parts.back_mut() {
                part.push((delivery, decided));
            }
        }
        parts
    }

    /// Stores a part. `None` if the time of a stop is over.
    async fn store(&self, part: &[Done]) -> Option<Result<Vec<Position>>> {
        let acks: Vec<AckToken> = part.iter().map(|(it, _)| it.token()).collect();
        let published = part.iter().flat_map(|(_, it)| &it.published);
        let published: Vec<Outgoing> = published.cloned().collect();
        tokio::select! {
            biased;
            stored = self.settler.settle_together(&acks, &published) => Some(stored),
            () = self.time_is_up() => None,
        }
    }

    /// Notes that a part is stored.
    fn stored(&self, part: &[Done]) {
        let counters = &self.counters;
        for (delivery, decided) in part {
            match decided.progress {
                Progress::Handled => counters.handled(1),
                Progress::Dropped => counters.dropped(1),
                Progress::Unhandled => counters.unhandled(1),
                Progress::DeadLettered => counters.dead_lettered(1),
                Progress::Retried
                | Progress::Delayed
                | Progress::Duplicate
                | Progress::Released => {}
            }
            self.observe(delivery, decided.attempt, decided.progress);
        }
    }

    /// Goes on after an error that comes again whenever the part is stored: finds the event whose
    /// it is, and makes a dead letter of that. Gives the part back if that is no way out either.
    async fn isolate(
        &self,
        mut part: Vec<Done>,
        error: &Error,
        parts: &mut VecDeque<Vec<Done>>,
    ) -> Option<Vec<Done>> {
        if part.len() > 1 {
            for done in part.into_iter().rev() {
                parts.push_front(vec![done]);
            }
            return None;
        }
        let (delivery, decided) = part.first_mut()?;
        let topic = self.dead_letter_topic(delivery.topic());
        if decided.progress == Progress::DeadLettered {
            return Some(part);
        }
        let Some(topic) = topic else {
            return Some(part);
        };
        let text = format!("what its handler published was refused: {error}");
        let why = Why::new(FailureKind::Permanent, text);
        let letter = Letter {
            attempt: decided.attempt,
            failed_at: None,
            topic,
        };
        if let Some(letter) = self.put_away(delivery, letter, &why).await {
            *decided = letter;
            parts.push_front(part);
            return None;
        }
        Some(part)
    }
}
