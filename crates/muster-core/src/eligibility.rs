//! Whether an agent can be ordered something (management reference §5.3). A refusal is a sentence that follows
//! "agent X: ".

use std::time::Duration;

use serde_json::Value;

use crate::agent::AgentRecord;
use crate::status::{Status, is_stuck};
use crate::time::Timestamp;
use crate::upgrade_details::UpgradeDetails;
use crate::user_agent::Version;

/// Why not.
pub type Refusal = String;

/// Agents older than this take no more than one upgrade in [`COOL_DOWN`].
const COOLED_BEFORE: Version = Version(8, 12, 0);
const COOL_DOWN: Duration = Duration::from_secs(600);
const DIAGNOSTICS_SINCE: Version = Version(8, 7, 0);
const MIGRATE_SINCE: Version = Version(9, 2, 0);
const PRIVILEGES_SINCE: Version = Version(9, 3, 0);

/// An agent and the document that says how it was installed.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    /// Its record.
    pub record: &'a AgentRecord,
    /// Its `local_metadata`.
    pub metadata: Option<&'a str>,
}

/// What an upgrade asks for.
#[derive(Clone, Copy, Debug)]
pub struct WantedUpgrade<'a> {
    /// The version.
    pub version: &'a str,
    /// Highest version let in: major, and minor unless any.
    pub highest: (u32, Option<u32>),
    /// Skips every check that is about wisdom, not possibility.
    pub force: bool,
    /// Skips the cool-down.
    pub skip_rate_limit: bool,
}

impl Candidate<'_> {
    fn fact(&self, pointer: &str) -> Option<Value> {
        let metadata: Value = serde_json::from_str(self.metadata?).ok()?;
        metadata.pointer(pointer).cloned()
    }

    fn flag(&self, pointer: &str) -> Option<bool> {
        self.fact(pointer)?.as_bool()
    }

    fn version(&self) -> Option<Version> {
        Version::parse(&self.record.agent_version)
    }

    fn since(&self, first: Version, what: &str) -> Result<(), Refusal> {
        match self.version() {
            Some(version) if version < first => Err(format!("{what} needs version {first} or newer; it has {version}")),
            _ => Ok(()),
        }
    }
}

/// Any order needs an agent that can still be told something.
pub fn any_order(candidate: Candidate<'_>) -> Result<(), Refusal> {
    if candidate.record.active { Ok(()) } else { Err("it is unenrolled".into()) }
}

/// An upgrade.
pub fn upgrade(candidate: Candidate<'_>, wanted: WantedUpgrade<'_>, now: Timestamp) -> Result<(), Refusal> {
    any_order(candidate)?;
    if candidate.flag("/host/containerized") == Some(true) {
        return Err("it runs in a container, whose image is what to change".into());
    }
    if wanted.force {
        return Ok(());
    }
    can_upgrade(candidate)?;
    is_free_to_upgrade(candidate.record, now)?;
    is_newer(candidate, wanted)?;
    if wanted.skip_rate_limit { Ok(()) } else { has_cooled_down(candidate, now) }
}

fn can_upgrade(candidate: Candidate<'_>) -> Result<(), Refusal> {
    let record = candidate.record;
    if record.status == Status::Inactive {
        return Err("it is inactive".into());
    }
    if record.unenrollment_started_at.is_some() {
        return Err("it was ordered to unenroll".into());
    }
    match candidate.flag("/elastic/agent/upgradeable") {
        Some(true) => Ok(()),
        _ => Err("it can't upgrade itself: it was installed from a package or runs in a container".into()),
    }
}

fn is_free_to_upgrade(record: &AgentRecord, now: Timestamp) -> Result<(), Refusal> {
    let details = record.upgrade.details.as_deref().and_then(UpgradeDetails::stored);
    if details.is_some_and(|details| details.state == "UPG_WATCHING") {
        return Err("it still watches its last upgrade".into());
    }
    let upgrading = record.upgrade.started_at.is_some() && record.upgrade.upgraded_at.is_none();
    if upgrading && !is_stuck(record, now) { Err("it is upgrading already".into()) } else { Ok(()) }
}

