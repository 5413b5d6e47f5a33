//! Forms for versioned records: a concurrent change is shown before it is overwritten.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use muster_core::{Error, ErrorKind};
use muster_fleet::Fleet;
use serde::de::DeserializeOwned;

use crate::failure;
use crate::request::{Id, Posted};
use crate::visitor::Visitor;

/// A form that changes a versioned record.
pub trait Edit: Send {
    /// What it changes.
    type Record: Send + Sync;

    /// Finds the record, for somebody who may change it.
    fn find(fleet: &Fleet, visitor: &Visitor, id: &str) -> impl Future<Output = Result<Self::Record, Error>> + Send;
    /// Returns the version of a record, as the form carries it.
    fn version_of(record: &Self::Record) -> String;
    /// The version that the form was made from.
    fn version(&mut self) -> &mut String;
    /// Code of the error about a change by somebody else, and what the record is now.
    fn changed(fleet: &Fleet, record: &Self::Record) -> (&'static str, String);
    /// Saves the record, and redirects to the next page.
    fn save(
        &self,
        fleet: &Fleet,
        visitor: &Visitor,
        record: &Self::Record,
    ) -> impl Future<Output = Result<Response, Error>> + Send;
    /// Shows the form again with what was typed.
    fn again(
        self,
        fleet: &Fleet,
        visitor: &Visitor,
        record: &Self::Record,
        error: Error,
    ) -> impl Future<Output = Response> + Send;
}

/// Changes a record.
pub async fn update<E: Edit + DeserializeOwned + 'static>(
    State(fleet): State<Arc<Fleet>>,
    Id(id): Id,
    Posted(visitor, form): Posted<E>,
) -> Response {
    update_to(&fleet, &visitor, &id, form).await
}

/// Applies a form to the record with an id.
pub async fn update_to<E: Edit>(fleet: &Fleet, visitor: &Visitor, id: &str, mut form: E) -> Response {
    let record = match E::find(fleet, visitor, id).await {
        Ok(record) => record,
        Err(error) => return failure::inside(visitor, &error, visitor.tab),
    };
    if *form.version() != E::version_of(&record) {
        return conflict(fleet, visitor, form, &record).await;
    }
    let error = match form.save(fleet, visitor, &record).await {
        Ok(response) => return response,
        Err(error) => error,
    };
    // The service compares again when it writes: somebody else may have saved since the record was read.
    if error.kind == ErrorKind::Conflict
        && let Ok(now) = E::find(fleet, visitor, id).await
        && *form.version() != E::version_of(&now)
    {
        return conflict(fleet, visitor, form, &now).await;
    }
    // What was typed is never lost to an error: the form comes back with it.
    form.again(fleet, visitor, &record, error).await
}

/// Shows a form whose record somebody else has changed.
async fn conflict<E: Edit>(fleet: &Fleet, visitor: &Visitor, mut form: E, record: &E::Record) -> Response {
    let (code, now) = E::changed(fleet, record);
    let error = Error::new(ErrorKind::Conflict, code, now).remedy("save again to overwrite that");
    // The next attempt overwrites the version that the page shows now.
    *form.version() = E::version_of(record);
    form.again(fleet, visitor, record, error).await
}
