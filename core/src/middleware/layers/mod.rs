//! Layers around a transport's publisher.
//!
//! Their order is fixed, from the outside in: [`Validate`], [`Deduplicate`], [`RateLimit`],
//! [`CircuitBreaker`], [`Timeout`], and then those of the program ([`Stage::Own`]), which stand next
//! to the transport: they see every batch that is really sent, each attempt of it. What is refused by one does not cost the next: an invalid
//! event takes no part of the rate, an open circuit is not counted as a timeout.
//! [`Layers`] refuses any other order.

mod circuit_breaker;
mod deduplicate;
mod rate_limit;
mod split;
mod timeout;
mod validate;

use std::fmt;
use std::sync::Arc;

pub use circuit_breaker::CircuitBreaker;
pub use deduplicate::Deduplicate;
pub use rate_limit::RateLimit;
pub use timeout::Timeout;
pub use validate::Validate;
pub(super) use validate::wait_for_rules;

use crate::config::PublishConfig;
use crate::transport::DynPublisher;
use crate::validation::Validation;
use crate::{Error, ErrorKind, Result};

/// Where a layer stands, from the outside in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Stage {
    /// Asks the rules that have to wait.
    Validate,
    /// Publishes an event only once.
    Deduplicate,
    /// Holds events back.
    RateLimit,
    /// Asks the transport only if it is likely to answer.
    CircuitBreaker,
    /// Bounds the time that the transport has.
    Timeout,
    /// A layer of the program's own. There may be several.
    Own,
}

impl Stage {
    const ALL: [Self; 6] = [
        Self::Validate,
        Self::Deduplicate,
        Self::RateLimit,
        Self::CircuitBreaker,
        Self::Timeout,
        Self::Own,
    ];
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Validate => "validate",
            Self::Deduplicate => "deduplicate",
            Self::RateLimit => "rate limit",
            Self::CircuitBreaker => "circuit breaker",
            Self::Timeout => "timeout",
            Self::Own => "own",
        })
    }
}

/// Something around a publisher: it sees each batch before the publisher, and its outcomes after.
///
/// What it makes must keep the contract of
/// [`Publisher::publish`](crate::transport::Publisher::publish): one outcome for each event, in
/// order, and the order of each key. State belongs to what [`wrap`](Self::wrap) makes: each call
/// starts anew.
pub trait PublishLayer: fmt::Debug + Send + Sync + 'static {
    /// Where it stands. A program's own layer leaves it as it is.
    fn stage(&self) -> Stage {
        Stage::Own
    }

    /// The layer around a publisher.
    fn wrap(&self, inner: DynPublisher) -> DynPublisher;
}

/// The layers of a route, the outermost first.
///
/// ```
/// use std::time::Duration;
/// use polybus_core::middleware::layers::{Layers, RateLimit, Timeout};
/// use polybus_core::config::RateLimitConfig;
///
/// let limit = RateLimit::new(&RateLimitConfig::new(100));
/// let timeout = Timeout::new(Duration::from_secs(1));
/// let layers = Layers::new().layer(limit)?.layer(timeout)?;
///
/// let limit = RateLimit::new(&RateLimitConfig::new(100));
/// let error = layers.layer(limit).unwrap_err();
/// assert!(error.to_string().contains("`rate limit` can't stand inside `timeout`"));
/// # Ok::<(), polybus_core::Error>(())
/// ```
#[derive(Debug, Default)]
pub struct Layers(Vec<Box<dyn PublishLayer>>);

impl Layers {
    /// No layers.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a layer inside those that are there.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] if it belongs outside one of them, or is there already.
    pub fn layer(mut self, layer: impl PublishLayer) -> Result<Self> {
        if let Some(last) = self.0.last().map(|last| last.stage())
            && (last, layer.stage()) != (Stage::Own, Stage::Own)
            && last >= layer.stage()
        {
            let stage = layer.stage();
            let order = Stage::ALL.map(|stage| stage.to_string()).join(", ");
            let message = format!("the layer `{stage}` can't stand inside `{last}`");
            return Err(Error::new(ErrorKind::Config, message)
                .with_note(format!("the order is, from the outside in: {order}")));
        }
        self.0.push(Box::new(layer));
        Ok(self)
    }

    /// The layers that a route's settings ask for.
    pub(super) fn of_config(config: &PublishConfig, validation: Option<&Arc<Validation>>) -> Self {
        let mut layers: Vec<Box<dyn PublishLayer>> = Vec::new();
        if let Some(validate) = Validate::of_mode(config.validate, validation) {
            layers.push(Box::new(validate));
        }
        if let Some(dedup) = &config.dedup {
            layers.push(Box::new(Deduplicate::new(dedup)));
        }
        if let Some(limit) = &config.rate_limit {
            layers.push(Box::new(RateLimit::new(limit)));
        }
        if let Some(breaker) = &config.circuit_breaker {
            layers.push(Box::new(CircuitBreaker::new(breaker)));
        }
        if let Some(timeout) = config.timeout {
            layers.push(Box::new(Timeout::new(timeout)));
        }
        Self(layers)
    }

    /// The layers around a publisher.
    pub fn around(&self, publisher: DynPublisher) -> DynPublisher {
        let inwards = self.0.iter().rev();
        inwards.fold(publisher, |inner, layer| layer.wrap(inner))
    }
}
