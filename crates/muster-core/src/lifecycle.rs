//! Changes of an agent's record other than by check-ins and acks.
//!
//! Each function returns the changed record with an incremented version, or `None` if nothing changes. `seen` is the
//! time when the agent was last seen, as far as the caller knows.

use crate::error_chain::chain;
use std::time::Duration;

use crate::acknowledge::deactivate;
use crate::agent::{AgentRecord, AuditReason, AuditReport, Departure};
use crate::credential::LiveCredential;
use crate::denial::Denial;
use crate::error::Error;
use crate::id::{ActionId, KeyId, PolicyId};
use crate::policy::{DEFAULT_INACTIVITY_TIMEOUT, Policy};
use crate::status::{self, Status, finish};
use crate::time::Timestamp;
use crate::upgrade::Ended;

/// Changed record, if any.
type Changed = Option<AgentRecord>;

fn changed(before: &AgentRecord, next: AgentRecord, seen: Option<Timestamp>, now: Timestamp) -> Changed {
    (next != *before).then(|| finish(before, next, seen, now))
}

/// Stores the agent's report that it left, until it checks in again. The agent stays active (EA137, EA140), unless
/// uninstallation is final for its family: the holder of an agent's key may unenroll it. Only `orphaned` is final
/// (EA138).
pub fn report_left(
    before: &AgentRecord,
    report: AuditReport,
    departure: Option<Departure>,
    seen: Option<Timestamp>,
    now: Timestamp,
) -> Result<Changed, Error> {
    // Any report after `orphaned` is a conflict (EA138).
    if before.audit.is_some_and(|known| known.reason == AuditReason::Orphaned) {
        return Err(Denial::LeftForGood.into());
    }
    let reenrolled = before.duplicate_hosts.as_ref().is_some_and(|known| known.was_reenrolled(now));
    // The host that enrolled again under another id says so with the key that it shared; the other host stays.
    if report.reason == AuditReason::Migrated && reenrolled {
        return Ok(None);
    }
    // A second report must not hide who caused the first one.
    let departure = departure.map(Box::new).or_else(|| before.departure.clone());
    let mut next = AgentRecord { audit: Some(report), departure, ..before.clone() };
    if report.reason == AuditReason::Uninstall && before.family.ends_when_uninstalled() {
        deactivate(&mut next, "uninstalled", now);
    }
    Ok(changed(before, next, seen, now))
}

/// Adds a credential.
pub fn issue_credential(
    before: &AgentRecord,
    credential: LiveCredential,
    seen: Option<Timestamp>,
    now: Timestamp,
) -> Result<Changed, Error> {
    unless_unenrolled(before)?;
    let mut next = before.clone();
    let issued = next.credentials.issue(credential);
    issued.map_err(|error| Error::conflict("too_many_credentials", chain(&error).to_string()))?;
    Ok(changed(before, next, seen, now))
}

/// Revokes one credential of the agent.
pub fn revoke_credential(before: &AgentRecord, key: &KeyId, seen: Option<Timestamp>, now: Timestamp) -> Changed {
    let mut next = before.clone();
    next.credentials.revoke(key);
    changed(before, next, seen, now)
}

fn unless_unenrolled(record: &AgentRecord) -> Result<(), Error> {
    if record.active {
        return Ok(());
    }
    Err(Error::conflict("agent_unenrolled", format!("agent {} is already unenrolled", record.id)))
}

/// Starts a graceful unenrollment, which the ack completes.
pub fn begin_unenroll(before: &AgentRecord, seen: Option<Timestamp>, now: Timestamp) -> Result<Changed, Error> {
    unless_unenrolled(before)?;
    // Keep the time of the first action: a second one does not restart the unenrollment.
    let started_at = before.unenrollment_started_at.unwrap_or(now);
    Ok(changed(before, AgentRecord { unenrollment_started_at: Some(started_at), ..before.clone() }, seen, now))
}

/// Cancels a graceful unenrollment.
pub fn cancel_unenroll(before: &AgentRecord, seen: Option<Timestamp>, now: Timestamp) -> Changed {
    changed(before, AgentRecord { unenrollment_started_at: None, ..before.clone() }, seen, now)
}

/// Unenrolls the agent immediately and revokes all its credentials. `reason` is `forced`, `timeout` …
pub fn force_unenroll(before: &AgentRecord, reason: &str, now: Timestamp) -> Result<Changed, Error> {
    unless_unenrolled(before)?;
    let mut next = before.clone();
    deactivate(&mut next, reason, now);
    // `None`: a sighting must not make an agent that was just unenrolled look online.
    Ok(changed(before, next, None, now))
}

