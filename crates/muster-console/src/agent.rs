//! `/agents/{id}`: an agent, its host, its components and its actions.

use std::sync::Arc;

use askama::Template;
use axum::extract::{RawPathParams, State};
use axum::http::StatusCode;
use axum::response::Response;
use muster_core::Error;
use muster_core::action_request::ActionStatus;
use muster_core::authorization::{AgentsRead, PoliciesRead};
use muster_core::id::AgentId;
use muster_core::policy::Policy;
use muster_core::time::Timestamp;
use muster_fleet::Fleet;
use muster_fleet::action_views::{ActionListQuery, ActionView};
use muster_fleet::agent_views::AgentView;
use muster_store::query::Page;
use serde::Deserialize;

use crate::failure;
use crate::frame::{Frame, page};
use crate::text::{Badge, Moment, os_name};
use crate::visitor::Visitor;

/// Path of the list.
const TAB: &str = "/agents";
/// Number of actions on the page.
const ACTIONS: u32 = 20;
/// Maximum number of components, and of units of each, on the page.
const COMPONENTS: usize = 200;

#[derive(Template)]
#[template(path = "agent.html")]
struct AgentPage {
    frame: Frame,
    id: String,
    badge: Badge,
    since: Moment,
    message: String,
    connected: bool,
    facts: Vec<(&'static str, String)>,
    times: Vec<(&'static str, Option<Moment>)>,
    tags: Vec<String>,
    policy: Option<PolicyOfAgent>,
    failure: Option<String>,
    components: Vec<Component>,
    actions: Vec<ActionRow>,
}

/// The policy of an agent.
struct PolicyOfAgent {
    id: String,
    name: String,
    target: i64,
    running: i64,
}

/// A component, as the agent reports it. Everything is optional: an agent of another version may leave members out.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Component {
    id: String,
    status: String,
    message: String,
    units: Vec<Unit>,
}

/// An input or output of a component.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Unit {
    id: String,
    r#type: String,
    status: String,
    message: String,
}

struct ActionRow {
    kind: &'static str,
    at: Moment,
    state: &'static str,
}

/// Shows the page.
pub async fn show(State(fleet): State<Arc<Fleet>>, visitor: Visitor, params: RawPathParams) -> Response {
    let id = params.iter().find(|(name, _)| *name == "id").map(|(_, id)| id).unwrap_or_default();
    match read(&fleet, &visitor, id).await {
        Ok(agent) => page(StatusCode::OK, &agent),
        Err(error) => failure::inside(&visitor, &error, TAB),
    }
}

async fn read(fleet: &Fleet, visitor: &Visitor, id: &str) -> Result<AgentPage, Error> {
    let agents = fleet.agents();
    let view = agents.show(agents.find::<AgentsRead>(&visitor.context, id).await?).await?;
    let policy = policy(fleet, visitor, &view).await?;
    let actions = actions(fleet, visitor, &view.details.record.id).await?;
    Ok(content(visitor, view, policy, actions, fleet.now()))
}

async fn policy(fleet: &Fleet, visitor: &Visitor, view: &AgentView) -> Result<Option<Policy>, Error> {
    let (Ok(grant), Some(id)) = (visitor.context.grant::<PoliciesRead>(), &view.details.record.policy_id) else {
        return Ok(None);
    };
    Ok(fleet.policies().named(&grant, &[id.to_string()], &[]).await?.0.pop())
}

async fn actions(fleet: &Fleet, visitor: &Visitor, id: &AgentId) -> Result<Vec<ActionRow>, Error> {
    let question = ActionListQuery { agent: Some(id.clone()), ..ActionListQuery::default() };
    let page = Page { offset: 0, limit: ACTIONS };
    let found = fleet.actions().list(&visitor.context.grant::<AgentsRead>()?, &question, page).await?;
    let now = fleet.now();
    let row = |view: ActionView| ActionRow {
        kind: view.action.kind.as_str(),
        at: Moment::new(view.action.created_at, now),
        state: state(view.progress.status),
    };
    Ok(found.items.into_iter().map(row).collect())
}

const fn state(status: ActionStatus) -> &'static str {
    match status {
        ActionStatus::Cancelled => "cancelled",
        ActionStatus::Failed => "failed",
        ActionStatus::Complete => "complete",
        ActionStatus::Expired => "expired",
        ActionStatus::RolloutPassed => "rollout window has passed",
        ActionStatus::InProgress => "in progress",
    }
}

fn content(
    visitor: &Visitor,
    view: AgentView,
    policy: Option<Policy>,
    actions: Vec<ActionRow>,
    now: Timestamp,
) -> AgentPage {
    let record = view.details.record;
    let id = record.id.to_string();
    let title = if record.hostname.is_empty() { id.clone() } else { record.hostname.clone() };
    let policy = record.policy_id.as_ref().map(|id| PolicyOfAgent {
        id: id.to_string(),
        name: policy.as_ref().map_or_else(|| id.to_string(), |policy| policy.name.clone()),
        target: record.target_revision.or(policy.map(|policy| policy.revision)).unwrap_or_default(),
        running: record.policy_revision,
    });
    AgentPage {
        frame: Frame::new(visitor, title, TAB),
        badge: Badge(record.status),
        since: Moment::new(record.status_since, now),
        message: record.health.message,
        connected: view.connected,
        facts: vec![
            ("Host name", record.hostname),
            ("Operating system", os_name(view.details.documents.local_metadata.as_deref())),
            ("Agent version", record.agent_version),
            ("Family", record.family.as_str().to_owned()),
            ("Address", record.last_address),
            ("Address at enrollment", record.first_address),
            ("Host id", record.host_id.map(|id| id.to_string()).unwrap_or_default()),
            ("Enrollment key", record.enrollment_key_id.map(|id| id.to_string()).unwrap_or_default()),
        ],
        times: vec![
            ("Enrolled", Some(Moment::new(record.enrolled_at, now))),
            ("Last check-in", Moment::of(view.last_checkin, now)),
            ("Unenrolled", Moment::of(record.unenrolled_at, now)),
        ],
        tags: record.tags,
        policy,
        failure: record.policy_failure.map(|failure| format!("revision {}: {}", failure.revision, failure.reason)),
        components: components(view.details.documents.components.as_deref()),
        actions,
        id,
    }
}

/// Reads the components of a document. A document that has another form shows none.
fn components(text: Option<&str>) -> Vec<Component> {
    let mut all: Vec<Component> = text.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
    all.truncate(COMPONENTS);
    for component in &mut all {
        component.units.truncate(COMPONENTS);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn components_of_any_form_are_read() {
        let text =
            r#"[{"id":"log-default","status":"HEALTHY","units":[{"id":"u","type":"input"}],"payload":{"x":[1]}},{}]"#;
        let found = components(Some(text));
        assert_eq!((found.len(), found[0].id.as_str(), found[0].units[0].r#type.as_str()), (2, "log-default", "input"));
        for bad in [None, Some("null"), Some("{}"), Some("[1]"), Some("[")] {
            assert!(components(bad).is_empty(), "{bad:?}");
        }
    }
}
