//! A transport with formats on top of its own.

use std::sync::Arc;

use tokio::time::Instant;

use super::{FormatTable, Place};
use crate::idempotency::IdempotencyStore;
use crate::transport::{
    AckToken, Capabilities, Content, Delivery, DynAdmin, DynPublisher, DynSettler, DynSubscriber,
    DynTransport, Outcome, Outgoing, Position, Publisher, RawRecord, Settlement, Settler,
    Subscriber, Subscription, Transport, publish_prepared,
};
use crate::{Effect, Error, Result};

#[derive(Debug)]
pub(super) struct Formatted {
    inner: DynTransport,
    table: Arc<FormatTable>,
}

impl Formatted {
    pub(super) fn new(inner: DynTransport, table: FormatTable) -> Self {
        Self {
            inner,
            table: Arc::new(table),
        }
    }
}

#[deny(clippy::missing_trait_methods)]
impl Transport for Formatted {
    type Publisher = FormattedPublisher;
    type Subscriber = FormattedSubscriber;
    type Admin = DynAdmin;

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn idempotency(&self) -> Option<Arc<dyn IdempotencyStore>> {
        self.inner.idempotency()
    }

    async fn publisher(&self) -> Result<FormattedPublisher> {
        Ok(FormattedPublisher {
            inner: self.inner.publisher().await?,
            table: Arc::clone(&self.table),
        })
    }

    async fn subscribe(&self, subscription: Subscription) -> Result<FormattedSubscriber> {
        Ok(FormattedSubscriber {
            inner: self.inner.subscribe(subscription).await?,
            table: Arc::clone(&self.table),
        })
    }

    fn admin(&self) -> DynAdmin {
        self.inner.admin()
    }
}

#[derive(Debug)]
pub(super) struct FormattedPublisher {
    inner: DynPublisher,
    table: Arc<FormatTable>,
}

/// The record of an event, if its topic has a format.
fn written(table: &FormatTable, outgoing: &Outgoing) -> Result<Outgoing> {
    let (Content::Event(event), Some(chosen)) = (&outgoing.content, table.find(&outgoing.topic))
    else {
        return Ok(outgoing.clone());
    };
    let record = chosen
        .format
        .write(event)
        .map_err(|error| refused(error, outgoing))?;
    let outgoing =
        Outgoing::raw(outgoing.topic.clone(), record).with_headers(outgoing.headers.clone());
    Ok(outgoing)
}

#[deny(clippy::missing_trait_methods)]
impl Publisher for FormattedPublisher {
    async fn publish(&self, batch: &[Outgoing]) -> Vec<Outcome> {
        let records = batch.iter().map(|outgoing| written(&self.table, outgoing));
        publish_prepared(&self.inner, records).await
    }

    async fn publish_together(&self, batch: &[Outgoing]) -> Result<Vec<Position>> {
        let records = batch.iter().map(|outgoing| written(&self.table, outgoing));
        let records = records.collect::<Result<Vec<_>>>()?;
        self.inner.publish_together(&records).await
    }

    async fn flush(&self, deadline: Instant) -> Result<()> {
        self.inner.flush(deadline).await
    }

    async fn close(&self, deadline: Instant) -> Result<()> {
        self.inner.close(deadline).await
    }
}

/// An event that its format can't hold was certainly not stored, and trying again would not help.
fn refused(error: Error, outgoing: &Outgoing) -> Error {
    error
        .with_operation("publish")
        .with_topic(outgoing.topic.name())
        .with_effect(Effect::NotApplied)
        .with_retryable(false)
}

#[derive(Debug)]
pub(super) struct FormattedSubscriber {
    inner: DynSubscriber,
    table: Arc<FormatTable>,
}

impl FormattedSubscriber {
    fn read(&self, delivery: Delivery) -> Delivery {
        let Some(chosen) = self.table.find(delivery.topic()) else {
            return delivery;
        };
        let topic = delivery.topic().clone();
        let place = Place::new(&topic, delivery.position());
        let place = place.with_event_type(chosen.event_type.as_deref());
        delivery.decoded(|record: &RawRecord| chosen.format.read(record, &place))
    }
}

#[deny(clippy::missing_trait_methods)]
impl Subscriber for FormattedSubscriber {
    type Settler = FormattedSettler;

    async fn recv(&mut self, max: usize) -> Result<Vec<Delivery>> {
        // Nothing is awaited after it, so that a dropped call loses nothing.
        let deliveries = self.inner.recv(max).await?;
        let read = deliveries.into_iter().map(|delivery| self.read(delivery));
        Ok(read.collect())
    }

    fn settler(&self) -> FormattedSettler {
        FormattedSettler {
            inner: self.inner.settler(),
            table: Arc::clone(&self.table),
        }
    }

    async fn close(self, deadline: Instant) -> Result<()> {
        self.inner.close(deadline).await
    }
}

#[derive(Debug)]
pub(super) struct FormattedSettler {
    inner: DynSettler,
    table: Arc<FormatTable>,
}

#[deny(clippy::missing_trait_methods)]
impl Settler for FormattedSettler {
    async fn settle(&self, batch: &[(AckToken, Settlement)]) -> Vec<Result<()>> {
        self.inner.settle(batch).await
    }

    async fn settle_together(
        &self,
        acks: &[AckToken],
        batch: &[Outgoing],
    ) -> Result<Vec<Position>> {
        let records = batch.iter().map(|outgoing| written(&self.table, outgoing));
        let records = records.collect::<Result<Vec<_>>>()?;
        self.inner.settle_together(acks, &records).await
    }

    async fn forward(&self, batch: &[(AckToken, Outgoing)]) -> Vec<Result<()>> {
        // What takes the place of a delivery is no event of a route.
        self.inner.forward(batch).await
    }

    async fn begin(&self, token: AckToken) -> Result<u32> {
        self.inner.begin(token).await
    }

    fn is_current(&self, token: AckToken) -> bool {
        self.inner.is_current(token)
    }
}
