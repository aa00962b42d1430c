//! What topics were said to be like.

use polybus_core::Text;
use polybus_core::topic::TopicSettings;
use polybus_core::transport::{Start, TopicSpec};

use super::State;

impl State {
    /// Notes what a topic is to be like, and makes its groups.
    pub(crate) fn note(&mut self, spec: &TopicSpec) {
        let Some(id) = self.topics_by_name.get(&spec.name).copied() else {
            return;
        };
        let topic = &mut self.topics[id.index()];
        topic.settings = spec.settings.or(&topic.settings);
        for name in &spec.groups {
            let group = self.group(name);
            self.topics[id.index()].cursor(group, Start::Beginning);
        }
    }

    /// What a topic was said to be like.
    pub(crate) fn settings(&self, topic: &str) -> TopicSettings {
        let topic = self.find(topic);
        topic.map(|it| it.settings.clone()).unwrap_or_default()
    }

    /// The groups that have a place in a topic, sorted.
    pub(crate) fn groups_of(&self, topic: &str) -> Vec<Text> {
        let cursors = self.find(topic).into_iter().flat_map(|it| &it.cursors);
        let mut names: Vec<_> = cursors
            .map(|(group, _)| self.groups[group.0].name.clone())
            .collect();
        names.sort_unstable();
        names
    }
}
