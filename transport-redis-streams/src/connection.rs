//! One connection, and one that is made anew when it is lost.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use polybus_core::{Error, ErrorKind, Result};
use redis::RedisResult;
use redis::aio::{ConnectionLike, MultiplexedConnection};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::client::{Client, Cmd, Pipeline, Value};
use crate::error::Failure;

/// The first pause between two attempts to connect; it doubles up to `MAX_PAUSE`.
const MIN_PAUSE: Duration = Duration::from_millis(20);
const MAX_PAUSE: Duration = Duration::from_secs(1);

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
    pub(crate) fn new(inner: MultiplexedConnection, driver: JoinHandle<()>) -> Self {
        Self {
            inner,
            driver: Arc::new(Driver {
                task: driver,
                aborted: AtomicBool::new(false),
                outdated: AtomicBool::new(false),
            }),
        }
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
            self.driver.outdated.store(true, Ordering::Release);
        }
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

/// A connection that is made anew, at need, when it was lost.
pub(crate) struct Link {
    client: Client,
    current: Mutex<Option<Connection>>,
    attempts: tokio::sync::Mutex<Attempts>,
}

/// Held by the one caller that connects; the others wait for it.
struct Attempts {
    next: Instant,
    pause: Duration,
}

impl Link {
    pub(crate) fn new(client: Client, connection: Option<Connection>) -> Self {
        Self {
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

    /// Lets the connection go. The next caller makes another.
    pub(crate) fn disconnect(&self) {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        *current = None;
    }

    /// The connection; if it was lost, tries to make another until it succeeds, the connect
    /// deadline or `deadline` has passed, or the server refuses us for good.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub(crate) async fn connection(&self, deadline: Instant) -> Result<Connection> {
        if let Some(connection) = self.current() {
            return Ok(connection);
        }
        let deadline = deadline.min(Instant::now() + self.client.connect_deadline());
        let waited = timeout_at(deadline, self.attempts.lock()).await;
        let Ok(mut attempts) = waited else {
            let origin = self.client.origin();
            return Err(origin.unreachable("others are still trying to connect"));
        };
        loop {
            if let Some(connection) = self.current() {
                return Ok(connection);
            }
            sleep_until(attempts.next.min(deadline)).await;
            let error = match self.client.open(deadline).await {
                Ok(connection) => {
                    attempts.pause = MIN_PAUSE;
                    let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
                    *current = Some(connection.clone());
                    return Ok(connection);
                }
                Err(error) => error,
            };
            attempts.next = Instant::now() + attempts.pause;
            attempts.pause = (attempts.pause * 2).min(MAX_PAUSE);
            if is_final(&error) || attempts.next >= deadline {
                return Err(error);
            }
        }
    }

    /// Sends a command and waits for its answer, over a new connection if need be, within the
    /// deadline. The command is sent once.
    pub(crate) async fn call(
        &self,
        command: &Cmd,
        operation: &'static str,
        deadline: Instant,
    ) -> Result<Value> {
        let connection = self
            .connection(deadline)
            .await
            .map_err(|error| error.with_operation(operation))?;
        connection
            .call(command, deadline)
            .await
            .map_err(|failure| self.client.origin().error(failure, operation))
    }
}

/// Whether trying again is of no use.
fn is_final(error: &Error) -> bool {
    !error.retryable() || error.kind() == ErrorKind::Unauthorized
}
