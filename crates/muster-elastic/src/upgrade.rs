//! Parses `upgrade_details` and `upgrade` of a check-in (EA §4.6).

use std::sync::Arc;

use muster_core::check_in::ReportedUpgrade;
use muster_core::reported;
use muster_core::time::Timestamp;
use muster_core::upgrade_details::UpgradeDetails;
use serde::de::Error as _;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// The action's id alone, which is needed even if the rest is invalid (EA63).
#[derive(Deserialize)]
struct ActionOf {
    #[serde(default)]
    action_id: String,
}

/// Parses `upgrade_details`. Invalid details are no error of the check-in: the reason is reported with the action.
pub fn reported(raw: &str) -> ReportedUpgrade {
    ReportedUpgrade { action_id: action_id(raw), details: check(raw) }
}

/// All upgrade states of the protocol.
const STATES: [&str; 9] = [
    "UPG_REQUESTED",
    "UPG_SCHEDULED",
    "UPG_DOWNLOADING",
    "UPG_EXTRACTING",
    "UPG_REPLACING",
    "UPG_RESTARTING",
    "UPG_WATCHING",
    "UPG_ROLLBACK",
    FAILED,
];
const FAILED: &str = "UPG_FAILED";
const SCHEDULED: &str = "UPG_SCHEDULED";
const DOWNLOADING: &str = "UPG_DOWNLOADING";

/// Maximum length of a version, bytes.
const VERSION_BYTES: usize = 128;

/// Returns the id of the action that the details belong to; empty if absent.
fn action_id(raw: &str) -> String {
    serde_json::from_str(raw).map(|details: ActionOf| details.action_id).unwrap_or_default()
}

/// Validates details and reduces them to the stored fields. The error is the reason for the refusal (EA65).
pub fn check(raw: &str) -> Result<UpgradeDetails, String> {
    // Before parsing: metadata becomes a tree of values, which may take far more memory than its text.
    let within = reported::check(raw, reported::UPGRADE_BYTES, reported::UPGRADE_NODES);
    within.map_err(|reason| format!("upgrade_details: {reason}"))?;
    let mut details: UpgradeDetails =
        serde_json::from_str(raw).map_err(|error| format!("unable to read upgrade_details: {error}"))?;
    if !STATES.contains(&details.state.as_str()) {
        // Quoted with escapes, because the reason is stored and shown to people.
        return Err(format!("unknown upgrade state {:?}", bounded(&details.state)));
    }
    details.metadata = match details.state.as_str() {
        SCHEDULED => Some(scheduled(details.metadata)?),
        FAILED => Some(failed(details.metadata)?),
        // Optional in this state: an agent has no progress to report when a download begins.
        DOWNLOADING => details.metadata.as_ref().map(downloading).transpose()?,
        _ => details.metadata,
    };
    Ok(details.within_bounds())
}

fn bounded(text: &str) -> String {
    text.chars().take(40).collect()
}

fn scheduled(metadata: Option<Value>) -> Result<Value, String> {
    let metadata = metadata.unwrap_or_default();
    let at = metadata.get("scheduled_at").and_then(Value::as_str).unwrap_or_default();
    match Timestamp::parse_rfc3339(at) {
        Ok(time) if time > Timestamp::parse_rfc3339(ZERO_TIME).unwrap_or_default() => Ok(metadata),
        _ => Err("upgrade_details in state UPG_SCHEDULED need metadata.scheduled_at".into()),
    }
}

/// Go's zero time, which agents send when no time is set.
const ZERO_TIME: &str = "0001-01-01T00:00:00Z";

fn failed(metadata: Option<Value>) -> Result<Value, String> {
    let metadata = metadata.unwrap_or_default();
    match metadata.get("error_msg").and_then(Value::as_str) {
        // Reduced to the fields of the protocol (EA §4.6): anything else would be stored without a purpose.
        Some(message) if !message.is_empty() => Ok(only(&metadata, &["error_msg", "failed_state"])),
        _ => Err("upgrade_details in state UPG_FAILED need metadata.error_msg".into()),
    }
}

