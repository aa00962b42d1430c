//! Publishing: route, encode, check the size, hand to the transport.

use bytes::Bytes;
use serde::Serialize;

use crate::bus::Bus;
use crate::event::{EventId, IntoEvent};
use crate::report::Receipt;
use crate::transport::{DynPublisher, Outcome, Outgoing, Publisher};
use crate::{
    Error, ErrorKind, Event, EventBuilder, EventDefaults, ExtensionValue, Result, Text, Topic,
};

/// An event with its route found.
struct Routed {
    transport: Text,
    outgoing: Outgoing,
}

impl Bus {
    /// Publishes an event on the transport and topic that its route names, and waits until the
    /// server keeps it.
    ///
    /// # Errors
    ///
    /// [`NoRoute`](ErrorKind::NoRoute) if no route takes the type, [`TooLarge`](ErrorKind::TooLarge)
    /// over the service's `max_event_size`, [`InvalidEvent`](ErrorKind::InvalidEvent) and
    /// [`Encode`](ErrorKind::Encode) for what is no event, and those of the transport. The error's
    /// [`effect`](Error::effect) says whether the event may have been stored all the same.
    ///
    /// # Cancel safety
    ///
    /// Dropped, the event may or may not have been published.
    pub async fn publish(&self, event: impl IntoEvent) -> Result<Receipt> {
        let Routed {
            transport,
            outgoing,
        } = self.route(event)?;
        let topic = outgoing.topic.clone();
        let batch = [outgoing];
        let mut outcomes = self.publisher(&transport)?.publish(&batch).await;
        let outcome = outcomes
            .pop()
            .unwrap_or_else(|| Outcome::Unknown(no_outcome()));
        log_outcome(&transport, &batch[0], &outcome);
        outcome.into_result().map(|position| Receipt {
            transport,
            topic,
            position,
        })
    }

    /// Publishes events, each on its route, and returns one outcome for each in the order given.
    ///
    /// Events of one key keep their order. One event's failure does not fail the others.
    ///
    /// # Cancel safety
    ///
    /// Dropped, any part may have been published.
    pub async fn publish_all<I>(&self, events: I) -> Vec<Outcome>
    where
        I: IntoIterator<Item: IntoEvent>,
    {
        let mut outcomes: Vec<Option<Outcome>> = Vec::new();
        let mut batches: Vec<Batch> = Vec::new();
        for event in events {
            match self.route(event) {
                Err(error) => outcomes.push(Some(Outcome::Rejected(error))),
                Ok(routed) => {
                    Batch::of(&mut batches, routed.transport).push(outcomes.len(), routed.outgoing);
                    outcomes.push(None);
                }
            }
        }
        let publishing = batches.into_iter().map(|batch| async move {
            match self.publisher(&batch.transport) {
                Ok(publisher) => batch.publish(publisher).await,
                Err(error) => batch.reject(&error),
            }
        });
        for (index, outcome) in futures::future::join_all(publishing)
            .await
            .into_iter()
            .flatten()
        {
            outcomes[index] = Some(outcome);
        }
        outcomes
            .into_iter()
            .map(|outcome| outcome.unwrap_or_else(|| Outcome::Unknown(no_outcome())))
            .collect()
    }

    /// Starts an event of a type, with the service's name as its source.
    ///
    /// ```no_run
    /// # async fn example(bus: polybus::Bus) -> polybus::Result<()> {
    /// let body = [1, 2, 3];
    /// bus.event("deal.closed").json(&body)?.key("d1").correlation("c1").publish().await?;
    /// # Ok(()) }
    /// ```
    pub fn event(&self, event_type: impl Into<Text>) -> BusEvent<'_> {
        BusEvent {
            bus: self,
            builder: Event::builder(event_type),
        }
    }

    fn route(&self, event: impl IntoEvent) -> Result<Routed> {
        let resolved = self.inner.routes.resolve(event.event_type())?;
        let service = &self.inner.config.service;
        let event = event.into_event(&EventDefaults::new(&service.name, resolved.codec))?;
        let (size, limit) = (event.size(), service.max_event_size);
        if size > limit {
            return Err(too_large(&event, &resolved.topic, size, limit));
        }
        let outgoing = Outgoing::new(resolved.topic.clone(), event);
        Ok(Routed {
            transport: resolved.transport.clone(),
            outgoing,
        })
    }
}

/// The events of one transport, and where their outcomes belong.
struct Batch {
    transport: Text,
    indexes: Vec<usize>,
    outgoing: Vec<Outgoing>,
}

