//! Conditions of the list's query that were chosen from a menu, under the names that the menu has for them.

use muster_fleet::Fleet;

use super::asked::{Asked, conjuncts, toggled, unquoted};
use crate::names;
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
            "policy_id" => ("Policy", names::policy(fleet, visitor, &value).await.unwrap_or(value)),
            "enrollment_key_id" => ("Enrollment key", names::key(fleet, visitor, &value).await.unwrap_or(value)),
            "tags" => ("Tag", value),
            "labels" => ("Label", value),
            _ => continue,
        };
        let link = asked.link(&visitor.base, &[("q", &toggled(&asked.q, part))]);
        all.push(Chosen { kind, value, link });
    }
    all
}
