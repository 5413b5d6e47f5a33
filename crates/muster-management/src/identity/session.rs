//! `/session` and `/setup`: login and log-out of browsers, the caller's own rights and password, and set-up links.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::header::SET_COOKIE;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use muster_core::authorization::{Actor, OpContext};
use muster_core::identity::User as Record;
use muster_core::{Error, ErrorKind};
use muster_fleet::Fleet;
use muster_protocol::management::envelope::Whole;
use muster_protocol::management::identity::{ChangePassword, LogIn, LoggedIn, Session, UseSetupLink, User};
use muster_protocol::management::{Empty, Item};

use super::users;
use crate::answer::{Answer, item, whole};
use crate::body::Body;
use crate::convert::time;
use crate::credentials;
use crate::endpoints::Endpoint;
use crate::entry::{Caller, Connection, record_refusal};
use crate::error::ApiResult;

/// Endpoints for the caller itself.
pub fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::post("/v1/session", log_in).about("Log in with a password").public(),
        Endpoint::get("/v1/session", show).about("Get the caller and its privileges").for_everybody(),
        Endpoint::get("/v1/sessions", sessions).about("List the caller's sessions").for_everybody(),
        Endpoint::delete("/v1/session", log_out).about("Log out").for_everybody(),
        Endpoint::put("/v1/session/password", change_password).about("Change the caller's password").for_everybody(),
        Endpoint::post("/v1/setup", use_setup_link).about("Set a password with a set-up link").public(),
    ]
}

/// A header that sets the cookie of a session.
type Cookie = [(HeaderName, HeaderValue); 1];

async fn log_in(
    State(fleet): State<Arc<Fleet>>,
    connection: Connection,
    headers: HeaderMap,
    Body(body): Body<LogIn>,
) -> ApiResult<(Cookie, Json<Item<Session>>)> {
    // A page of another site could otherwise log its visitor in as somebody else.
    credentials::check_not_cross_site(&headers)?;
    let found = fleet.sign_in().log_in(&body.username, &body.password, connection.ip()).await;
    let new = found.inspect_err(|error| record_refusal(&fleet, &connection, &headers, &body.username, error))?;
    let cookie = credentials::session_cookie(&new.cookie, connection.is_tls());
    let shown = Session {
        actor: Actor::User(new.user.id.clone()).to_string(),
        user: Some(users::user(new.user)),
        expires_at: Some(time(new.session.expires_at)),
        ..Session::default()
    };
    Ok(([(SET_COOKIE, cookie?)], item(shown)))
}

async fn show(State(fleet): State<Arc<Fleet>>, Caller(context): Caller) -> Answer<Item<Session>> {
    let user = fleet.sign_in().user(&context).await?.map(users::user);
    Ok(item(session(&context, user)))
}

async fn sessions(State(fleet): State<Arc<Fleet>>, Caller(context): Caller) -> Answer<Whole<LoggedIn>> {
    Ok(whole(fleet.sessions().own(&context).await?.into_iter().map(users::logged_in).collect()))
}

fn session(context: &OpContext, user: Option<User>) -> Session {
    let in_space = context.privileges_in_space();
    Session {
        actor: context.actor().to_string(),
        user,
        space: context.space().to_string(),
        privileges: in_space.iter().map(|name| name.as_str().to_owned()).collect(),
        expires_at: None,
    }
}

async fn log_out(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    connection: Connection,
    headers: HeaderMap,
) -> ApiResult<(Cookie, Json<Empty>)> {
    let Some(key) = credentials::cookie(&headers) else {
        return Err(Error::new(ErrorKind::Invalid, "no_session", "the request has no session to end")
            .remedy("to revoke an API token, use DELETE /api/v1/tokens/{id}")
            .into());
    };
    fleet.sign_in().log_out(&context, &key).await?;
    let ended = credentials::set_cookie(credentials::COOKIE, "", 0, connection.is_tls())?;
    Ok(([(SET_COOKIE, ended)], Json(Empty {})))
}

async fn change_password(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    Body(body): Body<ChangePassword>,
) -> Answer<Empty> {
    fleet.users().change_own_password(&context, &body.current_password, &body.password).await?;
    Ok(Json(Empty {}))
}

async fn use_setup_link(
    State(fleet): State<Arc<Fleet>>,
    connection: Connection,
    headers: HeaderMap,
    Body(body): Body<UseSetupLink>,
) -> Answer<Item<User>> {
    credentials::check_not_cross_site(&headers)?;
    let found = fleet.setup().use_link(&body.token, &body.password, connection.ip()).await;
    let user: Record = found.inspect_err(|error| record_refusal(&fleet, &connection, &headers, "setup link", error))?;
    Ok(item(users::user(user)))
}