/// The same version is newer when it names another build.
fn is_newer(candidate: Candidate<'_>, wanted: WantedUpgrade<'_>) -> Result<(), Refusal> {
    let target = Version::parse(wanted.version).ok_or_else(|| format!("{:?} is no version", wanted.version))?;
    let Some(current) = candidate.version() else { return Ok(()) };
    let text = candidate.fact("/elastic/agent/version");
    let running = text.as_ref().and_then(Value::as_str).unwrap_or(&candidate.record.agent_version);
    let other_build = target == current && wanted.version.contains('+') && wanted.version != running;
    if target <= current && !other_build {
        return Err(format!("it runs {running}, which is not older than {}", wanted.version));
    }
    let (major, minor) = wanted.highest;
    if target.0 > major || (target.0 == major && minor.is_some_and(|minor| target.1 > minor)) {
        return Err(format!("this server does not let version {target} in"));
    }
    Ok(())
}

fn has_cooled_down(candidate: Candidate<'_>, now: Timestamp) -> Result<(), Refusal> {
    let old = candidate.version().is_some_and(|version| version < COOLED_BEFORE);
    let recent = candidate.record.upgrade.upgraded_at.is_some_and(|at| now.since(at) < COOL_DOWN);
    if old && recent { Err("it was upgraded less than ten minutes ago".into()) } else { Ok(()) }
}

/// The version that a roll back goes to: the first one offered that is still there.
pub fn rollback(candidate: Candidate<'_>, now: Timestamp) -> Result<String, Refusal> {
    any_order(candidate)?;
    let offers: Vec<Value> = candidate
        .record
        .upgrade
        .rollbacks
        .as_deref()
        .and_then(|text| serde_json::from_str(text).ok())
        .unwrap_or_default();
    let live = |offer: &&Value| {
        let until = offer["valid_until"].as_str().and_then(|text| Timestamp::parse_rfc3339(text).ok());
        until.is_none_or(|until| until > now)
    };
    let version = offers.iter().filter(live).find_map(|offer| offer["version"].as_str());
    match version {
        Some(version) => Ok(version.to_owned()),
        None if offers.is_empty() => Err("it offers no version to roll back to".into()),
        None => Err("its offer to roll back has expired".into()),
    }
}

/// A diagnostics bundle.
pub fn diagnostics(candidate: Candidate<'_>) -> Result<(), Refusal> {
    any_order(candidate)?;
    candidate.since(DIAGNOSTICS_SINCE, "a diagnostics bundle")
}

/// Another server. `protected`: its policy is tamper-protected.
pub fn migrate(candidate: Candidate<'_>, protected: bool) -> Result<(), Refusal> {
    any_order(candidate)?;
    candidate.since(MIGRATE_SINCE, "migration")?;
    if candidate.flag("/host/containerized") == Some(true) {
        return Err("it runs in a container, whose settings are what to change".into());
    }
    if protected { Err("its policy is protected against tampering".into()) } else { Ok(()) }
}

