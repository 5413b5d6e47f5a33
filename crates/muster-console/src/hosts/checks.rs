//! `/checks`: host checks, and the hosts that fail or pass them.

use std::sync::Arc;

use askama::Template;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use muster_core::authorization::{OsqueryRead, OsqueryWrite, PrivilegeName};
use muster_core::fleetd::checks::Check;
use muster_core::fleetd::platform::Platform;
use muster_core::plural::counted;
use muster_core::time::Timestamp;
use muster_core::{Error, shell};
use muster_fleet::Fleet;
use muster_fleet::host_checks::{CheckDraft, CountedCheck};
use muster_management::error::status_of;
use muster_store::query::{CheckCounts, CheckedHost, CheckedHosts, Page};
use serde::Deserialize;

use super::TAB;
use super::check_history::Days;
use super::facts::cut;
use super::label_hosts::names;
use super::packs::choices;
use crate::agents::agent::name_or_id;
use crate::confirm::Confirm;
use crate::elsewhere::{cli, curl, or_placeholder};
use crate::frame::{Frame, page};
use crate::pager::Pager;
use crate::request::{Id, Posted, Pressed};
use crate::settings::shown;
use crate::text::Moment;
use crate::versioned::{Edit, update_to};
use crate::visitor::{Params, Visitor};
use crate::{failure, notice};

/// Path of the list, and of it in the API.
const PATH: &str = "/checks";
const API: &str = "/api/fleet/host_checks";
/// Number of hosts on a page.
const ROWS: u32 = 50;
/// Maximum size of the form, bytes: SQL can take three bytes for each of its own.
const MAX_FORM: usize = 900 << 10;
/// Name of the conflict of two editors.
const CHANGED: &str = "host_check_changed";

#[derive(Template)]
#[template(path = "hosts/checks.html")]
struct ChecksPage {
    frame: Frame,
    rows: Vec<Row>,
    lacks: &'static str,
    cli: String,
    api: String,
}

struct Row {
    id: String,
    name: String,
    description: String,
    platforms: String,
    passing: u64,
    failing: u64,
    /// Number of hosts on which the query does not run, and the newest error.
    errors: u64,
    error: String,
}

impl Row {
    fn new(counted: CountedCheck) -> Self {
        let CountedCheck { check, counts } = counted;
        let CheckCounts { passing, failing, errors, error } = counts;
        Self {
            id: check.id.to_string(),
            description: cut(&check.description),
            platforms: if check.platforms.is_empty() { "all".to_owned() } else { check.platforms.join(", ") },
            name: check.name,
            passing,
            failing,
            errors,
            error: cut(&error),
        }
    }
}

/// Shows the list.
pub async fn list(State(fleet): State<Arc<Fleet>>, visitor: Visitor) -> Response {
    let made = async {
        let found = fleet.host_checks().list(&visitor.context.grant()?).await?;
        Ok(ChecksPage {
            frame: Frame::new(&visitor, "Host checks", TAB),
            rows: found.into_iter().map(Row::new).collect(),
            lacks: visitor.lacks(PrivilegeName::OsqueryWrite),
            cli: cli(&visitor, "host-check list"),
            api: curl(&visitor, "GET", API, ""),
        })
    };
    shown(&visitor, TAB, made.await)
}

/// The form of a check.
#[derive(Clone, Default, Deserialize)]
#[serde(default)]
pub struct Fields {
    name: String,
    description: String,
    query: String,
    resolution: String,
    platforms: Vec<String>,
    /// Names of labels.
    labels: Vec<String>,
    /// The version that the form was made from; empty for a new check.
    version: String,
}

impl Fields {
    fn of(check: &Check) -> Self {
        Self {
            name: check.name.clone(),
            description: check.description.clone(),
            query: check.query.clone(),
            resolution: check.resolution.clone(),
            platforms: check.platforms.clone(),
            labels: check.labels.clone(),
            version: check.version.to_string(),
        }
    }

    fn draft(&self) -> CheckDraft {
        CheckDraft {
            name: Some(self.name.clone()),
            description: Some(self.description.clone()),
            query: Some(self.query.clone()),
            resolution: Some(self.resolution.clone()),
            platforms: Some(self.platforms.clone()),
            labels: Some(self.labels.clone()),
        }
    }

    fn has(&self, platform: &str) -> bool {
        self.platforms.iter().any(|one| one == platform)
    }
}

