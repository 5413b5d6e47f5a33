//! The scheduled queries of a pack, one at a time: a form adds or replaces one in the pack's document, a button removes one.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use muster_core::authorization::OsqueryWrite;
use muster_core::plural::counted;
use muster_core::{Error, ErrorKind};
use muster_fleet::Fleet;
use muster_fleet::packs::{PackDraft, ScopedPack};
use muster_fleet::query_failures::PackFailures;
use muster_store::query::FailureCount;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::TAB;
use super::asked::Asked;
use super::facts::cut;
use super::packs::{MAX_FORM, PATH, after_failure, find, saved};
use crate::agents::asked::quoted;
use crate::confirm::{Confirm, shown};
use crate::durations;
use crate::failure;
use crate::links::Base;
use crate::request::{Id, Posted};
use crate::versioned::by_whom;
use crate::visitor::Visitor;

/// What osquery logs of a scheduled query: the word in the form, and what it means.
const KINDS: [(&str, &str); 3] = [
    ("changes", "rows that were added or removed since the last run"),
    ("added", "rows that were added since the last run"),
    ("snapshot", "all rows of each run"),
];

/// A scheduled query in the table.
pub struct QueryRow {
    /// Its name in the pack.
    pub name: String,
    /// The SQL, truncated.
    pub sql: String,
    /// How often it runs.
    pub interval: String,
    /// Platforms, as osquery names them.
    pub platform: String,
    /// What osquery logs.
    pub kind: &'static str,
    /// On how many hosts it does not work; empty if it works everywhere.
    pub failures: String,
    /// The link to the hosts on which it does not work.
    pub failures_link: String,
}

/// Returns the number of scheduled queries of a document.
pub fn count(document: &Value) -> usize {
    document["queries"].as_object().map_or(0, Map::len)
}

/// Returns the scheduled queries of a document. `failures`: those that do not work on some hosts.
pub fn rows(document: &Value, failures: &PackFailures, base: &Base) -> Vec<QueryRow> {
    let queries = document["queries"].as_object().into_iter().flatten();
    let link = |name: &str| {
        let asked = Asked { q: format!("failing_queries:{}", quoted(name)), ..Asked::default() };
        asked.link(base, TAB, &[])
    };
    let row = |(name, query): (&String, &Value)| QueryRow {
        failures: failures.get(name).map(on_hosts).unwrap_or_default(),
        failures_link: failures.get(name).map(|count| link(&count.name)).unwrap_or_default(),
        name: name.clone(),
        sql: cut(query["query"].as_str().unwrap_or_default()),
        interval: interval(query["interval"].as_u64().unwrap_or_default()),
        platform: cut(query["platform"].as_str().unwrap_or("all")),
        kind: kind_of(query),
    };
    queries.map(row).collect()
}

/// Formats numbers of hosts: `fails on 3 hosts, denylisted on 1 host`.
fn on_hosts(count: &FailureCount) -> String {
    let parts = [("fails on", count.failing), ("denylisted on", count.denylisted)];
    let parts = parts.into_iter().filter(|(_, number)| *number > 0);
    parts.map(|(what, number)| format!("{what} {}", counted(number, "host"))).collect::<Vec<_>>().join(", ")
}

fn kind_of(query: &Value) -> &'static str {
    match (query["snapshot"] == true, query["removed"] == false) {
        (true, _) => "snapshot",
        (false, true) => "added",
        (false, false) => "changes",
    }
}

/// Formats a number of seconds with the largest unit that divides it.
fn interval(seconds: u64) -> String {
    match seconds {
        seconds if seconds > 0 && seconds.is_multiple_of(3_600) => format!("{} h", seconds / 3_600),
        seconds if seconds > 0 && seconds.is_multiple_of(60) => format!("{} min", seconds / 60),
        seconds => format!("{seconds} s"),
    }
}

