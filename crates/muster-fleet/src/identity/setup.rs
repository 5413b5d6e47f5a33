//! The first administrator, and links with which a user sets a password.

use std::net::IpAddr;
use std::sync::Arc;

use muster_core::authorization::{BindingScope, BuiltIn, UsersWrite};
use muster_core::credential::ApiKey;
use muster_core::entropy::random_uuid;
use muster_core::id::{BindingId, UserId};
use muster_core::identity::{Binding, SETUP_LINK_LIFETIME, SetupLink, Subject, User, UserKind};
use muster_core::time::{Clock, Timestamp};
use muster_core::{Entropy, Error, ErrorKind};
use muster_store::query::Page;
use muster_store::{IdentityWrite, Precondition, StoreError, Write};
use serde_json::json;

use super::passwords::Passwords;
use super::sign_in::{SignIn, too_many};
use super::users::subject;
use crate::audit::audit_line;
use crate::authority::{Authorized, Own, System};
use crate::watched_store::WatchedStore;

/// Name of the first administrator.
pub const FIRST_ADMINISTRATOR: &str = "admin";

/// The service of set-up links.
pub struct Setup {
    store: Arc<WatchedStore>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    passwords: Arc<Passwords>,
    sign_in: Arc<SignIn>,
}

impl Setup {
    pub(crate) fn new(
        store: Arc<WatchedStore>,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
        passwords: Arc<Passwords>,
        sign_in: Arc<SignIn>,
    ) -> Self {
        Self { store, clock, entropy, passwords, sign_in }
    }

    /// Creates the first administrator, without a password, unless there is a user. Returns the token of a set-up link.
    pub async fn ensure_administrator(&self) -> Result<Option<String>, Error> {
        let users = self.store.identity(&System).users(UserKind::Person, Page { offset: 0, limit: 0 }).await?;
        if users.total > 0 {
            return Ok(None);
        }
        let now = self.clock.now();
        let user = first_administrator(UserId::trusted(random_uuid(&*self.entropy)), now);
        let binding = Binding {
            id: BindingId::trusted(random_uuid(&*self.entropy)),
            subject: Subject::User(user.id.clone()),
            role: BuiltIn::Administrator.id(),
            scope: BindingScope::System,
            created_at: now,
            created_by: user.created_by.clone(),
        };
        let (link, token) = self.link(&user.id, now);
        let detail = json!({"name": user.name, "kind": user.kind});
        let writes: Vec<Write> = vec![
            IdentityWrite::InsertUser(Box::new(user.clone())).into(),
            IdentityWrite::InsertBinding(Box::new(binding)).into(),
            IdentityWrite::InsertSetupLink(Box::new(link)).into(),
            audit_line(&System::ORIGIN, now, "user.create", subject(&user.id), detail),
        ];
        match self.store.commit(&System, writes).await {
            Ok(_) => Ok(Some(token)),
            // Another server that starts at the same time was first, and prints its link.
            Err(StoreError::Conflict(Precondition::NameTaken(_))) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn link(&self, user: &UserId, now: Timestamp) -> (SetupLink, String) {
        let key = ApiKey::generate(&*self.entropy);
        let expires_at = now.plus(SETUP_LINK_LIFETIME);
        (SetupLink { key_id: key.id.clone(), hash: key.hash(), user: user.clone(), expires_at }, key.token())
    }

    /// Creates a link for a user whom the caller may change. It is valid for an hour, and replaces others of the user.
    pub async fn create_link(&self, user: &Authorized<User, UsersWrite>) -> Result<(SetupLink, String), Error> {
        if user.kind == UserKind::ServiceAccount {
            return Err(Error::invalid("id", "service accounts have API tokens instead of passwords"));
        }
        let (grant, now) = (user.grant(), self.clock.now());
        let (link, token) = self.link(&user.id, now);
        let line = audit_line(grant.origin(), now, "user.setup_link", subject(&user.id), json!({"name": user.name}));
        self.store.commit(grant, vec![IdentityWrite::InsertSetupLink(Box::new(link.clone())).into(), line]).await?;
        Ok((link, token))
    }

    /// Returns the name of the user whom a link is for; `None` if it is invalid, used or expired.
    pub async fn name_of(&self, token: &str) -> Result<Option<String>, Error> {
        let Ok(key) = ApiKey::parse(token) else { return Ok(None) };
        let store = self.store.identity(&System);
        let link = store.setup_link(&key.id).await?;
        let Some(link) = link.filter(|link| key.matches(&link.hash) && link.expires_at > self.clock.now()) else {
            return Ok(None);
        };
        Ok(store.user(&link.user).await?.map(|user| user.name))
    }

    /// Sets the password of the link's user. The link works once.
    pub async fn use_link(&self, token: &str, password: &str, address: Option<IpAddr>) -> Result<User, Error> {
        let now = self.clock.now();
        let key = ApiKey::parse(token).map_err(|_| self.invalid(address, now))?;
        let link = self.store.identity(&System).setup_link(&key.id).await?;
        let live = link.filter(|link| key.matches(&link.hash) && link.expires_at > now);
        let link = live.ok_or_else(|| self.invalid(address, now))?;
        let user = self.store.identity(&System).user(&link.user).await?.ok_or_else(|| self.invalid(address, now))?;
        let password = Some(self.passwords.hash(&user.name, password).await?);
        let after = User { password, version: user.version + 1, updated_at: now, ..user };
        let own = Own::proven(after.id.clone(), address);
        let line = audit_line(own.origin(), now, "user.set_password", subject(&after.id), json!({"by": "setup_link"}));
        let writes: Vec<Write> = vec![
            // First, so that of two uses at the same time one fails.
            IdentityWrite::UseSetupLink { key_id: link.key_id }.into(),
            IdentityWrite::UpdateUser(Box::new(after.clone())).into(),
            IdentityWrite::EndSessions { user: after.id.clone() }.into(),
            line,
        ];
        match self.store.commit(&own, writes).await {
            Err(StoreError::Conflict(Precondition::KeyRefused)) => Err(self.invalid(address, now)),
            other => other.map(|_| after).map_err(Error::from),
        }
    }

    fn invalid(&self, address: Option<IpAddr>, now: Timestamp) -> Error {
        if let Some(Err(wait)) = address.map(|address| self.sign_in.attempts().token_failed(address, now)) {
            return too_many(wait);
        }
        let message = "the set-up link is invalid, used or older than an hour";
        Error::new(ErrorKind::Unauthenticated, "setup_link_invalid", message)
            .remedy("on the server's host, run: muster user setup-link NAME")
    }
}

fn first_administrator(id: UserId, now: Timestamp) -> User {
    User {
        id,
        kind: UserKind::Person,
        name: FIRST_ADMINISTRATOR.to_owned(),
        full_name: "Administrator".to_owned(),
        password: None,
        federated: None,
        locked_at: None,
        version: 1,
        created_at: now,
        created_by: System::ACTOR.to_string(),
        updated_at: now,
    }
}
