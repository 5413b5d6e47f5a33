//! `/labels`: groups of hosts.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use muster_core::Error;
use muster_core::authorization::PrivilegeName as Name;
use muster_fleet::Fleet;
use muster_fleet::labels::{LabelDraft, LabelKind as Kind, LabelView};
use muster_protocol::management::label::{ChangedHosts, Label, LabelHosts, LabelKind, SaveLabel};
use muster_protocol::management::{Empty, Item, Items};

use super::answer::{Answer, every, item};
use super::body::Body;
use super::convert::time;
use super::endpoints::Endpoint;
use super::entry::Caller;
use super::query::IfMatch;

/// Endpoints for labels.
pub fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::get("/labels", list).about("List labels with their numbers of hosts").needs(&[Name::OsqueryRead]),
        Endpoint::post("/labels", create).about("Create a label").needs(&[Name::OsqueryWrite]),
        Endpoint::get("/labels/{id}", get).about("Get a label, by id or name").needs(&[Name::OsqueryRead]),
        Endpoint::put("/labels/{id}", update).about("Update a label").needs(&[Name::OsqueryWrite]),
        Endpoint::delete("/labels/{id}", delete).about("Delete a label").needs(&[Name::OsqueryWrite]),
        Endpoint::post("/labels/{id}/_add_hosts", add_hosts)
            .about("Add hosts to a manual label")
            .needs(&[Name::OsqueryWrite]),
        Endpoint::post("/labels/{id}/_remove_hosts", remove_hosts)
            .about("Remove hosts from a manual label")
            .needs(&[Name::OsqueryWrite]),
    ]
}

fn converted(view: LabelView) -> Label {
    let LabelView { label, kind, hosts, failing, error } = view;
    Label {
        id: label.id.to_string(),
        version: label.version,
        name: label.name,
        description: label.description,
        kind: match kind {
            Kind::BuiltIn => LabelKind::BuiltIn,
            Kind::Dynamic => LabelKind::Dynamic,
            Kind::Manual => LabelKind::Manual,
        },
        query: label.query,
        platforms: label.platforms,
        hosts,
        failing,
        error: Some(error).filter(|error| !error.is_empty()),
        created_at: (kind != Kind::BuiltIn).then(|| time(label.created_at)),
    }
}

fn draft(body: SaveLabel) -> LabelDraft {
    let SaveLabel { name, description, query, platforms, hosts: _ } = body;
    LabelDraft { name, description, query, platforms }
}

async fn list(State(fleet): State<Arc<Fleet>>, Caller(context): Caller) -> Answer<Items<Label>> {
    let found = fleet.labels().list(&context.grant()?).await?;
    Ok(every(found.into_iter().map(converted).collect()))
}

async fn get(State(fleet): State<Arc<Fleet>>, Caller(context): Caller, Path(id): Path<String>) -> Answer<Item<Label>> {
    Ok(item(converted(fleet.labels().find(&context.grant()?, &id).await?)))
}

async fn create(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    Body(mut body): Body<SaveLabel>,
) -> Answer<Item<Label>> {
    let hosts = std::mem::take(&mut body.hosts);
    Ok(item(converted(fleet.labels().create(&context.grant()?, draft(body), &hosts).await?)))
}

async fn update(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    Path(id): Path<String>,
    version: IfMatch,
    Body(body): Body<SaveLabel>,
) -> Answer<Item<Label>> {
    if !body.hosts.is_empty() {
        return Err(Error::invalid("hosts", "can only be set on a new label")
            .remedy("use _add_hosts and _remove_hosts")
            .into());
    }
    let expected = version.number()?;
    Ok(item(converted(fleet.labels().update(&context.grant()?, &id, draft(body), expected).await?)))
}

async fn delete(State(fleet): State<Arc<Fleet>>, Caller(context): Caller, Path(id): Path<String>) -> Answer<Empty> {
    fleet.labels().delete(&context.grant()?, &id).await?;
    Ok(Json(Empty {}))
}

async fn add_hosts(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    Path(id): Path<String>,
    Body(body): Body<LabelHosts>,
) -> Answer<ChangedHosts> {
    Ok(Json(ChangedHosts { changed: fleet.labels().add_hosts(&context.grant()?, &id, &body.hosts).await? }))
}

async fn remove_hosts(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    Path(id): Path<String>,
    Body(body): Body<LabelHosts>,
) -> Answer<ChangedHosts> {
    Ok(Json(ChangedHosts { changed: fleet.labels().remove_hosts(&context.grant()?, &id, &body.hosts).await? }))
}
