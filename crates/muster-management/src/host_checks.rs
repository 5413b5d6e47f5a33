//! `/host_checks`: yes-or-no questions to the hosts with osquery.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use muster_core::authorization::PrivilegeName as Name;
use muster_core::fleetd::check_history;
use muster_core::fleetd::checks::Check;
use muster_fleet::Fleet;
use muster_fleet::host_checks::{self as records, CheckDraft, CountedCheck};
use muster_protocol::management::host_check::{
    AnsweredCheck, CheckChange, CheckDay, CheckResponse, CheckedHost, HostCheck, ListCheckedHosts, SaveHostCheck,
};
use muster_protocol::management::{Empty, Item, Items};
use muster_store::query::{CheckCounts, CheckedHosts};

use super::answer::{Answer, every, item, page};
use super::body::Body;
use super::convert::time;
use super::endpoints::Endpoint;
use super::entry::Caller;
use super::query::{IfMatch, Paging, Query};

/// Endpoints for host checks.
pub fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::get("/host_checks", list).about("List host checks").needs(&[Name::OsqueryRead]),
        Endpoint::post("/host_checks", create).about("Create a host check").needs(&[Name::OsqueryWrite]),
        Endpoint::get("/host_checks/{id}", get).about("Get a host check").needs(&[Name::OsqueryRead]),
        Endpoint::put("/host_checks/{id}", update).about("Update a host check").needs(&[Name::OsqueryWrite]),
        Endpoint::delete("/host_checks/{id}", delete).about("Delete a host check").needs(&[Name::OsqueryWrite]),
        Endpoint::get("/host_checks/{id}/hosts", hosts)
            .about("List the hosts that fail or pass a host check, or on which its query does not run")
            .needs(&[Name::OsqueryRead]),
        Endpoint::get("/host_checks/{id}/days", days)
            .about("List how many hosts passed and failed a host check on each of the last 90 days")
            .needs(&[Name::OsqueryRead]),
    ]
}

fn counted(counted: CountedCheck) -> HostCheck {
    let CountedCheck { check, counts } = counted;
    let CheckCounts { passing, failing, errors, error } = counts;
    HostCheck { passing, failing, errors, error: Some(error).filter(|error| !error.is_empty()), ..of(check) }
}

fn of(check: Check) -> HostCheck {
    let Check { id, version, name, description, query, resolution, platforms, labels } = check;
    let id = id.to_string();
    HostCheck { id, version, name, description, query, resolution, platforms, labels, ..HostCheck::default() }
}

/// Converts a check with the answer of a host.
pub fn answered(one: records::AnsweredCheck) -> AnsweredCheck {
    let records::AnsweredCheck { check, result, history } = one;
    let change = |one: check_history::CheckChange| CheckChange { passes: one.passes, since: time(one.since) };
    AnsweredCheck {
        id: check.id.to_string(),
        name: check.name,
        resolution: check.resolution,
        passes: result.as_ref().and_then(|result| result.passes),
        since: result.as_ref().map(|result| time(result.since)),
        error: result.map(|result| result.error).filter(|error| !error.is_empty()),
        history: history.into_iter().map(change).collect(),
    }
}

fn draft(body: SaveHostCheck) -> CheckDraft {
    let SaveHostCheck { name, description, query, resolution, platforms, labels } = body;
    CheckDraft { name, description, query, resolution, platforms, labels }
}

async fn list(State(fleet): State<Arc<Fleet>>, Caller(context): Caller) -> Answer<Items<HostCheck>> {
    let found = fleet.host_checks().list(&context.grant()?).await?;
    Ok(every(found.into_iter().map(counted).collect()))
}

async fn get(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    Path(id): Path<String>,
) -> Answer<Item<HostCheck>> {
    Ok(item(counted(fleet.host_checks().find(&context.grant()?, &id).await?)))
}

async fn create(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    Body(body): Body<SaveHostCheck>,
) -> Answer<Item<HostCheck>> {
    Ok(item(of(fleet.host_checks().create(&context.grant()?, draft(body)).await?)))
}

async fn update(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    Path(id): Path<String>,
    version: IfMatch,
    Body(body): Body<SaveHostCheck>,
) -> Answer<Item<HostCheck>> {
    let expected = version.number()?;
    Ok(item(of(fleet.host_checks().update(&context.grant()?, &id, draft(body), expected).await?)))
}

async fn delete(State(fleet): State<Arc<Fleet>>, Caller(context): Caller, Path(id): Path<String>) -> Answer<Empty> {
    fleet.host_checks().delete(&context.grant()?, &id).await?;
    Ok(Json(Empty {}))
}

async fn hosts(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    Path(id): Path<String>,
    Query(query): Query<ListCheckedHosts>,
) -> Answer<Items<CheckedHost>> {
    let paging = Paging::from_one(query.page, query.per_page)?;
    let which = match query.response.unwrap_or_default() {
        CheckResponse::Passing => CheckedHosts::Passing,
        CheckResponse::Failing => CheckedHosts::Failing,
        CheckResponse::Error => CheckedHosts::Errors,
    };
    let (check, found) = fleet.host_checks().hosts(&context.grant()?, &id, which, paging.rows()).await?;
    let host = |host: muster_store::query::CheckedHost| CheckedHost {
        id: host.host.map(|id| id.to_string()),
        hostname: host.hostname,
        agent_id: host.agent.to_string(),
        since: time(host.since),
        error: Some(host.error).filter(|error| !error.is_empty()),
    };
    Ok(page(found.into_iter().map(host).collect(), check.number(which), &paging))
}

async fn days(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    Path(id): Path<String>,
) -> Answer<Items<CheckDay>> {
    let (_, days) = fleet.host_checks().days(&context.grant()?, &id).await?;
    let day = |one: check_history::CheckDay| CheckDay { day: one.date(), passing: one.passing, failing: one.failing };
    Ok(every(days.into_iter().map(day).collect()))
}
