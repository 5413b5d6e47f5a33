//! Runs of scripts, their executions on hosts, and saved scripts.

use muster_core::fleetd::labels::name_key;
use muster_core::id::{AgentId, ScriptRunId, SpaceId};
use muster_core::script::{
    Execution, GRACE, MAX_ENDED, MAX_ENDED_HOSTS, MAX_RUNNING, MAX_SAVED, SavedScript, ScriptResult, ScriptRun,
};
use muster_core::time::Timestamp;

use super::error::Failure;
use super::row::{Columns, Result, affects, all, count, first, run, send};
use super::session::{Connection, Row, Rule, params};
use crate::port::{Precondition, ScriptWrite};
use crate::query::DueScript;
use crate::sql::scripts as sql;

/// Applies a change.
pub(super) fn apply(connection: &Connection, write: &ScriptWrite) -> std::result::Result<(), Failure> {
    match write {
        ScriptWrite::Insert { run, targets } => insert(connection, run, targets),
        ScriptWrite::Fetch { run, agent, now } => {
            let values = params![now.as_micros(), run.as_str(), agent.as_str()];
            if affects(connection, sql::FETCH, values)? { Ok(()) } else { Err(not_open(run, agent)) }
        }
        ScriptWrite::Result { run, agent, result, now } => take(connection, run, agent, result, *now),
        ScriptWrite::Stop { run, now } => Ok(send(connection, sql::STOP, params![now.as_micros(), run.as_str()])?),
        ScriptWrite::Save(script) => save(connection, script),
        ScriptWrite::DeleteSaved { id } => {
            if affects(connection, sql::DELETE_SAVED, [id.as_str()])? {
                return Ok(());
            }
            Err(Precondition::Missing(format!("saved script {id}")).into())
        }
    }
}

fn not_open(run: &ScriptRunId, agent: &AgentId) -> Failure {
    Precondition::Missing(format!("execution of {run} on {agent} without a result")).into()
}

fn insert(connection: &Connection, script: &ScriptRun, targets: &[AgentId]) -> std::result::Result<(), Failure> {
    // The limits span rows.
    connection.lock(Rule::Runs)?;
    let (space, now) = (script.space.as_str(), script.created_at.as_micros());
    if count(connection, sql::RUNNING_IN, params![space, now])? >= MAX_RUNNING {
        return Err(Precondition::TooMany(format!("running scripts: a space has at most {MAX_RUNNING}")).into());
    }
    send(connection, sql::KEEP_ENDED, params![space, now, number(MAX_ENDED), number(MAX_ENDED_HOSTS)])?;
    let values = params![
        script.id.as_str(),
        space,
        script.name,
        script.script,
        script.sha256,
        script.created_by,
        now,
        script.expires_at.as_micros(),
        number(script.timeout),
        number(script.targets),
    ];
    if run(connection, sql::INSERT, values)? == 0 {
        return Err(Precondition::Exists(format!("script run {}", script.id)).into());
    }
    let targets: Vec<&str> = targets.iter().map(AgentId::as_str).collect();
    let inserted = run(connection, sql::INSERT_EXECUTIONS, params![script.id.as_str(), targets, space])? as u64;
    // An agent may have left the space since the targets were selected. The run must not wait for it.
    if inserted != script.targets {
        send(connection, sql::SET_TARGETS, params![number(inserted), script.id.as_str()])?;
    }
    Ok(())
}

fn take(
    connection: &Connection,
    run: &ScriptRunId,
    agent: &AgentId,
    result: &ScriptResult,
    now: Timestamp,
) -> std::result::Result<(), Failure> {
    let values = params![
        now.as_micros(),
        result.exit_code,
        result.output,
        number(result.runtime),
        run.as_str(),
        agent.as_str(),
    ];
    // First: a result that is repeated counts nothing.
    if !affects(connection, sql::TAKE_RESULT, values)? {
        return Err(not_open(run, agent));
    }
    let failed = i64::from(result.exit_code != 0);
    Ok(send(connection, sql::COUNT_RESULT, params![failed, run.as_str()])?)
}

fn save(connection: &Connection, script: &SavedScript) -> std::result::Result<(), Failure> {
    connection.lock(Rule::References)?;
    let (space, name_key) = (script.space.as_str(), name_key(&script.name));
    let is_new = script.version == 1;
    if is_new && count(connection, sql::SAVED_BESIDE, [space, name_key.as_str()])? >= MAX_SAVED {
        return Err(Precondition::TooMany(format!("saved scripts: a space has at most {MAX_SAVED}")).into());
    }
    let values = params![
        script.name,
        name_key,
        script.description,
        script.script,
        script.sha256,
        script.version,
        script.updated_by,
        script.updated_at.as_micros(),
        script.id.as_str(),
        space,
    ];
    if run(connection, if is_new { sql::SAVE } else { sql::CHANGE_SAVED }, values)? == 0 {
        return Err(Precondition::Changed(format!("saved script {:?}", script.name)).into());
    }
    Ok(())
}

/// Ends the executions that an agent which leaves the space could still report. Those that have expired keep their outcome.
pub(super) fn forget_agent(connection: &Connection, agent: &AgentId, now: Timestamp) -> Result<()> {
    let values = params![now.as_micros(), agent.as_str(), now.minus(GRACE).as_micros()];
    let mut runs: Vec<ScriptRunId> = all(connection, sql::GONE, values, |row| Columns::of(row).id())?;
    // After the executions, as results lock them, and in one order: otherwise servers could wait for each other.
    runs.sort_unstable();
    runs.iter().try_for_each(|run| send(connection, sql::COUNT_RESULT, params![1_i64, run.as_str()]))
}

