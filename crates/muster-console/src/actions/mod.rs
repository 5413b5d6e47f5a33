//! `/actions`: what was requested of agents, the newest first, with its progress.

pub mod action;
mod asked;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use askama::Template;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use muster_core::action::{Action, ActionType, TargetState};
use muster_core::action_request::{ActionProgress, ActionStatus};
use muster_core::authorization::{AgentsRead, PoliciesRead};
use muster_core::time::Timestamp;
use muster_core::{Error, shell};
use muster_fleet::Fleet;
use muster_fleet::action_search::{FoundActions, MAX_SEARCHED};
use muster_fleet::action_views::{ActionListQuery, ActionView, AgentResult};
use muster_management::cursor;
use muster_store::query::{ActionCursor, Page};
use serde_json::Value;

use self::asked::Asked;
use crate::agents::agent::name_or_id;
use crate::agents::asked::encoded;
use crate::elsewhere::{cli, curl};
use crate::failure;
use crate::frame::{Frame, page};
use crate::names;
use crate::people::People;
use crate::request::newest_change;
use crate::text::Moment;
use crate::visitor::{Params, Visitor};

/// Path of the page.
pub const TAB: &str = "/actions";
/// Path of the list in the API.
const API: &str = "/api/fleet/agents/action_status";
/// Number of actions on a page.
const ROWS: u32 = 50;
/// Number of errors that are shown for an action of the list.
const ERRORS: u32 = 3;

#[derive(Template)]
#[template(path = "actions/actions.html")]
struct ActionsPage<'a> {
    frame: Frame,
    asked: &'a Asked,
    rows: Vec<Row>,
    is_first: bool,
    /// Number of actions that were searched without finding enough; 0 if the search is complete or there was none.
    searched: usize,
    next: String,
    live: String,
    cli: String,
    api: String,
}

struct Row {
    id: String,
    title: String,
    by: String,
    created: Moment,
    bar: Bar,
    /// The latest errors: id and name of the agent, and the error.
    errors: Vec<(String, String, String)>,
}

/// The progress of an action.
pub struct Bar {
    /// For people.
    pub state: &'static str,
    /// Class of the state's color.
    pub class: &'static str,
    /// Number of agents.
    pub agents: i64,
    /// Number of agents that carried it out.
    pub acked: i64,
    /// Number of agents that failed or were not eligible.
    pub failed: i64,
}

impl Bar {
    fn of(progress: &ActionProgress) -> Self {
        let (state, class) = match progress.status {
            ActionStatus::Cancelled => ("cancelled", "quiet"),
            ActionStatus::Failed => ("failed for some", "bad"),
            ActionStatus::Complete => ("complete", "good"),
            ActionStatus::Expired => ("expired", "warn"),
            ActionStatus::RolloutPassed => ("its time has passed", "warn"),
            ActionStatus::InProgress => ("in progress", "busy"),
        };
        Self { state, class, agents: progress.actioned, acked: progress.acked, failed: progress.failed }
    }

    /// The share of the agents that carried it out, in percent.
    pub fn done(&self) -> i64 {
        self.percent(self.acked)
    }

    /// The share of the agents that failed, in percent.
    pub fn undone(&self) -> i64 {
        self.percent(self.failed)
    }

    fn percent(&self, number: i64) -> i64 {
        if self.agents > 0 { (number * 100 / self.agents).clamp(0, 100) } else { 0 }
    }
}

/// Returns the state of one agent as people read it.
pub const fn state_text(state: TargetState) -> &'static str {
    match state {
        TargetState::Queued => "waiting for the agent",
        TargetState::Acked => "done",
        TargetState::Failed => "failed",
        TargetState::Cancelled => "cancelled",
    }
}

/// Returns the data of an action; `null` if there is none.
pub fn data_of(action: &Action) -> Value {
    action.data.as_deref().and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
}

/// Returns a string of the data of an action; empty if there is none.
pub fn text_of(data: &Value, name: &str) -> String {
    data[name].as_str().unwrap_or_default().to_owned()
}

/// Returns the strings of a list of the data of an action.
pub fn list_of<'d>(data: &'d Value, name: &str) -> Vec<&'d str> {
    data[name].as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

/// Returns the id and the name of an agent that failed, and its error.
pub fn error_row(error: &AgentResult) -> (String, String, String) {
    let id = error.result.agent_id.to_string();
    let message = error.result.outcome.message().unwrap_or_default().to_owned();
    let name = name_or_id(error.hostname.as_deref().unwrap_or_default(), &id).to_owned();
    (id, name, message)
}

/// Stands for the names of policies that the visitor may not see.
const HIDDEN: &str = "a policy that you may not read";

/// Names of policies by id.
pub type PolicyNames = HashMap<String, String>;

/// Returns the names of the policies that actions are about, as far as the visitor may read them.
pub async fn policy_names(fleet: &Fleet, visitor: &Visitor, actions: &[&Action]) -> Result<PolicyNames, Error> {
    let ids: BTreeSet<String> = actions.iter().map(|action| text_of(&data_of(action), "policy_id")).collect();
    let ids: Vec<String> = ids.into_iter().filter(|id| !id.is_empty()).collect();
    let Ok(grant) = visitor.context.grant::<PoliciesRead>() else {
        let mut known = HashMap::new();
        for id in ids {
            let name = names::policy(fleet, visitor, &id).await.unwrap_or_else(|| HIDDEN.to_owned());
            known.insert(id, name);
        }
        return Ok(known);
    };
    let found = fleet.policies().named(&grant, &ids, &[]).await?.0;
    Ok(found.into_iter().map(|policy| (policy.id.to_string(), policy.name)).collect())
}

