//! The contract of a transport.
//!
//! A transport connects polybus to one kind of server. Its author implements [`Transport`],
//! [`Publisher`], [`Subscriber`], [`Settler`] and [`Admin`] with plain `async fn`s, registers
//! it with a [`TransportFactory`], and proves it with the crate `polybus-conformance`.
//! Everything above (routing, handlers, lanes, retries, dead letters) then works on it.
//!
//! # The promises
//!
//! - An event whose [`Outcome`] is [`Accepted`](Outcome::Accepted) is kept by the server.
//! - Every group gets every event at least once. An event that was delivered and not settled
//!   with [`Settlement::Ack`] is delivered again: to the same member or to another, at the
//!   latest after the member that had it is gone.
//! - Nothing is acknowledged on the server before it was settled.
//! - Every call that waits is bounded: by its `deadline`, or by being dropped.

mod admin;
mod capabilities;
mod delivery;
mod erased;
mod factory;
mod headers;
mod losses;
mod outcome;
mod position;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

pub use admin::{Admin, Lag, TopicDescription, TopicSpec};
pub use capabilities::{Capabilities, KeyOrder};
pub use delivery::{AckToken, Delivery, Undecodable};
pub use erased::{DynAdmin, DynPublisher, DynSettler, DynSubscriber, DynTransport};
pub use factory::{TransportConfig, TransportFactory};
pub use headers::{Header, Headers, RawRecord};
pub use losses::Losses;
pub(crate) use outcome::publish_prepared;
pub use outcome::{Content, Outcome, Outgoing};
pub use position::Position;

use crate::idempotency::IdempotencyStore;
use crate::topic::TopicPattern;
use crate::{Error, ErrorKind, Result, Text, Timestamp, Topic};

/// A connection to one server or cluster.
///
/// Dropping it, and everything made from it, releases what it holds; an orderly end is
/// [`Publisher::close`] and [`Subscriber::close`].
pub trait Transport: Send + Sync + 'static {
    /// Publishes on this transport.
    type Publisher: Publisher;
    /// Reads as a member of a group.
    type Subscriber: Subscriber;
    /// Manages topics.
    type Admin: Admin;

    /// What this transport can do. Constant for as long as it lives.
    fn capabilities(&self) -> Capabilities;

    /// A publisher. A bus makes one for each transport and shares it.
    ///
    /// # Errors
    ///
    /// [`Connect`](crate::ErrorKind::Connect) if the server can't be reached within the connect
    /// deadline of the transport's config, naming the address.
    fn publisher(&self) -> impl Future<Output = Result<Self::Publisher>> + Send;

    /// Joins a group.
    ///
    /// When it returns, the group's position is settled on the server for every topic: an event
    /// accepted from now on reaches the group, whatever [`Subscription::start`] says, even if
    /// this member dies before it reads.
    ///
    /// # Errors
    ///
    /// [`TopicNotFound`](crate::ErrorKind::TopicNotFound) if a topic does not exist and the
    /// server does not make topics by itself; [`Unsupported`](crate::ErrorKind::Unsupported) for
    /// a start the transport does not have, and for a subscription that is
    /// [`exactly_once`](Subscription::exactly_once) without the capability; [`Connect`](crate::ErrorKind::Connect) as above.
    ///
    /// # Cancel safety
    ///
    /// A dropped call may leave the group on the server, without members.
    fn subscribe(
        &self,
        subscription: Subscription,
    ) -> impl Future<Output = Result<Self::Subscriber>> + Send;

    /// Manages topics and reads their state.
    fn admin(&self) -> Self::Admin;

    /// Keeps on the server which events were handled, for subscriptions that name the transport
    /// as their store ([`Capabilities::idempotency`]). Each call gives another handle to the same.
    /// `None`, the default, if the server is not made for it.
    fn idempotency(&self) -> Option<Arc<dyn IdempotencyStore>> {
        None
    }
}

