//! `/agents.csv`: all agents of a view, without an end at some number of rows (MG186).

use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::HeaderValue;
use axum::http::header::{CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use muster_core::authorization::{AgentsRead, Grant};
use muster_core::time::Timestamp;
use muster_core::{Error, csv};
use muster_fleet::Fleet;
use muster_fleet::agent_views::{AgentListQuery, AgentView, Rows};
use muster_store::query::Page;

use crate::agents::{Asked, is_descending, list_filter, sort};
use crate::failure;
use crate::text::os_name;
use crate::visitor::{Params, Visitor};

/// Number of agents that are read at a time.
const BATCH: u32 = 1_000;

/// The columns.
const HEADING: [&str; 11] = [
    "host",
    "status",
    "policy_id",
    "revision",
    "version",
    "os",
    "last_checkin",
    "enrolled_at",
    "tags",
    "message",
    "id",
];

/// A download that is in progress.
struct Export {
    fleet: Arc<Fleet>,
    grant: Grant<AgentsRead>,
    question: AgentListQuery,
}

/// Sends the agents of a view.
pub async fn send(State(fleet): State<Arc<Fleet>>, visitor: Visitor, Params(asked): Params<Asked>) -> Response {
    match begin(fleet, &visitor, &asked) {
        Ok(export) => export.response(),
        Err(error) => failure::inside(&visitor, &error, "/agents"),
    }
}

fn begin(fleet: Arc<Fleet>, visitor: &Visitor, asked: &Asked) -> Result<Export, Error> {
    let grant = visitor.context.grant::<AgentsRead>()?;
    let (filter, sort) = (list_filter(asked, &fleet)?, sort(asked));
    let rows = Rows::Page(Page { offset: 0, limit: BATCH });
    Ok(Export { fleet, grant, question: AgentListQuery { filter, sort, descending: is_descending(asked, sort), rows } })
}

impl Export {
    fn response(self) -> Response {
        let heading = csv::record(&HEADING) + "\n";
        // Each batch is read when the client has taken the one before, so that a slow client costs no memory.
        let batches = stream::try_unfold((Some(self), heading), async |(export, text)| {
            let Some(mut export): Option<Export> = export else { return Ok(None) };
            let (rows, has_more) = export.batch().await?;
            Ok::<_, Error>(Some((Bytes::from(text + &rows), (has_more.then_some(export), String::new()))))
        });
        let plain = HeaderValue::from_static;
        let headers = [
            (CONTENT_TYPE, plain("text/csv; charset=utf-8")),
            (CONTENT_DISPOSITION, plain("attachment; filename=\"agents.csv\"")),
            (CACHE_CONTROL, plain("no-store")),
            (X_CONTENT_TYPE_OPTIONS, plain("nosniff")),
        ];
        (headers, Body::from_stream(batches)).into_response()
    }

    /// Reads the next agents, and whether more may follow.
    async fn batch(&mut self) -> Result<(String, bool), Error> {
        let found = self.fleet.agents().list(&self.grant, &self.question).await?.items;
        let is_full = found.len() == BATCH as usize;
        if let Some(last) = found.last() {
            self.question.rows = Rows::After(self.question.sort.cursor(&last.details.record), BATCH);
        }
        Ok((found.iter().map(|view| row(view) + "\n").collect(), is_full))
    }
}

fn row(view: &AgentView) -> String {
    let record = &view.details.record;
    let time = |at: Option<Timestamp>| at.map(Timestamp::to_rfc3339_seconds).unwrap_or_default();
    csv::record(&[
        record.hostname.clone(),
        record.status.as_str().to_owned(),
        record.policy_id.as_ref().map(ToString::to_string).unwrap_or_default(),
        record.policy_revision.to_string(),
        record.agent_version.clone(),
        os_name(view.details.documents.local_metadata.as_deref()),
        time(view.last_checkin),
        time(Some(record.enrolled_at)),
        record.tags.join(" "),
        record.health.message.clone(),
        record.id.to_string(),
    ])
}
