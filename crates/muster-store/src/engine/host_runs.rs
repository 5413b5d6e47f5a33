//! Runs on hosts, of each kind.

use muster_core::host_run::{
    HostResult as _, HostRun, MAX_ENDED, MAX_ENDED_HOSTS, MAX_RUNNING, OnHost, OnHostState, RunOnHost, Work,
};
use muster_core::id::{AgentId, HostId, HostRunId, SpaceId};
use muster_core::time::Timestamp;

use super::error::Failure;
use super::row::{Columns, Result, affects, all, count, first, run, send};
use super::session::{Connection, Row, Rule, Value, params};
use super::words::Word as _;
use crate::port::{HostRunWrite, Precondition};
use crate::sql::host_runs::Statements;

/// Outcome of a change.
pub(super) type Applied = std::result::Result<(), Failure>;

/// What is stored of a kind of runs beside the columns that all kinds have.
pub(super) trait Kind: Work {
    /// Its statements, which name its tables.
    const SQL: Statements;
    /// Name of its runs, for messages.
    const RUNS: &'static str;

    /// Checks that a new run can be executed. Called under the lock of the rule for runs.
    fn check(&self, _connection: &Connection) -> Applied {
        Ok(())
    }

    /// Returns the values of its columns of runs.
    fn values(&self) -> Vec<Value<'_>>;

    /// Reads its columns of runs.
    fn read(c: &mut Columns<'_, '_>) -> Result<Self>;

    /// Returns the values of its columns of hosts.
    fn result_values(result: &Self::Result) -> Vec<Value<'_>>;

    /// Reads its columns of hosts, which are all empty before the first result.
    fn read_result(c: &mut Columns<'_, '_>) -> Result<Self::Result>;
}

/// Applies a change.
pub(super) fn apply<W: Kind>(connection: &Connection, write: &HostRunWrite<W>) -> Applied {
    match write {
        HostRunWrite::Insert { run, targets, max_ended_bytes } => insert(connection, run, targets, *max_ended_bytes),
        HostRunWrite::Begin { run, agent, now } => {
            let values = params![now.as_micros(), run.as_str(), agent.as_str()];
            if affects(connection, W::SQL.begin, values)? { Ok(()) } else { Err(not_open(run, agent)) }
        }
        HostRunWrite::Result { run, agent, result, now } => take::<W>(connection, run, agent, result, *now),
        HostRunWrite::Stop { run, now } => Ok(send(connection, W::SQL.stop, params![now.as_micros(), run.as_str()])?),
    }
}

/// Estimates the size of a change in bytes.
pub(super) fn weight<W: Kind>(write: &HostRunWrite<W>) -> usize {
    match write {
        HostRunWrite::Insert { run, targets, .. } => {
            let values = run.work.values();
            let texts = values.iter().map(|value| if let Value::Text(text) = value { text.len() } else { 0 });
            texts.sum::<usize>() + targets.len() * 64 + 1024
        }
        HostRunWrite::Result { result, .. } => {
            usize::try_from(result.bytes()).unwrap_or(usize::MAX).saturating_add(512)
        }
        HostRunWrite::Begin { .. } | HostRunWrite::Stop { .. } => 256,
    }
}

fn not_open(run: &HostRunId, agent: &AgentId) -> Failure {
    Precondition::Missing(format!("run {run} on {agent} that has not ended")).into()
}

