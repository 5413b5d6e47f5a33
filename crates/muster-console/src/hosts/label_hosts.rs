//! Hosts and their labels: the hosts on the page of a label, and the labels on the page of a host.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use muster_core::Error;
use muster_core::authorization::{AgentsRead, OsqueryRead, PrivilegeName};
use muster_core::fleetd::labels::name_key;
use muster_core::plural::counted;
use muster_core::time::Timestamp;
use muster_fleet::Fleet;
use muster_fleet::host_views::HostView;
use muster_fleet::labels::{LabelKind, LabelView, condition};
use muster_store::query::{AgentFilter, HostCursor};
use serde::Deserialize;

use super::facts::cut;
use super::labels::{self, PATH};
use super::{TAB, asked};
use crate::agents::agent::name_or_id;
use crate::agents::asked::encoded;
use crate::request::{Id, Posted};
use crate::settings::lines;
use crate::text::Moment;
use crate::visitor::Visitor;
use crate::{failure, notice};

/// Number of hosts on a page.
const ROWS: u32 = 50;
/// Maximum size of the form, bytes: a thousand names of hosts.
const MAX_FORM: usize = 256 << 10;

/// Parameters of the page of a label.
#[derive(Default, Deserialize)]
#[serde(default)]
pub struct Asked {
    /// Cursor: the last host of the previous page.
    after: String,
}

/// The hosts of a label, a page of them.
pub struct Members {
    /// The hosts that the person may see.
    pub rows: Vec<Member>,
    /// Their number.
    pub total: u64,
    /// Link to the next page; empty if there is none.
    pub next: String,
    /// Whether this is not the first page.
    pub is_behind: bool,
    /// Link to the list of hosts with this label.
    pub all: String,
    /// Link to the form of a live query on them.
    pub query: String,
    /// The privilege that is missing for one; empty if none is.
    pub lacks_query: &'static str,
    /// What was typed into the form that adds hosts.
    pub typed: String,
    /// The privilege that is missing to see hosts; empty if none is.
    pub lacks: &'static str,
}

/// A host of a label.
pub struct Member {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Operating system.
    pub os: String,
    /// When it was last seen.
    pub seen: Option<Moment>,
}

impl Member {
    fn new(view: &HostView, now: Timestamp) -> Self {
        let id = view.host.id.to_string();
        let name = cut(name_or_id(&view.hostname(), &id));
        Self { name, os: cut(&view.os()), seen: Moment::of(view.last_seen(), now), id }
    }
}

impl Members {
    /// Reads the hosts of a label.
    pub async fn of(fleet: &Fleet, visitor: &Visitor, view: &LabelView, asked: &Asked) -> Result<Self, Error> {
        let with_label = asked::Asked { label: view.label.name.clone(), ..asked::Asked::default() };
        let mut members = Self {
            rows: Vec::new(),
            total: 0,
            next: String::new(),
            is_behind: !asked.after.is_empty(),
            all: with_label.link(&visitor.base, TAB, &[]),
            query: format!("{}/queries/run?label={}", visitor.base, encoded(&view.label.name)),
            lacks_query: visitor.lacks(PrivilegeName::QueriesRunSaved),
            typed: String::new(),
            lacks: visitor.lacks(PrivilegeName::AgentsRead),
        };
        // Labels are for everybody who may read osquery's settings; hosts need another privilege.
        let Ok(grant) = visitor.context.grant::<AgentsRead>() else { return Ok(members) };
        let position = asked::Asked { after: asked.after.clone(), ..asked::Asked::default() };
        position.check()?;
        let filter = AgentFilter::all([condition(&view.label.name)]);
        let found = fleet.agents().hosts(&grant, &filter, &position.rows(ROWS)).await?;
        if let Some(last) = found.items.last().filter(|_| found.items.len() == ROWS as usize) {
            let after = encoded(&asked::cursor_text(&HostCursor::behind(&last.host)));
            members.next = format!("{}{PATH}/{}?after={after}", visitor.base, view.label.id);
        }
        let now = fleet.now();
        members.rows = found.items.iter().map(|host| Member::new(host, now)).collect();
        members.total = found.total;
        Ok(members)
    }
}

/// The form that changes the hosts of a manual label.
#[derive(Default, Deserialize)]
#[serde(default)]
pub struct Change {
    /// Names, serial numbers, hardware UUIDs or ids of hosts to add, one per line.
    add: String,
    /// Ids of hosts to remove.
    remove: Vec<String>,
}

