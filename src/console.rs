//! The transport `kind = "console"`: prints events, for development.
//!
//! ```toml
//! [transports.screen]
//! kind   = "console"
//! stream = "stderr"          # default: "stdout"
//!
//! [[routes]]
//! pattern   = "debug.*"
//! transport = "screen"
//! topic     = "debug"
//! ```
//!
//! Each event is one line: CloudEvents 1.0 in structured mode as JSON, its data as JSON where that is
//! what it is. The topic is not written. An event is accepted once its line is written; what reads the
//! other end of a pipe slowly holds publishing up.
//!
//! Nothing can be read back: subscribing is an error of kind
//! [`Unsupported`](crate::ErrorKind::Unsupported).

use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use async_trait::async_trait;
use polybus_core::envelope::json::write_event;
use serde::Deserialize;
use tokio::time::Instant;

use crate::transport::{
    AckToken, Admin, Capabilities, Content, Delivery, DynTransport, Lag, Outcome, Outgoing,
    Position, Publisher, Settlement, Settler, Subscriber, Subscription, TopicDescription,
    TopicSpec, Transport, TransportConfig, TransportFactory,
};
use crate::{Effect, Error, ErrorKind, Result, Text, Topic};

/// Makes console transports.
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
pub struct ConsoleFactory;

/// The settings of a console transport: the keys of its section in the config.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct ConsoleConfig {
    /// Where events are printed: `"stdout"` or `"stderr"`. Default: `"stdout"`.
    pub stream: Stream,
}

/// An output of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Stream {
    /// The standard output. The default.
    #[default]
    Stdout,
    /// The standard error.
    Stderr,
}

/// Prints events. See [the module](self).
#[derive(Debug, Clone)]
pub struct ConsoleTransport {
    name: Text,
    config: ConsoleConfig,
}

/// Prints events.
#[derive(Debug)]
pub struct ConsolePublisher {
    name: Text,
    stream: Stream,
    printed: AtomicU64,
    closed: AtomicBool,
}

/// There are no topics: none is made, and all are there and empty of what could be read.
#[derive(Debug)]
pub struct ConsoleAdmin {
    name: Text,
}

/// There is none.
#[derive(Debug)]
pub enum ConsoleSubscriber {}

/// There is none.
#[derive(Debug)]
pub enum ConsoleSettler {}

#[async_trait]
impl TransportFactory for ConsoleFactory {
    fn kind(&self) -> &str {
        "console"
    }

    async fn connect(&self, config: TransportConfig) -> Result<DynTransport> {
        let settings: ConsoleConfig = config.section.parse()?;
        Ok(DynTransport::new(ConsoleTransport::new(
            config.name,
            settings,
        )))
    }
}

impl ConsoleTransport {
    /// A transport under a name, which its errors carry.
    pub fn new(name: impl Into<Text>, config: ConsoleConfig) -> Self {
        Self {
            name: name.into(),
            config,
        }
    }
}

impl Transport for ConsoleTransport {
    type Publisher = ConsolePublisher;
    type Subscriber = ConsoleSubscriber;
    type Admin = ConsoleAdmin;

    fn capabilities(&self) -> Capabilities {
        Capabilities::none().with_creates_topics()
    }

    async fn publisher(&self) -> Result<ConsolePublisher> {
        Ok(ConsolePublisher {
            name: self.name.clone(),
            stream: self.config.stream,
            printed: AtomicU64::new(0),
            closed: AtomicBool::new(false),
        })
    }

    async fn subscribe(&self, _: Subscription) -> Result<ConsoleSubscriber> {
        Err(unsupported(&self.name, "subscribe"))
    }

    fn admin(&self) -> ConsoleAdmin {
        ConsoleAdmin {
            name: self.name.clone(),
        }
    }
}

impl Publisher for ConsolePublisher {
    async fn publish(&self, batch: &[Outgoing]) -> Vec<Outcome> {
        if self.closed.load(Ordering::Acquire) {
            let closed = || self.error(ErrorKind::Closed, "the publisher is closed");
            return batch.iter().map(|_| Outcome::Rejected(closed())).collect();
        }
        let mut lines = Vec::new();
        for outgoing in batch {
            if let Content::Event(event) = &outgoing.content {
                write_event(event, &mut lines);
                lines.push(b'\n');
            }
        }
        let written = self.stream.write(&lines);
        let outcome = |outgoing: &Outgoing| match (&outgoing.content, &written) {
            (Content::Raw(_), _) => {
                let what = "a console prints events, and this record is none";
                Outcome::Rejected(self.error(ErrorKind::Unsupported, what))
            }
            (Content::Event(_), Ok(())) => {
                let printed = self.printed.fetch_add(1, Ordering::Relaxed);
                Outcome::Accepted(Position::new(0, printed))
            }
            // A part of the lines may have been written.
            (Content::Event(_), Err(error)) => {
                let error = self.error(ErrorKind::Transport, &error.to_string());
                Outcome::Unknown(error.with_effect(Effect::Unknown))
            }
        };
        batch.iter().map(outcome).collect()
    }

    async fn flush(&self, _: Instant) -> Result<()> {
        Ok(())
    }

    async fn close(&self, _: Instant) -> Result<()> {
        self.closed.store(true, Ordering::Release);
        Ok(())
    }
}

impl ConsolePublisher {
    fn error(&self, kind: ErrorKind, what: &str) -> Error {
        Error::new(kind, what)
            .with_operation("publish")
            .with_transport(self.name.clone())
    }
}

impl Stream {
    /// Writes all lines in one go, so that those of several publishers do not mix.
    fn write(self, lines: &[u8]) -> io::Result<()> {
        fn write(mut out: impl Write, lines: &[u8]) -> io::Result<()> {
            out.write_all(lines)?;
            out.flush()
        }
        match self {
            Self::Stdout => write(io::stdout().lock(), lines),
            Self::Stderr => write(io::stderr().lock(), lines),
        }
    }
}

impl Admin for ConsoleAdmin {
    async fn ensure_topics(&self, _: &[TopicSpec]) -> Result<()> {
        Ok(())
    }

    async fn describe(&self, topics: &[Topic]) -> Result<Vec<Option<TopicDescription>>> {
        let topic = |topic: &Topic| Some(TopicDescription::new(topic.name(), 1, 0));
        Ok(topics.iter().map(topic).collect())
    }

    async fn lag(&self, _: &str, _: &[Topic]) -> Result<Vec<Lag>> {
        Err(unsupported(&self.name, "lag"))
    }

    async fn health(&self) -> Result<()> {
        Ok(())
    }
}

impl Subscriber for ConsoleSubscriber {
    type Settler = ConsoleSettler;

    async fn recv(&mut self, _: usize) -> Result<Vec<Delivery>> {
        match *self {}
    }

    fn settler(&self) -> ConsoleSettler {
        match *self {}
    }

    async fn close(self, _: Instant) -> Result<()> {
        match self {}
    }
}

impl Settler for ConsoleSettler {
    async fn settle(&self, _: &[(AckToken, Settlement)]) -> Vec<Result<()>> {
        match *self {}
    }
}

fn unsupported(name: &Text, operation: &'static str) -> Error {
    Error::new(
        ErrorKind::Unsupported,
        format!("transport `{name}` prints events: nothing can be read from it"),
    )
    .with_operation(operation)
    .with_transport(name.clone())
    .with_note("a handler reads every topic that its routes lead to; route its events elsewhere")
}
