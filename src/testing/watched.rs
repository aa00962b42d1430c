//! A transport around another one, which notes what is published and lets faults strike.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::fault::Kind;
use super::journal::Journal;
use crate::idempotency::IdempotencyStore;
use crate::transport::{
    AckToken, Capabilities, Delivery, DynAdmin, DynPublisher, DynSettler, DynSubscriber,
    DynTransport, Outcome, Outgoing, Position, Publisher, Settlement, Settler, Subscriber,
    Subscription, Transport,
};
use crate::{Effect, Error, ErrorKind, Result, Text};

/// How long an event that shall change places waits for another one.
const REORDER_WITHIN: Duration = Duration::from_secs(1);

/// How many deliveries one subscriber holds back. Beyond it nothing more is read.
const MAX_HELD: usize = 1024;

pub(super) struct Watched {
    pub(super) name: Text,
    pub(super) inner: DynTransport,
    pub(super) journal: Arc<Journal>,
}

impl Transport for Watched {
    type Publisher = WatchedPublisher;
    type Subscriber = WatchedSubscriber;
    type Admin = DynAdmin;

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    async fn publisher(&self) -> Result<WatchedPublisher> {
        Ok(WatchedPublisher {
            name: self.name.clone(),
            inner: self.inner.publisher().await?,
            journal: Arc::clone(&self.journal),
        })
    }

    async fn subscribe(&self, subscription: Subscription) -> Result<WatchedSubscriber> {
        let membership = subscription.clone();
        let inner = self.inner.subscribe(subscription).await?;
        self.journal.joined(&self.name, &membership);
        Ok(WatchedSubscriber {
            name: self.name.clone(),
            inner,
            journal: Arc::clone(&self.journal),
            ready: VecDeque::new(),
            held: VecDeque::new(),
            again: Again::default(),
        })
    }

    fn admin(&self) -> DynAdmin {
        self.inner.admin()
    }

    fn idempotency(&self) -> Option<Arc<dyn IdempotencyStore>> {
        self.inner.idempotency()
    }
}

pub(super) struct WatchedPublisher {
    name: Text,
    inner: DynPublisher,
    journal: Arc<Journal>,
}

impl WatchedPublisher {
    fn rejected(&self, outgoing: &Outgoing) -> Outcome {
        Outcome::Rejected(self.injected(outgoing))
    }

    fn injected(&self, outgoing: &Outgoing) -> Error {
        injected(&self.name, outgoing)
    }

    /// Notes what was stored, and loses the answer where a fault says so.
    fn answer(&self, outgoing: &Outgoing, fault: Option<Kind>, outcome: Outcome) -> Outcome {
        let Outcome::Accepted(position) = outcome else {
            return outcome;
        };
        self.journal.stored(&self.name, outgoing, position);
        if fault == Some(Kind::LoseAnswer) {
            let error = injected(&self.name, outgoing).with_effect(Effect::Unknown);
            return Outcome::Unknown(error);
        }
        Outcome::Accepted(position)
    }
}

impl Publisher for WatchedPublisher {
    async fn publish(&self, batch: &[Outgoing]) -> Vec<Outcome> {
        let _publishing = self.journal.publishing();
        let faults: Vec<_> = batch
            .iter()
            .map(|outgoing| self.journal.strike_publish(outgoing))
            .collect();
        let passes = |fault: &Option<Kind>| matches!(fault, None | Some(Kind::LoseAnswer));
        let passing: Vec<Outgoing> = batch
            .iter()
            .zip(&faults)
            .filter(|(_, fault)| passes(fault))
            .map(|(outgoing, _)| outgoing.clone())
            .collect();
        let mut outcomes = self.inner.publish(&passing).await.into_iter();
        let answers = batch.iter().zip(faults).map(|(outgoing, fault)| {
            if !passes(&fault) {
                return Some(self.rejected(outgoing));
            }
            Some(self.answer(outgoing, fault, outcomes.next()?))
        });
        answers.map_while(|answer| answer).collect()
    }

    async fn publish_together(&self, batch: &[Outgoing]) -> Result<Vec<Position>> {
        let _publishing = self.journal.publishing();
        let watching = Together::new(&self.name, &self.journal, batch)?;
        watching.ended(self.inner.publish_together(batch).await)
    }

    async fn flush(&self, deadline: Instant) -> Result<()> {
        self.inner.flush(deadline).await
    }

    async fn close(&self, deadline: Instant) -> Result<()> {
        self.inner.close(deadline).await
    }
}

fn injected(transport: &Text, outgoing: &Outgoing) -> Error {
    Error::new(ErrorKind::Connect, "a fault of the test was injected")
        .with_operation("publish")
        .with_transport(transport.clone())
        .with_topic(outgoing.topic.name())
}

/// Events that are stored all or none.
struct Together<'a> {
    name: &'a Text,
    journal: &'a Journal,
    batch: &'a [Outgoing],
    /// The event whose answer is lost, and with it that of all.
    lost: Option<&'a Outgoing>,
}

impl<'a> Together<'a> {
    /// A fault that refuses one of the events refuses all.
    fn new(name: &'a Text, journal: &'a Journal, batch: &'a [Outgoing]) -> Result<Self> {
        let mut lost = None;
        for outgoing in batch {
            match journal.strike_publish(outgoing) {
                None => {}
                Some(Kind::LoseAnswer) => lost = Some(outgoing),
                Some(_) => return Err(injected(name, outgoing)),
            }
        }
        Ok(Self {
            name,
            journal,
            batch,
            lost,
        })
    }

