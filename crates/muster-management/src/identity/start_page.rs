//! `/`: the page to which a browser goes after a login. Plain HTML, without scripts.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use muster_core::authorization::OpContext;
use muster_core::id::{ProviderId, SpaceId};
use muster_fleet::Fleet;
use muster_fleet::identity::sign_in::Presented;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::devices::PAGE;
use super::html::{escaped, page};
use crate::credentials;
use crate::entry::Connection;
use crate::error::status_of;

/// Path of the page.
pub const PATH: &str = "/";

/// Shows who is logged in, or how to log in.
pub async fn show(State(fleet): State<Arc<Fleet>>, connection: Connection, headers: HeaderMap) -> Response {
    let content = match caller(&fleet, &connection, &headers).await {
        Some(context) => fleet.sign_in().user(&context).await.map(|user| {
            let name = user.map(|user| user.name).unwrap_or_default();
            format!(
                "<p>You are logged in as <strong>{}</strong>.</p>\
                 <p>To log in <code>muster</code> on another host, run <code>muster login</code> there, and \
                 <a href=\"{PAGE}\">enter the code</a> that it shows.</p>",
                escaped(&name)
            )
        }),
        None => fleet.providers().choices().await.map(|choices| {
            let links = links(&choices, PATH);
            format!("<p>You are not logged in.</p>{links}<p><a href=\"{PAGE}\">Log in with a password</a></p>")
        }),
    };
    match content {
        Ok(content) => page(StatusCode::OK, "Muster", &content),
        Err(error) => {
            page(status_of(error.kind), "Muster", &format!("<p role=\"alert\">{}</p>", escaped(&error.message)))
        }
    }
}

/// Returns links to the providers, which lead back to a path.
pub fn links(providers: &[ProviderId], path: &str) -> String {
    let back = utf8_percent_encode(path, NON_ALPHANUMERIC).to_string();
    let link = |id: &ProviderId| {
        let id = escaped(id.as_str());
        format!("<p><a href=\"/api/v1/login/oidc/{id}?return_to={back}\">Log in with {id}</a></p>")
    };
    providers.iter().map(link).collect()
}

/// Identifies the person by the session cookie.
pub async fn caller(fleet: &Fleet, connection: &Connection, headers: &HeaderMap) -> Option<OpContext> {
    let presented = Presented::Session(credentials::cookie(headers)?);
    fleet.sign_in().authenticate(&presented, &SpaceId::default(), connection.ip()).await.ok()
}
