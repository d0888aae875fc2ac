//! A value of the file together with its place: given, absent, or broken (and already complained about).

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

use super::complaint::Spot;

/// Name under which the tree's reader hands out a value with its place.
pub(super) const FIELD: &str = "tidegate::Field";
/// Variants of an enum that is chosen by the shape of the value.
pub(super) const NUMBER_OR_MAPPING: &[&str] = &["number", "mapping"];

/// A value with its place.
#[derive(Clone, Debug, Default)]
pub(super) enum Field<T> {
    /// Not in the file.
    #[default]
    Absent,
    /// There, but not readable; the complaint has been noted.
    Broken(Spot),
    /// There.
    Given(T, Spot),
}

impl<T> Field<T> {
    /// The value, where it could be read.
    pub(super) fn value(&self) -> Option<&T> {
        match self {
            Field::Given(value, _) => Some(value),
            _ => None,
        }
    }

    /// The value with its place, where it could be read.
    pub(super) fn given(&self) -> Option<(&T, Spot)> {
        match self {
            Field::Given(value, spot) => Some((value, *spot)),
            _ => None,
        }
    }

    /// True if the file does not have it.
    pub(super) fn is_absent(&self) -> bool {
        matches!(self, Field::Absent)
    }

    /// Its place, else the one of what it belongs to.
    pub(super) fn spot_or(&self, otherwise: Spot) -> Spot {
        match self {
            Field::Absent => otherwise,
            Field::Broken(spot) | Field::Given(_, spot) => *spot,
        }
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Field<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Field<T>, D::Error> {
        struct FieldVisitor<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for FieldVisitor<T> {
            type Value = Field<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value with its place")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Field<T>, A::Error> {
                let line = access.next_element()?.unwrap_or_default();
                let column = access.next_element()?.unwrap_or_default();
                let spot = Spot { line, column };
                Ok(match access.next_element()? {
                    Some(value) => Field::Given(value, spot),
                    None => Field::Broken(spot),
                })
            }
        }
        deserializer.deserialize_newtype_struct(FIELD, FieldVisitor(PhantomData))
    }
}

impl<T: JsonSchema> JsonSchema for Field<T> {
    fn inline_schema() -> bool {
        T::inline_schema()
    }
    fn schema_name() -> Cow<'static, str> {
        T::schema_name()
    }
    fn schema_id() -> Cow<'static, str> {
        T::schema_id()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        T::json_schema(generator)
    }
}

/// A mapping whose names the operator chooses, in the order of the file.
#[derive(Clone, Debug)]
pub(super) struct Entries<T>(pub(super) Vec<(String, Spot, Field<T>)>);

impl<T> Default for Entries<T> {
    fn default() -> Entries<T> {
        Entries(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Entries<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Entries<T>, D::Error> {
        struct EntriesVisitor<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for EntriesVisitor<T> {
            type Value = Entries<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a mapping")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Entries<T>, A::Error> {
                let mut entries = Vec::new();
                while let Some(name) = access.next_key::<Field<String>>()? {
                    let value = access.next_value::<Field<T>>()?;
                    if let Field::Given(name, spot) = name {
                        entries.push((name, spot, value));
                    }
                }
                Ok(Entries(entries))
            }
        }
        deserializer.deserialize_map(EntriesVisitor(PhantomData))
    }
}

impl<T: JsonSchema> JsonSchema for Entries<T> {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        format!("Entries_of_{}", T::schema_name()).into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        std::collections::BTreeMap::<String, T>::json_schema(generator)
    }
}
