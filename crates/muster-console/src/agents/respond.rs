//! `/agents/{id}/respond`: the response to a compromise (M5): a preview of what is revoked and what the agent could read, and
//! the response itself.

use std::sync::Arc;

use askama::Template;
use axum::body::Body;
use axum::extract::{RawPathParams, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use muster_core::Error;
use muster_core::agent::AgentRecord;
use muster_core::authorization::{AgentsForceUnenroll, OpContext, PrivilegeName};
use muster_core::compromise::Exposure;
use muster_core::shell;
use muster_core::time::Timestamp;
use muster_fleet::Fleet;
use muster_fleet::moment::parse_time;
use muster_fleet::respond::{Response as Responded, ResponseRequest};
use muster_management::error::status_of;
use muster_management::form;
use serde::Deserialize;

use super::agent::{id_of, name_of};
use super::asked::TAB;
use crate::failure;
use crate::frame::{Frame, page};
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
    /// Puts the agents under review that enrolled with the same key since then, RFC 3339.
    since: String,
    /// Set to respond although the policy is managed.
    force: String,
}

impl Asked {
    fn request(&self) -> Result<ResponseRequest, Error> {
        let since = Some(self.since.trim()).filter(|since| !since.is_empty());
        Ok(ResponseRequest {
            reason: Some(self.reason.trim().to_owned()).filter(|reason| !reason.is_empty()),
            review_since: since.map(|since| parse_time("since", since)).transpose()?,
            force: (!self.force.is_empty()).into(),
        })
    }

    /// The same response as a command.
    fn cli(&self, id: &str) -> String {
        let option = |name: &str, value: &str| match value.trim() {
            "" => String::new(),
            value => format!(" {}", shell::option(name, value)),
        };
        let force = if self.force.is_empty() { "" } else { " --force" };
        let (reason, since) = (option("--reason", &self.reason), option("--review-since", &self.since));
        format!("muster agent respond {}{reason}{since}{force}", shell::argument(id))
    }
}

#[derive(Template)]
#[template(path = "agents/respond.html")]
struct RespondPage<'a> {
    frame: Frame,
    id: String,
    asked: &'a Asked,
    is_active: bool,
    /// Some time before now, as an example.
    example: String,
    error: Option<Error>,
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
    params: RawPathParams,
    Params(asked): Params<Asked>,
) -> Response {
    match respond(&fleet, &visitor, id_of(&params), &asked, true).await {
        Ok(response) => response,
        Err(error) => failure::inside(&visitor, &error, TAB),
    }
}

/// Responds, and shows what was done.
pub async fn run(
    State(fleet): State<Arc<Fleet>>,
    visitor: Visitor,
    params: RawPathParams,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let done = match form::read::<Asked>(&headers, body).await {
        Ok(asked) => respond(&fleet, &visitor, id_of(&params), &asked, false).await,
        Err(error) => Err(error),
    };
    done.unwrap_or_else(|error| failure::inside(&visitor, &error, TAB))
}

async fn respond(fleet: &Fleet, visitor: &Visitor, id: &str, asked: &Asked, is_trial: bool) -> Result<Response, Error> {
    let context = visitor.context.clone().trying(is_trial);
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
    let status = error.as_ref().map_or(StatusCode::OK, |error| status_of(error.kind));
    let is_done = !is_trial && error.is_none();
    let title = if is_done { "{}: revoked" } else { "Respond to the compromise of {}" };
    let content = RespondPage {
        frame: Frame::new(visitor, title.replace("{}", &name_of(&agent)), TAB),
        id: agent.id.to_string(),
        asked,
        is_active: agent.active,
        example: now.minus(std::time::Duration::from_secs(7 * 86_400)).to_rfc3339_seconds(),
        error,
        response,
        is_done,
        cli: asked.cli(id),
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
