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
    buffer: BytesMut,
    scan: Scan,
    /// The length of the last answer, which stands at the front of the buffer.
    answered: usize,
}

impl Wire {
    pub(crate) fn new(socket: Box<dyn Socket>) -> Self {
        Self {
            socket,
            buffer: BytesMut::new(),
            scan: Scan::default(),
            answered: 0,
        }
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
        self.buffer.advance(std::mem::take(&mut self.answered));
        if self.buffer.is_empty() && self.buffer.capacity() > KEPT {
            self.buffer = BytesMut::new();
        }
        let length = loop {
            let scanned = self.scan.advance(&self.buffer);
            if let Some(length) = scanned.map_err(|_| Failure::Malformed)? {
                break length;
            }
            self.fill(deadline).await?;
        };
        self.scan = Scan::default();
        self.answered = length;
        let answer = &self.buffer[..length];
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

    async fn fill(&mut self, deadline: Instant) -> Result<(), Failure> {
        self.buffer.reserve(ROOM);
        match timeout_at(deadline, self.socket.read_buf(&mut self.buffer)).await {
            Ok(Ok(0)) => Err(lost(std::io::ErrorKind::UnexpectedEof.into())),
            Ok(read) => read.map(drop).map_err(lost),
            Err(_) => Err(Failure::TimedOut),
        }
    }
}

fn lost(error: std::io::Error) -> Failure {
    Failure::Lost(error.into())
}

fn refusal(answer: &[u8]) -> Failure {
    match redis::parse_redis_value(answer) {
        Ok(Value::ServerError(error)) => Failure::Server(error),
        _ => Failure::Malformed,
    }
}
