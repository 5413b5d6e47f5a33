//! Conversion of an agent's record to a row, in the column order of the statements.

use std::time::Duration;

use muster_core::agent::{AgentRecord, AuditReport, ReportedHealth, UpgradeState};
use muster_core::rollout::Place;
use muster_core::time::Timestamp;
use muster_core::version::Version;

use crate::engine::row::{Columns, Result, to_json};
use crate::engine::session::{Connection, Row, Usual, Value};
use crate::engine::words::Word;
use crate::sql::agents as sql;

/// Upper bound of the number of bound values: the columns, and those that an update compares.
const COLUMNS: usize = 59;

/// Maximum length of the version in the column `program`, characters.
const PROGRAM_VERSION: usize = 128;

/// Inserts the record. Returns 0 if the id is taken.
pub(super) fn insert(connection: &Connection, record: &AgentRecord) -> Result<usize> {
    let mut values = Values::new();
    values.plain(record)?;
    values.status(record)?;
    values.keys(record)?;
    values.bind(record.id.as_str())?;
    values.derived(record)?;
    // Never read back: it follows from the id.
    values.bind(Place::of(&record.id).as_i64())?;
    connection.run_usually(sql::INSERT, &values.0, Usual::Affected)
}

/// Updates the row with the version of `before`. Returns 0 if there is none. Touches only the indexes of changed
/// columns.
pub(super) fn update(connection: &Connection, before: &AgentRecord, after: &AgentRecord) -> Result<usize> {
    let keys = !same_keys(before, after);
    // Keys include the status: `UPDATE_ALL` names both groups of columns.
    let status = keys || !same_status(before, after);
    // Most check-ins change no indexed column, and an index that a statement does not name is not written.
    let text = match (keys, status) {
        (true, _) => sql::UPDATE_ALL,
        (false, true) => sql::UPDATE_STATUS,
        (false, false) => sql::UPDATE_PLAIN,
    };
    let mut values = Values::new();
    values.plain(after)?;
    if status {
        values.status(after)?;
    }
    if keys {
        values.keys(after)?;
        values.derived(after)?;
    }
    values.bind(before.id.as_str())?;
    values.bind(before.version)?;
    connection.run_usually(text, &values.0, Usual::Affected)
}

fn same_status(before: &AgentRecord, after: &AgentRecord) -> bool {
    before.status == after.status && before.status_deadline == after.status_deadline
}

fn same_keys(before: &AgentRecord, after: &AgentRecord) -> bool {
    before.family == after.family
        && before.active == after.active
        && before.host_id == after.host_id
        && before.enrollment_key_id == after.enrollment_key_id
        && before.enrollment_id == after.enrollment_id
        && before.space == after.space
        && before.enrolled_at == after.enrolled_at
        && before.policy_id == after.policy_id
        && before.hostname == after.hostname
        && before.duplicate_hosts == after.duplicate_hosts
        && before.former_id == after.former_id
        && before.node == after.node
        && before.os == after.os
        && before.hardware == after.hardware
        && before.agent_version == after.agent_version
}

/// Binds values one after another.
struct Values<'r>(Vec<Value<'r>>);

impl<'r> Values<'r> {
    fn new() -> Self {
        Self(Vec::with_capacity(COLUMNS))
    }

    fn bind(&mut self, value: impl Into<Value<'r>>) -> Result<()> {
        self.0.push(value.into());
        Ok(())
    }

    fn time(&mut self, time: Option<Timestamp>) -> Result<()> {
        self.bind(time.map(Timestamp::as_micros))
    }

    fn words(&mut self, words: &'r [String]) -> Result<()> {
        // Most records have no such words; the literal saves an allocation for each check-in.
        if words.is_empty() { self.bind("[]") } else { self.bind(to_json(words)?) }
    }

    /// Binds the columns that are in no index.
    fn plain(&mut self, record: &'r AgentRecord) -> Result<()> {
        self.bind(record.version)?;
        self.bind(record.family.word())?;
        self.bind(record.kind.word())?;
        self.bind(&record.replace_token)?;
        self.bind(record.updated_at.as_micros())?;
        self.bind(record.target_revision)?;
        self.bind(record.running_policy_id.as_ref().map(muster_core::id::PolicyId::as_str))?;
        self.bind(record.policy_revision)?;
        self.time(record.policy_revision_at)?;
        self.bind(record.policy_failure.as_ref().map(to_json).transpose()?)?;
        self.bind(record.action_position)?;
        self.bind(record.action_token.as_ref().map(muster_core::id::ActionId::as_str))?;
        self.words(&record.tags)?;
        self.bind(&record.agent_version)?;
        self.bind(record.newer_than_tested)?;
        self.time(record.last_checkin)?;
        self.health(&record.health)?;
        self.bind(record.status_since.as_micros())?;
        self.bind(record.audit.map(|audit| audit.reason.word()))?;
        self.time(record.audit.map(|audit| audit.at))?;
        self.bind(record.departure.as_ref().map(to_json).transpose()?)?;
        self.time(record.unenrollment_started_at)?;
        self.time(record.unenrolled_at)?;
        self.bind(&record.unenrolled_reason)?;
        self.upgrade(&record.upgrade)?;
        self.bind(&record.user_metadata)?;
        self.bind(&record.first_address)?;
        self.bind(&record.last_address)?;
        self.bind(record.inactivity_timeout.map(micros))?;
        self.bind(i64::from(record.contact_interval))
    }

