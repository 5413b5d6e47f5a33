//! A page of hosts, sent host by host: with their software, the JSON values of a page need many times the memory of its text.

use std::collections::HashMap;

use axum::body::{Body, Bytes};
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse as _, Response};
use futures_util::stream::try_unfold;
use muster_core::authorization::AgentsRead;
use muster_core::error_chain::chain;
use muster_core::fleetd::inventory::Inventory;
use muster_core::fleetd::software::{Software, SoftwareId};
use muster_core::id::AgentId;
use muster_core::time::Timestamp;
use muster_core::{Error, ErrorKind};
use muster_fleet::agent_views::AgentView;
use serde::{Serialize, Serializer};
use serde_json::Value;

use crate::entry::Caller;
use crate::host_json::{TeamNames, installed, summary};

/// Length from which a piece of the response is sent, bytes.
const PIECE: usize = 64 * 1024;

/// The hosts of a page that are not sent yet.
pub struct HostPage {
    caller: Caller,
    teams: TeamNames,
    hosts: std::vec::IntoIter<AgentView>,
    systems: HashMap<AgentId, Inventory>,
    now: Timestamp,
    with_software: bool,
}

/// A host of the list, with its software.
#[derive(Serialize)]
struct WithSoftware<'a> {
    #[serde(flatten)]
    host: &'a Value,
    #[serde(serialize_with = "one_by_one")]
    software: &'a [(SoftwareId, Software)],
}

/// Serializes software without the JSON values of all of it in memory.
fn one_by_one<S: Serializer>(software: &[(SoftwareId, Software)], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(software.iter().map(installed))
}

impl HostPage {
    /// Creates a page. `systems`: disks and the last boot of the hosts.
    pub fn new(
        caller: Caller,
        teams: TeamNames,
        hosts: Vec<AgentView>,
        systems: HashMap<AgentId, Inventory>,
        with_software: bool,
    ) -> Self {
        let now = caller.fleet.now();
        Self { caller, teams, hosts: hosts.into_iter(), systems, now, with_software }
    }

    /// Returns the response of a list of `total` hosts. An error after its beginning ends the connection, so that the client does not
    /// take a part of the hosts for all of them.
    pub fn response(self, total: u64, meta: &Value) -> Response {
        let start = format!(r#"{{"count":{total},"meta":{meta},"hosts":["#);
        // Each piece is read when the client has taken the one before, so that a slow client costs no memory.
        let pieces = try_unfold((Some(self), start), async |(page, mut text)| {
            let Some(mut page) = page else { return Ok(None) };
            let has_more = page.write(&mut text).await.inspect_err(|error| {
                tracing::error!(error = %chain(error), "a list of hosts for the FleetDM API was aborted");
            })?;
            if !has_more {
                text.push_str("]}");
            }
            Ok::<_, Error>(Some((Bytes::from(text), (has_more.then_some(page), String::new()))))
        });
        ([(CONTENT_TYPE, "application/json")], Body::from_stream(pieces)).into_response()
    }

    /// Appends hosts until a piece is long enough. Returns whether more may follow.
    async fn write(&mut self, text: &mut String) -> Result<bool, Error> {
        while let Some(agent) = self.hosts.next() {
            let system = self.systems.remove(&agent.details.record.id).unwrap_or_default();
            let host = summary(&agent, &self.teams, &system, self.now);
            let json = if self.with_software {
                let software = self.software_of(&agent).await?;
                serde_json::to_string(&WithSoftware { host: &host, software: &software })
            } else {
                serde_json::to_string(&host)
            };
            text.push_str(&json.map_err(Error::internal)?);
            if self.hosts.len() == 0 {
                return Ok(false);
            }
            text.push(',');
            if text.len() >= PIECE {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn software_of(&self, agent: &AgentView) -> Result<Vec<(SoftwareId, Software)>, Error> {
        let record = &agent.details.record;
        let Some(host) = &record.host_id else { return Ok(Vec::new()) };
        let grant = self.caller.within(&record.space).grant::<AgentsRead>()?;
        match self.caller.fleet.agents().host(&grant, host.as_str()).await {
            Ok(view) => Ok(view.software.software),
            // It was deleted or moved since the page was read.
            Err(error) if error.kind == ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }
}
