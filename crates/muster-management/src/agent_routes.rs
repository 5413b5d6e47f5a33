//! `/agents` and `/agent_status`: lists, details, tags and deletion of agents (MG §1.2).

use std::sync::Arc;

use axum::Json;
use axum::extract::{FromRequestParts, Path, State};
use axum::http::request::Parts;
use muster_core::Error;
use muster_core::agent::AgentRecord;
use muster_core::authorization::{AgentsForceUnenroll, AgentsRead};
use muster_core::id::PolicyId;
use muster_core::status::Status;
use muster_protocol::management::Item;
use muster_protocol::management::agent::{
    Agent, AgentStatus, Agents, AgentsOfActions, ListAgents, NamedAgent, NamedAgents, UpdateAgent, Words,
};
use muster_protocol::management::enrollment_key::Deleted;
use muster_protocol::management::envelope::Whole;
use muster_store::query::{AgentCondition, AgentFilter, AgentSort};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::answer::{Answer, item, whole};
use super::body::Body;
use super::endpoints::Endpoint;
use super::entry::Caller;
use super::kql::agents as kql;
use super::openapi::{Extracts, Operation};
use super::query::{Paging, Query};
use super::{convert, cursor};
use muster_core::authorization::PrivilegeName as Name;
use muster_fleet::Fleet;
use muster_fleet::agent_views::{AgentListQuery, Rows};
use muster_fleet::force::Force;
use muster_fleet::membership::AgentNote;
use muster_fleet::selection::Selected;

/// Endpoints for lists, details, tags and status counts of agents (MG §1.2).
pub fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::get("/agents", list).about("List agents").needs(&[Name::AgentsRead]),
        Endpoint::post("/agents", of_actions).about("List the target agents of actions").needs(&[Name::AgentsRead]),
        Endpoint::post("/agents/_bulk_get", bulk_get).about("Get agents by id or host name").needs(&[Name::AgentsRead]),
        Endpoint::get("/agents/tags", tags).about("List the tags of agents").needs(&[Name::AgentsRead]),
        Endpoint::get("/agents/available_versions", available_versions)
            .about("List the versions that agents can be upgraded to")
            .needs(&[Name::AgentsRead]),
        Endpoint::get("/agents/{id}", get).about("Get an agent").needs(&[Name::AgentsRead]),
        Endpoint::put("/agents/{id}", update)
            .about("Update the tags and metadata of an agent")
            .needs(&[Name::AgentsTag, Name::AgentsRead]),
        Endpoint::delete("/agents/{id}", delete)
            .about("Unenroll an agent immediately, and keep its record")
            .needs(&[Name::AgentsForceUnenroll]),
        Endpoint::get("/agent_status", status).about("Count agents by status").needs(&[Name::AgentsRead]),
    ]
}

// Kibana's names of fields are accepted beside the short ones.
fn sort_field(name: Option<&str>) -> Result<AgentSort, Error> {
    // Kibana's pages sort by the untokenized field, which has the same values here.
    match name.map(|name| name.strip_suffix(".keyword").unwrap_or(name)) {
        None | Some("enrolled_at") => Ok(AgentSort::EnrolledAt),
        Some("last_checkin") => Ok(AgentSort::LastCheckin),
        Some("hostname" | "local_metadata.host.hostname") => Ok(AgentSort::Hostname),
        Some("status") => Ok(AgentSort::Status),
        Some("policy_id") => Ok(AgentSort::Policy),
        Some("version" | "agent.version" | "local_metadata.elastic.agent.version") => Ok(AgentSort::Version),
        Some(_) => Err(Error::invalid("sortField", format!("cannot sort agents by {:?}", name.unwrap_or_default()))
            .remedy("use enrolled_at, last_checkin, hostname, status, policy_id or version")),
    }
}

fn descending(order: Option<&str>) -> Result<bool, Error> {
    match order {
        // The default is the newest first, as in Kibana.
        None | Some("desc") => Ok(true),
        Some("asc") => Ok(false),
        Some(_) => Err(Error::invalid("sortOrder", "must be asc or desc")),
    }
}

async fn list(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    Query(query): Query<ListAgents>,
) -> Answer<Agents> {
    let paging = Paging::from_one(query.page, query.per_page)?;
    let sort = sort_field(query.sort_field.as_deref())?;
    let pit = cursor::point_in_time(&query, fleet.now())?;
    let mut filter =
        kql::visible(query.kuery.as_deref().unwrap_or_default(), query.show_inactive == Some(true), fleet.now())?;
    // A point in time hides agents that enroll between two pages, which would shift the rows.
    filter.conditions.extend(pit.map(AgentCondition::EnrolledBy));
    let rows = match cursor::read(&query, sort)? {
        Some(cursor) => Rows::After(cursor, paging.per_page),
        None => Rows::Page(paging.rows()),
    };
    let question = AgentListQuery { filter, sort, descending: descending(query.sort_order.as_deref())?, rows };
    let grant = context.grant::<AgentsRead>()?;
    let found = fleet.agents().list(&grant, &question).await?;
    let status_summary = if query.get_status_summary == Some(true) {
        // Counted with the same filter as the list, so that the numbers fit the rows.
        Some(summary(&fleet.agents().count(&grant, &question.filter).await?))
    } else {
        None
    };
    // A page that is not full is the last one and has no cursor.
    let is_full = found.items.len() == paging.per_page as usize;
    let last = found.items.last().filter(|_| is_full).map(|view| sort.cursor(&view.details.record));
    Ok(Json(Agents {
        items: found.items.into_iter().map(convert::agent_row).collect(),
        total: found.total,
        unreadable: found.unreadable,
        page: paging.page,
        per_page: paging.per_page,
        status_summary,
        pit: pit.map(cursor::pit),
        next_search_after: last.map(|last| cursor::write(&last)),
    }))
}

