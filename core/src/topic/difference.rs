//! What is between a topic as it is wanted and as it is.

use std::time::Duration;

use super::settings::{duration_text, size_text};
use super::{Cleanup, Limit, TopicCompression, TopicSetting, TopicSettings};
use crate::transport::{TopicDescription, TopicSpec};

/// What is between a topic as it is wanted and as it is on its server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TopicDifference {
    /// What is to be changed.
    pub changes: Vec<TopicChange>,
    /// What is wanted and the transport does not have, or does not tell.
    pub without_effect: Vec<TopicSetting>,
}

/// One setting that differs.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TopicChange {
    /// Which.
    pub setting: TopicSetting,
    /// What it is; empty for what is not set.
    pub from: String,
    /// What is wanted.
    pub to: String,
    /// What the change costs.
    pub cost: ChangeCost,
}

/// What a change of a topic costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ChangeCost {
    /// Nothing: it can be made at any time.
    Nothing,
    /// Less is kept or taken than before: events may be deleted or refused.
    Shrinks,
    /// It can't be made on a topic that exists.
    Impossible,
}

impl TopicDifference {
    /// Compares. `known` is what the transport has of a topic's settings.
    pub fn between(wanted: &TopicSpec, found: &TopicDescription, known: &[TopicSetting]) -> Self {
        let mut difference = Self::default();
        let present = facts(Some(found.partitions), found.replication, &found.settings);
        for fact in facts(wanted.partitions, wanted.replication, &wanted.settings) {
            let same = present.iter().find(|it| it.setting == fact.setting);
            difference.compare(&fact, same, known);
        }
        difference.compare_groups(wanted, found, known);
        difference
    }

    /// Whether the topic is as it is wanted.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    fn compare(&mut self, wanted: &Fact, found: Option<&Fact>, known: &[TopicSetting]) {
        let told = match found {
            Some(found) if knows(known, &wanted.setting) => Some(found),
            _ => None,
        };
        let is_property = matches!(wanted.setting, TopicSetting::Property(_));
        match told {
            Some(found) if found.text == wanted.text => {}
            None if !(is_property && knows(known, &wanted.setting)) => {
                self.without_effect.push(wanted.setting.clone());
            }
            told => self.changes.push(TopicChange {
                setting: wanted.setting.clone(),
                from: told.map(|found| found.text.clone()).unwrap_or_default(),
                to: wanted.text.clone(),
                cost: told.map_or(ChangeCost::Nothing, |found| cost(wanted, found)),
            }),
        }
    }

    fn compare_groups(
        &mut self,
        wanted: &TopicSpec,
        found: &TopicDescription,
        known: &[TopicSetting],
    ) {
        if wanted.groups.is_empty() {
            return;
        }
        if !knows(known, &TopicSetting::Groups) {
            self.without_effect.push(TopicSetting::Groups);
            return;
        }
        let missing = wanted.groups.iter();
        let missing = missing.filter(|group| !found.groups.contains(group));
        self.changes.extend(missing.map(|group| TopicChange {
            setting: TopicSetting::Groups,
            from: String::new(),
            to: group.to_string(),
            cost: ChangeCost::Nothing,
        }));
    }
}

/// What a topic that does not exist is made with, setting by setting, and what of it the transport
/// does not have.
pub(crate) fn of_new(
    wanted: &TopicSpec,
    known: &[TopicSetting],
) -> (Vec<(TopicSetting, String)>, Vec<TopicSetting>) {
    let facts = facts(wanted.partitions, wanted.replication, &wanted.settings);
    let groups = wanted.groups.iter().map(|group| Fact {
        setting: TopicSetting::Groups,
        text: group.to_string(),
        size: Size::None,
    });
    let (with, without): (Vec<Fact>, Vec<Fact>) = facts
        .into_iter()
        .chain(groups)
        .partition(|fact| knows(known, &fact.setting));
    (
        with.into_iter().map(|it| (it.setting, it.text)).collect(),
        without.into_iter().map(|it| it.setting).collect(),
    )
}

