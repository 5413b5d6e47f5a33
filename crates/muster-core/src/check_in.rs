//! What a check-in changes, decided purely (reference §4.2, §4.4–§4.7).

use muster_protocol::elastic::check_in::CheckInRequest;

use crate::agent::{AgentDocuments, AgentRecord};
use crate::id::ActionId;
use crate::time::Timestamp;

/// A short fingerprint of a document, to notice changes without keeping the document in memory.
pub type Digest = [u8; 16];

/// Fingerprints of the documents that are known of an agent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KnownDocuments {
    /// Of `local_metadata`, key order aside.
    pub local_metadata: Option<Digest>,
    /// Of `components`: ids, statuses, messages and the set of units; payloads and order aside (EA58, §15).
    pub components: Option<Digest>,
}

/// What the request does not say by itself, looked up before the decision.
#[derive(Clone, Debug, Default)]
pub struct Circumstances<'a> {
    /// Version from the User-Agent, normalised; `None`: absent (never on check-in).
    pub agent_version: &'a str,
    /// The version is above what this server was tested with.
    pub newer_than_tested: bool,
    /// The agent's address.
    pub address: &'a str,
    /// The action that the request's ack token names, with its sequence number; `None`: absent or unknown (EA74).
    pub acknowledged: Option<(ActionId, i64)>,
    /// Whether the action that `upgrade_details` names exists (EA63).
    pub upgrade_action_known: bool,
    /// Newest revision of the assigned policy; `None`: no policy assigned, or it has no revision.
    pub newest_revision: Option<i64>,
}

/// What to store, and from which revision on a policy is due.
#[derive(Clone, Debug)]
pub struct Decision {
    /// The changed record, version already raised; `None`: nothing that must be written changed.
    pub record: Option<AgentRecord>,
    /// Changed documents; `None` fields did not change.
    pub documents: AgentDocuments,
    /// Fingerprints after this check-in.
    pub known: KnownDocuments,
    /// A policy is due as soon as the newest revision is greater than this (`R` of §4.7).
    pub policy_revision: i64,
}

/// A request that can't be accepted: answered 400 `BadRequest` with this text (D1, §4.6).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("Bad request: {0}")]
pub struct BadCheckIn(pub String);

/// Decides what a check-in changes. Heartbeats that change nothing give `record: None` and no documents: the time of
/// the check-in itself is presence, kept in memory by the caller.
pub fn decide(
    record: &AgentRecord,
    known: KnownDocuments,
    request: &CheckInRequest<'_>,
    circumstances: &Circumstances<'_>,
    now: Timestamp,
) -> Result<Decision, BadCheckIn> {
    let _ = (record, known, request, circumstances, now);
    Err(BadCheckIn("not decided yet".into()))
}
