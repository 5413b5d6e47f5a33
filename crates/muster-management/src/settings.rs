//! `/settings` and `/space_settings` (MG §1.9, §2.13).

use std::sync::Arc;

use axum::extract::State;
use muster_core::Error;
use muster_core::authorization::PrivilegeName as Name;
use muster_protocol::management::Item;
use muster_protocol::management::settings::{
    DeleteUnenrolled, SaveSettings, SaveSpaceSettings, Settings, SpaceSettings,
};

use super::answer::{Answer, item};
use super::body::Body;
use super::endpoints::Endpoint;
use super::entry::Caller;
use super::query::IfMatch;
use muster_fleet::Fleet;
use muster_fleet::space_settings::SpaceSettings as Record;

/// Id of the settings, as in Kibana.
const ID: &str = "fleet-default-settings";

/// Endpoints for settings (MG §1.9).
pub fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::get("/settings", get).about("Get the settings").needs(&[Name::SettingsRead]),
        Endpoint::put("/settings", update).about("Update the settings").needs(&[Name::SettingsWrite]),
        Endpoint::get("/space_settings", get_of_space)
            .about("Get the settings of the space")
            .needs(&[Name::SettingsRead]),
        Endpoint::put("/space_settings", update_of_space)
            .about("Update the settings of the space")
            .needs(&[Name::SettingsWrite]),
    ]
}

fn settings(record: &Record) -> Result<Settings, Error> {
    Ok(Settings {
        id: ID.into(),
        version: Some(record.version()?),
        has_seen_add_data_notice: record.has_seen_add_data_notice,
        prerelease_integrations_enabled: record.prerelease_integrations_enabled.unwrap_or(false),
        delete_unenrolled_agents: DeleteUnenrolled {
            enabled: record.delete_unenrolled_after.is_some(),
            is_preconfigured: false,
            retention_seconds: record.delete_unenrolled_after.filter(|seconds| *seconds > 0),
        },
        // Secrets are always encrypted.
        secret_storage_requirements_met: true,
        output_secret_storage_requirements_met: true,
        action_secret_storage_requirements_met: true,
        preconfigured_fields: Vec::new(),
    })
}

fn of_space(record: Record) -> SpaceSettings {
    SpaceSettings { allowed_namespace_prefixes: record.allowed_namespace_prefixes, managed_by: None }
}

async fn get(State(fleet): State<Arc<Fleet>>, Caller(context): Caller) -> Answer<Item<Settings>> {
    Ok(item(settings(&fleet.space_settings().read(&context.grant()?).await?)?))
}

async fn update(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    IfMatch(version): IfMatch,
    Body(body): Body<SaveSettings>,
) -> Answer<Item<Settings>> {
    let grant = context.grant()?;
    let change = |settings: &mut Record| {
        if let Some(delete) = body.delete_unenrolled_agents {
            settings.delete_unenrolled_after = delete.enabled.then(|| delete.retention_seconds.unwrap_or(0));
        }
        settings.has_seen_add_data_notice = body.has_seen_add_data_notice.or(settings.has_seen_add_data_notice);
        settings.prerelease_integrations_enabled =
            body.prerelease_integrations_enabled.or(settings.prerelease_integrations_enabled);
    };
    Ok(item(settings(&fleet.space_settings().update(&grant, version.as_deref(), change).await?)?))
}

async fn get_of_space(State(fleet): State<Arc<Fleet>>, Caller(context): Caller) -> Answer<Item<SpaceSettings>> {
    Ok(item(of_space(fleet.space_settings().read(&context.grant()?).await?)))
}

async fn update_of_space(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    IfMatch(version): IfMatch,
    Body(body): Body<SaveSpaceSettings>,
) -> Answer<Item<SpaceSettings>> {
    let grant = context.grant()?;
    let change = |settings: &mut Record| {
        if let Some(prefixes) = body.allowed_namespace_prefixes {
            settings.allowed_namespace_prefixes = prefixes;
        }
    };
    Ok(item(of_space(fleet.space_settings().update(&grant, version.as_deref(), change).await?)))
}
