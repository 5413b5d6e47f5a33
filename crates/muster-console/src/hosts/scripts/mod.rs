//! `/scripts`: runs of scripts, saved scripts, and the switch of the space.

mod results;
mod run;
mod saved;
mod switch;

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;

use askama::Template;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use muster_core::Error;
use muster_core::authorization::PrivilegeName;
use muster_core::script::ScriptRun;
use muster_core::time::Timestamp;
use muster_fleet::Fleet;
use serde::Deserialize;

pub use self::results::outcome;
use super::TAB;
use super::facts::cut;
use crate::Route;
use crate::elsewhere::{cli, curl};
use crate::failure;
use crate::frame::{Frame, page};
use crate::pager::Pager;
use crate::people::People;
use crate::text::Moment;
use crate::visitor::{Params, Visitor};

/// Path of the list, and of runs and saved scripts in the API.
pub const PATH: &str = "/scripts";
const API: &str = "/api/v1/scripts/run";
const SAVED_API: &str = "/api/v1/scripts";
/// Number of runs on a page.
const ROWS: u32 = 50;
/// Maximum size of a form with a script, bytes: it can take three bytes for each of its own.
const MAX_FORM: usize = 900 << 10;
/// Mark of an open list whose runs have all ended.
const IDLE: &str = "idle";

/// The pages of scripts.
pub fn pages() -> Vec<Route> {
    vec![
        (PATH, get(list)),
        ("/scripts/run", get(run::ask).post(run::run)),
        ("/scripts/runs/{id}", get(results::show)),
        ("/scripts/runs/{id}/stop", post(results::stop)),
        ("/scripts/saved/new", get(saved::ask).post(saved::create)),
        ("/scripts/saved/{id}", get(saved::show).post(saved::update)),
        ("/scripts/saved/{id}/delete", get(saved::ask_to_delete).post(saved::delete)),
        ("/scripts/switch", get(switch::ask).post(switch::switch)),
    ]
}

/// A state: the class of its color, its sign and its text.
pub type State3 = (&'static str, &'static str, String);

/// Returns the state of a run.
pub fn state_of(run: &ScriptRun, now: Timestamp) -> State3 {
    let (class, sign, text) = match run.state(now) {
        "running" => ("busy", "◐", "running"),
        "complete" if run.targets == 0 => ("quiet", "–", "all hosts have left the space"),
        "complete" if run.failed > 0 => ("bad", "✕", "complete, with failures"),
        "complete" => ("good", "●", "complete"),
        "stopped" => ("quiet", "–", "stopped"),
        _ => ("warn", "▲", "ended without all results"),
    };
    (class, sign, text.to_owned())
}

/// Parameters of the list.
#[derive(Default, Deserialize)]
#[serde(default)]
pub struct Asked {
    page: u32,
    /// What an open page shows. Only in requests that renew it.
    seen: String,
}

#[derive(Template)]
#[template(path = "hosts/scripts.html")]
struct ScriptsPage {
    frame: Frame,
    is_enabled: bool,
    runs: Vec<RunRow>,
    saved: Vec<SavedRow>,
    pager: Pager,
    /// Link that renews the runs.
    live: String,
    lacks: Lacks,
    cli: String,
    api: String,
}

/// The privileges that the person does not have; empty if it does.
struct Lacks {
    run: &'static str,
    read: &'static str,
    write: &'static str,
}

struct RunRow {
    id: String,
    name: String,
    state: State3,
    finished: String,
    failed: u64,
    by: String,
    at: Moment,
}

struct SavedRow {
    id: String,
    name: String,
    description: String,
    by: String,
    at: Moment,
}

/// Shows the list.
async fn list(
    State(fleet): State<Arc<Fleet>>,
    visitor: Visitor,
    headers: HeaderMap,
    Params(asked): Params<Asked>,
) -> Response {
    match content(&fleet, &visitor, &asked, headers.contains_key("hx-request")).await {
        Ok(Some(shown)) => page(StatusCode::OK, &shown),
        Ok(None) => StatusCode::NO_CONTENT.into_response(),
        Err(error) => failure::inside(&visitor, &error, TAB),
    }
}

/// Returns the page; `None` if an open page already shows it.
async fn content(
    fleet: &Fleet,
    visitor: &Visitor,
    asked: &Asked,
    is_renewal: bool,
) -> Result<Option<ScriptsPage>, Error> {
    // Before the read, so that a change during it is not missed.
    let newest = *fleet.change_log().newest().borrow();
    // New runs and stopped ones are in the change log. Results are not, so they are looked for while a run has not ended.
    if is_renewal && asked.seen.starts_with(&format!("{newest}-{IDLE}-")) {
        return Ok(None);
    }
    let all = fleet.scripts().list(&visitor.context).await?;
    let (now, start) = (fleet.now(), asked.page.saturating_mul(ROWS) as usize);
    let runs: Vec<&ScriptRun> = all.iter().skip(start).take(ROWS as usize).collect();
    let rows = digest(&runs, now);
    if is_renewal && asked.seen.ends_with(&rows) {
        return Ok(None);
    }
    let is_busy = runs.iter().any(|run| run.finished < run.targets && now < run.results_until());
    let seen = format!("{newest}-{}-{rows}", if is_busy { "busy" } else { IDLE });
    let mut people = People::new(fleet, visitor);
    let mut rows = Vec::new();
    for run in runs {
        let by = people.name(&run.created_by).await;
        rows.push(RunRow { by, ..run_row(run, now) });
    }
    let link = |number: u32| format!("{}{PATH}?page={number}", visitor.base);
    Ok(Some(ScriptsPage {
        frame: Frame::new(visitor, "Scripts", TAB),
        is_enabled: fleet.scripts().are_enabled(&visitor.context).await?,
        runs: rows,
        saved: saved_rows(fleet, visitor, &mut people).await?,
        pager: Pager::numbered(asked.page, ROWS, all.len() as u64, link),
        live: format!("{}&seen={seen}", link(asked.page)),
        lacks: Lacks {
            run: visitor.lacks(PrivilegeName::ScriptsRun),
            read: visitor.lacks(PrivilegeName::ScriptsRead),
            write: visitor.lacks(PrivilegeName::ScriptsWrite),
        },
        cli: cli(visitor, "script list"),
        api: curl(visitor, "GET", API, ""),
    }))
}

async fn saved_rows(fleet: &Fleet, visitor: &Visitor, people: &mut People<'_>) -> Result<Vec<SavedRow>, Error> {
    let mut rows = Vec::new();
    for script in fleet.scripts().saved(&visitor.context).await? {
        rows.push(SavedRow {
            by: people.name(&script.updated_by).await,
            at: Moment::new(script.updated_at, fleet.now()),
            id: script.id.to_string(),
            description: cut(&script.description),
            name: script.name,
        });
    }
    Ok(rows)
}

fn run_row(run: &ScriptRun, now: Timestamp) -> RunRow {
    RunRow {
        id: run.id.to_string(),
        name: run.name.clone(),
        state: state_of(run, now),
        finished: format!("{} of {}", run.finished, run.targets),
        failed: run.failed,
        by: String::new(),
        at: Moment::new(run.created_at, now),
    }
}

/// Returns what the rows of runs depend on.
fn digest(runs: &[&ScriptRun], now: Timestamp) -> String {
    let mut hasher = DefaultHasher::new();
    for run in runs {
        (run.id.as_str(), run.finished, run.failed, run.state(now)).hash(&mut hasher);
    }
    format!("{:x}", hasher.finish())
}
