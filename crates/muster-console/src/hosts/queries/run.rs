//! `/queries/run`: the form of a live query, which says on how many hosts it will run before it does.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;
use std::time::Duration;

use askama::Template;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use muster_core::authorization::PrivilegeName;
use muster_core::live_query::DEFAULT_TIMEOUT;
use muster_core::{Error, shell};
use muster_fleet::Fleet;
use muster_fleet::live_queries::{NewLiveQuery, QuerySource};
use muster_management::error::status_of;
use muster_management::kql::agents::visible;
use serde::Deserialize;

use super::{API, PATH, TAB};
use crate::durations;
use crate::elsewhere::{cli, curl};
use crate::frame::{Frame, page};
use crate::hosts::label_hosts::names;
use crate::hosts::packs::choices;
use crate::request::Posted;
use crate::settings::{given, lines};
use crate::visitor::{Params, Visitor};
use crate::{failure, notice};

/// Maximum size of the form, bytes: SQL can take three bytes for each of its own.
const MAX_FORM: usize = 256 << 10;

/// Parameters of the page: what the form begins with.
#[derive(Default, Deserialize)]
#[serde(default)]
pub struct Asked {
    /// Id of a saved query.
    saved: String,
    /// Id of a live query, whose SQL is run again.
    again: String,
    /// A host.
    host: String,
    /// A label.
    label: String,
}

/// The form.
#[derive(Default, Deserialize)]
#[serde(default)]
pub struct Fields {
    sql: String,
    /// Id of the saved query that is run instead.
    saved: String,
    /// Names or ids of hosts, one in each line.
    hosts: String,
    kuery: String,
    /// Names of labels, of which the hosts have one.
    labels: Vec<String>,
    timeout: String,
    /// What was confirmed: [`Fields::seal`] of the form that was shown.
    confirmed: String,
}

impl Fields {
    /// Returns what a confirmation stands for: the number of hosts, and the fields from which it was counted.
    fn seal(&self, hosts: u64) -> String {
        let mut hasher = DefaultHasher::new();
        (&self.sql, &self.saved, &self.hosts, &self.kuery, &self.labels, &self.timeout).hash(&mut hasher);
        format!("{hosts}-{:x}", hasher.finish())
    }

    fn hosts(&self) -> Vec<String> {
        lines(&self.hosts.replace(',', "\n"))
    }
}

#[derive(Template)]
#[template(path = "hosts/query_run.html")]
struct RunPage {
    frame: Frame,
    fields: Fields,
    /// Name of the saved query.
    saved_name: String,
    /// SQL of the saved query.
    saved_sql: String,
    /// Number of hosts on which it will run, once it was counted, and the confirmation of it.
    counted: Option<(u64, String)>,
    /// The labels to choose from: name, and whether it is chosen.
    labels: Vec<(String, bool)>,
    error: Option<Error>,
    /// The privilege that SQL of one's own needs, if the person lacks it.
    lacks: &'static str,
    cli: String,
    api: String,
}

/// Shows the form.
pub async fn ask(State(fleet): State<Arc<Fleet>>, visitor: Visitor, Params(asked): Params<Asked>) -> Response {
    let mut fields = Fields {
        saved: asked.saved,
        hosts: asked.host,
        labels: given(&asked.label).into_iter().collect(),
        timeout: durations::written(DEFAULT_TIMEOUT.as_secs()),
        ..Fields::default()
    };
    if !asked.again.is_empty() {
        match fleet.live_queries().find(&visitor.context, &asked.again).await {
            Ok(query) => fields.sql.clone_from(&query.sql),
            Err(error) => return failure::inside(&visitor, &error, TAB),
        }
    }
    form_page(&fleet, &visitor, fields, None, None).await
}

async fn form_page(
    fleet: &Fleet,
    visitor: &Visitor,
    fields: Fields,
    counted: Option<u64>,
    error: Option<Error>,
) -> Response {
    let saved = match source(fleet, visitor, &fields).await {
        Ok(QuerySource::Saved(saved)) => Some(*saved),
        Ok(QuerySource::Sql(_)) => None,
        // Those who may not run queries, and saved queries that are gone.
        Err(error) => return failure::inside(visitor, &error, TAB),
    };
    let labels = match names(fleet, visitor).await {
        Ok(known) => choices(known, &fields.labels),
        Err(error) => return failure::inside(visitor, &error, TAB),
    };
    let (saved_name, saved_sql) = saved.map(|saved| (saved.name, saved.sql)).unwrap_or_default();
    let shown = RunPage {
        frame: Frame::new(visitor, "Run a query", TAB),
        cli: cli(visitor, &command(&fields, &saved_name)),
        api: curl(visitor, "POST", API, &body(&fields).to_string()),
        lacks: if saved_name.is_empty() { visitor.lacks(PrivilegeName::QueriesRun) } else { "" },
        saved_name,
        saved_sql,
        labels,
        counted: counted.map(|number| (number, fields.seal(number))),
        fields,
        error,
    };
    page(shown.error.as_ref().map_or(StatusCode::OK, |error| status_of(error.kind)), &shown)
}

