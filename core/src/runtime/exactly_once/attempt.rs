//! One event, until its outcome is certain.

use std::future::{Future, poll_fn};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use tokio::time::{Instant, sleep, timeout};
use tracing::Instrument;

use super::{Decided, Work};
use crate::backoff;
use crate::config::Unhandled;
use crate::event::on_behalf_of;
use crate::handler::{Failure, FailureKind, Handled, Registered, Started, Verdict};
use crate::middleware::Transaction;
use crate::runtime::Progress;
use crate::runtime::dead_letter::{Origin, Reason, letter_of};
use crate::runtime::engine::{ask, failure_of};
use crate::transport::{Admin, Delivery, Outgoing, Settler, TopicSpec};
use crate::validation::Fault;
use crate::{Error, ErrorKind, Timestamp, Topic};

/// Why an event is tried again or put away.
pub(super) struct Why {
    pub(super) kind: FailureKind,
    pub(super) text: String,
    /// What is wrong with the event, if it is not valid.
    pub(super) faults: Vec<Fault>,
}

impl Why {
    pub(super) fn new(kind: FailureKind, text: String) -> Self {
        let faults = Vec::new();
        Self { kind, text, faults }
    }
}

/// What one attempt comes to.
enum Attempt {
    Decided(Progress, Vec<Outgoing>),
    Again {
        after: Option<Duration>,
        why: Why,
    },
    DeadLetter(Why),
    /// The subscription stops by it.
    Stop(Error),
}

/// A dead letter to be made.
pub(super) struct Letter {
    pub(super) attempt: u32,
    /// When it failed first, if that was before.
    pub(super) failed_at: Option<Timestamp>,
    pub(super) topic: Topic,
}

impl Work {
    /// What becomes of an event. `None` if it is not this member's any more or the subscription
    /// stops.
    pub(super) async fn decide(&self, delivery: &Delivery) -> Option<Decided> {
        let settings = &self.settings;
        let mut attempt = delivery.attempt();
        let mut failed_at = None;
        loop {
            if self.shutdown.is_requested() || !self.settler.is_current(delivery.token()) {
                return None;
            }
            let (after, why) = match self.attempt(delivery, attempt).await {
                Attempt::Decided(progress, published) => {
                    return Some(Decided {
                        progress,
                        attempt,
                        published,
                    });
                }
                Attempt::Again { after, why } if attempt < settings.retry.max_attempts => {
                    (after, why)
                }
                Attempt::Stop(error) => {
                    self.fail(error);
                    return None;
                }
                Attempt::DeadLetter(why) | Attempt::Again { why, .. } => {
                    self.control.note_error(&why.text);
                    if let Some(topic) = self.dead_letter_topic(delivery.topic()) {
                        let letter = Letter {
                            attempt,
                            failed_at,
                            topic,
                        };
                        return self.put_away(delivery, letter, &why).await;
                    }
                    tracing::error!(subscription = %self.name, topic = %delivery.topic(), reason = why.text,
                        "an event failed for good and the subscription has no dead letters: it is held");
                    (Some(settings.retry.max), why)
                }
            };
            let retry = &settings.retry;
            let pause = after.unwrap_or_else(|| backoff::delay(retry.base, retry.max, attempt));
            failed_at.get_or_insert_with(Timestamp::now);
            self.pause(delivery, attempt, pause, &why.text).await;
            attempt = attempt.saturating_add(1);
        }
    }

    async fn attempt(&self, delivery: &Delivery, attempt: u32) -> Attempt {
        if self.is_own_dead_letter(delivery) {
            return Attempt::Decided(Progress::Unhandled, Vec::new());
        }
        let event = match delivery.event() {
            Ok(event) => event,
            Err(undecodable) => {
                self.counters.undecodable(1);
                let text = format!("not an event: {}", undecodable.error());
                let kind = FailureKind::Undecodable;
                return Attempt::DeadLetter(Why::new(kind, text));
            }
        };
        let Some((_, Registered::One(handler))) = self.handlers.find(event) else {
            return self.unhandled(delivery, event.event_type());
        };
        if let Some(validation) = self.validation.as_ref().filter(|it| it.rules().wait())
            && let Err(error) = ask(validation, event).await
        {
            return self.failed(failure_of(error));
        }
        let transaction = Transaction::new(Arc::clone(&self.prepare), self.transport.clone());
        let limit = self.settings.handler_timeout;
        let mut call = self.call();
        call.attempt = attempt;
        call.deadline = limit.map(|limit| Instant::now() + limit);
        call.scope = Some(Arc::new(transaction.clone()));
        let span = tracing::debug_span!("handle", subscription = %self.name,
            topic = %delivery.topic(), event_type = event.event_type(), event_id = event.id(), attempt);
        let call = Arc::new(call);
        let start = || on_behalf_of(Some(event), || handler.call(delivery, &call));
        let handled = match span.in_scope(start) {
            Ok(started) if started.later.is_some() => Err(Failure::permanent(Error::new(
                ErrorKind::Handler,
                "an exactly-once handler can't take an `Acknowledge`: it says what becomes of its event when it returns",
            ))),
            Ok(Started { mut future, .. }) => {
                let handling =
                    poll_fn(|context| on_behalf_of(Some(event), || future.as_mut().poll(context)));
                limited(handling.instrument(span), limit).await
            }
            Err(failure) => Err(failure),
        };
        self.judge(handled, &transaction).await
    }

