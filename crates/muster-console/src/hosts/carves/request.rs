//! `/carves/new`: requests an archive of files from hosts, with a live query that carves.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;

use askama::Template;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use muster_core::authorization::{PrivilegeName, QueriesRun};
use muster_core::carve::query_of;
use muster_core::live_query::DEFAULT_TIMEOUT;
use muster_core::{Error, ErrorKind, shell};
use muster_fleet::Fleet;
use muster_fleet::live_queries::{NewLiveQuery, QuerySource};
use muster_management::error::status_of;
use muster_store::query::AgentFilter;
use serde::Deserialize;

use super::super::TAB;
use super::PATH;
use crate::elsewhere::{cli, curl};
use crate::frame::{Frame, page};
use crate::notice;
use crate::request::Posted;
use crate::settings::lines;
use crate::visitor::{May, Params, Visitor};

/// Maximum size of the form, bytes.
const MAX_FORM: usize = 128 << 10;

/// Parameters of the page.
#[derive(Default, Deserialize)]
#[serde(default)]
pub struct Asked {
    /// A host.
    host: String,
}

/// The form.
#[derive(Default, Deserialize)]
#[serde(default)]
pub struct Fields {
    /// Names or ids of hosts, one in each line.
    hosts: String,
    /// Paths, one in each line.
    paths: String,
    /// What was confirmed: [`Fields::seal`] of the form that was shown.
    confirmed: String,
}

impl Fields {
    fn seal(&self, hosts: u64) -> String {
        let mut hasher = DefaultHasher::new();
        (&self.hosts, &self.paths).hash(&mut hasher);
        format!("{hosts}-{:x}", hasher.finish())
    }

    fn hosts(&self) -> Vec<String> {
        lines(&self.hosts.replace(',', "\n"))
    }

    fn query(&self) -> Result<NewLiveQuery, Error> {
        let hosts = self.hosts();
        // Without hosts, the query would run on all of them.
        if hosts.is_empty() {
            return Err(Error::invalid("hosts", "name the hosts that upload the files"));
        }
        Ok(NewLiveQuery {
            sql: QuerySource::Sql(query_of(&lines(&self.paths))?),
            hosts,
            labels: Vec::new(),
            filter: AgentFilter::default(),
            timeout: DEFAULT_TIMEOUT,
        })
    }
}

#[derive(Template)]
#[template(path = "hosts/carve_new.html")]
struct RequestPage {
    frame: Frame,
    fields: Fields,
    /// The query, the number of hosts on which it will run, and the confirmation of it.
    review: Option<(String, u64, String)>,
    error: Option<Error>,
    cli: String,
    api: String,
}

/// Shows the form.
pub async fn ask(May { visitor, .. }: May<QueriesRun>, Params(asked): Params<Asked>) -> Response {
    form_page(&visitor, Fields { hosts: asked.host, ..Fields::default() }, None, None)
}

fn form_page(visitor: &Visitor, fields: Fields, review: Option<u64>, error: Option<Error>) -> Response {
    let sql = query_of(&lines(&fields.paths)).unwrap_or_else(|_| "SELECT carve('PATH')".to_owned());
    let mut command = format!("query run {}", shell::word(&sql));
    for host in fields.hosts() {
        command += &format!(" {}", shell::option("--host", &host));
    }
    let body = serde_json::json!({"sql": sql, "hosts": fields.hosts()});
    let shown = RequestPage {
        frame: Frame::new(visitor, "Request a carve", TAB),
        cli: cli(visitor, &command),
        api: curl(visitor, "POST", "/api/v1/queries/run", &body.to_string()),
        review: review.map(|hosts| (sql, hosts, fields.seal(hosts))),
        fields,
        error,
    };
    page(shown.error.as_ref().map_or(StatusCode::OK, |error| status_of(error.kind)), &shown)
}

/// Names the field of an error about a host that does not exist, which has none.
fn at_hosts(error: Error) -> Error {
    let is_unknown = error.kind == ErrorKind::NotFound && error.field.is_none();
    if is_unknown { Error { field: Some("hosts".to_owned()), ..error } } else { error }
}

/// Counts the hosts; with the confirmation of that number, runs the query.
pub async fn run(State(fleet): State<Arc<Fleet>>, Posted(visitor, fields): Posted<Fields, MAX_FORM>) -> Response {
    let trial = visitor.context.clone().trying(true);
    let counted = async {
        // The archives are useful only to those who may download them.
        visitor.context.check(PrivilegeName::CarvesDownload)?;
        let new = fields.query()?;
        Ok::<_, Error>((new.clone(), fleet.live_queries().create(&trial, new).await?.query.targets))
    };
    let (new, hosts) = match counted.await {
        Ok(counted) => counted,
        Err(error) => return form_page(&visitor, fields, None, Some(at_hosts(error))),
    };
    if fields.confirmed != fields.seal(hosts) {
        return form_page(&visitor, fields, Some(hosts), None);
    }
    match fleet.live_queries().create(&visitor.context, new).await {
        Ok(made) => {
            let list = visitor.base.link(format_args!("{PATH}?query={}", made.query.id));
            notice::redirect(list, "The hosts were asked for the files. Their archives appear here.")
        }
        Err(error) => form_page(&visitor, fields, None, Some(error)),
    }
}
