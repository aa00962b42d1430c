use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::job::{FromPanic, Job};
use super::provenance::{self as header, Provenance, header as text};
use super::{Control, Shutdown};
use crate::backoff;
use crate::handler::{Failure, FailureKind};
use crate::topic::TopicPrefix;
use crate::transport::{
    AckToken, Admin, Delivery, DynAdmin, DynPublisher, DynSettler, Headers, Outgoing, Publisher,
    RawRecord, Settler, TopicSpec,
};
use crate::validation::Fault;
use crate::{Error, ErrorKind, Result, Text, Timestamp, Topic};

/// How long creating the topic or publishing one dead letter may take before it is tried again.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(30);

/// Longer texts of errors are cut, so that a dead letter stays below the server's limits.
const MAX_REASON_BYTES: usize = 1024;

/// What came of a job that is held: its retry pause, the publishing of what takes its place, or
/// the note that it is about to run.
#[derive(Debug)]
pub(super) enum Held {
    /// The pause is over.
    TryAgain,
    /// What takes its place is confirmed.
    Stored {
        what: Replacement,
        /// The delivery was acknowledged with it.
        settled: bool,
    },
    /// It was noted that it is about to run, so many times before.
    Noted(u32),
    /// The rules that have to wait let it pass.
    Admitted,
    /// They don't, or nobody knows yet.
    Refused(Error),
    /// The event is another member's.
    Lost,
    /// The subscription stops: the event stays with its group.
    Stopped,
}

/// What takes the place of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Replacement {
    /// Its dead letter.
    DeadLetter,
    /// The event itself, for a later attempt.
    Delayed,
}

/// Why an event is put away or tried again.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reason<'a> {
    pub(super) kind: FailureKind,
    pub(super) text: &'a str,
    /// What is wrong with the event, if it is not valid.
    pub(super) faults: &'a [Fault],
}

impl<'a> Reason<'a> {
    pub(super) fn new(kind: FailureKind, text: &'a str) -> Self {
        let faults = &[];
        Self { kind, text, faults }
    }
}

impl FromPanic for Held {
    /// A client that panics did not confirm anything. The job is tried again.
    fn from_panic(failure: Failure) -> Self {
        tracing::error!(%failure, "putting an event away failed");
        Self::TryAgain
    }
}

/// Publishes what takes the place of the events of one source.
#[derive(Clone)]
pub(super) struct DeadLetters {
    pub(super) transport: Text,
    pub(super) prefix: TopicPrefix,
    pub(super) publisher: DynPublisher,
    pub(super) admin: DynAdmin,
    /// Stores and acknowledges in one step, where the transport can.
    pub(super) forwarder: Option<DynSettler>,
    pub(super) control: Arc<Control>,
    /// Topics that are known to exist.
    pub(super) ensured: Arc<Mutex<HashSet<Topic>>>,
}

impl DeadLetters {
    /// Publishes what takes a delivery's place until it is confirmed, or the subscription stops.
    /// The lane of its key is held for as long.
    pub(super) async fn publish(
        self,
        token: AckToken,
        what: Replacement,
        letter: Outgoing,
        shutdown: Shutdown,
    ) -> Held {
        let mut failures = 0;
        let item = [(token, letter)];
        let letter = &item[0].1;
        loop {
            let error = match timeout(ATTEMPT_TIMEOUT, self.attempt(&item)).await {
                Ok(Ok(settled)) => return Held::Stored { what, settled },
                Ok(Err(error)) if error.kind() == ErrorKind::Stale => return Held::Lost,
                Ok(Err(error)) => error,
                Err(_) => Error::new(
                    ErrorKind::Timeout,
                    format!("no answer within {ATTEMPT_TIMEOUT:?}"),
                ),
            };
            failures += 1;
            self.control.note_error(&error);
            tracing::warn!(transport = %self.transport, topic = %letter.topic, %error, failures,
                "an event could not be put away, it is held");
            tokio::select! {
                biased;
                () = shutdown.requested() => return Held::Stopped,
                () = sleep(backoff::reconnect(failures)) => {}
            }
        }
    }

