//! Conditions of the list's query that were chosen from a menu, under the names that the menu has for them.

use muster_core::authorization::EnrollmentRead;
use muster_core::id::PolicyId;
use muster_fleet::Fleet;

use super::agent::name_or_id;
use super::asked::{Asked, conjuncts, toggled, unquoted};
use crate::visitor::Visitor;

/// Maximum number of conditions: each may need a name.
const SHOWN: usize = 10;

/// A condition that can be removed.
pub struct Chosen {
    /// What it is about.
    pub kind: &'static str,
    /// Its value, for people.
    pub value: String,
    /// Link to the list without it.
    pub link: String,
}

/// Returns the conditions of a query with a name. None for alternatives, of which none can be removed.
pub async fn chosen(fleet: &Fleet, visitor: &Visitor, asked: &Asked) -> Vec<Chosen> {
    let mut all = Vec::new();
    for part in conjuncts(&asked.q).into_iter().flatten().take(SHOWN) {
        let Some((field, value)) = part.split_once(':').and_then(|(field, value)| Some((field, unquoted(value)?)))
        else {
            continue;
        };
        let (kind, value) = match field {
            "policy_id" => ("Policy", policy(fleet, visitor, value).await),
            "enrollment_key_id" => ("Enrollment key", key(fleet, visitor, value).await),
            "tags" => ("Tag", value),
            "labels" => ("Label", value),
            _ => continue,
        };
        let link = asked.link(&visitor.base, &[("q", &toggled(&asked.q, part))]);
        all.push(Chosen { kind, value, link });
    }
    all
}

/// Returns the name of a policy; its id if it is unknown.
async fn policy(fleet: &Fleet, visitor: &Visitor, id: String) -> String {
    let (Ok(grant), Ok(policy)) = (visitor.context.grant(), PolicyId::parse(&id)) else { return id };
    let names = fleet.policies().names(&grant, &[policy]).await;
    names.ok().and_then(|names| names.into_values().next()).unwrap_or(id)
}

/// Returns the name of an enrollment key; its id for those who may not read it.
async fn key(fleet: &Fleet, visitor: &Visitor, id: String) -> String {
    let found = fleet.enrollment_keys().find::<EnrollmentRead>(&visitor.context, &id).await;
    found.map_or_else(|_| id.clone(), |key| name_or_id(&key.name, &id).to_owned())
}
