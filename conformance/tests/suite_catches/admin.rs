//! What manages topics, with a flaw built in.

use polybus_core::topic::TopicSetting;
use polybus_core::transport::{Admin, Delivery, Lag, Position, Start, TopicDescription, TopicSpec};
use polybus_core::{Result, Text, Topic};
use polybus_memory::MemoryAdmin;

use crate::flaws::Flaw;

pub(crate) struct FlawedAdmin {
    pub(crate) inner: MemoryAdmin,
    pub(crate) flaw: Flaw,
}

impl Admin for FlawedAdmin {
    async fn ensure_topics(&self, topics: &[TopicSpec]) -> Result<()> {
        self.inner.ensure_topics(topics).await
    }

    async fn describe(&self, topics: &[Topic]) -> Result<Vec<Option<TopicDescription>>> {
        let mut told = self.inner.describe(topics).await?;
        if self.flaw == Flaw::SaysTopicsExist {
            for (one, topic) in told.iter_mut().zip(topics) {
                one.get_or_insert_with(|| TopicDescription::new(topic.name(), 1, 0));
            }
        }
        Ok(told)
    }

    fn topic_settings(&self) -> &'static [TopicSetting] {
        self.inner.topic_settings()
    }

    async fn list(&self) -> Result<Vec<Text>> {
        let mut names = self.inner.list().await?;
        if self.flaw == Flaw::ListsHalfOfTheTopics {
            names.truncate(names.len() / 2);
        }
        Ok(names)
    }

    async fn alter(&self, topics: &[TopicSpec]) -> Result<()> {
        match self.flaw {
            Flaw::AltersNothing => Ok(()),
            _ => self.inner.alter(topics).await,
        }
    }

    async fn lag(&self, group: &str, topics: &[Topic]) -> Result<Vec<Lag>> {
        let lag = self.inner.lag(group, topics).await?;
        Ok(match self.flaw {
            Flaw::HasNoLag => lag.iter().map(|_| Lag::default()).collect(),
            _ => lag,
        })
    }

    async fn reset(&self, group: &str, topics: &[Topic], to: Start) -> Result<()> {
        match self.flaw {
            Flaw::ForgetsToReset => Ok(()),
            Flaw::ResetsUnderMembers => {
                let _ = self.inner.reset(group, topics, to).await;
                Ok(())
            }
            _ => self.inner.reset(group, topics, to).await,
        }
    }

    async fn health(&self) -> Result<()> {
        self.inner.health().await
    }

    async fn browse(&self, topic: &Topic, after: &[Position], max: usize) -> Result<Vec<Delivery>> {
        let second = [Position::new(0, 0)];
        let after = match (self.flaw, after) {
            (Flaw::BrowsesFromTheSecond, []) => &second[..],
            (_, after) => after,
        };
        self.inner.browse(topic, after, max).await
    }

    async fn purge(&self, topic: &Topic, through: &[Position]) -> Result<()> {
        match self.flaw {
            Flaw::PurgesNothing => Ok(()),
            _ => self.inner.purge(topic, through).await,
        }
    }
}
