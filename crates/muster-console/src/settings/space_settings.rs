//! `/settings/space`: settings of the space.

use std::sync::Arc;

use askama::Template;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use muster_core::Error;
use muster_core::authorization::{PrivilegeName, SettingsRead};
use muster_fleet::Fleet;
use muster_fleet::space_settings::SpaceSettings;
use muster_management::error::status_of;
use serde::Deserialize;
use serde_json::json;

use super::side::Side;
use super::{TAB, lines};
use crate::elsewhere::curl;
use crate::frame::{Frame, page};
use crate::request::Posted;
use crate::visitor::Visitor;
use crate::{failure, notice};

/// Path of the page.
const PATH: &str = "/settings/space";
/// Seconds of a day.
const DAY: u64 = 86_400;

/// The form.
#[derive(Default, Deserialize)]
#[serde(default)]
pub struct Fields {
    prefixes: String,
    deletes: Option<String>,
    days: String,
}

#[derive(Template)]
#[template(path = "settings/space_settings.html")]
struct SettingsPage {
    frame: Frame,
    side: Side,
    fields: Fields,
    error: Option<Error>,
    lacks: &'static str,
    api: String,
}

/// Shows the settings.
pub async fn show(State(fleet): State<Arc<Fleet>>, visitor: Visitor) -> Response {
    let made = async { fleet.space_settings().read(&visitor.context.grant::<SettingsRead>()?).await };
    match made.await {
        Ok(settings) => render(&visitor, fields_of(&settings), None),
        Err(error) => failure::inside(&visitor, &error, TAB),
    }
}

fn fields_of(settings: &SpaceSettings) -> Fields {
    let days = settings.delete_unenrolled_after.map(|seconds| seconds.div_ceil(DAY).to_string());
    Fields {
        prefixes: settings.allowed_namespace_prefixes.join("\n"),
        deletes: days.as_ref().map(|_| "1".to_owned()),
        days: days.unwrap_or_default(),
    }
}

fn render(visitor: &Visitor, fields: Fields, error: Option<Error>) -> Response {
    let body = json!({"allowed_namespace_prefixes": lines(&fields.prefixes)});
    let shown = SettingsPage {
        frame: Frame::new(visitor, "Space settings", TAB),
        side: Side::new(visitor, PATH),
        lacks: visitor.lacks(PrivilegeName::SettingsWrite),
        api: curl(visitor, "PUT", "/api/fleet/space_settings", &body.to_string()),
        fields,
        error,
    };
    page(shown.error.as_ref().map_or(StatusCode::OK, |error| status_of(error.kind)), &shown)
}

/// Changes the settings.
pub async fn update(State(fleet): State<Arc<Fleet>>, Posted(visitor, fields): Posted<Fields>) -> Response {
    let made = async {
        let grant = visitor.context.grant()?;
        let days: u64 = match (&fields.deletes, fields.days.trim()) {
            (None, _) | (_, "") => 0,
            (_, text) => text.parse().map_err(|_| Error::invalid("days", "must be a number of days"))?,
        };
        let (deletes, prefixes) = (fields.deletes.is_some(), lines(&fields.prefixes));
        let change = move |settings: &mut SpaceSettings| {
            settings.allowed_namespace_prefixes = prefixes;
            settings.delete_unenrolled_after = deletes.then(|| days.saturating_mul(DAY));
        };
        fleet.space_settings().update(&grant, change).await
    };
    match made.await {
        Ok(_) => notice::redirect(visitor.base.link(PATH), "The settings are saved."),
        Err(error) => render(&visitor, fields, Some(error)),
    }
}
