use std::num::NonZeroU32;

use governor::clock::Clock;
use governor::middleware::NoOpMiddleware;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep_until};

use super::{PublishLayer, Stage};
use crate::Result;
use crate::config::RateLimitConfig;
use crate::transport::{DynPublisher, Outcome, Outgoing, Publisher};

/// Holds events back, so that no more leave in a second than may. Batches go in the order they
/// come; each attempt of an event counts.
#[derive(Debug)]
pub struct RateLimit {
    per_second: NonZeroU32,
    burst: NonZeroU32,
}

impl RateLimit {
    /// The limit of a config.
    pub fn new(config: &RateLimitConfig) -> Self {
        let at_least_one = |number: u32| NonZeroU32::new(number).unwrap_or(NonZeroU32::MIN);
        Self {
            per_second: at_least_one(config.per_second),
            burst: at_least_one(config.burst.unwrap_or(config.per_second)),
        }
    }
}

impl PublishLayer for RateLimit {
    fn stage(&self) -> Stage {
        Stage::RateLimit
    }

    fn wrap(&self, inner: DynPublisher) -> DynPublisher {
        let quota = Quota::per_second(self.per_second).allow_burst(self.burst);
        DynPublisher::new(Limited {
            inner,
            limiter: RateLimiter::direct_with_clock(quota, TokioClock),
            burst: self.burst,
            turn: Mutex::new(()),
        })
    }
}

/// The runtime's clock, so that tests can pause it.
#[derive(Debug, Clone)]
struct TokioClock;

impl Clock for TokioClock {
    type Instant = std::time::Instant;

    fn now(&self) -> std::time::Instant {
        Instant::now().into_std()
    }
}

#[derive(Debug)]
struct Limited {
    inner: DynPublisher,
    limiter: RateLimiter<NotKeyed, InMemoryState, TokioClock, NoOpMiddleware<std::time::Instant>>,
    burst: NonZeroU32,
    /// Who waits first goes first.
    turn: Mutex<()>,
}

impl Limited {
    async fn wait_for(&self, events: usize) {
        let _turn = self.turn.lock().await;
        let mut left = u32::try_from(events).unwrap_or(u32::MAX);
        while let Some(part) = NonZeroU32::new(left.min(self.burst.get())) {
            match self.limiter.check_n(part) {
                Ok(Ok(())) => left -= part.get(),
                Ok(Err(not_until)) => {
                    let wait = not_until.wait_time_from(TokioClock.now());
                    sleep_until(Instant::now() + wait).await;
                }
                // No part is larger than the burst.
                Err(_) => return,
            }
        }
    }
}

impl Publisher for Limited {
    async fn publish(&self, batch: &[Outgoing]) -> Vec<Outcome> {
        self.wait_for(batch.len()).await;
        self.inner.publish(batch).await
    }

    async fn flush(&self, deadline: Instant) -> Result<()> {
        self.inner.flush(deadline).await
    }

    async fn close(&self, deadline: Instant) -> Result<()> {
        self.inner.close(deadline).await
    }
}
