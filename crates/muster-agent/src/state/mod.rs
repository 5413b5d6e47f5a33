//! The data that the agent stores: the enrollment (identity, credentials, servers) and the state (policy, actions,
//! acks).
//!
//! These are two documents with versions, which are replaced atomically. They are written only when something has
//! changed.

pub mod action;
pub mod atomic;
pub mod disk;
pub mod enrollment;
pub mod memory;
pub mod record;
pub mod seal;

use std::collections::VecDeque;

use muster_core::Timestamp;
use muster_core::error_chain::SharedError;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

pub use action::{Action, Kind};
pub use enrollment::Enrollment;

use crate::install::privileges::Wanted;
use crate::upgrade::details::Details;

/// Version of the state document.
pub const STATE_VERSION: u32 = 1;
/// Number of handled actions to remember, so that a repeated delivery is recognized.
pub const HANDLED_MAX: usize = 256;
/// Maximum number of pending acks; the oldest are dropped.
pub const OUTBOX_MAX: usize = 1000;
/// Maximum length of the error in an ack, in characters.
pub const ERROR_MAX: usize = 2000;
/// Maximum number of queued actions.
pub const INBOX_MAX: usize = 1000;

/// Phase of the agent's life cycle.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Enrolled and working.
    #[default]
    Active,
    /// UNENROLL received; the last ack is pending.
    Unenrolling,
    /// Unenrolled: nothing runs, and the agent does not poll until the next enrollment.
    Unenrolled,
    /// Access key revoked: nothing runs, and the agent polls the server rarely.
    Revoked,
}

/// An accepted policy.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StoredPolicy {
    /// `policy:<id>:<revision>`.
    pub action_id: String,
    /// `data.policy.id`.
    pub id: String,
    /// `data.policy.revision`.
    pub revision: i64,
    /// The exact bytes of `data.policy`, which its signature covers.
    pub policy: Box<RawValue>,
}

/// A rejected policy; the last accepted one stays in effect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rejected {
    /// Id of its action.
    pub action_id: String,
    /// SHA-256 of the policy in hex. Another policy with the same id is evaluated again.
    pub digest: String,
    /// The reason.
    pub reason: String,
    /// Kind of the fault.
    #[serde(default)]
    pub fault: Fault,
}

/// Kind of the fault of a rejected policy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// It is not from the server that the agent trusts.
    #[default]
    Untrusted,
    /// It is malformed or contradictory.
    Invalid,
}

/// Limit of a device on the network path that cuts held polls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PollLimit {
    /// Milliseconds after which a poll was cut.
    pub cut_after_ms: u64,
    /// Whether a second poll was cut after about the same time.
    pub confirmed: bool,
}

/// An ack that the server has not confirmed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PendingAck {
    /// Id of the action.
    pub action_id: String,
    /// Type of the action, for the message.
    pub kind: String,
    /// Time of completion (RFC 3339).
    pub timestamp: String,
    /// Error, if it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// `data` of the ack: the id of an upload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<serde_json::Value>,
    /// For `INPUT_ACTION`: the input type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input_type: Option<String>,
    /// For `INPUT_ACTION`: what the component did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<InputResult>,
    /// How often the server has rejected this ack.
    #[serde(default)]
    pub refusals: u32,
}

/// What a component did for an action.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputResult {
    /// When the component got the action (RFC 3339).
    pub started_at: String,
    /// `data` of the action.
    pub data: serde_json::Value,
    /// The result, if it did not fail.
    pub response: Option<serde_json::Value>,
}

/// The state document.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct State {
    // The other fields have defaults, so that a state of an earlier version of the agent can be loaded.
    /// [`STATE_VERSION`].
    pub version: u32,
    /// Phase.
    #[serde(default)]
    pub phase: Phase,
    /// The last accepted policy.
    #[serde(default)]
    pub policy: Option<StoredPolicy>,
    /// A received policy that has not been applied yet.
    #[serde(default)]
    pub candidate: Option<Action>,
    /// The last rejected policy.
    #[serde(default)]
    pub rejected: Option<Rejected>,
    /// Ack token of the newest actions, which are in `inbox` or handled.
    #[serde(default)]
    pub ack_token: String,
    /// Queued actions, in order.
    #[serde(default)]
    pub inbox: VecDeque<Action>,
    /// Acks of handled actions, newest last. An action that is delivered again gets the same ack.
    #[serde(default)]
    pub handled: VecDeque<PendingAck>,
    /// Pending acks, oldest first.
    #[serde(default)]
    pub outbox: VecDeque<PendingAck>,
    /// Log level set by SETTINGS.
    #[serde(default)]
    pub log_level: Option<String>,
    /// Limit on the duration of polls, learned from polls that were cut.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub poll_limit: Option<PollLimit>,
    /// The upgrade in progress, or the last one, if it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upgrade: Option<UpgradeReport>,
    /// The enrollment at the server to which the agent migrates. It replaces the current one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub migration: Option<Enrollment>,
    /// The change of the privilege level for which the daemon has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lowering: Option<Lowering>,
    /// Id of a standalone agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub standalone_id: Option<String>,
}

