//! Authentication of requests by people and scripts: API tokens, passwords, sessions.
//!
//! Each request costs one read of the store, and nothing is cached: a revoked token, a locked user and a lowered role are in
//! force at the next request on every server (MG162).

use std::net::IpAddr;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

use muster_core::authorization::{Actor, Membership, OpContext, Origin};
use muster_core::credential::ApiKey;
use muster_core::id::{ProviderId, SpaceId, UserId};
use muster_core::identity::{ApiToken, Principal, SESSION_LIFETIME, Session, User, UserKind};
use muster_core::time::{Clock, Timestamp};
use muster_core::{Entropy, Error, ErrorKind};
use muster_store::{IdentityWrite, StoreError, Write};
use serde_json::json;
use zeroize::Zeroizing;

use super::attempts::{Attempts, LOCAL};
use super::passwords::Passwords;
use crate::audit::audit_line;
use crate::authority::{Own, System};
use crate::watched_store::WatchedStore;

/// Minimum time between two writes of the last use of a token or a session.
const USE_WRITTEN_EVERY: Duration = Duration::from_secs(300);

/// Credentials of a request.
#[derive(Debug)]
pub enum Presented {
    /// An API token.
    Token(ApiKey),
    /// Name and password.
    Password(Zeroizing<String>, Zeroizing<String>),
    /// The cookie of a session.
    Session(ApiKey),
}

impl Presented {
    /// Returns what may be shown of the credentials: the id of a key, or the name of a user.
    pub fn shown(&self) -> String {
        match self {
            Self::Token(key) | Self::Session(key) => key.id.to_string(),
            Self::Password(name, _) => name.to_string(),
        }
    }
}

/// A session that was just created, with the content of its cookie.
pub struct NewSession {
    /// The session.
    pub session: Session,
    /// The user.
    pub user: User,
    /// Content of the cookie.
    pub cookie: Zeroizing<String>,
}

/// The service of authentication.
pub struct SignIn {
    store: Arc<WatchedStore>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    passwords: Arc<Passwords>,
    attempts: Attempts,
}

impl SignIn {
    pub(crate) fn new(
        store: Arc<WatchedStore>,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
        passwords: Arc<Passwords>,
    ) -> Self {
        Self { store, clock, entropy, passwords, attempts: Attempts::default() }
    }

    /// Authenticates a request to a space.
    pub async fn authenticate(
        &self,
        presented: &Presented,
        space: &SpaceId,
        address: Option<IpAddr>,
    ) -> Result<OpContext, Error> {
        let (actor, entitlements, member, has_space) = match presented {
            Presented::Token(key) => {
                let (token, principal) = self.token(key, space, address).await?;
                // What the user may do, reduced to what the token may: both can shrink at any time.
                let entitlements = principal.limited_to(token.privileges);
                let member = membership(token.groups, token.expires_at);
                (Actor::Token { owner: token.owner, token: token.id }, entitlements, member, principal.has_space)
            }
            Presented::Session(key) => {
                let (session, principal) = self.session(key, space, address).await?;
                let member = membership(session.groups, Some(session.expires_at));
                (Actor::User(principal.user.id), principal.entitlements, member, principal.has_space)
            }
            Presented::Password(name, password) => {
                let principal = self.password(name, password, space, address).await?;
                (Actor::User(principal.user.id), principal.entitlements, None, principal.has_space)
            }
        };
        let context = OpContext::entitled(actor, entitlements).in_space(space.clone()).with_membership(member);
        // The default space is where requests without a space go, such as those about the caller itself.
        let may_enter = context.may_enter_space() || *space == SpaceId::default();
        // The same answer for a space that does not exist and one that the caller may not enter.
        if has_space && may_enter { Ok(context) } else { Err(Error::not_found("space", space)) }
    }

