use bytes::Bytes;

use crate::Text;

/// A header's name and value. `None` is a null value, which some servers have.
pub type Header = (Text, Option<Bytes>);

/// The headers that a record carried beside the event's attributes. Names may repeat.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Headers(Vec<Header>);

impl Headers {
    /// No headers. Does not allocate.
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// Adds a header.
    pub fn push(&mut self, name: impl Into<Text>, value: Option<Bytes>) {
        self.0.push((name.into(), value));
    }

    /// The first value under a name that is not null. Names are compared without case.
    pub fn first(&self, name: &str) -> Option<&Bytes> {
        self.iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name))
            .and_then(|(_, value)| value)
    }

    /// All headers in their order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Option<&Bytes>)> {
        self.0
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_ref()))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<Header> for Headers {
    fn from_iter<I: IntoIterator<Item = Header>>(headers: I) -> Self {
        Self(headers.into_iter().collect())
    }
}

impl IntoIterator for Headers {
    type Item = Header;
    type IntoIter = std::vec::IntoIter<Header>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

/// A record as the server has it, whether or not it is an event.
///
/// On Kafka: key, headers and value of the record. On Redis Streams: the fields of the entry
/// are the headers, except `data`, which is the value; there is no key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RawRecord {
    /// The key.
    pub key: Option<Bytes>,
    /// The headers, those of the event's attributes included.
    pub headers: Headers,
    /// The value. `None` is a null value.
    pub value: Option<Bytes>,
}

impl RawRecord {
    /// A record.
    pub fn new(key: Option<Bytes>, headers: Headers, value: Option<Bytes>) -> Self {
        Self {
            key,
            headers,
            value,
        }
    }

    /// The size of key, headers and value in bytes.
    pub fn size(&self) -> usize {
        let length = |bytes: Option<&Bytes>| bytes.map_or(0, Bytes::len);
        let headers: usize = self
            .headers
            .iter()
            .map(|(name, value)| name.len() + length(value))
            .sum();
        length(self.key.as_ref()) + headers + length(self.value.as_ref())
    }
}
