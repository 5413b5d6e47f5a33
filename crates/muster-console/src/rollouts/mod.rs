//! `/rollouts`: staged rollouts of policies and upgrades.

pub mod plan;
mod planner;
mod rollout;

use std::collections::HashMap;
use std::sync::Arc;

use askama::Template;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use muster_core::authorization::{Grant, PoliciesRead};
use muster_core::rollout::{Rollout, State as Phase, Subject};
use muster_core::{Error, shell};
use muster_fleet::Fleet;
use muster_store::query::Page;
use serde::Deserialize;

use crate::elsewhere::{cli, curl};
use crate::frame::{Frame, page};
use crate::pager::Pager;
use crate::people::People;
use crate::request::newest_change;
use crate::text::Moment;
use crate::visitor::{Params, Visitor};
use crate::{Route, failure};

/// Path of the list.
pub const TAB: &str = "/rollouts";
/// Number of rollouts on a page.
const ROWS: u32 = 50;
/// Last page that is shown, so that nobody makes the server count for nothing.
const LAST: u32 = 10_000;

/// The pages of rollouts.
pub fn routes() -> Vec<Route> {
    vec![
        (TAB, get(show).post(planner::start)),
        ("/rollouts/new", get(planner::show).post(planner::draw)),
        ("/rollouts/{id}", get(rollout::show).post(rollout::act)),
        ("/rollouts/{id}/confirm", get(rollout::confirm)),
    ]
}

/// Parameters of the list.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Asked {
    /// Only rollouts in this state.
    state: String,
    /// Number of the page, from 1.
    page: Option<u32>,
    /// The newest change that the browser has seen. Only in requests that renew the rows.
    seen: Option<i64>,
}

#[derive(Template)]
#[template(path = "rollouts/list.html")]
struct RolloutsPage {
    frame: Frame,
    rows: Vec<Row>,
    /// The privilege that is missing to start any rollout; empty if there is one.
    cannot_plan: &'static str,
    chips: Vec<Chip>,
    is_filtered: bool,
    pager: Pager,
    live: String,
    cli: String,
    api: String,
}

struct Chip {
    word: String,
    link: String,
    is_chosen: bool,
}

struct Row {
    id: String,
    subject: String,
    state: StateText,
    waves: String,
    by: String,
    created: Moment,
    updated: Moment,
}

/// A state with the class of its color, and a sign for those who do not see colors.
pub struct StateText {
    /// The word.
    pub word: String,
    /// Class of the style sheet.
    pub class: &'static str,
    /// The sign before the word.
    pub sign: &'static str,
}

impl StateText {
    /// The text of a state.
    pub fn of(state: &Phase) -> Self {
        let (class, sign) = match state {
            Phase::Completed => ("good", "●"),
            Phase::Created | Phase::Running => ("busy", "◐"),
            Phase::AwaitingApproval | Phase::AwaitingAgents | Phase::Paused => ("warn", "▲"),
            Phase::Halted { .. } => ("bad", "✕"),
            Phase::RolledBack { .. } => ("quiet", "–"),
        };
        Self { word: readable(state.as_str()), class, sign }
    }
}

/// Returns a word of the API as people read it.
pub fn readable(word: &str) -> String {
    word.replace('_', " ")
}

/// Shows the list.
pub async fn show(
    State(fleet): State<Arc<Fleet>>,
    visitor: Visitor,
    headers: HeaderMap,
    Params(asked): Params<Asked>,
) -> Response {
    let Some(newest) = newest_change(&fleet, &headers, asked.seen) else {
        return StatusCode::NO_CONTENT.into_response();
    };
    match read(&fleet, &visitor, &asked, newest).await {
        Ok(rollouts) => page(StatusCode::OK, &rollouts),
        Err(error) => failure::inside(&visitor, &error, TAB),
    }
}

