//! What a check-in changes, decided purely (EA §4.2, §4.4–§4.7).

use std::borrow::Cow;
use std::sync::Arc;

use crate::agent::{AgentDocuments, AgentRecord, PolicyFailure};
use crate::documents::components::OTHER_REASON;
use crate::documents::{Digest, components, metadata, text_digest};
use crate::duplicate_hosts::{HostTrail, noted};
use crate::id::{ActionId, PolicyId};
use crate::poll::GoDuration;
use crate::reported::{self, STATUS_BYTES, shortened};
use crate::status;
use crate::time::Timestamp;
use crate::upgrade::Ended;
use crate::upgrade_details::UpgradeDetails;
use crate::{Error, ErrorKind};

/// Fingerprints of the documents that are known of an agent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KnownDocuments {
    /// Of `local_metadata`, key order aside.
    pub local_metadata: Option<Digest>,
    /// Of the very text of `local_metadata` that was looked at last: the same text again need not be read.
    pub metadata_text: Option<Digest>,
    /// The hosts that checked in last.
    pub hosts: HostTrail,
    /// Of `components`: ids, statuses, messages and the set of units; payloads and order aside (EA58, EA §15).
    pub components: Option<Digest>,
}

impl KnownDocuments {
    /// The fingerprints of stored documents.
    pub fn of(documents: &AgentDocuments) -> Self {
        let components = documents.components.as_deref().and_then(|raw| components::read(raw).ok()).flatten();
        Self {
            local_metadata: documents.local_metadata.as_deref().map(metadata::digest),
            metadata_text: documents.local_metadata.as_deref().map(text_digest),
            components: components.map(|components| components.digest),
            hosts: HostTrail::of(documents.local_metadata.as_deref().and_then(metadata::host_id).as_deref()),
        }
    }
}

/// What an agent reports with a check-in, in the fleet's own terms. Texts are the request's own: nothing is copied
/// before it is known to have changed.
#[derive(Clone, Debug, Default)]
pub struct Report<'a> {
    /// Its own status: any word.
    pub status: &'a str,
    /// Human-readable message.
    pub message: &'a str,
    /// Host and agent facts, JSON text; `None`: nothing new.
    pub metadata: Option<&'a str>,
    /// Supervised programs and their units, JSON text; `None`: not reported.
    pub components: Option<&'a str>,
    /// The upgrade that goes on; `None`: none.
    pub upgrade: Option<ReportedUpgrade>,
    /// The versions that it could go back to, JSON text; the outer `None`: it said nothing that can be read.
    pub rollbacks: Option<Option<Arc<str>>>,
    /// The policy that runs, and its revision; `None`: it does not say.
    pub running: Option<(&'a str, i64)>,
    /// Token of the last actions that were delivered; empty: none.
    pub confirmed: &'a str,
    /// How long the client waits for an answer.
    pub poll_timeout: Option<GoDuration>,
}

/// An upgrade that an agent reports.
#[derive(Clone, Debug, PartialEq)]
pub struct ReportedUpgrade {
    /// The action that it answers: when there is none of that id, the report is ignored (EA63).
    pub action_id: String,
    /// How far it is, or why that can't be read.
    pub details: Result<UpgradeDetails, String>,
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
    /// Another poll of the agent is held now.
    pub polled: bool,
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
    /// The revision that the agent has of its policy, applied or not (`R` of EA §4.7): another target than this is due.
    pub policy_revision: i64,
    /// How long the client waits (EA53, EA68).
    pub poll_timeout: Option<GoDuration>,
    /// The end of the upgrade that the agent was asked for.
    pub upgrade: Option<Ended>,
    /// A second host was noticed behind the agent's key with this check-in.
    pub has_duplicate: bool,
}

/// The record as it becomes: a copy only once something in it changes, which most check-ins don't do.
type Next<'r> = Cow<'r, AgentRecord>;

/// Why a report can't be accepted (D1, EA §4.6).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadCheckIn(pub String);

impl From<BadCheckIn> for Error {
    fn from(bad: BadCheckIn) -> Self {
        Self::new(ErrorKind::Invalid, "bad_report", bad.0)
    }
}

