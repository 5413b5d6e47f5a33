//! `/settings/outputs`, `/settings/hosts`, `/settings/proxies` and `/settings/downloads`: what policies refer to.
//!
//! The fields that everybody needs are inputs of the form; all others are a YAML document, as in the API.

mod form;
mod inputs;
mod kinds;
mod known;
mod review;
mod view;

use std::sync::Arc;

use askama::Template;
use axum::extract::State;
use axum::response::Response;
use axum::routing::get;
use muster_core::Error;
use muster_core::time::Timestamp;
use muster_fleet::Fleet;
use serde_json::{Map, Value};

pub use self::kinds::{Downloads, Hosts, Kind, Outputs, Proxies};
use super::side::Side;
use super::{TAB, shown};
use crate::Route;
use crate::confirm::Confirm;
use crate::elsewhere::{cli, curl};
use crate::frame::Frame;
use crate::request::{Id, Pressed};
use crate::text::Moment;
use crate::visitor::Visitor;
use crate::{failure, notice};

/// An object, as its service has it.
pub struct Record {
    pub id: String,
    pub name: String,
    /// Type of an output; empty for other kinds.
    pub kind: String,
    pub is_default: bool,
    pub is_default_monitoring: bool,
    /// All other fields; secrets are `{"id": …}`.
    pub fields: Map<String, Value>,
    pub updated_at: Timestamp,
}

/// A new object, or a change of one.
#[derive(Clone)]
pub struct Draft {
    pub name: String,
    pub kind: Option<String>,
    pub is_default: bool,
    pub is_default_monitoring: bool,
    /// All other fields; `null` removes one.
    pub fields: Map<String, Value>,
}

/// The pages of a kind.
pub fn pages<K: Kind>() -> [Route; 4] {
    [
        (K::LIST, get(list::<K>)),
        (K::NEW, get(form::ask::<K>).post(form::create::<K>)),
        (K::ONE, get(form::show::<K>).post(form::update::<K>)),
        (K::DELETE, get(ask_to_delete::<K>).post(delete::<K>)),
    ]
}

#[derive(Template)]
#[template(path = "settings/objects.html")]
struct ListPage {
    frame: Frame,
    side: Side,
    path: &'static str,
    about: &'static str,
    new: &'static str,
    lacks: &'static str,
    rows: Vec<Row>,
}

struct Row {
    id: String,
    name: String,
    kind: String,
    address: String,
    is_default: bool,
    is_default_monitoring: bool,
    updated: Moment,
}

async fn list<K: Kind>(State(fleet): State<Arc<Fleet>>, visitor: Visitor) -> Response {
    let made = async {
        let now = fleet.now();
        let rows = K::list(&fleet, &visitor.context).await?.into_iter().map(|record| Row {
            address: address(&record.fields),
            updated: Moment::new(record.updated_at, now),
            id: record.id,
            name: record.name,
            kind: record.kind,
            is_default: record.is_default,
            is_default_monitoring: record.is_default_monitoring,
        });
        Ok(ListPage {
            frame: Frame::new(&visitor, K::TITLE, TAB),
            side: Side::new(&visitor, K::LIST),
            path: K::LIST,
            about: K::ABOUT,
            new: K::NEW_TITLE,
            lacks: visitor.lacks(K::WRITE),
            rows: rows.collect(),
        })
    };
    shown(&visitor, TAB, made.await)
}

/// Returns the first address among the fields of an object.
fn address(fields: &Map<String, Value>) -> String {
    let lists = ["hosts", "host_urls"].iter().filter_map(|name| fields.get(*name)?.as_array()).flatten();
    let single = ["url", "host"].iter().filter_map(|name| fields.get(*name));
    lists.chain(single).find_map(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}

async fn ask_to_delete<K: Kind>(State(fleet): State<Arc<Fleet>>, visitor: Visitor, Id(id): Id) -> Response {
    let made = async {
        visitor.context.check(K::WRITE)?;
        let record = K::find(&fleet, &visitor.context, &id).await?;
        let used = "Policies that name it use the default instead, and get a new revision.";
        Ok(Confirm {
            text: vec![format!("{} {:?} is deleted. {used} This cannot be undone.", K::THE, record.name)],
            refused: if record.is_default || record.is_default_monitoring {
                "It is the default. Make another one the default first.".to_owned()
            } else {
                String::new()
            },
            button: "Delete",
            cli: cli(&visitor, &format!("{} delete {}", K::CLI, muster_core::shell::argument(&id))),
            api: curl(&visitor, "DELETE", &format!("{}/{id}", K::API), ""),
            ..Confirm::of(&visitor, format!("Delete {}?", record.name), TAB, &format!("{}/{id}", K::LIST), "delete")
        })
    };
    shown(&visitor, TAB, made.await)
}

async fn delete<K: Kind>(State(fleet): State<Arc<Fleet>>, Pressed(visitor): Pressed, Id(id): Id) -> Response {
    let made = async {
        let name = K::delete(&fleet, &visitor.context, &id).await?;
        Ok::<_, Error>(notice::redirect(visitor.base.link(K::LIST), &format!("{name} is deleted.")))
    };
    made.await.unwrap_or_else(|error| failure::inside(&visitor, &error, TAB))
}
