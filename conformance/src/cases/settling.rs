//! Acknowledge, release, neither: what comes back and what does not.

use std::collections::BTreeSet;
use std::slice::from_ref;

use polybus_core::transport::{Delivery, Settlement, Settler, Subscriber};

use super::case;
use crate::case::{Case, Need};
use crate::failure::{Check, Failure, ensure};
use crate::journal::Journal;
use crate::member::{delivered_ids, describe, event_of};
use crate::scene::{Client, Scene};
use crate::sender::numbered;

pub(super) const CASES: &[Case] = &[
    case!(
        acknowledged_events_stay_away,
        "What was acknowledged does not come back, to no later member."
    ),
    case!(
        unsettled_events_come_back,
        "What was received and not settled comes back when the member has left, the same in every attribute."
    ),
    case!(
        released_events_come_back,
        "What was released comes back, at the latest when the member has left."
    ),
    case!(
        released_events_come_back_at_once,
        "What was released comes back while the member that released it stays.",
        needs: [Need::Release]
    ),
    case!(
        settling_out_of_order_keeps_the_unsettled,
        "Acknowledging later events does not acknowledge an earlier one."
    ),
    case!(
        every_settlement_has_a_result,
        "A batch of settlements in any order has a result for each; settling twice is harmless."
    ),
    case!(
        any_settler_settles,
        "Every handle that `settler` gives settles, from another task too, and knows what is its own."
    ),
    case!(
        settling_does_not_wait_for_recv,
        "A settlement gets through while `recv` waits on a topic where nothing comes."
    ),
    case!(
        many_unsettled_at_once,
        "A member may hold a thousand unsettled deliveries and settle them in any order."
    ),
    case!(
        attempts_are_counted,
        "The attempt is 1 at first and more each time the event comes back, from dead members too.",
        needs: [Need::DeliveryCount]
    ),
];

async fn acknowledged_events_stay_away(scene: Scene) -> Check {
    let topic = scene.topic().await?;
    let group = scene.name();
    let client = scene.connect().await?;
    let sender = client.sender().await?;
    for round in 0..3 {
        let events = numbered(&format!("round-{round}"), 0..20);
        sender.send_to(&topic, &events).await?;
        let mut member = client.join(&group, from_ref(&topic)).await?;
        let journal = Journal::of(&events);
        // An event of an earlier round is one that this journal does not expect.
        member.work(&journal).await?;
        member.ensure_quiet().await?;
        member.close().await?;
        journal.ensure_once()?;
    }
    Ok(())
}

async fn unsettled_events_come_back(scene: Scene) -> Check {
    let topic = scene.topic().await?;
    let group = scene.name();
    let events = numbered("event", 0..30);
    let client = scene.connect().await?;
    client.sender().await?.send_to(&topic, &events).await?;
    let mut member = client.join(&group, from_ref(&topic)).await?;
    let first = member.take(events.len()).await?;
    member.close().await?;

    let again = take_back(&scene.connect().await?, &group, &topic, &events).await?;
    for delivery in &again {
        let event = event_of(delivery)?;
        let before = first
            .iter()
            .find(|before| before.event().is_ok_and(|before| before.id() == event.id()))
            .ok_or_else(|| Failure::new(format!("`{}` never came before", event.id())))?;
        ensure!(
            event_of(before)? == event && before.position() == delivery.position(),
            "`{}` from {} came back changed, from {}: {event:?}",
            event.id(),
            before.position(),
            delivery.position()
        );
    }
    Ok(())
}

async fn released_events_come_back(scene: Scene) -> Check {
    let topic = scene.topic().await?;
    let group = scene.name();
    let events = numbered("event", 0..30);
    let client = scene.connect().await?;
    client.sender().await?.send_to(&topic, &events).await?;
    let mut member = client.join(&group, from_ref(&topic)).await?;
    let batch = member.take(events.len()).await?;
    member.settle(&batch, Settlement::Release).await?;
    member.close().await?;
    take_back(&client, &group, &topic, &events).await?;
    Ok(())
}

