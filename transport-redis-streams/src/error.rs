//! What the client and the server report, as errors of polybus: the one place where it is
//! decided what may be tried again and what may have taken effect.

use polybus_core::{Effect, Error, ErrorKind, Text};
use redis::{RedisError, ServerError};

/// Why a command has no answer that can be used.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The server refused the command. It did nothing.
    Server(ServerError),
    /// The client failed, mostly because the connection was lost. Sent or not, nobody knows.
    Lost(RedisError),
    /// No answer came before the deadline.
    TimedOut,
    /// The answer does not have the shape that the command's answers have.
    Malformed,
}

impl Failure {
    /// Whether the server answered with an error of this code.
    pub(crate) fn has_code(&self, code: &str) -> bool {
        matches!(self, Self::Server(error) if error.code() == code)
    }
}

/// Where errors come from.
#[derive(Debug)]
pub(crate) struct Origin {
    /// The transport's name.
    pub(crate) transport: Text,
    /// The server's address, without login.
    pub(crate) address: String,
}

impl Origin {
    /// An error with its transport.
    pub(crate) fn plain(&self, kind: ErrorKind, message: impl Into<String>) -> Error {
        Error::new(kind, message).with_transport(self.transport.clone())
    }

    /// No connection could be made: nothing was sent.
    pub(crate) fn unreachable(&self, why: &str) -> Error {
        self.plain(
            ErrorKind::Connect,
            format!("no connection to Redis at {}: {why}", self.address),
        )
        .with_operation("connect")
        .with_note("is the server running, and is the address right?")
    }

    /// The answer can't be understood.
    pub(crate) fn malformed(&self, operation: &'static str) -> Error {
        self.error(Failure::Malformed, operation)
    }

    /// A failure as an error.
    pub(crate) fn error(&self, failure: Failure, operation: &'static str) -> Error {
        let error = match failure {
            Failure::Server(error) => self.refused(error.code(), error.details()),
            Failure::Lost(error) => self.lost(error),
            Failure::TimedOut => self
                .plain(
                    ErrorKind::Timeout,
                    format!("Redis at {} did not answer in time", self.address),
                )
                .with_effect(Effect::Unknown),
            Failure::Malformed => self
                .plain(
                    ErrorKind::Transport,
                    format!("an answer of Redis at {} can't be understood", self.address),
                )
                .with_effect(Effect::Unknown)
                .with_retryable(false)
                .with_note("is it a Redis of version 7.0 or newer?"),
        };
        error.with_operation(operation)
    }

    /// An error that the server answered within an answer.
    pub(crate) fn answered(&self, code: &str, details: &str, operation: &'static str) -> Error {
        let code = code.trim_start_matches('-');
        let refused = self.refused(code, Some(details));
        refused.with_operation(operation)
    }

    fn refused(&self, code: &str, details: Option<&str>) -> Error {
        let details = details.unwrap_or_default();
        let refusal = classify(code, details);
        let error = self
            .plain(
                refusal.kind,
                format!("Redis refused the command: {code} {details}").trim_end(),
            )
            .with_retryable(refusal.retryable)
            .with_note(format!("server {}", self.address));
        match refusal.advice {
            Some(advice) => error.with_note(advice),
            None => error,
        }
    }

    fn lost(&self, error: RedisError) -> Error {
        let address = &self.address;
        if let Some(code) = error.code() {
            return self.refused(code, error.detail());
        }
        let described = match error.kind() {
            redis::ErrorKind::AuthenticationFailed => {
                return self
                    .plain(
                        ErrorKind::Unauthorized,
                        format!("Redis at {address} refused the user or the password"),
                    )
                    .with_note("check `user` and `password`, or the login in `url`");
            }
            redis::ErrorKind::Io if error.is_timeout() => self.plain(
                ErrorKind::Timeout,
                format!("the connection to Redis at {address} timed out"),
            ),
            redis::ErrorKind::Io => self.plain(
                ErrorKind::Connect,
                format!("the connection to Redis at {address} was lost"),
            ),
            redis::ErrorKind::Parse => self.plain(
                ErrorKind::Transport,
                format!("what Redis at {address} sent is not its protocol"),
            ),
            // The client's own complaints: the same call fails the same way again.
            _ => self
                .plain(
                    ErrorKind::Transport,
                    format!("the client of Redis at {address} failed"),
                )
                .with_retryable(false),
        };
        described.with_effect(Effect::Unknown).with_source(error)
    }
}