async fn read(fleet: &Fleet, visitor: &Visitor, asked: &Asked, newest: i64) -> Result<RolloutsPage, Error> {
    let grant = visitor.context.grant::<PoliciesRead>()?;
    let number = asked.page.unwrap_or(1).clamp(1, LAST);
    let shown = Page { offset: (number - 1) * ROWS, limit: ROWS };
    let found = match asked.state.as_str() {
        "" => fleet.rollouts().list(&grant, shown).await?,
        state => fleet.rollouts().in_state(&grant, state, shown).await?,
    };
    let frame = Frame::new(visitor, "Rollouts", TAB);
    let here = |state: &str, number: u32| {
        let number = if number == 1 { String::new() } else { format!("page={number}") };
        let state = if state.is_empty() { String::new() } else { format!("state={state}") };
        let query = [state, number].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("&");
        format!("{}{TAB}{}{query}", frame.base, if query.is_empty() { "" } else { "?" })
    };
    let chip = |word: &&str| {
        let is_chosen = *word == asked.state;
        Chip { word: readable(word), link: here(if is_chosen { "" } else { word }, 1), is_chosen }
    };
    // Numbers in the address begin with 1.
    let pager = Pager::numbered(number - 1, ROWS, found.total, |number| here(&asked.state, number + 1));
    let this = here(&asked.state, number);
    let live = format!("{this}{}seen={newest}", if this.contains('?') { '&' } else { '?' });
    let names = names(fleet, &grant, &found.items).await?;
    let now = fleet.now();
    let (flag, parameter) = match asked.state.as_str() {
        "" => (String::new(), String::new()),
        state => (format!(" {}", shell::option("--state", state)), format!("?state={state}")),
    };
    let (mut people, mut rows) = (People::new(fleet, visitor), Vec::new());
    for rollout in &found.items {
        rows.push(Row {
            id: rollout.id.to_string(),
            subject: named(rollout, &names),
            state: StateText::of(&rollout.state),
            waves: format!("{} of {}", rollout.started.len(), rollout.plan.waves.len()),
            by: people.name(&rollout.created_by).await,
            created: Moment::new(rollout.created_at, now),
            updated: Moment::new(rollout.updated_at, now),
        });
    }
    Ok(RolloutsPage {
        cannot_plan: planner::may_plan(visitor, false).map_or_else(|missing| missing.0.as_str(), |()| ""),
        rows,
        chips: Phase::WORDS.iter().map(chip).collect(),
        is_filtered: !asked.state.is_empty(),
        pager,
        live,
        cli: cli(visitor, &format!("rollout list{flag}")),
        api: curl(visitor, "GET", &format!("/api/fleet/rollouts{parameter}"), ""),
        frame,
    })
}

/// Returns the names of the policies of some rollouts, by id.
async fn names(
    fleet: &Fleet,
    grant: &Grant<PoliciesRead>,
    rollouts: &[Rollout],
) -> Result<HashMap<String, String>, Error> {
    let id = |rollout: &Rollout| match &rollout.subject {
        Subject::Policy { policy, .. } => Some(policy.to_string()),
        Subject::Upgrade { .. } => None,
    };
    let mut ids: Vec<String> = rollouts.iter().filter_map(id).collect();
    ids.sort_unstable();
    ids.dedup();
    let (found, _) = fleet.policies().named(grant, &ids, &[]).await?;
    Ok(found.into_iter().map(|policy| (policy.id.to_string(), policy.name)).collect())
}

/// Returns what some rollouts are about, with the names of their policies.
pub async fn subjects(fleet: &Fleet, grant: &Grant<PoliciesRead>, all: &[Rollout]) -> Result<Vec<String>, Error> {
    let names = names(fleet, grant, all).await?;
    Ok(all.iter().map(|rollout| named(rollout, &names)).collect())
}

fn named(rollout: &Rollout, names: &HashMap<String, String>) -> String {
    match &rollout.subject {
        Subject::Policy { policy, revision, .. } => match names.get(policy.as_str()) {
            Some(name) => format!("policy {name}, revision {revision}"),
            None => subject(rollout),
        },
        Subject::Upgrade { .. } => subject(rollout),
    }
}

/// Returns what is rolled out.
fn subject(rollout: &Rollout) -> String {
    match &rollout.subject {
        Subject::Policy { policy, revision, .. } => format!("policy {policy}, revision {revision}"),
        Subject::Upgrade { version, .. } => format!("upgrade to {version}"),
    }
}
