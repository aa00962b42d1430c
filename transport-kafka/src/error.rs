//! The client's errors as those of polybus: what it means, whether it may have taken effect,
//! what to do.

use polybus_core::transport::Outcome;
use polybus_core::{Effect, Error, ErrorKind, Text};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

/// What every error of one transport carries.
#[derive(Debug, Clone)]
pub(crate) struct Origin {
    transport: Text,
    brokers: Text,
}

/// What an error code of the client means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Meaning {
    kind: ErrorKind,
    /// Whether a record that failed with it may be stored all the same.
    effect: Effect,
    advice: Option<&'static str>,
}

impl Origin {
    pub(crate) fn new(transport: Text, brokers: impl Into<Text>) -> Self {
        Self {
            transport,
            brokers: brokers.into(),
        }
    }

    /// An error of our own making.
    pub(crate) fn error(
        &self,
        operation: &'static str,
        kind: ErrorKind,
        message: impl Into<String>,
    ) -> Error {
        let error = Error::new(kind, message)
            .with_operation(operation)
            .with_transport(self.transport.clone());
        match kind {
            ErrorKind::Connect => error.with_note(format!("brokers: {}", self.brokers)),
            _ => error,
        }
    }

    /// An error code of the client.
    pub(crate) fn code(&self, operation: &'static str, code: RDKafkaErrorCode) -> Error {
        let Meaning {
            kind,
            effect,
            advice,
        } = meaning(code);
        let error = self
            .error(operation, kind, code.to_string())
            .with_effect(effect);
        match advice {
            Some(advice) => error.with_note(advice),
            None => error,
        }
    }

    /// An error of the client.
    pub(crate) fn client(&self, operation: &'static str, error: KafkaError) -> Error {
        if let Some(code) = code_of(&error) {
            return self.code(operation, code).with_source(error);
        }
        match error {
            // Its text repeats the value, which may be a secret: neither it nor its source.
            KafkaError::ClientConfig(_, _, name, _) => self
                .error(
                    operation,
                    ErrorKind::Config,
                    format!("the client does not take the property `{name}`, or not this value"),
                )
                .with_note("see CONFIGURATION.md of librdkafka for names and ranges"),
            KafkaError::ClientCreation(why) => self.error(
                operation,
                ErrorKind::Config,
                format!("the client can't be made: {why}"),
            ),
            KafkaError::Canceled => self.error(operation, ErrorKind::Closed, "the client is gone"),
            KafkaError::Nul(_) => self.error(
                operation,
                ErrorKind::Config,
                "a name contains a NUL character",
            ),
            other => self
                .error(operation, ErrorKind::Transport, other.to_string())
                .with_effect(Effect::Unknown),
        }
    }

    /// The outcome of a record that the client could not deliver. `cut` says that a connection
    /// broke before: what waited in the queue may then have been sent once.
    pub(crate) fn undelivered(&self, topic: &str, code: RDKafkaErrorCode, cut: bool) -> Outcome {
        let mut error = self.code("publish", code).with_topic(topic);
        if cut && code == RDKafkaErrorCode::PurgeQueue {
            error = error.with_effect(Effect::Unknown);
        }
        Outcome::from_error(error)
    }

    /// The outcome of a record that the client did not take: it is certainly not stored.
    pub(crate) fn not_taken(&self, topic: &str, error: KafkaError) -> Outcome {
        let error = self.client("publish", error).with_topic(topic);
        Outcome::Rejected(error.with_effect(Effect::NotApplied))
    }
}

/// The code in an error of the client, whatever operation it came from.
pub(crate) fn code_of(error: &KafkaError) -> Option<RDKafkaErrorCode> {
    match error {
        // `rdkafka_error_code` leaves this one out.
        KafkaError::AdminOp(code) => Some(*code),
        error => error.rdkafka_error_code(),
    }
}

/// Whether a commit failed because the partition belongs to another member, or soon will.
pub(crate) fn is_stale(code: RDKafkaErrorCode) -> bool {
    meaning(code).kind == ErrorKind::Stale
}

