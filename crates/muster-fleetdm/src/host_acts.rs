//! What changes hosts.

use std::collections::BTreeMap;

use axum::Json;
use muster_core::id::SpaceId;
use muster_fleet::transfers::{HostTransfer, HostsToMove};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::entry::Caller;
use crate::failure::{Answer, Failure};
use crate::host_query::{FoundHost, HostQuery, all_numbered, numbered};
use crate::params::{Input, Paging, Params, Path};
use crate::routes::Route;

/// Maximum number of hosts of one request.
pub const MAX_HOSTS: usize = 1_000;

/// Routes that change hosts.
pub fn routes() -> Vec<Route> {
    vec![
        Route::delete("/hosts/{id}", delete, "Delete a host, and reject the keys of its agents"),
        Route::post("/hosts/delete", delete_many, "Delete hosts by `ids` or by `filters`"),
        Route::post("/hosts/{id}/refetch", refetch, "Make a host report its details now"),
        Route::post("/hosts/transfer", transfer, "Move hosts by id to a team, or to no team"),
        Route::post("/hosts/transfer/filter", transfer_filter, "Move hosts by `filters` to a team, or to no team"),
    ]
}

async fn delete_one(caller: &Caller, found: &FoundHost) -> Result<(), Failure> {
    let context = caller.within(found.context.space());
    caller.fleet.agents().delete_host(&context, found.id()?.as_str()).await?;
    Ok(())
}

async fn delete(caller: Caller, Path(id): Path<u64>) -> Answer {
    delete_one(&caller, &numbered(&caller, id).await?).await?;
    Ok(Json(json!({})))
}

async fn refetch(caller: Caller, Path(id): Path<u64>) -> Answer {
    let found = numbered(&caller, id).await?;
    caller.fleet.agents().refetch_host(&found.context, found.id()?.as_str()).await?;
    Ok(Json(json!({})))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DeleteHosts {
    #[serde(default)]
    ids: Vec<u64>,
    filters: Option<Value>,
}

/// The hosts that an act on many is for.
struct Filters {
    query: String,
    status: String,
    label_id: Option<u64>,
    team_id: Option<u64>,
}

impl Filters {
    /// Reads them from a body. An unknown member is an error: to ignore a filter is to act on more hosts than were asked for.
    fn read(filters: &Value) -> Result<Self, Failure> {
        let members = filters.as_object().ok_or_else(|| Failure::invalid("filters", "must be an object"))?;
        let mut read = Self { query: String::new(), status: String::new(), label_id: None, team_id: None };
        for (name, value) in members.iter().filter(|(_, value)| !value.is_null()) {
            let text = || value.as_str().map(str::to_owned).ok_or_else(|| Failure::invalid(name, "must be a string"));
            let number = || value.as_u64().ok_or_else(|| Failure::invalid(name, "must be an integer"));
            match name.as_str() {
                "query" => read.query = text()?,
                "status" => read.status = text()?,
                "label_id" => read.label_id = Some(number()?),
                "team_id" | "fleet_id" => read.team_id = Some(number()?),
                _ => {
                    let reason = "is not a filter of this request; the filters are query, status, label_id and team_id";
                    return Err(Failure::invalid(name, reason));
                }
            }
        }
        Ok(read)
    }

    /// Returns them as parameters of a list.
    fn params(&self) -> Params {
        let label = self.label_id.map(|label| label.to_string()).unwrap_or_default();
        Params::from([("query", self.query.as_str()), ("status", &self.status), ("label_id", &label)])
    }

    fn are_empty(&self) -> bool {
        self.query.is_empty() && self.status.is_empty() && self.label_id.is_none() && self.team_id.is_none()
    }
}

async fn delete_many(caller: Caller, Input(body): Input<DeleteHosts>) -> Answer {
    let found = match body {
        DeleteHosts { ids, filters: None } if !ids.is_empty() => of_ids(&caller, &ids).await?,
        DeleteHosts { ids, filters: Some(filters) } if ids.is_empty() => of_filters(&caller, &filters).await?,
        // Both at once is ambiguous, and a wrong guess deletes hosts.
        _ => return Err(Failure::invalid("ids", "either ids or filters are required")),
    };
    // Each deletion is a transaction of its own, with an audit event of its own.
    for caller in caller.attempts() {
        for host in &found {
            delete_one(&caller, host).await?;
        }
    }
    Ok(done(&caller, &found))
}

/// The body of a transfer. With null or 0 as the team, hosts move to no team. The member is required: hosts that leave their team by
/// mistake lose what it has of them.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TransferHosts {
    #[serde(alias = "fleet_id", deserialize_with = "Option::deserialize")]
    team_id: Option<u64>,
    #[serde(default)]
    hosts: Vec<u64>,
}

