//! What hosts install and uninstall: what is due for an orbit, and what it fetches (FL §2.6).

use bytes::Bytes;
use muster_core::Error;
use muster_core::fleetd::numbers;
use muster_core::host_run::Work as _;
use muster_core::id::HostRunId;
use muster_core::install::{InstallKind, InstallResult, InstallRun, InstallWork};
use muster_core::installer::Installer;
use muster_store::StoredWork as _;
use tokio::sync::mpsc;

use super::Installs;
use crate::files::{Slice, send};
use crate::registry::AgentEntry;

/// Maximum number of runs in which the one is sought that a download is for.
const MAX_OPEN: u32 = 100;

/// What an orbit has yet to do. One of the lists is empty, because orbit installs and runs scripts at the same time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DueInstalls {
    /// Software to install, in this order.
    pub install: Vec<HostRunId>,
    /// Software to uninstall, in this order.
    pub uninstall: Vec<HostRunId>,
}

impl DueInstalls {
    /// Returns the oldest runs, up to the first of the other kind.
    fn of(runs: &[InstallRun]) -> Self {
        let first = runs.chunk_by(|one, next| one.work.kind == next.work.kind).next().unwrap_or_default();
        let ids = first.iter().map(|run| run.id.clone()).collect();
        match first.first().map(|run| run.work.kind) {
            Some(InstallKind::Install) => Self { install: ids, ..Self::default() },
            Some(InstallKind::Uninstall) => Self { uninstall: ids, ..Self::default() },
            None => Self::default(),
        }
    }
}

impl Installs {
    /// Returns what an orbit has yet to do, the oldest first. Reads the store only if there may be something.
    pub async fn due(&self, entry: &AgentEntry) -> Result<DueInstalls, Error> {
        Ok(DueInstalls::of(&self.runs_due(entry).await?))
    }

    /// Returns what an orbit needs to install or to uninstall. Fails for a run of the other kind or of another host (FL61).
    pub async fn details(
        &self,
        entry: &AgentEntry,
        id: &str,
        kind: InstallKind,
    ) -> Result<(InstallRun, Installer), Error> {
        let unknown = || Error::not_found("install", id);
        let run = Some(self.open(entry, id).await?).filter(|run| run.work.kind == kind).ok_or_else(unknown)?;
        let store = self.store.everywhere(entry);
        let installer = store.installer_in(&run.space, &run.work.installer).await?.ok_or_else(unknown)?;
        self.begin(entry, &run).await?;
        Ok((run, installer))
    }

    /// Returns the installer with a number, if the orbit has yet to install it (FL62).
    pub async fn package(&self, entry: &AgentEntry, number: u64) -> Result<Installer, Error> {
        let unknown = || Error::not_found("pending install of the installer", number);
        let record = entry.record().ok_or_else(crate::authenticate::unauthorized)?;
        let store = self.store.everywhere(entry);
        // A host that has begun before the run expired may complete it.
        let since = self.clock.now().minus(InstallWork::GRACE);
        let open = InstallWork::of(store).runs_due(entry.id(), &record.space, since, MAX_OPEN).await?;
        let is_wanted = |run: &&InstallRun| {
            run.work.kind == InstallKind::Install
                && run.stopped_at.is_none()
                && numbers::of(run.work.installer.as_str()) == number
        };
        let run = open.iter().find(is_wanted).ok_or_else(unknown)?;
        store.installer_in(&record.space, &run.work.installer).await?.ok_or_else(unknown)
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

    /// Stores the result of an attempt of an orbit, as [`report`](Self::report) does, with no more further attempts than the run permits.
    pub async fn report_attempt(&self, entry: &AgentEntry, id: &str, result: InstallResult) -> Result<(), Error> {
        let left = match HostRunId::parse(id) {
            Ok(run) => self.retries_left(entry, &run).await?,
            Err(_) => 0,
        };
        self.report(entry, id, result.with_at_most(left)).await
    }

    /// Returns how many more times a run permits an orbit to try after the attempt that it reports now; 0 for what is not its own.
    async fn retries_left(&self, entry: &AgentEntry, run: &HostRunId) -> Result<u64, Error> {
        let Some(record) = entry.record() else { return Ok(0) };
        let store = InstallWork::of(self.store.everywhere(entry));
        let Some(target) = store.run_host(run, entry.id()).await? else { return Ok(0) };
        let run = store.run_in(&record.space, run).await?;
        Ok(run.map_or(0, |run| run.work.max_retries.saturating_sub(target.attempts)))
    }
}
