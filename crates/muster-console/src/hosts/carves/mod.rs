//! `/carves`: archives that hosts have uploaded.

pub mod request;

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;

use askama::Template;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use muster_core::authorization::PrivilegeName;
use muster_core::carve::{Carve, CarveState};
use muster_core::id::HostId;
use muster_core::time::Timestamp;
use muster_core::{Error, shell};
use muster_fleet::Fleet;
use serde::Deserialize;

use super::TAB;
use super::facts::cut;
use super::scripts::State3;
use crate::agents::agent::name_or_id;
use crate::agents::asked::encoded;
use crate::confirm::Confirm;
use crate::elsewhere::{cli, curl};
use crate::frame::{Frame, page};
use crate::pager::Pager;
use crate::request::{Id, Pressed};
use crate::text::{Moment, size};
use crate::visitor::{Params, Visitor};
use crate::{confirm, failure, notice};

/// Path of the list, and of it in the API.
const PATH: &str = "/carves";
const API: &str = "/api/v1/carves";
/// Number of rows on a page.
const ROWS: u32 = 50;

/// Parameters of the pages.
#[derive(Default, Deserialize)]
#[serde(default)]
pub struct Asked {
    /// Id of the live query that carved.
    query: String,
    /// Id of a host.
    host: String,
    page: u32,
    /// What an open page shows. Only in requests that renew it.
    seen: String,
}

#[derive(Template)]
#[template(path = "hosts/carves.html")]
struct CarvesPage {
    frame: Frame,
    query: String,
    host: String,
    rows: Vec<Row>,
    pager: Pager,
    /// Link that renews the list.
    live: String,
    /// Whether archives are being uploaded, or are waited for.
    is_live: bool,
    lacks_request: &'static str,
    cli: String,
    api: String,
}

/// An archive.
pub struct Row {
    pub id: String,
    pub host: String,
    pub agent: String,
    pub name: String,
    pub state: State3,
    pub size: String,
    /// Number of bytes received and announced, for a bar.
    pub progress: (u64, u64),
    pub error: String,
    pub began: Moment,
    /// When the bytes are deleted; `None` if they are gone.
    pub expires: Option<Moment>,
}

impl Row {
    /// Creates the row of an archive.
    pub fn new(carve: &Carve, now: Timestamp) -> Self {
        let agent = carve.agent.to_string();
        let (class, sign, text) = match carve.state {
            CarveState::Receiving => ("busy", "◐", "uploading"),
            CarveState::Complete => ("good", "●", "complete"),
            CarveState::Failed => ("bad", "✕", "failed"),
            CarveState::Expired => ("quiet", "–", "expired"),
        };
        let is_stored = matches!(carve.state, CarveState::Receiving | CarveState::Complete);
        Self {
            id: carve.id.to_string(),
            host: carve.host.as_ref().map(ToString::to_string).unwrap_or_default(),
            name: cut(name_or_id(&carve.hostname, &agent)),
            state: (class, sign, text.to_owned()),
            size: size(carve.announced.size),
            progress: (carve.received(), carve.announced.size),
            error: carve.error.as_deref().map(cut).unwrap_or_default(),
            began: Moment::new(carve.began_at, now),
            expires: is_stored.then(|| Moment::new(carve.expires_at, now)),
            agent,
        }
    }

    fn is_receiving(&self) -> bool {
        self.state.2 == "uploading"
    }
}

/// Shows the list.
pub async fn list(
    State(fleet): State<Arc<Fleet>>,
    visitor: Visitor,
    headers: HeaderMap,
    Params(asked): Params<Asked>,
) -> Response {
    match content(&fleet, &visitor, &asked, headers.contains_key("hx-request")).await {
        Ok(Some(shown)) => page(StatusCode::OK, &shown),
        Ok(None) => StatusCode::NO_CONTENT.into_response(),
        Err(error) => failure::inside(&visitor, &error, TAB),
    }
}

/// Returns the page; `None` if an open page already shows it.
async fn content(
    fleet: &Fleet,
    visitor: &Visitor,
    asked: &Asked,
    is_renewal: bool,
) -> Result<Option<CarvesPage>, Error> {
    let mut all = fleet.carves().list(&visitor.context.grant()?).await?;
    all.retain(|carve| {
        let is_of = |wanted: &str, id: Option<&str>| wanted.is_empty() || id == Some(wanted);
        is_of(&asked.query, carve.query()) && is_of(&asked.host, carve.host.as_ref().map(HostId::as_str))
    });
    let start = asked.page.saturating_mul(ROWS) as usize;
    let shown: Vec<&Carve> = all.iter().skip(start).take(ROWS as usize).collect();
    let seen = seen(&shown);
    if is_renewal && asked.seen == seen {
        return Ok(None);
    }
    let now = fleet.now();
    let rows: Vec<Row> = shown.into_iter().map(|carve| Row::new(carve, now)).collect();
    let filter = format!("query={}&host={}", encoded(&asked.query), encoded(&asked.host));
    let link = |number: u32| format!("{}{PATH}?{filter}&page={number}", visitor.base);
    let command = match asked.query.as_str() {
        "" => "carve list".to_owned(),
        query => format!("carve list {}", shell::option("--query", query)),
    };
    Ok(Some(CarvesPage {
        frame: Frame::new(visitor, "Carves", TAB),
        is_live: rows.iter().any(Row::is_receiving) || !asked.query.is_empty(),
        query: asked.query.clone(),
        host: asked.host.clone(),
        rows,
        pager: Pager::numbered(asked.page, ROWS, all.len() as u64, link),
        live: format!("{}&seen={seen}", link(asked.page)),
        lacks_request: visitor.lacks(PrivilegeName::QueriesRun),
        cli: cli(visitor, &command),
        api: curl(visitor, "GET", API, ""),
    }))
}

