//! `/agents/{id}`: an agent, its host, its policy, its components and what can be done with it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use askama::Template;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use muster_core::agent::{AgentRecord, Family};
use muster_core::authorization::{AgentsRead, PoliciesRead, PrivilegeName};
use muster_core::id::AgentId;
use muster_core::policy::Policy;
use muster_core::reported::is_visible;
use muster_core::rollout::Rollout;
use muster_core::time::Timestamp;
use muster_core::{Error, shell};
use muster_fleet::Fleet;
use muster_fleet::action_views::AgentAction;
use muster_fleet::actions::{Eligible, Surveyed};
use muster_fleet::agent_views::{AgentListQuery, AgentView, Rows};
use muster_fleet::authority::Authorized;
use muster_management::selector::by_ids;
use muster_store::query::{AgentCondition, AgentFilter, AgentSort, Page};

use super::acts::Act;
use super::asked::TAB;
use super::report::{Component, Long, components};
use crate::actions::{policy_names, state_text, title_of};
use crate::elsewhere::{cli, curl};
use crate::failure;
use crate::frame::{Frame, page};
use crate::names;
use crate::people::People;
use crate::request::Id;
use crate::text::{Badge, Moment, architecture, log_level, os_name, runs_as, sentence};
use crate::visitor::Visitor;

/// Id of the server of a fleet that has only one.
const ONLY_SERVER: &str = "local";
/// Number of actions on the page.
const ACTIONS: u32 = 20;

