//! The claims of a subscription's jobs in an idempotency store.
//!
//! Claims are asked for as soon as deliveries come, many in one call, so that a job's claim is
//! there when its turn comes. A job whose turn comes earlier is parked here. Of the jobs of one key
//! the first asks, and the others wait for what becomes of it.

mod sending;

use std::collections::hash_map::Entry as Slot;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use foldhash::fast::RandomState;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use tokio::time::Instant;

pub(super) use self::sending::Answer;
use self::sending::Queue;
use super::Control;
use super::job::Job;
use crate::handler::{Failure, HandlerSet};
use crate::idempotency::{Claim, Claimed, Fences, IdempotencyStore};
use crate::transport::{AckToken, Settlement};
use crate::{Event, Text};

/// How a subscription keeps from handling an event twice.
#[derive(Clone)]
pub struct Idempotency {
    /// Keeps the claims.
    pub store: Arc<dyn IdempotencyStore>,
    /// How long a claim lasts that is not renewed.
    pub lease: Duration,
    /// How long it is known that an event was handled.
    pub retain: Duration,
    /// What makes two events the same, for one handler of one group. `None`: source and id.
    pub key: Option<IdempotencyKey>,
}

/// Says what makes two events the same.
pub type IdempotencyKey = Arc<dyn Fn(&Event) -> Text + Send + Sync>;

impl fmt::Debug for Idempotency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Idempotency")
            .field("lease", &self.lease)
            .field("retain", &self.retain)
            .finish_non_exhaustive()
    }
}

/// What is to be settled once the store has taken what became of a claim: the source by index,
/// and the delivery.
pub(super) type Due = (usize, AckToken, Settlement);

/// Every claim of a subscription.
pub(super) struct Claims {
    settings: Idempotency,
    control: Arc<Control>,
    /// What keys start with, by the index of the handler.
    prefixes: Vec<String>,
    /// Where keys are put together.
    key: String,
    fences: Fences,
    /// The number of the next job.
    next: u64,
    jobs: HashMap<u64, Enlisted, RandomState>,
    /// The job that speaks for a key, and those behind it.
    keys: HashMap<Text, Speaker, RandomState>,
    asks: Queue<u64>,
    completes: Queue<Ended>,
    releases: Queue<Ended>,
    /// How many renewals are out.
    renewals: usize,
    renew_at: Instant,
    /// Parked jobs whose key is another's, and until when.
    busy: BTreeSet<(Instant, u64)>,
    work: FuturesUnordered<BoxFuture<'static, Answer>>,
}

/// A job that needs a claim to run.
struct Enlisted {
    claim: Claim,
    state: State,
    /// It is its turn, and it has to wait for its claim.
    parked: Option<Job>,
}

enum State {
    /// To be asked for.
    New,
    Asked,
    Held {
        until: Instant,
    },
    Busy {
        until: Instant,
    },
    Done,
    /// No key could be made.
    Failed(String),
}

struct Speaker {
    number: u64,
    behind: VecDeque<u64>,
}

/// A claim that is to be completed or released.
struct Ended {
    number: u64,
    claim: Claim,
    due: Option<Due>,
}

/// What a job whose turn has come may do.
pub(super) enum Admission {
    Start(Job),
    /// It was handled before.
    Done(Job),
    Failed(Job, Failure),
    /// It waits for its claim.
    Parked,
}

/// What an answer of the store comes to.
#[derive(Default)]
pub(super) struct News {
    /// Jobs that were parked and may try again.
    pub(super) ready: Vec<Job>,
    /// What may be settled now.
    pub(super) due: Vec<Due>,
    /// Claims that another one had taken when their handlers had succeeded.
    pub(super) lost: usize,
}

impl Claims {
    pub(super) fn new(
        settings: Idempotency,
        group: &str,
        handlers: &HandlerSet,
        control: Arc<Control>,
    ) -> Self {
        let group = escape(group);
        let prefix = |name: &Text| format!("{group}:{}:", escape(name));
        Self {
            prefixes: handlers.names().iter().map(prefix).collect(),
            key: String::new(),
            fences: Fences::new(),
            settings,
            control,
            next: 0,
            jobs: HashMap::default(),
            keys: HashMap::default(),
            asks: Queue::default(),
            completes: Queue::default(),
            releases: Queue::default(),
            renewals: 0,
            renew_at: Instant::now(),
            busy: BTreeSet::new(),
            work: FuturesUnordered::new(),
        }
    }

