//! `/settings/space`: settings of the space.

use std::sync::Arc;

use askama::Template;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use muster_core::Error;
use muster_core::authorization::PrivilegeName;
use muster_fleet::Fleet;
use muster_fleet::space_settings::{SpaceSettings, audit_subject};
use muster_management::error::status_of;
use serde::Deserialize;
use serde_json::json;

use super::side::Side;
use super::{TAB, lines};
use crate::durations;
use crate::elsewhere::curl;
use crate::frame::{Frame, page};
use crate::request::Posted;
use crate::versioned::{Edit, Field, update_to};
use crate::visitor::Visitor;
use crate::{failure, notice};

/// Path of the page.
const PATH: &str = "/settings/space";

/// The form.
#[derive(Default, Deserialize)]
#[serde(default)]
pub struct Fields {
    prefixes: String,
    deletes: Option<String>,
    after: String,
    /// The version that the form was made from.
    version: String,
}

impl Fields {
    /// Seconds until unenrolled agents are deleted; `None` if they are kept.
    fn kept_for(&self) -> Result<Option<u64>, Error> {
        if self.deletes.is_none() {
            return Ok(None);
        }
        Ok(Some(durations::parse_optional("after", &self.after)?.unwrap_or_default()))
    }

    /// What happens to unenrolled agents.
    fn retention(&self) -> String {
        match (&self.deletes, self.after.trim()) {
            (None, _) => "are kept".to_owned(),
            (Some(_), "" | "0" | "0s") => "are deleted with the next housekeeping".to_owned(),
            (Some(_), after) => format!("are deleted after {after}"),
        }
    }
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
    match Fields::find(&fleet, &visitor, "").await {
        Ok((settings, version)) => render(&visitor, fields_of(&settings, version), None),
        Err(error) => failure::inside(&visitor, &error, TAB),
    }
}

fn fields_of(settings: &SpaceSettings, version: String) -> Fields {
    let after = settings.delete_unenrolled_after.map(durations::written);
    Fields {
        prefixes: settings.allowed_namespace_prefixes.join("\n"),
        deletes: after.as_ref().map(|_| "1".to_owned()),
        after: after.unwrap_or_default(),
        version,
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
    // The space is that of the page, so that there is no id.
    update_to(&fleet, &visitor, "", fields).await
}

impl Edit for Fields {
    type Record = (SpaceSettings, String);

    const CHANGED: &'static str = "settings_changed";

    async fn find(fleet: &Fleet, visitor: &Visitor, _: &str) -> Result<Self::Record, Error> {
        let settings = fleet.space_settings().read(&visitor.context.grant()?).await?;
        let version = settings.version()?;
        Ok((settings, version))
    }

    fn version_of((_, version): &Self::Record) -> String {
        version.clone()
    }

    fn version(&mut self) -> &mut String {
        &mut self.version
    }

    fn what(_: &Self::Record) -> String {
        "settings".to_owned()
    }

    fn subject(visitor: &Visitor, _: &Self::Record) -> String {
        audit_subject(visitor.context.space())
    }

    fn fields(&self, (settings, version): &Self::Record) -> Vec<Field> {
        let stored = fields_of(settings, version.clone());
        vec![
            ("allowed prefixes", self.prefixes.clone(), stored.prefixes.clone()),
            ("unenrolled agents", self.retention(), stored.retention()),
        ]
    }

    async fn save(&self, fleet: &Fleet, visitor: &Visitor, (_, version): &Self::Record) -> Result<Response, Error> {
        let grant = visitor.context.grant()?;
        let (kept_for, prefixes) = (self.kept_for()?, lines(&self.prefixes));
        let change = move |settings: &mut SpaceSettings| {
            settings.allowed_namespace_prefixes = prefixes;
            settings.delete_unenrolled_after = kept_for;
        };
        fleet.space_settings().update(&grant, Some(version), change).await?;
        Ok(notice::redirect(visitor.base.link(PATH), "The settings are saved."))
    }

    async fn again(self, _: &Fleet, visitor: &Visitor, _: &Self::Record, error: Error) -> Response {
        render(visitor, self, Some(error))
    }
}
