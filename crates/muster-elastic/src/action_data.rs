//! Data of actions as agents of this family read it (EA §4.11).

use muster_core::action::ActionType;
use muster_core::raw_json;
use serde_json::value::RawValue;

/// Converts the data of an action. `None` if it is not valid for its type.
pub fn to_wire(kind: ActionType, data: Option<&str>) -> Option<Option<Box<RawValue>>> {
    let raw = |text: String| RawValue::from_string(text).ok().map(Some);
    match (kind, data) {
        // Agents expect no data in an UNENROLL (EA82).
        (ActionType::Unenroll, _) | (_, None) => Some(None),
        // The revision is for the server only: agents get their target with a check-in.
        (ActionType::PolicyReassign, Some(data)) => {
            let id = raw_json::at(data, &["policy_id"])?;
            raw(format!(r#"{{"policy_id":{id}}}"#))
        }
        (_, Some(data)) => raw(data.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wire(kind: ActionType, data: &str) -> Option<String> {
        to_wire(kind, Some(data)).map(|raw| raw.map_or_else(|| "null".to_owned(), |raw| raw.get().to_owned()))
    }

    #[test]
    fn ea81_ea82_only_fields_of_the_protocol_are_sent() {
        let reassign = r#"{"policy_id":"p","policy_revision":3}"#;
        assert_eq!(wire(ActionType::PolicyReassign, reassign).as_deref(), Some(r#"{"policy_id":"p"}"#));
        assert_eq!(wire(ActionType::Unenroll, "{}").as_deref(), Some("null"));
        let upgrade = r#"{"version":"9.6.1"}"#;
        assert_eq!(wire(ActionType::Upgrade, upgrade).as_deref(), Some(upgrade));
        assert!(to_wire(ActionType::RequestDiagnostics, None).unwrap().is_none());
        for (kind, bad) in [(ActionType::PolicyReassign, "{}"), (ActionType::Settings, "{")] {
            assert_eq!(wire(kind, bad), None, "{bad}");
        }
    }
}
