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
        let kind = kind_of(code);
        let error = self
            .error(operation, kind, code.to_string())
            .with_effect(effect_of(kind, code));
        match advice_on(kind, code) {
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
    kind_of(code) == ErrorKind::Stale
}

/// Whether a question that failed so is worth asking again: a coordinator or leader that is
/// moving, a broker that is coming back.
pub(crate) fn is_passing(code: RDKafkaErrorCode) -> bool {
    matches!(kind_of(code), ErrorKind::Connect | ErrorKind::Transport)
}

/// The client's own codes. What is not named here is the broker's, or a failure of another
/// kind.
fn kind_of(code: RDKafkaErrorCode) -> ErrorKind {
    use RDKafkaErrorCode as C;
    match code {
        C::BrokerTransportFailure
        | C::Resolve
        | C::AllBrokersDown
        | C::SSL
        | C::BrokerDestroy
        | C::DestroyBroker
        | C::UnknownBroker
        | C::WaitingForCoordinator => ErrorKind::Connect,
        C::MessageTimedOut | C::OperationTimedOut | C::TimedOutQueue => ErrorKind::Timeout,
        C::UnknownTopic | C::UnknownPartition => ErrorKind::TopicNotFound,
        C::Authentication => ErrorKind::Unauthorized,
        C::QueueFull => ErrorKind::Full,
        C::PurgeQueue | C::PurgeInflight => ErrorKind::Closed,
        C::BadMessage => ErrorKind::InvalidEvent,
        C::UnsupportedFeature | C::NotImplemented => ErrorKind::Unsupported,
        C::InvalidArgument | C::NotConfigured => ErrorKind::Config,
        C::AssignmentLost => ErrorKind::Stale,
        code => broker_kind_of(code),
    }
}

/// The codes of brokers. What is not named, codes of later brokers among it, is a failure that
/// may go away.
fn broker_kind_of(code: RDKafkaErrorCode) -> ErrorKind {
    use RDKafkaErrorCode as C;
    match code {
        C::BrokerNotAvailable
        | C::NetworkException
        | C::CoordinatorLoadInProgress
        | C::CoordinatorNotAvailable
        | C::NotCoordinator
        | C::RebootstrapRequired => ErrorKind::Connect,
        C::RequestTimedOut => ErrorKind::Timeout,
        C::MessageSizeTooLarge | C::MessageBatchTooLarge | C::InvalidMessageSize => {
            ErrorKind::TooLarge
        }
        C::UnknownTopicOrPartition | C::UnknownTopicId | C::InvalidTopic => {
            ErrorKind::TopicNotFound
        }
        C::ThrottlingQuotaExceeded => ErrorKind::Full,
        C::InvalidMessage | C::InvalidTimestamp | C::InvalidRecord => ErrorKind::InvalidEvent,
        C::UnsupportedVersion
        | C::UnsupportedForMessageFormat
        | C::UnsupportedCompressionType
        | C::UnsupportedAssignor => ErrorKind::Unsupported,
        C::InvalidRequiredAcks
        | C::InconsistentGroupProtocol
        | C::InvalidGroupId
        | C::InvalidSessionTimeout
        | C::InvalidPartitions
        | C::InvalidReplicationFactor
        | C::InvalidReplicaAssignment
        | C::InvalidConfig
        | C::PolicyViolation => ErrorKind::Config,
        C::IllegalGeneration
        | C::UnknownMemberId
        | C::RebalanceInProgress
        | C::FencedInstanceId
        | C::FencedMemberEpoch
        | C::StaleMemberEpoch
        | C::UnreleasedInstanceId => ErrorKind::Stale,
        code if is_refusal(code) => ErrorKind::Unauthorized,
        _ => ErrorKind::Transport,
    }
}

/// Who we are, or what we may do.
fn is_refusal(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode as C;
    matches!(
        code,
        C::TopicAuthorizationFailed
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
            | C::PrincipalDeserializationFailure
    )
}

/// Whether a record that failed so may be stored all the same. It may unless the code says
/// something of the record, the topic or the client that was so before anything was sent.
fn effect_of(kind: ErrorKind, code: RDKafkaErrorCode) -> Effect {
    match kind {
        ErrorKind::TooLarge
        | ErrorKind::TopicNotFound
        | ErrorKind::Unauthorized
        | ErrorKind::Full
        | ErrorKind::InvalidEvent
        | ErrorKind::Unsupported
        | ErrorKind::Config
        | ErrorKind::Stale => Effect::NotApplied,
        ErrorKind::Closed if code == RDKafkaErrorCode::PurgeQueue => Effect::NotApplied,
        _ => Effect::Unknown,
    }
}

fn advice_on(kind: ErrorKind, code: RDKafkaErrorCode) -> Option<&'static str> {
    use RDKafkaErrorCode as C;
    let advice = match (code, kind) {
        (C::MessageTimedOut, _) => "`delivery_deadline` passed; the event may have been stored",
        (C::InvalidTopic, _) => {
            "a topic's name has letters, digits, `.`, `_` and `-`, at most 249 of them"
        }
        (C::InvalidRecord, _) => "a compacted topic takes no event without a key",
        (C::QueueFull, _) => {
            "`publish_queue_events` and `publish_queue_bytes` set the size of the queue"
        }
        (
            C::OutOfOrderSequenceNumber | C::UnknownProducerId | C::Fatal | C::GaplessGuarantee,
            _,
        ) => "the order of sending was lost; the publisher goes on with a new session",
        (C::FencedInstanceId | C::UnreleasedInstanceId, _) => {
            "another member of the group has the same name, which `member` sets"
        }
        (_, ErrorKind::TooLarge) => {
            "the broker's `message.max.bytes` or the topic's `max.message.bytes` sets the limit"
        }
        (_, ErrorKind::TopicNotFound) => "create it first, for example with `ensure_topics`",
        (_, ErrorKind::Unauthorized) => "check the credentials and the ACLs of this principal",
        _ => return None,
    };
    Some(advice)
}

#[cfg(test)]
#[path = "error_tests.rs"]
mod tests;
