//! Receiving and settling as a member of a group.

use std::time::Duration;

use polybus_core::transport::{
    AckToken, Delivery, DynSettler, DynSubscriber, Settlement, Settler, Subscriber,
};
use polybus_core::{ErrorKind, Event};
use tokio::time::{Instant, timeout, timeout_at};

use crate::failure::{Check, Failure, ensure};
use crate::journal::Journal;
use crate::scene::Scene;

/// How many deliveries a member asks for where the number does not matter.
pub(crate) const USUAL: usize = 64;

/// A member of a group whose answers are checked. Dropped, it leaves as a crash does: nothing
/// is settled and nobody is told.
pub(crate) struct Member {
    subscriber: DynSubscriber,
    settler: DynSettler,
    scene: Scene,
}

impl Member {
    pub(crate) fn new(subscriber: DynSubscriber, scene: Scene) -> Self {
        let settler = subscriber.settler();
        Self {
            subscriber,
            settler,
            scene,
        }
    }

    pub(crate) fn settler(&self) -> DynSettler {
        self.subscriber.settler()
    }

    /// The subscriber itself, where a case needs its call unchecked.
    pub(crate) fn subscriber(&mut self) -> &mut DynSubscriber {
        &mut self.subscriber
    }

    /// Waits for deliveries for as long as it takes, over retryable errors too. Cancel safe,
    /// if the transport is.
    pub(crate) async fn recv(&mut self, max: usize) -> Check<Vec<Delivery>> {
        loop {
            let batch = match self.subscriber.recv(max).await {
                Ok(batch) => batch,
                Err(error) if error.retryable() => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            ensure!(!batch.is_empty(), "`recv` returned without a delivery");
            ensure!(
                batch.len() <= max,
                "`recv({max})` returned {} deliveries",
                batch.len()
            );
            return Ok(batch);
        }
    }

    /// Receives so many deliveries and settles none.
    pub(crate) async fn take(&mut self, count: usize) -> Check<Vec<Delivery>> {
        let _step = self
            .scene
            .step(format_args!("receiving {count} deliveries"));
        let patience = self.scene.tuning().patience;
        let mut taken = Vec::with_capacity(count);
        while taken.len() < count {
            let missing = count - taken.len();
            let Ok(batch) = timeout(patience, self.recv(missing)).await else {
                return Err(Failure::new(format!(
                    "{missing} of {count} deliveries did not come within {patience:?}"
                )));
            };
            taken.extend(batch?);
        }
        Ok(taken)
    }

    /// Receives until the events have all come, in any order and as often as they come; settles
    /// none. For what may be delivered more than once.
    pub(crate) async fn take_all(&mut self, journal: &Journal) -> Check<Vec<Delivery>> {
        let _step = self.scene.step(format_args!("receiving {journal}"));
        let mut taken = Vec::new();
        journal.start_waiting();
        while !journal.is_complete() {
            let Some(batch) = self.next_of(journal).await? else {
                break;
            };
            journal.record(&batch)?;
            taken.extend(batch);
        }
        Ok(taken)
    }

    /// Receives and acknowledges until the journal has all it expects, from this member and
    /// from the others that work on it.
    pub(crate) async fn work(&mut self, journal: &Journal) -> Check {
        let _step = self.scene.step(format_args!("handling {journal}"));
        journal.start_waiting();
        while !journal.is_complete() {
            let Some(batch) = self.next_of(journal).await? else {
                break;
            };
            journal.record(&batch)?;
            self.ack(&batch).await?;
        }
        Ok(())
    }

    /// The next deliveries, or `None` once the journal is complete. Fails when nobody has
    /// made progress for as long as patience lasts.
    pub(crate) async fn next_of(&mut self, journal: &Journal) -> Check<Option<Vec<Delivery>>> {
        let patience = self.scene.tuning().patience;
        loop {
            let until = journal.last_progress() + patience;
            if until <= Instant::now() {
                journal.ensure_complete()?;
            }
            tokio::select! {
                biased;
                () = journal.completed() => return Ok(None),
                batch = timeout_at(until, self.recv(USUAL)) => {
                    if let Ok(batch) = batch {
                        return batch.map(Some);
                    }
                }
            }
        }
    }

    pub(crate) async fn ack(&mut self, deliveries: &[Delivery]) -> Check {
        self.settle(deliveries, Settlement::Ack).await
    }

    /// Settles deliveries alike, which must succeed for each.
    pub(crate) async fn settle(&mut self, deliveries: &[Delivery], as_what: Settlement) -> Check {
        let batch: Vec<_> = deliveries
            .iter()
            .map(|delivery| (delivery.token(), as_what))
            .collect();
        for (result, delivery) in self.try_settle(&batch).await?.into_iter().zip(deliveries) {
            let at = delivery.position();
            result.map_err(|error| {
                Failure::new(format!(
                    "the delivery at {at} was not settled with {as_what:?}: {error:?}"
                ))
            })?;
        }
        Ok(())
    }

    /// Acknowledges what can be, amid faults: what fails with a stale or a retryable error
    /// comes back.
    pub(crate) async fn ack_if_possible(&mut self, deliveries: &[Delivery]) -> Check {
        let tokens = deliveries.iter().map(Delivery::token);
        let batch: Vec<_> = tokens.map(|token| (token, Settlement::Ack)).collect();
        for result in self.try_settle(&batch).await? {
            match result {
                Err(error) if !error.retryable() && error.kind() != ErrorKind::Stale => {
                    return Err(error.into());
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Settles a batch and returns its results, which must be one for each.
    pub(crate) async fn try_settle(
        &mut self,
        batch: &[(AckToken, Settlement)],
    ) -> Check<Vec<polybus_core::Result<()>>> {
        let _step = self
            .scene
            .step(format_args!("settling {} deliveries", batch.len()));
        let results = self.settler.settle(batch).await;
        ensure!(
            results.len() == batch.len(),
            "{} deliveries were settled and {} results came back",
            batch.len(),
            results.len()
        );
        Ok(results)
    }

    /// Listens for a while and fails if anything comes.
    pub(crate) async fn ensure_quiet(&mut self) -> Check {
        let _step = self.scene.step("listening for what must not come");
        let quiet = self.scene.tuning().quiet;
        let Ok(batch) = timeout(quiet, self.recv(USUAL)).await else {
            return Ok(());
        };
        let batch = batch?;
        let came: Vec<_> = batch.iter().map(describe).collect();
        Err(Failure::new(format!(
            "nothing more was to come, and then came {}",
            came.join(", ")
        )))
    }

    /// Leaves the group in an orderly way.
    pub(crate) async fn close(self) -> Check {
        let _step = self.scene.step("closing a subscriber");
        let deadline = self.scene.patience();
        Ok(self.subscriber.close(deadline).await?)
    }

    /// Leaves the group as a process does that was killed.
    pub(crate) fn crash(self) {
        drop(self);
    }
}

/// The event of a delivery that must be one.
pub(crate) fn event_of(delivery: &Delivery) -> Check<&Event> {
    delivery.event().map_err(|undecodable| {
        Failure::new(format!(
            "the event at {} came back undecodable: {:?}",
            delivery.position(),
            undecodable.error()
        ))
    })
}

/// The ids of deliveries, in their order.
pub(crate) fn delivered_ids(deliveries: &[Delivery]) -> Check<Vec<String>> {
    let id = |delivery| Ok(event_of(delivery)?.id().to_owned());
    deliveries.iter().map(id).collect()
}

/// A delivery in a few words.
pub(crate) fn describe(delivery: &Delivery) -> String {
    let what = delivery
        .event()
        .map_or("undecodable bytes", |event| event.id());
    format!(
        "`{what}` at {} of `{}` (attempt {})",
        delivery.position(),
        delivery.topic(),
        delivery.attempt()
    )
}
