//! What an action means: pure. The doing is the coordinator's.

use muster_core::Timestamp;
use muster_protocol::elastic::check_in::WireAction;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::policy::verify;

/// What an action asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// Nothing but an ack.
    Nothing,
    /// Set the log level, or clear what was set.
    LogLevel(Option<String>),
    /// Stop, forget, leave.
    Unenroll,
    /// Hand a diagnostics bundle in.
    Diagnose,
}

/// Levels that SETTINGS may ask for.
const LEVELS: [&str; 5] = ["trace", "debug", "info", "warning", "error"];

/// Reads an action; an error is what its ack says.
pub fn read(action: &WireAction, agent_id: &str, pinned: Option<&str>, now: Timestamp) -> Result<Order, String> {
    if action.expiration.as_deref().and_then(|text| Timestamp::parse_rfc3339(text).ok()).is_some_and(|end| end <= now) {
        return Err("it expired before its turn came".into());
    }
    let signed = || verify::action(action, agent_id, pinned).map(|_| ()).map_err(|error| error.to_string());
    let not_yet = |what: &str| Err(format!("this version of muster-agent can't {what}"));
    match action.kind.as_str() {
        "POLICY_REASSIGN" => Ok(Order::Nothing),
        "SETTINGS" => log_level(action.data.as_deref()).map(Order::LogLevel),
        "UNENROLL" => signed().map(|()| Order::Unenroll),
        "REQUEST_DIAGNOSTICS" => Ok(Order::Diagnose),
        "UPGRADE" => signed().and_then(|()| not_yet("upgrade itself yet")),
        "MIGRATE" => signed().and_then(|()| not_yet("migrate to another fleet yet; enrol it there")),
        "PRIVILEGE_LEVEL_CHANGE" => not_yet("change its privileges yet"),
        "INPUT_ACTION" => Err(format!("no component takes actions for inputs of type {:?}", action.input_type)),
        other => Err(format!("this agent knows no action of type {:?}", other.chars().take(64).collect::<String>())),
    }
}

fn log_level(data: Option<&RawValue>) -> Result<Option<String>, String> {
    let data: Value = data.map_or(Ok(Value::Null), |data| serde_json::from_str(data.get())).unwrap_or(Value::Null);
    match data["log_level"].as_str() {
        None | Some("") => Ok(None),
        Some(level) if LEVELS.contains(&level) => Ok(Some(level.to_owned())),
        Some(_) => Err(format!("log_level must be one of {}", LEVELS.join(", "))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn order(kind: &str, data: impl Into<Value>) -> Result<Order, String> {
        let data: Value = data.into();
        let action = json!({"agent_id": "a", "created_at": "", "id": "x", "type": kind, "data": data,
            "expiration": "2026-01-01T00:00:00Z"});
        read(&serde_json::from_value(action).unwrap(), "a", None, Timestamp::from_micros(0))
    }

    #[test]
    fn what_can_be_done_is_an_order_and_the_rest_says_why_not() {
        assert_eq!(order("SETTINGS", json!({"log_level": "debug"})), Ok(Order::LogLevel(Some("debug".into()))));
        assert_eq!(order("SETTINGS", json!({})), Ok(Order::LogLevel(None)));
        assert!(order("SETTINGS", json!({"log_level": "loud"})).unwrap_err().contains("one of"));
        assert_eq!(order("UNENROLL", Value::Null), Ok(Order::Unenroll));
        for kind in ["UPGRADE", "MIGRATE", "PRIVILEGE_LEVEL_CHANGE", "INPUT_ACTION", "DANCE"] {
            assert!(order(kind, json!({})).is_err(), "{kind}");
        }
    }

    #[test]
    fn an_expired_action_is_not_run() {
        let action = json!({"agent_id": "a", "created_at": "", "id": "x", "type": "UNENROLL", "data": null,
            "expiration": "1970-01-01T00:00:00Z"});
        let action = serde_json::from_value(action).unwrap();
        assert!(read(&action, "a", None, Timestamp::from_micros(1)).unwrap_err().contains("expired"));
    }

    #[test]
    fn with_a_pinned_key_nobody_unenrols_us_without_a_signature() {
        let action = json!({"agent_id": "a", "created_at": "", "id": "x", "type": "UNENROLL", "data": null});
        let action = serde_json::from_value(action).unwrap();
        assert!(read(&action, "a", Some("a2V5"), Timestamp::from_micros(0)).unwrap_err().contains("not signed"));
    }
}
