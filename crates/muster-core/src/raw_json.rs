//! Looks a few values up in JSON text without decoding the rest: what agents report is kept as text, and a tree of it
//! may be a hundred times as large.

use std::borrow::Cow;
use std::fmt;

use serde::Deserializer as _;
use serde::de::{self, DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// The texts of the members called `keys`; `None` for members that are missing, and for all when `raw` is no object.
pub fn members<'a, const N: usize>(raw: &'a str, keys: [&str; N]) -> [Option<&'a str>; N] {
    struct Members<'k, const N: usize>([&'k str; N]);
    impl<'de, const N: usize> Visitor<'de> for Members<'_, N> {
        type Value = [Option<&'de str>; N];

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut found = [None; N];
            while let Some(place) = map.next_key_seed(Place(&self.0))? {
                match place {
                    Some(place) => found[place] = Some(map.next_value::<&RawValue>()?.get()),
                    None => drop(map.next_value::<IgnoredAny>()?),
                }
            }
            Ok(found)
        }
    }
    serde_json::Deserializer::from_str(raw).deserialize_map(Members(keys)).unwrap_or([None; N])
}

/// Which of the wanted keys a key is.
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

/// The text of the value at `path`.
pub fn at<'a>(raw: &'a str, path: &[&str]) -> Option<&'a str> {
    path.iter().try_fold(raw, |raw, key| members(raw, [key])[0])
}

/// The string at `path`.
pub fn text<'a>(raw: &'a str, path: &[&str]) -> Option<Cow<'a, str>> {
    as_text(at(raw, path)?)
}

/// The boolean at `path`.
pub fn flag(raw: &str, path: &[&str]) -> Option<bool> {
    serde_json::from_str(at(raw, path)?).ok()
}

/// The string that `raw` is, if it is one.
pub fn as_text(raw: &str) -> Option<Cow<'_, str>> {
    #[derive(serde::Deserialize)]
    #[serde(transparent)]
    struct Text<'a>(#[serde(borrow)] Cow<'a, str>);
    // A look at the first byte spares an error that would quote the value.
    raw.starts_with('"').then(|| serde_json::from_str::<Text<'_>>(raw).ok()).flatten().map(|text| text.0)
}

/// Calls `each` with the text of every element, as long as it returns true. Nothing happens when `raw` is no array.
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
    let _ = serde_json::Deserializer::from_str(raw).deserialize_seq(Elements(each));
}

#[cfg(test)]
mod tests {
    use super::*;

    const RAW: &str = r#" {"a": {"b": "x\u0041", "c": [1, "two", {"d": 3}], "e": true}, "a2": 5} "#;

    #[test]
    fn values_are_found_by_their_path() {
        assert_eq!(at(RAW, &["a", "c"]), Some(r#"[1, "two", {"d": 3}]"#));
        assert_eq!(text(RAW, &["a", "b"]).as_deref(), Some("xA"));
        assert_eq!(flag(RAW, &["a", "e"]), Some(true));
        assert_eq!(members(RAW, ["a2", "a3"]), [Some("5"), None]);
        assert_eq!(at(RAW, &[]), Some(RAW));
    }

    #[test]
    fn what_is_of_another_kind_is_not_there() {
        assert_eq!(at(RAW, &["a2", "b"]), None);
        assert_eq!(text(RAW, &["a2"]), None);
        assert_eq!(flag(RAW, &["a", "b"]), None);
        for raw in ["", "null", "[1]", "{", r#"{"a""#] {
            assert_eq!(at(raw, &["a"]), None, "{raw}");
        }
    }

    #[test]
    fn elements_are_visited_until_enough_were_seen() {
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