/// The form of a scheduled query.
#[derive(Clone, Default, Deserialize)]
#[serde(default)]
pub struct Fields {
    /// Name in the pack.
    pub name: String,
    /// SQL.
    pub query: String,
    /// Seconds between two runs.
    pub interval: String,
    /// Platforms, as osquery names them; empty for all.
    pub platform: String,
    /// What osquery logs: a word of [`KINDS`].
    pub kind: String,
    /// Name of the query to remove instead.
    pub remove: String,
    /// Set once the removal was confirmed.
    pub confirmed: String,
    /// The version of the pack that the form was made from.
    pub version: String,
}

impl Fields {
    /// Creates an empty form.
    pub fn new(version: String) -> Self {
        Self { interval: "1h".to_owned(), version, ..Self::default() }
    }

    /// What can be logged.
    pub fn kinds(&self) -> [(&'static str, &'static str); 3] {
        KINDS
    }

    /// Returns the scheduled query. Other members of one that it replaces are kept.
    fn apply(&self, before: Option<&Value>) -> Result<Value, Error> {
        let seconds = durations::parse("interval", &self.interval)?;
        let mut query = before.and_then(Value::as_object).cloned().unwrap_or_default();
        query.retain(|name, _| !["snapshot", "removed", "platform"].contains(&name.as_str()));
        query.insert("query".into(), self.query.trim().into());
        query.insert("interval".into(), seconds.into());
        match self.kind.as_str() {
            "snapshot" => query.insert("snapshot".into(), true.into()),
            "added" => query.insert("removed".into(), false.into()),
            _ => None,
        };
        if !self.platform.trim().is_empty() {
            query.insert("platform".into(), self.platform.trim().into());
        }
        Ok(Value::Object(query))
    }

    /// Changes the queries of a pack.
    fn change(&self, queries: &mut Map<String, Value>) -> Result<(), Error> {
        if !self.remove.is_empty() {
            let removed = queries.remove(&self.remove);
            return removed
                .map(drop)
                .ok_or_else(|| Error::not_found("scheduled query", format_args!("{:?}", self.remove)));
        }
        let name = self.name.trim();
        if name.is_empty() {
            return Err(Error::invalid("query_name", "must not be empty"));
        }
        let query = self.apply(queries.get(name))?;
        queries.insert(name.to_owned(), query);
        Ok(())
    }
}

/// Adds, replaces or removes a scheduled query.
pub async fn change(
    State(fleet): State<Arc<Fleet>>,
    Id(id): Id,
    Posted(visitor, mut form): Posted<Fields, MAX_FORM>,
) -> Response {
    let found = async {
        visitor.context.grant::<OsqueryWrite>()?;
        find(&fleet, &visitor, &id).await
    };
    let one = match found.await {
        Ok(one) => one,
        Err(error) => return failure::inside(&visitor, &error, TAB),
    };
    if !form.remove.is_empty() && form.confirmed.is_empty() {
        return shown(&visitor, TAB, Ok(question(&visitor, &one, &form)));
    }
    match save(&fleet, &visitor, &one, &form).await {
        Ok(after) => saved(&visitor, &after),
        Err(error) => {
            // The page shows the pack as it is now, so that the next attempt is about this version.
            form.version = one.pack.version.to_string();
            after_failure(&fleet, &visitor, &one, form, at_field(error)).await
        }
    }
}

/// Asks before a query is removed.
fn question(visitor: &Visitor, one: &ScopedPack, form: &Fields) -> Confirm {
    let (pack, name) = (&one.pack, &form.remove);
    let sql = cut(pack.document["queries"][name.as_str()]["query"].as_str().unwrap_or_default());
    let of_all = if one.is_of_all { " in all spaces" } else { "" };
    let back = visitor.base.link(format_args!("{PATH}/{}", pack.id));
    let action = visitor.base.link(format_args!("{PATH}/{}/queries", pack.id));
    Confirm {
        text: vec![format!("Hosts{of_all} no longer run this query of the pack {}:", pack.name), sql],
        hidden: vec![("remove", name.clone()), ("version", form.version.clone()), ("confirmed", "1".to_owned())],
        button: "Remove the query",
        ..Confirm::new(visitor, format!("Remove the query {}?", cut(name)), TAB, action, back)
    }
}