/// Looks up agents by id or host name in one read, so that scripts don't list all agents to find a few.
async fn bulk_get(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    Body(body): Body<NamedAgents>,
) -> Answer<Whole<NamedAgent>> {
    let found = fleet.agents().named(&context.grant()?, &body.ids, &body.hostnames).await?;
    let named = |record: AgentRecord| NamedAgent {
        id: record.id.to_string(),
        hostname: record.hostname,
        status: record.status.as_str().to_owned(),
        active: record.active,
    };
    Ok(whole(found.into_iter().map(named).collect()))
}

fn summary(counts: &[(Status, u64)]) -> Map<String, Value> {
    let of = |status: Status| counts.iter().find(|(counted, _)| *counted == status).map_or(0, |(_, number)| *number);
    // Statuses without agents are listed with 0, so that clients need no defaults.
    Status::ALL.into_iter().map(|status| (status.as_str().to_owned(), of(status).into())).collect()
}

async fn of_actions(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    Body(body): Body<AgentsOfActions>,
) -> Answer<Words> {
    // A POST that only reads: many ids do not fit into a query string.
    let agents = fleet.actions().agents_of(&context, &body.action_ids).await?;
    Ok(whole(agents.iter().map(ToString::to_string).collect()))
}

async fn tags(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    Query(query): Query<ListAgents>,
) -> Answer<Words> {
    let kuery = query.kuery.unwrap_or_default();
    let filter = kql::visible(&kuery, query.show_inactive == Some(true), fleet.now())?;
    Ok(whole(fleet.agents().tags_in_use(&context.grant()?, &filter).await?))
}

async fn available_versions(State(fleet): State<Arc<Fleet>>, Caller(context): Caller) -> Answer<Words> {
    Ok(whole(fleet.server_status().available_versions(&context.grant()?).await?))
}

async fn get(State(fleet): State<Arc<Fleet>>, Caller(context): Caller, Path(id): Path<String>) -> Answer<Item<Agent>> {
    let agent = fleet.agents().find::<AgentsRead>(&context, &id).await?;
    Ok(item(convert::agent(fleet.agents().show(agent).await?)))
}

async fn update(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    Path(id): Path<String>,
    Body(body): Body<UpdateAgent>,
) -> Answer<Item<Agent>> {
    let note = AgentNote { tags: body.tags, user_metadata: body.user_provided_metadata };
    let agents = fleet.agents();
    agents.note(&agents.find(&context, &id).await?, &note).await?;
    // Read again, because the service normalizes tags.
    let agent = agents.find::<AgentsRead>(&context, &id).await?;
    Ok(item(convert::agent(agents.show(agent).await?)))
}

/// Revokes the agent's keys. Kibana's clients expect that the record stays, with `active: false` (MG34); the record is
/// deleted by `POST /agents/bulk_delete`.
async fn delete(State(fleet): State<Arc<Fleet>>, Caller(context): Caller, Path(id): Path<String>) -> Answer<Deleted> {
    // An agent that is unenrolled already is what the caller wants.
    if fleet.agents().find::<AgentsForceUnenroll>(&context, &id).await?.active {
        let agent = fleet.agents().select::<AgentsForceUnenroll>(&context, &Selected::one(&id)?).await?;
        fleet.actions().force_unenroll(&agent, Force::No).await?;
    }
    Ok(Json(Deleted { action: "deleted".into() }))
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
struct StatusQuery {
    /// Only agents of this policy.
    policy_id: Option<String>,
    /// KQL.
    kuery: Option<String>,
}

/// Counts all matching agents. Unlike lists, inactive and unenrolled agents are included, in counts of their own.
async fn status(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    Query(query): Query<StatusQuery>,
    PolicyIds(policy_ids): PolicyIds,
) -> Answer<AgentStatus> {
    let mut filter: AgentFilter = kql::compile(query.kuery.as_deref().unwrap_or_default(), fleet.now())?.filter;
    // `policyId` is the older parameter, `policyIds` the newer one. Both may be present.
    let policies: Vec<String> = query.policy_id.into_iter().chain(policy_ids).collect();
    if !policies.is_empty() {
        filter.conditions.push(AgentCondition::Policies(policies.into_iter().map(PolicyId::trusted).collect()));
    }
    let results = convert::status_results(&fleet.agents().count(&context.grant()?, &filter).await?);
    Ok(Json(AgentStatus { results }))
}

/// The parameter `policyIds`. The query extractor accepts each key only once.
struct PolicyIds(Vec<String>);

impl<S: Send + Sync> FromRequestParts<S> for PolicyIds {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        Ok(Self(policy_ids(parts.uri.query())))
    }
}

impl Extracts for PolicyIds {
    fn describe(to: &mut Operation<'_>) {
        let schema = json!({"type": "array", "items": {"type": "string"}});
        to.parameter("query", "policyIds", "Only agents of these policies. May be repeated.", &schema);
    }
}

/// Parses `policyIds=a&policyIds=b`, also spelled `policyIds[]=…`.
fn policy_ids(raw: Option<&str>) -> Vec<String> {
    let pairs = raw.unwrap_or_default().split('&').filter_map(|pair| pair.split_once('='));
    let decode = |text: &str| percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned();
    pairs
        .map(|(key, value)| (decode(key), decode(value)))
        .filter(|(key, value)| matches!(key.as_str(), "policyIds" | "policyIds[]") && !value.is_empty())
        .map(|(_, value)| value)
        .collect()
}
