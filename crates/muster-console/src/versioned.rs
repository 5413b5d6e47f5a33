//! Forms for versioned records: a concurrent change is shown before it is overwritten.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use muster_core::time::Timestamp;
use muster_core::{Error, ErrorKind};
use muster_fleet::Fleet;
use serde::de::DeserializeOwned;

use crate::failure;
use crate::people::People;
use crate::request::{Id, Posted};
use crate::text::Moment;
use crate::visitor::Visitor;

/// What a form calls a field, what was typed into it, and what the record has.
pub type Field = (&'static str, String, String);

/// A form that changes a versioned record.
pub trait Edit: Send {
    /// What it changes.
    type Record: Send + Sync;

    /// Code of the error about a change by somebody else.
    const CHANGED: &'static str;

    /// Finds the record, for somebody who may change it.
    fn find(fleet: &Fleet, visitor: &Visitor, id: &str) -> impl Future<Output = Result<Self::Record, Error>> + Send;
    /// Returns the version of a record, as the form carries it.
    fn version_of(record: &Self::Record) -> String;
    /// The version that the form was made from.
    fn version(&mut self) -> &mut String;
    /// Returns what the record is, as the middle of a sentence.
    fn what(record: &Self::Record) -> String;
    /// Returns its subject in the audit log, which tells who has changed it.
    fn subject(visitor: &Visitor, record: &Self::Record) -> String;
    /// The fields of the form and of the record, which are compared if somebody else has changed the record.
    fn fields(&self, _record: &Self::Record) -> Vec<Field> {
        Vec::new()
    }
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
        Err(error) if error.kind == ErrorKind::NotFound => {
            let gone =
                error.remedy("it was deleted while you edited it; go back in your browser to copy what you typed");
            return failure::inside(visitor, &gone, visitor.tab);
        }
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
    let now = by_whom(fleet, visitor, &E::subject(visitor, record), &E::what(record)).await;
    let now = with_differences(now, &form.fields(record));
    let error = Error::new(ErrorKind::Conflict, E::CHANGED, now).remedy("save again to overwrite that");
    // The next attempt overwrites the version that the page shows now.
    *form.version() = E::version_of(record);
    form.again(fleet, visitor, record, error).await
}

/// Compares the fields of a form with those of a record, which stand under the same names.
pub fn compared(typed: &[(&'static str, String)], stored: Vec<(&'static str, String)>) -> Vec<Field> {
    let typed_as = |name| typed.iter().find(|(one, _)| *one == name).map(|(_, text)| text.clone()).unwrap_or_default();
    stored.into_iter().map(|(name, value)| (name, typed_as(name), value)).collect()
}

/// Says who has changed a record, and when. `subject` is that of the record in the audit log.
pub async fn by_whom(fleet: &Fleet, visitor: &Visitor, subject: &str, what: &str) -> String {
    let last = fleet.audit().last_change(subject).await;
    let (actor, at) = match last {
        Ok(Some((actor, at))) => (actor, at),
        // The log is no reason to lose what was typed.
        Ok(None) | Err(_) => return format!("since you opened this page, somebody else has changed the {what}"),
    };
    by(fleet, visitor, &actor, at, what).await
}

/// Says that an actor has changed a record, and when.
pub async fn by(fleet: &Fleet, visitor: &Visitor, actor: &str, at: Timestamp, what: &str) -> String {
    let when = Moment::new(at, fleet.now()).relative;
    // The name is not the first word, which pages write with a capital letter.
    if actor == visitor.context.actor().to_string() {
        return format!("since you opened this page, you have changed the {what} in another window ({when})");
    }
    let who = People::new(fleet, visitor).name(actor).await;
    format!("since you opened this page, {who} has changed the {what} ({when})")
}

/// Adds to a message what a record has where it differs from what was typed.
fn with_differences(message: String, fields: &[Field]) -> String {
    let differing = fields.iter().filter(|(_, typed, stored)| typed.trim() != stored.trim());
    let shown = differing.map(|(name, _, stored)| match stored.trim() {
        "" => format!("{name}: empty"),
        stored => format!("{name}: {}", stored.replace('\n', ", ")),
    });
    match shown.collect::<Vec<_>>() {
        none if none.is_empty() => message,
        all => format!("{message}. Where it differs from your form, it has now: {}", all.join("; ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_conflict_names_every_field_that_differs() {
        let field = |name, typed: &str, stored: &str| (name, typed.to_owned(), stored.to_owned());
        let fields = [field("name", "a", "a "), field("scopes", "x", "y\nz"), field("URL", "u", "")];
        let message = with_differences("changed".to_owned(), &fields);
        assert_eq!(message, "changed. Where it differs from your form, it has now: scopes: y, z; URL: empty");
        assert_eq!(with_differences("changed".to_owned(), &fields[..1]), "changed");
    }
}
