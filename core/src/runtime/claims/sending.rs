//! Asking the store: slices, one call of a kind at a time, again after a pause when it failed.

use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::stream::StreamExt;
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};

use super::{Claims, Due, Ended, News, State};
use crate::backoff;
use crate::handler::Failure;
use crate::idempotency::{Claim, Claimed};
use crate::{Error, ErrorKind, Result};

/// How many claims one call is about, so that a server is not held up.
const SLICE: usize = 500;

/// How long one call may take before it counts as failed and is made again.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// What is to be sent, and what is out.
pub(super) struct Queue<T> {
    waiting: VecDeque<T>,
    sending: Vec<T>,
    failures: u32,
}

/// What comes of waiting.
pub(in crate::runtime) enum Answer {
    /// It is time to renew, or to ask again.
    Time,
    Asked(Vec<Claim>, Instant, Result<Vec<Claimed>>),
    Renewed(Vec<u64>, Instant, Result<Vec<bool>>),
    Completed(Result<Vec<bool>>),
    Released(Result<Vec<bool>>),
}

impl<T> Queue<T> {
    pub(super) fn push(&mut self, item: T) {
        self.waiting.push_back(item);
    }

    fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.sending.is_empty()
    }

    /// The next slice and the pause before it, if none is out.
    fn slice(&mut self) -> Option<(&[T], Duration)> {
        if !self.sending.is_empty() || self.waiting.is_empty() {
            return None;
        }
        let count = self.waiting.len().min(SLICE);
        self.sending.extend(self.waiting.drain(..count));
        Some((&self.sending, pause(self.failures)))
    }

    /// The slice that was out and is answered.
    fn answered(&mut self) -> Vec<T> {
        self.failures = 0;
        std::mem::take(&mut self.sending)
    }

    /// The slice that was out goes back to the front.
    fn failed(&mut self) {
        self.failures = self.failures.saturating_add(1);
        for item in self.sending.drain(..).rev() {
            self.waiting.push_front(item);
        }
    }

    /// Everything, sent or not.
    fn drain(&mut self) -> impl Iterator<Item = T> {
        self.sending.drain(..).chain(self.waiting.drain(..))
    }
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self {
            waiting: VecDeque::new(),
            sending: Vec::new(),
            failures: 0,
        }
    }
}

impl Claims {
    /// Sends what is to be sent.
    pub(in crate::runtime) fn send(&mut self) {
        self.send_asks();
        let retain = self.settings.retain;
        if let Some((ended, pause)) = self.completes.slice() {
            let (store, claims) = (Arc::clone(&self.settings.store), claims(ended));
            self.work.push(Box::pin(async move {
                let call = store.complete(&claims, retain);
                Answer::Completed(called("complete", pause, CALL_TIMEOUT, claims.len(), call).await)
            }));
        }
        if let Some((ended, pause)) = self.releases.slice() {
            let (store, claims) = (Arc::clone(&self.settings.store), claims(ended));
            self.work.push(Box::pin(async move {
                let call = store.release(&claims);
                Answer::Released(called("release", pause, CALL_TIMEOUT, claims.len(), call).await)
            }));
        }
    }

    fn send_asks(&mut self) {
        // Jobs that have ended since need no claim.
        let jobs = &mut self.jobs;
        self.asks.waiting.retain(|number| jobs.contains_key(number));
        let Some((numbers, pause)) = self.asks.slice() else {
            return;
        };
        let claim = |number: &u64| {
            let job = jobs.get_mut(number).expect("only jobs that are there ask");
            job.state = State::Asked;
            job.claim.clone()
        };
        let claims: Vec<Claim> = numbers.iter().map(claim).collect();
        let (store, lease) = (Arc::clone(&self.settings.store), self.settings.lease);
        self.work.push(Box::pin(async move {
            if !pause.is_zero() {
                sleep(pause).await;
            }
            let asked = Instant::now();
            let call = store.claim(&claims, lease);
            let limit = CALL_TIMEOUT.min(lease);
            let answers = called("claim", Duration::ZERO, limit, claims.len(), call).await;
            Answer::Asked(claims, asked, answers)
        }));
    }

    /// Renews what is held, unless the last renewals are still out.
    pub(super) fn renew(&mut self, asked: Instant) {
        if self.renewals > 0 {
            return;
        }
        let held = self.jobs.iter();
        let held = held.filter(|(_, job)| matches!(job.state, State::Held { .. }));
        let held: Vec<(u64, Claim)> = held
            .map(|(number, job)| (*number, job.claim.clone()))
            .collect();
        let (lease, limit) = (self.settings.lease, self.renew_every());
        for slice in held.chunks(SLICE) {
            let (numbers, claims): (Vec<u64>, Vec<Claim>) = slice.iter().cloned().unzip();
            let store = Arc::clone(&self.settings.store);
            self.renewals += 1;
            self.work.push(Box::pin(async move {
                let call = store.renew(&claims, lease);
                let answers = called("renew", Duration::ZERO, limit, claims.len(), call).await;
                Answer::Renewed(numbers, asked, answers)
            }));
        }
    }

    /// Waits for an answer of the store, or until it is time for something. Cancel safe.
    pub(in crate::runtime) async fn next(&mut self) -> Answer {
        let busy = self.busy.first().map(|(until, _)| *until);
        let renew = (!self.jobs.is_empty()).then_some(self.renew_at);
        let due = busy.into_iter().chain(renew).min();
        tokio::select! {
            Some(answer) = self.work.next() => answer,
            () = sleep_until(due.unwrap_or(self.renew_at)), if due.is_some() => Answer::Time,
            else => std::future::pending().await,
        }
    }

