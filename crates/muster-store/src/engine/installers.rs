//! Installers, and what is stored of runs that install and uninstall software.

use muster_core::file::ChunkInfo;
use muster_core::fleetd::labels::name_key;
use muster_core::host_run::Work as _;
use muster_core::id::{FileId, InstallerId, SpaceId};
use muster_core::install::{InstallResult, InstallWork, StepResult};
use muster_core::installer::{Installer, MAX_INSTALLERS, MAX_TOTAL};
use muster_core::time::Timestamp;

use super::host_runs::{Applied, Kind, number};
use super::row::{Columns, Result, affects, all, any, count, first, run};
use super::session::{Connection, Row, Rule, Value, params};
use super::{files, words::Word};
use crate::port::{InstallerWrite, Precondition};
use crate::sql::host_runs::{INSTALLS, Statements};
use crate::sql::installers as sql;

impl Kind for InstallWork {
    const SQL: Statements = INSTALLS;
    const RUNS: &'static str = "installs";

    fn check(&self, connection: &Connection) -> Applied {
        // Installers are deleted under the same lock.
        if any(connection, sql::UPLOADED, [self.installer.as_str()])? {
            return Ok(());
        }
        Err(Precondition::Missing(format!("installer {}", self.installer)).into())
    }

    fn values(&self) -> Vec<Value<'_>> {
        let (kind, retries) = (self.kind.word(), number(self.max_retries));
        vec![kind.into(), self.installer.as_str().into(), (&self.version).into(), retries.into()]
    }

    fn read(c: &mut Columns<'_, '_>) -> Result<Self> {
        Ok(Self { kind: c.word()?, installer: c.id()?, version: c.take()?, max_retries: c.count()? })
    }

    fn result_values(result: &InstallResult) -> Vec<Value<'_>> {
        let InstallResult { condition, script, post_install, retries_remaining } = result;
        let code = |step: &Option<StepResult>| step.as_ref().map(|step| step.exit_code).into();
        let mut values = vec![number(*retries_remaining).into(), condition.as_ref().into()];
        for step in [script, post_install] {
            values.extend([code(step), step.as_ref().map(|step| &step.output).into()]);
        }
        values
    }

    fn read_result(c: &mut Columns<'_, '_>) -> Result<InstallResult> {
        let (retries, condition): (Option<u64>, Option<String>) = (c.take()?, c.take()?);
        let (script, post_install) = (read_step(c)?, read_step(c)?);
        Ok(InstallResult { condition, script, post_install, retries_remaining: retries.unwrap_or_default() })
    }
}

/// Applies a change.
pub(super) fn apply(connection: &Connection, write: &InstallerWrite) -> Applied {
    match write {
        InstallerWrite::Insert(installer) => insert(connection, installer),
        InstallerWrite::IsUploading(id) => uploading(connection, id),
        InstallerWrite::Complete { id, blocks, sha256, now } => complete(connection, id, blocks, sha256, *now),
        InstallerWrite::Delete { id, now } => delete(connection, id, *now),
    }
}

/// Estimates the size of a change in bytes.
pub(super) fn weight(write: &InstallerWrite) -> usize {
    match write {
        InstallerWrite::Insert(one) => {
            let texts = [&one.install_script, &one.post_install_script, &one.uninstall_script, &one.condition];
            texts.into_iter().map(String::len).sum::<usize>() + 1024
        }
        InstallerWrite::Complete { blocks, .. } => blocks.len() * size_of::<ChunkInfo>(),
        InstallerWrite::IsUploading(_) | InstallerWrite::Delete { .. } => 256,
    }
}

fn insert(connection: &Connection, installer: &Installer) -> Applied {
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
    if any(connection, sql::UPLOADING, [id.as_str()])? {
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
    let values = params![id.as_str(), now.as_micros(), now.minus(InstallWork::GRACE).as_micros()];
    if count(connection, sql::NEEDED, values)? > 0 {
        return Err(Precondition::InUse(format!("installer {id}")).into());
    }
    if !remove(connection, id)? {
        return Err(Precondition::Missing(format!("installer {id}")).into());
    }
    Ok(())
}

fn remove(connection: &Connection, id: &InstallerId) -> Result<bool> {
    files::remove_later(connection, &FileId::trusted(id.as_str()))?;
    affects(connection, sql::DELETE_INSTALLER, [id.as_str()])
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

fn read_step(c: &mut Columns<'_, '_>) -> Result<Option<StepResult>> {
    let (code, output): (Option<i64>, Option<String>) = (c.take()?, c.take()?);
    Ok(code.map(|exit_code| StepResult { exit_code, output: output.unwrap_or_default() }))
}

/// Selects an installer of a space.
pub(super) fn one(connection: &Connection, space: &SpaceId, id: &InstallerId) -> Result<Option<Installer>> {
    first(connection, sql::INSTALLER, [id.as_str(), space.as_str()], read_installer)
}

/// Selects the installers of a space.
pub(super) fn of_space(connection: &Connection, space: &SpaceId) -> Result<Vec<Installer>> {
    all(connection, sql::INSTALLERS, [space.as_str()], read_installer)
}

/// Deletes installers whose upload was not completed, and returns their number.
pub(super) fn prune(connection: &Connection, before: Timestamp, limit: u32) -> Result<u64> {
    let id = |row: &Row<'_>| Columns::of(row).id();
    let old: Vec<InstallerId> = all(connection, sql::UNFINISHED, params![before.as_micros(), limit], id)?;
    for id in &old {
        remove(connection, id)?;
    }
    Ok(old.len() as u64)
}
