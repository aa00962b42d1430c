//! The end of a transaction: what was gathered goes to the transport in one call.

use std::future::Future;
use std::sync::Arc;

use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout_at};

use super::layers::wait_for_rules;
use super::publishing::{Publishing, Way};
use super::reply::never_answered;
use super::route::Route;
use super::transaction::{EndOnDrop, Gathered, Transaction};
use crate::config::Validate;
use crate::transport::{DynPublisher, Outcome, Outgoing, Publisher};
use crate::{Error, ErrorKind, Event, Result};

impl Publishing {
    /// Runs the work of a transaction, and publishes what was published in it if it ends well.
    ///
    /// What was rejected for a passing reason is tried again, as the route of the first event
    /// says. Events of a transaction that fails are not kept with the failed events: alone they
    /// would not be a transaction any more.
    ///
    /// # Errors
    ///
    /// The work's, and those of [`Publisher::publish_together`].
    ///
    /// # Cancel safety
    ///
    /// Dropped before the work ends, nothing is published; later, all or nothing.
    pub async fn transact<T>(
        &self,
        transaction: Transaction,
        work: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let transaction = EndOnDrop(transaction);
        let value = work.await?;
        let gathered = transaction.0.finish()?;
        self.check_together(&gathered.batch).await?;
        self.commit(transaction.0.transport(), gathered).await?;
        Ok(value)
    }

    /// Waits until the transactions that are being published have ended.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Timeout`] at the deadline.
    pub(super) async fn flush_transactions(&self, deadline: Instant) -> Result<()> {
        let mut open = self.shared.transactions.subscribe();
        let ended = open.wait_for(|open| *open == 0);
        match timeout_at(deadline, ended).await {
            Ok(_) => Ok(()),
            Err(_) => Err(Error::new(
                ErrorKind::Timeout,
                "a transaction has no outcome at the deadline",
            )
            .with_operation("flush")),
        }
    }

    pub(super) fn route(&self, way: &Way) -> &Arc<Route> {
        &self.routes[way.route_index(self.routes.len() - 1)].1
    }

    /// Whether a transaction may hold so much.
    pub(super) fn check_transaction(&self, events: usize, bytes: usize) -> Result<()> {
        let limits = &self.transactions;
        let over = |what: String, setting: &str| {
            let error = Error::new(ErrorKind::TooLarge, what).with_operation("transaction");
            Err(error.with_note(format!(
                "raise `{setting}` under [publishing], or do less in one"
            )))
        };
        if events > limits.max_events {
            let what = format!("the transaction has more than {} events", limits.max_events);
            return over(what, "max_transaction_events");
        }
        if bytes > limits.max_bytes {
            let what = format!("the transaction has more than {} bytes", limits.max_bytes);
            return over(what, "max_transaction_bytes");
        }
        Ok(())
    }

    /// Asks the rules that have to wait about the events of a transaction.
    pub(crate) async fn check_together(&self, batch: &[Outgoing]) -> Result<()> {
        let Some(validation) = self.validation.as_ref().filter(|it| it.rules().wait()) else {
            return Ok(());
        };
        for outgoing in batch {
            let mode = outgoing.event().map(Event::event_type);
            let mode = mode.map_or(Validate::Off, |event_type| validation.mode_of(event_type));
            wait_for_rules(validation, mode, outgoing).await?;
        }
        Ok(())
    }

    async fn commit(&self, transport: &str, gathered: Gathered) -> Result<()> {
        let Gathered {
            batch,
            bytes,
            route: Some(route),
        } = gathered
        else {
            return Ok(());
        };
        let room = &self.shared.room;
        let (most, _) = room.limits();
        let events = u32::try_from(batch.len()).map_or(most, |events| events.min(most));
        let _room = room.take(events, room.charge(bytes)).await?;
        let _open = Open::new(&self.shared.transactions);
        let publishers = self.publishers.iter();
        let mut publishers = publishers.filter(|(name, _)| name == transport);
        let (_, publisher) = publishers
            .next()
            .expect("events are routed to transports of the config");
        let outcome = tokio::select! {
            outcome = self.publish_together(publisher, &batch, &route) => outcome,
            () = self.shared.cut.cancelled() => Err(never_answered()),
        };
        let count = batch.len() as u64;
        let counters = &self.shared.counters;
        match &outcome {
            Ok(()) => counters.add(count, 0, 0),
            Err(error) if error.effect() == crate::Effect::NotApplied => counters.add(0, count, 0),
            Err(_) => counters.add(0, 0, count),
        }
        outcome.map_err(|error| error.with_transport(transport))
    }

    async fn publish_together(
        &self,
        publisher: &DynPublisher,
        batch: &[Outgoing],
        route: &Route,
    ) -> Result<()> {
        let (mut attempts, mut unsure) = (0, false);
        loop {
            attempts += 1;
            let outcome = match publisher.publish_together(batch).await {
                Ok(_) => return Ok(()),
                Err(error) => Outcome::from_error(error),
            };
            unsure |= matches!(outcome, Outcome::Unknown(_));
            let again = route.retries(&outcome, attempts);
            let error = match outcome.into_result() {
                Err(error) if !again => error,
                failed => {
                    let error = failed.err();
                    tracing::debug!(?error, attempts, "a transaction failed and is tried again");
                    self.shared.counters.retried(batch.len());
                    sleep(route.pause(attempts)).await;
                    continue;
                }
            };
            // What an earlier attempt may have stored is never called rejected.
            return Err(match unsure {
                true => error.with_effect(crate::Effect::Unknown),
                false => error,
            });
        }
    }
}

/// Counts a transaction that is being published for as long as it lives.
struct Open<'a>(&'a watch::Sender<usize>);

impl<'a> Open<'a> {
    fn new(open: &'a watch::Sender<usize>) -> Self {
        open.send_modify(|open| *open += 1);
        Self(open)
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|open| *open -= 1);
    }
}
