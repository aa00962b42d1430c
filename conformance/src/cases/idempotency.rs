//! The store that keeps which events were handled.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use polybus_core::idempotency::{Claim, Claimed, Fence, IdempotencyStore};
use polybus_core::transport::Transport;

use super::case;
use crate::case::{Case, Need};
use crate::failure::{Check, Failure, ensure};
use crate::scene::{Asking, Scene};

pub(super) const CASES: &[Case] = &[
    case!(
        idempotency_grants_a_key_once,
        "Of many clients that claim the same keys at the same time, one gets each of them.",
        needs: [Need::Idempotency]
    ),
    case!(
        idempotency_is_fenced,
        "Whose lease ran out can't renew, complete or release what another one has claimed since.",
        needs: [Need::Idempotency]
    ),
    case!(
        idempotency_remembers_what_is_done,
        "What was completed is done for everybody, until its retention ends.",
        needs: [Need::Idempotency]
    ),
    case!(
        idempotency_renews_and_releases,
        "A claim that is renewed outlives its lease, and one that is released is free at once.",
        needs: [Need::Idempotency]
    ),
];

/// Longer than any case takes.
const LONG: Duration = Duration::from_secs(3_600);

/// Longer than a few calls take.
const MEDIUM: Duration = Duration::from_secs(20);

/// Over soon: a case waits for it.
const SHORT: Duration = Duration::from_millis(250);

type Store = Arc<dyn IdempotencyStore>;

async fn store(scene: &Scene) -> Check<Store> {
    let client = scene.connect().await?;
    let store = client.transport().idempotency();
    store.ok_or_else(|| Failure::new("the transport declares a store and gives none"))
}

fn claim(key: &str) -> Claim {
    Claim::new(key, Fence::unique())
}

/// Keys of two groups, so that a store that divides them by group has to.
fn keys(scene: &Scene, count: usize) -> Vec<String> {
    let name = scene.name();
    let key = |number| format!("{name}-{}:handler:source:{number}", number % 2);
    (0..count).map(key).collect()
}

async fn claim_one(store: &Store, claim: &Claim, lease: Duration) -> Check<Claimed> {
    let answers = store.claim(std::slice::from_ref(claim), lease).await?;
    ensure!(
        answers.len() == 1,
        "{} answers for one claim",
        answers.len()
    );
    Ok(answers[0])
}

async fn idempotency_grants_a_key_once(scene: Scene) -> Check {
    const CLIENTS: usize = 8;
    let keys = keys(&scene, 700);
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        let claims: Vec<Claim> = keys.iter().map(|key| claim(key)).collect();
        clients.push((store(&scene).await?, claims));
    }
    let _step = scene.step("claiming");
    let claiming = clients
        .iter()
        .map(|(store, claims)| store.claim(claims, LONG));
    let mut granted = vec![0; keys.len()];
    for answers in join_all(claiming).await {
        let answers = answers?;
        ensure!(
            answers.len() == keys.len(),
            "{} answers for {} claims",
            answers.len(),
            keys.len()
        );
        for (granted, answer) in granted.iter_mut().zip(answers) {
            match answer {
                Claimed::Claimed => *granted += 1,
                Claimed::Busy(remaining) => ensure!(
                    remaining <= LONG && remaining > LONG / 2,
                    "busy for {remaining:?} of a lease of {LONG:?}"
                ),
                Claimed::Done => ensure!(false, "a key was done that nobody has completed"),
            }
        }
    }
    let wrong = granted.iter().filter(|count| **count != 1).count();
    ensure!(
        wrong == 0,
        "{wrong} of {} keys were not granted once",
        keys.len()
    );
    Ok(())
}

/// Claims until the lease of whoever has the key is over.
async fn take_over(scene: &Scene, store: &Store, claim: &Claim) -> Check {
    let mut asking = Asking::until(scene, "the lease ran out");
    loop {
        let answer = claim_one(store, claim, LONG).await?;
        if answer == Claimed::Claimed {
            return Ok(());
        }
        asking.again(format!("{answer:?}")).await?;
    }
}

async fn idempotency_is_fenced(scene: Scene) -> Check {
    let (mine, other) = (store(&scene).await?, store(&scene).await?);
    for key in keys(&scene, 2) {
        let (late, next) = (claim(&key), claim(&key));
        claim_one(&mine, &late, SHORT).await?;
        take_over(&scene, &other, &next).await?;
        let late = [late];
        let renewed = mine.renew(&late, LONG).await?;
        ensure!(renewed == [false], "a late holder renewed: {renewed:?}");
        let released = mine.release(&late).await?;
        ensure!(released == [false], "a late holder released: {released:?}");
        let completed = mine.complete(&late, LONG).await?;
        ensure!(
            completed == [false],
            "a late holder completed: {completed:?}"
        );
        let renewed = other.renew(std::slice::from_ref(&next), LONG).await?;
        ensure!(renewed == [true], "the holder could not renew: {renewed:?}");
        let completed = other.complete(&[next], LONG).await?;
        ensure!(
            completed == [true],
            "the holder could not complete: {completed:?}"
        );
        let completed = mine.complete(&late, LONG).await?;
        ensure!(
            completed == [false],
            "a late holder completed what was done: {completed:?}"
        );
    }
    Ok(())
}

async fn idempotency_remembers_what_is_done(scene: Scene) -> Check {
    let (mine, other) = (store(&scene).await?, store(&scene).await?);
    let keys = keys(&scene, 3);
    let claims: Vec<Claim> = keys.iter().map(|key| claim(key)).collect();
    mine.claim(&claims, LONG).await?;
    for _ in 0..2 {
        let completed = mine.complete(&claims[..2], LONG).await?;
        ensure!(
            completed == [true, true],
            "completing, also again, answered {completed:?}"
        );
    }
    let completed = mine.complete(&claims[2..], SHORT).await?;
    ensure!(completed == [true], "completing answered {completed:?}");
    for (key, mine_too) in keys[..2].iter().zip(&claims) {
        for claim in [&claim(key), mine_too] {
            let answer = claim_one(&other, claim, LONG).await?;
            ensure!(answer == Claimed::Done, "what was completed is {answer:?}");
        }
    }
    let released = mine.release(&claims[..1]).await?;
    ensure!(released == [false], "what is done was released");
    take_over(&scene, &other, &claim(&keys[2])).await
}

async fn idempotency_renews_and_releases(scene: Scene) -> Check {
    let (mine, other) = (store(&scene).await?, store(&scene).await?);
    let key = keys(&scene, 1).remove(0);
    let (first, second) = (claim(&key), claim(&key));
    for _ in 0..2 {
        let answer = claim_one(&mine, &first, MEDIUM).await?;
        ensure!(
            answer == Claimed::Claimed,
            "one's own claim, also again, is {answer:?}"
        );
    }
    let renewed = mine.renew(std::slice::from_ref(&first), LONG).await?;
    ensure!(renewed == [true], "the holder could not renew");
    let answer = claim_one(&other, &second, LONG).await?;
    let right = matches!(answer, Claimed::Busy(remaining) if remaining > MEDIUM);
    ensure!(right, "what was renewed for {LONG:?} is {answer:?}");
    let released = mine.release(&[first]).await?;
    ensure!(released == [true], "the holder could not release");
    let answer = claim_one(&other, &second, LONG).await?;
    ensure!(
        answer == Claimed::Claimed,
        "what was released is {answer:?}"
    );
    Ok(())
}
