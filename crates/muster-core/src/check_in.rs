//! Decision on check-ins: what to store, and which policy revision the agent has (EA §4.2, §4.4–§4.7).

use std::borrow::Cow;
use std::sync::Arc;

use crate::agent::{AgentDocuments, AgentRecord, PolicyFailure};
use crate::documents::components::OTHER_REASON;
use crate::documents::{Digest, components, metadata, text_digest};
use crate::duplicate_hosts::{HostTrail, noted};
use crate::fleetd::claims;
use crate::id::{ActionId, PolicyId};
use crate::poll::GoDuration;
use crate::reported::{self, STATUS_BYTES, shortened};
use crate::status;
use crate::time::Timestamp;
use crate::upgrade::Ended;
use crate::upgrade_details::UpgradeDetails;
use crate::{Error, ErrorKind};

/// Fingerprints of an agent's known documents, which the caller keeps in memory instead of the documents.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KnownDocuments {
    /// Fingerprint of `local_metadata`, ignoring the order of keys.
    pub local_metadata: Option<Digest>,
    /// Fingerprint of the exact text of the last `local_metadata`. If the text is the same, it need not be parsed.
    pub metadata_text: Option<Digest>,
    /// The last hosts that checked in.
    pub hosts: HostTrail,
    /// Fingerprint of `components`: ids, statuses, messages and the set of units, ignoring payloads and order (EA58,
    /// EA §15).
    pub components: Option<Digest>,
}

impl KnownDocuments {
    /// Computes the fingerprints of stored documents, for instance after a restart.
    pub fn of(documents: &AgentDocuments) -> Self {
        // If stored documents can't be parsed, there is no fingerprint, and the next report is stored as changed.
        let components = documents.components.as_deref().and_then(|raw| components::read(raw).ok()).flatten();
        Self {
            local_metadata: documents.local_metadata.as_deref().map(metadata::digest),
            metadata_text: documents.local_metadata.as_deref().map(text_digest),
            components: components.map(|components| components.digest),
            hosts: HostTrail::of(documents.local_metadata.as_deref().and_then(metadata::host_id).as_deref()),
        }
    }
}

/// Report of an agent in a check-in, independent of the protocol. Strings borrow from the request: nothing is copied
/// unless it has changed.
#[derive(Clone, Debug, Default)]
pub struct Report<'a> {
    /// Status of the agent; any string.
    pub status: &'a str,
    /// Human-readable message.
    pub message: &'a str,
    /// Facts about the host and the agent, as JSON text; `None` if the request has none.
    pub metadata: Option<&'a str>,
    /// Supervised programs and their units, as JSON text; `None` if not reported.
    pub components: Option<&'a str>,
    /// Upgrade in progress.
    pub upgrade: Option<ReportedUpgrade>,
    /// Versions that the agent can roll back to, as JSON text. The outer `None` means that the field is absent or
    /// unreadable.
    pub rollbacks: Option<Option<Arc<str>>>,
    /// Running policy and revision; `None` if not reported.
    pub running: Option<(&'a str, i64)>,
    /// Ack token of the last delivered actions; may be empty.
    pub confirmed: &'a str,
    /// Time that the client waits for a response.
    pub poll_timeout: Option<GoDuration>,
}

/// Reported state of an upgrade.
#[derive(Clone, Debug, PartialEq)]
pub struct ReportedUpgrade {
    /// Action that requested it. If there is no such action, the report is ignored (EA63).
    pub action_id: String,
    /// Progress, or the reason why it can't be parsed.
    pub details: Result<UpgradeDetails, String>,
}

/// Facts that the request does not contain, looked up before the decision.
#[derive(Clone, Debug, Default)]
pub struct Circumstances<'a> {
    /// Normalized version from the User-Agent; empty if absent.
    pub agent_version: &'a str,
    /// Whether the version is newer than the newest tested one.
    pub newer_than_tested: bool,
    /// Remote address of the agent.
    pub address: &'a str,
    /// Whether another poll of the agent is held.
    pub polled: bool,
    /// Action of the ack token, with its sequence number; `None` if the token is absent or unknown (EA74).
    pub acknowledged: Option<(ActionId, i64)>,
    /// Whether the action of `upgrade_details` exists (EA63).
    pub upgrade_action_known: bool,
    /// Newest revision of the assigned policy; `None` if there is no policy, or no revision of it.
    pub newest_revision: Option<i64>,
}

