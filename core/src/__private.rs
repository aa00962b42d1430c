//! What the code that `#[derive(Event)]` writes refers to. No part of the API: it changes
//! without notice.

use std::fmt::{self, Display, Write};

pub use serde::de::DeserializeOwned;

pub use crate::codec::{Codec, DataSchema, SchemaFormat, Wire};
pub use crate::validation::{Fault, TypeSchema};
pub use crate::version::decode_from;
use crate::version::type_of;
use crate::{Error, ErrorKind};
pub use crate::{Event, EventData, Result, Text, TypeInfo};
pub use bytes::Bytes;
pub use serde::Serialize;
pub use std::sync::OnceLock;

#[cfg(feature = "avro")]
#[doc(inline)]
pub use apache_avro::AvroSchema;

/// The schema of a type that derives `AvroSchema`.
#[cfg(feature = "avro")]
#[must_use]
pub fn derived_avro<T: AvroSchema>() -> DataSchema {
    let schema = serde_json::to_string(&T::get_schema());
    DataSchema::new(SchemaFormat::Avro, schema.expect("an Avro schema is JSON"))
}

/// What `#[event(avro = "..")]` needs.
#[cfg(feature = "avro")]
#[macro_export]
#[doc(hidden)]
macro_rules! __with_avro {
    ($($tokens:tt)*) => { $($tokens)* };
}

#[cfg(not(feature = "avro"))]
#[macro_export]
#[doc(hidden)]
macro_rules! __with_avro {
    ($($tokens:tt)*) => {
        compile_error!("`avro` in `#[event(..)]` needs the feature `avro` of polybus")
    };
}

/// What `#[event(protobuf)]` needs.
#[cfg(feature = "protobuf")]
#[macro_export]
#[doc(hidden)]
macro_rules! __with_protobuf {
    ($($tokens:tt)*) => { $($tokens)* };
}

#[cfg(not(feature = "protobuf"))]
#[macro_export]
#[doc(hidden)]
macro_rules! __with_protobuf {
    ($($tokens:tt)*) => {
        compile_error!("`protobuf` in `#[event(..)]` needs the feature `protobuf` of polybus")
    };
}

pub use {__with_avro as with_avro, __with_protobuf as with_protobuf};

/// How a type that derives `prost::Message` is written.
#[cfg(feature = "protobuf")]
pub fn protobuf<T: ProtobufMessage>(
    schema: Option<&'static DataSchema>,
) -> crate::codec::Protobuf<T> {
    crate::codec::message(schema)
}

/// What is a Protobuf message.
#[cfg(feature = "protobuf")]
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no Protobuf message",
    label = "no Protobuf message",
    note = "derive `prost::Message` of prost 0.14, which `#[event(protobuf)]` writes and reads it by"
)]
pub trait ProtobufMessage: prost::Message + Default {}

#[cfg(feature = "protobuf")]
#[diagnostic::do_not_recommend]
impl<T: prost::Message + Default> ProtobufMessage for T {}
pub use serde_json::Value;

/// The event type of a struct that is a variant's data.
#[must_use]
pub const fn only(types: &'static [TypeInfo]) -> TypeInfo {
    assert!(
        types.len() == 1,
        "a variant of an enum of events holds a struct that derives `Event`, not another enum"
    );
    types[0]
}

/// The event types of an enum, if no two of its variants have the same.
#[must_use]
pub const fn distinct<const N: usize>(types: [TypeInfo; N]) -> [TypeInfo; N] {
    let mut left = 0;
    while left < N {
        let mut right = left + 1;
        while right < N {
            assert!(
                !same(types[left].name, types[right].name),
                "two variants of an enum of events have the same event type"
            );
            right += 1;
        }
        left += 1;
    }
    types
}

/// Checks that a type given as `from` is an earlier version of the same event type.
pub const fn assert_step(from: &[TypeInfo], to: &[TypeInfo]) {
    assert!(
        from.len() == 1 && to.len() == 1 && same(from[0].name, to[0].name),
        "`from` takes a type of the same event type"
    );
    assert!(
        major(from[0].version) < major(to[0].version),
        "`from` takes a type of an earlier major version"
    );
}

/// The major version of a literal that the macro has checked.
const fn major(version: &str) -> u64 {
    let digits = version.as_bytes();
    let (mut index, mut major) = (0, 0);
    while index < digits.len() && digits[index].is_ascii_digit() {
        major = major * 10 + (digits[index] - b'0') as u64;
        index += 1;
    }
    major
}

