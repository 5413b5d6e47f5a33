//! `/software/installers/new`: the upload of a package.
//!
//! The page's script sends the package to the API in blocks, as the command line does: no request holds the whole file, each
//! block can be repeated, and a slow connection does not exceed the deadline of a request.

use askama::Template;
use axum::http::StatusCode;
use axum::response::Response;
use muster_core::authorization::InstallersWrite;
use muster_core::fleetd::platform::Platform;
use muster_core::installer::{BLOCK, MAX_BYTES};

use super::{INSTALLERS, INSTALLERS_API};
use crate::elsewhere::{cli, curl};
use crate::failure;
use crate::frame::{Frame, page};
use crate::hosts::TAB;
use crate::links::Link;
use crate::text::size;
use crate::visitor::Visitor;

#[derive(Template)]
#[template(path = "hosts/installer_new.html")]
struct UploadPage {
    frame: Frame,
    /// Endpoint to which the script sends the package.
    endpoint: Link,
    /// Path of the list, below which the page of the installer is.
    list: Link,
    /// Length of a block, bytes.
    block: u64,
    /// Maximum length of a package.
    largest: String,
    platforms: [&'static str; 3],
    cli: String,
    api: String,
}

/// Shows the form.
pub async fn ask(visitor: Visitor) -> Response {
    if let Err(error) = visitor.context.grant::<InstallersWrite>() {
        return failure::inside(&visitor, &error.into(), TAB);
    }
    let body = r#"{"file_name": "zsh_5.9-4_amd64.deb", "size": 800000}"#;
    let shown = UploadPage {
        frame: Frame::new(&visitor, "Upload an installer", TAB),
        endpoint: visitor.base.link(INSTALLERS_API),
        list: visitor.base.link(INSTALLERS),
        block: BLOCK,
        largest: size(MAX_BYTES),
        platforms: Platform::NAMES,
        cli: cli(&visitor, "software installer add FILE"),
        api: curl(&visitor, "POST", INSTALLERS_API, body),
    };
    page(StatusCode::OK, &shown)
}
