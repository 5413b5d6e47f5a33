//! `/outputs` (MG §1.5, §2.5) and their health.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use muster_core::Error;
use muster_core::authorization::OutputsRead;
use muster_core::output::Output as Record;
use muster_core::output_key::KeyCounts;
use muster_protocol::management::output::{DeletedId, Output, OutputHealth, OutputKeyCounts, OutputTest};
use muster_protocol::management::{Item, Items};
use serde_json::{Map, Value};

use super::answer::{Answer, every, item};
use super::body::Body;
use super::convert::time;
use super::endpoints::Endpoint;
use super::entry::Caller;
use super::object_fields::{flag, given, reference, text};
use muster_core::authorization::PrivilegeName as Name;
use muster_fleet::Fleet;
use muster_fleet::output_keys::issuer::IssueError;
use muster_fleet::outputs::OutputDraft;

/// Endpoints for outputs and their health (MG §1.5).
pub fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::get("/outputs", list).about("List outputs").needs(&[Name::OutputsRead]),
        Endpoint::post("/outputs", create).about("Create an output").needs(&[Name::OutputsWrite]),
        Endpoint::post("/outputs/_test", test)
            .about("Test the settings of an output without creating it")
            .needs(&[Name::OutputsWrite]),
        Endpoint::get("/outputs/{id}", get).about("Get an output").needs(&[Name::OutputsRead]),
        Endpoint::put("/outputs/{id}", update).about("Update an output").needs(&[Name::OutputsWrite]),
        Endpoint::delete("/outputs/{id}", delete).about("Delete an output").needs(&[Name::OutputsWrite]),
        Endpoint::get("/outputs/{id}/health", health).about("Get the health of an output").needs(&[Name::OutputsRead]),
    ]
}

fn output(fleet: &Fleet, record: Record) -> Output {
    let warnings = fleet.outputs().warnings(&record);
    let fields = match record.fields {
        Value::Object(fields) => fields,
        _ => Map::new(),
    };
    Output {
        id: record.id.to_string(),
        name: record.name,
        kind: record.kind,
        is_default: record.is_default,
        is_default_monitoring: record.is_default_monitoring,
        created_at: time(record.created_at),
        updated_at: time(record.updated_at),
        warnings,
        fields,
    }
}

/// Extracts the common fields. The service checks the others, which depend on the output's type.
fn draft(mut fields: Map<String, Value>) -> Result<OutputDraft, Error> {
    // Accepted and ignored: clients read an output, change a field, and send everything back.
    for read_only in ["created_at", "updated_at", "warnings"] {
        fields.remove(read_only);
    }
    reference(&mut fields, "proxy_id");
    Ok(OutputDraft {
        id: given(text(&mut fields, "id")?),
        name: text(&mut fields, "name")?,
        kind: text(&mut fields, "type")?,
        is_default: flag(&mut fields, "is_default")?,
        is_default_monitoring: flag(&mut fields, "is_default_monitoring")?,
        fields,
    })
}

async fn list(State(fleet): State<Arc<Fleet>>, Caller(context): Caller) -> Answer<Items<Output>> {
    let all = fleet.outputs().list(&context.grant()?).await?;
    Ok(every(all.into_iter().map(|one| output(&fleet, one)).collect()))
}

async fn create(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    Body(body): Body<Map<String, Value>>,
) -> Answer<Item<Output>> {
    Ok(item(output(&fleet, fleet.outputs().create(&context.grant()?, draft(body)?).await?)))
}

async fn test(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    Body(body): Body<Map<String, Value>>,
) -> Answer<OutputTest> {
    let tested = fleet.outputs().test(&context.grant()?, draft(body)?).await?;
    Ok(Json(match tested {
        Ok(version) => OutputTest { usable: true, version: Some(version), ..OutputTest::default() },
        Err(error) => {
            OutputTest { failure: Some(failure(&error).into()), message: error.to_string(), ..OutputTest::default() }
        }
    }))
}

fn failure(error: &IssueError) -> &'static str {
    match error {
        IssueError::Refused(_) => "refused",
        IssueError::Overloaded { .. } => "overloaded",
        IssueError::Incompatible(_) => "incompatible",
        IssueError::Unusable(_) => "unusable",
        // A cluster that rejects the request of its version is none.
        IssueError::Unavailable(_) | IssueError::Rejected(_) => "unavailable",
    }
}

async fn get(State(fleet): State<Arc<Fleet>>, Caller(context): Caller, Path(id): Path<String>) -> Answer<Item<Output>> {
    Ok(item(output(&fleet, fleet.outputs().find::<OutputsRead>(&context, &id).await?.into_inner())))
}

async fn update(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    Path(id): Path<String>,
    Body(body): Body<Map<String, Value>>,
) -> Answer<Item<Output>> {
    let draft = draft(body)?;
    if draft.id.as_ref().is_some_and(|other| *other != id) {
        return Err(Error::invalid("id", "the id of an output cannot be changed").into());
    }
    let before = fleet.outputs().find(&context, &id).await?;
    Ok(item(output(&fleet, fleet.outputs().update(&before, draft).await?)))
}

async fn delete(State(fleet): State<Arc<Fleet>>, Caller(context): Caller, Path(id): Path<String>) -> Answer<DeletedId> {
    let output = fleet.outputs().delete(&fleet.outputs().find(&context, &id).await?).await?;
    Ok(Json(DeletedId { id: output.id.to_string() }))
}

fn counts(keys: KeyCounts) -> OutputKeyCounts {
    let KeyCounts { issued, wanted, outdated, failed, to_invalidate } = keys;
    OutputKeyCounts { issued, wanted, outdated, failed, to_invalidate }
}

async fn health(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    Path(id): Path<String>,
) -> Answer<OutputHealth> {
    let health = fleet.outputs().health(&context.grant()?, &id).await?;
    let since = health.since.map(time);
    let keys = health.keys.map(counts);
    Ok(Json(OutputHealth {
        state: health.state.into(),
        message: health.message,
        timestamp: since.clone(),
        since,
        keys,
    }))
}
