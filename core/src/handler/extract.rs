use std::any::Any;
use std::cell::RefCell;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Later;
use crate::event::{EventData, SchemasOf, TypeInfo};
use crate::transport::{Delivery, Headers, Position};
use crate::validation::Validation;
use crate::version::{self, Migrations};
use crate::{Error, ErrorKind, Event, Result, Text, Topic};

/// One call of a handler, which extractors take their values from.
#[derive(Debug)]
pub struct Call<'a, S> {
    delivery: &'a Delivery,
    info: &'a Arc<CallInfo>,
    state: &'a S,
    /// Where the handler's verdict comes from once it has returned, if not from itself.
    pub(super) later: RefCell<Option<Later>>,
}

impl<'a, S> Call<'a, S> {
    pub(super) fn new(delivery: &'a Delivery, info: &'a Arc<CallInfo>, state: &'a S) -> Self {
        Self {
            delivery,
            info,
            state,
            later: RefCell::default(),
        }
    }

    /// The delivery.
    pub fn delivery(&self) -> &'a Delivery {
        self.delivery
    }

    /// What is known of the call beside the delivery.
    pub fn info(&self) -> &'a CallInfo {
        self.info
    }

    /// The state that the handler was registered with.
    pub fn state(&self) -> &'a S {
        self.state
    }

    /// The event.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Decode`] if the record is no event.
    pub fn event(&self) -> Result<&'a Event> {
        self.delivery.event().map_err(|undecodable| {
            Error::new(ErrorKind::Decode, undecodable.error().message().to_owned())
        })
    }
}

/// What is known of a handler's call beside the delivery.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct CallInfo {
    /// The subscription's name.
    pub subscription: Text,
    /// The transport's name.
    pub transport: Text,
    /// Which attempt this is, starting at 1.
    pub attempt: u32,
    /// When the handler has taken too long, if its time is limited.
    pub deadline: Option<Instant>,
    /// Cancelled when the subscription stops. Shared, since a clone of a token takes a lock.
    pub stopping: Arc<CancellationToken>,
    /// The steps between versions of data that the program registered.
    pub migrations: Option<Arc<Migrations>>,
    /// What events of routes that validate are held to.
    pub(crate) validation: Option<Arc<Validation>>,
    /// What the runtime has for extractors that it knows and this module does not.
    pub(crate) scope: Option<Arc<dyn Any + Send + Sync>>,
}

impl CallInfo {
    /// A first attempt.
    pub fn new(
        subscription: impl Into<Text>,
        transport: impl Into<Text>,
        stopping: CancellationToken,
    ) -> Self {
        Self {
            subscription: subscription.into(),
            transport: transport.into(),
            attempt: 1,
            deadline: None,
            stopping: Arc::new(stopping),
            migrations: None,
            validation: None,
            scope: None,
        }
    }

    /// The data of an event, checked where its route validates.
    pub(super) fn read<T: EventData + DeserializeOwned>(&self, event: &Event) -> Result<T> {
        let migrations = self.migrations.as_deref();
        match &self.validation {
            Some(validation) => validation.read(event, migrations),
            None => version::decode(event, migrations),
        }
    }

    /// What the runtime has for an extractor.
    pub(crate) fn scope<T: Any>(&self) -> Option<&T> {
        self.scope.as_deref()?.downcast_ref()
    }
}

/// A value that can be an argument of a handler: an extractor.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an extractor",
    label = "not an extractor",
    note = "each argument of a handler must be an extractor: Payload<T>, State<T>, Context, Headers, RawEvent"
)]
pub trait FromDelivery<S>: Sized {
    /// The event types it takes, if it takes only some.
    const TYPES: &'static [TypeInfo] = &[];

    /// Whether its subscription has to be
    /// [exactly-once](crate::config::SubscriptionConfig::exactly_once) for it.
    const TRANSACTIONAL: bool = false;

