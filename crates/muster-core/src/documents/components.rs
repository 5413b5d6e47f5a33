//! `components`: the supervised programs of an agent, and their units.

use std::borrow::Cow;
use std::fmt::{self, Write as _};

use serde::de::{self, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::{Digest, Hasher};
use crate::reported::{self, Extent, NAME_BYTES, PAYLOAD_BYTES, PAYLOAD_NODES, STATUS_BYTES, shortened};

/// Unhealthy reason of an agent that reports an unhealthy status although all its components are healthy.
pub const OTHER_REASON: &[&str] = &[OTHER];
const OTHER: &str = "other";

/// Summary of an agent's components.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Components {
    /// Fingerprint of ids, types, statuses and messages, and of the units as a set. Payloads and order are ignored
    /// (EA58, EA §15).
    pub digest: Digest,
    /// Where the unhealthy ones are: `input`, `output` or `other`; empty if all are healthy (EA59, D5).
    pub unhealthy: Vec<&'static str>,
    /// Whether a message or a payload exceeds its limit.
    oversized: bool,
}

/// Parses `components`: an array, or `null`, which means not sent. Only one component is in memory at a time.
pub fn read(raw: &str) -> Result<Option<Components>, serde_json::Error> {
    // serde_json's type error would format the whole value.
    if !raw.starts_with(['[', 'n']) {
        return Err(de::Error::custom("expected an array"));
    }
    let mut deserializer = serde_json::Deserializer::from_str(raw);
    let components = deserializer.deserialize_option(List)?;
    deserializer.end().map(|()| components)
}

impl Components {
    /// Returns the text to store for `raw`, from which this summary was parsed: oversized messages are truncated and
    /// oversized payloads dropped. The error says why even the rest exceeds the limits.
    pub fn kept<'a>(&self, raw: &'a str) -> Result<Cow<'a, str>, String> {
        // Nearly all reports are within the limits, and are stored as they are.
        let kept = if self.oversized { within_bounds(raw) } else { raw.into() };
        reported::check(&kept, reported::COMPONENTS_BYTES, reported::COMPONENTS_NODES)?;
        Ok(kept)
    }
}

/// Returns the message of the first unhealthy output unit.
pub fn failing_output(raw: &str) -> Option<String> {
    let mut found = None;
    crate::raw_json::each_element(raw, |component| {
        let units = crate::raw_json::at(component, &["units"]).unwrap_or_default();
        crate::raw_json::each_element(units, |unit| {
            let unit = serde_json::from_str::<Unit<'_>>(unit).unwrap_or_default();
            if unit.kind == "output" && is_unhealthy(&unit.status) {
                found = Some(unit.message.into_owned());
            }
            found.is_none()
        });
        found.is_none()
    });
    found
}

fn is_unhealthy(status: &str) -> bool {
    matches!(status, "FAILED" | "DEGRADED")
}

#[derive(Default, Deserialize)]
struct Component<'a> {
    // All fields are optional. Unknown ones are ignored here, but stored.
    #[serde(borrow, default)]
    id: Cow<'a, str>,
    #[serde(rename = "type", borrow, default)]
    kind: Cow<'a, str>,
    #[serde(borrow, default)]
    status: Cow<'a, str>,
    #[serde(borrow, default)]
    message: Cow<'a, str>,
    #[serde(default)]
    units: Units,
    #[serde(borrow, default)]
    payload: Option<&'a RawValue>,
}

#[derive(Default, Deserialize)]
struct Unit<'a> {
    #[serde(borrow, default)]
    id: Cow<'a, str>,
    #[serde(rename = "type", borrow, default)]
    kind: Cow<'a, str>,
    #[serde(borrow, default)]
    status: Cow<'a, str>,
    #[serde(borrow, default)]
    message: Cow<'a, str>,
    #[serde(borrow, default)]
    payload: Option<&'a RawValue>,
}

/// Summary of a component's units.
#[derive(Default)]
struct Units {
    digests: Vec<Digest>,
    input_unhealthy: bool,
    output_unhealthy: bool,
    oversized: bool,
}

