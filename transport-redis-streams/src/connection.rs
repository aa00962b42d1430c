//! One connection, and one that is made anew when it is lost.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use polybus_core::{Error, ErrorKind, Result, Topic};
use redis::RedisResult;
use redis::aio::{ConnectionLike, MultiplexedConnection};
use tokio::sync::MutexGuard;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use crate::client::{Client, Cmd, Pipeline, Value};
use crate::cluster::{Nodes, Place, slot_of};
use crate::error::{Failure, again};

/// The first pause between two attempts to connect; it doubles up to `MAX_PAUSE`.
const MIN_PAUSE: Duration = Duration::from_millis(20);
const MAX_PAUSE: Duration = Duration::from_secs(1);

/// Which part of its time a caller must have left to begin with an attempt of its own.
const LEAST_PART: u32 = 4;

/// A connection. Clones share it; commands are answered in the order they were sent.
///
/// A caller that stops waiting for an answer does not undo its command.
#[derive(Clone)]
pub(crate) struct Connection {
    inner: MultiplexedConnection,
    driver: Arc<Driver>,
}

/// Ends the connection with the last handle to it.
struct Driver {
    /// The server that it leads to.
    server: Client,
    task: JoinHandle<()>,
    /// Set at once, while the task may take a moment to end.
    aborted: AtomicBool,
    /// The server takes no writes any more: it is a replica now. Who waits for an answer gets it.
    outdated: AtomicBool,
}

impl Driver {
    fn abort(&self) {
        self.aborted.store(true, Ordering::Release);
        self.task.abort();
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.abort();
    }
}

impl Connection {
    pub(crate) fn new(
        inner: MultiplexedConnection,
        driver: JoinHandle<()>,
        server: Client,
    ) -> Self {
        Self {
            inner,
            driver: Arc::new(Driver {
                server,
                task: driver,
                aborted: AtomicBool::new(false),
                outdated: AtomicBool::new(false),
            }),
        }
    }

    /// The server that it leads to, at its address.
    pub(crate) fn server(&self) -> &Client {
        &self.driver.server
    }

    /// Whether it is not known to be lost, or to lead to a server that takes no writes.
    pub(crate) fn is_alive(&self) -> bool {
        let driver = &self.driver;
        !driver.aborted.load(Ordering::Acquire)
            && !driver.outdated.load(Ordering::Acquire)
            && !driver.task.is_finished()
    }

    fn note(&self, reply: &Value) {
        if let Value::ServerError(error) = reply
            && error.code() == "READONLY"
        {
            self.outdate();
        }
    }

    /// Notes that it leads to a server that takes no writes any more: the next caller of its
    /// [`Link`] makes another.
    pub(crate) fn outdate(&self) {
        self.driver.outdated.store(true, Ordering::Release);
    }

    /// Ends it for everybody who shares it; commands without an answer fail.
    pub(crate) fn abort(&self) {
        self.driver.abort();
    }

    /// Sends a command and waits for its answer. An error that the server answers is a
    /// [`Failure`] too.
    pub(crate) async fn call(&self, command: &Cmd, deadline: Instant) -> Result<Value, Failure> {
        let mut connection = self.inner.clone();
        let value = self
            .within(deadline, connection.req_packed_command(command))
            .await?;
        self.note(&value);
        match value {
            Value::ServerError(error) => Err(Failure::Server(error)),
            value => Ok(value),
        }
    }

    /// Sends a command to a node of a cluster, which is asked expressly where that is needed.
    pub(crate) async fn call_at(
        &self,
        place: &Place,
        command: &Cmd,
        deadline: Instant,
    ) -> Result<Value, Failure> {
        if !place.asking {
            return self.call(command, deadline).await;
        }
        let mut pipeline = Pipeline::with_capacity(2);
        pipeline.cmd("ASKING");
        pipeline.add_command(command.clone());
        self.send(pipeline, deadline).await.last().await
    }

    /// Sends commands in one go and waits for all answers, the errors among them
    /// ([`Value::ServerError`]).
    pub(crate) async fn pipeline(
        &self,
        pipeline: &Pipeline,
        deadline: Instant,
    ) -> Result<Vec<Value>, Failure> {
        let mut connection = self.inner.clone();
        let count = pipeline.len();
        let replies = self
            .within(deadline, connection.req_packed_commands(pipeline, 0, count))
            .await?;
        replies.iter().for_each(|reply| self.note(reply));
        if replies.len() == count {
            Ok(replies)
        } else {
            Err(Failure::Malformed)
        }
    }

