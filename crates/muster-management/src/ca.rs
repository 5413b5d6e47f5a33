//! `/v1/ca`: the certificate of the fleet's own CA (AG95).

use std::sync::Arc;

use axum::extract::State;
use muster_core::authorization::PrivilegeName as Name;
use muster_fleet::Fleet;
use muster_protocol::management::Item;
use muster_protocol::management::ca::CaCertificate;

use super::answer::{Answer, item};
use super::convert::time;
use super::endpoints::Endpoint;
use super::entry::Caller;

/// The endpoint of the CA.
pub fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::get("/v1/ca", get)
            .about("Get the CA certificate that agents must trust")
            .needs(&[Name::EnrollmentRead]),
    ]
}

async fn get(State(fleet): State<Arc<Fleet>>, Caller(context): Caller) -> Answer<Item<CaCertificate>> {
    let ca = fleet.server_status().ca(&context.grant()?)?;
    Ok(item(CaCertificate {
        certificate: ca.pem.clone(),
        sha256: ca.fingerprint.clone(),
        expires_at: time(ca.expires_at),
    }))
}
