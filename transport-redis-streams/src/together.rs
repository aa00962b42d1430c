//! Events that are stored all or none: one script, which the server runs in one go.
//!
//! `MULTI` would not do: the server runs the rest of its commands after one that fails.

use std::borrow::Cow;

use polybus_core::transport::{Outgoing, Position};
use polybus_core::{Error, ErrorKind, Result};
use tokio::time::Instant;

use crate::client::{Arg, Cmd, Value};
use crate::connection::{Connection, Link};
use crate::entry;
use crate::error::{Failure, Origin};
use crate::partition;
use crate::reply;
use crate::scripts;
use crate::writing::Writing;

/// The arguments that one entry may have. The interpreter of scripts has room for 8,000.
const MOST_ARGUMENTS: usize = 7_000;

const OPERATION: &str = "publish_together";

/// Stores all events, or none.
pub(crate) async fn publish(
    link: &Link,
    writing: &Writing,
    batch: &[Outgoing],
    deadline: Instant,
) -> Result<Vec<Position>> {
    let origin = link.client().origin();
    let command = command(origin, writing, batch)?;
    // In a cluster all of its streams are in one slot, or the server refuses it.
    let stream = batch.first().map(partition::stream_of).unwrap_or_default();
    let answer = link.ask(&stream, &command, deadline).await;
    let answer = answer.map_err(|error| error.with_operation(OPERATION))?;
    let answer = answer.map_err(|failure| refused(failure, origin, batch))?;
    let Value::Array(ids) = answer else {
        return Err(origin.malformed(OPERATION));
    };
    // In place of the ids, an entry that could not be written, by its number, and why.
    if let [Value::Int(failed), why] = &ids[..] {
        let outgoing = usize::try_from(*failed).ok().and_then(|it| batch.get(it));
        let why = reply::text(why).unwrap_or_default();
        let (code, details) = why.split_once(' ').unwrap_or((&why, ""));
        if code == "READONLY" {
            link.all_current().iter().for_each(Connection::outdate);
        }
        let error = origin.answered(code, details, OPERATION);
        return Err(match outgoing {
            Some(outgoing) => error.with_topic(outgoing.topic.name()),
            None => error,
        });
    }
    let positions = ids.iter().zip(batch).map(|(id, outgoing)| {
        let partition = partition::partition_of(outgoing);
        reply::entry_id(id).map(|id| id.position(partition))
    });
    let positions: Option<Vec<_>> = positions.collect();
    let positions = positions.filter(|_| ids.len() == batch.len());
    positions.ok_or_else(|| origin.malformed(OPERATION))
}

/// The script's call: the streams, then for each event the stream's number and the arguments of
/// its `XADD`.
fn command(origin: &Origin, writing: &Writing, batch: &[Outgoing]) -> Result<Cmd> {
    let mut streams: Vec<Cow<'_, str>> = Vec::new();
    let mut arguments = Vec::new();
    let mut scratch = Vec::new();
    for outgoing in batch {
        let name = partition::stream_of(outgoing);
        let known = streams.iter().position(|it| *it == name);
        let stream = known.unwrap_or_else(|| {
            streams.push(name);
            streams.len() - 1
        });
        let append = entry::append(outgoing, writing, &mut scratch);
        // `XADD` and the stream go first.
        let rest: Vec<Vec<u8>> = append
            .args_iter()
            .skip(2)
            .filter_map(|it| simple(&it))
            .collect();
        if rest.len() > MOST_ARGUMENTS {
            let why = "the event has too many headers for a transaction";
            let error = origin.plain(ErrorKind::TooLarge, why);
            let error = error.with_operation(OPERATION);
            return Err(error.with_topic(outgoing.topic.name()));
        }
        arguments.push((stream, rest));
    }
    let mut command = Cmd::new();
    command.arg("EVAL").arg(scripts::APPEND_ALL);
    command.arg(streams.len());
    for stream in streams {
        command.arg(stream.as_ref());
    }
    for (stream, rest) in arguments {
        command.arg(stream + 1).arg(rest.len());
        for argument in rest {
            command.arg(argument);
        }
    }
    Ok(command)
}

fn simple(argument: &Arg<&[u8]>) -> Option<Vec<u8>> {
    match argument {
        Arg::Simple(bytes) => Some(bytes.to_vec()),
        // The cursor of a scan, which `XADD` has not.
        _ => None,
    }
}

fn refused(failure: Failure, origin: &Origin, batch: &[Outgoing]) -> Error {
    let crosses = failure.has_code("CROSSSLOT");
    let error = origin.error(failure, OPERATION);
    if !crosses {
        return error;
    }
    let mut topics: Vec<_> = batch.iter().map(|it| it.topic.name()).collect();
    topics.sort_unstable();
    topics.dedup();
    let message = "the topics of the transaction are not in one slot of the cluster";
    origin
        .plain(ErrorKind::Unsupported, message)
        .with_operation(OPERATION)
        .with_note(format!("topics: {}", topics.join(", ")))
        .with_note("give their names the same hash tag, as in `{shop}.orders` and `{shop}.stock`")
        .with_note("the partitions of a topic are in one slot only if its name has a hash tag")
}
