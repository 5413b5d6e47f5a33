//! `/agents/{id}/respond`: the response to a compromise (M5): a preview of what is revoked and what the agent could read, and
//! the response itself.

use std::sync::Arc;

use askama::Template;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use muster_core::Error;
use muster_core::agent::AgentRecord;
use muster_core::authorization::{AgentsForceUnenroll, OpContext, PrivilegeName};
use muster_core::compromise::{Exposure, ExposureKind};
use muster_core::shell;
use muster_core::time::Timestamp;
use muster_fleet::Fleet;
use muster_fleet::respond::{Response as Responded, ResponseRequest};
use muster_management::error::status_of;
use serde::Deserialize;

use super::agent::name_of;
use super::asked::{TAB, encoded};
use crate::elsewhere::cli;
use crate::failure;
use crate::frame::{Frame, page};
use crate::preferences::{in_field, parse_time};
use crate::request::{Id, Posted};
use crate::text::Moment;
use crate::visitor::{Params, Visitor};

/// The privileges that a response needs: it lists secrets, outputs and keys.
const PRIVILEGES: [PrivilegeName; 4] = [
    PrivilegeName::AgentsForceUnenroll,
    PrivilegeName::PoliciesRead,
    PrivilegeName::EnrollmentRead,
    PrivilegeName::OutputsRead,
];

/// Details of a response.
#[derive(Clone, Default, Deserialize)]
#[serde(default)]
pub struct Asked {
    /// Reason for the audit log.
    reason: String,
    /// Puts the agents under review that enrolled with the same key since then.
    since: String,
    /// Set to respond although the policy is managed.
    force: String,
    /// The details that the person has seen a preview of, as [`Asked::previewable`] writes them.
    previewed: String,
}

impl Asked {
    fn request(&self) -> Result<ResponseRequest, Error> {
        let invalid = || Error::invalid("since", "must be a time, such as 2026-01-31T08:00");
        let since = match self.since.trim() {
            "" => None,
            typed => Some(parse_time(typed).ok_or_else(invalid)?),
        };
        Ok(ResponseRequest {
            reason: Some(self.reason.trim().to_owned()).filter(|reason| !reason.is_empty()),
            review_since: since,
            force: (!self.force.is_empty()).into(),
        })
    }

    /// Returns the time since when agents are reviewed in RFC 3339; what was typed if it is invalid.
    fn since_text(&self) -> String {
        parse_time(&self.since).map_or_else(|| self.since.trim().to_owned(), Timestamp::to_rfc3339_seconds)
    }

    /// Returns the details that decide what a response does, as one text. The reason is not among them: it can be entered
    /// after the preview.
    fn previewable(&self) -> String {
        let (force, since) = (if self.force.is_empty() { "" } else { "1" }, self.since_text());
        let details = [("since", since.as_str()), ("force", force)].into_iter().filter(|(_, value)| !value.is_empty());
        details.map(|(name, value)| format!("{name}={}", encoded(value))).collect::<Vec<_>>().join("&")
    }

    /// The same response as a command of `muster`.
    fn command(&self, id: &str) -> String {
        let option = |name: &str, value: &str| match value.trim() {
            "" => String::new(),
            value => format!(" {}", shell::option(name, value)),
        };
        let force = if self.force.is_empty() { "" } else { " --force" };
        let since = self.since_text();
        let (reason, since) = (option("--reason", &self.reason), option("--review-since", &since));
        format!("agent respond {}{reason}{since}{force}", shell::argument(id))
    }
}

/// What a request does.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    /// Shows a preview.
    Preview,
    /// Shows a new preview, because the fields were changed after the last one.
    PreviewOfChange,
    /// Responds.
    Response,
}

#[derive(Template)]
#[template(path = "agents/respond.html")]
struct RespondPage<'a> {
    frame: Frame,
    id: String,
    asked: &'a Asked,
    previewed: String,
    /// Whether the fields were changed after the preview, so that nothing was done.
    is_changed: bool,
    is_active: bool,
    /// The time since when agents are reviewed, as its field shows it.
    since: String,
    error: Option<Error>,
    /// Link that replaces the enrollment key of the agent.
    replace_key: String,
    /// What would be done, or was.
    response: Option<Shown>,
    is_done: bool,
    cli: String,
}