#[derive(Template)]
#[template(path = "hosts/check.html")]
struct CheckPage {
    frame: Frame,
    /// The check as it is stored; `None` for a new one.
    check: Option<Row>,
    fields: Fields,
    /// The stored version, if somebody else has changed it since the form was made.
    current: Option<Fields>,
    hosts: Option<Hosts>,
    days: Option<Days>,
    platforms: [&'static str; 3],
    /// The labels to choose from: name, and whether it is chosen.
    labels: Vec<(String, bool)>,
    error: Option<Error>,
    lacks: &'static str,
    cli: String,
    api: String,
}

/// Hosts of a check.
struct Hosts {
    /// Which: `failing`, `passing` or `errors`.
    which: &'static str,
    rows: Vec<HostRow>,
    pager: Pager,
}

struct HostRow {
    /// Id of the host, or empty; then that of its osquery.
    id: String,
    agent: String,
    name: String,
    since: Moment,
    error: String,
}

impl HostRow {
    fn new(host: CheckedHost, now: Timestamp) -> Self {
        let agent = host.agent.to_string();
        Self {
            id: host.host.map(|id| id.to_string()).unwrap_or_default(),
            name: cut(name_or_id(&host.hostname, &agent)),
            since: Moment::new(host.since, now),
            error: cut(&host.error),
            agent,
        }
    }
}

/// Parameters of the page of a check.
#[derive(Default, Deserialize)]
#[serde(default)]
pub struct Asked {
    /// `passing` for the hosts that pass, `errors` for those on which the query does not run.
    hosts: String,
    page: u32,
}

/// Shows the form of a new check.
pub async fn ask(State(fleet): State<Arc<Fleet>>, visitor: Visitor) -> Response {
    let made = async {
        visitor.context.grant::<OsqueryWrite>()?;
        form_page(&fleet, &visitor, None, Fields::default(), None).await
    };
    render(made.await, &visitor)
}

fn render(made: Result<CheckPage, Error>, visitor: &Visitor) -> Response {
    match made {
        Ok(shown) => page(shown.error.as_ref().map_or(StatusCode::OK, |error| status_of(error.kind)), &shown),
        Err(error) => failure::inside(visitor, &error, TAB),
    }
}

async fn form_page(
    fleet: &Fleet,
    visitor: &Visitor,
    check: Option<Row>,
    fields: Fields,
    error: Option<Error>,
) -> Result<CheckPage, Error> {
    let (name, query) = (or_placeholder(&fields.name, "NAME"), or_placeholder(&fields.query, "QUERY"));
    let body = serde_json::json!({
        "name": name, "query": query, "description": fields.description, "resolution": fields.resolution,
        "platforms": fields.platforms, "labels": fields.labels,
    });
    let (title, verb, method, path) = match &check {
        None => ("Create a host check".to_owned(), "create", "POST", API.to_owned()),
        Some(check) => (format!("Check {}", check.name), "update", "PUT", format!("{API}/{}", check.id)),
    };
    let subject = check.as_ref().map_or(name, |check| check.name.as_str());
    let mut command = format!("host-check {verb} {}", shell::argument(subject));
    for (flag, value) in [("--query", query), ("--resolution", fields.resolution.as_str())] {
        if !value.trim().is_empty() {
            command += &format!(" {}", shell::option(flag, value.trim()));
        }
    }
    for platform in &fields.platforms {
        command += &format!(" {}", shell::option("--platform", platform));
    }
    for label in &fields.labels {
        command += &format!(" {}", shell::option("--label", label));
    }
    Ok(CheckPage {
        frame: Frame::new(visitor, title, TAB),
        current: None,
        hosts: None,
        days: None,
        platforms: Platform::NAMES,
        labels: choices(names(fleet, visitor).await?, &fields.labels),
        lacks: visitor.lacks(PrivilegeName::OsqueryWrite),
        cli: cli(visitor, &command),
        api: curl(visitor, method, &path, &body.to_string()),
        check,
        fields,
        error,
    })
}

/// Creates a check.
pub async fn create(State(fleet): State<Arc<Fleet>>, Posted(visitor, fields): Posted<Fields, MAX_FORM>) -> Response {
    let made = async { fleet.host_checks().create(&visitor.context.grant()?, fields.draft()).await };
    match made.await {
        Ok(check) => {
            let text = format!("The check {} is created. Hosts answer it within seconds.", check.name);
            notice::redirect(visitor.base.link(format_args!("{PATH}/{}", check.id)), &text)
        }
        Err(error) => render(form_page(&fleet, &visitor, None, fields, Some(at_field(error))).await, &visitor),
    }
}

/// Names the field of an error that has none.
fn at_field(error: Error) -> Error {
    let field = match error.code {
        "host_check_exists" => "name",
        // The only thing that a check refers to.
        "not_found" if error.message.starts_with("label ") => "labels",
        _ => return error,
    };
    Error { field: Some(field.into()), ..error }
}

/// Shows a check with its hosts.
pub async fn show(
    State(fleet): State<Arc<Fleet>>,
    visitor: Visitor,
    Id(id): Id,
    Params(asked): Params<Asked>,
) -> Response {
    let made = async {
        let grant = visitor.context.grant()?;
        let (which, selected) = match asked.hosts.as_str() {
            "passing" => ("passing", CheckedHosts::Passing),
            "errors" => ("errors", CheckedHosts::Errors),
            _ => ("failing", CheckedHosts::Failing),
        };
        let offset = asked.page.saturating_mul(ROWS);
        let (found, hosts) = fleet.host_checks().hosts(&grant, &id, selected, Page { offset, limit: ROWS }).await?;
        let total = found.number(selected);
        let link = |number: u32| format!("{}{PATH}/{id}?hosts={which}&page={number}", visitor.base);
        let now = fleet.now();
        let fields = Fields::of(&found.check);
        let hosts = Hosts {
            which,
            rows: hosts.into_iter().map(|host| HostRow::new(host, now)).collect(),
            pager: Pager::numbered(asked.page, ROWS, total, link),
        };
        let (found, days) = fleet.host_checks().days(&grant, &id).await?;
        let form = form_page(&fleet, &visitor, Some(Row::new(found)), fields, None).await?;
        Ok(CheckPage { hosts: Some(hosts), days: Days::of(&days), ..form })
    };
    shown(&visitor, TAB, made.await)
}

/// Changes a check.
pub async fn update(
    State(fleet): State<Arc<Fleet>>,
    Id(id): Id,
    Posted(visitor, fields): Posted<Fields, MAX_FORM>,
) -> Response {
    update_to(&fleet, &visitor, &id, fields).await
}

impl Edit for Fields {
    type Record = CountedCheck;