/// Publishes batches of events.
pub trait Publisher: Send + Sync + 'static {
    /// Publishes a batch and waits until the server has answered for every event.
    ///
    /// Returns one outcome for each event, in the order of the input. Events of one topic and
    /// one key are stored in the order of the input, and after those of every earlier call that
    /// was awaited. One event's failure does not fail the others. When the transport's own
    /// queue is full the call waits for room.
    ///
    /// Bounded by the delivery deadline of the transport's config: what has no answer by then is
    /// [`Outcome::Unknown`], or `Rejected` where it certainly was not stored.
    ///
    /// # Cancel safety
    ///
    /// A dropped call may have published any part of the batch.
    fn publish(&self, batch: &[Outgoing]) -> impl Future<Output = Vec<Outcome>> + Send;

    /// Publishes all events of a batch, on any topics, or none of them
    /// ([`Capabilities::transactions`]).
    ///
    /// Returns the position of each, in the order of the input. No reader gets one of them unless
    /// all of them are stored for good. Their order is that of [`publish`](Self::publish), also
    /// among the two. Bounded by the delivery deadline of the transport's config.
    ///
    /// # Errors
    ///
    /// An error without [`effect`](crate::Error::effect) says that nothing is stored, and never
    /// will be. [`Unknown`](crate::Effect::Unknown): all of them may be stored, or none.
    /// [`Unsupported`](ErrorKind::Unsupported) without the capability.
    ///
    /// # Cancel safety
    ///
    /// A dropped call may have published all of the batch, or nothing.
    fn publish_together(
        &self,
        batch: &[Outgoing],
    ) -> impl Future<Output = Result<Vec<Position>>> + Send {
        let _ = batch;
        async { Err(not_together("publish_together")) }
    }

    /// Waits until the server has answered for everything that was published before.
    ///
    /// # Errors
    ///
    /// [`Timeout`](crate::ErrorKind::Timeout) if answers are still out at the deadline.
    fn flush(&self, deadline: Instant) -> impl Future<Output = Result<()>> + Send;

    /// Flushes, then refuses further events as
    /// [`Rejected`](Outcome::Rejected) with [`Closed`](crate::ErrorKind::Closed). Idempotent.
    ///
    /// # Errors
    ///
    /// Those of [`flush`](Self::flush).
    fn close(&self, deadline: Instant) -> impl Future<Output = Result<()>> + Send;
}

/// Reads as one member of a consumer group.
///
/// The transport keeps the membership alive between calls: a caller that does not call
/// [`recv`](Self::recv) for an hour loses nothing and holds up nobody's heartbeat. Not calling
/// it is how a caller pauses; the transport reads ahead only up to a bound.
pub trait Subscriber: Send + 'static {
    /// Settles what this subscriber delivered.
    type Settler: Settler;

    /// Waits for at least one delivery and returns up to `max` (at least 1) that are there, in
    /// the order of their topic or partition.
    ///
    /// Bytes that are no event are delivered too, as [`Undecodable`].
    ///
    /// # Errors
    ///
    /// A [retryable](crate::Error::retryable) error leaves the subscriber usable: it
    /// reconnects by itself, and the caller calls again after a pause. Any other ends it.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: a dropped call loses no delivery.
    fn recv(&mut self, max: usize) -> impl Future<Output = Result<Vec<Delivery>>> + Send;

    /// Settles what this subscriber delivered. Each call gives another handle to the same.
    fn settler(&self) -> Self::Settler;

    /// Leaves the group: writes the settlements that are not on the server yet, then lets go.
    /// What was delivered and not settled goes to another member or to the next one.
    ///
    /// # Errors
    ///
    /// [`Timeout`](crate::ErrorKind::Timeout) if the server did not take the settlements before
    /// the deadline: those events may be delivered again.
    fn close(self, deadline: Instant) -> impl Future<Output = Result<()>> + Send;
}

