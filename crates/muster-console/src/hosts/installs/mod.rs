//! `/software/installers` and `/software/installs`: packages, and their installation on hosts.

mod installers;
pub mod on_host;
mod run;
mod start;
mod upload;

use axum::routing::{get, post};
use muster_core::install::{InstallKind, InstallRun};
use muster_core::plural::counted;
use muster_core::time::Timestamp;

use crate::Route;
use crate::people::People;
use crate::text::Moment;

/// Paths of the pages.
const INSTALLERS: &str = "/software/installers";
const INSTALLS: &str = "/software/installs";
/// Paths in the API.
const INSTALLERS_API: &str = "/api/v1/software/installers";
const INSTALLS_API: &str = "/api/v1/software/installs";

/// The pages.
pub fn pages() -> Vec<Route> {
    vec![
        (INSTALLERS, get(installers::list)),
        ("/software/installers/new", get(upload::ask)),
        ("/software/installers/{id}", get(installers::show)),
        ("/software/installers/{id}/install", get(start::ask).post(start::run)),
        ("/software/installers/{id}/delete", get(installers::ask_to_delete).post(installers::delete)),
        ("/software/installs/{id}", get(run::show)),
        ("/software/installs/{id}/stop", post(run::stop)),
    ]
}

/// A state: the class of its color, its sign and its text.
type State = super::scripts::State3;

/// A run in a list.
struct RunRow {
    id: String,
    title: String,
    state: State,
    progress: String,
    created: Moment,
    created_by: String,
}

impl RunRow {
    async fn new(run: &InstallRun, people: &mut People<'_>, now: Timestamp) -> Self {
        Self {
            id: run.id.to_string(),
            title: title(run),
            state: state(run, now),
            progress: progress(run),
            created: Moment::new(run.created_at, now),
            created_by: people.name(&run.created_by).await,
        }
    }
}

fn title(run: &InstallRun) -> String {
    let verb = match run.work.kind {
        InstallKind::Install => "Install",
        InstallKind::Uninstall => "Uninstall",
    };
    format!("{verb} {} {}", run.name, run.work.version)
}

fn state(run: &InstallRun, now: Timestamp) -> State {
    match run.state(now) {
        "complete" if run.targets == 0 => ("quiet", "–", "all hosts have left the space".into()),
        "complete" if run.failed == 0 => ("good", "●", "complete".into()),
        "complete" => ("bad", "✕", format!("complete, {} failed", run.failed)),
        "running" => ("quiet", "○", "running".into()),
        other => ("quiet", "○", other.into()),
    }
}

fn progress(run: &InstallRun) -> String {
    format!("{} of {}", run.finished, counted(run.targets, "host"))
}

/// Returns the state of what became of a run on a host.
fn outcome(word: &str) -> State {
    let text = match word {
        "host_deleted" => "the host has left the space".to_owned(),
        word => word.replace('_', " "),
    };
    match word {
        "installed" | "uninstalled" => ("good", "●", text),
        "failed" | "no_result" => ("bad", "✕", text),
        _ => ("quiet", "○", text),
    }
}
