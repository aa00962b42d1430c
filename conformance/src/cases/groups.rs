//! Groups get everything, members share it, and memberships come and go.

use std::slice::from_ref;

use super::case;
use crate::case::Case;
use crate::failure::Check;
use crate::journal::{Journal, work_together};
use crate::member::Member;
use crate::scene::Scene;
use crate::sender::{Sender, keyed, numbered};

pub(super) const CASES: &[Case] = &[
    case!(
        each_group_gets_every_event,
        "Three groups on one topic: each gets every event once, one that starts later too."
    ),
    case!(
        members_share_the_events,
        "Three members of one group: every event goes to one of them, and to one only."
    ),
    case!(
        concurrent_groups_and_members,
        "Several groups of several members read while several publishers write."
    ),
    case!(
        a_new_member_goes_on,
        "A member that joins after another has left goes on where that one stopped."
    ),
    case!(
        close_and_rejoin_repeats_nothing,
        "A member that leaves and comes back over and over: nothing lost, nothing twice."
    ),
    case!(
        a_leaving_member_hands_over,
        "A member leaves amid the work of its group: the others do the rest, nothing twice."
    ),
    case!(
        a_joining_member_loses_nothing,
        "A member joins amid the work of its group: nothing is lost."
    ),
];

async fn each_group_gets_every_event(scene: Scene) -> Check {
    let topic = scene.topic().await?;
    let client = scene.connect().await?;
    let events = numbered("event", 0..100);
    let mut early = [
        client.join(&scene.name(), from_ref(&topic)).await?,
        scene
            .connect()
            .await?
            .join(&scene.name(), from_ref(&topic))
            .await?,
    ];
    client.sender().await?.send_to(&topic, &events).await?;
    for member in &mut early {
        let journal = Journal::of(&events);
        member.work(&journal).await?;
        member.ensure_quiet().await?;
        journal.ensure_once()?;
    }
    let mut late = client.join(&scene.name(), &[topic]).await?;
    let journal = Journal::of(&events);
    late.work(&journal).await?;
    late.ensure_quiet().await?;
    for member in early.into_iter().chain([late]) {
        member.close().await?;
    }
    journal.ensure_once()
}

async fn members_share_the_events(scene: Scene) -> Check {
    let topic = scene.partitioned_topic().await?;
    let mut members = members(&scene, &scene.name(), &topic, 3).await?;
    let events = keyed("event", 0..scene.tuning().volume, 20);
    let journal = Journal::of(&events);
    let sender = scene.connect().await?.sender().await?;
    tokio::try_join!(
        publish_all(&sender, &topic, &events),
        work_together(&mut members, &journal)
    )?;
    for member in &mut members {
        member.ensure_quiet().await?;
    }
    for member in members {
        member.close().await?;
    }
    journal.ensure_once()
}

async fn concurrent_groups_and_members(scene: Scene) -> Check {
    const PUBLISHERS: usize = 3;
    let topic = scene.partitioned_topic().await?;
    let each = scene.tuning().volume / PUBLISHERS;
    let labels = (0..PUBLISHERS).map(|number| format!("publisher{number}"));
    let shares: Vec<_> = labels.map(|label| keyed(&label, 0..each, 5)).collect();
    let events: Vec<_> = shares.iter().flatten().cloned().collect();
    let mut groups = Vec::new();
    for _ in 0..2 {
        let members = members(&scene, &scene.name(), &topic, 2).await?;
        groups.push((members, Journal::of(&events)));
    }
    let client = scene.connect().await?;
    let mut senders = Vec::new();
    for _ in 0..PUBLISHERS {
        senders.push(client.sender().await?);
    }
    let publish = senders
        .iter()
        .zip(&shares)
        .map(|(sender, events)| publish_all(sender, &topic, events));
    let work = groups
        .iter_mut()
        .map(|(members, journal)| work_together(members, journal));
    tokio::try_join!(
        futures::future::try_join_all(publish),
        futures::future::try_join_all(work)
    )?;
    for (members, journal) in groups {
        for member in members {
            member.close().await?;
        }
        journal.ensure_once()?;
    }
    Ok(())
}

