//! Order per key, as far as the transport claims it.

use std::collections::BTreeMap;
use std::slice::from_ref;
use std::sync::{Mutex, PoisonError};

use polybus_core::Topic;
use polybus_core::transport::{Delivery, KeyOrder};

use super::case;
use crate::case::{Case, Need};
use crate::failure::{Check, ensure};
use crate::journal::Journal;
use crate::member::{Member, event_of};
use crate::scene::Scene;
use crate::sender::{Sender, keyed};

pub(super) const CASES: &[Case] = &[
    case!(
        order_per_key_within_a_member,
        "One member gets the events of each key in the order in which they were published.",
        needs: [Need::KeyOrder(KeyOrder::Member)]
    ),
    case!(
        order_per_key_across_the_group,
        "Several members: the events of a key stay in order, and never are with two at once.",
        needs: [Need::KeyOrder(KeyOrder::Group)]
    ),
    case!(
        order_holds_over_redelivery,
        "Events that come back after their member left come in the order of their key again.",
        needs: [Need::KeyOrder(KeyOrder::Group)]
    ),
    case!(
        a_key_stays_in_its_partition,
        "All events of a key go to one partition, from every publisher; keys spread over several.",
        needs: [Need::Partitions]
    ),
];

const KEYS: usize = 12;

async fn order_per_key_within_a_member(scene: Scene) -> Check {
    let topic = scene.partitioned_topic().await?;
    let events = keyed("event", 0..scene.tuning().volume, KEYS);
    let journal = Journal::of(&events);
    let client = scene.connect().await?;
    let mut member = client.join(&scene.name(), from_ref(&topic)).await?;
    let sender = scene.connect().await?.sender().await?;
    tokio::try_join!(
        publish_in_odd_batches(&scene, &sender, &topic, &events),
        member.work(&journal)
    )?;
    member.close().await?;
    journal.ensure_order_per_key()?;
    journal.ensure_once()
}

/// Which member has which key in its hands.
type Hands = Mutex<BTreeMap<String, (usize, usize)>>;

async fn order_per_key_across_the_group(scene: Scene) -> Check {
    let topic = scene.partitioned_topic().await?;
    let group = scene.name();
    let mut members = Vec::new();
    for _ in 0..3 {
        let client = scene.connect().await?;
        members.push(client.join(&group, from_ref(&topic)).await?);
    }
    let events = keyed("event", 0..scene.tuning().volume, KEYS);
    let journal = Journal::of(&events);
    let hands = Hands::default();
    let work = members
        .iter_mut()
        .enumerate()
        .map(|(number, member)| work_with_one_hand(number, member, &journal, &hands));
    let sender = scene.connect().await?.sender().await?;
    tokio::try_join!(
        publish_in_odd_batches(&scene, &sender, &topic, &events),
        futures::future::try_join_all(work)
    )?;
    for member in members {
        member.close().await?;
    }
    journal.ensure_order_per_key()?;
    journal.ensure_once()
}

/// Works as [`Member::work`] does and takes a while over each batch, in which no other member
/// may have one of its keys.
async fn work_with_one_hand(
    number: usize,
    member: &mut Member,
    journal: &Journal,
    hands: &Hands,
) -> Check {
    journal.start_waiting();
    while !journal.is_complete() {
        let Some(batch) = member.next_of(journal).await? else {
            break;
        };
        take_in_hand(number, &batch, hands)?;
        journal.record(&batch)?;
        for _ in 0..50 {
            tokio::task::yield_now().await;
        }
        // Before the settlement, which may give the next of the key to another at once.
        let_go(&batch, hands);
        member.ack(&batch).await?;
    }
    Ok(())
}

fn take_in_hand(number: usize, batch: &[Delivery], hands: &Hands) -> Check {
    let mut hands = hands.lock().unwrap_or_else(PoisonError::into_inner);
    for delivery in batch {
        let key = delivery.key().unwrap_or_default();
        let (owner, held) = hands.entry(key.to_owned()).or_insert((number, 0));
        ensure!(
            *owner == number || *held == 0,
            "`{}` of key `{key}` came to a member while another had not settled one of that key",
            event_of(delivery)?.id()
        );
        *owner = number;
        *held += 1;
    }
    Ok(())
}

fn let_go(batch: &[Delivery], hands: &Hands) {
    let mut hands = hands.lock().unwrap_or_else(PoisonError::into_inner);
    for delivery in batch {
        if let Some((_, held)) = hands.get_mut(delivery.key().unwrap_or_default()) {
            *held -= 1;
        }
    }
}

async fn order_holds_over_redelivery(scene: Scene) -> Check {
    let topic = scene.partitioned_topic().await?;
    let group = scene.name();
    let events = keyed("event", 0..240, KEYS);
    let client = scene.connect().await?;
    client.sender().await?.send_to(&topic, &events).await?;

    let seen = Journal::of(&events);
    let mut first = client.join(&group, from_ref(&topic)).await?;
    let batch = first.take(120).await?;
    seen.record(&batch)?;
    seen.ensure_order_per_key()?;
    first.close().await?;

    let journal = Journal::of(&events);
    let mut second = client.join(&group, &[topic]).await?;
    second.work(&journal).await?;
    second.close().await?;
    journal.ensure_order_per_key()?;
    journal.ensure_once()
}

async fn a_key_stays_in_its_partition(scene: Scene) -> Check {
    let topic = scene.partitioned_topic().await?;
    let mut partitions = BTreeMap::new();
    for _ in 0..2 {
        let events = keyed("event", 0..200, 40);
        let sender = scene.connect().await?.sender().await?;
        let positions = sender.send_to(&topic, &events).await?;
        for (event, position) in events.iter().zip(positions) {
            let key = event.key().unwrap_or_default().to_owned();
            let before = partitions.insert(key, position.partition());
            ensure!(
                before.is_none_or(|before| before == position.partition()),
                "key {:?} went to partition {} and before to {before:?}",
                event.key(),
                position.partition()
            );
        }
    }
    let used: std::collections::BTreeSet<_> = partitions.values().collect();
    ensure!(
        used.len() > 1,
        "40 keys all went to one of {} partitions",
        crate::scene::PARTITIONS
    );
    Ok(())
}

/// Publishes in order, in batches of all sizes.
async fn publish_in_odd_batches(
    scene: &Scene,
    sender: &Sender,
    topic: &Topic,
    mut events: &[polybus_core::Event],
) -> Check {
    while !events.is_empty() {
        let (batch, rest) = events.split_at(events.len().min(1 + scene.random().below(120)));
        sender.send_to(topic, batch).await?;
        events = rest;
    }
    Ok(())
}
