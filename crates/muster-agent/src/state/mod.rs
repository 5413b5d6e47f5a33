//! What the agent keeps: the enrolment (who we are and where the server is) and the state (what we run and owe).
//!
//! Two documents, each with a version, each replaced atomically. They are written when something changed and never
//! because time passed.

pub mod atomic;
pub mod disk;
pub mod enrollment;
pub mod memory;

use std::collections::VecDeque;

use muster_core::Timestamp;
use muster_protocol::elastic::check_in::WireAction;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

pub use enrollment::Enrollment;

/// Version of the state document.
pub const STATE_VERSION: u32 = 1;
/// How many handled actions are remembered, to tell a second delivery from a first.
pub const HANDLED_MAX: usize = 256;
/// How many acks may wait; the oldest give way.
pub const OUTBOX_MAX: usize = 1000;
/// Characters of an error that an ack carries.
pub const ERROR_MAX: usize = 2000;
/// How many actions may wait.
pub const INBOX_MAX: usize = 1000;

/// Where the agent stands in its life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Enrolled, working.
    #[default]
    Active,
    /// Told to unenrol; the last ack is on its way.
    Unenrolling,
    /// Unenrolled: nothing runs, nothing is polled, until a new enrolment.
    Unenrolled,
    /// Definitely refused: nothing runs, the server is asked rarely.
    Revoked,
}

/// A policy that was accepted.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StoredPolicy {
    /// `policy:<id>:<revision>`.
    pub action_id: String,
    /// `data.policy.id`.
    pub id: String,
    /// `data.policy.revision`.
    pub revision: i64,
    /// `data.policy`, byte for byte.
    pub policy: Box<RawValue>,
}

/// A policy that was not accepted; the last good one goes on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rejected {
    /// The action that brought it.
    pub action_id: String,
    /// SHA-256 over the policy's bytes, hex: another policy under the same id is looked at anew.
    pub digest: String,
    /// Why.
    pub reason: String,
}

/// What is known of something on the way to the server that cuts held polls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PollLimit {
    /// Milliseconds after which a poll was cut.
    pub cut_after_ms: u64,
    /// A second poll was cut after about the same time: no coincidence.
    pub confirmed: bool,
}

/// An ack that the server has not confirmed yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PendingAck {
    /// The action's id.
    pub action_id: String,
    /// The action's type, for the message.
    pub kind: String,
    /// RFC 3339: when it was done.
    pub timestamp: String,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// `data` of the ack: the upload's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<serde_json::Value>,
    /// `INPUT_ACTION`: the type asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input_type: Option<String>,
    /// How often the server refused this very item.
    #[serde(default)]
    pub refusals: u32,
}

/// The state document.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct State {
    /// [`STATE_VERSION`].
    pub version: u32,
    /// Where we stand.
    #[serde(default)]
    pub phase: Phase,
    /// The last good policy.
    #[serde(default)]
    pub policy: Option<StoredPolicy>,
    /// The policy that came last and is to be applied.
    #[serde(default)]
    pub candidate: Option<WireAction>,
    /// The policy that was turned down last.
    #[serde(default)]
    pub rejected: Option<Rejected>,
    /// Token of the last actions that lie in `inbox` or are handled.
    #[serde(default)]
    pub ack_token: String,
    /// Actions to run, in order.
    #[serde(default)]
    pub inbox: VecDeque<WireAction>,
    /// The acks of actions that ran, newest last: who comes again is answered the same.
    #[serde(default)]
    pub handled: VecDeque<PendingAck>,
    /// Acks to deliver, oldest first.
    #[serde(default)]
    pub outbox: VecDeque<PendingAck>,
    /// Log level that SETTINGS asked for.
    #[serde(default)]
    pub log_level: Option<String>,
    /// Limit on the length of polls, learned from cut ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub poll_limit: Option<PollLimit>,
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
        }
    }
}

impl PendingAck {
    /// The ack of `action`, done at `now`.
    pub fn of(action: &WireAction, now: Timestamp, outcome: Result<(), String>) -> Self {
        let error = outcome.err().map(|error| error.chars().take(ERROR_MAX).collect());
        let input_type = (action.kind == "INPUT_ACTION").then(|| action.input_type.clone());
        let (action_id, kind) = (action.id.clone(), action.kind.clone());
        Self { action_id, kind, timestamp: now.to_rfc3339_millis(), error, data: None, input_type, refusals: 0 }
    }
}

impl State {
    /// What remains when the policy and all that came with it is to be forgotten.
    pub fn without_policy(phase: Phase) -> Self {
        Self { phase, ..Self::default() }
    }

    /// Records that an action was handled: it leaves the inbox, its ack is owed and remembered.
    pub fn handled(&mut self, ack: PendingAck) {
        self.inbox.retain(|action| action.id != ack.action_id);
        self.handled.retain(|known| known.action_id != ack.action_id);
        self.handled.push_back(ack.clone());
        while self.handled.len() > HANDLED_MAX {
            self.handled.pop_front();
        }
        self.owe(ack);
    }

    /// Puts an ack into the outbox, in place of an older one for the same action.
    pub fn owe(&mut self, ack: PendingAck) {
        self.outbox.retain(|known| known.action_id != ack.action_id);
        self.outbox.push_back(ack);
        while self.outbox.len() > OUTBOX_MAX {
            self.outbox.pop_front();
        }
    }
}

/// Why a document can't be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It can't be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: String,
        /// What the system says.
        source: std::io::Error,
    },
    /// It is not what we wrote.
    #[error("{path} is damaged: {reason}")]
    Damaged {
        /// The file.
        path: String,
        /// Where and why.
        reason: String,
    },
    /// A newer agent wrote it.
    #[error(
        "{path} has version {found}; this agent knows version {known}. Use the agent that wrote it, or enrol again"
    )]
    Newer {
        /// The file.
        path: String,
        /// Its version.
        found: u64,
        /// Ours.
        known: u32,
    },
}

/// Where the two documents are kept.
pub trait Store: Send + Sync {
    /// The enrolment; `None` before the first.
    fn enrollment(&self) -> Result<Option<Enrollment>, StoreError>;
    /// Replaces the enrolment.
    fn save_enrollment(&self, enrollment: &Enrollment) -> Result<(), StoreError>;
    /// Removes the enrolment with its credentials.
    fn forget_enrollment(&self) -> Result<(), StoreError>;
    /// The state; the default when there is none.
    fn state(&self) -> Result<State, StoreError>;
    /// Replaces the state.
    fn save_state(&self, state: &State) -> Result<(), StoreError>;
    /// Puts a damaged state aside, so that a new one can begin; says where it lies.
    fn set_state_aside(&self) -> Result<String, StoreError>;
}
