use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use moka::Expiry;
use moka::ops::compute::Op;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use tokio::time::Instant;

use super::{Claim, Claimed, Fence, IdempotencyStore};
use crate::{Result, Text};

/// How many keys are held unless it is said otherwise.
const MAX_KEYS: u64 = 1_000_000;

/// How long a record stays at the least: the cache goes by the clock on the wall, what a record
/// says by tokio's, which a test may hold.
const KEPT_AT_LEAST: Duration = Duration::from_secs(60);

/// What is to be kept for longer is kept for so long: ten years.
const FOREVER: Duration = Duration::from_secs(10 * 365 * 86_400);

/// A store in the memory of this process. Members in other processes do not see it, and it ends
/// with the process: for tests, and for one process whose events come twice for other reasons.
///
/// It holds a bounded number of keys, by default a million; beyond it those go first that were not
/// asked for the longest.
pub struct MemoryIdempotency {
    records: Cache<Text, Record>,
}

#[derive(Debug, Clone, Copy)]
struct Record {
    fence: Fence,
    done: bool,
    until: Instant,
    keep: Duration,
}

impl MemoryIdempotency {
    /// An empty store for a million keys.
    pub fn new() -> Self {
        Self::with_capacity(MAX_KEYS)
    }

    /// An empty store for a number of keys.
    pub fn with_capacity(max_keys: u64) -> Self {
        let records = Cache::builder()
            .max_capacity(max_keys)
            // The other policy may refuse what is new, and with it a claim.
            .eviction_policy(EvictionPolicy::lru())
            .expire_after(Kept)
            .build();
        Self { records }
    }

    /// One step on a key: what `decide` makes of its record, if that is still in force.
    fn step<T>(
        &self,
        claim: &Claim,
        decide: impl FnOnce(Option<Record>, Instant) -> (Op<Record>, T),
    ) -> T {
        let mut answer = None;
        let entry = self.records.entry_by_ref(&claim.key);
        entry.and_compute_with(|entry| {
            let now = Instant::now();
            let record = entry.map(moka::Entry::into_value);
            let (op, decided) = decide(record.filter(|record| record.until > now), now);
            answer = Some(decided);
            op
        });
        answer.expect("the cache asks once for each step")
    }
}

impl Record {
    fn put(fence: Fence, done: bool, now: Instant, keep: Duration) -> Op<Self> {
        let keep = keep.min(FOREVER);
        Op::Put(Self {
            fence,
            done,
            until: now + keep,
            keep,
        })
    }

    fn is_held_by(&self, fence: Fence) -> bool {
        !self.done && self.fence == fence
    }
}

#[async_trait]
impl IdempotencyStore for MemoryIdempotency {
    async fn claim(&self, claims: &[Claim], lease: Duration) -> Result<Vec<Claimed>> {
        let claim = |claim: &Claim| {
            self.step(claim, |record, now| match record {
                Some(record) if record.done => (Op::Nop, Claimed::Done),
                Some(record) if record.fence != claim.fence => {
                    (Op::Nop, Claimed::Busy(record.until - now))
                }
                _ => (
                    Record::put(claim.fence, false, now, lease),
                    Claimed::Claimed,
                ),
            })
        };
        Ok(claims.iter().map(claim).collect())
    }

    async fn renew(&self, claims: &[Claim], lease: Duration) -> Result<Vec<bool>> {
        let renew = |claim: &Claim| {
            self.step(claim, |record, now| match record {
                Some(record) if record.is_held_by(claim.fence) => {
                    (Record::put(claim.fence, false, now, lease), true)
                }
                _ => (Op::Nop, false),
            })
        };
        Ok(claims.iter().map(renew).collect())
    }

    async fn complete(&self, claims: &[Claim], retain: Duration) -> Result<Vec<bool>> {
        let complete = |claim: &Claim| {
            self.step(claim, |record, now| match record {
                Some(record) if record.fence != claim.fence => (Op::Nop, false),
                _ => (Record::put(claim.fence, true, now, retain), true),
            })
        };
        Ok(claims.iter().map(complete).collect())
    }

    async fn release(&self, claims: &[Claim]) -> Result<Vec<bool>> {
        let release = |claim: &Claim| {
            self.step(claim, |record, _| match record {
                Some(record) if record.is_held_by(claim.fence) => (Op::Remove, true),
                _ => (Op::Nop, false),
            })
        };
        Ok(claims.iter().map(release).collect())
    }
}

impl Default for MemoryIdempotency {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for MemoryIdempotency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryIdempotency")
            .field("keys", &self.records.entry_count())
            .finish()
    }
}

