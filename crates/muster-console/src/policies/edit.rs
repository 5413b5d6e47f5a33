//! `/policies/{id}/edit`: the editor of a policy's file.

use std::collections::BTreeSet;
use std::sync::Arc;

use askama::Template;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use muster_core::Error;
use muster_core::authorization::{PoliciesRead, PoliciesUpdate};
use muster_core::policy::problem::SET_SECRET;
use muster_core::policy::source::restore;
use muster_core::policy::{Policy, file};
use muster_fleet::Fleet;
use muster_fleet::policies::version_token;
use muster_management::error::status_of;
use serde::Deserialize;

use super::change::Draft;
use super::create::template;
use super::hints::{HINTS, Hints};
use super::text::{of_fields, text_of};
use super::{ActiveRollout, TAB, agents_on};
use crate::failure;
use crate::frame::{Frame, page};
use crate::request::Id;
use crate::visitor::{May, Params, Visitor};

/// Maximum number of problems on the page.
const PROBLEMS: usize = 50;
/// Maximum number of secrets with a field.
const SECRETS: usize = 200;
/// What a reference to a secret begins with.
const REFERENCE: &str = "$co.elastic.secret{";

/// Parameters of the page.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Asked {
    /// The revision to begin with; the newest one by default.
    revision: Option<i64>,
    /// The template to begin with.
    template: String,
}

#[derive(Template)]
#[template(path = "policies/edit.html")]
struct EditPage<'a> {
    frame: Frame,
    id: String,
    draft: &'a Draft,
    agents: String,
    active: Option<ActiveRollout>,
    error: Option<&'a Error>,
    problems: Vec<ProblemRow>,
    /// Names of the secrets that the policy has or that the text refers to.
    secrets: Vec<SecretField>,
    is_managed: bool,
    hints: &'static [Hints],
}

/// The field of a secret.
struct SecretField {
    name: String,
    /// Whether a value has to be entered again, because the page does not keep it.
    is_lost: bool,
}

/// A problem of a text, as the editor shows it.
pub struct ProblemRow {
    /// Line; 0 if it is unknown.
    pub line: u64,
    /// Column; 0 if it is unknown.
    pub column: u64,
    /// What is wrong, and where.
    pub text: String,
    /// Remedy; empty if there is none.
    pub remedy: String,
}

/// Shows the editor.
pub async fn show(
    State(fleet): State<Arc<Fleet>>,
    May { visitor, .. }: May<PoliciesUpdate>,
    Id(id): Id,
    Params(asked): Params<Asked>,
) -> Response {
    match begin(&fleet, &visitor, &id, &asked).await {
        Ok(draft) => again(&fleet, &visitor, &id, &draft, None).await,
        Err(error) => failure::inside(&visitor, &error, TAB),
    }
}

/// Returns the draft that changes nothing yet.
async fn begin(fleet: &Fleet, visitor: &Visitor, id: &str, asked: &Asked) -> Result<Draft, Error> {
    let policy = fleet.policies().find::<PoliciesRead>(&visitor.context, id).await?;
    let mut shown = (*policy).clone();
    if let Some(number) = asked.revision {
        restore(&mut shown, &fleet.policies().revision(&policy, number).await?.source);
    }
    let text = match template(&asked.template) {
        Some(template) => with_template(&shown, template.config),
        None => text_of(&shown),
    };
    let (version, revision) = (version_token(&policy), Some(policy.revision));
    Ok(Draft { text, version, revision, ..Draft::default() })
}

/// Returns the file of a policy with the configuration of a template, with its comments.
fn with_template(policy: &Policy, config: &str) -> String {
    let mut fields = file::fields_of(policy);
    fields.retain(|(name, _)| *name != "config");
    format!("{}config:\n{config}", of_fields(&fields))
}

/// Shows the editor with a draft that was typed before, and what is wrong with it.
pub async fn again(fleet: &Fleet, visitor: &Visitor, id: &str, draft: &Draft, error: Option<&Error>) -> Response {
    let status = error.map_or(StatusCode::OK, |error| status_of(error.kind));
    match editor(fleet, visitor, id, draft, error).await {
        Ok(shown) => page(status, &shown),
        Err(error) => failure::inside(visitor, &error, TAB),
    }
}

async fn editor<'a>(
    fleet: &Fleet,
    visitor: &Visitor,
    id: &str,
    draft: &'a Draft,
    error: Option<&'a Error>,
) -> Result<EditPage<'a>, Error> {
    let policy = fleet.policies().find::<PoliciesRead>(&visitor.context, id).await?;
    Ok(EditPage {
        active: ActiveRollout::of(fleet, &policy).await?,
        frame: Frame::new(visitor, format!("Edit {}", policy.name), TAB),
        agents: super::agents(agents_on(fleet, visitor, &policy).await?),
        secrets: secrets(&policy, draft, error),
        id: policy.id.to_string(),
        is_managed: policy.is_managed,
        problems: error.map(problems).unwrap_or_default(),
        hints: &HINTS,
        draft,
        error,
    })
}

/// Returns the problems of a text; none if the error is about something else.
pub fn problems(error: &Error) -> Vec<ProblemRow> {
    let all = error.problems.iter().flat_map(|problems| &problems.0).take(PROBLEMS);
    let row = |problem: &muster_core::policy::problem::Problem| ProblemRow {
        line: problem.place.map_or(0, |place| place.line),
        column: problem.place.map_or(0, |place| place.column),
        text: match problem.path.as_str() {
            "" => problem.reason.clone(),
            path => format!("{path}: {}", problem.reason),
        },
        // Commands and requests have other ways to set a secret than the form.
        remedy: match problem.remedy.as_str() {
            SET_SECRET => "Enter its value below, under Secrets, or correct the name.".to_owned(),
            remedy => remedy.to_owned(),
        },
    };
    all.map(row).collect()
}

/// Returns the names of the secrets for which the page has a field.
fn secrets(policy: &Policy, draft: &Draft, error: Option<&Error>) -> Vec<SecretField> {
    // What was written into the configuration itself is changed there.
    let stored = policy.secrets.iter().map(|(name, _)| name.as_str()).filter(|name| !name.starts_with("inline."));
    let referred = draft.text.split(REFERENCE).skip(1).filter_map(|rest| rest.split_once('}').map(|(name, _)| name));
    let referred = referred.filter(|name| !name.starts_with("inline.") && name.len() <= 64 && !name.contains('\n'));
    let mut lost = draft.entered_secrets();
    // An output with another destination needs its secrets again.
    lost.extend(error.and_then(|error| error.field.as_deref()?.strip_prefix("secrets.")).map(str::to_owned));
    let entered = draft.secret_name.iter().chain(&lost).map(|name| name.trim()).filter(|name| !name.is_empty());
    let names: BTreeSet<&str> = entered.chain(referred).chain(stored).take(SECRETS).collect();
    names.into_iter().map(|name| SecretField { name: name.to_owned(), is_lost: lost.contains(name) }).collect()
}
