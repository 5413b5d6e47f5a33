//! Software on hosts.

use axum::Json;
use muster_core::ErrorKind;
use muster_core::authorization::{OpContext, OsqueryRead};
use muster_core::fleetd::numbers;
use muster_fleet::software::Search;
use muster_store::query::{FoundSoftware, SoftwareSearch};
use serde_json::{Value, json};

use crate::entry::Caller;
use crate::failure::{Answer, Failure};
use crate::host_json::{installed, time};
use crate::params::{Params, Path};
use crate::routes::Route;

/// Routes for software.
pub fn routes() -> Vec<Route> {
    vec![
        Route::get("/software/versions", list, "List software of a team, or of hosts of no team, by name"),
        Route::get("/software", list, "The same"),
        Route::get("/software/count", count, "Count software"),
        Route::get("/software/versions/{id}", get, "Software with the number of hosts"),
        Route::get("/software/{id}", get, "The same"),
    ]
}

fn counted(found: &FoundSoftware) -> Value {
    let mut json = installed(&(found.id, found.software.clone()));
    json["hosts_count"] = found.hosts.into();
    json
}

fn search(params: &Params) -> Result<Search, Failure> {
    match params.text("order_key") {
        // The index of software has this order only; sorting all of it for a page would read the whole index.
        None | Some("name") if !params.descending()? => {}
        _ => return Err(Failure::invalid("order_key", "must be name, in ascending order")),
    }
    if params.flag("vulnerable")? {
        return Err(Failure::invalid(
            "vulnerable",
            "is not supported: Muster does not match software to vulnerabilities",
        ));
    }
    let name = params.text("query").map(|words| format!("*{words}*")).unwrap_or_default();
    Ok(Search { software: SoftwareSearch { name, source: None }, ..Search::default() })
}

async fn list(caller: Caller, params: Params) -> Answer {
    let (paging, context) = (params.paging()?, caller.in_team(params.team()?).await?);
    let found = caller.fleet.software().list(&context.grant()?, &search(&params)?, paging.rows()).await?;
    let software: Vec<Value> = found.items.iter().map(counted).collect();
    Ok(Json(json!({
        "count": found.total,
        "counts_updated_at": time(caller.fleet.now()),
        "software": software,
        "meta": paging.meta(found.total)?,
    })))
}

async fn count(caller: Caller, params: Params) -> Answer {
    let context = caller.in_team(params.team()?).await?;
    // An empty page still has the total.
    let none = muster_store::query::Page { offset: 0, limit: 0 };
    let found = caller.fleet.software().list(&context.grant()?, &search(&params)?, none).await?;
    Ok(Json(json!({"count": found.total})))
}

/// Finds software by its number in a team.
pub async fn numbered(caller: &Caller, context: &OpContext, number: u64) -> Result<Option<FoundSoftware>, Failure> {
    let grant = context.grant()?;
    // A number is shorter than the id, so several ids are possible. At most one of them exists in practice.
    for id in numbers::ids_of_software(number) {
        match caller.fleet.software().find(&grant, &id.to_string()).await {
            Ok(found) => return Ok(Some(found)),
            Err(error) if error.kind == ErrorKind::NotFound => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(None)
}

async fn get(caller: Caller, params: Params, Path(id): Path<u64>) -> Answer {
    for context in caller.everywhere::<OsqueryRead>(params.team()?).await? {
        if let Some(found) = numbered(&caller, &context, id).await? {
            return Ok(Json(json!({"software": counted(&found)})));
        }
    }
    Err(Failure::not_found("software", id))
}