#[derive(Template)]
#[template(path = "agents/agent.html")]
struct AgentPage {
    frame: Frame,
    id: String,
    badge: Badge,
    since: Moment,
    message: Long,
    connected: bool,
    facts: Vec<(&'static str, String)>,
    key: Option<KeyOfAgent>,
    times: Vec<(&'static str, Option<Moment>)>,
    tags: Vec<String>,
    departure: Option<String>,
    policy: Option<PolicyOfAgent>,
    failure: Option<String>,
    components: Vec<Component>,
    actions: Vec<ActionRow>,
    others: Vec<Other>,
    /// Id of the host; empty if it is unknown.
    host: String,
    acts: Vec<(Act, Option<String>)>,
    /// The acts that are disabled, by the reason: names and reason.
    limits: Vec<(String, String)>,
    /// Why the person may not respond.
    no_response: Option<String>,
    cli: String,
    api: String,
}

/// The enrollment key of an agent.
struct KeyOfAgent {
    id: String,
    name: String,
    /// Whether the person may read it.
    is_readable: bool,
}

/// The policy of an agent.
struct PolicyOfAgent {
    id: String,
    name: String,
    /// Whether the person may read it.
    is_readable: bool,
    /// `None` if it is that of the policy, and the person may not read it.
    target: Option<i64>,
    running: i64,
    since: Option<Moment>,
    /// The newest revision and the id of its rollout, if it reaches the agent only with a later wave.
    later: Option<(i64, String)>,
}

impl PolicyOfAgent {
    /// The target revision, if the agent does not run it yet.
    fn due(&self) -> Option<i64> {
        self.target.filter(|target| self.running < *target)
    }
}

struct ActionRow {
    id: String,
    title: String,
    at: Moment,
    state: &'static str,
    by: String,
}

/// Another agent of the host: an earlier one, or one of another family.
struct Other {
    id: String,
    family: &'static str,
    badge: Badge,
    enrolled: Moment,
    version: String,
}

/// Returns what people call an agent: the name of its host, or its id.
pub fn name_of(record: &AgentRecord) -> String {
    name_or_id(&record.hostname, record.id.as_str()).to_owned()
}

/// Returns the name of something that an agent reports about; its id if the name has no visible character, so that a link
/// to it can be seen.
pub fn name_or_id<'a>(name: &'a str, id: &'a str) -> &'a str {
    if is_visible(name) { name } else { id }
}

/// Returns the names of agents, in the order of their ids; the id of one that the person may not see.
pub async fn names_of(fleet: &Fleet, visitor: &Visitor, ids: &[AgentId]) -> Result<Vec<(String, String)>, Error> {
    let mut known = HashMap::new();
    if let (Ok(grant), false) = (visitor.context.grant::<AgentsRead>(), ids.is_empty()) {
        let limit = u32::try_from(ids.len()).unwrap_or(u32::MAX);
        let question = AgentListQuery {
            filter: AgentFilter::all([AgentCondition::Ids(ids.to_vec())]),
            sort: AgentSort::default(),
            descending: false,
            rows: Rows::Page(Page { offset: 0, limit }),
        };
        let found = fleet.agents().list(&grant, &question).await?.items;
        known.extend(found.iter().map(|view| (view.details.record.id.clone(), name_of(&view.details.record))));
    }
    let name = |id: &AgentId| (id.to_string(), known.get(id).cloned().unwrap_or_else(|| id.to_string()));
    Ok(ids.iter().map(name).collect())
}

/// Shows the page.
pub async fn show(State(fleet): State<Arc<Fleet>>, visitor: Visitor, Id(id): Id) -> Response {
    match read(&fleet, &visitor, &id).await {
        Ok(agent) => page(StatusCode::OK, &agent),
        Err(error) => failure::inside(&visitor, &error, TAB),
    }
}

async fn read(fleet: &Fleet, visitor: &Visitor, id: &str) -> Result<AgentPage, Error> {
    let agents = fleet.agents();
    let found = agents.find::<AgentsRead>(&visitor.context, id).await?;
    let actions = actions(fleet, visitor, &found).await?;
    let others = others(fleet, visitor, &found).await?;
    let alone = agents.select::<AgentsRead>(&visitor.context, &by_ids(&[id.to_owned()])?).await?;
    let surveyed = fleet.actions().survey(&alone).await?;
    let view = agents.show(found).await?;
    let policy = policy(fleet, visitor, &view).await?;
    let key = key(fleet, visitor, &view.details.record).await;
    let wave = later_wave(fleet, visitor, &view.details.record, policy.as_ref()).await?;
    // Its name is part of what people see of the agent; its content is not.
    let named = match (&policy, &view.details.record.policy_id) {
        (None, Some(id)) => names::policy(fleet, visitor, id.as_str()).await,
        _ => None,
    };
    let mut shown =
        AgentPage { others, key, ..content(visitor, view, policy.as_ref(), actions, &surveyed, fleet.now()) };
    if let (Some(policy), Some(name)) = (&mut shown.policy, named) {
        policy.name = name;
    }
    if let (Some(policy), Some((wanted, newest, rollout))) = (&mut shown.policy, wave) {
        (policy.target, policy.later) = (Some(wanted), Some((newest, rollout)));
    }
    Ok(shown)
}

async fn actions(
    fleet: &Fleet,
    visitor: &Visitor,
    agent: &Authorized<AgentRecord, AgentsRead>,
) -> Result<Vec<ActionRow>, Error> {
    let now = fleet.now();
    let mut people = People::new(fleet, visitor);
    let mut rows = Vec::new();
    let found = fleet.actions().of_agent(agent, ACTIONS).await?;
    let names = policy_names(fleet, visitor, &found.iter().map(|one| &one.action).collect::<Vec<_>>()).await?;
    for AgentAction { action, state } in found {
        rows.push(ActionRow {
            id: action.id.to_string(),
            title: title_of(&action, &names),
            at: Moment::new(action.created_at, now),
            state: state_text(state),
            by: people.name(&action.created_by).await,
        });
    }
    Ok(rows)
}

async fn policy(fleet: &Fleet, visitor: &Visitor, view: &AgentView) -> Result<Option<Policy>, Error> {
    let (Ok(grant), Some(id)) = (visitor.context.grant::<PoliciesRead>(), &view.details.record.policy_id) else {
        return Ok(None);
    };
    Ok(fleet.policies().named(&grant, &[id.to_string()], &[]).await?.0.pop())
}

/// Returns the revision that the agent should run, the newest one, and the rollout that has not reached the agent with it. `None` if the
/// agent should run the newest one, or one of its own.
async fn later_wave(
    fleet: &Fleet,
    visitor: &Visitor,
    record: &AgentRecord,
    policy: Option<&Policy>,
) -> Result<Option<(i64, i64, String)>, Error> {
    let (Some(policy), None) = (policy, record.target_revision) else { return Ok(None) };
    let active = fleet.rollouts().active_among(&visitor.context.grant()?, &[policy]).await?;
    let Some(rollout) = active.get(&policy.id) else { return Ok(None) };
    let wanted = Rollout::wanted_revision(Some(rollout), record, policy.revision);
    Ok((wanted < policy.revision).then(|| (wanted, policy.revision, rollout.id.to_string())))
}

/// Returns the key with which the agent enrolled.
async fn key(fleet: &Fleet, visitor: &Visitor, record: &AgentRecord) -> Option<KeyOfAgent> {
    let id = record.enrollment_key_id.as_ref()?.to_string();
    let found = names::key(fleet, visitor, &id).await;
    let is_readable = found.is_some() && visitor.lacks(PrivilegeName::EnrollmentRead).is_empty();
    Some(KeyOfAgent { name: found.unwrap_or_else(|| id.clone()), is_readable, id })
}

/// Returns the other agents of the host, the latest first.
async fn others(fleet: &Fleet, visitor: &Visitor, agent: &AgentRecord) -> Result<Vec<Other>, Error> {
    let Some(host) = &agent.host_id else { return Ok(Vec::new()) };
    let found = fleet.agents().host(&visitor.context.grant()?, host.as_str()).await?;
    let now = fleet.now();
    let others = found.agents.into_iter().rev().map(|view| view.details.record).filter(|one| one.id != agent.id);
    let other = |record: AgentRecord| Other {
        id: record.id.to_string(),
        family: record.family.program(),
        badge: Badge(record.status),
        enrolled: Moment::new(record.enrolled_at, now),
        version: record.agent_version,
    };
    Ok(others.map(other).collect())
}

fn content(
    visitor: &Visitor,
    view: AgentView,
    policy: Option<&Policy>,
    actions: Vec<ActionRow>,
    surveyed: &BTreeMap<Surveyed, Eligible>,
    now: Timestamp,
) -> AgentPage {
    let record = view.details.record;
    let documents = view.details.documents;
    let policy = record.policy_id.as_ref().map(|id| PolicyOfAgent {
        id: id.to_string(),
        name: policy.map_or_else(|| id.to_string(), |policy| policy.name.clone()),
        is_readable: policy.is_some(),
        target: record.target_revision.or(policy.map(|policy| policy.revision)),
        later: None,
        running: record.policy_revision,
        since: Moment::of(record.policy_revision_at, now),
    });
    let why_not = |act: Act| visitor.needs(act.privilege()).or_else(|| ineligible(act, record.family, surveyed));
    let acts = Act::ALL.map(|act| (act, why_not(act)));
    AgentPage {
        frame: Frame::new(visitor, name_of(&record), TAB),
        badge: Badge(record.status),
        since: Moment::new(record.status_since, now),
        message: if record.active { Long::of(&record.health.message) } else { Long::default() },
        connected: view.connected,
        facts: facts(&record, documents.local_metadata.as_deref()),
        times: vec![
            ("Enrolled", Some(Moment::new(record.enrolled_at, now))),
            ("Last check-in", Moment::of(view.last_checkin, now)),
            ("Unenrolled", Moment::of(record.unenrolled_at, now)),
        ],
        departure: departure(&record),
        policy,
        failure: record.policy_failure.map(|failure| format!("revision {}: {}", failure.revision, failure.reason)),
        components: components(documents.components.as_deref()),
        actions,
        others: Vec::new(),
        key: None,
        host: record.host_id.as_ref().map(ToString::to_string).unwrap_or_default(),
        limits: limits(&acts),
        acts: acts.into(),
        no_response: super::respond::missing_privileges(&visitor.context),
        cli: cli(visitor, &format!("agent show {}", shell::argument(record.id.as_str()))),
        api: curl(visitor, "GET", &format!("/api/fleet/agents/{}", record.id), ""),
        tags: record.tags,
        id: record.id.to_string(),
    }
}

/// Returns why an act is not possible on an agent.
fn ineligible(act: Act, family: Family, surveyed: &BTreeMap<Surveyed, Eligible>) -> Option<String> {
    if act.needs_agent() && !family.takes_actions() {
        return Some(format!("{} does not support this.", family.program()));
    }
    // Those with a field that overrides the reason are possible.
    let eligible = act.surveyed().filter(|_| !act.fields().contains(&"force")).and_then(|one| surveyed.get(&one))?;
    let reason = eligible.reasons.keys().next().filter(|_| eligible.agents == 0)?;
    Some(format!("{}.", sentence(reason)))
}

/// Returns the acts that are disabled for the same reason: their names, and the reason.
fn limits(acts: &[(Act, Option<String>)]) -> Vec<(String, String)> {
    let mut limits: Vec<(String, String)> = Vec::new();
    for (act, why) in acts.iter().filter_map(|(act, why)| Some((act, why.as_ref()?))) {
        match limits.iter_mut().find(|(_, reason)| reason == why) {
            Some((names, _)) => *names += &format!(", {}", act.title()),
            None => limits.push((act.title().to_owned(), why.clone())),
        }
    }
    limits
}

fn facts(record: &AgentRecord, metadata: Option<&str>) -> Vec<(&'static str, String)> {
    let upgrade = record.upgrade.open.as_ref().map(|open| format!("to {}, in progress", open.version));
    vec![
        ("Host name", record.hostname.clone()),
        ("Operating system", os_name(metadata)),
        ("Agent version", record.agent_version.clone()),
        ("Architecture", architecture(metadata)),
        ("Runs as", runs_as(metadata).to_owned()),
        ("Log level", log_level(metadata)),
        ("Upgrade", upgrade.unwrap_or_default()),
        ("Program", record.family.program().to_owned()),
        ("Address", record.last_address.clone()),
        ("Address at enrollment", record.first_address.clone()),
        ("Server", server(record)),
        ("Unenrolled because", record.unenrolled_reason.clone().unwrap_or_default()),
    ]
}

/// Returns the id of the server at which the agent checks in; empty if the fleet has one only.
fn server(record: &AgentRecord) -> String {
    record.node.as_ref().map(ToString::to_string).filter(|id| id != ONLY_SERVER).unwrap_or_default()
}

/// Says that the agent left, and who removed it if the report says so.
fn departure(record: &AgentRecord) -> Option<String> {
    let report = record.audit?;
    let mut text = format!("Reported as {} at {}", report.reason.as_str(), report.at.to_rfc3339_seconds());
    if let Some(departure) = record.departure.as_deref() {
        text += &format!(", by {} (uid {}) with {}", departure.user, departure.uid, departure.process);
        for (what, value) in [("reason", &departure.why), ("now at", &departure.new_url)] {
            text += &value.as_ref().map(|value| format!("; {what}: {value}")).unwrap_or_default();
        }
    }
    Some(text + ".")
}
