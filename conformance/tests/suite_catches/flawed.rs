//! The memory transport with a flaw built in.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use polybus_core::idempotency::IdempotencyStore;
use polybus_core::transport::{
    AckToken, Capabilities, Delivery, Headers, Outcome, Outgoing, Position, Publisher, RawRecord,
    Settlement, Settler, Start, Subscriber, Subscription, Transport,
};
use polybus_core::{Error, ErrorKind, Event, Result, Topic};
use polybus_memory::{MemoryPublisher, MemorySettler, MemorySubscriber, MemoryTransport};
use tokio::time::Instant;

use crate::admin::FlawedAdmin;
use crate::flaws::Flaw;
use crate::store::FlawedStore;

/// A flaw strikes each time so many events have passed.
const EVERY: usize = 29;

#[derive(Clone)]
pub(crate) struct FlawedTransport {
    inner: MemoryTransport,
    flaw: Flaw,
    passed: Arc<AtomicUsize>,
    starts: Starts,
}

/// How many times a start was noted, by topic and offset.
type Starts = Arc<Mutex<HashMap<(u32, u64), u32>>>;

pub(crate) struct FlawedPublisher {
    inner: MemoryPublisher,
    transport: FlawedTransport,
    closed: AtomicBool,
}

pub(crate) struct FlawedSubscriber {
    inner: Option<MemorySubscriber>,
    joining: Option<Subscription>,
    settler: FlawedSettler,
    transport: FlawedTransport,
}

#[derive(Clone)]
pub(crate) struct FlawedSettler {
    inner: Arc<OnceLock<MemorySettler>>,
    flaw: Flaw,
    delivered: Arc<Mutex<Vec<(Topic, Position, AckToken)>>>,
    between: Arc<tokio::sync::Mutex<()>>,
    starts: Starts,
    transport: MemoryTransport,
}

impl FlawedTransport {
    pub(crate) fn new(inner: MemoryTransport, flaw: Flaw) -> Self {
        Self {
            inner,
            flaw,
            passed: Arc::default(),
            starts: Arc::default(),
        }
    }

    fn strikes(&self, flaw: Flaw) -> bool {
        self.flaw == flaw
            && self
                .passed
                .fetch_add(1, Ordering::Relaxed)
                .is_multiple_of(EVERY)
    }
}

impl Transport for FlawedTransport {
    type Publisher = FlawedPublisher;
    type Subscriber = FlawedSubscriber;
    type Admin = FlawedAdmin;

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities().with_begin()
    }

    async fn publisher(&self) -> Result<FlawedPublisher> {
        Ok(FlawedPublisher {
            inner: self.inner.publisher().await?,
            transport: self.clone(),
            closed: AtomicBool::new(false),
        })
    }

    async fn subscribe(&self, mut subscription: Subscription) -> Result<FlawedSubscriber> {
        match self.flaw {
            Flaw::StartsAtNow => subscription.start = Start::Now,
            Flaw::OneGroupForAll => subscription.group = "all".into(),
            Flaw::OneGroupEach => {
                let number = self.passed.fetch_add(1, Ordering::Relaxed);
                subscription.group = format!("{}-{number}", subscription.group).into();
            }
            Flaw::IgnoresPatterns => subscription.patterns.clear(),
            _ => {}
        }
        let mut subscriber = FlawedSubscriber {
            inner: None,
            joining: Some(subscription),
            settler: FlawedSettler {
                inner: Arc::default(),
                flaw: self.flaw,
                delivered: Arc::default(),
                between: Arc::default(),
                starts: self.starts.clone(),
                transport: self.inner.clone(),
            },
            transport: self.clone(),
        };
        if self.flaw != Flaw::JoinsAtFirstRecv {
            subscriber.join().await?;
        }
        Ok(subscriber)
    }

    fn idempotency(&self) -> Option<Arc<dyn IdempotencyStore>> {
        Some(Arc::new(FlawedStore {
            inner: self.inner.idempotency()?,
            flaw: self.flaw,
        }))
    }

    fn admin(&self) -> FlawedAdmin {
        FlawedAdmin {
            inner: self.inner.admin(),
            flaw: self.flaw,
        }
    }
}

impl Publisher for FlawedPublisher {
    async fn publish(&self, batch: &[Outgoing]) -> Vec<Outcome> {
        let transport = &self.transport;
        let mut stored = Vec::with_capacity(batch.len());
        for outgoing in batch {
            if transport.strikes(Flaw::LosesOnPublish) {
                continue;
            }
            if transport.strikes(Flaw::DuplicatesOnPublish) {
                stored.push(outgoing.clone());
            }
            stored.push(match transport.flaw {
                Flaw::SplitsKeysAmongMembers => with_hidden_key(outgoing),
                _ => outgoing.clone(),
            });
        }
        if transport.flaw == Flaw::ReordersOnPublish {
            stored.reverse();
        }
        let outcomes = self.inner.publish(&stored).await;
        self.tell(batch, outcomes)
    }

