//! What the pages of a change of a policy carry from one to the next, and its application.

use std::collections::{BTreeMap, BTreeSet};

use muster_core::Error;
use muster_core::authorization::OpContext;
use muster_core::policy::problem::{Problem, Problems};
use muster_core::rollout::Plan;
use muster_core::yaml::{MAX_BYTES, Place};
use muster_fleet::Fleet;
use muster_fleet::policies::Expected;
use muster_fleet::policies::apply::{Application, Applied};
use serde::Deserialize;
use zeroize::Zeroizing;

use super::text::is_invisible;
use crate::request::Posted;
use crate::rollouts::plan::PlanForm;

/// Maximum size of a form with a policy file, bytes: every byte of the file may take three.
const MAX_FORM: usize = 3 * MAX_BYTES + (64 << 10);
/// Maximum length of a reason, bytes, as in the management API.
pub const MAX_REASON: usize = 500;

/// A draft that a browser has sent.
pub type PostedDraft = Posted<Draft, MAX_FORM>;

/// A value that is wiped from memory when it is no longer needed.
#[derive(Clone, Default, Deserialize)]
#[serde(from = "String")]
pub struct SecretText(Zeroizing<String>);

impl From<String> for SecretText {
    fn from(text: String) -> Self {
        Self(Zeroizing::new(text))
    }
}

/// A change that is not saved yet. The browser keeps it, except for secrets, which are entered once more to save it.
#[derive(Clone, Default, Deserialize)]
#[serde(default)]
pub struct Draft {
    /// The policy, on pages whose path does not name it.
    pub policy: String,
    /// The policy file.
    pub text: String,
    /// Version of the policy that the text is based on.
    pub version: String,
    /// Revision of the policy that the text is based on.
    pub revision: Option<i64>,
    /// Not empty: change a managed policy.
    pub force: String,
    /// Reason for the audit log.
    pub reason: String,
    /// Names of secrets.
    pub secret_name: Vec<String>,
    /// Their values; an empty one keeps the stored value.
    pub secret_value: Vec<SecretText>,
    /// Names of the secrets for which a value was entered on a page before, and that have to be entered again.
    pub secret_again: Vec<String>,
    /// `edit` returns to the editor.
    pub step: String,
    /// The agents of each wave of a rollout.
    pub members: Vec<String>,
    /// The soak time of each wave.
    pub soak: Vec<String>,
    /// `yes` for each wave that is followed by an approval.
    pub approval: Vec<String>,
    /// Limit of the gate, like the following ones.
    pub max_unhealthy_percent: String,
    /// Limit.
    pub max_failed_percent: String,
    /// Limit.
    pub max_silent_percent: String,
    /// Limit.
    pub min_applied_percent: String,
    /// Limit.
    pub apply_within: String,
    /// KQL: the agents of an upgrade.
    pub q: String,
    /// Target version of an upgrade.
    pub upgrade: String,
    /// [`Draft::mark`] of the plan whose waves the page has drawn.
    pub drawn: String,
}

impl Draft {
    /// The plan of a rollout, as it was entered.
    pub fn plan_form(&self) -> PlanForm {
        PlanForm::of_rows(
            [&self.members, &self.soak, &self.approval],
            [
                &self.max_unhealthy_percent,
                &self.max_failed_percent,
                &self.max_silent_percent,
                &self.min_applied_percent,
                &self.apply_within,
            ],
        )
    }

    /// Identifies the plan of a rollout and the agents that it is for.
    pub fn mark(&self) -> String {
        self.plan_form().mark([self.q.trim(), self.upgrade.trim()])
    }

    /// Names of the secrets for which a value was entered.
    pub fn given_secrets(&self) -> Vec<String> {
        self.secrets().into_keys().collect()
    }

