//! The inputs of the form of an object, with what was typed into them and what is wrong with it.

use muster_core::Error;
use muster_fleet::Fleet;

use super::inputs::{AGAIN, Input, SECRET, Shape, Typed, is_stored, typed};
use super::{Kind, Proxies, Record};
use crate::fields::{concerns, reason};
use crate::visitor::Visitor;

/// An input as the page shows it.
pub struct Shown {
    pub input: &'static Input,
    pub value: String,
    /// Whether a value of a secret is stored.
    pub is_stored: bool,
    /// Whether a secret was typed, which has to be entered again.
    pub is_lost: bool,
    pub error: Option<Error>,
    /// Classes that tell for which types it is: `typed of-kafka`.
    pub class: String,
    /// Proxies to choose from: id and name.
    pub choices: Vec<(String, String)>,
}

/// Returns all errors about the document as one.
pub fn of_document(errors: &[Error]) -> Option<Error> {
    let mut all = errors.iter().filter(|error| concerns(error, "yaml"));
    let first = all.next()?.clone();
    let message = all.fold(first.message.clone(), |text, error| format!("{text}\n{}", reason(error)));
    Some(Error { message, ..first })
}

/// Returns the inputs with what was typed into them, and their errors.
pub async fn inputs<K: Kind>(
    fleet: &Fleet,
    visitor: &Visitor,
    record: Option<&Record>,
    all_typed: &Typed,
    errors: &[Error],
) -> Vec<Shown> {
    let is_known = |prefix: &str, input: &Input| !typed(all_typed, prefix, input.name).is_empty();
    let mut all = Vec::new();
    for input in K::INPUTS {
        let value = typed(all_typed, "", input.name).to_owned();
        let choices = if input.shape == Shape::Proxy { proxies(fleet, visitor, &value).await } else { Vec::new() };
        let classes = input.types.iter().map(|kind| format!(" of-{kind}")).collect::<String>();
        all.push(Shown {
            input,
            value,
            is_stored: record.is_some_and(|record| is_stored(&record.fields, input)),
            is_lost: is_known(SECRET, input) || is_known(AGAIN, input),
            error: errors.iter().find(|error| concerns(error, input.name)).cloned(),
            class: if classes.is_empty() { classes } else { format!("typed{classes}") },
            choices,
        });
    }
    all
}

/// Returns the proxies that the person sees. One that was chosen is among them, even if the person may not see proxies.
async fn proxies(fleet: &Fleet, visitor: &Visitor, chosen: &str) -> Vec<(String, String)> {
    let found = Proxies::list(fleet, &visitor.context).await.unwrap_or_default();
    let mut all: Vec<_> = found.into_iter().map(|proxy| (proxy.id, proxy.name)).collect();
    if !chosen.is_empty() && all.iter().all(|(id, _)| id != chosen) {
        all.push((chosen.to_owned(), chosen.to_owned()));
    }
    all
}
