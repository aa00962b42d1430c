//! Records between the thread that reads and the one that receives.
//!
//! Two threads share the work on a record: one takes it over from the client, the other makes an
//! event of it. What goes between them is the record's bytes in memory that many records share, so
//! that hardly anything is allocated by the one and freed by the other, which both would wait for.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::{BufMut, Bytes, BytesMut};
use polybus_core::transport::AckToken;
use rdkafka::Message;
use rdkafka::message::{BorrowedMessage, Headers as _};

use super::queue::Record;

/// Values up to here stand with their records. One that is kept keeps the whole chunk, so neither
/// is large.
const SMALL_VALUE: usize = 1024;
const CHUNK: usize = 16 * 1024;

/// In place of the length of a value: it is null.
const NULL: u32 = u32::MAX;

/// A record that is to become a delivery.
#[derive(Debug, Clone)]
pub(crate) struct Packed {
    pub(super) token: AckToken,
    pub(super) partition: i32,
    /// The client could read the headers.
    pub(super) has_headers: bool,
    /// Headers, key, and a small value, one after the other.
    bytes: Bytes,
    headers_end: usize,
    key_end: Option<usize>,
    value: Value,
}

#[derive(Debug, Clone)]
enum Value {
    Null,
    Small,
    Large(Bytes),
}

/// Packs records, many into one piece of memory.
#[derive(Debug, Default)]
pub(crate) struct Packer(BytesMut);

impl Packer {
    pub(super) fn pack(&mut self, record: Record<'_>, token: AckToken) -> Packed {
        let headers = record.headers();
        let has_headers = headers.is_ok();
        let headers = headers.into_iter().flatten();
        let headers = headers.map(|(name, value)| (name.to_bytes(), value));
        let packed = self.pack_parts(headers, record.key(), record.value());
        Packed {
            token,
            partition: record.partition(),
            has_headers,
            ..packed
        }
    }

    /// A record that the client gave in another way.
    pub(crate) fn pack_message(
        &mut self,
        message: &BorrowedMessage<'_>,
        token: AckToken,
    ) -> Packed {
        let mut headers = Vec::new();
        // The client panics over a header whose name is not UTF-8, which brokers let through.
        let read = catch_unwind(AssertUnwindSafe(|| {
            let all = message.headers().into_iter().flat_map(|all| all.iter());
            headers.extend(all.map(|header| (header.key.as_bytes(), header.value)));
        }));
        let packed = self.pack_parts(headers.into_iter(), message.key(), message.payload());
        Packed {
            token,
            partition: message.partition(),
            has_headers: read.is_ok(),
            ..packed
        }
    }

    fn pack_parts<'a>(
        &mut self,
        headers: impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)>,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
    ) -> Packed {
        if self.0.capacity() < SMALL_VALUE {
            self.0 = BytesMut::with_capacity(CHUNK);
        }
        for (name, value) in headers {
            self.put_header(name, value);
        }
        let headers_end = self.0.len();
        let key_end = key.map(|key| {
            self.0.put_slice(key);
            self.0.len()
        });
        let value = match value {
            None => Value::Null,
            Some(value) if value.len() > SMALL_VALUE => Value::Large(Bytes::copy_from_slice(value)),
            Some(value) => {
                self.0.put_slice(value);
                Value::Small
            }
        };
        Packed {
            token: AckToken::new(0, 0, [0, 0]),
            partition: 0,
            has_headers: true,
            bytes: self.0.split().freeze(),
            headers_end,
            key_end,
            value,
        }
    }

    fn put_header(&mut self, name: &[u8], value: Option<&[u8]>) {
        self.0.put_u32_ne(length(name));
        self.0.put_u32_ne(value.map_or(NULL, length));
        self.0.put_slice(name);
        self.0.put_slice(value.unwrap_or_default());
    }
}

/// Of a name or value of a header, which a broker counts in 31 bits.
fn length(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).expect("a record is smaller than 2 GiB")
}

impl Packed {
    /// The size in bytes, which the bounds of the queue go by.
    pub(super) fn size(&self) -> u64 {
        let large = match &self.value {
            Value::Large(value) => value.len(),
            Value::Null | Value::Small => 0,
        };
        (self.bytes.len() + large) as u64
    }

    pub(super) fn key(&self) -> Option<&[u8]> {
        let end = self.key_end?;
        Some(&self.bytes[self.headers_end..end])
    }

    /// The value. Shares its memory with the record's.
    pub(super) fn value(&self) -> Option<Bytes> {
        match &self.value {
            Value::Null => None,
            Value::Small => {
                let start = self.key_end.unwrap_or(self.headers_end);
                Some(self.bytes.slice(start..))
            }
            Value::Large(value) => Some(value.clone()),
        }
    }

