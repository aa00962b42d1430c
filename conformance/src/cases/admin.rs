//! Topics and their state, and topics found by pattern.

use std::slice::from_ref;

use polybus_core::topic::{TopicPart, TopicPattern};
use polybus_core::transport::{Admin, Lag, Subscription};
use polybus_core::{ErrorKind, Event, Topic};

use super::case;
use crate::case::{Case, Need};
use crate::failure::{Check, ensure};
use crate::journal::Journal;
use crate::scene::{Asking, Client, PARTITIONS, Scene};
use crate::sender::{Sender, numbered};

pub(super) const CASES: &[Case] = &[
    case!(
        health_of_a_healthy_server,
        "A server that answers is healthy, for each of several clients."
    ),
    case!(
        ensure_topics_twice,
        "Ensuring topics again leaves them and their events as they are."
    ),
    case!(
        describe_tells_what_is_there,
        "A description for each topic in the order asked, none for one that does not exist."
    ),
    case!(
        lag_goes_to_zero,
        "A group's lag is what it has left to do, and zero when it is done."
    ),
    case!(
        lag_of_a_missing_topic,
        "The lag on a topic that does not exist is an error that says so."
    ),
    case!(
        topics_are_discovered,
        "A group that reads by pattern gets the topics that fit, also one that comes later, from its beginning.",
        needs: [Need::Discovery]
    ),
];

async fn health_of_a_healthy_server(scene: Scene) -> Check {
    let _step = scene.step("asking for health");
    for _ in 0..2 {
        scene.connect().await?.admin().health().await?;
    }
    Ok(())
}

async fn ensure_topics_twice(scene: Scene) -> Check {
    let client = scene.connect().await?;
    let (old, new) = (scene.topic().await?, scene.named(&scene.name(), 1));
    let events = numbered("event", 0..10);
    client.sender().await?.send_to(&old, &events).await?;
    let specs = [
        scene.topic_spec(old.name(), 1),
        scene.topic_spec(new.name(), 1),
    ];
    for _ in 0..2 {
        let _step = scene.step("ensuring topics");
        client.admin().ensure_topics(&specs).await?;
    }
    let journal = Journal::of(&events);
    let mut member = client.join(&scene.name(), &[old, new]).await?;
    member.work(&journal).await?;
    member.ensure_quiet().await?;
    member.close().await?;
    journal.ensure_once()
}

async fn describe_tells_what_is_there(scene: Scene) -> Check {
    let client = scene.connect().await?;
    let full = scene.partitioned_topic().await?;
    let missing = scene.named(&scene.name(), 1);
    let empty = scene.topic().await?;
    let events = numbered("event", 0..25);
    client.sender().await?.send_to(&full, &events).await?;
    let topics = [full.clone(), missing, empty.clone()];
    let partitions = match scene.capabilities().partitions {
        true => PARTITIONS,
        false => 1,
    };
    let right = [
        Some((full.name().to_owned(), partitions, 25)),
        None,
        Some((empty.name().to_owned(), 1, 0)),
    ];
    let mut asking = Asking::until(&scene, "the descriptions are right");
    loop {
        let told = client.admin().describe(&topics).await?;
        let flat = told.into_iter().map(|one| {
            let one = one?;
            Some((one.name.to_string(), one.partitions, one.events))
        });
        let told: Vec<_> = flat.collect();
        if told == right {
            return Ok(());
        }
        asking.again(format!("{told:?}")).await?;
    }
}

async fn lag_goes_to_zero(scene: Scene) -> Check {
    let client = scene.connect().await?;
    let (first, second) = (scene.partitioned_topic().await?, scene.topic().await?);
    let topics = [first.clone(), second.clone()];
    let group = scene.name();
    let mut member = client.join(&group, &topics).await?;
    ensure_lag(&scene, &client, &group, &topics, [0, 0]).await?;

    let sender = client.sender().await?;
    let (more, fewer) = (numbered("more", 0..30), numbered("fewer", 0..7));
    sender.send_to(&first, &more).await?;
    sender.send_to(&second, &fewer).await?;
    ensure_lag(&scene, &client, &group, &topics, [30, 7]).await?;

    let batch = member.take(37).await?;
    ensure_lag(&scene, &client, &group, &topics, [30, 7]).await?;
    member.ack(&batch).await?;
    ensure_lag(&scene, &client, &group, &topics, [0, 0]).await?;
    member.close().await?;
    ensure_lag(&scene, &client, &group, &topics, [0, 0]).await
}

/// Waiting and pending together: which of the two an event is in depends on how far a
/// transport reads ahead.
async fn ensure_lag(
    scene: &Scene,
    client: &Client,
    group: &str,
    topics: &[Topic],
    expected: [u64; 2],
) -> Check {
    let mut asking = Asking::until(scene, format_args!("the lag is {expected:?}"));
    loop {
        let lag = client.admin().lag(group, topics).await?;
        let sums: Vec<_> = lag.iter().map(|lag| lag.waiting + lag.pending).collect();
        let zero = lag.iter().all(Lag::is_zero);
        if sums == expected && zero == (expected == [0, 0]) {
            return Ok(());
        }
        asking.again(format!("{lag:?}")).await?;
    }
}

async fn lag_of_a_missing_topic(scene: Scene) -> Check {
    let client = scene.connect().await?;
    let topics = [scene.topic().await?, scene.named(&scene.name(), 1)];
    let group = scene.name();
    let member = client.join(&group, from_ref(&topics[0])).await?;
    let _step = scene.step("asking for the lag on a topic that does not exist");
    let answer = client.admin().lag(&group, &topics).await;
    let right = matches!(&answer, Err(error) if error.kind() == ErrorKind::TopicNotFound);
    ensure!(right, "the answer was {answer:?}");
    member.close().await
}

async fn topics_are_discovered(scene: Scene) -> Check {
    let prefix = format!("{}.", scene.name());
    let client = scene.connect().await?;
    let sender = client.sender().await?;
    let pattern = TopicPattern::new([TopicPart::Fixed(prefix.clone()), TopicPart::Segment]);
    let early = fill(&scene, &sender, &prefix, "early").await?;
    fill(&scene, &sender, &prefix, "too.deep").await?;
    let open = Subscription::new(scene.name(), []).patterns([pattern]);
    let mut member = client.subscribe(open).await?;
    let later = fill(&scene, &sender, &prefix, "later").await?;
    fill(&scene, &sender, &prefix, "too.late").await?;

    let expected: Vec<_> = early.into_iter().chain(later).collect();
    let journal = Journal::of(&expected);
    member.work(&journal).await?;
    member.ensure_quiet().await?;
    member.close().await?;
    journal.ensure_once()
}

/// Makes a topic and publishes some events on it.
async fn fill(scene: &Scene, sender: &Sender, prefix: &str, name: &str) -> Check<Vec<Event>> {
    let topic = scene.create_named(&format!("{prefix}{name}"), 1).await?;
    let events = numbered(name, 0..10);
    sender.send_to(&topic, &events).await?;
    Ok(events)
}
