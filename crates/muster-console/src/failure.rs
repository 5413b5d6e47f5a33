//! Pages that report an error.

use askama::Template;
use axum::http::HeaderValue;
use axum::http::header::RETRY_AFTER;
use axum::response::Response;
use muster_core::id::SpaceId;
use muster_core::reported::is_deceptive;
use muster_core::{Error, ErrorKind};
use muster_management::error::status_of;

use crate::frame::{Frame, page};
use crate::links::Base;
use crate::visitor::Visitor;

#[derive(Template)]
#[template(path = "failure.html")]
struct Failure<'a> {
    frame: Frame,
    message: String,
    remedy: Option<&'a str>,
    /// The spaces in which the person has rights, if that is what is missing here.
    spaces: Vec<SpaceId>,
}

/// Renders an error for a person who is logged in.
pub fn inside(visitor: &Visitor, error: &Error, tab: &'static str) -> Response {
    let spaces = if error.kind == ErrorKind::Forbidden { visitor.other_spaces() } else { Vec::new() };
    render(Frame::new(visitor, title(error.kind), tab), error, spaces)
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
    render(Frame::outside(title(error.kind)), error, Vec::new())
}

fn render(frame: Frame, error: &Error, spaces: Vec<SpaceId>) -> Response {
    if let Some(cause) = &error.source {
        tracing::warn!(code = error.code, %cause, "cannot show a page");
    }
    let shown = Failure { frame, message: visible(&error.message), remedy: error.remedy.as_deref(), spaces };
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
