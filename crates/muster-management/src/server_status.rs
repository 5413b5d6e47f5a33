//! `GET /api/status` (MG §1.15): what API level is spoken here. Terraform and Go clients ask it first.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use muster_protocol::management::status::{ApiLevel, Level, OverallStatus, ServerStatus};

use super::answer::Answer;
use muster_fleet::Fleet;

/// The highest Elastic minor whose policy and agent API is spoken.
const API_LEVEL: &str = "9.1.0";

/// Answers everyone: it tells nothing but the level.
pub async fn get(State(fleet): State<Arc<Fleet>>) -> Answer<ServerStatus> {
    Ok(Json(ServerStatus {
        name: "muster".into(),
        uuid: fleet.server_status().installation().await?,
        version: ApiLevel {
            number: API_LEVEL.into(),
            build_hash: fleet.settings().build_hash.clone(),
            // "serverless" would mean to Terraform that every feature is there.
            build_flavor: "traditional".into(),
            build_snapshot: false,
        },
        status: OverallStatus { overall: Level { level: level(&fleet).into() } },
    }))
}

/// Degraded: it reads, and takes no changes.
fn level(fleet: &Fleet) -> &'static str {
    if fleet.server_status().trouble().is_some() { "degraded" } else { "available" }
}