    /// Where the schemas of the data of its event types are found. Default: none is known.
    const SCHEMAS: SchemasOf = SchemasOf::NONE;

    /// Takes the value from a call.
    ///
    /// # Errors
    ///
    /// If the delivery does not have it. The event then becomes a dead letter.
    fn from_delivery(call: &Call<'_, S>) -> Result<Self>;
}

/// The data of the event, read as its content type says.
///
/// Registered with `on`, the handler takes the event types of `T`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Payload<T>(pub T);

impl<S, T: EventData + DeserializeOwned> FromDelivery<S> for Payload<T> {
    const TYPES: &'static [TypeInfo] = T::TYPES;
    const SCHEMAS: SchemasOf = SchemasOf::data::<T>();

    fn from_delivery(call: &Call<'_, S>) -> Result<Self> {
        let event = call.event()?;
        call.delivery.read_data(|| call.info.read(event)).map(Self)
    }
}

/// The state that was given to the subscription with `state`, or a part of it ([`FromRef`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct State<T>(pub T);

impl<S, T: FromRef<S>> FromDelivery<S> for State<T> {
    fn from_delivery(call: &Call<'_, S>) -> Result<Self> {
        Ok(Self(T::from_ref(call.state())))
    }
}

/// A part of a state. Every type that is `Clone` is a part of itself.
#[diagnostic::on_unimplemented(
    message = "`State<{Self}>` is not a part of the state `{S}`",
    note = "give the state before the handler: `.state(value).on(handler)`"
)]
pub trait FromRef<S> {
    /// The part.
    fn from_ref(state: &S) -> Self;
}

impl<T: Clone> FromRef<T> for T {
    fn from_ref(state: &T) -> Self {
        state.clone()
    }
}

/// The event as it came, its data unread.
#[derive(Debug, Clone, PartialEq)]
pub struct RawEvent(pub Event);

impl<S> FromDelivery<S> for RawEvent {
    fn from_delivery(call: &Call<'_, S>) -> Result<Self> {
        call.event().cloned().map(Self)
    }
}

/// The headers beside the event's attributes.
impl<S> FromDelivery<S> for Headers {
    fn from_delivery(call: &Call<'_, S>) -> Result<Self> {
        Ok(call.delivery().headers().clone())
    }
}

/// Where the event came from, which attempt this is, and whether the subscription is stopping.
#[derive(Debug, Clone)]
pub struct Context {
    info: Arc<CallInfo>,
    topic: Topic,
    position: Position,
}

impl Context {
    pub(super) fn new(info: Arc<CallInfo>, delivery: &Delivery) -> Self {
        Self {
            info,
            topic: delivery.topic().clone(),
            position: delivery.position(),
        }
    }

    /// The subscription's name.
    pub fn subscription(&self) -> &str {
        &self.info.subscription
    }

    /// The transport's name in the config.
    pub fn transport(&self) -> &str {
        &self.info.transport
    }

    /// The topic that the event came from.
    pub fn topic(&self) -> &str {
        self.topic.name()
    }

    /// Where the event stands in its topic.
    pub fn position(&self) -> Position {
        self.position
    }

    /// Which attempt this is, starting at 1. Goes on counting after the death of a member on
    /// transports that count deliveries.
    pub fn attempt(&self) -> u32 {
        self.info.attempt
    }

    /// When this call will be given up, as the subscription's `handler_timeout` says. `None`: its
    /// time is not limited.
    pub fn deadline(&self) -> Option<Instant> {
        self.info.deadline
    }

    /// Cancelled when the subscription stops. A long handler may give up then: its event is
    /// delivered again.
    pub fn stopping(&self) -> &CancellationToken {
        &self.info.stopping
    }
}

impl<S> FromDelivery<S> for Context {
    fn from_delivery(call: &Call<'_, S>) -> Result<Self> {
        Ok(Self::new(Arc::clone(call.info), call.delivery()))
    }
}
