//! Eligibility of agents for actions (MG §5.3). An ineligible agent gets a failed result with the reason, so that the
//! action can complete.

use std::time::Duration;

use serde::Deserialize;

use crate::agent::{AgentRecord, Family};
use crate::id::PolicyId;
use crate::raw_json;
use crate::status::{Status, is_stuck};
use crate::time::Timestamp;
use crate::upgrade_details::UpgradeDetails;
use crate::version::{AcceptedVersions, Version};

/// Older agents need a cool-down between upgrades.
const NO_COOL_DOWN_SINCE: Version = Version(8, 12, 0);
const COOL_DOWN: Duration = Duration::from_secs(600);
const DIAGNOSTICS_SINCE: Version = Version(8, 7, 0);
const MIGRATE_SINCE: Version = Version(9, 2, 0);
const PRIVILEGE_SINCE: Version = Version(9, 3, 0);

/// A possible target.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    // Facts instead of a reference to the policy, which many candidates share.
    /// Its record.
    pub record: &'a AgentRecord,
    /// Its `local_metadata` as JSON text; empty if there is none.
    pub metadata: &'a str,
    /// Whether its policy is managed.
    pub managed: bool,
    /// Whether its policy is tamper-protected.
    pub protected: bool,
    /// Whether its policy contains a Fleet Server.
    pub fleet_server: bool,
    /// Whether its policy has an integration that requires root.
    pub needs_root: bool,
}

/// The requested operation.
#[derive(Clone, Copy, Debug)]
pub enum Operation<'a> {
    /// Upgrade to another version.
    Upgrade {
        /// Target version.
        version: &'a str,
        /// Versions that this server accepts: an upgrade must not lock the agent out.
        accepted: &'a AcceptedVersions,
        /// Skips all rules that can be skipped.
        force: bool,
        /// Skips the cool-down between upgrades.
        skip_rate_limit: bool,
    },
    /// Rollback to a version that the agent offers.
    Rollback {
        /// Target version.
        version: &'a str,
    },
    /// Assignment of another policy or revision.
    Reassign {
        /// The policy.
        policy: &'a PolicyId,
        /// Target revision; `None` follows the newest one.
        revision: Option<i64>,
        /// Whether that policy is managed.
        managed: bool,
        /// Applies even to managed policies.
        force: bool,
    },
    /// Unenrollment, which the agent confirms.
    Unenroll {
        /// Applies even to managed policies.
        force: bool,
    },
    /// Unenrollment by the server alone.
    Revoke {
        /// Applies even to managed policies.
        force: bool,
    },
    /// Request for a diagnostics bundle.
    Diagnostics,
    /// Migration to another server.
    Migrate,
    /// Change to running without root.
    PrivilegeLevel,
    /// Change of tags.
    Tags,
    /// Any other action, which only requires an enrolled agent that takes actions.
    Other,
}