    /// Sends commands in one go, behind those of every earlier call, and returns before they are
    /// answered.
    pub(crate) async fn send(&self, pipeline: Pipeline, deadline: Instant) -> Sent {
        let connection = self.clone();
        let mut request: Pin<Box<dyn Future<Output = Replies> + Send>> =
            Box::pin(async move { connection.pipeline(&pipeline, deadline).await });
        // The first poll queues the commands, or queues for room to do so, in order.
        let first = std::future::poll_fn(|context| Poll::Ready(request.as_mut().poll(context)));
        match first.await {
            Poll::Ready(replies) => Sent::Answered(replies),
            Poll::Pending => Sent::Waiting(request),
        }
    }

    /// After a deadline the connection is given up: an answer that comes later would be of no
    /// use, and a server that hangs must not collect commands. So is one that failed: its task may
    /// take a moment to end, and what is sent meanwhile would be unknown for nothing.
    async fn within<T>(
        &self,
        deadline: Instant,
        request: impl Future<Output = RedisResult<T>>,
    ) -> Result<T, Failure> {
        let failure = match timeout_at(deadline, request).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(error)) => Failure::Lost(error),
            Err(_) => Failure::TimedOut,
        };
        self.abort();
        Err(failure)
    }
}

type Replies = Result<Vec<Value>, Failure>;

/// Commands that are on their way.
pub(crate) enum Sent {
    Waiting(Pin<Box<dyn Future<Output = Replies> + Send>>),
    Answered(Replies),
}

impl Sent {
    /// Waits for all answers, as [`Connection::pipeline`] does.
    pub(crate) async fn replies(self) -> Replies {
        match self {
            Self::Waiting(request) => request.await,
            Self::Answered(replies) => replies,
        }
    }

    /// Waits for the last answer. An error that the server answers is a [`Failure`] too.
    pub(crate) async fn last(self) -> Result<Value, Failure> {
        match self.replies().await?.pop() {
            Some(Value::ServerError(error)) => Err(Failure::Server(error)),
            Some(value) => Ok(value),
            None => Err(Failure::Malformed),
        }
    }
}

/// A connection that is made anew, at need, when it was lost; to a cluster one to each node.
pub(crate) struct Link {
    client: Client,
    /// To the server, or to any node of a cluster.
    current: Mutex<Option<Connection>>,
    attempts: tokio::sync::Mutex<Attempts>,
    nodes: Option<Nodes>,
}

/// Held by the one caller that connects; the others wait for it.
struct Attempts {
    next: Instant,
    pause: Duration,
}

impl Link {
    pub(crate) fn new(client: Client, connection: Option<Connection>) -> Self {
        let cluster = client.cluster().cloned();
        Self {
            nodes: cluster.map(|cluster| Nodes::new(client.clone(), cluster)),
            client,
            current: Mutex::new(connection),
            attempts: tokio::sync::Mutex::new(Attempts {
                next: Instant::now(),
                pause: MIN_PAUSE,
            }),
        }
    }

    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// The connection, if there is one.
    pub(crate) fn current(&self) -> Option<Connection> {
        let current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        current.clone().filter(Connection::is_alive)
    }

    /// The nodes, if the server is a cluster.
    pub(crate) fn nodes(&self) -> Option<&Nodes> {
        self.nodes.as_ref()
    }

    /// All connections that there are.
    pub(crate) fn all_current(&self) -> Vec<Connection> {
        let nodes = self.nodes.iter().flat_map(Nodes::current);
        self.current().into_iter().chain(nodes).collect()
    }

    /// Lets the connections go. The next caller makes others.
    pub(crate) fn disconnect(&self) {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        *current = None;
        drop(current);
        if let Some(nodes) = &self.nodes {
            nodes.disconnect();
        }
    }