fn downloading(metadata: &Value) -> Result<Value, String> {
    let mut kept = only(metadata, &["download_percent", "download_rate", "retry_error_msg", "retry_until"]);
    if let Some(rate) = kept.get_mut("download_rate").filter(|rate| !rate.is_null()) {
        *rate = download_rate(rate).ok_or_else(|| "upgrade_details.metadata.download_rate is not a rate".to_owned())?;
    }
    if kept.get("download_percent").is_some_and(|percent| !percent.is_number() && !percent.is_null()) {
        return Err("upgrade_details.metadata.download_percent is not a number".into());
    }
    Ok(kept)
}

fn only(metadata: &Value, keys: &[&str]) -> Value {
    let pick = |key: &&str| metadata.get(*key).map(|value| ((*key).to_owned(), value.clone()));
    Value::Object(keys.iter().filter_map(pick).collect::<Map<_, _>>())
}

/// Parses bytes per second: a number, or a string such as `10kbps` or `1.5MBps` (EA64).
fn download_rate(rate: &Value) -> Option<Value> {
    match rate {
        Value::Number(_) => Some(rate.clone()),
        Value::String(text) => human_size(text.strip_suffix("ps").unwrap_or(text)).map(|bytes| json!(bytes)),
        _ => None,
    }
}

/// Parses a size in decimal or binary units of either case.
fn human_size(text: &str) -> Option<f64> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let number: f64 = text[..end].parse().ok()?;
    // `B` and `b` both mean bytes here: agents format rates with a library that writes bytes as `kB` or `KiB`.
    let unit = text[end..].trim().to_ascii_lowercase();
    let (prefix, base) = match unit.strip_suffix('b').unwrap_or(&unit) {
        binary if binary.ends_with('i') => (binary.trim_end_matches('i'), 1024_f64),
        decimal => (decimal, 1000_f64),
    };
    let power = ["", "k", "m", "g", "t", "p"].iter().position(|known| *known == prefix)?;
    let bytes = number * base.powi(i32::try_from(power).ok()?);
    bytes.is_finite().then_some(bytes)
}

/// Returns the versions that the agent can roll back to, as a JSON array, or `None` if there are none. A malformed list is
/// an error, which the caller ignores (EA66).
pub fn rollbacks(upgrade: Option<&str>) -> Result<Option<Arc<str>>, serde_json::Error> {
    let Some(raw) = upgrade else { return Ok(None) };
    reported::check(raw, reported::UPGRADE_BYTES, reported::UPGRADE_NODES).map_err(serde_json::Error::custom)?;
    let upgrade: Rollbacks = serde_json::from_str(raw)?;
    let mut list = upgrade.rollbacks.unwrap_or_default();
    // Truncated instead of refused: an agent with many old versions must still be able to check in.
    list.truncate(reported::MOST_ROLLBACKS);
    if list.iter().any(|rollback| rollback.version.len().max(rollback.valid_until.len()) > VERSION_BYTES) {
        return Err(serde_json::Error::custom("a version or time of a rollback is too long"));
    }
    if list.is_empty() { Ok(None) } else { serde_json::to_string(&list).map(|text| Some(text.into())) }
}

#[derive(Deserialize)]
struct Rollbacks {
    #[serde(default)]
    rollbacks: Option<Vec<Rollback>>,
}