/// Assigns a target: a policy, or none, and a revision of it (`None` follows the newest). If the policy changes, the
/// running revision is reset, so that the new policy is due. Credentials are kept.
pub fn reassign(
    before: &AgentRecord,
    policy: Option<&Policy>,
    revision: Option<i64>,
    seen: Option<Timestamp>,
    now: Timestamp,
) -> Result<Changed, Error> {
    unless_unenrolled(before)?;
    let policy_id = policy.map(|policy| policy.id.clone());
    // Only the revision changes if the policy stays the same, for example when it is pinned or rolled back.
    let same_policy = policy_id == before.policy_id;
    if same_policy && revision == before.target_revision {
        let name = policy_id.as_ref().map_or("no policy", PolicyId::as_str);
        return Err(Error::invalid("policy_id", format!("agent {} already has {name}", before.id)));
    }
    let next = AgentRecord {
        policy_id,
        target_revision: revision,
        // Revisions of different policies can't be compared; after a reset, any revision of the new policy is due
        // (EA §4.7).
        policy_revision: if same_policy { before.policy_revision } else { 0 },
        policy_failure: before.policy_failure.clone().filter(|_| same_policy),
        // Copied with the assignment, since the status is evaluated without the policy.
        inactivity_timeout: inactivity_timeout(policy.map(|policy| policy.inactivity_timeout)),
        ..before.clone()
    };
    Ok(changed(before, next, seen, now))
}

/// Sets the tags.
pub fn set_tags(before: &AgentRecord, tags: Vec<String>, seen: Option<Timestamp>, now: Timestamp) -> Changed {
    changed(before, AgentRecord { tags, ..before.clone() }, seen, now)
}

/// Returns the tags after adding and removing. One of each renames a tag in place.
pub fn changed_tags(tags: &[String], add: &[String], remove: &[String]) -> Vec<String> {
    let rename = match (add, remove) {
        ([new], [old]) if tags.contains(old) => Some((old, new)),
        _ => None,
    };
    let mut after: Vec<String> = Vec::with_capacity(tags.len() + add.len());
    let kept = tags.iter().filter_map(|tag| match rename {
        Some((old, new)) if tag == old => Some(new),
        // Removed before adding: a tag in both lists ends up on the agent.
        _ if remove.contains(tag) => None,
        _ => Some(tag),
    });
    // In case of a rename, `add` is already there and not added again.
    crate::enroll::add_tags(&mut after, kept.chain(add));
    after
}

/// Records that `action` requested an upgrade to `version` with the given start time. The status does not change before
/// that time. Also returns the end of the upgrade that it replaces.
pub fn begin_upgrade(
    before: &AgentRecord,
    action: &ActionId,
    version: &str,
    start: Timestamp,
    seen: Option<Timestamp>,
    now: Timestamp,
) -> (Changed, Option<Ended>) {
    let (upgrade, replaced) = before.upgrade.begun(action, version, &before.agent_version, start);
    (changed(before, AgentRecord { upgrade, ..before.clone() }, seen, now), replaced)
}

/// Cancels the upgrade that `action` requested.
pub fn cancel_upgrade(before: &AgentRecord, action: &ActionId, seen: Option<Timestamp>, now: Timestamp) -> Changed {
    changed(before, AgentRecord { upgrade: before.upgrade.cancelled(action), ..before.clone() }, seen, now)
}

/// Converts a policy's `inactivity_timeout` in seconds; `None` (no policy) gives the default. The result `None` means
/// never.
pub fn inactivity_timeout(seconds: Option<i64>) -> Option<Duration> {
    match seconds {
        None => Some(DEFAULT_INACTIVITY_TIMEOUT),
        Some(seconds) => u64::try_from(seconds).ok().filter(|s| *s > 0).map(Duration::from_secs),
    }
}

/// Applies a changed inactivity timeout.
pub fn set_inactivity_timeout(
    before: &AgentRecord,
    timeout: Option<Duration>,
    seen: Option<Timestamp>,
    now: Timestamp,
) -> Changed {
    changed(before, AgentRecord { inactivity_timeout: timeout, ..before.clone() }, seen, now)
}

