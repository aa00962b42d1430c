//! What is read by a lease.

use std::time::Duration;

use polybus_core::Text;
use tokio_util::sync::CancellationToken;

use crate::client::Cmd;
use crate::member::Member;
use crate::reply::EntryId;
use crate::resp::Cursor;
use crate::scripts;
use crate::tenure::Partition;

/// A stream that is read by a lease.
#[derive(Clone)]
pub(crate) struct Leased {
    pub(crate) source: u32,
    /// What stands in the lease.
    pub(crate) token: Text,
    /// A new entry is behind this one.
    pub(crate) last: EntryId,
    /// The reader is to end.
    pub(crate) stop: CancellationToken,
}

impl Leased {
    /// The commands of a read; the last one is that which takes entries.
    pub(crate) fn commands(
        &self,
        member: &Member,
        count: usize,
        block: Option<Duration>,
    ) -> Vec<Cmd> {
        let Some(partition) = member.partition(self.source) else {
            return Vec::new();
        };
        let arguments = [member.group.as_str(), &member.name, &self.token];
        let mut read = call(scripts::READ_LEASED, partition, &arguments);
        read.arg(count);
        let Some(block) = block else {
            return vec![read];
        };
        let mut wait = Cmd::new();
        wait.arg("XREAD").arg("COUNT").arg(1);
        wait.arg("BLOCK").arg(milliseconds(block));
        wait.arg("STREAMS").arg(partition.stream.name());
        wait.arg(self.last.to_string());
        vec![wait, read]
    }

    /// Whether what came by it may still be handed out.
    pub(crate) fn is_held(&self, member: &Member) -> bool {
        let partition = member.partition(self.source);
        partition.is_some_and(|it| it.is_held_by(&self.token))
    }
}

/// The call of a script on a stream and the lease of it.
pub(crate) fn call(script: &str, partition: &Partition, arguments: &[&str]) -> Cmd {
    let mut command = Cmd::new();
    command.arg("EVAL").arg(script).arg(2);
    command.arg(partition.stream.name()).arg(&partition.lease);
    for argument in arguments {
        command.arg(*argument);
    }
    command
}

/// The id of the first entry in the answer of an `XREAD`.
pub(crate) fn first_id(answer: &[u8]) -> Option<EntryId> {
    let mut cursor = Cursor::new(answer);
    if cursor.array()? == 0 || cursor.array()? != 2 {
        return None;
    }
    cursor.skip()?;
    if cursor.array()? == 0 || cursor.array()? != 2 {
        return None;
    }
    EntryId::parse(cursor.bytes()?)
}

pub(crate) fn milliseconds(block: Duration) -> u64 {
    u64::try_from(block.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ended_a_wait_is_known_by_its_id() {
        let woken = b"*1\r\n*2\r\n$1\r\ns\r\n*1\r\n*2\r\n$3\r\n7-1\r\n*2\r\n$1\r\na\r\n$1\r\nb\r\n";
        assert_eq!(first_id(woken), Some(EntryId::new(7, 1)));
        for nothing in [&b"*-1\r\n"[..], b"$-1\r\n", b"*0\r\n", b"+OK\r\n", b""] {
            assert_eq!(first_id(nothing), None);
        }
    }
}
