//! The review of a change before it is saved (MG188): what changes, and for how many agents. What is wrong with a change
//! leads back to the editor, and a change that somebody else has saved meanwhile is shown beside it.

use std::sync::Arc;

use askama::Template;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use muster_core::authorization::{PoliciesRead, PrivilegeName};
use muster_core::{Error, ErrorKind, shell};
use muster_fleet::Fleet;
use muster_fleet::policies::version_token;
use muster_management::error::status_of;

use super::change::{Draft, PostedDraft};
use super::differences::Changes;
use super::text::text_of;
use super::{TAB, agents, agents_on, edit};
use crate::elsewhere::{cli, curl};
use crate::frame::{Frame, page};
use crate::people::People;
use crate::request::{Id, Posted};
use crate::text::Moment;
use crate::visitor::Visitor;
use crate::{failure, notice};

/// Code of the error for a policy that somebody else has changed meanwhile.
const CHANGED: &str = "policy_changed";

#[derive(Template)]
#[template(path = "policies/review.html")]
struct ReviewPage<'a> {
    frame: Frame,
    id: String,
    draft: &'a Draft,
    /// The revision that saving creates; `None` if agents get nothing new.
    next: Option<i64>,
    is_changed: bool,
    agents: u64,
    changes: Changes,
    secrets: Vec<String>,
    warnings: Vec<String>,
    cannot_roll_out: &'static str,
    cli: String,
    api: String,
}

#[derive(Template)]
#[template(path = "policies/conflict.html")]
struct ConflictPage {
    frame: Frame,
    id: String,
    draft: Draft,
    by: String,
    at: Moment,
    revision: i64,
    /// What the other change did.
    theirs: Changes,
    their_text: String,
    /// What saving the draft would change now; `None` if it is invalid.
    ours: Option<Changes>,
}

/// Shows the review of a draft, or returns to the editor.
pub async fn review(State(fleet): State<Arc<Fleet>>, Id(id): Id, Posted(visitor, draft): PostedDraft) -> Response {
    if draft.step == "edit" {
        return edit::again(&fleet, &visitor, &id, &draft, None).await;
    }
    match reviewed(&fleet, &visitor, &id, &draft).await {
        Ok(response) => response,
        Err(error) => refused(&fleet, &visitor, &id, &draft, &error).await,
    }
}

/// Returns the review of a draft; an error if it cannot be saved.
pub async fn reviewed(fleet: &Fleet, visitor: &Visitor, id: &str, draft: &Draft) -> Result<Response, Error> {
    let applied = draft.apply(fleet, &visitor.context.clone().trying(true), id, None).await?;
    let policy = &applied.saved.policy;
    let previous = applied.previous_revision.unwrap_or_default();
    let is_changed = applied.saved.changed || !applied.secrets.is_empty();
    let shown = ReviewPage {
        frame: Frame::new(visitor, format!("Review the change of {}", policy.name), TAB),
        id: policy.id.to_string(),
        next: (policy.revision > previous).then_some(policy.revision),
        agents: agents_on(fleet, visitor, policy).await?,
        secrets: applied.secrets.clone(),
        warnings: applied.saved.warnings.0.iter().map(ToString::to_string).collect(),
        changes: Changes::of(applied.changes),
        cannot_roll_out: visitor.lacks(PrivilegeName::PoliciesRollout),
        cli: cli(visitor, &format!("policy apply -f {}", shell::word(&format!("{}.yml", policy.name)))),
        api: curl(visitor, "POST", "/api/fleet/agent_policies/_apply", "")
            + " \\\n  -H 'Content-Type: application/json' -d \"$(jq -n --rawfile policy policy.yml '{$policy}')\"",
        is_changed,
        draft,
    };
    Ok(page(StatusCode::OK, &shown))
}

/// Saves a draft.
pub async fn save(State(fleet): State<Arc<Fleet>>, Id(id): Id, Posted(visitor, draft): PostedDraft) -> Response {
    match saved(&fleet, &visitor, &id, &draft).await {
        Ok(response) => response,
        Err(error) => refused(&fleet, &visitor, &id, &draft, &error).await,
    }
}

async fn saved(fleet: &Fleet, visitor: &Visitor, id: &str, draft: &Draft) -> Result<Response, Error> {
    let applied = draft.apply(fleet, &draft.context(&visitor.context)?, id, None).await?;
    let policy = &applied.saved.policy;
    let count = agents_on(fleet, visitor, policy).await?;
    let text = match applied.previous_revision {
        _ if !applied.saved.changed => "Nothing has changed.".to_owned(),
        Some(previous) if previous == policy.revision => "Saved. Agents get nothing new.".to_owned(),
        _ => format!("Saved revision {}. It reaches {}.", policy.revision, agents(count)),
    };
    Ok(notice::redirect(visitor.base.link(format_args!("{TAB}/{}", policy.id)), &text))
}

/// Shows why a draft was not saved: the other change, or the problems in the editor.
pub async fn refused(fleet: &Fleet, visitor: &Visitor, id: &str, draft: &Draft, error: &Error) -> Response {
    if error.code == CHANGED {
        return match conflict(fleet, visitor, id, draft).await {
            Ok(shown) => page(status_of(error.kind), &shown),
            Err(error) => failure::inside(visitor, &error, TAB),
        };
    }
    if error.kind == ErrorKind::NotFound {
        return failure::inside(visitor, error, TAB);
    }
    edit::again(fleet, visitor, id, draft, Some(error)).await
}

async fn conflict(fleet: &Fleet, visitor: &Visitor, id: &str, draft: &Draft) -> Result<ConflictPage, Error> {
    let policy = fleet.policies().find::<PoliciesRead>(&visitor.context, id).await?;
    // A revision that does not exist comes from a forged form; there is nothing to compare with then.
    let base = draft.revision.unwrap_or(policy.revision);
    let theirs = fleet.policies().diff(&policy, base, policy.revision).await.unwrap_or_default();
    let draft = Draft { version: version_token(&policy), revision: Some(policy.revision), ..draft.clone() };
    let ours = draft.apply(fleet, &visitor.context.clone().trying(true), id, None).await;
    Ok(ConflictPage {
        frame: Frame::new(visitor, format!("{} was changed meanwhile", policy.name), TAB),
        id: policy.id.to_string(),
        by: People::new(fleet, visitor).name(&policy.updated_by).await,
        at: Moment::new(policy.updated_at, fleet.now()),
        revision: policy.revision,
        theirs: Changes::of(theirs),
        their_text: text_of(&policy),
        ours: ours.ok().map(|applied| Changes::of(applied.changes)),
        draft,
    })
}