/// Reason why an agent is not eligible. The message is the error of its result.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "each variant's text says what it means")]
pub enum Ineligible {
    #[error("{0} does not support this")]
    Unsupported(&'static str),
    #[error("agent is unenrolled")]
    Unenrolled,
    #[error("agent is being unenrolled")]
    Unenrolling,
    #[error("agent is inactive")]
    Inactive,
    #[error("the agent's policy is managed; use force")]
    Managed,
    #[error("agent cannot upgrade itself: it runs in a container, or was installed by a package manager")]
    NotUpgradeable,
    #[error("agent runs in a container and cannot upgrade itself, even with force")]
    Container,
    #[error("agent is already upgrading; use force to replace the upgrade")]
    Upgrading,
    #[error("agent is still watching its last upgrade")]
    Watching,
    #[error("agent was upgraded less than 10 minutes ago")]
    UpgradedJustNow,
    #[error("{0} is not newer than the agent's {1}")]
    NotNewer(String, String),
    #[error("{0} is not a version")]
    NoVersion(String),
    #[error("this server does not serve agents of version {0}")]
    NotServed(String),
    #[error("agent already has policy {0}")]
    SamePolicy(PolicyId),
    #[error("agent version {0} is too old; {1} or newer is required")]
    TooOld(String, Version),
    #[error("the agent's policy is tamper-protected")]
    Protected,
    #[error("the agent's policy has a Fleet Server")]
    FleetServer,
    #[error("the agent's policy has an integration that needs root")]
    NeedsRoot,
    #[error("agent already runs without root")]
    Unprivileged,
    #[error("agent has no rollback to {0}")]
    NoRollback(String),
    #[error("the agent's rollback to {0} has expired")]
    RollbackExpired(String),
}

type Verdict = Result<(), Ineligible>;

fn refuse_if(condition: bool, reason: Ineligible) -> Verdict {
    if condition { Err(reason) } else { Ok(()) }
}

impl Operation<'_> {
    /// Checks whether `candidate` is eligible.
    pub fn check(&self, candidate: &Candidate<'_>, now: Timestamp) -> Verdict {
        // Always first: an unenrolled agent has no key and would never acknowledge.
        refuse_if(!candidate.record.active, Ineligible::Unenrolled)?;
        let family = candidate.record.family;
        refuse_if(self.needs_agent() && !family.takes_actions(), Ineligible::Unsupported(family.program()))?;
        match self {
            Self::Upgrade { version, accepted, force, skip_rate_limit } => {
                candidate.upgrade(version, accepted, *force, *skip_rate_limit, now)
            }
            Self::Rollback { version } => candidate.rollback(version, now),
            Self::Reassign { policy, revision, managed, force } => {
                refuse_if(!force && (candidate.managed || *managed), Ineligible::Managed)?;
                let record = candidate.record;
                // A pinned revision and "follow the newest" are different targets, even if both are the same revision
                // today.
                let same = record.policy_id.as_ref() == Some(*policy) && record.target_revision == *revision;
                refuse_if(same, Ineligible::SamePolicy((*policy).clone()))
            }
            Self::Unenroll { force } | Self::Revoke { force } => {
                refuse_if(!force && candidate.managed, Ineligible::Managed)
            }
            Self::Diagnostics => candidate.at_least(DIAGNOSTICS_SINCE),
            Self::Migrate => candidate.migrate(),
            Self::PrivilegeLevel => candidate.privilege(),
            Self::Tags => refuse_if(candidate.managed, Ineligible::Managed),
            Self::Other => Ok(()),
        }
    }

    /// Whether the agent has to do something. The server changes tags and revokes keys by itself.
    const fn needs_agent(&self) -> bool {
        match self {
            Self::Tags | Self::Revoke { .. } => false,
            Self::Upgrade { .. }
            | Self::Rollback { .. }
            | Self::Reassign { .. }
            | Self::Unenroll { .. }
            | Self::Diagnostics
            | Self::Migrate
            | Self::PrivilegeLevel
            | Self::Other => true,
        }
    }
}