/// Returns what an action is about, as people read it.
pub fn title_of(action: &Action, names: &PolicyNames) -> String {
    let data = data_of(action);
    let text = |name: &str| text_of(&data, name);
    let id = text("policy_id");
    let policy = names.get(&id).unwrap_or(&id);
    match action.kind {
        ActionType::Upgrade if data["rollback"] == true => format!("Roll back to {}", text("version")),
        ActionType::Upgrade => format!("Upgrade to {}", text("version")),
        ActionType::PolicyReassign if id.is_empty() => "Remove the policy".into(),
        ActionType::PolicyReassign if policy == HIDDEN => format!("Assign {HIDDEN}"),
        ActionType::PolicyReassign => format!("Assign the policy {policy}"),
        ActionType::PolicyChange => format!("Revision {} of {policy}", data["revision"]),
        ActionType::RequestDiagnostics => "Request diagnostics".into(),
        ActionType::Settings => match data["log_level"].as_str() {
            Some(level) => format!("Set the log level to {level}"),
            None => "Change settings".into(),
        },
        ActionType::Unenroll => "Unenroll".into(),
        ActionType::ForceUnenroll => "Revoke immediately".into(),
        ActionType::UpdateTags => {
            let part = |what: &str, name: &str| match list_of(&data, name).join(", ").as_str() {
                "" => String::new(),
                tags => format!(" {what} {tags}"),
            };
            format!("Change tags:{}{}", part("add", "tags_to_add"), part("remove", "tags_to_remove"))
        }
        ActionType::Migrate => format!("Migrate to {}", text("target_uri")),
        ActionType::PrivilegeLevelChange => "Change the privilege level".into(),
        ActionType::Reenroll => "Reenroll".into(),
        ActionType::InputAction => format!("Action of the input {}", action.input_type),
        ActionType::Cancel => format!("Cancel {}", text("target_id")),
    }
}

/// Shows the page.
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
        Ok(actions) => page(StatusCode::OK, &actions),
        Err(error) => failure::inside(&visitor, &error, TAB),
    }
}

async fn read<'a>(fleet: &Fleet, visitor: &Visitor, asked: &'a Asked, newest: i64) -> Result<ActionsPage<'a>, Error> {
    let grant = visitor.context.grant::<AgentsRead>()?;
    let wanted = asked.wanted(fleet, visitor).await?;
    let after = Some(asked.after.as_str()).filter(|after| !after.is_empty());
    let damaged = |_| {
        let error = Error::invalid("after", "the link to this page of the list is damaged");
        error.remedy("begin with the newest actions")
    };
    let after_action = cursor::action(after, None).map_err(damaged)?;
    let question = ActionListQuery { errors: ERRORS, after: after_action, ..ActionListQuery::default() };
    let found = match wanted {
        Some(wanted) => {
            fleet.actions().search(&grant, &question, ROWS as usize, |one, how| wanted.fits(one, how)).await?
        }
        None => {
            let items = fleet.actions().list(&grant, &question, Page { offset: 0, limit: ROWS }).await?.items;
            let last = items.last().filter(|_| items.len() == ROWS as usize);
            FoundActions { next: last.map(|last| ActionCursor::behind(&last.action)), items, is_cut: false }
        }
    };
    let now = fleet.now();
    let mut people = People::new(fleet, visitor);
    let mut rows = Vec::with_capacity(found.items.len());
    let actions: Vec<&Action> = found.items.iter().map(|view| &view.action).collect();
    let names = policy_names(fleet, visitor, &actions).await?;
    for view in &found.items {
        let by = people.name(&view.action.created_by).await;
        rows.push(row(view, title_of(&view.action, &names), by, now));
    }
    let (command, api) = match asked.kuery().as_str() {
        "" => ("action list".to_owned(), API.to_owned()),
        query => {
            (format!("action list {}", shell::option("--filter", query)), format!("{API}?kuery={}", encoded(query)))
        }
    };
    Ok(ActionsPage {
        frame: Frame::new(visitor, "Actions", TAB),
        is_first: after.is_none(),
        searched: if found.is_cut { MAX_SEARCHED } else { 0 },
        next: found.next.map(|next| asked.link(&visitor.base, &cursor::of_action(&next), None)).unwrap_or_default(),
        live: asked.link(&visitor.base, &asked.after, Some(newest)),
        cli: cli(visitor, &command),
        api: curl(visitor, "GET", &api, ""),
        rows,
        asked,
    })
}

fn row(view: &ActionView, title: String, by: String, now: Timestamp) -> Row {
    Row {
        id: view.action.id.to_string(),
        title,
        bar: Bar::of(&view.progress),
        created: Moment::new(view.action.created_at, now),
        by,
        errors: view.errors.iter().map(error_row).collect(),
    }
}
