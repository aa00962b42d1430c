//! What comes after a failure, and after a recess.

use std::future::Future;
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::time::{Instant, sleep};

use super::recess::Recess;
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
    /// Runs with `run`, until a stop is requested. After a failure the subscription joins its
    /// groups again with `join`, and goes on, if its settings say so ([`OnFailure`]): after a
    /// pause, as often as it takes. For a [recess](Control::recess) it leaves its groups and joins
    /// them again.
    ///
    /// # Cancel safety
    ///
    /// Dropped, it ends like a crash: what is not settled is delivered again.
    pub async fn run_on<F>(
        mut self,
        run: impl Fn(Self, Shutdown) -> BoxFuture<'static, Finished> + Send + Sync,
        join: impl Fn() -> F + Send + Sync,
        shutdown: Shutdown,
    ) -> Finished
    where
        F: Future<Output = Result<Vec<Source>>> + Send,
    {
        let mut failures = 0;
        loop {
            let started = Instant::now();
            let again = self.again();
            let (mut finished, recess) = run_until(self, &run, &shutdown).await;
            if shutdown.is_requested() {
                return finished;
            }
            if started.elapsed() >= STEADY {
                failures = 0;
            }
            if let Some(recess) = recess {
                match back_from(
                    recess,
                    &again.name,
                    &again.control,
                    &mut finished,
                    &join,
                    &shutdown,
                )
                .await
                {
                    Some(sources) => {
                        self = Self { sources, ..again };
                        continue;
                    }
                    None if shutdown.is_requested() => return finished,
                    None => again.control.fail(),
                }
            }
            if again.settings.on_failure == OnFailure::Stop {
                return finished;
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
}

/// Runs until it fails, a stop is requested, or a recess. All but the second stop this run alone.
async fn run_until(
    consumer: Consumer,
    run: &(impl Fn(Consumer, Shutdown) -> BoxFuture<'static, Finished> + Send + Sync),
    shutdown: &Shutdown,
) -> (Finished, Option<Recess>) {
    let control = std::sync::Arc::clone(&consumer.control);
    let own = Shutdown::new();
    let mut running = run(consumer, own.clone());
    let recess = tokio::select! {
        finished = &mut running => return (finished, None),
        () = shutdown.requested() => {
            own.request_as(shutdown);
            return (running.await, None);
        }
        recess = control.recesses.asked() => recess,
    };
    control.recesses.set_taken(true);
    own.request_to_leave(recess.within);
    let finished = tokio::select! {
        finished = &mut running => finished,
        () = shutdown.requested() => {
            own.request_as(shutdown);
            running.await
        }
    };
    control.recesses.set_taken(false);
    (finished, Some(recess))
}

/// Does what a recess is for, joins again, and tells who waits. `None` if the subscription
/// failed before or can't join, as `finished` says then, or if a stop is requested.
async fn back_from<F>(
    recess: Recess,
    name: &Text,
    control: &Control,
    finished: &mut Finished,
    join: &(impl Fn() -> F + Send + Sync),
    shutdown: &Shutdown,
) -> Option<Vec<Source>>
where
    F: Future<Output = Result<Vec<Source>>> + Send,
{
    let Recess { work, done, .. } = recess;
    if let Some(error) = &finished.error {
        if control.is_failed() {
            let _ = done.send(Err(error.duplicate()));
            return None;
        }
        control.note_error(error);
        tracing::warn!(subscription = %name, %error, "leaving for a recess went wrong");
    }
    control.recesses.set_taken(true);
    let both = async { (work.await, join().await) };
    let both = tokio::select! {
        biased;
        () = shutdown.requested() => None,
        both = both => Some(both),
    };
    control.recesses.set_taken(false);
    let (worked, joined) = both?;
    match joined {
        Ok(sources) => {
            // Who no longer waits does not want to know.
            let _ = done.send(worked);
            Some(sources)
        }
        Err(error) => {
            control.note_error(&error);
            tracing::error!(subscription = %name, %error, "it could not join again");
            let _ = done.send(worked.and_then(|()| Err(error.duplicate())));
            finished.error = Some(error);
            None
        }
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
