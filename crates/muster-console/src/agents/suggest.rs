//! `/agents/suggest`: completions of a query, for the field of the list.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::HeaderValue;
use axum::http::header::CACHE_CONTROL;
use axum::response::{IntoResponse, Response};
use muster_core::authorization::AgentsRead;
use muster_core::status::Status;
use muster_core::{Error, agent::Family};
use muster_fleet::Fleet;
use muster_management::error::status_of;
use serde::Deserialize;

use super::menu;
use crate::visitor::{Params, Visitor};

/// Maximum number of suggestions.
const SUGGESTIONS: usize = 20;
/// Maximum length of a query that is completed, bytes.
const MAX_QUERY: usize = 2_000;

/// Fields of queries, as people use them.
const FIELDS: [&str; 21] = [
    "status",
    "tags",
    "labels",
    "policy_id",
    "hostname",
    "version",
    "os",
    "last_checkin",
    "enrolled_at",
    "enrollment_key_id",
    "serial",
    "hardware_uuid",
    "family",
    "id",
    "host_id",
    "failing_checks",
    "failing_queries",
    "duplicate_hosts",
    "upgrade_details.state",
    "left_at",
    "policy_pending_since",
];

/// Parameters of the request.
#[derive(Default, Deserialize)]
#[serde(default)]
pub struct Asked {
    /// What was typed.
    q: String,
}

/// Returns the whole query with each possible completion of its last word.
pub async fn show(State(fleet): State<Arc<Fleet>>, visitor: Visitor, Params(asked): Params<Asked>) -> Response {
    match suggestions(&fleet, &visitor, &asked.q).await {
        Ok(found) => ([(CACHE_CONTROL, HeaderValue::from_static("no-store"))], Json(found)).into_response(),
        Err(error) => status_of(error.kind).into_response(),
    }
}

async fn suggestions(fleet: &Fleet, visitor: &Visitor, query: &str) -> Result<Vec<String>, Error> {
    visitor.context.grant::<AgentsRead>()?;
    if query.len() > MAX_QUERY {
        return Ok(Vec::new());
    }
    let (before, word) = last_word(query);
    let Some((field, typed)) = word.split_once(':') else {
        let found = FIELDS.iter().filter(|field| field.starts_with(word)).map(|field| format!("{before}{field}:"));
        return Ok(found.take(SUGGESTIONS).collect());
    };
    let typed = typed.trim_start_matches('"').to_lowercase();
    let words = |words: &mut dyn Iterator<Item = &'static str>| words.map(|word| format!("{field}:{word}")).collect();
    let conditions: Vec<String> = match field {
        "status" => words(&mut Status::ALL.iter().map(|status| status.as_str())),
        "family" => words(&mut Family::ALL.iter().map(|family| family.as_str())),
        "tags" => known(fleet, visitor, "tag").await,
        "labels" => known(fleet, visitor, "label").await,
        "policy_id" => known(fleet, visitor, "policy").await,
        "version" => known(fleet, visitor, "version").await,
        "enrollment_key_id" => known(fleet, visitor, "key").await,
        _ => Vec::new(),
    };
    let fits = |condition: &String| {
        let value = condition.split_once(':').map_or("", |(_, value)| value);
        value.trim_start_matches('"').to_lowercase().starts_with(&typed)
    };
    Ok(conditions.into_iter().filter(fits).take(SUGGESTIONS).map(|condition| format!("{before}{condition}")).collect())
}

/// Returns the conditions of known values; none for somebody who may not read them.
async fn known(fleet: &Fleet, visitor: &Visitor, kind: &str) -> Vec<String> {
    let found = menu::values(fleet, visitor, kind).await.unwrap_or_default();
    found.into_iter().map(|known| known.condition).filter(|condition| !condition.starts_with("not ")).collect()
}

/// Divides a query before its last word, which may have begun with a quotation mark.
fn last_word(query: &str) -> (&str, &str) {
    let mut is_quoted = false;
    let mut start = 0;
    for (at, c) in query.char_indices() {
        match c {
            '"' => is_quoted = !is_quoted,
            c if !is_quoted && (c.is_whitespace() || c == '(' || c == ')') => start = at + c.len_utf8(),
            _ => {}
        }
    }
    query.split_at(start)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_word_of_a_query_is_completed() {
        assert_eq!(last_word("status:on"), ("", "status:on"));
        assert_eq!(last_word("not (tags:\"a b\" or sta"), ("not (tags:\"a b\" or ", "sta"));
        assert_eq!(last_word("tags:\"a b"), ("", "tags:\"a b"));
        assert_eq!(last_word("status:online "), ("status:online ", ""));
    }

    #[test]
    fn every_suggested_field_exists() {
        assert!(FIELDS.iter().all(|field| muster_management::kql::agents::is_field(field)));
    }
}
