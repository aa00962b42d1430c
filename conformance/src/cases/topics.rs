//! Topics as they are specified: listed, made and changed.

use std::slice::from_ref;
use std::time::Duration;

use polybus_core::topic::{
    Cleanup, Limit, TopicAction, TopicCompression, TopicSetting, TopicSettings, TopicStep,
};
use polybus_core::transport::{Admin, TopicSpec};
use polybus_core::{ErrorKind, Topic};

use super::case;
use crate::case::{Case, Need};
use crate::failure::{Check, ensure};
use crate::journal::Journal;
use crate::scene::{Client, PARTITIONS, Scene};
use crate::sender::numbered;

pub(super) const CASES: &[Case] = &[
    case!(
        topics_are_listed,
        "The list has every topic that exists, by name and in order, and no other.",
        needs: [Need::ManageTopics]
    ),
    case!(
        topics_are_made_as_specified,
        "A topic that is made has what was specified and the transport has.",
        needs: [Need::ManageTopics]
    ),
    case!(
        topics_are_changed_as_specified,
        "A topic that is changed has what was specified, and its events.",
        needs: [Need::ManageTopics]
    ),
    case!(
        what_is_not_specified_stays,
        "A change of one setting leaves the others as they are.",
        needs: [Need::ManageTopics]
    ),
    case!(
        partitions_are_not_taken_away,
        "Fewer partitions than there are are refused, and nothing is changed.",
        needs: [Need::ManageTopics, Need::Partitions]
    ),
    case!(
        a_missing_topic_is_not_changed,
        "Changing a topic that does not exist is an error that says so, and makes none.",
        needs: [Need::ManageTopics]
    ),
    case!(
        managing_topics_is_refused,
        "A transport that can't list and change topics says so.",
        needs: [Need::NoManageTopics]
    ),
];

const DAY: Duration = Duration::from_secs(86_400);

/// Everything that can be set.
fn specified(scene: &Scene, name: &str, partitions: u32) -> TopicSpec {
    let mut settings = TopicSettings::default();
    settings.retention = Some(Limit::At(9 * DAY));
    settings.retention_bytes = Some(Limit::At(64 << 20));
    settings.max_events = Some(Limit::At(1_000_000));
    settings.cleanup = Some(Cleanup::Delete);
    settings.compression = Some(TopicCompression::Gzip);
    settings.max_message_size = Some(2 << 20);
    scene
        .topic_spec(name, partitions)
        .settings(settings)
        .groups([format!("{name}.group")])
}

/// What is still to be done with a topic.
async fn step(scene: &Scene, client: &Client, spec: &TopicSpec) -> Check<TopicStep> {
    let admin = client.admin();
    let topic = scene.named(&spec.name, spec.partitions.unwrap_or(1));
    let found = admin.describe(&[topic]).await?;
    let found = found.first().and_then(Option::as_ref);
    Ok(TopicStep::new(
        "",
        spec.clone(),
        found,
        admin.topic_settings(),
    ))
}

async fn ensure_done(scene: &Scene, client: &Client, spec: &TopicSpec) -> Check {
    let step = step(scene, client, spec).await?;
    let action = &step.action;
    ensure!(
        *action == TopicAction::Keep,
        "the topic is not as specified: {action:?} is left to do"
    );
    let without = step.without_effect;
    let known = client.admin().topic_settings();
    ensure!(
        !without.iter().any(|setting| known.contains(setting)),
        "the transport declares {known:?} and does not tell {without:?}"
    );
    Ok(())
}

async fn topics_are_listed(scene: Scene) -> Check {
    let client = scene.connect().await?;
    let mut made: Vec<_> = (0..3).map(|_| scene.name()).collect();
    made.sort_unstable();
    let missing = scene.name();
    for name in &made {
        scene.create_named(name, 1).await?;
    }
    let _step = scene.step("listing topics");
    let listed = client.admin().list().await?;
    ensure!(listed.is_sorted(), "the list is not sorted: {listed:?}");
    let own: Vec<_> = listed
        .iter()
        .filter(|name| made.iter().any(|it| it == name.as_str()))
        .collect();
    ensure!(own.len() == made.len(), "of {made:?} the list has {own:?}");
    let has_missing = listed.iter().any(|name| *name == *missing);
    ensure!(!has_missing, "the list has {missing}, which does not exist");
    Ok(())
}

