//! The dynamic side of the traits: authors write native `async fn`s, a bus holds these.
//!
//! One boxed future for each *batch*, none for each event.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use tokio::time::Instant;

use super::{
    AckToken, Admin, Capabilities, Delivery, Lag, Outcome, Outgoing, Position, Publisher,
    Settlement, Settler, Start, Subscriber, Subscription, TopicDescription, TopicSpec, Transport,
};
use crate::idempotency::IdempotencyStore;
use crate::topic::TopicSetting;
use crate::{Result, Text, Topic};

/// Any [`Transport`].
#[derive(Clone)]
pub struct DynTransport(Arc<dyn ErasedTransport>);

/// Any [`Publisher`].
#[derive(Clone)]
pub struct DynPublisher(Arc<dyn ErasedPublisher>);

/// Any [`Subscriber`].
pub struct DynSubscriber(Box<dyn ErasedSubscriber>);

/// Any [`Settler`].
#[derive(Clone)]
pub struct DynSettler(Arc<dyn ErasedSettler>);

/// Any [`Admin`].
#[derive(Clone)]
pub struct DynAdmin(Arc<dyn ErasedAdmin>);

impl DynTransport {
    /// Erases a transport's type.
    pub fn new(transport: impl Transport) -> Self {
        Self(Arc::new(transport))
    }
}

impl DynPublisher {
    /// Erases a publisher's type.
    pub fn new(publisher: impl Publisher) -> Self {
        Self(Arc::new(publisher))
    }
}

impl DynSubscriber {
    /// Erases a subscriber's type.
    pub fn new(subscriber: impl Subscriber) -> Self {
        Self(Box::new(subscriber))
    }
}

impl Transport for DynTransport {
    type Publisher = DynPublisher;
    type Subscriber = DynSubscriber;
    type Admin = DynAdmin;

    fn capabilities(&self) -> Capabilities {
        self.0.capabilities()
    }

    async fn publisher(&self) -> Result<DynPublisher> {
        self.0.publisher().await
    }

    async fn subscribe(&self, subscription: Subscription) -> Result<DynSubscriber> {
        self.0.subscribe(subscription).await
    }

    fn admin(&self) -> DynAdmin {
        self.0.admin()
    }

    fn idempotency(&self) -> Option<Arc<dyn IdempotencyStore>> {
        self.0.idempotency()
    }
}

impl Publisher for DynPublisher {
    async fn publish(&self, batch: &[Outgoing]) -> Vec<Outcome> {
        self.0.publish(batch).await
    }

    async fn publish_together(&self, batch: &[Outgoing]) -> Result<Vec<Position>> {
        self.0.publish_together(batch).await
    }

    async fn flush(&self, deadline: Instant) -> Result<()> {
        self.0.flush(deadline).await
    }

    async fn close(&self, deadline: Instant) -> Result<()> {
        self.0.close(deadline).await
    }
}

impl Subscriber for DynSubscriber {
    type Settler = DynSettler;

    async fn recv(&mut self, max: usize) -> Result<Vec<Delivery>> {
        self.0.recv(max).await
    }

    fn settler(&self) -> DynSettler {
        self.0.settler()
    }

    async fn close(self, deadline: Instant) -> Result<()> {
        self.0.close(deadline).await
    }
}

impl Settler for DynSettler {
    async fn settle(&self, batch: &[(AckToken, Settlement)]) -> Vec<Result<()>> {
        self.0.settle(batch).await
    }

    async fn settle_together(
        &self,
        acks: &[AckToken],
        batch: &[Outgoing],
    ) -> Result<Vec<Position>> {
        self.0.settle_together(acks, batch).await
    }

    fn is_current(&self, token: AckToken) -> bool {
        self.0.is_current(token)
    }

    async fn forward(&self, batch: &[(AckToken, Outgoing)]) -> Vec<Result<()>> {
        self.0.forward(batch).await
    }

    async fn begin(&self, token: AckToken) -> Result<u32> {
        self.0.begin(token).await
    }
}

