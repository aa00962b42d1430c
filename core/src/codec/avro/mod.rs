mod skim;

use apache_avro::Schema;
use apache_avro::rabin::Rabin;
use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::schema::ResolvedSchema;
use apache_avro::types::Value;
use apache_avro::writer::datum::GenericDatumWriter;
use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Codec, DataSchema, Frame, SchemaFormat, unwritable, with_writer};
use crate::{BoxError, Result};

/// What data in single-object encoding begin with.
const SINGLE_OBJECT: [u8; 2] = [0xc3, 0x01];

/// Data in single-object encoding: what follows the fingerprint of their schema.
const HEAD: usize = SINGLE_OBJECT.len() + size_of::<Fingerprint>();

type Fingerprint = [u8; 8];

/// A schema that was read, and its fingerprint.
pub(super) struct Compiled {
    /// The full name, of a record or another type that has one.
    pub(super) name: Option<String>,
    schema: Schema,
    fingerprint: Fingerprint,
}

impl Compiled {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let failed = |error: apache_avro::Error| format!("the Avro schema can't be read: {error}");
        let schema = Schema::parse_str(text).map_err(failed)?;
        let fingerprint = schema.fingerprint::<Rabin>().bytes;
        let fingerprint = fingerprint.try_into().expect("CRC-64 has 8 bytes");
        ResolvedSchema::new(&schema).map_err(failed)?;
        let name = schema.name().map(ToString::to_string);
        Ok(Self {
            name,
            schema,
            fingerprint,
        })
    }
}

/// In single-object encoding.
pub(super) fn encode<T: Serialize>(schema: &DataSchema, value: &T) -> Result<Bytes> {
    let compiled = schema
        .avro()
        .map_err(|error| unwritable(Codec::Avro, &error.to_string()).with_source(error))?;
    let mut out = Vec::with_capacity(256);
    out.extend_from_slice(&SINGLE_OBJECT);
    out.extend_from_slice(&compiled.fingerprint);
    let written = GenericDatumWriter::builder(&compiled.schema)
        .build()
        .and_then(|writer| writer.write_ser(&mut out, value));
    written.map_err(|error| unwritable(Codec::Avro, &error.to_string()).with_source(error))?;
    Ok(out.into())
}

/// Data in single-object encoding of the type's schema, or in a frame whose schema a registry gave.
pub(super) fn decode<T: DeserializeOwned>(
    taken: Option<&DataSchema>,
    data: &[u8],
) -> Result<T, BoxError> {
    let taken = taken.map(DataSchema::avro).transpose()?;
    if let Some(frame) = Frame::parse(data) {
        return with_schema_of(&frame, |written| read(written, taken, frame.body));
    }
    let named = data.split_at_checked(HEAD);
    let named = named.filter(|(head, _)| head.starts_with(&SINGLE_OBJECT));
    let (head, datum) = named.ok_or("Avro data without the name of their schema can't be read")?;
    match taken {
        Some(taken) if head.ends_with(&taken.fingerprint) => read(taken, Some(taken), datum),
        Some(_) => Err("they were written with another Avro schema than the type's: only a schema registry has both".into()),
        None => Err("the type has no Avro schema: `#[event(avro = \"..\")]`".into()),
    }
}

/// Data in a frame whose schema a registry gave, as JSON.
pub(super) fn to_json(data: &[u8]) -> Result<serde_json::Value, BoxError> {
    let frame = Frame::parse(data).ok_or("they name no schema of a registry")?;
    with_schema_of(&frame, |written| {
        let value = read_value(written, None, frame.body)?;
        Ok(serde_json::Value::try_from(value)?)
    })
}

/// What follows the name of the schema in data in single-object encoding.
pub(super) fn datum(data: &[u8]) -> Option<&[u8]> {
    let (head, datum) = data.split_at_checked(HEAD)?;
    head.starts_with(&SINGLE_OBJECT).then_some(datum)
}

/// Calls back with the schema that a frame names, if a registry gave it.
fn with_schema_of<R>(
    frame: &Frame<'_>,
    read: impl FnOnce(&Compiled) -> Result<R, BoxError>,
) -> Result<R, BoxError> {
    let id = frame.schema;
    with_writer(|written| {
        match written {
        Some(written) if written.format() == SchemaFormat::Avro => read(written.avro()?),
        Some(written) => {
            let format = written.format();
            Err(format!("their schema {id} is one of {format:?}, not of Avro").into())
        }
        None => Err(format!(
            "they name schema {id} of a registry, which was not asked: set `schema_registry` for the route"
        )
        .into()),
    }
    })
}

/// Reads what was written with one schema as what another one, or the type alone, says.
fn read<T: DeserializeOwned>(
    written: &Compiled,
    taken: Option<&Compiled>,
    datum: &[u8],
) -> Result<T, BoxError> {
    let same = taken.is_none_or(|taken| taken.fingerprint == written.fingerprint);
    if same {
        let names = check(written, datum)?;
        let reader = GenericDatumReader::builder(&written.schema);
        let reader = reader.resolved_writer_schemata(names).build()?;
        // The quick way, which not every type can take: not one that flattens, or takes any fields.
        if let Ok(value) = reader.read_deser(&mut { datum }) {
            return Ok(value);
        }
    }
    let value = read_value(written, taken.filter(|_| !same), datum)?;
    Ok(apache_avro::from_value(&value)?)
}

fn read_value(
    written: &Compiled,
    taken: Option<&Compiled>,
    datum: &[u8],
) -> Result<Value, BoxError> {
    let names = check(written, datum)?;
    let reader = GenericDatumReader::builder(&written.schema).resolved_writer_schemata(names);
    let reader = reader.maybe_reader_schema(taken.map(|taken| &taken.schema));
    Ok(reader.build()?.read_value(&mut { datum })?)
}

/// Knows what data take in memory and on the stack, before the library has a look.
fn check<'a>(written: &'a Compiled, datum: &[u8]) -> Result<ResolvedSchema<'a>, BoxError> {
    let names = ResolvedSchema::new(&written.schema)?;
    skim::check(&written.schema, names.get_names(), datum)?;
    Ok(names)
}
