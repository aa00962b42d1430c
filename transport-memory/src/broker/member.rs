//! A member of a group: what it reads, and whether it is to be woken.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use polybus_core::topic::TopicPattern;
use tokio::sync::Notify;

use super::Wakes;
use super::topic::{GroupId, TopicId};

/// A member of a group.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) group: GroupId,
    pub(crate) patterns: Vec<TopicPattern>,
    pub(crate) joined: HashMap<TopicId, Joined>,
    /// Topics that may have something for it, each once, longest looked at first.
    pub(crate) ready: VecDeque<TopicId>,
    /// It found nothing and waits.
    pub(crate) idle: bool,
    pub(crate) wake: Arc<Notify>,
}

/// A topic that a member reads.
#[derive(Debug)]
pub(crate) struct Joined {
    pub(crate) cursor: usize,
    pub(crate) ready: bool,
}

impl Member {
    /// Tells it that a topic may have something for it.
    pub(crate) fn signal(&mut self, topic: TopicId, wakes: &mut Wakes) {
        let Some(joined) = self.joined.get_mut(&topic) else {
            return;
        };
        if !joined.ready {
            joined.ready = true;
            self.ready.push_back(topic);
        }
        if std::mem::take(&mut self.idle) {
            wakes.push(&self.wake);
        }
    }
}
