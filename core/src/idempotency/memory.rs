use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use foldhash::fast::RandomState;
use lru::LruCache;
use tokio::time::Instant;

use super::{Claim, Claimed, Fence, IdempotencyStore};
use crate::{Result, Text};

/// How many keys are held unless it is said otherwise.
const MAX_KEYS: u64 = 1_000_000;

/// What is to be kept for longer is kept for so long: ten years.
const FOREVER: Duration = Duration::from_secs(10 * 365 * 86_400);

/// A store in the memory of this process. Members in other processes do not see it, and it ends
/// with the process: for tests, and for one process whose events come twice for other reasons.
///
/// It holds a bounded number of keys, by default a million; beyond it those go first that were not
/// asked for the longest.
pub struct MemoryIdempotency {
    max_keys: usize,
    /// The key that was not asked for the longest is the first to go. Locked once for a slice.
    records: Mutex<Records>,
}

type Records = LruCache<Text, Record, RandomState>;

#[derive(Debug, Clone, Copy)]
struct Record {
    fence: Fence,
    done: bool,
    /// When it stops being in force.
    until: Instant,
}

impl MemoryIdempotency {
    /// An empty store for a million keys.
    pub fn new() -> Self {
        Self::with_capacity(MAX_KEYS)
    }

    /// An empty store for a number of keys, at least one.
    pub fn with_capacity(max_keys: u64) -> Self {
        let max_keys = usize::try_from(max_keys).unwrap_or(usize::MAX).max(1);
        let records = LruCache::unbounded_with_hasher(RandomState::default());
        Self {
            max_keys,
            records: Mutex::new(records),
        }
    }

    /// Takes a step for each claim, in their order, and makes room again.
    fn steps<T>(
        &self,
        claims: &[Claim],
        step: impl Fn(&mut Records, &Claim, Instant) -> T,
    ) -> Vec<T> {
        let mut records = self.lock();
        let now = Instant::now();
        let steps = claims.iter().map(|claim| step(&mut records, claim, now));
        let answers = steps.collect();
        make_room(&mut records, self.max_keys, now, 2 * claims.len());
        answers
    }

    fn lock(&self) -> MutexGuard<'_, Records> {
        // No step panics.
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Lets go of what is too much, and of some of what is not in force any more: not all at once, since
/// others wait.
fn make_room(records: &mut Records, max_keys: usize, now: Instant, mut some: usize) {
    while let Some((_, record)) = records.peek_lru() {
        let is_over = some > 0 && !record.is_in_force(now);
        if records.len() <= max_keys && !is_over {
            return;
        }
        records.pop_lru();
        some = some.saturating_sub(1);
    }
}

impl Record {
    fn new(fence: Fence, done: bool, now: Instant, keep: Duration) -> Self {
        let until = now + keep.min(FOREVER);
        Self { fence, done, until }
    }

    fn is_in_force(&self, now: Instant) -> bool {
        self.until > now
    }

    fn is_held_by(&self, fence: Fence, now: Instant) -> bool {
        !self.done && self.fence == fence && self.is_in_force(now)
    }
}

#[async_trait]
impl IdempotencyStore for MemoryIdempotency {
    async fn claim(&self, claims: &[Claim], lease: Duration) -> Result<Vec<Claimed>> {
        Ok(self.steps(claims, |records, claim, now| {
            let own = Record::new(claim.fence, false, now, lease);
            let record = records.get_or_insert_mut_ref(&claim.key, || own);
            if record.is_in_force(now) {
                if record.done {
                    return Claimed::Done;
                }
                if record.fence != claim.fence {
                    return Claimed::Busy(record.until - now);
                }
            }
            *record = own;
            Claimed::Claimed
        }))
    }

    async fn renew(&self, claims: &[Claim], lease: Duration) -> Result<Vec<bool>> {
        Ok(self.steps(claims, |records, claim, now| {
            let record = records.get_mut(&claim.key);
            let held = record.filter(|record| record.is_held_by(claim.fence, now));
            held.map(|record| *record = Record::new(claim.fence, false, now, lease))
                .is_some()
        }))
    }

    async fn complete(&self, claims: &[Claim], retain: Duration) -> Result<Vec<bool>> {
        Ok(self.steps(claims, |records, claim, now| {
            let done = Record::new(claim.fence, true, now, retain);
            let record = records.get_or_insert_mut_ref(&claim.key, || done);
            if record.is_in_force(now) && record.fence != claim.fence {
                return false;
            }
            *record = done;
            true
        }))
    }

    async fn release(&self, claims: &[Claim]) -> Result<Vec<bool>> {
        Ok(self.steps(claims, |records, claim, now| {
            let record = records.peek(&claim.key);
            let held = record.is_some_and(|record| record.is_held_by(claim.fence, now));
            if held {
                records.pop(&claim.key);
            }
            held
        }))
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
            .field("keys", &self.lock().len())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::super::Fences;
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

    #[tokio::test(start_paused = true)]
    async fn of_those_that_complete_a_key_in_one_slice_the_first_does() {
        let store = MemoryIdempotency::new();
        let claims = [claim("k"), claim("other"), claim("k")];
        for _ in 0..2 {
            let completed = store.complete(&claims, RETAIN).await;
            assert_eq!(completed.unwrap(), [true, true, false]);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn beyond_its_capacity_the_key_goes_that_was_not_asked_for_the_longest() {
        let store = MemoryIdempotency::with_capacity(2);
        for key in ["a", "b"] {
            let completed = store.complete(&[claim(key)], RETAIN).await;
            assert_eq!(completed.unwrap(), [true]);
        }
        assert_eq!(ask(&store, &claim("a")).await, Claimed::Done);
        assert_eq!(ask(&store, &claim("c")).await, Claimed::Claimed);
        assert_eq!(ask(&store, &claim("a")).await, Claimed::Done);
        assert_eq!(
            ask(&store, &claim("b")).await,
            Claimed::Claimed,
            "forgotten"
        );
        assert_eq!(store.lock().len(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_not_in_force_any_more_is_let_go_while_others_are_asked_for() {
        let store = MemoryIdempotency::new();
        let marks: Vec<Claim> = (0..100).map(|key| claim(&key.to_string())).collect();
        store.complete(&marks, RETAIN).await.unwrap();
        tokio::time::advance(RETAIN).await;
        for _ in 0..50 {
            assert_eq!(ask(&store, &claim("k")).await, Claimed::Claimed);
            tokio::time::advance(LEASE).await;
        }
        assert_eq!(store.lock().len(), 1);
    }

    #[test]
    fn a_series_of_fences_has_none_twice() {
        let mut series = [Fences::new(), Fences::new()];
        let made = (0..1_000).flat_map(|_| series.each_mut().map(Fences::next));
        let made: std::collections::HashSet<Fence> = made.collect();
        assert_eq!(made.len(), 2_000);
    }

    #[test]
    fn a_fence_is_kept_as_bytes() {
        let fence = Fence::unique();
        assert_eq!(Fence::from_bytes(fence.to_bytes()), fence);
        assert_ne!(Fence::unique(), fence);
        assert_eq!(fence.to_string().len(), 32);
    }
}
