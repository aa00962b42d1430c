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

/// How many claims one call is about: few enough that a server is not held up, and that its answers
/// to one call are worked with while it is busy with the next.
const SLICE: usize = 256;

/// How many calls of a kind are out at the most.
const CALLS: usize = 4;

/// How long one call may take before it counts as failed and is made again.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// What is to be sent, and what is out.
pub(super) struct Queue<T> {
    waiting: VecDeque<T>,
    /// The slices that are out, each under its number.
    sending: Vec<(u64, Vec<T>)>,
    /// The number of the next slice.
    next: u64,
    failures: u32,
}

/// A slice that is to be sent: its number, what is in it, and the pause before it.
struct Slice<'a, T> {
    number: u64,
    items: &'a [T],
    pause: Duration,
}

/// What comes of waiting.
pub(in crate::runtime) enum Answer {
    /// It is time to renew, or to ask again.
    Time,
    Asked(Asked),
    Renewed(Vec<u64>, Instant, Result<Vec<bool>>),
    /// The slice of this number.
    Completed(u64, Result<Vec<bool>>),
    Released(u64, Result<Vec<bool>>),
}

/// What the store answered to a slice of claims.
pub(in crate::runtime) struct Asked {
    /// The number of the slice.
    slice: u64,
    claims: Vec<Claim>,
    /// When the question went out.
    at: Instant,
    answers: Result<Vec<Claimed>>,
}

impl<T> Queue<T> {
    pub(super) fn push(&mut self, item: T) {
        self.waiting.push_back(item);
    }

    fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.sending.is_empty()
    }

    /// The next slice, if another one may go out, of what is still wanted.
    fn slice(&mut self, wanted: impl Fn(&T) -> bool) -> Option<Slice<'_, T>> {
        // One is enough to see whether a store that failed is back.
        let calls = if self.failures > 0 { 1 } else { CALLS };
        if self.sending.len() >= calls || self.waiting.is_empty() {
            return None;
        }
        let mut items = Vec::with_capacity(self.waiting.len().min(SLICE));
        while items.len() < SLICE
            && let Some(item) = self.waiting.pop_front()
        {
            if wanted(&item) {
                items.push(item);
            }
        }
        if items.is_empty() {
            return None;
        }
        let number = self.next;
        self.next += 1;
        self.sending.push((number, items));
        let (_, items) = self.sending.last()?;
        Some(Slice {
            number,
            items,
            pause: pause(self.failures),
        })
    }

    /// The slice that was out and is answered.
    fn answered(&mut self, number: u64) -> Vec<T> {
        self.failures = 0;
        self.take(number)
    }

    /// The slice that was out goes back to the front.
    fn failed(&mut self, number: u64) {
        self.failures = self.failures.saturating_add(1);
        for item in self.take(number).into_iter().rev() {
            self.waiting.push_front(item);
        }
    }

    fn take(&mut self, number: u64) -> Vec<T> {
        let place = self.sending.iter().position(|(slice, _)| *slice == number);
        place.map_or_else(Vec::new, |place| self.sending.remove(place).1)
    }

    /// Everything, sent or not.
    fn drain(&mut self) -> impl Iterator<Item = T> {
        let sending = self.sending.drain(..).flat_map(|(_, items)| items);
        sending.chain(self.waiting.drain(..))
    }
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self {
            waiting: VecDeque::new(),
            sending: Vec::new(),
            next: 0,
            failures: 0,
        }
    }
}

impl Claims {
    /// Sends what is to be sent.
    pub(in crate::runtime) fn send(&mut self) {
        while self.send_asks() {}
        let retain = self.settings.retain;
        while let Some(slice) = self.completes.slice(|_| true) {
            let (store, claims) = (Arc::clone(&self.settings.store), claims(slice.items));
            let (number, pause) = (slice.number, slice.pause);
            self.work.push(Box::pin(async move {
                let call = store.complete(&claims, retain);
                let answers = called("complete", pause, CALL_TIMEOUT, claims.len(), call).await;
                Answer::Completed(number, answers)
            }));
        }
        while let Some(slice) = self.releases.slice(|_| true) {
            let (store, claims) = (Arc::clone(&self.settings.store), claims(slice.items));
            let (number, pause) = (slice.number, slice.pause);
            self.work.push(Box::pin(async move {
                let call = store.release(&claims);
                let answers = called("release", pause, CALL_TIMEOUT, claims.len(), call).await;
                Answer::Released(number, answers)
            }));
        }
    }

    /// Asks for a slice of claims, if another one may go out.
    fn send_asks(&mut self) -> bool {
        // Jobs that have ended since need no claim.
        let jobs = &mut self.jobs;
        let Some(slice) = self.asks.slice(|number| jobs.contains_key(number)) else {
            return false;
        };
        let claim = |number: &u64| {
            let job = jobs.get_mut(number).expect("only jobs that are there ask");
            job.state = State::Asked;
            job.claim.clone()
        };
        let claims: Vec<Claim> = slice.items.iter().map(claim).collect();
        let (slice, pause) = (slice.number, slice.pause);
        let (store, lease) = (Arc::clone(&self.settings.store), self.settings.lease);
        self.work.push(Box::pin(async move {
            if !pause.is_zero() {
                sleep(pause).await;
            }
            let at = Instant::now();
            let call = store.claim(&claims, lease);
            let limit = CALL_TIMEOUT.min(lease);
            let answers = called("claim", Duration::ZERO, limit, claims.len(), call).await;
            Answer::Asked(Asked {
                slice,
                claims,
                at,
                answers,
            })
        }));
        true
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
            Answer::Asked(asked) => self.on_asked(asked),
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
            Answer::Completed(slice, answers) => self.on_completed(slice, answers),
            Answer::Released(slice, answers) => self.on_released(slice, answers),
        }
    }

    fn on_asked(&mut self, asked: Asked) -> News {
        let mut news = News::default();
        let answers = match asked.answers {
            Ok(answers) => answers,
            Err(error) => {
                self.note(&error);
                self.release_unasked(asked.slice, &asked.claims);
                self.asks.failed(asked.slice);
                return news;
            }
        };
        let numbers = self.asks.answered(asked.slice);
        news.ready.reserve(numbers.len());
        for ((number, claim), claimed) in numbers.into_iter().zip(&asked.claims).zip(answers) {
            self.on_claimed(number, claim, claimed, asked.at, &mut news);
        }
        news
    }

    /// Releases the claims of jobs that ended while the question was out: nobody knows whether
    /// they were granted.
    fn release_unasked(&mut self, slice: u64, claims: &[Claim]) {
        let asked = self.asks.sending.iter().find(|it| it.0 == slice);
        let asked = asked.into_iter().flat_map(|(_, numbers)| numbers);
        for (number, claim) in asked.zip(claims) {
            if !self.jobs.contains_key(number) {
                self.releases.push(Ended {
                    number: *number,
                    claim: claim.clone(),
                    due: None,
                });
            }
        }
    }

    fn on_completed(&mut self, slice: u64, answers: Result<Vec<bool>>) -> News {
        let mut news = News::default();
        match answers {
            Ok(answers) => {
                let ended = self.completes.answered(slice);
                news.due.reserve(ended.len());
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
                self.completes.failed(slice);
            }
        }
        news
    }

    fn on_released(&mut self, slice: u64, answers: Result<Vec<bool>>) -> News {
        let mut news = News::default();
        match answers {
            Ok(_) => {
                for ended in self.releases.answered(slice) {
                    news.due.extend(ended.due);
                    self.leave(&ended.claim.key, ended.number);
                }
            }
            Err(error) => {
                self.note(&error);
                self.releases.failed(slice);
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