/// Rejects names that are longer than those of any real component.
fn check_names<E: de::Error>(id: &str, kind: &str, status: &str) -> Result<(), E> {
    for (name, text, most) in [("id", id, NAME_BYTES), ("type", kind, NAME_BYTES), ("status", status, STATUS_BYTES)] {
        if text.len() > most {
            return Err(E::custom(format!("{name} is {} bytes long; at most {most}", text.len())));
        }
    }
    Ok(())
}

fn is_oversized(message: &str, payload: Option<&RawValue>) -> bool {
    message.len() > reported::MESSAGE_BYTES || payload.is_some_and(|payload| !fits(payload.get()))
}

fn fits(payload: &str) -> bool {
    // A value takes at least two bytes with its separator, so most payloads need not be counted.
    payload.len() <= PAYLOAD_BYTES && (payload.len() <= 2 * PAYLOAD_NODES || Extent::of(payload).nodes <= PAYLOAD_NODES)
}

struct List;

impl<'de> Visitor<'de> for List {
    type Value = Option<Components>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of components")
    }

    fn visit_none<E: de::Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_seq(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let (mut digests, mut oversized) = (Vec::new(), false);
        let (mut any, mut input, mut output) = (false, false, false);
        while let Some(mut component) = seq.next_element::<Component<'_>>()? {
            check_names(&component.id, &component.kind, &component.status)?;
            oversized |= component.units.oversized || is_oversized(&component.message, component.payload);
            // Units count only if their component is unhealthy too (EA59).
            if is_unhealthy(&component.status) {
                any = true;
                input |= component.units.input_unhealthy;
                output |= component.units.output_unhealthy;
            }
            digests.push(component_digest(&mut component));
        }
        // Agents send components in varying order (EA §15).
        digests.sort_unstable();
        let mut hasher = Hasher::new();
        digests.iter().for_each(|digest| hasher.field(digest));
        let found = [("input", input), ("output", output), (OTHER, any && !input && !output)];
        let unhealthy = found.into_iter().filter(|(_, is)| *is).map(|(word, _)| word).collect();
        Ok(Some(Components { digest: hasher.finish(), unhealthy, oversized }))
    }
}

fn component_digest(component: &mut Component<'_>) -> Digest {
    let units = &mut component.units.digests;
    units.sort_unstable();
    // As a set (EA §15): duplicates do not matter.
    units.dedup();
    let mut hasher = Hasher::new();
    // Not the payload: a change of it alone must not cause a write.
    for field in [&component.id, &component.kind, &component.status, &shortened(&component.message)] {
        hasher.field(field.as_bytes());
    }
    component.units.digests.iter().for_each(|unit| hasher.field(unit));
    hasher.finish()
}

impl<'de> Deserialize<'de> for Units {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Each;
        impl<'de> Visitor<'de> for Each {
            type Value = Units;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array of units")
            }

            fn visit_none<E: de::Error>(self) -> Result<Units, E> {
                Ok(Units::default())
            }

            fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Units, D::Error> {
                deserializer.deserialize_seq(self)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Units, A::Error> {
                let mut units = Units::default();
                while let Some(unit) = seq.next_element::<Unit<'_>>()? {
                    check_names(&unit.id, &unit.kind, &unit.status)?;
                    units.add(&unit);
                }
                Ok(units)
            }
        }
        deserializer.deserialize_option(Each)
    }
}

impl Units {
    fn add(&mut self, unit: &Unit<'_>) {
        let mut hasher = Hasher::new();
        // The truncated message, so that the fingerprint of the stored text is the same after a restart.
        for field in [&unit.id, &unit.kind, &unit.status, &shortened(&unit.message)] {
            hasher.field(field.as_bytes());
        }
        self.digests.push(hasher.finish());
        self.input_unhealthy |= unit.kind == "input" && is_unhealthy(&unit.status);
        self.output_unhealthy |= unit.kind == "output" && is_unhealthy(&unit.status);
        self.oversized |= is_oversized(&unit.message, unit.payload);
    }
}

/// Truncates oversized messages and drops oversized payloads. Everything else is copied as sent.
fn within_bounds(raw: &str) -> Cow<'_, str> {
    let mut out = String::new();
    match copy_list(raw, &mut out) {
        Ok(()) => out.into(),
        // Impossible, because it was parsed before.
        Err(_) => raw.into(),
    }
}

