//! Pages that report an error.

use askama::Template;
use axum::response::Response;
use muster_core::{Error, ErrorKind};
use muster_management::error::status_of;

use crate::frame::{Frame, page};
use crate::visitor::Visitor;

#[derive(Template)]
#[template(path = "failure.html")]
struct Failure<'a> {
    frame: Frame,
    message: &'a str,
    remedy: Option<&'a str>,
    /// The spaces in which the person has rights, if that is what is missing here.
    spaces: Vec<String>,
}

/// Renders an error for a person who is logged in.
pub fn inside(visitor: &Visitor, error: &Error, tab: &'static str) -> Response {
    let spaces = if error.kind == ErrorKind::Forbidden { visitor.other_spaces() } else { Vec::new() };
    render(Frame::new(visitor, title(error.kind), tab), error, spaces)
}

/// Renders an error for somebody whose session is unknown.
pub fn outside(error: &Error) -> Response {
    render(Frame::outside(title(error.kind)), error, Vec::new())
}

fn render(frame: Frame, error: &Error, spaces: Vec<String>) -> Response {
    if let Some(cause) = &error.source {
        tracing::warn!(code = error.code, %cause, "cannot show a page");
    }
    let shown = Failure { frame, message: &error.message, remedy: error.remedy.as_deref(), spaces };
    page(status_of(error.kind), &shown)
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
