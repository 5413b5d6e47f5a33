//! A host with versioned homes in memory, and the watcher of upgrades.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use camino::{Utf8Path, Utf8PathBuf};
use muster_agent::components::Health;
use muster_agent::coordinator::Command;
use muster_agent::coordinator::report::AgentState;
use muster_agent::fleet::FleetClient;
use muster_agent::homes::HomeName;
use muster_agent::paths::Layout;
use muster_agent::upgrade::details::{Metadata, Stage};
use muster_agent::upgrade::disk::Disk;
use muster_agent::upgrade::record::{Kept, Record, Step};
use muster_agent::upgrade::switch::{self, Start};
use muster_agent::upgrade::watch::{Look, Verdict, Watch};
use muster_agent::upgrade::{Failed, Progress, Request, Resumed, Switch, Upgrades};
use muster_core::Timestamp;
use tokio::time::Instant;

use crate::fixture::Agent;

/// Time for which a new version is watched.
const GRACE: Duration = Duration::from_secs(120);
/// Interval of the watcher.
pub const LOOK: Duration = Duration::from_secs(10);

/// How a version behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behavior {
    Works,
    /// Its package cannot be downloaded.
    Missing,
    /// It exits at once.
    Crashes,
    /// It does not reach the server.
    CutOff,
}

/// Returns the behavior of a version.
pub fn behavior(version: &str) -> Behavior {
    match version {
        "0.4.0" => Behavior::Missing,
        "0.5.0" => Behavior::Crashes,
        "0.6.0" => Behavior::CutOff,
        _ => Behavior::Works,
    }
}

pub fn name(version: &str) -> HomeName {
    HomeName::new(version, &muster_core::hex::sha256(version.as_bytes())).unwrap()
}

/// A disk in memory that can die in the middle of a sequence of changes.
#[derive(Default)]
pub struct MemoryDisk {
    files: Mutex<BTreeMap<Utf8PathBuf, Vec<u8>>>,
    active: Mutex<Option<HomeName>>,
    dies_in: Mutex<Option<u32>>,
}

impl MemoryDisk {
    /// Lets the disk die after this number of changes; `None` repairs it.
    pub fn die_in(&self, changes: Option<u32>) {
        *self.dies_in.lock().unwrap() = changes;
    }

    fn change(&self, change: impl FnOnce(&mut BTreeMap<Utf8PathBuf, Vec<u8>>)) -> io::Result<()> {
        if let Some(left) = &mut *self.dies_in.lock().unwrap() {
            if *left == 0 {
                return Err(io::Error::other("the power is gone"));
            }
            *left -= 1;
        }
        change(&mut self.files.lock().unwrap());
        Ok(())
    }
}

impl Disk for MemoryDisk {
    fn read(&self, path: &Utf8Path) -> io::Result<Option<Vec<u8>>> {
        Ok(self.files.lock().unwrap().get(path).cloned())
    }

    fn list(&self, path: &Utf8Path) -> io::Result<Vec<String>> {
        let files = self.files.lock().unwrap();
        let below = files.keys().filter_map(|file| file.strip_prefix(path).ok());
        let names: BTreeSet<String> = below.filter_map(|rest| Some(rest.components().next()?.to_string())).collect();
        Ok(names.into_iter().collect())
    }

    fn active(&self, _: &Layout) -> io::Result<Option<HomeName>> {
        Ok(self.active.lock().unwrap().clone())
    }

    fn installed(&self, layout: &Layout) -> io::Result<Vec<HomeName>> {
        Ok(self.list(&layout.homes())?.iter().filter_map(|name| name.parse().ok()).collect())
    }

    fn replace(&self, path: &Utf8Path, bytes: &[u8]) -> io::Result<()> {
        self.change(|files| drop(files.insert(path.to_owned(), bytes.to_vec())))
    }

    fn remove(&self, path: &Utf8Path) -> io::Result<()> {
        self.change(|files| drop(files.remove(path)))
    }

    fn remove_dir(&self, path: &Utf8Path) -> io::Result<()> {
        self.change(|files| files.retain(|file, _| !file.starts_with(path)))
    }

    fn create_dir(&self, _: &Utf8Path) -> io::Result<()> {
        self.change(|_| {})
    }

    fn append(&self, path: &Utf8Path, _: u64, bytes: &[u8]) -> io::Result<()> {
        self.replace(path, bytes)
    }

    fn create(&self, path: &Utf8Path, _: u32, content: &mut dyn Read) -> io::Result<()> {
        let mut bytes = Vec::new();
        content.read_to_end(&mut bytes)?;
        self.replace(path, &bytes)
    }

