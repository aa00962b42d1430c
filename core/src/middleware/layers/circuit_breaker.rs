use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use super::{PublishLayer, Stage};
use crate::config::{CircuitBreakerConfig, WhenOpen};
use crate::transport::{DynPublisher, Outcome, Outgoing, Publisher};
use crate::{Error, ErrorKind, Result};

/// Asks a transport that keeps failing only now and then whether it is back.
///
/// A batch counts as failed if none of its events was accepted and one was rejected for a passing
/// reason or is unknown. After so many in a row the circuit is open: nothing is sent for a while.
/// Then one batch is let through, and its outcome closes the circuit or opens it again.
#[derive(Debug)]
pub struct CircuitBreaker(CircuitBreakerConfig);

impl CircuitBreaker {
    /// The breaker of a config.
    pub fn new(config: &CircuitBreakerConfig) -> Self {
        Self(config.clone())
    }
}

impl PublishLayer for CircuitBreaker {
    fn stage(&self) -> Stage {
        Stage::CircuitBreaker
    }

    fn wrap(&self, inner: DynPublisher) -> DynPublisher {
        DynPublisher::new(Broken {
            inner,
            config: self.0.clone(),
            circuit: Mutex::new(Circuit::Closed { failures: 0 }),
            changed: Notify::new(),
        })
    }
}

#[derive(Debug)]
struct Broken {
    inner: DynPublisher,
    config: CircuitBreakerConfig,
    circuit: Mutex<Circuit>,
    /// Told when a trial is over.
    changed: Notify,
}

#[derive(Debug, Clone, Copy)]
enum Circuit {
    Closed {
        failures: u32,
    },
    Open {
        until: Instant,
    },
    /// One batch is out to see.
    Trial,
}

/// What a batch may do.
enum Leave {
    Go,
    /// As the one that tries.
    Try,
    /// Not before the instant, if it is known.
    Wait(Option<Instant>),
}

impl Broken {
    fn ask(&self) -> Leave {
        let mut circuit = self.lock();
        match *circuit {
            Circuit::Closed { .. } => Leave::Go,
            Circuit::Open { until } if Instant::now() < until => Leave::Wait(Some(until)),
            Circuit::Open { .. } => {
                *circuit = Circuit::Trial;
                Leave::Try
            }
            Circuit::Trial => Leave::Wait(None),
        }
    }

    /// Waits until the batch may leave. `None` if it may not and is not to wait.
    async fn enter(&self) -> Option<Trial<'_>> {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            let until = match self.ask() {
                Leave::Go => return Some(Trial(None)),
                Leave::Try => return Some(Trial(Some(self))),
                Leave::Wait(_) if self.config.when_open == WhenOpen::Fail => return None,
                Leave::Wait(until) => until,
            };
            match until {
                Some(until) => tokio::select! {
                    () = sleep_until(until) => {}
                    () = changed => {}
                },
                None => changed.await,
            }
        }
    }

    fn record(&self, outcomes: &[Outcome], mut trial: Trial<'_>) {
        let tried = trial.0.take().is_some();
        let failed = failed(outcomes);
        let mut circuit = self.lock();
        let failures = match *circuit {
            Circuit::Closed { failures } if failed => failures + 1,
            // A batch from before the circuit opened says nothing new.
            Circuit::Open { .. } | Circuit::Trial if !tried => return,
            _ if failed => self.config.failures,
            _ => 0,
        };
        *circuit = if failures >= self.config.failures {
            self.open()
        } else {
            Circuit::Closed { failures }
        };
        drop(circuit);
        self.changed.notify_waiters();
    }

    fn open(&self) -> Circuit {
        let open_for = self.config.open_for;
        tracing::warn!(?open_for, "the circuit opens: the transport keeps failing");
        Circuit::Open {
            until: Instant::now() + open_for,
        }
    }

    fn refuse(&self, outgoing: &Outgoing) -> Outcome {
        let message = "the circuit is open: the transport keeps failing and is not asked now";
        let open_for = self.config.open_for;
        Outcome::Rejected(
            Error::new(ErrorKind::CircuitOpen, message)
                .with_operation("publish")
                .with_topic(outgoing.topic.name())
                .with_note(format!("it is tried again {open_for:?} after it opened")),
        )
    }

    fn lock(&self) -> MutexGuard<'_, Circuit> {
        // One value can't be left half changed by a panic.
        self.circuit.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Publisher for Broken {
    async fn publish(&self, batch: &[Outgoing]) -> Vec<Outcome> {
        let Some(trial) = self.enter().await else {
            return batch.iter().map(|it| self.refuse(it)).collect();
        };
        let outcomes = self.inner.publish(batch).await;
        self.record(&outcomes, trial);
        outcomes
    }

    async fn flush(&self, deadline: Instant) -> Result<()> {
        self.inner.flush(deadline).await
    }

    async fn close(&self, deadline: Instant) -> Result<()> {
        self.inner.close(deadline).await
    }
}

/// The batch that tries, if it is one. Dropped without an outcome, the next one tries.
struct Trial<'a>(Option<&'a Broken>);

impl Drop for Trial<'_> {
    fn drop(&mut self) {
        if let Some(broken) = self.0 {
            *broken.lock() = Circuit::Open {
                until: Instant::now(),
            };
            broken.changed.notify_waiters();
        }
    }
}

fn failed(outcomes: &[Outcome]) -> bool {
    let passing = |outcome: &Outcome| match outcome {
        Outcome::Accepted(_) => false,
        Outcome::Rejected(error) => error.retryable(),
        Outcome::Unknown(_) => true,
    };
    !outcomes.iter().any(Outcome::is_accepted) && outcomes.iter().any(passing)
}
