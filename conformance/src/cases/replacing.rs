//! Storing and acknowledging in one step, noting starts, reading without a group, deleting.

use std::slice::from_ref;

use bytes::Bytes;
use polybus_core::transport::{
    AckToken, Admin, Delivery, Headers, Outgoing, Position, Settlement, Settler,
};
use polybus_core::{ErrorKind, Event, Topic};

use super::case;
use crate::case::{Case, Need};
use crate::failure::{Check, Failure, ensure};
use crate::journal::Journal;
use crate::member::{delivered_ids, event_of};
use crate::scene::{Client, Scene};
use crate::sender::{ids, numbered};

pub(super) const CASES: &[Case] = &[
    case!(
        forwarding_stores_and_acknowledges,
        "What is forwarded is stored, its delivery does not come back, and forwarding again stores nothing.",
        needs: [Need::Forward]
    ),
    case!(
        forwarding_what_was_given_back_is_stale,
        "A delivery that was given back is not forwarded: nothing is stored, and it comes again.",
        needs: [Need::Forward, Need::Release]
    ),
    case!(
        starts_are_counted_over_dead_members,
        "How often a start was noted is known to the next member, and is no delivery.",
        needs: [Need::Begin]
    ),
    case!(
        browsing_reads_everything_and_changes_nothing,
        "A topic is read page by page, each record once and as it came; groups get what they get.",
        needs: [Need::Browse]
    ),
    case!(
        purged_records_are_gone,
        "What was deleted is neither read nor delivered any more; what is behind it is.",
        needs: [Need::Browse, Need::Purge]
    ),
];

fn header() -> Headers {
    let mut headers = Headers::new();
    headers.push("why", Some(Bytes::from_static(b"failed")));
    headers
}

fn forwarded(to: &Topic, deliveries: &[Delivery]) -> Check<Vec<(AckToken, Outgoing)>> {
    let item = |delivery| {
        let outgoing = Outgoing::new(to.clone(), Event::clone(event_of(delivery)?));
        Ok((delivery.token(), outgoing.with_headers(header())))
    };
    deliveries.iter().map(item).collect()
}

async fn forwarding_stores_and_acknowledges(scene: Scene) -> Check {
    let [to, from] = scene.kindred_topics().await?;
    let group = scene.name();
    let events = numbered("event", 0..20);
    let client = scene.connect().await?;
    client.sender().await?.send_to(&from, &events).await?;
    let mut member = client.join(&group, from_ref(&from)).await?;
    let deliveries = member.take(events.len()).await?;
    let batch = forwarded(&to, &deliveries)?;
    for round in 0..2 {
        let _step = scene.step(format_args!("forwarding, round {round}"));
        let results = member.settler().forward(&batch).await;
        ensure!(
            results.len() == batch.len(),
            "{} were forwarded and {} results came back",
            batch.len(),
            results.len()
        );
        for result in results {
            result?;
        }
    }
    member.close().await?;
    let mut member = client.join(&group, from_ref(&from)).await?;
    member.ensure_quiet().await?;
    member.close().await?;

    let journal = Journal::of(&events);
    let mut reader = client.join(&group, &[to]).await?;
    let stored = reader.take_all(&journal).await?;
    for delivery in &stored {
        ensure!(
            delivery.headers() == &header(),
            "what was forwarded came with the headers {:?}",
            delivery.headers()
        );
    }
    reader.ack(&stored).await?;
    reader.ensure_quiet().await?;
    reader.close().await?;
    journal.ensure_once()
}

async fn forwarding_what_was_given_back_is_stale(scene: Scene) -> Check {
    let (from, to) = (scene.topic().await?, scene.topic().await?);
    let group = scene.name();
    let events = numbered("event", 0..5);
    let client = scene.connect().await?;
    client.sender().await?.send_to(&from, &events).await?;
    let mut member = client.join(&group, from_ref(&from)).await?;
    let deliveries = member.take(events.len()).await?;
    member.settle(&deliveries, Settlement::Release).await?;
    let batch = forwarded(&to, &deliveries)?;
    for result in member.settler().forward(&batch).await {
        let kind = result.map_err(|error| error.kind());
        ensure!(
            kind == Err(ErrorKind::Stale),
            "what was given back was forwarded: {kind:?}"
        );
    }
    let journal = Journal::of(&events);
    member.work(&journal).await?;
    member.close().await?;
    let mut reader = client.join(&group, &[to]).await?;
    reader.ensure_quiet().await?;
    reader.close().await
}

