//! Pages that ask before something that cannot be undone.

use askama::Template;

use crate::frame::Frame;

/// A page that says what an act does and how much it affects, with a form that does it.
#[derive(Template)]
#[template(path = "confirm.html")]
pub struct Confirm {
    /// The frame; its title is the question.
    pub frame: Frame,
    /// What happens, and how many objects it affects. A paragraph each.
    pub text: Vec<String>,
    /// Path that the form is sent to.
    pub action: String,
    /// Text of the button.
    pub button: &'static str,
    /// Path of the page to which the person returns otherwise.
    pub back: String,
    /// The same as a command.
    pub cli: String,
    /// The same as a request to the API.
    pub api: String,
}
