//! What `#[derive(Event)]` makes of structs of every shape.

use std::borrow::Cow;
use std::fmt::Display;
use std::marker::PhantomData;

use polybus_core::event::EventDefaults;
use polybus_core::{Codec, EventData, IntoEvent, Text, TypeInfo};
use polybus_macros::Event;
use serde::{Deserialize, Serialize};

/// Type, version, key and subject of a value.
fn described<E: EventData>(event: &E) -> (&str, &str, Option<Text>, Option<Text>) {
    let info = event.type_info();
    assert_eq!(E::TYPES, [*info], "a struct stands for one type");
    (info.name, info.version, event.key(), event.subject())
}

fn text(text: &str) -> Option<Text> {
    Some(text.into())
}

#[test]
fn a_struct_is_published_with_all_its_attributes() {
    #[derive(Event, Serialize, Deserialize)]
    #[event(type = "user.created", version = "1.2.0", key = tenant, subject = user_id)]
    #[event(crate = "polybus_core")]
    struct UserCreated {
        tenant: u32,
        user_id: String,
    }

    let created = UserCreated {
        tenant: 7,
        user_id: "u1".to_owned(),
    };
    let source = Text::new("accounts");
    let event = created
        .into_event(&EventDefaults::new(&source, Codec::Json))
        .unwrap();
    assert_eq!(event.event_type(), "user.created");
    assert_eq!(event.data_version(), Some("1.2.0"));
    assert_eq!(event.partition_key(), Some("7"));
    assert_eq!(event.subject(), Some("u1"));
    assert_eq!(event.source(), "accounts");

    let decoded: UserCreated = Codec::decode(&event).unwrap();
    assert_eq!((decoded.tenant, decoded.user_id.as_str()), (7, "u1"));
}

#[test]
fn only_the_type_is_required() {
    #[derive(Event)]
    #[event(type = "ping", crate = "polybus_core")]
    struct Ping;

    assert_eq!(described(&Ping), ("ping", "1.0.0", None, None));
    assert_eq!(Ping::TYPES, [TypeInfo::new("ping", "1.0.0")]);
}

