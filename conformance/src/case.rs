use std::fmt;

use futures::future::BoxFuture;
use polybus_core::transport::{Capabilities, KeyOrder};

use crate::erased::ErasedHarness;
use crate::failure::Check;
use crate::harness::{Fault, Unsupported};
use crate::scene::Scene;

/// One thing that the suite proves about a transport.
#[derive(Clone, Copy)]
pub struct Case {
    name: &'static str,
    about: &'static str,
    needs: &'static [Need],
    body: fn(Scene) -> BoxFuture<'static, Check>,
}

/// What a case needs beyond the contract. Where it is missing the case is ignored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    KeyOrder(KeyOrder),
    Partitions,
    Durable,
    DeliveryCount,
    Release,
    StartAtTime,
    NoStartAtTime,
    CreatesTopics,
    NoCreatesTopics,
    Discovery,
    Transactions,
    ExactlyOnce,
    Forward,
    Begin,
    Browse,
    Purge,
    Idempotency,
    Reset,
    NoReset,
    ManageTopics,
    NoManageTopics,
    RejectedEvent,
    Disrupt(Fault),
}

impl Case {
    pub(crate) const fn new(
        name: &'static str,
        about: &'static str,
        needs: &'static [Need],
        body: fn(Scene) -> BoxFuture<'static, Check>,
    ) -> Self {
        Self {
            name,
            about,
            needs,
            body,
        }
    }

    /// The name: stable, in `snake_case`, unique in the suite.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// What it proves, in one line.
    pub fn about(&self) -> &'static str {
        self.about
    }

    /// What it needs beyond the contract, in words. Empty for most cases.
    pub fn needs(&self) -> impl Iterator<Item = String> + use<> {
        self.needs.iter().map(ToString::to_string)
    }

    /// Whether it disrupts the server, so that no other case may run beside it.
    pub fn disrupts(&self) -> bool {
        self.needs
            .iter()
            .any(|need| matches!(need, Need::Disrupt(_)))
    }

    /// Why the case can't run, if so.
    pub(crate) fn excluded(
        &self,
        capabilities: &Capabilities,
        harness: &dyn ErasedHarness,
    ) -> Option<String> {
        let missing = |need: &Need| need.check(capabilities, harness).err();
        let unsupported = self.needs.iter().find_map(missing)?;
        Some(unsupported.reason().to_owned())
    }

    pub(crate) fn run(&self, scene: Scene) -> BoxFuture<'static, Check> {
        (self.body)(scene)
    }
}

impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Case")
            .field("name", &self.name)
            .field("about", &self.about)
            .field("needs", &self.needs)
            .finish_non_exhaustive()
    }
}

impl Need {
    fn check(self, has: &Capabilities, harness: &dyn ErasedHarness) -> Result<(), Unsupported> {
        let fulfilled = match self {
            Self::KeyOrder(level) => has.key_order >= level,
            Self::Partitions => has.partitions,
            Self::Durable => has.durable,
            Self::DeliveryCount => has.delivery_count,
            Self::Release => has.release,
            Self::StartAtTime => has.start_at_time,
            Self::NoStartAtTime => !has.start_at_time,
            Self::CreatesTopics => has.creates_topics,
            Self::NoCreatesTopics => !has.creates_topics,
            Self::Discovery => has.discovery,
            Self::Transactions => has.transactions,
            Self::ExactlyOnce => has.exactly_once,
            Self::Forward => has.forward,
            Self::Begin => has.begin,
            Self::Browse => has.browse,
            Self::Purge => has.purge,
            Self::Idempotency => has.idempotency,
            Self::Reset => has.reset,
            Self::NoReset => !has.reset,
            Self::ManageTopics => has.manage_topics,
            Self::NoManageTopics => !has.manage_topics,
            Self::RejectedEvent => return harness.rejected(&"any".into()).map(drop),
            Self::Disrupt(fault) => return harness.can_disrupt(fault),
        };
        let reason = || {
            Unsupported::because(match self {
                Self::NoStartAtTime
                | Self::NoCreatesTopics
                | Self::NoReset
                | Self::NoManageTopics => {
                    format!("the case is for transports {self}")
                }
                _ => format!("the transport does not declare: {self}"),
            })
        };
        fulfilled.then_some(()).ok_or_else(reason)
    }
}

impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::KeyOrder(level) => write!(f, "order per key {level}"),
            Self::Partitions => f.write_str("partitions"),
            Self::Durable => f.write_str("durable"),
            Self::DeliveryCount => f.write_str("delivery count"),
            Self::Release => f.write_str("release"),
            Self::StartAtTime => f.write_str("start at a time"),
            Self::NoStartAtTime => f.write_str("that can't start at a time"),
            Self::CreatesTopics => f.write_str("creates topics"),
            Self::NoCreatesTopics => f.write_str("that do not create topics by themselves"),
            Self::Discovery => f.write_str("discovery"),
            Self::Transactions => f.write_str("transactions"),
            Self::ExactlyOnce => f.write_str("exactly once"),
            Self::Forward => f.write_str("forward"),
            Self::Begin => f.write_str("begin"),
            Self::Browse => f.write_str("browse"),
            Self::Purge => f.write_str("purge"),
            Self::Idempotency => f.write_str("idempotency"),
            Self::Reset => f.write_str("moving a group"),
            Self::NoReset => f.write_str("that can't move a group"),
            Self::ManageTopics => f.write_str("managing topics"),
            Self::NoManageTopics => f.write_str("that can't manage topics"),
            Self::RejectedEvent => f.write_str("an event that the server refuses"),
            Self::Disrupt(fault) => write!(f, "a harness that can {fault}"),
        }
    }
}
