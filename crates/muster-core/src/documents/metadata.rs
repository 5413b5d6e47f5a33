//! `local_metadata`: facts that an agent reports about its host and itself.

use std::borrow::Cow;
use std::fmt;

use serde::de::{self, DeserializeSeed, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::{Digest, Hasher, text_digest};
use crate::{canonical, raw_json};

/// Returns the fingerprint of `local_metadata`, independent of whitespace and of the order of keys. Malformed JSON gets
/// the fingerprint of its text.
pub fn digest(raw: &str) -> Digest {
    let mut deserializer = serde_json::Deserializer::from_str(raw);
    let digest = Fingerprint.deserialize(&mut deserializer);
    digest.and_then(|digest| deserializer.end().map(|()| digest)).unwrap_or_else(|_| text_digest(raw))
}

/// Returns the host name: `host.hostname`, otherwise `host.name`.
pub fn hostname(raw: &str) -> Option<String> {
    let host = raw_json::at(raw, &["host"])?;
    let names = raw_json::members(host, ["hostname", "name"]);
    names.into_iter().flatten().find_map(raw_json::as_text).map(|name| bounded_name(&name))
}

/// Returns the facts about the operating system by which agents are found: platform, family, name and version of `os`, and
/// `host.architecture`, one in each line; empty if there are none.
pub fn os(raw: &str) -> String {
    let os = raw_json::at(raw, &["os"]).map(|os| raw_json::members(os, ["platform", "family", "name", "version"]));
    let architecture = raw_json::at(raw, &["host", "architecture"]);
    let facts = os.unwrap_or_default().into_iter().chain([architecture]);
    let fact = |fact: Option<&str>| {
        let text = fact.and_then(raw_json::as_text).unwrap_or_default();
        text.chars().filter(|character| !character.is_control()).take(MAX_FACT).collect::<String>()
    };
    let facts: Vec<String> = facts.map(fact).collect();
    if facts.iter().all(String::is_empty) { String::new() } else { facts.join("\n") }
}

/// Returns the identifiers of the hardware by which agents are found, in lower case: `host.id`, which is the hardware UUID or the machine id
/// of the operating system, and `hardware.serial`, one in each line; empty if there are none.
pub fn hardware(raw: &str) -> Box<str> {
    let identifier = |path: &[&str]| {
        let text = raw_json::text(raw, path).unwrap_or_default();
        let fits = text.trim().chars().filter(|character| !character.is_control()).take(MAX_IDENTIFIER);
        fits.map(|character| character.to_ascii_lowercase()).collect::<String>()
    };
    let (uuid, serial) = (identifier(&["host", "id"]), identifier(&["hardware", "serial"]));
    if uuid.is_empty() && serial.is_empty() { Box::default() } else { format!("{uuid}\n{serial}").into() }
}

/// Returns the id of the host, `host.id`; `None` if it is empty.
pub fn host_id(raw: &str) -> Option<Cow<'_, str>> {
    let id = raw_json::at(raw, &["host", "id"]).and_then(raw_json::as_text)?;
    Some(id).filter(|id| !id.is_empty())
}

/// Returns whether the agent is a snapshot: `elastic.agent.snapshot`, or the suffix of its version; `None` if it does not
/// say.
pub fn is_snapshot(raw: &str) -> Option<bool> {
    let version = raw_json::at(raw, &["elastic", "agent", "version"]).and_then(raw_json::as_text);
    if version.is_some_and(|version| canonical::is_snapshot(&version)) {
        return Some(true);
    }
    serde_json::from_str(raw_json::at(raw, &["elastic", "agent", "snapshot"])?).ok()
}

/// Replaces `elastic.agent.id` by `id`, if this key exists (EA38).
pub fn with_agent_id<'a>(raw: &'a str, id: &str) -> Cow<'a, str> {
    let Some(slot) = raw_json::at(raw, &["elastic", "agent", "id"]) else { return raw.into() };
    // `slot` is a slice of `raw`; its offset shows where to splice. Everything else stays as sent.
    let Some(start) = slot.as_ptr().addr().checked_sub(raw.as_ptr().addr()) else { return raw.into() };
    let (Some(before), Some(after)) = (raw.get(..start), raw.get(start + slot.len()..)) else { return raw.into() };
    let id = serde_json::to_string(id).unwrap_or_default();
    [before, &id, after].concat().into()
}

/// Maximum characters of a fact.
const MAX_FACT: usize = 64;
/// Maximum characters of an identifier of the hardware.
const MAX_IDENTIFIER: usize = 128;

/// Truncates a host name to 253 characters, the maximum of DNS.
fn bounded_name(name: &str) -> String {
    name.chars().take(253).collect()
}

/// Visitor that hashes a value while it is parsed. The hashes of an object's members are added, so that their order
/// does not matter and none has to be kept.
#[derive(Clone, Copy)]
struct Fingerprint;

impl<'de> DeserializeSeed<'de> for Fingerprint {
    type Value = Digest;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Digest, D::Error> {
        deserializer.deserialize_any(self)
    }
}

