//! Pages that ask before an act.

use askama::Template;
use axum::http::StatusCode;
use axum::response::Response;
use muster_core::Error;
use muster_management::error::status_of;

use crate::failure;
use crate::frame::{Frame, page};
use crate::links::Link;
use crate::policies::differences::Changes;
use crate::visitor::Visitor;

/// A page that says what an act does and how much it affects, with a form that does it.
#[derive(Template)]
#[template(path = "confirm.html")]
pub struct Confirm {
    /// The frame; its title is the question.
    pub frame: Frame,
    /// What happens, and how many objects it affects. A paragraph each.
    pub text: Vec<String>,
    /// Why it cannot be done; empty if it can.
    pub refused: String,
    /// Where that can be changed.
    pub way_out: Option<(Link, &'static str)>,
    /// The differences that it makes.
    pub changes: Option<Changes>,
    /// Path that the form is sent to.
    pub action: Link,
    /// What the form carries.
    pub hidden: Vec<(&'static str, String)>,
    /// Whether to change the policy even if it is managed; `None` if it is not.
    pub force: Option<bool>,
    /// The reason for the audit log; `None` if none is asked for.
    pub reason: Option<String>,
    /// Text of the button.
    pub button: &'static str,
    /// Text of the link that does nothing.
    pub keep: &'static str,
    /// Whether the button warns: for what cannot be undone.
    pub is_dangerous: bool,
    /// Path of the page to which the person returns otherwise.
    pub back: Link,
    /// Why the act has failed.
    pub error: Option<Error>,
    /// The same as a command; empty if there is none.
    pub cli: String,
    /// The same as a request to the API; empty if there is none.
    pub api: String,
}

impl Confirm {
    /// Creates a page under a tab, whose form goes to `action`.
    pub fn new(visitor: &Visitor, title: impl Into<String>, tab: &'static str, action: Link, back: Link) -> Self {
        let [refused, cli, api] = [const { String::new() }; 3];
        Self {
            frame: Frame::new(visitor, title, tab),
            text: Vec::new(),
            refused,
            way_out: None,
            changes: None,
            action,
            hidden: Vec::new(),
            force: None,
            reason: None,
            button: "",
            keep: "Cancel",
            is_dangerous: true,
            back,
            error: None,
            cli,
            api,
        }
    }

    /// Creates a page that asks before an act on an object, such as its deletion. `page` is the path of the object's page below the space,
    /// to which the person returns otherwise; the form goes to the act's path below it.
    pub fn of(visitor: &Visitor, title: impl Into<String>, tab: &'static str, page: &str, act: &str) -> Self {
        let action = visitor.base.link(format_args!("{page}/{act}"));
        Self::new(visitor, title, tab, action, visitor.base.link(page))
    }
}

/// Responds with the page, or with the error that prevented it.
pub fn shown(visitor: &Visitor, tab: &'static str, made: Result<Confirm, Error>) -> Response {
    match made {
        Ok(confirm) => page(confirm.error.as_ref().map_or(StatusCode::OK, |error| status_of(error.kind)), &confirm),
        Err(error) => failure::inside(visitor, &error, tab),
    }
}
