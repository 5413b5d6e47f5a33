//! What a person may set in `agent.yml` or with `--set`. All of it has a default.

use std::time::Duration;

use camino::Utf8Path;
use serde::Deserialize;

use crate::{duration, state::atomic};

/// Greatest settings file.
const FILE_MAX: usize = 1 << 20;

/// Every setting.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// How the server is asked.
    pub checkin: CheckInSettings,
    /// How acks are repeated.
    pub ack: AckSettings,
    /// When a refusal is definite.
    pub revocation: RevocationSettings,
    /// How programs are kept.
    pub process: ProcessSettings,
}

/// `checkin`.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CheckInSettings {
    /// First wait after a failure, at least.
    #[serde(deserialize_with = "duration::deserialize")]
    pub request_backoff_init: Duration,
    /// No wait reaches it.
    #[serde(deserialize_with = "duration::deserialize")]
    pub request_backoff_max: Duration,
    /// Wait between a reply and the next request.
    #[serde(deserialize_with = "duration::deserialize")]
    pub interval: Duration,
    /// What is added to it by chance, at most.
    #[serde(deserialize_with = "duration::deserialize")]
    pub jitter: Duration,
    /// When a held request is given up to report a change at once.
    pub mode: Mode,
    /// The least time between two requests that a change of state causes.
    #[serde(deserialize_with = "duration::deserialize")]
    pub state_change_gap: Duration,
}

/// `checkin.mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// A change is reported with the next request.
    Standard,
    /// A change of a component's state gives up the held request.
    OnStateChange,
}

/// `ack`.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AckSettings {
    /// First wait after a failure, at least.
    #[serde(deserialize_with = "duration::deserialize")]
    pub backoff_init: Duration,
    /// No wait reaches it.
    #[serde(deserialize_with = "duration::deserialize")]
    pub backoff_max: Duration,
    /// How often the server may refuse one ack before it is dropped.
    pub attempts: u32,
}

/// `revocation`.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RevocationSettings {
    /// How many refusals in a row.
    pub attempts: u32,
    /// From the first to the last of them, at least.
    #[serde(deserialize_with = "duration::deserialize")]
    pub spread: Duration,
    /// How often a revoked agent asks whether it may come back.
    #[serde(deserialize_with = "duration::deserialize")]
    pub poll: Duration,
}

/// `process`.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ProcessSettings {
    /// First wait before a restart, at least.
    #[serde(deserialize_with = "duration::deserialize")]
    pub restart_backoff_init: Duration,
    /// No wait reaches it.
    #[serde(deserialize_with = "duration::deserialize")]
    pub restart_backoff_max: Duration,
    /// A program that ran this long begins with the first wait again.
    #[serde(deserialize_with = "duration::deserialize")]
    pub stable_after: Duration,
    /// From the polite signal to the other one.
    #[serde(deserialize_with = "duration::deserialize")]
    pub stop_timeout: Duration,
    /// Bytes of one log file of a program.
    pub log_max_bytes: u64,
    /// How many of them are kept beside the current one.
    pub log_files: u32,
}

impl Default for CheckInSettings {
    fn default() -> Self {
        Self {
            request_backoff_init: Duration::from_secs(60),
            request_backoff_max: Duration::from_secs(600),
            interval: Duration::from_secs(1),
            jitter: Duration::from_millis(500),
            mode: Mode::OnStateChange,
            state_change_gap: Duration::from_secs(5),
        }
    }
}

impl Default for AckSettings {
    fn default() -> Self {
        Self { backoff_init: Duration::from_secs(5), backoff_max: Duration::from_secs(300), attempts: 5 }
    }
}

impl Default for RevocationSettings {
    fn default() -> Self {
        Self { attempts: 7, spread: Duration::from_secs(120), poll: Duration::from_secs(3600) }
    }
}

impl Default for ProcessSettings {
    fn default() -> Self {
        Self {
            restart_backoff_init: Duration::from_secs(1),
            restart_backoff_max: Duration::from_secs(60),
            stable_after: Duration::from_secs(60),
            stop_timeout: Duration::from_secs(25),
            log_max_bytes: 10 << 20,
            log_files: 2,
        }
    }
}

/// Settings that can't be used.
#[derive(Debug, thiserror::Error)]
#[error("{origin}: {reason}")]
pub struct BadSettings {
    origin: String,
    reason: String,
}

impl Settings {
    /// The file's, if there is one, with `KEY=VALUE` pairs over it.
    pub fn load(file: &Utf8Path, pairs: &[String]) -> Result<Self, BadSettings> {
        let bad = |reason: String| BadSettings { origin: file.to_string(), reason };
        let bytes = atomic::read(file).map_err(|error| bad(error.to_string()))?.unwrap_or_default();
        if bytes.len() > FILE_MAX {
            return Err(bad(format!("longer than {FILE_MAX} bytes")));
        }
        let text = String::from_utf8(bytes).map_err(|error| bad(error.to_string()))?;
        let mut tree = serde_json::json!({});
        if !text.trim().is_empty() {
            // Once into the type for errors with their position, once into a tree that pairs can be laid over.
            serde_saphyr::from_str::<Self>(&text).map_err(|error| bad(error.to_string()))?;
            tree = serde_saphyr::from_str(&text).map_err(|error| bad(error.to_string()))?;
        }
        for pair in pairs {
            set(&mut tree, pair)?;
        }
        serde_json::from_value(tree)
            .map_err(|error| BadSettings { origin: "settings".into(), reason: error.to_string() })
    }
}

fn set(tree: &mut serde_json::Value, pair: &str) -> Result<(), BadSettings> {
    let bad = |reason: &str| BadSettings { origin: format!("--set {pair}"), reason: reason.to_owned() };
    let (key, value) = pair.split_once('=').ok_or_else(|| bad("write KEY=VALUE"))?;
    let value = value.parse::<u64>().map_or_else(|_| value.into(), serde_json::Value::from);
    let mut place = tree;
    for part in key.split('.') {
        let object = place.as_object_mut().ok_or_else(|| bad("there is no such key"))?;
        place = object.entry(part).or_insert_with(|| serde_json::json!({}));
    }
    *place = value;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str, pairs: &[&str]) -> Result<Settings, BadSettings> {
        let folder = tempfile::tempdir().unwrap();
        let file = Utf8Path::from_path(folder.path()).unwrap().join("agent.yml");
        fs_err::write(&file, text).unwrap();
        Settings::load(&file, &pairs.iter().map(|pair| (*pair).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn pairs_lie_over_the_file_and_the_file_over_the_defaults() {
        let text = "checkin:\n  request_backoff_init: 2s\n  mode: standard\n";
        let settings = load(text, &["checkin.request_backoff_init=3s", "revocation.attempts=2"]).unwrap();
        assert_eq!(settings.checkin.request_backoff_init, Duration::from_secs(3));
        assert_eq!(settings.checkin.mode, Mode::Standard);
        assert_eq!(settings.checkin.request_backoff_max, Duration::from_secs(600));
        assert_eq!(settings.revocation.attempts, 2);
    }

    #[test]
    fn an_unknown_key_and_a_bad_value_are_refused() {
        assert!(load("checkin:\n  intervall: 2s\n", &[]).unwrap_err().to_string().contains("intervall"));
        assert!(load("", &["checkin.interval=soon"]).unwrap_err().to_string().contains("soon"));
        assert!(load("", &["nothing"]).is_err());
        assert!(load("", &["checkin.x.y=1"]).is_err());
    }
}
