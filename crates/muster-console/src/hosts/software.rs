//! `/software`: the software on hosts with osquery, by name and version.

use std::sync::Arc;

use askama::Template;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use muster_core::fleetd::software::Source;
use muster_core::fleetd::software::version::Conditions;
use muster_core::{Error, shell};
use muster_fleet::Fleet;
use muster_fleet::software::Search;
use muster_management::error::status_of;
use muster_store::query::{FoundSoftware, Page, SoftwareSearch};
use serde::Deserialize;

use super::TAB;
use super::facts::cut;
use crate::agents::agent::name_or_id;
use crate::agents::asked::{encoded, with_query};
use crate::elsewhere::{cli, curl};
use crate::failure;
use crate::frame::{Frame, page};
use crate::pager::Pager;
use crate::request::Id;
use crate::settings::{given, shown};
use crate::visitor::{Params, Visitor};

/// Path of the list, and of it in the API.
const PATH: &str = "/software";
const API: &str = "/api/fleet/software";
/// Number of rows on a page.
const ROWS: u32 = 50;

/// Parameters of the list.
#[derive(Default, Deserialize)]
#[serde(default)]
pub struct Asked {
    name: String,
    version: String,
    source: String,
    page: u32,
}

impl Asked {
    fn search(&self) -> Result<Search, Error> {
        let source = given(&self.source).map(|word| {
            Source::parse(&word).ok_or_else(|| Error::invalid("source", format!("unknown source {word:?}")))
        });
        let versions = given(&self.version).map(|text| Conditions::parse(&text)).transpose()?;
        let name = given(&self.name).unwrap_or_default();
        // Versions are compared row by row, which is bounded only among the rows of a name.
        if versions.is_some() && name.is_empty() {
            return Err(Error::invalid("version", "requires a name"));
        }
        Ok(Search { software: SoftwareSearch { name, source: source.transpose()? }, versions, after: None })
    }

    fn query(&self) -> String {
        let pairs = [("name", &self.name), ("version", &self.version), ("source", &self.source)];
        let given = pairs.into_iter().filter(|(_, value)| !value.trim().is_empty());
        given.map(|(name, value)| format!("{name}={}", encoded(value.trim()))).collect::<Vec<_>>().join("&")
    }

    fn command(&self) -> String {
        let flags = [("--name", &self.name), ("--version", &self.version), ("--source", &self.source)];
        let given = flags.into_iter().filter(|(_, value)| !value.trim().is_empty());
        given.fold("software list".to_owned(), |command, (flag, value)| {
            format!("{command} {}", shell::option(flag, value.trim()))
        })
    }
}

#[derive(Template)]
#[template(path = "hosts/software.html")]
struct SoftwarePage<'a> {
    frame: Frame,
    asked: &'a Asked,
    error: Option<Error>,
    /// Words and names of the sources.
    sources: [(&'static str, &'static str); 8],
    rows: Vec<Row>,
    pager: Pager,
    cli: String,
    api: String,
}

struct Row {
    id: String,
    name: String,
    version: String,
    source: &'static str,
    hosts: u64,
}

impl Row {
    fn new(found: &FoundSoftware) -> Self {
        Self {
            id: found.id.to_string(),
            name: cut(&found.software.name),
            version: cut(&found.software.version),
            source: found.software.source.label(),
            hosts: found.hosts,
        }
    }
}

/// Shows the list.
pub async fn list(State(fleet): State<Arc<Fleet>>, visitor: Visitor, Params(asked): Params<Asked>) -> Response {
    match read(&fleet, &visitor, &asked).await {
        Ok(shown) => page(shown.error.as_ref().map_or(StatusCode::OK, |error| status_of(error.kind)), &shown),
        Err(error) => failure::inside(&visitor, &error, TAB),
    }
}

async fn read<'a>(fleet: &Fleet, visitor: &Visitor, asked: &'a Asked) -> Result<SoftwarePage<'a>, Error> {
    let grant = visitor.context.grant()?;
    let query = asked.query();
    let mut shown = SoftwarePage {
        frame: Frame::new(visitor, "Software", TAB),
        error: None,
        sources: Source::ALL.map(|source| (source.as_str(), source.label())),
        rows: Vec::new(),
        pager: Pager::default(),
        cli: cli(visitor, &asked.command()),
        api: curl(visitor, "GET", &with_query(API, &query), ""),
        asked,
    };
    let offset = asked.page.saturating_mul(ROWS);
    let found = async { fleet.software().list(&grant, &asked.search()?, Page { offset, limit: ROWS }).await };
    match found.await {
        Ok(found) => {
            let link = |number: u32| with_query(&format!("{}{PATH}", visitor.base), &format!("{query}&page={number}"));
            shown.pager = Pager::numbered(asked.page, ROWS, found.total, link);
            shown.rows = found.items.iter().map(Row::new).collect();
        }
        Err(error) => shown.error = Some(error),
    }
    Ok(shown)
}

/// Parameters of the page of software.
#[derive(Default, Deserialize)]
#[serde(default)]
pub struct AskedHosts {
    page: u32,
}

#[derive(Template)]
#[template(path = "hosts/software_one.html")]
struct OnePage {
    frame: Frame,
    software: Row,
    /// The hosts: the id of the host or empty, the id of its osquery, and the name.
    hosts: Vec<(String, String, String)>,
    /// Link to the other versions of the name.
    versions: String,
    pager: Pager,
    cli: String,
    api: String,
}

/// Shows software with the hosts that have it.
pub async fn show(
    State(fleet): State<Arc<Fleet>>,
    visitor: Visitor,
    Id(id): Id,
    Params(asked): Params<AskedHosts>,
) -> Response {
    let made = async {
        let offset = asked.page.saturating_mul(ROWS);
        let rows = Page { offset, limit: ROWS };
        let (found, hosts) = fleet.software().hosts(&visitor.context.grant()?, &id, None, rows).await?;
        let link = |number: u32| format!("{}{PATH}/{id}?page={number}", visitor.base);
        // An asterisk in a name would be a pattern.
        let versions = format!("{}{PATH}?name={}", visitor.base, encoded(&found.software.name));
        let host = |host: muster_store::query::SoftwareHost| {
            let agent = host.agent.to_string();
            let name = cut(name_or_id(&host.hostname, &agent));
            (host.host.map(|id| id.to_string()).unwrap_or_default(), agent, name)
        };
        let software = Row::new(&found);
        Ok(OnePage {
            frame: Frame::new(&visitor, format!("{} {}", software.name, software.version), TAB),
            hosts: hosts.hosts.into_iter().map(host).collect(),
            versions,
            pager: Pager::numbered(asked.page, ROWS, found.hosts, link),
            cli: cli(&visitor, &format!("software show {}", shell::argument(&id))),
            api: curl(&visitor, "GET", &format!("{API}/{id}/hosts"), ""),
            software,
        })
    };
    shown(&visitor, TAB, made.await)
}