    /// Notes an answer.
    pub(in crate::runtime) fn on_answer(&mut self, answer: Answer) -> News {
        match answer {
            Answer::Time => {
                self.on_time();
                News::default()
            }
            Answer::Asked(claims, asked, answers) => self.on_asked(&claims, asked, answers),
            Answer::Renewed(numbers, asked, answers) => {
                self.renewals -= 1;
                match answers {
                    Ok(answers) => {
                        for (number, renewed) in numbers.into_iter().zip(answers) {
                            self.on_renewed(number, renewed, asked);
                        }
                    }
                    // The next ones are soon enough.
                    Err(error) => self.note(&error),
                }
                News::default()
            }
            Answer::Completed(answers) => self.on_completed(answers),
            Answer::Released(answers) => self.on_released(answers),
        }
    }

    fn on_asked(
        &mut self,
        claims: &[Claim],
        asked: Instant,
        answers: Result<Vec<Claimed>>,
    ) -> News {
        let answers = match answers {
            Ok(answers) => answers,
            Err(error) => {
                self.note(&error);
                self.asks.failed();
                self.release_unasked(claims);
                return News::default();
            }
        };
        let numbers = self.asks.answered();
        let mut news = News::default();
        for ((number, claim), claimed) in numbers.into_iter().zip(claims).zip(answers) {
            let more = self.on_claimed(number, claim, claimed, asked);
            news.ready.extend(more.ready);
        }
        news
    }

    /// Releases the claims of jobs that ended while the question was out: nobody knows whether
    /// they were granted.
    fn release_unasked(&mut self, claims: &[Claim]) {
        let asked = self.asks.waiting.iter().zip(claims);
        let ended: Vec<Ended> = asked
            .filter(|(number, _)| !self.jobs.contains_key(number))
            .map(|(number, claim)| Ended {
                number: *number,
                claim: claim.clone(),
                due: None,
            })
            .collect();
        ended.into_iter().for_each(|it| self.releases.push(it));
    }

    fn on_completed(&mut self, answers: Result<Vec<bool>>) -> News {
        let mut news = News::default();
        match answers {
            Ok(answers) => {
                let ended = self.completes.answered();
                for (ended, completed) in ended.into_iter().zip(answers) {
                    news.due.extend(ended.due);
                    if completed {
                        self.done(&ended.claim.key, ended.number, &mut news);
                    } else {
                        news.lost += 1;
                        self.leave(&ended.claim.key, ended.number);
                    }
                }
            }
            Err(error) => {
                self.note(&error);
                self.completes.failed();
            }
        }
        news
    }

    fn on_released(&mut self, answers: Result<Vec<bool>>) -> News {
        let mut news = News::default();
        match answers {
            Ok(_) => {
                for ended in self.releases.answered() {
                    news.due.extend(ended.due);
                    self.leave(&ended.claim.key, ended.number);
                }
            }
            Err(error) => {
                self.note(&error);
                self.releases.failed();
            }
        }
        news
    }

    fn note(&self, error: &Error) {
        self.control.note_error(error);
        tracing::warn!(%error, "the idempotency store failed, its events are held");
    }

    /// Whether everything that has ended is in the store, and nothing is asked.
    pub(in crate::runtime) fn is_settled(&self) -> bool {
        self.asks.is_empty() && self.completes.is_empty() && self.releases.is_empty()
    }

    /// Tells the store what has ended, until the deadline, and gives what is to be settled. What
    /// the store did not take by then is settled all the same: what was handled is acknowledged
    /// without a mark, and a claim that is not released runs out.
    pub(in crate::runtime) async fn finish(&mut self, deadline: Instant) -> (Vec<Due>, usize) {
        let (mut due, mut lost) = (Vec::new(), 0);
        loop {
            self.send();
            if self.is_settled() {
                return (due, lost);
            }
            let Ok(Some(answer)) = timeout_at(deadline, self.work.next()).await else {
                break;
            };
            let news = self.on_answer(answer);
            due.extend(news.due);
            lost += news.lost;
        }
        let left = self.completes.drain().chain(self.releases.drain());
        let left: Vec<Due> = left.filter_map(|ended| ended.due).collect();
        tracing::warn!(
            events = left.len(),
            "the idempotency store was not told in time what was handled"
        );
        due.extend(left);
        (due, lost)
    }
}

fn claims(ended: &[Ended]) -> Vec<Claim> {
    ended.iter().map(|it| it.claim.clone()).collect()
}

fn pause(failures: u32) -> Duration {
    match failures {
        0 => Duration::ZERO,
        failures => backoff::reconnect(failures),
    }
}

/// Calls the store after a pause. A panic of its and a missing answer are errors like others.
async fn called<T>(
    operation: &'static str,
    pause: Duration,
    limit: Duration,
    count: usize,
    call: impl Future<Output = Result<Vec<T>>>,
) -> Result<Vec<T>> {
    if !pause.is_zero() {
        sleep(pause).await;
    }
    let error = match timeout(limit, AssertUnwindSafe(call).catch_unwind()).await {
        Ok(Ok(Ok(answers))) if answers.len() == count => return Ok(answers),
        Ok(Ok(Ok(answers))) => {
            let message = format!("the store gave {} answers for {count} keys", answers.len());
            Error::new(ErrorKind::Transport, message)
        }
        Ok(Ok(Err(error))) => return Err(error),
        Ok(Err(panic)) => Error::new(
            ErrorKind::Transport,
            Failure::from_panic(&*panic).to_string(),
        ),
        Err(_) => Error::new(ErrorKind::Timeout, format!("no answer within {limit:?}")),
    };
    Err(error.with_operation(operation))
}
