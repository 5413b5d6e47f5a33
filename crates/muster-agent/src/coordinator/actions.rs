//! Interprets actions. The coordinator executes them.

use std::time::Duration;

use muster_core::error_chain::chain;
use muster_core::{Timestamp, canonical};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use super::migrate;
use crate::install::privileges::Wanted;
use crate::policy::verify;
use crate::state::{Action, Kind};
use crate::upgrade::Request;

/// What to do for an action.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Task {
    /// Only acknowledge the action.
    Nothing,
    /// Set or reset the log level.
    LogLevel(Option<String>),
    /// Stop all programs and unenroll.
    Unenroll,
    /// Upload a diagnostics bundle.
    Diagnose,
    /// Upgrade the agent.
    Upgrade(Request),
    /// Enroll at another server.
    Migrate(migrate::Request),
    /// Give up the privileges of root.
    Lower(Wanted),
    /// Forward the action to a component.
    Forward(Duration),
}

/// Time for an action of a component, if the action has no timeout.
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(60);
/// Maximum time for an action of a component.
const TIMEOUT_MAX: Duration = Duration::from_secs(3600);

/// Log levels that SETTINGS can set.
const LEVELS: [&str; 5] = ["trace", "debug", "info", "warning", "error"];

/// Interprets an action. An error is sent in its ack.
pub fn read(action: &Action, agent_id: &str, pinned: Option<&str>, now: Timestamp) -> Result<Task, String> {
    // An action that is meant for a later time must not run now because that time cannot be read.
    action.check_times()?;
    if action.is_expired(now) {
        return Err("the action expired before it could run".into());
    }
    // Only actions that end the agent's enrollment or replace its program are signed (EA §10.9).
    let signed = || verify::action(action, agent_id, pinned).map(|_| ()).map_err(|error| chain(&error).to_string());
    match &action.kind {
        Kind::PolicyReassign => Ok(Task::Nothing),
        Kind::Settings => log_level(action.data.as_deref()).map(Task::LogLevel),
        Kind::Unenroll => signed().map(|()| Task::Unenroll),
        Kind::RequestDiagnostics => Ok(Task::Diagnose),
        Kind::Upgrade => {
            let verified = verify::action(action, agent_id, pinned).map_err(|error| chain(&error).to_string())?;
            upgrade(verified.as_deref().or(action.data.as_deref())).map(Task::Upgrade)
        }
        Kind::Migrate => {
            // With a pinned key, only the signed copy counts, which includes the enrollment token.
            let verified = verify::action(action, agent_id, pinned).map_err(|error| chain(&error).to_string())?;
            migrate::Request::read(verified.as_deref().or(action.data.as_deref())).map(Task::Migrate)
        }
        Kind::PrivilegeLevelChange => lower(action.data.as_deref()).map(Task::Lower),
        Kind::InputAction => timeout(action).map(Task::Forward),
        // Handled when they arrive (`intake`).
        Kind::PolicyChange | Kind::Cancel => Err("this action is not queued".into()),
        Kind::Other(other) => Err(format!("unknown action type {:?}", other.chars().take(64).collect::<String>())),
    }
}

/// Returns the time that a component has for an action (AG §7.2).
fn timeout(action: &Action) -> Result<Duration, String> {
    match action.timeout.unwrap_or_default() {
        ..=0 => Ok(TIMEOUT_DEFAULT),
        seconds => match Duration::from_secs(seconds.unsigned_abs()) {
            timeout if timeout <= TIMEOUT_MAX => Ok(timeout),
            _ => Err("the timeout is longer than an hour".into()),
        },
    }
}

/// Reads the data of an UPGRADE. Its version becomes part of file names.
fn upgrade(data: Option<&RawValue>) -> Result<Request, String> {
    let request: Request = fields(data)?;
    if canonical::version(&request.version).as_deref() != Ok(request.version.as_str()) {
        return Err(format!("{:?} is not a version", request.version.chars().take(64).collect::<String>()));
    }
    Ok(request)
}

/// Reads the data of a PRIVILEGE_LEVEL_CHANGE, which can only lower the privileges (AG §7.5).
fn lower(data: Option<&RawValue>) -> Result<Wanted, String> {
    #[derive(Deserialize)]
    #[serde(expecting = "an object with unprivileged")]
    struct Data {
        unprivileged: bool,
        #[serde(default)]
        user_info: Option<Wanted>,
    }
    match fields(data)? {
        Data { unprivileged: true, user_info } => Ok(user_info.unwrap_or_default()),
        Data { unprivileged: false, .. } => Err("unprivileged must be true: privileges can only be given up".into()),
    }
}

