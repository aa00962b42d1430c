//! Events that were refused for the company they were in.
//!
//! A broker takes or refuses all records of one partition and one request together: one that is over
//! its limit takes the others with it.

use std::collections::HashSet;

use polybus_core::ErrorKind;
use polybus_core::transport::{Content, Outcome, Outgoing};
use tokio::time::{Instant, timeout, timeout_at};

use super::producer::Producer;
use super::{KafkaPublisher, Queue, ROOM_CHECK};

const PASSED: &str = "it may have travelled with a larger one; it was not sent again because a later \
                      event of its key is stored";

impl KafkaPublisher {
    /// Sends what was refused as too large once more, each in a request of its own. Others wait
    /// meanwhile, so that none gets into its company.
    ///
    /// Not sent again is what a later event of its key has passed: it would stand behind that.
    pub(super) async fn publish_alone(
        &self,
        batch: &[Outgoing],
        outcomes: Vec<Outcome>,
        deadline: Instant,
    ) -> Vec<Outcome> {
        if !outcomes.iter().any(is_too_large) {
            return outcomes;
        }
        let (again, mut outcomes) = sent_again(batch, outcomes);
        let Ok(mut queue) = timeout_at(deadline, self.queue.lock()).await else {
            return outcomes;
        };
        for index in again {
            let Queue::Open(producer) = &mut *queue else {
                break;
            };
            if !self.is_drained(producer, deadline).await {
                break;
            }
            let outgoing = &batch[index];
            let mut ticket = self.pending.open(1);
            match self.send(producer, outgoing, ticket.next(), deadline).await {
                Ok(()) => ticket.sent(),
                Err(Some(outcome)) => ticket.settle(outcome),
                Err(None) => break,
            }
            let answer = ticket.outcomes(deadline, |_| self.late(outgoing)).await;
            outcomes.splice(index..=index, answer);
        }
        outcomes
    }

    /// Waits until the client has nothing to send, and nothing is out.
    async fn is_drained(&self, producer: &Producer, deadline: Instant) -> bool {
        while !producer.is_empty() {
            if Instant::now() >= deadline {
                return false;
            }
            // An early end: it is looked at again.
            let _ = timeout(ROOM_CHECK, self.pending.room()).await;
        }
        true
    }
}

/// The numbers of the events that are sent again, in order. The others get a note that says why they
/// are not.
fn sent_again(batch: &[Outgoing], outcomes: Vec<Outcome>) -> (Vec<usize>, Vec<Outcome>) {
    let mut stored = HashSet::new();
    let (mut again, mut passed) = (Vec::new(), HashSet::new());
    for (index, outcome) in outcomes.iter().enumerate().rev() {
        let key = key_of(&batch[index]);
        if is_too_large(outcome) {
            if key.is_some_and(|key| stored.contains(&key)) {
                passed.insert(index);
            } else {
                again.push(index);
            }
        } else if !matches!(outcome, Outcome::Rejected(_)) {
            stored.extend(key);
        }
    }
    again.reverse();
    let outcomes = outcomes.into_iter().enumerate();
    let outcomes = outcomes.map(|(index, outcome)| match outcome {
        Outcome::Rejected(error) if passed.contains(&index) => {
            Outcome::Rejected(error.with_note(PASSED))
        }
        outcome => outcome,
    });
    (again, outcomes.collect())
}

fn is_too_large(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Rejected(error) if error.kind() == ErrorKind::TooLarge)
}

/// What order goes by.
fn key_of(outgoing: &Outgoing) -> Option<(&str, &[u8])> {
    let key = match &outgoing.content {
        Content::Event(event) => event.key().map(str::as_bytes),
        Content::Raw(record) => record.key.as_deref(),
    };
    Some((outgoing.topic.name(), key?))
}

#[cfg(test)]
mod tests {
    use polybus_core::transport::Position;
    use polybus_core::{Error, Event, Topic};

    use super::*;

    fn outgoing(key: Option<&str>) -> Outgoing {
        let event = Event::builder("t").source("s");
        let event = match key {
            Some(key) => event.key(key),
            None => event,
        };
        Outgoing::new(Topic::new("topic"), event.build().unwrap())
    }

    fn outcome(kind: Option<ErrorKind>) -> Outcome {
        match kind {
            None => Outcome::Accepted(Position::new(0, 0)),
            Some(kind) => Outcome::from_error(Error::new(kind, "as told")),
        }
    }

    fn check(batch: &[(Option<&str>, Option<ErrorKind>)], again: &[usize]) {
        let outgoing: Vec<_> = batch.iter().map(|(key, _)| outgoing(*key)).collect();
        let outcomes = batch.iter().map(|(_, kind)| outcome(*kind)).collect();
        let (found, outcomes) = sent_again(&outgoing, outcomes);
        assert_eq!(found, again, "{batch:?}");
        for (index, outcome) in outcomes.iter().enumerate() {
            if let Outcome::Rejected(error) = outcome {
                let left = is_too_large(outcome) && !again.contains(&index);
                assert_eq!(error.notes().len(), usize::from(left), "{error}");
            }
        }
    }

    #[test]
    fn what_was_too_large_is_sent_again_unless_its_key_went_on() {
        let large = Some(ErrorKind::TooLarge);
        check(&[(None, None), (Some("a"), None)], &[]);
        check(&[(None, large), (None, None), (None, large)], &[0, 2]);
        check(&[(Some("a"), large), (Some("b"), None)], &[0]);
        check(&[(Some("a"), large), (Some("a"), large)], &[0, 1]);
        check(
            &[(Some("a"), large), (Some("a"), None), (Some("a"), large)],
            &[2],
        );
        let missing = Some(ErrorKind::TopicNotFound);
        check(&[(Some("a"), large), (Some("a"), missing)], &[0]);
    }
}
