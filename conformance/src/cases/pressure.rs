//! Callers that are slow, or that change their minds.

use std::slice::from_ref;
use std::time::Duration;

use futures::FutureExt;
use polybus_core::transport::{Admin, Delivery, Subscriber};
use tokio::time::timeout;

use super::case;
use crate::case::Case;
use crate::failure::{Check, ensure};
use crate::journal::Journal;
use crate::member::Member;
use crate::scene::Scene;
use crate::sender::{addressed, numbered};

pub(super) const CASES: &[Case] = &[
    case!(
        back_pressure,
        "A member that reads nothing for a while reads ahead only so far, stays a member, and then gets everything once."
    ),
    case!(
        cancelled_recv_loses_nothing,
        "Thousands of `recv` calls dropped at random points lose no delivery and repeat none."
    ),
    case!(
        a_slow_reader_holds_up_nobody,
        "While one group reads nothing, publishers and another group go on."
    ),
];

async fn back_pressure(scene: Scene) -> Check {
    let tuning = scene.tuning();
    let topic = scene.topic().await?;
    let group = scene.name();
    let read_ahead = tuning.read_ahead.unwrap_or_default();
    let events = numbered("event", 0..tuning.volume.max(read_ahead * 2));
    let client = scene.connect().await?;
    let mut member = client.join_mortal(&group, from_ref(&topic)).await?;
    let sender = scene.connect().await?.sender().await?;
    for batch in events.chunks(500) {
        sender.send_to(&topic, batch).await?;
    }
    let step = scene.step("reading nothing for a while");
    tokio::time::sleep(tuning.idle).await;
    drop(step);
    let lag = client.admin().lag(&group, from_ref(&topic)).await?;
    ensure!(
        lag.len() == 1 && lag[0].waiting + lag[0].pending == events.len() as u64,
        "nothing of {} events was read, and the lag is {lag:?}",
        events.len()
    );
    if let Some(read_ahead) = tuning.read_ahead {
        ensure!(
            lag[0].pending <= read_ahead as u64,
            "a member that reads nothing took {} events, and may take {read_ahead}",
            lag[0].pending
        );
    }
    let journal = Journal::of(&events);
    member.work(&journal).await?;
    member.ensure_quiet().await?;
    member.close().await?;
    journal.ensure_once()
}

async fn cancelled_recv_loses_nothing(scene: Scene) -> Check {
    const ROUNDS: usize = 100;
    const DROPPED: usize = 25;
    let topic = scene.partitioned_topic().await?;
    let client = scene.connect().await?;
    let mut member = client.join(&scene.name(), from_ref(&topic)).await?;
    let sender = scene.connect().await?.sender().await?;
    for round in 0..ROUNDS {
        let events = numbered(&format!("round-{round}"), 0..10);
        let journal = Journal::of(&events);
        let batch = addressed(&topic, &events);
        let receive = async {
            for _ in 0..DROPPED {
                if let Some(batch) = recv_and_give_up(&scene, &mut member).await? {
                    journal.record(&batch)?;
                    member.ack(&batch).await?;
                }
            }
            member.work(&journal).await
        };
        let (sent, received) = tokio::join!(sender.send(&batch), receive);
        sent?;
        received?;
        journal.ensure_once()?;
    }
    member.ensure_quiet().await?;
    member.close().await
}

/// Calls `recv` and drops it after a few polls or a short time, unless it is done by then.
async fn recv_and_give_up(scene: &Scene, member: &mut Member) -> Check<Option<Vec<Delivery>>> {
    let max = 1 + scene.random().below(8);
    let polls = scene.random().below(4);
    let micros = Duration::from_micros(scene.random().below(400) as u64);
    let by_time = scene.random().below(2) == 0;
    let mut receiving = Box::pin(member.subscriber().recv(max));
    let mut came = None;
    if by_time {
        came = timeout(micros, &mut receiving).await.ok();
    } else {
        for _ in 0..polls {
            came = (&mut receiving).now_or_never();
            if came.is_some() {
                break;
            }
            tokio::task::yield_now().await;
        }
    }
    Ok(came.transpose()?)
}

async fn a_slow_reader_holds_up_nobody(scene: Scene) -> Check {
    let topic = scene.topic().await?;
    let events = numbered("event", 0..scene.tuning().volume);
    let journal = Journal::of(&events);
    let client = scene.connect().await?;
    let mut slow = client.join(&scene.name(), from_ref(&topic)).await?;
    let mut quick = client.join(&scene.name(), from_ref(&topic)).await?;
    let sender = client.sender().await?;
    let publish = async {
        for batch in events.chunks(200) {
            sender.send_to(&topic, batch).await?;
        }
        Ok(())
    };
    tokio::try_join!(publish, quick.work(&journal))?;
    quick.close().await?;
    journal.ensure_once()?;
    let journal = Journal::of(&events);
    slow.work(&journal).await?;
    slow.close().await?;
    journal.ensure_once()
}
