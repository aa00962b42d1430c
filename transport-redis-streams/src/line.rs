//! A connection for appending that callers share, without a task behind it: each sends from where
//! it stands, and reads its own answers where they stand. So a caller alone waits for one wake-up,
//! and a batch takes no allocation for each entry.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;

use tokio::io::{AsyncRead, AsyncWriteExt, ReadBuf, ReadHalf, WriteHalf};
use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio::task::coop::unconstrained;
use tokio::time::{Instant, timeout_at};

use crate::connection::Connection;
use crate::error::Failure;
use crate::wire::{Answers, Socket, Wire};

/// How much is asked of the socket at once: the ids of some hundred entries.
const ROOM: usize = 16 * 1024;

/// A buffer that grew over it for large events is given back.
const KEPT: usize = 4 * 1024 * 1024;

const PING: &[u8] = b"*1\r\n$4\r\nPING\r\n";

/// A connection whose answers come in the order of the commands.
///
/// A caller that stops waiting does not undo its commands; who comes behind it passes over its
/// answers.
pub(crate) struct Line {
    writer: Arc<Mutex<Writer>>,
    reader: Arc<Mutex<Reader>>,
    state: Arc<State>,
}

struct State {
    /// The one that showed the way. It hears of it when the server goes.
    shared: Connection,
    /// The line takes no more commands. Who waits for an answer may get it.
    ended: AtomicBool,
}

impl State {
    fn is_alive(&self) -> bool {
        !self.ended.load(Ordering::Acquire) && self.shared.is_alive()
    }

    fn end(&self) {
        self.ended.store(true, Ordering::Release);
    }

    /// Ends it because the server failed. Where it is to be found now is asked anew.
    fn fail(&self) {
        self.end();
        self.shared.abort();
    }
}

struct Writer {
    socket: WriteHalf<Box<dyn Socket>>,
    buffer: Vec<u8>,
    /// How many commands were written.
    asked: u64,
    /// A write was begun and not finished: what follows would be a part of it.
    is_torn: bool,
}

struct Reader {
    socket: ReadHalf<Box<dyn Socket>>,
    answers: Answers,
    /// How many answers were read.
    read: u64,
    is_lost: bool,
}

/// The right to send the next commands.
pub(crate) struct Desk {
    writer: OwnedMutexGuard<Writer>,
    state: Arc<State>,
    reader: Arc<Mutex<Reader>>,
    /// The number of the first command that is sent from here.
    first: u64,
}

/// Commands that were sent from one desk. The place in the order of the readers is taken.
pub(crate) struct Asked {
    reader: Waiting,
    state: Arc<State>,
    commands: std::ops::Range<u64>,
}

type Waiting = std::pin::Pin<Box<dyn Future<Output = OwnedMutexGuard<Reader>> + Send>>;

impl Line {
    pub(crate) fn new(wire: Wire, shared: Connection) -> Self {
        let (socket, answers) = wire.into_parts();
        let (reading, writing) = tokio::io::split(socket);
        Self {
            writer: Arc::new(Mutex::new(Writer {
                socket: writing,
                buffer: Vec::new(),
                asked: 0,
                is_torn: false,
            })),
            reader: Arc::new(Mutex::new(Reader {
                socket: reading,
                answers,
                read: 0,
                is_lost: false,
            })),
            state: Arc::new(State {
                shared,
                ended: AtomicBool::new(false),
            }),
        }
    }

    /// Whether it is not known to be lost, or to lead to a server that takes no writes.
    pub(crate) fn is_alive(&self) -> bool {
        self.state.is_alive()
    }

    /// Notes that it leads to a server that takes no writes any more.
    pub(crate) fn outdate(&self) {
        self.state.end();
        self.state.shared.outdate();
    }

    /// Waits for the right to send, in the order of the calls. `None` if the connection is lost:
    /// nothing was sent.
    ///
    /// # Errors
    ///
    /// [`Failure::TimedOut`], with nothing sent.
    pub(crate) async fn desk(&self, deadline: Instant) -> Result<Option<Desk>, Failure> {
        let writer = timeout_at(deadline, Arc::clone(&self.writer).lock_owned()).await;
        let writer = writer.map_err(|_| Failure::TimedOut)?;
        if writer.is_torn || !self.is_alive() || self.is_hung_up(&writer) {
            self.state.end();
            return Ok(None);
        }
        Ok(Some(Desk {
            first: writer.asked,
            writer,
            state: Arc::clone(&self.state),
            reader: Arc::clone(&self.reader),
        }))
    }

