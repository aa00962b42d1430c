use std::fmt;

use uuid::Uuid;
use uuid::fmt::Hyphenated;

use crate::Text;

/// The `id` of an event. A UUID in its usual spelling is held inline, without an allocation.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct EventId(Repr);

#[derive(Clone, PartialEq, Eq, Hash)]
enum Repr {
    Uuid([u8; Hyphenated::LENGTH]),
    Text(Text),
}

impl EventId {
    /// A new id: a UUID version 7, so that ids made later sort later.
    pub fn generate() -> Self {
        Uuid::now_v7().into()
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        match &self.0 {
            Repr::Uuid(text) => {
                std::str::from_utf8(text).expect("only ASCII is ever stored in this variant")
            }
            Repr::Text(text) => text,
        }
    }
}

impl From<Uuid> for EventId {
    fn from(uuid: Uuid) -> Self {
        let mut text = [0; Hyphenated::LENGTH];
        uuid.hyphenated().encode_lower(&mut text);
        Self(Repr::Uuid(text))
    }
}

impl From<&str> for EventId {
    fn from(id: &str) -> Self {
        match <[u8; Hyphenated::LENGTH]>::try_from(id.as_bytes()) {
            Ok(text) if id.is_ascii() => Self(Repr::Uuid(text)),
            _ => Self(Repr::Text(id.into())),
        }
    }
}

impl From<String> for EventId {
    fn from(id: String) -> Self {
        id.as_str().into()
    }
}

impl From<Text> for EventId {
    fn from(id: Text) -> Self {
        id.as_str().into()
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.as_str())
    }
}
