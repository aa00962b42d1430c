use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;

use super::SchemaRegistry;
use crate::codec::{DataSchema, SchemaFormat};
use crate::{Error, ErrorKind, Result};

/// How many schemas it holds: far more than a test makes.
const MAX_SCHEMAS: usize = 10_000;

/// A registry in memory, for tests and for a bus in memory. Ids start at 1, the same schema has one id
/// under every subject, and every schema is taken.
#[derive(Debug, Default)]
pub struct MemoryRegistry(Mutex<Vec<(SchemaFormat, String)>>);

#[async_trait]
impl SchemaRegistry for MemoryRegistry {
    async fn register(&self, _: &str, schema: &DataSchema) -> Result<u32> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let same = |(format, text): &(SchemaFormat, String)| {
            *format == schema.format() && text == schema.text()
        };
        let index = match known.iter().position(same) {
            Some(index) => index,
            None if known.len() == MAX_SCHEMAS => {
                let what = format!("the registry in memory holds {MAX_SCHEMAS} schemas");
                return Err(Error::new(ErrorKind::Full, what).with_retryable(false));
            }
            None => {
                known.push((schema.format(), schema.text().to_owned()));
                known.len() - 1
            }
        };
        Ok(u32::try_from(index + 1).expect("there are at most some thousands"))
    }

    async fn schema(&self, id: u32) -> Result<DataSchema> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let index = usize::try_from(id).ok().and_then(|id| id.checked_sub(1));
        let found = index.and_then(|index| known.get(index));
        let (format, text) = found.ok_or_else(|| {
            let what = format!("the schema registry has no schema {id}");
            Error::new(ErrorKind::Decode, what)
        })?;
        Ok(DataSchema::new(*format, text.clone()))
    }
}