/// Settles deliveries.
pub trait Settler: Send + Sync + 'static {
    /// Settles a batch, in any order, and returns one result for each.
    ///
    /// `Ok` means that the settlement is recorded; a transport that commits positions may write
    /// them to the server a little later (its commit interval), at the latest at
    /// [`Subscriber::close`] or when the partition is handed over.
    ///
    /// # Errors
    ///
    /// For each item on its own: [`Stale`](crate::ErrorKind::Stale) if the event belongs to
    /// another member by now, and nothing was settled; a retryable error if the server can't be
    /// reached.
    ///
    /// # Cancel safety
    ///
    /// A dropped call may have settled any part of the batch. Settling again is harmless.
    fn settle(
        &self,
        batch: &[(AckToken, Settlement)],
    ) -> impl Future<Output = Vec<Result<()>>> + Send;

    /// Acknowledges deliveries and publishes events in one step: all of it, or nothing
    /// ([`Capabilities::exactly_once`]). For subscribers of a
    /// [`Subscription`] that is [`exactly_once`](Subscription::exactly_once).
    ///
    /// Nothing that was delivered before one of the deliveries, from the same
    /// [source](AckToken::source), may be left unsettled. Returns the position of each event, in
    /// the order of the input. Bounded by the delivery deadline of the transport's config.
    ///
    /// # Errors
    ///
    /// As those of [`Publisher::publish_together`], and [`Stale`](ErrorKind::Stale) if one of the
    /// deliveries belongs to another member by now. After an error whose
    /// [`effect`](crate::Error::effect) is unknown the same call is to be made again: it finds out
    /// whether the one before took effect, and does nothing then. Positions that can't be told any
    /// more are `u64::MAX`.
    ///
    /// # Cancel safety
    ///
    /// A dropped call may have done all of it, or nothing; making it again is safe.
    fn settle_together(
        &self,
        acks: &[AckToken],
        batch: &[Outgoing],
    ) -> impl Future<Output = Result<Vec<Position>>> + Send {
        let _ = (acks, batch);
        async { Err(not_together("settle_together")) }
    }

    /// Whether the delivery still belongs to this member. Asked just before its handler starts:
    /// what does not belong to it any more is settled with [`Settlement::Release`] unhandled.
    fn is_current(&self, token: AckToken) -> bool {
        let _ = token;
        true
    }

    /// Stores records, each in the place of a delivery that is acknowledged by the same step of
    /// the server: both happen or neither does ([`Capabilities::forward`]). Returns one result
    /// for each, in the order of the input.
    ///
    /// Forwarding again is harmless: for a delivery that has been settled it is `Ok`, and nothing
    /// is stored.
    ///
    /// # Errors
    ///
    /// For each item on its own: [`Stale`](crate::ErrorKind::Stale) if the event belongs to
    /// another member by now; [`Unsupported`](crate::ErrorKind::Unsupported) without the
    /// capability, or if the server can't do it in one step for this pair of topics; those of
    /// [`Publisher::publish`]. Nothing was stored nor acknowledged, unless the error's
    /// [effect](crate::Error::effect) is unknown.
    ///
    /// # Cancel safety
    ///
    /// A dropped call may have forwarded any part of the batch.
    fn forward(
        &self,
        batch: &[(AckToken, Outgoing)],
    ) -> impl Future<Output = Vec<Result<()>>> + Send {
        let results = batch
            .iter()
            .map(|_| Err(admin::unsupported("forward")))
            .collect();
        async { results }
    }

    /// Notes on the server that the handler of a delivery is about to start, and returns how
    /// many times that was noted before, by whichever member ([`Capabilities::begin`]).
    ///
    /// Asked for what may have ended the process of a member that had it: if it does so again,
    /// the next member knows. One delivery of a subscriber at a time; the note of one may replace
    /// that of another of the same topic and partition. A delivery that is released was not the end
    /// of its process: where the server counts deliveries, its notes are taken back.
    ///
    /// # Errors
    ///
    /// [`Stale`](crate::ErrorKind::Stale) if the event belongs to another member by now;
    /// [`Unsupported`](crate::ErrorKind::Unsupported) without the capability; a retryable error
    /// if the server can't be reached.
    ///
    /// # Cancel safety
    ///
    /// A dropped call may have noted it.
    fn begin(&self, token: AckToken) -> impl Future<Output = Result<u32>> + Send {
        let _ = token;
        async { Err(admin::unsupported("begin")) }
    }
}