impl Admin for DynAdmin {
    async fn ensure_topics(&self, topics: &[TopicSpec]) -> Result<()> {
        self.0.ensure_topics(topics).await
    }

    async fn describe(&self, topics: &[Topic]) -> Result<Vec<Option<TopicDescription>>> {
        self.0.describe(topics).await
    }

    fn topic_settings(&self) -> &'static [TopicSetting] {
        self.0.topic_settings()
    }

    async fn list(&self) -> Result<Vec<Text>> {
        self.0.list().await
    }

    async fn alter(&self, topics: &[TopicSpec]) -> Result<()> {
        self.0.alter(topics).await
    }

    async fn lag(&self, group: &str, topics: &[Topic]) -> Result<Vec<Lag>> {
        self.0.lag(group, topics).await
    }

    async fn reset(&self, group: &str, topics: &[Topic], to: Start) -> Result<()> {
        self.0.reset(group, topics, to).await
    }

    async fn health(&self) -> Result<()> {
        self.0.health().await
    }

    async fn browse(&self, topic: &Topic, after: &[Position], max: usize) -> Result<Vec<Delivery>> {
        self.0.browse(topic, after, max).await
    }

    async fn purge(&self, topic: &Topic, through: &[Position]) -> Result<()> {
        self.0.purge(topic, through).await
    }
}

#[async_trait]
trait ErasedTransport: Send + Sync {
    fn capabilities(&self) -> Capabilities;
    async fn publisher(&self) -> Result<DynPublisher>;
    async fn subscribe(&self, subscription: Subscription) -> Result<DynSubscriber>;
    fn admin(&self) -> DynAdmin;
    fn idempotency(&self) -> Option<Arc<dyn IdempotencyStore>>;
}

#[async_trait]
impl<T: Transport> ErasedTransport for T {
    fn capabilities(&self) -> Capabilities {
        Transport::capabilities(self)
    }

    async fn publisher(&self) -> Result<DynPublisher> {
        Ok(DynPublisher::new(Transport::publisher(self).await?))
    }

    async fn subscribe(&self, subscription: Subscription) -> Result<DynSubscriber> {
        let subscriber = Transport::subscribe(self, subscription).await?;
        Ok(DynSubscriber::new(subscriber))
    }

    fn admin(&self) -> DynAdmin {
        DynAdmin(Arc::new(Transport::admin(self)))
    }

    fn idempotency(&self) -> Option<Arc<dyn IdempotencyStore>> {
        Transport::idempotency(self)
    }
}

#[async_trait]
trait ErasedPublisher: Send + Sync {
    async fn publish(&self, batch: &[Outgoing]) -> Vec<Outcome>;
    async fn publish_together(&self, batch: &[Outgoing]) -> Result<Vec<Position>>;
    async fn flush(&self, deadline: Instant) -> Result<()>;
    async fn close(&self, deadline: Instant) -> Result<()>;
}

#[async_trait]
impl<P: Publisher> ErasedPublisher for P {
    async fn publish(&self, batch: &[Outgoing]) -> Vec<Outcome> {
        Publisher::publish(self, batch).await
    }

    async fn publish_together(&self, batch: &[Outgoing]) -> Result<Vec<Position>> {
        Publisher::publish_together(self, batch).await
    }

    async fn flush(&self, deadline: Instant) -> Result<()> {
        Publisher::flush(self, deadline).await
    }

    async fn close(&self, deadline: Instant) -> Result<()> {
        Publisher::close(self, deadline).await
    }
}

#[async_trait]
trait ErasedSubscriber: Send {
    async fn recv(&mut self, max: usize) -> Result<Vec<Delivery>>;
    fn settler(&self) -> DynSettler;
    async fn close(self: Box<Self>, deadline: Instant) -> Result<()>;
}

#[async_trait]
impl<S: Subscriber> ErasedSubscriber for S {
    async fn recv(&mut self, max: usize) -> Result<Vec<Delivery>> {
        Subscriber::recv(self, max).await
    }

    fn settler(&self) -> DynSettler {
        DynSettler(Arc::new(Subscriber::settler(self)))
    }

