//! Scripts, carves and the disk key on the page of a host, and what pages of runs share.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use muster_core::agent::Family;
use muster_core::authorization::{CarvesDownload, PrivilegeName};
use muster_core::host_run::{HostRun, OnHost, Work};
use muster_core::script::{ScriptOnHost, ScriptRun};
use muster_core::time::Timestamp;
use muster_core::{Error, ErrorKind};
use muster_fleet::Fleet;
use muster_fleet::host_views::HostView;

use super::carves::Row as CarveRow;
use super::disk_key::KeyState;
use super::scripts::{State3, outcome};
use crate::text::Moment;
use crate::visitor::Visitor;

/// Number of runs, and of carves, on the page of a host.
const FEW: usize = 5;

/// What the page shows.
pub struct Runs {
    /// Whether orbit runs on it, which runs scripts and reports the disk key.
    pub has_orbit: bool,
    /// The privilege that running a script needs, if the person lacks it.
    pub lacks_run: &'static str,
    pub lacks_carves: &'static str,
    pub lacks_query: &'static str,
    pub lacks_key: &'static str,
    /// Whether the person sees runs at all.
    pub sees_runs: bool,
    pub scripts: Vec<ScriptRow>,
    pub carves: Vec<CarveRow>,
    /// The disk key; `None` for those who may not see it.
    pub key: Option<KeyState>,
}

/// The execution of a script.
pub struct ScriptRow {
    pub run: String,
    pub agent: String,
    pub name: String,
    pub state: State3,
    pub at: Moment,
}

impl ScriptRow {
    fn new(run: &ScriptRun, execution: &ScriptOnHost, now: Timestamp) -> Self {
        Self {
            run: run.id.to_string(),
            agent: execution.agent.to_string(),
            name: run.name.clone(),
            state: outcome(execution, run, now),
            at: Moment::new(run.created_at, now),
        }
    }
}

impl Runs {
    /// Reads what the page of a host shows, as far as the person may see it.
    pub async fn of(fleet: &Fleet, visitor: &Visitor, view: &HostView) -> Result<Self, Error> {
        let now = fleet.now();
        // Old enrollments of the host come first.
        let orbit = view.agents.iter().map(|agent| &agent.details.record).rfind(|one| one.family == Family::Orbit);
        let lacks_run = visitor.lacks(PrivilegeName::ScriptsRun);
        let sees_runs = lacks_run.is_empty() || visitor.lacks(PrivilegeName::ScriptsRead).is_empty();
        let scripts = match orbit.filter(|_| sees_runs) {
            Some(_) => fleet.scripts().of_host(&visitor.context, &view.host.id, FEW).await?,
            None => Vec::new(),
        };
        let mut carves = match visitor.context.grant::<CarvesDownload>() {
            Ok(grant) => fleet.carves().of_host(&grant, &view.host.id).await?,
            Err(_) => Vec::new(),
        };
        carves.truncate(FEW);
        let key = match orbit {
            Some(_) => key(fleet, visitor, view, now).await?,
            None => None,
        };
        Ok(Self {
            has_orbit: orbit.is_some(),
            lacks_run,
            lacks_carves: visitor.lacks(PrivilegeName::CarvesDownload),
            lacks_query: visitor.lacks(PrivilegeName::QueriesRun),
            lacks_key: visitor.lacks(PrivilegeName::DiskKeysReveal),
            sees_runs,
            scripts: scripts.iter().map(|(run, execution)| ScriptRow::new(run, execution, now)).collect(),
            carves: carves.iter().map(|carve| CarveRow::new(carve, now)).collect(),
            key,
        })
    }
}

/// Returns what the page of a run depends on.
pub fn seen<W: Work>(run: &HostRun<W>, hosts: &[OnHost<W::Result>], now: Timestamp) -> String {
    let mut hasher = DefaultHasher::new();
    (run.finished, run.failed, run.state(now)).hash(&mut hasher);
    for one in hosts {
        (one.agent.as_str(), one.outcome(run, now), one.attempts).hash(&mut hasher);
    }
    format!("{:x}", hasher.finish())
}

/// Returns the state of the disk key; `None` for those who may not see it, or not on this host.
async fn key(fleet: &Fleet, visitor: &Visitor, view: &HostView, now: Timestamp) -> Result<Option<KeyState>, Error> {
    match fleet.disk_keys().find(&visitor.context, view.host.id.as_str()).await {
        Ok(found) => Ok(Some(KeyState::new(&found.key, now))),
        Err(error) if matches!(error.kind, ErrorKind::Forbidden | ErrorKind::NotFound) => Ok(None),
        Err(error) => Err(error),
    }
}