/// Adds a manual label to hosts, or removes it from some.
pub async fn change(
    State(fleet): State<Arc<Fleet>>,
    Id(id): Id,
    Posted(visitor, form): Posted<Change, MAX_FORM>,
) -> Response {
    let hosts = lines(&form.add.replace(',', "\n"));
    let made = async {
        let grant = visitor.context.grant()?;
        Ok(match (hosts.is_empty(), form.remove.is_empty()) {
            (true, true) => return Err(Error::invalid("hosts", "no host was chosen")),
            (true, false) => {
                let removed = fleet.labels().remove_hosts(&grant, &id, &form.remove).await?;
                format!("The label is removed from {}.", counted(removed, "host"))
            }
            (false, _) => {
                let added = fleet.labels().add_hosts(&grant, &id, &hosts).await?;
                format!("The label is added to {}.", counted(added, "host"))
            }
        })
    };
    match made.await {
        Ok(text) => notice::redirect(visitor.base.link(format_args!("{PATH}/{id}")), &text),
        Err(error) => {
            let error = Error { field: error.field.clone().or(Some("hosts".into())), ..error };
            labels::after_failure(&fleet, &visitor, &id, form.add, error).await
        }
    }
}

/// The labels and packs of a host, on its page.
pub struct OfHost {
    /// Its labels.
    pub labels: Vec<OnHost>,
    /// The manual labels that it does not have: id and name.
    pub others: Vec<(String, String)>,
    /// The packs that it gets: id and name.
    pub packs: Vec<(String, String)>,
    /// The privileges that are missing to see packs, and to change labels; empty if none is.
    pub lacks_read: &'static str,
    pub lacks_write: &'static str,
}

/// A label of a host.
pub struct OnHost {
    /// Its id; empty if the person may not see labels.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Whether people choose its hosts.
    pub is_manual: bool,
}

impl OfHost {
    /// Reads the labels and packs of a host.
    pub async fn of(fleet: &Fleet, visitor: &Visitor, view: &HostView) -> Result<Self, Error> {
        let mut found = Self {
            labels: Vec::new(),
            others: Vec::new(),
            packs: Vec::new(),
            lacks_read: visitor.lacks(PrivilegeName::OsqueryRead),
            lacks_write: visitor.lacks(PrivilegeName::OsqueryWrite),
        };
        let Ok(grant) = visitor.context.grant::<OsqueryRead>() else {
            // The names belong to the host; what they lead to needs another privilege.
            let unknown = |name: &String| OnHost { id: String::new(), name: name.clone(), is_manual: false };
            found.labels = view.labels.iter().map(unknown).collect();
            return Ok(found);
        };
        for (label, kind) in fleet.labels().known(&grant).await? {
            let is_manual = kind == LabelKind::Manual;
            let (id, name) = (label.id.to_string(), label.name);
            if view.labels.iter().any(|own| name_key(own) == name_key(&name)) {
                found.labels.push(OnHost { id, name, is_manual });
            } else if is_manual {
                found.others.push((id, name));
            }
        }
        let packs = fleet.packs().of_host(&grant, view).await?;
        found.packs = packs.into_iter().map(|one| (one.pack.id.to_string(), one.pack.name)).collect();
        Ok(found)
    }
}

/// The form on the page of a host: the id of a label.
#[derive(Default, Deserialize)]
#[serde(default)]
pub struct OneLabel {
    add: String,
    remove: String,
}

/// Adds a manual label to a host, or removes one from it.
pub async fn change_one(
    State(fleet): State<Arc<Fleet>>,
    Id(id): Id,
    Posted(visitor, form): Posted<OneLabel>,
) -> Response {
    let made = async {
        let (grant, host) = (visitor.context.grant()?, [id.clone()]);
        let text = if form.remove.is_empty() {
            fleet.labels().add_hosts(&grant, &form.add, &host).await?;
            "The host has the label now."
        } else {
            fleet.labels().remove_hosts(&grant, &form.remove, &host).await?;
            "The label is removed from the host."
        };
        Ok::<_, Error>(notice::redirect(visitor.base.link(format_args!("{TAB}/{id}")), text))
    };
    made.await.unwrap_or_else(|error| failure::inside(&visitor, &error, TAB))
}

/// Returns the names of the labels that forms and filters offer; none for those who may not read them.
pub async fn names(fleet: &Fleet, visitor: &Visitor) -> Result<Vec<String>, Error> {
    let Ok(grant) = visitor.context.grant::<OsqueryRead>() else { return Ok(Vec::new()) };
    let mut known = fleet.labels().known(&grant).await?;
    // Those that people have made are what is usually looked for.
    known.sort_by_key(|(_, kind)| *kind == LabelKind::BuiltIn);
    Ok(known.into_iter().map(|(label, _)| label.name).collect())
}
