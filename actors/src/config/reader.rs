//! Reads raw structs out of the tree.
//!
//! A derived reader stops at its first mistake. This one goes on: unknown and repeated fields are noted here, and a
//! [`Field`](super::field::Field) that cannot be read becomes `Broken` after its mistake was noted, so that one run
//! reports everything. Which values are in range is not its concern.

use std::collections::HashMap;
use std::fmt;

use serde::de::{self, DeserializeSeed, Deserializer, IntoDeserializer, MapAccess, SeqAccess, Visitor};

use super::complaint::{Notes, Spot};
use super::field::{FIELD, NUMBER_OR_MAPPING};
use super::suggest;
use super::tree::{Node, Shape};

/// Why a value could not be read. Carries its place where the reader knows a better one than the field's.
#[derive(Debug)]
pub(super) struct Mismatch {
    spot: Option<Spot>,
    message: String,
    hint: Option<String>,
}

impl Mismatch {
    fn expected(what: &str, found: &Node) -> Mismatch {
        let hint = match (what, &found.shape) {
            ("text", Shape::Whole(_) | Shape::Real(_) | Shape::Bool(_)) => {
                Some("put it in quotes".to_owned())
            }
            _ => None,
        };
        Mismatch {
            spot: Some(found.spot),
            message: format!("expected {what}, found {}", found.shape.kind()),
            hint,
        }
    }
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Mismatch {}

impl de::Error for Mismatch {
    fn custom<T: fmt::Display>(message: T) -> Mismatch {
        Mismatch { spot: None, message: message.to_string(), hint: None }
    }
}

/// Reads raw structs out of a node; see the module.
#[derive(Clone, Copy)]
pub(super) struct Reader<'a> {
    pub(super) node: &'a Node,
    pub(super) notes: &'a Notes,
}

impl Reader<'_> {
    /// Notes why a value could not be read.
    pub(super) fn note(self, mismatch: Mismatch) {
        self.notes.error(mismatch.spot.unwrap_or(self.node.spot), mismatch.message, mismatch.hint);
    }
}

macro_rules! scalar {
    ($($method:ident, $visit:ident, $what:literal, $pattern:pat => $value:expr;)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
            match &self.node.shape {
                $pattern => visitor.$visit($value),
                _ => Err(Mismatch::expected($what, self.node)),
            }
        })*
    };
}

