//! `GET /api/status` (MG §1.15): what API level is spoken here. Terraform and Go clients ask it first.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use muster_core::entropy::random_uuid;
use muster_protocol::management::status::{ApiLevel, Level, OverallStatus, ServerStatus};
use muster_store::{SettingWrite, Write};

use super::answer::Answer;
use muster_fleet::Fleet;

/// The highest Elastic minor whose policy and agent API is spoken.
const API_LEVEL: &str = "9.1.0";
/// The setting that holds this installation's id.
const UUID_SETTING: &str = "installation_uuid";

/// Answers everyone: it tells nothing but the level.
pub async fn get(State(fleet): State<Arc<Fleet>>) -> Answer<ServerStatus> {
    Ok(Json(ServerStatus {
        name: "muster".into(),
        uuid: installation(&fleet).await?,
        version: ApiLevel {
            number: API_LEVEL.into(),
            build_hash: fleet.settings.build_hash.clone(),
            // "serverless" would mean to Terraform that every feature is there.
            build_flavor: "traditional".into(),
            build_snapshot: false,
        },
        status: OverallStatus { overall: Level { level: level(&fleet).into() } },
    }))
}

/// Degraded: it reads, and takes no changes.
fn level(fleet: &Fleet) -> &'static str {
    if fleet.store.trouble().is_some() { "degraded" } else { "available" }
}

/// Made at the first start, or at the first question in older stores; then always the same.
pub async fn installation(fleet: &Fleet) -> Result<String, muster_core::Error> {
    if let Some(uuid) = fleet.store.setting(UUID_SETTING).await? {
        return Ok(uuid);
    }
    let uuid = random_uuid(&*fleet.entropy);
    fleet
        .store
        .commit(vec![Write::Setting(SettingWrite::Put { name: UUID_SETTING.into(), value: uuid.clone() })])
        .await?;
    // Two first questions at once: both answer what the later one wrote.
    Ok(fleet.store.setting(UUID_SETTING).await?.unwrap_or(uuid))
}
