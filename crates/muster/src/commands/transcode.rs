//! Converts JSON text to another format without decoding it into a tree. Documents that agents reported are JSON text.

use std::cell::RefCell;
use std::fmt;

use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::ser::{Error as _, Serialize, SerializeMap as _, SerializeSeq as _, Serializer};

/// JSON text that serializes as the value that it represents.
pub struct Text<'t>(pub &'t str);

impl Serialize for Text<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut source = serde_json::Deserializer::from_str(self.0);
        Through(serializer).deserialize(&mut source).map_err(S::Error::custom)
    }
}

/// Passes the value that it deserializes to a serializer.
struct Through<S>(S);

impl<'de, S: Serializer> DeserializeSeed<'de> for Through<S> {
    type Value = S::Ok;

    fn deserialize<D: Deserializer<'de>>(self, source: D) -> Result<S::Ok, D::Error> {
        source.deserialize_any(self)
    }
}

impl<'de, S: Serializer> Visitor<'de> for Through<S> {
    type Value = S::Ok;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_unit<E: de::Error>(self) -> Result<S::Ok, E> {
        self.0.serialize_unit().map_err(E::custom)
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<S::Ok, E> {
        self.0.serialize_bool(value).map_err(E::custom)
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<S::Ok, E> {
        self.0.serialize_i64(value).map_err(E::custom)
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<S::Ok, E> {
        self.0.serialize_u64(value).map_err(E::custom)
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<S::Ok, E> {
        self.0.serialize_f64(value).map_err(E::custom)
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<S::Ok, E> {
        self.0.serialize_str(value).map_err(E::custom)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<S::Ok, A::Error> {
        // The number of items is unknown until all are read.
        let mut sink = self.0.serialize_seq(None).map_err(de::Error::custom)?;
        while items.next_element_seed(Element(&mut sink))?.is_some() {}
        sink.end().map_err(de::Error::custom)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<S::Ok, A::Error> {
        // The number of members is unknown until all are read, which JSON and YAML do not need.
        let mut sink = self.0.serialize_map(None).map_err(de::Error::custom)?;
        while let Some(key) = members.next_key::<String>()? {
            sink.serialize_key(&key).map_err(de::Error::custom)?;
            members.next_value_seed(Member(&mut sink))?;
        }
        sink.end().map_err(de::Error::custom)
    }
}

struct Element<'s, S>(&'s mut S);

impl<'de, S: serde::ser::SerializeSeq> DeserializeSeed<'de> for Element<'_, S> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, source: D) -> Result<(), D::Error> {
        self.0.serialize_element(&Once::new(source)).map_err(de::Error::custom)
    }
}

struct Member<'s, S>(&'s mut S);

impl<'de, S: serde::ser::SerializeMap> DeserializeSeed<'de> for Member<'_, S> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, source: D) -> Result<(), D::Error> {
        self.0.serialize_value(&Once::new(source)).map_err(de::Error::custom)
    }
}

/// A value that can be serialized once, because reading it consumes its source, while serializers only borrow values.
struct Once<D>(RefCell<Option<D>>);

impl<D> Once<D> {
    fn new(source: D) -> Self {
        // `Serialize` takes a shared reference, but a deserializer can be used only once.
        Self(RefCell::new(Some(source)))
    }
}

impl<'de, D: Deserializer<'de>> Serialize for Once<D> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let source = self.0.borrow_mut().take().ok_or_else(|| S::Error::custom("a value was serialized twice"))?;
        Through(serializer).deserialize(source).map_err(S::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = " {\"b\":\t1,\r\n\"a\":[true,null,-2,1.5,\"x\\u0041\",{}] , \"c\":{\"d\":[]}} ";

    #[test]
    fn reformatted_json_keeps_its_order() {
        assert_eq!(
            serde_json::to_string(&Text(TEXT)).unwrap(),
            r#"{"b":1,"a":[true,null,-2,1.5,"xA",{}],"c":{"d":[]}}"#
        );
        let yaml = serde_saphyr::to_string(&Text(r#"{"b":"x","a":[1,{"c":null}]}"#)).unwrap();
        assert_eq!(yaml, "b: x\na:\n- 1\n- c: null\n");
        assert!(serde_json::to_string(&Text("{")).is_err());
    }
}
