//! Members that die: dropped without a close, with deliveries in their hands.

use std::slice::from_ref;

use polybus_core::transport::{Settlement, Settler, Subscription};
use polybus_core::{ErrorKind, Topic};
use tokio::time::timeout;

use super::case;
use crate::case::Case;
use crate::failure::{Check, ensure};
use crate::journal::Journal;
use crate::member::{USUAL, delivered_ids, event_of};
use crate::scene::{Client, Scene};
use crate::sender::{keyed, numbered};

pub(super) const CASES: &[Case] = &[
    case!(
        crash_before_ack_is_claimed_by_another,
        "A living member gets what a dead one had received and not acknowledged."
    ),
    case!(
        crash_of_the_last_member_loses_nothing,
        "When the only member dies, the next one gets what it had not acknowledged."
    ),
    case!(
        crash_with_read_ahead_loses_nothing,
        "What a dead member was given and never returned from `recv` goes to another."
    ),
    case!(
        member_returns_under_its_name,
        "A member that died and comes back under its name gets its unsettled events again."
    ),
    case!(
        settling_for_a_dead_member_is_stale,
        "An acknowledgement after another took over is refused, and takes nothing from that one."
    ),
    case!(
        slow_member_settles_late,
        "A member slower than its takeover time: every event ends with exactly one owner, none is lost."
    ),
];

async fn crash_before_ack_is_claimed_by_another(scene: Scene) -> Check {
    let topic = scene.partitioned_topic().await?;
    let group = scene.name();
    let events = keyed("event", 0..60, 12);
    let client = scene.connect().await?;
    client.sender().await?.send_to(&topic, &events).await?;
    let dying = scene.connect().await?;
    let mut first = dying.join_mortal(&group, from_ref(&topic)).await?;
    let batch = first.take(events.len()).await?;
    let (done, unsettled) = batch.split_at(20);
    first.ack(done).await?;

    let mut second = client.join_mortal(&group, from_ref(&topic)).await?;
    first.crash();
    drop(dying);
    // What was acknowledged may come again where positions are committed a little later.
    let journal = Journal::of_ids(delivered_ids(unsettled)?).allowing(delivered_ids(done)?);
    second.work(&journal).await?;
    second.close().await?;
    journal.ensure_once()?;
    ensure_nothing_left(&client, &group, &topic).await
}

async fn crash_of_the_last_member_loses_nothing(scene: Scene) -> Check {
    let topic = scene.partitioned_topic().await?;
    let group = scene.name();
    let events = keyed("event", 0..60, 12);
    let journal = Journal::of(&events);
    let client = scene.connect().await?;
    client.sender().await?.send_to(&topic, &events).await?;
    // Twice, so that what one dead member had from another comes back too.
    for _ in 0..2 {
        let dying = scene.connect().await?;
        let mut member = dying.join_mortal(&group, from_ref(&topic)).await?;
        member.take(30).await?;
        member.crash();
    }
    let mut last = client.join_mortal(&group, from_ref(&topic)).await?;
    last.work(&journal).await?;
    last.close().await?;
    journal.ensure_once()?;
    ensure_nothing_left(&client, &group, &topic).await
}

async fn crash_with_read_ahead_loses_nothing(scene: Scene) -> Check {
    let topic = scene.partitioned_topic().await?;
    let group = scene.name();
    let events = keyed("event", 0..500, 12);
    let client = scene.connect().await?;
    client.sender().await?.send_to(&topic, &events).await?;
    let dying = scene.connect().await?;
    let mut first = dying.join_mortal(&group, from_ref(&topic)).await?;
    let seen = first.take(1).await?;
    first.ack(&seen).await?;
    first.crash();
    let seen = delivered_ids(&seen)?;
    let unseen = crate::sender::ids(&events)
        .into_iter()
        .filter(|id| !seen.contains(id));
    let journal = Journal::of_ids(unseen).allowing(seen.clone());
    let mut second = client.join_mortal(&group, from_ref(&topic)).await?;
    second.work(&journal).await?;
    second.close().await?;
    journal.ensure_once()?;
    ensure_nothing_left(&client, &group, &topic).await
}