    /// The connection; if it was lost, tries to make another until it succeeds, the connect
    /// deadline or `deadline` has passed, or the server refuses us for good. Of a cluster it is one
    /// to any node, for what does not depend on a key.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub(crate) async fn connection(&self, deadline: Instant) -> Result<Connection> {
        if let Some(connection) = self.current() {
            return Ok(connection);
        }
        let begin = Instant::now();
        let deadline = deadline.min(begin + self.client.connect_deadline());
        // The one who has waited longest has the least time left. An attempt in the last moments of
        // each would fail, and hold up those who have time for one.
        let latest = deadline - deadline.saturating_duration_since(begin) / LEAST_PART;
        let mut attempts = loop {
            let attempts = self.attempts(deadline).await?;
            if attempts.next.max(Instant::now()) <= latest || self.current().is_some() {
                break attempts;
            }
            drop(attempts);
            if timeout_at(deadline, sleep(MIN_PAUSE)).await.is_err() {
                let origin = self.client.origin();
                return Err(origin.unreachable("there was no time left for an attempt"));
            }
        };
        loop {
            match self.attempt_once(&mut attempts, deadline).await {
                Err(error) if !is_final(&error) && attempts.next < deadline => {}
                outcome => return outcome,
            }
        }
    }

    /// As [`connection`](Self::connection), with one attempt.
    pub(crate) async fn attempt(&self, deadline: Instant) -> Result<Connection> {
        if let Some(connection) = self.current() {
            return Ok(connection);
        }
        let mut attempts = self.attempts(deadline).await?;
        self.attempt_once(&mut attempts, deadline).await
    }

    async fn attempts(&self, deadline: Instant) -> Result<MutexGuard<'_, Attempts>> {
        let waited = timeout_at(deadline, self.attempts.lock()).await;
        waited.map_err(|_| {
            let origin = self.client.origin();
            origin.unreachable("others are still trying to connect")
        })
    }

    async fn attempt_once(&self, attempts: &mut Attempts, deadline: Instant) -> Result<Connection> {
        if let Some(connection) = self.current() {
            return Ok(connection);
        }
        sleep_until(attempts.next.min(deadline)).await;
        if attempts.next > deadline {
            // No attempt, so that it does not put off the next one either.
            let why = "the last attempt failed, and the next one comes later";
            return Err(self.client.origin().unreachable(why));
        }
        let opened = self.client.open(deadline).await;
        match &opened {
            Ok(connection) => {
                attempts.pause = MIN_PAUSE;
                let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
                *current = Some(connection.clone());
            }
            Err(_) => {
                attempts.next = Instant::now() + attempts.pause;
                // Longer than a caller waits, and no attempt would ever be made in time.
                let longest = MAX_PAUSE.min(self.client.connect_deadline() / 4);
                attempts.pause = (attempts.pause * 2).min(longest);
            }
        }
        opened
    }

    /// The connection for the commands on a stream; see [`connection`](Self::connection). What is
    /// sent there may be answered with a redirection: [`ask`](Self::ask) follows them.
    pub(crate) async fn connection_of(
        &self,
        stream: &str,
        deadline: Instant,
    ) -> Result<Connection> {
        match &self.nodes {
            None => self.connection(deadline).await,
            Some(nodes) => {
                let reached = nodes.reach(slot_of(stream), deadline).await;
                reached.map(|(_, connection)| connection)
            }
        }
    }

    /// A connection to each server: to the one, or to each node that has slots.
    pub(crate) async fn everywhere(&self, deadline: Instant) -> Result<Vec<Connection>> {
        match &self.nodes {
            None => Ok(vec![self.connection(deadline).await?]),
            Some(nodes) => nodes.reach_all(deadline).await,
        }
    }

    /// Sends a command on a stream to where the stream is, and waits for its answer. It is carried
    /// out once at most: it is sent again only if a node answers that it has not the stream.
    ///
    /// # Errors
    ///
    /// The outer one if it was not sent, the inner one if it was.
    pub(crate) async fn ask(
        &self,
        stream: &str,
        command: &Cmd,
        deadline: Instant,
    ) -> Result<Result<Value, Failure>> {
        match &self.nodes {
            None => Ok(self
                .connection(deadline)
                .await?
                .call(command, deadline)
                .await),
            Some(nodes) => nodes.ask(stream, command, deadline).await,
        }
    }

    /// As [`ask`](Self::ask), for callers to whom any failure is an error.
    pub(crate) async fn call_of(
        &self,
        stream: &str,
        command: &Cmd,
        operation: &'static str,
        deadline: Instant,
    ) -> Result<Value> {
        self.ask(stream, command, deadline)
            .await
            .map_err(|error| error.with_operation(operation))?
            .map_err(|failure| self.client.origin().error(failure, operation))
    }

    /// Sends commands on one stream each, in as few goes as possible, as [`ask`](Self::ask) does.
    /// One answer for each, which may be an error of the server.
    pub(crate) async fn pipeline_of(
        &self,
        commands: Vec<(Topic, Cmd)>,
        operation: &'static str,
        deadline: Instant,
    ) -> Vec<Result<Value>> {
        if let Some(nodes) = &self.nodes {
            return nodes.pipeline(&commands, operation, deadline).await;
        }
        let count = commands.len();
        let mut pipeline = Pipeline::with_capacity(count);
        for (_, command) in commands {
            pipeline.add_command(command);
        }
        let sent = async {
            let connection = self.connection(deadline).await;
            let connection = connection.map_err(|error| error.with_operation(operation))?;
            let replies = connection.pipeline(&pipeline, deadline).await;
            replies.map_err(|failure| self.client.origin().error(failure, operation))
        };
        match sent.await {
            Ok(replies) => replies.into_iter().map(Ok).collect(),
            Err(error) => (0..count).map(|_| Err(again(&error))).collect(),
        }
    }
}

/// Whether trying again is of no use.
pub(crate) fn is_final(error: &Error) -> bool {
    !error.retryable() || error.kind() == ErrorKind::Unauthorized
}
