//! Rules of the program that have to wait for something before an event may be handled.

use std::sync::Arc;

use super::Engine;
use crate::config::Validate;
use crate::handler::Failure;
use crate::runtime::dead_letter::Held;
use crate::runtime::job::{Job, Working};
use crate::validation::Validation;
use crate::{Error, Event, Result};

/// Asks the rules that have to wait about an event that is to be handled.
///
/// # Errors
///
/// That the event is refused, or that nobody knows yet.
pub(in crate::runtime) async fn ask(validation: &Validation, event: &Event) -> Result<()> {
    let mode = validation.mode_of(event.event_type());
    validation.ask(mode, event, "handle").await
}

/// What comes of a refusal: a dead letter, or another try where nobody knows yet.
pub(in crate::runtime) fn failure_of(error: Error) -> Failure {
    match error.retryable() {
        true => Failure::new(error),
        false => Failure::refused(error),
    }
}

/// Whether a job has to wait for rules before it starts.
pub(super) fn waits(validation: Option<&Arc<Validation>>, job: &Job) -> bool {
    let Some(validation) = validation.filter(|it| !job.checked && it.rules().wait()) else {
        return false;
    };
    let event = job.delivery.event().ok();
    event.is_some_and(|event| validation.mode_of(event.event_type()) != Validate::Off)
}

impl Engine {
    /// Lets a job wait for rules, in its lane and without a place, if it has to.
    pub(super) fn ask_rules(&mut self, job: Job) -> Option<Job> {
        if !waits(self.validation.as_ref(), &job) {
            return Some(job);
        }
        let (Some(validation), Ok(event)) = (&self.validation, job.delivery.event()) else {
            return Some(job);
        };
        let (validation, event) = (Arc::clone(validation), event.clone());
        let shutdown = self.shutdown.clone();
        let asking = async move {
            tokio::select! {
                biased;
                () = shutdown.requested() => Held::Stopped,
                asked = ask(&validation, &event) => match asked {
                    Ok(()) => Held::Admitted,
                    Err(error) => Held::Refused(error),
                },
            }
        };
        self.held.push(Working::new(job, Box::pin(asking)));
        None
    }

    pub(super) fn on_refused(&mut self, job: Job, error: Error) {
        self.on_handled(job, Err(failure_of(error)));
    }
}
