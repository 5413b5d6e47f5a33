//! All results of a live query as a file: CSV with the columns that any host has, or JSON with an object for each host.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::response::Response;
use futures_util::stream;
use muster_core::authorization::QueriesRunSaved;
use muster_core::live_query::{LiveQuery, LiveResult};
use muster_core::{Error, csv as file};
use muster_fleet::Fleet;
use muster_fleet::authority::Authorized;
use muster_fleet::live_queries::MAX_PAGE;
use serde_json::{Value, json};

use super::TAB;
use super::results::{rows_of, text_of};
use crate::download::download;
use crate::failure;
use crate::request::Id;
use crate::visitor::Visitor;

/// A download that is in progress. Answers are read in parts, when the client has taken the one before.
struct Export {
    fleet: Arc<Fleet>,
    query: Authorized<LiveQuery, QueriesRunSaved>,
    /// Number of the last answer that was read.
    position: u64,
}

impl Export {
    async fn begin(fleet: Arc<Fleet>, visitor: &Visitor, id: &str) -> Result<Self, Error> {
        let query = fleet.live_queries().find(&visitor.context, id).await?;
        Ok(Self { fleet, query, position: 0 })
    }

    async fn next(&mut self) -> Result<Vec<LiveResult>, Error> {
        let answers = self.fleet.live_queries().results(&self.query, self.position, MAX_PAGE).await?;
        self.position = answers.last().map_or(self.position, |last| last.seq);
        Ok(answers)
    }

    fn name(&self, ending: &str) -> String {
        format!("query-{}.{ending}", self.query.id)
    }

    /// Streams a text: its beginning, one of each answer, and its end.
    fn stream(self, head: String, tail: &'static str, text: impl Fn(&LiveResult) -> String + Send + 'static) -> Body {
        let parts = stream::try_unfold((Some(self), head, text), move |(export, head, text)| async move {
            let Some(mut export) = export else { return Ok(None) };
            let answers = export.next().await?;
            if answers.is_empty() {
                return Ok::<_, Error>(Some((Bytes::from(head + tail), (None, String::new(), text))));
            }
            let part = answers.iter().fold(head, |part, answer| part + &text(answer));
            Ok(Some((Bytes::from(part), (Some(export), String::new(), text))))
        });
        Body::from_stream(parts)
    }
}

/// Sends the rows as CSV.
pub async fn csv(State(fleet): State<Arc<Fleet>>, visitor: Visitor, Id(id): Id) -> Response {
    let made = async {
        let mut columns = Export::begin(Arc::clone(&fleet), &visitor, &id).await?;
        let mut names: BTreeSet<String> = BTreeSet::new();
        // The heading is the first line, so the answers are read twice.
        loop {
            let answers = columns.next().await?;
            if answers.is_empty() {
                break;
            }
            names.extend(answers.iter().flat_map(rows_of).flat_map(|row| row.into_iter().map(|(name, _)| name)));
        }
        let export = Export { position: 0, ..columns };
        let names: Vec<String> = names.into_iter().collect();
        let heading: Vec<&str> = ["host", "host_id"].into_iter().chain(names.iter().map(String::as_str)).collect();
        let head = file::record(&heading) + "\n";
        let name = export.name("csv");
        let body = export.stream(head, "", move |answer| records(answer, &names));
        Ok::<_, Error>(download("text/csv; charset=utf-8", &name, body))
    };
    made.await.unwrap_or_else(|error| failure::inside(&visitor, &error, TAB))
}

fn records(answer: &LiveResult, names: &[String]) -> String {
    let host = answer.host.as_ref().map(ToString::to_string).unwrap_or_default();
    let record = |row: serde_json::Map<String, Value>| {
        let cells = names.iter().map(|name| text_of(row.get(name)));
        let all: Vec<String> = [answer.hostname.clone(), host.clone()].into_iter().chain(cells).collect();
        file::record(&all) + "\n"
    };
    rows_of(answer).into_iter().map(record).collect()
}

/// Sends the answers as JSON, those with errors too.
pub async fn json(State(fleet): State<Arc<Fleet>>, visitor: Visitor, Id(id): Id) -> Response {
    let made = async {
        let export = Export::begin(fleet, &visitor, &id).await?;
        let name = export.name("json");
        let body = export.stream("[".to_owned(), "\n]\n", |answer| {
            // Numbers of answers begin with 1 and have no gaps, so the first one needs no state.
            let comma = if answer.seq > 1 { "," } else { "" };
            format!("{comma}\n{}", object(answer))
        });
        Ok::<_, Error>(download("application/json", &name, body))
    };
    made.await.unwrap_or_else(|error| failure::inside(&visitor, &error, TAB))
}

fn object(answer: &LiveResult) -> Value {
    json!({
        "hostname": answer.hostname,
        "host_id": answer.host.as_ref().map(ToString::to_string),
        "agent_id": answer.agent.as_str(),
        "at": answer.at.to_rfc3339_seconds(),
        "error": answer.answer.error,
        "truncated": answer.answer.is_truncated,
        "missing_rows": answer.answer.missing_rows,
        "rows": rows_of(answer),
    })
}
