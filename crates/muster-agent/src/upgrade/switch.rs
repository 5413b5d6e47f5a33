//! The switch between two versions, and its recovery after a crash. The link is changed by a single rename.

use std::io;

use muster_core::Timestamp;
use muster_core::error_chain::chain;

use super::disk::Disk;
use super::record::{self, Kept, Record, Recovery, Step, kept_until, recover, removable};
use crate::homes::HomeName;
use crate::paths::Layout;
use crate::state::StoreError;

/// File in a home that contains the time until which it is kept.
const KEPT_UNTIL: &str = "kept-until";
/// Prefix of directories that are not homes yet.
pub const STAGING: &str = ".staging";

/// What became of an upgrade that was in progress when the daemon started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resumed {
    /// There was none.
    Nothing,
    /// It was interrupted before the switch.
    Interrupted,
    /// This is the new version, and it is being watched.
    Watching(Record),
    /// This is the new version, and it is accepted.
    Kept(Record),
    /// This is the previous version again.
    RolledBack(Record),
}

/// How a daemon starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Start {
    /// It runs.
    Run(Resumed),
    /// It must become the active version, which is another one.
    Become,
}

/// Stores the record. From now on, the upgrade survives a crash.
pub fn store(disk: &dyn Disk, layout: &Layout, record: &Record) -> io::Result<()> {
    disk.replace(&layout.upgrade(), &record.to_bytes())
}

/// Goes back to the previous version: first the record, then the link, so that a crash in between is recognized.
pub fn go_back(disk: &dyn Disk, layout: &Layout, going: &Record) -> io::Result<()> {
    store(disk, layout, going)?;
    disk.activate(layout, &going.from)
}

/// Counts a start of the active version by a service manager, and goes back if there were too many. The previous version
/// runs this before each start during an upgrade, because the new one may end before it does anything.
pub fn guard(disk: &dyn Disk, layout: &Layout) -> Result<(), StoreError> {
    let Some(stored) = Record::load(disk, layout)? else { return Ok(()) };
    let io = |source| StoreError::Io { path: layout.upgrade().to_string(), source };
    let active = disk.active(layout).map_err(io)?;
    match record::guard(&stored, active.as_ref()) {
        None => Ok(()),
        Some((next, false)) => store(disk, layout, &next).map_err(io),
        Some((going, true)) => go_back(disk, layout, &going).map_err(io),
    }
}

/// Recovers an upgrade that was in progress when a daemon of version `running` started.
pub fn resume(disk: &dyn Disk, layout: &Layout, running: &HomeName) -> io::Result<Start> {
    let stored = match Record::load(disk, layout) {
        Ok(stored) => stored,
        Err(StoreError::Io { source, .. }) => return Err(source),
        // The link alone decides which version runs, so that nothing else is lost with the record.
        Err(error) => {
            tracing::error!(error = %chain(&error), "removing the record of an upgrade");
            disk.remove(&layout.upgrade())?;
            None
        }
    };
    let Some(stored) = stored else {
        clean(disk, layout, running, None)?;
        return Ok(Start::Run(Resumed::Nothing));
    };
    let active = disk.active(layout)?;
    Ok(Start::Run(match recover(&stored, running, active.as_ref()) {
        Recovery::Watch(next) => {
            // It may have been kept as a previous version. One that goes back is not offered again.
            disk.remove(&layout.home(running).path().join(KEPT_UNTIL))?;
            store(disk, layout, &next)?;
            Resumed::Watching(next)
        }
        Recovery::Finish => Resumed::Kept(stored),
        Recovery::Report => Resumed::RolledBack(stored),
        Recovery::GoBack(going) => {
            go_back(disk, layout, &going)?;
            if *running != going.from {
                return Ok(Start::Become);
            }
            Resumed::RolledBack(going)
        }
        Recovery::Discard => {
            disk.remove(&layout.upgrade())?;
            clean(disk, layout, running, None)?;
            Resumed::Interrupted
        }
    }))
}

