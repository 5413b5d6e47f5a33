//! `POST /agents/{id}/respond` (M5).

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use muster_core::Error;
use muster_core::agent::AgentRecord;
use muster_core::authorization::PrivilegeName as Name;
use muster_core::compromise::Exposure;
use muster_core::time::Timestamp;
use muster_fleet::Fleet;
use muster_fleet::respond::{Response, ResponseRequest};
use muster_protocol::management::respond::{Exposed, Respond, Responded, Reviewed};

use super::answer::Answer;
use super::body::Body;
use super::convert::time;
use super::endpoints::Endpoint;
use super::entry::Caller;

/// The endpoint.
pub fn endpoints() -> Vec<Endpoint> {
    vec![Endpoint::post("/agents/{id}/respond", respond).about("Respond to a compromised agent").needs(&[
        Name::AgentsForceUnenroll,
        Name::PoliciesRead,
        Name::EnrollmentRead,
        Name::OutputsRead,
    ])]
}

async fn respond(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    Path(id): Path<String>,
    Body(body): Body<Respond>,
) -> Answer<Responded> {
    let since = |text: &str| {
        Timestamp::parse_rfc3339(text)
            .map_err(|_| Error::invalid("review_since", "must be a time in RFC 3339, such as 2026-11-29T08:00:00Z"))
    };
    let request = ResponseRequest {
        reason: body.reason,
        review_since: body.review_since.as_deref().map(since).transpose()?,
        force: body.force.into(),
    };
    let agent = fleet.agents().find(&context, &id).await?;
    Ok(Json(shown(fleet.responses().respond(&context, &agent, &request).await?)))
}

fn shown(done: Response) -> Responded {
    let exposed = |one: Exposure| Exposed { kind: one.kind.as_str().to_owned(), name: one.name, remedy: one.remedy };
    let reviewed = |agent: AgentRecord| Reviewed {
        id: agent.id.to_string(),
        hostname: agent.hostname,
        enrolled_at: time(agent.enrolled_at),
        first_address: agent.first_address.to_string(),
    };
    Responded {
        action_id: done.action.map(|id| id.to_string()),
        access_keys: done.access_keys,
        output_keys: done.output_keys,
        exposures: done.exposures.into_iter().map(exposed).collect(),
        review: done.review.into_iter().map(reviewed).collect(),
        reviewed: done.reviewed,
    }
}