async fn released_events_come_back_at_once(scene: Scene) -> Check {
    let topic = scene.topic().await?;
    let events = numbered("event", 0..30);
    let client = scene.connect().await?;
    client.sender().await?.send_to(&topic, &events).await?;
    let mut member = client.join(&scene.name(), &[topic]).await?;
    let batch = member.take(events.len()).await?;
    let (released, done): (Vec<_>, Vec<_>) = batch
        .into_iter()
        .enumerate()
        .partition(|(number, _)| number % 3 == 0);
    let deliveries = |of: Vec<(usize, Delivery)>| of.into_iter().map(|(_, d)| d).collect();
    let (released, done): (Vec<Delivery>, Vec<Delivery>) = (deliveries(released), deliveries(done));
    member.ack(&done).await?;
    member.settle(&released, Settlement::Release).await?;
    let journal = Journal::of_ids(delivered_ids(&released)?);
    member.work(&journal).await?;
    member.ensure_quiet().await?;
    member.close().await?;
    journal.ensure_once()
}

async fn settling_out_of_order_keeps_the_unsettled(scene: Scene) -> Check {
    const KEPT: usize = 4;
    let topic = scene.topic().await?;
    let group = scene.name();
    let events = numbered("event", 0..20);
    let client = scene.connect().await?;
    client.sender().await?.send_to(&topic, &events).await?;
    let mut member = client.join(&group, from_ref(&topic)).await?;
    let mut batch = member.take(events.len()).await?;
    let kept = batch.remove(KEPT);
    let before = delivered_ids(&batch[..KEPT])?;
    let after = delivered_ids(&batch[KEPT..])?;
    scene.random().shuffle(&mut batch);
    for some in batch.chunks(3) {
        member.ack(some).await?;
    }
    member.close().await?;

    // A transport that commits positions may bring back what comes after the unsettled one;
    // one that can release single events settles them singly.
    let after = match scene.capabilities().release {
        true => Vec::new(),
        false => after,
    };
    let kept = delivered_ids(from_ref(&kept))?;
    let journal = Journal::of_ids(kept).allowing(after);
    let mut member = client.join(&group, from_ref(&topic)).await?;
    member.work(&journal).await?;
    member.close().await?;
    journal.ensure_once()?;
    let again = journal.entries();
    ensure!(
        again.iter().all(|entry| !before.contains(&entry.id)),
        "what stands before the unsettled event and was acknowledged came back"
    );
    Ok(())
}

async fn every_settlement_has_a_result(scene: Scene) -> Check {
    let topic = scene.topic().await?;
    let group = scene.name();
    let events = numbered("event", 0..40);
    let client = scene.connect().await?;
    client.sender().await?.send_to(&topic, &events).await?;
    let mut member = client.join(&group, from_ref(&topic)).await?;
    let none = member.try_settle(&[]).await?;
    ensure!(
        none.is_empty(),
        "nothing was settled, and there are results"
    );

    let deliveries = member.take(events.len()).await?;
    let mut batch = Vec::new();
    let mut released = BTreeSet::new();
    for (number, delivery) in deliveries.iter().enumerate() {
        let last_ten = number >= 30;
        let settlement = match last_ten {
            true => Settlement::Release,
            false => Settlement::Ack,
        };
        if last_ten {
            released.extend(delivered_ids(from_ref(delivery))?);
        }
        batch.push((delivery.token(), settlement));
    }
    scene.random().shuffle(&mut batch);
    for (result, (token, settlement)) in member.try_settle(&batch).await?.iter().zip(&batch) {
        ensure!(
            result.is_ok(),
            "{settlement:?} of {token:?} failed: {result:?}"
        );
    }
    // Again, which may be stale by now and changes nothing.
    batch.retain(|(_, settlement)| *settlement == Settlement::Ack);
    member.try_settle(&batch).await?;
    member.close().await?;

    let mut member = client.join(&group, &[topic]).await?;
    let journal = Journal::of_ids(released);
    member.work(&journal).await?;
    member.ensure_quiet().await?;
    member.close().await?;
    journal.ensure_once()
}

async fn any_settler_settles(scene: Scene) -> Check {
    let topic = scene.topic().await?;
    let group = scene.name();
    let events = numbered("event", 0..40);
    let client = scene.connect().await?;
    client.sender().await?.send_to(&topic, &events).await?;
    let mut member = client.join(&group, from_ref(&topic)).await?;
    let batch = member.take(events.len()).await?;
    let own = member.settler();
    for delivery in &batch {
        ensure!(
            own.is_current(delivery.token()),
            "{} belongs to this member, which is told that it does not",
            describe(delivery)
        );
    }
    let mut tasks = tokio::task::JoinSet::new();
    for some in batch.chunks(10) {
        let settler = member.settler();
        let some: Vec<_> = some
            .iter()
            .map(|delivery| (delivery.token(), Settlement::Ack))
            .collect();
        tasks.spawn(async move { settler.settle(&some).await });
    }
    let _step = scene.step("settling from four tasks");
    while let Some(results) = tasks.join_next().await {
        for result in results? {
            result?;
        }
    }
    member.close().await?;
    let mut member = client.join(&group, &[topic]).await?;
    member.ensure_quiet().await?;
    member.close().await
}