    async fn close(self: Box<Self>, deadline: Instant) -> Result<()> {
        Subscriber::close(*self, deadline).await
    }
}

#[async_trait]
trait ErasedSettler: Send + Sync {
    async fn settle(&self, batch: &[(AckToken, Settlement)]) -> Vec<Result<()>>;
    async fn settle_together(&self, acks: &[AckToken], batch: &[Outgoing])
    -> Result<Vec<Position>>;
    fn is_current(&self, token: AckToken) -> bool;
    async fn forward(&self, batch: &[(AckToken, Outgoing)]) -> Vec<Result<()>>;
    async fn begin(&self, token: AckToken) -> Result<u32>;
}

#[async_trait]
impl<S: Settler> ErasedSettler for S {
    async fn settle(&self, batch: &[(AckToken, Settlement)]) -> Vec<Result<()>> {
        Settler::settle(self, batch).await
    }

    async fn settle_together(
        &self,
        acks: &[AckToken],
        batch: &[Outgoing],
    ) -> Result<Vec<Position>> {
        Settler::settle_together(self, acks, batch).await
    }

    fn is_current(&self, token: AckToken) -> bool {
        Settler::is_current(self, token)
    }

    async fn forward(&self, batch: &[(AckToken, Outgoing)]) -> Vec<Result<()>> {
        Settler::forward(self, batch).await
    }

    async fn begin(&self, token: AckToken) -> Result<u32> {
        Settler::begin(self, token).await
    }
}

#[async_trait]
trait ErasedAdmin: Send + Sync {
    async fn ensure_topics(&self, topics: &[TopicSpec]) -> Result<()>;
    async fn describe(&self, topics: &[Topic]) -> Result<Vec<Option<TopicDescription>>>;
    fn topic_settings(&self) -> &'static [TopicSetting];
    async fn list(&self) -> Result<Vec<Text>>;
    async fn alter(&self, topics: &[TopicSpec]) -> Result<()>;
    async fn lag(&self, group: &str, topics: &[Topic]) -> Result<Vec<Lag>>;
    async fn reset(&self, group: &str, topics: &[Topic], to: Start) -> Result<()>;
    async fn health(&self) -> Result<()>;
    async fn browse(&self, topic: &Topic, after: &[Position], max: usize) -> Result<Vec<Delivery>>;
    async fn purge(&self, topic: &Topic, through: &[Position]) -> Result<()>;
}

#[async_trait]
impl<A: Admin> ErasedAdmin for A {
    async fn ensure_topics(&self, topics: &[TopicSpec]) -> Result<()> {
        Admin::ensure_topics(self, topics).await
    }

    async fn describe(&self, topics: &[Topic]) -> Result<Vec<Option<TopicDescription>>> {
        Admin::describe(self, topics).await
    }

    fn topic_settings(&self) -> &'static [TopicSetting] {
        Admin::topic_settings(self)
    }

    async fn list(&self) -> Result<Vec<Text>> {
        Admin::list(self).await
    }

    async fn alter(&self, topics: &[TopicSpec]) -> Result<()> {
        Admin::alter(self, topics).await
    }

    async fn lag(&self, group: &str, topics: &[Topic]) -> Result<Vec<Lag>> {
        Admin::lag(self, group, topics).await
    }

    async fn reset(&self, group: &str, topics: &[Topic], to: Start) -> Result<()> {
        Admin::reset(self, group, topics, to).await
    }

    async fn health(&self) -> Result<()> {
        Admin::health(self).await
    }

    async fn browse(&self, topic: &Topic, after: &[Position], max: usize) -> Result<Vec<Delivery>> {
        Admin::browse(self, topic, after, max).await
    }

    async fn purge(&self, topic: &Topic, through: &[Position]) -> Result<()> {
        Admin::purge(self, topic, through).await
    }
}

macro_rules! opaque_debug {
    ($($name:ident),*) => {$(
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($name)).finish_non_exhaustive()
            }
        }
    )*};
}

opaque_debug!(
    DynTransport,
    DynPublisher,
    DynSubscriber,
    DynSettler,
    DynAdmin
);
