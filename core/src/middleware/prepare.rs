//! From what a caller publishes to what a transport is given.

use std::sync::Arc;

use super::publishing::{Publishing, Way};
use crate::config::ServiceConfig;
use crate::event::{EventDefaults, IntoEvent};
use crate::routing::RouteTable;
use crate::transport::Outgoing;
use crate::{Error, ErrorKind, Event, Result, Text, Topic};

/// An event with its way found, and its size in bytes.
pub type Prepared = (Arc<Way>, Outgoing, usize);

/// Makes events and finds their ways: the same for every manner of publishing.
#[derive(Debug)]
pub struct Prepare {
    publishing: Arc<Publishing>,
    routes: Arc<RouteTable>,
    service: ServiceConfig,
}

impl Prepare {
    /// For the events of a service.
    pub fn new(
        publishing: Arc<Publishing>,
        routes: Arc<RouteTable>,
        service: ServiceConfig,
    ) -> Self {
        Self {
            publishing,
            routes,
            service,
        }
    }

    /// Finds the way of an event, makes it, and checks its size. `known` is a way that may be
    /// that of the event.
    ///
    /// # Errors
    ///
    /// [`NoRoute`](ErrorKind::NoRoute), [`InvalidEvent`](ErrorKind::InvalidEvent),
    /// [`Encode`](ErrorKind::Encode), [`TooLarge`](ErrorKind::TooLarge).
    pub fn event(&self, event: impl IntoEvent, known: Option<&Arc<Way>>) -> Result<Prepared> {
        if let Some(origin) = &self.service.origin
            && !event.is_event()
        {
            return self.event_from(origin, event);
        }
        let way = match known {
            Some(known) if known.event_type() == event.event_type() => Arc::clone(known),
            _ => self.publishing.way(&self.routes, event.event_type())?,
        };
        let defaults = EventDefaults::new(&self.service.name, way.codec());
        let event = event.into_event(&defaults)?;
        self.sized(way, event)
    }

    /// As [`event`](Self::event), with the service's origin before the type.
    fn event_from(&self, origin: &str, event: impl IntoEvent) -> Result<Prepared> {
        let event_type = Text::from(format!("{origin}.{}", event.event_type()));
        let way = self.publishing.way(&self.routes, &event_type)?;
        let defaults = EventDefaults::new(&self.service.name, way.codec());
        let event = event.into_event(&defaults.with_event_type(&event_type))?;
        self.sized(way, event)
    }

    fn sized(&self, way: Arc<Way>, event: Event) -> Result<Prepared> {
        let (size, limit) = (event.size(), self.service.max_event_size);
        if size > limit {
            return Err(too_large(&event, way.topic(), size, limit));
        }
        let outgoing = Outgoing::new(way.topic().clone(), event);
        Ok((way, outgoing, size))
    }

    /// Whether a transaction may hold so much.
    pub(crate) fn has_room(&self, events: usize, bytes: usize) -> bool {
        self.publishing.check_transaction(events, bytes).is_ok()
    }

    pub(super) fn publishing(&self) -> &Publishing {
        &self.publishing
    }
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
