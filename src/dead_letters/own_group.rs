//! Where a dead letter reaches the group that it failed in, and no other.

use std::collections::HashMap;

use bytes::Bytes;

use super::Letter;
use crate::bus::Bus;
use crate::runtime::{Provenance, provenance};
use crate::transport::{Admin, Headers, Transport};
use crate::{Error, ErrorKind, Result, Text, Topic};

/// Finds the topics of groups in which their events wait for the shortest of their long pauses.
pub(super) struct OwnGroup<'a> {
    bus: &'a Bus,
    /// Whether topics exist, by transport and name.
    known: HashMap<(Text, Topic), bool>,
}

impl<'a> OwnGroup<'a> {
    pub(super) fn new(bus: &'a Bus) -> Self {
        Self {
            bus,
            known: HashMap::new(),
        }
    }

    /// The topic for a letter; `None` if there is none. A topic that does not exist is one that the
    /// subscription never read.
    pub(super) async fn topic(&mut self, letter: &Letter) -> Result<Option<Topic>> {
        let origin = letter.provenance();
        if letter.event().is_none() || origin.position.is_none() {
            return Ok(None);
        }
        let config = &self.bus.inner.config;
        let settings = config.subscription(&origin.subscription);
        let Some(delayed) = settings.retry.delayed else {
            return Ok(None);
        };
        let Some(shortest) = delayed.pauses.first() else {
            return Ok(None);
        };
        let (transport, from) = (&origin.transport, Topic::new(origin.topic.clone()));
        let prefix = config.topic_prefix(transport);
        let topic = delayed.topic.fill(&from, &prefix, &origin.group, *shortest);
        let exists = self.exists(transport, &topic).await?;
        Ok(exists.then_some(topic))
    }

    async fn exists(&mut self, transport: &Text, topic: &Topic) -> Result<bool> {
        let place = (transport.clone(), topic.clone());
        if let Some(known) = self.known.get(&place) {
            return Ok(*known);
        }
        let connected = self.bus.inner.transports.get(transport).ok_or_else(|| {
            let message = format!("no transport is named `{transport}`");
            Error::new(ErrorKind::Config, message)
                .with_note("the letter came from it; replay it to a topic with `Replay::to`")
        })?;
        let admin = connected.transport.admin();
        let described = admin.describe(std::slice::from_ref(topic)).await?;
        let exists = described.into_iter().flatten().next().is_some();
        self.known.insert(place, exists);
        Ok(exists)
    }
}

/// Says whose event it is that stands in such a topic, as for one that waits there: with no
/// attempts yet, and nothing to wait for.
pub(super) fn push_origin(headers: &mut Headers, origin: &Provenance) {
    let position = origin.position.map(|position| position.to_string());
    for (name, value) in [
        (provenance::TRANSPORT, origin.transport.as_str()),
        (provenance::TOPIC, origin.topic.as_str()),
        (
            provenance::POSITION,
            position.as_deref().unwrap_or_default(),
        ),
        (provenance::GROUP, origin.group.as_str()),
        (provenance::SUBSCRIPTION, origin.subscription.as_str()),
    ] {
        headers.push(name, Some(Bytes::copy_from_slice(value.as_bytes())));
    }
}
