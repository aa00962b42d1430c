use std::fmt;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::time::timeout;

use super::{Fault, Report};
use crate::{Error, ErrorKind, Event, Result};

type Check = dyn Fn(&Event) -> Result<()> + Send + Sync;
type Waiting = dyn Fn(Event) -> BoxFuture<'static, Result<()>> + Send + Sync;

/// How long a rule that waits for something may take.
const RULE_WITHIN: Duration = Duration::from_secs(30);

/// A program's own rules, which every event of a route that validates is held to.
#[derive(Clone, Default)]
pub struct Rules {
    checks: Vec<Arc<Check>>,
    waiting: Vec<Arc<Waiting>>,
}

impl Rules {
    /// Adds a rule. Its error is a fault of the event; the faults of its [report](Error::report), if it
    /// has one.
    pub fn add(&mut self, check: impl Fn(&Event) -> Result<()> + Send + Sync + 'static) {
        self.checks.push(Arc::new(check));
    }

    /// Adds a rule that has to wait for something. An error that is [retryable](Error::retryable) says
    /// that nobody knows yet; it may take half a minute.
    pub fn add_async<F>(&mut self, check: impl Fn(Event) -> F + Send + Sync + 'static)
    where
        F: Future<Output = Result<()>> + Send + 'static,
    {
        self.waiting
            .push(Arc::new(move |event| check(event).boxed()));
    }

    /// Whether there are rules that have to wait.
    pub(crate) fn wait(&self) -> bool {
        !self.waiting.is_empty()
    }

    pub(super) fn check(&self, event: &Event, faults: &mut Vec<Fault>) {
        for check in &self.checks {
            if let Err(error) = check(event) {
                faults.extend(faults_of(&error));
            }
        }
    }

    /// What the rules that wait say of an event.
    ///
    /// # Errors
    ///
    /// That of a rule which says that nobody knows yet, and [`Timeout`](ErrorKind::Timeout).
    pub(crate) async fn check_async(&self, event: &Event) -> Result<Vec<Fault>> {
        let mut faults = Vec::new();
        for check in &self.waiting {
            let late = |_| {
                let what = format!("a rule did not answer within {RULE_WITHIN:?}");
                Err(Error::new(ErrorKind::Timeout, what).with_operation("validate"))
            };
            let checking = async { check(event.clone()).await };
            let checking = AssertUnwindSafe(checking).catch_unwind();
            let checked = timeout(RULE_WITHIN, checking).await;
            let checked = checked.map(|checked| checked.unwrap_or_else(|_| panicked()));
            match checked.unwrap_or_else(late) {
                Ok(()) => {}
                Err(error) if error.retryable() => return Err(error),
                Err(error) => faults.extend(faults_of(&error)),
            }
        }
        Ok(faults)
    }
}

/// Nobody knows then.
fn panicked() -> Result<()> {
    let error = Error::new(ErrorKind::Handler, "a rule panicked");
    Err(error.with_operation("validate").with_retryable(true))
}

fn faults_of(error: &Error) -> Vec<Fault> {
    let faults = error.report().map(|Report { faults, .. }| faults.clone());
    faults.unwrap_or_else(|| vec![Fault::new("", error.message())])
}

impl fmt::Debug for Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rules")
            .field("checks", &self.checks.len())
            .field("waiting", &self.waiting.len())
            .finish()
    }
}
