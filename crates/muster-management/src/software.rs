//! `/software`: software on the hosts with osquery.

use std::sync::Arc;

use axum::extract::{Path, State};
use muster_core::Error;
use muster_core::authorization::PrivilegeName as Name;
use muster_core::fleetd::software::version::Conditions;
use muster_core::fleetd::software::{self as records, SoftwareId, Source};
use muster_fleet::Fleet;
use muster_fleet::software::Search;
use muster_protocol::management::software::{ListSoftware, ListSoftwareHosts, Software, SoftwareHost};
use muster_protocol::management::{Item, Items};
use muster_store::query::{FoundSoftware, Listed, SoftwareHost as HostRecord, SoftwareSearch};

use super::answer::{Answer, item, page_with_next};
use super::cursor;
use super::endpoints::Endpoint;
use super::entry::Caller;
use super::query::{Paging, Query};

/// Endpoints for software.
pub fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::get("/software", list)
            .about("List software on the hosts with osquery, with the numbers of hosts")
            .needs(&[Name::OsqueryRead]),
        Endpoint::get("/software/{id}", get).about("Get software").needs(&[Name::OsqueryRead]),
        Endpoint::get("/software/{id}/hosts", hosts)
            .about("List the hosts that have software")
            .needs(&[Name::OsqueryRead]),
    ]
}

/// Converts software of a host.
pub fn installed((id, software): (SoftwareId, records::Software)) -> Software {
    let records::Software { name, version, source } = software;
    Software { id: id.to_string(), name, version, source: source.as_str().to_owned(), hosts: None }
}

fn counted(found: FoundSoftware) -> Software {
    Software { hosts: Some(found.hosts), ..installed((found.id, found.software)) }
}

/// Reads a search. An empty parameter, as of a script's variable, must not search for everything.
fn search(query: ListSoftware) -> Result<(Search, Paging), Error> {
    let ListSoftware { page, per_page, name, version, source, search_after } = query;
    let after = cursor::software(search_after.as_deref(), page)?;
    let given = |field: &'static str, text: Option<String>| match text {
        Some(text) if text.trim().is_empty() => Err(Error::invalid(field, "is empty")),
        text => Ok(text.map(|text| text.trim().to_owned())),
    };
    let source = given("source", source)?.map(|word| {
        let known = Source::NAMES.join(", ");
        Source::parse(&word).ok_or_else(|| Error::invalid("source", format!("must be one of {known}")))
    });
    let name = given("name", name)?;
    let versions = given("version", version)?.map(|text| Conditions::parse(&text)).transpose()?;
    if versions.is_some() && name.is_none() {
        return Err(Error::invalid("version", "requires a name"));
    }
    let software = SoftwareSearch { name: name.unwrap_or_default(), source: source.transpose()? };
    Ok((Search { software, versions, after }, Paging::from_one(page, per_page)?))
}

async fn list(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    Query(query): Query<ListSoftware>,
) -> Answer<Items<Software>> {
    let (search, paging) = search(query)?;
    let found = fleet.software().list(&context.grant()?, &search, paging.rows()).await?;
    let is_full = found.items.len() == paging.per_page as usize;
    let next = found.items.last().filter(|_| is_full).map(|last| cursor::behind_software(&last.software));
    Ok(page_with_next(found.map(counted), &paging, next))
}

async fn get(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    Path(id): Path<String>,
) -> Answer<Item<Software>> {
    Ok(item(counted(fleet.software().find(&context.grant()?, &id).await?)))
}

async fn hosts(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    Path(id): Path<String>,
    Query(query): Query<ListSoftwareHosts>,
) -> Answer<Items<SoftwareHost>> {
    let paging = Paging::from_one(query.page, query.per_page)?;
    let after = cursor::number(query.search_after.as_deref(), query.page)?;
    let (software, found) = fleet.software().hosts(&context.grant()?, &id, after, paging.rows()).await?;
    let host = |host: HostRecord| SoftwareHost {
        id: host.host.map(|id| id.to_string()),
        hostname: host.hostname,
        agent_id: host.agent.to_string(),
    };
    let items = found.hosts.into_iter().map(host).collect();
    let listed = Listed { items, total: software.hosts, unreadable: 0 };
    Ok(page_with_next(listed, &paging, found.next.map(cursor::behind_number)))
}
