//! Confluent's wire format: a zero, the id of a schema in a registry, and the data.

use bytes::{BufMut, Bytes, BytesMut};

/// How deep a Protobuf message may be declared within others. Far more than anybody does.
const MAX_INDEXES: usize = 32;

/// Data in [Confluent's wire format](https://docs.confluent.io/platform/current/schema-registry/fundamentals/serdes-develop/index.html#wire-format).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// The id of the schema in its registry.
    pub schema: u32,
    /// What follows: the data, in Protobuf with the indexes of the message before them.
    pub body: &'a [u8],
}

impl<'a> Frame<'a> {
    /// How many bytes stand before the body.
    pub const HEAD: usize = 5;

    /// The frame, if data have one.
    pub fn parse(data: &'a [u8]) -> Option<Self> {
        let (head, body) = data.split_at_checked(Self::HEAD)?;
        let [0, a, b, c, d] = *head else { return None };
        let schema = u32::from_be_bytes([a, b, c, d]);
        Some(Self { schema, body })
    }

    /// Which message of the schema's file it is, by its index among its neighbours, from the outermost
    /// inwards; and the data. `None` if the body does not begin so.
    pub fn message_indexes(&self) -> Option<(Vec<u32>, &'a [u8])> {
        let mut rest = self.body;
        let count = usize::try_from(varint(&mut rest)?).ok()?;
        if count == 0 {
            return Some((vec![0], rest));
        }
        if count > MAX_INDEXES {
            return None;
        }
        let indexes = (0..count).map(|_| u32::try_from(varint(&mut rest)?).ok());
        Some((indexes.collect::<Option<_>>()?, rest))
    }

    /// Data in a frame. `message` is given for Protobuf alone.
    pub fn write(schema: u32, message: Option<&[u32]>, data: &[u8]) -> Bytes {
        let mut out = BytesMut::with_capacity(Self::HEAD + 8 + data.len());
        out.put_u8(0);
        out.put_u32(schema);
        match message {
            None => {}
            // The first message of a file is so frequent that it has a form of its own.
            Some([0]) => out.put_u8(0),
            Some(indexes) => {
                put_varint(indexes.len() as u64, &mut out);
                for index in indexes {
                    put_varint(u64::from(*index), &mut out);
                }
            }
        }
        out.put_slice(data);
        out.freeze()
    }
}

/// A number in zigzag coding.
fn varint(bytes: &mut &[u8]) -> Option<i64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some((value >> 1) as i64 ^ -((value & 1) as i64));
        }
    }
    None
}

/// A number that is not negative, in zigzag coding.
fn put_varint(value: u64, out: &mut BytesMut) {
    let mut rest = value << 1;
    while rest >= 0x80 {
        out.put_u8((rest & 0x7f) as u8 | 0x80);
        rest >>= 7;
    }
    out.put_u8(rest as u8);
}
