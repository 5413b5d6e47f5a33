//! Names of the people who have done something.

use std::collections::HashMap;

use muster_core::authorization::UsersRead;
use muster_fleet::Fleet;

use crate::visitor::Visitor;

/// What actors of users begin with.
const USER: &str = "user:";

/// The names that a page has looked up.
pub struct People<'a> {
    fleet: &'a Fleet,
    visitor: &'a Visitor,
    known: HashMap<String, String>,
}

impl<'a> People<'a> {
    /// Creates an empty look-up.
    pub fn new(fleet: &'a Fleet, visitor: &'a Visitor) -> Self {
        let own = (visitor.context.actor().to_string(), visitor.name.clone());
        Self { fleet, visitor, known: [own].into() }
    }

    /// Returns the name of a user; the actor itself if it is none, is gone, or the visitor may not see users.
    pub async fn name(&mut self, actor: &str) -> String {
        if let Some(name) = self.known.get(actor) {
            return name.clone();
        }
        let found = match actor.strip_prefix(USER) {
            Some(id) => self.fleet.users().find::<UsersRead>(&self.visitor.context, id).await.ok(),
            None => None,
        };
        let name = found.map_or_else(|| actor.to_owned(), |user| user.name.clone());
        self.known.insert(actor.to_owned(), name.clone());
        name
    }
}
