use rdkafka::types::{RDKafkaErrorCode as C, RDKafkaRespErr};

use super::*;

fn origin() -> Origin {
    Origin::new("orders".into(), "a:9092,b:9092")
}

/// Every code that the client knows.
fn codes() -> Vec<C> {
    let known = (-200..200).filter_map(|code| RDKafkaRespErr::try_from(code).ok());
    let codes: Vec<C> = known.map(C::from).collect();
    assert!(codes.len() > 150, "only {} codes", codes.len());
    codes
}

/// What is certainly not stored; every other code may have been stored.
const REJECTED: [(C, ErrorKind); 49] = [
    (C::MessageSizeTooLarge, ErrorKind::TooLarge),
    (C::MessageBatchTooLarge, ErrorKind::TooLarge),
    (C::InvalidMessageSize, ErrorKind::TooLarge),
    (C::UnknownTopic, ErrorKind::TopicNotFound),
    (C::UnknownPartition, ErrorKind::TopicNotFound),
    (C::UnknownTopicOrPartition, ErrorKind::TopicNotFound),
    (C::UnknownTopicId, ErrorKind::TopicNotFound),
    (C::InvalidTopic, ErrorKind::TopicNotFound),
    (C::Authentication, ErrorKind::Unauthorized),
    (C::TopicAuthorizationFailed, ErrorKind::Unauthorized),
    (C::GroupAuthorizationFailed, ErrorKind::Unauthorized),
    (C::ClusterAuthorizationFailed, ErrorKind::Unauthorized),
    (
        C::TransactionalIdAuthorizationFailed,
        ErrorKind::Unauthorized,
    ),
    (
        C::DelegationTokenAuthorizationFailed,
        ErrorKind::Unauthorized,
    ),
    (C::DelegationTokenAuthDisabled, ErrorKind::Unauthorized),
    (C::DelegationTokenExpired, ErrorKind::Unauthorized),
    (C::DelegationTokenNotFound, ErrorKind::Unauthorized),
    (C::DelegationTokenOwnerMismatch, ErrorKind::Unauthorized),
    (C::DelegationTokenRequestNotAllowed, ErrorKind::Unauthorized),
    (C::SaslAuthenticationFailed, ErrorKind::Unauthorized),
    (C::UnsupportedSASLMechanism, ErrorKind::Unauthorized),
    (C::IllegalSASLState, ErrorKind::Unauthorized),
    (C::SecurityDisabled, ErrorKind::Unauthorized),
    (C::UnacceptableCredential, ErrorKind::Unauthorized),
    (C::PrincipalDeserializationFailure, ErrorKind::Unauthorized),
    (C::QueueFull, ErrorKind::Full),
    (C::ThrottlingQuotaExceeded, ErrorKind::Full),
    (C::PurgeQueue, ErrorKind::Closed),
    (C::InvalidMessage, ErrorKind::InvalidEvent),
    (C::BadMessage, ErrorKind::InvalidEvent),
    (C::InvalidTimestamp, ErrorKind::InvalidEvent),
    (C::InvalidRecord, ErrorKind::InvalidEvent),
    (C::UnsupportedVersion, ErrorKind::Unsupported),
    (C::UnsupportedFeature, ErrorKind::Unsupported),
    (C::NotImplemented, ErrorKind::Unsupported),
    (C::UnsupportedForMessageFormat, ErrorKind::Unsupported),
    (C::UnsupportedCompressionType, ErrorKind::Unsupported),
    (C::UnsupportedAssignor, ErrorKind::Unsupported),
    (C::InvalidArgument, ErrorKind::Config),
    (C::NotConfigured, ErrorKind::Config),
    (C::InvalidRequiredAcks, ErrorKind::Config),
    (C::InconsistentGroupProtocol, ErrorKind::Config),
    (C::InvalidGroupId, ErrorKind::Config),
    (C::InvalidSessionTimeout, ErrorKind::Config),
    (C::InvalidPartitions, ErrorKind::Config),
    (C::InvalidReplicationFactor, ErrorKind::Config),
    (C::InvalidReplicaAssignment, ErrorKind::Config),
    (C::InvalidConfig, ErrorKind::Config),
    (C::PolicyViolation, ErrorKind::Config),
];

