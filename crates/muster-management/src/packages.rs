//! `/package_policies`, `/epm` and `/data_streams` (MG §1.4, §1.10, §1.11), as a server without integration packages answers
//! them: inputs are configured in the `config` of policies.

use axum::Json;
use axum::extract::Path;
use muster_core::authorization::PrivilegeName as Name;
use muster_core::authorization::{PoliciesRead, PoliciesUpdate};
use muster_core::{Error, ErrorKind};
use muster_protocol::management::Items;
use muster_protocol::management::envelope::Whole;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use super::answer::{Answer, page, whole};
use super::body::Body;
use super::endpoints::Endpoint;
use super::entry::Caller;
use super::error::ApiResult;
use super::query::{Paging, Query};

/// Maximum ids in one request.
const MAX_IDS: usize = 1000;

/// Endpoints of integration packages, of which none is installed (MG §1.4, §1.10).
pub fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::get("/package_policies", list)
            .about("List package policies (always empty)")
            .needs(&[Name::PoliciesRead]),
        Endpoint::post("/package_policies", create)
            .about("Create a package policy (not supported)")
            .needs(&[Name::PoliciesUpdate]),
        Endpoint::post("/package_policies/_bulk_get", bulk_get)
            .about("Get package policies by id")
            .needs(&[Name::PoliciesRead]),
        Endpoint::post("/package_policies/delete", delete_many)
            .about("Delete package policies")
            .needs(&[Name::PoliciesUpdate]),
        Endpoint::get("/package_policies/{id}", missing_policy)
            .about("Get a package policy (not supported)")
            .needs(&[Name::PoliciesRead]),
        Endpoint::put("/package_policies/{id}", missing_policy_to_change)
            .about("Update a package policy (not supported)")
            .needs(&[Name::PoliciesUpdate]),
        Endpoint::delete("/package_policies/{id}", missing_policy_to_change)
            .about("Delete a package policy (not supported)")
            .needs(&[Name::PoliciesUpdate]),
        Endpoint::get("/epm/categories", none)
            .about("List package categories (always empty)")
            .needs(&[Name::PoliciesRead]),
        Endpoint::get("/epm/packages", none).about("List packages (always empty)").needs(&[Name::PoliciesRead]),
        Endpoint::get("/epm/packages/installed", none_installed)
            .about("List installed packages (always empty)")
            .needs(&[Name::PoliciesRead]),
        Endpoint::get("/epm/packages/{name}", missing_package)
            .about("Get a package (not supported)")
            .needs(&[Name::PoliciesRead]),
        Endpoint::get("/epm/packages/{name}/{version}", missing_version)
            .about("Get a version of a package (not supported)")
            .needs(&[Name::PoliciesRead]),
        Endpoint::post("/epm/packages/{name}/{version}", missing_version_to_change)
            .about("Install a package (not supported)")
            .needs(&[Name::PoliciesUpdate]),
        Endpoint::delete("/epm/packages/{name}/{version}", missing_version_to_change)
            .about("Remove a package (not supported)")
            .needs(&[Name::PoliciesUpdate]),
        Endpoint::get("/data_streams", data_streams)
            .about("List data streams (always empty)")
            .needs(&[Name::PoliciesRead]),
    ]
}

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct ListQuery {
    /// Page number, from 1.
    page: Option<u32>,
    /// Rows per page, default 20.
    per_page: Option<u32>,
}

async fn list(Caller(context): Caller, Query(query): Query<ListQuery>) -> Answer<Items<Value>> {
    context.grant::<PoliciesRead>()?;
    Ok(page(Vec::new(), 0, &Paging::from_one(query.page, query.per_page)?))
}

async fn create(Caller(context): Caller, Body(body): Body<serde_json::Map<String, Value>>) -> Answer<Value> {
    context.grant::<PoliciesUpdate>()?;
    let package = body.get("package").and_then(|package| package["name"].as_str());
    let message = match package {
        Some(name) => format!("the package {name:?} is not installed"),
        None => "no package is installed".to_owned(),
    };
    // Answering with success would leave agents that collect nothing, unnoticed.
    Err(Error::new(ErrorKind::Invalid, "package_not_installed", message)
        .remedy("write the inputs into the `config` of the agent policy")
        .into())
}

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct BulkGetPackagePolicies {
    /// Ids.
    ids: Vec<String>,
    /// Whether missing ones are left out instead of failing the request.
    ignore_missing: Option<bool>,
}

async fn bulk_get(Caller(context): Caller, Body(body): Body<BulkGetPackagePolicies>) -> Answer<Whole<Value>> {
    context.grant::<PoliciesRead>()?;
    match body.ids.first().filter(|_| body.ignore_missing != Some(true)) {
        Some(id) => Err(Error::not_found("package policy", id).into()),
        None => Ok(whole(Vec::new())),
    }
}

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct DeletePackagePolicies {
    /// Ids.
    package_policy_ids: Vec<String>,
    /// Accepted and ignored.
    #[serde(rename = "force")]
    _force: Option<bool>,
}

/// Returns a result for each id; the request itself succeeds.
async fn delete_many(Caller(context): Caller, Body(body): Body<DeletePackagePolicies>) -> Answer<Vec<Value>> {
    context.grant::<PoliciesUpdate>()?;
    if body.package_policy_ids.len() > MAX_IDS {
        return Err(Error::invalid("packagePolicyIds", format!("at most {MAX_IDS} ids per request")).into());
    }
    let result = |id: String| {
        let message = Error::not_found("package policy", &id).message;
        json!({"id": id, "success": false, "statusCode": 404, "body": {"message": message}})
    };
    Ok(Json(body.package_policy_ids.into_iter().map(result).collect()))
}

async fn missing_policy(Caller(context): Caller, Path(id): Path<String>) -> ApiResult<()> {
    context.grant::<PoliciesRead>()?;
    Err(Error::not_found("package policy", id).into())
}

async fn missing_policy_to_change(Caller(context): Caller, Path(id): Path<String>) -> ApiResult<()> {
    context.grant::<PoliciesUpdate>()?;
    Err(Error::not_found("package policy", id).into())
}

async fn none(Caller(context): Caller) -> Answer<Whole<Value>> {
    context.grant::<PoliciesRead>()?;
    Ok(whole(Vec::new()))
}

async fn none_installed(Caller(context): Caller) -> Answer<Value> {
    context.grant::<PoliciesRead>()?;
    Ok(Json(json!({"items": [], "total": 0})))
}

async fn missing_package(Caller(context): Caller, Path(name): Path<String>) -> ApiResult<()> {
    context.grant::<PoliciesRead>()?;
    Err(Error::not_found("package", name).into())
}

async fn missing_version(Caller(context): Caller, Path((name, version)): Path<(String, String)>) -> ApiResult<()> {
    context.grant::<PoliciesRead>()?;
    Err(Error::not_found("package", format_args!("{name}-{version}")).into())
}

async fn missing_version_to_change(
    Caller(context): Caller,
    Path((name, version)): Path<(String, String)>,
) -> ApiResult<()> {
    context.grant::<PoliciesUpdate>()?;
    Err(Error::not_found("package", format_args!("{name}-{version}")).into())
}

async fn data_streams(Caller(context): Caller) -> Answer<Value> {
    context.grant::<PoliciesRead>()?;
    Ok(Json(json!({"data_streams": []})))
}