/// Drops records from the cache that are not in force any more.
struct Kept;

impl Expiry<Text, Record> for Kept {
    fn expire_after_create(
        &self,
        _: &Text,
        record: &Record,
        _: std::time::Instant,
    ) -> Option<Duration> {
        Some(record.keep.max(KEPT_AT_LEAST))
    }

    fn expire_after_update(
        &self,
        _: &Text,
        record: &Record,
        _: std::time::Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        Some(record.keep.max(KEPT_AT_LEAST))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_secs(30);
    const RETAIN: Duration = Duration::from_secs(86_400);

    fn claim(key: &str) -> Claim {
        Claim::new(key, Fence::unique())
    }

    async fn ask(store: &MemoryIdempotency, claim: &Claim) -> Claimed {
        let answers = store.claim(std::slice::from_ref(claim), LEASE).await;
        answers.unwrap()[0]
    }

    #[tokio::test(start_paused = true)]
    async fn a_claim_keeps_others_off_until_its_lease_runs_out() {
        let store = MemoryIdempotency::new();
        let (first, second) = (claim("k"), claim("k"));
        assert_eq!(ask(&store, &first).await, Claimed::Claimed);
        tokio::time::advance(LEASE / 3).await;
        assert_eq!(ask(&store, &second).await, Claimed::Busy(LEASE * 2 / 3));
        assert_eq!(
            store
                .renew(std::slice::from_ref(&first), LEASE)
                .await
                .unwrap(),
            [true]
        );
        assert_eq!(ask(&store, &second).await, Claimed::Busy(LEASE));
        tokio::time::advance(LEASE).await;
        assert_eq!(ask(&store, &second).await, Claimed::Claimed);
        let late = [first];
        assert_eq!(store.renew(&late, LEASE).await.unwrap(), [false]);
        assert_eq!(store.release(&late).await.unwrap(), [false]);
        assert_eq!(store.complete(&late, RETAIN).await.unwrap(), [false]);
        assert_eq!(store.renew(&[second], LEASE).await.unwrap(), [true]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_mark_lasts_for_the_time_it_is_retained() {
        let store = MemoryIdempotency::new();
        let (first, second) = (claim("k"), claim("k"));
        assert_eq!(ask(&store, &first).await, Claimed::Claimed);
        for _ in 0..2 {
            let completed = store.complete(std::slice::from_ref(&first), RETAIN).await;
            assert_eq!(completed.unwrap(), [true], "also when it is made again");
        }
        assert_eq!(ask(&store, &second).await, Claimed::Done);
        assert_eq!(store.release(&[first]).await.unwrap(), [false]);
        tokio::time::advance(RETAIN).await;
        assert_eq!(ask(&store, &second).await, Claimed::Claimed);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_released_can_be_claimed_at_once() {
        let store = MemoryIdempotency::new();
        let (first, second) = (claim("k"), claim("k"));
        assert_eq!(ask(&store, &first).await, Claimed::Claimed);
        assert_eq!(ask(&store, &first).await, Claimed::Claimed, "its own again");
        assert_eq!(store.release(&[first]).await.unwrap(), [true]);
        assert_eq!(ask(&store, &second).await, Claimed::Claimed);
    }

    #[tokio::test(start_paused = true)]
    async fn a_claim_that_ran_out_and_was_not_taken_is_completed() {
        let store = MemoryIdempotency::new();
        let first = claim("k");
        assert_eq!(ask(&store, &first).await, Claimed::Claimed);
        tokio::time::advance(2 * LEASE).await;
        assert_eq!(
            store
                .renew(std::slice::from_ref(&first), LEASE)
                .await
                .unwrap(),
            [false]
        );
        assert_eq!(store.complete(&[first], RETAIN).await.unwrap(), [true]);
        assert_eq!(ask(&store, &claim("k")).await, Claimed::Done);
    }

    #[tokio::test(start_paused = true)]
    async fn of_the_claims_of_one_slice_the_first_on_a_key_is_granted() {
        let store = MemoryIdempotency::new();
        let claims = [claim("k"), claim("other"), claim("k")];
        let answers = store.claim(&claims, LEASE).await.unwrap();
        let right = [Claimed::Claimed, Claimed::Claimed, Claimed::Busy(LEASE)];
        assert_eq!(answers, right);
    }

    #[test]
    fn a_fence_is_kept_as_bytes() {
        let fence = Fence::unique();
        assert_eq!(Fence::from_bytes(fence.to_bytes()), fence);
        assert_ne!(Fence::unique(), fence);
        assert_eq!(fence.to_string().len(), 32);
    }
}
