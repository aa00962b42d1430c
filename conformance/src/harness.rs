use std::fmt;
use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use polybus_core::transport::{Headers, Outgoing, RawRecord, TopicSpec, Transport};
use polybus_core::{BoxError, Topic};

/// Gives the suite a server and clients of it. One is made for a run of the suite.
///
/// Only [`start`](Self::start) and [`connect`](Self::connect) must be written. The other methods
/// let a transport take part in more cases: what a method answers with [`Unsupported`], and what
/// the transport's [`Capabilities`](polybus_core::transport::Capabilities) leave out, is reported
/// as ignored with its reason.
///
/// The suite makes its own topics and groups, of names that no other run uses, through
/// [`Admin::ensure_topics`](polybus_core::transport::Admin::ensure_topics): cases run side by side
/// on one server, and nothing has to be cleaned between two runs.
///
/// ```
/// use polybus_conformance::{BoxError, Harness};
/// use polybus_core::transport::DynTransport;
///
/// struct MyHarness {
///     server: String,
/// }
/// # async fn start_server() -> Result<String, BoxError> { Ok(String::new()) }
/// # async fn connect(_: &str) -> Result<DynTransport, BoxError> { Err("no server".into()) }
///
/// impl Harness for MyHarness {
///     type Transport = DynTransport;
///
///     async fn start() -> Result<Self, BoxError> {
///         Ok(Self { server: start_server().await? })
///     }
///
///     async fn connect(&self) -> Result<Self::Transport, BoxError> {
///         connect(&self.server).await
///     }
/// }
/// ```
pub trait Harness: Send + Sync + Sized + 'static {
    /// The transport that is put to the test.
    type Transport: Transport;

    /// Starts the server, or finds it. Called once, before the first case.
    ///
    /// # Errors
    ///
    /// An error fails the whole run: a missing server is never a pass. Say what was looked for
    /// and what to install or to set.
    fn start() -> impl Future<Output = Result<Self, BoxError>> + Send;

    /// A new client, as another process would have it: it shares nothing with the others but
    /// the server. Called several times in most cases.
    ///
    /// # Errors
    ///
    /// An error fails the case.
    fn connect(&self) -> impl Future<Output = Result<Self::Transport, BoxError>> + Send;

    /// Stops what [`start`](Self::start) started. Called once, after the last case, whether or
    /// not cases failed. Default: nothing; the harness is then dropped.
    ///
    /// # Errors
    ///
    /// An error fails the run.
    fn stop(self) -> impl Future<Output = Result<(), BoxError>> + Send {
        async { Ok(()) }
    }

    /// How a topic is to be created. Default: as asked, which is by name, and by the number of
    /// partitions where [they matter](polybus_core::transport::Capabilities::partitions).
    ///
    /// To be written where a topic needs more (a replication), not to change the name.
    fn topic_spec(&self, spec: TopicSpec) -> TopicSpec {
        spec
    }

    /// Whether the suite says [how many partitions its topics
    /// have](polybus_core::Topic::with_partitions), and holds the transport to what it promises of
    /// [such topics](polybus_core::transport::Capabilities::of_partitioned). Default: no.
    fn splits_topics(&self) -> bool {
        false
    }

    /// The name of a topic that is written in one step with others of its `family`. Default: `name`.
    ///
    /// To be written where the server has to see it by the name, as a Redis Cluster does by hash tags.
    fn topic_name(&self, name: &str, family: &str) -> String {
        let _ = family;
        name.to_owned()
    }

    /// A record that the server takes and that is no event, for the cases of undecodable bytes.
    /// Default: a value that is neither text nor JSON, without key and headers.
    fn undecodable(&self) -> RawRecord {
        let value = Bytes::from_static(b"\xff\xfe{\"not an event\x00");
        RawRecord::new(None, Headers::new(), Some(value))
    }

    /// An event for a topic that the server or the transport refuses although the topic
    /// exists: one over the size limit, say. It must be
    /// [`Rejected`](polybus_core::transport::Outcome::Rejected) by itself when it stands in a
    /// batch of good ones.
    ///
    /// # Errors
    ///
    /// [`Unsupported`] if the server takes everything. The default.
    fn rejected(&self, topic: &Topic) -> Result<Outgoing, Unsupported> {
        let _ = topic;
        Err(Unsupported::because(
            "the harness names no event that the server refuses",
        ))
    }

    /// Whether [`disrupt`](Self::disrupt) can do this to the server. Asked before a case starts.
    ///
    /// # Errors
    ///
    /// [`Unsupported`] if it can't. The default.
    fn can_disrupt(&self, fault: Fault) -> Result<(), Unsupported> {
        Err(Unsupported::because(format!(
            "the harness can't {fault}: it has no server of its own"
        )))
    }

    /// Does something bad to the server, or ends it. Returns when it is done.
    ///
    /// While a case that disrupts the server runs, no other does. When it is over, also by a
    /// failure, the suite asks for [`Fault::Resume`] or [`Fault::Restart`] of what was left
    /// paused or killed.
    ///
    /// # Errors
    ///
    /// An error fails the case.
    fn disrupt(&self, fault: Fault) -> impl Future<Output = Result<(), BoxError>> + Send {
        async move { Err(format!("the harness can't {fault}").into()) }
    }

    /// The times and amounts that the suite goes by on this transport.
    fn tuning(&self) -> Tuning {
        Tuning::default()
    }
}