const fn same(left: &str, right: &str) -> bool {
    let (left, right) = (left.as_bytes(), right.as_bytes());
    if left.len() != right.len() {
        return false;
    }
    let mut index = 0;
    while index < left.len() {
        if left[index] != right[index] {
            return false;
        }
        index += 1;
    }
    true
}

/// Whether an event of an enum is of the type of one of its variants.
pub fn is_of<E: EventData, T: EventData>(event: &Event) -> bool {
    let taken = type_of(E::TYPES, event.event_type());
    taken.is_some_and(|taken| T::TYPES.iter().any(|info| info.name == taken.name))
}

/// The schemas of a type, and of the versions before that it reads.
#[must_use]
pub fn with_previous<T: EventData, P: EventData>() -> Vec<TypeSchema> {
    let own = T::TYPES.iter().filter_map(|info| {
        let schema = T::schema_of(info.name)?;
        Some(TypeSchema::new(*info, schema))
    });
    own.chain(P::schemas()).collect()
}

/// Whether a type has an event type of a name.
#[must_use]
pub fn has_type<T: EventData>(name: &str) -> bool {
    T::TYPES.iter().any(|info| info.name == name)
}

/// The error for an event that none of an enum's variants takes.
pub fn of_no_variant<T: EventData>(event: &Event) -> Error {
    let types: Vec<_> = T::TYPES.iter().map(|info| info.name).collect();
    let what = format!("no variant takes the event type `{}`", event.event_type());
    Error::new(ErrorKind::Decode, what).with_note(format!("they take {}", types.join(", ")))
}

/// The JSON Schema of a type.
#[cfg(feature = "schema")]
pub fn schema_of<T: HasSchema>() -> serde_json::Value {
    T::schema()
}

/// A type that has a JSON Schema.
#[cfg(feature = "schema")]
#[diagnostic::on_unimplemented(
    message = "`{Self}` has no JSON Schema",
    label = "`#[event(schema)]` takes the schema of the type",
    note = "derive it: `#[derive(schemars::JsonSchema)]`"
)]
pub trait HasSchema {
    /// The schema.
    fn schema() -> serde_json::Value;
}

#[cfg(feature = "schema")]
#[diagnostic::do_not_recommend]
impl<T: schemars::JsonSchema> HasSchema for T {
    fn schema() -> serde_json::Value {
        schemars::SchemaGenerator::default()
            .into_root_schema_for::<T>()
            .into()
    }
}

/// What is wrong with a value by its rules.
#[cfg(feature = "garde")]
pub fn faults_of<T: HasRules>(value: &T) -> Vec<Fault> {
    value.faults()
}

/// A type that has rules of the crate garde.
#[cfg(feature = "garde")]
#[diagnostic::on_unimplemented(
    message = "`{Self}` has no rules of garde",
    label = "`#[event(garde)]` takes the rules of the type",
    note = "derive them: `#[derive(garde::Validate)]`, whose context has to implement `Default`"
)]
pub trait HasRules {
    /// What is wrong.
    fn faults(&self) -> Vec<Fault>;
}

#[cfg(feature = "garde")]
#[diagnostic::do_not_recommend]
impl<T: garde::Validate<Context: Default>> HasRules for T {
    fn faults(&self) -> Vec<Fault> {
        let Err(report) = self.validate() else {
            return Vec::new();
        };
        let faults = report.iter().map(|(path, error)| {
            Fault::in_data(
                crate::validation::pointer_of(&path.to_string()),
                error.message(),
            )
        });
        faults.collect()
    }
}

/// What stands in the place of the above in a build without the feature.
#[cfg(not(feature = "schema"))]
#[diagnostic::on_unimplemented(
    message = "`#[event(schema)]` needs the feature `schema` of polybus",
    label = "its schema needs the feature",
    note = "in Cargo.toml: `polybus = {{ version = \"..\", features = [\"schema\"] }}`"
)]
pub trait HasSchema {}

/// Never called.
#[cfg(not(feature = "schema"))]
#[must_use]
pub fn schema_of<T: HasSchema>() -> serde_json::Value {
    serde_json::Value::Null
}