/// The same, with filters.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TransferFilter {
    #[serde(alias = "fleet_id", deserialize_with = "Option::deserialize")]
    team_id: Option<u64>,
    #[serde(default)]
    filters: Value,
}

async fn transfer(caller: Caller, Input(body): Input<TransferHosts>) -> Answer {
    move_to(&caller, body.team_id, of_ids(&caller, &body.hosts).await?).await
}

async fn transfer_filter(caller: Caller, Input(body): Input<TransferFilter>) -> Answer {
    move_to(&caller, body.team_id, of_filters(&caller, &body.filters).await?).await
}

/// Moves hosts to a team. Those that are in it stay.
async fn move_to(caller: &Caller, team: Option<u64>, hosts: Vec<FoundHost>) -> Answer {
    let to = caller.in_team(team).await?.space().clone();
    let mut of_space: BTreeMap<SpaceId, Vec<String>> = BTreeMap::new();
    for host in hosts.iter().filter(|host| *host.context.space() != to) {
        of_space.entry(host.context.space().clone()).or_default().push(host.id()?.to_string());
    }
    let groups: Vec<(SpaceId, HostsToMove)> =
        of_space.into_iter().map(|(space, ids)| (space, HostsToMove::Named(ids))).collect();
    let transfers = caller.fleet.transfers();
    for caller in caller.attempts() {
        for (space, hosts) in &groups {
            all_moved(&transfers.transfer(&caller.within(space), hosts, to.as_str()).await?)?;
        }
    }
    Ok(done(caller, &hosts))
}

/// Fails with the reason of the first host that is not moved.
fn all_moved(hosts: &[HostTransfer]) -> Result<(), Failure> {
    match hosts.iter().find_map(|host| Some((host, host.outcome.as_ref().err()?))) {
        Some((host, refusal)) => {
            let reason = format!("{} cannot be transferred: {refusal}; {}", host.hostname, refusal.remedy());
            Err(Failure::invalid("hosts", reason))
        }
        None => Ok(()),
    }
}

/// Returns the response to an act on hosts: FleetDM's, which is empty, or the number of hosts that a dry run would act on.
fn done(caller: &Caller, hosts: &[FoundHost]) -> Json<Value> {
    if caller.context.is_dry_run() { Json(json!({"count": hosts.len()})) } else { Json(json!({})) }
}

/// Finds hosts by their numbers. One that is missing fails the request before anything is changed.
pub async fn of_ids(caller: &Caller, ids: &[u64]) -> Result<Vec<FoundHost>, Failure> {
    if ids.len() > MAX_HOSTS {
        return Err(Failure::invalid("ids", format!("at most {MAX_HOSTS} hosts in one request")));
    }
    all_numbered(caller, ids).await
}

async fn of_filters(caller: &Caller, filters: &Value) -> Result<Vec<FoundHost>, Failure> {
    let filters = Filters::read(filters)?;
    // A variable of a script that is empty must not delete the whole fleet.
    if filters.are_empty() {
        return Err(Failure::invalid("filters", "at least one filter is required"));
    }
    let query = HostQuery::matching(caller, &filters.params(), filters.team_id).await?;
    // One page holds all that may be deleted; the total shows whether there are more.
    let all = Paging { offset: 0, limit: 1_000, is_whole: false };
    let (found, total) = query.page(caller, &all).await?;
    if total > MAX_HOSTS as u64 {
        let reason = format!("{total} hosts match; at most {MAX_HOSTS} in one request");
        return Err(Failure::invalid("filters", reason));
    }
    let with_context = |agent: muster_fleet::agent_views::AgentView| {
        let context = caller.within(&agent.details.record.space);
        FoundHost { context, agent }
    };
    Ok(found.into_iter().map(with_context).collect())
}
