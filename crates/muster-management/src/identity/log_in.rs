//! `/login/oidc`: login of browsers at an OpenID provider.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::header::{CACHE_CONTROL, LOCATION, SET_COOKIE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use muster_core::Error;
use muster_core::identity::LOG_IN_LIFETIME;
use muster_fleet::Fleet;
use muster_fleet::identity::federation::{Begun, Finished, Returned};
use muster_protocol::management::envelope::Whole;
use muster_protocol::management::log_in::{BeginLogIn, LogInCallback, LogInChoice};

use crate::answer::{Answer, whole};
use crate::base_path::BasePath;
use crate::credentials;
use crate::endpoints::Endpoint;
use crate::entry::{Connection, record_refusal};
use crate::error::ApiError;
use crate::openapi::{Operation, Responds};
use crate::query::Query;

/// Name of the cookie of a login that has begun.
const COOKIE: &str = "muster_log_in";
/// Maximum length of the cookie, bytes.
const MAX_COOKIE: usize = 4_096;

/// Endpoints for logins at OpenID providers. Browsers follow links to them, and have no credentials yet.
pub fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::get("/v1/login/oidc", choices).about("List the OpenID providers of the login page").public(),
        Endpoint::get("/v1/login/oidc/{provider}", begin).about("Send a browser to an OpenID provider").public(),
        Endpoint::get("/v1/login/oidc/{provider}/callback", finish)
            .about("Finish a login through an OpenID provider")
            .public(),
    ]
}

/// Lists the providers that a login page offers.
async fn choices(State(fleet): State<Arc<Fleet>>) -> Answer<Whole<LogInChoice>> {
    let all = fleet.providers().choices().await?;
    Ok(whole(all.into_iter().map(|id| LogInChoice { id: id.to_string() }).collect()))
}

async fn begin(
    State(fleet): State<Arc<Fleet>>,
    connection: Connection,
    headers: HeaderMap,
    Path(provider): Path<String>,
    Query(query): Query<BeginLogIn>,
) -> Result<Redirect, LogInRefused> {
    let refused = |error| LogInRefused { error, return_to: query.return_to.clone().unwrap_or_default() };
    let begun = fleet.federation().begin(&provider, query.return_to.as_deref(), connection.ip()).await;
    let begun = begun.inspect_err(|error| record_refusal(&fleet, &connection, &headers, &provider, error));
    begun.and_then(|begun| sent_to_provider(&connection, &begun)).map_err(refused)
}

fn sent_to_provider(connection: &Connection, begun: &Begun) -> Result<Redirect, Error> {
    let lifetime = LOG_IN_LIFETIME.as_secs();
    let cookie = credentials::set_cookie(COOKIE, &begun.cookie, lifetime, is_secure(connection, &begun.own_url))?;
    Redirect::new(&begun.url, [cookie].into())
}

async fn finish(
    State(fleet): State<Arc<Fleet>>,
    connection: Connection,
    headers: HeaderMap,
    Path(provider): Path<String>,
    Query(query): Query<LogInCallback>,
) -> Result<Redirect, LogInRefused> {
    let LogInCallback { code, state, iss: issuer, error, error_description } = query;
    let returned = Returned { code, state, issuer, error, error_description };
    let cookie = muster_listen::cookie(&headers, COOKIE).filter(|content| content.len() <= MAX_COOKIE);
    let finished = fleet.federation().finish(&provider, cookie, &returned, connection.ip()).await;
    let finished = finished.inspect_err(|error| record_refusal(&fleet, &connection, &headers, &provider, error));
    match finished.and_then(|finished| logged_in(&connection, &finished)) {
        Ok(redirect) => Ok(redirect),
        Err(error) => {
            let return_to = fleet.federation().return_to(&provider, cookie).await.unwrap_or_default();
            Err(LogInRefused { error, return_to })
        }
    }
}

fn logged_in(connection: &Connection, finished: &Finished) -> Result<Redirect, Error> {
    let secure = is_secure(connection, &finished.own_url);
    let session = credentials::session_cookie(&finished.session.cookie, secure)?;
    let used = credentials::set_cookie(COOKIE, "", 0, secure)?;
    let page = format!("{}{}", BasePath::current(), finished.return_to);
    Redirect::new(&page, vec![session, used])
}

/// Whether browsers reach the API over TLS, which a proxy may end.
fn is_secure(connection: &Connection, own_url: &str) -> bool {
    connection.is_tls() || own_url.starts_with("https://")
}

/// A login that was refused: an error of the API, whose response also carries this for the pages.
#[derive(Clone, Debug)]
pub struct LogInRefused {
    /// Why.
    pub error: Error,
    /// Path that the browser was to return to; empty if it is unknown.
    pub return_to: String,
}

impl IntoResponse for LogInRefused {
    fn into_response(self) -> Response {
        let mut response = ApiError(self.error.clone()).into_response();
        response.extensions_mut().insert(self);
        response
    }
}

/// Sends a browser elsewhere, with cookies.
struct Redirect {
    location: HeaderValue,
    cookies: Vec<HeaderValue>,
}

impl Redirect {
    fn new(location: &str, cookies: Vec<HeaderValue>) -> Result<Self, Error> {
        let location = HeaderValue::from_str(location).map_err(Error::internal)?;
        Ok(Self { location, cookies })
    }
}

impl IntoResponse for Redirect {
    fn into_response(self) -> Response {
        let mut response = StatusCode::FOUND.into_response();
        let headers = response.headers_mut();
        headers.insert(LOCATION, self.location);
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        for cookie in self.cookies {
            headers.append(SET_COOKIE, cookie);
        }
        response
    }
}

impl<E> Responds for Result<Redirect, E> {
    fn describe(to: &mut Operation<'_>) {
        to.redirects();
    }
}
