//! The first promise: what was accepted comes, once, and to whom it belongs.

use std::collections::{BTreeMap, HashSet};
use std::slice::from_ref;

use polybus_core::transport::{KeyOrder, Outgoing};

use super::case;
use crate::case::Case;
use crate::failure::{Check, ensure};
use crate::journal::Journal;
use crate::scene::Scene;
use crate::sender::{addressed, keyed, numbered};

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
    case!(
        many_topics_in_one_subscription,
        "One member reads twenty topics, and each delivery names its own."
    ),
    case!(
        tokens_name_their_source,
        "Tokens differ, and those with the same source come from one topic and partition."
    ),
    case!(
        recv_gives_at_most_max,
        "`recv(max)` returns at least one delivery and never more than `max`, in order."
    ),
    case!(
        clients_are_independent,
        "A client that goes away takes nothing from the others."
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
    let mut member = client.join(&scene.name(), from_ref(&topic)).await?;
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
    let mut member = client.join(&scene.name(), from_ref(&topic)).await?;
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
        let mut member = client.join(&group, from_ref(&topic)).await?;
        member.work(&journal).await?;
        member.ensure_quiet().await?;
        member.close().await?;
        journal.ensure_once()?;
        for entry in journal.entries() {
            ensure!(
                entry.topic == topic.name(),
                "`{}` came from `{topic}` and names `{}`",
                entry.id,
                entry.topic
            );
        }
    }
    Ok(())
}

async fn many_topics_in_one_subscription(scene: Scene) -> Check {
    let mut topics = Vec::new();
    let mut batch = Vec::new();
    let mut events = Vec::new();
    for number in 0..20 {
        let topic = scene.topic().await?;
        let own = numbered(topic.name(), 0..10);
        batch.extend(addressed(&topic, &own));
        events.extend(own);
        topics.push(topic);
        ensure!(topics.len() == number + 1, "a topic is missing");
    }
    scene.random().shuffle(&mut batch);
    let client = scene.connect().await?;
    let mut member = client.join(&scene.name(), &topics).await?;
    client.sender().await?.send(&batch).await?;

    let journal = Journal::of(&events);
    member.work(&journal).await?;
    member.close().await?;
    journal.ensure_once()?;
    for entry in journal.entries() {
        ensure!(
            entry.id.starts_with(&entry.topic),
            "`{}` names the topic `{}`",
            entry.id,
            entry.topic
        );
    }
    Ok(())
}

async fn tokens_name_their_source(scene: Scene) -> Check {
    let topics = [
        scene.topic().await?,
        scene.partitioned_topic().await?,
        scene.partitioned_topic().await?,
    ];
    let mut batch = Vec::new();
    for topic in &topics {
        batch.extend(addressed(topic, &keyed(topic.name(), 0..60, 12)));
    }
    let client = scene.connect().await?;
    client.sender().await?.send(&batch).await?;
    let mut member = client.join(&scene.name(), &topics).await?;
    let deliveries = member.take(batch.len()).await?;
    let mut sources = BTreeMap::new();
    let mut tokens = HashSet::new();
    for delivery in &deliveries {
        let (token, at) = (delivery.token(), delivery.position());
        ensure!(
            tokens.insert(token),
            "two deliveries have the token {token:?}"
        );
        let place = (delivery.topic().name(), at.partition());
        let known = *sources.entry(token.source).or_insert(place);
        ensure!(
            known == place,
            "source {} is {known:?} in one token and {place:?} in another",
            token.source
        );
    }
    member.ack(&deliveries).await?;
    member.close().await
}

async fn recv_gives_at_most_max(scene: Scene) -> Check {
    let topic = scene.topic().await?;
    let events = numbered("event", 0..200);
    let client = scene.connect().await?;
    client.sender().await?.send_to(&topic, &events).await?;
    let journal = Journal::of(&events);
    let mut member = client.join(&scene.name(), &[topic]).await?;
    while !journal.is_complete() {
        let max = 1 + scene.random().below(9);
        // `take` asks for what is missing of `max`, and its every answer is held to that.
        let wanted = max.min(events.len() - journal.received());
        let batch = member.take(wanted).await?;
        journal.record(&batch)?;
        member.ack(&batch).await?;
    }
    let positions: Vec<_> = journal.entries().iter().map(|at| at.position).collect();
    let ordered = scene.capabilities().key_order >= KeyOrder::Member;
    ensure!(
        positions.is_sorted() || !ordered,
        "the deliveries of one topic did not come in its order"
    );
    member.close().await?;
    journal.ensure_once()
}

async fn clients_are_independent(scene: Scene) -> Check {
    let topic = scene.topic().await?;
    let lasting = scene.connect().await?;
    let sender = lasting.sender().await?;
    let mut member = lasting.join(&scene.name(), from_ref(&topic)).await?;
    for round in 0..3 {
        let passing = scene.connect().await?;
        let other = passing.join(&scene.name(), from_ref(&topic)).await?;
        let publisher = passing.sender().await?;
        let events = numbered(&format!("round-{round}"), 0..10);
        let (by_passing, by_lasting) = events.split_at(5);
        publisher.send_to(&topic, by_passing).await?;
        publisher.close().await?;
        other.crash();
        drop(passing);
        sender.send_to(&topic, by_lasting).await?;
        let journal = Journal::of(&events);
        member.work(&journal).await?;
        journal.ensure_once()?;
    }
    member.close().await
}