fn insert<W: Kind>(connection: &Connection, one: &HostRun<W>, targets: &[AgentId], max_ended_bytes: u64) -> Applied {
    // The limits span rows.
    connection.lock(Rule::Runs)?;
    one.work.check(connection)?;
    let (id, space, now) = (one.id.as_str(), one.space.as_str(), one.created_at.as_micros());
    if count(connection, W::SQL.running_in, params![space, now])? >= MAX_RUNNING {
        return Err(Precondition::TooMany(format!("running {}: a space has at most {MAX_RUNNING}", W::RUNS)).into());
    }
    let limits = [MAX_ENDED, MAX_ENDED_HOSTS, max_ended_bytes].map(number);
    let deleted = run(connection, W::SQL.keep_ended, params![space, now, limits[0], limits[1], limits[2]])?;
    if deleted > 0 {
        tracing::info!(space, deleted, "deleted the oldest ended {} above the limits of the space", W::RUNS);
    }
    let (expires_at, targeted) = (one.expires_at.as_micros(), number(one.targets));
    let mut values: Vec<Value<'_>> = vec![id.into(), space.into(), (&one.name).into(), (&one.created_by).into()];
    values.extend([now, expires_at, targeted].map(Value::Integer));
    values.extend(one.work.values());
    if run(connection, W::SQL.insert, values)? == 0 {
        return Err(Precondition::Exists(format!("run {id}")).into());
    }
    let targets: Vec<&str> = targets.iter().map(AgentId::as_str).collect();
    let inserted = run(connection, W::SQL.insert_hosts, params![id, targets, space])? as u64;
    // An agent may have left the space since the targets were selected. The run must not wait for it.
    if inserted != one.targets {
        send(connection, W::SQL.set_targets, params![number(inserted), id])?;
    }
    Ok(())
}

fn take<W: Kind>(
    connection: &Connection,
    run: &HostRunId,
    agent: &AgentId,
    result: &W::Result,
    now: Timestamp,
) -> Applied {
    // Before anything is counted: a result that is repeated counts nothing.
    let before = first(connection, W::SQL.open, [run.as_str(), agent.as_str()], |row| Columns::of(row).count())?;
    let before = before.ok_or_else(|| not_open(run, agent))?;
    let (is_final, bytes) = (result.is_final(), number(result.bytes()));
    let state = if is_final { OnHostState::Done } else { OnHostState::Begun };
    let mut values: Vec<Value<'_>> = vec![state.word().into(), now.as_micros().into(), bytes.into()];
    values.extend(W::result_values(result));
    values.extend([run.as_str(), agent.as_str()].map(Value::from));
    send(connection, W::SQL.take_result, values)?;
    let failed = i64::from(is_final && result.has_failed());
    let grown = bytes.saturating_sub(number(before));
    Ok(send(connection, W::SQL.count_result, params![i64::from(is_final), failed, grown, run.as_str()])?)
}

/// Ends what an agent that leaves the space could still execute. What has expired keeps its outcome.
pub(super) fn forget_agent<W: Kind>(connection: &Connection, agent: &AgentId, now: Timestamp) -> Result<()> {
    let values = params![now.as_micros(), agent.as_str(), now.minus(W::GRACE).as_micros()];
    let mut runs: Vec<HostRunId> = all(connection, W::SQL.gone, values, |row| Columns::of(row).id())?;
    // After the rows of the hosts, as results lock them, and in one order: otherwise servers could wait for each other.
    runs.sort_unstable();
    runs.iter().try_for_each(|run| send(connection, W::SQL.count_result, params![1_i64, 1_i64, 0_i64, run.as_str()]))
}

/// Takes the runs of a space out of it. They are deleted later, as those that have expired.
pub(super) fn delete_in<W: Kind>(connection: &Connection, space: &SpaceId) -> Result<()> {
    send(connection, W::SQL.delete_in, [space.as_str()])
}

