//! Installers, and runs that install and uninstall software on hosts.

use muster_core::file::ChunkInfo;
use muster_core::fleetd::labels::name_key;
use muster_core::id::{AgentId, FileId, HostId, InstallRunId, InstallerId, SpaceId};
use muster_core::install::{
    HostInstall, InstallResult, InstallRun, InstallState, MAX_ENDED, MAX_ENDED_HOSTS, MAX_RUNNING, RESULT_WITHIN,
    StepResult, Verdict,
};
use muster_core::installer::{Installer, MAX_INSTALLERS, MAX_TOTAL};
use muster_core::time::Timestamp;

use super::error::Failure;
use super::row::{Columns, Result, affects, all, count, first, run, send};
use super::session::{Connection, Row, Rule, params};
use super::{files, words::Word};
use crate::port::{InstallWrite, Precondition};
use crate::sql::{files as files_sql, installs as sql};

type Applied = std::result::Result<(), Failure>;

/// Applies a change.
pub(super) fn apply(connection: &Connection, write: &InstallWrite) -> Applied {
    match write {
        InstallWrite::InsertInstaller(installer) => insert_installer(connection, installer),
        InstallWrite::IsUploading(id) => uploading(connection, id),
        InstallWrite::CompleteInstaller { id, blocks, sha256, now } => complete(connection, id, blocks, sha256, *now),
        InstallWrite::DeleteInstaller { id, now } => delete(connection, id, *now),
        InstallWrite::InsertRun { run, targets } => insert_run(connection, run, targets),
        InstallWrite::Sent { run, agent, now } => {
            let values = params![now.as_micros(), run.as_str(), agent.as_str()];
            if affects(connection, sql::SENT, values)? { Ok(()) } else { Err(not_open(run, agent)) }
        }
        InstallWrite::Result { run, agent, result, now } => take(connection, run, agent, result, *now),
        InstallWrite::Cancel { run, now } => Ok(send(connection, sql::CANCEL, params![now.as_micros(), run.as_str()])?),
    }
}

/// Estimates the size of a change in bytes.
pub(super) fn weight(write: &InstallWrite) -> usize {
    match write {
        InstallWrite::InsertInstaller(one) => {
            one.install_script.len()
                + one.post_install_script.len()
                + one.uninstall_script.len()
                + one.condition.len()
                + 1024
        }
        InstallWrite::CompleteInstaller { blocks, .. } => blocks.len() * size_of::<ChunkInfo>(),
        InstallWrite::InsertRun { targets, .. } => targets.len() * 64 + 1024,
        InstallWrite::Result { result, .. } => {
            let of = |step: &Option<StepResult>| step.as_ref().map_or(0, |step| step.output.len());
            of(&result.script) + of(&result.post_install) + result.condition.as_ref().map_or(0, String::len) + 512
        }
        _ => 256,
    }
}

fn not_open(run: &InstallRunId, agent: &AgentId) -> Failure {
    Precondition::Missing(format!("install {run} on {agent} without a result")).into()
}

fn insert_installer(connection: &Connection, installer: &Installer) -> Applied {
    // The limits span rows.
    connection.lock(Rule::Runs)?;
    let space = installer.space.as_str();
    if count(connection, sql::INSTALLERS_IN, [space])? >= MAX_INSTALLERS {
        return Err(Precondition::TooMany(format!("installers: a space has at most {MAX_INSTALLERS}")).into());
    }
    if count(connection, sql::BYTES_IN, [space])?.saturating_add(installer.size) > MAX_TOTAL {
        return Err(Precondition::TooMany(format!("bytes of installers: a space has at most {MAX_TOTAL}")).into());
    }
    let values = params![
        installer.id.as_str(),
        space,
        installer.name,
        name_key(&installer.name),
        installer.version,
        installer.format.word(),
        installer.platform.word(),
        installer.file_name,
        number(installer.size),
        installer.sha256,
        installer.created_by,
        installer.created_at.as_micros(),
        installer.condition,
        installer.install_script,
        installer.post_install_script,
        installer.uninstall_script,
    ];
    if run(connection, sql::INSERT_INSTALLER, values)? == 0 {
        return Err(Precondition::NameTaken(format!("{} {}", installer.name, installer.version)).into());
    }
    Ok(())
}

fn uploading(connection: &Connection, id: &InstallerId) -> Applied {
    if count(connection, sql::UPLOADING, [id.as_str()])? == 1 {
        return Ok(());
    }
    Err(Precondition::Changed(format!("installer {id}")).into())
}

fn complete(connection: &Connection, id: &InstallerId, blocks: &[ChunkInfo], sha256: &str, now: Timestamp) -> Applied {
    // A block that arrived since was not verified.
    if files::chunks(connection, &FileId::trusted(id.as_str()))? == blocks
        && affects(connection, sql::COMPLETE, params![sha256, now.as_micros(), id.as_str()])?
    {
        return Ok(());
    }
    Err(Precondition::Changed(format!("installer {id}")).into())
}

