//! `/device`: the page on which a person approves the login of a device. Plain HTML, without scripts, to which the pages for
//! administrators add their frame.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Query, State};
use axum::http::header::{LOCATION, SET_COOKIE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use muster_core::id::ProviderId;
use muster_core::identity::{DeviceLogIn, UserCode};
use muster_core::{Error, ErrorKind};
use muster_fleet::Fleet;
use serde::Deserialize;
use zeroize::Zeroizing;

use super::browser;
use super::devices::PAGE;
use super::html::{self, escaped};
use crate::base_path::BasePath;
use crate::credentials;
use crate::entry::{Connection, record_refusal};
use crate::error::status_of;
use crate::form;

/// Path of the page.
pub const PATH: &str = PAGE;

/// What the address and the forms of the page contain.
#[derive(Default, Deserialize)]
#[serde(default)]
pub struct Fields {
    user_code: String,
    decision: Option<Choice>,
    username: String,
    password: String,
}

/// The button that a person pressed.
#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Choice {
    LogIn,
    Approve,
    Deny,
}

/// Shows the page: a form for the code, the device of a code, or how to log in.
pub async fn show(
    State(fleet): State<Arc<Fleet>>,
    connection: Connection,
    headers: HeaderMap,
    Query(fields): Query<Fields>,
) -> Response {
    let Some(context) = browser::caller(&fleet, &connection, &headers).await else {
        return match fleet.providers().choices().await {
            Ok(choices) => page(StatusCode::OK, &log_in(&fields.user_code, &choices)),
            Err(error) => failure(&error),
        };
    };
    if fields.user_code.is_empty() {
        return page(StatusCode::OK, &code_form());
    }
    match fleet.devices().find(&context, &fields.user_code).await {
        Ok(device) => page(StatusCode::OK, &question(&device)),
        Err(error) => failure(&error),
    }
}

/// Does what a form of the page says.
pub async fn act(State(fleet): State<Arc<Fleet>>, connection: Connection, headers: HeaderMap, body: Body) -> Response {
    match decide(&fleet, &connection, &headers, body).await {
        Ok(response) => response,
        Err(error) => failure(&error),
    }
}

async fn decide(fleet: &Fleet, connection: &Connection, headers: &HeaderMap, body: Body) -> Result<Response, Error> {
    let fields: Fields = form::read(headers, body).await?;
    if matches!(fields.decision, Some(Choice::LogIn)) {
        let password = Zeroizing::new(fields.password);
        let found = fleet.sign_in().log_in(&fields.username, &password, connection.ip()).await;
        let new = found.inspect_err(|error| record_refusal(fleet, connection, headers, &fields.username, error))?;
        let cookie = credentials::session_cookie(&new.cookie, connection.is_tls())?;
        let back = format!("{}{}", BasePath::current(), address(&fields.user_code));
        let back = HeaderValue::from_str(&back).map_err(Error::internal)?;
        return Ok((StatusCode::SEE_OTHER, [(LOCATION, back), (SET_COOKIE, cookie)]).into_response());
    }
    let context = browser::caller(fleet, connection, headers).await.ok_or_else(|| {
        Error::new(ErrorKind::Unauthenticated, "unauthenticated", "the session has ended; open the page again")
    })?;
    let context = context.coming_from(connection.ip().map(|ip| ip.to_string().into()), None);
    let (device, outcome) = match fields.decision {
        Some(Choice::Approve) => {
            let session = credentials::session(headers);
            (fleet.devices().approve(&context, session.as_ref(), &fields.user_code).await?, "is logged in now")
        }
        Some(Choice::Deny) => (fleet.devices().deny(&context, &fields.user_code).await?, "was denied"),
        Some(Choice::LogIn) | None => return Err(Error::invalid("decision", "must be approve or deny")),
    };
    let text = format!("<p>{} {outcome}. You can close this page.</p>", escaped(&name(&device)));
    Ok(page(StatusCode::OK, &text))
}

/// Returns the path of the page with a code, if it has the form of one.
fn address(code: &str) -> String {
    UserCode::parse(code).map_or_else(|| PATH.to_owned(), |code| format!("{PATH}?user_code={}", code.shown()))
}

fn name(device: &DeviceLogIn) -> String {
    let named = if device.device.is_empty() { "a device" } else { &device.device };
    match &device.address {
        Some(address) => format!("{named} ({address})"),
        None => named.to_owned(),
    }
}

fn log_in(code: &str, providers: &[ProviderId]) -> String {
    let links = browser::links(providers, &address(code));
    format!(
        "<p>Log in to approve a device.</p>{links}\
         <form class=\"narrow\" method=\"post\"><input type=\"hidden\" name=\"user_code\" value=\"{}\">\
         <p><label>User name <input name=\"username\" autocomplete=\"username\" required></label></p>\
         <p><label>Password <input name=\"password\" type=\"password\" autocomplete=\"current-password\" required></label></p>\
         <p><button name=\"decision\" value=\"log_in\">Log in</button></p></form>",
        escaped(code)
    )
}

fn code_form() -> String {
    "<form class=\"narrow\"><p><label>Code that the device shows <input name=\"user_code\" autocomplete=\"off\" required></label></p>\
     <p><button>Continue</button></p></form>"
        .to_owned()
}

fn question(device: &DeviceLogIn) -> String {
    let code = device.user_code.shown();
    format!(
        "<p>{} asks to act as you, with all your privileges. Approve it only if you started the login there yourself, and it \
         shows the code <strong>{code}</strong>.</p>\
         <form class=\"narrow\" method=\"post\"><input type=\"hidden\" name=\"user_code\" value=\"{code}\">\
         <p><button name=\"decision\" value=\"approve\">Approve</button> \
         <button name=\"decision\" value=\"deny\">Deny</button></p></form>",
        escaped(&name(device))
    )
}

fn failure(error: &Error) -> Response {
    let remedy = error.remedy.as_deref().map(|text| format!("<p>{}</p>", escaped(text))).unwrap_or_default();
    let back = format!("<p><a href=\"{}{PATH}\">Back</a></p>", BasePath::current());
    page(status_of(error.kind), &format!("<p role=\"alert\">{}</p>{remedy}{back}", escaped(&error.message)))
}

fn page(status: StatusCode, content: &str) -> Response {
    html::page(status, "Log in a device", content)
}
