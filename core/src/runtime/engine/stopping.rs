//! Ending: what runs may finish, the rest is given back.

use futures::future::join_all;
use futures::stream::StreamExt;
use tokio::time::timeout_at;

use super::{Engine, Finished};
use crate::runtime::batch::RunningBatch;
use crate::runtime::claims::Claims;
use crate::runtime::job::{Job, Working};
use crate::runtime::source::Settlements;
use crate::transport::Subscriber;

impl Engine {
    /// Whether everything that was started has ended and is settled.
    pub(super) fn is_drained(&self) -> bool {
        self.reads.is_empty()
            && self.running.is_empty()
            && self.deferred.is_empty()
            && self.running_batches.is_empty()
            && self.held.is_empty()
            && self.claims.as_ref().is_none_or(Claims::is_settled)
            && self.settlements.iter().all(Settlements::is_empty)
    }

    /// Gives back what has not started. What runs goes on.
    pub(super) fn begin_stop(&mut self) {
        self.stopping = true;
        let ready = std::mem::take(&mut self.ready);
        let waiting: Vec<Job> = self.lanes.drain_waiting().collect();
        self.bind_loose();
        let collected = self.batches.drain();
        let suspects = std::mem::take(&mut self.suspects);
        let parked = self.claims.as_mut().map(Claims::drain_parked);
        let idle = ready
            .into_iter()
            .chain(waiting)
            .chain(suspects)
            .chain(collected);
        for job in idle.chain(parked.into_iter().flatten()) {
            self.release(job);
        }
    }

    /// Gives back what did not end in time, settles, and leaves the groups.
    pub(super) async fn finish(mut self) -> Finished {
        let running = std::mem::take(&mut self.running)
            .into_iter()
            .chain(std::mem::take(&mut self.deferred))
            .filter_map(Working::into_job);
        let held = std::mem::take(&mut self.held)
            .into_iter()
            .filter_map(Working::into_job);
        let batches = std::mem::take(&mut self.running_batches)
            .into_iter()
            .flat_map(RunningBatch::into_jobs);
        for job in running.chain(held).chain(batches).collect::<Vec<_>>() {
            self.release(job);
        }
        let deadline = self.shutdown.deadline();
        let settled = timeout_at(deadline, self.settle_rest()).await;
        if settled.is_err() {
            tracing::warn!(subscription = %self.name, "settlements were not taken in time");
        }
        self.control.note_progress(&self.window);
        let closing = self
            .readers
            .drain(..)
            .map(|reader| reader.subscriber.close(deadline));
        for closed in join_all(closing).await {
            self.error = self.error.or(closed.err());
        }
        Finished {
            counts: self.counters.snapshot(),
            unfinished: self.unfinished,
            error: self.error,
        }
    }

    /// Waits for the readers and sends what is still to be settled, once more if it must.
    async fn settle_rest(&mut self) {
        while let Some((reader, read)) = self.reads.next().await {
            self.on_read(reader, read);
        }
        self.finish_claims().await;
        loop {
            self.start_settles();
            let Some(settled) = self.settles.next().await else {
                return;
            };
            self.on_settled(settled);
        }
    }
}