/// The same error for another event of a batch. Its cause is left out: it can't be copied.
pub(crate) fn again(error: &Error) -> Error {
    let mut copy = Error::new(error.kind(), error.message())
        .with_effect(error.effect())
        .with_retryable(error.retryable());
    if let Some(operation) = error.operation() {
        copy = copy.with_operation(operation);
    }
    if let Some(transport) = error.transport() {
        copy = copy.with_transport(transport);
    }
    if let Some(topic) = error.topic() {
        copy = copy.with_topic(topic);
    }
    error.notes().iter().fold(copy, Error::with_note)
}

/// What a refusal of the server means.
#[derive(Debug, PartialEq, Eq)]
struct Refusal {
    kind: ErrorKind,
    retryable: bool,
    advice: Option<&'static str>,
}

fn classify(code: &str, details: &str) -> Refusal {
    use ErrorKind::{Connect, Full, TooLarge, TopicNotFound, Transport, Unauthorized, Unsupported};
    let refusal = |kind, retryable, advice| Refusal {
        kind,
        retryable,
        advice,
    };
    match code {
        "NOAUTH" => refusal(
            Unauthorized,
            false,
            Some("set `password`, or write it in `url`"),
        ),
        "WRONGPASS" => refusal(
            Unauthorized,
            false,
            Some("check `user` and `password`, or the login in `url`"),
        ),
        "NOPERM" => refusal(
            Unauthorized,
            false,
            Some("grant the user +@read +@write +@stream +@connection +@scripting on the streams"),
        ),
        "DENIED" => refusal(Unauthorized, false, Some("the server is in protected mode")),
        "OOM" => refusal(
            Full,
            true,
            Some("trim the streams, or raise `maxmemory` of the server"),
        ),
        "WRONGTYPE" => refusal(
            Transport,
            false,
            Some("a key of this name holds something that is no stream"),
        ),
        "MOVED" | "ASK" | "CLUSTERDOWN" | "CROSSSLOT" => classify_of_cluster(code),
        "READONLY" => refusal(Transport, true, Some("the server is a replica")),
        "MISCONF" => refusal(Transport, true, Some("the server can't write to its disk")),
        "NOREPLICAS" => refusal(Transport, true, Some("the server misses its replicas")),
        "LOADING" | "BUSY" | "TRYAGAIN" | "MASTERDOWN" | "UNBLOCKED" | "NOGROUP" => {
            refusal(Transport, true, None)
        }
        "ERR" if details.contains("max number of clients") => {
            refusal(Connect, true, Some("raise `maxclients` of the server"))
        }
        "ERR" if details.contains("no such key") => refusal(TopicNotFound, false, None),
        "ERR" if details.contains("exceeds maximum allowed size") => refusal(TooLarge, false, None),
        "ERR" if details.contains("unknown command") || details.contains("unknown subcommand") => {
            refusal(Unsupported, false, Some("Redis 7.0 or newer is needed"))
        }
        _ => refusal(Transport, false, None),
    }
}

/// What a node of a cluster refuses because of where the keys are.
fn classify_of_cluster(code: &str) -> Refusal {
    let (kind, advice) = match code {
        "CROSSSLOT" => (
            ErrorKind::Unsupported,
            "give what belongs together one hash tag, as in `{user}-events`",
        ),
        "CLUSTERDOWN" => (
            ErrorKind::Transport,
            "a node of the cluster is away, and no replica took its place yet",
        ),
        _ => (
            ErrorKind::Transport,
            "the nodes of the cluster don't agree yet on who has the slot",
        ),
    };
    Refusal {
        kind,
        retryable: kind == ErrorKind::Transport,
        advice: Some(advice),
    }
}

#[cfg(test)]
mod tests;