/// Deletes the runs and saved scripts of a space.
pub(super) fn delete_in(connection: &Connection, space: &SpaceId) -> Result<()> {
    send(connection, sql::DELETE_RUNS_IN, [space.as_str()])?;
    send(connection, sql::DELETE_SAVED_IN, [space.as_str()])
}

/// Returns a number as it is stored. All of them are limited far below the maximum.
fn number(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn read_run(row: &Row<'_>) -> Result<ScriptRun> {
    run_of(&mut Columns::of(row))
}

fn run_of(c: &mut Columns<'_, '_>) -> Result<ScriptRun> {
    Ok(ScriptRun {
        id: c.id()?,
        space: c.id()?,
        name: c.take()?,
        script: c.take()?,
        sha256: c.take()?,
        created_by: c.take()?,
        created_at: c.time()?,
        expires_at: c.time()?,
        timeout: c.count()?,
        stopped_at: c.time_option()?,
        targets: c.count()?,
        finished: c.count()?,
        failed: c.count()?,
    })
}

fn read_execution(row: &Row<'_>) -> Result<Execution> {
    execution_of(&mut Columns::of(row))
}

fn execution_of(c: &mut Columns<'_, '_>) -> Result<Execution> {
    let (run, agent, host, hostname) = (c.id()?, c.id()?, c.id_option()?, c.take()?);
    let (state, fetched_at, ended_at) = (c.word()?, c.time_option()?, c.time_option()?);
    let (code, output, runtime): (Option<i64>, Option<String>, Option<i64>) = (c.take()?, c.take()?, c.take()?);
    let result = code.map(|exit_code| ScriptResult {
        exit_code,
        output: output.unwrap_or_default(),
        runtime: runtime.unwrap_or_default().unsigned_abs(),
    });
    Ok(Execution { run, agent, host, hostname, state, fetched_at, ended_at, result })
}

fn read_saved(row: &Row<'_>) -> Result<SavedScript> {
    let mut c = Columns::of(row);
    Ok(SavedScript {
        id: c.id()?,
        space: c.id()?,
        name: c.take()?,
        description: c.take()?,
        script: c.take()?,
        sha256: c.take()?,
        version: c.take()?,
        updated_by: c.take()?,
        updated_at: c.time()?,
    })
}

/// Selects a run of a space.
pub(super) fn one(connection: &Connection, space: &SpaceId, id: &ScriptRunId) -> Result<Option<ScriptRun>> {
    first(connection, sql::ONE, [id.as_str(), space.as_str()], read_run)
}

/// Selects the runs of a space, newest first.
pub(super) fn of_space(connection: &Connection, space: &SpaceId) -> Result<Vec<ScriptRun>> {
    all(connection, sql::OF_SPACE, [space.as_str()], read_run)
}

/// Selects executions of a run.
pub(super) fn executions(
    connection: &Connection,
    run: &ScriptRunId,
    after: Option<&AgentId>,
    limit: u32,
) -> Result<Vec<Execution>> {
    let after = after.map_or("", AgentId::as_str);
    all(connection, sql::EXECUTIONS, params![run.as_str(), after, limit], read_execution)
}

/// Selects the newest executions of an agent in a space, with their runs.
pub(super) fn executions_of(
    connection: &Connection,
    agent: &AgentId,
    space: &SpaceId,
    limit: u32,
) -> Result<Vec<(ScriptRun, Execution)>> {
    all(connection, sql::EXECUTIONS_OF, params![agent.as_str(), space.as_str(), limit], |row| {
        let mut c = Columns::of(row);
        Ok((run_of(&mut c)?, execution_of(&mut c)?))
    })
}

/// Selects an execution.
pub(super) fn execution(connection: &Connection, run: &ScriptRunId, agent: &AgentId) -> Result<Option<Execution>> {
    first(connection, sql::EXECUTION, [run.as_str(), agent.as_str()], read_execution)
}

/// Selects the runs that an agent has yet to execute.
pub(super) fn due(
    connection: &Connection,
    agent: &AgentId,
    space: &SpaceId,
    now: Timestamp,
    limit: u32,
) -> Result<Vec<DueScript>> {
    let values = params![agent.as_str(), space.as_str(), now.as_micros(), limit];
    all(connection, sql::DUE, values, |row| {
        let mut c = Columns::of(row);
        Ok(DueScript { run: c.id()?, timeout: c.count()? })
    })
}

/// Selects agents that have something to execute, of one run or of any, that expires after a time.
pub(super) fn waiting(
    connection: &Connection,
    run: Option<&ScriptRunId>,
    expires_after: Timestamp,
    after: Option<&AgentId>,
    limit: u32,
) -> Result<Vec<AgentId>> {
    let after = after.map_or("", AgentId::as_str);
    let id = |row: &Row<'_>| Columns::of(row).id();
    match run {
        Some(run) => {
            all(connection, sql::WAITING_OF, params![run.as_str(), after, expires_after.as_micros(), limit], id)
        }
        None => all(connection, sql::WAITING, params![expires_after.as_micros(), after, limit], id),
    }
}

/// Deletes runs that expired before a time, and returns their number.
pub(super) fn prune(connection: &Connection, before: Timestamp, limit: u32) -> Result<u64> {
    run(connection, sql::PRUNE, params![before.as_micros(), limit]).map(|rows| rows as u64)
}

/// Selects the saved scripts of a space.
pub(super) fn saved(connection: &Connection, space: &SpaceId) -> Result<Vec<SavedScript>> {
    all(connection, sql::SAVED, [space.as_str()], read_saved)
}

/// Selects a saved script by its id or name.
pub(super) fn saved_named(connection: &Connection, space: &SpaceId, named: &str) -> Result<Option<SavedScript>> {
    first(connection, sql::SAVED_NAMED, params![space.as_str(), named, name_key(named)], read_saved)
}
