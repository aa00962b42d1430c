use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Codec, MAX_DEPTH, unwritable};
use crate::{BoxError, Result};

/// With the names of fields: without them a field that is added could not be told from its neighbours.
pub(super) fn encode<T: Serialize + ?Sized>(value: &T) -> Result<Bytes> {
    rmp_serde::to_vec_named(value)
        .map(Bytes::from)
        .map_err(|error| unwritable(Codec::MessagePack, &error.to_string()).with_source(error))
}

pub(super) fn decode<T: DeserializeOwned>(data: &[u8]) -> Result<T, BoxError> {
    let mut rest = data;
    let mut reader = rmp_serde::Deserializer::new(&mut rest);
    reader.set_max_depth(MAX_DEPTH);
    let value = T::deserialize(&mut reader)?;
    drop(reader);
    if !rest.is_empty() {
        return Err(format!("{} bytes follow the value", rest.len()).into());
    }
    Ok(value)
}
