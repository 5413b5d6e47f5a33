//! The service of users and service accounts.

use muster_core::error_chain::chain;
use std::sync::Arc;

use muster_core::authorization::{AgentsRead, Grant, OpContext, Privilege, UsersRead, UsersWrite};
use muster_core::entropy::random_uuid;
use muster_core::id::{SpaceId, UserId};
use muster_core::identity::{FederatedId, User, UserKind, check_display, check_name};
use muster_core::time::Clock;
use muster_core::{Entropy, Error, ErrorKind};
use muster_store::query::{Listed, Page};
use muster_store::{IdentityWrite, Precondition, StoreError, Write};
use serde_json::json;

use super::check_covers;
use super::passwords::Passwords;
use super::sign_in::SignIn;
use crate::audit::audit_line;
use crate::authority::{Authorized, Own};
use crate::watched_store::WatchedStore;

/// A new user.
#[derive(Debug)]
pub struct NewUser {
    /// Kind.
    pub kind: UserKind,
    /// Name.
    pub name: String,
    /// Name for people.
    pub full_name: String,
    /// Password; only for people.
    pub password: Option<String>,
}

/// A change of a user. `None` keeps a field.
#[derive(Clone, Debug, Default)]
pub struct UserChange {
    /// Name.
    pub name: Option<String>,
    /// Name for people.
    pub full_name: Option<String>,
    /// Whether it is locked.
    pub locked: Option<bool>,
}

/// The service of users and service accounts.
pub struct Users {
    store: Arc<WatchedStore>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    passwords: Arc<Passwords>,
    sign_in: Arc<SignIn>,
}

impl Users {
    pub(crate) fn new(
        store: Arc<WatchedStore>,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
        passwords: Arc<Passwords>,
        sign_in: Arc<SignIn>,
    ) -> Self {
        Self { store, clock, entropy, passwords, sign_in }
    }

    /// Finds a user by id or name.
    pub async fn find<P: Privilege>(&self, context: &OpContext, id: &str) -> Result<Authorized<User, P>, Error> {
        let grant = context.grant::<P>()?;
        let store = self.store.identity(&grant);
        let by_id = match UserId::parse(id) {
            Ok(id) => store.user(&id).await?,
            Err(_) => None,
        };
        let found = match by_id {
            Some(user) => Some(user),
            // Names are unique, and ids are random, so that nobody can choose a name that is the id of another user.
            None => store.user_principal(&id.to_ascii_lowercase(), &SpaceId::default()).await?.map(|found| found.user),
        };
        Ok(Authorized::new(found.ok_or_else(|| Error::not_found("user", id))?, grant))
    }

    /// Returns the name of a user, for people who may see what the user has done to agents; `None` if the user is gone.
    pub async fn name(&self, grant: &Grant<AgentsRead>, id: &UserId) -> Result<Option<String>, Error> {
        Ok(self.store.identity(grant).user(id).await?.map(|user| user.name))
    }

    /// Finds a user that the caller may change, which is one that has no privilege that the caller lacks. Otherwise,
    /// whoever may manage users could take over an administrator's account.
    pub async fn find_to_change(&self, context: &OpContext, id: &str) -> Result<Authorized<User, UsersWrite>, Error> {
        let user = self.find::<UsersWrite>(context, id).await?;
        let store = self.store.identity(user.grant());
        check_covers(context, &store.user_rights(&user.name).await?)?;
        Ok(user)
    }

    /// Returns a page of the users of a kind, by name.
    pub async fn list(&self, grant: &Grant<UsersRead>, kind: UserKind, page: Page) -> Result<Listed<User>, Error> {
        Ok(self.store.identity(grant).users(kind, page).await?)
    }

    /// Creates a user, without any privileges.
    pub async fn create(&self, grant: &Grant<UsersWrite>, new: &NewUser) -> Result<User, Error> {
        let now = self.clock.now();
        let name = check_name(&new.name).map_err(|error| Error::invalid("name", chain(&error).to_string()))?;
        let password = match (&new.password, new.kind) {
            (None, _) => None,
            (Some(password), UserKind::Person) => Some(self.passwords.hash(&name, password).await?),
            (Some(_), UserKind::ServiceAccount) => {
                return Err(Error::invalid("password", "service accounts have API tokens instead of passwords"));
            }
        };
        let user = User {
            id: UserId::trusted(random_uuid(&*self.entropy)),
            kind: new.kind,
            name,
            full_name: display("full_name", &new.full_name)?,
            password,
            federated: None,
            locked_at: None,
            version: 1,
            created_at: now,
            created_by: grant.actor().to_string(),
            updated_at: now,
        };
        let detail = json!({"name": user.name, "kind": user.kind});
        let line = audit_line(grant.origin(), now, "user.create", subject(&user.id), detail);
        self.store.commit(grant, vec![IdentityWrite::InsertUser(Box::new(user.clone())).into(), line]).await?;
        Ok(user)
    }

    /// Changes a user. Locking one ends its sessions, and its tokens are rejected from the next request on.
    pub async fn update(&self, user: &Authorized<User, UsersWrite>, change: &UserChange) -> Result<User, Error> {
        let now = self.clock.now();
        let before: &User = user;
        let mut after = before.clone();
        if let Some(name) = &change.name {
            after.name = check_name(name).map_err(|error| Error::invalid("name", chain(&error).to_string()))?;
        }
        if let Some(name) = &change.full_name {
            after.full_name = display("full_name", name)?;
        }
        // Locking twice keeps the first time.
        match change.locked {
            Some(true) => after.locked_at = after.locked_at.or(Some(now)),
            Some(false) => after.locked_at = None,
            None => {}
        }
        if after == *before {
            return Ok(after);
        }
        let is_locked_now = after.is_locked() && !before.is_locked();
        let detail = json!({"before": shown(before), "after": shown(&after)});
        self.commit(user, after, "user.update", detail, is_locked_now).await
    }

