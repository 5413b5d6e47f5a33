//! `/login`: login with a password, or at an OpenID provider.

use std::sync::Arc;

use askama::Template;
use axum::body::Body;
use axum::extract::{Query, State};
use axum::http::header::{LOCATION, SET_COOKIE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Redirect, Response};
use muster_core::id::ProviderId;
use muster_core::{Error, ErrorKind};
use muster_fleet::Fleet;
use muster_management::credentials;
use muster_management::entry::{Connection, record_refusal};
use muster_management::error::status_of;
use muster_management::form;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use zeroize::Zeroizing;

use crate::failure;
use crate::frame::{Frame, page};
use crate::links::Link;
use crate::visitor::Visitor;

/// Path of the login page.
pub const PATH: &str = "/login";
/// Path of the form that ends a session.
pub const LOG_OUT: &str = "/logout";

/// Code of the error for a form whose session has ended.
const SESSION_ENDED: &str = "session_ended";

/// Parameters of the page.
#[derive(Default, Deserialize)]
#[serde(default)]
pub struct Asked {
    return_to: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Fields {
    username: String,
    password: String,
    return_to: String,
    /// Not empty: the page was the response to a form.
    after_form: String,
}

#[derive(Template)]
#[template(path = "log_in.html")]
struct LogInPage<'a> {
    frame: Frame,
    /// The providers, and the links to them.
    providers: Vec<(String, Link)>,
    username: &'a str,
    return_to: &'a str,
    error: Option<&'a Error>,
    /// Whether the page is the response to a form, whose session has ended.
    is_after_form: bool,
    /// Whether reloading the page sends that form again, and not one of this page.
    is_first: bool,
}

/// Shows the page.
pub async fn show(State(fleet): State<Arc<Fleet>>, Query(asked): Query<Asked>) -> Response {
    ask(&fleet, "", &asked.return_to, None, false).await
}

/// Shows the page in response to a form that was not processed, because its session has ended. After the login, the browser
/// returns to the page of the form.
pub async fn instead_of_a_form(fleet: &Fleet, return_to: &str) -> Response {
    let error = Error::new(ErrorKind::Unauthenticated, SESSION_ENDED, "your session has ended; nothing was saved")
        .remedy("log in in another tab, then reload this page, which sends the form again");
    ask(fleet, "", return_to, Some(&error), true).await
}

/// Shows the page with the reason why a login at a provider has failed.
pub async fn refused(fleet: &Fleet, return_to: &str, error: &Error) -> Response {
    ask(fleet, "", return_to, Some(error), false).await
}

async fn ask(fleet: &Fleet, username: &str, return_to: &str, error: Option<&Error>, is_after_form: bool) -> Response {
    let choices = match fleet.providers().choices().await {
        Ok(choices) => choices,
        Err(error) => return failure::outside(&error),
    };
    let back = utf8_percent_encode(inner(return_to), NON_ALPHANUMERIC).to_string();
    let link = |id: &ProviderId| (id.to_string(), Link::to(&format!("/api/v1/login/oidc/{id}?return_to={back}")));
    let providers = choices.iter().map(link).collect();
    let frame = Frame::outside("Log in");
    let is_first = error.is_some_and(|error| error.code == SESSION_ENDED);
    let shown = LogInPage { frame, providers, username, return_to: inner(return_to), error, is_after_form, is_first };
    let shown = page(error.map_or(StatusCode::OK, |error| status_of(error.kind)), &shown);
    failure::with_retry(shown, error)
}

/// Logs in with a password, and returns to the page that was requested.
pub async fn log_in(
    State(fleet): State<Arc<Fleet>>,
    connection: Connection,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let Fields { username, password, return_to, after_form } = match form::read(&headers, body).await {
        Ok(fields) => fields,
        Err(error) => return failure::outside(&error),
    };
    let password = Zeroizing::new(password);
    let is_after_form = !after_form.is_empty();
    match fleet.sign_in().log_in(&username, &password, connection.ip()).await {
        Ok(new) => to(&Link::to(inner(&return_to)), credentials::session_cookie(&new.cookie, connection.is_tls())),
        Err(error) => {
            record_refusal(&fleet, &connection, &headers, &username, &error);
            ask(&fleet, &username, &return_to, Some(&error), is_after_form).await
        }
    }
}

/// The address that ends a session, as people type it: leads to the overview.
pub async fn overview() -> Redirect {
    Redirect::to(Link::to("/").as_str())
}

/// Ends the session. Without one, there is nothing to do.
pub async fn log_out(
    State(fleet): State<Arc<Fleet>>,
    visitor: Result<Visitor, Response>,
    connection: Connection,
    headers: HeaderMap,
) -> Response {
    let visitor = match visitor {
        Ok(visitor) => visitor,
        Err(refused) if refused.status() == StatusCode::UNAUTHORIZED => {
            return Redirect::to(Link::to(PATH).as_str()).into_response();
        }
        Err(refused) => return refused,
    };
    let ended = match (credentials::check_same_origin(&headers), credentials::cookie(&headers)) {
        (Err(error), _) => Err(error),
        (Ok(()), Some(key)) => fleet.sign_in().log_out(&visitor.context, &key).await,
        (Ok(()), None) => Ok(()),
    };
    match ended {
        Ok(()) => to(&Link::to(PATH), credentials::set_cookie(credentials::COOKIE, "", 0, connection.is_tls())),
        Err(error) => failure::inside(&visitor, &error, ""),
    }
}

/// Sends a browser to another page, with a cookie.
pub fn to(page: &Link, cookie: Result<HeaderValue, Error>) -> Response {
    match (HeaderValue::from_str(page.as_str()), cookie) {
        (Ok(path), Ok(cookie)) => (StatusCode::SEE_OTHER, [(LOCATION, path), (SET_COOKIE, cookie)]).into_response(),
        (_, Err(error)) => failure::outside(&error),
        (Err(error), _) => failure::outside(&Error::internal(error)),
    }
}

/// Returns a path of this server; the start page for anything else, so that no link can lead to another site after a login.
fn inner(path: &str) -> &str {
    let is_inner = path.starts_with('/')
        && !path.starts_with("//")
        && !path.contains(['\\', '\r', '\n', '\t'])
        && !path.starts_with(PATH)
        && path.is_ascii();
    if is_inner { path } else { "/" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_returns_only_to_pages_of_this_server() {
        for path in ["/", "/agents?q=status%3Aonline", "/s/shop/agents/a-1"] {
            assert_eq!(inner(path), path);
        }
        for path in ["", "//evil.example", "/\\evil.example", "https://evil.example", "/a\r\nb", "/login?return_to=/"] {
            assert_eq!(inner(path), "/", "{path:?}");
        }
    }
}
