//! Hints to hosts that hold a WebSocket open: work is due for an orbit, or for the osqueryd next to it (FL §2.9).
//!
//! A hint carries nothing: the host fetches its work with the requests of hosts that poll. Hints are therefore neither stored
//! nor queued. Each connection looks up what is due when it is woken. It repeats a hint to read queries until that is done; orbit requests
//! its configuration every 30 seconds anyway, so that each change of it is announced once.

mod channel;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use muster_core::agent::Family;
use muster_core::fleetd::details;
use muster_core::id::{AgentId, LiveQueryId};
use muster_core::time::Clock;
use tokio::sync::Notify;

pub use self::channel::{Event, HintChannel};
use super::disk_keys::DiskKeys;
use super::host_checks::HostChecks;
use super::installs::Installs;
use super::labels::Labels;
use super::live_queries::LiveQueries;
use super::records::Records;
use super::registry::{AgentEntry, PollSlot, Registry};
use super::scripts::Scripts;
use super::shutdown::Shutdown;

/// Number of connections that are woken at a time, and the pause between: a live query for ten thousand hosts must not delay
/// all other requests.
const WAVE: usize = 128;
const WAVE_PAUSE: Duration = Duration::from_millis(5);
/// Minimum pause between two looks at all connections. Changes in between are handled together.
const PAUSE: Duration = Duration::from_millis(100);
/// Time after the start at which all connections are looked at: the first ones may be older than what the server knows.
const START: Duration = Duration::from_secs(1);

/// The work that is due, for the log of the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// A live query.
    Live(LiveQueryId),
    /// Detail queries, by their interval or because somebody asked for them.
    Detail,
    /// Host checks.
    Policy,
    /// Labels.
    Label,
    /// The configuration of orbit has changed: a script, an install, or a request for the passphrase of the disk.
    Config,
}

/// The newest work in the configuration of an orbit, by ascending numbers of its kinds; 0 for none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Announced {
    script: u64,
    install: u64,
    escrow: u64,
}

impl Announced {
    /// Returns whether there is work that the orbit was not told of.
    fn is_news_after(self, told: Self) -> bool {
        self.script > told.script || self.install > told.install || self.escrow > told.escrow
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Live(id) => write!(f, "live-{id}"),
            Self::Detail => f.write_str("detail"),
            Self::Policy => f.write_str("policy"),
            Self::Label => f.write_str("label"),
            Self::Config => f.write_str("activity"),
        }
    }
}

/// The service of hints.
pub struct Hints {
    clock: Arc<dyn Clock>,
    registry: Arc<Registry>,
    records: Arc<Records>,
    live_queries: Arc<LiveQueries>,
    scripts: Arc<Scripts>,
    installs: Arc<Installs>,
    disk_keys: Arc<DiskKeys>,
    host_checks: Arc<HostChecks>,
    labels: Arc<Labels>,
    shutdown: Arc<Shutdown>,
    changed: Notify,
}

/// The dependencies of [`Hints`].
pub(crate) struct HintParts {
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) records: Arc<Records>,
    pub(crate) live_queries: Arc<LiveQueries>,
    pub(crate) scripts: Arc<Scripts>,
    pub(crate) installs: Arc<Installs>,
    pub(crate) disk_keys: Arc<DiskKeys>,
    pub(crate) host_checks: Arc<HostChecks>,
    pub(crate) labels: Arc<Labels>,
    pub(crate) shutdown: Arc<Shutdown>,
}

impl Hints {
    pub(crate) fn new(parts: HintParts) -> Self {
        let HintParts {
            clock,
            registry,
            records,
            live_queries,
            scripts,
            installs,
            disk_keys,
            host_checks,
            labels,
            shutdown,
        } = parts;
        let changed = Notify::new();
        Self {
            clock,
            registry,
            records,
            live_queries,
            scripts,
            installs,
            disk_keys,
            host_checks,
            labels,
            shutdown,
            changed,
        }
    }

    /// Opens a channel to an authenticated orbit. While it exists, the orbit counts as connected.
    pub fn open(self: &Arc<Self>, orbit: &Arc<AgentEntry>) -> HintChannel {
        let slot = PollSlot::new(&self.registry, Arc::clone(orbit), Arc::clone(&self.clock));
        HintChannel::new(Arc::clone(self), slot)
    }

    /// Tells that work may have become due: for which hosts is found out by [`Self::run`].
    pub(crate) fn work_changed(&self) {
        self.changed.notify_one();
    }

    /// Wakes the connections of hosts for which work has become due, until shutdown.
    pub(crate) async fn run(self: Arc<Self>) {
        tokio::time::sleep(START).await;
        loop {
            self.announce().await;
            tokio::time::sleep(PAUSE).await;
            tokio::select! {
                () = self.changed.notified() => {}
                () = self.shutdown.wait() => return,
            }
        }
    }

    async fn announce(&self) {
        let is_orbit = |entry: &AgentEntry| entry.record().is_some_and(|record| record.family == Family::Orbit);
        let orbits = self.registry.select(|entry| entry.is_connected() && is_orbit(entry));
        let mut orbits: Vec<_> = orbits.into_iter().map(|orbit| (orbit.osquery_beside(), orbit)).collect();
        // Answers to a live query change a row for each osqueryd, in the order of their ids: hosts that answer at the same time should
        // change the same pages of the database.
        orbits.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        let mut woken = 0;
        for (osquery, orbit) in orbits {
            if self.may_have_work(&orbit, osquery.as_ref()).await {
                orbit.wake_for_policy();
                woken += 1;
                if woken % WAVE == 0 {
                    tokio::time::sleep(WAVE_PAUSE).await;
                }
            }
        }
    }

    /// Returns false if nothing is due for the host of an orbit and an osqueryd. Does not read the agents in the store.
    async fn may_have_work(&self, orbit: &AgentEntry, osquery: Option<&AgentId>) -> bool {
        if self.announced_to(orbit) != Announced::default() {
            return true;
        }
        // Until its connection has found it, there is no osqueryd.
        let Some(osquery) = osquery else { return false };
        match self.registry.get(osquery) {
            Some(osquery) => self.due(&osquery).await.is_some(),
            None => true,
        }
    }

    /// Returns the newest work in the configuration of an orbit.
    fn announced_to(&self, orbit: &AgentEntry) -> Announced {
        let id = orbit.id();
        Announced {
            script: self.scripts.newest_for(id),
            install: self.installs.newest_for(id),
            escrow: self.disk_keys.newest_for(id),
        }
    }

    /// Returns what is due for an osqueryd: the newest live query, else its details, else host checks, else labels.
    async fn due(&self, osquery: &AgentEntry) -> Option<Reason> {
        if let Some(query) = self.live_queries.due(osquery).last() {
            return Some(Reason::Live(query.id.clone()));
        }
        if details::are_due(osquery.id(), osquery.facts_reported_at(), self.clock.now()) {
            return Some(Reason::Detail);
        }
        // While the store fails, nothing can be fetched either.
        let checks = self.host_checks.due(osquery).await.ok().flatten();
        if checks.is_some_and(|due| !due.are_none()) {
            return Some(Reason::Policy);
        }
        self.labels.due(osquery).await.ok().flatten().and_then(|due| due.queries().next().map(|_| Reason::Label))
    }
}
