use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::fault::{Fault, Faults, Injected, Kind};
use super::recorded::{DeadLetter, Handling, PublishedEvent};
use crate::dead_letters::is_replay;
use crate::runtime::{Observer, Step, provenance};
use crate::transport::{Content, Delivery, Outgoing, Position, Subscription as Membership};
use crate::{Event, Text, Topic};

/// What happened on a bus under test.
#[derive(Debug)]
pub(super) struct Journal {
    log: Mutex<Log>,
    faults: Mutex<Faults>,
    /// Changes whenever something happened that may have ended the last of the work.
    changes: watch::Sender<()>,
}

#[derive(Debug, Default)]
pub(super) struct Log {
    pub(super) published: Vec<PublishedEvent>,
    pub(super) dead_letters: Vec<DeadLetter>,
    pub(super) handlings: Vec<Handling>,
    /// The groups that read, by transport.
    pub(super) members: Vec<(Text, Membership)>,
    /// Every topic that was published to, by transport.
    pub(super) topics: BTreeSet<(Text, Text)>,
    /// Calls of publish that have begun.
    pub(super) publishes: u64,
    /// Those of them that have not ended.
    pub(super) publishing: usize,
}

impl Journal {
    pub(super) fn new() -> Self {
        Self {
            log: Mutex::default(),
            faults: Mutex::default(),
            changes: watch::Sender::new(()),
        }
    }

    pub(super) fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }

    pub(super) fn changed(&self) {
        self.changes.send_replace(());
    }

    pub(super) fn joined(&self, transport: &Text, membership: &Membership) {
        // A replay goes on when it is called again: nobody waits for what it has left.
        if !is_replay(&membership.group) {
            let member = (transport.clone(), membership.clone());
            self.log().members.push(member);
        }
    }

    /// Counts a call of publish for as long as the guard lives, also when it is dropped.
    pub(super) fn publishing(self: &Arc<Self>) -> Publishing {
        let mut log = self.log();
        log.publishes += 1;
        log.publishing += 1;
        drop(log);
        Publishing(Arc::clone(self))
    }

    /// Notes what a transport has stored.
    pub(super) fn stored(&self, transport: &Text, outgoing: &Outgoing, position: Position) {
        let mut log = self.log();
        log.topics
            .insert((transport.clone(), outgoing.topic.name().into()));
        if is_dead_letter(outgoing) {
            log.dead_letters
                .push(DeadLetter::new(transport.clone(), outgoing));
        } else if outgoing.headers.first(provenance::NOT_BEFORE).is_some() {
            // It waits for its next attempt.
        } else if let Content::Event(event) = &outgoing.content {
            log.published.push(PublishedEvent {
                transport: transport.clone(),
                topic: outgoing.topic.clone(),
                position,
                event: event.clone(),
                headers: outgoing.headers.clone(),
            });
        }
    }

    /// Notes what took the place of a delivery.
    pub(super) fn forwarded(&self, transport: &Text, outgoing: &Outgoing) {
        // Only what was published by a user shows its position.
        self.stored(transport, outgoing, Position::new(0, 0));
    }

    pub(super) fn inject(&self, fault: Fault) -> Injected {
        self.faults().inject(fault)
    }

    /// The fault that strikes what is published.
    pub(super) fn strike_publish(&self, outgoing: &Outgoing) -> Option<Kind> {
        let dead_letter = is_dead_letter(outgoing);
        let event_type = outgoing.event().map_or("", Event::event_type);
        self.faults().strike(event_type, |kind| {
            kind.is_of_publishing() && dead_letter == (kind == Kind::RejectDeadLetter)
        })
    }

    /// The fault that strikes a delivery. One that comes again is not struck again.
    pub(super) fn strike_delivery(&self, delivery: &Delivery) -> Option<Kind> {
        let event_type = delivery.event().map_or("", Event::event_type);
        if delivery.attempt() > 1 {
            return None;
        }
        self.faults()
            .strike(event_type, |kind| !kind.is_of_publishing())
    }

    fn faults(&self) -> MutexGuard<'_, Faults> {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Observer for Journal {
    fn observe(&self, step: &Step<'_>) {
        self.log().handlings.push(Handling {
            subscription: step.subscription.clone(),
            transport: step.transport.clone(),
            topic: step.delivery.topic().clone(),
            position: step.delivery.position(),
            event: step.delivery.event().ok().cloned(),
            attempt: step.attempt,
            progress: step.progress,
        });
    }
}

impl Log {
    /// The topics that a member reads, those that its patterns find among what was published.
    pub(super) fn topics_of(&self, transport: &Text, membership: &Membership) -> Vec<Topic> {
        let known = self.topics.iter().filter(|(of, _)| of == transport);
        let found = known
            .filter(|(_, topic)| membership.patterns.iter().any(|it| it.matches(topic)))
            .map(|(_, topic)| Topic::new(topic.clone()))
            .filter(|topic| !membership.topics.contains(topic));
        membership.topics.iter().cloned().chain(found).collect()
    }
}

/// See [`Journal::publishing`].
pub(super) struct Publishing(Arc<Journal>);

impl Drop for Publishing {
    fn drop(&mut self) {
        self.0.log().publishing -= 1;
        self.0.changed();
    }
}

/// Whether a subscription put it away. An event that a handler forwards has no such headers.
fn is_dead_letter(outgoing: &Outgoing) -> bool {
    let has = |name| outgoing.headers.first(name).is_some();
    has(provenance::REASON) && !has(provenance::NOT_BEFORE)
}
