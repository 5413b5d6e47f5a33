//! Progress of an upgrade, as it is reported with check-ins (AG §8.1).

use serde::{Deserialize, Serialize};

/// Stage of an upgrade. The names are those on the wire. A completed upgrade has no stage: the details disappear.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stage {
    /// Accepted.
    #[serde(rename = "UPG_REQUESTED")]
    Requested,
    /// Waiting for its start time.
    #[serde(rename = "UPG_SCHEDULED")]
    Scheduled,
    /// Downloading and verifying the package.
    #[serde(rename = "UPG_DOWNLOADING")]
    Downloading,
    /// Unpacking the package.
    #[serde(rename = "UPG_EXTRACTING")]
    Extracting,
    /// Starting the watcher and changing the link.
    #[serde(rename = "UPG_REPLACING")]
    Replacing,
    /// The daemon becomes the new version.
    #[serde(rename = "UPG_RESTARTING")]
    Restarting,
    /// The new version runs, and the watcher observes it.
    #[serde(rename = "UPG_WATCHING")]
    Watching,
    /// The previous version runs again.
    #[serde(rename = "UPG_ROLLBACK")]
    Rollback,
    /// Failed, or rolled back.
    #[serde(rename = "UPG_FAILED")]
    Failed,
}

/// Progress of one upgrade.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Details {
    /// Target version.
    pub target_version: String,
    /// Stage.
    pub state: Stage,
    /// The action; empty if a command on the host requested the upgrade.
    #[serde(default)]
    pub action_id: String,
    /// Fields that depend on the stage.
    #[serde(default)]
    pub metadata: Metadata,
}

/// Fields that depend on the stage.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Metadata {
    /// Start time of a scheduled upgrade (RFC 3339).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scheduled_at: Option<String>,
    /// Downloaded part, from 0 to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub download_percent: Option<f64>,
    /// Bytes per second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub download_rate: Option<f64>,
    /// Why the last attempt failed; the download is retried.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_error_msg: Option<String>,
    /// End of the retries (RFC 3339).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_until: Option<String>,
    /// Stage that failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failed_state: Option<Stage>,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error_msg: Option<String>,
    /// Why the previous version runs again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl Details {
    /// Returns the details without the fields that change all the time during a download.
    pub fn gist(&self) -> (Stage, &str, Option<&str>) {
        (self.state, &self.target_version, self.metadata.retry_error_msg.as_deref())
    }

    /// Returns the details of the same upgrade after it failed.
    #[must_use]
    pub fn failed(&self, stage: Stage, message: &str) -> Self {
        let message = if message.is_empty() { "the upgrade failed" } else { message };
        let metadata =
            Metadata { failed_state: Some(stage), error_msg: Some(message.to_owned()), ..Metadata::default() };
        Self { state: Stage::Failed, metadata, ..self.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_names_its_stage_and_reason_as_on_the_wire() {
        let details = Details {
            target_version: "0.2.0".into(),
            state: Stage::Downloading,
            action_id: "a".into(),
            metadata: Metadata { download_percent: Some(0.5), ..Metadata::default() },
        };
        let failed = serde_json::to_value(details.failed(Stage::Downloading, "")).unwrap();
        assert_eq!(
            failed,
            serde_json::json!({"target_version": "0.2.0", "state": "UPG_FAILED", "action_id": "a",
                "metadata": {"failed_state": "UPG_DOWNLOADING", "error_msg": "the upgrade failed"}})
        );
    }
}