    fn rename(&self, from: &Utf8Path, to: &Utf8Path) -> io::Result<()> {
        self.change(|files| {
            let moved: Vec<_> = files.keys().filter(|file| file.starts_with(from)).cloned().collect();
            for file in moved {
                let bytes = files.remove(&file).unwrap_or_default();
                files.insert(to.join(file.strip_prefix(from).unwrap_or(&file)), bytes);
            }
        })
    }

    fn activate(&self, _: &Layout, name: &HomeName) -> io::Result<()> {
        self.change(|_| *self.active.lock().unwrap() = Some(name.clone()))
    }

    fn free(&self, _: &Utf8Path) -> io::Result<u64> {
        Ok(u64::MAX)
    }
}

/// The version whose watcher runs, and what it watches since when.
type Watcher = (String, Option<(Watch, Instant)>);

/// What survives every process of the agent.
pub struct Site {
    pub disk: MemoryDisk,
    pub layout: Layout,
    /// The watcher: the upgrade that it watches, and its observation, once it has begun.
    watcher: Mutex<Option<Watcher>>,
    begun: Instant,
    ids: Mutex<u64>,
    /// Actions whose upgrades were rolled back.
    rolled_back: Mutex<BTreeSet<String>>,
}

impl Site {
    /// With this version installed.
    pub fn new(version: &str) -> Arc<Self> {
        let (disk, layout, watcher) = (MemoryDisk::default(), Layout::new("/agent"), Mutex::new(None));
        disk.replace(&layout.home(&name(version)).program(), version.as_bytes()).unwrap();
        disk.activate(&layout, &name(version)).unwrap();
        Arc::new(Self {
            disk,
            layout,
            watcher,
            begun: Instant::now(),
            ids: Mutex::new(0),
            rolled_back: Mutex::default(),
        })
    }

    pub fn active(&self) -> HomeName {
        self.disk.active(&self.layout).unwrap().expect("neither version is active")
    }

    pub fn record(&self) -> Option<Record> {
        Record::load(&self.disk, &self.layout).unwrap()
    }

    fn now(&self) -> Timestamp {
        Timestamp::parse_rfc3339("2026-06-01T00:00:00Z").unwrap().plus(self.begun.elapsed())
    }

    pub fn installed(&self) -> Vec<HomeName> {
        self.disk.installed(&self.layout).unwrap()
    }

    /// Kills the watcher, as a restart of the host does.
    pub fn kill_watcher(&self) {
        *self.watcher.lock().unwrap() = None;
    }

    pub fn rolled_back(&self) -> BTreeSet<String> {
        self.rolled_back.lock().unwrap().clone()
    }

    fn start_watcher(&self, id: &str) {
        let mut watcher = self.watcher.lock().unwrap();
        if watcher.as_ref().is_none_or(|(known, _)| known != id) {
            *watcher = Some((id.to_owned(), None));
        }
    }

    /// Starts the active version, as a service manager does.
    pub fn boot(self: &Arc<Self>, agent: &mut Agent) {
        for _ in 0..8 {
            // The service manager runs the previous version first.
            let _ = switch::guard(&self.disk, &self.layout);
            let running = self.active();
            assert!(self.installed().contains(&running), "the active version is not complete");
            match behavior(running.version()) {
                // It ends before it does anything.
                Behavior::Crashes => return self.disk.die_in(None),
                other => agent.is_cut_off = other == Behavior::CutOff,
            }
            let started = switch::resume(&self.disk, &self.layout, &running);
            // The disk dies at most once.
            self.disk.die_in(None);
            if let Ok(Start::Run(resumed)) = started {
                switch::expire(&self.disk, &self.layout, &running, self.now()).unwrap();
                if let Resumed::Watching(record) = &resumed {
                    self.start_watcher(&record.id);
                }
                if let Resumed::RolledBack(record) = &resumed {
                    self.rolled_back.lock().unwrap().insert(record.action_id.clone());
                }
                let resumed = Mutex::new(resumed);
                agent.upgrades = Arc::new(SimUpgrades { site: self.clone(), running, resumed });
                return agent.start();
            }
        }
        panic!("the agent does not start");
    }

