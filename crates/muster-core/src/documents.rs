//! The documents that an agent reports with each check-in: their fingerprints, and the few facts read from them.

use std::hash::{BuildHasher as _, DefaultHasher, Hasher as _, RandomState};
use std::io;
use std::sync::LazyLock;

use muster_protocol::elastic::check_in::{Component, Unit};
use serde::Deserialize;
use serde_json::Value;

use crate::check_in::Digest;

/// Where unhealthy components are, in the words of `unhealthy_reason`.
const OTHER: &str = "other";

/// The fingerprint of `local_metadata`, the order of keys and white space aside; `None` for what is no JSON.
pub fn metadata_digest(raw: &str) -> Option<Digest> {
    let value: Value = serde_json::from_str(raw).ok()?;
    let mut hasher = Hasher::new();
    serde_json::to_writer(&mut hasher, &value).ok()?;
    Some(hasher.finish())
}

/// The fingerprint of a document's very bytes: cheap, and enough to see that nothing changed.
pub fn text_digest(raw: &str) -> Digest {
    bytes_digest(&[raw.as_bytes()])
}

/// The fingerprint of a few byte strings in a row.
pub fn bytes_digest(fields: &[&[u8]]) -> Digest {
    let mut hasher = Hasher::new();
    fields.iter().for_each(|field| hasher.field(field));
    hasher.finish()
}

/// Length of the object at the beginning of `rest` if its text has this [`text_digest`]: then it was read before.
pub fn known_text(rest: &[u8], digest: &Digest) -> Option<usize> {
    let (_, length) = digest.split_last_chunk::<8>()?;
    let length = usize::try_from(u64::from_le_bytes(*length)).ok()?;
    let text = rest.get(..length).and_then(|text| std::str::from_utf8(text).ok())?;
    (text.starts_with('{') && text_digest(text) == *digest).then_some(length)
}

/// The fingerprint of components: ids, types, statuses and messages, and the units as a set; payloads and order
/// aside (EA58, EA §15).
pub fn components_digest(components: &[Component<'_>]) -> Digest {
    let mut parts: Vec<Digest> = components.iter().map(component_digest).collect();
    parts.sort_unstable();
    let mut hasher = Hasher::new();
    parts.iter().for_each(|part| hasher.field(part));
    hasher.finish()
}

/// Reads `components`: an array of them, or `null` for none sent.
pub fn read_components(raw: &str) -> Result<Option<Vec<Component<'_>>>, serde_json::Error> {
    serde_json::from_str(raw)
}

fn component_digest(component: &Component<'_>) -> Digest {
    let mut hasher = Hasher::new();
    for field in [&component.id, &component.kind, &component.status, &component.message] {
        hasher.field(field.as_bytes());
    }
    let mut units: Vec<&Unit<'_>> = component.units.iter().flatten().collect();
    units.sort_unstable();
    units.dedup();
    for unit in units {
        for field in [&unit.id, &unit.kind, &unit.status, &unit.message] {
            hasher.field(field.as_bytes());
        }
    }
    hasher.finish()
}

/// The keyed hash of the standard library, and the number of bytes. The key is this process's own: fingerprints are kept
/// in memory only, and an agent that does not know the key can't even fool itself.
struct Hasher {
    hasher: DefaultHasher,
    bytes: u64,
}

static KEY: LazyLock<RandomState> = LazyLock::new(RandomState::new);

impl Hasher {
    fn new() -> Self {
        Self { hasher: KEY.build_hasher(), bytes: 0 }
    }

    fn update(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
        self.hasher.write(bytes);
    }

    /// A field with its length before it, so that two fields never read like two others.
    fn field(&mut self, bytes: &[u8]) {
        self.hasher.write_usize(bytes.len());
        self.update(bytes);
    }

    fn finish(self) -> Digest {
        let mut digest = Digest::default();
        digest[..8].copy_from_slice(&self.hasher.finish().to_le_bytes());
        digest[8..].copy_from_slice(&self.bytes.to_le_bytes());
        digest
    }
}