async fn save(fleet: &Fleet, visitor: &Visitor, one: &ScopedPack, form: &Fields) -> Result<ScopedPack, Error> {
    let pack = &one.pack;
    if form.version != pack.version.to_string() {
        let who = by_whom(fleet, visitor, &format!("pack:{}", pack.id), "pack").await;
        let message = format!("{who}; its queries are shown as they are now");
        return Err(
            Error::new(ErrorKind::Conflict, "pack_changed", message).remedy("repeat the change if it is still needed")
        );
    }
    let mut document = pack.document.clone();
    if document.get("queries").is_none() {
        document["queries"] = json!({});
    }
    if let Some(queries) = document["queries"].as_object_mut() {
        form.change(queries)?;
    }
    let draft = PackDraft {
        name: pack.name.clone(),
        description: pack.description.clone(),
        platforms: pack.platforms.clone(),
        labels: pack.labels.clone(),
        document: document.to_string(),
        is_of_all: one.is_of_all,
        expected: Some(pack.version),
    };
    fleet.packs().save(&visitor.context, draft).await
}

/// Shows the first problem of the document at its field: the form has only this query.
fn at_field(error: Error) -> Error {
    let Some(problem) = error.problems.as_ref().and_then(|problems| problems.0.first()) else { return error };
    let member = problem.path.rsplit('.').next().unwrap_or_default();
    let field = ["query", "interval", "platform"].into_iter().find(|field| *field == member);
    Error { field: field.map(Into::into), message: problem.reason.clone(), ..error }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_replaces_what_it_has_and_keeps_the_rest() {
        let mut queries = Map::new();
        queries.insert("a".into(), json!({"query": "x", "interval": 1, "snapshot": true, "shard": 5}));
        let form = Fields { name: " a ".into(), query: "y".into(), kind: "added".into(), ..Fields::new("1".into()) };
        form.change(&mut queries).unwrap();
        assert_eq!(queries["a"], json!({"query": "y", "interval": 3600, "removed": false, "shard": 5}));
        let gone = Fields { remove: "a".into(), ..Fields::default() };
        gone.change(&mut queries).unwrap();
        assert!(queries.is_empty() && gone.change(&mut queries).is_err());
        let unnamed = Fields { name: String::new(), ..form };
        assert_eq!(unnamed.change(&mut queries).unwrap_err().field.as_deref(), Some("query_name"));
    }

    #[test]
    fn rows_say_how_often_a_query_runs_and_what_is_logged() {
        let document = json!({"queries": {"a": {"query": "x", "interval": 7200},
            "b": {"query": "y", "interval": 90, "snapshot": true, "platform": "linux"}}});
        let count = FailureCount { name: "pack/it/b".into(), failing: 1, denylisted: 20 };
        let found = rows(&document, &PackFailures::from([("b".into(), count)]), &Base::root());
        assert_eq!((found[0].failures.as_str(), found[0].failures_link.as_str()), ("", ""));
        assert_eq!(found[1].failures, "fails on 1 host, denylisted on 20 hosts");
        assert_eq!(found[1].failures_link, "/hosts?q=failing%5Fqueries%3A%22pack%2Fit%2Fb%22");
        assert_eq!((found[0].interval.as_str(), found[0].kind, found[0].platform.as_str()), ("2 h", "changes", "all"));
        assert_eq!(
            (found[1].interval.as_str(), found[1].kind, found[1].platform.as_str()),
            ("90 s", "snapshot", "linux")
        );
        assert_eq!(interval(600), "10 min");
        assert!(rows(&json!({}), &PackFailures::new(), &Base::root()).is_empty());
    }
}