/// Decides what a check-in changes. Heartbeats that change nothing give `record: None` and no documents: the time of
/// the check-in itself is presence, kept in memory by the caller.
pub fn decide(
    record: &AgentRecord,
    known: KnownDocuments,
    report: &Report<'_>,
    circumstances: &Circumstances<'_>,
    now: Timestamp,
) -> Result<Decision, BadCheckIn> {
    let mut next = Next::Borrowed(record);
    let mut documents = AgentDocuments::default();
    let mut known = known;
    say_health(&mut next, report)?;
    take_components(&mut next, &mut documents, &mut known, report)?;
    take_metadata(&mut next, &mut documents, &mut known, report, circumstances, now)?;
    forget_duplicates(&mut next, now);
    let has_duplicate = record.duplicate_hosts.is_none() && next.duplicate_hosts.is_some();
    // The version first: it tells whether an upgrade that ends has succeeded.
    take_version(&mut next, circumstances);
    let upgrade = take_upgrade(&mut next, report, circumstances, now)?;
    take_position(&mut next, circumstances);
    let policy_revision = take_policy(&mut next, report, circumstances);
    forget_farewell(&mut next);
    let record = changed(record, next, circumstances, now);
    let poll_timeout = report.poll_timeout;
    Ok(Decision { record, documents, known, policy_revision, poll_timeout, upgrade, has_duplicate })
}

/// The record to write, if anything in it or its status is another.
fn changed(
    before: &AgentRecord,
    next: Next<'_>,
    circumstances: &Circumstances<'_>,
    now: Timestamp,
) -> Option<AgentRecord> {
    let same_status = status::evaluate(&next, Some(now), now).0 == before.status;
    let same = matches!(next, Next::Borrowed(_)) || *next == *before;
    if same && same_status && before.last_checkin.is_some() {
        return None;
    }
    let seen = Some(now);
    let mut next = AgentRecord { last_checkin: seen, ..next.into_owned() };
    if !circumstances.address.is_empty() && next.last_address != circumstances.address {
        circumstances.address.clone_into(&mut next.last_address);
    }
    Some(status::finish(before, next, seen, now))
}

fn bad(reason: impl Into<String>) -> BadCheckIn {
    BadCheckIn(reason.into())
}

/// Status and message, verbatim (D13) but for the end of a message that exceeds its bound: errors that repeat themselves
/// must not lock an agent out.
fn say_health(next: &mut Next<'_>, report: &Report<'_>) -> Result<(), BadCheckIn> {
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

/// Components, when they changed, and where the unhealthy ones are (EA59), cleared when none is (D5).
fn take_components(
    next: &mut Next<'_>,
    documents: &mut AgentDocuments,
    known: &mut KnownDocuments,
    report: &Report<'_>,
) -> Result<(), BadCheckIn> {
    let raw = report.components;
    let components = raw.map(components::read).transpose();
    let components = components.map_err(|error| bad(format!("unable to read components: {error}")))?.flatten();
    if let (Some(components), Some(raw)) = (&components, raw) {
        let digest = Some(components.digest);
        if known.components != digest {
            let kept = components.kept(raw).map_err(|reason| bad(format!("components: {reason}")))?;
            known.components = digest;
            documents.components = Some(kept.into());
        }
        let reason = &components.unhealthy[..];
        say_reason(next, if reason.is_empty() && is_unwell(&next.health.status) { OTHER_REASON } else { reason });
    } else if is_unwell(&next.health.status) {
        if next.health.unhealthy_reason.is_empty() {
            say_reason(next, OTHER_REASON);
        }
    } else if next.health.unhealthy_reason == OTHER_REASON {
        say_reason(next, &[]);
    }
    Ok(())
}

fn say_reason(next: &mut Next<'_>, reason: &[&str]) {
    if next.health.unhealthy_reason != reason {
        next.to_mut().health.unhealthy_reason = reason.iter().map(|&word| word.to_owned()).collect();
    }
}

/// An agent that says itself that it is unwell has a reason even when no component says one.
fn is_unwell(status: &str) -> bool {
    ["error", "failed", "degraded"].iter().any(|word| status.eq_ignore_ascii_case(word))
}

/// `local_metadata`, when sent, not `null` and another than before (EA58).
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
    if known.metadata_text == text {
        return Ok(());
    }
    let within = reported::check(raw, reported::METADATA_BYTES, reported::METADATA_NODES);
    within.map_err(|reason| bad(format!("local_metadata: {reason}")))?;
    known.metadata_text = text;
    if let Some(host) = metadata::host_id(raw)
        && let Some(duplicates) = noted(next, &mut known.hosts, &host, circumstances.polled, now)
    {
        next.to_mut().duplicate_hosts = Some(duplicates);
    }
    let digest = Some(metadata::digest(raw));
    if known.local_metadata == digest {
        return Ok(());
    }
    known.local_metadata = digest;
    documents.local_metadata = Some(raw.into());
    if let Some(name) = metadata::hostname(raw).filter(|name| *name != next.hostname) {
        next.to_mut().hostname = name;
    }
    Ok(())
}