impl io::Write for Hasher {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Where the unhealthy components are: `input`, `output` or `other`; empty when all are healthy (EA59, D5).
pub fn unhealthy_reason(components: &[Component<'_>]) -> Vec<String> {
    let unhealthy: Vec<_> = components.iter().filter(|component| is_unhealthy(&component.status)).collect();
    let has = |kind: &str| {
        let mut units = unhealthy.iter().flat_map(|component| component.units.iter().flatten());
        units.any(|unit| unit.kind == kind && is_unhealthy(&unit.status))
    };
    let found: Vec<String> = ["input", "output"].into_iter().filter(|kind| has(kind)).map(str::to_owned).collect();
    if found.is_empty() && !unhealthy.is_empty() { vec![OTHER.to_owned()] } else { found }
}

/// The reason for an agent that says itself that it is unwell, when its components don't say why.
pub fn other_reason() -> Vec<String> {
    vec![OTHER.to_owned()]
}

fn is_unhealthy(status: &str) -> bool {
    matches!(status, "FAILED" | "DEGRADED")
}

/// The host name in `local_metadata`: `host.hostname`, else `host.name`.
pub fn hostname(raw: &str) -> Option<String> {
    let facts: HostFacts = serde_json::from_str(raw).ok()?;
    [facts.host.hostname, facts.host.name].into_iter().flatten().find_map(|name| name.as_str().map(bounded_name))
}

/// No DNS name is longer than 253 characters.
fn bounded_name(name: &str) -> String {
    name.chars().take(253).collect()
}

#[derive(Default, Deserialize)]
struct HostFacts {
    #[serde(default)]
    host: Host,
}

#[derive(Default, Deserialize)]
struct Host {
    #[serde(default)]
    hostname: Option<Value>,
    #[serde(default)]
    name: Option<Value>,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TWO: &str = r#"[
        {"id":"a","type":"log","status":"HEALTHY","message":"m","units":[
            {"id":"u1","type":"input","status":"HEALTHY","message":""},
            {"id":"u2","type":"output","status":"HEALTHY","message":"","payload":{"n":1}}]},
        {"id":"b","type":"otel","status":"HEALTHY","message":"m"}]"#;
    const TWO_TURNED: &str = r#"[
        {"id":"b","type":"otel","status":"HEALTHY","message":"m","units":[]},
        {"message":"m","id":"a","type":"log","status":"HEALTHY","units":[
            {"id":"u2","type":"output","status":"HEALTHY","message":"","payload":{"n":2}},
            {"id":"u1","type":"input","status":"HEALTHY","message":""}]}]"#;

    fn digest(raw: &str) -> Digest {
        components_digest(&read_components(raw).unwrap().unwrap())
    }

    #[test]
    fn ea58_order_of_units_and_payloads_are_no_change() {
        assert_eq!(digest(TWO), digest(TWO_TURNED));
        assert_ne!(
            digest(TWO),
            digest(
                &TWO.replace(r#""u1","type":"input","status":"HEALTHY""#, r#""u1","type":"input","status":"FAILED""#)
            )
        );
        assert_ne!(digest(TWO), digest(&TWO.replace(r#""message":"m""#, r#""message":"n""#)));
    }

    #[test]
    fn ea58_the_order_of_keys_is_no_change_of_metadata() {
        let one = metadata_digest(r#"{"a":1,"b":{"c":[1,2],"d":null}}"#);
        assert_eq!(one, metadata_digest(r#" {"b":{"d":null,"c":[1,2]}, "a":1}"#));
        assert_ne!(one, metadata_digest(r#"{"a":1,"b":{"c":[2,1],"d":null}}"#));
        assert_eq!(metadata_digest("{"), None);
    }

    #[test]
    fn ea59_reasons_come_from_unhealthy_units_of_unhealthy_components() {
        let reason = |raw| unhealthy_reason(&read_components(raw).unwrap().unwrap());
        let both = r#"[{"status":"DEGRADED","units":[{"type":"output","status":"FAILED"},{"type":"input","status":"DEGRADED"}]}]"#;
        assert_eq!(reason(both), ["input", "output"]);
        assert_eq!(reason(r#"[{"status":"FAILED","units":[{"type":"input","status":"HEALTHY"}]}]"#), ["other"]);
        assert_eq!(reason(r#"[{"status":"HEALTHY","units":[{"type":"input","status":"FAILED"}]}]"#), [""; 0]);
    }

    #[test]
    fn ea52_null_components_are_none_and_other_shapes_an_error() {
        assert!(read_components("null").unwrap().is_none());
        assert!(read_components("{}").is_err());
        assert!(read_components(r#"["a"]"#).is_err());
    }

    #[test]
    fn host_names_are_read_where_there_are_any() {
        assert_eq!(hostname(r#"{"host":{"hostname":"web-1","name":"x"}}"#).as_deref(), Some("web-1"));
        assert_eq!(hostname(r#"{"host":{"name":"x"}}"#).as_deref(), Some("x"));
        assert_eq!(hostname(r#"{"host":{"hostname":5}}"#), None);
        assert_eq!(hostname("null"), None);
    }

    proptest! {
        #[test]
        fn ea58_units_are_compared_as_sets(ids in proptest::collection::vec("[a-c]{1,2}", 0..6), turn in 0_usize..6) {
            let component = |ids: &[String]| Component {
                units: Some(ids.iter().map(|id| Unit { id: id.clone().into(), ..Unit::default() }).collect()),
                ..Component::default()
            };
            let mut turned = ids.clone();
            turned.rotate_left(turn.min(ids.len()));
            prop_assert_eq!(components_digest(&[component(&ids)]), components_digest(&[component(&turned)]));
        }
    }
}