/// What [`Harness::disrupt`] is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Fault {
    /// Ends the server at once, as `SIGKILL` does, and leaves it down.
    Kill,
    /// Starts the server again, with the same address and what it had stored; kills it first if
    /// it runs. Returns when it answers again.
    Restart,
    /// Halts the server, as `SIGSTOP` does: connections stay open, nothing is answered.
    Pause,
    /// Lets a paused server go on.
    Resume,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kill => "kill the server",
            Self::Restart => "restart the server",
            Self::Pause => "pause the server",
            Self::Resume => "resume the server",
        })
    }
}

/// Why a harness or its transport can't do something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unsupported {
    reason: String,
}

impl Unsupported {
    /// A reason, which is printed beside every case that is ignored for it.
    pub fn because(reason: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
        }
    }

    /// The reason.
    pub fn reason(&self) -> &str {
        &self.reason
    }
}

impl fmt::Display for Unsupported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl std::error::Error for Unsupported {}

/// The times and amounts that the suite goes by.
///
/// None of them makes a slow transport fail or a faulty one pass: they say how long to wait for
/// what must come, how long to listen for what must not, and how much to send.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Tuning {
    /// How long one case may take; twice as long if it disrupts the server. Over it the case
    /// fails and tells where it was. Default: 60 s.
    pub deadline: Duration,
    /// How long a case waits without any progress before it takes an event for lost. Longer than
    /// it takes another member to be given the events of a dead one. Default: 30 s.
    pub patience: Duration,
    /// How long a case listens for what must not come. Default: 300 ms.
    pub quiet: Duration,
    /// [`Subscription::takeover_after`](polybus_core::transport::Subscription::takeover_after) of
    /// the members that are to die. Longer than a busy machine keeps a living one from its turn.
    /// Default: 1 s.
    pub takeover_after: Duration,
    /// How long a member that reads nothing is left alone in the case of back-pressure: longer
    /// than a silent member is kept. Default: 3 s.
    pub idle: Duration,
    /// How many events the cases of many events publish, at least 100. Default: 2,000.
    pub volume: usize,
    /// The most events that a member takes from the server before its caller asks for them,
    /// where [`Lag::pending`](polybus_core::transport::Lag::pending) shows them. Default: none,
    /// which leaves this one bound unchecked.
    pub read_ahead: Option<usize>,
    /// How many cases run at once, unless `--test-threads` says. Default: 4.
    pub parallel: usize,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            deadline: Duration::from_secs(60),
            patience: Duration::from_secs(30),
            quiet: Duration::from_millis(300),
            takeover_after: Duration::from_secs(1),
            idle: Duration::from_secs(3),
            volume: 2_000,
            read_ahead: None,
            parallel: 4,
        }
    }
}

impl Tuning {
    /// Sets [`deadline`](Self::deadline).
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Sets [`patience`](Self::patience).
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Sets [`quiet`](Self::quiet).
    #[must_use]
    pub fn quiet(mut self, quiet: Duration) -> Self {
        self.quiet = quiet;
        self
    }

    /// Sets [`takeover_after`](Self::takeover_after).
    #[must_use]
    pub fn takeover_after(mut self, takeover_after: Duration) -> Self {
        self.takeover_after = takeover_after;
        self
    }

    /// Sets [`idle`](Self::idle).
    #[must_use]
    pub fn idle(mut self, idle: Duration) -> Self {
        self.idle = idle;
        self
    }

    /// Sets [`volume`](Self::volume).
    #[must_use]
    pub fn volume(mut self, volume: usize) -> Self {
        self.volume = volume.max(100);
        self
    }

    /// Sets [`read_ahead`](Self::read_ahead).
    #[must_use]
    pub fn read_ahead(mut self, read_ahead: usize) -> Self {
        self.read_ahead = Some(read_ahead);
        self
    }

    /// Sets [`parallel`](Self::parallel).
    #[must_use]
    pub fn parallel(mut self, parallel: usize) -> Self {
        self.parallel = parallel.max(1);
        self
    }
}
