//! What the pages for browsers share: who is logged in, and links to OpenID providers.

use axum::http::HeaderMap;
use muster_core::authorization::OpContext;
use muster_core::id::{ProviderId, SpaceId};
use muster_fleet::Fleet;
use muster_fleet::identity::sign_in::Presented;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::html::escaped;
use crate::base_path::BasePath;
use crate::credentials;
use crate::entry::Connection;

/// Returns links to the providers, which lead back to a path.
pub fn links(providers: &[ProviderId], path: &str) -> String {
    let base = BasePath::current();
    let back = utf8_percent_encode(path, NON_ALPHANUMERIC).to_string();
    let link = |id: &ProviderId| {
        let id = escaped(id.as_str());
        format!("<p><a href=\"{base}/api/v1/login/oidc/{id}?return_to={back}\">Log in with {id}</a></p>")
    };
    providers.iter().map(link).collect()
}

/// Identifies the person by the session cookie.
pub async fn caller(fleet: &Fleet, connection: &Connection, headers: &HeaderMap) -> Option<OpContext> {
    let presented = Presented::Session(credentials::cookie(headers)?);
    fleet.sign_in().authenticate(&presented, &SpaceId::default(), connection.ip()).await.ok()
}
