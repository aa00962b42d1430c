//! Events that failed for good.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::json;

use crate::config::FailedConfig;
use crate::envelope::json::write_event;
use crate::transport::{Content, Outgoing, RawRecord};
use crate::{Effect, Error, Event, Text, Timestamp, Topic};

/// An event that was not published, and why.
#[derive(Debug)]
pub struct FailedEvent {
    transport: Text,
    outgoing: Outgoing,
    error: Arc<Error>,
    attempts: u32,
    failed_at: Timestamp,
}

impl Clone for FailedEvent {
    fn clone(&self) -> Self {
        Self {
            transport: self.transport.clone(),
            outgoing: self.outgoing.clone(),
            error: Arc::clone(&self.error),
            attempts: self.attempts,
            failed_at: self.failed_at,
        }
    }
}

impl FailedEvent {
    pub(super) fn new(transport: &Text, outgoing: Outgoing, error: Error, attempts: u32) -> Self {
        Self {
            transport: transport.clone(),
            outgoing,
            error: Arc::new(error),
            attempts,
            failed_at: Timestamp::now(),
        }
    }

    /// The event. `None` for a record that was published as it is.
    pub fn event(&self) -> Option<&Event> {
        self.outgoing.event()
    }

    /// The event itself. `None` for a record that was published as it is.
    pub fn into_event(self) -> Option<Event> {
        match self.outgoing.content {
            Content::Event(event) => Some(event),
            Content::Raw(_) => None,
        }
    }

    /// The transport's name in the config.
    pub fn transport(&self) -> &str {
        &self.transport
    }

    /// The topic.
    pub fn topic(&self) -> &Topic {
        &self.outgoing.topic
    }

    /// Why it failed. Its [`effect`](Error::effect) says whether it may be stored all the same.
    pub fn error(&self) -> &Error {
        &self.error
    }

    /// How often it was sent. 0 if the bus was closed before.
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// When it failed for good.
    pub fn failed_at(&self) -> Timestamp {
        self.failed_at
    }

    fn size(&self) -> usize {
        self.outgoing.size()
    }

    /// One line of JSON. The event is in the CloudEvents JSON format.
    fn to_line(&self) -> Vec<u8> {
        let effect = match self.error.effect() {
            Effect::NotApplied => "not_applied",
            Effect::Unknown => "unknown",
        };
        let (event, record) = match &self.outgoing.content {
            Content::Event(event) => (Some(event_line(event)), None),
            Content::Raw(record) => (None, Some(record_json(record))),
        };
        let line = json!({
            "transport": self.transport,
            "topic": self.topic().name(),
            "failed_at": self.failed_at.to_string(),
            "attempts": self.attempts,
            "error": {
                "kind": format!("{:?}", self.error.kind()),
                "effect": effect,
                "message": self.error.to_string(),
            },
            "record": record,
        });
        let mut line = line.to_string().into_bytes();
        if let Some(event) = event {
            // As it is: `json!` would read the event's numbers and write them anew.
            line.pop();
            line.extend_from_slice(br#","event":"#);
            line.extend_from_slice(&event);
            line.push(b'}');
        }
        line.push(b'\n');
        line
    }
}

/// The event on one line: data may be JSON over many, where a line's end is but white space.
fn event_line(event: &Event) -> Vec<u8> {
    let mut json = Vec::new();
    write_event(event, &mut json);
    for byte in &mut json {
        if matches!(byte, b'\n' | b'\r') {
            *byte = b' ';
        }
    }
    json
}

fn record_json(record: &RawRecord) -> serde_json::Value {
    let text = |bytes: Option<&bytes::Bytes>| bytes.map(|bytes| BASE64.encode(bytes));
    let headers = record.headers.iter();
    let headers = headers.map(|(name, value)| json!([name, text(value)]));
    json!({
        "key": text(record.key.as_ref()),
        "value": text(record.value.as_ref()),
        "headers": headers.collect::<Vec<_>>(),
    })
}

/// Keeps events that failed for good, the newest, up to the bounds of
/// [`FailedConfig`].
#[derive(Debug)]
pub(super) struct FailedStore {
    config: FailedConfig,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    events: VecDeque<FailedEvent>,
    bytes: usize,
    spill: Option<File>,
    spilled: u64,
    dropped: u64,
}

/// What a [`FailedStore`] did, by counts of events.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct FailedCounts {
    pub(super) kept: usize,
    pub(super) spilled: u64,
    pub(super) dropped: u64,
}

impl FailedStore {
    pub(super) fn new(config: FailedConfig) -> Self {
        Self {
            config,
            kept: Mutex::default(),
        }
    }

    pub(super) fn keep(&self, failed: FailedEvent) {
        let mut kept = self.lock();
        kept.bytes += failed.size();
        kept.events.push_back(failed);
        while kept.events.len() > self.config.max_events || kept.bytes > self.config.max_bytes {
            let Some(oldest) = kept.pop() else { return };
            self.move_out(&mut kept, &oldest);
        }
    }

    pub(super) fn read(&self) -> Vec<FailedEvent> {
        self.lock().events.iter().cloned().collect()
    }

    pub(super) fn take(&self, most: usize) -> Vec<FailedEvent> {
        let mut kept = self.lock();
        let taken = std::iter::from_fn(|| kept.pop());
        taken.take(most).collect()
    }

    pub(super) fn counts(&self) -> FailedCounts {
        let kept = self.lock();
        FailedCounts {
            kept: kept.events.len(),
            spilled: kept.spilled,
            dropped: kept.dropped,
        }
    }

    /// At the end of the bus: what is kept goes to the file, if there is one.
    pub(super) fn end(&self) {
        if self.config.spill.is_none() {
            return;
        }
        let mut kept = self.lock();
        while let Some(oldest) = kept.pop() {
            self.move_out(&mut kept, &oldest);
        }
    }

    /// Writes an event to the file, or else says aloud that it is gone.
    fn move_out(&self, kept: &mut Kept, failed: &FailedEvent) {
        let written = self
            .config
            .spill
            .as_ref()
            .map(|path| kept.write(path, failed));
        match written {
            Some(Ok(())) => kept.spilled += 1,
            other => {
                kept.dropped += 1;
                tracing::error!(
                    transport = %failed.transport,
                    topic = %failed.topic(),
                    event_type = failed.event().map(Event::event_type),
                    event_id = failed.event().map(Event::id),
                    error = %failed.error,
                    spill = other.and_then(Result::err).map(tracing::field::display),
                    "an event that failed was dropped: there is no room under [publishing.failed]"
                );
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        // A panic can't leave the list half changed.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn pop(&mut self) -> Option<FailedEvent> {
        let oldest = self.events.pop_front()?;
        self.bytes -= oldest.size();
        Some(oldest)
    }

    /// One write a line, so that the file has whole lines whenever the process ends.
    fn write(&mut self, path: &PathBuf, failed: &FailedEvent) -> std::io::Result<()> {
        let file = match self.spill.take() {
            Some(file) => file,
            None => OpenOptions::new().create(true).append(true).open(path)?,
        };
        self.spill.insert(file).write_all(&failed.to_line())
    }
}

/// Events that a closing bus could not send.
#[derive(Debug, Default)]
pub(super) struct Unsent(Mutex<Vec<FailedEvent>>);

impl Unsent {
    pub(super) fn add(&self, failed: FailedEvent) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(failed);
    }

    pub(super) fn take(&self) -> Vec<FailedEvent> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
