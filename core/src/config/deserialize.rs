//! The tree as serde's data, with faults that know their place.

use serde::de::value::{MapAccessDeserializer, StrDeserializer};
use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, Error as _, IntoDeserializer, MapAccess,
    SeqAccess, Unexpected, Visitor,
};
use serde::forward_to_deserialize_any;

use super::fault::{Fault, Shown};
use super::tree::{Node, Path, Table, Value};
use crate::Result;

/// A node as a type.
///
/// # Errors
///
/// [`ErrorKind::Config`](crate::ErrorKind::Config) with the place and what to do.
pub(super) fn deserialize<T: DeserializeOwned>(
    node: &Node,
    path: Path<'_>,
    shown: Shown,
) -> Result<T> {
    T::deserialize(NodeDeserializer { node, path: &path })
        .map_err(|fault| fault.at(node, &path).into_error(shown))
}

#[derive(Clone, Copy)]
struct NodeDeserializer<'a> {
    node: &'a Node,
    path: &'a Path<'a>,
}

impl<'a> NodeDeserializer<'a> {
    /// The text of a value from the environment, where something else than text is asked for.
    fn environment(&self) -> Option<&'a str> {
        match (&self.node.value, &self.node.environment) {
            (Value::String(text), Some(_)) => Some(text),
            _ => None,
        }
    }
}

/// Numbers and truth values, which a text from the environment may spell.
macro_rules! deserialize_scalar {
    ($($method:ident $visit:ident $type:ty)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
            match self.environment().map(|text| text.trim().parse::<$type>()) {
                Some(Ok(value)) => visitor.$visit(value),
                _ => self.deserialize_any(visitor),
            }
        }
    )*};
}

impl<'de> Deserializer<'de> for NodeDeserializer<'_> {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match &self.node.value {
            Value::String(text) => visitor.visit_str(text),
            Value::Integer(number) => match u64::try_from(*number) {
                Ok(number) => visitor.visit_u64(number),
                Err(_) => visitor.visit_i64(*number),
            },
            Value::Float(number) => visitor.visit_f64(*number),
            Value::Boolean(value) => visitor.visit_bool(*value),
            Value::Array(nodes) => visitor.visit_seq(Elements {
                nodes: nodes.iter().enumerate(),
                path: self.path,
            }),
            Value::Table(table) => visitor.visit_map(Entries::new(table, self.path)),
        }
    }

    deserialize_scalar! {
        deserialize_bool visit_bool bool
        deserialize_i8 visit_i64 i64
        deserialize_i16 visit_i64 i64
        deserialize_i32 visit_i64 i64
        deserialize_i64 visit_i64 i64
        deserialize_u8 visit_u64 u64
        deserialize_u16 visit_u64 u64
        deserialize_u32 visit_u64 u64
        deserialize_u64 visit_u64 u64
        deserialize_f32 visit_f64 f64
        deserialize_f64 visit_f64 f64
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match (&self.node.value, &self.node.environment) {
            (Value::Integer(_) | Value::Float(_) | Value::Boolean(_), Some(text)) => {
                visitor.visit_str(text)
            }
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        match &self.node.value {
            Value::String(text) => {
                let variant: StrDeserializer<'_, Fault> = text.as_str().into_deserializer();
                visitor.visit_enum(variant)
            }
            Value::Table(table) => {
                visitor.visit_enum(MapAccessDeserializer::new(Entries::new(table, self.path)))
            }
            other => Err(Fault::invalid_type(
                Unexpected::Other(other.describe()),
                &"a string",
            )),
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_unit()
    }

    forward_to_deserialize_any! {
        char bytes byte_buf unit unit_struct seq tuple tuple_struct map struct identifier
    }
}

/// The elements of an array.
struct Elements<'a> {
    nodes: std::iter::Enumerate<std::slice::Iter<'a, Node>>,
    path: &'a Path<'a>,
}

impl<'de> SeqAccess<'de> for Elements<'_> {
    type Error = Fault;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Fault> {
        let Some((index, node)) = self.nodes.next() else {
            return Ok(None);
        };
        let path = Path::Index(self.path, index);
        seed.deserialize(NodeDeserializer { node, path: &path })
            .map(Some)
            .map_err(|fault| fault.at(node, &path))
    }
}

/// The entries of a table.
struct Entries<'a> {
    entries: Box<dyn Iterator<Item = (&'a str, &'a Node)> + 'a>,
    current: Option<(&'a str, &'a Node)>,
    path: &'a Path<'a>,
}

impl<'a> Entries<'a> {
    fn new(table: &'a Table, path: &'a Path<'a>) -> Self {
        Self {
            entries: Box::new(table.iter()),
            current: None,
            path,
        }
    }
}

impl<'de> MapAccess<'de> for Entries<'_> {
    type Error = Fault;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Fault> {
        self.current = self.entries.next();
        let Some((key, node)) = self.current else {
            return Ok(None);
        };
        let name: StrDeserializer<'_, Fault> = key.into_deserializer();
        seed.deserialize(name)
            .map(Some)
            .map_err(|fault| fault.at(node, &Path::Key(self.path, key)))
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, Fault> {
        let (key, node) = self
            .current
            .take()
            .ok_or_else(|| Fault::custom("a value was asked for before its key"))?;
        let path = Path::Key(self.path, key);
        seed.deserialize(NodeDeserializer { node, path: &path })
            .map_err(|fault| fault.at(node, &path))
    }
}
