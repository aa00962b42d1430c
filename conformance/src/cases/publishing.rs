//! What a publisher answers, and whether it is true.

use std::collections::{BTreeMap, BTreeSet};
use std::slice::from_ref;

use polybus_core::ErrorKind;
use polybus_core::transport::{KeyOrder, Outcome, Outgoing, Position, Publisher};

use super::case;
use crate::case::{Case, Need};
use crate::failure::{Check, Failure, ensure};
use crate::journal::Journal;
use crate::scene::Scene;
use crate::sender::{addressed, ids, keyed, numbered};

pub(super) const CASES: &[Case] = &[
    case!(
        outcomes_name_positions,
        "Outcome n of a batch is that of event n: its position is where the event is delivered from."
    ),
    case!(
        large_batch,
        "One call with thousands of events answers for each of them."
    ),
    case!(
        empty_batch_publishes_nothing,
        "A batch without events has no outcomes and stores nothing."
    ),
    case!(
        concurrent_publishers,
        "Publishers of several clients at once: nothing lost, nothing twice, each one's order kept."
    ),
    case!(
        flush_waits_for_answers,
        "`flush` ends, and what was published before it has been answered."
    ),
    case!(
        refused_event_fails_alone,
        "An event that the server refuses is rejected; the others of its batch are stored.",
        needs: [Need::RejectedEvent]
    ),
    case!(
        missing_topic_fails_alone,
        "An event to a topic that does not exist is rejected as such; the others are stored.",
        needs: [Need::NoCreatesTopics]
    ),
    case!(
        topic_is_made_on_first_use,
        "The first event to a topic that nobody created makes it, and is received.",
        needs: [Need::CreatesTopics]
    ),
];

async fn outcomes_name_positions(scene: Scene) -> Check {
    let topics = [scene.topic().await?, scene.partitioned_topic().await?];
    let mut batch = Vec::new();
    for topic in &topics {
        batch.extend(addressed(topic, &keyed(topic.name(), 0..60, 7)));
    }
    scene.random().shuffle(&mut batch);
    let client = scene.connect().await?;
    let positions = client.sender().await?.send(&batch).await?;
    let told = batch.iter().zip(positions).map(|(outgoing, position)| {
        let event = outgoing.event().expect("only events were published");
        (event.id().to_owned(), position)
    });
    let told: BTreeMap<String, Position> = told.collect();
    let places: BTreeSet<_> = batch
        .iter()
        .map(|outgoing| (outgoing.topic.name(), told[id_of(outgoing)]))
        .collect();
    ensure!(
        places.len() == batch.len(),
        "two events of a batch have the same position"
    );

    let journal = Journal::of_ids(told.keys().cloned());
    let mut member = client.join(&scene.name(), &topics).await?;
    member.work(&journal).await?;
    member.close().await?;
    for entry in journal.entries() {
        ensure!(
            told[&entry.id] == entry.position,
            "`{}` was delivered from {} and its outcome named {}",
            entry.id,
            entry.position,
            told[&entry.id]
        );
    }
    journal.ensure_once()
}

async fn large_batch(scene: Scene) -> Check {
    let topic = scene.topic().await?;
    let events = numbered("event", 0..scene.tuning().volume);
    let client = scene.connect().await?;
    let positions = client.sender().await?.send_to(&topic, &events).await?;
    // Without a key and in one partition: the input's order is that of storage, where any is.
    if scene.capabilities().key_order >= KeyOrder::Member {
        ensure!(
            positions.is_sorted(),
            "the positions of one batch in one partition are not in the order of the input"
        );
    }
    let journal = Journal::of(&events);
    let mut member = client.join(&scene.name(), from_ref(&topic)).await?;
    member.work(&journal).await?;
    member.close().await?;
    journal.ensure_once()
}

async fn empty_batch_publishes_nothing(scene: Scene) -> Check {
    let topic = scene.topic().await?;
    let client = scene.connect().await?;
    let mut member = client.join(&scene.name(), &[topic]).await?;
    let outcomes = client.sender().await?.try_send(&[]).await?;
    ensure!(outcomes.is_empty(), "no events, and there are outcomes");
    member.ensure_quiet().await?;
    member.close().await
}

async fn concurrent_publishers(scene: Scene) -> Check {
    const PUBLISHERS: usize = 8;
    let topic = scene.partitioned_topic().await?;
    let each = scene.tuning().volume / PUBLISHERS;
    let labels: Vec<_> = (0..PUBLISHERS).map(|n| format!("publisher{n}")).collect();
    let events: Vec<_> = labels
        .iter()
        .flat_map(|label| keyed(label, 0..each, 3))
        .collect();
    let journal = Journal::of(&events);
    let mut member = scene
        .connect()
        .await?
        .join(&scene.name(), from_ref(&topic))
        .await?;
    let clients = [scene.connect().await?, scene.connect().await?];
    let mut senders = Vec::new();
    for client in &clients {
        senders.push(client.sender().await?);
    }
    let publish = events.chunks(each).enumerate().map(|(number, events)| {
        // Two clients, and on each several callers that share one publisher.
        let sender = &senders[number % senders.len()];
        let topic = &topic;
        async move {
            for batch in events.chunks(17) {
                sender.send_to(topic, batch).await?;
            }
            Ok::<_, Failure>(())
        }
    });
    tokio::try_join!(
        futures::future::try_join_all(publish),
        member.work(&journal)
    )?;
    member.ensure_quiet().await?;
    member.close().await?;
    if scene.capabilities().key_order >= KeyOrder::Member {
        journal.ensure_order_per_key()?;
    }
    journal.ensure_once()
}

