//! `/setup`: a person sets a password with the token of a set-up link, and is logged in.

use std::sync::Arc;

use askama::Template;
use axum::body::Body;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use muster_core::{Error, ErrorKind};
use muster_fleet::Fleet;
use muster_fleet::identity::passwords::LENGTH;
use muster_management::entry::{Connection, record_refusal};
use muster_management::error::status_of;
use muster_management::{credentials, form};
use serde::Deserialize;
use zeroize::Zeroizing;

use crate::failure;
use crate::frame::{Frame, page};
use crate::links::Link;
use crate::log_in::to;

/// Path of the page.
pub const PATH: &str = "/setup";

/// Parameters of the page, and its form.
#[derive(Default, Deserialize)]
#[serde(default)]
pub struct Fields {
    token: String,
    password: String,
    again: String,
}

#[derive(Template)]
#[template(path = "set_up.html")]
struct SetUpPage<'a> {
    frame: Frame,
    token: &'a str,
    /// Name of the user, for password managers; empty if the link is not valid.
    name: String,
    /// Minimum number of bytes of a password.
    least: usize,
    error: Option<&'a Error>,
}

/// Shows the form.
pub async fn show(State(fleet): State<Arc<Fleet>>, Query(fields): Query<Fields>) -> Response {
    ask(&fleet, &fields.token, None).await
}

async fn ask(fleet: &Fleet, token: &str, error: Option<&Error>) -> Response {
    let known = fleet.setup().name_of(token).await;
    // Before anybody chooses a password for nothing.
    let invalid = (!token.is_empty() && matches!(known, Ok(None))).then(|| {
        Error::new(ErrorKind::Unauthenticated, "setup_link_invalid", "this set-up link is invalid, used or expired")
            .remedy("on the server's host, run `muster user setup-link NAME`")
    });
    let error = error.or(invalid.as_ref());
    // The page works without the name, too.
    let name = known.ok().flatten().unwrap_or_default();
    let shown = SetUpPage { frame: Frame::outside("Set your password"), token, name, least: *LENGTH.start(), error };
    let shown = page(error.map_or(StatusCode::OK, |error| status_of(error.kind)), &shown);
    failure::with_retry(shown, error)
}

/// Sets the password.
pub async fn set_up(
    State(fleet): State<Arc<Fleet>>,
    connection: Connection,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let Fields { token, password, again } = match form::read(&headers, body).await {
        Ok(fields) => fields,
        Err(error) => return failure::outside(&error),
    };
    let (password, again) = (Zeroizing::new(password), Zeroizing::new(again));
    // Before the token is used: it works once.
    if password != again {
        let error = Error::invalid("again", "the two passwords differ");
        return ask(&fleet, &token, Some(&error)).await;
    }
    let user = match fleet.setup().use_link(&token, &password, connection.ip()).await {
        Ok(user) => user,
        Err(error) => {
            record_refusal(&fleet, &connection, &headers, "setup link", &error);
            return ask(&fleet, &token, Some(&error)).await;
        }
    };
    match fleet.sign_in().log_in(&user.name, &password, connection.ip()).await {
        Ok(new) => to(&Link::to("/"), credentials::session_cookie(&new.cookie, connection.is_tls())),
        Err(error) => failure::outside(&error),
    }
}
