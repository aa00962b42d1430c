use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::{PublishLayer, Stage};
use crate::transport::{DynPublisher, Outcome, Outgoing, Publisher};
use crate::{Effect, Error, ErrorKind, Result};

/// Bounds the time in which the transport must answer for a batch. After it the outcomes are
/// unknown: the transport may have stored the events, or may still do so.
#[derive(Debug)]
pub struct Timeout(Duration);

impl Timeout {
    /// A bound.
    pub fn new(bound: Duration) -> Self {
        Self(bound)
    }
}

impl PublishLayer for Timeout {
    fn stage(&self) -> Stage {
        Stage::Timeout
    }

    fn wrap(&self, inner: DynPublisher) -> DynPublisher {
        let bound = self.0;
        DynPublisher::new(Bounded { inner, bound })
    }
}

#[derive(Debug)]
struct Bounded {
    inner: DynPublisher,
    bound: Duration,
}

impl Publisher for Bounded {
    async fn publish(&self, batch: &[Outgoing]) -> Vec<Outcome> {
        let late = |outgoing: &Outgoing| {
            let message = format!("the transport did not answer within {:?}", self.bound);
            Outcome::Unknown(
                Error::new(ErrorKind::Timeout, message)
                    .with_operation("publish")
                    .with_topic(outgoing.topic.name())
                    .with_effect(Effect::Unknown)
                    .with_note("raise `timeout` of the route, or see why the server is slow"),
            )
        };
        timeout(self.bound, self.inner.publish(batch))
            .await
            .unwrap_or_else(|_| batch.iter().map(late).collect())
    }

    async fn flush(&self, deadline: Instant) -> Result<()> {
        self.inner.flush(deadline).await
    }

    async fn close(&self, deadline: Instant) -> Result<()> {
        self.inner.close(deadline).await
    }
}