    async fn publish_together(&self, batch: &[Outgoing]) -> Result<Vec<Position>> {
        match self.transport.flaw {
            Flaw::StoresPartOfTransactions => {
                let (stored, rest) = batch.split_at(batch.len() / 2);
                let mut positions = self.inner.publish_together(stored).await?;
                positions.extend(rest.iter().map(|_| Position::new(0, 0)));
                Ok(positions)
            }
            Flaw::StoresWhatWasAborted => {
                let outcomes = self.inner.publish(batch).await.into_iter();
                outcomes.map(Outcome::into_result).collect()
            }
            Flaw::ReordersTransactions => {
                let reversed: Vec<_> = batch.iter().rev().cloned().collect();
                self.inner.publish_together(&reversed).await
            }
            _ => self.inner.publish_together(batch).await,
        }
    }

    async fn flush(&self, deadline: Instant) -> Result<()> {
        self.inner.flush(deadline).await
    }

    async fn close(&self, deadline: Instant) -> Result<()> {
        self.closed.store(true, Ordering::SeqCst);
        match self.transport.flaw {
            Flaw::IgnoresClose => Ok(()),
            Flaw::HangsOnClose => std::future::pending().await,
            _ => self.inner.close(deadline).await,
        }
    }
}

impl FlawedPublisher {
    /// The outcomes as the flaw has them.
    fn tell(&self, batch: &[Outgoing], mut outcomes: Vec<Outcome>) -> Vec<Outcome> {
        let made_up = || Outcome::Accepted(Position::new(0, 0));
        match self.transport.flaw {
            Flaw::ReordersOnPublish => outcomes.reverse(),
            Flaw::MixesUpOutcomes => outcomes.rotate_left(usize::from(batch.len() > 1)),
            Flaw::HidesRejection => {
                for outcome in &mut outcomes {
                    if !outcome.is_accepted() {
                        *outcome = made_up();
                    }
                }
            }
            Flaw::FailsWholeBatch if outcomes.iter().any(|outcome| !outcome.is_accepted()) => {
                for outcome in &mut outcomes {
                    *outcome = Outcome::Rejected(Error::new(ErrorKind::TooLarge, "too large"));
                }
            }
            Flaw::GivesTooFewOutcomes if batch.len() > 100 => outcomes.truncate(100),
            Flaw::LosesOnPublish | Flaw::DuplicatesOnPublish => {
                outcomes.resize_with(batch.len(), made_up);
            }
            _ => {}
        }
        outcomes
    }
}

impl FlawedSubscriber {
    async fn join(&mut self) -> Result<&mut MemorySubscriber> {
        if let Some(subscription) = self.joining.take() {
            let subscriber = self.transport.inner.subscribe(subscription).await?;
            let _ = self.settler.inner.set(subscriber.settler());
            self.inner = Some(subscriber);
        }
        Ok(self.inner.as_mut().expect("it has joined"))
    }

    /// What was received, as the flaw has it.
    async fn spoil(&self, batch: Vec<Delivery>, max: usize) -> Vec<Delivery> {
        let flaw = self.transport.flaw;
        let mut spoilt = Vec::with_capacity(batch.len());
        for delivery in batch {
            if self.transport.strikes(Flaw::LosesOnReceive) {
                self.settler.ack(&[delivery.token()]).await;
                continue;
            }
            if max > 1
                && self.transport.strikes(Flaw::Duplicates)
                && let Ok(event) = delivery.event()
            {
                spoilt.push(remade(&delivery, event.clone()));
            }
            spoilt.extend(spoil_one(flaw, delivery));
        }
        if flaw == Flaw::ReordersDeliveries {
            spoilt.reverse();
        }
        if flaw == Flaw::AcksAtDelivery {
            let tokens: Vec<_> = spoilt.iter().map(Delivery::token).collect();
            self.settler.ack(&tokens).await;
        }
        spoilt
    }
}

/// The name under which an event carries a key that the broker does not see.
const HIDDEN_KEY: &str = "hiddenkey";

fn with_hidden_key(outgoing: &Outgoing) -> Outgoing {
    let Some((event, key)) = outgoing
        .event()
        .and_then(|event| Some((event, event.partition_key()?.to_owned())))
    else {
        return outgoing.clone();
    };
    let hidden = event
        .to_builder()
        .extension(HIDDEN_KEY, key)
        .key(event.id())
        .build()
        .expect("it was one");
    Outgoing::new(outgoing.topic.clone(), hidden).with_headers(outgoing.headers.clone())
}