    /// Notes what was stored, unless a call before this one did it all.
    fn ended(self, stored: Result<Vec<Position>>) -> Result<Vec<Position>> {
        let positions = stored?;
        for (outgoing, position) in self.batch.iter().zip(&positions) {
            if position.offset() != u64::MAX {
                self.journal.stored(self.name, outgoing, *position);
            }
        }
        match self.lost {
            Some(outgoing) => Err(injected(self.name, outgoing).with_effect(Effect::Unknown)),
            None => Ok(positions),
        }
    }
}

pub(super) struct WatchedSubscriber {
    name: Text,
    inner: DynSubscriber,
    journal: Arc<Journal>,
    ready: VecDeque<Delivery>,
    held: VecDeque<Held>,
    again: Again,
}

/// A delivery that a fault holds back.
struct Held {
    until: Instant,
    /// It follows the next delivery, if one comes before.
    until_next: bool,
    delivery: Delivery,
}

impl WatchedSubscriber {
    /// Takes in what the transport delivered. Awaits nothing, so that nothing is lost.
    fn admit(&mut self, deliveries: Vec<Delivery>) {
        for delivery in deliveries {
            let fault = self.journal.strike_delivery(&delivery);
            let now = Instant::now();
            match fault {
                Some(Kind::Delay(by)) => self.hold(now + by, false, delivery),
                Some(Kind::Reorder) => self.hold(now + REORDER_WITHIN, true, delivery),
                _ => {
                    if fault == Some(Kind::Redeliver) {
                        self.again.lock().insert(delivery.token());
                    }
                    self.pass(delivery);
                }
            }
        }
    }

    fn hold(&mut self, until: Instant, until_next: bool, delivery: Delivery) {
        self.held.push_back(Held {
            until,
            until_next,
            delivery,
        });
    }

    /// Delivers what no fault strikes: behind what is late of its key, before what changes places.
    fn pass(&mut self, delivery: Delivery) {
        if let Some(until) = self.late(&delivery) {
            return self.hold(until, false, delivery);
        }
        self.ready.push_back(delivery);
        self.release(|held| held.until_next);
    }

    /// Until when an earlier event of the key is late.
    fn late(&self, delivery: &Delivery) -> Option<Instant> {
        let key = delivery.key()?;
        let late = self.held.iter().filter(|held| !held.until_next);
        late.filter(|held| held.delivery.topic() == delivery.topic())
            .filter(|held| held.delivery.key() == Some(key))
            .map(|held| held.until)
            .max()
    }

    fn release(&mut self, due: impl Fn(&Held) -> bool) {
        let (released, held): (VecDeque<_>, _) =
            std::mem::take(&mut self.held).into_iter().partition(due);
        self.held = held;
        let released = released.into_iter().map(|held| held.delivery);
        self.ready.extend(released);
    }
}

impl Subscriber for WatchedSubscriber {
    type Settler = WatchedSettler;

    async fn recv(&mut self, max: usize) -> Result<Vec<Delivery>> {
        loop {
            let now = Instant::now();
            self.release(|held| held.until <= now);
            if !self.ready.is_empty() {
                let count = self.ready.len().min(max.max(1));
                return Ok(self.ready.drain(..count).collect());
            }
            let due = self.held.iter().map(|held| held.until).min();
            tokio::select! {
                received = self.inner.recv(max), if self.held.len() < MAX_HELD => self.admit(received?),
                () = sleep_until(due.unwrap_or(now)), if due.is_some() => {}
            }
        }
    }

    fn settler(&self) -> WatchedSettler {
        WatchedSettler {
            name: self.name.clone(),
            inner: self.inner.settler(),
            journal: Arc::clone(&self.journal),
            again: self.again.clone(),
        }
    }

    async fn close(self, deadline: Instant) -> Result<()> {
        self.inner.close(deadline).await
    }
}

pub(super) struct WatchedSettler {
    name: Text,
    inner: DynSettler,
    journal: Arc<Journal>,
    again: Again,
}

/// Deliveries whose acknowledgement is to be lost.
#[derive(Clone, Default)]
struct Again(Arc<Mutex<HashSet<AckToken>>>);

impl Again {
    fn lock(&self) -> MutexGuard<'_, HashSet<AckToken>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Settler for WatchedSettler {
    async fn settle(&self, batch: &[(AckToken, Settlement)]) -> Vec<Result<()>> {
        let lose = |&(token, settlement): &(AckToken, Settlement)| {
            let lost = settlement == Settlement::Ack && self.again.lock().remove(&token);
            let settlement = if lost {
                Settlement::Release
            } else {
                settlement
            };
            (token, settlement)
        };
        let batch: Vec<_> = batch.iter().map(lose).collect();
        let results = self.inner.settle(&batch).await;
        self.journal.changed();
        results
    }

    async fn settle_together(
        &self,
        acks: &[AckToken],
        batch: &[Outgoing],
    ) -> Result<Vec<Position>> {
        let _publishing = self.journal.publishing();
        let watching = Together::new(&self.name, &self.journal, batch)?;
        watching.ended(self.inner.settle_together(acks, batch).await)
    }

    fn is_current(&self, token: AckToken) -> bool {
        self.inner.is_current(token)
    }

    async fn forward(&self, batch: &[(AckToken, Outgoing)]) -> Vec<Result<()>> {
        let _publishing = self.journal.publishing();
        let mut results = Vec::with_capacity(batch.len());
        for item in batch {
            let fault = self.journal.strike_publish(&item.1);
            if matches!(fault, Some(Kind::Reject | Kind::RejectDeadLetter)) {
                results.push(Err(injected(&self.name, &item.1)));
                continue;
            }
            let forwarded = self.inner.forward(std::slice::from_ref(item)).await;
            for result in forwarded {
                if result.is_ok() {
                    self.journal.forwarded(&self.name, &item.1);
                }
                results.push(result);
            }
        }
        results
    }

    async fn begin(&self, token: AckToken) -> Result<u32> {
        self.inner.begin(token).await
    }
}