/// A change of the privilege level in progress.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lowering {
    /// Id of its action.
    pub action_id: String,
    /// The account to run as.
    pub wanted: Wanted,
}

/// An upgrade, as it is reported.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UpgradeReport {
    /// Its details.
    pub details: Details,
    /// How often it was begun. A crash interrupts it.
    #[serde(default)]
    pub attempts: u32,
}

impl Default for State {
    fn default() -> Self {
        Self {
            version: STATE_VERSION,
            phase: Phase::Active,
            policy: None,
            candidate: None,
            rejected: None,
            ack_token: String::new(),
            inbox: VecDeque::new(),
            handled: VecDeque::new(),
            outbox: VecDeque::new(),
            log_level: None,
            poll_limit: None,
            upgrade: None,
            migration: None,
            lowering: None,
            standalone_id: None,
        }
    }
}

impl PendingAck {
    /// Creates the ack of `action`, completed at `now`.
    pub fn of(action: &Action, now: Timestamp, outcome: Result<(), String>) -> Self {
        // Errors can contain text from programs or the network, of any length.
        let error = outcome.err().map(|error| error.chars().take(ERROR_MAX).collect());
        let input_type = (action.kind == Kind::InputAction).then(|| action.input_type.clone());
        let (action_id, kind) = (action.id.clone(), action.kind.as_str().to_owned());
        Self {
            action_id,
            kind,
            timestamp: now.to_rfc3339_millis(),
            error,
            data: None,
            input_type,
            input: None,
            refusals: 0,
        }
    }

    /// Creates the ack of a policy that is in effect since `now`.
    pub fn of_policy(action_id: &str, now: Timestamp) -> Self {
        let (action_id, kind) = (action_id.to_owned(), Kind::PolicyChange.as_str().to_owned());
        let timestamp = now.to_rfc3339_millis();
        Self { action_id, kind, timestamp, error: None, data: None, input_type: None, input: None, refusals: 0 }
    }
}

impl State {
    /// Creates an empty state in this phase, without policy, actions and acks.
    pub fn without_policy(phase: Phase) -> Self {
        Self { phase, ..Self::default() }
    }

    /// Records that an action was handled: removes it from the inbox, and queues and stores its ack.
    pub fn handled(&mut self, ack: PendingAck) {
        // All of this is stored in a single write: after a crash, the action is either queued, or handled and has an
        // ack.
        self.inbox.retain(|action| action.id != ack.action_id);
        self.handled.retain(|known| known.action_id != ack.action_id);
        self.handled.push_back(ack.clone());
        // The state file is rewritten at every change, so that everything in it is limited.
        while self.handled.len() > HANDLED_MAX {
            self.handled.pop_front();
        }
        self.owe(ack);
    }

    /// Queues an ack, and replaces an older one for the same action.
    pub fn owe(&mut self, ack: PendingAck) {
        self.outbox.retain(|known| known.action_id != ack.action_id);
        self.outbox.push_back(ack);
        while self.outbox.len() > OUTBOX_MAX {
            self.outbox.pop_front();
        }
    }
}

/// Why a document cannot be loaded or saved.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Reading or writing failed.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: String,
        /// The system's error.
        source: std::io::Error,
    },
    /// The document is corrupt.
    #[error("{path} is corrupt: {source}")]
    Damaged {
        /// The file.
        path: String,
        /// Position and reason.
        source: SharedError,
    },
    /// It cannot be decrypted, because the key is missing or cannot be used on this host.
    #[error("{path} cannot be decrypted: {source}")]
    Locked {
        /// The file.
        path: String,
        /// What is wrong with the key.
        source: SharedError,
    },
    /// A newer version of the agent wrote it.
    #[error("{path} has version {found}, but this agent supports versions up to {known}")]
    Newer {
        /// The file.
        path: String,
        /// Its version.
        found: u64,
        /// The newest supported one.
        known: u32,
    },
    /// Root acts only on records of root, because the user of an unprivileged agent can write anything into its base path.
    #[error("{path} belongs to user id {owner}, so that root does not trust it")]
    Foreign {
        /// The file.
        path: String,
        /// Its owner.
        owner: u32,
    },
}

/// Storage of the two documents.
pub trait Store: Send + Sync {
    /// Loads the enrollment; `None` if there is none.
    fn enrollment(&self) -> Result<Option<Enrollment>, StoreError>;
    /// Replaces the enrollment.
    fn save_enrollment(&self, enrollment: &Enrollment) -> Result<(), StoreError>;
    /// Removes the enrollment with its credentials.
    fn forget_enrollment(&self) -> Result<(), StoreError>;
    /// Loads the state; the default if there is none.
    fn state(&self) -> Result<State, StoreError>;
    /// Replaces the state.
    fn save_state(&self, state: &State) -> Result<(), StoreError>;
    /// Renames a corrupt state and returns its new path.
    fn set_state_aside(&self) -> Result<String, StoreError>;
}
