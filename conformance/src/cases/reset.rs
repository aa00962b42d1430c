//! Groups that are moved to another place: to get events again, or to skip some.

use std::slice::from_ref;
use std::time::Duration;

use polybus_core::transport::{Admin, Start};
use polybus_core::{ErrorKind, Timestamp, Topic};

use super::case;
use crate::case::{Case, Need};
use crate::failure::{Check, Failure, ensure};
use crate::journal::Journal;
use crate::scene::{Client, Scene};
use crate::sender::numbered;

pub(super) const CASES: &[Case] = &[
    case!(
        reset_to_the_beginning_replays,
        "A group that is moved to the beginning gets every event once more, and no other group does.",
        needs: [Need::Reset]
    ),
    case!(
        reset_to_a_time_replays_from_then,
        "A group that is moved to a time gets what was stored from then on.",
        needs: [Need::Reset, Need::StartAtTime]
    ),
    case!(
        reset_to_now_skips,
        "A group that is moved to now gets neither what waited nor what was not settled.",
        needs: [Need::Reset]
    ),
    case!(
        reset_leaves_other_topics,
        "A group that is moved on one topic goes on from where it was on the others.",
        needs: [Need::Reset]
    ),
    case!(
        reset_under_members_is_refused,
        "A group that has members is not moved.",
        needs: [Need::Reset]
    ),
    case!(
        reset_makes_the_group,
        "A group that nobody was in yet begins at the place it is moved to.",
        needs: [Need::Reset]
    ),
    case!(
        reset_on_a_missing_topic_is_refused,
        "Moving a group on a topic that does not exist is an error that says so.",
        needs: [Need::Reset]
    ),
    case!(
        reset_is_refused,
        "A transport that can't move a group says so.",
        needs: [Need::NoReset]
    ),
];

impl Client {
    async fn reset(&self, scene: &Scene, group: &str, topic: &Topic, to: Start) -> Check {
        let _step = scene.step(format_args!("moving group `{group}` to {to:?}"));
        let moved = self.admin().reset(group, from_ref(topic), to).await;
        moved.map_err(Failure::from)
    }

    /// A group handles what is there, and leaves.
    async fn handle(&self, group: &str, topic: &Topic, journal: &Journal) -> Check {
        let mut member = self.join(group, from_ref(topic)).await?;
        member.work(journal).await?;
        member.ensure_quiet().await?;
        member.close().await
    }
}

async fn reset_to_the_beginning_replays(scene: Scene) -> Check {
    let topic = scene.partitioned_topic().await?;
    let client = scene.connect().await?;
    let events = numbered("event", 0..60);
    client.sender().await?.send_to(&topic, &events).await?;
    let (group, other) = (scene.name(), scene.name());
    for name in [&group, &other] {
        let journal = Journal::of(&events);
        client.handle(name, &topic, &journal).await?;
        journal.ensure_once()?;
    }
    client
        .reset(&scene, &group, &topic, Start::Beginning)
        .await?;
    let again = Journal::of(&events);
    client.handle(&group, &topic, &again).await?;
    again.ensure_once()?;
    let mut member = client.join(&other, from_ref(&topic)).await?;
    member.ensure_quiet().await?;
    member.close().await
}

async fn reset_to_a_time_replays_from_then(scene: Scene) -> Check {
    // Apart by more than the coarsest clock of a server.
    const APART: Duration = Duration::from_millis(50);
    let topic = scene.partitioned_topic().await?;
    let client = scene.connect().await?;
    let sender = client.sender().await?;
    let before = numbered("before", 0..30);
    sender.send_to(&topic, &before).await?;
    tokio::time::sleep(APART).await;
    let time = Timestamp::now();
    tokio::time::sleep(APART).await;
    let after = numbered("after", 0..30);
    sender.send_to(&topic, &after).await?;
    let group = scene.name();
    let all: Vec<_> = before.iter().chain(&after).cloned().collect();
    client.handle(&group, &topic, &Journal::of(&all)).await?;

    client
        .reset(&scene, &group, &topic, Start::time(time))
        .await?;
    let again = Journal::of(&after);
    client.handle(&group, &topic, &again).await?;
    again.ensure_once()
}

