//! The file as a tree of values with their places. Knows no field of it: that is the reader's. YAML bombs end in the
//! parser's budget.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{Budget, DuplicateKeyPolicy, Options, Spanned};

use super::complaint::Spot;

/// Values of a file, nested ones included: 100,000 virtual keys of ten fields and their names.
const NODES_MAX: usize = 2_500_000;
/// Depth of a file. Ours needs eight.
const DEPTH_MAX: usize = 32;

/// Uses of anchors.
const ALIASES_MAX: usize = 10_000;
/// Values that uses of anchors repeat, twice over: each has a begin or an end of its own.
const REPLAYED_MAX: usize = 100_000;

/// A value and where it stands.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) spot: Spot,
    pub(super) shape: Shape,
}

/// A value.
#[derive(Debug)]
pub(super) enum Shape {
    Null,
    Bool(bool),
    Whole(i128),
    Real(f64),
    Text(String),
    List(Vec<Node>),
    Map(Vec<(Node, Node)>),
}

/// Reads the text. The error is the parser's, with its place.
pub(super) fn parse(text: &str) -> Result<Node, (Spot, String)> {
    let mut budget = Budget::default();
    budget.max_nodes = NODES_MAX;
    budget.max_events = NODES_MAX * 2;
    budget.max_depth = DEPTH_MAX;
    budget.max_aliases = ALIASES_MAX;
    budget.max_total_scalar_bytes = super::FILE_BYTES_MAX * 2;
    let mut options = Options::default();
    options.budget = Some(budget);
    options.alias_limits.max_total_replayed_events = REPLAYED_MAX;
    // Repeated names are noted with their places while the tree is read.
    options.duplicate_keys = DuplicateKeyPolicy::PassThrough;
    options.with_snippet = false;
    // YAML 1.2: `off` and `no` are words.
    options.strict_booleans = true;
    serde_saphyr::from_str_with_options::<Spanned<Shape>>(text, options).map(node).map_err(|error| {
        let spot = error.location().map_or_else(Spot::default, spot);
        // The parser repeats its place in the text.
        let message = error.without_snippet().to_string();
        let message = message.split(" at line ").next().unwrap_or_default().to_owned();
        (spot, message)
    })
}

fn spot(location: serde_saphyr::Location) -> Spot {
    Spot { line: location.line() as u32, column: location.column() as u32 }
}

fn node(spanned: Spanned<Shape>) -> Node {
    Node { spot: spot(spanned.referenced), shape: spanned.value }
}

impl<'de> Deserialize<'de> for Shape {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Shape, D::Error> {
        deserializer.deserialize_any(ShapeVisitor)
    }
}

struct ShapeVisitor;

impl<'de> Visitor<'de> for ShapeVisitor {
    type Value = Shape;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }
    fn visit_unit<E>(self) -> Result<Shape, E> {
        Ok(Shape::Null)
    }
    fn visit_none<E>(self) -> Result<Shape, E> {
        Ok(Shape::Null)
    }
    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Shape, D::Error> {
        deserializer.deserialize_any(self)
    }
    fn visit_bool<E>(self, value: bool) -> Result<Shape, E> {
        Ok(Shape::Bool(value))
    }
    fn visit_i64<E>(self, value: i64) -> Result<Shape, E> {
        Ok(Shape::Whole(value.into()))
    }
    fn visit_u64<E>(self, value: u64) -> Result<Shape, E> {
        Ok(Shape::Whole(value.into()))
    }
    fn visit_i128<E>(self, value: i128) -> Result<Shape, E> {
        Ok(Shape::Whole(value))
    }
    fn visit_u128<E>(self, value: u128) -> Result<Shape, E> {
        Ok(Shape::Whole(value.try_into().unwrap_or(i128::MAX)))
    }
    fn visit_f64<E>(self, value: f64) -> Result<Shape, E> {
        Ok(Shape::Real(value))
    }
    fn visit_str<E>(self, value: &str) -> Result<Shape, E> {
        Ok(Shape::Text(value.to_owned()))
    }
    fn visit_string<E>(self, value: String) -> Result<Shape, E> {
        Ok(Shape::Text(value))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Shape, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = access.next_element::<Spanned<Shape>>()? {
            list.push(node(item));
        }
        Ok(Shape::List(list))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Shape, A::Error> {
        let mut map = Vec::new();
        while let Some(key) = access.next_key::<Spanned<Shape>>()? {
            map.push((node(key), node(access.next_value::<Spanned<Shape>>()?)));
        }
        Ok(Shape::Map(map))
    }
}

impl Shape {
    /// What it is, for people.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Shape::Null => "nothing",
            Shape::Bool(_) => "true or false",
            Shape::Whole(_) => "a whole number",
            Shape::Real(_) => "a number",
            Shape::Text(_) => "text",
            Shape::List(_) => "a list",
            Shape::Map(_) => "a mapping",
        }
    }
}
