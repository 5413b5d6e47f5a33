//! `/hosts`: the machines that agents run on.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use muster_fleet::Fleet;
use muster_fleet::agent_views::AgentView;
use muster_fleet::host_views::HostView;
use muster_fleet::transfers::{HostTransfer, HostsToMove};
use muster_protocol::management::host::{
    DeletedHost, FailingQuery, Host, HostAgent, ListHosts, TransferHosts, TransferRefusal, TransferredHost,
    TransferredHosts,
};
use muster_protocol::management::{Empty, Item, Items};

use super::answer::{Answer, item, page_with_next};
use super::body::Body;
use super::convert::{time, times};
use super::cursor;
use super::endpoints::Endpoint;
use super::entry::Caller;
use super::host_checks::answered;
use super::inventory;
use super::kql::agents as kql;
use super::query::{Paging, Query};
use super::software::installed;
use muster_core::Error;
use muster_core::authorization::PrivilegeName as Name;
use muster_core::fleetd::inventory::Inventory;
use muster_core::fleetd::schedule::QueryFailure;
use muster_store::query::{HostRows, Listed};

/// Maximum bytes of the body of a transfer: the maximum number of ids fits, at their maximum length.
const MAX_BODY: usize = 512 << 10;

/// Endpoints for hosts.
pub fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::get("/hosts", list).about("List hosts with their agents").needs(&[Name::AgentsRead]),
        Endpoint::get("/hosts/{id}", get)
            .about("Get a host, with what its agents report, its software, disks, users and certificates")
            .needs(&[Name::AgentsRead]),
        Endpoint::post("/hosts/{id}/refetch", refetch)
            .about("Make osquery on a host report its details and answer the host checks now")
            .needs(&[Name::DiagnosticsRequest]),
        Endpoint::delete("/hosts/{id}", delete)
            .about("Delete a host and its agents, and reject their keys")
            .needs(&[Name::AgentsPurge]),
        Endpoint::post("/hosts/_transfer", transfer)
            .about("Transfer hosts of fleetd to another space, which requires the privilege `enrollment.create` there")
            .needs(&[Name::AgentsPurge])
            .taking(MAX_BODY),
    ]
}

async fn list(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    Query(query): Query<ListHosts>,
) -> Answer<Items<Host>> {
    let paging = Paging::from_one(query.page, query.per_page)?;
    let filter = kql::compile(query.kuery.as_deref().unwrap_or_default(), fleet.now())?.filter;
    let rows = match cursor::host(query.search_after.as_deref(), query.page)? {
        Some(after) => HostRows::After(after, paging.per_page),
        None => HostRows::Page(paging.rows()),
    };
    let Listed { items, total, unreadable } = fleet.agents().hosts(&context.grant()?, &filter, &rows).await?;
    // A page that is not full is the last one and has no cursor.
    let is_full = items.len() == paging.per_page as usize;
    let next = items.last().filter(|_| is_full).map(|last| cursor::behind_host(&last.host));
    let items = items.into_iter().map(|view| host(view, false)).collect();
    Ok(page_with_next(Listed { items, total, unreadable }, &paging, next))
}

async fn get(State(fleet): State<Arc<Fleet>>, Caller(context): Caller, Path(id): Path<String>) -> Answer<Item<Host>> {
    let view = fleet.agents().host(&context.grant()?, &id).await?;
    Ok(item(host(view, true)))
}

async fn refetch(State(fleet): State<Arc<Fleet>>, Caller(context): Caller, Path(id): Path<String>) -> Answer<Empty> {
    fleet.agents().refetch_host(&context, &id).await?;
    Ok(Json(Empty {}))
}

async fn delete(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    Path(id): Path<String>,
) -> Answer<DeletedHost> {
    Ok(Json(DeletedHost { agents: fleet.agents().delete_host(&context, &id).await? }))
}

