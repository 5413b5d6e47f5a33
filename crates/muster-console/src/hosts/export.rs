//! `/hosts.csv`: all matching hosts, without a maximum number of rows.

use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::response::Response;
use futures_util::stream;
use muster_core::authorization::{AgentsRead, Grant};
use muster_core::{Error, csv};
use muster_fleet::Fleet;
use muster_fleet::host_views::HostView;
use muster_store::query::{AgentFilter, HostCursor, HostRows, Page};

use super::TAB;
use super::asked::Asked;
use super::list::{checks, ids};
use crate::download::download;
use crate::failure;
use crate::visitor::{Params, Visitor};

/// Number of hosts that are read at a time.
const BATCH: u32 = 500;
/// The columns.
const HEADING: [&str; 7] = ["host", "id", "machine_id", "os", "agents", "failing_checks", "last_seen"];

/// A download that is in progress.
struct Export {
    fleet: Arc<Fleet>,
    grant: Grant<AgentsRead>,
    filter: AgentFilter,
    rows: HostRows,
}

/// Sends the hosts.
pub async fn send(State(fleet): State<Arc<Fleet>>, visitor: Visitor, Params(asked): Params<Asked>) -> Response {
    match begin(fleet, &visitor, &asked).await {
        Ok(export) => export.response(),
        Err(error) => failure::inside(&visitor, &error, TAB),
    }
}

async fn begin(fleet: Arc<Fleet>, visitor: &Visitor, asked: &Asked) -> Result<Export, Error> {
    let grant = visitor.context.grant()?;
    asked.check()?;
    let filter = asked.filter(&ids(&checks(&fleet, visitor).await?), fleet.now())?;
    Ok(Export { fleet, grant, filter, rows: HostRows::Page(Page { offset: 0, limit: BATCH }) })
}

impl Export {
    fn response(self) -> Response {
        // Each batch is read when the client has taken the one before, so that a slow client costs no memory.
        let batches = stream::try_unfold((Some(self), csv::record(&HEADING) + "\n"), async |(export, text)| {
            let Some(mut export): Option<Export> = export else { return Ok(None) };
            let (rows, has_more) = export.batch().await?;
            Ok::<_, Error>(Some((Bytes::from(text + &rows), (has_more.then_some(export), String::new()))))
        });
        download("text/csv; charset=utf-8", "hosts.csv", Body::from_stream(batches))
    }

    /// Reads the next hosts, and whether more may follow.
    async fn batch(&mut self) -> Result<(String, bool), Error> {
        let found = self.fleet.agents().hosts(&self.grant, &self.filter, &self.rows).await?.items;
        let is_full = found.len() == BATCH as usize;
        if let Some(last) = found.last() {
            // By cursor rather than by offset: hosts that enroll or leave during the download neither repeat nor hide
            // rows.
            self.rows = HostRows::After(HostCursor::behind(&last.host), BATCH);
        }
        Ok((found.iter().map(|view| record(view) + "\n").collect(), is_full))
    }
}

fn record(view: &HostView) -> String {
    let agents = view.agents.iter().map(|agent| &agent.details.record);
    let agents: Vec<String> =
        agents.map(|record| format!("{} {}", record.family.as_str(), record.status.as_str())).collect();
    csv::record(&[
        view.hostname(),
        view.host.id.to_string(),
        view.host.machine_id.clone().unwrap_or_default(),
        view.os(),
        agents.join(", "),
        view.failing.map(|number| number.to_string()).unwrap_or_default(),
        view.last_seen().map(muster_core::Timestamp::to_rfc3339_seconds).unwrap_or_default(),
    ])
}
