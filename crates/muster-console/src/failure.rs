//! Pages that report an error.

use askama::Template;
use axum::http::HeaderValue;
use axum::http::header::RETRY_AFTER;
use axum::response::Response;
use muster_core::authorization::{BuiltIn, Forbidden, PrivilegeName};
use muster_core::id::SpaceId;
use muster_core::reported::{is_deceptive, shortened_to};
use muster_core::{Error, ErrorKind};
use muster_management::error::status_of;

use crate::frame::{Frame, page};
use crate::links::Base;
use crate::text::sentence;
use crate::visitor::Visitor;

/// Maximum length of a message, bytes.
const LONGEST: usize = 400;

#[derive(Template)]
#[template(path = "failure.html")]
struct Failure {
    frame: Frame,
    message: String,
    remedy: Option<String>,
    /// The spaces in which the person has rights, if that is what is missing here.
    spaces: Vec<SpaceId>,
    /// Whether the page offers the overview.
    has_way_out: bool,
    /// Whether the page offers the list under whose tab it is: what is missing is not there any more.
    has_list: bool,
}

/// Renders an error for a person who is logged in.
pub fn inside(visitor: &Visitor, error: &Error, tab: &'static str) -> Response {
    let frame = Frame::new(visitor, title(error.kind), tab);
    if error.kind == ErrorKind::Forbidden && visitor.context.entitlements().is_empty() {
        let no_role = Error::new(ErrorKind::Forbidden, "forbidden", "you have no role in this space yet")
            .remedy("ask an administrator to give you one, under Settings, Users");
        return render(frame, &no_role, Vec::new(), false);
    }
    let spaces = if error.kind == ErrorKind::Forbidden { visitor.other_spaces() } else { Vec::new() };
    let remedy = error.remedy.clone().or_else(|| missing_privilege(error).map(explained));
    // The overview itself may be what failed.
    render(frame, &Error { remedy, ..error.clone() }, spaces, tab != "/")
}

/// Returns the privilege that an error is about.
fn missing_privilege(error: &Error) -> Option<PrivilegeName> {
    let privilege = error.message.split(' ').nth(2)?.parse().ok()?;
    let is_missing = error.kind == ErrorKind::Forbidden && error.message == Forbidden(privilege).to_string();
    is_missing.then_some(privilege)
}

/// Says what a privilege is for, and how people get it.
fn explained(privilege: PrivilegeName) -> String {
    let about = privilege.about().trim_end_matches('.');
    let (first, rest) = about.split_at_checked(1).unwrap_or_default();
    let roles = BuiltIn::ALL.map(BuiltIn::record).into_iter().filter(|role| role.privileges.gives(privilege));
    let roles = roles.map(|role| role.name).collect::<Vec<_>>().join(", ");
    format!(
        "it is needed to {}{rest}. Built-in roles that have it: {roles}. Ask an administrator for one.",
        first.to_lowercase()
    )
}

/// Says when a rejected form can be sent again, if that is known.
pub fn with_retry(mut response: Response, error: Option<&Error>) -> Response {
    if let Some(seconds) = error.and_then(|error| error.retry_after) {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds.get()));
    }
    response
}

/// Renders an error for somebody whose session is unknown.
pub fn outside(error: &Error) -> Response {
    render(Frame::outside(title(error.kind)), error, Vec::new(), true)
}

fn render(frame: Frame, error: &Error, spaces: Vec<SpaceId>, has_way_out: bool) -> Response {
    if let Some(cause) = &error.source {
        tracing::warn!(code = error.code, %cause, "cannot show a page");
    }
    // An address may be of any length, too.
    let message = sentence(&visible(&shortened_to(&error.message, LONGEST)));
    let has_list = error.kind == ErrorKind::NotFound;
    let remedy = error.remedy.as_deref().map(sentence);
    let shown = Failure { frame, message, remedy, spaces, has_way_out, has_list };
    with_retry(page(status_of(error.kind), &shown), Some(error))
}

/// Writes characters that no page shows as escapes: an address may contain any.
fn visible(message: &str) -> String {
    let escape = |c: char| {
        if is_deceptive(c) && !matches!(c, '\n' | '\t') { c.escape_unicode().to_string() } else { c.to_string() }
    };
    message.chars().map(escape).collect()
}

const fn title(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::Invalid => "Invalid request",
        ErrorKind::Unauthenticated => "Login required",
        ErrorKind::Forbidden => "Not permitted",
        ErrorKind::NotFound => "Not found",
        ErrorKind::Conflict => "Conflict",
        ErrorKind::TooMany => "Too many requests",
        ErrorKind::Unavailable => "Temporarily unavailable",
        ErrorKind::Internal => "Internal error",
    }
}
