//! The derive macro of polybus. Use it as `polybus::Event`.

#![forbid(unsafe_code)]

mod attribute;
mod expand;
mod field;
mod name;
mod variants;

use proc_macro::TokenStream;
use syn::{DeriveInput, Error, parse_macro_input};

/// Makes a struct the data of an event, or an enum that of several: implements `EventData`.
///
/// ```
/// use polybus_core::EventData;
/// use polybus_macros::Event;
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Event, Serialize, Deserialize)]
/// #[event(type = "user.created", version = "1.2.0", key = user_id)]
/// # #[event(crate = "polybus_core")]
/// struct UserCreated {
///     user_id: String,
///     email: String,
/// }
///
/// let event = UserCreated { user_id: "u1".into(), email: "a@b.c".into() };
/// assert_eq!(event.type_info().name, "user.created");
/// assert_eq!(event.type_info().version, "1.2.0");
/// assert_eq!(event.key().as_deref(), Some("u1"));
/// assert_eq!(event.subject(), None);
/// ```
///
/// To be published the struct has to be `Serialize`, to be handled `Deserialize`.
///
/// # Attributes
///
/// All stand in `#[event(..)]` on the struct.
///
/// - `type = "user.created"`, required: the event type. Segments divided by dots, none of them
///   empty; no whitespace, and none of the characters of patterns (`*`, `+`, `#`, `>`).
/// - `version = "1.0.0"`: the semantic version of the data's shape, `MAJOR.MINOR.PATCH`.
///   Default: `1.0.0`.
/// - `key = user_id`: the field that order and partitioning go by. Default: none, and then the
///   subject.
/// - `subject = user_id`: the field that says what the event is about. Default: none.
/// - `from = UserCreatedV1`: the type of the major version before. Its data are read as that type and
///   taken over by `TryFrom<UserCreatedV1>` (or `From`), which may have a `from` in its turn.
/// - `avro = "user.avsc"`: the type's Avro schema, in a file beside the source file. `avro` alone: the type
///   derives `apache_avro::AvroSchema`. For routes with `codec = "avro"`; takes the feature `avro`.
/// - `protobuf`: the type derives `prost::Message`. For routes with `codec = "protobuf"`; takes the feature
///   `protobuf`. `protobuf = "user.proto"` names the file that declares the message, which a schema registry
///   is told: the one of the struct's name, or, as `"user.proto#Outer.User"`, another one.
/// - `crate = "my_service::polybus"`: where polybus is found. Default: `::polybus`.
///
/// `key` and `subject` name a field, a field of a field (`key = user.id`), or a field of a
/// tuple struct (`key = 0`); a string will do as well (`key = "user.id"`). Its type has to
/// implement `Display`; the text is what it displays. A field that is an `Option` may have no
/// value: then the event has no key, or no subject.
///
/// # Enums
///
/// An enum stands for all events of a domain: each variant holds a struct that derives `Event`, and which
/// one it is follows from the event type. Its data are those of the variant, so it is
/// `#[serde(untagged)]`.
///
/// ```
/// # use polybus_core::EventData;
/// # use polybus_macros::Event;
/// # use serde::{Deserialize, Serialize};
/// # #[derive(Event, Serialize, Deserialize)]
/// # #[event(type = "user.created", crate = "polybus_core")]
/// # struct UserCreated;
/// # #[derive(Event, Serialize, Deserialize)]
/// # #[event(type = "user.deleted", crate = "polybus_core")]
/// # struct UserDeleted;
/// #[derive(Event, Serialize, Deserialize)]
/// # #[event(crate = "polybus_core")]
/// #[serde(untagged)]
/// enum UserEvent {
///     Created(UserCreated),
///     Deleted(UserDeleted),
/// }
///
/// assert_eq!(UserEvent::TYPES.len(), 2);
/// ```
///
/// # Generics
///
/// A generic struct keeps its bounds and its where-clause. Its events are those of its
/// instances that are `Send`, `Sync` and `'static`. A type parameter that is the key needs the
/// bound `Display`.
///
/// ```
/// # use polybus_core::EventData;
/// # use polybus_macros::Event;
/// use std::fmt::Display;
///
/// #[derive(Event)]
/// #[event(type = "entity.changed", key = id)]
/// # #[event(crate = "polybus_core")]
/// struct Changed<K: Display, T> {
///     id: K,
///     now: T,
/// }
///
/// let event = Changed { id: 7, now: "open" };
/// assert_eq!(event.key().as_deref(), Some("7"));
/// ```
#[proc_macro_derive(Event, attributes(event))]
pub fn derive_event(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    expand::derive(&input)
        .unwrap_or_else(Error::into_compile_error)
        .into()
}
