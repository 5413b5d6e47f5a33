//! Progress of an upgrade as reported by the agent (EA §4.6).

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::reported::{UPGRADE_KEPT_BYTES, shortened, shortened_to};
use crate::time::Timestamp;

/// Reported details, as they are stored.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub struct UpgradeDetails {
    /// Target version.
    #[serde(default)]
    pub target_version: String,
    /// `UPG_REQUESTED` … `UPG_FAILED`.
    #[serde(default)]
    pub state: String,
    /// Id of the action.
    #[serde(default)]
    pub action_id: String,
    /// Fields that depend on the state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Value>,
}

// The states that matter here; adapters validate the others.
const FAILED: &str = "UPG_FAILED";
const SCHEDULED: &str = "UPG_SCHEDULED";
/// Maximum length of a version, bytes.
const VERSION_BYTES: usize = 128;

impl UpgradeDetails {
    /// Truncates long strings, and drops the metadata if it is still too large.
    #[must_use]
    pub fn within_bounds(mut self) -> Self {
        self.target_version = shortened_to(&self.target_version, VERSION_BYTES).into_owned();
        for text in self.metadata.iter_mut().filter_map(Value::as_object_mut).flat_map(Map::values_mut) {
            if let Value::String(text) = text {
                *text = shortened(text).into_owned();
            }
        }
        // Many short strings can still be too much.
        if self.to_json().len() > UPGRADE_KEPT_BYTES {
            self.metadata = None;
        }
        self
    }

    /// Sets the error of an attempt that is repeated.
    #[must_use]
    pub fn with_retry_error(mut self, error: &str) -> Self {
        let mut fields = match self.metadata.take() {
            Some(Value::Object(fields)) => fields,
            _ => Map::new(),
        };
        fields.insert("retry_error_msg".to_owned(), error.into());
        self.metadata = Some(Value::Object(fields));
        self.within_bounds()
    }

    /// Parses stored details.
    pub fn stored(raw: &str) -> Option<Self> {
        serde_json::from_str(raw).ok()
    }

    /// Serializes the details for the store.
    pub fn to_json(&self) -> Arc<str> {
        serde_json::to_string(self).unwrap_or_default().into()
    }

    /// Returns whether the upgrade has failed.
    pub fn has_failed(&self) -> bool {
        self.state == FAILED
    }

    /// Returns the last error, even if the agent is still retrying.
    pub fn error(&self) -> Option<&str> {
        let metadata = self.metadata.as_ref()?;
        // The final error takes precedence over that of an earlier attempt.
        let texts = ["error_msg", "retry_error_msg"].map(|key| metadata.get(key).and_then(Value::as_str));
        texts.into_iter().flatten().find(|text| !text.is_empty())
    }

    /// Returns the scheduled time of an upgrade that has not started yet.
    pub fn scheduled_at(&self) -> Option<Timestamp> {
        let at = self.metadata.as_ref()?.get("scheduled_at")?.as_str()?;
        if self.state == SCHEDULED { Timestamp::parse_rfc3339(at).ok() } else { None }
    }
}