    async fn token(
        &self,
        key: &ApiKey,
        space: &SpaceId,
        address: Option<IpAddr>,
    ) -> Result<(ApiToken, Principal), Error> {
        let now = self.clock.now();
        let found = self.store.identity(&System).token_principal(&key.id, space).await?;
        let denied = match found {
            None => "the token is invalid".to_owned(),
            // Not found, expired and revoked are told apart only for the person who has the secret.
            Some((token, principal)) => match token.admit(key, now) {
                Ok(()) => {
                    check_not_locked(&principal.user)?;
                    let write = IdentityWrite::UseToken { id: token.id.clone(), now };
                    self.record_use(token.last_used_at, write, now).await;
                    return Ok((token, principal));
                }
                Err(denied) => denied.to_string(),
            },
        };
        Err(self.denied_key(denied, address, now))
    }

    // Failures of a full or read-only disk must not reject the request.
    async fn record_use(&self, last: Option<Timestamp>, write: IdentityWrite, now: Timestamp) {
        // Five minutes: a script or an open page with a request each second would otherwise cause a write each second.
        if last.is_some_and(|last| now.since(last) < USE_WRITTEN_EVERY) {
            return;
        }
        if let Err(error) = self.store.commit(&System, vec![write.into()]).await {
            tracing::debug!(%error, "cannot record the use of a token or a session");
        }
    }

    async fn session(
        &self,
        key: &ApiKey,
        space: &SpaceId,
        address: Option<IpAddr>,
    ) -> Result<(Session, Principal), Error> {
        let now = self.clock.now();
        let found = self.store.identity(&System).session_principal(&key.id, space).await?;
        let live = found.filter(|(session, _)| key.matches(&session.hash) && session.expires_at > now);
        let (session, principal) =
            live.ok_or_else(|| self.denied_key("the session has ended; log in again".to_owned(), address, now))?;
        check_not_locked(&principal.user)?;
        let write = IdentityWrite::UseSession { key_id: session.key_id.clone(), now };
        self.record_use(session.last_used_at, write, now).await;
        Ok((session, principal))
    }

    fn denied_key(&self, message: String, address: Option<IpAddr>, now: Timestamp) -> Error {
        // Tokens cannot be guessed. The limit only turns the answer into a 429, so that a client that repeats an
        // invalid one slows down.
        if let Err(wait) = self.attempts.token_failed(address.unwrap_or(LOCAL), now) {
            return too_many(wait);
        }
        Error::new(ErrorKind::Unauthenticated, "unauthenticated", message)
    }

    async fn password(
        &self,
        name: &str,
        password: &str,
        space: &SpaceId,
        address: Option<IpAddr>,
    ) -> Result<Principal, Error> {
        let (name, address, now) = (name.to_ascii_lowercase(), address.unwrap_or(LOCAL), self.clock.now());
        // Before the slow hash, which is what an attacker would use up.
        self.attempts.may_try(&name, address, now).map_err(too_many)?;
        let found = self.store.identity(&System).user_principal(&name, space).await?;
        let person = found.filter(|principal| principal.user.kind == UserKind::Person);
        let account = person.as_ref().map(|principal| principal.user.id.clone());
        let hash = person.as_ref().and_then(|principal| principal.user.password.as_ref());
        // Also without a user or a password: the time of the answer must not tell whether the name exists.
        let matches = self.passwords.verify(password, hash).await?;
        match person.filter(|_| matches) {
            Some(principal) => {
                check_not_locked(&principal.user)?;
                // Only after everything was checked, so that a locked account does not free its address.
                self.attempts.succeeded(&name, address, now);
                Ok(principal)
            }
            None => {
                self.attempts.failed(&name, address, now);
                self.tell_failure(account.as_ref(), address, now).await;
                Err(Error::new(ErrorKind::Unauthenticated, "unauthenticated", "wrong user name or password"))
            }
        }
    }

    /// Verifies the password of a user who is logged in. Wrong ones are throttled and recorded like those of logins: a stolen
    /// session must not be enough to guess the password.
    pub(super) async fn prove_password(
        &self,
        user: &User,
        password: &str,
        address: Option<IpAddr>,
    ) -> Result<bool, Error> {
        let (address, now) = (address.unwrap_or(LOCAL), self.clock.now());
        self.attempts.may_try(&user.name, address, now).map_err(too_many)?;
        let matches = self.passwords.verify(password, user.password.as_ref()).await?;
        if !matches {
            self.attempts.failed(&user.name, address, now);
            self.tell_failure(Some(&user.id), address, now).await;
        }
        Ok(matches)
    }

