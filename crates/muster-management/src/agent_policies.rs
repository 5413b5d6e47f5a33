//! `/agent_policies` (MG §1.3), extended by `config`, `secrets`, revisions, differences and rollback.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use muster_core::Error;
use muster_core::authorization::{Grant, OpContext, PoliciesRead};
use muster_core::policy::{DEFAULT_INACTIVITY_TIMEOUT, Policy};
use muster_protocol::management::agent_policy::{
    AgentPolicy, AppliedPolicy, ApplyPolicy, AutoUpgradeStatus, AutoUpgradeVersion, BulkGet, CopyAgentPolicy,
    DeleteAgentPolicy, DeletedAgentPolicy, Diff, ListAgentPolicies, Revision, RevisionDetails, Rollback,
    SaveAgentPolicy,
};
use muster_protocol::management::envelope::Whole;
use muster_protocol::management::{Item, Items};
use muster_store::query::{Listed, Page, Readable};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use super::answer::{Answer, item, page_with_next, whole};
use super::body::Body;
use super::convert::time;
use super::cursor;
use super::endpoints::Endpoint;
use super::entry::Caller;
use super::error::ApiResult;
use super::kql::rows::{Table, select};
use super::policy_convert::{AgentCounts, Detail, application, applied, difference, draft, policy, saved};
use super::query::{IfMatch, Paging, Query};
use muster_core::authorization::PrivilegeName as Name;
use muster_fleet::Fleet;
use muster_fleet::auto_upgrades::VersionStatus;
use muster_fleet::policies::{Expected, PolicyDraft};

/// Maximum rows on a page with agent counts or full policies (MG §1.3).
const MOST_FULL_ROWS: u32 = 100;
/// Content type of downloaded policies.
const YAML: &str = "text/x-yaml";

/// Endpoints for policies, their revisions and compiled forms (MG §1.3).
pub fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::get("/agent_policies", list).about("List policies").needs(&[Name::PoliciesRead]),
        Endpoint::post("/agent_policies", create).about("Create a policy").needs(&[Name::PoliciesCreate]),
        Endpoint::post("/agent_policies/_apply", apply)
            .about("Apply a policy file")
            .needs(&[Name::PoliciesUpdate, Name::PoliciesRead]),
        Endpoint::post("/agent_policies/_bulk_get", bulk_get)
            .about("Get policies by id or name")
            .needs(&[Name::PoliciesRead]),
        Endpoint::post("/agent_policies/delete", delete).about("Delete a policy").needs(&[Name::PoliciesDelete]),
        Endpoint::get("/agent_policies/{id}", get).about("Get a policy").needs(&[Name::PoliciesRead]),
        Endpoint::put("/agent_policies/{id}", update)
            .about("Update a policy")
            .needs(&[Name::PoliciesUpdate, Name::PoliciesRead]),
        Endpoint::post("/agent_policies/{id}/copy", copy).about("Copy a policy").needs(&[Name::PoliciesCreate]),
        Endpoint::get("/agent_policies/{id}/full", full).about("Get a compiled policy").needs(&[Name::PoliciesRead]),
        Endpoint::get("/agent_policies/{id}/download", download)
            .about("Download a policy as YAML")
            .returning(YAML)
            .needs(&[Name::PoliciesRead]),
        Endpoint::get("/agent_policies/{id}/auto_upgrade_agents_status", auto_upgrade_status)
            .about("Get the progress of automatic upgrades")
            .needs(&[Name::PoliciesRead, Name::AgentsRead]),
        Endpoint::get("/agent_policies/{id}/revisions", revisions)
            .about("List the revisions of a policy")
            .needs(&[Name::PoliciesRead]),
        Endpoint::get("/agent_policies/{id}/revisions/{revision}", revision)
            .about("Get a revision of a policy")
            .needs(&[Name::PoliciesRead]),
        Endpoint::get("/agent_policies/{id}/diff", diff)
            .about("Compare two revisions of a policy")
            .needs(&[Name::PoliciesRead]),
        Endpoint::post("/agent_policies/{id}/rollback", roll_back)
            .about("Roll a policy back to an older revision")
            .needs(&[Name::PoliciesUpdate, Name::PoliciesRead]),
    ]
}

