//! All or none: several events, and what a group has done with what comes of it.

use std::slice::from_ref;

use polybus_core::transport::{
    AckToken, Delivery, KeyOrder, Outgoing, Position, Publisher, Settler, Subscription,
};
use polybus_core::{Effect, Error, ErrorKind, Topic};

use super::case;
use crate::case::{Case, Need};
use crate::failure::{Check, Failure, ensure};
use crate::journal::Journal;
use crate::member::Member;
use crate::scene::{Client, Scene};
use crate::sender::{Sender, addressed, ids, keyed, numbered};

pub(super) const CASES: &[Case] = &[
    case!(
        transaction_stores_all,
        "Events of a transaction are all stored, on all its topics, in order, where their positions say.",
        needs: [Need::Transactions]
    ),
    case!(
        refused_transaction_stores_nothing,
        "A transaction with an event that the server refuses stores nothing; the next one works.",
        needs: [Need::Transactions, Need::RejectedEvent]
    ),
    case!(
        transaction_to_a_missing_topic_stores_nothing,
        "A transaction with an event to a topic that does not exist stores nothing, and says why.",
        needs: [Need::Transactions, Need::NoCreatesTopics]
    ),
    case!(
        concurrent_transactions,
        "Transactions of several callers and clients, beside events of none: nothing lost, nothing twice, in order.",
        needs: [Need::Transactions]
    ),
    case!(
        closed_publisher_refuses_transactions,
        "A publisher that is closed takes no transaction; an empty one stores nothing.",
        needs: [Need::Transactions]
    ),
    case!(
        dropped_transactions_are_whole,
        "Of a transaction whose call was dropped all events come, or none; the next one works.",
        needs: [Need::Transactions]
    ),
    case!(
        step_settles_and_publishes,
        "Deliveries that are acknowledged with events do not come again, and the events come once.",
        needs: [Need::ExactlyOnce]
    ),
    case!(
        step_made_again_takes_effect_once,
        "A step that is made once more does nothing, so that a lost answer can be asked for.",
        needs: [Need::ExactlyOnce]
    ),
    case!(
        refused_step_settles_nothing,
        "A step with an event that the server refuses stores and acknowledges nothing.",
        needs: [Need::ExactlyOnce, Need::RejectedEvent]
    ),
    case!(
        stale_step_publishes_nothing,
        "A step for deliveries that another member has by now publishes nothing.",
        needs: [Need::ExactlyOnce]
    ),
];

/// Publishes a transaction.
async fn together(
    sender: &Sender,
    batch: &[Outgoing],
) -> Check<polybus_core::Result<Vec<Position>>> {
    let stored = sender.publisher().publish_together(batch).await;
    if let Ok(positions) = &stored {
        ensure!(
            positions.len() == batch.len(),
            "{} events were published together and {} positions came back",
            batch.len(),
            positions.len()
        );
    }
    Ok(stored)
}

/// A transaction that must fail, certainly without effect.
async fn refused(sender: &Sender, batch: &[Outgoing]) -> Check<Error> {
    let Err(error) = together(sender, batch).await? else {
        return Err(Failure::new("a transaction that can't be was Accepted"));
    };
    ensure!(
        error.effect() == Effect::NotApplied,
        "the error of a refused transaction leaves open whether it was stored: {error:?}"
    );
    Ok(error)
}

async fn transaction_stores_all(scene: Scene) -> Check {
    let topics = scene.kindred_topics().await?;
    let mut batch = Vec::new();
    for topic in &topics {
        batch.extend(addressed(topic, &keyed(topic.name(), 0..50, 5)));
    }
    scene.random().shuffle(&mut batch);
    let client = scene.connect().await?;
    let sender = client.sender().await?;
    let positions = together(&sender, &batch).await??;
    let id = |outgoing: &Outgoing| outgoing.event().map(|it| it.id().to_owned());
    let journal = Journal::of_ids(batch.iter().filter_map(id));
    let mut member = client.join(&scene.name(), &topics).await?;
    member.work(&journal).await?;
    member.ensure_quiet().await?;
    member.close().await?;
    for entry in journal.entries() {
        let told = batch
            .iter()
            .position(|it| id(it).as_ref() == Some(&entry.id));
        let told = told.map(|index| positions[index]);
        ensure!(
            told == Some(entry.position),
            "`{}` was delivered from {} and the transaction's position is {told:?}",
            entry.id,
            entry.position
        );
    }
    journal.ensure_once()
}

async fn refused_transaction_stores_nothing(scene: Scene) -> Check {
    let topic = scene.topic().await?;
    let rejected = scene.harness().rejected(&topic);
    let rejected = rejected.map_err(|unsupported| Failure::new(unsupported.reason()))?;
    nothing_is_stored_with(&scene, topic, rejected)
        .await
        .map(drop)
}

async fn transaction_to_a_missing_topic_stores_nothing(scene: Scene) -> Check {
    let topic = scene.topic().await?;
    let missing = Outgoing::new(scene.name().into(), numbered("astray", 0..1).remove(0));
    let error = nothing_is_stored_with(&scene, topic, missing).await?;
    ensure!(
        error.kind() == ErrorKind::TopicNotFound,
        "a transaction to a topic that does not exist was refused with {:?}: {error}",
        error.kind()
    );
    Ok(())
}

