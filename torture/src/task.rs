//! What a child is told to do.

use std::path::PathBuf;

use polybus::{Bus, Config};
use serde::{Deserialize, Serialize};

use crate::Failure;
use crate::wrapped::Wrapped;

/// The most deliveries that one consumer has in hand.
pub(crate) const IN_FLIGHT: usize = 256;

/// How long a member may be silent before others take over what it has.
pub(crate) const TAKEOVER_MS: u64 = 4_000;

/// A kind of server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    Kafka,
    Redis,
}

/// What a server keeps when it is killed (Redis).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Durability {
    /// All that it answered for.
    Always,
    /// All but the last second.
    Everysec,
    /// Nothing.
    None,
}

/// Where a process ends itself, without any order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum CrashPoint {
    BeforeEffect,
    AfterEffect,
    BeforeAck,
    AfterAck,
    /// Between a dead letter and the acknowledgement of its event.
    DeadLetter,
}

/// A promise that a transport breaks on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Mutant {
    /// Acknowledges what it receives.
    CommitBeforeProcessing,
    /// Acknowledges everything received before what is done.
    CommitHighestSeen,
    /// Says of dead letters that they are stored, and stores them later.
    AckBeforeDeadLetter,
    /// Groups start with what comes next.
    GroupAtNow,
    /// Members that go away take their pending entries with them (Redis).
    DeleteConsumer,
    /// Says of events that they are stored, and stores them later.
    AcceptBeforeStored,
    /// What is given back is acknowledged.
    ReleaseIsAck,
    /// Stores what it says it rejected.
    RejectStored,
    /// Delivers some events twice.
    DeliverTwice,
    /// Delivers some events before their predecessors.
    Reorder,
    /// Delivers nothing more after a while.
    LostWakeUp,
    /// Drops some events.
    DropSome,
    /// Never acknowledges some of what is done.
    ForgetAck,
    /// Reads partitions without a lease (Redis).
    NoLease,
    /// Takes what is settled of an ownership that is over for what it has in hand of the next (Redis).
    NoEpoch,
    /// Marks an event as handled when it is claimed.
    MarkBeforeSuccess,
    /// Forgets what was marked as handled.
    ForgetMarks,
    /// Publishes what comes of an event beside the transaction.
    CopyOutside,
}

impl Mutant {
    pub(crate) const ALL: [Self; 18] = [
        Self::CommitBeforeProcessing,
        Self::CommitHighestSeen,
        Self::AckBeforeDeadLetter,
        Self::GroupAtNow,
        Self::DeleteConsumer,
        Self::AcceptBeforeStored,
        Self::ReleaseIsAck,
        Self::RejectStored,
        Self::DeliverTwice,
        Self::Reorder,
        Self::LostWakeUp,
        Self::DropSome,
        Self::ForgetAck,
        Self::NoLease,
        Self::NoEpoch,
        Self::MarkBeforeSuccess,
        Self::ForgetMarks,
        Self::CopyOutside,
    ];

    pub(crate) fn name(self) -> String {
        let name = serde_json::to_value(self).expect("a name is JSON");
        name.as_str().unwrap_or_default().to_owned()
    }
}

/// What a child is told to do.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Task {
    pub(crate) directory: PathBuf,
    pub(crate) kind: Kind,
    /// Where the server is reached: `host:port`, by commas; of a Redis that sentinels watch, their URLs.
    pub(crate) address: String,
    /// Where the server is, past the proxy.
    pub(crate) direct: String,
    pub(crate) topic: String,
    /// Of the topic; nothing for those of the server.
    pub(crate) partitions: Option<u32>,
    /// The Redis that keeps which events were handled, if they are to be handled once. On Redis it is
    /// the server itself.
    pub(crate) store: Option<String>,
    /// Where what comes of each event goes, in one step with its acknowledgement.
    pub(crate) copies: Option<String>,
    /// Which of its role it is, and its how manyeth life.
    pub(crate) slot: usize,
    pub(crate) life: usize,
    pub(crate) keys: usize,
    /// Events a second.
    pub(crate) rate: f64,
    pub(crate) poison: bool,
    /// Publishes one event that ends every process that handles it.
    pub(crate) deadly: bool,
    pub(crate) crash: Option<CrashPoint>,
    pub(crate) mutant: Option<Mutant>,
}