/// Fields of a policy that a query may use.
static TABLE: Table<Policy> = Table {
    prefixes: &["ingest-agent-policies", "fleet-agent-policies"],
    fields: &[
        ("id", |policy| vec![policy.id.to_string()]),
        ("name", |policy| vec![policy.name.clone()]),
        ("namespace", |policy| vec![policy.namespace.clone()]),
        ("description", |policy| vec![policy.description.clone()]),
        ("is_managed", |policy| vec![policy.is_managed.to_string()]),
        ("is_default", |policy| vec![policy.is_default.to_string()]),
    ],
    text: &["name", "description"],
};

async fn list(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    Query(query): Query<ListAgentPolicies>,
) -> Answer<Items<AgentPolicy>> {
    let detail = Detail::of(query.full);
    // Full policies contain their whole configuration, so pages of them are limited more strictly.
    let counted = detail == Detail::Full || query.with_agent_count == Some(true);
    let paging = Paging::from_one(query.page, query.per_page)?;
    if counted && paging.per_page > MOST_FULL_ROWS {
        let reason = format!("at most {MOST_FULL_ROWS} with full or withAgentCount");
        return Err(Error::invalid("perPage", reason).into());
    }
    let after = cursor::name(query.search_after.as_deref(), query.page)?;
    let kuery = query.kuery.as_deref().filter(|kuery| !kuery.trim().is_empty());
    let grant = context.grant()?;
    let found = match (kuery, &after) {
        (None, None) => fleet.policies().list(&grant, paging.rows()).await?,
        (None, Some(name)) => {
            let found = fleet.policies().list_after(&grant, name, paging.per_page).await?;
            // A page of no rows, because only the total is needed.
            found.of(fleet.policies().list(&grant, Page { offset: 0, limit: 0 }).await?.total)
        }
        (Some(kuery), after) => {
            let Readable { mut items, unreadable } = every_match(&fleet, &grant, kuery).await?;
            let total = items.len() as u64;
            // Sorted as in the store: by name without case, then by name, so that the cursor is unique.
            let key = |name: &str| (name.to_ascii_lowercase(), name.to_owned());
            if let Some(name) = after {
                items.retain(|policy| key(&policy.name) > key(name));
            }
            // All rows were read, so every page would repeat the number of unreadable ones. Only the first page reports
            // it.
            let unreadable = if after.is_none() { unreadable } else { 0 };
            Listed { total, items: paging.cut(items), unreadable }
        }
    };
    // A page that is not full is the last one and has no cursor.
    let is_full = found.items.len() == paging.per_page as usize;
    let next = found.items.last().filter(|_| is_full).map(|last| json!([last.name]).to_string());
    // Counting reads every agent's policy, so it happens only on request.
    let counts = if counted { fleet.policies().agent_counts(&grant).await?.into() } else { AgentCounts::default() };
    let items = found.items.into_iter().map(|one| policy(one, &counts, detail)).collect();
    Ok(page_with_next(Listed { items, total: found.total, unreadable: found.unreadable }, &paging, next))
}

/// Reads all matching policies in batches.
async fn every_match(fleet: &Fleet, grant: &Grant<PoliciesRead>, kuery: &str) -> Result<Readable<Policy>, Error> {
    let mut found = Vec::new();
    let Listed { items: mut batch, mut unreadable, .. } =
        fleet.policies().list(grant, Page { offset: 0, limit: cursor::BATCH }).await?;
    // Reports an unknown field even if there are no policies to evaluate the query on.
    select(&TABLE, kuery, Vec::new()).await?;
    while let Some(last) = batch.last().map(|policy| policy.name.clone()) {
        found.append(&mut select(&TABLE, kuery, batch).await?);
        let next = fleet.policies().list_after(grant, &last, cursor::BATCH).await?;
        (batch, unreadable) = (next.items, unreadable + next.unreadable);
    }
    Ok(Readable { items: found, unreadable })
}

#[derive(Deserialize, JsonSchema)]
struct CreateQuery {
    /// Rejected if true: it needs the integration package `system`, and no package is installed.
    sys_monitoring: Option<bool>,
}

async fn create(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    Query(query): Query<CreateQuery>,
    Body(body): Body<SaveAgentPolicy>,
) -> Answer<Item<AgentPolicy>> {
    if query.sys_monitoring == Some(true) {
        // Ignoring it would leave agents that collect nothing, unnoticed.
        let reason = "needs the integration package `system`, and no package is installed";
        return Err(Error::invalid("sys_monitoring", reason).remedy("configure the inputs in `config`").into());
    }
    let wanted = PolicyDraft { protect: context.grant().ok(), ..draft(body)? };
    let made = fleet.policies().create(&context.grant()?, wanted).await?;
    Ok(item(saved(made, &AgentCounts::default())))
}

