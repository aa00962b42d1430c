//! Runs cases: each under a deadline, those that disrupt the server alone.

use std::any::Any;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures::{StreamExt, stream};
use polybus_core::BoxError;
use polybus_core::transport::{Capabilities, Transport};
use tokio::sync::RwLock;
use tokio::task::JoinError;
use tokio::time::{Instant, timeout};

use crate::case::Case;
use crate::cases::cases;
use crate::erased::ErasedHarness;
use crate::failure::{Check, Failure};
use crate::harness::Harness;
use crate::report::{CaseReport, Report, Verdict};
use crate::scene::Scene;

/// The variable that repeats the random choices of an earlier run.
pub(crate) const SEED_VARIABLE: &str = "POLYBUS_CONFORMANCE_SEED";

/// Runs the cases of the suite whose names contain `filter` (all, if it is empty) and tells what
/// became of each. For programs; a test file uses [`main!`](crate::main!).
///
/// Must be called within a tokio runtime of several threads.
///
/// # Errors
///
/// If the harness could not start, give a first client, or stop.
pub async fn run<H: Harness>(filter: &str) -> Result<Report, BoxError> {
    let harness = Arc::new(H::start().await?);
    let stage = Stage::new(harness.clone()).await?;
    let chosen = cases().filter(|case| case.name().contains(filter));
    let running = stream::iter(chosen).map(|case| {
        let stage = stage.clone();
        async move { stage.run(case).await }
    });
    let cases = running.buffered(stage.parallel()).collect().await;
    drop(stage);
    stop(harness).await?;
    Ok(Report { cases })
}

/// Stops a harness that nobody uses any more.
pub(crate) async fn stop<H: Harness>(harness: Arc<H>) -> Result<(), BoxError> {
    match Arc::try_unwrap(harness) {
        Ok(harness) => harness.stop().await,
        // A case that ran over its deadline still holds it: it stops when dropped.
        Err(_) => Ok(()),
    }
}

/// What all cases of a run share.
#[derive(Clone)]
pub(crate) struct Stage {
    harness: Arc<dyn ErasedHarness>,
    capabilities: Capabilities,
    run: Arc<str>,
    seed: u64,
    alone: Arc<RwLock<()>>,
}

impl Stage {
    pub(crate) async fn new<H: Harness>(harness: Arc<H>) -> Result<Self, BoxError> {
        let mut capabilities = Harness::connect(&*harness).await?.capabilities();
        if harness.splits_topics() {
            capabilities = capabilities.of_partitioned();
        }
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let unique = u64::try_from(now.as_micros()).unwrap_or_default() ^ salt();
        let seed = match std::env::var(SEED_VARIABLE) {
            Ok(seed) => seed
                .parse()
                .map_err(|_| format!("{SEED_VARIABLE} is to be a number, and is `{seed}`"))?,
            Err(_) => unique,
        };
        Ok(Self {
            harness,
            capabilities,
            run: format!("{unique:x}").into(),
            seed,
            alone: Arc::new(RwLock::new(())),
        })
    }

    pub(crate) fn parallel(&self) -> usize {
        self.harness.tuning().parallel.max(1)
    }

    /// Runs a case, or tells why it can't be.
    pub(crate) async fn run(&self, case: &Case) -> CaseReport {
        let started = Instant::now();
        let verdict = match case.excluded(&self.capabilities, &*self.harness) {
            Some(reason) => Verdict::Ignored(reason),
            None => self.run_alone_if_needed(case).await,
        };
        CaseReport {
            case: *case,
            verdict,
            elapsed: started.elapsed(),
        }
    }

    async fn run_alone_if_needed(&self, case: &Case) -> Verdict {
        if case.disrupts() {
            let _alone = self.alone.write().await;
            self.run_to_deadline(case).await
        } else {
            let _beside_others = self.alone.read().await;
            self.run_to_deadline(case).await
        }
    }

    async fn run_to_deadline(&self, case: &Case) -> Verdict {
        let scene = Scene::new(
            case.name(),
            self.run.clone(),
            self.harness.clone(),
            self.capabilities,
            self.seed,
        );
        let mut running = tokio::spawn(case.run(scene.clone()));
        let disrupted = if case.disrupts() { 2 } else { 1 };
        let deadline = scene.tuning().deadline * disrupted;
        let outcome = match timeout(deadline, &mut running).await {
            Ok(ended) => ended.unwrap_or_else(|error| Err(panicked(error))),
            Err(_) => {
                let hung = hung(&scene, deadline);
                running.abort();
                // The case may not be dropped as long as it holds a thread; that is waited for,
                // so that nothing of it runs into the next, but not for ever.
                let _ = timeout(Duration::from_secs(5), running).await;
                Err(hung)
            }
        };
        let outcome = outcome.and(recovered(&scene).await);
        match outcome {
            Ok(()) => Verdict::Passed,
            Err(failure) => Verdict::Failed(format!(
                "{failure}\n  to repeat its random choices: {SEED_VARIABLE}={}",
                self.seed
            )),
        }
    }
}

async fn recovered(scene: &Scene) -> Check {
    let within = Duration::from_secs(120);
    timeout(within, scene.recover()).await.unwrap_or_else(|_| {
        Err(Failure::new(format!(
            "the server did not come back within {within:?}"
        )))
    })
}

fn hung(scene: &Scene, deadline: Duration) -> Failure {
    let steps = scene.steps_under_way();
    let place = if steps.is_empty() {
        "between two steps".to_owned()
    } else {
        steps.join("; ")
    };
    Failure::new(format!("not over after {deadline:?}. It hung at: {place}"))
}

fn panicked(error: JoinError) -> Failure {
    let Ok(payload) = error.try_into_panic() else {
        return Failure::new("the case was cancelled");
    };
    Failure::new(format!("panicked: {}", panic_text(&*payload)))
}

fn panic_text(payload: &(dyn Any + Send)) -> &str {
    payload
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| payload.downcast_ref::<&str>().copied())
        .unwrap_or("without a message")
}

/// What tells two runs apart that start in the same microsecond.
fn salt() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(std::process::id()) << 52
}