async fn reset_to_now_skips(scene: Scene) -> Check {
    let topic = scene.partitioned_topic().await?;
    let client = scene.connect().await?;
    let sender = client.sender().await?;
    sender.send_to(&topic, &numbered("before", 0..30)).await?;
    let group = scene.name();
    let mut member = client.join(&group, from_ref(&topic)).await?;
    member.take(10).await?;
    member.close().await?;

    client.reset(&scene, &group, &topic, Start::Now).await?;
    let events = numbered("after", 0..30);
    sender.send_to(&topic, &events).await?;
    let journal = Journal::of(&events);
    client.handle(&group, &topic, &journal).await?;
    journal.ensure_once()
}

async fn reset_leaves_other_topics(scene: Scene) -> Check {
    let topics = [scene.topic().await?, scene.topic().await?];
    let client = scene.connect().await?;
    let sender = client.sender().await?;
    let (moved, stays) = (numbered("moved", 0..20), numbered("stays", 0..20));
    sender.send_to(&topics[0], &moved).await?;
    sender.send_to(&topics[1], &stays).await?;
    let group = scene.name();
    let all: Vec<_> = moved.iter().chain(&stays).cloned().collect();
    let journal = Journal::of(&all);
    let mut member = client.join(&group, &topics).await?;
    member.work(&journal).await?;
    member.close().await?;

    client
        .reset(&scene, &group, &topics[0], Start::Beginning)
        .await?;
    let again = Journal::of(&moved);
    let mut member = client.join(&group, &topics).await?;
    member.work(&again).await?;
    member.ensure_quiet().await?;
    member.close().await?;
    again.ensure_once()
}

async fn reset_under_members_is_refused(scene: Scene) -> Check {
    let topic = scene.topic().await?;
    let client = scene.connect().await?;
    let sender = client.sender().await?;
    let events = numbered("event", 0..40);
    let journal = Journal::of(&events);
    sender.send_to(&topic, &events[..20]).await?;
    let group = scene.name();
    let mut member = client.join(&group, from_ref(&topic)).await?;
    let batch = member.take(20).await?;
    journal.record(&batch)?;
    member.ack(&batch).await?;
    let step = scene.step("moving a group that has a member");
    let answer = client
        .admin()
        .reset(&group, from_ref(&topic), Start::Beginning)
        .await;
    drop(step);
    let refused = matches!(&answer, Err(error) if error.kind() == ErrorKind::InUse);
    ensure!(refused, "the answer was {answer:?}");
    sender.send_to(&topic, &events[20..]).await?;
    member.work(&journal).await?;
    member.ensure_quiet().await?;
    member.close().await?;
    client.handle(&group, &topic, &journal).await?;
    journal.ensure_once()
}

async fn reset_makes_the_group(scene: Scene) -> Check {
    let topic = scene.partitioned_topic().await?;
    let client = scene.connect().await?;
    let sender = client.sender().await?;
    sender.send_to(&topic, &numbered("before", 0..20)).await?;
    let group = scene.name();
    client.reset(&scene, &group, &topic, Start::Now).await?;
    let events = numbered("after", 0..20);
    sender.send_to(&topic, &events).await?;
    // It joins as one that begins at the beginning: that is for groups without a position.
    let journal = Journal::of(&events);
    client.handle(&group, &topic, &journal).await?;
    journal.ensure_once()
}

async fn reset_on_a_missing_topic_is_refused(scene: Scene) -> Check {
    let client = scene.connect().await?;
    let missing = scene.named(&scene.name(), 1);
    let group = scene.name();
    let _step = scene.step("moving a group on a topic that does not exist");
    let answer = client
        .admin()
        .reset(&group, &[missing], Start::Beginning)
        .await;
    let right = matches!(&answer, Err(error) if error.kind() == ErrorKind::TopicNotFound);
    ensure!(right, "the answer was {answer:?}");
    Ok(())
}

async fn reset_is_refused(scene: Scene) -> Check {
    let topic = scene.topic().await?;
    let client = scene.connect().await?;
    let group = scene.name();
    let _step = scene.step("moving a group");
    let answer = client
        .admin()
        .reset(&group, &[topic], Start::Beginning)
        .await;
    let right = matches!(&answer, Err(error) if error.kind() == ErrorKind::Unsupported);
    ensure!(right, "the answer was {answer:?}");
    Ok(())
}
