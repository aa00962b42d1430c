use std::io;

use polybus_core::ErrorKind::{
    Connect, Full, Timeout, TooLarge, TopicNotFound, Transport, Unauthorized, Unsupported,
};

use super::*;

fn origin() -> Origin {
    Origin {
        transport: "redis".into(),
        address: "host:6379".to_owned(),
    }
}

fn server(line: &str) -> ServerError {
    let reply = redis::parse_redis_value(format!("-{line}\r\n").as_bytes()).unwrap();
    let redis::Value::ServerError(error) = reply else {
        panic!("{reply:?} is no error")
    };
    error
}

/// What Redis 7.0 writes, and what is made of it: the kind, and whether to try again.
const REFUSALS: &[(&str, ErrorKind, bool)] = &[
    ("NOAUTH Authentication required.", Unauthorized, false),
    (
        "WRONGPASS invalid username-password pair or user is disabled.",
        Unauthorized,
        false,
    ),
    (
        "NOPERM this user has no permissions to run the 'xadd' command",
        Unauthorized,
        false,
    ),
    (
        "DENIED Redis is running in protected mode",
        Unauthorized,
        false,
    ),
    (
        "OOM command not allowed when used memory > 'maxmemory'.",
        Full,
        true,
    ),
    (
        "WRONGTYPE Operation against a key holding the wrong kind of value",
        Transport,
        false,
    ),
    ("MOVED 3999 127.0.0.1:6381", Transport, true),
    ("ASK 3999 127.0.0.1:6381", Transport, true),
    (
        "CROSSSLOT Keys in request don't hash to the same slot",
        Unsupported,
        false,
    ),
    ("CLUSTERDOWN The cluster is down", Transport, true),
    (
        "READONLY You can't write against a read only replica.",
        Transport,
        true,
    ),
    (
        "MISCONF Errors writing to the AOF file: No space left on device",
        Transport,
        true,
    ),
    (
        "NOREPLICAS Not enough good replicas to write.",
        Transport,
        true,
    ),
    (
        "LOADING Redis is loading the dataset in memory",
        Transport,
        true,
    ),
    ("BUSY Redis is busy running a script.", Transport, true),
    (
        "TRYAGAIN Multiple keys request during rehashing of slot",
        Transport,
        true,
    ),
    ("MASTERDOWN Link with MASTER is down", Transport, true),
    (
        "UNBLOCKED client unblocked via CLIENT UNBLOCK",
        Transport,
        true,
    ),
    (
        "NOGROUP No such key 'a' or consumer group 'b'",
        Transport,
        true,
    ),
    ("ERR max number of clients reached", Connect, true),
    ("ERR no such key", TopicNotFound, false),
    (
        "ERR string exceeds maximum allowed size (proto-max-bulk-len)",
        TooLarge,
        false,
    ),
    (
        "ERR unknown command 'XAUTOCLAIM', with args beginning with: ",
        Unsupported,
        false,
    ),
    ("ERR syntax error", Transport, false),
    (
        "BUSYGROUP Consumer Group name already exists",
        Transport,
        false,
    ),
    (
        "EXECABORT Transaction discarded because of previous errors.",
        Transport,
        false,
    ),
    ("WHATEVER comes next", Transport, false),
];

#[test]
fn refusals_of_the_server_are_told_apart() {
    for (line, kind, retryable) in REFUSALS.iter().copied() {
        let error = origin().error(Failure::Server(server(line)), "publish");
        assert_eq!(error.kind(), kind, "{line}");
        assert_eq!(error.retryable(), retryable, "{line}");
        assert_eq!(error.effect(), Effect::NotApplied, "{line}");
        assert_eq!(error.operation(), Some("publish"), "{line}");
        assert_eq!(error.transport(), Some("redis"), "{line}");
        let text = error.to_string();
        assert!(
            text.contains(line.trim_end()) && text.contains("host:6379"),
            "{text}"
        );
    }
}

#[test]
fn failures_of_the_client_leave_the_effect_open() {
    let io = |kind: io::ErrorKind| RedisError::from(io::Error::from(kind));
    let client = |kind| RedisError::from((kind, "what"));
    for (failure, kind, retryable) in [
        (
            Failure::Lost(io(io::ErrorKind::ConnectionReset)),
            Connect,
            true,
        ),
        (Failure::Lost(io(io::ErrorKind::BrokenPipe)), Connect, true),
        (
            Failure::Lost(io(io::ErrorKind::UnexpectedEof)),
            Connect,
            true,
        ),
        (Failure::Lost(io(io::ErrorKind::Other)), Connect, true),
        (Failure::Lost(io(io::ErrorKind::TimedOut)), Timeout, true),
        (Failure::Lost(client(redis::ErrorKind::Io)), Connect, true),
        (
            Failure::Lost(client(redis::ErrorKind::Parse)),
            Transport,
            true,
        ),
        (
            Failure::Lost(client(redis::ErrorKind::Client)),
            Transport,
            false,
        ),
        (
            Failure::Lost(client(redis::ErrorKind::UnexpectedReturnType)),
            Transport,
            false,
        ),
        (
            Failure::Lost(client(redis::ErrorKind::InvalidClientConfig)),
            Transport,
            false,
        ),
        (
            Failure::Lost(client(redis::ErrorKind::RESP3NotSupported)),
            Transport,
            false,
        ),
        (Failure::TimedOut, Timeout, true),
        (Failure::Malformed, Transport, false),
    ] {
        let name = format!("{failure:?}");
        let error = origin().error(failure, "settle");
        assert_eq!(error.kind(), kind, "{name}");
        assert_eq!(error.retryable(), retryable, "{name}");
        assert_eq!(error.effect(), Effect::Unknown, "{name}");
    }
}

#[test]
fn a_refused_login_is_final_and_without_effect() {
    let failed = RedisError::from((redis::ErrorKind::AuthenticationFailed, "no"));
    let error = origin().error(Failure::Lost(failed), "connect");
    assert_eq!(error.kind(), ErrorKind::Unauthorized);
    assert_eq!(error.effect(), Effect::NotApplied);
    assert!(!error.retryable());
}

/// The client wraps what the server answers while it logs in.
#[test]
fn a_refusal_inside_an_error_of_the_client_is_a_refusal() {
    for (line, kind) in [
        ("LOADING Redis is loading", ErrorKind::Transport),
        ("NOAUTH Authentication required.", ErrorKind::Unauthorized),
    ] {
        let error = origin().error(Failure::Lost(server(line).into()), "connect");
        assert_eq!(error.kind(), kind);
        assert_eq!(error.effect(), Effect::NotApplied);
    }
}

#[test]
fn an_unreachable_server_is_named() {
    let error = origin().unreachable("Connection refused");
    assert_eq!(error.kind(), ErrorKind::Connect);
    assert!(error.retryable());
    assert_eq!(error.effect(), Effect::NotApplied);
    assert!(error.to_string().contains("host:6379"), "{error}");
}
