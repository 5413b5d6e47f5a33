//! `/hosts/{id}/disk_key`: recovery keys of encrypted disks.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use muster_core::authorization::PrivilegeName as Name;
use muster_fleet::Fleet;
use muster_protocol::management::disk_key::{DiskKey, DiskKeyStatus};
use muster_protocol::management::{Empty, Item};

use super::answer::{Answer, item};
use super::convert::{time, times};
use super::endpoints::Endpoint;
use super::entry::Caller;

const REVEAL: &[Name] = &[Name::DiskKeysReveal];

/// Endpoints for disk keys.
pub fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::get("/hosts/{id}/disk_key", get).about("Get whether a host's disk key is stored").needs(REVEAL),
        Endpoint::post("/hosts/{id}/disk_key/reveal", reveal)
            .about("Get the disk key of a host; recorded in the audit log")
            .disclosing()
            .needs(REVEAL),
        Endpoint::post("/hosts/{id}/disk_key/escrow", escrow)
            .about("Make a Linux host ask its user for the disk passphrase")
            .needs(REVEAL),
    ]
}

async fn get(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    Path(id): Path<String>,
) -> Answer<Item<DiskKeyStatus>> {
    let found = fleet.disk_keys().find(&context, &id).await?;
    let key = &found.key;
    Ok(item(DiskKeyStatus {
        stored: key.sealed.is_some(),
        stored_at: key.stored_at.map(time),
        error: key.error.clone(),
        error_at: key.error_at.map(time),
        escrow_pending: key.escrow.is_some(),
        escrow_requests: key.escrow.map_or(0, |request| request.asked.into()),
    }))
}

async fn reveal(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    Path(id): Path<String>,
) -> Answer<Item<DiskKey>> {
    let found = fleet.disk_keys().find(&context, &id).await?;
    let secret = fleet.disk_keys().reveal(&found).await?;
    Ok(item(DiskKey {
        key: secret.key.clone(),
        salt: secret.salt.clone(),
        key_slot: secret.key_slot,
        stored_at: times(found.key.stored_at),
    }))
}

async fn escrow(State(fleet): State<Arc<Fleet>>, Caller(context): Caller, Path(id): Path<String>) -> Answer<Empty> {
    fleet.disk_keys().escrow(&fleet.disk_keys().find(&context, &id).await?).await?;
    Ok(Json(Empty {}))
}
