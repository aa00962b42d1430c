use std::fmt;

use crate::middleware::FailedEvent;
use crate::runtime::Counts;
use crate::transport::Position;
use crate::{Error, Result, Text, Topic};

/// Says where a published event is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Receipt {
    /// The transport's name in the config.
    pub transport: Text,
    /// The topic.
    pub topic: Topic,
    /// The position in the topic.
    pub position: Position,
}

/// What became of a bus that was closed.
#[derive(Debug)]
#[must_use = "the report says what was left over"]
#[non_exhaustive]
pub struct CloseReport {
    /// Each subscription.
    pub subscriptions: Vec<SubscriptionReport>,
    /// Events that were published and had no outcome at the deadline.
    pub unsent: Vec<FailedEvent>,
    /// What went wrong with the publishers.
    pub errors: Vec<Error>,
}

/// What became of a subscription.
#[derive(Debug)]
#[non_exhaustive]
pub struct SubscriptionReport {
    /// Its name.
    pub name: Text,
    /// What it did.
    pub counts: Counts,
    /// Events that were given back unfinished. Their group gets them again.
    pub unfinished: usize,
    /// Why it failed, if it did.
    pub error: Option<Error>,
}

impl CloseReport {
    /// Events of all subscriptions that were given back unfinished. Their groups get them again.
    pub fn unfinished(&self) -> usize {
        self.subscriptions
            .iter()
            .map(|subscription| subscription.unfinished)
            .sum()
    }

    /// Events that were published and had no outcome at the deadline, and why: never sent, or
    /// waiting to be sent again, or sent without an answer. The [effect](Error::effect) of an
    /// event's error tells the last from the others. They are in no other store.
    pub fn unsent(&self) -> &[FailedEvent] {
        &self.unsent
    }

    /// The first error: of a subscription, of an event that was not sent, or of a publisher.
    ///
    /// # Errors
    ///
    /// That one.
    pub fn into_result(self) -> Result<()> {
        let failed = self
            .subscriptions
            .into_iter()
            .filter_map(|subscription| subscription.error);
        let unsent = unsent(&self.unsent).into_iter();
        let mut errors = failed.chain(unsent).chain(self.errors);
        errors.next().map_or(Ok(()), Err)
    }
}

fn unsent(unsent: &[FailedEvent]) -> Option<Error> {
    let first = unsent.first()?;
    let message = format!("{} events were not published by the end", unsent.len());
    let error = Error::new(first.error().kind(), message)
        .with_effect(first.error().effect())
        .with_transport(first.transport())
        .with_topic(first.topic().name())
        .with_note(format!("the first one: {}", first.error()));
    Some(error.with_note("raise the deadline of the end, or keep `CloseReport::unsent`"))
}

impl fmt::Display for CloseReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for subscription in &self.subscriptions {
            let SubscriptionReport {
                name,
                counts,
                unfinished,
                error,
            } = subscription;
            writeln!(
                f,
                "{name}: {} handled, {} dead-lettered, {unfinished} unfinished",
                counts.handled, counts.dead_lettered
            )?;
            error
                .iter()
                .try_for_each(|error| writeln!(f, "{name}: {error}"))?;
        }
        let unsent = unsent(&self.unsent);
        let mut errors = unsent.iter().chain(&self.errors);
        errors.try_for_each(|error| writeln!(f, "{error}"))
    }
}