fn copy_list(raw: &str, out: &mut String) -> Result<(), serde_json::Error> {
    let mut result = Ok(());
    let mut separator = "[";
    crate::raw_json::each_element(raw, |element| {
        // Copied as text, so that unknown fields and number formats survive.
        out.push_str(separator);
        separator = ",";
        result = copy_part(element, out);
        result.is_ok()
    });
    out.push_str(if separator == "[" { "[]" } else { "]" });
    result
}

/// Copies one component or unit.
fn copy_part(raw: &str, out: &mut String) -> Result<(), serde_json::Error> {
    struct Part<'o>(&'o mut String);
    impl<'de> Visitor<'de> for Part<'_> {
        type Value = ();

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
            let mut separator = "{";
            while let Some((key, value)) = map.next_entry::<&RawValue, &RawValue>()? {
                // Keys keep their quotes and escapes, because they are written back as they were read.
                let (key, value) = (key.get(), value.get());
                if key == r#""payload""# && !fits(value) {
                    continue;
                }
                let _ = write!(self.0, "{separator}{key}:");
                separator = ",";
                match key {
                    r#""message""# => self.0.push_str(&short_message(value)),
                    r#""units""# if value.starts_with('[') => copy_list(value, self.0).map_err(de::Error::custom)?,
                    _ => self.0.push_str(value),
                }
            }
            self.0.push_str(if separator == "{" { "{}" } else { "}" });
            Ok(())
        }
    }
    serde_json::Deserializer::from_str(raw).deserialize_map(Part(out))
}

