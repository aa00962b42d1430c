//! Bytes that are no event.

use std::slice::from_ref;

use polybus_core::ErrorKind;
use polybus_core::transport::{Delivery, Outgoing, RawRecord, Undecodable};

use super::case;
use crate::case::Case;
use crate::failure::{Check, Failure, ensure};
use crate::member::describe;
use crate::scene::Scene;
use crate::sender::event;

pub(super) const CASES: &[Case] = &[
    case!(
        undecodable_bytes_are_delivered,
        "Bytes that are no event come as such, unchanged, and the events around them come too."
    ),
    case!(
        undecodable_bytes_are_settled,
        "Bytes that are no event come back until they are acknowledged, and then no more."
    ),
    case!(
        a_record_is_forwarded_as_it_is,
        "A record that is no event can be published elsewhere as it came: a dead letter."
    ),
];

async fn undecodable_bytes_are_delivered(scene: Scene) -> Check {
    let topic = scene.topic().await?;
    let client = scene.connect().await?;
    let bad = scene.undecodable();
    let mut batch = Vec::new();
    for number in 0..10 {
        batch.push(match number % 3 {
            1 => Outgoing::raw(topic.clone(), bad.clone()),
            _ => Outgoing::new(topic.clone(), event("good", number, None)),
        });
    }
    client.sender().await?.send(&batch).await?;
    let mut member = client.join(&scene.name(), &[topic]).await?;
    let deliveries = member.take(batch.len()).await?;
    member.ack(&deliveries).await?;
    member.ensure_quiet().await?;
    member.close().await?;
    let (events, others): (Vec<_>, Vec<_>) = deliveries
        .iter()
        .partition(|delivery| delivery.event().is_ok());
    let expected = batch.iter().filter(|outgoing| outgoing.event().is_some());
    ensure!(
        events.len() == expected.count(),
        "of 7 events {} came",
        events.len()
    );
    for delivery in others {
        ensure_undecodable(delivery, &bad)?;
    }
    Ok(())
}

async fn undecodable_bytes_are_settled(scene: Scene) -> Check {
    let topic = scene.topic().await?;
    let group = scene.name();
    let client = scene.connect().await?;
    let bad = scene.undecodable();
    let outgoing = Outgoing::raw(topic.clone(), bad.clone());
    client.sender().await?.send(&[outgoing]).await?;
    for round in 0..2 {
        let mut member = client.join(&group, from_ref(&topic)).await?;
        let deliveries = member.take(1).await?;
        ensure_undecodable(&deliveries[0], &bad)?;
        if round == 1 {
            member.ack(&deliveries).await?;
        }
        member.close().await?;
    }
    let mut member = client.join(&group, &[topic]).await?;
    member.ensure_quiet().await?;
    member.close().await
}

async fn a_record_is_forwarded_as_it_is(scene: Scene) -> Check {
    let (from, to) = (scene.topic().await?, scene.topic().await?);
    let client = scene.connect().await?;
    let sender = client.sender().await?;
    sender
        .send(&[Outgoing::raw(from.clone(), scene.undecodable())])
        .await?;
    let mut reader = client.join(&scene.name(), &[from]).await?;
    let received = reader.take(1).await?;
    let record = undecodable(&received[0])?.record.clone();
    sender
        .send(&[Outgoing::raw(to.clone(), record.clone())])
        .await?;
    reader.ack(&received).await?;
    reader.close().await?;

    let mut reader = client.join(&scene.name(), &[to]).await?;
    let forwarded = reader.take(1).await?;
    ensure_undecodable(&forwarded[0], &scene.undecodable())?;
    let came = &undecodable(&forwarded[0])?.record;
    ensure!(
        *came == record,
        "the record {record:?} was forwarded and came as {came:?}"
    );
    reader.ack(&forwarded).await?;
    reader.close().await
}

fn undecodable(delivery: &Delivery) -> Check<&Undecodable> {
    delivery.event().err().ok_or_else(|| {
        Failure::new(format!(
            "bytes that are no event came as one: {}",
            describe(delivery)
        ))
    })
}

fn ensure_undecodable(delivery: &Delivery, sent: &RawRecord) -> Check {
    let undecodable = undecodable(delivery)?;
    let came = &undecodable.record;
    ensure!(
        came.value == sent.value,
        "the bytes {:?} came as {:?}",
        sent.value,
        came.value
    );
    // A transport may add headers, and one without keys loses the key.
    let kept = sent
        .headers
        .iter()
        .all(|header| came.headers.iter().any(|other| other == header));
    ensure!(kept, "of {:?} headers are missing: {came:?}", sent.headers);
    ensure!(
        undecodable.error().kind() == ErrorKind::Decode,
        "the reason is no decode error: {:?}",
        undecodable.error()
    );
    Ok(())
}