async fn nothing_is_stored_with(scene: &Scene, topic: Topic, bad: Outgoing) -> Check<Error> {
    let other = scene.topic().await?;
    let mut batch = addressed(&topic, &numbered("aborted", 0..10));
    batch.push(bad);
    batch.extend(addressed(&other, &numbered("aborted-too", 0..10)));
    let client = scene.connect().await?;
    let sender = client.sender().await?;
    let error = refused(&sender, &batch).await?;
    let later = numbered("later", 0..5);
    together(&sender, &addressed(&topic, &later)).await??;
    let alone = numbered("alone", 0..5);
    sender.send_to(&other, &alone).await?;
    let journal = Journal::of_ids(ids(&later).into_iter().chain(ids(&alone)));
    let mut member = client.join(&scene.name(), &[topic, other]).await?;
    member.work(&journal).await?;
    member.ensure_quiet().await?;
    member.close().await?;
    journal.ensure_once()?;
    Ok(error)
}

async fn concurrent_transactions(scene: Scene) -> Check {
    const CALLERS: usize = 4;
    const TRANSACTIONS: usize = 10;
    const EACH: usize = 6;
    let topics = scene.kindred_topics().await?;
    let clients = [scene.connect().await?, scene.connect().await?];
    let mut senders = Vec::new();
    for client in &clients {
        senders.push(client.sender().await?);
    }
    let mut all = Vec::new();
    let mut work = Vec::new();
    for caller in 0..CALLERS {
        let events = keyed(&format!("caller{caller}"), 0..TRANSACTIONS * EACH, 2);
        all.extend(ids(&events));
        let (topics, sender) = (&topics, &senders[caller % 2]);
        work.push(async move {
            for (number, events) in events.chunks(EACH).enumerate() {
                // Every third one is no transaction.
                let batch = addressed(&topics[caller / 2 % 2], events);
                if number % 3 == 2 {
                    sender.send(&batch).await?;
                } else {
                    together(sender, &batch).await??;
                }
            }
            Ok::<_, Failure>(())
        });
    }
    let journal = Journal::of_ids(all);
    let mut member = scene.connect().await?.join(&scene.name(), &topics).await?;
    tokio::try_join!(futures::future::try_join_all(work), member.work(&journal))?;
    member.ensure_quiet().await?;
    member.close().await?;
    if scene.capabilities().key_order >= KeyOrder::Member {
        journal.ensure_order_per_key()?;
    }
    journal.ensure_once()
}

async fn closed_publisher_refuses_transactions(scene: Scene) -> Check {
    let topic = scene.topic().await?;
    let client = scene.connect().await?;
    let sender = client.sender().await?;
    let positions = together(&sender, &[]).await??;
    ensure!(positions.is_empty(), "no events, and there are positions");
    let events = numbered("before", 0..5);
    together(&sender, &addressed(&topic, &events)).await??;
    sender.close().await?;
    let error = refused(&sender, &addressed(&topic, &numbered("after", 0..3))).await?;
    ensure!(
        error.kind() == ErrorKind::Closed,
        "a closed publisher answered {error:?}"
    );
    let journal = Journal::of(&events);
    let mut member = client.join(&scene.name(), &[topic]).await?;
    member.work(&journal).await?;
    member.ensure_quiet().await?;
    member.close().await?;
    journal.ensure_once()
}

async fn dropped_transactions_are_whole(scene: Scene) -> Check {
    const DROPPED: usize = 12;
    const EACH: usize = 8;
    let topic = scene.topic().await?;
    let client = scene.connect().await?;
    let sender = client.sender().await?;
    let mut maybe = Vec::new();
    for number in 0..DROPPED {
        let events = numbered(&format!("dropped{number}"), 0..EACH);
        maybe.push(ids(&events));
        let batch = addressed(&topic, &events);
        let within = std::time::Duration::from_millis(number as u64);
        let call = sender.publisher().publish_together(&batch);
        let _ = tokio::time::timeout(within, call).await;
    }
    let last = numbered("last", 0..EACH);
    together(&sender, &addressed(&topic, &last)).await??;
    let allowed = maybe.iter().flatten().cloned();
    let journal = Journal::of(&last).allowing(allowed);
    let mut member = client.join(&scene.name(), &[topic]).await?;
    member.work(&journal).await?;
    member.close().await?;
    let came: Vec<_> = journal.entries().into_iter().map(|it| it.id).collect();
    for transaction in maybe {
        let count = came.iter().filter(|id| transaction.contains(id)).count();
        ensure!(
            count == 0 || count == EACH,
            "{count} of the {EACH} events of one transaction came: a part of it is lost"
        );
    }
    Ok(())
}

/// A member whose deliveries are settled together with events.
async fn join_exactly_once(client: &Client, group: &str, topic: &Topic) -> Check<Member> {
    let subscription = Subscription::new(group, [topic.clone()]).exactly_once(true);
    client.subscribe(subscription).await
}