fn delete(connection: &Connection, id: &InstallerId, now: Timestamp) -> Applied {
    // Runs are inserted under this lock.
    connection.lock(Rule::Runs)?;
    let values = params![id.as_str(), now.as_micros(), now.minus(RESULT_WITHIN).as_micros()];
    if count(connection, sql::NEEDED, values)? > 0 {
        return Err(Precondition::InUse(format!("installer {id}")).into());
    }
    if !remove(connection, id)? {
        return Err(Precondition::Missing(format!("installer {id}")).into());
    }
    Ok(())
}

fn remove(connection: &Connection, id: &InstallerId) -> Result<bool> {
    send(connection, files_sql::DELETE_CHUNKS, [id.as_str()])?;
    affects(connection, sql::DELETE_INSTALLER, [id.as_str()])
}

fn insert_run(connection: &Connection, one: &InstallRun, targets: &[AgentId]) -> Applied {
    connection.lock(Rule::Runs)?;
    let (space, now) = (one.space.as_str(), one.created_at.as_micros());
    if count(connection, sql::RUNNING_IN, params![space, now])? >= MAX_RUNNING {
        return Err(Precondition::TooMany(format!("running installs: a space has at most {MAX_RUNNING}")).into());
    }
    send(connection, sql::KEEP_ENDED, params![space, now, number(MAX_ENDED), number(MAX_ENDED_HOSTS)])?;
    let values = params![
        one.id.as_str(),
        space,
        one.kind.word(),
        one.name,
        one.version,
        one.created_by,
        now,
        one.expires_at.as_micros(),
        number(one.max_retries),
        number(one.targets),
        one.installer.as_str(),
    ];
    if run(connection, sql::INSERT_RUN, values)? == 0 {
        return Err(Precondition::Missing(format!("installer {}", one.installer)).into());
    }
    let targets: Vec<&str> = targets.iter().map(AgentId::as_str).collect();
    let inserted = run(connection, sql::INSERT_HOSTS, params![one.id.as_str(), targets, space])? as u64;
    // An agent may have left the space since the targets were selected. The run must not wait for it.
    if inserted != one.targets {
        send(connection, sql::SET_TARGETS, params![number(inserted), one.id.as_str()])?;
    }
    Ok(())
}

fn take(
    connection: &Connection,
    run: &InstallRunId,
    agent: &AgentId,
    result: &InstallResult,
    now: Timestamp,
) -> Applied {
    let is_final = result.is_final();
    let state = if is_final { InstallState::Done } else { InstallState::Sent };
    let code = |step: &Option<StepResult>| step.as_ref().map(|step| step.exit_code);
    let output = |step: &Option<StepResult>| step.as_ref().map(|step| step.output.clone());
    let values = params![
        state.word(),
        now.as_micros(),
        number(result.retries_remaining),
        result.condition.clone(),
        code(&result.script),
        output(&result.script),
        code(&result.post_install),
        output(&result.post_install),
        run.as_str(),
        agent.as_str(),
    ];
    // First: a result that is repeated counts nothing.
    if !affects(connection, sql::TAKE_RESULT, values)? {
        return Err(not_open(run, agent));
    }
    if !is_final {
        return Ok(());
    }
    // A condition that is not met skips the host as intended.
    let failed = i64::from(matches!(result.verdict(), Verdict::Failed(_)));
    Ok(send(connection, sql::COUNT_RESULT, params![failed, run.as_str()])?)
}

/// Ends what an agent that leaves the space could still execute. What has expired keeps its outcome.
pub(super) fn forget_agent(connection: &Connection, agent: &AgentId, now: Timestamp) -> Result<()> {
    let values = params![now.as_micros(), agent.as_str(), now.minus(RESULT_WITHIN).as_micros()];
    let mut runs: Vec<InstallRunId> = all(connection, sql::GONE, values, |row| Columns::of(row).id())?;
    // After the rows of the hosts, as results lock them, and in one order: otherwise servers could wait for each other.
    runs.sort_unstable();
    runs.iter().try_for_each(|run| send(connection, sql::COUNT_RESULT, params![1_i64, run.as_str()]))
}

/// Deletes the installers and runs of a space.
pub(super) fn delete_in(connection: &Connection, space: &SpaceId) -> Result<()> {
    let statements = [sql::DELETE_CHUNKS_IN, sql::DELETE_INSTALLERS_IN, sql::DELETE_RUNS_IN];
    statements.into_iter().try_for_each(|statement| send(connection, statement, [space.as_str()]))
}

