//! redis-rs by itself.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::stream::{FuturesUnordered, StreamExt};
use polybus::BoxError;
use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::{AsyncConnectionConfig, Cmd, Pipeline, Value};
use uuid::Uuid;

use crate::measure::Latencies;
use crate::shape::{CONTENT_TYPE, SOURCE, Shape, TYPE, write_time};

/// How many entries are in a pipeline.
pub const PIPELINE: usize = 100;

/// How many pipelines are out.
const OPEN: usize = 4;

/// A connection that does not give up slow answers. NODELAY is set, as polybus sets it.
pub async fn connect(url: &str) -> Result<MultiplexedConnection, BoxError> {
    let settings = AsyncConnectionConfig::new()
        .set_response_timeout(Some(Duration::from_secs(30)))
        .set_pipeline_buffer_size(256);
    let info = redis::IntoConnectionInfo::into_connection_info(url)?;
    let tcp = redis::io::tcp::TcpSettings::default().set_nodelay(true);
    let client = redis::Client::open(info.set_tcp_settings(tcp))?;
    let connection = client.get_multiplexed_async_connection_with_config(&settings);
    Ok(connection.await?)
}

/// The entry of an event in the shape that polybus gives it.
struct Entries {
    attributes: String,
    time: String,
}

impl Entries {
    fn new() -> Self {
        Self {
            attributes: String::new(),
            time: String::new(),
        }
    }

    fn command(&mut self, stream: &str, shape: &Shape, number: usize) -> Cmd {
        self.attributes.clear();
        write_time(&mut self.time);
        let (id, key, time) = (Uuid::now_v7(), shape.key(number), &self.time);
        write!(
            self.attributes,
            "{{\"specversion\":\"1.0\",\"id\":\"{id}\",\"source\":\"{SOURCE}\",\"type\":\"{TYPE}\",\"time\":\"{time}\",\"datacontenttype\":\"{CONTENT_TYPE}\",\"partitionkey\":\"{key}\"}}"
        )
        .expect("writing to a string does not fail");
        let mut command = Cmd::with_capacity(7, shape.payload.len() + 256);
        command
            .arg("XADD")
            .arg(stream)
            .arg("*")
            .arg("ce")
            .arg(&self.attributes)
            .arg("data")
            .arg(&shape.payload[..]);
        command
    }
}

/// Publishes events by pipelines of a size, several of which are out.
pub async fn publish_pipelines(
    connection: &MultiplexedConnection,
    stream: &str,
    shape: &Shape,
    events: usize,
    size: usize,
) -> Result<(), BoxError> {
    let mut entries = Entries::new();
    let mut open = FuturesUnordered::new();
    for first in (0..events).step_by(size) {
        if open.len() == OPEN {
            accepted(open.next().await)?;
        }
        let numbers = first..events.min(first + size);
        let mut pipeline = Pipeline::with_capacity(numbers.len());
        for number in numbers {
            pipeline.add_command(entries.command(stream, shape, number));
        }
        let mut connection = connection.clone();
        let mut sending = Box::pin(async move {
            let count = pipeline.len();
            connection.req_packed_commands(&pipeline, 0, count).await
        });
        // The first poll hands it to the connection.
        match futures::poll!(&mut sending) {
            std::task::Poll::Ready(replies) => accepted(Some(replies))?,
            std::task::Poll::Pending => open.push(sending),
        }
    }
    while let Some(replies) = open.next().await {
        accepted(Some(replies))?;
    }
    Ok(())
}

fn accepted(replies: Option<redis::RedisResult<Vec<Value>>>) -> Result<(), BoxError> {
    let replies = replies.transpose()?.unwrap_or_default();
    match replies
        .iter()
        .find(|it| matches!(it, Value::ServerError(_)))
    {
        None => Ok(()),
        Some(error) => Err(format!("an entry was refused: {error:?}").into()),
    }
}

/// Publishes from so many tasks on one connection, each of which waits for its event before the
/// next.
pub async fn publish_from_tasks(
    connection: &MultiplexedConnection,
    stream: &str,
    shape: &Shape,
    tasks: usize,
    events: usize,
) -> Result<(), BoxError> {
    let stream: Arc<str> = stream.into();
    let tasks = (0..tasks).map(|task| {
        let (mut connection, stream, shape) =
            (connection.clone(), Arc::clone(&stream), shape.clone());
        tokio::spawn(async move {
            let mut entries = Entries::new();
            for number in (task..events).step_by(tasks) {
                let command = entries.command(&stream, &shape, number);
                command.exec_async(&mut connection).await?;
            }
            Ok::<_, BoxError>(())
        })
    });
    for ended in futures::future::join_all(tasks).await {
        ended??;
    }
    Ok(())
}

/// Publishes one event and waits for it.
pub async fn add(
    connection: &MultiplexedConnection,
    stream: &str,
    shape: &Shape,
    number: usize,
) -> Result<(), BoxError> {
    let command = Entries::new().command(stream, shape, number);
    command.exec_async(&mut connection.clone()).await?;
    Ok(())
}

/// Publishes one by one and takes the time of each.
pub async fn latencies(
    connection: &MultiplexedConnection,
    stream: &str,
    shape: &Shape,
    events: usize,
) -> Result<Latencies, BoxError> {
    let (mut connection, mut entries) = (connection.clone(), Entries::new());
    let mut latencies = Latencies::default();
    for number in 0..events {
        let begin = Instant::now();
        let command = entries.command(stream, shape, number);
        command.exec_async(&mut connection).await?;
        latencies.push(begin.elapsed());
    }
    Ok(latencies)
}