fn short_message(raw: &str) -> Cow<'_, str> {
    match crate::raw_json::as_text(raw) {
        Some(text) if text.len() > reported::MESSAGE_BYTES => {
            serde_json::to_string(&shortened(&text)).unwrap_or_else(|_| "\"\"".into()).into()
        }
        _ => raw.into(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    const TWO: &str = r#"[
        {"id":"a","type":"log","status":"HEALTHY","message":"m","units":[
            {"id":"u1","type":"input","status":"HEALTHY","message":""},
            {"id":"u2","type":"output","status":"HEALTHY","message":"","payload":{"n":1}}]},
        {"id":"b","type":"otel","status":"HEALTHY","message":"m"}]"#;
    const TWO_REORDERED: &str = r#"[
        {"id":"b","type":"otel","status":"HEALTHY","message":"m","units":[]},
        {"message":"m","id":"a","type":"log","status":"HEALTHY","units":[
            {"id":"u2","type":"output","status":"HEALTHY","message":"","payload":{"n":2}},
            {"id":"u1","type":"input","status":"HEALTHY","message":""}]}]"#;

    fn parsed(raw: &str) -> Components {
        read(raw).unwrap().unwrap()
    }

    #[test]
    fn ea58_order_of_units_and_payloads_do_not_change_the_fingerprint() {
        let digest = |raw: &str| parsed(raw).digest;
        assert_eq!(digest(TWO), digest(TWO_REORDERED));
        let failed =
            TWO.replace(r#""u1","type":"input","status":"HEALTHY""#, r#""u1","type":"input","status":"FAILED""#);
        assert_ne!(digest(TWO), digest(&failed));
        assert_ne!(digest(TWO), digest(&TWO.replace(r#""message":"m""#, r#""message":"n""#)));
    }

    #[test]
    fn ea59_reasons_come_from_unhealthy_units_of_unhealthy_components() {
        let both = r#"[{"status":"DEGRADED","units":[{"type":"output","status":"FAILED"},{"type":"input","status":"DEGRADED"}]}]"#;
        assert_eq!(parsed(both).unhealthy, ["input", "output"]);
        let other = r#"[{"status":"FAILED","units":[{"type":"input","status":"HEALTHY"}]}]"#;
        assert_eq!(parsed(other).unhealthy, ["other"]);
        let healthy = r#"[{"units":[{"type":"input","status":"FAILED"}],"status":"HEALTHY"}]"#;
        assert_eq!(parsed(healthy).unhealthy, [""; 0]);
    }

    #[test]
    fn ea52_null_is_accepted_and_other_types_are_rejected() {
        assert!(read("null").unwrap().is_none());
        assert!(read(r#"[{"units":null}]"#).unwrap().is_some());
        for bad in ["{}", r#"["a"]"#, r#""text""#, "1", r#"[{"units":{}}]"#, "[] []"] {
            assert!(read(bad).is_err(), "{bad}");
        }
        let long = format!("{:?}", "x".repeat(100_000));
        assert!(read(&long).unwrap_err().to_string().len() < 200);
    }

    #[test]
    fn oversized_names_are_rejected() {
        for (field, most) in [("id", NAME_BYTES), ("type", NAME_BYTES), ("status", STATUS_BYTES)] {
            for list in [json!([{field: "x".repeat(most + 1)}]), json!([{"units": [{field: "x".repeat(most + 1)}]}])] {
                let error = read(&list.to_string()).unwrap_err().to_string();
                assert!(error.starts_with(&format!("{field} is {} bytes long", most + 1)), "{error}");
            }
        }
    }

    #[test]
    fn stored_messages_are_truncated_and_large_payloads_dropped() {
        let message = "ä".repeat(reported::MESSAGE_BYTES);
        let payload = json!({"text": "x".repeat(PAYLOAD_BYTES)});
        let nodes = json!(vec![0; PAYLOAD_NODES + 1]);
        let unit = json!({"id": "u", "message": message, "payload": payload, "other": {"kept": [1, 2]}});
        let raw = json!([
            {"id": "a", "message": message, "units": [unit, {"id": "v", "payload": nodes}]},
            {"id": "b", "payload": {"small": 1}, "units": null},
        ])
        .to_string();
        let components = parsed(&raw);
        let kept = components.kept(&raw).unwrap();
        let stored: Value = serde_json::from_str(&kept).unwrap();
        assert!(stored[0]["message"].as_str().unwrap().len() <= reported::MESSAGE_BYTES);
        assert!(stored[0]["units"][0]["message"].as_str().unwrap().ends_with('…'));
        assert_eq!(stored[0]["units"][0]["other"], json!({"kept": [1, 2]}));
        assert_eq!(stored[0]["units"][1], json!({"id": "v"}));
        assert_eq!(stored[1], json!({"id": "b", "payload": {"small": 1}, "units": null}));
        let again = parsed(&kept);
        assert_eq!((again.digest, again.oversized), (components.digest, false));
    }

    #[test]
    fn components_within_the_limits_are_stored_unchanged() {
        assert!(matches!(parsed(TWO).kept(TWO), Ok(Cow::Borrowed(TWO))));
    }

    #[test]
    fn too_many_values_are_rejected() {
        let raw = format!("[{}{{}}]", "{},".repeat(reported::COMPONENTS_NODES));
        assert!(parsed(&raw).kept(&raw).unwrap_err().contains("JSON values; at most"));
        let raw = format!(r#"[{{"version_info":"{}"}}]"#, "x".repeat(reported::COMPONENTS_BYTES));
        assert!(parsed(&raw).kept(&raw).unwrap_err().contains("bytes; at most"));
    }

    #[test]
    fn the_message_of_an_unhealthy_output_is_found() {
        let raw = r#"[{"units":null},{"units":[{"type":"input","status":"FAILED","message":"i"},
            {"type":"output","status":"DEGRADED","message":"no route"},{"type":"output","status":"FAILED","message":"x"}]}]"#;
        assert_eq!(failing_output(raw).as_deref(), Some("no route"));
        assert_eq!(failing_output("[]"), None);
    }

    proptest! {
        #[test]
        fn ea58_units_are_compared_as_sets(ids in proptest::collection::vec("[a-c]{1,2}", 0..6), turn in 0_usize..6) {
            let digest = |ids: &[String]| {
                let units: Vec<Value> = ids.iter().map(|id| json!({"id": id})).collect();
                parsed(&json!([{"units": units}]).to_string()).digest
            };
            let mut rotated = ids.clone();
            rotated.rotate_left(turn.min(ids.len()));
            prop_assert_eq!(digest(&ids), digest(&rotated));
        }

        #[test]
        fn any_text_is_handled_without_a_panic(text in any::<String>()) {
            let _ = read(&text);
            let _ = within_bounds(&text);
            let _ = failing_output(&text);
        }
    }
}