fn tokens(deliveries: &[Delivery]) -> Vec<AckToken> {
    deliveries.iter().map(Delivery::token).collect()
}

async fn step_settles_and_publishes(scene: Scene) -> Check {
    let (source, target) = (scene.partitioned_topic().await?, scene.topic().await?);
    let client = scene.connect().await?;
    let events = keyed("event", 0..60, 7);
    client.sender().await?.send_to(&source, &events).await?;
    let (group, journal) = (scene.name(), Journal::of(&events));
    let mut results = Vec::new();
    // Two members, one after the other: the second goes on where the first one ended.
    for _ in 0..2 {
        let mut member = join_exactly_once(&client, &group, &source).await?;
        let settler = member.settler();
        for _ in 0..2 {
            let deliveries = member.take(15).await?;
            journal.record(&deliveries)?;
            let first = results.len();
            let more = numbered("result", first..first + 5);
            let batch = addressed(&target, &more);
            let positions = settler
                .settle_together(&tokens(&deliveries), &batch)
                .await?;
            ensure!(
                positions.len() == 5,
                "5 events and {} positions",
                positions.len()
            );
            results.extend(more);
        }
        member.close().await?;
    }
    journal.ensure_complete()?;
    journal.ensure_once()?;
    let mut rest = join_exactly_once(&client, &group, &source).await?;
    rest.ensure_quiet().await?;
    rest.close().await?;
    all_came(&client, &scene, target, &results).await
}

/// The events of a topic are these, each once.
async fn all_came(
    client: &Client,
    scene: &Scene,
    topic: Topic,
    events: &[polybus_core::Event],
) -> Check {
    let journal = Journal::of(events);
    let mut member = client.join(&scene.name(), &[topic]).await?;
    member.work(&journal).await?;
    member.ensure_quiet().await?;
    member.close().await?;
    journal.ensure_once()
}

async fn step_made_again_takes_effect_once(scene: Scene) -> Check {
    let (source, target) = (scene.topic().await?, scene.topic().await?);
    let client = scene.connect().await?;
    let events = numbered("event", 0..5);
    client.sender().await?.send_to(&source, &events).await?;
    let group = scene.name();
    let mut member = join_exactly_once(&client, &group, &source).await?;
    let deliveries = member.take(events.len()).await?;
    let results = numbered("result", 0..3);
    let batch = addressed(&target, &results);
    let settler = member.settler();
    for _ in 0..3 {
        settler
            .settle_together(&tokens(&deliveries), &batch)
            .await?;
    }
    member.close().await?;
    let mut rest = client.join(&group, from_ref(&source)).await?;
    rest.ensure_quiet().await?;
    rest.close().await?;
    all_came(&client, &scene, target, &results).await
}

async fn refused_step_settles_nothing(scene: Scene) -> Check {
    let (source, target) = (scene.topic().await?, scene.topic().await?);
    let rejected = scene.harness().rejected(&target);
    let rejected = rejected.map_err(|unsupported| Failure::new(unsupported.reason()))?;
    let client = scene.connect().await?;
    let events = numbered("event", 0..5);
    client.sender().await?.send_to(&source, &events).await?;
    let group = scene.name();
    let mut member = join_exactly_once(&client, &group, &source).await?;
    let deliveries = member.take(events.len()).await?;
    let mut batch = addressed(&target, &numbered("aborted", 0..3));
    batch.push(rejected);
    let settler = member.settler();
    let failed = settler.settle_together(&tokens(&deliveries), &batch).await;
    ensure!(
        matches!(&failed, Err(error) if error.effect() == Effect::NotApplied),
        "a step with a refused event answered {failed:?}"
    );
    member.close().await?;
    let mut again = join_exactly_once(&client, &group, &source).await?;
    let deliveries = again.take(events.len()).await?;
    let results = numbered("result", 0..3);
    let batch = addressed(&target, &results);
    again
        .settler()
        .settle_together(&tokens(&deliveries), &batch)
        .await?;
    again.close().await?;
    all_came(&client, &scene, target, &results).await
}

async fn stale_step_publishes_nothing(scene: Scene) -> Check {
    let (source, target) = (scene.topic().await?, scene.topic().await?);
    let events = numbered("event", 0..5);
    let client = scene.connect().await?;
    client.sender().await?.send_to(&source, &events).await?;
    let group = scene.name();
    let mut dead = join_exactly_once(&client, &group, &source).await?;
    let old = tokens(&dead.take(events.len()).await?);
    let settler = dead.settler();
    dead.crash();
    let mut living = join_exactly_once(&client, &group, &source).await?;
    let deliveries = living.take(events.len()).await?;
    let late = addressed(&target, &numbered("late", 0..3));
    let stale = settler.settle_together(&old, &late).await;
    ensure!(
        matches!(&stale, Err(error) if error.effect() == Effect::NotApplied),
        "a step for deliveries of another member answered {stale:?}"
    );
    let results = numbered("result", 0..3);
    let batch = addressed(&target, &results);
    living
        .settler()
        .settle_together(&tokens(&deliveries), &batch)
        .await?;
    living.ensure_quiet().await?;
    living.close().await?;
    all_came(&client, &scene, target, &results).await
}