    /// Lets the watcher take a look.
    pub async fn look(self: &Arc<Self>, agent: &mut Agent) {
        let Some((id, observation)) = self.watcher.lock().unwrap().take() else { return };
        let decided = |record: &Record| matches!(record.step, Step::Kept | Step::RolledBack);
        let Some(record) = self.record().filter(|record| record.id == id && !decided(record)) else { return };
        let (mut watch, begun) = observation.unwrap_or((Watch::new(record.terms.clone(), GRACE), Instant::now()));
        if record.step == Step::Switching && begun.elapsed() <= LOOK * 9 {
            return self.watch_on(id, watch, begun);
        }
        if record.step == Step::Switching && self.active() != record.to {
            return;
        }
        match watch.look(begun.elapsed(), &see(agent).await) {
            Verdict::Wait => self.watch_on(id, watch, begun),
            Verdict::Keep => {
                switch::store(&self.disk, &self.layout, &Record { step: Step::Kept, ..record }).unwrap();
                let _ = agent.commands.send(Command::UpgradeKept).await;
            }
            Verdict::GoBack(reason) => {
                switch::go_back(&self.disk, &self.layout, &record.rolled_back(&reason)).unwrap();
                agent.kill().await;
                self.boot(agent);
            }
        }
    }

    fn watch_on(&self, id: String, watch: Watch, begun: Instant) {
        *self.watcher.lock().unwrap() = Some((id, Some((watch, begun))));
    }
}

async fn see(agent: &Agent) -> Look {
    if agent.running.as_ref().is_none_or(tokio::task::JoinHandle::is_finished) {
        return Look::Unreachable;
    }
    let snapshot = agent.snapshot().await;
    let failed = snapshot.components.iter().filter(|component| component.state == Health::Failed);
    Look::Running {
        pid: 1,
        failed: snapshot.state == AgentState::Failed,
        components: failed.map(|component| component.id.clone()).collect(),
        connected: snapshot.fleet.is_connected(),
    }
}

/// The upgrades of one process of the agent.
struct SimUpgrades {
    site: Arc<Site>,
    running: HomeName,
    resumed: Mutex<Resumed>,
}

/// The steps take time, so that a kill can come between them.
async fn step() {
    tokio::time::sleep(Duration::from_millis(300)).await;
}

#[async_trait]
impl Upgrades for SimUpgrades {
    fn running(&self) -> Option<HomeName> {
        Some(self.running.clone())
    }

    fn kept(&self) -> Vec<Kept> {
        let site = &self.site;
        let kept = switch::kept(&site.disk, &site.layout, &self.running, site.now());
        kept.into_iter().map(|(_, kept)| kept).collect()
    }

    fn check(&self, request: &Request, _: Arc<FleetClient>) -> Result<(), Failed> {
        let is_kept = || self.kept().iter().any(|kept| kept.version == request.version);
        if !request.rollback || is_kept() { Ok(()) } else { Err(Failed::new(Stage::Rollback, "not on disk")) }
    }

    async fn prepare(
        &self,
        request: Request,
        client: Arc<FleetClient>,
        progress: Progress,
    ) -> Result<HomeName, Failed> {
        let name = name(&request.version);
        if request.rollback {
            return self.check(&request, client).map(|()| name);
        }
        progress.set(Stage::Downloading, Metadata::default());
        step().await;
        if behavior(&request.version) == Behavior::Missing {
            return Err(Failed::new(Stage::Downloading, "404"));
        }
        progress.set(Stage::Extracting, Metadata::default());
        step().await;
        let (disk, layout) = (&self.site.disk, &self.site.layout);
        let done = disk.replace(&layout.home(&name).program(), request.version.as_bytes());
        done.map_err(|error| Failed::new(Stage::Extracting, error.to_string())).map(|()| name)
    }

    async fn switch(&self, switch: Switch) -> Result<(), Failed> {
        let (disk, layout) = (&self.site.disk, &self.site.layout);
        let id = {
            let mut ids = self.site.ids.lock().unwrap();
            *ids += 1;
            ids.to_string()
        };
        let record = Record::new(id, switch.action_id, self.running.clone(), switch.to, switch.terms);
        let failed = |error: io::Error| Failed::new(Stage::Replacing, error.to_string());
        switch::store(disk, layout, &record).map_err(failed)?;
        step().await;
        self.site.start_watcher(&record.id);
        step().await;
        disk.activate(layout, &record.to).map_err(failed)?;
        step().await;
        Ok(())
    }

    fn resumed(&self) -> Resumed {
        self.resumed.lock().unwrap().clone()
    }

    fn finish(&self) {
        *self.resumed.lock().unwrap() = Resumed::Nothing;
        // A failure is repeated at the next start.
        let _ = switch::finish(&self.site.disk, &self.site.layout, &self.running, self.site.now());
    }
}
