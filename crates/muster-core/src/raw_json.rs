//! Reads single values from JSON text without decoding the rest. Documents from agents are kept as text, because a tree
//! of their values can take a hundred times as much memory.

use std::borrow::Cow;
use std::fmt;

use serde::Deserializer as _;
use serde::de::{self, DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// Returns the JSON text of the members `keys`; `None` for missing members, and for all of them if `raw` is not an
/// object. Of duplicate keys, the last one counts.
pub fn members<'a, const N: usize>(raw: &'a str, keys: [&str; N]) -> [Option<&'a str>; N] {
    struct Members<'k, const N: usize>([&'k str; N]);
    impl<'de, const N: usize> Visitor<'de> for Members<'_, N> {
        type Value = [Option<&'de str>; N];

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut found = [None; N];
            // Keys are compared as they are read, so that unknown keys, which the agent chooses, are never allocated.
            while let Some(place) = map.next_key_seed(Place(&self.0))? {
                match place {
                    Some(place) => found[place] = Some(map.next_value::<&RawValue>()?.get()),
                    None => drop(map.next_value::<IgnoredAny>()?),
                }
            }
            Ok(found)
        }
    }
    // Malformed JSON is treated like a value that is not an object: it has no members.
    serde_json::Deserializer::from_str(raw).deserialize_map(Members(keys)).unwrap_or([None; N])
}

/// Calls `each` with the name and the JSON text of every member. Does nothing if `raw` is not an object.
pub fn each_member<'a>(raw: &'a str, each: impl FnMut(&str, &'a str)) {
    struct Each<F>(F);
    impl<'de, F: FnMut(&str, &'de str)> Visitor<'de> for Each<F> {
        type Value = ();

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
            while let Some((name, value)) = map.next_entry::<Name<'de>, &RawValue>()? {
                (self.0)(&name.0, value.get());
            }
            Ok(())
        }
    }
    #[derive(serde::Deserialize)]
    #[serde(transparent)]
    struct Name<'a>(#[serde(borrow)] Cow<'a, str>);
    // Malformed JSON has no members after the point where it is malformed.
    let _ = serde_json::Deserializer::from_str(raw).deserialize_map(Each(each));
}

/// Seed that maps a key to its index in the list of wanted keys.
struct Place<'k>(&'k [&'k str]);

impl<'de> DeserializeSeed<'de> for Place<'_> {
    type Value = Option<usize>;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Place<'_> {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: de::Error>(self, key: &str) -> Result<Self::Value, E> {
        Ok(self.0.iter().position(|wanted| *wanted == key))
    }
}

/// Returns the JSON text of the value at `path`.
pub fn at<'a>(raw: &'a str, path: &[&str]) -> Option<&'a str> {
    path.iter().try_fold(raw, |raw, key| members(raw, [key])[0])
}

/// Returns the string at `path`; `None` if there is no string.
pub fn text<'a>(raw: &'a str, path: &[&str]) -> Option<Cow<'a, str>> {
    as_text(at(raw, path)?)
}

/// Returns the boolean at `path`; `None` if there is no boolean.
pub fn flag(raw: &str, path: &[&str]) -> Option<bool> {
    serde_json::from_str(at(raw, path)?).ok()
}

/// Decodes `raw` if it is a JSON string.
pub fn as_text(raw: &str) -> Option<Cow<'_, str>> {
    #[derive(serde::Deserialize)]
    #[serde(transparent)]
    struct Text<'a>(#[serde(borrow)] Cow<'a, str>);
    // The first byte is checked before decoding, because serde_json's type error would format the whole value.
    raw.starts_with('"').then(|| serde_json::from_str::<Text<'_>>(raw).ok()).flatten().map(|text| text.0)
}

/// Calls `each` with the JSON text of every element until it returns false. Does nothing if `raw` is not an array.
pub fn each_element<'a>(raw: &'a str, each: impl FnMut(&'a str) -> bool) {
    struct Elements<F>(F);
    impl<'de, F: FnMut(&'de str) -> bool> Visitor<'de> for Elements<F> {
        type Value = ();

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an array")
        }

        fn visit_seq<A: SeqAccess<'de>>(mut self, mut seq: A) -> Result<(), A::Error> {
            while let Some(element) = seq.next_element::<&RawValue>()? {
                if !(self.0)(element.get()) {
                    break;
                }
            }
            Ok(())
        }
    }
    // An early stop leaves elements unread, which serde_json reports as an error; so does anything that is not an
    // array.
    let _ = serde_json::Deserializer::from_str(raw).deserialize_seq(Elements(each));
}

#[cfg(test)]
mod tests {
    use super::*;

    const RAW: &str = r#" {"a": {"b": "x\u0041", "c": [1, "two", {"d": 3}], "e": true}, "a2": 5} "#;

    #[test]
    fn values_are_found_by_path() {
        assert_eq!(at(RAW, &["a", "c"]), Some(r#"[1, "two", {"d": 3}]"#));
        assert_eq!(text(RAW, &["a", "b"]).as_deref(), Some("xA"));
        assert_eq!(flag(RAW, &["a", "e"]), Some(true));
        assert_eq!(members(RAW, ["a2", "a3"]), [Some("5"), None]);
        assert_eq!(at(RAW, &[]), Some(RAW));
    }

    #[test]
    fn values_of_another_type_are_not_found() {
        assert_eq!(at(RAW, &["a2", "b"]), None);
        assert_eq!(text(RAW, &["a2"]), None);
        assert_eq!(flag(RAW, &["a", "b"]), None);
        for raw in ["", "null", "[1]", "{", r#"{"a""#] {
            assert_eq!(at(raw, &["a"]), None, "{raw}");
        }
    }

    #[test]
    fn members_are_visited_with_their_names() {
        let mut seen = Vec::new();
        each_member(r#"{"a":1,"b\u0063":{"d":[]}}"#, |name, value| seen.push((name.to_owned(), value)));
        assert_eq!(seen, [("a".to_owned(), "1"), ("bc".to_owned(), r#"{"d":[]}"#)]);
        each_member("[1]", |_, _| panic!("no members"));
    }

    #[test]
    fn elements_are_visited_until_the_callback_stops() {
        let seen = |most: usize| {
            let mut seen = Vec::new();
            each_element(at(RAW, &["a", "c"]).unwrap(), |element| {
                seen.push(element);
                seen.len() < most
            });
            seen
        };
        assert_eq!(seen(9), ["1", r#""two""#, r#"{"d": 3}"#]);
        assert_eq!(seen(2).len(), 2);
    }
}
