use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use polybus_core::transport::{AckToken, Outgoing, Position, Settlement, Settler};
use polybus_core::{Error, ErrorKind, Result, Timestamp};

use crate::broker::{Measure, MemberId, Progress};
use crate::together::{Ended, together};
use crate::transport::Client;

/// Settles what one [`MemorySubscriber`](crate::MemorySubscriber) delivered. Clones are handles to
/// the same.
///
/// A settlement is on the broker when the call returns. After the subscriber is closed or
/// dropped, everything is [`Stale`](ErrorKind::Stale).
#[derive(Debug, Clone)]
pub struct MemorySettler {
    membership: Arc<Membership>,
}

/// What a subscriber and its settlers share.
#[derive(Debug)]
pub(crate) struct Membership {
    pub(crate) client: Client,
    pub(crate) member: MemberId,
    left: AtomicBool,
    /// Something was released: only since then a delivery can have stopped belonging to the
    /// member while it lives.
    released: AtomicBool,
}

impl Membership {
    pub(crate) fn new(client: Client, member: MemberId) -> Self {
        Self {
            client,
            member,
            left: AtomicBool::new(false),
            released: AtomicBool::new(false),
        }
    }

    pub(crate) fn leave(&self) {
        if self.left.swap(true, Ordering::AcqRel) {
            return;
        }
        let broker = &self.client.broker;
        broker.change(|state, wakes| state.leave(self.member, wakes));
        tracing::debug!(transport = %self.client.name, epoch = self.member.0, "left a group");
    }

    fn stale(&self) -> Error {
        let message = if self.left.load(Ordering::Acquire) {
            "the member has left its group"
        } else {
            "the delivery is not with this member any more"
        };
        Error::new(ErrorKind::Stale, message)
            .with_operation("settle")
            .with_transport(self.client.name.clone())
            .with_note("nothing was settled; the event was or will be delivered again")
    }
}

impl MemorySettler {
    pub(crate) fn new(membership: Arc<Membership>) -> Self {
        Self { membership }
    }
}

impl Settler for MemorySettler {
    async fn settle(&self, batch: &[(AckToken, Settlement)]) -> Vec<Result<()>> {
        let Membership { client, member, .. } = &*self.membership;
        if batch.iter().any(|(_, it)| *it == Settlement::Release) {
            self.membership.released.store(true, Ordering::Release);
        }
        let results = client
            .broker
            .change(|state, wakes| state.settle(*member, batch, wakes));
        client.broker.room_may_be_made();
        let results = results.into_iter();
        results
            .map(|result| result.map_err(|_| self.membership.stale()))
            .collect()
    }

    async fn settle_together(
        &self,
        acks: &[AckToken],
        batch: &[Outgoing],
    ) -> Result<Vec<Position>> {
        let Membership { client, member, .. } = &*self.membership;
        let acks = Some((*member, acks));
        match together(client, "settle_together", acks, batch).await? {
            Ended::Stored(positions) => Ok(positions),
            Ended::Stale => Err(self.membership.stale().with_operation("settle_together")),
        }
    }

    async fn forward(&self, batch: &[(AckToken, Outgoing)]) -> Vec<Result<()>> {
        let Membership { client, member, .. } = &*self.membership;
        let (broker, now) = (&client.broker, Timestamp::now());
        // What is trimmed is freed after the lock is released.
        let mut trimmed = Vec::new();
        let forward = |item: &(AckToken, Outgoing)| {
            let mut progress = Progress::Open(Measure::of(&item.1));
            let forwarded = broker.change(|state, wakes| {
                state.forward(*member, item, &mut progress, now, &mut trimmed, wakes)
            });
            match forwarded {
                Ok(true) => Ok(()),
                Ok(false) => Err(Error::new(ErrorKind::Full, "the topic is full")
                    .with_operation("forward")
                    .with_transport(client.name.clone())
                    .with_topic(item.1.topic.name())),
                Err(_) => Err(self.membership.stale()),
            }
        };
        let results = batch.iter().map(forward).collect();
        broker.room_may_be_made();
        results
    }

    /// Takes no lock unless something was released before: it is asked for every event.
    fn is_current(&self, token: AckToken) -> bool {
        let membership = &*self.membership;
        if membership.left.load(Ordering::Acquire) || token.epoch != membership.member.0 {
            return false;
        }
        if !membership.released.load(Ordering::Acquire) {
            return true;
        }
        let broker = &membership.client.broker;
        broker.lock().holds(membership.member, token)
    }
}