/// A delivery as the flaw has it, or nothing.
fn spoil_one(flaw: Flaw, delivery: Delivery) -> Option<Delivery> {
    let event = match delivery.event() {
        Ok(event) => event.clone(),
        Err(_) if flaw == Flaw::SkipsUndecodable => return None,
        Err(_) if flaw == Flaw::ChangesRawBytes => {
            let record = RawRecord::new(None, Headers::new(), Some("?".into()));
            let (token, topic) = (delivery.token(), delivery.topic().clone());
            let error = Error::new(ErrorKind::Decode, "no event");
            return Some(Delivery::undecodable(
                token,
                topic,
                delivery.position(),
                record,
                error,
            ));
        }
        Err(_) => return Some(delivery),
    };
    let builder = event.to_builder();
    let data = event.data().cloned();
    Some(match (flaw, event.subject(), data) {
        (Flaw::LosesHeaders, ..) => remade(&delivery, event).with_headers(Headers::new()),
        (Flaw::OneSourceForAll, ..) => {
            let AckToken { epoch, id, .. } = delivery.token();
            let topic = delivery.topic().clone();
            Delivery::new(
                AckToken::new(0, epoch, id),
                topic,
                delivery.position(),
                event,
            )
        }
        (Flaw::AttemptIsAlwaysOne, ..) => delivery.with_attempt(1),
        (Flaw::MakesKeyOfSubject, Some(subject), _) if event.partition_key().is_none() => {
            let subject = subject.to_owned();
            remade(&delivery, builder.key(subject).build().expect("it was one"))
        }
        (Flaw::MakesNoDataEmpty, _, None) => {
            remade(&delivery, builder.data("").build().expect("it was one"))
        }
        (Flaw::CutsLargeData, _, Some(data)) if data.len() > 1_000_000 => {
            let cut = builder.data(data.slice(..1_000_000));
            remade(&delivery, cut.build().expect("it was one"))
        }
        (Flaw::SplitsKeysAmongMembers, ..) => match event.extension(HIDDEN_KEY) {
            Some(key) => {
                let shown = builder.key(key.to_string()).build().expect("it was one");
                remade(&delivery, shown)
            }
            None => delivery,
        },
        _ => delivery,
    })
}

fn remade(delivery: &Delivery, event: Event) -> Delivery {
    let topic = delivery.topic().clone();
    Delivery::new(delivery.token(), topic, delivery.position(), event)
        .with_attempt(delivery.attempt())
        .with_headers(delivery.headers().clone())
}

impl Subscriber for FlawedSubscriber {
    type Settler = FlawedSettler;

    async fn recv(&mut self, max: usize) -> Result<Vec<Delivery>> {
        let flaw = self.transport.flaw;
        loop {
            let between = self.settler.between.clone();
            let held = match flaw {
                Flaw::SettlesBetweenReceives => Some(between.lock().await),
                _ => None,
            };
            let wanted = match flaw {
                Flaw::IgnoresMax => max + 1,
                // There must be room for the copies.
                Flaw::Duplicates => max.div_ceil(2),
                Flaw::LosesReadAheadOnCrash => 100,
                _ => max,
            };
            let mut batch = self.join().await?.recv(wanted).await?;
            drop(held);
            if flaw == Flaw::LosesOnCancel {
                tokio::task::yield_now().await;
            }
            if flaw == Flaw::LosesReadAheadOnCrash && batch.len() > max {
                // Read, acknowledged on the server, and only in this process from now on.
                let ahead: Vec<_> = batch.drain(max..).collect();
                let tokens: Vec<_> = ahead.iter().map(Delivery::token).collect();
                self.settler.ack(&tokens).await;
            }
            self.settler.note(&batch);
            let batch = self.spoil(batch, max).await;
            if !batch.is_empty() {
                return Ok(batch);
            }
        }
    }

    fn settler(&self) -> FlawedSettler {
        self.settler.clone()
    }

    async fn close(mut self, deadline: Instant) -> Result<()> {
        if self.transport.flaw == Flaw::AcksOnClose {
            let delivered = self
                .settler
                .delivered
                .lock()
                .expect("no holder of the lock panics")
                .clone();
            let tokens: Vec<_> = delivered.iter().map(|(_, _, token)| *token).collect();
            self.settler.ack(&tokens).await;
        }
        match self.inner.take() {
            Some(inner) => inner.close(deadline).await,
            None => Ok(()),
        }
    }
}

impl Drop for FlawedSubscriber {
    fn drop(&mut self) {
        if self.transport.flaw == Flaw::KeepsDeadMembers {
            std::mem::forget(self.inner.take());
        }
    }
}

