//! Where it is kept which events were handled, so that one that comes twice is handled once.
//!
//! A subscription with [`idempotency`](crate::config::IdempotencyConfig) claims the key of an event
//! before its handler starts, renews the claim while the handler runs, and completes it once the
//! handler succeeded, before the event is settled. A copy that comes meanwhile is busy: it waits
//! in its lane, which costs it no attempt. A copy that comes later is done: it is acknowledged and
//! counted. If the handler fails for good the claim is released, so that the event can come again.
//!
//! # What it does not do
//!
//! A process that dies between the handler's effect and [`complete`](IdempotencyStore::complete)
//! leaves a claim that runs out with its lease. Then the event is handled again: **the effect
//! happens twice**. No store beside the effect can help that. The way out is to have both in one: a
//! handler that writes to a database inserts the event's identity into a table with a unique index
//! *in the same transaction* as its effect, and acknowledges when the insert finds it there. Such
//! a handler needs no store.

mod memory;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use uuid::Uuid;

pub use memory::MemoryIdempotency;

use crate::{Result, Text};

/// Keeps claims and marks, shared by all members of all groups.
///
/// Every call takes a slice and answers for each item, in its order, or fails as a whole. Each
/// item is one atomic step: of several claims on one key, whoever makes them, one is granted.
/// The items of a slice are taken in their order. A slice should cost one round trip.
///
/// The cases `idempotency_*` of the crate `polybus-conformance` hold the stores of transports to it.
///
/// # Errors
///
/// Any error means that nothing is known of any item. The caller makes the call again after a
/// pause, with the same fences, for as long as it takes; that must be harmless.
///
/// # Cancel safety
///
/// A dropped call may have done any part of the slice.
#[async_trait]
pub trait IdempotencyStore: Send + Sync + 'static {
    /// Claims keys for a time.
    ///
    /// A key is claimed if nobody holds it and it is not done, or if the same fence holds it
    /// already: then the lease starts anew.
    async fn claim(&self, claims: &[Claim], lease: Duration) -> Result<Vec<Claimed>>;

    /// Starts the leases of claims anew. `false` for one that its fence does not hold any more:
    /// it ran out, or another one has it.
    async fn renew(&self, claims: &[Claim], lease: Duration) -> Result<Vec<bool>>;

    /// Marks keys as done, for a time.
    ///
    /// `false`, and nothing is changed, if another fence holds the key or has completed it. A claim
    /// that ran out and that nobody has taken is completed all the same.
    async fn complete(&self, claims: &[Claim], retain: Duration) -> Result<Vec<bool>>;

    /// Gives claims up, so that others can make them. `false`, and nothing is changed, for one that
    /// its fence does not hold.
    async fn release(&self, claims: &[Claim]) -> Result<Vec<bool>>;
}

/// A store that is shared.
#[async_trait]
impl<S: IdempotencyStore + ?Sized> IdempotencyStore for Arc<S> {
    async fn claim(&self, claims: &[Claim], lease: Duration) -> Result<Vec<Claimed>> {
        (**self).claim(claims, lease).await
    }

    async fn renew(&self, claims: &[Claim], lease: Duration) -> Result<Vec<bool>> {
        (**self).renew(claims, lease).await
    }

    async fn complete(&self, claims: &[Claim], retain: Duration) -> Result<Vec<bool>> {
        (**self).complete(claims, retain).await
    }

    async fn release(&self, claims: &[Claim]) -> Result<Vec<bool>> {
        (**self).release(claims).await
    }
}

/// A key, and who claims it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Claim {
    /// What is claimed. The part before the first `:` names the consumer group; a
    /// store of several nodes may keep by it what belongs together.
    pub key: Text,
    /// Tells this claim from every other one on the key.
    pub fence: Fence,
}

impl Claim {
    /// A claim on a key.
    pub fn new(key: impl Into<Text>, fence: Fence) -> Self {
        Self {
            key: key.into(),
            fence,
        }
    }
}

/// What came of a claim. Exhaustive: whoever claims must know what each answer lets them do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claimed {
    /// It is granted, until its lease runs out.
    Claimed,
    /// Another fence holds the key, for this long unless it renews.
    Busy(Duration),
    /// The key is done.
    Done,
}

/// Names one claim. Whoever lost a key to another one still has the old fence, with which it can
/// change nothing.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fence(u128);

impl Fence {
    /// A fence that nobody else has.
    pub fn unique() -> Self {
        Self(Uuid::now_v7().as_u128())
    }

    /// A fence that was kept somewhere.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(u128::from_be_bytes(bytes))
    }

    /// The fence, to be kept somewhere.
    pub const fn to_bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }
}

/// Makes fences that nobody else has, for many claims in a row: none asks the clock.
pub(crate) struct Fences(u128);

impl Fences {
    pub(crate) fn new() -> Self {
        Self(Uuid::new_v4().as_u128())
    }

    pub(crate) fn next(&mut self) -> Fence {
        // From a random place: that two series meet is as unlikely as that two random ids do.
        self.0 = self.0.wrapping_add(1);
        Fence(self.0)
    }
}

impl fmt::Display for Fence {
    /// 32 hexadecimal digits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for Fence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fence({self})")
    }
}
