//! A transport whose data name their schemas in a registry.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use tokio::time::Instant;

use super::Registry;
use crate::codec::{self, Codec, DataSchema, Frame, SchemaFormat};
use crate::idempotency::IdempotencyStore;
use crate::transport::{
    AckToken, Capabilities, Content, Delivery, DynAdmin, DynPublisher, DynSettler, DynSubscriber,
    DynTransport, Outcome, Outgoing, Position, Publisher, Settlement, Settler, Subscriber,
    Subscription, Transport, publish_prepared,
};
use crate::{Effect, Error, ErrorKind, Event, Result};

#[derive(Debug)]
pub(super) struct Registered {
    inner: DynTransport,
    registry: Registry,
}

impl Registered {
    pub(super) fn new(inner: DynTransport, registry: Registry) -> Self {
        Self { inner, registry }
    }
}

#[deny(clippy::missing_trait_methods)]
impl Transport for Registered {
    type Publisher = RegisteredPublisher;
    type Subscriber = RegisteredSubscriber;
    type Admin = DynAdmin;

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn idempotency(&self) -> Option<Arc<dyn IdempotencyStore>> {
        self.inner.idempotency()
    }

    async fn publisher(&self) -> Result<RegisteredPublisher> {
        Ok(RegisteredPublisher {
            inner: self.inner.publisher().await?,
            registry: self.registry.clone(),
        })
    }

    async fn subscribe(&self, subscription: Subscription) -> Result<RegisteredSubscriber> {
        Ok(RegisteredSubscriber {
            inner: self.inner.subscribe(subscription).await?,
            registry: self.registry.clone(),
            received: Vec::new(),
        })
    }

    fn admin(&self) -> DynAdmin {
        self.inner.admin()
    }
}

/// The event with its data in a frame, if they have a schema.
async fn framed(registry: &Registry, outgoing: &Outgoing) -> Result<Outgoing> {
    let (Content::Event(event), Some(schema)) = (&outgoing.content, outgoing.schema) else {
        return Ok(outgoing.clone());
    };
    let id = registry.id(&outgoing.topic, schema).await;
    let id = id.map_err(|error| {
        error
            .with_operation("publish")
            .with_topic(outgoing.topic.name())
            .with_effect(Effect::NotApplied)
    })?;
    let data = event.data().map_or(&[][..], |data| data);
    let data = match schema.format() {
        SchemaFormat::Avro => {
            let datum = codec::datum(data).ok_or_else(|| not_as_the_codec_writes(event))?;
            Frame::write(id, None, datum)
        }
        SchemaFormat::Protobuf => Frame::write(id, Some(schema.message()), data),
        SchemaFormat::Json => Frame::write(id, None, data),
    };
    let mut framed = outgoing.clone();
    framed.content = Content::Event(event.to_builder().data(data).build()?);
    framed.schema = None;
    Ok(framed)
}

fn not_as_the_codec_writes(event: &Event) -> Error {
    let what = "the data are not as the codec writes them";
    Error::new(ErrorKind::Encode, what).with_note(format!(
        "event of type `{}`, id `{}`",
        event.event_type(),
        event.id()
    ))
}

async fn all_framed(registry: &Registry, batch: &[Outgoing]) -> Result<Vec<Outgoing>> {
    let mut framed = Vec::with_capacity(batch.len());
    for outgoing in batch {
        framed.push(self::framed(registry, outgoing).await?);
    }
    Ok(framed)
}

#[derive(Debug)]
pub(super) struct RegisteredPublisher {
    inner: DynPublisher,
    registry: Registry,
}

#[deny(clippy::missing_trait_methods)]
impl Publisher for RegisteredPublisher {
    async fn publish(&self, batch: &[Outgoing]) -> Vec<Outcome> {
        let mut prepared = Vec::with_capacity(batch.len());
        let mut down: Option<Error> = None;
        for outgoing in batch {
            // What may be tried again holds up what is behind it: order per key would be lost.
            let framed = match &down {
                Some(error) => Err(error.duplicate()),
                None => framed(&self.registry, outgoing).await,
            };
            if let Err(error) = &framed
                && error.retryable()
                && down.is_none()
            {
                down = Some(error.duplicate());
            }
            prepared.push(framed);
        }
        publish_prepared(&self.inner, prepared).await
    }