/// Ends an upgrade after its result was stored elsewhere. The record goes last, so that a crash repeats the rest.
pub fn finish(disk: &dyn Disk, layout: &Layout, running: &HomeName, now: Timestamp) -> io::Result<()> {
    let stored = Record::load(disk, layout).ok().flatten();
    let previous = stored.as_ref().filter(|record| record.step == Step::Kept && record.from != *running);
    if let Some(record) = previous {
        let until = layout.home(&record.from).path().join(KEPT_UNTIL);
        if disk.installed(layout)?.contains(&record.from) {
            disk.replace(&until, kept_until(now).to_rfc3339_seconds().as_bytes())?;
        }
    }
    // A version that went back is not offered again.
    clean(disk, layout, running, previous.map(|record| &record.from))?;
    disk.remove(&layout.upgrade())
}

/// Removes what an upgrade that failed before its switch has prepared.
pub fn discard(disk: &dyn Disk, layout: &Layout, running: &HomeName) -> io::Result<()> {
    clean(disk, layout, running, None)
}

/// Removes downloads, unfinished homes, and the homes of versions that are not needed. Of the versions that can be
/// activated again, `previous` replaces all others.
fn clean(disk: &dyn Disk, layout: &Layout, running: &HomeName, previous: Option<&HomeName>) -> io::Result<()> {
    disk.remove_dir(&layout.downloads())?;
    remove_staging(disk, layout)?;
    let (installed, active) = (disk.installed(layout)?, disk.active(layout)?);
    let kept: Vec<HomeName> = match previous {
        Some(previous) => vec![previous.clone()],
        None => installed.iter().filter(|name| until(disk, layout, name).is_some()).cloned().collect(),
    };
    // While the new version is on trial, both are needed.
    let record = Record::load(disk, layout).ok().flatten();
    let trial = record.as_ref().filter(|record| matches!(record.step, Step::Switching | Step::Watching));
    let (from, to) = (trial.map(|record| &record.from), trial.map(|record| &record.to));
    for name in removable(&installed, &[active.as_ref(), Some(running), from, to], &kept) {
        tracing::info!(version = name.as_str(), "removing a version that is no longer needed");
        // Renamed first: a home under its name is always complete.
        let aside = layout.homes().join(format!("{STAGING}-removed"));
        disk.rename(layout.home(name).path(), &aside)?;
        disk.remove_dir(&aside)?;
    }
    Ok(())
}

/// Removes homes that were not completed.
pub fn remove_staging(disk: &dyn Disk, layout: &Layout) -> io::Result<()> {
    let names = disk.list(&layout.homes())?;
    let mut staging = names.iter().filter(|name| name.starts_with(STAGING));
    staging.try_for_each(|name| disk.remove_dir(&layout.homes().join(name)))
}

/// Returns until when a version can be activated again; `None` if it cannot.
fn until(disk: &dyn Disk, layout: &Layout, name: &HomeName) -> Option<Timestamp> {
    let bytes = disk.read(&layout.home(name).path().join(KEPT_UNTIL)).ok()??;
    Timestamp::parse_rfc3339(std::str::from_utf8(&bytes).ok()?.trim()).ok()
}

/// Returns the versions that can be activated again.
pub fn kept(disk: &dyn Disk, layout: &Layout, running: &HomeName, now: Timestamp) -> Vec<(HomeName, Kept)> {
    let installed = disk.installed(layout).unwrap_or_default();
    let others = installed.into_iter().filter(|name| name != running);
    let offered = others.filter_map(|name| {
        let valid_until = until(disk, layout, &name).filter(|until| *until > now)?.to_rfc3339_seconds();
        let kept = Kept { version: name.version().to_owned(), valid_until };
        Some((name, kept))
    });
    offered.collect()
}

/// Removes versions that can no longer be activated.
pub fn expire(disk: &dyn Disk, layout: &Layout, running: &HomeName, now: Timestamp) -> io::Result<()> {
    for name in disk.installed(layout)? {
        if name != *running && until(disk, layout, &name).is_some_and(|until| until <= now) {
            disk.remove(&layout.home(&name).path().join(KEPT_UNTIL))?;
        }
    }
    clean(disk, layout, running, None)
}