impl FlawedSettler {
    async fn ack(&self, tokens: &[AckToken]) {
        let batch: Vec<_> = tokens
            .iter()
            .map(|token| (*token, Settlement::Ack))
            .collect();
        if let Some(inner) = self.inner.get() {
            inner.settle(&batch).await;
        }
    }

    fn note(&self, batch: &[Delivery]) {
        let known = batch.iter().map(|delivery| {
            (
                delivery.topic().clone(),
                delivery.position(),
                delivery.token(),
            )
        });
        self.delivered
            .lock()
            .expect("no holder of the lock panics")
            .extend(known);
    }

    /// Everything of the same topic up to one delivery.
    fn up_to(&self, token: AckToken) -> Vec<AckToken> {
        let delivered = self.delivered.lock().expect("no holder of the lock panics");
        let Some((topic, last, _)) = delivered.iter().find(|(_, _, known)| *known == token) else {
            return Vec::new();
        };
        let earlier = delivered
            .iter()
            .filter(|(of, position, _)| of == topic && position <= last);
        earlier.map(|(_, _, token)| *token).collect()
    }
}

impl Settler for FlawedSettler {
    async fn settle(&self, batch: &[(AckToken, Settlement)]) -> Vec<Result<()>> {
        let Some(inner) = self.inner.get() else {
            let stale = || Err(Error::new(ErrorKind::Stale, "never joined"));
            return batch.iter().map(|_| stale()).collect();
        };
        let held = match self.flaw {
            Flaw::SettlesBetweenReceives => Some(self.between.lock().await),
            _ => None,
        };
        let mut batch = batch.to_vec();
        if self.flaw == Flaw::AcksReleased {
            for (_, settlement) in &mut batch {
                *settlement = Settlement::Ack;
            }
        }
        let results = inner.settle(&batch).await;
        drop(held);
        match self.flaw {
            Flaw::AcksUpToHighest => {
                for (token, _) in &batch {
                    self.ack(&self.up_to(*token)).await;
                }
                results
            }
            Flaw::AcksWhatIsStale => results.iter().map(|_| Ok(())).collect(),
            _ => results,
        }
    }

    async fn settle_together(
        &self,
        acks: &[AckToken],
        batch: &[Outgoing],
    ) -> Result<Vec<Position>> {
        let Some(inner) = self.inner.get() else {
            return Err(Error::new(ErrorKind::Stale, "never joined"));
        };
        let apart = self.transport.publisher().await?;
        match self.flaw {
            Flaw::PublishesWithoutSettling => apart.publish_together(batch).await,
            Flaw::SettlesBeforePublishing => {
                self.ack(acks).await;
                apart.publish_together(batch).await
            }
            Flaw::PublishesWhatIsStale | Flaw::RepeatsSteps => {
                let positions = apart.publish_together(batch).await?;
                let settled = inner.settle_together(acks, &[]).await;
                match self.flaw {
                    Flaw::RepeatsSteps => settled.map(|_| positions),
                    _ => Ok(positions),
                }
            }
            _ => inner.settle_together(acks, batch).await,
        }
    }

    fn is_current(&self, token: AckToken) -> bool {
        self.flaw != Flaw::NothingIsCurrent
            && self.inner.get().is_none_or(|inner| inner.is_current(token))
    }

    async fn forward(&self, batch: &[(AckToken, Outgoing)]) -> Vec<Result<()>> {
        let Some(inner) = self.inner.get() else {
            let stale = || Err(Error::new(ErrorKind::Stale, "never joined"));
            return batch.iter().map(|_| stale()).collect();
        };
        let letters: Vec<_> = batch.iter().map(|(_, letter)| letter.clone()).collect();
        match self.flaw {
            Flaw::ForwardsWithoutAck | Flaw::ForwardsTwice => {
                let publisher = self.transport.publisher().await;
                let publisher = publisher.expect("memory has publishers");
                let outcomes = publisher.publish(&letters).await.into_iter();
                let results = outcomes.map(|outcome| outcome.into_result().map(drop));
                if self.flaw == Flaw::ForwardsTwice {
                    let tokens: Vec<_> = batch.iter().map(|(token, _)| *token).collect();
                    self.ack(&tokens).await;
                }
                results.collect()
            }
            Flaw::AcksWithoutForwarding => {
                let acks = batch.iter().map(|(token, _)| (*token, Settlement::Ack));
                inner.settle(&acks.collect::<Vec<_>>()).await
            }
            _ => inner.forward(batch).await,
        }
    }

    async fn begin(&self, token: AckToken) -> Result<u32> {
        let mut starts = self.starts.lock().expect("no holder of the lock panics");
        let noted = starts.entry((token.source, token.id[0])).or_default();
        *noted += u32::from(self.flaw != Flaw::ForgetsStarts);
        Ok(noted.saturating_sub(1))
    }
}
