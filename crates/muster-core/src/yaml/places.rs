//! Where each field of a YAML text stands, so that what is found wrong after reading is told with its line and column.

use std::collections::HashMap;
use std::fmt;

use serde::de::{self, Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{Location, Spanned};

use super::options;
use crate::secret_refs::join;

/// Line and column of every field and item of a text, by dotted path.
#[derive(Clone, Debug, Default)]
pub struct Places(HashMap<String, (u64, u64)>);

impl Places {
    /// Of a text that was read without a refusal; empty for any other.
    pub fn of(text: &str) -> Self {
        let mut places = Self::default();
        if let Ok(top) = serde_saphyr::from_str_with_options::<Node>(text, options()) {
            places.note("", top);
        }
        places
    }

    /// Line and column, from 1, of the field; of the nearest one around it when the text does not have it.
    pub fn find(&self, path: &str) -> Option<(u64, u64)> {
        let around = std::iter::successors(Some(path), |path| path.rsplit_once('.').map(|(around, _)| around));
        around.filter_map(|path| self.0.get(path).copied()).next()
    }

    /// Whether the text has this very field.
    pub fn has(&self, path: &str) -> bool {
        self.0.contains_key(path)
    }

    fn note(&mut self, path: &str, node: Node) {
        match node.0 {
            Kind::Leaf => {}
            Kind::List(items) => {
                for (index, item) in items.into_iter().enumerate() {
                    self.note_at(join(path, &index.to_string()), item.referenced, item.value);
                }
            }
            Kind::Fields(fields) => {
                for (name, node) in fields {
                    self.note_at(join(path, &name.value), name.referenced, node);
                }
            }
        }
    }

    fn note_at(&mut self, path: String, location: Location, node: Node) {
        self.note(&path, node);
        self.0.insert(path, (location.line(), location.column()));
    }
}

/// A value of which the places alone are kept.
struct Node(Kind);

enum Kind {
    Leaf,
    List(Vec<Spanned<Node>>),
    Fields(Vec<(Spanned<String>, Node)>),
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reading).map(Self)
    }
}

struct Reading;

impl<'de> Visitor<'de> for Reading {
    type Value = Kind;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Kind, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Kind::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Kind, A::Error> {
        let mut list = Vec::new();
        while let Some(field) = fields.next_entry()? {
            list.push(field);
        }
        Ok(Kind::Fields(list))
    }

    fn visit_bool<E: de::Error>(self, _: bool) -> Result<Kind, E> {
        Ok(Kind::Leaf)
    }

    fn visit_i64<E: de::Error>(self, _: i64) -> Result<Kind, E> {
        Ok(Kind::Leaf)
    }

    fn visit_u64<E: de::Error>(self, _: u64) -> Result<Kind, E> {
        Ok(Kind::Leaf)
    }

    fn visit_i128<E: de::Error>(self, _: i128) -> Result<Kind, E> {
        Ok(Kind::Leaf)
    }

    fn visit_u128<E: de::Error>(self, _: u128) -> Result<Kind, E> {
        Ok(Kind::Leaf)
    }

    fn visit_f64<E: de::Error>(self, _: f64) -> Result<Kind, E> {
        Ok(Kind::Leaf)
    }

    fn visit_str<E: de::Error>(self, _: &str) -> Result<Kind, E> {
        Ok(Kind::Leaf)
    }

    fn visit_bytes<E: de::Error>(self, _: &[u8]) -> Result<Kind, E> {
        Ok(Kind::Leaf)
    }

    fn visit_unit<E: de::Error>(self) -> Result<Kind, E> {
        Ok(Kind::Leaf)
    }

    fn visit_none<E: de::Error>(self) -> Result<Kind, E> {
        Ok(Kind::Leaf)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Kind, D::Error> {
        Node::deserialize(deserializer).map(|node| node.0)
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<Kind, D::Error> {
        IgnoredAny::deserialize(deserializer).map(|_| Kind::Leaf)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_field_and_item_has_its_place() {
        let places = Places::of(
            "name: a\nconfig:\n  inputs:\n    - type: x\n      foo: 1\n    - {a: [7, 8.5, null, ~, 'é', yes], b: {c: !!str 4}}\n",
        );
        let expected = [
            ("name", (1, 1)),
            ("config", (2, 1)),
            ("config.inputs", (3, 3)),
            ("config.inputs.0", (4, 7)),
            ("config.inputs.0.foo", (5, 7)),
            ("config.inputs.1", (6, 7)),
            ("config.inputs.1.a", (6, 8)),
            ("config.inputs.1.a.1", (6, 15)),
            ("config.inputs.1.b.c", (6, 44)),
        ];
        for (path, place) in expected {
            assert_eq!(places.find(path), Some(place), "{path}");
        }
    }

    #[test]
    fn what_is_not_there_is_told_by_what_is_around_it() {
        let places = Places::of("name: a\nconfig:\n  inputs:\n    - foo: 1\n");
        assert_eq!(places.find("config.inputs.0.type"), Some((4, 7)));
        assert_eq!(places.find("config.outputs.default.hosts"), Some((2, 1)));
        assert_eq!(places.find("namespace"), None);
        assert_eq!(Places::of("a: [").find("a"), None);
    }
}
