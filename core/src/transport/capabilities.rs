use std::fmt;

/// What a transport can do. The conformance suite holds it to what it declares and reports
/// the cases outside of it as ignored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Capabilities {
    /// How far the order of events of one key reaches.
    pub key_order: KeyOrder,
    /// Topics have several partitions that are shared out among the members of a group.
    pub partitions: bool,
    /// A topic that is [said to have partitions](crate::Topic::with_partitions) is divided by the
    /// transport itself: for such topics [`partitions`](Self::partitions) is true, and order per
    /// key holds across the group.
    pub splits_topics: bool,
    /// Accepted events survive a restart of the server.
    pub durable: bool,
    /// [`Delivery::attempt`](super::Delivery::attempt) counts deliveries to other members too,
    /// those that died included.
    pub delivery_count: bool,
    /// [`Settlement::Release`](super::Settlement::Release) brings the event back to the living
    /// members of the group, not only after this one has left.
    pub release: bool,
    /// A group can start at a point in time.
    pub start_at_time: bool,
    /// The server makes a topic when it is first used.
    pub creates_topics: bool,
    /// A group can read [topics whose names are not known beforehand](super::Subscription::patterns).
    pub discovery: bool,
    /// Several events can be stored all or none
    /// ([`Publisher::publish_together`](super::Publisher::publish_together)).
    pub transactions: bool,
    /// What a group has done and the events that come of it can be stored all or none
    /// ([`Settler::settle_together`](super::Settler::settle_together)).
    pub exactly_once: bool,
    /// [`Settler::forward`](super::Settler::forward) stores and acknowledges in one step.
    pub forward: bool,
    /// [`Settler::begin`](super::Settler::begin) notes what is about to be handled, so that an
    /// event that ends its process is found out.
    pub begin: bool,
    /// [`Admin::browse`](super::Admin::browse) reads a topic without a group.
    pub browse: bool,
    /// [`Admin::purge`](super::Admin::purge) deletes what a topic holds.
    pub purge: bool,
    /// [`Transport::idempotency`](super::Transport::idempotency) gives a store.
    pub idempotency: bool,
    /// A group can be [moved to another place](super::Admin::reset).
    pub reset: bool,
    /// Topics can be [listed](super::Admin::list) and [changed](super::Admin::alter).
    pub manage_topics: bool,
}

impl Capabilities {
    /// Nothing beyond the contract.
    pub const fn none() -> Self {
        Self {
            key_order: KeyOrder::None,
            partitions: false,
            splits_topics: false,
            durable: false,
            delivery_count: false,
            release: false,
            start_at_time: false,
            creates_topics: false,
            discovery: false,
            transactions: false,
            exactly_once: false,
            forward: false,
            begin: false,
            browse: false,
            purge: false,
            idempotency: false,
            reset: false,
            manage_topics: false,
        }
    }

    /// Sets how far the order of events of one key reaches.
    #[must_use]
    pub const fn with_key_order(mut self, key_order: KeyOrder) -> Self {
        self.key_order = key_order;
        self
    }

    /// Topics have partitions.
    #[must_use]
    pub const fn with_partitions(mut self) -> Self {
        self.partitions = true;
        self
    }

    /// Topics that are said to have partitions are divided.
    #[must_use]
    pub const fn with_splits_topics(mut self) -> Self {
        self.splits_topics = true;
        self
    }

    /// What the transport can do with topics that are
    /// [said to have partitions](crate::Topic::with_partitions). They are not discovered.
    #[must_use]
    pub const fn of_partitioned(self) -> Self {
        match self.splits_topics {
            true => Self {
                discovery: false,
                ..self.with_partitions().with_key_order(KeyOrder::Group)
            },
            false => self,
        }
    }

    /// Events survive a restart of the server.
    #[must_use]
    pub const fn with_durable(mut self) -> Self {
        self.durable = true;
        self
    }

    /// Attempts are counted across members.
    #[must_use]
    pub const fn with_delivery_count(mut self) -> Self {
        self.delivery_count = true;
        self
    }

    /// Released events come back at once.
    #[must_use]
    pub const fn with_release(mut self) -> Self {
        self.release = true;
        self
    }

    /// A group can start at a point in time.
    #[must_use]
    pub const fn with_start_at_time(mut self) -> Self {
        self.start_at_time = true;
        self
    }

    /// Topics are made when first used.
    #[must_use]
    pub const fn with_creates_topics(mut self) -> Self {
        self.creates_topics = true;
        self
    }

    /// It keeps which events were handled.
    #[must_use]
    pub const fn with_idempotency(mut self) -> Self {
        self.idempotency = true;
        self
    }

    /// Topics can be discovered.
    #[must_use]
    pub const fn with_discovery(mut self) -> Self {
        self.discovery = true;
        self
    }

    /// Events can be stored all or none.
    #[must_use]
    pub const fn with_transactions(mut self) -> Self {
        self.transactions = true;
        self
    }

    /// Acknowledgements and events can be stored all or none.
    #[must_use]
    pub const fn with_exactly_once(mut self) -> Self {
        self.exactly_once = true;
        self
    }

    /// A record is stored and a delivery acknowledged in one step.
    #[must_use]
    pub const fn with_forward(mut self) -> Self {
        self.forward = true;
        self
    }

    /// What is about to be handled can be noted.
    #[must_use]
    pub const fn with_begin(mut self) -> Self {
        self.begin = true;
        self
    }

    /// Topics can be read without a group.
    #[must_use]
    pub const fn with_browse(mut self) -> Self {
        self.browse = true;
        self
    }

    /// What topics hold can be deleted.
    #[must_use]
    pub const fn with_purge(mut self) -> Self {
        self.purge = true;
        self
    }

    /// Topics can be listed and changed.
    #[must_use]
    pub const fn with_manage_topics(mut self) -> Self {
        self.manage_topics = true;
        self
    }

    /// A group can be moved to another place.
    #[must_use]
    pub const fn with_reset(mut self) -> Self {
        self.reset = true;
        self
    }
}

/// How far the order of events of one key reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum KeyOrder {
    /// Not promised.
    None,
    /// Within one member of a group: several members may handle events of one key at once.
    Member,
    /// Across all members of a group.
    Group,
}

impl fmt::Display for KeyOrder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::Member => "within a member",
            Self::Group => "across the group",
        })
    }
}
