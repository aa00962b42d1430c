//! Reading streams with redis-rs by itself.

use std::time::Duration;

use polybus::BoxError;
use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::{Cmd, Value};

use super::redis::connect;
use crate::measure::{Stopwatch, Stretch};

/// How many entries a read asks for.
const COUNT: usize = 500;

/// How long a read waits at the server.
const BLOCK: Duration = Duration::from_secs(5);

/// A member of a group with a connection of its own.
pub struct Member {
    connection: MultiplexedConnection,
    stream: String,
    group: String,
}

/// An entry, as far as it is taken apart: its id, and its fields.
type Entry = (Vec<u8>, Vec<Value>);

impl Member {
    /// Joins a group that begins with the first entry.
    pub async fn join(url: &str, stream: &str, group: &str) -> Result<Self, BoxError> {
        let mut connection = connect(url).await?;
        redis::cmd("XGROUP")
            .arg(&["CREATE", stream, group, "0", "MKSTREAM"])
            .exec_async(&mut connection)
            .await?;
        Ok(Self {
            connection,
            stream: stream.to_owned(),
            group: group.to_owned(),
        })
    }

    /// Reads so many entries and acknowledges them, a read after the other. Since the first.
    pub async fn read_all(&mut self, events: usize) -> Result<Stretch, BoxError> {
        let (mut found, mut bytes, mut watch) = (0, 0, None);
        while found < events {
            let entries = self.read().await?;
            watch.get_or_insert_with(Stopwatch::start);
            if entries.is_empty() {
                return Err(format!("{found} of {events} entries came").into());
            }
            for (_, fields) in &entries {
                bytes += size(fields)?;
            }
            self.acknowledge(entries.iter().map(|(id, _)| id)).await?;
            found += entries.len();
        }
        if bytes == 0 {
            return Err("the entries are empty".into());
        }
        Ok(watch.ok_or("no entry was asked for")?.stop())
    }

    /// What is new, waiting for it.
    pub async fn read(&mut self) -> Result<Vec<Entry>, BoxError> {
        let mut command = Cmd::new();
        command
            .arg("XREADGROUP")
            .arg("GROUP")
            .arg(&self.group)
            .arg("raw")
            .arg("COUNT")
            .arg(COUNT)
            .arg("BLOCK")
            .arg(u64::try_from(BLOCK.as_millis())?)
            .arg("STREAMS")
            .arg(&self.stream)
            .arg(">");
        let reply = self.connection.req_packed_command(&command).await?;
        entries(reply)
    }

    /// Acknowledges entries, and waits for the answer.
    pub async fn acknowledge<'a>(
        &mut self,
        ids: impl Iterator<Item = &'a Vec<u8>>,
    ) -> Result<(), BoxError> {
        let mut command = Cmd::new();
        command.arg("XACK").arg(&self.stream).arg(&self.group);
        ids.for_each(|id| {
            command.arg(id);
        });
        command.exec_async(&mut self.connection).await?;
        Ok(())
    }
}

/// Takes `[[stream, [[id, [field, value, ..]], ..]]]` apart.
fn entries(reply: Value) -> Result<Vec<Entry>, BoxError> {
    let stream = match array(reply)?.into_iter().next() {
        Some(stream) => array(stream)?,
        None => return Ok(Vec::new()),
    };
    let entries = stream
        .into_iter()
        .nth(1)
        .ok_or("a stream without entries")?;
    array(entries)?
        .into_iter()
        .map(|entry| {
            let mut entry = array(entry)?.into_iter();
            match (entry.next(), entry.next()) {
                (Some(Value::BulkString(id)), Some(fields)) => Ok((id, array(fields)?)),
                _ => Err("an entry without id or fields".into()),
            }
        })
        .collect()
}

fn array(value: Value) -> Result<Vec<Value>, BoxError> {
    match value {
        Value::Array(values) => Ok(values),
        Value::Map(pairs) => {
            let pair = |(name, value)| Value::Array(vec![name, value]);
            Ok(pairs.into_iter().map(pair).collect())
        }
        Value::Nil => Ok(Vec::new()),
        other => Err(format!("not an array: {other:?}").into()),
    }
}

/// Reads the attributes as a program has to, and the payload's length.
fn size(fields: &[Value]) -> Result<usize, BoxError> {
    let mut size = 0;
    for field in fields.chunks_exact(2) {
        if let [Value::BulkString(name), Value::BulkString(value)] = field {
            size += value.len();
            if name == b"ce" {
                let attributes: Attributes<'_> = serde_json::from_slice(value)?;
                size += attributes.id.len() + attributes.key.len() + attributes.r#type.len();
            }
        }
    }
    Ok(size)
}

/// What a program reads of the attributes at the least.
#[derive(serde::Deserialize)]
struct Attributes<'a> {
    id: &'a str,
    r#type: &'a str,
    #[serde(rename = "partitionkey")]
    key: &'a str,
}