async fn topics_are_made_as_specified(scene: Scene) -> Check {
    let client = scene.connect().await?;
    let spec = specified(&scene, &scene.name(), PARTITIONS);
    let _step = scene.step("making a topic with settings");
    client.admin().ensure_topics(from_ref(&spec)).await?;
    ensure_done(&scene, &client, &spec).await
}

async fn topics_are_changed_as_specified(scene: Scene) -> Check {
    let client = scene.connect().await?;
    let topic = scene.partitioned_topic().await?;
    let events = numbered("event", 0..20);
    client.sender().await?.send_to(&topic, &events).await?;
    let spec = specified(&scene, topic.name(), PARTITIONS);
    {
        let _step = scene.step("changing a topic");
        // Asking again is harmless.
        for _ in 0..2 {
            client.admin().alter(from_ref(&spec)).await?;
        }
    }
    ensure_done(&scene, &client, &spec).await?;
    let journal = Journal::of(&events);
    // A group that the change has made has what was there before.
    let group = format!("{}.group", topic.name());
    let mut member = client.join(&group, &[topic]).await?;
    member.work(&journal).await?;
    member.ensure_quiet().await?;
    member.close().await?;
    journal.ensure_once()
}

async fn what_is_not_specified_stays(scene: Scene) -> Check {
    let client = scene.connect().await?;
    let before = specified(&scene, &scene.name(), PARTITIONS);
    client.admin().ensure_topics(from_ref(&before)).await?;
    let mut change = TopicSpec::new(before.name.clone());
    if scene.capabilities().splits_topics {
        // The name means something else without it.
        change.partitions = before.partitions;
    }
    change.settings.retention = Some(Limit::At(10 * DAY));
    let _step = scene.step("changing one setting");
    client.admin().alter(from_ref(&change)).await?;
    let mut after = before;
    if client
        .admin()
        .topic_settings()
        .contains(&TopicSetting::Retention)
    {
        after.settings.retention = change.settings.retention;
    }
    ensure_done(&scene, &client, &after).await
}

async fn partitions_are_not_taken_away(scene: Scene) -> Check {
    let client = scene.connect().await?;
    let topic = scene.partitioned_topic().await?;
    let mut fewer = TopicSpec::new(topic.name()).partitions(1);
    fewer.settings.retention = Some(Limit::At(11 * DAY));
    let _step = scene.step("asking for fewer partitions");
    let before = client.admin().describe(from_ref(&topic)).await?;
    let answer = client.admin().alter(from_ref(&fewer)).await;
    let right = matches!(&answer, Err(error) if error.kind() == ErrorKind::Refused);
    ensure!(right, "the answer was {answer:?}");
    let after = client.admin().describe(from_ref(&topic)).await?;
    ensure!(before == after, "{before:?} became {after:?}");
    Ok(())
}

async fn a_missing_topic_is_not_changed(scene: Scene) -> Check {
    let client = scene.connect().await?;
    let spec = specified(&scene, &scene.name(), 1);
    let _step = scene.step("changing a topic that does not exist");
    let answer = client.admin().alter(from_ref(&spec)).await;
    let right = matches!(&answer, Err(error) if error.kind() == ErrorKind::TopicNotFound);
    ensure!(right, "the answer was {answer:?}");
    let found = client.admin().describe(&[Topic::new(spec.name)]).await?;
    ensure!(found == [None], "it was made: {found:?}");
    Ok(())
}

async fn managing_topics_is_refused(scene: Scene) -> Check {
    let client = scene.connect().await?;
    let topic = scene.topic().await?;
    let _step = scene.step("listing and changing topics");
    let listed = client.admin().list().await.map(drop);
    let changed = client.admin().alter(&[TopicSpec::new(topic.name())]).await;
    for answer in [listed, changed] {
        let right = matches!(&answer, Err(error) if error.kind() == ErrorKind::Unsupported);
        ensure!(right, "the answer was {answer:?}");
    }
    Ok(())
}