async fn flush_waits_for_answers(scene: Scene) -> Check {
    let topic = scene.topic().await?;
    let client = scene.connect().await?;
    let sender = client.sender().await?;
    sender.publisher().flush(scene.patience()).await?;

    let events = numbered("event", 0..200);
    let batch = addressed(&topic, &events);
    let mut publishing = Box::pin(sender.try_send(&batch));
    // Polled once, the call has begun.
    let early = futures::poll!(&mut publishing);
    let _step = scene.step("flushing");
    let flushing = sender.publisher().flush(scene.patience());
    let outcomes = match early {
        std::task::Poll::Ready(outcomes) => {
            flushing.await?;
            outcomes?
        }
        std::task::Poll::Pending => {
            let (outcomes, flushed) = tokio::join!(publishing, flushing);
            flushed?;
            outcomes?
        }
    };
    let refused = outcomes
        .iter()
        .find(|outcome| !matches!(outcome, Outcome::Accepted(_)));
    ensure!(refused.is_none(), "not accepted: {refused:?}");
    let journal = Journal::of(&events);
    let mut member = client.join(&scene.name(), from_ref(&topic)).await?;
    member.work(&journal).await?;
    member.close().await?;
    journal.ensure_once()
}

async fn refused_event_fails_alone(scene: Scene) -> Check {
    let topic = scene.topic().await?;
    let rejected = scene
        .harness()
        .rejected(&topic)
        .map_err(|unsupported| Failure::new(unsupported.reason()))?;
    let outcome = one_fails_alone(&scene, &topic, rejected).await?;
    ensure!(
        outcome.effect() == polybus_core::Effect::NotApplied,
        "the error of a rejected event leaves open whether it was stored: {outcome:?}"
    );
    Ok(())
}

async fn missing_topic_fails_alone(scene: Scene) -> Check {
    let topic = scene.topic().await?;
    let missing = Outgoing::new(scene.name().into(), numbered("astray", 0..1).remove(0));
    let error = one_fails_alone(&scene, &topic, missing).await?;
    ensure!(
        error.kind() == ErrorKind::TopicNotFound,
        "an event to a topic that does not exist was rejected with {:?}: {error}",
        error.kind()
    );
    Ok(())
}

async fn one_fails_alone(
    scene: &Scene,
    topic: &polybus_core::Topic,
    bad: Outgoing,
) -> Check<polybus_core::Error> {
    const BAD_AT: usize = 7;
    let events = numbered("good", 0..20);
    let mut batch = addressed(topic, &events);
    batch.insert(BAD_AT, bad);
    let client = scene.connect().await?;
    let sender = client.sender().await?;
    let mut error = None;
    for (index, outcome) in sender.try_send(&batch).await?.into_iter().enumerate() {
        match outcome {
            Outcome::Rejected(why) if index == BAD_AT => error = Some(why),
            Outcome::Accepted(_) if index != BAD_AT => {}
            other => {
                return Err(Failure::new(format!(
                    "only event {BAD_AT} was to be rejected, and event {index} is {other:?}"
                )));
            }
        }
    }
    // The publisher goes on, and nothing of the bad one is stored.
    let more = numbered("later", 0..5);
    sender.send_to(topic, &more).await?;
    let journal = Journal::of_ids(ids(&events).into_iter().chain(ids(&more)));
    let mut member = client.join(&scene.name(), from_ref(topic)).await?;
    member.work(&journal).await?;
    member.ensure_quiet().await?;
    member.close().await?;
    journal.ensure_once()?;
    error.ok_or_else(|| Failure::new("the bad event has no outcome"))
}

async fn topic_is_made_on_first_use(scene: Scene) -> Check {
    let named = || scene.named(&scene.name(), 1);
    let (published, subscribed) = (named(), named());
    let client = scene.connect().await?;
    let sender = client.sender().await?;
    let events = numbered("event", 0..10);
    sender.send_to(&published, &events).await?;
    let group = scene.name();
    let mut after = client.join(&group, from_ref(&published)).await?;
    let journal = Journal::of(&events);
    after.work(&journal).await?;
    after.close().await?;
    journal.ensure_once()?;

    let mut before = client.join(&group, from_ref(&subscribed)).await?;
    sender.send_to(&subscribed, &events).await?;
    let journal = Journal::of(&events);
    before.work(&journal).await?;
    before.close().await?;
    journal.ensure_once()
}

fn id_of(outgoing: &Outgoing) -> &str {
    outgoing.event().expect("only events were published").id()
}