/// What to store, and the revision that the agent has.
#[derive(Clone, Debug)]
pub struct Decision {
    /// Changed record with its version incremented; `None` if nothing must be written.
    pub record: Option<AgentRecord>,
    /// Changed documents; fields that are `None` did not change.
    pub documents: AgentDocuments,
    /// Fingerprints after this check-in.
    pub known: KnownDocuments,
    /// Revision of its policy that the agent has, applied or not (`R` of EA §4.7). A policy is due if the target
    /// differs.
    pub policy_revision: i64,
    /// Time that the client waits for a response (EA53, EA68).
    pub poll_timeout: Option<GoDuration>,
    /// End of the requested upgrade, if this check-in ended it.
    pub upgrade: Option<Ended>,
    /// Whether this check-in revealed a second host with the same key.
    pub has_duplicate: bool,
}

/// The record after the decision. It is copied on the first change only, because most check-ins change nothing.
type Next<'r> = Cow<'r, AgentRecord>;

/// Reason why a report is rejected (D1, EA §4.6).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadCheckIn(pub String);

impl From<BadCheckIn> for Error {
    fn from(bad: BadCheckIn) -> Self {
        Self::new(ErrorKind::Invalid, "bad_report", bad.0)
    }
}

/// Decides what a check-in changes. A heartbeat that changes nothing returns `record: None` and no documents: the time
/// of the check-in is presence, which the caller keeps in memory.
pub fn decide(
    record: &AgentRecord,
    known: KnownDocuments,
    report: &Report<'_>,
    circumstances: &Circumstances<'_>,
    now: Timestamp,
) -> Result<Decision, BadCheckIn> {
    // Borrowed until something changes: a heartbeat must not copy the record.
    let mut next = Next::Borrowed(record);
    let mut documents = AgentDocuments::default();
    let mut known = known;
    // The health comes first: the reasons of components and the policy failure depend on it.
    take_health(&mut next, report)?;
    take_components(&mut next, &mut documents, &mut known, report)?;
    take_metadata(&mut next, &mut documents, &mut known, report, circumstances, now)?;
    forget_duplicates(&mut next, now);
    let has_duplicate = record.duplicate_hosts.is_none() && next.duplicate_hosts.is_some();
    // The version before the upgrade: it decides whether an upgrade that ended has succeeded.
    take_version(&mut next, circumstances);
    let upgrade = take_upgrade(&mut next, report, circumstances, now)?;
    take_position(&mut next, circumstances);
    let policy_revision = take_policy(&mut next, report, circumstances);
    clear_departure(&mut next);
    let record = changed(record, next, circumstances, now);
    let poll_timeout = report.poll_timeout;
    Ok(Decision { record, documents, known, policy_revision, poll_timeout, upgrade, has_duplicate })
}

/// Returns the record to write if anything in it changed, or its status.
fn changed(
    before: &AgentRecord,
    next: Next<'_>,
    circumstances: &Circumstances<'_>,
    now: Timestamp,
) -> Option<AgentRecord> {
    // The check-in itself can change the status, of an offline agent for example.
    let same_status = status::evaluate(&next, Some(now), now).0 == before.status;
    // Compared as a whole: a field may have been set to the value that it had.
    let same = matches!(next, Next::Borrowed(_)) || *next == *before;
    // The first check-in is always written: without a time of it, the agent counts as enrolling (MG §3.1).
    if same && same_status && before.last_checkin.is_some() {
        return None;
    }
    let seen = Some(now);
    let mut next = AgentRecord { last_checkin: seen, ..next.into_owned() };
    // A new address alone causes no write: agents behind a NAT would write on every check-in.
    if !circumstances.address.is_empty() && next.last_address != circumstances.address {
        circumstances.address.clone_into(&mut next.last_address);
    }
    Some(status::finish(before, next, seen, now))
}

fn bad(reason: impl Into<String>) -> BadCheckIn {
    BadCheckIn(reason.into())
}

/// Stores status and message verbatim (D13). A message over the limit is truncated: agents concatenate errors, and a
/// rejected check-in would lock the agent out.
fn take_health(next: &mut Next<'_>, report: &Report<'_>) -> Result<(), BadCheckIn> {
    let status = report.status;
    if status.is_empty() {
        return Err(bad("checkin status missing"));
    }
    if status.len() > STATUS_BYTES {
        return Err(bad(format!("checkin status is {} bytes long; at most {STATUS_BYTES}", status.len())));
    }
    let message = shortened(report.message);
    if next.health.status != status || next.health.message != message {
        let health = &mut next.to_mut().health;
        status.clone_into(&mut health.status);
        health.message = message.into_owned();
    }
    Ok(())
}