    /// Waits until everything that was sent before is answered, also what nobody waits for any
    /// more.
    pub(crate) async fn drain(&self, deadline: Instant) -> Result<(), Failure> {
        let Some(mut desk) = self.desk(deadline).await? else {
            // A lost connection owes no answers any more.
            return Ok(());
        };
        desk.buffer().extend_from_slice(PING);
        desk.send(1, deadline).await?;
        desk.leave().await.answers(deadline, |_| {}).await
    }

    /// Whether the server has closed a connection on which nothing is under way. To be told by the
    /// next answer would be too late for what was sent by then.
    fn is_hung_up(&self, writer: &Writer) -> bool {
        let Ok(mut reader) = self.reader.try_lock() else {
            return false;
        };
        if reader.read != writer.asked {
            return false;
        }
        let mut byte = [0];
        let mut byte = ReadBuf::new(&mut byte);
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        let socket = std::pin::Pin::new(&mut reader.socket);
        // Whatever comes without a question is no answer either.
        socket.poll_read(&mut context, &mut byte).is_ready()
    }
}

impl Desk {
    /// What is sent next.
    pub(crate) fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.writer.buffer
    }

    /// Sends what is in the buffer, so many commands.
    ///
    /// # Errors
    ///
    /// Then any part of them was sent, and the connection takes nothing more.
    pub(crate) async fn send(&mut self, commands: usize, deadline: Instant) -> Result<(), Failure> {
        let Writer {
            socket,
            buffer,
            asked,
            is_torn,
        } = &mut *self.writer;
        *asked += commands as u64;
        *is_torn = true;
        let written = timeout_at(deadline, socket.write_all(buffer)).await;
        let written = match written {
            Ok(written) => written.map_err(|error| Failure::Lost(error.into())),
            Err(_) => Err(Failure::TimedOut),
        };
        match &written {
            Ok(()) => *is_torn = false,
            Err(_) => self.state.fail(),
        }
        buffer.clear();
        if buffer.capacity() > KEPT {
            *buffer = Vec::new();
        }
        written
    }

    /// Lets the next caller send, once the place among those that read is taken.
    pub(crate) async fn leave(self) -> Asked {
        // Without the budget of the task: with that used up, no place would be taken.
        let mut reader: Waiting = Box::pin(unconstrained(self.reader.lock_owned()));
        let first = std::future::poll_fn(|context| Poll::Ready(reader.as_mut().poll(context)));
        if let Poll::Ready(free) = first.await {
            reader = Box::pin(std::future::ready(free));
        }
        Asked {
            reader,
            state: self.state,
            commands: self.first..self.writer.asked,
        }
    }
}

impl Asked {
    /// Waits for the answers, and hands them over one by one as they come in.
    ///
    /// # Errors
    ///
    /// Then there is no answer to the rest, and the connection takes nothing more.
    pub(crate) async fn answers(
        self,
        deadline: Instant,
        take: impl FnMut(&[u8]),
    ) -> Result<(), Failure> {
        let read = async {
            let mut reader = self.reader.await;
            reader.read(self.commands, take).await
        };
        let read = timeout_at(deadline, read).await;
        let read = read.unwrap_or(Err(Failure::TimedOut));
        if read.is_err() {
            self.state.fail();
        }
        read
    }
}

impl Reader {
    /// # Cancel safety
    ///
    /// Cancel safe: an answer that was not handed over is read by the next call.
    async fn read(
        &mut self,
        commands: std::ops::Range<u64>,
        mut take: impl FnMut(&[u8]),
    ) -> Result<(), Failure> {
        while self.read < commands.end {
            let found = self.answers.next();
            let Some(answer) = found.inspect_err(|_| self.is_lost = true)? else {
                if self.is_lost {
                    return Err(Failure::Lost(lost()));
                }
                let filled = self.answers.fill(&mut self.socket, ROOM).await;
                filled.inspect_err(|_| self.is_lost = true)?;
                continue;
            };
            if self.read >= commands.start {
                take(answer);
            }
            self.read += 1;
        }
        Ok(())
    }
}

fn lost() -> redis::RedisError {
    std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into()
}
