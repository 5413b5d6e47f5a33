//! Lists and look-ups of hosts.

use axum::Json;
use axum::response::Response;
use muster_core::authorization::{AgentsRead, OsqueryRead};
use muster_core::fleetd::inventory::fleetdm::certificate_form;
use muster_core::fleetd::platform::Platform;
use muster_fleet::host_views::HostView;
use serde_json::{Value, json};

use crate::entry::Caller;
use crate::failure::{Answer, Failure};
use crate::host_inventory::systems;
use crate::host_json::{TeamNames, detail, installed};
use crate::host_query::{FoundHost, HostQuery, number, numbered, reject_unsupported, shown, status};
use crate::host_stream::HostPage;
use crate::labels;
use crate::params::{Paging, Params, Path};
use crate::routes::Route;

/// Maximum number of hosts of a page with their software: each is read on its own.
const MAX_DETAILED: u32 = 100;

/// Routes that read hosts.
pub fn routes() -> Vec<Route> {
    vec![
        Route::get("/hosts", list, "List hosts"),
        Route::get("/hosts/count", count, "Count hosts"),
        Route::get("/host_summary", summarize, "Count hosts by status and platform"),
        Route::get("/hosts/{id}", get, "A host with its software, its users and its answers to policies"),
        Route::get("/hosts/identifier/{identifier}", get_identified, "A host by name, serial number or UUID"),
        Route::get("/hosts/{id}/software", software, "Software of a host"),
        Route::get("/hosts/{id}/certificates", certificates, "Certificates on a host"),
    ]
}

async fn list(caller: Caller, params: Params) -> Result<Response, Failure> {
    let (paging, query) = (params.paging()?, HostQuery::of(&caller, &params).await?);
    list_of(&caller, &params, &query, &paging).await
}

/// Returns the response with a page of hosts.
pub async fn list_of(
    caller: &Caller,
    params: &Params,
    query: &HostQuery,
    paging: &Paging,
) -> Result<Response, Failure> {
    // Muster knows no vulnerabilities, so the list without their details is the same one.
    let with_software = match params.text("populate_software") {
        Some("without_vulnerability_details") => true,
        _ => params.flag("populate_software")?,
    };
    if with_software && paging.limit > MAX_DETAILED {
        let reason = format!("must be at most {MAX_DETAILED} with populate_software");
        return Err(Failure::invalid("per_page", reason));
    }
    let (found, total) = query.page(caller, paging).await?;
    let (teams, systems) = (TeamNames::of(&caller.spaces().await?), systems(caller, &found).await?);
    let meta = paging.meta(total)?;
    Ok(HostPage::new(caller.clone(), teams, found, systems, with_software).response(total, &meta))
}

async fn count(caller: Caller, params: Params) -> Answer {
    let query = HostQuery::of(&caller, &params).await?;
    Ok(Json(json!({"count": query.count(&caller).await?})))
}

async fn summarize(caller: Caller, params: Params) -> Answer {
    reject_unsupported(&params)?;
    let team = params.team()?;
    // Each count is a statement of its own: the statuses overlap, so one grouping cannot return them all.
    let of = async |condition| -> Result<u64, Failure> {
        let mut query = HostQuery::matching(&caller, &params, team).await?;
        query.and(condition);
        query.count(&caller).await
    };
    let all = HostQuery::matching(&caller, &params, team).await?.count(&caller).await?;
    let now = caller.fleet.now();
    let online = of(status("online", now)?).await?;
    let missing = of(status("missing", now)?).await?;
    let mut platforms = Vec::new();
    for platform in Platform::NAMES {
        let hosts = of(labels::of_platform(platform)).await?;
        // FleetDM lists only the platforms that occur.
        if hosts > 0 {
            platforms.push(json!({"platform": platform, "hosts_count": hosts}));
        }
    }
    Ok(Json(json!({
        "team_id": team,
        "fleet_id": team,
        "totals_hosts_count": all,
        "online_count": online,
        "offline_count": all - online.min(all),
        "mia_count": missing,
        "missing_30_days_count": missing,
        "new_count": of(status("new", now)?).await?,
        "all_linux_count": of(labels::of_platform("linux")).await?,
        // Null means unknown: hosts cannot be counted by their free space.
        "low_disk_space_count": null,
        "builtin_labels": labels::built_in(),
        "platforms": platforms,
    })))
}

/// Reads a host with its software and its answers.
async fn view(caller: &Caller, found: &FoundHost) -> Result<HostView, Failure> {
    let grant = found.context.grant::<AgentsRead>()?;
    Ok(caller.fleet.agents().host(&grant, found.id()?.as_str()).await?)
}

async fn show(caller: &Caller, found: &FoundHost) -> Answer {
    let view = view(caller, found).await?;
    let teams = TeamNames::of(&caller.spaces().await?);
    // Who may not read labels does not see them here either.
    let labels = match found.context.grant::<OsqueryRead>() {
        Ok(grant) => caller.fleet.labels().list(&grant).await?,
        Err(_) => Vec::new(),
    };
    let host = detail(&view, &teams, &labels, caller.fleet.now())
        .ok_or_else(|| Failure::not_found("host", number(&found.agent)))?;
    Ok(Json(json!({"host": host})))
}

async fn get(caller: Caller, Path(id): Path<u64>) -> Answer {
    show(&caller, &numbered(&caller, id).await?).await
}

async fn get_identified(caller: Caller, Path(identifier): Path<String>) -> Answer {
    show(&caller, &shown(&caller, &identifier).await?).await
}

async fn software(caller: Caller, params: Params, Path(id): Path<u64>) -> Answer {
    let paging = params.paging()?;
    let view = view(&caller, &numbered(&caller, id).await?).await?;
    // A host has at most 8,192 packages in one document, so a page is cut from the whole list.
    let total = view.software.software.len() as u64;
    let page: Vec<Value> = paging.cut(view.software.software).iter().map(installed).collect();
    Ok(Json(json!({"software": page, "count": total, "meta": paging.meta(total)?})))
}

async fn certificates(caller: Caller, params: Params, Path(id): Path<u64>) -> Answer {
    let paging = params.paging()?;
    let view = view(&caller, &numbered(&caller, id).await?).await?;
    // A host has at most 500.
    let all: Vec<Value> = view.inventory.certificates.items.iter().map(certificate_form).collect();
    let total = all.len() as u64;
    Ok(Json(json!({"certificates": paging.cut(all), "count": total, "meta": paging.meta(total)?})))
}
