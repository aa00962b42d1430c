use std::future::Future;

use super::{Delivery, Position, Start};
use crate::topic::{TopicPrefix, TopicSetting, TopicSettings};
use crate::{Error, ErrorKind, Result, Text, Topic};

/// Manages topics and reads their state.
///
/// Every call is bounded by the transport's operation deadline; after it the error is a
/// [`Timeout`](crate::ErrorKind::Timeout).
pub trait Admin: Send + Sync + 'static {
    /// Creates the topics that do not exist, as they are specified, and leaves the others as they
    /// are. What is specified beyond [`topic_settings`](Self::topic_settings) is ignored.
    ///
    /// # Errors
    ///
    /// Those of the server: no right to create topics, too few brokers for the replication.
    fn ensure_topics(&self, topics: &[TopicSpec]) -> impl Future<Output = Result<()>> + Send;

    /// The state of topics, in the order asked; `None` for one that does not exist.
    ///
    /// # Errors
    ///
    /// [`Connect`](crate::ErrorKind::Connect) if the server can't be reached.
    fn describe(
        &self,
        topics: &[Topic],
    ) -> impl Future<Output = Result<Vec<Option<TopicDescription>>>> + Send;

    /// What of a [`TopicSpec`] the transport has. Default: nothing.
    fn topic_settings(&self) -> &'static [TopicSetting] {
        &[]
    }

    /// The names of all topics, sorted, without those that the server keeps for itself. Needs
    /// [`Capabilities::manage_topics`](super::Capabilities::manage_topics).
    ///
    /// # Errors
    ///
    /// [`Unsupported`](crate::ErrorKind::Unsupported) without the capability;
    /// [`Connect`](crate::ErrorKind::Connect) if the server can't be reached.
    fn list(&self) -> impl Future<Output = Result<Vec<Text>>> + Send {
        std::future::ready(Err(unsupported("list topics")))
    }

    /// Changes topics that exist to what is specified: adds partitions and groups, changes
    /// settings. What is not specified stays as it is, and what is specified beyond
    /// [`topic_settings`](Self::topic_settings) is ignored. No topic is deleted. Needs
    /// [`Capabilities::manage_topics`](super::Capabilities::manage_topics).
    ///
    /// # Errors
    ///
    /// [`Refused`](crate::ErrorKind::Refused) for fewer partitions than there are, and nothing of
    /// that topic was changed; [`TopicNotFound`](crate::ErrorKind::TopicNotFound) for one that does
    /// not exist; [`Unsupported`](crate::ErrorKind::Unsupported) without the capability; those of
    /// the server. Topics before the one that failed are changed.
    ///
    /// # Cancel safety
    ///
    /// A dropped call may have changed some of it. Asking again is harmless.
    fn alter(&self, topics: &[TopicSpec]) -> impl Future<Output = Result<()>> + Send {
        let error = unsupported("alter topics");
        let error = match topics.first() {
            Some(topic) => error.with_topic(topic.name.clone()),
            None => error,
        };
        std::future::ready(Err(error))
    }

    /// How far a group is behind, for each topic in the order asked.
    ///
    /// # Errors
    ///
    /// [`TopicNotFound`](crate::ErrorKind::TopicNotFound) for a topic that does not exist;
    /// [`Connect`](crate::ErrorKind::Connect) if the server can't be reached.
    fn lag(&self, group: &str, topics: &[Topic]) -> impl Future<Output = Result<Vec<Lag>>> + Send;

    /// Moves a group to another place in topics, back to get events again or ahead to skip some.
    /// The member that joins next goes on from there.
    ///
    /// What the group had received and not settled is forgotten: it comes again if it stands at
    /// the place or behind it. A group that does not exist is made at that place. Other topics of
    /// the group stay as they are. Needs [`Capabilities::reset`](super::Capabilities::reset).
    ///
    /// # Errors
    ///
    /// [`InUse`](crate::ErrorKind::InUse) while the group has members, and nothing was moved; stop
    /// them first. [`TopicNotFound`](crate::ErrorKind::TopicNotFound) for a topic that does not
    /// exist; [`Unsupported`](crate::ErrorKind::Unsupported) for a start that the transport does
    /// not have, and from a transport that can't move a group.
    ///
    /// # Cancel safety
    ///
    /// A dropped call may have moved the group. Moving it again is harmless.
    fn reset(
        &self,
        group: &str,
        topics: &[Topic],
        to: Start,
    ) -> impl Future<Output = Result<()>> + Send {
        let _ = (group, topics, to);
        let why = "the transport can't move a group to another place";
        std::future::ready(Err(
            Error::new(ErrorKind::Unsupported, why).with_operation("reset")
        ))
    }

    /// Asks the server for a sign of life.
    ///
    /// # Errors
    ///
    /// [`Connect`](crate::ErrorKind::Connect) if the server can't be reached.
    fn health(&self) -> impl Future<Output = Result<()>> + Send;

    /// Reads what a topic holds, without a group and without changing anything
    /// ([`Capabilities::browse`](super::Capabilities::browse)): up to `max` (at least 1) records
    /// behind the given positions, at most one for each partition; a partition without one is
    /// read from its oldest record. Those of a partition come in its order, and fewer than `max`
    /// only if there are no more. Their tokens settle nothing, and their attempt is 1.
    ///
    /// A topic that does not exist holds nothing.
    ///
    /// # Errors
    ///
    /// [`Unsupported`](crate::ErrorKind::Unsupported) without the capability;
    /// [`Connect`](crate::ErrorKind::Connect) if the server can't be reached.
    fn browse(
        &self,
        topic: &Topic,
        after: &[Position],
        max: usize,
    ) -> impl Future<Output = Result<Vec<Delivery>>> + Send {
        let error = unsupported("browse").with_topic(topic.name());
        let _ = (after, max);
        async { Err(error) }
    }

    /// Deletes the records of a topic up to and with the given positions, at most one for each
    /// partition; partitions without one keep what they have
    /// ([`Capabilities::purge`](super::Capabilities::purge)). No group gets them any more, also
    /// where it has not settled them.
    ///
    /// # Errors
    ///
    /// [`Unsupported`](crate::ErrorKind::Unsupported) without the capability;
    /// [`Connect`](crate::ErrorKind::Connect) if the server can't be reached.
    fn purge(
        &self,
        topic: &Topic,
        through: &[Position],
    ) -> impl Future<Output = Result<()>> + Send {
        let error = unsupported("purge").with_topic(topic.name());
        let _ = through;
        async { Err(error) }
    }
}

