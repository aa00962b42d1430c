use std::sync::Arc;

use futures::future::join_all;
use tokio::time::Instant;

use super::split::{collect, publish_rest};
use super::{PublishLayer, Stage};
use crate::config;
use crate::transport::{DynPublisher, Outcome, Outgoing, Publisher};
use crate::validation::Validation;
use crate::{Effect, Error, Result};

/// Refuses events that the program's rules refuse, where these have to wait for something. What needs
/// no waiting is checked before an event gets here.
#[derive(Debug, Clone)]
pub struct Validate {
    validation: Arc<Validation>,
    mode: config::Validate,
}

impl Validate {
    /// The layer of a route that is so strict.
    pub fn new(validation: Arc<Validation>, mode: config::Validate) -> Self {
        Self { validation, mode }
    }

    /// The layer of a route, if its events have to wait for rules.
    pub(crate) fn of_mode(
        mode: config::Validate,
        validation: Option<&Arc<Validation>>,
    ) -> Option<Self> {
        let validation = validation.filter(|it| it.rules().wait())?;
        let validates = mode != config::Validate::Off;
        validates.then(|| Self::new(Arc::clone(validation), mode))
    }

    /// The outcome of an event that is refused. A record as it is was an event's once, and is nobody's
    /// to judge.
    async fn refused(&self, outgoing: &Outgoing) -> Option<Outcome> {
        let checked = wait_for_rules(&self.validation, self.mode, outgoing).await;
        checked.err().map(Outcome::Rejected)
    }
}

/// Asks the rules that have to wait about what is to be published.
///
/// # Errors
///
/// [`InvalidEvent`](crate::ErrorKind::InvalidEvent) with the report, if the route is strict; that of a
/// rule which says that nobody knows yet.
pub(in crate::middleware) async fn wait_for_rules(
    validation: &Validation,
    mode: config::Validate,
    outgoing: &Outgoing,
) -> Result<()> {
    let Some(event) = outgoing.event() else {
        return Ok(());
    };
    let asked = validation.ask(mode, event, "publish").await;
    asked.map_err(|error| to_publish(error, outgoing))
}

/// Nothing was sent before the check.
fn to_publish(error: Error, outgoing: &Outgoing) -> Error {
    let error = error.with_operation("publish");
    let error = error.with_effect(Effect::NotApplied);
    error.with_topic(outgoing.topic.name())
}

impl PublishLayer for Validate {
    fn stage(&self) -> Stage {
        Stage::Validate
    }

    fn wrap(&self, inner: DynPublisher) -> DynPublisher {
        let validate = self.clone();
        DynPublisher::new(Validated { inner, validate })
    }
}

#[derive(Debug)]
struct Validated {
    inner: DynPublisher,
    validate: Validate,
}

impl Publisher for Validated {
    async fn publish(&self, batch: &[Outgoing]) -> Vec<Outcome> {
        let refused = batch.iter().map(|outgoing| self.validate.refused(outgoing));
        let mut outcomes = join_all(refused).await;
        publish_rest(&self.inner, batch, &mut outcomes).await;
        collect(outcomes)
    }

    async fn flush(&self, deadline: Instant) -> Result<()> {
        self.inner.flush(deadline).await
    }

    async fn close(&self, deadline: Instant) -> Result<()> {
        self.inner.close(deadline).await
    }
}