    /// Whether a topic was found that holds what this subscription itself put away.
    fn is_own_dead_letter(&self, delivery: &Delivery) -> bool {
        let topic = delivery.topic();
        !self.named_topics.contains(topic) && self.settings.dead_letter.covers(topic, &self.prefix)
    }

    async fn judge(&self, handled: Handled, transaction: &Transaction) -> Attempt {
        let verdict = match handled {
            // An event that was refused makes a failure of it, also where the handler passed over
            // the error.
            Ok(Verdict::Ack) => match transaction.finish() {
                Ok(gathered) => {
                    let checked = self.prepare.publishing().check_together(&gathered.batch);
                    match checked.await {
                        Ok(()) => return Attempt::Decided(Progress::Handled, gathered.batch),
                        Err(error) => Err(Failure::new(error)),
                    }
                }
                Err(error) => Err(Failure::permanent(error)),
            },
            other => other,
        };
        transaction.give_up();
        let said = |text: &str| Why::new(FailureKind::Verdict, text.to_owned());
        match verdict {
            Ok(Verdict::Ack | Verdict::Drop) => Attempt::Decided(Progress::Dropped, Vec::new()),
            Ok(Verdict::Retry { after }) => Attempt::Again {
                after,
                why: said("the handler asked for it"),
            },
            Ok(Verdict::DeadLetter { reason }) => Attempt::DeadLetter(said(&reason)),
            Err(failure) => self.failed(failure),
        }
    }

    fn failed(&self, failure: Failure) -> Attempt {
        self.control.note_error(&failure);
        let failure = self.classifiers.classify(failure);
        let why = Why {
            kind: failure.kind(),
            text: failure.to_string(),
            faults: failure.faults().to_vec(),
        };
        match failure.is_permanent() {
            true => Attempt::DeadLetter(why),
            false => Attempt::Again {
                after: failure.after(),
                why,
            },
        }
    }

    fn unhandled(&self, delivery: &Delivery, event_type: &str) -> Attempt {
        let reason = format!("no handler of `{}` takes `{event_type}`", self.name);
        match self.settings.unhandled {
            Unhandled::Ack => Attempt::Decided(Progress::Unhandled, Vec::new()),
            Unhandled::DeadLetter => Attempt::DeadLetter(Why::new(FailureKind::Unhandled, reason)),
            Unhandled::Stop => Attempt::Stop(
                Error::new(ErrorKind::Handler, reason)
                    .with_topic(delivery.topic().name())
                    .with_note("add a handler, or set `unhandled` of the subscription to `ack`"),
            ),
        }
    }

    async fn pause(&self, delivery: &Delivery, attempt: u32, pause: Duration, reason: &str) {
        tracing::debug!(subscription = %self.name, topic = %delivery.topic(), attempt, reason,
            ?pause, outcome = "retry", "handled");
        self.counters.retried(1);
        self.observe(delivery, attempt, Progress::Retried);
        tokio::select! {
            biased;
            () = self.shutdown.requested() => {}
            () = sleep(pause) => {}
        }
    }

    /// Makes a dead letter, which is stored with the acknowledgement.
    pub(super) async fn put_away(
        &self,
        delivery: &Delivery,
        letter: Letter,
        why: &Why,
    ) -> Option<Decided> {
        let Letter {
            attempt,
            failed_at,
            topic,
        } = letter;
        let mut failures = 0;
        let spec = [TopicSpec::new(topic.name())];
        while let Err(error) = self.admin.ensure_topics(&spec).await {
            failures += 1;
            self.control.note_error(&error);
            tracing::warn!(transport = %self.transport, %topic, %error, failures,
                "the topic of a dead letter could not be made, its event is held");
            tokio::select! {
                biased;
                () = self.shutdown.requested() => return None,
                () = sleep(backoff::reconnect(failures)) => {}
            }
        }
        let event = delivery.event().ok();
        let origin = Origin {
            transport: &self.transport,
            group: &self.group,
            subscription: &self.name,
            handler: event.and_then(|event| self.handlers.takes(event.event_type())),
            reason: Reason {
                kind: why.kind,
                text: &why.text,
                faults: &why.faults,
            },
            not_before: None,
        };
        Some(Decided {
            progress: Progress::DeadLettered,
            attempt,
            published: vec![letter_of(delivery, attempt, failed_at, topic, &origin)],
        })
    }
}

/// A handler's outcome: a panic is a failure like any other, and so is one that takes too long.
async fn limited(handling: impl Future<Output = Handled>, limit: Option<Duration>) -> Handled {
    let handling = AssertUnwindSafe(handling).catch_unwind();
    let ended = match limit {
        Some(limit) => timeout(limit, handling)
            .await
            .map_err(|_| Failure::late(limit))?,
        None => handling.await,
    };
    ended.unwrap_or_else(|panic| Err(Failure::from_panic(&*panic)))
}
