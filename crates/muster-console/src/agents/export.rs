//! `/agents.csv`: all agents of a view, without an end at some number of rows (MG186).

use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::response::Response;
use futures_util::stream;
use muster_core::authorization::{AgentsRead, Grant, PoliciesRead};
use muster_core::{Error, csv};
use muster_fleet::Fleet;
use muster_fleet::agent_views::{AgentListQuery, AgentView, Rows};
use muster_store::query::Page;

use super::asked::{Asked, TAB};
use super::columns::Column;
use crate::download::download;
use crate::failure;
use crate::visitor::{Params, Visitor};

/// Number of agents that are read at a time.
const BATCH: u32 = 1_000;

/// Key of the column of policies.
const POLICY: &str = "policy_id";

/// A download that is in progress.
struct Export {
    fleet: Arc<Fleet>,
    grant: Grant<AgentsRead>,
    question: AgentListQuery,
    columns: Vec<&'static Column>,
    /// Reads the names of policies; `None` if the file has no policies, or the person may not read them.
    policies: Option<Grant<PoliciesRead>>,
}

/// Sends the agents of a view.
pub async fn send(State(fleet): State<Arc<Fleet>>, visitor: Visitor, Params(asked): Params<Asked>) -> Response {
    match begin(fleet, &visitor, &asked) {
        Ok(export) => export.response(),
        Err(error) => failure::inside(&visitor, &error, TAB),
    }
}

fn begin(fleet: Arc<Fleet>, visitor: &Visitor, asked: &Asked) -> Result<Export, Error> {
    let grant = visitor.context.grant::<AgentsRead>()?;
    asked.check()?;
    let (filter, sort) = (asked.filter(&fleet)?, asked.sort());
    let rows = Rows::Page(Page { offset: 0, limit: BATCH });
    let columns = if asked.columns.is_empty() { Column::usual_csv() } else { asked.columns() };
    let question = AgentListQuery { filter, sort, descending: asked.is_descending(sort), rows };
    let has_policies = columns.iter().any(|column| column.key == POLICY);
    let policies = if has_policies { visitor.context.grant().ok() } else { None };
    Ok(Export { fleet, grant, question, columns, policies })
}

impl Export {
    fn response(self) -> Response {
        // The column of host names is called `host`, as in the REST API's exports. That of policies has their names beside it.
        let keys = |column: &&'static Column| match column.key {
            "hostname" => vec!["host"],
            POLICY => vec![POLICY, "policy"],
            key => vec![key],
        };
        let heading = csv::record(&self.columns.iter().flat_map(keys).collect::<Vec<_>>()) + "\n";
        // Each batch is read when the client has taken the one before, so that a slow client costs no memory.
        let batches = stream::try_unfold((Some(self), heading), async |(export, text)| {
            let Some(mut export): Option<Export> = export else { return Ok(None) };
            let (rows, has_more) = export.batch().await?;
            Ok::<_, Error>(Some((Bytes::from(text + &rows), (has_more.then_some(export), String::new()))))
        });
        download("text/csv; charset=utf-8", "agents.csv", Body::from_stream(batches))
    }

    /// Reads the next agents, and whether more may follow.
    async fn batch(&mut self) -> Result<(String, bool), Error> {
        let found = self.fleet.agents().list(&self.grant, &self.question).await?.items;
        let is_full = found.len() == BATCH as usize;
        if let Some(last) = found.last() {
            self.question.rows = Rows::After(self.question.sort.cursor(&last.details.record), BATCH);
        }
        let policies = super::policies(&self.fleet, self.policies.as_ref(), &found).await?;
        let name = |view: &AgentView| {
            let policy = view.details.record.policy_id.as_ref().and_then(|id| policies.get(id));
            policy.map(|policy| policy.name.clone()).unwrap_or_default()
        };
        let cells = |view: &AgentView, column: &Column| match column.key {
            POLICY => vec![(column.value)(view), name(view)],
            _ => vec![(column.value)(view)],
        };
        let row = |view: &AgentView| {
            csv::record(&self.columns.iter().flat_map(|column| cells(view, column)).collect::<Vec<_>>())
        };
        Ok((found.iter().map(|view| row(view) + "\n").collect(), is_full))
    }
}
