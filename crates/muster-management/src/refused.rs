//! Recently refused requests of agents.

use std::sync::Arc;

use axum::extract::State;
use muster_fleet::Fleet;
use muster_fleet::refusals::RefusedRow;
use muster_protocol::management::envelope::Whole;
use muster_protocol::management::refused::RefusedRequests;

use super::answer::{Answer, whole};
use super::convert::time;
use super::endpoints::Endpoint;
use super::entry::Caller;
use muster_core::authorization::PrivilegeName as Name;

/// Endpoints for refused requests.
pub fn endpoints() -> Vec<Endpoint> {
    vec![Endpoint::get("/refused_requests", list).about("List recently refused requests").needs(&[Name::RefusalsRead])]
}

/// Lists refused requests, newest first. The table is in memory on this node and bounded, so there are no pages.
async fn list(State(fleet): State<Arc<Fleet>>, Caller(context): Caller) -> Answer<Whole<RefusedRequests>> {
    Ok(whole(fleet.refusals().list(&context.grant()?).into_iter().map(row).collect()))
}

fn row(row: RefusedRow) -> RefusedRequests {
    let refused = row.refused;
    RefusedRequests {
        first: time(row.first),
        last: time(row.last),
        count: row.count,
        address: refused.address,
        agent_id: refused.agent,
        api_key_id: refused.key,
        user_agent: refused.version,
        operation: refused.operation.to_owned(),
        status: refused.status,
        reason: refused.reason.to_owned(),
        message: refused.message,
        remedy: refused.remedy.to_owned(),
    }
}
