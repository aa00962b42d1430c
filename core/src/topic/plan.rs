//! What is to be done so that a topic is as it is wanted.

use std::fmt;

use super::TopicSetting;
use super::difference::{ChangeCost, TopicChange, TopicDifference, of_new};
use crate::transport::{TopicDescription, TopicSpec};
use crate::{Error, ErrorKind, Text};

/// What is to be done with one topic.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct TopicStep {
    /// The transport's name.
    pub transport: Text,
    /// The topic as it is wanted, under its name on the server.
    pub wanted: TopicSpec,
    /// What is to be done.
    pub action: TopicAction,
    /// What is wanted and the transport does not have, or does not tell.
    pub without_effect: Vec<TopicSetting>,
}

/// What is to be done with a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum TopicAction {
    /// It is as it is wanted.
    Keep,
    /// It does not exist and is made, with these settings.
    Create(Vec<(TopicSetting, String)>),
    /// It is changed.
    Change(Vec<TopicChange>),
}

impl TopicStep {
    /// Compares a topic with what is found; `known` is what the transport has of its settings.
    pub fn new(
        transport: impl Into<Text>,
        wanted: TopicSpec,
        found: Option<&TopicDescription>,
        known: &[TopicSetting],
    ) -> Self {
        let (action, without_effect) = match found {
            None => {
                let (with, without) = of_new(&wanted, known);
                (TopicAction::Create(with), without)
            }
            Some(found) => {
                let difference = TopicDifference::between(&wanted, found, known);
                let action = match difference.is_empty() {
                    true => TopicAction::Keep,
                    false => TopicAction::Change(difference.changes),
                };
                (action, difference.without_effect)
            }
        };
        Self {
            transport: transport.into(),
            wanted,
            action,
            without_effect,
        }
    }

    /// The changes that are not made, because they can't be, or because they shrink and that is not
    /// `allowed`.
    pub fn refused(&self, allowed: bool) -> Vec<&TopicChange> {
        let TopicAction::Change(changes) = &self.action else {
            return Vec::new();
        };
        let changes = changes.iter();
        changes.filter(|it| it.is_refused(allowed)).collect()
    }

    /// The error of what is refused, if anything is.
    pub fn refusal(&self, allowed: bool) -> Option<Error> {
        let refused = self.refused(allowed);
        let (first, others) = refused.split_first()?;
        let error = Error::new(ErrorKind::Refused, first.to_string());
        let error = error
            .with_operation("apply topics")
            .with_transport(self.transport.clone())
            .with_topic(self.wanted.name.clone())
            .with_note(first.advice());
        Some(others.iter().fold(error, |error, other| {
            error.with_note(format!("{other}: {}", other.advice()))
        }))
    }

    /// Writes the step in lines, each behind two spaces.
    ///
    /// # Errors
    ///
    /// Those of the formatter.
    pub fn write(&self, f: &mut fmt::Formatter<'_>, allowed: bool) -> fmt::Result {
        let name = &self.wanted.name;
        match &self.action {
            TopicAction::Keep => writeln!(f, "  = {name}")?,
            TopicAction::Create(with) => {
                write!(f, "  + {name}")?;
                for (index, (setting, value)) in with.iter().enumerate() {
                    let before = if index == 0 { ": " } else { ", " };
                    write!(f, "{before}{setting} {value}")?;
                }
                writeln!(f)?;
            }
            TopicAction::Change(changes) => {
                let mark = if self.refused(allowed).is_empty() {
                    '~'
                } else {
                    '!'
                };
                writeln!(f, "  {mark} {name}")?;
                for change in changes {
                    match change.is_refused(allowed) {
                        true => writeln!(f, "      refused: {change}: {}", change.advice())?,
                        false => writeln!(f, "      {change}")?,
                    }
                }
            }
        }
        let names: Vec<_> = self
            .without_effect
            .iter()
            .map(ToString::to_string)
            .collect();
        if !names.is_empty() {
            writeln!(f, "      without effect here: {}", names.join(", "))?;
        }
        Ok(())
    }
}

impl TopicChange {
    /// Whether the change is not made.
    fn is_refused(&self, allowed: bool) -> bool {
        match self.cost {
            ChangeCost::Nothing => false,
            ChangeCost::Shrinks => !allowed,
            ChangeCost::Impossible => true,
        }
    }

    /// What to do about a change that is refused.
    pub fn advice(&self) -> &'static str {
        match (self.cost, &self.setting) {
            (ChangeCost::Nothing, _) => "nothing has to be done",
            (ChangeCost::Impossible, TopicSetting::Partitions) => {
                "partitions can't be taken away: set the number that there is, or route to a new topic"
            }
            (ChangeCost::Impossible, _) => {
                "replicas are moved by the cluster's own tools (kafka-reassign-partitions): set the number that there is, or move them first"
            }
            (ChangeCost::Shrinks, TopicSetting::MaxMessageSize) => {
                "messages would be refused that are taken today: if that is meant, apply it with `allow_shrinking`"
            }
            (ChangeCost::Shrinks, _) => {
                "events would be deleted: if that is meant, apply it with `allow_shrinking`"
            }
        }
    }
}

impl fmt::Display for TopicChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.from.is_empty() {
            true => write!(f, "{}: + {}", self.setting, self.to),
            false => write!(f, "{}: {} -> {}", self.setting, self.from, self.to),
        }
    }
}
