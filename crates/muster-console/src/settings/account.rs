//! `/settings/account`: the person's own password, sessions, theme and time zone.

use std::sync::Arc;

use askama::Template;
use axum::extract::State;
use axum::http::header::SET_COOKIE;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::Response;
use muster_core::Error;
use muster_core::authorization::PrivilegeName;
use muster_core::identity::Session;
use muster_core::time::Timestamp;
use muster_fleet::Fleet;
use muster_management::credentials;
use muster_management::error::status_of;
use serde::Deserialize;
use zeroize::Zeroizing;

use super::side::Side;
use super::{TAB, shown};
use crate::confirm::Confirm;
use crate::elsewhere::{cli, curl};
use crate::frame::{Frame, page};
use crate::links::{Link, page_of_form};
use crate::preferences::{self, Preferences};
use crate::request::{Id, Posted, Pressed};
use crate::text::Moment;
use crate::visitor::Visitor;
use crate::{failure, log_in, notice};

/// Path of the page.
const PATH: &str = "/settings/account";

#[derive(Template)]
#[template(path = "settings/account.html")]
struct AccountPage {
    frame: Frame,
    side: Side,
    zone: String,
    has_password: bool,
    sessions: Vec<Row>,
    privileges: Vec<(&'static str, &'static str)>,
    error: Option<Error>,
}

struct Row {
    id: String,
    since: Moment,
    until: Moment,
    address: String,
    used: Option<Moment>,
    is_this: bool,
}

/// Shows the page.
pub async fn show(State(fleet): State<Arc<Fleet>>, visitor: Visitor, headers: HeaderMap) -> Response {
    render(&fleet, &visitor, &headers, None, None).await
}

/// Shows the page; after a form was rejected, with the time zone that was typed.
async fn render(
    fleet: &Fleet,
    visitor: &Visitor,
    headers: &HeaderMap,
    zone: Option<String>,
    error: Option<Error>,
) -> Response {
    let made = async {
        let user = fleet.sign_in().user(&visitor.context).await?;
        let this = credentials::session(headers);
        let now = fleet.now();
        let sessions = fleet.sessions().own(&visitor.context).await?;
        let own = visitor.context.privileges_in_space();
        Ok(AccountPage {
            frame: Frame::new(visitor, "My account", TAB),
            side: Side::new(visitor, PATH),
            zone: zone.unwrap_or_else(|| Preferences::current().zone_name()),
            has_password: user.is_some_and(|user| user.password.is_some()),
            sessions: sessions.into_iter().map(|one| row(&one, this.as_ref() == Some(&one.key_id), now)).collect(),
            privileges: PrivilegeName::ALL
                .iter()
                .filter(|name| own.contains(**name))
                .map(|name| (name.as_str(), name.about()))
                .collect(),
            error,
        })
    };
    match made.await {
        Ok(shown) => page(shown.error.as_ref().map_or(StatusCode::OK, |error| status_of(error.kind)), &shown),
        Err(error) => failure::inside(visitor, &error, TAB),
    }
}

fn row(session: &Session, is_this: bool, now: Timestamp) -> Row {
    Row {
        id: session.key_id.to_string(),
        since: Moment::new(session.created_at, now),
        until: Moment::new(session.expires_at, now),
        address: session.address.clone().unwrap_or_default(),
        used: Moment::of(session.last_used_at, now),
        is_this,
    }
}

/// The form of the password.
#[derive(Default, Deserialize)]
#[serde(default)]
pub struct PasswordFields {
    current: String,
    password: String,
    again: String,
}

/// Changes the password, which ends all sessions.
pub async fn set_password(
    State(fleet): State<Arc<Fleet>>,
    headers: HeaderMap,
    Posted(visitor, PasswordFields { current, password, again }): Posted<PasswordFields>,
) -> Response {
    let (current, password, again) = (Zeroizing::new(current), Zeroizing::new(password), Zeroizing::new(again));
    let made = async {
        if password != again {
            return Err(Error::invalid("again", "the two passwords differ"));
        }
        fleet.users().change_own_password(&visitor.context, &current, &password).await
    };
    match made.await {
        Ok(()) => notice::redirect(Link::to(log_in::PATH), "The password is changed. Log in with the new one."),
        Err(error) => render(&fleet, &visitor, &headers, None, Some(error)).await,
    }
}

/// Ends one session.
pub async fn end(State(fleet): State<Arc<Fleet>>, Pressed(visitor): Pressed, Id(id): Id) -> Response {
    let made = async {
        fleet.sessions().end_own(&visitor.context, &id).await?;
        Ok::<_, Error>(notice::redirect(visitor.base.link(PATH), "The session is ended."))
    };
    made.await.unwrap_or_else(|error| failure::inside(&visitor, &error, TAB))
}

/// Asks before all sessions end.
pub async fn ask_to_end_all(State(fleet): State<Arc<Fleet>>, visitor: Visitor) -> Response {
    let made = async {
        let sessions = fleet.sessions().own(&visitor.context).await?.len();
        Ok(Confirm {
            text: vec![format!(
                "{}, with the tokens of commands that you have logged in from a browser.",
                if sessions > 1 {
                    format!("{sessions} sessions end, this one too")
                } else {
                    "This session ends".to_owned()
                }
            )],
            button: "Log out everywhere",
            cli: cli(&visitor, "logout"),
            api: curl(&visitor, "DELETE", "/api/v1/session", ""),
            ..Confirm::new(
                &visitor,
                "Log out everywhere?",
                TAB,
                visitor.base.link(format_args!("{PATH}/sign-out")),
                visitor.base.link(PATH),
            )
        })
    };
    shown(&visitor, TAB, made.await)
}

/// Ends all sessions.
pub async fn end_all(State(fleet): State<Arc<Fleet>>, Pressed(visitor): Pressed) -> Response {
    let made = async {
        fleet.sessions().end_all_own(&visitor.context).await?;
        Ok::<_, Error>(notice::redirect(Link::to(log_in::PATH), "You are logged out everywhere."))
    };
    made.await.unwrap_or_else(|error| failure::inside(&visitor, &error, TAB))
}

/// The forms of the theme and the time zone.
#[derive(Default, Deserialize)]
#[serde(default)]
pub struct Shown {
    theme: String,
    zone: String,
}

/// Sets the theme, and returns to the page on which it was chosen.
pub async fn set_theme(headers: HeaderMap, Posted(visitor, Shown { theme, .. }): Posted<Shown>) -> Response {
    match preferences::theme_cookie(&theme) {
        Ok(cookie) => back(&headers, &visitor, cookie),
        Err(error) => failure::inside(&visitor, &error, TAB),
    }
}

/// Returns to the page of this server that a form was on.
fn back(headers: &HeaderMap, visitor: &Visitor, cookie: HeaderValue) -> Response {
    let page = page_of_form(headers).map_or_else(|| visitor.base.link(PATH), |path| Link::to(&path));
    log_in::to(&page, Ok(cookie))
}

/// Sets the time zone.
pub async fn set_zone(
    State(fleet): State<Arc<Fleet>>,
    headers: HeaderMap,
    Posted(visitor, Shown { zone, .. }): Posted<Shown>,
) -> Response {
    match preferences::zone_cookie(zone.trim()) {
        Ok(cookie) => {
            let mut response = notice::redirect(visitor.base.link(PATH), "The time zone is saved.");
            response.headers_mut().append(SET_COOKIE, cookie);
            response
        }
        Err(error) => render(&fleet, &visitor, &headers, Some(zone), Some(error)).await,
    }
}