    async fn publish_together(&self, batch: &[Outgoing]) -> Result<Vec<Position>> {
        let records = all_framed(&self.registry, batch).await?;
        self.inner.publish_together(&records).await
    }

    async fn flush(&self, deadline: Instant) -> Result<()> {
        self.inner.flush(deadline).await
    }

    async fn close(&self, deadline: Instant) -> Result<()> {
        self.inner.close(deadline).await
    }
}

#[derive(Debug)]
pub(super) struct RegisteredSubscriber {
    inner: DynSubscriber,
    registry: Registry,
    /// What was received and whose schemas are being asked for: a dropped call leaves it here.
    received: Vec<Delivery>,
}

/// What a registry says of some schemas, by their ids.
type Schemas = HashMap<u32, Result<Arc<DataSchema>>>;

async fn schemas(registry: &Registry, named: Vec<u32>) -> Schemas {
    let mut found = Schemas::new();
    for id in named {
        if let Entry::Vacant(place) = found.entry(id) {
            place.insert(registry.schema(id).await);
        }
    }
    found
}

/// The schema that the data of a delivery name.
fn named_schema(delivery: &Delivery) -> Option<u32> {
    let event = delivery.event().ok()?;
    let has_schema = match event.content_type().map(Codec::of_content_type) {
        // No JSON begins with a zero, and what says nothing of itself may be anything.
        None | Some(Some(Codec::Avro | Codec::Protobuf | Codec::Json)) => true,
        Some(Some(Codec::MessagePack) | None) => false,
    };
    let frame = Frame::parse(event.data()?)?;
    has_schema.then_some(frame.schema)
}

#[deny(clippy::missing_trait_methods)]
impl Subscriber for RegisteredSubscriber {
    type Settler = RegisteredSettler;

    async fn recv(&mut self, max: usize) -> Result<Vec<Delivery>> {
        if self.received.is_empty() {
            self.received = self.inner.recv(max).await?;
        }
        let named = self.received.iter().filter_map(named_schema).collect();
        let schemas = schemas(&self.registry, named).await;
        let count = self.received.len().min(max);
        let resolved = self.received.drain(..count).map(|delivery| {
            let found = named_schema(&delivery).and_then(|id| schemas.get(&id));
            match found {
                Some(Ok(schema)) => delivery.with_schema(Ok(Arc::clone(schema))),
                Some(Err(error)) => delivery.with_schema(Err(error.duplicate())),
                None => delivery,
            }
        });
        Ok(resolved.collect())
    }

    fn settler(&self) -> RegisteredSettler {
        RegisteredSettler {
            inner: self.inner.settler(),
            registry: self.registry.clone(),
        }
    }

    async fn close(self, deadline: Instant) -> Result<()> {
        self.inner.close(deadline).await
    }
}

#[derive(Debug)]
pub(super) struct RegisteredSettler {
    inner: DynSettler,
    registry: Registry,
}

#[deny(clippy::missing_trait_methods)]
impl Settler for RegisteredSettler {
    async fn settle(&self, batch: &[(AckToken, Settlement)]) -> Vec<Result<()>> {
        self.inner.settle(batch).await
    }

    async fn settle_together(
        &self,
        acks: &[AckToken],
        batch: &[Outgoing],
    ) -> Result<Vec<Position>> {
        let records = all_framed(&self.registry, batch).await?;
        self.inner.settle_together(acks, &records).await
    }

    async fn forward(&self, batch: &[(AckToken, Outgoing)]) -> Vec<Result<()>> {
        // What takes the place of a delivery keeps its data as they came.
        self.inner.forward(batch).await
    }

    async fn begin(&self, token: AckToken) -> Result<u32> {
        self.inner.begin(token).await
    }

    fn is_current(&self, token: AckToken) -> bool {
        self.inner.is_current(token)
    }
}