/// Returns what the rows depend on.
fn seen(shown: &[&Carve]) -> String {
    let mut hasher = DefaultHasher::new();
    for carve in shown {
        (carve.id.as_str(), carve.blocks, carve.state.as_str()).hash(&mut hasher);
    }
    format!("{:x}", hasher.finish())
}

#[derive(Template)]
#[template(path = "hosts/carve.html")]
struct CarvePage {
    frame: Frame,
    row: Row,
    file_name: String,
    /// Link to the bytes; empty unless the archive is complete.
    download: String,
    query: String,
    ended: Option<Moment>,
    /// Link that renews the page.
    live: String,
    is_live: bool,
    cli: String,
    api: String,
}

/// Shows an archive.
pub async fn show(
    State(fleet): State<Arc<Fleet>>,
    visitor: Visitor,
    Id(id): Id,
    headers: HeaderMap,
    Params(asked): Params<Asked>,
) -> Response {
    let found = fleet.carves().find(&visitor.context, &id).await;
    match found {
        Ok(carve) if headers.contains_key("hx-request") && asked.seen == seen(&[&carve]) => {
            StatusCode::NO_CONTENT.into_response()
        }
        Ok(carve) => page(StatusCode::OK, &carve_page(&visitor, &carve, fleet.now())),
        Err(error) => failure::inside(&visitor, &error, TAB),
    }
}

fn carve_page(visitor: &Visitor, carve: &Carve, now: Timestamp) -> CarvePage {
    let row = Row::new(carve, now);
    // The API streams the bytes, and writes the download into the audit log.
    let is_complete = carve.state == CarveState::Complete;
    let download = if is_complete { format!("{}{API}/{}/content", visitor.base, row.id) } else { String::new() };
    let command = format!("carve download {} {}", shell::argument(&row.id), shell::option("--out", &carve.file_name()));
    CarvePage {
        frame: Frame::new(visitor, format!("Carve of {}", row.name), TAB),
        file_name: carve.file_name(),
        query: carve.query().unwrap_or_default().to_owned(),
        ended: Moment::of(carve.ended_at, now),
        live: format!("{}{PATH}/{}?seen={}", visitor.base, row.id, seen(&[carve])),
        is_live: row.is_receiving(),
        cli: cli(visitor, &command),
        api: curl(visitor, "GET", &format!("{API}/{}/content", row.id), ""),
        download,
        row,
    }
}

/// Asks before an archive is deleted.
pub async fn ask_to_delete(State(fleet): State<Arc<Fleet>>, visitor: Visitor, Id(id): Id) -> Response {
    let made = async {
        let carve = fleet.carves().find(&visitor.context, &id).await?;
        let row = Row::new(&carve, fleet.now());
        let text = match carve.state {
            CarveState::Receiving => {
                "The upload is cancelled, and what was received is deleted. This cannot be undone."
            }
            _ => "The archive and its record are deleted. This cannot be undone.",
        };
        let title = format!("Delete the carve of {} ({})?", row.name, row.size);
        Ok(Confirm {
            text: vec![text.to_owned()],
            button: "Delete the carve",
            cli: cli(&visitor, &format!("carve delete {}", shell::argument(&id))),
            api: curl(&visitor, "DELETE", &format!("{API}/{id}"), ""),
            ..Confirm::of(&visitor, title, TAB, &format!("{PATH}/{id}"), "delete")
        })
    };
    confirm::shown(&visitor, TAB, made.await)
}

/// Deletes an archive.
pub async fn delete(State(fleet): State<Arc<Fleet>>, Pressed(visitor): Pressed, Id(id): Id) -> Response {
    let made = async {
        let carve = fleet.carves().find(&visitor.context, &id).await?;
        fleet.carves().delete(&carve).await?;
        Ok::<_, Error>(notice::redirect(visitor.base.link(PATH), "The carve is deleted."))
    };
    made.await.unwrap_or_else(|error| failure::inside(&visitor, &error, TAB))
}
