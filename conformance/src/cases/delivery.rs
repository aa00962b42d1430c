//! The first promise: what was accepted comes, once, and to whom it belongs.

use polybus_core::transport::Outgoing;

use super::case;
use crate::case::Case;
use crate::failure::{Check, ensure};
use crate::journal::Journal;
use crate::scene::Scene;
use crate::sender::{addressed, numbered};

pub(super) const CASES: &[Case] = &[
    case!(
        publish_then_subscribe,
        "Events published before a group exists are received, each once."
    ),
    case!(
        subscribe_then_publish,
        "A member that waits in `recv` gets what is published then."
    ),
    case!(
        many_events_arrive_once,
        "Thousands of events in batches: none is lost and none comes twice."
    ),
    case!(
        topics_are_isolated,
        "Events of several topics in one batch reach only the readers of theirs."
    ),
];

async fn publish_then_subscribe(scene: Scene) -> Check {
    let topic = scene.topic().await?;
    let events = numbered("event", 0..100);
    let client = scene.connect().await?;
    client.sender().await?.send_to(&topic, &events).await?;

    let journal = Journal::of(&events);
    let mut member = client.join(&scene.name(), &[topic]).await?;
    member.work(&journal).await?;
    member.ensure_quiet().await?;
    member.close().await?;
    journal.ensure_once()
}

async fn subscribe_then_publish(scene: Scene) -> Check {
    let topic = scene.topic().await?;
    let client = scene.connect().await?;
    let sender = scene.connect().await?.sender().await?;
    let mut member = client
        .join(&scene.name(), std::slice::from_ref(&topic))
        .await?;
    for round in 0..5 {
        let events = numbered(&format!("round-{round}"), 0..10);
        let journal = Journal::of(&events);
        let (received, published) =
            tokio::join!(member.work(&journal), sender.send_to(&topic, &events));
        published?;
        received?;
        journal.ensure_once()?;
    }
    member.ensure_quiet().await?;
    member.close().await
}

async fn many_events_arrive_once(scene: Scene) -> Check {
    let topic = scene.partitioned_topic().await?;
    let events = numbered("event", 0..scene.tuning().volume);
    let journal = Journal::of(&events);
    let client = scene.connect().await?;
    let mut member = client
        .join(&scene.name(), std::slice::from_ref(&topic))
        .await?;
    let sender = scene.connect().await?.sender().await?;
    let publish = async {
        for batch in events.chunks(100) {
            sender.send_to(&topic, batch).await?;
        }
        Ok(())
    };
    tokio::try_join!(publish, member.work(&journal))?;
    member.ensure_quiet().await?;
    member.close().await?;
    journal.ensure_once()
}

async fn topics_are_isolated(scene: Scene) -> Check {
    let client = scene.connect().await?;
    let mut topics = Vec::new();
    let mut batch: Vec<Outgoing> = Vec::new();
    for label in ["red", "green", "blue"] {
        let topic = scene.topic().await?;
        let events = numbered(label, 0..20);
        batch.extend(addressed(&topic, &events));
        topics.push((topic, events));
    }
    scene.random().shuffle(&mut batch);
    client.sender().await?.send(&batch).await?;

    let group = scene.name();
    for (topic, events) in topics {
        let journal = Journal::of(&events);
        let mut member = client.join(&group, std::slice::from_ref(&topic)).await?;
        member.work(&journal).await?;
        member.ensure_quiet().await?;
        member.close().await?;
        journal.ensure_once()?;
        let strayed = journal
            .entries()
            .iter()
            .any(|entry| entry.topic != topic.name());
        ensure!(!strayed, "a delivery names another topic than `{topic}`");
    }
    Ok(())
}
