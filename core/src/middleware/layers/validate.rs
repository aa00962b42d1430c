use std::fmt;
use std::sync::Arc;

use serde::de::IgnoredAny;
use tokio::time::Instant;

use super::split::{collect, publish_rest};
use super::{PublishLayer, Stage};
use crate::codec::is_json;
use crate::config::{self, PublishConfig};
use crate::transport::{DynPublisher, Outcome, Outgoing, Publisher};
use crate::{Error, ErrorKind, Event, Result};

type Check = dyn Fn(&Event) -> Result<()> + Send + Sync;

/// A program's own check of an event before it is published.
#[derive(Clone)]
pub struct Validator(Arc<Check>);

impl Validator {
    /// A check. Its error is the outcome of the event, which is not sent.
    pub fn new(check: impl Fn(&Event) -> Result<()> + Send + Sync + 'static) -> Self {
        Self(Arc::new(check))
    }
}

impl fmt::Debug for Validator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Validator").finish_non_exhaustive()
    }
}

/// Refuses events that are wrong with [`InvalidEvent`](ErrorKind::InvalidEvent): an event type
/// with an empty segment, data that is not the JSON or the text its content type says, and what
/// the program's own check refuses.
#[derive(Debug, Clone)]
pub struct Validate(Option<Validator>);

impl Validate {
    /// The checks of every event, and those of the program.
    pub fn new(validator: Option<Validator>) -> Self {
        Self(validator)
    }

    /// The checks that a route's settings ask for.
    pub(in crate::middleware) fn of_config(
        config: &PublishConfig,
        validator: Option<&Validator>,
    ) -> Option<Self> {
        let strict = config.validate == config::Validate::Strict;
        strict.then(|| Self::new(validator.cloned()))
    }

    /// Refuses an event that is wrong. A record as it is was an event's once, and is nobody's to
    /// judge.
    pub(in crate::middleware) fn check(&self, outgoing: &Outgoing) -> Result<()> {
        let Some(event) = outgoing.event() else {
            return Ok(());
        };
        let checked = check_structure(event).and_then(|()| match &self.0 {
            Some(Validator(check)) => check(event),
            None => Ok(()),
        });
        checked.map_err(|error| {
            let error = error.with_operation("publish");
            // The check ran before anything was sent.
            let error = error.with_effect(crate::Effect::NotApplied);
            let error = error.with_retryable(false);
            error.with_topic(outgoing.topic.name())
        })
    }
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
        let refused = |outgoing: &Outgoing| {
            let error = self.validate.check(outgoing).err()?;
            Some(Outcome::Rejected(error))
        };
        let mut outcomes: Vec<_> = batch.iter().map(refused).collect();
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

fn check_structure(event: &Event) -> Result<()> {
    let wrong = |what: String| {
        let event = format!(
            "event of type `{}`, id `{}`",
            event.event_type(),
            event.id()
        );
        Err(Error::new(ErrorKind::InvalidEvent, what).with_note(event))
    };
    if event.event_type().split('.').any(str::is_empty) {
        return wrong("the event type has an empty segment".to_owned());
    }
    let (Some(content_type), Some(data)) = (event.content_type(), event.data()) else {
        return Ok(());
    };
    if is_json(content_type)
        && let Err(error) = serde_json::from_slice::<IgnoredAny>(data)
    {
        return wrong(format!(
            "the data is not the JSON that `{content_type}` says: {error}"
        ));
    }
    if content_type.starts_with("text/") && std::str::from_utf8(data).is_err() {
        return wrong(format!(
            "the data is not the text that `{content_type}` says"
        ));
    }
    Ok(())
}
