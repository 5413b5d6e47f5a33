//! `/ui/kit`: every part of the design system on one page. Debug builds only.

use askama::Template;
use axum::http::StatusCode;
use axum::response::Response;
use muster_core::Error;
use muster_core::status::Status;

use crate::frame::{Frame, page};
use crate::text::Badge;
use crate::visitor::Visitor;

#[derive(Template)]
#[template(path = "settings/kit.html")]
struct Kit {
    frame: Frame,
    error: Option<Error>,
    badges: Vec<Badge>,
    /// The paths of all pages; `{…}` stands for an id. Tests and screenshots read them here.
    paths: Vec<&'static str>,
}

/// Shows the page.
pub async fn show(visitor: Visitor) -> Response {
    let mut frame = Frame::new(&visitor, "Design system", "");
    frame.notice = "A notice: the form has done what it should.".into();
    let error = Error::invalid("name", "another policy has this name").remedy("choose another name");
    let badges = Status::ALL.iter().copied().map(Badge).collect();
    let paths = crate::routes().into_iter().map(|(path, _)| path).collect();
    page(StatusCode::OK, &Kit { frame, error: Some(error), badges, paths })
}
