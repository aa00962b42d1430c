//! From what a caller publishes to what a transport is given.

use std::sync::Arc;

use super::publishing::{Place, Publishing, Way};
use crate::config::{ServiceConfig, Validate};
use crate::event::{EventDefaults, IntoEvent};
use crate::routing::RouteTable;
use crate::transport::Outgoing;
use crate::validation::{Report, Validation, add_own};
use crate::{Codec, Error, ErrorKind, Event, Result, Text, Topic};

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

    /// Finds the way of an event, makes it, and checks its size.
    ///
    /// # Errors
    ///
    /// [`NoRoute`](ErrorKind::NoRoute), [`InvalidEvent`](ErrorKind::InvalidEvent),
    /// [`Encode`](ErrorKind::Encode), [`TooLarge`](ErrorKind::TooLarge).
    pub fn event(&self, event: impl IntoEvent) -> Result<Prepared> {
        let with_origin = self.with_origin(&event);
        let event_type = with_origin.as_deref().unwrap_or_else(|| event.event_type());
        let way = self.way(event_type)?;
        let (outgoing, size) = self.outgoing(event, &way, with_origin.as_ref())?;
        Ok((way, outgoing, size))
    }

    /// As [`event`](Self::event), for the next of many: `known` is the way of the one before, which
    /// mostly is that of the next one as well.
    ///
    /// # Errors
    ///
    /// Those of [`event`](Self::event).
    pub fn next(
        &self,
        event: impl IntoEvent,
        known: &mut Option<Arc<Way>>,
    ) -> Result<(Place, Outgoing, usize)> {
        let with_origin = self.with_origin(&event);
        let event_type = with_origin.as_deref().unwrap_or_else(|| event.event_type());
        let way = match known {
            Some(way) if way.event_type() == event_type => way,
            known => known.insert(self.way(event_type)?),
        };
        let (outgoing, size) = self.outgoing(event, way, with_origin.as_ref())?;
        Ok((way.place(), outgoing, size))
    }

    /// The event's type with the service's origin before it, if that is to be put there.
    fn with_origin(&self, event: &impl IntoEvent) -> Option<Text> {
        let origin = self.service.origin.as_ref()?;
        let event_type = (!event.is_event()).then(|| event.event_type())?;
        Some(Text::from(format!("{origin}.{event_type}")))
    }

    fn way(&self, event_type: &str) -> Result<Arc<Way>> {
        self.publishing.way(&self.routes, event_type)
    }

    /// Makes the event, and looks at its size.
    fn outgoing<E: IntoEvent>(
        &self,
        event: E,
        way: &Way,
        event_type: Option<&Text>,
    ) -> Result<(Outgoing, usize)> {
        let defaults = EventDefaults::new(&self.service.name, way.codec());
        let schema = if way.is_registered() {
            event.registered_schema(way.codec())
        } else {
            None
        };
        let validation = self.publishing.validation.as_ref();
        let validation = validation.filter(|_| way.validate() != Validate::Off);
        let of_type = validation.map(|_| event.own_faults());
        let event = match event_type {
            Some(event_type) => event.into_event(&defaults.with_event_type(event_type))?,
            None => event.into_event(&defaults)?,
        };
        if let (Some(validation), Some(of_type)) = (validation, of_type) {
            let contract = E::contract();
            let faults = validation.faults(&event, contract.as_ref());
            let judged = faults.and_then(|mut faults| {
                add_own(&mut faults, of_type);
                Validation::judge(way.validate(), &event, faults, "publish")
            });
            judged.map_err(|error| error.with_topic(way.topic().name()))?;
        }
        let (size, limit) = (event.size(), self.service.max_event_size);
        if size > limit {
            return Err(too_large(&event, way.topic(), size, limit));
        }
        let outgoing = Outgoing::new(way.topic().clone(), event);
        Ok((outgoing.with_schema(schema), size))
    }

    /// What is wrong with an event, whatever its route says.
    pub async fn check<E: IntoEvent>(&self, validation: &Validation, event: E) -> Report {
        let with_origin = self.with_origin(&event);
        let event_type = with_origin.as_deref().unwrap_or_else(|| event.event_type());
        let event_type = Text::from(event_type);
        let codec = self
            .way(&event_type)
            .map_or(Codec::default(), |way| way.codec());
        let of_type = event.own_faults();
        let defaults = EventDefaults::new(&self.service.name, codec);
        let made = event.into_event(&defaults.with_event_type(&event_type));
        let event = match made {
            Ok(event) => event,
            Err(error) => return Report::of_none(event_type, &error),
        };
        let checked = async {
            let mut faults = validation.faults(&event, E::contract().as_ref())?;
            add_own(&mut faults, of_type);
            faults.extend(validation.rules().check_async(&event).await?);
            Ok(faults)
        };
        match checked.await {
            Ok(faults) => Report::of(&event, faults),
            Err(error) => Report::of_none(event_type, &error),
        }
    }

    /// Whether a transaction may hold so much.
    pub(crate) fn has_room(&self, events: usize, bytes: usize) -> bool {
        self.publishing.check_transaction(events, bytes).is_ok()
    }

    pub(crate) fn publishing(&self) -> &Publishing {
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