impl Candidate<'_> {
    // Absent facts are neither true nor false: each rule says what an unknown value means.
    fn fact(&self, path: &[&str]) -> Option<bool> {
        raw_json::flag(self.metadata, path)
    }

    fn version(&self) -> Option<Version> {
        Version::parse(&self.record.agent_version)
    }

    fn is_muster(&self) -> bool {
        self.record.family == Family::Muster
    }

    /// Requires a minimum version. Agents with an unknown version pass: if they can't do it, their ack says so.
    fn at_least(&self, minimum: Version) -> Verdict {
        // The minimum versions are those of Elastic Agent.
        if self.is_muster() {
            return Ok(());
        }
        let too_old = self.version().is_some_and(|version| version < minimum);
        refuse_if(too_old, Ineligible::TooOld(self.record.agent_version.clone(), minimum))
    }

    fn upgrade(
        &self,
        target: &str,
        accepted: &AcceptedVersions,
        force: bool,
        skip_rate_limit: bool,
        now: Timestamp,
    ) -> Verdict {
        let version = Version::parse(target).ok_or_else(|| Ineligible::NoVersion(target.to_owned()))?;
        refuse_if(self.fact(&["host", "containerized"]) == Some(true), Ineligible::Container)?;
        // The version of muster-agent's program differs from that of the protocol, which is the one that is checked.
        refuse_if(!self.is_muster() && !accepted.admits(version), Ineligible::NotServed(target.to_owned()))?;
        // The rules above hold even with force: an upgrade that breaks them could never succeed.
        if force {
            return Ok(());
        }
        refuse_if(self.managed, Ineligible::Managed)?;
        refuse_if(self.record.unenrollment_started_at.is_some(), Ineligible::Unenrolling)?;
        refuse_if(self.record.status == Status::Inactive, Ineligible::Inactive)?;
        // Unknown counts as "no": an agent that never checked in, or one without this field, can't be upgraded safely.
        refuse_if(self.fact(&["elastic", "agent", "upgradeable"]) != Some(true), Ineligible::NotUpgradeable)?;
        self.not_upgrading(now)?;
        if !skip_rate_limit {
            self.cooled_down(now)?;
        }
        self.is_newer(target, version)
    }

    fn not_upgrading(&self, now: Timestamp) -> Verdict {
        let upgrade = &self.record.upgrade;
        let details = upgrade.details.as_deref().and_then(UpgradeDetails::stored);
        refuse_if(details.is_some_and(|details| details.state == "UPG_WATCHING"), Ineligible::Watching)?;
        // A stuck upgrade may be replaced, since it would otherwise block the agent for ever.
        let open = upgrade.started_at.is_some() && upgrade.upgraded_at.is_none();
        refuse_if(open && !is_stuck(self.record, now), Ineligible::Upgrading)
    }

    fn cooled_down(&self, now: Timestamp) -> Verdict {
        let needs_cool_down = !self.is_muster() && self.version().is_some_and(|version| version < NO_COOL_DOWN_SINCE);
        let just_now = self.record.upgrade.upgraded_at.is_some_and(|at| now.since(at) < COOL_DOWN);
        refuse_if(needs_cool_down && just_now, Ineligible::UpgradedJustNow)
    }

    /// Requires a newer version. The same version with a build number counts as newer, because agents do not report
    /// builds.
    fn is_newer(&self, target: &str, version: Version) -> Verdict {
        let newer = self.version().is_none_or(|own| version > own || version == own && target.contains("+build"));
        refuse_if(!newer, Ineligible::NotNewer(target.to_owned(), self.record.agent_version.clone()))
    }

    fn rollback(&self, version: &str, now: Timestamp) -> Verdict {
        refuse_if(self.managed, Ineligible::Managed)?;
        let offers: Vec<Offer> =
            self.record.upgrade.rollbacks.as_deref().and_then(|raw| serde_json::from_str(raw).ok()).unwrap_or_default();
        // Compared as text: the agent looks for exactly the version that it offered.
        let offer = offers.into_iter().find(|offer| offer.version == version);
        let offer = offer.ok_or_else(|| Ineligible::NoRollback(version.to_owned()))?;
        // An unreadable time counts as expired.
        let valid = Timestamp::parse_rfc3339(&offer.valid_until).is_ok_and(|until| until > now);
        refuse_if(!valid, Ineligible::RollbackExpired(version.to_owned()))
    }

    fn migrate(&self) -> Verdict {
        self.at_least(MIGRATE_SINCE)?;
        refuse_if(self.fact(&["host", "containerized"]) == Some(true), Ineligible::Container)?;
        refuse_if(self.protected, Ineligible::Protected)?;
        refuse_if(self.fleet_server, Ineligible::FleetServer)
    }

    fn privilege(&self) -> Verdict {
        self.at_least(PRIVILEGE_SINCE)?;
        refuse_if(self.needs_root, Ineligible::NeedsRoot)?;
        refuse_if(self.fleet_server, Ineligible::FleetServer)?;
        refuse_if(self.fact(&["elastic", "agent", "unprivileged"]) == Some(true), Ineligible::Unprivileged)
    }
}

/// A rollback that an agent offers.
#[derive(Deserialize)]
struct Offer {
    version: String,
    #[serde(default)]
    valid_until: String,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::{agent, at};

    const ACCEPTED: AcceptedVersions = AcceptedVersions { lowest: (7, 13), highest: (9, None), tested: (9, 5) };

    fn upgradeable() -> String {
        json!({"elastic": {"agent": {"upgradeable": true}}}).to_string()
    }

    fn candidate<'a>(record: &'a AgentRecord, metadata: &'a str) -> Candidate<'a> {
        Candidate { record, metadata, managed: false, protected: false, fleet_server: false, needs_root: false }
    }