async fn apply(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    IfMatch(version): IfMatch,
    Body(body): Body<ApplyPolicy>,
) -> Answer<Item<AppliedPolicy>> {
    let done = fleet.policies().apply(&context, application(body, version)?).await?;
    let wave_agents = match &done.rollout {
        Some(rollout) => fleet.rollouts().preview(&context.grant()?, &done.saved.policy.id, &rollout.plan).await?,
        None => Vec::new(),
    };
    // Counted after the change, so that the response describes the policy as it is now.
    let counts = fleet.policies().agent_counts(&context.grant()?).await?.into();
    Ok(item(AppliedPolicy { wave_agents, ..applied(done, &counts) }))
}

async fn bulk_get(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    Body(body): Body<BulkGet>,
) -> Answer<Whole<AgentPolicy>> {
    let grant = context.grant()?;
    let counts = fleet.policies().agent_counts(&grant).await?.into();
    let (found, missing) = fleet.policies().named(&grant, &body.ids, &body.names).await?;
    // As in Kibana, one missing policy fails the request unless the caller asks to ignore it.
    match missing.first().filter(|_| body.ignore_missing != Some(true)) {
        Some(missing) => Err(Error::not_found("agent policy", missing).into()),
        None => Ok(whole(found.into_iter().map(|one| policy(one, &counts, Detail::of(body.full))).collect())),
    }
}

async fn get(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    Path(id): Path<String>,
) -> Answer<Item<AgentPolicy>> {
    let found = fleet.policies().find::<PoliciesRead>(&context, &id).await?.into_inner();
    let counts = fleet.policies().agent_counts(&context.grant()?).await?.into();
    Ok(item(policy(found, &counts, Detail::Full)))
}

async fn update(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    Path(id): Path<String>,
    IfMatch(version): IfMatch,
    Body(body): Body<SaveAgentPolicy>,
) -> Answer<Item<AgentPolicy>> {
    // Required in updates, as in Kibana: its absence shows that a client drops fields.
    if body.namespace.is_none() {
        return Err(Error::invalid("namespace", "is required").into());
    }
    if body.id.as_ref().is_some_and(|other| *other != id) {
        return Err(Error::invalid("id", "the id of a policy cannot be changed").into());
    }
    let before = fleet.policies().find(&context, &id).await?;
    let mut wanted = draft(body)?;
    // The only field that an update resets if it is left out (MG §13).
    wanted.inactivity_timeout.get_or_insert(DEFAULT_INACTIVITY_TIMEOUT.as_secs().cast_signed());
    // From `If-Match`: the update fails if someone else changed the policy since it was read.
    wanted.expected.version = version;
    wanted.protect = context.grant().ok();
    let changed = fleet.policies().update(&before, wanted).await?;
    let counts = fleet.policies().agent_counts(&context.grant()?).await?.into();
    Ok(item(saved(changed, &counts)))
}

async fn copy(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    Path(id): Path<String>,
    Body(body): Body<CopyAgentPolicy>,
) -> Answer<Item<AgentPolicy>> {
    // The write privilege, because copying creates a policy.
    let from = fleet.policies().find(&context, &id).await?;
    let copied = fleet.policies().copy(&from, &body.name, body.description, context.grant().ok().as_ref()).await?;
    Ok(item(saved(copied, &AgentCounts::default())))
}

async fn delete(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    Body(body): Body<DeleteAgentPolicy>,
) -> Answer<DeletedAgentPolicy> {
    let found = fleet.policies().find(&context, &body.agent_policy_id).await?;
    let gone = fleet.policies().delete(&found, body.force.into()).await?;
    Ok(Json(DeletedAgentPolicy { id: gone.id.to_string(), name: gone.name }))
}

#[derive(Deserialize, JsonSchema)]
struct FullQuery {
    /// Revision, by default the newest.
    revision: Option<i64>,
    /// Whether to remove the parts that an unmanaged agent must not have.
    standalone: Option<bool>,
}

/// Returns the compiled policy. `standalone` removes the parts that an unmanaged agent must not have (MG107).
async fn compiled(fleet: &Fleet, context: &OpContext, id: &str, query: &FullQuery) -> Result<Value, Error> {
    let policy = fleet.policies().find::<PoliciesRead>(context, id).await?;
    // The stored compiled form, not a new compilation: it is what agents of that revision received.
    let revision = query.revision.unwrap_or(policy.revision);
    let mut compiled = fleet.policies().revision(&policy, revision).await?.compiled;
    if query.standalone == Some(true)
        && let Some(fields) = compiled.as_object_mut()
    {
        // A standalone agent has no server to resolve secrets, and no key to verify signatures with.
        fields.retain(|name, _| !matches!(name.as_str(), "fleet" | "signed" | "secret_references"));
        if let Some(agent) = fields.get_mut("agent").and_then(Value::as_object_mut) {
            agent.remove("protection");
        }
    }
    Ok(compiled)
}