    /// Links a user with an identity at an OpenID provider, in place of another one, or removes it. Ends the user's sessions.
    pub async fn link(
        &self,
        user: &Authorized<User, UsersWrite>,
        identity: Option<FederatedId>,
    ) -> Result<User, Error> {
        if user.kind == UserKind::ServiceAccount {
            return Err(Error::invalid("id", "service accounts do not log in"));
        }
        let detail = json!({
            "name": user.name, "issuer": identity.as_ref().map(|id| &id.issuer),
            "subject": identity.as_ref().map(|id| &id.subject)
        });
        let after = User { federated: identity, ..User::clone(user) };
        // Sessions end, because their groups and their proof are from the former identity.
        self.commit(user, after, "user.link", detail, true).await
    }

    /// Sets the password of a user, and ends the user's sessions.
    pub async fn set_password(&self, user: &Authorized<User, UsersWrite>, password: &str) -> Result<User, Error> {
        let after = self.with_password(user, password).await?;
        self.commit(user, after, "user.set_password", json!({"name": user.name}), true).await
    }

    /// Sets the caller's own password, which needs the one before, and ends all sessions.
    pub async fn change_own_password(&self, context: &OpContext, before: &str, password: &str) -> Result<(), Error> {
        let own = Own::of(context)?;
        let found = self.store.identity(&own).user(own.user()).await?;
        let user = found.ok_or_else(|| Error::not_found("user", own.user()))?;
        // Also with a valid session: an unattended browser must not be enough to take over the account.
        let address = own.origin().address.as_ref().and_then(|address| address.parse().ok());
        if !self.sign_in.prove_password(&user, before, address).await? {
            return Err(Error::invalid("current_password", "is not the current password"));
        }
        let after = self.with_password(&user, password).await?;
        let now = self.clock.now();
        let after = User { version: after.version + 1, updated_at: now, ..after };
        let line = audit_line(own.origin(), now, "user.set_password", subject(&user.id), json!({"name": user.name}));
        let writes = vec![
            IdentityWrite::UpdateUser(Box::new(after)).into(),
            // All of them, the caller's too: a stolen session must not survive the change.
            IdentityWrite::EndSessions { user: user.id.clone() }.into(),
            line,
        ];
        Ok(self.store.commit(&own, writes).await.map(drop)?)
    }

    async fn with_password(&self, user: &User, password: &str) -> Result<User, Error> {
        if user.kind == UserKind::ServiceAccount {
            return Err(Error::invalid("password", "service accounts have API tokens instead of passwords"));
        }
        let password = Some(self.passwords.hash(&user.name, password).await?);
        Ok(User { password, ..user.clone() })
    }

    async fn commit(
        &self,
        user: &Authorized<User, UsersWrite>,
        after: User,
        action: &str,
        detail: serde_json::Value,
        ends_sessions: bool,
    ) -> Result<User, Error> {
        let (grant, now) = (user.grant(), self.clock.now());
        let after = User { version: after.version + 1, updated_at: now, ..after };
        let mut writes: Vec<Write> = vec![IdentityWrite::UpdateUser(Box::new(after.clone())).into()];
        if ends_sessions {
            writes.push(IdentityWrite::EndSessions { user: after.id.clone() }.into());
        }
        // Checked after the update within the same commit, so it sees the user as locked.
        if after.is_locked() && after.kind == UserKind::Person {
            writes.push(IdentityWrite::KeepsAdministrator.into());
        }
        writes.push(audit_line(grant.origin(), now, action, subject(&after.id), detail));
        self.store.commit(grant, writes).await.map_err(refusal)?;
        Ok(after)
    }

    /// Deletes a user with its tokens, sessions and bindings.
    pub async fn delete(&self, user: &Authorized<User, UsersWrite>) -> Result<(), Error> {
        let (grant, now) = (user.grant(), self.clock.now());
        let line = audit_line(grant.origin(), now, "user.delete", subject(&user.id), json!({"before": shown(user)}));
        let mut writes = vec![IdentityWrite::DeleteUser { id: user.id.clone() }.into()];
        if user.kind == UserKind::Person {
            writes.push(IdentityWrite::KeepsAdministrator.into());
        }
        writes.push(line);
        match self.store.commit(grant, writes).await {
            Err(StoreError::Conflict(Precondition::Missing(_))) => Err(Error::not_found("user", &user.id)),
            other => other.map(drop).map_err(last_administrator),
        }
    }
}

pub(super) fn display(field: &str, text: &str) -> Result<String, Error> {
    check_display(text).map_err(|error| Error::invalid(field, chain(&error).to_string()))
}

pub(super) fn subject(id: &UserId) -> String {
    format!("user:{id}")
}

/// What audit events show of a user.
fn shown(user: &User) -> serde_json::Value {
    json!({"name": user.name, "full_name": user.full_name, "kind": user.kind, "locked": user.is_locked()})
}

fn refusal(error: StoreError) -> Error {
    match error {
        StoreError::Conflict(Precondition::Exists(_)) => {
            Error::conflict("subject_taken", "another user has this subject at the provider")
                .remedy("unlink that user first: muster user unlink NAME")
        }
        other => last_administrator(other),
    }
}

/// Maps the refusal to remove the last administrator.
pub(super) fn last_administrator(error: StoreError) -> Error {
    match error {
        StoreError::Conflict(Precondition::LastAdministrator) => {
            let message = "this would leave the installation without an administrator";
            Error::new(ErrorKind::Conflict, "last_administrator", message).remedy(
                "first, give the role administrator, with the scope everywhere, to another user who is not locked",
            )
        }
        other => other.into(),
    }
}