    const CHANGED: &'static str = CHANGED;

    async fn find(fleet: &Fleet, visitor: &Visitor, id: &str) -> Result<CountedCheck, Error> {
        fleet.host_checks().find(&visitor.context.grant()?, id).await
    }

    fn version_of(found: &CountedCheck) -> String {
        found.check.version.to_string()
    }

    fn version(&mut self) -> &mut String {
        &mut self.version
    }

    fn what(_: &Self::Record) -> String {
        "check".to_owned()
    }

    fn subject(_: &Visitor, found: &Self::Record) -> String {
        format!("host_check:{}", found.check.id)
    }

    async fn save(&self, fleet: &Fleet, visitor: &Visitor, found: &CountedCheck) -> Result<Response, Error> {
        let Check { id, version, .. } = &found.check;
        let (grant, id) = (visitor.context.grant()?, id.as_str());
        let check = fleet.host_checks().update(&grant, id, self.draft(), Some(*version)).await?;
        let text = format!("The check {} is saved.", check.name);
        Ok(notice::redirect(visitor.base.link(format_args!("{PATH}/{id}")), &text))
    }

    async fn again(self, fleet: &Fleet, visitor: &Visitor, found: &CountedCheck, error: Error) -> Response {
        let current = (error.code == CHANGED).then(|| Self::of(&found.check));
        let made = form_page(fleet, visitor, Some(Row::new(found.clone())), self, Some(at_field(error))).await;
        render(made.map(|shown| CheckPage { current, ..shown }), visitor)
    }
}

/// Asks before a check is deleted.
pub async fn ask_to_delete(State(fleet): State<Arc<Fleet>>, visitor: Visitor, Id(id): Id) -> Response {
    let made = async {
        visitor.context.grant::<OsqueryWrite>()?;
        let found = fleet.host_checks().find(&visitor.context.grant::<OsqueryRead>()?, &id).await?;
        // Hosts that have not answered have nothing that is deleted.
        let hosts = counted(found.counts.passing + found.counts.failing, "host");
        let title = format!("Delete the check {}?", found.check.name);
        Ok(Confirm {
            text: vec![format!(
                "This deletes the check and the answers of {hosts}. Hosts no longer run its query. This cannot be undone."
            )],
            button: "Delete the check",
            cli: cli(&visitor, &format!("host-check delete {}", shell::argument(&found.check.name))),
            api: curl(&visitor, "DELETE", &format!("{API}/{id}"), ""),
            ..Confirm::of(&visitor, title, TAB, &format!("{PATH}/{id}"), "delete")
        })
    };
    shown(&visitor, TAB, made.await)
}

/// Deletes a check.
pub async fn delete(State(fleet): State<Arc<Fleet>>, Pressed(visitor): Pressed, Id(id): Id) -> Response {
    let made = async {
        fleet.host_checks().delete(&visitor.context.grant()?, &id).await?;
        Ok::<_, Error>(notice::redirect(visitor.base.link(PATH), "The check is deleted."))
    };
    made.await.unwrap_or_else(|error| failure::inside(&visitor, &error, TAB))
}