/// What stands in the place of the above in a build without the feature.
#[cfg(not(feature = "garde"))]
#[diagnostic::on_unimplemented(
    message = "`#[event(garde)]` needs the feature `garde` of polybus",
    label = "its rules need the feature",
    note = "in Cargo.toml: `polybus = {{ version = \"..\", features = [\"garde\"] }}`"
)]
pub trait HasRules {}

/// Never called.
#[cfg(not(feature = "garde"))]
pub fn faults_of<T: HasRules>(_: &T) -> Vec<Fault> {
    Vec::new()
}

/// A field that was named as `key` or `subject`.
///
/// [`polybus_text`](Self::polybus_text) of a `Field<Option<_>>` is the inherent method, that of
/// every other field the one of [`AnyField`]: the compiler prefers the former. So an optional
/// field is known by its type, whatever it is called where the field is declared. The method has
/// a name that no trait in scope there is likely to have.
#[derive(Debug)]
pub struct Field<'a, T: ?Sized>(pub &'a T);

impl<T> Field<'_, Option<T>> {
    /// The text of the value, if there is one.
    pub fn polybus_text(&self) -> Option<Text>
    where
        T: FieldText,
    {
        self.0.as_ref().map(FieldText::text)
    }
}

/// A field that always has a value.
pub trait AnyField {
    /// The type of the field.
    type Value: ?Sized;

    /// The text of the value.
    fn polybus_text(&self) -> Option<Text>
    where
        // On the method, not on the impl: an unfit type is then reported as such, and not as a
        // method that nobody wrote.
        Self::Value: FieldText;
}

impl<T: ?Sized> AnyField for Field<'_, T> {
    type Value = T;

    fn polybus_text(&self) -> Option<Text>
    where
        T: FieldText,
    {
        Some(self.0.text())
    }
}

/// What can be the key or the subject of an event: everything that can be displayed.
#[diagnostic::on_unimplemented(
    message = "`{Self}` can't be the key or the subject of an event",
    label = "this field can't be displayed",
    note = "the key and the subject are what a field displays: `{Self}` has to implement `Display`, or name another field"
)]
pub trait FieldText {
    /// The text, without an allocation if it is short, and with one if it is written in one piece.
    fn text(&self) -> Text;
}

#[diagnostic::do_not_recommend]
impl<T: Display + ?Sized> FieldText for T {
    fn text(&self) -> Text {
        let mut pieces = Pieces::None;
        write!(pieces, "{self}").expect("a `Display` fails only if what it writes to does");
        pieces.into_text()
    }
}

/// Strings, numbers and UUIDs write themselves in one piece: that needs no buffer.
enum Pieces {
    None,
    One(Text),
    Many(String),
}

impl Pieces {
    fn into_text(self) -> Text {
        match self {
            Self::None => Text::default(),
            Self::One(text) => text,
            Self::Many(text) => text.into(),
        }
    }
}

impl Write for Pieces {
    fn write_str(&mut self, piece: &str) -> fmt::Result {
        match self {
            Self::None => *self = Self::One(piece.into()),
            Self::One(first) => *self = Self::Many([first.as_str(), piece].concat()),
            Self::Many(text) => text.push_str(piece),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(value: impl Display) -> Text {
        FieldText::text(&value)
    }

    #[test]
    fn the_text_is_what_the_value_displays_in_however_many_pieces() {
        assert_eq!(text(""), "");
        assert_eq!(text("u1"), "u1");
        assert_eq!(text(-7), "-7");
        assert_eq!(text(format_args!("{}-{}-{}", 1, "b", 'c')), "1-b-c");
    }

    #[test]
    fn a_short_text_is_held_inline() {
        for text in [
            text("twenty-three characters"),
            text(u64::MAX),
            text("u1".to_owned()),
        ] {
            assert!(!text.is_heap_allocated(), "{text}");
        }
    }

    #[test]
    fn an_optional_field_may_have_no_text_and_is_known_through_an_alias() {
        type Perhaps = Option<u32>;
        let (some, none): (Perhaps, Perhaps) = (Some(7), None);
        assert_eq!(Field(&some).polybus_text(), Some("7".into()));
        assert_eq!(Field(&none).polybus_text(), None);
        assert_eq!(Field(&7).polybus_text(), Some("7".into()));
        assert_eq!(Field("7").polybus_text(), Some("7".into()));
    }
}
