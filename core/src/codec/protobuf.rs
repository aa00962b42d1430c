use prost::Message;

use super::{DataSchema, Protobuf};

/// How a message is written and read. `prost` itself bounds how deep messages nest.
pub(crate) fn message<T: Message + Default>(schema: Option<&'static DataSchema>) -> Protobuf<T> {
    Protobuf {
        encode: Message::encode_to_vec,
        decode: |data| Ok(T::decode(data)?),
        schema,
    }
}
