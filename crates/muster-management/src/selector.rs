//! The selector of bulk requests (MG §1.2.2): ids or a query.

use muster_core::Error;
use muster_core::error_chain::chain;
use muster_core::id::AgentId;
use muster_core::time::Timestamp;
use muster_protocol::management::bulk::{AgentSelector, Selection};

use super::kql::agents::visible;
use muster_fleet::selection::Selected;

/// Maximum number of ids in a bulk request. Each is copied several times until its record is changed.
pub const MOST_IDS: usize = 10_000;

/// Returns the agents that a bulk request selects. Unenrolled agents are selected only by id or if the query names
/// their status.
///
/// # Errors
/// If the ids or the query are invalid.
pub fn selected(selection: &Selection, now: Timestamp) -> Result<Selected, Error> {
    match &selection.agents {
        AgentSelector::Ids(ids) => by_ids(ids),
        AgentSelector::Query(kuery) => {
            let filter = visible(kuery, selection.include_inactive, now);
            // The query is in another field than in lists.
            let filter = filter.map_err(|error| Error { field: error.field.map(|_| "agents".into()), ..error })?;
            Ok(Selected::Matching(Box::new(filter)))
        }
    }
}

/// Returns the agents with these ids, at most [`MOST_IDS`].
///
/// # Errors
/// `agents` if there is none, if there are too many, or if one is malformed.
pub fn by_ids(ids: &[String]) -> Result<Selected, Error> {
    // Usually the result of a script's failed look-up. An action without targets would look like a success.
    if ids.is_empty() {
        return Err(Error::invalid("agents", "the list is empty; specify ids or a query"));
    }
    if ids.len() > MOST_IDS {
        let reason = format!("{} ids; at most {MOST_IDS} in one request", ids.len());
        return Err(Error::invalid("agents", reason).remedy("use a query instead, or send several requests"));
    }
    // Duplicate ids are harmless: the service keeps each once, in the given order.
    ids.iter().enumerate().map(agent_id).collect::<Result<_, _>>().map(Selected::Ids)
}

fn agent_id((place, text): (usize, &String)) -> Result<AgentId, Error> {
    AgentId::parse(text).map_err(|error| Error::invalid(format!("agents[{place}]"), chain(&error).to_string()))
}