/// Returns a number as it is stored. All of them are limited far below the maximum.
pub(super) fn number(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn read_run<W: Kind>(c: &mut Columns<'_, '_>) -> Result<HostRun<W>> {
    Ok(HostRun {
        id: c.id()?,
        space: c.id()?,
        name: c.take()?,
        created_by: c.take()?,
        created_at: c.time()?,
        expires_at: c.time()?,
        stopped_at: c.time_option()?,
        targets: c.count()?,
        finished: c.count()?,
        failed: c.count()?,
        work: W::read(c)?,
    })
}

fn read_host<W: Kind>(c: &mut Columns<'_, '_>) -> Result<OnHost<W::Result>> {
    let (run, agent, host, hostname) = (c.id()?, c.id()?, c.id_option()?, c.take()?);
    let (state, begun_at, ended_at, attempts) = (c.word()?, c.time_option()?, c.time_option()?, c.count()?);
    let result = W::read_result(c)?;
    // Each report is counted, so that one in which no step ran is not taken for none.
    let result = (attempts > 0).then_some(result);
    Ok(OnHost { run, agent, host, hostname, state, begun_at, ended_at, attempts, result })
}

/// Selects a run of a space.
pub(super) fn one<W: Kind>(connection: &Connection, space: &SpaceId, id: &HostRunId) -> Result<Option<HostRun<W>>> {
    first(connection, W::SQL.one, [id.as_str(), space.as_str()], |row| read_run(&mut Columns::of(row)))
}

/// Selects the runs of a space without long texts, newest first.
pub(super) fn of_space<W: Kind>(connection: &Connection, space: &SpaceId) -> Result<Vec<HostRun<W>>> {
    all(connection, W::SQL.of_space, [space.as_str()], |row| read_run(&mut Columns::of(row)))
}

/// Selects targets of a run.
pub(super) fn hosts<W: Kind>(
    connection: &Connection,
    run: &HostRunId,
    after: Option<&AgentId>,
    limit: u32,
) -> Result<Vec<OnHost<W::Result>>> {
    let values = params![run.as_str(), after.map_or("", AgentId::as_str), limit];
    all(connection, W::SQL.hosts, values, |row| read_host::<W>(&mut Columns::of(row)))
}

/// Selects a target of a run.
pub(super) fn host<W: Kind>(
    connection: &Connection,
    run: &HostRunId,
    agent: &AgentId,
) -> Result<Option<OnHost<W::Result>>> {
    first(connection, W::SQL.host, [run.as_str(), agent.as_str()], |row| read_host::<W>(&mut Columns::of(row)))
}

/// Selects the newest runs of a space on a host, without long texts and outputs.
pub(super) fn of_host<W: Kind>(
    connection: &Connection,
    space: &SpaceId,
    host: &HostId,
    limit: u32,
) -> Result<Vec<RunOnHost<W>>> {
    all(connection, W::SQL.of_host, params![host.as_str(), space.as_str(), limit], |row| {
        let mut c = Columns::of(row);
        Ok((read_run(&mut c)?, read_host::<W>(&mut c)?))
    })
}

/// Selects the runs that an agent has yet to execute, without long texts.
pub(super) fn due<W: Kind>(
    connection: &Connection,
    agent: &AgentId,
    space: &SpaceId,
    expires_after: Timestamp,
    limit: u32,
) -> Result<Vec<HostRun<W>>> {
    let values = params![agent.as_str(), space.as_str(), expires_after.as_micros(), limit];
    all(connection, W::SQL.due, values, |row| read_run(&mut Columns::of(row)))
}

/// Selects agents that have something to execute, of one run or of any, that expires after a time.
pub(super) fn waiting<W: Kind>(
    connection: &Connection,
    run: Option<&HostRunId>,
    expires_after: Timestamp,
    after: Option<&AgentId>,
    limit: u32,
) -> Result<Vec<AgentId>> {
    let (after, expires_after) = (after.map_or("", AgentId::as_str), expires_after.as_micros());
    let id = |row: &Row<'_>| Columns::of(row).id();
    match run {
        Some(run) => all(connection, W::SQL.waiting_of, params![run.as_str(), after, expires_after, limit], id),
        None => all(connection, W::SQL.waiting, params![expires_after, after, limit], id),
    }
}

/// Deletes runs that expired before a time, and returns their number.
pub(super) fn prune<W: Kind>(connection: &Connection, before: Timestamp, limit: u32) -> Result<u64> {
    run(connection, W::SQL.prune, params![before.as_micros(), limit]).map(|rows| rows as u64)
}
