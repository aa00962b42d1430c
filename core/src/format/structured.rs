use bytes::Bytes;

use super::shape::unreadable;
use super::{Format, Place};
use crate::envelope::json;
use crate::transport::{Headers, RawRecord};
use crate::{Event, Result, Text};

/// The whole event as JSON: CloudEvents in structured mode.
#[derive(Debug)]
pub(super) struct Structured;

impl Format for Structured {
    fn name(&self) -> &'static str {
        "structured"
    }

    fn write(&self, event: &Event) -> Result<RawRecord> {
        let mut value = Vec::new();
        json::write_event(event, &mut value);
        let content_type = Bytes::from_static(json::CONTENT_TYPE.as_bytes());
        let header = (Text::new_static("content-type"), Some(content_type));
        let key = event
            .key()
            .map(|key| Bytes::copy_from_slice(key.as_bytes()));
        let headers = Headers::from_iter([header]);
        Ok(RawRecord::new(key, headers, Some(value.into())))
    }

    fn read(&self, record: &RawRecord, _: &Place<'_>) -> Result<Event> {
        let value = record.value.as_ref();
        json::read_event(value.ok_or_else(|| unreadable(self.name(), "it has no value"))?)
    }
}