#[derive(Deserialize, Serialize)]
struct Rollback {
    #[serde(default)]
    version: String,
    #[serde(default)]
    valid_until: String,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn details(state: &str, metadata: &str) -> Result<Value, String> {
        check(&format!(r#"{{"target_version":"9.6.1","state":"{state}","action_id":"a","metadata":{metadata}}}"#))
            .map(|details| details.metadata.unwrap_or_default())
    }

    #[test]
    fn ea64_download_rates_may_be_numbers_or_strings() {
        let rate = |rate: &str| {
            details(DOWNLOADING, &format!(r#"{{"download_percent":0.4,"download_rate":{rate},"x":1}}"#))
                .map(|metadata| metadata["download_rate"].as_f64())
        };
        assert_eq!(rate("1048576"), Ok(Some(1_048_576.0)));
        assert_eq!(rate(r#""10kbps""#), Ok(Some(10_000.0)));
        assert_eq!(rate(r#""1MBps""#), Ok(Some(1_000_000.0)));
        assert_eq!(rate(r#""1.5 MiBps""#), Ok(Some(1_572_864.0)));
        assert_eq!(rate(r#""12""#), Ok(Some(12.0)));
        assert!(rate(r#""fast""#).is_err());
        assert!(rate("[]").is_err());
    }

    #[test]
    fn ea65_failed_requires_a_message_and_scheduled_a_time() {
        for bad in ["null", "{}", r#"{"error_msg":""}"#, r#"{"error_msg":5}"#] {
            assert!(details(FAILED, bad).is_err(), "{bad}");
        }
        for bad in ["null", "{}", r#"{"scheduled_at":"soon"}"#, r#"{"scheduled_at":"0001-01-01T00:00:00Z"}"#] {
            assert!(details(SCHEDULED, bad).is_err(), "{bad}");
        }
        assert!(details(SCHEDULED, r#"{"scheduled_at":"2026-01-02T03:04:05+01:00"}"#).is_ok());
        let kept = details(FAILED, r#"{"error_msg":"e","failed_state":"UPG_REPLACING","more":1}"#).unwrap();
        assert_eq!(kept, json!({"error_msg": "e", "failed_state": "UPG_REPLACING"}));
    }

    #[test]
    fn ea62_other_states_are_kept_as_sent() {
        assert_eq!(details("UPG_WATCHING", r#"{"reason":"r"}"#), Ok(json!({"reason": "r"})));
        assert_eq!(details(DOWNLOADING, "null"), Ok(Value::Null));
        assert!(details("UPG_DANCING", "{}").is_err());
        assert_eq!(action_id(r#"{"action_id":"a-1","state":5}"#), "a-1");
    }

    #[test]
    fn ea66_rollbacks_are_a_list_or_absent() {
        let list = r#"{"rollbacks":[{"version":"9.5.2","valid_until":"2026-01-09T03:04:05Z"}]}"#;
        let stored = rollbacks(Some(list)).unwrap().unwrap();
        assert_eq!(&*stored, r#"[{"version":"9.5.2","valid_until":"2026-01-09T03:04:05Z"}]"#);
        for none in [None, Some("{}"), Some(r#"{"rollbacks":null}"#), Some(r#"{"rollbacks":[]}"#)] {
            assert_eq!(rollbacks(none).unwrap(), None);
        }
        assert!(rollbacks(Some(r#"{"rollbacks":5}"#)).is_err());
    }

    #[test]
    fn details_are_limited_in_size() {
        let long = "x".repeat(100_000);
        let kept = details(FAILED, &json!({"error_msg": long}).to_string()).unwrap();
        assert!(kept["error_msg"].as_str().unwrap().len() <= reported::MESSAGE_BYTES);
        let many = json!({"a": long, "c": [long]});
        assert_eq!(details("UPG_WATCHING", &many.to_string()), Ok(Value::Null));
        let nodes = json!({"a": vec![0; reported::UPGRADE_NODES]});
        assert!(details("UPG_WATCHING", &nodes.to_string()).unwrap_err().contains("JSON values; at most"));
    }

    #[test]
    fn ea66_rollbacks_are_limited_in_number_and_size() {
        let offer = json!({"version": "9.5.2", "valid_until": "2026-01-09T03:04:05Z"});
        let many = json!({"rollbacks": vec![offer; 100]}).to_string();
        let kept: Vec<Value> = serde_json::from_str(&rollbacks(Some(&many)).unwrap().unwrap()).unwrap();
        assert_eq!(kept.len(), reported::MOST_ROLLBACKS);
        for bad in [json!({"rollbacks": [{"version": "9".repeat(1000)}]}), json!({"rollbacks": vec![json!({}); 5000]})]
        {
            assert!(rollbacks(Some(&bad.to_string())).is_err());
        }
    }

    proptest! {
        #[test]
        fn ea62_stored_details_can_be_read_back(rate in 0_u32..u32::MAX, version in "[0-9.]{1,8}") {
            let raw = json!({"target_version": version, "state": DOWNLOADING, "action_id": "a", "metadata": {"download_rate": rate}});
            let checked = check(&raw.to_string()).unwrap();
            prop_assert_eq!(UpgradeDetails::stored(&checked.to_json()), Some(checked));
        }

        #[test]
        fn arbitrary_text_does_not_panic(text in any::<String>()) {
            let _ = check(&text);
            let _ = human_size(&text);
        }
    }
}
