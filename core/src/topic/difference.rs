//! What is between a topic as it is wanted and as it is.

use super::settings::{duration_text, size_text};
use super::{Limit, TopicSetting, TopicSettings};
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
    let number = |setting: S, number: Option<u128>| {
        number.map(|number| Fact {
            setting,
            text: number.to_string(),
            size: Size::At(Limit::At(number)),
        })
    };
    let limit = |setting: S, limit: Option<Limit<u128>>, text: &dyn Fn(u128) -> String| {
        limit.map(|limit| Fact {
            setting,
            text: match limit {
                Limit::Unlimited => "unlimited".to_owned(),
                Limit::At(bound) => text(bound),
            },
            size: Size::At(limit),
        })
    };
    let word = |setting: S, word: Option<&str>, size: Size| {
        word.map(|word| Fact {
            setting,
            text: word.to_owned(),
            size,
        })
    };
    let bytes = |bytes: u128| size_text(u64::try_from(bytes).unwrap_or(u64::MAX));
    let retention = settings.retention.map(|it| it.map(|it| it.as_millis()));
    let duration = |millis: u128| {
        let millis = u64::try_from(millis).unwrap_or(u64::MAX);
        duration_text(std::time::Duration::from_millis(millis))
    };
    let message_size = settings
        .max_message_size
        .map(|it| Limit::At(u128::from(it)));
    let known = [
        number(S::Partitions, partitions.map(u128::from)),
        number(S::Replication, replication.map(u128::from)),
        limit(S::Retention, retention, &duration),
        limit(
            S::RetentionBytes,
            settings.retention_bytes.map(|it| it.map(u128::from)),
            &bytes,
        ),
        limit(
            S::MaxEvents,
            settings.max_events.map(|it| it.map(u128::from)),
            &|count| count.to_string(),
        ),
        word(
            S::Cleanup,
            settings.cleanup.map(|it| it.as_str()),
            Size::Kind,
        ),
        word(
            S::Compression,
            settings.compression.map(|it| it.as_str()),
            Size::None,
        ),
        limit(S::MaxMessageSize, message_size, &bytes),
    ];
    let properties = settings.properties.iter().map(|(name, value)| Fact {
        setting: S::Property(name.clone()),
        text: value.to_string(),
        size: Size::None,
    });
    known.into_iter().flatten().chain(properties).collect()
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