/// A response.
struct Shown {
    access_keys: usize,
    output_keys: usize,
    exposures: Vec<Exposure>,
    review: Vec<(String, String, Moment, String)>,
    reviewed: u64,
    action: String,
}

/// Returns why a person may not respond; `None` if it may.
pub fn missing_privileges(context: &OpContext) -> Option<String> {
    let lacks = PRIVILEGES.iter().filter(|privilege| context.check(**privilege).is_err());
    let names: Vec<_> = lacks.map(|privilege| privilege.as_str()).collect();
    (!names.is_empty()).then(|| format!("You need the privileges {}.", names.join(", ")))
}

/// Shows what a response would do.
pub async fn show(
    State(fleet): State<Arc<Fleet>>,
    visitor: Visitor,
    Id(id): Id,
    Params(asked): Params<Asked>,
) -> Response {
    let shown = respond(&fleet, &visitor, &id, &asked, Step::Preview).await;
    shown.unwrap_or_else(|error| failure::inside(&visitor, &error, TAB))
}

/// Responds, and shows what was done.
pub async fn run(State(fleet): State<Arc<Fleet>>, Id(id): Id, Posted(visitor, asked): Posted<Asked>) -> Response {
    let is_changed = asked.previewed != asked.previewable();
    let step = if is_changed { Step::PreviewOfChange } else { Step::Response };
    let done = respond(&fleet, &visitor, &id, &asked, step).await;
    done.unwrap_or_else(|error| failure::inside(&visitor, &error, TAB))
}

async fn respond(fleet: &Fleet, visitor: &Visitor, id: &str, asked: &Asked, step: Step) -> Result<Response, Error> {
    let context = visitor.context.clone().trying(step != Step::Response);
    for privilege in PRIVILEGES {
        context.check(privilege)?;
    }
    let agent = fleet.agents().find::<AgentsForceUnenroll>(&context, id).await?;
    let now = fleet.now();
    let done = match asked.request() {
        Ok(request) => fleet.responses().respond(&context, &agent, &request).await,
        Err(error) => Err(error),
    };
    let (response, error) = match done {
        Ok(done) => (Some(shown(done, now)), None),
        Err(error) => (None, Some(error)),
    };
    let is_changed = step == Step::PreviewOfChange && error.is_none();
    let otherwise = if is_changed { StatusCode::CONFLICT } else { StatusCode::OK };
    let status = error.as_ref().map_or(otherwise, |error| status_of(error.kind));
    let is_done = step == Step::Response && error.is_none();
    let key = agent.enrollment_key_id.as_ref();
    let title = if is_done { "{}: revoked" } else { "Respond to the compromise of {}" };
    let content = RespondPage {
        frame: Frame::new(visitor, title.replace("{}", &name_of(&agent)), TAB),
        id: agent.id.to_string(),
        asked,
        previewed: asked.previewable(),
        is_changed,
        replace_key: key.map(|key| format!("{}/keys/{key}/replace", visitor.base)).unwrap_or_default(),
        is_active: agent.active,
        since: parse_time(&asked.since).map_or_else(|| asked.since.clone(), in_field),
        error,
        response,
        is_done,
        cli: cli(visitor, &asked.command(id)),
    };
    Ok(page(status, &content))
}

fn shown(done: Responded, now: Timestamp) -> Shown {
    let row = |agent: AgentRecord| {
        (agent.id.to_string(), name_of(&agent), Moment::new(agent.enrolled_at, now), agent.first_address.clone())
    };
    Shown {
        access_keys: done.access_keys,
        output_keys: done.output_keys,
        exposures: done.exposures,
        review: done.review.into_iter().map(row).collect(),
        reviewed: done.reviewed,
        action: done.action.map(|id| id.to_string()).unwrap_or_default(),
    }
}
