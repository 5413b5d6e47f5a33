//! What hosts install and uninstall: what is due for an orbit, what it fetches, and what it reports (FL §2.6).
//!
//! orbit asks for its configuration every 30 seconds, which must not read the store ([`Waiting`](crate::waiting::Waiting)).

use bytes::Bytes;
use muster_core::Error;
use muster_core::fleetd::numbers;
use muster_core::id::{AgentId, InstallRunId};
use muster_core::install::{InstallKind, InstallResult, InstallRun, MAX_ANNOUNCED, RESULT_WITHIN};
use muster_core::installer::Installer;
use muster_store::{InstallWrite, StoreError};
use tokio::sync::mpsc;

use super::Installs;
use crate::authority::System;
use crate::files::{Slice, send};
use crate::registry::AgentEntry;
use crate::space_settings::are_scripts_disabled;
use crate::waiting::{self, BATCH};

/// Maximum number of runs in which the one is sought that a download is for.
const MAX_OPEN: u32 = 100;

/// What an orbit has yet to do. One of the lists is empty, because orbit installs and runs scripts at the same time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DueInstalls {
    /// Software to install, in this order.
    pub install: Vec<InstallRunId>,
    /// Software to uninstall, in this order.
    pub uninstall: Vec<InstallRunId>,
}

impl DueInstalls {
    /// Returns the oldest runs, up to the first of the other kind.
    fn of(runs: &[InstallRun]) -> Self {
        let first = runs.chunk_by(|one, next| one.kind == next.kind).next().unwrap_or_default();
        let ids = first.iter().map(|run| run.id.clone()).collect();
        match first.first().map(|run| run.kind) {
            Some(InstallKind::Install) => Self { install: ids, ..Self::default() },
            Some(InstallKind::Uninstall) => Self { uninstall: ids, ..Self::default() },
            None => Self::default(),
        }
    }
}

impl Installs {
    /// Returns what an orbit has yet to do, the oldest first. Reads the store only if there may be something.
    pub async fn due(&self, entry: &AgentEntry) -> Result<DueInstalls, Error> {
        // Before the read: what is added during it must not be removed.
        let Some(number) = self.waiting.number_of(entry.id(), self.clock.now()) else {
            return Ok(DueInstalls::default());
        };
        let Some(record) = entry.record() else { return Ok(DueInstalls::default()) };
        let store = self.store.everywhere(entry);
        let due = store.installs_due(entry.id(), &record.space, self.clock.now(), MAX_ANNOUNCED).await?;
        if due.is_empty() {
            self.waiting.remove(entry.id(), number);
            return Ok(DueInstalls::default());
        }
        // The agent stays listed: once scripts are enabled again, it gets what has not expired.
        if are_scripts_disabled(&self.store, entry).await? {
            Ok(DueInstalls::default())
        } else {
            Ok(DueInstalls::of(&due))
        }
    }

    /// Returns what an orbit needs to install or to uninstall. Fails for a run of the other kind or of another host (FL61).
    pub async fn details(
        &self,
        entry: &AgentEntry,
        id: &str,
        kind: InstallKind,
    ) -> Result<(InstallRun, Installer), Error> {
        let unknown = || Error::not_found("install", id);
        let record = entry.record().ok_or_else(crate::authenticate::unauthorized)?;
        let run = InstallRunId::parse(id).map_err(|_| unknown())?;
        // In the agent's own space: an id alone must not reveal an installer of another one.
        let store = self.store.everywhere(entry);
        let (found, now) = (store.install_run_in(&record.space, &run).await?, self.clock.now());
        let run = found.filter(|run| run.kind == kind && now < run.expires_at).ok_or_else(unknown)?;
        let installer = store.installer_in(&record.space, &run.installer).await?.ok_or_else(unknown)?;
        if are_scripts_disabled(&self.store, entry).await? {
            return Err(unknown());
        }
        // The write checks in the same statement that the agent is a target without a result.
        let sent = InstallWrite::Sent { run: run.id.clone(), agent: entry.id().clone(), now };
        match self.store.commit(entry, vec![sent.into()]).await {
            Ok(_) => Ok((run, installer)),
            Err(StoreError::Conflict(_)) => Err(unknown()),
            Err(error) => Err(error.into()),
        }
    }

