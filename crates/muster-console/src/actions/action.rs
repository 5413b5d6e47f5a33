//! `/actions/{id}`: an action with the result of each agent; retry for those that failed, and cancellation.

use std::sync::Arc;

use askama::Template;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use muster_core::action::{Action, ActionType, TargetState};
use muster_core::action_request::{ActionStatus, is_cancellable};
use muster_core::authorization::{AgentsUpgrade, PrivilegeName};
use muster_core::plural::counted;
use muster_core::time::Timestamp;
use muster_core::{Error, shell};
use muster_fleet::Fleet;
use muster_fleet::action_views::TargetView;
use serde::Deserialize;
use serde_json::Value;

use super::asked::kind_words;
use super::{Bar, TAB, data_of, error_row, list_of, policy_names, state_text, text_of, title_of};
use crate::agents::acts::Act;
use crate::agents::agent::name_or_id;
use crate::agents::asked::encoded;
use crate::confirm::{Confirm, shown};
use crate::elsewhere::{cli, curl};
use crate::failure;
use crate::frame::{Frame, page};
use crate::links::Base;
use crate::notice;
use crate::people::People;
use crate::request::{Id, Pressed};
use crate::text::Moment;
use crate::visitor::{Params, Visitor};

/// Number of agents on a page.
const ROWS: u32 = 100;
/// Number of errors that are shown above the agents.
const ERRORS: u32 = 20;

/// Parameters of the page.
#[derive(Default, Deserialize)]
#[serde(default)]
pub struct Asked {
    /// Position of the last agent of the previous page.
    after: Option<i64>,
    /// State of the agents: a word of [`STATES`]; empty for all.
    state: String,
}

/// States of agents: the word in the URL, the state, and the name.
const STATES: [(&str, TargetState, &str); 4] = [
    ("failed", TargetState::Failed, "Failed"),
    ("waiting", TargetState::Queued, "Waiting"),
    ("done", TargetState::Acked, "Done"),
    ("cancelled", TargetState::Cancelled, "Cancelled"),
];