impl Task {
    pub(crate) fn parse(text: &str) -> Result<Self, Failure> {
        Ok(serde_json::from_str(text)?)
    }

    /// The name of its journal.
    pub(crate) fn journal(&self, role: &str) -> String {
        format!("{role}-{}-{}", self.slot, self.life)
    }

    /// A bus on the server.
    pub(crate) async fn bus(&self) -> polybus::Result<Bus> {
        let config = Config::parse(&self.config(), "torture")?;
        let builder = Bus::builder().config(config);
        let builder = builder.register(Wrapped::new(self, self.kind));
        match (self.kind, &self.store) {
            (Kind::Kafka, Some(_)) => builder.register(Wrapped::new(self, Kind::Redis)),
            _ => builder,
        }
        .build()
        .await
    }

    fn config(&self) -> String {
        let partitions = match (self.kind, self.partitions) {
            (Kind::Redis, Some(partitions)) => format!("partitions = {partitions}\n"),
            _ => String::new(),
        };
        format!(
            "[service]\nname = 'torture'\nshutdown_deadline = '10s'\n\
             [transports.server]\n{}\n\
             [[routes]]\npattern = 'torture.*'\ntransport = 'server'\ntopic = '{}'\n\
             {partitions}[subscriptions.torture]\nconcurrency = 16\nmax_in_flight = {IN_FLIGHT}\n\
             handler_timeout = '1500ms'\ntakeover_after = '{TAKEOVER_MS}ms'\n\
             retry = {{ max_attempts = 3, base = '20ms', max = '100ms' }}\n{}",
            self.server(),
            self.topic,
            self.more()
        )
    }

    fn server(&self) -> String {
        let address = &self.address;
        match self.kind {
            Kind::Redis if address.contains("//") => {
                let sentinels = address.replace(',', "', '");
                let master = polybus_test_support::RedisSentinels::MASTER;
                redis(&format!("sentinels = ['{sentinels}']\nmaster = '{master}'"))
            }
            Kind::Redis => redis(&format!("url = 'redis://{address}'")),
            Kind::Kafka => {
                let brokers = address.replace(',', "', '");
                // A transaction that a killed process left is given up after this long.
                let deadline = if self.copies.is_some() { 5 } else { 20 };
                // Every other consumer always has more before it than it has room for.
                let buffer = if self.slot % 2 == 1 { 20 } else { 10_000 };
                format!(
                    "kind = 'kafka'\nbrokers = ['{brokers}']\nconnect_deadline = '5s'\n\
                     delivery_deadline = '{deadline}s'\nsession_timeout = '6s'\n\
                     commit_interval = '200ms'\ndrain_deadline = '5s'\nbuffer_events = {buffer}"
                )
            }
        }
    }

    /// Keys of the subscription, and what stands behind it.
    fn more(&self) -> String {
        let mut more = String::new();
        if let Some(store) = &self.store {
            let name = match self.kind {
                Kind::Redis => "server",
                Kind::Kafka => "store",
            };
            more += &format!("idempotency = {{ store = '{name}', lease = '3s', retain = '2h' }}\n");
            if self.kind == Kind::Kafka {
                more += &format!(
                    "[transports.store]\n{}\n",
                    redis(&format!("url = '{store}'"))
                );
            }
        }
        if let Some(copies) = &self.copies {
            more += &format!(
                "[[routes]]\npattern = 'copy.*'\ntransport = 'server'\ntopic = '{copies}'\n"
            );
        }
        more
    }
}

fn redis(place: &str) -> String {
    format!(
        "kind = 'redis-streams'\n{place}\nconnect_deadline = '2s'\n\
         delivery_deadline = '10s'\noperation_deadline = '3s'\nblock = '500ms'\n\
         claim_interval = '1s'"
    )
}
