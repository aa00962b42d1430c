//! A connection for reading alone: what comes is read where it stands. The client library makes
//! half a dozen allocations for each entry, which is most of what reading costs.

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, timeout_at};

use crate::client::{Cmd, Value};
use crate::error::Failure;
use crate::resp::Scan;

/// How much is asked of the socket at once.
const ROOM: usize = 256 * 1024;

/// A buffer that grew over it for a large answer is given back.
const KEPT: usize = 4 * 1024 * 1024;

/// What carries bytes both ways.
pub(crate) trait Socket: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Socket for S {}

/// A connection whose answers come in the order of the commands. After a failure other than a
/// refusal it can't be used any more.
pub(crate) struct Wire {
    socket: Box<dyn Socket>,
    answers: Answers,
}

/// What has come in and was not read yet.
#[derive(Default)]
pub(crate) struct Answers {
    buffer: BytesMut,
    scan: Scan,
    /// The length of the last answer, which stands at the front of the buffer.
    answered: usize,
}

impl Wire {
    pub(crate) fn new(socket: Box<dyn Socket>) -> Self {
        Self {
            socket,
            answers: Answers::default(),
        }
    }

    /// What carries the bytes, and what has come in by it.
    pub(crate) fn into_parts(self) -> (Box<dyn Socket>, Answers) {
        (self.socket, self.answers)
    }

    /// Sends commands as they are packed.
    pub(crate) async fn send(&mut self, packed: &[u8], deadline: Instant) -> Result<(), Failure> {
        match timeout_at(deadline, self.socket.write_all(packed)).await {
            Ok(written) => written.map_err(lost),
            Err(_) => Err(Failure::TimedOut),
        }
    }

    /// Waits for the next answer. An error that the server answers is a [`Failure`].
    pub(crate) async fn answer(&mut self, deadline: Instant) -> Result<&[u8], Failure> {
        while !self.answers.has_next()? {
            let filled = self.answers.fill(&mut self.socket, ROOM);
            match timeout_at(deadline, filled).await {
                Ok(filled) => filled?,
                Err(_) => return Err(Failure::TimedOut),
            }
        }
        let answer = self.answers.current();
        if answer.starts_with(b"-") {
            return Err(refusal(answer));
        }
        Ok(answer)
    }

    /// Sends a command and waits for its answer. Not while others are out.
    pub(crate) async fn call(
        &mut self,
        command: &Cmd,
        deadline: Instant,
    ) -> Result<Value, Failure> {
        self.send(&command.get_packed_command(), deadline).await?;
        let answer = self.answer(deadline).await?;
        redis::parse_redis_value(answer).map_err(|_| Failure::Malformed)
    }
}

impl Answers {
    /// The next answer, if all of it is there. An error that the server answers is one too.
    pub(crate) fn next(&mut self) -> Result<Option<&[u8]>, Failure> {
        Ok(self.has_next()?.then(|| self.current()))
    }

    /// Waits for more to come in.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub(crate) async fn fill(
        &mut self,
        socket: &mut (impl AsyncRead + Unpin),
        room: usize,
    ) -> Result<(), Failure> {
        self.buffer.reserve(room);
        match socket.read_buf(&mut self.buffer).await {
            Ok(0) => Err(lost(std::io::ErrorKind::UnexpectedEof.into())),
            read => read.map(drop).map_err(lost),
        }
    }

    /// Goes on to the next answer, if all of it is there.
    fn has_next(&mut self) -> Result<bool, Failure> {
        self.buffer.advance(std::mem::take(&mut self.answered));
        if self.buffer.is_empty() && self.buffer.capacity() > KEPT {
            self.buffer = BytesMut::new();
        }
        let scanned = self.scan.advance(&self.buffer);
        let Some(length) = scanned.map_err(|_| Failure::Malformed)? else {
            return Ok(false);
        };
        self.scan = Scan::default();
        self.answered = length;
        Ok(true)
    }

    fn current(&self) -> &[u8] {
        &self.buffer[..self.answered]
    }
}

fn lost(error: std::io::Error) -> Failure {
    Failure::Lost(error.into())
}

/// An error that the server answers.
pub(crate) fn refusal(answer: &[u8]) -> Failure {
    match redis::parse_redis_value(answer) {
        Ok(Value::ServerError(error)) => Failure::Server(error),
        _ => Failure::Malformed,
    }
}