async fn member_returns_under_its_name(scene: Scene) -> Check {
    let topic = scene.topic().await?;
    let group = scene.name();
    let events = numbered("event", 0..20);
    let journal = Journal::of(&events);
    let soon = scene.tuning().takeover_after;
    let named = Subscription::new(group.clone(), [topic.clone()])
        .member("the-same")
        .takeover_after(soon);
    let sender = scene.connect().await?.sender().await?;
    sender.send_to(&topic, &events).await?;
    let mut before = scene.connect().await?.subscribe(named.clone()).await?;
    before.take(events.len()).await?;
    before.crash();
    let client = scene.connect().await?;
    let mut after = client.subscribe(named).await?;
    after.work(&journal).await?;
    after.close().await?;
    journal.ensure_once()?;
    ensure_nothing_left(&client, &group, &topic).await
}

async fn settling_for_a_dead_member_is_stale(scene: Scene) -> Check {
    let topic = scene.topic().await?;
    let group = scene.name();
    let events = numbered("event", 0..20);
    let client = scene.connect().await?;
    client.sender().await?.send_to(&topic, &events).await?;
    let dying = scene.connect().await?;
    let mut first = dying.join_mortal(&group, from_ref(&topic)).await?;
    let batch = first.take(events.len()).await?;
    let settler = first.settler();
    first.crash();
    let mut second = client.join_mortal(&group, from_ref(&topic)).await?;
    let owned = Journal::of(&events);
    second.take_all(&owned).await?;

    let late: Vec<_> = batch
        .iter()
        .map(|delivery| (delivery.token(), Settlement::Ack))
        .collect();
    let step = scene.step("settling for a dead member");
    let results = settler.settle(&late).await;
    drop(step);
    ensure!(results.len() == late.len(), "not one result for each");
    for (result, delivery) in results.iter().zip(&batch) {
        ensure!(
            result.is_err(),
            "{} belongs to another member, and was acknowledged late all the same",
            crate::member::describe(delivery)
        );
    }
    // Nothing was settled by that: when the owner dies too, everything comes back.
    second.crash();
    let mut third = client.join_mortal(&group, from_ref(&topic)).await?;
    let journal = Journal::of(&events);
    third.work(&journal).await?;
    third.close().await?;
    journal.ensure_once()
}

async fn slow_member_settles_late(scene: Scene) -> Check {
    let topic = scene.partitioned_topic().await?;
    let group = scene.name();
    let events = keyed("event", 0..40, 12);
    let client = scene.connect().await?;
    client.sender().await?.send_to(&topic, &events).await?;
    let mut slow = scene
        .connect()
        .await?
        .join_mortal(&group, from_ref(&topic))
        .await?;
    let batch = slow.take(events.len()).await?;

    // Another joins and may or may not be given what the slow one holds.
    let mut other = client.join_mortal(&group, from_ref(&topic)).await?;
    let listening = scene.tuning().takeover_after * 3;
    let step = scene.step("listening for what a slow member loses");
    let mut taken_over = Vec::new();
    let listen = async {
        loop {
            let batch = other.recv(USUAL).await?;
            taken_over.extend(batch);
        }
    };
    if let Ok(failed) = timeout(listening, listen).await {
        return failed;
    }
    drop(step);
    let moved = delivered_ids(&taken_over)?;

    let late: Vec<_> = batch
        .iter()
        .map(|delivery| (delivery.token(), Settlement::Ack))
        .collect();
    let mut lost_to_other = Vec::new();
    for (result, delivery) in slow.try_settle(&late).await?.into_iter().zip(&batch) {
        let id = event_of(delivery)?.id().to_owned();
        match result {
            Ok(()) => ensure!(
                !moved.contains(&id),
                "`{id}` came to another member and was acknowledged late all the same"
            ),
            Err(error) => {
                ensure!(
                    error.kind() == ErrorKind::Stale,
                    "a late acknowledgement failed with {error:?}"
                );
                lost_to_other.push(id);
            }
        }
    }
    let journal = Journal::of_ids(lost_to_other).allowing(moved);
    journal.record(&taken_over)?;
    other.ack(&taken_over).await?;
    other.work(&journal).await?;
    slow.close().await?;
    other.close().await?;
    journal.ensure_once()?;
    ensure_nothing_left(&client, &group, &topic).await
}

/// The group is done: a new member gets nothing.
async fn ensure_nothing_left(client: &Client, group: &str, topic: &Topic) -> Check {
    let mut member = client.join(group, from_ref(topic)).await?;
    member.ensure_quiet().await?;
    member.close().await
}
