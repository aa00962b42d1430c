//! Codecs: how the data of an event is written and read.

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{Error, ErrorKind, Event, Result};

/// How the data of an event is written. Reading goes by the event's content type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Codec {
    /// JSON, `application/json`. The default.
    #[default]
    Json,
}

impl Codec {
    /// The media type that the codec writes.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
        }
    }

    /// A value as bytes.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Encode`] if the value can't be written.
    pub fn encode<T: Serialize + ?Sized>(self, value: &T) -> Result<Bytes> {
        match self {
            Self::Json => serde_json::to_vec(value).map(Bytes::from).map_err(|error| {
                Error::new(
                    ErrorKind::Encode,
                    format!("the data can't be written as JSON: {error}"),
                )
                .with_source(error)
            }),
        }
    }

    /// The data of an event as a value, read as its content type says. Data without a content
    /// type is JSON, as CloudEvents has it.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Decode`] if there is no data, no codec for its content type, or the data is
    /// not that of a `T`.
    pub fn decode<T: DeserializeOwned>(event: &Event) -> Result<T> {
        let failed = |why: String| {
            Error::new(ErrorKind::Decode, why).with_note(format!(
                "event `{}` of type `{}`",
                event.id(),
                event.event_type()
            ))
        };
        let Some(data) = event.data() else {
            return Err(failed("the event has no data".to_owned())
                .with_note("take `RawEvent` in the handler if events without data are expected"));
        };
        let content_type = event.content_type().unwrap_or(Self::Json.content_type());
        if !is_json(content_type) {
            return Err(failed(format!(
                "no codec reads data of type `{content_type}`"
            )));
        }
        serde_json::from_slice(data).map_err(|error| {
            failed(format!("the data is not what the handler takes: {error}")).with_source(error)
        })
    }
}

/// `application/json`, `text/json` and everything with the suffix `+json`, parameters aside
/// (CloudEvents JSON format, section 3.1).
pub(crate) fn is_json(content_type: &str) -> bool {
    let media_type = content_type.split(';').next().unwrap_or_default().trim();
    let Some((_, subtype)) = media_type.split_once('/') else {
        return false;
    };
    let subtype = subtype.to_ascii_lowercase();
    subtype == "json" || subtype.ends_with("+json")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(content_type: Option<&str>, data: Option<&str>) -> Event {
        let mut builder = Event::builder("a").source("s");
        if let Some(content_type) = content_type {
            builder = builder.content_type(content_type);
        }
        if let Some(data) = data {
            builder = builder.data(data.to_owned());
        }
        builder.build().unwrap()
    }

    #[test]
    fn json_is_read_by_content_type_and_without_one() {
        for content_type in [
            None,
            Some("application/json"),
            Some("Application/JSON; charset=utf-8"),
            Some("application/vnd.deal+json"),
        ] {
            let value: u32 = Codec::decode(&event(content_type, Some("7"))).unwrap();
            assert_eq!(value, 7);
        }
    }

    #[test]
    fn what_can_not_be_read_says_why_and_which_event() {
        for (event, why) in [
            (event(None, None), "no data"),
            (event(Some("image/png"), Some("7")), "image/png"),
            (event(None, Some("{")), "not what the handler takes"),
        ] {
            let error = Codec::decode::<u32>(&event).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Decode);
            assert!(error.to_string().contains(why), "{error}");
            assert!(error.to_string().contains(event.id()), "{error}");
        }
    }
}
