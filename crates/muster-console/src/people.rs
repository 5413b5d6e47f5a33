//! Names of the people who have done something.

use std::collections::HashMap;

use muster_core::authorization::{Actor, AgentsRead, PrivilegeName, UsersRead};
use muster_core::id::UserId;
use muster_core::{Error, ErrorKind};
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

    /// Returns the name of a user; the actor itself if it is not a user or is gone. Whoever may see agents may know who has acted
    /// on them; for others, the beginning of the id tells people apart.
    pub async fn name(&mut self, actor: &str) -> String {
        if let Some(name) = self.known.get(actor) {
            return name.clone();
        }
        // `user:ID`, or `user:ID token:ID`.
        let (user, token) = actor.split_once(' ').map_or((actor, ""), |(user, _)| (user, " (API token)"));
        let found = match user.strip_prefix(USER) {
            Some(id) => self.user(id).await,
            None => None,
        };
        // Nobody may pass for the server by the choice of a name.
        let found = found.filter(|user| *user != Actor::System.to_string());
        let name = match (found, user.strip_prefix(USER)) {
            (Some(user), _) => format!("{user}{token}"),
            (None, Some(id)) if !self.visitor.lacks(PrivilegeName::UsersRead).is_empty() => {
                format!("user {}{token}", id.split('-').next().unwrap_or(id))
            }
            (None, _) => actor.to_owned(),
        };
        self.known.insert(actor.to_owned(), name.clone());
        name
    }

    async fn user(&self, id: &str) -> Option<String> {
        let (users, context) = (self.fleet.users(), &self.visitor.context);
        if let Ok(user) = users.find::<UsersRead>(context, id).await {
            return Some(user.name.clone());
        }
        let (grant, id) = (context.grant::<AgentsRead>().ok()?, UserId::parse(id).ok()?);
        users.name(&grant, &id).await.ok().flatten()
    }
}

/// Returns the actor that a person has typed: a user's name stands for the user.
pub async fn actor(fleet: &Fleet, visitor: &Visitor, typed: &str) -> Result<String, Error> {
    if typed.contains(':') || typed == Actor::System.to_string() {
        return Ok(typed.to_owned());
    }
    if typed.eq_ignore_ascii_case(&visitor.name)
        && let Some(id) = visitor.context.actor().user()
    {
        return Ok(format!("{USER}{id}"));
    }
    match fleet.users().find::<UsersRead>(&visitor.context, typed).await {
        Ok(user) => Ok(format!("{USER}{}", user.id)),
        Err(error) if error.kind == ErrorKind::NotFound => Err(Error::invalid("actor", "no user has this name")),
        Err(error) if error.kind == ErrorKind::Forbidden => Err(Error::invalid(
            "actor",
            "must be an actor such as user:ID; to use names, you need the privilege users.read",
        )),
        Err(error) => Err(error),
    }
}
