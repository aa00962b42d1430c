//! What a node says that does not have a slot, or not any more, or not yet.

use std::time::Duration;

use tokio::time::Instant;

use crate::error::Failure;

use super::Node;

/// For how long a command is sent from node to node before its caller is told. Nodes may take
/// a moment to agree on who has a slot.
pub(crate) const PATIENCE: Duration = Duration::from_secs(2);

/// Where to send a command that was not carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Redirect {
    /// The slot is there now.
    Moved(Node),
    /// The key is there already, while its slot is being moved.
    Ask(Node),
}

impl Redirect {
    /// Reads `MOVED <slot> <host>:<port>` and `ASK ...`. The host may be left out: it is that of
    /// the node which says so.
    pub(crate) fn of(failure: &Failure, reached_at: &str) -> Option<Self> {
        let Failure::Server(error) = failure else {
            return None;
        };
        let make = match error.code() {
            "MOVED" => Self::Moved,
            "ASK" => Self::Ask,
            _ => return None,
        };
        let place = error.details()?.split(' ').nth(1)?;
        let (host, port) = place.rsplit_once(':')?;
        let host = if host.is_empty() { reached_at } else { host };
        Some(make(Node {
            host: host.into(),
            port: port.parse().ok()?,
        }))
    }
}

/// How long to wait before a command is sent for the `count`th time. The first redirection
/// is usually right; a longer row of them means that the nodes don't agree yet.
pub(crate) fn pause(count: u32, deadline: Instant) -> Instant {
    let pause = Duration::from_millis(10) * count.saturating_sub(1).min(10);
    deadline.min(Instant::now() + pause)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn redirect(line: &str) -> Option<Redirect> {
        let reply = redis::parse_redis_value(format!("-{line}\r\n").as_bytes()).unwrap();
        let redis::Value::ServerError(error) = reply else {
            panic!("{reply:?} is no error")
        };
        Redirect::of(&Failure::Server(error), "here")
    }

    #[test]
    fn redirections_are_read() {
        let node = |host: &str, port| Node {
            host: host.into(),
            port,
        };
        for (line, found) in [
            (
                "MOVED 3999 127.0.0.1:6381",
                Some(Redirect::Moved(node("127.0.0.1", 6381))),
            ),
            (
                "ASK 1 host.example:1",
                Some(Redirect::Ask(node("host.example", 1))),
            ),
            (
                "MOVED 3999 :6381",
                Some(Redirect::Moved(node("here", 6381))),
            ),
            (
                "MOVED 3999 ::1:6381",
                Some(Redirect::Moved(node("::1", 6381))),
            ),
            ("MOVED 3999", None),
            ("MOVED 3999 host", None),
            ("MOVED 3999 host:70000", None),
            ("CLUSTERDOWN The cluster is down", None),
            ("ERR 3999 127.0.0.1:6381", None),
        ] {
            assert_eq!(redirect(line), found, "{line}");
        }
        assert_eq!(Redirect::of(&Failure::TimedOut, "here"), None);
    }
}