#[test]
fn the_key_may_be_a_field_of_a_field() {
    struct Address(&'static str, Id);
    struct Id {
        r#type: char,
    }

    #[derive(Event)]
    #[event(type = "a", crate = "polybus_core", key = home.1.type, subject = "home.0")]
    struct Moved {
        home: Address,
    }

    let moved = Moved {
        home: Address("Hilltop", Id { r#type: 'x' }),
    };
    assert_eq!(
        described(&moved),
        ("a", "1.0.0", text("x"), text("Hilltop"))
    );
}

#[test]
fn fields_of_tuple_structs_go_by_index() {
    #[derive(Event)]
    #[event(type = "a", crate = "polybus_core", key = 0, subject = 1.1)]
    struct Pair(i64, (bool, Box<str>));

    let pair = Pair(-1, (true, "right".into()));
    assert_eq!(described(&pair), ("a", "1.0.0", text("-1"), text("right")));
}

#[test]
fn an_optional_field_without_a_value_is_no_key() {
    type Perhaps = Option<String>;

    #[derive(Event)]
    #[event(type = "a", crate = "polybus_core", key = number, subject = name)]
    struct Entered {
        number: Option<u16>,
        name: Perhaps,
    }

    let both = Entered {
        number: Some(4),
        name: Some("Ann".to_owned()),
    };
    assert_eq!(described(&both), ("a", "1.0.0", text("4"), text("Ann")));
    let neither = Entered {
        number: None,
        name: None,
    };
    assert_eq!(described(&neither), ("a", "1.0.0", None, None));
}

#[test]
fn a_generic_struct_keeps_its_bounds_and_its_where_clause() {
    #[derive(Event)]
    #[event(type = "a", crate = "polybus_core", key = id, subject = parts.0)]
    struct Changed<'a, K: Display, T = std::vec::IntoIter<char>, const N: usize = 2>
    where
        T: Iterator,
        T::Item: Display,
    {
        id: Option<K>,
        parts: (Cow<'a, str>, [u8; N]),
        first: T::Item,
        marker: PhantomData<fn() -> T>,
    }

    #[derive(Event)]
    #[event(type = "b", crate = "polybus_core", key = first)]
    struct First<T: Iterator<Item: Display>> {
        first: T::Item,
    }

    let changed = Changed::<u8> {
        id: Some(7),
        parts: (Cow::Borrowed("whole"), [0; 2]),
        first: 'x',
        marker: PhantomData,
    };
    assert_eq!(changed.first, 'x');
    assert_eq!(
        described(&changed),
        ("a", "1.0.0", text("7"), text("whole"))
    );
    let first = First::<std::vec::IntoIter<char>> { first: 'x' };
    assert_eq!(described(&first), ("b", "1.0.0", text("x"), None));
}

#[test]
fn code_that_is_generic_over_the_event_compiles() {
    #[derive(Event)]
    #[event(type = "a", crate = "polybus_core", key = 0)]
    struct Of<T: Display>(T);

    fn key_of<T: Display + Send + Sync + 'static>(value: T) -> Option<Text> {
        Of(value).key()
    }
    assert_eq!(key_of("x"), text("x"));
}

#[test]
fn a_declaration_may_come_from_a_macro() {
    macro_rules! event {
        ($name:ident, $type:literal, $version:expr, $key:ident: $of:ty) => {
            #[derive(Event)]
            #[event(type = $type, version = $version, key = $key, crate = "polybus_core")]
            struct $name {
                $key: $of,
                fixed: u8,
            }
        };
    }
    event!(Made, "made.up", "3.0.0", id: &'static str);

    let made = Made { id: "m", fixed: 0 };
    assert_eq!(made.fixed, 0);
    assert_eq!(described(&made), ("made.up", "3.0.0", text("m"), None));
}

/// The derive must not depend on what names mean where it stands.
mod hostile {
    #![no_implicit_prelude]
    #![allow(dead_code, reason = "the types are there to be derived on")]

    pub(crate) enum Option {}
    pub(crate) struct Text;
    pub(crate) struct EventData;
    pub(crate) trait Send {}
    pub(crate) trait Sync {}
    pub(crate) trait Display {
        fn text(&self) -> Text;
    }
    impl<T> Display for T {
        fn text(&self) -> Text {
            Text
        }
    }

    #[derive(::polybus_macros::Event)]
    #[event(type = "hostile", crate = "::polybus_core", key = text, subject = maybe)]
    pub(crate) struct Event<T: ::std::fmt::Display> {
        pub(crate) text: T,
        pub(crate) maybe: ::std::option::Option<u8>,
    }
}

#[test]
fn other_things_of_the_same_names_do_no_harm() {
    let event = hostile::Event {
        text: "t",
        maybe: Some(1),
    };
    assert_eq!(
        described(&event),
        ("hostile", "1.0.0", text("t"), text("1"))
    );
}

#[derive(Debug, PartialEq, Event, Serialize, Deserialize)]
#[event(type = "user.deleted", key = user_id, crate = "polybus_core")]
struct UserDeleted {
    user_id: String,
}

#[derive(Debug, PartialEq, Event, Serialize, Deserialize)]
#[event(type = "user.renamed", version = "2.1.0", subject = name, crate = "polybus_core")]
struct UserRenamed {
    name: String,
}

#[derive(Debug, PartialEq, Event, Serialize, Deserialize)]
#[event(crate = "polybus_core")]
#[serde(untagged)]
enum UserEvent {
    Deleted(UserDeleted),
    Renamed(UserRenamed),
}

#[test]
fn an_enum_stands_for_the_event_types_of_its_variants() {
    let types: Vec<_> = UserEvent::TYPES
        .iter()
        .map(|info| (info.name, info.version))
        .collect();
    assert_eq!(
        types,
        [("user.deleted", "1.0.0"), ("user.renamed", "2.1.0")]
    );
    let renamed = UserEvent::Renamed(UserRenamed { name: "n".into() });
    assert_eq!(renamed.type_info().name, "user.renamed");
    assert_eq!(renamed.key(), None);
    assert_eq!(renamed.subject().as_deref(), Some("n"));
    let deleted = UserEvent::Deleted(UserDeleted {
        user_id: "u1".into(),
    });
    assert_eq!(deleted.key().as_deref(), Some("u1"));
}

#[test]
fn which_variant_it_is_follows_from_the_event_type_alone() {
    let read = |event_type: &str, data: &str| {
        let event = polybus_core::Event::builder(event_type)
            .source("s")
            .data(data.to_owned());
        UserEvent::from_event(&event.build().unwrap())
    };
    // These data would do for both.
    let both = r#"{"user_id":"u1","name":"n"}"#;
    let deleted = UserDeleted {
        user_id: "u1".into(),
    };
    assert_eq!(
        read("user.deleted", both).unwrap(),
        UserEvent::Deleted(deleted)
    );
    let renamed = UserRenamed { name: "n".into() };
    assert_eq!(
        read("user.renamed", both).unwrap(),
        UserEvent::Renamed(renamed)
    );
    let error = read("user.created", both).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("they take user.deleted, user.renamed"),
        "{error}"
    );
    assert!(read("user.renamed", r#"{"user_id":"u1"}"#).is_err());
}

#[test]
fn the_data_of_an_enum_are_those_of_its_variant() {
    let deleted = UserEvent::Deleted(UserDeleted {
        user_id: "u1".into(),
    });
    let json = serde_json::to_string(&deleted).unwrap();
    assert_eq!(json, r#"{"user_id":"u1"}"#);
}

#[derive(Event, Serialize, Deserialize)]
#[event(type = "user.moved", version = "1.0.0", crate = "polybus_core")]
struct MovedV1 {
    address: String,
}

#[derive(Event, Serialize, Deserialize)]
#[event(type = "user.moved", version = "2.0.0", from = MovedV1, crate = "polybus_core")]
struct MovedV2 {
    street: String,
    city: String,
}

impl TryFrom<MovedV1> for MovedV2 {
    type Error = String;

    fn try_from(old: MovedV1) -> Result<Self, String> {
        let (street, city) = old.address.split_once(", ").ok_or("no city")?;
        Ok(Self {
            street: street.to_owned(),
            city: city.to_owned(),
        })
    }
}

#[derive(Debug, PartialEq, Event, Serialize, Deserialize)]
#[event(type = "user.moved", version = "3.0.0", from = MovedV2, crate = "polybus_core")]
struct Moved {
    city: String,
}

impl From<MovedV2> for Moved {
    fn from(old: MovedV2) -> Self {
        drop(old.street);
        Self { city: old.city }
    }
}

#[test]
fn steps_between_types_are_chained() {
    let read = |version: &str, data: &str| {
        let event = polybus_core::Event::builder("user.moved")
            .source("s")
            .data_version(version);
        Moved::from_event(&event.data(data.to_owned()).build().unwrap())
    };
    let moved = || Moved {
        city: "Rome".into(),
    };
    assert_eq!(
        read("1.0.0", r#"{"address":"Via 1, Rome"}"#).unwrap(),
        moved()
    );
    assert_eq!(
        read("2.3.0", r#"{"street":"Via 1","city":"Rome"}"#).unwrap(),
        moved()
    );
    assert_eq!(read("3.0.0", r#"{"city":"Rome"}"#).unwrap(), moved());
    for (version, data, expected) in [
        (
            "1.0.0",
            r#"{"address":"Rome"}"#,
            "could not be migrated: no city",
        ),
        ("1.0.0", r#"{"city":"Rome"}"#, "missing field `address`"),
        (
            "4.0.0",
            r#"{"city":"Rome"}"#,
            "version `4.0.0` of `user.moved` is not supported",
        ),
        (
            "0.9.0",
            r#"{"city":"Rome"}"#,
            "version `0.9.0` of `user.moved` is not supported",
        ),
    ] {
        let error = read(version, data).unwrap_err();
        assert!(error.to_string().contains(expected), "{version}: {error}");
    }
}
