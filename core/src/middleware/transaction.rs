//! Several events that are published all or none.
//!
//! A transaction gathers in memory what is published in it, each event prepared and checked as any
//! other, and gives it to the transport in one call at its end.

use std::future::{Ready, ready};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::prepare::Prepare;
use super::route::Route;
use crate::event::IntoEvent;
use crate::handler::{Call, FromDelivery};
use crate::transport::Outgoing;
use crate::{Error, ErrorKind, Result, Text};

/// Events that are published all or none, on one transport.
///
/// Given to the closure of `Bus::transaction`. As an argument of a handler it makes the handler's
/// subscription [exactly-once](crate::config::SubscriptionConfig::exactly_once): what the handler
/// publishes in it and the acknowledgement of the event are stored in one step.
///
/// Clones are handles to the same transaction. After its end it takes nothing more.
#[derive(Debug, Clone)]
pub struct Transaction(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    prepare: Arc<Prepare>,
    transport: Text,
    state: Mutex<State>,
}

#[derive(Debug)]
enum State {
    Open(Gathered),
    /// It can only be given up, for this reason.
    Refused(Error),
    Ended,
}

/// What was published in a transaction.
#[derive(Debug, Default)]
pub(crate) struct Gathered {
    pub(crate) batch: Vec<Outgoing>,
    pub(crate) bytes: usize,
    /// The route of the first event, whose settings hold for all of them.
    pub(super) route: Option<Arc<Route>>,
}

impl Transaction {
    /// A transaction without events on a transport.
    pub fn new(prepare: Arc<Prepare>, transport: impl Into<Text>) -> Self {
        Self(Arc::new(Inner {
            prepare,
            transport: transport.into(),
            state: Mutex::new(State::Open(Gathered::default())),
        }))
    }

    /// Adds an event. It is made, routed and checked at once, before the future is polled, and
    /// published when the transaction ends well.
    ///
    /// An event that is refused ends the transaction: nothing of it is published, also where the
    /// error is passed over.
    ///
    /// # Errors
    ///
    /// [`MixedTransports`](ErrorKind::MixedTransports) for an event that travels on another
    /// transport; [`TooLarge`](ErrorKind::TooLarge) if the transaction would hold more than
    /// `max_transaction_events` or `max_transaction_bytes` under `[publishing]`;
    /// [`Closed`](ErrorKind::Closed) after the end of the transaction; and of those of
    /// `Bus::publish` the ones that are not the transport's.
    #[must_use = "the error says why the transaction can't be"]
    pub fn publish(&self, event: impl IntoEvent) -> Ready<Result<()>> {
        ready(self.add(event))
    }

    /// The name of its transport in the config.
    pub fn transport(&self) -> &str {
        &self.0.transport
    }

    fn add(&self, event: impl IntoEvent) -> Result<()> {
        let prepared = self.0.prepare.event(event);
        let mut state = self.lock();
        let gathered = match &mut *state {
            State::Open(gathered) => gathered,
            State::Refused(error) => return Err(error.duplicate()),
            State::Ended => return Err(ended()),
        };
        let added = prepared.and_then(|(way, outgoing, size)| {
            if way.transport() != &self.0.transport {
                return Err(self.elsewhere(way.transport(), way.event_type()));
            }
            let publishing = self.0.prepare.publishing();
            let route = publishing.route(&way);
            publishing.check_transaction(gathered.batch.len() + 1, gathered.bytes + size)?;
            gathered.route.get_or_insert_with(|| Arc::clone(route));
            gathered.bytes += size;
            gathered.batch.push(outgoing);
            Ok(())
        });
        added.inspect_err(|error| *state = State::Refused(error.duplicate()))
    }

    /// Ends it and gives what was published in it.
    ///
    /// # Errors
    ///
    /// Why an event was refused; [`Closed`](ErrorKind::Closed) if it had ended.
    pub(crate) fn finish(&self) -> Result<Gathered> {
        match std::mem::replace(&mut *self.lock(), State::Ended) {
            State::Open(gathered) => Ok(gathered),
            State::Refused(error) => Err(error),
            State::Ended => Err(ended()),
        }
    }

    /// Ends it; nothing of it is published.
    pub(crate) fn give_up(&self) {
        *self.lock() = State::Ended;
    }

    fn elsewhere(&self, transport: &str, event_type: &str) -> Error {
        let own = &self.0.transport;
        let message = format!("`{event_type}` travels on transport `{transport}`, not on `{own}`");
        Error::new(ErrorKind::MixedTransports, message)
            .with_operation("transaction")
            .with_transport(own.clone())
            .with_note("all events of a transaction travel on the transport that it names")
            .with_note(
                "route it to the same transport, or publish it before or after the transaction",
            )
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic can't leave the list half changed.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends a transaction whose work is dropped before its end.
pub(super) struct EndOnDrop(pub(super) Transaction);

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        self.0.give_up();
    }
}

impl<S> FromDelivery<S> for Transaction {
    const TRANSACTIONAL: bool = true;

    fn from_delivery(call: &Call<'_, S>) -> Result<Self> {
        let transaction = call.info().scope::<Self>().cloned();
        transaction.ok_or_else(|| {
            Error::new(
                ErrorKind::Unsupported,
                "the handler is not called within a transaction",
            )
        })
    }
}

fn ended() -> Error {
    Error::new(ErrorKind::Closed, "the transaction has ended")
        .with_operation("transaction")
        .with_note("publish in it before the closure or handler that it was given to returns")
}