async fn settling_does_not_wait_for_recv(scene: Scene) -> Check {
    let topic = scene.topic().await?;
    let events = numbered("event", 0..10);
    let client = scene.connect().await?;
    let sender = client.sender().await?;
    sender.send_to(&topic, &events).await?;
    let mut member = client.join(&scene.name(), from_ref(&topic)).await?;
    let batch = member.take(events.len()).await?;
    let settler = member.settler();
    let tokens: Vec<_> = batch
        .iter()
        .map(|delivery| (delivery.token(), Settlement::Ack))
        .collect();
    let step = scene.step("settling while `recv` waits");
    let mut waiting = Box::pin(member.subscriber().recv(1));
    tokio::select! {
        biased;
        came = &mut waiting => {
            return Err(Failure::new(format!("nothing was to come, and then came {came:?}")));
        }
        results = settler.settle(&tokens) => {
            for result in results {
                result?;
            }
        }
    }
    drop(step);
    let _step = scene.step("receiving after that");
    let last = numbered("last", 0..1);
    let (published, received) = tokio::join!(sender.send_to(&topic, &last), &mut waiting);
    drop(waiting);
    published?;
    ensure!(
        delivered_ids(&received?)? == ["last-000000"],
        "another event came than the last one"
    );
    member.close().await
}

async fn many_unsettled_at_once(scene: Scene) -> Check {
    let topic = scene.partitioned_topic().await?;
    let group = scene.name();
    let events = numbered("event", 0..1_000);
    let client = scene.connect().await?;
    client.sender().await?.send_to(&topic, &events).await?;
    let mut member = client.join(&group, from_ref(&topic)).await?;
    let mut batch = member.take(events.len()).await?;
    let journal = Journal::of(&events);
    journal.record(&batch)?;
    journal.ensure_once()?;
    scene.random().shuffle(&mut batch);
    for some in batch.chunks(33) {
        member.ack(some).await?;
    }
    member.close().await?;
    let mut member = client.join(&group, &[topic]).await?;
    member.ensure_quiet().await?;
    member.close().await
}

async fn attempts_are_counted(scene: Scene) -> Check {
    let topic = scene.topic().await?;
    let group = scene.name();
    let events = numbered("event", 0..5);
    let client = scene.connect().await?;
    client.sender().await?.send_to(&topic, &events).await?;
    let mut before = 0;
    for round in 0..4 {
        let mut member = client.join_mortal(&group, from_ref(&topic)).await?;
        let batch = member.take(events.len()).await?;
        let attempts: BTreeSet<_> = batch.iter().map(Delivery::attempt).collect();
        let least = attempts.first().copied().unwrap_or_default();
        ensure!(
            if round == 0 {
                attempts == BTreeSet::from([1])
            } else {
                least > before
            },
            "delivery {} came with the attempts {attempts:?}, after {before}",
            round + 1
        );
        before = attempts.last().copied().unwrap_or_default();
        match round {
            0 => member.close().await?,
            1 => {
                member.settle(&batch, Settlement::Release).await?;
                member.close().await?;
            }
            _ => member.crash(),
        }
    }
    Ok(())
}

/// A new member gets the events once more, each once, and settles them for good.
async fn take_back(
    client: &Client,
    group: &str,
    topic: &polybus_core::Topic,
    events: &[polybus_core::Event],
) -> Check<Vec<Delivery>> {
    let mut member = client.join(group, from_ref(topic)).await?;
    let journal = Journal::of(events);
    let again = member.take_all(&journal).await?;
    member.ack(&again).await?;
    member.ensure_quiet().await?;
    member.close().await?;
    journal.ensure_once()?;
    let mut member = client.join(group, from_ref(topic)).await?;
    member.ensure_quiet().await?;
    member.close().await?;
    Ok(again)
}