/// The error of what a transport does not declare.
pub(super) fn unsupported(operation: &'static str) -> Error {
    Error::new(ErrorKind::Unsupported, "the transport can't do this").with_operation(operation)
}

/// How a topic is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TopicSpec {
    /// The name.
    pub name: Text,
    /// The number of partitions. Default: the server's. Ignored by a transport without any; where
    /// the transport [divides topics itself](super::Capabilities::splits_topics) it is that of
    /// [`Topic::with_partitions`], which everybody who uses the topic has to name too.
    pub partitions: Option<u32>,
    /// On how many brokers each partition is kept. Default: the server's. Ignored by a
    /// transport without brokers of its own.
    pub replication: Option<u16>,
    /// What it keeps, and how. Default: as the server does.
    pub settings: TopicSettings,
    /// Groups that get every event from the beginning of the topic on, also before their first
    /// member joins. Ignored by a transport where groups need not be made. Default: none.
    pub groups: Vec<Text>,
}

impl TopicSpec {
    /// A topic with the server's defaults.
    pub fn new(name: impl Into<Text>) -> Self {
        Self {
            name: name.into(),
            partitions: None,
            replication: None,
            settings: TopicSettings::default(),
            groups: Vec::new(),
        }
    }

    /// The same topic with a prefix before its name, unless that begins with it.
    #[must_use]
    pub fn prefixed(&self, prefix: &TopicPrefix) -> Self {
        Self {
            name: prefix.apply(&self.name).name().into(),
            ..self.clone()
        }
    }

    /// Sets the number of partitions.
    #[must_use]
    pub fn partitions(mut self, partitions: u32) -> Self {
        self.partitions = Some(partitions);
        self
    }

    /// Sets on how many brokers each partition is kept.
    #[must_use]
    pub fn replication(mut self, replication: u16) -> Self {
        self.replication = Some(replication);
        self
    }

    /// Sets what it keeps, and how.
    #[must_use]
    pub fn settings(mut self, settings: TopicSettings) -> Self {
        self.settings = settings;
        self
    }

    /// Sets which groups there are from the beginning.
    #[must_use]
    pub fn groups<G: Into<Text>>(mut self, groups: impl IntoIterator<Item = G>) -> Self {
        self.groups = groups.into_iter().map(Into::into).collect();
        self
    }
}

/// The state of a topic on its server.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TopicDescription {
    /// The name.
    pub name: Text,
    /// The number of partitions; 1 on a transport without any.
    pub partitions: u32,
    /// About how many events it holds: exact where nothing was deleted or compacted and no
    /// transactions were written.
    pub events: u64,
    /// On how many brokers each partition is kept; `None` if the server does not tell.
    pub replication: Option<u16>,
    /// What it keeps, and how. `None` for what the server does not have, or does not tell; of
    /// the properties those that are set for this topic alone.
    pub settings: TopicSettings,
    /// The groups that have a place in it, where the server keeps them with the topic.
    pub groups: Vec<Text>,
}

impl TopicDescription {
    /// The state of a topic.
    pub fn new(name: impl Into<Text>, partitions: u32, events: u64) -> Self {
        Self {
            name: name.into(),
            partitions,
            events,
            replication: None,
            settings: TopicSettings::default(),
            groups: Vec::new(),
        }
    }
}

/// How far a group is behind on a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Lag {
    /// Events that no member has received yet. On a transport that commits positions: those
    /// past the committed position, what is in flight included.
    pub waiting: u64,
    /// Events that a member has and has not settled, where the server knows.
    pub pending: u64,
}

impl Lag {
    /// How far a group is behind.
    pub fn new(waiting: u64, pending: u64) -> Self {
        Self { waiting, pending }
    }

    /// Whether the group is done with every event.
    pub fn is_zero(&self) -> bool {
        self.waiting == 0 && self.pending == 0
    }
}
