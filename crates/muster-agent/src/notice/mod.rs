//! Notices to a server that the agent has left, or that somebody tried to remove it.
//!
//! A notice is stored before the agent does what it reports, and is removed only when the server has received it. The
//! daemon delivers the notices of its base path. After an uninstallation, the notifier delivers them (AG138).

pub mod departure;
pub mod spool;

use muster_core::Timestamp;
use serde::{Deserialize, Serialize};

use crate::fleet::{CallError, FleetClient};
use crate::net::Server;
use crate::state::Enrollment;
use crate::state::enrollment::{Secret, Trust};
use departure::Departure;

pub use spool::Spool;

/// Version of the document.
pub const NOTICE_VERSION: u32 = 1;
/// Maximum number of attempts: about 30 days, with delays of 30 to 60 minutes. Attempts are counted instead of days,
/// because the clock of a host can be wrong, and because a host that is switched off cannot deliver anything.
pub const ATTEMPTS_MAX: u32 = 960;

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// The agent was uninstalled, unenrolled on its host, or enrolled elsewhere.
    Uninstall,
    /// A command was refused, because the policy protects the agent and the uninstall token was missing or wrong.
    Refused,
    /// A command was allowed, because the recovery code of the policy was passed instead of the uninstall token.
    Recovered,
}

impl Event {
    /// Returns the reason on the wire (EA §8). Only Muster knows `refused` and `recovery_code`; other servers answer 400.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Uninstall => "uninstall",
            Self::Refused => "refused",
            Self::Recovered => "recovery_code",
        }
    }
}

/// A notice with everything that is needed to deliver it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Notice {
    /// [`NOTICE_VERSION`].
    pub version: u32,
    /// What happened.
    pub event: Event,
    /// The agent.
    pub agent_id: String,
    /// Its access key.
    pub access_api_key: Secret,
    /// URLs of its servers.
    pub servers: Vec<String>,
    /// How to verify them.
    pub trust: Trust,
    /// When it happened (RFC 3339). Repeated attempts report the same time.
    pub at: String,
    /// Who did it, and why.
    pub departure: Departure,
    /// Number of failed attempts.
    #[serde(default)]
    pub attempts: u32,
}

/// What became of an attempt to deliver a notice.
#[derive(Debug)]
pub enum Delivery {
    /// The server has it, or no longer knows the agent.
    Done,
    /// The server will never take it.
    Rejected(CallError),
    /// Another attempt may succeed.
    Failed(CallError),
}

impl Notice {
    /// Creates a notice about an enrolled agent.
    pub fn new(event: Event, enrollment: &Enrollment, departure: Departure, now: Timestamp) -> Self {
        Self {
            version: NOTICE_VERSION,
            event,
            agent_id: enrollment.agent_id.clone(),
            access_api_key: enrollment.access_api_key.clone(),
            servers: enrollment.servers.clone(),
            trust: enrollment.trust_in_effect(),
            at: now.to_rfc3339_millis(),
            departure,
            attempts: 0,
        }
    }

    /// Returns its servers. A URL that this version cannot parse must not prevent the notice to the others.
    pub fn servers(&self) -> Vec<Server> {
        self.servers.iter().filter_map(|url| Server::parse(url).ok()).collect()
    }

    /// Sends the notice once.
    pub async fn deliver(&self, client: &FleetClient) -> Delivery {
        let sent = client.audit_unenroll(&self.agent_id, self.event.reason(), &self.at, Some(&self.departure)).await;
        match sent {
            Ok(()) => Delivery::Done,
            // The key is revoked, or another notice came first; neither is a failure (AG140).
            Err(CallError::Refused { .. }) => Delivery::Done,
            Err(CallError::Status { status: 409, kind, .. }) if !kind.is_empty() => Delivery::Done,
            // Only an answer in the format of the protocol is final. A proxy can answer 403 or 404 as well.
            Err(error) if is_final(&error) => Delivery::Rejected(error),
            Err(error) => Delivery::Failed(error),
        }
    }
}

fn is_final(error: &CallError) -> bool {
    // 408 and 429 are temporary.
    matches!(error, CallError::Status { status: 400..=407 | 409..=428 | 430..=499, kind, .. } if !kind.is_empty())
}
