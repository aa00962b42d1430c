//! Where a group starts, and that it goes on from where it was.

use std::slice::from_ref;
use std::time::Duration;

use polybus_core::transport::{Start, Subscription, Transport};
use polybus_core::{ErrorKind, Timestamp};

use super::case;
use crate::case::{Case, Need};
use crate::failure::{Check, Failure, ensure};
use crate::journal::Journal;
use crate::scene::Scene;
use crate::sender::{ids, numbered};

pub(super) const CASES: &[Case] = &[
    case!(
        start_now_skips_what_was_before,
        "A group that starts now gets what is accepted after `subscribe` and nothing from before."
    ),
    case!(
        start_is_settled_when_subscribe_returns,
        "A member that dies before it reads has fixed its group's start all the same."
    ),
    case!(
        start_is_for_new_groups_only,
        "A group that has a position goes on from it, whatever start its next member asks for."
    ),
    case!(
        start_at_a_time,
        "A group that starts at a time gets what was stored from then on.",
        needs: [Need::StartAtTime]
    ),
    case!(
        start_at_a_time_is_refused,
        "A transport that can't start at a time says so instead of starting elsewhere.",
        needs: [Need::NoStartAtTime]
    ),
    case!(
        missing_topic_is_refused,
        "A subscription to a topic that does not exist fails as such.",
        needs: [Need::NoCreatesTopics]
    ),
];

async fn start_now_skips_what_was_before(scene: Scene) -> Check {
    let topic = scene.partitioned_topic().await?;
    let client = scene.connect().await?;
    let sender = client.sender().await?;
    sender.send_to(&topic, &numbered("before", 0..50)).await?;
    let now = Subscription::new(scene.name(), [topic.clone()]).start(Start::Now);
    let mut member = client.subscribe(now).await?;
    let events = numbered("after", 0..50);
    sender.send_to(&topic, &events).await?;
    let journal = Journal::of(&events);
    member.work(&journal).await?;
    member.ensure_quiet().await?;
    member.close().await?;
    journal.ensure_once()
}

async fn start_is_settled_when_subscribe_returns(scene: Scene) -> Check {
    let topic = scene.partitioned_topic().await?;
    let client = scene.connect().await?;
    let sender = client.sender().await?;
    sender.send_to(&topic, &numbered("before", 0..20)).await?;
    let soon = scene.tuning().takeover_after;
    let now = Subscription::new(scene.name(), [topic.clone()])
        .start(Start::Now)
        .takeover_after(soon);
    let dying = scene.connect().await?.subscribe(now.clone()).await?;
    dying.crash();
    let events = numbered("between", 0..20);
    sender.send_to(&topic, &events).await?;
    // For this member "now" is after the events, which are its group's nevertheless.
    let mut member = client.subscribe(now).await?;
    let journal = Journal::of(&events);
    member.work(&journal).await?;
    member.close().await?;
    journal.ensure_complete()
}

async fn start_is_for_new_groups_only(scene: Scene) -> Check {
    let topic = scene.topic().await?;
    let client = scene.connect().await?;
    let sender = client.sender().await?;
    let events = numbered("event", 0..60);
    let journal = Journal::of(&events);
    let subscription = Subscription::new(scene.name(), [topic.clone()]);
    sender.send_to(&topic, &events[..40]).await?;
    for start in [Start::Beginning, Start::Now, Start::Beginning] {
        let mut member = client.subscribe(subscription.clone().start(start)).await?;
        let batch = member.take(10).await?;
        journal.record(&batch)?;
        member.ack(&batch).await?;
        member.close().await?;
    }
    sender.send_to(&topic, &events[40..]).await?;
    let mut last = client.subscribe(subscription.start(Start::Now)).await?;
    last.work(&journal).await?;
    last.ensure_quiet().await?;
    last.close().await?;
    journal.ensure_once()
}

async fn start_at_a_time(scene: Scene) -> Check {
    // Apart by more than the coarsest clock of a server.
    const APART: Duration = Duration::from_millis(50);
    let topic = scene.partitioned_topic().await?;
    let client = scene.connect().await?;
    let sender = client.sender().await?;
    sender.send_to(&topic, &numbered("before", 0..30)).await?;
    tokio::time::sleep(APART).await;
    let time = Timestamp::now();
    tokio::time::sleep(APART).await;
    let events = numbered("after", 0..30);
    sender.send_to(&topic, &events).await?;

    let from_then = Subscription::new(scene.name(), [topic.clone()]).start(Start::time(time));
    let mut member = client.subscribe(from_then).await?;
    let journal = Journal::of(&events);
    member.work(&journal).await?;
    member.ensure_quiet().await?;
    member.close().await?;
    journal.ensure_once()?;

    let future = Timestamp::now() + Duration::from_secs(3_600);
    let not_yet = Subscription::new(scene.name(), [topic.clone()]).start(Start::time(future));
    let mut member = client.subscribe(not_yet).await?;
    member.ensure_quiet().await?;
    member.close().await?;

    let ever = Subscription::new(scene.name(), [topic]).start(Start::time(Timestamp::UNIX_EPOCH));
    let mut member = client.subscribe(ever).await?;
    let all = numbered("before", 0..30).into_iter().chain(events);
    let journal = Journal::of_ids(ids(&all.collect::<Vec<_>>()));
    member.work(&journal).await?;
    member.close().await?;
    journal.ensure_once()
}

async fn start_at_a_time_is_refused(scene: Scene) -> Check {
    let topic = scene.topic().await?;
    let client = scene.connect().await?;
    let subscription =
        Subscription::new(scene.name(), [topic]).start(Start::time(Timestamp::UNIX_EPOCH));
    let _step = scene.step("joining a group at a time");
    match client.transport().subscribe(subscription).await {
        Err(error) if error.kind() == ErrorKind::Unsupported => Ok(()),
        Err(error) => Err(Failure::new(format!("refused, but as {error:?}"))),
        Ok(_) => Err(Failure::new("the transport joined at a time it can't find")),
    }
}

async fn missing_topic_is_refused(scene: Scene) -> Check {
    let there = scene.topic().await?;
    let missing = scene.name().into();
    let client = scene.connect().await?;
    let subscription = Subscription::new(scene.name(), [there.clone(), missing]);
    let _step = scene.step("joining a group on a topic that does not exist");
    match client.transport().subscribe(subscription).await {
        Err(error) => ensure!(
            error.kind() == ErrorKind::TopicNotFound,
            "refused, but as {error:?}"
        ),
        Ok(_) => {
            return Err(Failure::new(
                "the transport joined on a topic that does not exist",
            ));
        }
    }
    // The client is as good as before.
    let mut member = client.join(&scene.name(), from_ref(&there)).await?;
    member.ensure_quiet().await?;
    member.close().await
}