impl<'de> Deserializer<'de> for Reader<'_> {
    type Error = Mismatch;

    scalar! {
        deserialize_bool, visit_bool, "true or false", Shape::Bool(it) => *it;
        deserialize_str, visit_str, "text", Shape::Text(it) => it;
        deserialize_string, visit_str, "text", Shape::Text(it) => it;
        deserialize_identifier, visit_str, "a name", Shape::Text(it) => it;
    }

    fn deserialize_u64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        match self.node.shape {
            Shape::Whole(it) => match u64::try_from(it) {
                Ok(it) => visitor.visit_u64(it),
                Err(_) => Err(de::Error::custom("the number must not be negative, nor above 2^64")),
            },
            _ => Err(Mismatch::expected("a whole number", self.node)),
        }
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        match self.node.shape {
            Shape::Whole(it) => visitor.visit_f64(it as f64),
            Shape::Real(it) => visitor.visit_f64(it),
            _ => Err(Mismatch::expected("a number", self.node)),
        }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        match &self.node.shape {
            Shape::List(list) => visitor.visit_seq(Items { reader: self, list: list.iter() }),
            _ => Err(Mismatch::expected("a list", self.node)),
        }
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        match &self.node.shape {
            Shape::Map(map) => visitor.visit_map(self.fields(map, None)),
            _ => Err(Mismatch::expected("a mapping", self.node)),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Mismatch> {
        match &self.node.shape {
            Shape::Map(map) => visitor.visit_map(self.fields(map, Some(fields))),
            _ => Err(Mismatch::expected("a mapping", self.node)),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Mismatch> {
        if name == FIELD {
            return visitor.visit_seq(Placed { reader: self, step: 0 });
        }
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Mismatch> {
        if variants == NUMBER_OR_MAPPING {
            let variant = match &self.node.shape {
                Shape::Whole(_) | Shape::Real(_) => variants[0],
                Shape::Map(_) => variants[1],
                _ => return Err(Mismatch::expected("a whole number or a mapping", self.node)),
            };
            return visitor.visit_enum(Variant { reader: self, variant });
        }
        let Shape::Text(text) = &self.node.shape else {
            return Err(Mismatch::expected("text", self.node));
        };
        match variants.iter().copied().find(|it| it == text) {
            Some(variant) => visitor.visit_enum(Variant { reader: self, variant }),
            None => Err(Mismatch {
                spot: None,
                message: format!("`{text}` is not known here"),
                hint: suggest::hint(text, variants.iter().copied()),
            }),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        match self.node.shape {
            Shape::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        match &self.node.shape {
            Shape::Null => visitor.visit_unit(),
            Shape::Bool(it) => visitor.visit_bool(*it),
            Shape::Whole(_) => self.deserialize_u64(visitor),
            Shape::Real(it) => visitor.visit_f64(*it),
            Shape::Text(it) => visitor.visit_str(it),
            Shape::List(_) => self.deserialize_seq(visitor),
            Shape::Map(_) => self.deserialize_map(visitor),
        }
    }

    serde::forward_to_deserialize_any! {
        i8 i16 i32 i64 i128 u8 u16 u32 u128 f32 char bytes byte_buf unit unit_struct tuple tuple_struct ignored_any
    }
}

impl<'a> Reader<'a> {
    /// The entries that may be read: names that are text, known where `known` says so, and stand there once.
    fn fields(self, map: &'a [(Node, Node)], known: Option<&'static [&'static str]>) -> Fields<'a> {
        let mut seen = HashMap::with_capacity(map.len());
        let mut kept = Vec::with_capacity(map.len());
        for (key, value) in map {
            let Shape::Text(name) = &key.shape else {
                self.notes.error(key.spot, format!("expected a name, found {}", key.shape.kind()), None);
                continue;
            };
            if let Some(known) = known.filter(|it| !it.contains(&name.as_str())) {
                let hint = suggest::hint(name, known.iter().copied());
                self.notes.error(key.spot, format!("unknown field `{name}`"), hint);
                continue;
            }
            if let Some(first) = seen.insert(name.as_str(), key.spot) {
                let hint = format!("it stands in line {}, too", first.line);
                self.notes.error(key.spot, format!("`{name}` is given twice"), hint);
                continue;
            }
            // A field without a value is as good as absent; a named entry (of a mapping) is kept to be judged.
            if known.is_none() || !matches!(value.shape, Shape::Null) {
                kept.push((key, value));
            }
        }
        Fields { reader: self, entries: kept.into_iter(), value: None }
    }
}

struct Fields<'a> {
    reader: Reader<'a>,
    entries: std::vec::IntoIter<(&'a Node, &'a Node)>,
    value: Option<&'a Node>,
}

impl<'de> MapAccess<'de> for Fields<'_> {
    type Error = Mismatch;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Mismatch> {
        let Some((key, value)) = self.entries.next() else { return Ok(None) };
        self.value = Some(value);
        seed.deserialize(Reader { node: key, ..self.reader }).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Mismatch> {
        let node =
            self.value.take().ok_or_else(|| <Mismatch as de::Error>::custom("a value without its name"))?;
        seed.deserialize(Reader { node, ..self.reader })
    }
}

struct Items<'a> {
    reader: Reader<'a>,
    list: std::slice::Iter<'a, Node>,
}

impl<'de> SeqAccess<'de> for Items<'_> {
    type Error = Mismatch;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Mismatch> {
        let Some(node) = self.list.next() else { return Ok(None) };
        seed.deserialize(Reader { node, ..self.reader }).map(Some)
    }
}

/// What a [`Field`](super::field::Field) is read from: line, column, and the value unless it is broken.
struct Placed<'a> {
    reader: Reader<'a>,
    step: u8,
}

impl<'de> SeqAccess<'de> for Placed<'_> {
    type Error = Mismatch;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Mismatch> {
        self.step += 1;
        let spot = self.reader.node.spot;
        match self.step {
            1 => seed.deserialize(spot.line.into_deserializer()).map(Some),
            2 => seed.deserialize(spot.column.into_deserializer()).map(Some),
            _ => match seed.deserialize(self.reader) {
                Ok(value) => Ok(Some(value)),
                Err(mismatch) => {
                    self.reader.note(mismatch);
                    Ok(None)
                }
            },
        }
    }
}

struct Variant<'a> {
    reader: Reader<'a>,
    variant: &'static str,
}

impl<'de, 'a> de::EnumAccess<'de> for Variant<'a> {
    type Error = Mismatch;
    type Variant = Payload<'a>;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Payload<'a>), Mismatch> {
        let name: de::value::StrDeserializer<'_, Mismatch> = self.variant.into_deserializer();
        Ok((seed.deserialize(name)?, Payload(self.reader)))
    }
}

struct Payload<'a>(Reader<'a>);

impl<'de> de::VariantAccess<'de> for Payload<'_> {
    type Error = Mismatch;

    fn unit_variant(self) -> Result<(), Mismatch> {
        Ok(())
    }
    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Mismatch> {
        seed.deserialize(self.0)
    }
    fn tuple_variant<V: Visitor<'de>>(self, _len: usize, _visitor: V) -> Result<V::Value, Mismatch> {
        Err(de::Error::custom("not a list"))
    }
    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Mismatch> {
        self.0.deserialize_struct("", fields, visitor)
    }
}