/// Returns whether the unenroll timeout has passed: the agent is inactive *now* and has not been seen for that long (MG §3.4).
pub fn is_due_to_unenroll(
    record: &AgentRecord,
    unenroll_timeout: Duration,
    seen: Option<Timestamp>,
    now: Timestamp,
) -> bool {
    let last = status::last_sighting(record, seen, now).unwrap_or(record.enrolled_at);
    // Evaluated now, because the stored status may be stale: unenrolling an agent that just came back can't be undone.
    let inactive = status::evaluate(record, seen, now).0 == Status::Inactive;
    inactive && !unenroll_timeout.is_zero() && now.since(last) > unenroll_timeout
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::error::ErrorKind;
    use crate::testing::{self, agent, at};

    fn policy(id: &str, inactivity_timeout: i64) -> Policy {
        Policy { inactivity_timeout, ..testing::policy(id, at(0)) }
    }

    fn report(before: &AgentRecord, reason: AuditReason) -> Result<AgentRecord, Error> {
        let report = AuditReport { reason, at: at(5) };
        report_left(before, report, None, None, at(60)).map(|changed| changed.unwrap_or_else(|| before.clone()))
    }

    #[test]
    fn ea137_ea140_mg46_mg48_an_agent_that_reports_its_departure_stays_active() {
        let after = report(&agent(), AuditReason::Uninstall).unwrap();
        assert_eq!(after.audit, Some(AuditReport { reason: AuditReason::Uninstall, at: at(5) }));
        assert!(after.active && !after.credentials.is_empty() && after.unenrolled_at.is_none());
        assert_eq!((after.status, after.version), (Status::Uninstalled, agent().version + 1));
        for reason in [AuditReason::KeyRevoked, AuditReason::Migrated] {
            assert_eq!(report(&agent(), reason).unwrap().status, Status::Online);
        }
    }

    #[test]
    fn who_caused_a_departure_is_kept_until_the_agent_is_back() {
        let report = AuditReport { reason: AuditReason::Uninstall, at: at(5) };
        let departure = Departure { user: "alice".into(), uid: 1000, ..Departure::default() };
        let first = report_left(&agent(), report, Some(departure.clone()), None, at(60)).unwrap().unwrap();
        let later = AuditReport { at: at(6), ..report };
        let second = report_left(&first, later, None, None, at(61)).unwrap().unwrap();
        assert_eq!(second.departure.as_deref(), Some(&departure));
    }

    #[test]
    fn ea138_only_orphaned_is_final() {
        let uninstalled = report(&agent(), AuditReason::Uninstall).unwrap();
        let again = report(&uninstalled, AuditReason::Uninstall).unwrap();
        let orphaned = report(&again, AuditReason::Orphaned).unwrap();
        assert_eq!(orphaned.status, Status::Orphaned);
        for reason in [AuditReason::Orphaned, AuditReason::Uninstall] {
            let error = report(&orphaned, reason).unwrap_err();
            assert_eq!((error.kind, error.denial), (ErrorKind::Conflict, Some(Denial::LeftForGood)));
        }
    }

    #[test]
    fn mg49_an_uninstalled_agent_can_be_unenrolled_by_force() {
        let reported = report(&agent(), AuditReason::Uninstall).unwrap();
        let after = force_unenroll(&reported, "forced", at(70)).unwrap().unwrap();
        assert_eq!((after.active, after.credentials.is_empty(), after.status), (false, true, Status::Unenrolled));
        assert_eq!((after.unenrolled_at, after.unenrolled_reason.as_deref()), (Some(at(70)), Some("forced")));
        assert_eq!(force_unenroll(&after, "forced", at(80)).unwrap_err().code, "agent_unenrolled");
    }

    #[test]
    fn no_upgrade_is_in_progress_in_the_record_of_an_agent_that_left() {
        let (upgrading, _) = begin_upgrade(&agent(), &ActionId::trusted("up"), "9.9.0", at(1), None, at(1));
        let mut upgrading = upgrading.unwrap();
        upgrading.upgrade.details = Some("{}".into());
        let upgrade = force_unenroll(&upgrading, "forced", at(70)).unwrap().unwrap().upgrade;
        assert_eq!((upgrade.started_at, upgrade.open, upgrade.details), (None, None, None));
    }

    #[test]
    fn mg135_graceful_unenrollment_waits_for_the_ack() {
        let leaving = begin_unenroll(&agent(), None, at(60)).unwrap().unwrap();
        assert_eq!((leaving.status, leaving.active), (Status::Unenrolling, true));
        assert_eq!(begin_unenroll(&leaving, None, at(90)).unwrap(), None);
        let staying = cancel_unenroll(&leaving, None, at(90)).unwrap();
        assert_eq!(staying.status, Status::Online);
    }

    #[test]
    fn mg132_reassigned_agents_are_updating_and_keep_their_credentials() {
        let target = policy("q", 60);
        let after = reassign(&agent(), Some(&target), None, None, at(30)).unwrap().unwrap();
        assert_eq!((after.policy_revision, after.status), (0, Status::Updating));
        assert_eq!((after.space, after.credentials), (agent().space, agent().credentials));
        assert_eq!(after.inactivity_timeout, Some(Duration::from_secs(60)));
        let same = reassign(&agent(), Some(&policy("p", 60)), None, None, at(30)).unwrap_err();
        assert_eq!(same.field.as_deref(), Some("policy_id"));
        assert_eq!(reassign(&agent(), None, None, None, at(30)).unwrap().unwrap().status, Status::Online);
    }

    #[test]
    fn another_revision_of_the_same_policy_is_another_target() {
        let (same, running) = (policy("p", 60), AgentRecord { policy_revision: 5, ..agent() });
        let target = |record: &AgentRecord, revision| reassign(record, Some(&same), revision, None, at(30));
        let pinned = target(&running, Some(3)).unwrap().unwrap();
        assert_eq!((pinned.target_revision, pinned.policy_revision), (Some(3), 5));
        assert_eq!(target(&pinned, Some(3)).unwrap_err().field.as_deref(), Some("policy_id"));
        let following = target(&pinned, None).unwrap().unwrap();
        assert_eq!((following.target_revision, following.policy_revision), (None, 5));
    }

    #[test]
    fn mg136_adding_one_tag_and_removing_one_renames_in_place() {
        let tags = ["a", "b", "c"].map(str::to_owned);
        let change = |add: &[&str], remove: &[&str]| {
            let own = |tags: &[&str]| tags.iter().map(|tag| (*tag).to_owned()).collect::<Vec<_>>();
            changed_tags(&tags, &own(add), &own(remove))
        };
        assert_eq!(change(&["x"], &["b"]), ["a", "x", "c"]);
        assert_eq!(change(&["c"], &["a"]), ["c", "b"]);
        assert_eq!(change(&["x", "a"], &["b"]), ["a", "c", "x"]);
        assert_eq!(change(&["x"], &["gone"]), ["a", "b", "c", "x"]);
        assert_eq!(set_tags(&agent(), Vec::new(), None, at(1)), None);
    }

    #[test]
    fn mg57_mg128_status_is_updating_from_the_start_of_an_upgrade_until_its_cancellation() {
        let up = ActionId::trusted("up");
        let begin = |start| begin_upgrade(&agent(), &up, "9.6.0", start, None, at(10)).0.unwrap();
        let now = begin(at(10));
        assert_eq!((now.status, now.upgrade.started_at), (Status::Updating, Some(at(10))));
        let later = begin(at(86_400));
        assert_eq!(later.status, Status::Online);
        assert_eq!(cancel_upgrade(&now, &up, None, at(20)).unwrap().status, Status::Online);
    }

    #[test]
    fn mg43_a_timeout_of_zero_means_never() {
        assert_eq!(inactivity_timeout(Some(0)), None);
        assert_eq!(inactivity_timeout(Some(-5)), None);
        assert_eq!(inactivity_timeout(None), Some(DEFAULT_INACTIVITY_TIMEOUT));
        let short = set_inactivity_timeout(&agent(), Some(Duration::from_secs(10)), None, at(60)).unwrap();
        assert_eq!(short.status, Status::Inactive);
    }

    #[test]
    fn an_agent_that_is_back_is_not_unenrolled_by_the_timeout() {
        let record = AgentRecord { inactivity_timeout: Some(Duration::from_secs(60)), ..agent() };
        let timeout = Duration::from_secs(3600);
        assert!(!is_due_to_unenroll(&record, timeout, None, at(3600)));
        assert!(is_due_to_unenroll(&record, timeout, None, at(3601)));
        assert!(!is_due_to_unenroll(&record, timeout, Some(at(3600)), at(3601)));
        assert!(!is_due_to_unenroll(&record, Duration::ZERO, None, at(3601)));
    }

    proptest! {
        #[test]
        fn tags_stay_unique_and_removed_tags_are_absent(
            tags in prop::collection::btree_set("[a-e]", 0..5),
            add in prop::collection::vec("[a-h]", 0..4),
            remove in prop::collection::vec("[a-h]", 0..4),
        ) {
            let tags: Vec<String> = tags.into_iter().collect();
            let after = changed_tags(&tags, &add, &remove);
            let unique: std::collections::BTreeSet<_> = after.iter().collect();
            prop_assert_eq!(unique.len(), after.len());
            prop_assert!(add.iter().all(|tag| after.contains(tag)));
            prop_assert!(remove.iter().all(|tag| add.contains(tag) || !after.contains(tag)));
        }
    }
}