/// A setting and its value, as text that is equal where the values are.
struct Fact {
    setting: TopicSetting,
    text: String,
    size: Size,
}

/// What is compared where less is a loss.
#[derive(PartialEq)]
enum Size {
    /// More or less makes no sense.
    None,
    /// Any other value than the present one may cost events.
    Kind,
    At(Limit<u128>),
}

fn knows(known: &[TopicSetting], setting: &TopicSetting) -> bool {
    known.iter().any(|known| match (known, setting) {
        (TopicSetting::Property(_), TopicSetting::Property(_)) => true,
        (known, setting) => known == setting,
    })
}

fn cost(wanted: &Fact, found: &Fact) -> ChangeCost {
    match (&wanted.setting, &wanted.size, &found.size) {
        (TopicSetting::Replication, ..) => ChangeCost::Impossible,
        (TopicSetting::Partitions, Size::At(wanted), Size::At(found)) => {
            match wanted.is_below(found) {
                true => ChangeCost::Impossible,
                false => ChangeCost::Nothing,
            }
        }
        (_, Size::At(wanted), Size::At(found)) if !wanted.is_below(found) => ChangeCost::Nothing,
        (_, Size::None, _) => ChangeCost::Nothing,
        _ => ChangeCost::Shrinks,
    }
}

/// What is set.
fn facts(partitions: Option<u32>, replication: Option<u16>, settings: &TopicSettings) -> Vec<Fact> {
    use TopicSetting as S;
    let number = |number: u128| number.to_string();
    let exactly = |number: Option<u32>| number.map(|it| Limit::At(u128::from(it)));
    let wide = |limit: Option<Limit<u64>>| limit.map(|it| it.map(u128::from));
    let retention = settings.retention.map(|it| it.map(|it| it.as_millis()));
    let message_size = settings.max_message_size.map(Limit::At);
    let known = [
        Fact::limit(S::Partitions, exactly(partitions), number),
        Fact::limit(S::Replication, exactly(replication.map(u32::from)), number),
        Fact::limit(S::Retention, retention, duration),
        Fact::limit(S::RetentionBytes, wide(settings.retention_bytes), bytes),
        Fact::limit(S::MaxEvents, wide(settings.max_events), number),
        Fact::word(
            S::Cleanup,
            settings.cleanup.map(Cleanup::as_str),
            Size::Kind,
        ),
        Fact::word(
            S::Compression,
            settings.compression.map(TopicCompression::as_str),
            Size::None,
        ),
        Fact::limit(S::MaxMessageSize, wide(message_size), bytes),
    ];
    let properties = settings.properties.iter().map(|(name, value)| Fact {
        setting: S::Property(name.clone()),
        text: value.to_string(),
        size: Size::None,
    });
    known.into_iter().flatten().chain(properties).collect()
}

fn bytes(bytes: u128) -> String {
    size_text(u64::try_from(bytes).unwrap_or(u64::MAX))
}

fn duration(millis: u128) -> String {
    let millis = u64::try_from(millis).unwrap_or(u64::MAX);
    duration_text(Duration::from_millis(millis))
}

impl Fact {
    fn limit(
        setting: TopicSetting,
        limit: Option<Limit<u128>>,
        text: fn(u128) -> String,
    ) -> Option<Self> {
        limit.map(|limit| Self {
            setting,
            text: match limit {
                Limit::Unlimited => "unlimited".to_owned(),
                Limit::At(bound) => text(bound),
            },
            size: Size::At(limit),
        })
    }

    fn word(setting: TopicSetting, word: Option<&str>, size: Size) -> Option<Self> {
        word.map(|word| Self {
            setting,
            text: word.to_owned(),
            size,
        })
    }
}

impl<T> Limit<T> {
    /// The bound in another unit.
    fn map<U>(self, map: impl FnOnce(T) -> U) -> Limit<U> {
        match self {
            Self::Unlimited => Limit::Unlimited,
            Self::At(bound) => Limit::At(map(bound)),
        }
    }
}

#[cfg(test)]
#[path = "difference_tests.rs"]
mod tests;
