//! Actions as the agent stores them. The type is ours, so that a change of the wire format does not change the state
//! document.

use muster_core::Timestamp;
use muster_protocol::elastic::check_in::WireAction;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// Type of an action.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum Kind {
    /// A new policy.
    PolicyChange,
    /// Announces that another policy follows.
    PolicyReassign,
    /// Settings of the agent itself, such as its log level.
    Settings,
    /// Leave the fleet.
    Unenroll,
    /// Replace the agent by another version.
    Upgrade,
    /// Enroll with another server.
    Migrate,
    /// Run the agent as another user.
    PrivilegeLevelChange,
    /// Upload a diagnostics bundle.
    RequestDiagnostics,
    /// An action of a component.
    InputAction,
    /// Remove a queued action.
    Cancel,
    /// A type that this version does not know.
    Other(String),
}

/// Wire names of the known types.
const NAMES: [(&str, Kind); 10] = [
    ("POLICY_CHANGE", Kind::PolicyChange),
    ("POLICY_REASSIGN", Kind::PolicyReassign),
    ("SETTINGS", Kind::Settings),
    ("UNENROLL", Kind::Unenroll),
    ("UPGRADE", Kind::Upgrade),
    ("MIGRATE", Kind::Migrate),
    ("PRIVILEGE_LEVEL_CHANGE", Kind::PrivilegeLevelChange),
    ("REQUEST_DIAGNOSTICS", Kind::RequestDiagnostics),
    ("INPUT_ACTION", Kind::InputAction),
    ("CANCEL", Kind::Cancel),
];

impl Kind {
    /// Returns the name on the wire.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Other(name) => name,
            known => NAMES.iter().find(|(_, kind)| kind == known).map_or("", |(name, _)| *name),
        }
    }
}

impl From<String> for Kind {
    fn from(name: String) -> Self {
        NAMES.into_iter().find(|(known, _)| *known == name).map_or(Self::Other(name), |(_, kind)| kind)
    }
}

impl From<Kind> for String {
    fn from(kind: Kind) -> Self {
        kind.as_str().to_owned()
    }
}

/// Signed bytes with their signature, both in base64.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedBlock {
    /// The signed bytes.
    pub data: String,
    /// The signature.
    pub signature: String,
}

/// A received action.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Action {
    /// Id; `policy:<id>:<revision>` for a policy.
    pub id: String,
    /// Type.
    pub kind: Kind,
    /// For `INPUT_ACTION`: the type of the input; otherwise empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub input_type: String,
    /// Fields that depend on the type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<Box<RawValue>>,
    /// Start time (RFC 3339).
    // Kept as text: a time that cannot be parsed must not make the whole state unreadable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_time: Option<String>,
    /// Expiration time (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expiration: Option<String>,
    /// Timeout in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<i64>,
    /// Signed copy of the action.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signed: Option<SignedBlock>,
    /// The signing key that was pinned when the action was received. An action may wait while the server replaces the key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pinned_key: Option<String>,
}

impl Action {
    /// Creates an unsigned action that is due at once.
    pub fn new(id: String, kind: Kind, data: Option<Box<RawValue>>) -> Self {
        let (start_time, expiration, timeout) = (None, None, None);
        let (signed, pinned_key) = (None, None);
        Self { id, kind, input_type: String::new(), data, start_time, expiration, timeout, signed, pinned_key }
    }

    /// Returns the start time; `None` if there is none or it is malformed.
    pub fn start(&self) -> Option<Timestamp> {
        self.start_time.as_deref().and_then(|text| Timestamp::parse_rfc3339(text).ok())
    }

    /// Checks the start and the expiration time. The error is for people.
    pub fn check_times(&self) -> Result<(), String> {
        for (name, time) in [("start_time", &self.start_time), ("expiration", &self.expiration)] {
            if let Some(Err(error)) = time.as_deref().map(Timestamp::parse_rfc3339) {
                return Err(format!("{name}: {error}"));
            }
        }
        Ok(())
    }

    /// Returns whether the start time has passed; a malformed time counts as passed.
    pub fn is_due(&self, now: Timestamp) -> bool {
        self.start().is_none_or(|start| start <= now)
    }

    /// Returns whether the action has expired; a malformed time counts as none.
    pub fn is_expired(&self, now: Timestamp) -> bool {
        self.expiration.as_deref().and_then(|text| Timestamp::parse_rfc3339(text).ok()).is_some_and(|end| end <= now)
    }
}

impl From<WireAction> for Action {
    fn from(wire: WireAction) -> Self {
        Self {
            id: wire.id,
            kind: wire.kind.into(),
            input_type: wire.input_type,
            data: wire.data,
            start_time: wire.start_time,
            expiration: wire.expiration,
            timeout: wire.timeout,
            signed: wire.signed.map(|block| SignedBlock { data: block.data, signature: block.signature }),
            pinned_key: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_stored_action_keeps_every_field_of_the_wire() {
        let wire: WireAction =
            serde_json::from_value(json!({"agent_id": "a", "created_at": "", "id": "x", "type": "DANCE",
            "input_type": "osquery", "data": {"n": 1.50}, "start_time": "soon", "timeout": 7,
            "signed": {"data": "d", "signature": "s"}}))
            .unwrap();
        let action = Action::from(wire);
        let text = serde_json::to_string(&action).unwrap();
        let again: Action = serde_json::from_str(&text).unwrap();
        assert_eq!(serde_json::to_string(&again).unwrap(), text);
        assert_eq!((again.kind.as_str(), again.data.unwrap().get()), ("DANCE", "{\"n\":1.5}"));
        assert!(!text.contains("agent_id") && !text.contains("created_at"), "{text}");
        assert!(action.is_due(Timestamp::from_micros(0)) && !action.is_expired(Timestamp::from_micros(0)));
    }

    #[test]
    fn every_known_type_has_its_own_name() {
        for (name, kind) in NAMES {
            assert_eq!((kind.as_str(), Kind::from(name.to_owned())), (name, kind.clone()));
        }
    }
}