    /// Returns the installer with a number, if the orbit has yet to install it (FL62).
    pub async fn package(&self, entry: &AgentEntry, number: u64) -> Result<Installer, Error> {
        let unknown = || Error::not_found("pending install of the installer", number);
        let record = entry.record().ok_or_else(crate::authenticate::unauthorized)?;
        let store = self.store.everywhere(entry);
        // A host that has begun before the run expired may complete it.
        let since = self.clock.now().minus(RESULT_WITHIN);
        let open = store.installs_due(entry.id(), &record.space, since, MAX_OPEN).await?;
        let is_wanted = |run: &&InstallRun| {
            run.kind == InstallKind::Install
                && run.cancelled_at.is_none()
                && numbers::of(run.installer.as_str()) == number
        };
        let run = open.iter().find(is_wanted).ok_or_else(unknown)?;
        store.installer_in(&record.space, &run.installer).await?.ok_or_else(unknown)
    }

    /// Returns a stream of a package that was found with [`Self::package`]. `guard` is dropped when the stream ends.
    pub fn stream(&self, installer: &Installer, guard: impl Send + 'static) -> mpsc::Receiver<Bytes> {
        // A block is far shorter than the address space.
        let slice = |(number, length)| Slice { number, start: 0, end: usize::try_from(length).unwrap_or(0) };
        // One piece of buffer: a slow reader must slow down the reads, not fill the memory.
        let (sender, receiver) = mpsc::channel(1);
        let slices: Vec<Slice> = installer.blocks().map(slice).collect();
        tokio::spawn(send(self.store.share_files(), installer.content(), slices, sender, guard));
        receiver
    }

    /// Stores the result of an orbit. The first last one counts; a repeated one is accepted and ignored (FL63).
    pub async fn report(&self, entry: &AgentEntry, id: &str, result: InstallResult) -> Result<(), Error> {
        let unknown = || Error::not_found("install", id);
        let run = InstallRunId::parse(id).map_err(|_| unknown())?;
        let (agent, now) = (entry.id().clone(), self.clock.now());
        let result = result.with_at_most(self.retries_left(entry, &run).await?);
        let write = InstallWrite::Result { run: run.clone(), agent, result: Box::new(result), now };
        match self.store.commit(entry, vec![write.into()]).await {
            Ok(_) => Ok(()),
            Err(StoreError::Conflict(_)) => {
                // Either the run has ended on the host, or it never was this host's. orbit repeats a report that fails, so the
                // first case must succeed.
                let known = self.store.everywhere(entry).host_install(&run, entry.id()).await?;
                known.map(drop).ok_or_else(unknown)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Returns how many more times a run permits an orbit to try after the attempt that it reports now; 0 for what is not its own.
    async fn retries_left(&self, entry: &AgentEntry, run: &InstallRunId) -> Result<u64, Error> {
        let Some(record) = entry.record() else { return Ok(0) };
        let store = self.store.everywhere(entry);
        let Some(target) = store.host_install(run, entry.id()).await? else { return Ok(0) };
        let run = store.install_run_in(&record.space, run).await?;
        Ok(run.map_or(0, |run| run.max_retries.saturating_sub(target.attempts)))
    }

    /// Returns a number that rises with each install that may be due for an orbit; 0 if there is none. Reads nothing from the store.
    pub(crate) fn newest_for(&self, orbit: &AgentId) -> u64 {
        self.waiting.newest_for(orbit, self.clock.now())
    }

    /// Adds the targets of a run that may be new.
    pub(crate) async fn run_changed(&self, run: &InstallRunId) -> Result<(), Error> {
        self.read_waiting(Some(run)).await
    }

    async fn read_waiting(&self, run: Option<&InstallRunId>) -> Result<(), Error> {
        let (now, store) = (self.clock.now(), self.store.everywhere(&System));
        let read =
            |after: Option<AgentId>| async move { store.installs_waiting(run, now, after.as_ref(), BATCH).await };
        self.waiting.fill(run.map(InstallRunId::as_str), read).await
    }

    /// Reloads what hosts have yet to do.
    pub(crate) async fn start_over(&self) {
        waiting::insist("software", &self.shutdown, || self.read_waiting(None)).await;
    }
}
