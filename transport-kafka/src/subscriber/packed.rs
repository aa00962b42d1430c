//! Records between the thread that reads and the one that receives.
//!
//! Two threads share the work on a record: one takes it over from the client, the other makes an
//! event of it. What goes between them is the record's bytes in memory that many records share, so
//! that hardly anything is allocated by the one and freed by the other, which both would wait for.

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
        let mut rest = &self.bytes[..self.headers_end];
        std::iter::from_fn(move || {
            let (name, after) = rest.split_first_chunk::<4>()?;
            let (value, after) = after.split_first_chunk::<4>()?;
            let (name, value) = (u32::from_ne_bytes(*name), u32::from_ne_bytes(*value));
            let (name, after) = after.split_at_checked(name as usize)?;
            if value == NULL {
                rest = after;
                return Some((name, None));
            }
            let (value, after) = after.split_at_checked(value as usize)?;
            rest = after;
            Some((name, Some(value)))
        })
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
        let mut packer = Packer::default();
        for (name, value) in headers {
            packer.put_header(name, value);
        }
        let bytes = packer.0.split().freeze();
        let packed = Packed {
            headers_end: bytes.len(),
            bytes,
            ..Packed::of_key(AckToken::new(0, 0, [0, 0]), "")
        };
        assert_eq!(packed.headers().collect::<Vec<_>>(), headers);
    }
}