    /// Records failed passwords in the audit log. A name that is no user's is not recorded: it may be a password that was
    /// typed into the wrong field. A full disk must not change the response.
    async fn tell_failure(&self, account: Option<&UserId>, address: IpAddr, now: Timestamp) {
        let Some(count) = self.attempts.to_tell(account.map(UserId::as_str), address, now) else { return };
        let subject = account.map_or_else(|| "user:unknown".to_owned(), |id| format!("user:{id}"));
        let origin = Origin { address: Some(address.to_string().into()), ..System::ORIGIN };
        let line = audit_line(&origin, now, "session.fail", subject, json!({"failures": count}));
        if let Err(error) = self.store.commit(&System, vec![line]).await {
            tracing::debug!(%error, "cannot record a failed login");
        }
    }

    /// Logs a user in with a password, and creates a session.
    pub async fn log_in(&self, name: &str, password: &str, address: Option<IpAddr>) -> Result<NewSession, Error> {
        let principal = self.password(name, password, &SpaceId::default(), address).await?;
        Ok(self.begin(principal.user, Vec::new(), None, address, Vec::new()).await?)
    }

    /// Creates a session for a user that has proved who it is, in one commit with the writes before it.
    pub(crate) async fn begin(
        &self,
        user: User,
        groups: Vec<String>,
        provider: Option<&ProviderId>,
        address: Option<IpAddr>,
        mut writes: Vec<Write>,
    ) -> Result<NewSession, StoreError> {
        let now = self.clock.now();
        let key = ApiKey::generate(&*self.entropy);
        let session = Session {
            key_id: key.id.clone(),
            hash: key.hash(),
            user: user.id.clone(),
            groups,
            created_at: now,
            expires_at: now.plus(SESSION_LIFETIME),
            address: address.map(|address| address.to_string()),
            last_used_at: None,
        };
        let own = Own::proven(user.id.clone(), address);
        let detail = json!({"name": user.name, "groups": session.groups, "provider": provider});
        let line = audit_line(own.origin(), now, "session.create", format_args!("user:{}", user.id), detail);
        writes.extend([IdentityWrite::InsertSession(Box::new(session.clone())).into(), line]);
        self.store.commit(&own, writes).await?;
        Ok(NewSession { session, user, cookie: Zeroizing::new(key.token()) })
    }

    /// Ends a session.
    pub async fn log_out(&self, context: &OpContext, cookie: &ApiKey) -> Result<(), Error> {
        let own = Own::of(context)?;
        let line = audit_line(
            own.origin(),
            self.clock.now(),
            "session.delete",
            format_args!("user:{}", own.user()),
            json!({}),
        );
        let delete = IdentityWrite::DeleteSession { key_id: cookie.id.clone() };
        Ok(self.store.commit(&own, vec![delete.into(), line]).await.map(drop)?)
    }

    /// Returns the user of a caller; `None` for a user of this host.
    pub async fn user(&self, context: &OpContext) -> Result<Option<User>, Error> {
        let Some(id) = context.actor().user() else { return Ok(None) };
        Ok(self.store.identity(&System).user(id).await?)
    }

    pub(super) fn attempts(&self) -> &Attempts {
        &self.attempts
    }
}

pub(super) fn too_many(wait: Duration) -> Error {
    let message = "too many failed logins from this address or for this user";
    let error = Error::new(ErrorKind::TooMany, "too_many_failures", message).retry_after(wait);
    let seconds = error.retry_after.map_or(1, NonZeroU16::get);
    error.remedy(format!("retry in {seconds} seconds, or use an API token"))
}

/// Groups whose end is unknown give nothing that could outlive them.
fn membership(groups: Vec<String>, until: Option<Timestamp>) -> Option<Membership> {
    let until = until.filter(|_| !groups.is_empty())?;
    Some(Membership { groups, until })
}

// Only after the credentials were verified: whether a user is locked is nobody else's business.
pub(super) fn check_not_locked(user: &User) -> Result<(), Error> {
    if user.is_locked() {
        return Err(Error::new(ErrorKind::Unauthenticated, "user_locked", format!("the user {} is locked", user.name))
            .remedy("ask an administrator"));
    }
    Ok(())
}
