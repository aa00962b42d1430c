//! A transport without a server: what is published is accepted at once, what is to be read is there
//! already. What is left is polybus.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use polybus::memory::{MemoryAdmin, MemoryTransport};
use polybus::transport::{
    AckToken, Capabilities, Delivery, DynTransport, Outgoing, Publisher, Settlement, Settler,
    Subscriber, Subscription, Transport, TransportConfig, TransportFactory,
};
use polybus::{Event, Outcome, Position, Result, Topic};
use tokio::sync::Notify;
use tokio::time::Instant;

/// Makes transports of the kind `null`, which all deliver the same.
#[derive(Debug, Clone, Default)]
pub struct NullFactory {
    supply: Supply,
}

impl NullFactory {
    pub fn new(supply: Supply) -> Self {
        Self { supply }
    }
}

#[async_trait]
impl TransportFactory for NullFactory {
    fn kind(&self) -> &str {
        "null"
    }

    async fn connect(&self, _: TransportConfig) -> Result<DynTransport> {
        Ok(DynTransport::new(NullTransport {
            supply: self.supply.clone(),
            admin: MemoryTransport::new(),
        }))
    }
}

#[derive(Debug)]
struct NullTransport {
    supply: Supply,
    admin: MemoryTransport,
}

impl Transport for NullTransport {
    type Publisher = NullPublisher;
    type Subscriber = NullSubscriber;
    type Admin = MemoryAdmin;

    fn capabilities(&self) -> Capabilities {
        Capabilities::none()
    }

    async fn publisher(&self) -> Result<NullPublisher> {
        Ok(NullPublisher)
    }

    async fn subscribe(&self, subscription: Subscription) -> Result<NullSubscriber> {
        let topic = subscription.topics.into_iter().next();
        let topic = topic.unwrap_or_else(|| Topic::new("events"));
        Ok(self.supply.subscriber(topic))
    }

    fn admin(&self) -> MemoryAdmin {
        self.admin.admin()
    }
}

/// Accepts everything.
#[derive(Debug)]
pub struct NullPublisher;

impl Publisher for NullPublisher {
    async fn publish(&self, batch: &[Outgoing]) -> Vec<Outcome> {
        let accepted = (0..batch.len() as u64).map(|offset| Position::new(0, offset));
        accepted.map(Outcome::Accepted).collect()
    }

    async fn flush(&self, _: Instant) -> Result<()> {
        Ok(())
    }

    async fn close(&self, _: Instant) -> Result<()> {
        Ok(())
    }
}

/// Events to be delivered, over and over, as many as were ordered.
#[derive(Debug, Clone, Default)]
pub struct Supply(Arc<Stock>);

#[derive(Debug, Default)]
struct Stock {
    events: Vec<Event>,
    ordered: AtomicUsize,
    more: Notify,
}

impl Supply {
    /// A supply of these events.
    pub fn new(events: Vec<Event>) -> Self {
        Self(Arc::new(Stock {
            events,
            ..Stock::default()
        }))
    }

    /// Orders so many more deliveries.
    pub fn order(&self, deliveries: usize) {
        self.0.ordered.fetch_add(deliveries, Ordering::AcqRel);
        self.0.more.notify_one();
    }

    /// Delivers what is ordered.
    pub fn subscriber(&self, topic: Topic) -> NullSubscriber {
        NullSubscriber {
            supply: self.clone(),
            topic,
            delivered: 0,
        }
    }
}

/// Delivers at once.
#[derive(Debug)]
pub struct NullSubscriber {
    supply: Supply,
    topic: Topic,
    delivered: usize,
}

impl Subscriber for NullSubscriber {
    type Settler = NullSettler;

    async fn recv(&mut self, max: usize) -> Result<Vec<Delivery>> {
        let stock = &self.supply.0;
        loop {
            tokio::task::coop::consume_budget().await;
            let count = stock.ordered.load(Ordering::Acquire).min(max);
            if count == 0 {
                stock.more.notified().await;
                continue;
            }
            stock.ordered.fetch_sub(count, Ordering::AcqRel);
            let numbers = self.delivered..self.delivered + count;
            self.delivered = numbers.end;
            let delivery = |number: usize| {
                let event = &stock.events[number % stock.events.len()];
                let token = AckToken::new(0, 0, [number as u64, 0]);
                let position = Position::new(0, number as u64);
                Delivery::new(token, self.topic.clone(), position, event.clone())
            };
            return Ok(numbers.map(delivery).collect());
        }
    }

    fn settler(&self) -> NullSettler {
        NullSettler
    }

    async fn close(self, _: Instant) -> Result<()> {
        Ok(())
    }
}

/// Settles everything.
#[derive(Debug)]
pub struct NullSettler;

impl Settler for NullSettler {
    async fn settle(&self, batch: &[(AckToken, Settlement)]) -> Vec<Result<()>> {
        batch.iter().map(|_| Ok(())).collect()
    }
}
