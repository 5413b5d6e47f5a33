//! Settings: `agent.yml` and `--set`. Every key has a default.

use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use serde::Deserialize;

use crate::duration;
use crate::model::catalog::trusted;
use crate::state::enrollment::Secret;
use crate::variables::settings::ProviderSettings;
use crate::yaml;
use muster_core::error_chain::SharedError;

/// All settings.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Check-ins.
    pub checkin: CheckInSettings,
    /// Delivery of acks.
    pub ack: AckSettings,
    /// Detection of a revoked access key.
    pub revocation: RevocationSettings,
    /// Supervision of programs.
    pub process: ProcessSettings,
    /// Providers of variables.
    pub providers: ProviderSettings,
    /// Upgrades of the agent.
    pub upgrade: UpgradeSettings,
    /// Log of the agent.
    pub log: LogSettings,
}

/// `log`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogSettings {
    /// Level, unless the server or the policy sets one.
    pub level: Level,
}

/// `log.level`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// Everything.
    Trace,
    /// Also debug messages.
    Debug,
    /// Also information.
    #[default]
    Info,
    /// Warnings and errors.
    Warning,
    /// Errors.
    Error,
}

impl Level {
    /// Returns the name of the level.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Trace => "trace",
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// `checkin`.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CheckInSettings {
    /// Minimum of the first delay after a failure.
    #[serde(deserialize_with = "duration::deserialize")]
    pub request_backoff_init: Duration,
    /// Maximum delay.
    #[serde(deserialize_with = "duration::deserialize")]
    pub request_backoff_max: Duration,
    /// Delay between a response and the next request.
    #[serde(deserialize_with = "duration::deserialize")]
    pub interval: Duration,
    /// Maximum random addition to this delay.
    #[serde(deserialize_with = "duration::deserialize")]
    pub jitter: Duration,
    /// Whether a state change interrupts a held request.
    pub mode: Mode,
    /// Minimum time between two requests caused by state changes.
    #[serde(deserialize_with = "duration::deserialize")]
    pub state_change_gap: Duration,
}

/// `checkin.mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// A change is reported with the next request.
    Standard,
    /// A change of the state of a component interrupts the held request.
    OnStateChange,
}

/// `ack`.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AckSettings {
    /// Minimum of the first delay after a failure.
    #[serde(deserialize_with = "duration::deserialize")]
    pub backoff_init: Duration,
    /// Maximum delay.
    #[serde(deserialize_with = "duration::deserialize")]
    pub backoff_max: Duration,
    /// Number of rejections after which an ack is dropped.
    pub attempts: u32,
}

/// `revocation`.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RevocationSettings {
    /// Minimum number of consecutive rejections.
    pub attempts: u32,
    /// Minimum time from the first to the last rejection.
    #[serde(deserialize_with = "duration::deserialize")]
    pub spread: Duration,
    /// Polling interval of a revoked agent.
    #[serde(deserialize_with = "duration::deserialize")]
    pub poll: Duration,
}

/// `process`.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ProcessSettings {
    /// Minimum of the first delay before a restart.
    #[serde(deserialize_with = "duration::deserialize")]
    pub restart_backoff_init: Duration,
    /// Maximum delay.
    #[serde(deserialize_with = "duration::deserialize")]
    pub restart_backoff_max: Duration,
    /// Run time after which the back-off is reset.
    #[serde(deserialize_with = "duration::deserialize")]
    pub stable_after: Duration,
    /// Time between SIGTERM and SIGKILL.
    #[serde(deserialize_with = "duration::deserialize")]
    pub stop_timeout: Duration,
    /// Maximum size of a program's log file, in bytes.
    pub log_max_bytes: u64,
    /// Number of rotated log files to keep.
    pub log_files: u32,
    /// Maximum private memory of each process of a component, bytes; `None` means no limit.
    pub memory_max: Option<u64>,
}

/// `upgrade`.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct UpgradeSettings {
    /// URL of a directory with packages; the default is the server of the fleet.
    pub source_uri: Option<String>,
    /// Release keys to trust, in addition to those of the program: Ed25519 public keys in base64.
    pub keys: Vec<String>,
    /// Proxy for mirrors that are not those of the policy; may contain credentials.
    pub proxy_url: Option<Secret>,
    /// PEM files with the CA certificates of mirrors; the default is the system's trust store.
    pub certificate_authorities: Vec<Utf8PathBuf>,
    /// Maximum total time of a download with its retries.
    #[serde(deserialize_with = "duration::deserialize")]
    pub download_timeout: Duration,
    /// Time for which a new version is watched.
    #[serde(deserialize_with = "duration::deserialize")]
    pub grace_period: Duration,
    /// Interval at which the watcher checks the new version.
    #[serde(deserialize_with = "duration::deserialize")]
    pub check_interval: Duration,
}

impl Default for UpgradeSettings {
    fn default() -> Self {
        Self {
            source_uri: None,
            proxy_url: None,
            keys: Vec::new(),
            certificate_authorities: Vec::new(),
            download_timeout: Duration::from_secs(2 * 3600),
            grace_period: Duration::from_secs(600),
            check_interval: Duration::from_secs(10),
        }
    }
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
            memory_max: None,
        }
    }
}

/// Invalid settings.
#[derive(Debug, thiserror::Error)]
#[error("{origin}: {source}")]
pub struct BadSettings {
    origin: String,
    source: SharedError,
}