fn of(kind: &[u8], value: &[u8]) -> Digest {
    let mut hasher = Hasher::new();
    // The kind is part of the hash, so that `1`, `1.0` and `"1"` differ.
    hasher.field(kind);
    hasher.field(value);
    hasher.finish()
}

impl<'de> Visitor<'de> for Fingerprint {
    type Value = Digest;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Digest, E> {
        Ok(of(b"null", b""))
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Digest, E> {
        Ok(of(b"bool", &[u8::from(value)]))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Digest, E> {
        Ok(of(b"unsigned", &value.to_le_bytes()))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Digest, E> {
        Ok(of(b"signed", &value.to_le_bytes()))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Digest, E> {
        Ok(of(b"float", &value.to_le_bytes()))
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Digest, E> {
        Ok(of(b"string", value.as_bytes()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Digest, A::Error> {
        let mut hasher = Hasher::new();
        // Unlike that of members, the order of elements is significant.
        hasher.field(b"array");
        while let Some(element) = seq.next_element_seed(self)? {
            hasher.field(&element);
        }
        Ok(hasher.finish())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Digest, A::Error> {
        #[derive(Deserialize)]
        #[serde(transparent)]
        struct Key<'a>(#[serde(borrow)] Cow<'a, str>);
        let mut sum = 0_u128;
        while let Some(Key(key)) = map.next_key()? {
            let value = map.next_value_seed(self)?;
            // Addition, not XOR: two equal members would cancel each other out.
            sum = sum.wrapping_add(u128::from_le_bytes(of(key.as_bytes(), &value)));
        }
        Ok(of(b"object", &sum.to_le_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    #[test]
    fn ea58_the_order_of_keys_does_not_change_the_fingerprint() {
        let one = digest(r#"{"a":1,"b":{"c":[1,2],"d":null}}"#);
        assert_eq!(one, digest(r#" {"b":{"d":null,"c":[1,2]}, "a":1}"#));
        for other in [
            r#"{"a":1,"b":{"c":[2,1],"d":null}}"#,
            r#"{"a":1,"b":{"c":[1,2],"d":false}}"#,
            r#"{"a":1,"b":{"c":[1,2]},"d":null}"#,
            r#"{"a":"1","b":{"c":[1,2],"d":null}}"#,
            r#"{"b":1,"a":{"c":[1,2],"d":null}}"#,
            "{",
            "",
        ] {
            assert_ne!(one, digest(other), "{other}");
        }
    }

    #[test]
    fn host_names_are_extracted_and_bounded() {
        assert_eq!(hostname(r#"{"host":{"hostname":"web-1","name":"x"}}"#).as_deref(), Some("web-1"));
        assert_eq!(hostname(r#"{"host":{"name":"x"}}"#).as_deref(), Some("x"));
        assert_eq!(hostname(r#"{"host":{"hostname":5}}"#), None);
        assert_eq!(hostname("null"), None);
        let long = format!(r#"{{"host":{{"name":"{}"}}}}"#, "ä".repeat(1000));
        assert_eq!(hostname(&long).unwrap().chars().count(), 253);
    }

    #[test]
    fn fl12_identifiers_of_the_hardware_are_bounded_and_in_lower_case() {
        assert_eq!(&*hardware(r#"{"host":{"id":" 4C4C "},"hardware":{"serial":"5JX\n82"}}"#), "4c4c\n5jx82");
        assert_eq!(&*hardware(r#"{"hardware":{"serial":"s"}}"#), "\ns");
        assert_eq!(hardware(&format!(r#"{{"host":{{"id":"{}"}}}}"#, "x".repeat(500))).len(), MAX_IDENTIFIER + 1);
        for none in ["null", "{}", r#"{"host":{"id":""},"hardware":{"serial":" "}}"#, r#"{"host":{"id":5}}"#] {
            assert_eq!(&*hardware(none), "", "{none}");
        }
    }

    #[test]
    fn ea38_the_assigned_id_replaces_the_one_in_the_metadata() {
        let raw = r#"{ "elastic":{"agent":{"version":"9.5.2", "id": "old" }},"id":"x"}"#;
        let expected = r#"{ "elastic":{"agent":{"version":"9.5.2", "id": "ne\"w" }},"id":"x"}"#;
        assert_eq!(with_agent_id(raw, "ne\"w"), expected);
        for without in ["null", "{}", r#"{"elastic":{"agent":{}}}"#, r#"{"elastic":"x"}"#] {
            assert_eq!(with_agent_id(without, "a"), without);
        }
    }

    proptest! {
        #[test]
        fn equal_values_have_equal_fingerprints(text in r#"\{("a":[1-9][0-9]{0,2},)?"b":(null|true|"x"|\[1,\{\}\]|\{"c":1e2\})\}"#) {
            let value: Value = serde_json::from_str(&text).unwrap();
            prop_assert_eq!(digest(&text), digest(&serde_json::to_string_pretty(&value).unwrap()));
        }

        #[test]
        fn any_text_is_handled_without_a_panic(text in any::<String>()) {
            let _ = (digest(&text), hostname(&text), with_agent_id(&text, "a"));
        }
    }
}