async fn a_new_member_goes_on(scene: Scene) -> Check {
    let topic = scene.topic().await?;
    let group = scene.name();
    let events = numbered("event", 0..100);
    let journal = Journal::of(&events);
    let client = scene.connect().await?;
    let sender = client.sender().await?;
    sender.send_to(&topic, &events[..60]).await?;
    let mut first = client.join(&group, from_ref(&topic)).await?;
    let batch = first.take(30).await?;
    journal.record(&batch)?;
    first.ack(&batch).await?;
    first.close().await?;
    sender.send_to(&topic, &events[60..]).await?;

    let other = scene.connect().await?;
    let mut second = other.join(&group, &[topic]).await?;
    second.work(&journal).await?;
    second.ensure_quiet().await?;
    second.close().await?;
    journal.ensure_once()
}

async fn close_and_rejoin_repeats_nothing(scene: Scene) -> Check {
    const ROUNDS: usize = 6;
    let topic = scene.partitioned_topic().await?;
    let group = scene.name();
    let events = keyed("event", 0..ROUNDS * 40, 8);
    let journal = Journal::of(&events);
    let client = scene.connect().await?;
    let sender = client.sender().await?;
    sender.send_to(&topic, &events).await?;
    for _ in 1..ROUNDS {
        let mut member = client.join(&group, from_ref(&topic)).await?;
        let batch = member.take(1 + scene.random().below(40)).await?;
        journal.record(&batch)?;
        member.ack(&batch).await?;
        member.close().await?;
    }
    let mut last = client.join(&group, &[topic]).await?;
    last.work(&journal).await?;
    last.ensure_quiet().await?;
    last.close().await?;
    journal.ensure_once()
}

async fn a_leaving_member_hands_over(scene: Scene) -> Check {
    let topic = scene.partitioned_topic().await?;
    let mut members = members(&scene, &scene.name(), &topic, 2).await?;
    let events = keyed("event", 0..400, 20);
    let (first_half, second_half) = events.split_at(200);
    let sender = scene.connect().await?.sender().await?;
    sender.send_to(&topic, first_half).await?;
    let journal = Journal::of(first_half);
    work_together(&mut members, &journal).await?;
    journal.ensure_once()?;

    let mut leaving = members.remove(0);
    let mut staying = members.remove(0);
    sender.send_to(&topic, second_half).await?;
    let journal = Journal::of(second_half);
    let leave = async {
        // It leaves with work done, and with work waiting that it was given and never saw.
        if let Ok(batch) = tokio::time::timeout(scene.tuning().quiet, leaving.recv(10)).await {
            let batch = batch?;
            journal.record(&batch)?;
            leaving.ack(&batch).await?;
        }
        leaving.close().await
    };
    tokio::try_join!(leave, staying.work(&journal))?;
    staying.ensure_quiet().await?;
    staying.close().await?;
    journal.ensure_once()
}

async fn a_joining_member_loses_nothing(scene: Scene) -> Check {
    let topic = scene.partitioned_topic().await?;
    let group = scene.name();
    let events = keyed("event", 0..400, 20);
    let journal = Journal::of(&events);
    let sender = scene.connect().await?.sender().await?;
    let mut first = scene
        .connect()
        .await?
        .join(&group, from_ref(&topic))
        .await?;
    sender.send_to(&topic, &events[..200]).await?;
    let other = scene.connect().await?;
    let join_and_work = async {
        let mut second = other.join(&group, from_ref(&topic)).await?;
        sender.send_to(&topic, &events[200..]).await?;
        second.work(&journal).await?;
        second.close().await
    };
    tokio::try_join!(first.work(&journal), join_and_work)?;
    first.close().await?;
    journal.ensure_complete()
}

async fn members(
    scene: &Scene,
    group: &str,
    topic: &polybus_core::Topic,
    count: usize,
) -> Check<Vec<Member>> {
    let mut members = Vec::new();
    for _ in 0..count {
        let client = scene.connect().await?;
        members.push(client.join(group, from_ref(topic)).await?);
    }
    Ok(members)
}

async fn publish_all(
    sender: &Sender,
    topic: &polybus_core::Topic,
    events: &[polybus_core::Event],
) -> Check {
    for batch in events.chunks(50) {
        sender.send_to(topic, batch).await?;
    }
    Ok(())
}