impl Settings {
    /// Loads the file, if it exists, and overrides its keys with `KEY=VALUE` pairs.
    pub fn load(file: &Utf8Path, pairs: &[String]) -> Result<Self, BadSettings> {
        let bad = |source: SharedError| BadSettings { origin: file.to_string(), source };
        // A missing file is fine, and an unreadable one is not: it may contain what the administrator relies on.
        // It also names the keys that sign upgrades, so that nobody else may have written it.
        let text = trusted(file).map_err(|reason| bad(reason.into()))?.unwrap_or_default();
        let mut tree = serde_json::json!({});
        if !text.trim().is_empty() {
            // Parsed twice: into the type, for errors of the file, and into a tree whose keys can be overridden.
            yaml::read::<Self>(&text).map_err(bad)?;
            tree = yaml::read(&text).map_err(bad)?;
        }
        for pair in pairs {
            set(&mut tree, pair)?;
        }
        // The merged tree is parsed again, which also checks the keys and values of `--set`.
        let merged = |source: SharedError| BadSettings { origin: "settings".into(), source };
        let settings: Self = serde_json::from_value(tree).map_err(|error| merged(error.into()))?;
        settings.providers.kubernetes_leaderelection.check().map_err(|reason| merged(reason.into()))?;
        for (key, attempts) in [("ack", settings.ack.attempts), ("revocation", settings.revocation.attempts)] {
            if attempts == 0 {
                return Err(merged(format!("{key}.attempts: the minimum is 1").into()));
            }
        }
        Ok(settings)
    }
}

fn set(tree: &mut serde_json::Value, pair: &str) -> Result<(), BadSettings> {
    let bad = |reason: &str| BadSettings { origin: format!("--set {pair}"), source: reason.into() };
    let (key, value) = pair.split_once('=').ok_or_else(|| bad("expected KEY=VALUE"))?;
    // Counts and sizes are numbers; all other settings are strings.
    let value = value.parse::<u64>().map_or_else(|_| value.into(), serde_json::Value::from);
    let mut place = tree;
    for part in key.split('.') {
        let object = place.as_object_mut().ok_or_else(|| bad("unknown key"))?;
        // A mistyped key is rejected later, because the type does not allow unknown fields.
        place = object.entry(part).or_insert_with(|| serde_json::json!({}));
    }
    *place = value;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str, pairs: &[&str]) -> Result<Settings, BadSettings> {
        let directory = tempfile::tempdir().unwrap();
        let file = Utf8Path::from_path(directory.path()).unwrap().join("agent.yml");
        fs_err::write(&file, text).unwrap();
        Settings::load(&file, &pairs.iter().map(|pair| (*pair).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn set_overrides_the_file_and_the_file_overrides_defaults() {
        let text = "checkin:\n  request_backoff_init: 2s\n  mode: standard\n";
        let settings = load(text, &["checkin.request_backoff_init=3s", "revocation.attempts=2"]).unwrap();
        assert_eq!(settings.checkin.request_backoff_init, Duration::from_secs(3));
        assert_eq!(settings.checkin.mode, Mode::Standard);
        assert_eq!(settings.checkin.request_backoff_max, Duration::from_secs(600));
        assert_eq!(settings.revocation.attempts, 2);
    }

    #[test]
    fn unknown_keys_and_invalid_values_are_rejected() {
        assert!(load("checkin:\n  intervall: 2s\n", &[]).unwrap_err().to_string().contains("intervall"));
        assert!(load("", &["checkin.interval=soon"]).unwrap_err().to_string().contains("soon"));
        assert!(load("", &["nothing"]).is_err());
        assert!(load("", &["checkin.x.y=1"]).is_err());
        assert!(load("", &["revocation.attempts=0"]).unwrap_err().to_string().contains("the minimum is 1"));
    }

    #[test]
    fn a_file_that_others_can_write_is_rejected() {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = tempfile::tempdir().unwrap();
        let file = Utf8Path::from_path(directory.path()).unwrap().join("agent.yml");
        fs_err::write(&file, "log: {level: debug}").unwrap();
        fs_err::set_permissions(&file, std::fs::Permissions::from_mode(0o666)).unwrap();
        assert!(Settings::load(&file, &[]).unwrap_err().to_string().contains("writable by others"));
        fs_err::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(Settings::load(&file, &[]).is_ok());
    }

    #[test]
    fn a_leader_must_give_up_before_its_lease_ends() {
        let with = |lease: &str, deadline: &str, retry: &str| {
            let pairs = [("leaseduration", lease), ("renewdeadline", deadline), ("retryperiod", retry)];
            let pairs = pairs.map(|(name, value)| format!("providers.kubernetes_leaderelection.leader_{name}={value}"));
            load("", &pairs.each_ref().map(String::as_str)).map(|_| ()).map_err(|error| error.to_string())
        };
        assert_eq!(with("15s", "10s", "2s"), Ok(()));
        for (lease, deadline, retry) in
            [("10s", "10s", "2s"), ("1900ms", "1500ms", "100ms"), ("15s", "2s", "2s"), ("0s", "0s", "0s")]
        {
            let error = with(lease, deadline, retry).unwrap_err();
            assert!(error.contains("must be longer than leader_renewdeadline"), "{error}");
        }
    }
}