/// Fewer privileges.
pub fn privilege_level(candidate: Candidate<'_>) -> Result<(), Refusal> {
    any_order(candidate)?;
    candidate.since(PRIVILEGES_SINCE, "a change of privileges")?;
    match candidate.flag("/elastic/agent/unprivileged") {
        Some(true) => Err("it runs without privileges already".into()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{agent, at};

    const UPGRADEABLE: &str = r#"{"elastic": {"agent": {"upgradeable": true, "version": "9.5.2"}}}"#;

    fn wanted(version: &str) -> WantedUpgrade<'_> {
        WantedUpgrade { version, highest: (9, None), force: false, skip_rate_limit: false }
    }

    fn refusal(record: &AgentRecord, metadata: &str, wanted: WantedUpgrade<'_>) -> String {
        upgrade(Candidate { record, metadata: Some(metadata) }, wanted, at(60)).err().unwrap_or_default()
    }

    #[test]
    fn m126_only_newer_versions_are_taken_unless_forced() {
        for version in ["9.6.0", "9.5.2+build202601010000", "9.10.0"] {
            assert_eq!(refusal(&agent(), UPGRADEABLE, wanted(version)), "", "{version}");
        }
        for version in ["9.5.2", "9.4.9", "8.19.0", "10.0.0", "new"] {
            assert_ne!(refusal(&agent(), UPGRADEABLE, wanted(version)), "", "{version}");
            assert_eq!(refusal(&agent(), UPGRADEABLE, WantedUpgrade { force: true, ..wanted(version) }), "");
        }
    }

    #[test]
    fn m127_packages_need_force_and_containers_never_upgrade() {
        let packaged = r#"{"elastic": {"agent": {"upgradeable": false}}}"#;
        let contained = r#"{"elastic": {"agent": {"upgradeable": false}}, "host": {"containerized": true}}"#;
        let forced = WantedUpgrade { force: true, ..wanted("9.6.0") };
        assert_ne!(refusal(&agent(), packaged, wanted("9.6.0")), "");
        assert_eq!(refusal(&agent(), packaged, forced), "");
        assert_ne!(refusal(&agent(), contained, forced), "");
    }

    #[test]
    fn agents_that_are_busy_leaving_or_gone_are_not_upgraded() {
        let mut upgrading = agent();
        upgrading.upgrade.started_at = Some(at(50));
        assert_eq!(refusal(&upgrading, UPGRADEABLE, wanted("9.6.0")), "it is upgrading already");
        let leaving = AgentRecord { unenrollment_started_at: Some(at(1)), ..agent() };
        let inactive = AgentRecord { status: Status::Inactive, ..agent() };
        for record in [leaving, inactive] {
            assert_ne!(refusal(&record, UPGRADEABLE, wanted("9.6.0")), "");
        }
        let gone = AgentRecord { active: false, ..agent() };
        assert_ne!(refusal(&gone, UPGRADEABLE, WantedUpgrade { force: true, ..wanted("9.6.0") }), "");
    }

    #[test]
    fn old_agents_cool_down_between_upgrades() {
        let mut old = AgentRecord { agent_version: "8.11.0".into(), ..agent() };
        old.upgrade.upgraded_at = Some(at(0));
        let metadata = r#"{"elastic": {"agent": {"upgradeable": true}}}"#;
        assert_ne!(refusal(&old, metadata, wanted("8.19.0")), "");
        assert_eq!(refusal(&old, metadata, WantedUpgrade { skip_rate_limit: true, ..wanted("8.19.0") }), "");
    }

    #[test]
    fn a_roll_back_goes_to_an_offer_that_is_still_there() {
        let mut record = agent();
        let to = |record: &AgentRecord| rollback(Candidate { record, metadata: None }, at(60));
        assert!(to(&record).is_err());
        let offers = |until: &str| format!(r#"[{{"version": "9.4.0", "valid_until": "{until}"}}]"#);
        record.upgrade.rollbacks = Some(offers(&at(61).to_rfc3339_millis()).into());
        assert_eq!(to(&record).unwrap(), "9.4.0");
        record.upgrade.rollbacks = Some(offers(&at(59).to_rfc3339_millis()).into());
        assert!(to(&record).unwrap_err().contains("expired"));
    }

    #[test]
    fn old_versions_lack_later_orders() {
        let old = AgentRecord { agent_version: "8.6.2".into(), ..agent() };
        let candidate = Candidate { record: &old, metadata: None };
        assert!(diagnostics(candidate).is_err() && migrate(candidate, false).is_err());
        assert!(privilege_level(candidate).is_err());
        let new = agent();
        let candidate = Candidate { record: &new, metadata: None };
        assert!(diagnostics(candidate).is_ok() && migrate(candidate, false).is_ok());
        assert!(privilege_level(candidate).is_ok() && migrate(candidate, true).is_err());
        let low = Candidate { record: &new, metadata: Some(r#"{"elastic": {"agent": {"unprivileged": true}}}"#) };
        assert!(privilege_level(low).is_err());
    }
}
