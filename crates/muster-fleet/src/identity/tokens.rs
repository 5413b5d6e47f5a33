//! The service of API tokens.

use std::sync::Arc;

use muster_core::authorization::{
    Entitlement, Grant, OpContext, Origin, PrivilegeName, PrivilegeSet, UsersRead, UsersWrite,
};
use muster_core::credential::ApiKey;
use muster_core::entropy::random_uuid;
use muster_core::id::{TokenId, UserId};
use muster_core::identity::{ApiToken, DEFAULT_TOKEN_LIFETIME, Login, User, UserKind};
use muster_core::time::{Clock, Timestamp};
use muster_core::{Entropy, Error};
use muster_store::query::{Listed, Page};
use muster_store::{IdentityWrite, Precondition, StoreError};
use serde_json::json;

use super::users::display;
use super::{check_covers, none_missing, parse_privileges};
use crate::audit::audit_line;
use crate::authority::{Authority, Authorized, Own};
use crate::moment::parse_end;
use crate::watched_store::WatchedStore;

/// Maximum number of tokens of an owner, with those that ended during the last month.
pub(super) const MOST_TOKENS: u64 = 1_000;

/// A new token.
#[derive(Clone, Debug, Default)]
pub struct NewToken {
    /// Name.
    pub name: String,
    /// Names of the privileges; `None` for all that the caller has.
    pub privileges: Option<Vec<String>>,
    /// Expiration: a duration, an RFC 3339 time, or `never`; `None` for 90 days.
    pub expiration: Option<String>,
}

/// What a token may be used for, and how long.
struct Rights {
    privileges: PrivilegeSet,
    groups: Vec<String>,
    expires_at: Option<Timestamp>,
    login: Option<Login>,
}

/// The service of API tokens.
pub struct Tokens {
    store: Arc<WatchedStore>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
}

impl Tokens {
    pub(crate) fn new(store: Arc<WatchedStore>, clock: Arc<dyn Clock>, entropy: Arc<dyn Entropy>) -> Self {
        Self { store, clock, entropy }
    }

    /// Creates a token of the caller; returns it with its secret. It has at most the privileges of the caller, and ends
    /// no later than the token that it is created with, or the login that the caller's groups are from (MG165).
    pub async fn create_own(&self, context: &OpContext, new: &NewToken) -> Result<(ApiToken, String), Error> {
        let own = Own::of(context)?;
        let store = self.store.identity(&own);
        let owner = store.user(own.user()).await?.ok_or_else(|| Error::not_found("user", own.user()))?;
        // Otherwise a stolen token could renew itself forever, and groups could outlive the login.
        let used = match context.actor().token() {
            Some(token) => store.token(token).await?,
            None => None,
        };
        let ends = [used.as_ref().and_then(|token| token.expires_at), context.membership().map(|member| member.until)];
        let expires_at = match self.expiration(&owner, new)? {
            Some(wanted) => Some(expires_within(wanted, &ends)),
            // No end was requested, and none is imposed by what the token is created with.
            None => ends.into_iter().flatten().min(),
        };
        let rights = Rights {
            privileges: wanted(context, new)?,
            groups: context.membership().map(|member| member.groups.clone()).unwrap_or_default(),
            expires_at,
            // A token of a login ends with the login, also if it was created by another token of that login.
            login: used.and_then(|token| token.login),
        };
        self.insert(&own, own.origin(), &owner, new, rights).await
    }

    /// Creates a token of another user, whom the caller may change.
    pub async fn create_for(
        &self,
        context: &OpContext,
        owner: &Authorized<User, UsersWrite>,
        new: &NewToken,
    ) -> Result<(ApiToken, String), Error> {
        let privileges = match &new.privileges {
            // In force is only what the owner may do too, none of which the caller lacks.
            None => PrivilegeSet::all(),
            Some(names) => parse_privileges("privileges", names)?,
        };
        // No groups: they are those of the owner's login, of which the caller knows nothing.
        let rights = Rights { privileges, groups: Vec::new(), expires_at: self.expiration(owner, new)?, login: None };
        self.insert(owner.grant(), context.origin(), owner, new, rights).await
    }

    async fn insert(
        &self,
        by: &impl Authority,
        origin: &Origin,
        owner: &User,
        new: &NewToken,
        rights: Rights,
    ) -> Result<(ApiToken, String), Error> {
        let Rights { privileges, groups, expires_at, login } = rights;
        let now = self.clock.now();
        let store = self.store.identity(by);
        // Counted without a lock. The limit protects the list and the store, not a right.
        if store.tokens(Some(&owner.id), Page { offset: 0, limit: 0 }).await?.total >= MOST_TOKENS {
            return Err(Error::conflict(
                "too_many_tokens",
                format!("{} already has {MOST_TOKENS} tokens, the maximum", owner.name),
            ));
        }
        let id = TokenId::trusted(random_uuid(&*self.entropy));
        let key = ApiKey::generate(&*self.entropy);
        let name = display("name", &new.name)?;
        let token = ApiToken {
            name: if name.is_empty() { id.to_string() } else { name },
            id,
            key_id: key.id.clone(),
            hash: key.hash(),
            owner: owner.id.clone(),
            privileges,
            groups,
            expires_at,
            login,
            created_at: now,
            created_by: origin.actor.to_string(),
            last_used_at: None,
            revoked_at: None,
        };
        // The id and the privileges are recorded, never the secret.
        let names: Vec<&str> = privileges.iter().map(PrivilegeName::as_str).collect();
        let end = expires_at.map(Timestamp::to_rfc3339_seconds);
        let detail = json!({"owner": owner.id, "name": token.name, "privileges": names, "expires_at": end});
        let line = audit_line(origin, now, "token.create", subject(&token.id), detail);
        self.store.commit(by, vec![IdentityWrite::InsertToken(Box::new(token.clone())).into(), line]).await?;
        Ok((token, key.token()))
    }