/// Stores changed components, and where the unhealthy ones are (EA59); the reason is cleared if all are healthy (D5).
fn take_components(
    next: &mut Next<'_>,
    documents: &mut AgentDocuments,
    known: &mut KnownDocuments,
    report: &Report<'_>,
) -> Result<(), BadCheckIn> {
    let raw = report.components;
    let components = raw.map(components::read).transpose();
    let components = components.map_err(|error| bad(format!("unable to read components: {error}")))?.flatten();
    // `null` and an absent field leave the stored components alone (EA52), and with them their reason.
    if let (Some(components), Some(raw)) = (&components, raw) {
        let digest = Some(components.digest);
        if known.components != digest {
            let kept = components.kept(raw).map_err(|reason| bad(format!("components: {reason}")))?;
            known.components = digest;
            documents.components = Some(kept.into());
        }
        // Even if the components are unchanged: the agent's own status may differ from the last report.
        let reason = &components.unhealthy[..];
        set_reason(next, if reason.is_empty() && is_unhealthy(&next.health.status) { OTHER_REASON } else { reason });
    } else if is_unhealthy(&next.health.status) {
        if next.health.unhealthy_reason.is_empty() {
            set_reason(next, OTHER_REASON);
        }
    } else if next.health.unhealthy_reason == OTHER_REASON {
        set_reason(next, &[]);
    }
    Ok(())
}

fn set_reason(next: &mut Next<'_>, reason: &[&str]) {
    if next.health.unhealthy_reason != reason {
        next.to_mut().health.unhealthy_reason = reason.iter().map(|&word| word.to_owned()).collect();
    }
}

/// Returns whether the agent's own status is unhealthy. Such an agent has a reason even if all components are healthy.
fn is_unhealthy(status: &str) -> bool {
    ["error", "failed", "degraded"].iter().any(|word| status.eq_ignore_ascii_case(word))
}

/// Stores `local_metadata` if it was sent, is not `null`, and changed (EA58).
fn take_metadata(
    next: &mut Next<'_>,
    documents: &mut AgentDocuments,
    known: &mut KnownDocuments,
    report: &Report<'_>,
    circumstances: &Circumstances<'_>,
    now: Timestamp,
) -> Result<(), BadCheckIn> {
    let Some(raw) = report.metadata else { return Ok(()) };
    let text = Some(text_digest(raw));
    // Agents repeat the same text for hours: one hash spares parsing it.
    if known.metadata_text == text {
        return Ok(());
    }
    // Checked before the fingerprint is kept, so that a rejected document is rejected again next time.
    let within = reported::check(raw, reported::METADATA_BYTES, reported::METADATA_NODES);
    within.map_err(|reason| bad(format!("local_metadata: {reason}")))?;
    known.metadata_text = text;
    // Hosts that share a key send different texts, so a text that is skipped above is that of the current host.
    if let Some(host) = metadata::host_id(raw)
        && let Some(duplicates) = noted(next, &mut known.hosts, &host, circumstances.polled, now)
    {
        next.to_mut().duplicate_hosts = Some(duplicates);
    }
    // The identifiers by which a host of fleetd is found stay those that it enrolled with.
    let kept = next.family.is_one_per_machine().then(|| claims::with_known_identifiers(raw, next)).flatten();
    let raw = kept.as_deref().unwrap_or(raw);
    // The text differs, but perhaps only in whitespace or in the order of keys.
    let digest = Some(metadata::digest(raw));
    if known.local_metadata == digest {
        return Ok(());
    }
    known.local_metadata = digest;
    documents.local_metadata = Some(raw.into());
    if let Some(name) = metadata::hostname(raw).filter(|name| *name != next.hostname) {
        next.to_mut().hostname = name;
    }
    let os = metadata::os(raw);
    if os != next.os {
        next.to_mut().os = os;
    }
    let hardware = metadata::hardware(raw);
    if hardware != next.hardware {
        next.to_mut().hardware = hardware;
    }
    Ok(())
}

/// Clears the duplicate hosts if they have not alternated for a day.
fn forget_duplicates(next: &mut Next<'_>, now: Timestamp) {
    if next.duplicate_hosts.as_ref().is_some_and(|known| known.is_over(now)) {
        next.to_mut().duplicate_hosts = None;
    }
}

