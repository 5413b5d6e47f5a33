//! What events and lines of the audit log are about: what people call it, and the page that shows it.

use std::collections::HashMap;

use muster_core::Error;
use muster_core::authorization::{AgentsRead, EnrollmentRead, PoliciesRead};
use muster_fleet::Fleet;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use crate::actions::{policy_names, title_of};
use crate::agents::agent::{name_of, name_or_id};
use crate::names;
use crate::people::People;
use crate::rollouts;
use crate::visitor::Visitor;

/// What is encoded in a segment of a path. Ids in the log can be what a request claimed.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');
/// Kinds that have a page for each object: the kind, and the path below the space.
const PAGES: [(&str, &str); 21] = [
    ("action", "/actions"),
    ("agent", "/agents"),
    ("alert_receiver", "/alerts"),
    ("carve", "/carves"),
    ("download_source", "/settings/downloads"),
    ("enrollment_key", "/keys"),
    ("host", "/hosts"),
    ("host_check", "/checks"),
    ("installer", "/software/installers"),
    ("label", "/labels"),
    ("live_query", "/queries"),
    ("oidc_provider", "/settings/providers"),
    ("output", "/settings/outputs"),
    ("pack", "/packs"),
    ("policy", "/policies"),
    ("proxy", "/settings/proxies"),
    ("role", "/settings/roles"),
    ("rollout", "/rollouts"),
    ("server_host", "/settings/hosts"),
    ("space", "/settings/spaces"),
    ("user", "/settings/users"),
];

/// A subject as pages show it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shown {
    /// Its name; its id if the name is unknown.
    pub name: String,
    /// What it is; empty for what is unique, such as the fleet.
    pub kind: String,
    /// Path of its page below the space; empty if it has none.
    pub link: String,
}

/// The subjects that a page has looked up.
pub struct Subjects<'a> {
    fleet: &'a Fleet,
    visitor: &'a Visitor,
    people: People<'a>,
    known: HashMap<String, Shown>,
}

impl<'a> Subjects<'a> {
    /// Creates an empty look-up.
    pub fn new(fleet: &'a Fleet, visitor: &'a Visitor) -> Self {
        Self { fleet, visitor, people: People::new(fleet, visitor), known: HashMap::new() }
    }

    /// Returns the name of an actor, which may be an enrollment key or an agent, too.
    pub async fn actor(&mut self, actor: &str) -> String {
        match actor.split_once(':') {
            Some(("agent" | "enrollment_key", _)) => {
                let shown = self.shown(actor, "").await;
                format!("{} {}", shown.kind, shown.name)
            }
            _ => self.people.name(actor).await,
        }
    }

    /// Returns how pages show a role binding, from the details of an event about it: who has which role.
    pub async fn binding(&mut self, detail: &Value) -> Option<Shown> {
        let role = detail["role"].as_str()?;
        let (name, link) = match (detail["user"].as_str(), detail["group"].as_str()) {
            (Some(user), _) => (self.people.name(&format!("user:{user}")).await, page_of("user", user)),
            (None, group) => (format!("the group {}", group?), String::new()),
        };
        Some(Shown { name: format!("{name}: {role}"), kind: "role binding".to_owned(), link })
    }

    /// Returns how pages show a subject, `kind:id`. `told` is the name that the event itself contains; empty if there is none.
    pub async fn shown(&mut self, subject: &str, told: &str) -> Shown {
        let Some((kind, id)) = subject.split_once(':') else {
            return Shown { name: subject.to_owned(), ..Shown::default() };
        };
        if let Some(shown) = self.known.get(subject) {
            return shown.clone();
        }
        // An object that is gone, or that the person may not read, has no page. The others are not looked up.
        let (name, is_there) = match self.name(subject, kind, id).await {
            Some(Ok(name)) => (name, true),
            Some(Err(_)) => (self.bare_name(kind, id).await.unwrap_or_else(|| name_or_id(told, id).to_owned()), false),
            None => (name_or_id(told, id).to_owned(), true),
        };
        let link = if is_there { page_of(kind, id) } else { String::new() };
        let shown = Shown { name, kind: kind.replace('_', " "), link };
        self.known.insert(subject.to_owned(), shown.clone());
        shown
    }

    /// Looks up the name of an object; `None` for kinds that are not looked up.
    async fn name(&mut self, subject: &str, kind: &str, id: &str) -> Option<Result<String, Error>> {
        let (fleet, context) = (self.fleet, &self.visitor.context);
        let name = match kind {
            "user" => match self.people.name(subject).await {
                gone if gone == subject => Err(Error::not_found("user", id)),
                name => Ok(name),
            },
            "agent" => fleet.agents().find::<AgentsRead>(context, id).await.map(|agent| name_of(&agent)),
            "policy" => fleet.policies().find::<PoliciesRead>(context, id).await.map(|policy| policy.name.clone()),
            "enrollment_key" => {
                let found = fleet.enrollment_keys().find::<EnrollmentRead>(context, id).await;
                found.map(|key| name_or_id(&key.name, id).to_owned())
            }
            "label" => fleet.labels().find(&context.grant().ok()?, id).await.map(|view| view.label.name),
            "host_check" => fleet.host_checks().find(&context.grant().ok()?, id).await.map(|found| found.check.name),
            "pack" => fleet.packs().find(&context.grant().ok()?, id).await.map(|found| found.pack.name),
            "rollout" => self.rollout(id).await,
            "action" => self.action(id).await,
            _ => return None,
        };
        Some(name)
    }

    /// Returns the name of what agents have, for somebody who may not read it itself.
    async fn bare_name(&self, kind: &str, id: &str) -> Option<String> {
        match kind {
            "policy" => names::policy(self.fleet, self.visitor, id).await,
            "enrollment_key" => names::key(self.fleet, self.visitor, id).await,
            _ => None,
        }
    }

    async fn rollout(&self, id: &str) -> Result<String, Error> {
        let rollout = self.fleet.rollouts().find::<PoliciesRead>(&self.visitor.context, id).await?;
        let grant = rollout.grant().clone();
        let named = rollouts::subjects(self.fleet, &grant, &[rollout.into_inner()]).await?;
        Ok(named.into_iter().next().unwrap_or_else(|| id.to_owned()))
    }

    async fn action(&self, id: &str) -> Result<String, Error> {
        let action = self.fleet.actions().find::<AgentsRead>(&self.visitor.context, id).await?;
        let names = policy_names(self.fleet, self.visitor, &[&action]).await?;
        Ok(title_of(&action, &names))
    }
}

/// Returns the path of the page of an object below the space; empty if it has none.
fn page_of(kind: &str, id: &str) -> String {
    let known = PAGES.iter().find(|(name, _)| *name == kind);
    known.map(|(_, path)| format!("{path}/{}", utf8_percent_encode(id, SEGMENT))).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_with_pages_are_sorted_and_lead_below_the_space() {
        assert!(PAGES.is_sorted_by_key(|(kind, _)| *kind));
        assert_eq!(page_of("server_host", "h"), "/settings/hosts/h");
        assert_eq!(page_of("agent", "a-1?x"), "/agents/a-1%3Fx");
        assert_eq!(page_of("backup", "b"), "");
    }
}
