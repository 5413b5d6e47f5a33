//! `/fleetd_options`: the osquery configuration of a space's hosts.

use std::sync::Arc;

use axum::extract::State;
use muster_core::authorization::PrivilegeName as Name;
use muster_core::policy::diff::Difference;
use muster_fleet::Fleet;
use muster_fleet::fleetd_options::SpaceOptions;
use muster_protocol::management::fleetd_options::{ChangedFleetdOptions, FleetdOptions, SaveFleetdOptions};
use muster_protocol::management::{Item, agent_policy};

use super::answer::{Answer, item};
use super::body::Body;
use super::convert::times;
use super::endpoints::Endpoint;
use super::entry::Caller;
use super::error::diagnostics;
use super::query::IfMatch;

/// Endpoints for fleetd options.
pub fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::get("/fleetd_options", get)
            .about("Get the osquery configuration of the hosts of the space")
            .needs(&[Name::OsqueryRead]),
        Endpoint::put("/fleetd_options", update)
            .about("Replace the osquery configuration of the hosts of the space")
            .needs(&[Name::OsqueryWrite]),
        Endpoint::delete("/fleetd_options", reset)
            .about("Return to the default osquery configuration")
            .needs(&[Name::OsqueryWrite]),
    ]
}

fn options(options: &SpaceOptions) -> FleetdOptions {
    FleetdOptions {
        version: options.version,
        is_default: options.is_default(),
        updated_at: times(options.updated_at()),
        updated_by: options.updated_by.clone(),
        options: options.document().to_owned(),
    }
}

fn changed((saved, differences): (SpaceOptions, Vec<Difference>)) -> Answer<Item<ChangedFleetdOptions>> {
    let difference = |Difference { path, before, after }| agent_policy::Difference { path, before, after };
    Ok(item(ChangedFleetdOptions {
        changes: differences.into_iter().map(difference).collect(),
        options: options(&saved),
        warnings: diagnostics(saved.advice()?),
    }))
}

async fn get(State(fleet): State<Arc<Fleet>>, Caller(context): Caller) -> Answer<Item<FleetdOptions>> {
    Ok(item(options(&fleet.fleetd_options().read(&context.grant()?).await?)))
}

async fn update(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    version: IfMatch,
    Body(body): Body<SaveFleetdOptions>,
) -> Answer<Item<ChangedFleetdOptions>> {
    let expected = body.expected_version.or(version.number()?);
    let grant = context.grant()?;
    changed(fleet.fleetd_options().update(&grant, Some(body.options), expected).await?)
}

async fn reset(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    version: IfMatch,
) -> Answer<Item<ChangedFleetdOptions>> {
    let (grant, expected) = (context.grant()?, version.number()?);
    changed(fleet.fleetd_options().update(&grant, None, expected).await?)
}