async fn full(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    Path(id): Path<String>,
    Query(query): Query<FullQuery>,
) -> Answer<Item<Value>> {
    Ok(item(compiled(&fleet, &context, &id, &query).await?))
}

async fn download(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    Path(id): Path<String>,
    Query(query): Query<FullQuery>,
) -> ApiResult<Response> {
    let compiled = compiled(&fleet, &context, &id, &query).await?;
    // The document that agents get, in the form of a file that a standalone agent reads.
    let yaml = serde_saphyr::to_string(&compiled).map_err(Error::internal)?;
    let headers = [(CONTENT_TYPE, YAML), (CONTENT_DISPOSITION, "attachment; filename=\"elastic-agent.yml\"")];
    Ok((headers, yaml).into_response())
}

async fn auto_upgrade_status(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    Path(id): Path<String>,
) -> Answer<AutoUpgradeStatus> {
    let policy = fleet.policies().find::<PoliciesRead>(&context, &id).await?;
    let versions = fleet.auto_upgrades().status(&context.grant()?, &policy).await?;
    let total_agents = versions.iter().map(|(_, status)| status.agents).sum();
    let row = |(version, status): (String, VersionStatus)| AutoUpgradeVersion {
        version,
        agents: status.agents,
        failed_upgrade_agents: status.failed,
        in_progress_upgrade_agents: status.in_progress,
        failed_upgrade_action_ids: status.failed_actions.into_iter().collect(),
        in_progress_upgrade_action_ids: status.actions_in_progress.into_iter().collect(),
    };
    Ok(Json(AutoUpgradeStatus { current_versions: versions.into_iter().map(row).collect(), total_agents }))
}

async fn revisions(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    Path(id): Path<String>,
) -> Answer<Whole<Revision>> {
    let policy = fleet.policies().find::<PoliciesRead>(&context, &id).await?;
    let found = fleet.policies().revisions(&policy).await?;
    let row = |(revision, at, created_by)| Revision { revision, created_at: time(at), created_by };
    Ok(whole(found.into_iter().map(row).collect()))
}

async fn revision(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    Path((id, number)): Path<(String, String)>,
) -> Answer<Item<RevisionDetails>> {
    // An id that is not a number does not exist, like any other unknown revision.
    let number: i64 = number.parse().map_err(|_| Error::not_found("revision", &number))?;
    let policy = fleet.policies().find::<PoliciesRead>(&context, &id).await?;
    let found = fleet.policies().revision(&policy, number).await?;
    Ok(item(RevisionDetails {
        revision: found.revision,
        created_at: time(found.created_at),
        created_by: found.created_by,
        source: found.source,
        compiled: found.compiled,
    }))
}

#[derive(Deserialize, JsonSchema)]
struct DiffQuery {
    /// Older revision, by default the one before `to`.
    from: Option<i64>,
    /// Newer revision, by default the newest.
    to: Option<i64>,
}

/// Returns the differences between two revisions, by default between the newest and the one before.
async fn diff(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    Path(id): Path<String>,
    Query(query): Query<DiffQuery>,
) -> Answer<Item<Diff>> {
    let policy = fleet.policies().find::<PoliciesRead>(&context, &id).await?;
    let to = query.to.unwrap_or(policy.revision);
    // The first revision has none before it and is compared with itself, which yields no differences.
    let from = query.from.unwrap_or((to - 1).max(1));
    let changes = fleet.policies().diff(&policy, from, to).await?.into_iter().map(difference);
    Ok(item(Diff { from, to, changes: changes.collect() }))
}

async fn roll_back(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    Path(id): Path<String>,
    Body(body): Body<Rollback>,
) -> Answer<Item<AgentPolicy>> {
    let before = fleet.policies().find(&context, &id).await?;
    let (force, protect) = (body.force.into(), context.grant().ok());
    let rolled =
        fleet.policies().roll_back(&before, body.revision, force, &Expected::default(), protect.as_ref()).await?;
    let counts = fleet.policies().agent_counts(&context.grant()?).await?.into();
    Ok(item(saved(rolled, &counts)))
}