fn command(fields: &Fields, saved: &str) -> String {
    let mut command = match saved {
        "" => format!("query run {}", shell::word(fields.sql.trim())),
        saved => format!("query run {}", shell::option("--saved", saved)),
    };
    for host in fields.hosts() {
        command += &format!(" {}", shell::option("--host", &host));
    }
    for label in &fields.labels {
        command += &format!(" {}", shell::option("--label", label));
    }
    match (fields.kuery.trim(), fields.hosts().is_empty() && fields.labels.is_empty()) {
        ("", true) => command += " --all",
        ("", false) => {}
        (kuery, _) => command += &format!(" {}", shell::option("--filter", kuery)),
    }
    command
}

fn body(fields: &Fields) -> serde_json::Value {
    let mut body = serde_json::json!({"hosts": fields.hosts()});
    match fields.saved.as_str() {
        "" => body["sql"] = fields.sql.trim().into(),
        saved => body["saved"] = saved.into(),
    }
    if !fields.labels.is_empty() {
        body["labels"] = fields.labels.clone().into();
    }
    if !fields.kuery.trim().is_empty() {
        body["kuery"] = fields.kuery.trim().into();
    }
    body
}

async fn source(fleet: &Fleet, visitor: &Visitor, fields: &Fields) -> Result<QuerySource, Error> {
    let grant = visitor.context.grant()?;
    Ok(match fields.saved.as_str() {
        "" => QuerySource::Sql(fields.sql.clone()),
        saved => QuerySource::Saved(Box::new(fleet.saved_queries().find(&grant, saved).await?)),
    })
}

async fn new_query(fleet: &Fleet, visitor: &Visitor, fields: &Fields) -> Result<NewLiveQuery, Error> {
    Ok(NewLiveQuery {
        sql: source(fleet, visitor, fields).await?,
        hosts: fields.hosts(),
        labels: fields.labels.clone(),
        filter: visible(&fields.kuery, false, fleet.now())?,
        timeout: Duration::from_secs(durations::parse("timeout_seconds", &fields.timeout)?),
    })
}

/// Counts the hosts; with the confirmation of that number, runs the query.
pub async fn run(State(fleet): State<Arc<Fleet>>, Posted(visitor, fields): Posted<Fields, MAX_FORM>) -> Response {
    // A dry run counts exactly the hosts that the query would run on, and validates it.
    let trial = visitor.context.clone().trying(true);
    let counted = async {
        let new = new_query(&fleet, &visitor, &fields).await?;
        Ok::<_, Error>((new.clone(), fleet.live_queries().create(&trial, new).await?.query.targets))
    };
    let (new, number) = match counted.await {
        Ok(counted) => counted,
        Err(error) => return form_page(&fleet, &visitor, fields, None, Some(error)).await,
    };
    // The number is part of the seal: if more hosts match by now, the person is asked again.
    if fields.confirmed != fields.seal(number) {
        return form_page(&fleet, &visitor, fields, Some(number), None).await;
    }
    match fleet.live_queries().create(&visitor.context, new).await {
        Ok(made) => {
            notice::redirect(visitor.base.link(format_args!("{PATH}/{}", made.query.id)), "The query has started.")
        }
        Err(error) => form_page(&fleet, &visitor, fields, None, Some(error)).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_confirmation_is_for_one_number_and_one_form() {
        let fields = |hosts: &str| Fields { sql: "SELECT 1".into(), hosts: hosts.into(), ..Fields::default() };
        assert_eq!(fields("a").seal(2), fields("a").seal(2));
        assert_ne!(fields("a").seal(2), fields("b").seal(2));
        assert_ne!(fields("a").seal(2), fields("a").seal(3));
        assert_eq!(command(&fields("a,b\n"), ""), "query run 'SELECT 1' --host=a --host=b");
        let labels = vec!["docker hosts".to_owned()];
        let labelled = Fields { labels, ..fields("") };
        assert_eq!(command(&labelled, ""), "query run 'SELECT 1' --label='docker hosts'");
        assert_ne!(labelled.seal(2), fields("").seal(2));
        assert_eq!(command(&fields(""), "who is in"), "query run --saved='who is in' --all");
    }
}