    fn expiration(&self, owner: &User, new: &NewToken) -> Result<Option<Timestamp>, Error> {
        let now = self.clock.now();
        match new.expiration.as_deref() {
            None => Ok(Some(now.plus(DEFAULT_TOKEN_LIFETIME))),
            Some("never") if owner.kind == UserKind::ServiceAccount => Ok(None),
            Some("never") => Err(Error::invalid("expiration", "only tokens of service accounts can be valid forever")),
            Some(text) => parse_end("expiration", text, now).map(Some),
        }
    }

    /// Returns a page of the caller's own tokens, newest first.
    pub async fn list_own(&self, context: &OpContext, page: Page) -> Result<Listed<ApiToken>, Error> {
        let own = Own::of(context)?;
        Ok(self.store.identity(&own).tokens(Some(own.user()), page).await?)
    }

    /// Returns a page of tokens of one owner or of all, newest first.
    pub async fn list(
        &self,
        grant: &Grant<UsersRead>,
        owner: Option<&UserId>,
        page: Page,
    ) -> Result<Listed<ApiToken>, Error> {
        Ok(self.store.identity(grant).tokens(owner, page).await?)
    }

    /// Returns a token: one of the caller, or any one with the privilege to read users.
    pub async fn get(&self, context: &OpContext, id: &str) -> Result<ApiToken, Error> {
        if let Some(token) = self.own(context, id).await? {
            return Ok(token);
        }
        let grant = context.grant::<UsersRead>()?;
        self.any(&grant, id).await
    }

    /// Revokes a token: one of the caller, or one of a user that the caller may change. A token revokes itself, and others of
    /// its owner that have no privileges beyond its own. It is rejected from the next request on, by every server (MG162).
    pub async fn revoke(&self, context: &OpContext, id: &str) -> Result<(), Error> {
        // The caller's own tokens first: they need no privilege.
        if let Some(token) = self.own(context, id).await? {
            let own = Own::of(context)?;
            if context.actor().token().is_some_and(|used| *used != token.id) {
                // In force is only what the owner may do too.
                let entitlements = self.entitlements(&own, &token.owner).await?;
                let held = entitlements.iter().fold(PrivilegeSet::default(), |all, one| all.with(one.privileges));
                // A token with few privileges must not revoke the token of an administrator.
                none_missing(token.privileges.both(held).without(context.privileges()))?;
            }
            return self.commit_revocation(&own, context.origin(), &token).await;
        }
        let grant = context.grant::<UsersWrite>()?;
        let token = self.any(&grant, id).await?;
        // By what the owner may do: revoking a token is a way to lock its owner out.
        check_covers(context, &self.entitlements(&grant, &token.owner).await?)?;
        self.commit_revocation(&grant, context.origin(), &token).await
    }

    /// Returns what a user may do.
    async fn entitlements(&self, by: &impl Authority, user: &UserId) -> Result<Vec<Entitlement>, Error> {
        let store = self.store.identity(by);
        let Some(user) = store.user(user).await? else { return Ok(Vec::new()) };
        Ok(store.user_rights(&user.name).await?)
    }

    async fn commit_revocation(&self, by: &impl Authority, origin: &Origin, token: &ApiToken) -> Result<(), Error> {
        let now = self.clock.now();
        let detail = json!({"owner": token.owner, "name": token.name});
        let line = audit_line(origin, now, "token.revoke", subject(&token.id), detail);
        let writes = vec![IdentityWrite::RevokeToken { id: token.id.clone(), now }.into(), line];
        match self.store.commit(by, writes).await {
            Err(StoreError::Conflict(Precondition::Missing(_))) => Err(Error::not_found("token", &token.id)),
            other => other.map(drop).map_err(Error::from),
        }
    }

    async fn own(&self, context: &OpContext, id: &str) -> Result<Option<ApiToken>, Error> {
        // A local administrator is no user, and has no tokens.
        let Ok(own) = Own::of(context) else { return Ok(None) };
        let Ok(id) = TokenId::parse(id) else { return Ok(None) };
        let found = self.store.identity(&own).token(&id).await?;
        Ok(found.filter(|token| token.owner == *own.user()))
    }

    async fn any(&self, by: &impl Authority, id: &str) -> Result<ApiToken, Error> {
        let found = match TokenId::parse(id) {
            Ok(id) => self.store.identity(by).token(&id).await?,
            Err(_) => None,
        };
        found.ok_or_else(|| Error::not_found("token", id))
    }
}

/// Returns the first of these ends.
pub(super) fn expires_within(wanted: Timestamp, ends: &[Option<Timestamp>]) -> Timestamp {
    ends.iter().flatten().fold(wanted, |end, other| end.min(*other))
}

fn wanted(context: &OpContext, new: &NewToken) -> Result<PrivilegeSet, Error> {
    let own = context.privileges();
    match &new.privileges {
        None => Ok(own),
        Some(names) => {
            let wanted = parse_privileges("privileges", names)?;
            none_missing(wanted.without(own))?;
            Ok(wanted)
        }
    }
}

fn subject(id: &TokenId) -> String {
    format!("token:{id}")
}