/// Stores `upgrade_details` and the available rollbacks. Returns the end of the upgrade, if this is it.
fn take_upgrade(
    next: &mut Next<'_>,
    report: &Report<'_>,
    circumstances: &Circumstances<'_>,
    now: Timestamp,
) -> Result<Option<Ended>, BadCheckIn> {
    // Looked up in the text even if it is known: the agent may have run the target before.
    if next.upgrade.open.is_some()
        && let Some(is_snapshot) = report.metadata.and_then(metadata::is_snapshot)
        && let Some(upgrade) = next.upgrade.with_snapshot(is_snapshot)
    {
        next.to_mut().upgrade = upgrade;
    }
    let details = match &report.upgrade {
        None => Some(None),
        // Details of an unknown action say nothing: neither progress nor, like absent details, the end (EA63).
        Some(_) if !circumstances.upgrade_action_known => None,
        Some(upgrade) => Some(Some(upgrade.details.as_ref().map_err(bad)?)),
    };
    // Absent details are a report too: they end an upgrade (EA62). Only the outer `None` is no report.
    let changed = details.and_then(|details| next.upgrade.reported(&next.agent_version, details, now));
    let ended = changed.and_then(|(upgrade, ended)| {
        next.to_mut().upgrade = upgrade;
        ended
    });
    if let Some(rollbacks) = &report.rollbacks
        && next.upgrade.rollbacks != *rollbacks
    {
        next.to_mut().upgrade.rollbacks.clone_from(rollbacks);
    }
    Ok(ended)
}

/// Stores the version, which changes with an upgrade (EA60).
fn take_version(next: &mut Next<'_>, circumstances: &Circumstances<'_>) {
    let (version, newer) = (circumstances.agent_version, circumstances.newer_than_tested);
    if !version.is_empty() && (next.agent_version != version || next.newer_than_tested != newer) {
        let next = next.to_mut();
        version.clone_into(&mut next.agent_version);
        next.newer_than_tested = newer;
    }
}

/// Advances the position in the sequence of actions; never moves it back (EA74, D15).
fn take_position(next: &mut Next<'_>, circumstances: &Circumstances<'_>) {
    // A restored agent can send an old token. Moving back would deliver completed actions again.
    if let Some((token, seq)) = &circumstances.acknowledged
        && *seq > next.action_position
    {
        let next = next.to_mut();
        next.action_position = *seq;
        next.action_token = Some(token.clone());
    }
}

/// Stores the running policy, and returns `R` of EA §4.7.
///
/// A revision of another policy, or one that does not exist (D16), is not a revision of the assigned policy. It is
/// stored as 0, so that the status stays `updating` until the agent runs its own policy.
fn take_policy(next: &mut Next<'_>, report: &Report<'_>, circumstances: &Circumstances<'_>) -> i64 {
    // Agents before 9.x do not report it, and confirm policies by acks only.
    let Some((id, revision)) = report.running else { return next.policy_revision };
    if next.running_policy_id.as_ref().map(PolicyId::as_str) != Some(id) {
        next.to_mut().running_policy_id = PolicyId::parse(id).ok();
    }
    let assigned = next.policy_id.as_ref().map(PolicyId::as_str);
    // A claim above the newest revision comes from a restored server or another one, and counts as unknown (D16).
    let claimed = match circumstances.newest_revision {
        Some(newest) if assigned == Some(id) && revision <= newest => revision.max(0),
        // The newest revision could not be looked up: keep what is known instead of forcing a delivery.
        None if assigned == Some(id) => next.policy_revision,
        _ => 0,
    };
    let failure = not_applied(next, claimed);
    if failure.is_none() && next.policy_revision != claimed {
        next.to_mut().policy_revision = claimed;
    }
    if next.policy_failure != failure {
        next.to_mut().policy_failure = failure;
    }
    claimed
}

/// Returns the failure to apply the claimed revision, if the claim does not count as running. Agents of 9.x claim the
/// last revision that they stored, even if they could not apply it, in which case they never ack it (AG160).
fn not_applied(record: &AgentRecord, claimed: i64) -> Option<Box<PolicyFailure>> {
    // A revision that ran before is running: if a component fails later, the policy is not at fault.
    if claimed <= 0 || claimed == record.policy_revision {
        return None;
    }
    let status = &record.health.status;
    let known = record.policy_failure.as_ref().filter(|known| known.revision == claimed);
    if status.eq_ignore_ascii_case("error") || status.eq_ignore_ascii_case("failed") {
        let reason = Some(record.health.message.as_str()).filter(|message| !message.is_empty());
        let reason = reason.unwrap_or("the agent reports an error").to_owned();
        return Some(Box::new(PolicyFailure { revision: claimed, reason }));
    }
    // A restarted agent reports `starting` before it fails again, so the failure stays until another status arrives.
    known.filter(|_| status.eq_ignore_ascii_case("starting")).cloned()
}

/// Clears the report that the agent left: an agent that checks in is back (EA61).
fn clear_departure(next: &mut Next<'_>) {
    // Test before `to_mut`, which would copy the record on every heartbeat.
    if next.audit.is_none() && next.unenrolled_at.is_none() && next.unenrolled_reason.is_none() {
        return;
    }
    let next = next.to_mut();
    next.audit = None;
    next.departure = None;
    next.unenrolled_at = None;
    next.unenrolled_reason = None;
}

#[cfg(test)]
mod tests;