/// One line for each meaning. What is not named, codes of later brokers among it, may have
/// taken effect and may go away.
fn meaning(code: RDKafkaErrorCode) -> Meaning {
    use RDKafkaErrorCode as C;
    let (kind, effect, advice) = match code {
        C::BrokerTransportFailure
        | C::Resolve
        | C::AllBrokersDown
        | C::SSL
        | C::BrokerDestroy
        | C::DestroyBroker
        | C::UnknownBroker
        | C::WaitingForCoordinator
        | C::BrokerNotAvailable
        | C::NetworkException
        | C::CoordinatorLoadInProgress
        | C::CoordinatorNotAvailable
        | C::NotCoordinator
        | C::RebootstrapRequired => (ErrorKind::Connect, Effect::Unknown, None),
        C::MessageTimedOut => (
            ErrorKind::Timeout,
            Effect::Unknown,
            Some("`delivery_deadline` passed; the event may have been stored"),
        ),
        C::OperationTimedOut | C::TimedOutQueue | C::RequestTimedOut => {
            (ErrorKind::Timeout, Effect::Unknown, None)
        }
        C::MessageSizeTooLarge | C::MessageBatchTooLarge | C::InvalidMessageSize => (
            ErrorKind::TooLarge,
            Effect::NotApplied,
            Some("the broker's `message.max.bytes` or the topic's `max.message.bytes` sets the limit"),
        ),
        C::UnknownTopic | C::UnknownPartition | C::UnknownTopicOrPartition | C::UnknownTopicId => (
            ErrorKind::TopicNotFound,
            Effect::NotApplied,
            Some("create it first, for example with `ensure_topics`"),
        ),
        C::InvalidTopic => (
            ErrorKind::TopicNotFound,
            Effect::NotApplied,
            Some("a topic's name has letters, digits, `.`, `_` and `-`, at most 249 of them"),
        ),
        C::Authentication
        | C::TopicAuthorizationFailed
        | C::GroupAuthorizationFailed
        | C::ClusterAuthorizationFailed
        | C::TransactionalIdAuthorizationFailed
        | C::DelegationTokenAuthorizationFailed
        | C::DelegationTokenAuthDisabled
        | C::DelegationTokenExpired
        | C::DelegationTokenNotFound
        | C::DelegationTokenOwnerMismatch
        | C::DelegationTokenRequestNotAllowed
        | C::SaslAuthenticationFailed
        | C::UnsupportedSASLMechanism
        | C::IllegalSASLState
        | C::SecurityDisabled
        | C::UnacceptableCredential
        | C::PrincipalDeserializationFailure => (
            ErrorKind::Unauthorized,
            Effect::NotApplied,
            Some("check the credentials and the ACLs of this principal"),
        ),
        C::QueueFull => (
            ErrorKind::Full,
            Effect::NotApplied,
            Some("`publish_queue_events` and `publish_queue_bytes` set the size of the queue"),
        ),
        C::ThrottlingQuotaExceeded => (ErrorKind::Full, Effect::NotApplied, None),
        C::PurgeQueue => (ErrorKind::Closed, Effect::NotApplied, None),
        C::PurgeInflight => (ErrorKind::Closed, Effect::Unknown, None),
        C::InvalidMessage | C::BadMessage | C::InvalidTimestamp => {
            (ErrorKind::InvalidEvent, Effect::NotApplied, None)
        }
        C::InvalidRecord => (
            ErrorKind::InvalidEvent,
            Effect::NotApplied,
            Some("a compacted topic takes no event without a key"),
        ),
        C::UnsupportedVersion
        | C::UnsupportedFeature
        | C::NotImplemented
        | C::UnsupportedForMessageFormat
        | C::UnsupportedCompressionType
        | C::UnsupportedAssignor => (ErrorKind::Unsupported, Effect::NotApplied, None),
        C::InvalidArgument
        | C::NotConfigured
        | C::InvalidRequiredAcks
        | C::InconsistentGroupProtocol
        | C::InvalidGroupId
        | C::InvalidSessionTimeout
        | C::InvalidPartitions
        | C::InvalidReplicationFactor
        | C::InvalidReplicaAssignment
        | C::InvalidConfig
        | C::PolicyViolation => (ErrorKind::Config, Effect::NotApplied, None),
        C::IllegalGeneration
        | C::UnknownMemberId
        | C::RebalanceInProgress
        | C::AssignmentLost
        | C::FencedInstanceId
        | C::FencedMemberEpoch
        | C::StaleMemberEpoch
        | C::UnreleasedInstanceId => (ErrorKind::Stale, Effect::NotApplied, None),
        C::OutOfOrderSequenceNumber
        | C::DuplicateSequenceNumber
        | C::InvalidProducerEpoch
        | C::UnknownProducerId
        | C::ProducerFenced
        | C::Fenced
        | C::Fatal
        | C::GaplessGuarantee => (
            ErrorKind::Transport,
            Effect::Unknown,
            Some("the order of sending was lost; the publisher goes on with a new session"),
        ),
        _ => (ErrorKind::Transport, Effect::Unknown, None),
    };
    Meaning {
        kind,
        effect,
        advice,
    }
}

#[cfg(test)]
#[path = "error_tests.rs"]
mod tests;
