//! Results of host checks.

use muster_core::fleetd::check_history::{CheckChange, CheckDay, MAX_CHANGES, start_of};
use muster_core::fleetd::checks::CheckResult;
use muster_core::id::{AgentId, HostCheckId, SpaceId};
use muster_core::time::Timestamp;

use super::error::Failure;
use super::row::{Columns, Result, all, any, first, run, send};
use super::session::{Connection, Row, params};
use crate::port::HostCheckWrite;
use crate::query::{CheckCounts, CheckedHost, CheckedHosts, Page};
use crate::sql::host_checks as sql;

/// Applies a change.
pub(super) fn apply(connection: &Connection, write: &HostCheckWrite) -> std::result::Result<(), Failure> {
    let (agent, changes) = match write {
        HostCheckWrite::Results { agent, changes } => (agent, changes),
        HostCheckWrite::Forget { check } => {
            send(connection, sql::FORGET, [check.as_str()])?;
            return Ok(send(connection, sql::FORGET_CHANGES, [check.as_str()])?);
        }
    };
    for result in &changes.put {
        let values = params![
            agent.as_str(),
            result.check.as_str(),
            result.passes.map(i64::from),
            result.since.as_micros(),
            result.error,
            result.failed_at.map(Timestamp::as_micros),
        ];
        send(connection, sql::PUT, values)?;
        put_change(connection, agent, result)?;
    }
    for check in &changes.remove {
        send(connection, sql::DELETE, [agent.as_str(), check.as_str()])?;
        send(connection, sql::DELETE_CHANGES, [agent.as_str(), check.as_str()])?;
    }
    Ok(())
}

/// Adds the answer to its history, unless it is there already. A query that never ran has no answer.
fn put_change(connection: &Connection, agent: &AgentId, result: &CheckResult) -> Result<()> {
    let Some(passes) = result.passes else { return Ok(()) };
    let (agent, check) = (agent.as_str(), result.check.as_str());
    send(connection, sql::PUT_CHANGE, params![agent, check, result.since.as_micros(), i64::from(passes)])?;
    send(connection, sql::TRIM_CHANGES, params![agent, check, i64::from(MAX_CHANGES)])
}

/// Deletes the results of an agent, which are of the checks of its space, with their history.
pub(super) fn delete_of(connection: &Connection, agent: &AgentId) -> Result<()> {
    send(connection, sql::DELETE_OF, [agent.as_str()])?;
    send(connection, sql::DELETE_CHANGES_OF, [agent.as_str()])
}

/// Selects the changes of the answers of an agent, by check, the newest first.
pub(super) fn changes_of(connection: &Connection, agent: &AgentId) -> Result<Vec<CheckChange>> {
    all(connection, sql::CHANGES_OF, [agent.as_str()], |row| {
        let mut c = Columns::of(row);
        Ok(CheckChange { check: c.id()?, passes: c.flag()?, since: c.time()? })
    })
}

/// Deletes changes before a time. Returns their number.
pub(super) fn prune_changes(connection: &Connection, before: Timestamp, limit: u32) -> Result<u64> {
    run(connection, sql::PRUNE_CHANGES, [before.as_micros(), i64::from(limit)]).map(|rows| rows as u64)
}

/// Records the numbers of a day, unless they are recorded, and deletes old ones. Returns the number of new rows.
pub(super) fn record_day(connection: &Connection, day: i64, keep_from: i64) -> Result<u64> {
    // Counting reads the results of all hosts.
    if any(connection, sql::HAS_DAY, [day])? {
        return Ok(0);
    }
    run(connection, sql::FORGET_DAYS, [keep_from])?;
    run(connection, sql::RECORD_DAY, [day, start_of(day + 1).as_micros()]).map(|rows| rows as u64)
}

/// Selects the recorded numbers of a check from a day on, by day.
pub(super) fn days(connection: &Connection, check: &HostCheckId, since: i64) -> Result<Vec<CheckDay>> {
    all(connection, sql::DAYS, params![check.as_str(), since], |row| {
        let mut c = Columns::of(row);
        Ok(CheckDay { day: c.take()?, passing: c.count()?, failing: c.count()? })
    })
}

/// Selects the results of an agent.
pub(super) fn of_agent(connection: &Connection, agent: &AgentId) -> Result<Vec<CheckResult>> {
    all(connection, sql::OF_AGENT, [agent.as_str()], |row| {
        let mut c = Columns::of(row);
        let (check, passes) = (c.id()?, c.take::<Option<i64>>()?);
        Ok(CheckResult {
            check,
            passes: passes.map(|passes| passes != 0),
            since: c.time()?,
            error: c.take()?,
            failed_at: c.time_option()?,
        })
    })
}

/// Counts the hosts that pass each check, that fail it, and on which its query does not run.
pub(super) fn counts(connection: &Connection, checks: &[HostCheckId]) -> Result<Vec<CheckCounts>> {
    let of = |check: &HostCheckId| {
        let counts = all(connection, sql::COUNTS, [check.as_str()], |row| {
            let mut c = Columns::of(row);
            Ok((c.flag()?, c.count()?))
        })?;
        let number = |passes: bool| counts.iter().filter(|(of, _)| *of == passes).map(|(_, number)| number).sum();
        let (errors, error) = first(connection, sql::ERRORS, [check.as_str()], |row| {
            let mut c = Columns::of(row);
            Ok((c.count()?, c.take()?))
        })?
        .unwrap_or_default();
        Ok(CheckCounts { passing: number(true), failing: number(false), errors, error })
    };
    checks.iter().map(of).collect()
}

/// Counts the checks that the hosts of these agents fail; agents without any are left out.
pub(super) fn failing(
    connection: &Connection,
    agents: &[AgentId],
    checks: &[HostCheckId],
) -> Result<Vec<(AgentId, u64)>> {
    let agents: Vec<&str> = agents.iter().map(AgentId::as_str).collect();
    let checks: Vec<&str> = checks.iter().map(HostCheckId::as_str).collect();
    all(connection, sql::FAILING, params![agents, checks], |row| {
        let mut c = Columns::of(row);
        Ok((c.id()?, c.count()?))
    })
}

/// Selects the hosts of a space with an answer to a check.
pub(super) fn hosts(
    connection: &Connection,
    space: &SpaceId,
    check: &HostCheckId,
    which: CheckedHosts,
    page: Page,
) -> Result<Vec<CheckedHost>> {
    let (check, space, limit, offset) = (check.as_str(), space.as_str(), i64::from(page.limit), i64::from(page.offset));
    let passes = match which {
        CheckedHosts::Passing => 1_i64,
        CheckedHosts::Failing => 0,
        CheckedHosts::Errors => {
            return all(connection, sql::HOSTS_WITH_ERRORS, params![check, space, limit, offset], checked_host);
        }
    };
    all(connection, sql::HOSTS, params![check, passes, space, limit, offset], checked_host)
}

fn checked_host(row: &Row<'_>) -> Result<CheckedHost> {
    let mut c = Columns::of(row);
    Ok(CheckedHost { agent: c.id()?, host: c.id_option()?, hostname: c.take()?, since: c.time()?, error: c.take()? })
}