/// What becomes of a delivery on its server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Settlement {
    /// It is done: the group does not get it again.
    Ack,
    /// It was not handled: the group gets it again, now or after this member has left.
    Release,
}

/// What a member reads, and as whom.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Subscription {
    /// The consumer group. Each group gets every event; its members share them.
    pub group: Text,
    /// The name of this member within the group. Default: made up, unique.
    pub member: Option<Text>,
    /// The topics to read.
    pub topics: Vec<Topic>,
    /// Topics to read whose names are not known beforehand ([`Capabilities::discovery`]). One
    /// that appears later is read from its beginning.
    pub patterns: Vec<TopicPattern>,
    /// Where a group starts that has no position yet.
    pub start: Start,
    /// How long one delivery may stay unsettled before the transport may take the member for
    /// dead and give its events to another, where it goes by time. Longer than any handler
    /// takes, its retries included. Default: 60 s.
    pub takeover_after: Duration,
    /// Whether deliveries are acknowledged by [`Settler::settle_together`], and by nothing else
    /// ([`Capabilities::exactly_once`]). Default: no.
    pub exactly_once: bool,
    /// Where the transport counts what its server deleted too early.
    pub losses: Losses,
}

impl Subscription {
    /// A group and its topics, from the beginning, with a made-up member name.
    pub fn new(group: impl Into<Text>, topics: impl IntoIterator<Item = Topic>) -> Self {
        Self {
            group: group.into(),
            member: None,
            topics: topics.into_iter().collect(),
            patterns: Vec::new(),
            start: Start::default(),
            takeover_after: Duration::from_secs(60),
            exactly_once: false,
            losses: Losses::default(),
        }
    }

    /// Adds topics whose names are not known beforehand.
    #[must_use]
    pub fn patterns(mut self, patterns: impl IntoIterator<Item = TopicPattern>) -> Self {
        self.patterns.extend(patterns);
        self
    }

    /// Sets where a group without a position starts.
    #[must_use]
    pub fn start(mut self, start: Start) -> Self {
        self.start = start;
        self
    }

    /// Names the member.
    #[must_use]
    pub fn member(mut self, member: impl Into<Text>) -> Self {
        self.member = Some(member.into());
        self
    }

    /// Sets [`takeover_after`](Self::takeover_after).
    #[must_use]
    pub fn takeover_after(mut self, takeover_after: Duration) -> Self {
        self.takeover_after = takeover_after;
        self
    }

    /// Sets [`exactly_once`](Self::exactly_once).
    #[must_use]
    pub fn exactly_once(mut self, exactly_once: bool) -> Self {
        self.exactly_once = exactly_once;
        self
    }

    /// Sets where the transport counts what its server deleted too early.
    #[must_use]
    pub fn losses(mut self, losses: &Losses) -> Self {
        self.losses = losses.clone();
        self
    }
}

/// Where a group starts that has no position yet. A group that has one goes on from there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Start {
    /// With the oldest event the topic still has. The default: nothing is skipped unasked.
    #[default]
    Beginning,
    /// With the first event accepted after `subscribe` returned.
    Now,
    /// With the first event stored at or after a point in time
    /// ([`Capabilities::start_at_time`]).
    Time(Timestamp),
}

impl Start {
    /// With the first event stored at or after a point in time.
    pub fn time(time: impl Into<Timestamp>) -> Self {
        Self::Time(time.into())
    }
}

fn not_together(operation: &'static str) -> Error {
    Error::new(
        ErrorKind::Unsupported,
        "the transport can't store several events all or none",
    )
    .with_operation(operation)
}
