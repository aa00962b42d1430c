use polybus_core::topic::TopicSetting;
use polybus_core::transport::{Admin, Delivery, Lag, Position, Start, TopicDescription, TopicSpec};
use polybus_core::{Error, ErrorKind, Result, Text, Topic};

use crate::subscriber::delivery;
use crate::transport::Client;

/// Manages the topics of a broker in memory. Partitions and replication are ignored: every topic
/// has one partition. What a topic is to keep is noted and told, so that a program's topics can be
/// planned and applied in a test; what is kept goes by [`MemoryConfig`](crate::MemoryConfig) alone.
#[derive(Debug, Clone)]
pub struct MemoryAdmin {
    client: Client,
}

impl MemoryAdmin {
    pub(crate) fn new(client: Client) -> Self {
        Self { client }
    }

    fn missing(&self, operation: &'static str, topic: &Topic) -> Error {
        Error::new(ErrorKind::TopicNotFound, "the topic does not exist")
            .with_operation(operation)
            .with_transport(self.client.name.clone())
            .with_topic(topic.name())
            .with_note("it is made when it is first published to or subscribed to")
    }
}

impl Admin for MemoryAdmin {
    async fn ensure_topics(&self, topics: &[TopicSpec]) -> Result<()> {
        self.client.broker.change(|state, wakes| {
            for spec in topics {
                if state.len(&spec.name).is_none() {
                    state.ensure_topic(&Topic::new(spec.name.clone()), wakes);
                    state.note(spec);
                }
            }
        });
        Ok(())
    }

    async fn describe(&self, topics: &[Topic]) -> Result<Vec<Option<TopicDescription>>> {
        let state = self.client.broker.lock();
        let describe = |topic: &Topic| {
            let events = state.len(topic.name())?;
            let mut described = TopicDescription::new(topic.name(), 1, events);
            described.settings = state.settings(topic.name());
            described.groups = state.groups_of(topic.name());
            Some(described)
        };
        Ok(topics.iter().map(describe).collect())
    }

    fn topic_settings(&self) -> &'static [TopicSetting] {
        const SETTINGS: &[TopicSetting] = &[
            TopicSetting::Retention,
            TopicSetting::RetentionBytes,
            TopicSetting::MaxEvents,
            TopicSetting::Cleanup,
            TopicSetting::Compression,
            TopicSetting::MaxMessageSize,
            TopicSetting::Groups,
            TopicSetting::Property(Text::new_static("")),
        ];
        SETTINGS
    }

    async fn list(&self) -> Result<Vec<Text>> {
        Ok(self.client.broker.lock().topics())
    }

    async fn alter(&self, topics: &[TopicSpec]) -> Result<()> {
        let mut state = self.client.broker.lock();
        for spec in topics {
            if state.len(&spec.name).is_none() {
                return Err(self.missing("alter topics", &Topic::new(spec.name.clone())));
            }
            state.note(spec);
        }
        Ok(())
    }

    async fn lag(&self, group: &str, topics: &[Topic]) -> Result<Vec<Lag>> {
        let state = self.client.broker.lock();
        let lag = |topic: &Topic| {
            let lag = state.lag(group, topic.name());
            lag.ok_or_else(|| self.missing("lag", topic))
        };
        topics.iter().map(lag).collect()
    }

    async fn reset(&self, group: &str, topics: &[Topic], to: Start) -> Result<()> {
        let mut state = self.client.broker.lock();
        if state.has_members(group) {
            let why = format!("the group `{group}` has members");
            return Err(Error::new(ErrorKind::InUse, why)
                .with_operation("reset")
                .with_transport(self.client.name.clone())
                .with_note("stop its subscriptions first"));
        }
        if let Some(missing) = topics.iter().find(|it| state.len(it.name()).is_none()) {
            return Err(self.missing("reset", missing));
        }
        for topic in topics {
            state.reset(group, topic.name(), to);
        }
        Ok(())
    }

    async fn health(&self) -> Result<()> {
        Ok(())
    }

    async fn browse(&self, topic: &Topic, after: &[Position], max: usize) -> Result<Vec<Delivery>> {
        let from = after.first().map_or(0, |position| position.offset() + 1);
        let mut found = Vec::new();
        let state = self.client.broker.lock();
        state.browse(topic.name(), from, |taken| {
            found.push(delivery(&taken));
            found.len() < max
        });
        Ok(found)
    }

    async fn purge(&self, topic: &Topic, through: &[Position]) -> Result<()> {
        let Some(last) = through.first() else {
            return Ok(());
        };
        let (broker, mut trimmed) = (&self.client.broker, Vec::new());
        broker.change(|state, wakes| {
            state.purge(topic.name(), last.offset() + 1, &mut trimmed, wakes);
        });
        broker.room_may_be_made();
        Ok(())
    }
}
