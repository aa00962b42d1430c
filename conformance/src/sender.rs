//! Publishing, and the events that cases publish.

use bytes::Bytes;
use polybus_core::transport::{DynPublisher, Outcome, Outgoing, Position, Publisher};
use polybus_core::{Event, Topic};

use crate::failure::{Check, Failure, ensure};
use crate::scene::Scene;

/// A publisher whose answers are checked.
#[derive(Clone)]
pub(crate) struct Sender {
    publisher: DynPublisher,
    scene: Scene,
}

impl Sender {
    pub(crate) fn new(publisher: DynPublisher, scene: Scene) -> Self {
        Self { publisher, scene }
    }

    pub(crate) fn publisher(&self) -> &DynPublisher {
        &self.publisher
    }

    /// Publishes a batch and returns its outcomes, which must be one for each.
    pub(crate) async fn try_send(&self, batch: &[Outgoing]) -> Check<Vec<Outcome>> {
        let _step = self
            .scene
            .step(format_args!("publishing {} events", batch.len()));
        let outcomes = self.publisher.publish(batch).await;
        ensure!(
            outcomes.len() == batch.len(),
            "{} events were published and {} outcomes came back",
            batch.len(),
            outcomes.len()
        );
        Ok(outcomes)
    }

    /// Publishes a batch, all of which must be accepted.
    pub(crate) async fn send(&self, batch: &[Outgoing]) -> Check<Vec<Position>> {
        let outcomes = self.try_send(batch).await?;
        let accepted = |(index, outcome): (usize, Outcome)| match outcome {
            Outcome::Accepted(position) => Ok(position),
            refused => Err(Failure::new(format!(
                "event {index} of {} was not accepted: {refused:?}",
                batch.len()
            ))),
        };
        outcomes.into_iter().enumerate().map(accepted).collect()
    }

    /// Publishes events on one topic, all of which must be accepted.
    pub(crate) async fn send_to(&self, topic: &Topic, events: &[Event]) -> Check<Vec<Position>> {
        self.send(&addressed(topic, events)).await
    }

    pub(crate) async fn close(&self) -> Check {
        let _step = self.scene.step("closing a publisher");
        Ok(self.publisher.close(self.scene.patience()).await?)
    }
}

/// The events as they go to a topic.
pub(crate) fn addressed(topic: &Topic, events: &[Event]) -> Vec<Outgoing> {
    let outgoing = |event: &Event| Outgoing::new(topic.clone(), event.clone());
    events.iter().map(outgoing).collect()
}

/// Numbered events without a key. The label tells them from those of other calls.
pub(crate) fn numbered(label: &str, numbers: std::ops::Range<usize>) -> Vec<Event> {
    numbers.map(|number| event(label, number, None)).collect()
}

/// Numbered events, with `keys` keys in turn.
pub(crate) fn keyed(label: &str, numbers: std::ops::Range<usize>, keys: usize) -> Vec<Event> {
    let one = |number| {
        event(
            label,
            number,
            Some(format!("{label}-key-{}", number % keys)),
        )
    };
    numbers.map(one).collect()
}

/// One numbered event.
pub(crate) fn event(label: &str, number: usize, key: Option<String>) -> Event {
    let id = format!("{label}-{number:06}");
    let mut builder = Event::builder("conformance.counted")
        .id(id.as_str())
        .source("polybus-conformance")
        .data(Bytes::from(id));
    if let Some(key) = key {
        builder = builder.key(key);
    }
    builder.build().expect("all required attributes are set")
}

/// The number of an event that [`event`] made.
pub(crate) fn number_of(id: &str) -> Option<usize> {
    id.rsplit('-').next()?.parse().ok()
}

/// The ids of events.
pub(crate) fn ids(events: &[Event]) -> Vec<String> {
    events.iter().map(|event| event.id().to_owned()).collect()
}
