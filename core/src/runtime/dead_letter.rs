use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tokio::time::{sleep, timeout};

use super::job::{FromPanic, Job};
use super::{Control, Shutdown};
use crate::backoff;
use crate::handler::Failure;
use crate::topic::TopicPrefix;
use crate::transport::{
    Admin, DynAdmin, DynPublisher, Header, Headers, Outgoing, Publisher, RawRecord, TopicSpec,
};
use crate::{Error, ErrorKind, Result, Text, Timestamp, Topic};

/// How long creating the topic or publishing one dead letter may take before it is tried again.
const ATTEMPT_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(30);

/// Longer texts of errors are cut, so that a dead letter stays below the server's limits.
const MAX_REASON_BYTES: usize = 1024;

/// Names of the headers that say where a dead letter comes from and why.
pub mod provenance {
    /// The transport's name in the config.
    pub const TRANSPORT: &str = "polybus-origin-transport";
    /// The topic.
    pub const TOPIC: &str = "polybus-origin-topic";
    /// The position in the topic.
    pub const POSITION: &str = "polybus-origin-position";
    /// The consumer group.
    pub const GROUP: &str = "polybus-group";
    /// The subscription.
    pub const SUBSCRIPTION: &str = "polybus-subscription";
    /// How many attempts were made.
    pub const ATTEMPTS: &str = "polybus-attempts";
    /// Why the event failed, cut to 1 KiB.
    pub const REASON: &str = "polybus-reason";
    /// When it failed for good, RFC 3339.
    pub const FAILED_AT: &str = "polybus-failed-at";
}

/// What came of a job that is held: its retry pause, or the publishing of its dead letter.
#[derive(Debug, Clone, Copy)]
pub(super) enum Held {
    /// The pause is over.
    TryAgain,
    /// The dead letter is confirmed.
    DeadLettered,
    /// The subscription stops: the event stays with its group.
    Stopped,
}

impl FromPanic for Held {
    /// A client that panics did not confirm anything. The job is tried again.
    fn from_panic(failure: Failure) -> Self {
        tracing::error!(%failure, "publishing a dead letter failed");
        Self::TryAgain
    }
}

/// Publishes the dead letters of one source.
#[derive(Clone)]
pub(super) struct DeadLetters {
    pub(super) transport: Text,
    pub(super) prefix: TopicPrefix,
    pub(super) publisher: DynPublisher,
    pub(super) admin: DynAdmin,
    control: Arc<Control>,
    /// Topics that are known to exist.
    ensured: Arc<Mutex<HashSet<Topic>>>,
}

impl DeadLetters {
    pub(super) fn new(
        transport: Text,
        prefix: TopicPrefix,
        publisher: DynPublisher,
        admin: DynAdmin,
        control: Arc<Control>,
    ) -> Self {
        Self {
            transport,
            prefix,
            publisher,
            admin,
            control,
            ensured: Arc::default(),
        }
    }

    /// Publishes a dead letter until it is confirmed, or the subscription stops. The lane of its
    /// key is held for as long.
    pub(super) async fn publish(self, letter: Outgoing, shutdown: Shutdown) -> Held {
        let mut failures = 0;
        loop {
            let error = match timeout(ATTEMPT_TIMEOUT, self.attempt(&letter)).await {
                Ok(Ok(())) => return Held::DeadLettered,
                Ok(Err(error)) => error,
                Err(_) => Error::new(
                    ErrorKind::Timeout,
                    format!("no answer within {ATTEMPT_TIMEOUT:?}"),
                ),
            };
            failures += 1;
            self.control.note_error(&error);
            tracing::warn!(transport = %self.transport, topic = %letter.topic, %error, failures,
                "a dead letter could not be published, its event is held");
            tokio::select! {
                biased;
                () = shutdown.requested() => return Held::Stopped,
                () = sleep(backoff::reconnect(failures)) => {}
            }
        }
    }

    async fn attempt(&self, letter: &Outgoing) -> Result<()> {
        if !self.is_ensured(&letter.topic) {
            self.admin
                .ensure_topics(&[TopicSpec::new(letter.topic.name())])
                .await?;
            self.lock().insert(letter.topic.clone());
        }
        let outcomes = self.publisher.publish(std::slice::from_ref(letter)).await;
        let outcome = outcomes
            .into_iter()
            .next()
            .ok_or_else(|| Error::new(ErrorKind::Transport, "the transport reported no outcome"))?;
        outcome.into_result().map(drop)
    }

    fn is_ensured(&self, topic: &Topic) -> bool {
        self.lock().contains(topic)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashSet<Topic>> {
        self.ensured.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The dead letter of a job: the event, or the record as it came, and where it came from.
pub(super) fn letter(job: &Job, topic: Topic, origin: &Origin<'_>) -> Outgoing {
    let delivery = &job.delivery;
    // The headers are in the record.
    let raw = |topic, record: &RawRecord| (Outgoing::raw(topic, record.clone()), Headers::new());
    let (outgoing, headers) = match (delivery.event(), delivery.record()) {
        (Err(undecodable), _) => raw(topic, &undecodable.record),
        (Ok(_), Some(record)) => raw(topic, record),
        (Ok(event), None) => (
            Outgoing::new(topic, event.clone()),
            delivery.headers().clone(),
        ),
    };
    let provenance = [
        text(provenance::TRANSPORT, origin.transport),
        text(provenance::TOPIC, delivery.topic().name()),
        text(provenance::POSITION, &delivery.position().to_string()),
        text(provenance::GROUP, origin.group),
        text(provenance::SUBSCRIPTION, origin.subscription),
        text(provenance::ATTEMPTS, &job.attempt.to_string()),
        text(provenance::REASON, cut(origin.reason)),
        text(provenance::FAILED_AT, &Timestamp::now().to_string()),
    ];
    outgoing.with_headers(headers.into_iter().chain(provenance).collect::<Headers>())
}

/// Where a dead letter comes from, beside what its delivery says.
pub(super) struct Origin<'a> {
    pub(super) transport: &'a str,
    pub(super) group: &'a str,
    pub(super) subscription: &'a str,
    pub(super) reason: &'a str,
}

fn text(name: &'static str, value: &str) -> Header {
    (
        Text::new_static(name),
        Some(Bytes::copy_from_slice(value.as_bytes())),
    )
}

fn cut(reason: &str) -> &str {
    let mut end = reason.len().min(MAX_REASON_BYTES);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    &reason[..end]
}
