//! Jobs whose handler has returned and whose verdict comes later.

use std::time::Duration;

use futures::future::BoxFuture;
use tokio::time::{timeout, timeout_at};

use super::Engine;
use crate::handler::{Failure, Handled, Verdict};
use crate::runtime::job::{Job, Working};

impl Engine {
    /// Decides about a job whose handler has returned, or waits for its verdict.
    pub(super) fn on_returned(&mut self, mut job: Job, handled: Handled) {
        let (Some(later), Ok(Verdict::Ack)) = (job.later.take(), &handled) else {
            return self.on_handled(job, handled);
        };
        let limit = self.settings.handler_timeout;
        self.deferred.push(Working::new(
            job,
            Box::pin(async move {
                let (Some(deadline), Some(limit)) = (later.deadline, limit) else {
                    return later.verdict().await;
                };
                let verdict = timeout_at(deadline, later.verdict()).await;
                verdict.unwrap_or_else(|_| Err(Failure::late(limit)))
            }),
        ));
    }
}

/// Gives a handler up that takes longer than the limit. Costs nothing without one.
pub(super) fn limited<T: Send + 'static>(
    handler: BoxFuture<'static, T>,
    limit: Option<Duration>,
    late: impl FnOnce(Duration) -> T + Send + 'static,
) -> BoxFuture<'static, T> {
    let Some(limit) = limit else { return handler };
    Box::pin(async move {
        let ended = timeout(limit, handler).await;
        ended.unwrap_or_else(|_| late(limit))
    })
}