    /// Takes in a job that a handler takes, and gives it a number. Its claim is asked for.
    pub(super) fn enlist(&mut self, handler: usize, event: &Event) -> u64 {
        if self.jobs.is_empty() {
            self.renew_at = Instant::now() + self.renew_every();
        }
        let number = self.next;
        self.next += 1;
        let (key, state) = match self.key(handler, event) {
            Ok(key) => (key, State::New),
            Err(failure) => (Text::default(), State::Failed(failure.to_string())),
        };
        let asks = matches!(state, State::New);
        let enlisted = Enlisted {
            claim: Claim::new(key, self.fences.next()),
            state,
            parked: None,
        };
        self.jobs.insert(number, enlisted);
        if asks {
            self.ask(number);
        }
        number
    }

    fn key(&mut self, handler: usize, event: &Event) -> Result<Text, Failure> {
        let key = &mut self.key;
        key.clear();
        key.push_str(&self.prefixes[handler]);
        match &self.settings.key {
            None => {
                key.push_str(&escape(event.source()));
                key.push(':');
                key.push_str(event.id());
            }
            Some(own) => {
                let own = catch_unwind(AssertUnwindSafe(|| own(event)));
                key.push_str(&own.map_err(|panic| Failure::from_panic(&*panic))?);
            }
        }
        Ok(key.as_str().into())
    }

    /// Lets a job ask for its claim, or wait behind the one that speaks for its key.
    fn ask(&mut self, number: u64) {
        let Some(job) = self.jobs.get_mut(&number) else {
            return;
        };
        job.state = State::New;
        match self.keys.entry(job.claim.key.clone()) {
            Slot::Vacant(free) => {
                free.insert(Speaker {
                    number,
                    behind: VecDeque::new(),
                });
            }
            Slot::Occupied(taken) if taken.get().number == number => {}
            Slot::Occupied(mut taken) => {
                taken.get_mut().behind.push_back(number);
                return;
            }
        }
        self.asks.push(number);
    }

    /// Whether a job whose turn it is may start; if not, it is kept until it may.
    pub(super) fn admit(&mut self, job: Job) -> Admission {
        let Some((number, enlisted)) = job
            .claim
            .and_then(|number| Some((number, self.jobs.get_mut(&number)?)))
        else {
            return Admission::Start(job);
        };
        let now = Instant::now();
        let ran_out = match &enlisted.state {
            State::Held { until } if *until > now => return Admission::Start(job),
            State::Done => return Admission::Done(job),
            State::Failed(reason) => return Admission::Failed(job, Failure::new(reason.clone())),
            State::Busy { until } if *until > now => {
                self.busy.insert((*until, number));
                false
            }
            State::New | State::Asked => false,
            State::Held { .. } | State::Busy { .. } => true,
        };
        enlisted.parked = Some(job);
        if ran_out {
            self.ask(number);
        }
        Admission::Parked
    }

    /// Whether a job holds its claim.
    pub(super) fn holds(&self, job: &Job) -> bool {
        let enlisted = job.claim.and_then(|number| self.jobs.get(&number));
        enlisted
            .is_none_or(|it| matches!(it.state, State::Held { until } if until > Instant::now()))
    }

    /// Ends a job. Gives back what is to be settled if the store need not be told before.
    pub(super) fn end(&mut self, number: u64, completed: bool, due: Due) -> Option<Due> {
        let Some(Enlisted { claim, state, .. }) = self.jobs.remove(&number) else {
            return Some(due);
        };
        let queue = match state {
            _ if completed => &mut self.completes,
            State::Held { .. } => &mut self.releases,
            // It is released when the answer comes.
            State::Asked => return Some(due),
            State::New | State::Busy { .. } | State::Done | State::Failed(_) => {
                self.leave(&claim.key, number);
                return Some(due);
            }
        };
        queue.push(Ended {
            number,
            claim,
            due: Some(due),
        });
        None
    }

