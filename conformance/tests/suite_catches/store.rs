//! A store of idempotency with a flaw built in.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use polybus_core::Result;
use polybus_core::idempotency::{Claim, Claimed, Fence, IdempotencyStore};

use crate::flaws::Flaw;

pub(crate) struct FlawedStore {
    pub(crate) inner: Arc<dyn IdempotencyStore>,
    pub(crate) flaw: Flaw,
}

#[async_trait]
impl IdempotencyStore for FlawedStore {
    async fn claim(&self, claims: &[Claim], lease: Duration) -> Result<Vec<Claimed>> {
        let mut answers = self.inner.claim(claims, lease).await?;
        match self.flaw {
            Flaw::GrantsTwice => {
                let busy = |it: &&mut Claimed| matches!(it, Claimed::Busy(_));
                answers
                    .iter_mut()
                    .filter(busy)
                    .for_each(|it| *it = Claimed::Claimed);
            }
            Flaw::ForgetsWhatIsDone => {
                let done = |it: &&mut Claimed| **it == Claimed::Done;
                answers
                    .iter_mut()
                    .filter(done)
                    .for_each(|it| *it = Claimed::Claimed);
            }
            _ => {}
        }
        Ok(answers)
    }

    async fn renew(&self, claims: &[Claim], lease: Duration) -> Result<Vec<bool>> {
        if self.flaw == Flaw::RenewsNothing {
            return Ok(vec![true; claims.len()]);
        }
        self.inner.renew(claims, lease).await
    }

    async fn complete(&self, claims: &[Claim], retain: Duration) -> Result<Vec<bool>> {
        let completed = self.inner.complete(claims, retain).await?;
        match self.flaw {
            Flaw::IgnoresFences => Ok(vec![true; completed.len()]),
            _ => Ok(completed),
        }
    }

    async fn release(&self, claims: &[Claim]) -> Result<Vec<bool>> {
        match self.flaw {
            Flaw::ReleasesNothing => {
                let others: Vec<Claim> = claims
                    .iter()
                    .map(|claim| Claim::new(claim.key.clone(), Fence::unique()))
                    .collect();
                self.inner.release(&others).await?;
                Ok(vec![true; claims.len()])
            }
            _ => self.inner.release(claims).await,
        }
    }
}