fn log_level(data: Option<&RawValue>) -> Result<Option<String>, String> {
    #[derive(Default, Deserialize)]
    #[serde(expecting = "an object")]
    struct Data {
        #[serde(default)]
        log_level: Option<String>,
    }
    let data = if data.is_some() { fields(data)? } else { Data::default() };
    match data.log_level.as_deref() {
        None | Some("") => Ok(None),
        Some(level) if LEVELS.contains(&level) => Ok(Some(level.to_owned())),
        Some(_) => Err(format!("log_level must be one of {}", LEVELS.join(", "))),
    }
}

/// Reads the fields of an action's data. The error names the field, and is sent in the ack.
fn fields<T: DeserializeOwned>(data: Option<&RawValue>) -> Result<T, String> {
    let data = data.ok_or("the action has no data")?;
    serde_json::from_str(data.get()).map_err(|error| format!("malformed data: {error}"))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn task(kind: &str, data: impl Into<Value>) -> Result<Task, String> {
        let data: Value = data.into();
        let action = json!({"id": "x", "kind": kind, "data": data,
            "expiration": "2026-01-01T00:00:00Z"});
        read(&serde_json::from_value(action).unwrap(), "a", None, Timestamp::from_micros(0))
    }

    #[test]
    fn supported_actions_are_tasks_and_others_are_errors() {
        assert_eq!(task("SETTINGS", json!({"log_level": "debug"})), Ok(Task::LogLevel(Some("debug".into()))));
        assert_eq!(task("SETTINGS", json!({})), Ok(Task::LogLevel(None)));
        assert!(task("SETTINGS", json!({"log_level": "loud"})).unwrap_err().contains("one of"));
        assert_eq!(task("SETTINGS", Value::Null), Ok(Task::LogLevel(None)));
        assert_eq!(task("UNENROLL", Value::Null), Ok(Task::Unenroll));
        let request = Request { version: "0.2.0".into(), ..Request::default() };
        assert_eq!(task("UPGRADE", json!({"version": "0.2.0"})), Ok(Task::Upgrade(request)));
        assert!(task("UPGRADE", json!({"version": "../0.2.0"})).unwrap_err().contains("not a version"));
        let wanted = Wanted { user: Some("web".into()), group: None };
        let data = json!({"unprivileged": true, "user_info": {"username": "web", "password": "x"}});
        assert_eq!(task("PRIVILEGE_LEVEL_CHANGE", data), Ok(Task::Lower(wanted)));
        assert!(task("PRIVILEGE_LEVEL_CHANGE", json!({"unprivileged": false})).is_err());
        for kind in ["UPGRADE", "MIGRATE", "PRIVILEGE_LEVEL_CHANGE", "DANCE"] {
            assert!(task(kind, json!({})).is_err(), "{kind}");
        }
    }

    #[test]
    fn malformed_data_is_an_error_that_names_what_is_wrong() {
        for (kind, data, reason) in [
            ("SETTINGS", json!({"log_level": 7}), "invalid type: integer `7`, expected a string"),
            ("SETTINGS", json!("debug"), "expected an object"),
            ("UPGRADE", json!({}), "missing field `version`"),
            ("UPGRADE", Value::Null, "no data"),
            ("UPGRADE", json!([]), "expected an object with a version"),
            ("PRIVILEGE_LEVEL_CHANGE", json!({"unprivileged": "yes"}), "expected a boolean"),
            ("PRIVILEGE_LEVEL_CHANGE", json!({"unprivileged": false}), "must be true"),
            ("PRIVILEGE_LEVEL_CHANGE", json!(true), "expected an object with unprivileged"),
            ("MIGRATE", json!({"target_uri": "https://x"}), "missing field `enrollment_token`"),
            ("MIGRATE", json!(7), "expected an object with target_uri"),
        ] {
            let error = task(kind, data).unwrap_err();
            assert!(error.contains(reason), "{kind}: {error}");
        }
    }

    #[test]
    fn an_action_whose_times_cannot_be_read_is_not_run() {
        for (name, value) in [("start_time", "tomorrow"), ("expiration", "never")] {
            let mut action = json!({"id": "x", "kind": "SETTINGS"});
            action[name] = json!(value);
            let action = serde_json::from_value(action).unwrap();
            let error = read(&action, "a", None, Timestamp::from_micros(0)).unwrap_err();
            assert!(error.contains(name) && error.contains(value), "{error}");
        }
    }

    #[test]
    fn an_expired_action_is_not_run() {
        let action = json!({"id": "x", "kind": "UNENROLL",
            "expiration": "1970-01-01T00:00:00Z"});
        let action = serde_json::from_value(action).unwrap();
        assert!(read(&action, "a", None, Timestamp::from_micros(1)).unwrap_err().contains("expired"));
    }

    #[test]
    fn with_a_pinned_key_an_unenroll_must_be_signed() {
        let action = json!({"id": "x", "kind": "UNENROLL"});
        let action = serde_json::from_value(action).unwrap();
        assert!(read(&action, "a", Some("a2V5"), Timestamp::from_micros(0)).unwrap_err().contains("not signed"));
    }
}
