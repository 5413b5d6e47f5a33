//! `GET /api/status` (MG §1.15): the supported API level. Terraform and Go clients request it first.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use muster_protocol::management::status::{ApiLevel, Level, OverallStatus, ServerStatus};

use super::answer::Answer;
use muster_fleet::Fleet;

/// The highest Elastic minor version whose policy and agent APIs are supported.
const API_LEVEL: &str = "9.1.0";

/// Returns the status without authentication: it contains only the API level and the installation's id.
pub async fn get(State(fleet): State<Arc<Fleet>>) -> Answer<ServerStatus> {
    Ok(Json(ServerStatus {
        name: "muster".into(),
        uuid: fleet.server_status().installation().await?,
        version: ApiLevel {
            number: API_LEVEL.into(),
            build_hash: fleet.settings().build_hash.clone(),
            // With "serverless", Terraform would assume that every feature is available.
            build_flavor: "traditional".into(),
            build_snapshot: false,
        },
        status: OverallStatus { overall: Level { level: level(&fleet).into() } },
    }))
}

/// Returns the level: degraded means that the server reads but accepts no changes.
fn level(fleet: &Fleet) -> &'static str {
    if fleet.server_status().trouble().is_some() { "degraded" } else { "available" }
}