    fn health(&mut self, health: &'r ReportedHealth) -> Result<()> {
        self.bind(&health.status)?;
        self.bind(&health.message)?;
        self.words(&health.unhealthy_reason)
    }

    fn upgrade(&mut self, upgrade: &'r UpgradeState) -> Result<()> {
        self.time(upgrade.started_at)?;
        self.time(upgrade.upgraded_at)?;
        self.bind(upgrade.open.as_ref().map(to_json).transpose()?)?;
        self.bind(&upgrade.details)?;
        self.bind(&upgrade.rollbacks)
    }

    /// Binds the status and its deadline.
    fn status(&mut self, record: &'r AgentRecord) -> Result<()> {
        self.bind(record.status.word())?;
        self.time(record.status_deadline)
    }

    /// Binds the other indexed columns, and those that rarely change.
    fn keys(&mut self, record: &'r AgentRecord) -> Result<()> {
        self.bind(record.active)?;
        self.bind(record.host_id.as_ref().map(muster_core::id::HostId::as_str))?;
        self.bind(record.enrollment_key_id.as_ref().map(muster_core::id::EnrollmentKeyId::as_str))?;
        self.bind(&record.enrollment_id)?;
        self.bind(record.enrolled_at.as_micros())?;
        self.bind(record.policy_id.as_ref().map(muster_core::id::PolicyId::as_str))?;
        self.bind(record.space.as_str())?;
        self.bind(&record.hostname)?;
        self.bind(record.duplicate_hosts.as_ref().map(to_json).transpose()?)?;
        self.bind(record.former_id.as_ref().map(muster_core::id::AgentId::as_str))?;
        self.bind(record.node.as_ref().map(muster_core::id::NodeId::as_str))?;
        self.bind(record.os.as_str())?;
        self.bind(record.hardware_uuid())?;
        self.bind(record.serial())
    }

    /// Binds the columns that are computed from others.
    fn derived(&mut self, record: &'r AgentRecord) -> Result<()> {
        self.bind(Version::parse(&record.agent_version).map_or(0, Version::sort_key))?;
        // Cut, because PostgreSQL rejects long values of an index.
        let version: String = record.agent_version.chars().take(PROGRAM_VERSION).collect();
        self.bind(format!("{}\n{version}", record.family.word()))
    }
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

/// Reads a row of all columns.
pub(super) fn read(row: &Row<'_>) -> Result<AgentRecord> {
    read_next(&mut Columns::of(row))
}

/// Reads the next columns, which are all of a record.
pub(super) fn read_next(c: &mut Columns<'_, '_>) -> Result<AgentRecord> {
    // The order of the statements' columns. Struct fields are evaluated as they are written here.
    Ok(AgentRecord {
        version: c.take()?,
        family: c.word()?,
        kind: c.word()?,
        replace_token: c.take()?,
        updated_at: c.time()?,
        target_revision: c.take()?,
        running_policy_id: c.id_option()?,
        policy_revision: c.take()?,
        policy_revision_at: c.time_option()?,
        policy_failure: c.json_option()?,
        action_position: c.take()?,
        action_token: c.id_option()?,
        tags: c.json()?,
        agent_version: c.take()?,
        newer_than_tested: c.flag()?,
        last_checkin: c.time_option()?,
        health: ReportedHealth { status: c.take()?, message: c.take()?, unhealthy_reason: c.json()? },
        status_since: c.time()?,
        audit: audit(c)?,
        departure: c.json_option()?,
        unenrollment_started_at: c.time_option()?,
        unenrolled_at: c.time_option()?,
        unenrolled_reason: c.take()?,
        upgrade: UpgradeState {
            started_at: c.time_option()?,
            upgraded_at: c.time_option()?,
            open: c.json_option()?,
            details: c.take()?,
            rollbacks: c.take()?,
        },
        user_metadata: c.take()?,
        first_address: c.take()?,
        last_address: c.take()?,
        inactivity_timeout: duration(c)?,
        contact_interval: c.take()?,
        status: c.word()?,
        status_deadline: c.time_option()?,
        active: c.flag()?,
        host_id: c.id_option()?,
        enrollment_key_id: c.id_option()?,
        enrollment_id: c.take()?,
        enrolled_at: c.time()?,
        policy_id: c.id_option()?,
        space: c.id()?,
        hostname: c.take()?,
        duplicate_hosts: c.json_option()?,
        former_id: c.id_option()?,
        node: c.id_option()?,
        os: c.take()?,
        hardware: hardware(c)?,
        id: c.id()?,
        credentials: c.credentials()?,
    })
}

fn hardware(c: &mut Columns<'_, '_>) -> Result<Box<str>> {
    let (uuid, serial): (String, String) = (c.take()?, c.take()?);
    Ok(if uuid.is_empty() && serial.is_empty() { Box::default() } else { format!("{uuid}\n{serial}").into() })
}

fn audit(c: &mut Columns<'_, '_>) -> Result<Option<AuditReport>> {
    let (reason, at) = (c.word_option()?, c.time_option()?);
    // Both columns are set together. One alone is damage, and reads as no report.
    Ok(reason.zip(at).map(|(reason, at)| AuditReport { reason, at }))
}

fn duration(c: &mut Columns<'_, '_>) -> Result<Option<Duration>> {
    let micros: Option<i64> = c.take()?;
    Ok(micros.map(|micros| Duration::from_micros(u64::try_from(micros).unwrap_or(0))))
}