    fn upgrade(version: &str, force: bool) -> Operation<'_> {
        Operation::Upgrade { version, accepted: &ACCEPTED, force, skip_rate_limit: false }
    }

    fn upgrading(record: &AgentRecord, version: &str) -> Verdict {
        upgrade(version, false).check(&candidate(record, &upgradeable()), at(60))
    }

    #[test]
    fn mg126_a_lower_or_equal_version_needs_force() {
        assert_eq!(upgrading(&agent(), "9.6.0"), Ok(()));
        assert_eq!(upgrading(&agent(), "9.5.2+build202601"), Ok(()));
        for lower in ["9.5.2", "9.5.1", "8.19.0"] {
            assert!(matches!(upgrading(&agent(), lower), Err(Ineligible::NotNewer(..))), "{lower}");
            assert_eq!(upgrade(lower, true).check(&candidate(&agent(), &upgradeable()), at(60)), Ok(()));
        }
        assert!(matches!(upgrading(&agent(), "next"), Err(Ineligible::NoVersion(_))));
    }

    #[test]
    fn mg126_an_upgrade_to_an_unaccepted_version_is_rejected_even_with_force() {
        let away = upgrade("10.0.0", true).check(&candidate(&agent(), &upgradeable()), at(60));
        assert_eq!(away, Err(Ineligible::NotServed("10.0.0".into())));
    }

    #[test]
    fn mg127_agents_that_cannot_upgrade_need_force_and_containers_are_rejected() {
        let (record, not_upgradeable) = (agent(), json!({"elastic": {"agent": {"upgradeable": false}}}).to_string());
        assert_eq!(
            upgrade("9.6.0", false).check(&candidate(&record, &not_upgradeable), at(60)),
            Err(Ineligible::NotUpgradeable)
        );
        assert_eq!(upgrade("9.6.0", true).check(&candidate(&record, &not_upgradeable), at(60)), Ok(()));
        let containerized = json!({"host": {"containerized": true}}).to_string();
        assert_eq!(
            upgrade("9.6.0", true).check(&candidate(&record, &containerized), at(60)),
            Err(Ineligible::Container)
        );
    }

    #[test]
    fn versions_of_muster_agent_are_compared_with_its_own() {
        let record = AgentRecord { family: Family::Muster, agent_version: "0.1.0".into(), ..agent() };
        assert_eq!(upgrading(&record, "0.2.0"), Ok(()));
        assert!(matches!(upgrading(&record, "0.1.0"), Err(Ineligible::NotNewer(..))));
        assert_eq!(Operation::Diagnostics.check(&candidate(&record, "{}"), at(60)), Ok(()));
        assert_eq!(Operation::Migrate.check(&candidate(&record, "{}"), at(60)), Ok(()));
    }

    #[test]
    fn programs_without_actions_are_only_tagged_and_revoked() {
        let q = PolicyId::trusted("q");
        for family in [Family::Orbit, Family::Osquery] {
            let (record, metadata) = (AgentRecord { family, ..agent() }, upgradeable());
            let verdict = |operation: Operation<'_>| operation.check(&candidate(&record, &metadata), at(60));
            for operation in [
                upgrade("9.6.0", true),
                Operation::Rollback { version: "9.5.1" },
                Operation::Reassign { policy: &q, revision: None, managed: false, force: true },
                Operation::Unenroll { force: true },
                Operation::Diagnostics,
                Operation::Migrate,
                Operation::PrivilegeLevel,
                Operation::Other,
            ] {
                assert_eq!(verdict(operation), Err(Ineligible::Unsupported(family.program())), "{operation:?}");
            }
            assert_eq!(verdict(Operation::Tags).and(verdict(Operation::Revoke { force: false })), Ok(()));
        }
    }

    #[test]
    fn a_running_upgrade_blocks_another_until_it_is_stuck() {
        let mut record = agent();
        record.upgrade.started_at = Some(at(0));
        record.status = Status::Updating;
        assert_eq!(upgrading(&record, "9.6.0"), Err(Ineligible::Upgrading));
        let later = upgrade("9.6.0", false).check(&candidate(&record, &upgradeable()), at(7201));
        assert_eq!(later, Ok(()));
        record.upgrade.details = Some(r#"{"state":"UPG_WATCHING"}"#.into());
        assert_eq!(upgrading(&record, "9.6.0"), Err(Ineligible::Watching));
    }

    #[test]
    fn old_agents_have_a_cool_down_after_an_upgrade() {
        let mut record = AgentRecord { agent_version: "8.11.4".into(), ..agent() };
        record.upgrade.upgraded_at = Some(at(0));
        assert_eq!(upgrading(&record, "9.0.0"), Err(Ineligible::UpgradedJustNow));
        let without_cool_down =
            Operation::Upgrade { version: "9.0.0", accepted: &ACCEPTED, force: false, skip_rate_limit: true };
        assert_eq!(without_cool_down.check(&candidate(&record, &upgradeable()), at(60)), Ok(()));
        assert_eq!(upgrade("9.0.0", false).check(&candidate(&record, &upgradeable()), at(600)), Ok(()));
    }

    #[test]
    fn unenrolled_unenrolling_and_inactive_agents_are_not_eligible() {
        let (gone, metadata) = (AgentRecord { active: false, ..agent() }, upgradeable());
        for operation in [
            upgrade("9.6.0", true),
            Operation::Tags,
            Operation::Unenroll { force: true },
            Operation::Revoke { force: true },
            Operation::Diagnostics,
            Operation::Other,
        ] {
            assert_eq!(operation.check(&candidate(&gone, &metadata), at(60)), Err(Ineligible::Unenrolled));
        }
        let leaving = AgentRecord { unenrollment_started_at: Some(at(0)), ..agent() };
        assert_eq!(upgrading(&leaving, "9.6.0"), Err(Ineligible::Unenrolling));
        let away = AgentRecord { status: Status::Inactive, ..agent() };
        assert_eq!(upgrading(&away, "9.6.0"), Err(Ineligible::Inactive));
    }

    #[test]
    fn mg119_mg137_managed_policies_require_force() {
        let (record, metadata, q) = (agent(), upgradeable(), PolicyId::trusted("q"));
        let managed = Candidate { managed: true, ..candidate(&record, &metadata) };
        let reassign = |force| Operation::Reassign { policy: &q, revision: None, managed: false, force };
        for operation in
            [upgrade("9.6.0", false), Operation::Tags, Operation::Unenroll { force: false }, reassign(false)]
        {
            assert_eq!(operation.check(&managed, at(60)), Err(Ineligible::Managed));
        }
        for operation in [upgrade("9.6.0", true), Operation::Unenroll { force: true }, reassign(true)] {
            assert_eq!(operation.check(&managed, at(60)), Ok(()));
        }
        let target = Operation::Reassign { policy: &q, revision: None, managed: true, force: false };
        assert_eq!(target.check(&candidate(&record, &metadata), at(60)), Err(Ineligible::Managed));
    }

    #[test]
    fn mg133_reassigning_the_same_policy_is_rejected() {
        let (record, p) = (agent(), PolicyId::trusted("p"));
        let operation = Operation::Reassign { policy: &p, revision: None, managed: false, force: true };
        assert_eq!(operation.check(&candidate(&record, ""), at(60)), Err(Ineligible::SamePolicy(p.clone())));
    }

    #[test]
    fn some_actions_require_a_minimum_version() {
        let old = |version: &str, operation: Operation<'_>| {
            let record = AgentRecord { agent_version: version.into(), ..agent() };
            operation.check(&candidate(&record, ""), at(60)).is_err()
        };
        assert!(old("8.6.9", Operation::Diagnostics) && !old("8.7.0", Operation::Diagnostics));
        assert!(old("9.1.9", Operation::Migrate) && !old("9.2.0", Operation::Migrate));
        assert!(old("9.2.9", Operation::PrivilegeLevel) && !old("9.3.0", Operation::PrivilegeLevel));
        assert!(!old("", Operation::Migrate), "an unknown version gets the benefit of the doubt");
    }

    #[test]
    fn some_policies_prevent_migration_and_privilege_changes() {
        let (record, unprivileged) = (agent(), json!({"elastic": {"agent": {"unprivileged": true}}}).to_string());
        let plain = candidate(&record, "");
        let verdict = |operation: Operation<'_>, candidate| operation.check(&candidate, at(60));
        assert_eq!(verdict(Operation::Migrate, Candidate { protected: true, ..plain }), Err(Ineligible::Protected));
        assert_eq!(
            verdict(Operation::Migrate, Candidate { fleet_server: true, ..plain }),
            Err(Ineligible::FleetServer)
        );
        let needs_root = Candidate { needs_root: true, ..plain };
        assert_eq!(verdict(Operation::PrivilegeLevel, needs_root), Err(Ineligible::NeedsRoot));
        let already = candidate(&record, &unprivileged);
        assert_eq!(verdict(Operation::PrivilegeLevel, already), Err(Ineligible::Unprivileged));
    }

    #[test]
    fn mg138_rollbacks_need_a_valid_offer() {
        let mut record = agent();
        let until = at(100).to_rfc3339_seconds();
        record.upgrade.rollbacks = Some(format!(r#"[{{"version":"9.5.1","valid_until":"{until}"}}]"#).into());
        let back = |version, now| Operation::Rollback { version }.check(&candidate(&record, ""), at(now));
        assert_eq!(back("9.5.1", 60), Ok(()));
        assert_eq!(back("9.5.1", 100), Err(Ineligible::RollbackExpired("9.5.1".into())));
        assert_eq!(back("9.5.0", 60), Err(Ineligible::NoRollback("9.5.0".into())));
    }
}