async fn starts_are_counted_over_dead_members(scene: Scene) -> Check {
    let topic = scene.topic().await?;
    let group = scene.name();
    let events = numbered("event", 0..3);
    let client = scene.connect().await?;
    client.sender().await?.send_to(&topic, &events).await?;
    for round in 0..3 {
        let mut member = client.join_mortal(&group, from_ref(&topic)).await?;
        let deliveries = member.take(events.len()).await?;
        let second = deliveries
            .iter()
            .find(|it| event_of(it).is_ok_and(|event| event.id() == events[1].id()))
            .ok_or_else(|| Failure::new("the second event did not come"))?;
        ensure!(
            second.attempt() <= 2 + round,
            "a start was taken for a delivery: attempt {}",
            second.attempt()
        );
        let _step = scene.step("noting a start");
        let before = member.settler().begin(second.token()).await?;
        ensure!(
            before == round,
            "{round} starts were noted and {before} are known"
        );
        if round == 2 {
            member.ack(&deliveries).await?;
            member.close().await?;
        } else {
            member.crash();
        }
    }
    let mut member = client.join(&group, &[topic]).await?;
    member.ensure_quiet().await?;
    member.close().await
}

async fn browsing_reads_everything_and_changes_nothing(scene: Scene) -> Check {
    let topic = scene.partitioned_topic().await?;
    let client = scene.connect().await?;
    let events = numbered("event", 0..50);
    let bad = Outgoing::raw(topic.clone(), scene.undecodable());
    let sender = client.sender().await?;
    sender.send_to(&topic, &events).await?;
    sender.send(&[bad]).await?;
    let found = browse_all(&scene, &client, &topic, 7).await?;
    let (good, bad): (Vec<_>, Vec<_>) = found.iter().partition(|it| it.event().is_ok());
    ensure!(bad.len() == 1, "{} records are no events", bad.len());
    let mut read: Vec<String> = good
        .iter()
        .map(|it| Ok(event_of(it)?.id().to_owned()))
        .collect::<Check<_>>()?;
    read.sort_unstable();
    ensure!(
        read == ids(&events),
        "browsing lost some or read them twice: {} of {}",
        read.len(),
        events.len()
    );

    let journal = Journal::of(&events);
    let mut member = client.join(&scene.name(), &[topic]).await?;
    let all = member.take(events.len() + 1).await?;
    let (good, _): (Vec<_>, Vec<_>) = all.into_iter().partition(|it| it.event().is_ok());
    journal.record(&good)?;
    member.close().await?;
    journal.ensure_once()?;
    let missing = scene.named(&scene.name(), 1);
    let nothing = client.admin().browse(&missing, &[], 10).await?;
    ensure!(nothing.is_empty(), "a topic that does not exist holds some");
    Ok(())
}

async fn purged_records_are_gone(scene: Scene) -> Check {
    let topic = scene.topic().await?;
    let client = scene.connect().await?;
    let sender = client.sender().await?;
    let events = numbered("event", 0..20);
    sender.send_to(&topic, &events).await?;
    let found = browse_all(&scene, &client, &topic, 100).await?;
    let last = found[9].position();
    client.admin().purge(&topic, &[last]).await?;
    let later = numbered("later", 0..5);
    sender.send_to(&topic, &later).await?;
    let expected: Vec<String> = ids(&events[10..]).into_iter().chain(ids(&later)).collect();
    let left = browse_all(&scene, &client, &topic, 4).await?;
    let left = delivered_ids(&left)?;
    ensure!(left == expected, "after deleting ten there are {left:?}");
    let journal = Journal::of_ids(expected);
    let mut member = client.join(&scene.name(), &[topic]).await?;
    member.work(&journal).await?;
    member.ensure_quiet().await?;
    member.close().await?;
    journal.ensure_once()
}

/// Everything that a topic holds, read in pages.
async fn browse_all(
    scene: &Scene,
    client: &Client,
    topic: &Topic,
    page: usize,
) -> Check<Vec<Delivery>> {
    let _step = scene.step("browsing");
    let admin = client.admin();
    let mut after: Vec<Position> = Vec::new();
    let mut found: Vec<Delivery> = Vec::new();
    loop {
        let read = admin.browse(topic, &after, page).await?;
        let count = read.len();
        ensure!(count <= page, "a page of {page} holds {count}");
        for delivery in read {
            let position = delivery.position();
            match after
                .iter_mut()
                .find(|it| it.partition() == position.partition())
            {
                Some(last) => {
                    ensure!(*last < position, "{position} came behind {last}");
                    *last = position;
                }
                None => after.push(position),
            }
            found.push(delivery);
        }
        if count < page {
            return Ok(found);
        }
    }
}