impl Batch {
    /// The batch of a transport, among those there are. A bus has few transports.
    fn of(batches: &mut Vec<Batch>, transport: Text) -> &mut Batch {
        let known = batches
            .iter()
            .position(|batch| batch.transport == transport);
        let index = known.unwrap_or_else(|| {
            batches.push(Batch {
                transport,
                indexes: Vec::new(),
                outgoing: Vec::new(),
            });
            batches.len() - 1
        });
        &mut batches[index]
    }

    fn push(&mut self, index: usize, outgoing: Outgoing) {
        self.indexes.push(index);
        self.outgoing.push(outgoing);
    }

    async fn publish(self, publisher: &DynPublisher) -> Vec<(usize, Outcome)> {
        let outcomes = publisher.publish(&self.outgoing).await;
        for (outgoing, outcome) in self.outgoing.iter().zip(&outcomes) {
            log_outcome(&self.transport, outgoing, outcome);
        }
        self.indexes.into_iter().zip(outcomes).collect()
    }

    fn reject(self, error: &Error) -> Vec<(usize, Outcome)> {
        let reject = |index| {
            (
                index,
                Outcome::Rejected(Error::new(error.kind(), error.message())),
            )
        };
        self.indexes.into_iter().map(reject).collect()
    }
}

fn log_outcome(transport: &str, outgoing: &Outgoing, outcome: &Outcome) {
    let (name, error) = match outcome {
        Outcome::Accepted(_) => ("accepted", None),
        Outcome::Rejected(error) => ("rejected", Some(error)),
        Outcome::Unknown(error) => ("unknown", Some(error)),
    };
    tracing::debug!(
        transport,
        topic = %outgoing.topic,
        event_type = outgoing.event().map(Event::event_type),
        event_id = outgoing.event().map(Event::id),
        outcome = name,
        error = error.map(tracing::field::display),
        "published"
    );
}

fn too_large(event: &Event, topic: &Topic, size: usize, limit: usize) -> Error {
    Error::new(
        ErrorKind::TooLarge,
        format!("the event has {size} bytes, more than the limit of {limit}"),
    )
    .with_operation("publish")
    .with_topic(topic.name())
    .with_note(format!(
        "event of type `{}`, id `{}`",
        event.event_type(),
        event.id()
    ))
    .with_note("make it smaller, or raise `max_event_size` under [service] and the server's limit")
}

fn no_outcome() -> Error {
    Error::new(ErrorKind::Transport, "the transport reported no outcome")
        .with_operation("publish")
        .with_effect(crate::Effect::Unknown)
}

/// An event that is being made, and the bus it is for. See [`Bus::event`].
#[derive(Debug)]
#[must_use = "an event is not published until `publish` is called"]
pub struct BusEvent<'a> {
    bus: &'a Bus,
    builder: EventBuilder,
}

impl BusEvent<'_> {
    fn map(self, change: impl FnOnce(EventBuilder) -> EventBuilder) -> Self {
        Self {
            bus: self.bus,
            builder: change(self.builder),
        }
    }

    /// Sets the data to the JSON of a value.
    ///
    /// # Errors
    ///
    /// [`Encode`](ErrorKind::Encode) if the value can't be written as JSON.
    pub fn json<T: Serialize + ?Sized>(self, value: &T) -> Result<Self> {
        Ok(Self {
            bus: self.bus,
            builder: self.builder.json(value)?,
        })
    }

    /// Sets the data as it is.
    pub fn data(self, content_type: impl Into<Text>, data: impl Into<Bytes>) -> Self {
        self.map(|builder| builder.content_type(content_type).data(data))
    }

    /// Sets the id. Default: a new UUID version 7.
    pub fn id(self, id: impl Into<EventId>) -> Self {
        self.map(|builder| builder.id(id))
    }

    /// Sets what order and partitioning go by.
    pub fn key(self, key: impl Into<Text>) -> Self {
        self.map(|builder| builder.key(key))
    }

    /// Sets what the event is about.
    pub fn subject(self, subject: impl Into<Text>) -> Self {
        self.map(|builder| builder.subject(subject))
    }

    /// Sets what links the events of one business transaction.
    pub fn correlation(self, id: impl Into<Text>) -> Self {
        self.map(|builder| builder.correlation(id))
    }

    /// Sets the id of the event that caused this one.
    pub fn causation(self, id: impl Into<Text>) -> Self {
        self.map(|builder| builder.causation(id))
    }

    /// Sets an extension attribute.
    pub fn extension(self, name: impl Into<Text>, value: impl Into<ExtensionValue>) -> Self {
        self.map(|builder| builder.extension(name, value))
    }

    /// Publishes the event, as [`Bus::publish`] does.
    ///
    /// # Errors
    ///
    /// Those of [`Bus::publish`].
    pub async fn publish(self) -> Result<Receipt> {
        self.bus.publish(self.builder).await
    }
}