    /// Names of the secrets for which a value was entered, here or on a page before. No page keeps values, so that those that
    /// are not entered again are lost.
    pub fn entered_secrets(&self) -> BTreeSet<String> {
        self.secret_again.iter().filter(|name| !name.is_empty()).cloned().chain(self.given_secrets()).collect()
    }

    /// Names of the secrets whose value was entered on a page before, but not again. Saving keeps their stored values.
    pub fn lost_secrets(&self) -> Vec<String> {
        let given = self.secrets();
        self.entered_secrets().into_iter().filter(|name| !given.contains_key(name)).collect()
    }

    fn secrets(&self) -> BTreeMap<String, Option<Zeroizing<String>>> {
        let pairs = self.secret_name.iter().map(|name| name.trim()).zip(&self.secret_value);
        let given = pairs.filter(|(name, value)| !name.is_empty() && !value.0.is_empty());
        given.map(|(name, value)| (name.to_owned(), Some(value.0.clone()))).collect()
    }

    /// Returns the context with the reason that was entered.
    pub fn context(&self, context: &OpContext) -> Result<OpContext, Error> {
        because(context, &self.reason)
    }

    /// Applies the change to a policy, or tries it if the context is that of a dry run.
    pub async fn apply(
        &self,
        fleet: &Fleet,
        context: &OpContext,
        id: &str,
        rollout: Option<Plan>,
    ) -> Result<Applied, Error> {
        refuse_invisible(&self.text)?;
        let application = Application {
            text: self.text.clone(),
            secrets: self.secrets(),
            force: (!self.force.is_empty()).into(),
            expected: Expected { revision: None, version: Some(self.version.clone()) },
            rollout,
        };
        fleet.policies().rewrite(context, id, application).await
    }
}

/// Returns the context with a reason for the audit log.
pub fn because(context: &OpContext, reason: &str) -> Result<OpContext, Error> {
    let reason = reason.trim();
    if reason.len() > MAX_REASON {
        return Err(Error::invalid("reason", format!("longer than {MAX_REASON} bytes")));
    }
    Ok(context.clone().because(Some(reason).filter(|reason| !reason.is_empty())))
}

/// Rejects characters that no page shows: what is saved must be what a person has read.
fn refuse_invisible(text: &str) -> Result<(), Error> {
    let lines = text.split('\n').zip(1_u64..);
    let mut problems = Problems::default();
    for (line, number) in lines {
        if let Some((c, column)) = line.chars().zip(1_u64..).find(|(c, _)| is_invisible(*c)) {
            let reason = format!("the invisible character U+{:04X}", c as u32);
            let remedy = format!("remove it, or write it as \"\\u{:04x}\" in a quoted string", c as u32);
            problems.0.push(Problem::new("", reason, remedy).at(Place { line: number, column }));
        }
    }
    Ok(problems.into_result()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invisible_characters_are_refused_with_their_position() {
        assert!(refuse_invisible("name: wéb\n\tconfig: {}\n").is_ok());
        let error = refuse_invisible("name: web\na: x\u{202e}y\n").unwrap_err();
        let problem = &error.problems.unwrap().0[0];
        assert_eq!(problem.place, Some(Place { line: 2, column: 5 }));
        assert!(problem.reason.contains("U+202E") && problem.remedy.contains("\\u202e"), "{problem}");
    }

    #[test]
    fn empty_values_keep_stored_secrets() {
        let draft = Draft {
            secret_name: vec!["A".into(), "B".into(), String::new()],
            secret_value: ["", "x", "y"].map(|text| text.to_owned().into()).into(),
            ..Draft::default()
        };
        assert_eq!(draft.given_secrets(), ["B"]);
        let later = Draft { secret_again: vec!["A".into(), "B".into()], ..draft.clone() };
        assert_eq!(later.lost_secrets(), ["A"], "it was entered before, but not again");
        assert_eq!(later.entered_secrets().into_iter().collect::<Vec<_>>(), ["A", "B"]);
        assert_eq!(draft.secrets().len(), 1);
    }
}
