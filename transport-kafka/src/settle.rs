//! Settling: in any order, recorded in memory, written to the server as positions.

use std::sync::Arc;

use polybus_core::transport::{AckToken, Outgoing, Position, Settlement, Settler};
use polybus_core::{ErrorKind, Result};

use crate::error::Origin;
use crate::subscriber::{Probation, Shared, Steps};

/// Settles what a [`KafkaSubscriber`](crate::KafkaSubscriber) delivered.
///
/// `Ok` is recorded in memory; the position is written to the server every `commit_interval`,
/// when a partition is handed over, and when the subscriber is closed.
#[derive(Debug, Clone)]
pub struct KafkaSettler {
    shared: Arc<Shared>,
    probation: Probation,
    origin: Origin,
    steps: Option<Arc<Steps>>,
}

impl KafkaSettler {
    pub(crate) fn new(
        shared: Arc<Shared>,
        probation: Probation,
        origin: Origin,
        steps: Option<Arc<Steps>>,
    ) -> Self {
        Self {
            shared,
            probation,
            origin,
            steps,
        }
    }
}

impl Settler for KafkaSettler {
    async fn settle(&self, batch: &[(AckToken, Settlement)]) -> Vec<Result<()>> {
        let settled = self.shared.settle(batch).into_iter();
        let results = settled.map(|result| {
            result.map_err(|stale| {
                let why = "the delivery belongs to another member by now";
                let error = self.origin.error("settle", ErrorKind::Stale, why);
                match stale.topic {
                    Some(topic) => error.with_topic(topic.name()),
                    None => error,
                }
            })
        });
        results.collect()
    }

    async fn settle_together(
        &self,
        acks: &[AckToken],
        batch: &[Outgoing],
    ) -> Result<Vec<Position>> {
        match &self.steps {
            Some(steps) => steps.settle(acks, batch).await,
            None => {
                let why = "the subscription is not `exactly_once`";
                let kind = ErrorKind::Unsupported;
                Err(self.origin.error("settle_together", kind, why))
            }
        }
    }

    fn is_current(&self, token: AckToken) -> bool {
        self.shared.is_current(token)
    }

    async fn begin(&self, token: AckToken) -> Result<u32> {
        if !self.shared.is_current(token) {
            let why = "the delivery belongs to another member by now";
            return Err(self.origin.error("begin", ErrorKind::Stale, why));
        }
        self.probation.begin(token).await
    }
}