#[test]
fn every_code_is_rejected_only_if_it_is_certain() {
    let stale = codes().into_iter().filter(|code| is_stale(*code));
    assert_eq!(
        stale.count(),
        8,
        "codes of a commit, which never end a publish"
    );
    for code in codes() {
        let expected = REJECTED.iter().find(|(known, _)| *known == code);
        let outcome = origin().undelivered("deals", code, false);
        match (expected, outcome) {
            (Some((_, kind)), Outcome::Rejected(error)) => {
                assert_eq!(error.kind(), *kind, "{code}");
                assert_eq!(error.effect(), Effect::NotApplied, "{code}");
            }
            (None, Outcome::Unknown(error)) => assert_eq!(error.effect(), Effect::Unknown),
            (None, Outcome::Rejected(error)) if is_stale(code) => {
                assert_eq!(error.kind(), ErrorKind::Stale);
            }
            (_, outcome) => panic!("{code} became {outcome:?}"),
        }
    }
}

#[test]
fn what_may_have_been_sent_is_unknown() {
    for (code, kind) in [
        (C::MessageTimedOut, ErrorKind::Timeout),
        (C::RequestTimedOut, ErrorKind::Timeout),
        (C::PurgeInflight, ErrorKind::Closed),
        (C::BrokerTransportFailure, ErrorKind::Connect),
        (C::NetworkException, ErrorKind::Connect),
        (C::NotEnoughReplicasAfterAppend, ErrorKind::Transport),
        (C::NotLeaderForPartition, ErrorKind::Transport),
        (C::OutOfOrderSequenceNumber, ErrorKind::Transport),
        (C::UnknownProducerId, ErrorKind::Transport),
        (C::Fatal, ErrorKind::Transport),
        (C::Unknown, ErrorKind::Transport),
    ] {
        match origin().undelivered("deals", code, false) {
            Outcome::Unknown(error) => assert_eq!(error.kind(), kind, "{code}"),
            outcome => panic!("{code} became {outcome:?}"),
        }
    }
}

#[test]
fn what_waited_in_the_queue_is_uncertain_once_a_connection_broke() {
    let outcome = |cut| origin().undelivered("deals", C::PurgeQueue, cut);
    assert!(matches!(outcome(false), Outcome::Rejected(_)));
    assert!(matches!(outcome(true), Outcome::Unknown(_)));
}

#[test]
fn what_the_client_did_not_take_is_rejected_whatever_the_code() {
    for code in [C::Fatal, C::QueueFull, C::MessageTimedOut] {
        let outcome = origin().not_taken("deals", KafkaError::MessageProduction(code));
        assert!(matches!(outcome, Outcome::Rejected(_)), "{outcome:?}");
    }
}

#[test]
fn an_error_says_where_it_happened_and_what_to_do() {
    let error = origin()
        .code("publish", C::UnknownTopic)
        .with_topic("deals");
    let text = error.to_string();
    for part in ["publish", "orders", "deals", "ensure_topics"] {
        assert!(text.contains(part), "{text}");
    }
    let text = origin().code("connect", C::AllBrokersDown).to_string();
    assert!(text.contains("a:9092,b:9092"), "{text}");
}

#[test]
fn a_refused_property_is_named_without_its_value() {
    let mut config = rdkafka::ClientConfig::new();
    config.set("sasl.mechanism.typo", "hunter2");
    let refused = config.create_native_config().map(|_| ()).unwrap_err();
    let error = origin().client("connect", refused);
    let text = format!("{error:?}");
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(
        text.contains("sasl.mechanism.typo") && !text.contains("hunter2"),
        "{text}"
    );
}
