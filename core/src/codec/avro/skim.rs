//! Goes over Avro data without keeping anything, so that hostile data cost no more than their size.

use apache_avro::Schema;
use apache_avro::schema::{InnerDecimalSchema, NamesRef, UuidSchema};

/// How deep data may nest, each union, record and list a level. Less than JSON may: a level of Avro takes
/// more of the stack.
const MAX_DEPTH: usize = 64;

/// How many values may take no byte at all. An array of nulls could otherwise be of any length.
const MAX_EMPTY: usize = 1 << 16;

/// Checks that data are what their schema says, and no more.
pub(super) fn check(schema: &Schema, names: &NamesRef<'_>, data: &[u8]) -> Result<(), String> {
    let mut skim = Skim {
        names,
        rest: data,
        empty: 0,
    };
    skim.value(schema, 0)?;
    match skim.rest.len() {
        0 => Ok(()),
        more => Err(format!("{more} bytes follow the value")),
    }
}

struct Skim<'a> {
    names: &'a NamesRef<'a>,
    rest: &'a [u8],
    empty: usize,
}

impl<'a> Skim<'a> {
    fn value(&mut self, schema: &'a Schema, depth: usize) -> Result<(), String> {
        if depth > MAX_DEPTH {
            return Err(format!("they nest more than {MAX_DEPTH} levels deep"));
        }
        let before = self.rest.len();
        self.of_schema(schema, depth)?;
        if self.rest.len() == before {
            self.empty += 1;
            if self.empty > MAX_EMPTY {
                return Err(format!("more than {MAX_EMPTY} values take no byte"));
            }
        }
        Ok(())
    }

    fn of_schema(&mut self, schema: &'a Schema, depth: usize) -> Result<(), String> {
        match schema {
            Schema::Null => Ok(()),
            Schema::Boolean => self.skip(1),
            Schema::Float => self.skip(4),
            Schema::Double => self.skip(8),
            Schema::Int
            | Schema::Long
            | Schema::Date
            | Schema::TimeMillis
            | Schema::TimeMicros
            | Schema::TimestampMillis
            | Schema::TimestampMicros
            | Schema::TimestampNanos
            | Schema::LocalTimestampMillis
            | Schema::LocalTimestampMicros
            | Schema::LocalTimestampNanos => self.long().map(drop),
            Schema::Enum(known) => self.index(known.symbols.len()).map(drop),
            Schema::Bytes | Schema::String | Schema::BigDecimal => self.counted(),
            Schema::Decimal(decimal) => match &decimal.inner {
                InnerDecimalSchema::Bytes => self.counted(),
                InnerDecimalSchema::Fixed(fixed) => self.skip(fixed.size),
            },
            Schema::Uuid(UuidSchema::Bytes | UuidSchema::String) => self.counted(),
            Schema::Uuid(UuidSchema::Fixed(fixed))
            | Schema::Fixed(fixed)
            | Schema::Duration(fixed) => self.skip(fixed.size),
            Schema::Array(array) => self.blocks(|skim| skim.value(&array.items, depth + 1)),
            Schema::Map(map) => self.blocks(|skim| {
                skim.counted()?;
                skim.value(&map.types, depth + 1)
            }),
            Schema::Union(union) => {
                let index = self.index(union.variants().len())?;
                self.value(&union.variants()[index], depth + 1)
            }
            Schema::Record(record) => {
                let mut fields = record.fields.iter();
                fields.try_for_each(|field| self.value(&field.schema, depth + 1))
            }
            Schema::Ref { name } => match self.names.get(name) {
                Some(schema) => self.value(schema, depth + 1),
                None => Err(format!("the schema has no `{name}`")),
            },
        }
    }

    fn skip(&mut self, bytes: usize) -> Result<(), String> {
        self.rest = self.rest.get(bytes..).ok_or_else(ended)?;
        Ok(())
    }

    fn long(&mut self) -> Result<i64, String> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.rest.split_first().ok_or_else(ended)?;
            self.rest = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok((value >> 1) as i64 ^ -((value & 1) as i64));
            }
        }
        Err("a number has more than 64 bits".to_owned())
    }

    fn counted(&mut self) -> Result<(), String> {
        let length = self.long()?;
        self.skip(usize::try_from(length).map_err(|_| ended())?)
    }

    fn index(&mut self, of: usize) -> Result<usize, String> {
        let index = self.long()?;
        let known = usize::try_from(index).ok().filter(|index| *index < of);
        known.ok_or_else(|| format!("the schema has no variant {index}"))
    }

    fn blocks(
        &mut self,
        mut item: impl FnMut(&mut Self) -> Result<(), String>,
    ) -> Result<(), String> {
        loop {
            let mut count = self.long()?;
            if count < 0 {
                // The size of the block in bytes, for those who skip it.
                self.long()?;
                count = count.checked_neg().ok_or_else(ended)?;
            }
            if count == 0 {
                return Ok(());
            }
            for _ in 0..count {
                item(self)?;
            }
        }
    }
}

fn ended() -> String {
    "they end before their schema does".to_owned()
}
