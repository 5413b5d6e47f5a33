//! `/fleetd/mdm`: the documents with which an MDM server delivers fleetd.

use std::sync::Arc;

use askama::Template;
use axum::body::Body;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use muster_core::authorization::{EnrollmentRead, EnrollmentReveal, PrivilegeName};
use muster_core::enrollment_key::KeyFamily;
use muster_core::fleetd::mdm::{Enrollment, check_sha256, check_url, command, profile};
use muster_core::{Error, shell};
use muster_fleet::Fleet;
use muster_management::error::status_of;
use muster_store::query::Page;
use serde::Deserialize;
use zeroize::Zeroizing;

use super::TAB;
use crate::download::download;
use crate::elsewhere::cli;
use crate::failure;
use crate::frame::{Frame, page};
use crate::request::Posted;
use crate::visitor::{May, Visitor};

/// Maximum number of enrollment keys that are searched for enroll secrets.
const KEYS: u32 = 1_000;

/// The form.
#[derive(Default, Deserialize)]
#[serde(default)]
pub struct Fields {
    platform: String,
    key: String,
    url: String,
    scripts: Option<String>,
    package_url: String,
    package_sha256: String,
}

#[derive(Template)]
#[template(path = "hosts/mdm.html")]
struct MdmPage {
    frame: Frame,
    fields: Fields,
    /// Enroll secrets with which hosts can enroll: id and name.
    keys: Vec<(String, String)>,
    error: Option<Error>,
    lacks_key: &'static str,
    cli: String,
}

/// Shows the form.
pub async fn show(State(fleet): State<Arc<Fleet>>, May { visitor, .. }: May<EnrollmentReveal>) -> Response {
    let url = fleet.urls().first().map(|url| url.to_string()).unwrap_or_default();
    render(&fleet, &visitor, Fields { url, ..Fields::default() }, None).await
}

async fn render(fleet: &Fleet, visitor: &Visitor, fields: Fields, error: Option<Error>) -> Response {
    let keys = match keys(fleet, visitor).await {
        Ok(keys) => keys,
        Err(error) => return failure::inside(visitor, &error, TAB),
    };
    let or = |text: &str, other: &str| if text.is_empty() { other.to_owned() } else { text.to_owned() };
    let platform = or(&fields.platform, "macos");
    let mut line = format!(
        "fleetd mdm-profile --platform {} --enrollment-key {} --fleet-url {}",
        shell::word(&platform),
        shell::word(&or(&fields.key, "KEY")),
        shell::word(&or(&fields.url, "URL"))
    );
    if platform == "windows" {
        let (package, hash) = (or(&fields.package_url, "URL"), or(&fields.package_sha256, "HEX"));
        line += &format!(" --package-url {} --package-sha256 {}", shell::word(&package), shell::word(&hash));
    }
    let shown = MdmPage {
        frame: Frame::new(visitor, "Documents for MDM servers", TAB),
        lacks_key: visitor.lacks(PrivilegeName::EnrollmentCreate),
        cli: cli(visitor, &(line + " --out FILE")),
        keys,
        fields,
        error,
    };
    page(shown.error.as_ref().map_or(StatusCode::OK, |error| status_of(error.kind)), &shown)
}

async fn keys(fleet: &Fleet, visitor: &Visitor) -> Result<Vec<(String, String)>, Error> {
    let grant = visitor.context.grant::<EnrollmentRead>()?;
    let all = fleet.enrollment_keys().list(&grant, None, Page { offset: 0, limit: KEYS }).await?.items;
    let now = fleet.now();
    let usable = all.into_iter().filter(|key| key.family == KeyFamily::Fleetd && key.admits(now).is_ok());
    Ok(usable.map(|key| (key.id.to_string(), key.name)).collect())
}

/// Sends the document. It contains the enroll secret, so the audit log records that it was revealed.
pub async fn send(State(fleet): State<Arc<Fleet>>, Posted(visitor, fields): Posted<Fields>) -> Response {
    match document(&fleet, &visitor, &fields).await {
        Ok(response) => response,
        Err(error) => render(&fleet, &visitor, fields, Some(error)).await,
    }
}

async fn document(fleet: &Fleet, visitor: &Visitor, fields: &Fields) -> Result<Response, Error> {
    // The fields are validated first: revealing the secret is an audit event, which a typing error must not cause.
    let url = checked("url", &fields.url, check_url)?;
    let package = match fields.platform.as_str() {
        "windows" => {
            let package = checked("package_url", &fields.package_url, check_url)?;
            Some((package, checked("package_sha256", &fields.package_sha256, check_sha256)?))
        }
        _ => None,
    };
    let keys = fleet.enrollment_keys();
    let key = keys.find::<EnrollmentReveal>(&visitor.context, &fields.key).await?;
    // The list offers only such keys, but a form can be sent with any id.
    if key.family != KeyFamily::Fleetd {
        return Err(Error::invalid("key", "is not for orbit and osqueryd"));
    }
    let (_, secret) = keys.reveal(key).await?;
    let secret = secret.map(Zeroizing::new).ok_or_else(|| {
        Error::invalid("key", "the secret was shown only when it was created").remedy("replace the key")
    })?;
    let enrollment = Enrollment { url: &url, secret: &secret, scripts: fields.scripts.is_some() };
    Ok(match package {
        Some((package, hash)) => {
            download("application/xml", "fleetd.xml", Body::from(command(&enrollment, &package, &hash)))
        }
        None => {
            let profile = profile(&enrollment);
            let profile = profile.map_err(|error| Error::invalid("url", format!("cannot be written: {error}")))?;
            download("application/x-apple-aspen-config", "fleetd.mobileconfig", Body::from(profile))
        }
    })
}

fn checked(field: &'static str, text: &str, check: fn(&str) -> Result<String, &'static str>) -> Result<String, Error> {
    check(text.trim()).map_err(|reason| Error::invalid(field, reason))
}