    /// Publishes once. Whether the delivery was acknowledged by that.
    async fn attempt(&self, item: &[(AckToken, Outgoing); 1]) -> Result<bool> {
        let letter = &item[0].1;
        if !self.is_ensured(&letter.topic) {
            self.admin
                .ensure_topics(&[TopicSpec::new(letter.topic.name())])
                .await?;
            self.lock().insert(letter.topic.clone());
        }
        if let Some(forwarder) = &self.forwarder {
            match forwarder.forward(item).await.pop() {
                // Not for this pair of topics: in two steps then.
                Some(Err(error)) if error.kind() == ErrorKind::Unsupported => {}
                forwarded => {
                    return forwarded
                        .unwrap_or_else(|| Err(no_outcome()))
                        .map(|()| true);
                }
            }
        }
        let outcomes = self.publisher.publish(std::slice::from_ref(letter)).await;
        let outcome = outcomes.into_iter().next().ok_or_else(no_outcome)?;
        outcome.into_result().map(|_| false)
    }

    fn is_ensured(&self, topic: &Topic) -> bool {
        self.lock().contains(topic)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashSet<Topic>> {
        self.ensured.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn no_outcome() -> Error {
    Error::new(ErrorKind::Transport, "the transport reported no outcome")
}

/// Where a dead letter comes from, beside what its delivery says.
pub(super) struct Origin<'a> {
    pub(super) transport: &'a str,
    pub(super) group: &'a str,
    pub(super) subscription: &'a str,
    pub(super) handler: Option<&'a str>,
    pub(super) reason: Reason<'a>,
    /// Before when it is not to be handled, if it is no dead letter.
    pub(super) not_before: Option<Timestamp>,
}

/// What takes the place of a job: the event, or the record as it came, and where it came from.
pub(super) fn letter(job: &Job, topic: Topic, origin: &Origin<'_>) -> Outgoing {
    letter_of(&job.delivery, job.attempt, job.failed_at, topic, origin)
}

/// What takes the place of a delivery after an attempt, which failed first at a time that may be
/// known.
pub(super) fn letter_of(
    delivery: &Delivery,
    attempt: u32,
    failed_at: Option<Timestamp>,
    topic: Topic,
    origin: &Origin<'_>,
) -> Outgoing {
    // The headers are in the record.
    let raw = |topic, record: &RawRecord| {
        let mut record = record.clone();
        record.headers = Provenance::strip(&record.headers);
        (Outgoing::raw(topic, record), Headers::new())
    };
    // What waits for its next attempt has to be read as an event where it waits.
    let record = delivery.record().filter(|_| origin.not_before.is_none());
    let (outgoing, headers) = match (delivery.event(), record) {
        (Err(undecodable), _) => raw(topic, &undecodable.record),
        (Ok(_), Some(record)) => raw(topic, record),
        (Ok(event), None) => (
            Outgoing::new(topic, event.clone()),
            Provenance::strip(delivery.headers()),
        ),
    };
    let (from, position) = (delivery.topic().name(), delivery.position());
    let now = Timestamp::now();
    let known = header::text(delivery.headers(), header::FIRST_FAILED_AT);
    let first = known.map_or_else(|| failed_at.unwrap_or(now).to_string(), str::to_owned);
    let id = format!("{}/{from}/{position}/{}", origin.transport, origin.group);
    let provenance = [
        text(header::ID, &id),
        text(header::TRANSPORT, origin.transport),
        text(header::TOPIC, from),
        text(header::POSITION, &position.to_string()),
        text(header::GROUP, origin.group),
        text(header::SUBSCRIPTION, origin.subscription),
        text(header::ATTEMPTS, &attempt.to_string()),
        text(header::REASON, cut(origin.reason.text)),
        text(header::KIND, origin.reason.kind.as_str()),
        text(header::FIRST_FAILED_AT, &first),
        text(header::FAILED_AT, &now.to_string()),
    ];
    let faults = header::faults_header(origin.reason.faults);
    let handler = origin.handler.map(|takes| text(header::HANDLER, takes));
    let time = origin.not_before.map(|time| time.to_string());
    let not_before = time.map(|time| text(header::NOT_BEFORE, &time));
    let further = provenance.into_iter().chain(handler);
    let further = further.chain(faults).chain(not_before);
    outgoing.with_headers(headers.into_iter().chain(further).collect())
}

fn cut(reason: &str) -> &str {
    let mut end = reason.len().min(MAX_REASON_BYTES);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    &reason[..end]
}
