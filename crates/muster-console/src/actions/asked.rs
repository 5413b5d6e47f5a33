//! Parameters of the list of actions, which are in its URL, and what they mean.

use muster_core::Error;
use muster_core::action::{Action, ActionType};
use muster_core::action_request::{ActionProgress, ActionStatus};
use muster_core::authorization::PoliciesRead;
use muster_fleet::Fleet;
use muster_store::query::Page;
use serde::Deserialize;

use super::{PolicyNames, TAB, title_of};
use crate::agents::asked::{encoded, with_query};
use crate::links::Base;
use crate::people;
use crate::visitor::Visitor;

/// Maximum number of policies whose names a text is compared with.
const POLICIES: u32 = 1_000;
/// States: the word in the URL, and the name.
const STATES: [(&str, &str); 5] = [
    ("in_progress", "In progress"),
    ("complete", "Complete"),
    ("failed", "Failed for some"),
    ("cancelled", "Cancelled"),
    ("expired", "Expired"),
];
/// Types: the word in the URL, which is that of the API, and the name.
const KINDS: [(&str, &str); 12] = [
    ("UPGRADE", "Upgrade"),
    ("POLICY_CHANGE", "Change of a policy"),
    ("POLICY_REASSIGN", "Assign a policy"),
    ("UPDATE_TAGS", "Change tags"),
    ("REQUEST_DIAGNOSTICS", "Request diagnostics"),
    ("SETTINGS", "Change settings"),
    ("UNENROLL", "Unenroll"),
    ("FORCE_UNENROLL", "Revoke immediately"),
    ("REENROLL", "Reenroll"),
    ("MIGRATE", "Migrate"),
    ("PRIVILEGE_LEVEL_CHANGE", "Change the privilege level"),
    ("INPUT_ACTION", "Action of an input"),
];

/// Parameters of the page.
#[derive(Default, Deserialize)]
#[serde(default)]
pub struct Asked {
    /// State: a word of [`STATES`].
    pub state: String,
    /// Type: a word of [`KINDS`].
    #[serde(alias = "type")]
    pub kind: String,
    /// Text in the title, or who created it.
    pub q: String,
    /// Cursor: the last action of the previous page.
    pub after: String,
    /// The newest change that the browser has seen. Only in requests that renew the rows.
    pub seen: Option<i64>,
}

/// Returns what pages call a type of actions.
pub fn kind_words(kind: ActionType) -> &'static str {
    KINDS.iter().find(|(word, _)| *word == kind.as_str()).map_or(kind.as_str(), |(_, name)| name)
}

impl Asked {
    /// Returns whether the list is filtered.
    pub fn is_filtered(&self) -> bool {
        [&self.state, &self.kind, &self.q].iter().any(|one| !one.trim().is_empty())
    }

    /// The states to choose from.
    pub fn states(&self) -> &'static [(&'static str, &'static str)] {
        &STATES
    }

    /// The types to choose from.
    pub fn kinds(&self) -> &'static [(&'static str, &'static str)] {
        &KINDS
    }

    /// Returns the state and the type as a query, which the command and the API accept. They cannot search for text.
    pub fn kuery(&self) -> String {
        let state = match self.state.as_str() {
            "expired" => "status:(EXPIRED or ROLLOUT_PASSED)".to_owned(),
            state => format!("status:{}", state.to_uppercase()),
        };
        let parts = [(&self.kind, format!("type:{}", self.kind)), (&self.state, state)];
        let parts: Vec<String> =
            parts.into_iter().filter(|(given, _)| !given.is_empty()).map(|(_, part)| part).collect();
        parts.join(" and ")
    }

    /// Returns the link to the list with these filters, behind a cursor.
    pub fn link(&self, base: &Base, after: &str, seen: Option<i64>) -> String {
        let kept = [("state", self.state.as_str()), ("kind", &self.kind), ("q", &self.q), ("after", after)];
        let pairs = kept.into_iter().filter(|(_, value)| !value.is_empty());
        let mut pairs: Vec<String> = pairs.map(|(name, value)| format!("{name}={}", encoded(value))).collect();
        pairs.extend(seen.map(|seen| format!("seen={seen}")));
        with_query(&format!("{base}{TAB}"), &pairs.join("&"))
    }

    /// Returns what the filters mean; `None` without a filter.
    ///
    /// # Errors
    /// A word that no form sends: a link that was cut would otherwise show other actions than it was made for.
    pub async fn wanted(&self, fleet: &Fleet, visitor: &Visitor) -> Result<Option<Wanted<'_>>, Error> {
        for (field, value, words) in [("state", &self.state, &STATES[..]), ("kind", &self.kind, &KINDS[..])] {
            if !value.is_empty() && !words.iter().any(|(word, _)| word == value) {
                return Err(Error::invalid(field, format!("unknown value {value:?}")));
            }
        }
        if !self.is_filtered() {
            return Ok(None);
        }
        let text = self.q.trim().to_lowercase();
        let mut wanted = Wanted { asked: self, policies: PolicyNames::new(), actor: None, text };
        if !wanted.text.is_empty() {
            wanted.policies = policies(fleet, visitor).await?;
            // A text that is no user's name is only looked for in titles.
            wanted.actor = people::actor(fleet, visitor, self.q.trim()).await.ok();
        }
        Ok(Some(wanted))
    }
}

/// Returns the names of the policies that a person may read.
async fn policies(fleet: &Fleet, visitor: &Visitor) -> Result<PolicyNames, Error> {
    let Ok(grant) = visitor.context.grant::<PoliciesRead>() else { return Ok(PolicyNames::new()) };
    let found = fleet.policies().list(&grant, Page { offset: 0, limit: POLICIES }).await?.items;
    Ok(found.into_iter().map(|policy| (policy.id.to_string(), policy.name)).collect())
}

/// What the filters mean.
pub struct Wanted<'a> {
    asked: &'a Asked,
    policies: PolicyNames,
    /// The actor whose name was typed.
    actor: Option<String>,
    /// What was typed, in lower case.
    text: String,
}

impl Wanted<'_> {
    /// Returns whether an action meets all of them.
    pub fn fits(&self, action: &Action, progress: &ActionProgress) -> bool {
        let is_kind = self.asked.kind.is_empty() || self.asked.kind == action.kind.as_str();
        let is_state = self.asked.state.is_empty() || self.asked.state == word_of(progress.status);
        is_kind && is_state && (self.text.is_empty() || self.has_text(action))
    }

    fn has_text(&self, action: &Action) -> bool {
        // The actor of an API token is that of its user, followed by the token.
        let by = action.created_by.split(' ').next().unwrap_or_default();
        self.actor.as_deref() == Some(by)
            || action.id.as_str() == self.text
            || title_of(action, &self.policies).to_lowercase().contains(&self.text)
    }
}

const fn word_of(status: ActionStatus) -> &'static str {
    match status {
        ActionStatus::InProgress => "in_progress",
        ActionStatus::Complete => "complete",
        ActionStatus::Failed => "failed",
        ActionStatus::Cancelled => "cancelled",
        // A rollout that has passed is the expiration of upgrades.
        ActionStatus::Expired | ActionStatus::RolloutPassed => "expired",
    }
}