    /// The headers: name, and value unless it is null.
    pub(super) fn headers(&self) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
        let bytes = &self.bytes;
        self.places()
            .map(|(name, value)| (&bytes[name], value.map(|value| &bytes[value])))
    }

    /// The headers and the key where all of them are ASCII and no header is null or longer than
    /// 127 bytes, as mostly: then the lengths in between are ASCII too, and all is looked at at once.
    pub(super) fn ascii(&self) -> Option<Ascii<'_>> {
        let end = self.key_end.unwrap_or(self.headers_end);
        let text = std::str::from_utf8(&self.bytes[..end]).ok()?;
        text.is_ascii().then_some(Ascii { packed: self, text })
    }

    /// Where name and value of each header stand.
    fn places(&self) -> impl Iterator<Item = (Range<usize>, Option<Range<usize>>)> {
        let mut rest = &self.bytes[..self.headers_end];
        let mut end = 0;
        std::iter::from_fn(move || {
            let (name, after) = rest.split_first_chunk::<4>()?;
            let (value, after) = after.split_first_chunk::<4>()?;
            let (name, value) = (u32::from_ne_bytes(*name), u32::from_ne_bytes(*value));
            let start = end + 8;
            let middle = start + name as usize;
            let is_null = value == NULL;
            end = middle + if is_null { 0 } else { value as usize };
            rest = after.get(end - start..)?;
            Some((start..middle, (!is_null).then_some(middle..end)))
        })
    }
}

/// The headers and the key of a record, all of them ASCII: text that may be cut anywhere.
#[derive(Clone, Copy)]
pub(super) struct Ascii<'a> {
    packed: &'a Packed,
    text: &'a str,
}

impl<'a> Ascii<'a> {
    pub(super) fn key(self) -> Option<&'a str> {
        let end = self.packed.key_end?;
        Some(&self.text[self.packed.headers_end..end])
    }

    pub(super) fn headers(self) -> impl Iterator<Item = (&'a str, Option<&'a str>)> {
        self.packed
            .places()
            .map(move |(name, value)| (&self.text[name], value.map(|value| &self.text[value])))
    }
}

#[cfg(test)]
impl Packed {
    /// A record of a key alone.
    pub(super) fn of_key(token: AckToken, key: &str) -> Self {
        Self {
            token,
            partition: 0,
            has_headers: true,
            bytes: Bytes::copy_from_slice(key.as_bytes()),
            headers_end: 0,
            key_end: Some(key.len()),
            value: Value::Null,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_come_out_as_they_were_put_in() {
        let headers: [(&[u8], Option<&[u8]>); 4] = [
            (b"a", Some(b"1")),
            (b"", Some(b"")),
            (b"null", None),
            (b"\xff", Some(b"\0\xff")),
        ];
        let packed = packed(&headers, Some(b"key"));
        assert_eq!(packed.headers().collect::<Vec<_>>(), headers);
        assert_eq!(packed.key(), Some(&b"key"[..]));
        assert_eq!(packed.value().as_deref(), Some(&b"value"[..]));
    }

    #[test]
    fn headers_and_key_of_ascii_are_text() {
        let long = [b'x'; 127];
        for (key, text) in [(None, None), (Some(&b"k"[..]), Some("k"))] {
            let packed = packed(&[(b"a", Some(b"")), (b"", Some(&long))], key);
            let ascii = packed.ascii().unwrap();
            assert_eq!(ascii.key(), text);
            let headers = ascii.headers();
            let headers = headers.map(|(name, value)| (name.as_bytes(), value.map(str::as_bytes)));
            assert!(headers.eq(packed.headers()));
        }
    }

    #[test]
    fn what_is_not_all_ascii_is_looked_at_piece_by_piece() {
        let long = [b'x'; 128];
        let headers: [(&[u8], Option<&[u8]>); 4] = [
            (b"null", None),
            (b"long", Some(&long)),
            (b"\xc3", Some(b"\xa4")),
            (b"value", Some(b"\xc3\xa4")),
        ];
        for header in headers {
            let packed = packed(&[(b"a", Some(b"1")), header], Some(b"key"));
            assert!(packed.ascii().is_none(), "{header:?}");
        }
        for key in [&b"\xff"[..], b"\xc3\xa4"] {
            let packed = packed(&[(b"a", Some(b"1"))], Some(key));
            assert!(packed.ascii().is_none(), "{key:?}");
        }
    }

    fn packed(headers: &[(&[u8], Option<&[u8]>)], key: Option<&[u8]>) -> Packed {
        Packer::default().pack_parts(headers.iter().copied(), key, Some(b"value"))
    }
}
