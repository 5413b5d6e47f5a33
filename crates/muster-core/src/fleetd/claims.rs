//! Identifiers of hardware that a host reports after its enrollment. A host is found by them, so that it must not take those of
//! another one (FL §2.4: they are written only where they are unknown).

use serde_json::{Map, Value};

use crate::agent::AgentRecord;
use crate::documents::metadata;
use crate::host;

/// Identifiers that a host reports for itself, and that differ from its known ones; empty if they do not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claims {
    /// Hardware UUID, in lower case.
    pub uuid: String,
    /// Serial number, in lower case.
    pub serial: String,
}

impl Claims {
    /// Returns the claims of reported metadata.
    pub fn of(reported: &str, known: &AgentRecord) -> Self {
        let hardware = metadata::hardware(reported);
        let (uuid, serial) = hardware.split_once('\n').unwrap_or_default();
        // Many machines have a placeholder.
        let uuid = Some(uuid).filter(|uuid| *uuid != known.hardware_uuid() && !host::is_placeholder(uuid));
        let serial = Some(serial).filter(|serial| *serial != known.serial());
        Self { uuid: uuid.unwrap_or_default().to_owned(), serial: serial.unwrap_or_default().to_owned() }
    }

    /// Returns whether there are none.
    pub fn are_empty(&self) -> bool {
        self.uuid.is_empty() && self.serial.is_empty()
    }
}

/// Returns reported metadata with the known identifiers of the host; `None` if they are those that it reports, or unknown.
pub fn with_known_identifiers(reported: &str, known: &AgentRecord) -> Option<String> {
    let hardware = metadata::hardware(reported);
    let (uuid, serial) = hardware.split_once('\n').unwrap_or_default();
    let mut kept = Vec::new();
    for (claimed, known, part, name) in
        [(uuid, known.hardware_uuid(), "host", "id"), (serial, known.serial(), "hardware", "serial")]
    {
        if !known.is_empty() && claimed != known {
            kept.push((part, name, known));
        }
    }
    if kept.is_empty() {
        return None;
    }
    let mut all: Map<String, Value> = serde_json::from_str(reported).ok()?;
    for (part, name, known) in kept {
        all.entry(part).or_insert_with(|| Map::new().into()).as_object_mut()?.insert(name.to_owned(), known.into());
    }
    Some(Value::Object(all).to_string())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::{at, bare_agent};

    fn known(hardware: &str) -> AgentRecord {
        AgentRecord { hardware: hardware.into(), ..bare_agent("a", at(0)) }
    }

    #[test]
    fn fl50_known_identifiers_are_kept_and_unknown_ones_are_learned() {
        let kept = |reported: Value, hardware| {
            let kept = with_known_identifiers(&reported.to_string(), &known(hardware));
            kept.map(|kept| serde_json::from_str::<Value>(&kept).unwrap())
        };
        let reported = json!({"host": {"id": "4C4C", "hostname": "h"}, "hardware": {"serial": "S"}});
        assert_eq!(kept(reported.clone(), "4c4c\ns"), None);
        assert_eq!(kept(reported.clone(), ""), None, "nothing is known");
        assert_eq!(kept(reported.clone(), "\ns"), None);
        let uuid = json!({"host": {"id": "own", "hostname": "h"}, "hardware": {"serial": "S"}});
        assert_eq!(kept(reported, "own\ns"), Some(uuid));
        let missing = json!({"host": {"id": "own"}, "hardware": {"serial": "s"}, "os": {}});
        assert_eq!(kept(json!({"os": {}}), "own\ns"), Some(missing), "also if the query failed");
        assert_eq!(kept(json!({"host": 1}), "own\ns"), None, "not the form of this server");
    }

    #[test]
    fn claims_are_identifiers_that_differ_from_the_known_ones() {
        let claims = |uuid, serial, hardware| {
            let reported = json!({"host": {"id": uuid}, "hardware": {"serial": serial}}).to_string();
            let found = Claims::of(&reported, &known(hardware));
            (found.uuid, found.serial)
        };
        let strings = |uuid: &str, serial: &str| (uuid.to_owned(), serial.to_owned());
        assert_eq!(claims("4C4C", "S", "4c4c\ns"), strings("", ""));
        assert_eq!(claims("4C4D", "", "4c4c\ns"), strings("4c4d", ""));
        assert_eq!(claims("4C4C", "T", ""), strings("4c4c", "t"));
        assert_eq!(claims("03000200-0400-0500-0006-000700080009", "S", "4c4c\ns"), strings("", ""));
        assert!(Claims::default().are_empty());
    }
}
