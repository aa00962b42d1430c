use super::super::{TopicAction, TopicStep};
use super::*;
use crate::ErrorKind;

const DAY: Duration = Duration::from_secs(86_400);

const ALL: [TopicSetting; 7] = [
    TopicSetting::Partitions,
    TopicSetting::Replication,
    TopicSetting::Retention,
    TopicSetting::Cleanup,
    TopicSetting::MaxMessageSize,
    TopicSetting::Groups,
    TopicSetting::Property(crate::Text::new_static("")),
];

/// A topic of 6 partitions that keeps events for a week.
fn found() -> TopicDescription {
    let mut found = TopicDescription::new("users", 6, 0);
    found.replication = Some(3);
    found.settings.retention = Some(Limit::At(7 * DAY));
    found.settings.cleanup = Some(Cleanup::Delete);
    found.settings.max_message_size = Some(1 << 20);
    found
}

fn wanted(change: impl FnOnce(&mut TopicSpec)) -> TopicSpec {
    let mut wanted = TopicSpec::new("users");
    change(&mut wanted);
    wanted
}

#[track_caller]
fn check(change: impl FnOnce(&mut TopicSpec), expected: &[(&str, ChangeCost)]) {
    let difference = TopicDifference::between(&wanted(change), &found(), &ALL);
    let changes = difference.changes.iter();
    let changes: Vec<_> = changes.map(|it| (it.to_string(), it.cost)).collect();
    let changes: Vec<_> = changes.iter().map(|(it, cost)| (&**it, *cost)).collect();
    assert_eq!(changes, expected);
}

#[test]
fn what_is_not_asked_for_and_what_is_there_is_no_difference() {
    check(|_| {}, &[]);
    check(
        |topic| {
            topic.partitions = Some(6);
            topic.settings.retention = Some(Limit::At(7 * DAY));
        },
        &[],
    );
}

#[test]
fn more_is_a_change_and_less_a_loss() {
    let retention = |limit| move |topic: &mut TopicSpec| topic.settings.retention = Some(limit);
    check(
        retention(Limit::At(30 * DAY)),
        &[("retention: 7d -> 30d", ChangeCost::Nothing)],
    );
    check(
        retention(Limit::Unlimited),
        &[("retention: 7d -> unlimited", ChangeCost::Nothing)],
    );
    check(
        retention(Limit::At(DAY)),
        &[("retention: 7d -> 1d", ChangeCost::Shrinks)],
    );
    check(
        |topic| topic.settings.max_message_size = Some(1 << 10),
        &[("max_message_size: 1MiB -> 1KiB", ChangeCost::Shrinks)],
    );
    check(
        |topic| topic.settings.cleanup = Some(Cleanup::Compact),
        &[("cleanup: delete -> compact", ChangeCost::Shrinks)],
    );
}

#[test]
fn partitions_are_added_and_never_taken_away_and_replicas_stay() {
    check(
        |topic| topic.partitions = Some(12),
        &[("partitions: 6 -> 12", ChangeCost::Nothing)],
    );
    check(
        |topic| topic.partitions = Some(3),
        &[("partitions: 6 -> 3", ChangeCost::Impossible)],
    );
    check(
        |topic| topic.replication = Some(1),
        &[("replication: 3 -> 1", ChangeCost::Impossible)],
    );
}

#[test]
fn a_property_that_the_server_does_not_tell_is_set() {
    check(
        |topic| {
            let properties = &mut topic.settings.properties;
            properties.insert("min.insync.replicas".into(), "2".into());
        },
        &[(
            "properties.\"min.insync.replicas\": + 2",
            ChangeCost::Nothing,
        )],
    );
}

#[test]
fn groups_that_are_missing_are_made_and_others_left() {
    let mut found = found();
    found.groups = vec!["mails".into(), "others".into()];
    let wanted = wanted(|topic| topic.groups = vec!["mails".into(), "audit".into()]);
    let difference = TopicDifference::between(&wanted, &found, &ALL);
    assert_eq!(difference.changes.len(), 1);
    assert_eq!(difference.changes[0].to_string(), "groups: + audit");
}

#[test]
fn what_the_transport_does_not_have_is_named_and_not_done() {
    let wanted = wanted(|topic| {
        topic.partitions = Some(12);
        topic.settings.max_events = Some(Limit::At(5));
    });
    let without = [TopicSetting::Partitions, TopicSetting::MaxEvents];
    let step = TopicStep::new("redis", wanted.clone(), Some(&found()), &[]);
    assert_eq!(step.action, TopicAction::Keep);
    assert_eq!(step.without_effect, without);
    let step = TopicStep::new("redis", wanted, None, &[]);
    assert_eq!(step.action, TopicAction::Create(Vec::new()));
    assert_eq!(step.without_effect, without);
}

#[test]
fn a_loss_is_refused_until_it_is_allowed_and_what_is_impossible_always() {
    let loss = wanted(|topic| topic.settings.retention = Some(Limit::At(DAY)));
    let loss = TopicStep::new("kafka", loss, Some(&found()), &ALL);
    let refusal = loss.refusal(false).expect("it is refused");
    assert_eq!(refusal.kind(), ErrorKind::Refused);
    assert!(refusal.to_string().contains("allow_shrinking"), "{refusal}");
    assert!(loss.refusal(true).is_none());

    let fewer = wanted(|topic| topic.partitions = Some(1));
    let fewer = TopicStep::new("kafka", fewer, Some(&found()), &ALL);
    assert!(fewer.refusal(true).is_some());
}