    /// Lets the next job of a key ask, if this one spoke for it.
    fn leave(&mut self, key: &Text, number: u64) {
        let Some(speaker) = self.keys.get_mut(key).filter(|it| it.number == number) else {
            return;
        };
        while let Some(next) = speaker.behind.pop_front() {
            if self.jobs.contains_key(&next) {
                speaker.number = next;
                self.asks.push(next);
                return;
            }
        }
        self.keys.remove(key);
    }

    /// Notes that a key is done, for all who wait behind the one that speaks for it.
    fn done(&mut self, key: &Text, number: u64, news: &mut News) {
        let Some((key, speaker)) = self.keys.remove_entry(key) else {
            return;
        };
        if speaker.number != number {
            self.keys.insert(key, speaker);
            return;
        }
        for number in speaker.behind {
            if let Some(job) = self.jobs.get_mut(&number) {
                job.state = State::Done;
                news.ready.extend(job.parked.take());
            }
        }
    }

    /// Notes what came of asking for a claim.
    fn on_claimed(
        &mut self,
        number: u64,
        claim: &Claim,
        claimed: Claimed,
        asked: Instant,
        news: &mut News,
    ) {
        let Some(job) = self.jobs.get_mut(&number) else {
            return match claimed {
                Claimed::Claimed => self.releases.push(Ended {
                    number,
                    claim: claim.clone(),
                    due: None,
                }),
                Claimed::Busy(_) => self.leave(&claim.key, number),
                Claimed::Done => self.done(&claim.key, number, news),
            };
        };
        match claimed {
            Claimed::Claimed => {
                // From before the question went out: the store's time starts later.
                let until = asked + self.settings.lease;
                job.state = State::Held { until };
                news.ready.extend(job.parked.take());
            }
            Claimed::Busy(remaining) => {
                let remaining = remaining.clamp(Duration::from_millis(1), self.settings.lease);
                let until = Instant::now() + remaining;
                job.state = State::Busy { until };
                if job.parked.is_some() {
                    self.busy.insert((until, number));
                }
            }
            Claimed::Done => {
                job.state = State::Done;
                news.ready.extend(job.parked.take());
                self.done(&claim.key, number, news);
            }
        }
    }

    /// Lets those ask again whose key another one had for long enough, and renews what is held.
    fn on_time(&mut self) {
        let now = Instant::now();
        while let Some((until, number)) = self.busy.first().copied() {
            if until > now {
                break;
            }
            self.busy.pop_first();
            let waits =
                |it: &Enlisted| it.parked.is_some() && matches!(it.state, State::Busy { .. });
            if self.jobs.get(&number).is_some_and(waits) {
                self.ask(number);
            }
        }
        if self.renew_at <= now {
            self.renew_at = now + self.renew_every();
            self.renew(now);
        }
    }

    /// Notes whether a claim was renewed. One that was not is asked for again: it may be free.
    fn on_renewed(&mut self, number: u64, renewed: bool, asked: Instant) {
        let Some(job) = self.jobs.get_mut(&number) else {
            return;
        };
        let State::Held { until } = &mut job.state else {
            return;
        };
        if renewed {
            *until = asked + self.settings.lease;
        } else {
            self.ask(number);
        }
    }

    /// Twice may fail before the claim is lost.
    fn renew_every(&self) -> Duration {
        self.settings.lease / 3
    }

    /// Takes out the jobs that wait for their claims.
    pub(super) fn drain_parked(&mut self) -> Vec<Job> {
        self.busy.clear();
        let jobs = self.jobs.values_mut();
        jobs.filter_map(|job| job.parked.take()).collect()
    }
}

/// A part of a key, so that no two different lists of parts make the same key.
fn escape(part: &str) -> std::borrow::Cow<'_, str> {
    if part.contains([':', '%']) {
        part.replace('%', "%25").replace(':', "%3A").into()
    } else {
        part.into()
    }
}
