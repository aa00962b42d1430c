//! What comes after a failure.

use std::future::Future;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{Consumer, Control, Finished, Shutdown, Source};
use crate::backoff;
use crate::config::OnFailure;
use crate::{Result, Text};

/// The pause before the first restart; it doubles up to `LONGEST`.
const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(60);

/// Whoever ran for so long has not failed again but anew.
const STEADY: Duration = Duration::from_secs(120);

impl Consumer {
    /// As [`run`](Self::run). After a failure the subscription joins its groups again with `join`,
    /// and goes on, if its settings say so ([`OnFailure`]): after a pause, as often as it takes.
    ///
    /// # Cancel safety
    ///
    /// Dropped, it ends like a crash: what is not settled is delivered again.
    pub async fn run_restarting<F>(
        mut self,
        join: impl Fn() -> F + Send + Sync,
        shutdown: Shutdown,
    ) -> Finished
    where
        F: Future<Output = Result<Vec<Source>>> + Send,
    {
        if self.settings.on_failure == OnFailure::Stop {
            return self.run(shutdown).await;
        }
        let mut failures = 0;
        loop {
            let started = Instant::now();
            let again = self.again();
            let finished = self.run_until(&shutdown).await;
            if shutdown.is_requested() {
                return finished;
            }
            if started.elapsed() >= STEADY {
                failures = 0;
            }
            again.control.restarting(true);
            let Some(sources) =
                rejoin(&again.name, &again.control, &join, &mut failures, &shutdown).await
            else {
                return finished;
            };
            again.control.restarting(false);
            again.counters.restarts(1);
            self = Self { sources, ..again };
        }
    }

    /// The same subscription, which reads nothing yet.
    fn again(&self) -> Self {
        Self {
            name: self.name.clone(),
            group: self.group.clone(),
            settings: self.settings.clone(),
            handlers: self.handlers.clone(),
            classifiers: self.classifiers.clone(),
            batch: self.batch,
            idempotency: self.idempotency.clone(),
            sources: Vec::new(),
            counters: self.counters.clone(),
            control: self.control.clone(),
            observer: self.observer.clone(),
            validation: self.validation.clone(),
        }
    }

    /// Runs until it fails or a stop is requested. A failure requests a stop of this run alone.
    async fn run_until(self, shutdown: &Shutdown) -> Finished {
        let own = Shutdown::new();
        let mut running = std::pin::pin!(self.run(own.clone()));
        tokio::select! {
            finished = &mut running => return finished,
            () = shutdown.requested() => own.request_as(shutdown),
        }
        running.await
    }
}

/// Joins after a pause, as often as it takes; not at all once a stop is requested.
async fn rejoin<F>(
    name: &Text,
    control: &Control,
    join: &(impl Fn() -> F + Send + Sync),
    failures: &mut u32,
    shutdown: &Shutdown,
) -> Option<Vec<Source>>
where
    F: Future<Output = Result<Vec<Source>>> + Send,
{
    loop {
        *failures = failures.saturating_add(1);
        let pause = backoff::delay(SHORTEST, LONGEST, *failures);
        tracing::warn!(subscription = %name, ?pause, "the subscription starts again after a pause");
        let joining = async {
            sleep(pause).await;
            join().await
        };
        let joined = tokio::select! {
            biased;
            () = shutdown.requested() => return None,
            joined = joining => joined,
        };
        match joined {
            Ok(sources) => return Some(sources),
            Err(error) => {
                control.note_error(&error);
                tracing::warn!(subscription = %name, %error, "it could not start again");
            }
        }
    }
}
