//! The end of a publisher, and of a call.

use std::slice::from_ref;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::FutureExt;
use polybus_core::ErrorKind;
use polybus_core::transport::{Outcome, Publisher};

use super::case;
use crate::case::Case;
use crate::failure::{Check, ensure};
use crate::journal::Journal;
use crate::scene::Scene;
use crate::sender::{Sender, addressed, ids, numbered};

pub(super) const CASES: &[Case] = &[
    case!(
        closed_publisher_refuses,
        "After `close` events are rejected as closed; those before it are stored; closing again is harmless."
    ),
    case!(
        closed_publisher_leaves_the_others,
        "Another publisher of the same client goes on when one is closed."
    ),
    case!(
        close_during_publish,
        "A close amid concurrent publishes: every event has an outcome, and it is true."
    ),
    case!(
        cancelled_publish_leaves_the_publisher_usable,
        "Dropped publish calls store an event at most once and harm no later call."
    ),
];

async fn closed_publisher_refuses(scene: Scene) -> Check {
    let topic = scene.topic().await?;
    let client = scene.connect().await?;
    let sender = client.sender().await?;
    let events = numbered("before", 0..50);
    sender.send_to(&topic, &events).await?;
    sender.close().await?;
    let late = addressed(&topic, &numbered("after", 0..3));
    for outcome in sender.try_send(&late).await? {
        ensure!(
            matches!(&outcome, Outcome::Rejected(error) if error.kind() == ErrorKind::Closed),
            "a closed publisher answered {outcome:?}"
        );
    }
    sender.close().await?;
    let journal = Journal::of(&events);
    let mut member = client.join(&scene.name(), &[topic]).await?;
    member.work(&journal).await?;
    member.ensure_quiet().await?;
    member.close().await?;
    journal.ensure_once()
}

async fn closed_publisher_leaves_the_others(scene: Scene) -> Check {
    let topic = scene.topic().await?;
    let client = scene.connect().await?;
    let (first, second) = (client.sender().await?, client.sender().await?);
    let events = numbered("event", 0..30);
    first.send_to(&topic, &events[..10]).await?;
    first.close().await?;
    drop(first);
    second.send_to(&topic, &events[10..20]).await?;
    client
        .sender()
        .await?
        .send_to(&topic, &events[20..])
        .await?;
    let journal = Journal::of(&events);
    let mut member = client.join(&scene.name(), &[topic]).await?;
    member.work(&journal).await?;
    member.close().await?;
    journal.ensure_once()
}

/// What the outcomes of many calls said.
#[derive(Default)]
struct Told {
    accepted: Vec<String>,
    unknown: Vec<String>,
}

async fn close_during_publish(scene: Scene) -> Check {
    const CALLERS: usize = 4;
    let topic = scene.topic().await?;
    let sender = scene.connect().await?.sender().await?;
    let accepted = AtomicUsize::new(0);
    let callers = (0..CALLERS).map(|number| {
        let label = format!("caller{number}");
        publish_until_closed(&sender, &topic, label, &accepted)
    });
    let close = async {
        // Amid the calls, not before or after them.
        while accepted.load(Ordering::SeqCst) < 100 {
            tokio::task::yield_now().await;
        }
        sender.close().await
    };
    let (told, ()) = tokio::try_join!(futures::future::try_join_all(callers), close)?;

    let unknown = told.iter().flat_map(|told| told.unknown.iter().cloned());
    let accepted = told.iter().flat_map(|told| told.accepted.iter().cloned());
    let journal = Journal::of_ids(accepted).allowing(unknown);
    let client = scene.connect().await?;
    let mut member = client.join(&scene.name(), from_ref(&topic)).await?;
    // A rejected event that comes all the same is one that the journal does not expect.
    member.work(&journal).await?;
    member.close().await?;
    journal.ensure_once()
}

async fn publish_until_closed(
    sender: &Sender,
    topic: &polybus_core::Topic,
    label: String,
    accepted: &AtomicUsize,
) -> Check<Told> {
    let mut told = Told::default();
    for call in 0.. {
        let events = numbered(&format!("{label}-{call}"), 0..10);
        let outcomes = sender.try_send(&addressed(topic, &events)).await?;
        let mut closed = false;
        for (id, outcome) in ids(&events).into_iter().zip(outcomes) {
            match outcome {
                Outcome::Accepted(_) => {
                    accepted.fetch_add(1, Ordering::SeqCst);
                    told.accepted.push(id);
                }
                Outcome::Unknown(_) => told.unknown.push(id),
                Outcome::Rejected(error) => {
                    ensure!(
                        error.kind() == ErrorKind::Closed,
                        "while it was being closed the publisher rejected with {error:?}"
                    );
                    closed = true;
                }
            }
        }
        if closed {
            break;
        }
        tokio::task::yield_now().await;
    }
    Ok(told)
}

async fn cancelled_publish_leaves_the_publisher_usable(scene: Scene) -> Check {
    let topic = scene.topic().await?;
    let client = scene.connect().await?;
    let sender = client.sender().await?;
    let mut maybe = Vec::new();
    let mut certain = Vec::new();
    for call in 0..100 {
        let events = numbered(&format!("dropped-{call}"), 0..5);
        let batch = addressed(&topic, &events);
        let mut publishing = Box::pin(sender.publisher().publish(&batch));
        let mut ended = false;
        for _ in 0..scene.random().below(4) {
            ended = ended || (&mut publishing).now_or_never().is_some();
            tokio::task::yield_now().await;
        }
        drop(publishing);
        maybe.extend(ids(&events));
        if call % 10 == 0 {
            let events = numbered(&format!("kept-{call}"), 0..5);
            sender.send_to(&topic, &events).await?;
            certain.extend(ids(&events));
        }
    }
    sender.close().await?;
    let last = numbered("last", 0..1);
    client.sender().await?.send_to(&topic, &last).await?;
    certain.extend(ids(&last));
    let journal = Journal::of_ids(certain).allowing(maybe);
    let mut member = client.join(&scene.name(), &[topic]).await?;
    member.work(&journal).await?;
    member.close().await?;
    journal.ensure_once()
}
