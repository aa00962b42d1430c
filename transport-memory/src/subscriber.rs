use std::sync::Arc;

use polybus_core::transport::{Content, Delivery, Position, Subscriber, Subscription};
use polybus_core::{Error, ErrorKind, Result};
use tokio::sync::Notify;
use tokio::task::coop;
use tokio::time::Instant;

use crate::MemorySettler;
use crate::broker::Taken;
use crate::settle::Membership;
use crate::transport::Client;

/// Reads as a member of a group.
///
/// The member lives until this is closed or dropped; either way what it had not settled goes
/// to the others at once. Dropping it is how a test lets a member crash.
#[derive(Debug)]
pub struct MemorySubscriber {
    membership: Arc<Membership>,
    wake: Arc<Notify>,
}

impl MemorySubscriber {
    pub(crate) fn new(client: Client, subscription: &Subscription) -> Self {
        let wake = Arc::new(Notify::new());
        let member = client
            .broker
            .change(|state, wakes| state.subscribe(subscription, Arc::clone(&wake), wakes));
        tracing::debug!(
            transport = %client.name,
            group = %subscription.group,
            member = subscription.member.as_deref().unwrap_or_default(),
            epoch = member.0,
            "joined a group",
        );
        let membership = Arc::new(Membership::new(client, member));
        Self { membership, wake }
    }

    /// What is there, up to `max`; `None` if nothing is and a wake-up will come.
    fn take(&self, max: usize) -> Option<Vec<Delivery>> {
        let Membership { client, member, .. } = &*self.membership;
        let mut deliveries = Vec::new();
        let deliver = |taken: Taken<'_>| deliveries.push(delivery(&taken));
        let found = client.broker.lock().take(*member, max, deliver);
        found.then_some(deliveries)
    }
}

impl Subscriber for MemorySubscriber {
    type Settler = MemorySettler;

    async fn recv(&mut self, max: usize) -> Result<Vec<Delivery>> {
        loop {
            // A reader that always finds something must leave its thread to others now and then.
            coop::consume_budget().await;
            // Nothing is awaited between taking and returning: a dropped call took nothing.
            match self.take(max.max(1)) {
                Some(deliveries) if deliveries.is_empty() => {}
                Some(deliveries) => return Ok(deliveries),
                None => self.wake.notified().await,
            }
        }
    }

    fn settler(&self) -> MemorySettler {
        MemorySettler::new(Arc::clone(&self.membership))
    }

    async fn close(self, _: Instant) -> Result<()> {
        // Settlements are on the broker when `settle` returns; leaving is all there is to do.
        drop(self);
        Ok(())
    }
}

impl Drop for MemorySubscriber {
    fn drop(&mut self) {
        self.membership.leave();
    }
}

/// What was taken from a topic, as it is delivered.
pub(crate) fn delivery(taken: &Taken<'_>) -> Delivery {
    let Taken {
        token,
        topic,
        offset,
        attempt,
        record,
    } = *taken;
    let topic = topic.clone();
    let position = Position::new(0, offset);
    let delivery = match &record.content {
        Content::Event(event) => Delivery::new(token, topic, position, event.clone())
            .with_headers(record.headers.clone()),
        Content::Raw(raw) => {
            let error = Error::new(ErrorKind::Decode, "the record was published raw")
                .with_operation("receive")
                .with_topic(topic.name())
                .with_note("a memory transport reads no envelope: publish it as an event");
            Delivery::undecodable(token, topic, position, (**raw).clone(), error)
        }
    };
    delivery.with_attempt(attempt)
}
