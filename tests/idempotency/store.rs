//! A store that counts its calls and does what a test wants.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use polybus::idempotency::{Claim, Claimed, IdempotencyStore, MemoryIdempotency};
use polybus::{Error, ErrorKind, Result};

#[derive(Default)]
pub(crate) struct Probe {
    inner: MemoryIdempotency,
    calls: Mutex<Calls>,
    /// Every call fails.
    pub(crate) down: AtomicBool,
    /// Every other call fails.
    pub(crate) fails_by_turns: AtomicBool,
    turn: AtomicBool,
    /// The next claiming never ends.
    pub(crate) claim_hangs: AtomicBool,
    /// Completing never ends.
    pub(crate) hangs: AtomicBool,
}

#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Calls {
    pub(crate) claims: usize,
    pub(crate) completes: usize,
}

impl Probe {
    pub(crate) fn calls(&self) -> Calls {
        *self.calls.lock().unwrap()
    }

    pub(crate) fn set_down(&self, down: bool) {
        self.down.store(down, Ordering::SeqCst);
    }

    fn check(&self) -> Result<()> {
        let by_turns = self.fails_by_turns.load(Ordering::SeqCst);
        let its_turn = by_turns && self.turn.fetch_not(Ordering::SeqCst);
        if its_turn || self.down.load(Ordering::SeqCst) {
            return Err(Error::new(ErrorKind::Connect, "the store is down"));
        }
        Ok(())
    }
}

#[async_trait]
impl IdempotencyStore for Probe {
    async fn claim(&self, claims: &[Claim], lease: Duration) -> Result<Vec<Claimed>> {
        self.calls.lock().unwrap().claims += 1;
        self.check()?;
        if self.claim_hangs.swap(false, Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        self.inner.claim(claims, lease).await
    }

    async fn renew(&self, claims: &[Claim], lease: Duration) -> Result<Vec<bool>> {
        self.check()?;
        self.inner.renew(claims, lease).await
    }

    async fn complete(&self, claims: &[Claim], retain: Duration) -> Result<Vec<bool>> {
        self.calls.lock().unwrap().completes += 1;
        self.check()?;
        if self.hangs.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        self.inner.complete(claims, retain).await
    }

    async fn release(&self, claims: &[Claim]) -> Result<Vec<bool>> {
        self.check()?;
        self.inner.release(claims).await
    }
}