async fn transfer(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    Body(body): Body<TransferHosts>,
) -> Answer<TransferredHosts> {
    let hosts = match body.kuery.as_deref().map(str::trim) {
        None if !body.hosts.is_empty() => HostsToMove::Named(body.hosts),
        // An empty filter, such as an unset variable of a script, must not move a whole space.
        Some(kuery) if !kuery.is_empty() && body.hosts.is_empty() => {
            HostsToMove::Matching(kql::compile(kuery, fleet.now())?.filter)
        }
        Some(kuery) if !kuery.is_empty() => {
            return Err(Error::invalid("hosts", "give either hosts or kuery, not both").into());
        }
        _ => return Err(Error::invalid("hosts", "either hosts or kuery is required").into()),
    };
    let done = fleet.transfers().transfer(&context, &hosts, &body.to_space).await?;
    let moved = done.iter().filter(|host| host.outcome.is_ok()).count() as u64;
    let refused = done.len() as u64 - moved;
    Ok(Json(TransferredHosts { moved, refused, items: done.into_iter().map(transferred).collect() }))
}

fn transferred(done: HostTransfer) -> TransferredHost {
    let (id, hostname) = (done.host.to_string(), done.hostname);
    match done.outcome {
        Ok(moved) => TransferredHost {
            moved: true,
            new_id: moved.host.map(|host| host.to_string()),
            agents: moved.agents,
            disk_key: moved.has_disk_key,
            id,
            hostname,
            refusal: None,
        },
        Err(refusal) => {
            let (code, remedy) = (refusal.code().into(), refusal.remedy().into());
            let refusal = Some(TransferRefusal { code, message: refusal.to_string(), remedy });
            TransferredHost { id, hostname, refusal, ..TransferredHost::default() }
        }
    }
}

fn host(view: HostView, with_metadata: bool) -> Host {
    let (hostname, os, last_seen, denylisted_queries) =
        (view.hostname(), view.os(), view.last_seen(), view.denylisted());
    let (hardware_uuid, serial, duplicate_hosts) = (view.hardware_uuid(), view.serial(), view.duplicates());
    let HostView { host, agents, checks, labels, software, inventory, failing, failures } = view;
    let Inventory { system, users, certificates } = inventory;
    Host {
        hostname,
        os,
        last_seen: times(last_seen),
        id: host.id.to_string(),
        machine_id: host.machine_id,
        hardware_uuid,
        serial,
        duplicate_hosts,
        created_at: time(host.created_at),
        failing_checks: failing,
        denylisted_queries,
        failing_queries: failures.into_iter().filter_map(failing_query).collect(),
        checks: checks.into_iter().map(answered).collect(),
        labels,
        software: software.software.into_iter().map(installed).collect(),
        software_left_out: (software.left_out > 0).then_some(software.left_out),
        booted_at: times(system.booted_at),
        disks: system.disks.into_iter().map(inventory::disk).collect(),
        users: users.items.into_iter().map(inventory::user).collect(),
        has_more_users: users.is_cut,
        certificates: certificates.items.into_iter().map(inventory::certificate).collect(),
        has_more_certificates: certificates.is_cut,
        agents: agents.into_iter().map(|agent| agent_of(agent, with_metadata)).collect(),
    }
}

fn failing_query(failure: QueryFailure) -> Option<FailingQuery> {
    Some(FailingQuery { name: failure.name, error: failure.error?, since: time(failure.since) })
}

fn agent_of(view: AgentView, with_metadata: bool) -> HostAgent {
    let record = view.details.record;
    let metadata = view.details.documents.local_metadata.filter(|_| with_metadata);
    HostAgent {
        id: record.id.to_string(),
        family: record.family.as_str().into(),
        status: record.status.as_str().into(),
        version: record.agent_version,
        last_checkin: times(view.last_checkin),
        local_metadata: metadata.and_then(|raw| serde_json::from_str(&raw).ok()),
    }
}