/// A second host that was not seen for long is gone, whatever the first one reports.
fn forget_duplicates(next: &mut Next<'_>, now: Timestamp) {
    if next.duplicate_hosts.as_ref().is_some_and(|known| known.is_over(now)) {
        next.to_mut().duplicate_hosts = None;
    }
}

/// `upgrade_details` and the rollbacks on offer; the end of the upgrade, if this is it.
fn take_upgrade(
    next: &mut Next<'_>,
    report: &Report<'_>,
    circumstances: &Circumstances<'_>,
    now: Timestamp,
) -> Result<Option<Ended>, BadCheckIn> {
    let details = match &report.upgrade {
        None => Some(None),
        // Neither a word on the upgrade nor its end (EA63).
        Some(_) if !circumstances.upgrade_action_known => None,
        Some(upgrade) => Some(Some(upgrade.details.as_ref().map_err(bad)?)),
    };
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

/// The version, which an upgrade changes (EA60).
fn take_version(next: &mut Next<'_>, circumstances: &Circumstances<'_>) {
    let (version, newer) = (circumstances.agent_version, circumstances.newer_than_tested);
    if !version.is_empty() && (next.agent_version != version || next.newer_than_tested != newer) {
        let next = next.to_mut();
        version.clone_into(&mut next.agent_version);
        next.newer_than_tested = newer;
    }
}

/// The position among the actions: only ever upward (EA74, D15).
fn take_position(next: &mut Next<'_>, circumstances: &Circumstances<'_>) {
    if let Some((token, seq)) = &circumstances.acknowledged
        && *seq > next.action_position
    {
        let next = next.to_mut();
        next.action_position = *seq;
        next.action_token = Some(token.clone());
    }
}

/// The running policy and `R` of EA §4.7.
///
/// What an agent runs of a policy that is not its own, or of a revision that does not exist (D16), is no revision of
/// the assigned policy: it is kept as 0, so that the status stays `updating` until the agent follows.
fn take_policy(next: &mut Next<'_>, report: &Report<'_>, circumstances: &Circumstances<'_>) -> i64 {
    let Some((id, revision)) = report.running else { return next.policy_revision };
    if next.running_policy_id.as_ref().map(PolicyId::as_str) != Some(id) {
        next.to_mut().running_policy_id = PolicyId::parse(id).ok();
    }
    let assigned = next.policy_id.as_ref().map(PolicyId::as_str);
    let claimed = match circumstances.newest_revision {
        Some(newest) if assigned == Some(id) && revision <= newest => revision.max(0),
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

/// The failure to apply the claimed revision, if the claim does not count as running. Agents of 9.x claim the revision
/// that they stored last: one that could not be applied, too, which they never ack (AG160).
fn not_applied(record: &AgentRecord, claimed: i64) -> Option<Box<PolicyFailure>> {
    // What ran once does run: a component that fails later is no failure of the policy.
    if claimed <= 0 || claimed == record.policy_revision {
        return None;
    }
    let said = &record.health.status;
    let known = record.policy_failure.as_ref().filter(|known| known.revision == claimed);
    if said.eq_ignore_ascii_case("error") || said.eq_ignore_ascii_case("failed") {
        let reason = Some(record.health.message.as_str()).filter(|message| !message.is_empty());
        let reason = reason.unwrap_or("the agent reports an error").to_owned();
        return Some(Box::new(PolicyFailure { revision: claimed, reason }));
    }
    // A restarted agent says "starting" before it fails again.
    known.filter(|_| said.eq_ignore_ascii_case("starting")).cloned()
}

/// An agent that checks in has not left (EA61).
fn forget_farewell(next: &mut Next<'_>) {
    if next.audit.is_none() && next.unenrolled_at.is_none() && next.unenrolled_reason.is_none() {
        return;
    }
    let next = next.to_mut();
    next.audit = None;
    next.unenrolled_at = None;
    next.unenrolled_reason = None;
}

#[cfg(test)]
mod tests;
