//! `/device`: login of commands on devices without a browser (RFC 8628), in the formats of this API.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::HeaderMap;
use muster_core::identity::{DEVICE_INTERVAL, DEVICE_LIFETIME, Decision, DeviceLogIn};
use muster_fleet::Fleet;
use muster_protocol::management::Item;
use muster_protocol::management::identity::Token;
use muster_protocol::management::log_in::{BeginDevice, DecideDevice, Device, DeviceBegun, PollDevice};

use super::tokens;
use crate::answer::{Answer, item};
use crate::body::Body;
use crate::convert::time;
use crate::credentials;
use crate::endpoints::Endpoint;
use crate::entry::{Caller, Connection, record_refusal};

/// Path of the page where a person types the code.
pub const PAGE: &str = "/device";

/// Endpoints for logins of devices.
pub fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::post("/v1/device/authorize", begin).about("Begin the login of a device").public(),
        Endpoint::post("/v1/device/token", poll).about("Poll for the token of a device").public(),
        Endpoint::get("/v1/device/codes/{code}", show).about("Get the device that shows a code").for_everybody(),
        Endpoint::post("/v1/device/approve", approve).about("Approve the login of a device").for_everybody(),
        Endpoint::post("/v1/device/deny", deny).about("Deny the login of a device").for_everybody(),
    ]
}

fn device(log_in: DeviceLogIn) -> Device {
    Device {
        user_code: log_in.user_code.shown(),
        device: log_in.device,
        address: log_in.address,
        created_at: time(log_in.created_at),
        expires_at: time(log_in.expires_at),
        state: match log_in.decision {
            None => "waiting",
            Some(Decision::Approved(_)) => "approved",
            Some(Decision::Denied) => "denied",
        }
        .to_owned(),
    }
}

async fn begin(
    State(fleet): State<Arc<Fleet>>,
    connection: Connection,
    headers: HeaderMap,
    Body(body): Body<BeginDevice>,
) -> Answer<Item<DeviceBegun>> {
    let name = body.device.unwrap_or_default();
    let begun = fleet.devices().begin(&name, connection.ip()).await;
    let (log_in, device_code) = begun.inspect_err(|error| record_refusal(&fleet, &connection, &headers, "", error))?;
    Ok(item(DeviceBegun {
        device_code,
        verification_path: format!("{PAGE}?user_code={}", log_in.user_code.shown()),
        user_code: log_in.user_code.shown(),
        expires_in: DEVICE_LIFETIME.as_secs(),
        interval: DEVICE_INTERVAL.as_secs(),
    }))
}

async fn poll(
    State(fleet): State<Arc<Fleet>>,
    connection: Connection,
    Body(body): Body<PollDevice>,
) -> Answer<Item<Token>> {
    let (token, secret) = fleet.devices().poll(&body.device_code, connection.ip()).await?;
    Ok(item(tokens::token(token, Some(secret), fleet.now())))
}

async fn show(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    Path(code): Path<String>,
) -> Answer<Item<Device>> {
    Ok(item(device(fleet.devices().find(&context, &code).await?)))
}

async fn approve(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    headers: HeaderMap,
    Body(body): Body<DecideDevice>,
) -> Answer<Item<Device>> {
    let session = credentials::session(&headers);
    Ok(item(device(fleet.devices().approve(&context, session.as_ref(), &body.user_code).await?)))
}

async fn deny(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    Body(body): Body<DecideDevice>,
) -> Answer<Item<Device>> {
    Ok(item(device(fleet.devices().deny(&context, &body.user_code).await?)))
}