#[derive(Template)]
#[template(path = "actions/action.html")]
struct ActionPage {
    frame: Frame,
    id: String,
    bar: Bar,
    facts: Vec<(&'static str, String)>,
    times: Vec<(&'static str, Option<Moment>)>,
    errors: Vec<(String, String, String)>,
    /// The data that agents get, indented; empty if there is none.
    data: String,
    /// The states to choose from: link, name, and whether it is chosen.
    states: Vec<(String, &'static str, bool)>,
    rows: Vec<Row>,
    next: String,
    /// Link that prepares the same act for the agents that failed; empty if there are none.
    retry: String,
    /// Whether it can be cancelled, and why the person may not.
    cancel: Option<Option<String>>,
    is_open: bool,
    live: String,
    cli: String,
    api: String,
}

struct Row {
    id: String,
    name: String,
    state: &'static str,
    message: String,
    at: Option<Moment>,
}

/// Shows the page.
pub async fn show(
    State(fleet): State<Arc<Fleet>>,
    visitor: Visitor,
    Id(id): Id,
    Params(asked): Params<Asked>,
) -> Response {
    match read(&fleet, &visitor, &id, &asked).await {
        Ok(action) => page(StatusCode::OK, &action),
        Err(error) => failure::inside(&visitor, &error, TAB),
    }
}

async fn read(fleet: &Fleet, visitor: &Visitor, id: &str, asked: &Asked) -> Result<ActionPage, Error> {
    let listed = fleet.actions().find_listed(&visitor.context, id).await?;
    let view = fleet.actions().show(&listed, ERRORS).await?;
    let state = match asked.state.as_str() {
        "" => None,
        word => {
            Some(STATES.iter().find(|state| state.0 == word).ok_or_else(|| Error::invalid("state", "unknown state"))?)
        }
    };
    let state = state.map(|state| state.1);
    let targets = fleet.actions().results_in(&listed, state, asked.after.unwrap_or(-1), ROWS).await?;
    let now = fleet.now();
    let path = format!("{}{TAB}/{}", visitor.base, encoded(id));
    let is_full = targets.len() == ROWS as usize;
    let own = format!("{path}?state={}", asked.state);
    let next = targets.last().filter(|_| is_full).map(|last| format!("{own}&after={}", last.position));
    let (action, progress) = (&view.action, &view.progress);
    let names = policy_names(fleet, visitor, &[action]).await?;
    let is_open = progress.status == ActionStatus::InProgress;
    let may_cancel = is_open && is_cancellable(action.kind);
    let after = asked.after.map(|after| format!("&after={after}")).unwrap_or_default();
    let all = std::iter::once(("", "All")).chain(STATES.map(|(word, _, name)| (word, name)));
    Ok(ActionPage {
        frame: Frame::new(visitor, title_of(action, &names), TAB),
        id: id.to_owned(),
        bar: Bar::of(progress),
        facts: facts(action, People::new(fleet, visitor).name(&action.created_by).await),
        times: vec![
            ("Created", Some(Moment::new(action.created_at, now))),
            ("Starts", Moment::of(action.start_time, now)),
            ("Expires", Moment::of(action.expiration, now)),
            ("Completed", Moment::of(progress.completed_at, now)),
            ("Cancelled", Moment::of(action.cancelled_at, now)),
        ],
        errors: view.errors.iter().map(error_row).collect(),
        rows: targets.into_iter().map(|target| row(target, now)).collect(),
        next: next.unwrap_or_default(),
        retry: if progress.failed > 0 { retry(action, &visitor.base) } else { String::new() },
        cli: cli(visitor, &format!("action show {}", shell::argument(id))),
        api: curl(visitor, "GET", &format!("/api/fleet/agents/actions/{id}/results"), ""),
        cancel: may_cancel.then(|| visitor.needs(PrivilegeName::AgentsUpgrade)),
        is_open,
        live: format!("{own}{after}"),
        states: all.map(|(word, name)| (format!("{path}?state={word}#results"), name, word == asked.state)).collect(),
        data: data(action),
    })
}

fn facts(action: &Action, by: String) -> Vec<(&'static str, String)> {
    let window = action.rollout_seconds.map(|seconds| counted(u64::try_from(seconds / 60).unwrap_or(0), "minute"));
    vec![
        ("Id", action.id.to_string()),
        ("Type", kind_words(action.kind).to_owned()),
        ("By", by),
        ("Spread over", window.unwrap_or_default()),
    ]
}

/// Returns the data of an action, indented. Sealed secrets in it are references.
fn data(action: &Action) -> String {
    match data_of(action) {
        Value::Null => String::new(),
        Value::Object(members) if members.is_empty() => String::new(),
        data => serde_json::to_string_pretty(&data).unwrap_or_default(),
    }
}

fn row(target: TargetView, now: Timestamp) -> Row {
    let id = target.agent.to_string();
    let message = target.result.as_ref().and_then(|result| result.outcome.message()).unwrap_or_default().to_owned();
    Row {
        name: name_or_id(target.hostname.as_deref().unwrap_or_default(), &id).to_owned(),
        state: state_text(target.state),
        message,
        at: Moment::of(target.result.map(|result| result.at), now),
        id,
    }
}

/// Returns the link that prepares the same act for the agents that failed; empty if pages have no such act.
fn retry(action: &Action, base: &Base) -> String {
    let data = data_of(action);
    let text = |name: &str| text_of(&data, name);
    let list = |name: &str| list_of(&data, name).join(",");
    let (act, details) = match action.kind {
        ActionType::Upgrade if data["rollback"] == true => (Act::Rollback, vec![]),
        ActionType::Upgrade => (Act::Upgrade, vec![("version", text("version"))]),
        ActionType::PolicyReassign => (Act::Assign, vec![("policy", text("policy_id"))]),
        ActionType::UpdateTags => (Act::Tag, vec![("add", list("tags_to_add")), ("remove", list("tags_to_remove"))]),
        ActionType::RequestDiagnostics => (Act::Diagnostics, vec![]),
        ActionType::Settings => {
            let level = text("log_level");
            (Act::LogLevel, vec![("level", if level.is_empty() { "reset".to_owned() } else { level })])
        }
        ActionType::Unenroll => (Act::Unenroll, vec![]),
        ActionType::ForceUnenroll => (Act::Revoke, vec![]),
        ActionType::PolicyChange
        | ActionType::Migrate
        | ActionType::PrivilegeLevelChange
        | ActionType::Reenroll
        | ActionType::InputAction
        | ActionType::Cancel => return String::new(),
    };
    let details: String = details.into_iter().map(|(name, value)| format!("&{name}={}", encoded(&value))).collect();
    format!("{base}/agents/bulk?failed={}&act={}&preview=1{details}", action.id, act.key())
}

/// Shows what a cancellation would do.
pub async fn ask(State(fleet): State<Arc<Fleet>>, visitor: Visitor, Id(id): Id) -> Response {
    shown(&visitor, TAB, cancellation(&fleet, &visitor, &id).await)
}

async fn cancellation(fleet: &Fleet, visitor: &Visitor, id: &str) -> Result<Confirm, Error> {
    let action = fleet.actions().find::<AgentsUpgrade>(&visitor.context.clone().trying(true), id).await?;
    let tried = fleet.actions().cancel(&action).await?;
    let agents = counted(tried.submitted.targets, "agent");
    let begun = match tried.continuing {
        0 => String::new(),
        number => format!(" {number} of them have begun, and will continue."),
    };
    let link = |path: &str| visitor.base.link(format_args!("{TAB}/{}{path}", action.id));
    Ok(Confirm {
        text: vec![
            title_of(&action, &policy_names(fleet, visitor, &[&action]).await?),
            format!("Not answered yet: {agents}, which get a cancellation.{begun} What was done is not undone."),
        ],
        button: "Cancel the action",
        keep: "Keep the action",
        cli: cli(visitor, &format!("action cancel {}", shell::argument(action.id.as_str()))),
        api: curl(visitor, "POST", &format!("/api/fleet/agents/actions/{}/cancel", action.id), ""),
        ..Confirm::new(visitor, "Cancel an action", TAB, link("/cancel"), link(""))
    })
}

/// Cancels the action.
pub async fn cancel(State(fleet): State<Arc<Fleet>>, Pressed(visitor): Pressed, Id(id): Id) -> Response {
    match carry_out(&fleet, &visitor, &id).await {
        Ok(response) => response,
        Err(error) => failure::inside(&visitor, &error, TAB),
    }
}

async fn carry_out(fleet: &Fleet, visitor: &Visitor, id: &str) -> Result<Response, Error> {
    let action = fleet.actions().find::<AgentsUpgrade>(&visitor.context, id).await?;
    let done = fleet.actions().cancel(&action).await?;
    let notice = match done.continuing {
        0 => format!("The action was cancelled for {}.", counted(done.submitted.targets, "agent")),
        number => format!("The action was cancelled. {} had begun and will continue.", counted(number, "agent")),
    };
    Ok(notice::redirect(visitor.base.link(format_args!("{TAB}/{}", action.id)), &notice))
}