/// Returns a number as it is stored. All of them are limited far below the maximum.
fn number(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn read_installer(row: &Row<'_>) -> Result<Installer> {
    let mut c = Columns::of(row);
    Ok(Installer {
        id: c.id()?,
        space: c.id()?,
        name: c.take()?,
        version: c.take()?,
        format: c.word()?,
        platform: c.word()?,
        file_name: c.take()?,
        size: c.count()?,
        sha256: c.take()?,
        created_by: c.take()?,
        created_at: c.time()?,
        uploaded_at: c.time_option()?,
        condition: c.take()?,
        install_script: c.take()?,
        post_install_script: c.take()?,
        uninstall_script: c.take()?,
    })
}

fn read_run(c: &mut Columns<'_, '_>) -> Result<InstallRun> {
    Ok(InstallRun {
        id: c.id()?,
        space: c.id()?,
        kind: c.word()?,
        installer: c.id()?,
        name: c.take()?,
        version: c.take()?,
        created_by: c.take()?,
        created_at: c.time()?,
        expires_at: c.time()?,
        max_retries: c.count()?,
        cancelled_at: c.time_option()?,
        targets: c.count()?,
        finished: c.count()?,
        failed: c.count()?,
    })
}

fn read_host(c: &mut Columns<'_, '_>) -> Result<HostInstall> {
    let (run, agent, host, hostname) = (c.id()?, c.id()?, c.id_option()?, c.take()?);
    let (state, sent_at, ended_at, attempts) = (c.word()?, c.time_option()?, c.time_option()?, c.count()?);
    let (retries_remaining, condition): (u64, Option<String>) = (c.count()?, c.take()?);
    let (script, post_install) = (read_step(c)?, read_step(c)?);
    // Each report is counted, so that one in which no step ran is not taken for none.
    let result = (attempts > 0).then_some(InstallResult { condition, script, post_install, retries_remaining });
    Ok(HostInstall { run, agent, host, hostname, state, sent_at, ended_at, attempts, result })
}

fn read_step(c: &mut Columns<'_, '_>) -> Result<Option<StepResult>> {
    let (code, output): (Option<i64>, Option<String>) = (c.take()?, c.take()?);
    Ok(code.map(|exit_code| StepResult { exit_code, output: output.unwrap_or_default() }))
}

/// Selects an installer of a space.
pub(super) fn installer(connection: &Connection, space: &SpaceId, id: &InstallerId) -> Result<Option<Installer>> {
    first(connection, sql::INSTALLER, [id.as_str(), space.as_str()], read_installer)
}

/// Selects the installers of a space.
pub(super) fn installers(connection: &Connection, space: &SpaceId) -> Result<Vec<Installer>> {
    all(connection, sql::INSTALLERS, [space.as_str()], read_installer)
}

/// Deletes installers whose upload was not completed, and returns their number.
pub(super) fn prune_installers(connection: &Connection, before: Timestamp, limit: u32) -> Result<u64> {
    let id = |row: &Row<'_>| Columns::of(row).id();
    let old: Vec<InstallerId> = all(connection, sql::UNFINISHED, params![before.as_micros(), limit], id)?;
    for id in &old {
        remove(connection, id)?;
    }
    Ok(old.len() as u64)
}

/// Selects a run of a space.
pub(super) fn one(connection: &Connection, space: &SpaceId, id: &InstallRunId) -> Result<Option<InstallRun>> {
    first(connection, sql::RUN, [id.as_str(), space.as_str()], |row| read_run(&mut Columns::of(row)))
}

/// Selects the runs of a space, newest first.
pub(super) fn of_space(connection: &Connection, space: &SpaceId) -> Result<Vec<InstallRun>> {
    all(connection, sql::RUNS, [space.as_str()], |row| read_run(&mut Columns::of(row)))
}

/// Selects targets of a run.
pub(super) fn hosts(
    connection: &Connection,
    run: &InstallRunId,
    after: Option<&AgentId>,
    limit: u32,
) -> Result<Vec<HostInstall>> {
    let values = params![run.as_str(), after.map_or("", AgentId::as_str), limit];
    all(connection, sql::HOSTS, values, |row| read_host(&mut Columns::of(row)))
}

/// Selects a target of a run.
pub(super) fn host(connection: &Connection, run: &InstallRunId, agent: &AgentId) -> Result<Option<HostInstall>> {
    first(connection, sql::HOST, [run.as_str(), agent.as_str()], |row| read_host(&mut Columns::of(row)))
}

/// Selects the newest runs of a space on a host, without outputs.
pub(super) fn of_host(
    connection: &Connection,
    space: &SpaceId,
    host: &HostId,
    limit: u32,
) -> Result<Vec<(InstallRun, HostInstall)>> {
    all(connection, sql::OF_HOST, params![host.as_str(), space.as_str(), limit], |row| {
        let mut c = Columns::of(row);
        Ok((read_run(&mut c)?, read_host(&mut c)?))
    })
}

/// Selects the runs that an agent has yet to execute.
pub(super) fn due(
    connection: &Connection,
    agent: &AgentId,
    space: &SpaceId,
    expires_after: Timestamp,
    limit: u32,
) -> Result<Vec<InstallRun>> {
    let values = params![agent.as_str(), space.as_str(), expires_after.as_micros(), limit];
    all(connection, sql::DUE, values, |row| read_run(&mut Columns::of(row)))
}

/// Selects agents that have something to execute, of one run or of any, that expires after a time.
pub(super) fn waiting(
    connection: &Connection,
    run: Option<&InstallRunId>,
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
