//! Login at an OpenID provider: authorization code with PKCE, state and nonce (MG §8.2).
//!
//! The state of a login is in an encrypted cookie, so that requests of strangers store nothing. The commit that creates the
//! session records that the login was completed, so that it cannot be completed again.

use std::net::IpAddr;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use muster_core::authorization::Origin;
use muster_core::entropy::random_uuid;
use muster_core::error_chain::SharedError;
use muster_core::id::UserId;
use muster_core::identity::provider::{Person, has_all, person};
use muster_core::identity::{FederatedId, NewUsers, OidcProvider, PendingLogIn, User, UserKind};
use muster_core::reported::shortened_to;
use muster_core::seal::{Place, Sealer};
use muster_core::time::{Clock, Timestamp};
use muster_core::{Entropy, Error, ErrorKind};
use muster_store::{IdentityWrite, LogInWrite, Precondition, StoreError, Write};
use serde_json::json;
use zeroize::Zeroizing;

use super::openid::{AuthorizationRequest, OpenIdProviders, ProviderError, Redemption};
use super::providers::Providers;
use super::sign_in::{NewSession, SignIn, check_not_locked, too_many};
use super::users;
use crate::audit::audit_line;
use crate::authority::{Own, System};
use crate::watched_store::WatchedStore;

/// Maximum length of what a provider says about an error, bytes.
const SHOWN: usize = 200;
/// Maximum length of a code and of a state, bytes.
const MAX_PARAMETER: usize = 4_096;

/// A login that has begun.
pub struct Begun {
    /// URL at the provider to which the browser is sent.
    pub url: String,
    /// Content of the cookie that the browser brings back.
    pub cookie: Zeroizing<String>,
    /// URL of the management API, as browsers reach it.
    pub own_url: String,
}

/// A login that is complete.
pub struct Finished {
    /// The session.
    pub session: NewSession,
    /// Path to which the browser goes.
    pub return_to: String,
    /// URL of the management API, as browsers reach it.
    pub own_url: String,
}

/// What a browser brings back from a provider (OpenID Connect Core, section 3.1.2.5, RFC 9207).
#[derive(Clone, Debug, Default)]
pub struct Returned {
    /// The code.
    pub code: Option<String>,
    /// The state.
    pub state: Option<String>,
    /// The issuer, if the provider tells it.
    pub issuer: Option<String>,
    /// Code of an error, in place of the code.
    pub error: Option<String>,
    /// Description of the error.
    pub error_description: Option<String>,
}

/// The service of logins at OpenID providers.
pub struct Federation {
    pub(crate) store: Arc<WatchedStore>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) entropy: Arc<dyn Entropy>,
    pub(crate) sealer: Arc<Sealer>,
    pub(crate) providers: Arc<Providers>,
    pub(crate) openid: Arc<dyn OpenIdProviders>,
    pub(crate) sign_in: Arc<SignIn>,
}

impl Federation {
    /// Begins a login.
    pub async fn begin(
        &self,
        provider: &str,
        return_to: Option<&str>,
        address: Option<IpAddr>,
    ) -> Result<Begun, Error> {
        let now = self.clock.now();
        let provider = self.providers.read(&System, provider).await?;
        // Before anything is asked of the provider: strangers must not make this server call it without limit.
        self.sign_in.attempts().may_federate(address, now).map_err(too_many)?;
        let pending = PendingLogIn::begin(provider.id.clone(), return_to, now, &*self.entropy);
        let request = AuthorizationRequest {
            scopes: &provider.settings.scopes,
            state: &pending.state,
            nonce: &pending.nonce,
            challenge: &pending.challenge(),
        };
        let client = self.providers.client(&provider)?;
        match self.openid.authorization_url(&client, &request).await {
            // The cookie carries the state, the nonce and the PKCE verifier; the provider sees only the challenge.
            Ok(url) => Ok(Begun { url, cookie: self.seal(&pending)?, own_url: provider.settings.url }),
            Err(error) => Err(self.refused(&provider, address, now, refusal(&error)).await),
        }
    }

    /// Completes a login.
    pub async fn finish(
        &self,
        provider: &str,
        cookie: Option<&str>,
        returned: &Returned,
        address: Option<IpAddr>,
    ) -> Result<Finished, Error> {
        let now = self.clock.now();
        let provider = self.providers.read(&System, provider).await?;
        // Counted at both ends, because a browser can skip the first request.
        self.sign_in.attempts().may_federate(address, now).map_err(too_many)?;
        match self.complete(&provider, cookie, returned, address, now).await {
            Ok(done) => Ok(done),
            Err(error) => Err(self.refused(&provider, address, now, error).await),
        }
    }

    /// Returns the path to which a login returns, of which the browser has brought back the cookie; `None` if it is not live.
    pub async fn return_to(&self, provider: &str, cookie: Option<&str>) -> Option<String> {
        let provider = self.providers.read(&System, provider).await.ok()?;
        Some(self.pending(&provider, cookie, self.clock.now()).ok()?.return_to)
    }

    async fn complete(
        &self,
        provider: &OidcProvider,
        cookie: Option<&str>,
        returned: &Returned,
        address: Option<IpAddr>,
        now: Timestamp,
    ) -> Result<Finished, Error> {
        let pending = self.pending(provider, cookie, now)?;
        let code = check_returned(provider, &pending, returned)?;
        let settings = &provider.settings;
        let redemption = Redemption {
            code,
            verifier: &pending.verifier,
            nonce: &pending.nonce,
            now,
            is_complete: &|claims| has_all(claims, settings),
        };
        // The code is redeemed only after the state was compared: it could belong to another person's login.
        let client = self.providers.client(provider)?;
        let claims = self.openid.redeem(&client, &redemption).await.map_err(|error| refusal(&error))?;
        let person = person(&claims, settings)
            .map_err(|fault| Error::new(ErrorKind::Unauthenticated, "claims_unusable", fault.to_string()))?;
        let (user, mut writes) = self.user(provider, &person, address, now).await?;
        // Also for a user who is found by subject: a provider does not know that this server has locked somebody.
        check_not_locked(&user)?;
        let expires_at = Timestamp::from_micros(pending.expires_at);
        // First, so that of two uses of a login one fails.
        writes.insert(0, LogInWrite::Complete { state: pending.state, expires_at }.into());
        let groups = person.groups.clone();
        let session = self.sign_in.begin(user, groups, Some(&provider.id), address, writes).await;
        let session = session.map_err(|error| conflict(error, &person))?;
        Ok(Finished { session, return_to: pending.return_to, own_url: settings.url.clone() })
    }

    /// Returns the user of a person, and the writes that create a new one.
    async fn user(
        &self,
        provider: &OidcProvider,
        person: &Person,
        address: Option<IpAddr>,
        now: Timestamp,
    ) -> Result<(User, Vec<Write>), Error> {
        let store = self.store.identity(&System);
        // The issuer is part of the key: two providers may have the same subject.
        if let Some(user) = store.user_by_subject(&provider.issuer, &person.subject).await? {
            return Ok((user, Vec::new()));
        }
        // Never linked by name: whoever can choose a name at the provider would take over the user of that name here.
        if provider.settings.new_users == NewUsers::Refuse {
            let subject = &person.subject;
            let message = format!("no user is linked to the subject {subject:?} of {}", provider.id);
            let remedy = format!(
                "ask an administrator for: muster user link NAME --provider {} --subject {subject}",
                provider.id
            );
            return Err(Error::new(ErrorKind::Unauthenticated, "user_unknown", message).remedy(remedy));
        }
        let user = new_user(provider, person, UserId::trusted(random_uuid(&*self.entropy)), now);
        let own = Own::proven(user.id.clone(), address);
        let detail = json!({"name": user.name, "kind": user.kind, "provider": provider.id, "subject": person.subject});
        let line = audit_line(own.origin(), now, "user.create", users::subject(&user.id), detail);
        Ok((user.clone(), vec![IdentityWrite::InsertUser(Box::new(user)).into(), line]))
    }

    fn seal(&self, pending: &PendingLogIn) -> Result<Zeroizing<String>, Error> {
        let failed = |error: SharedError| Error::internal(SharedError::during("sealing a login", error));
        let text = serde_json::to_vec(pending).map(Zeroizing::new).map_err(|error| failed(error.into()))?;
        // Sealed for the provider: a cookie of one provider does not complete a login at another.
        let sealed = self.sealer.seal(Place::log_in(&pending.provider), &text, &*self.entropy);
        Ok(Zeroizing::new(URL_SAFE_NO_PAD.encode(sealed.map_err(|error| failed(error.into()))?)))
    }

    fn pending(&self, provider: &OidcProvider, cookie: Option<&str>, now: Timestamp) -> Result<PendingLogIn, Error> {
        let open = || {
            let sealed = URL_SAFE_NO_PAD.decode(cookie?).ok()?;
            let text = self.sealer.open(Place::log_in(&provider.id), &sealed).ok()?;
            serde_json::from_slice::<PendingLogIn>(&text).ok()
        };
        // The end is inside the sealed text, so a browser that keeps its cookie gains nothing.
        let live = open().filter(|pending| Timestamp::from_micros(pending.expires_at) > now);
        live.ok_or_else(|| {
            let message = "this login was started in another browser, or more than ten minutes ago";
            Error::new(ErrorKind::Unauthenticated, "log_in_unknown", message).remedy("log in again")
        })
    }

    /// Records a refused login. The number of audit events is bounded by the throttle of the address.
    async fn refused(&self, provider: &OidcProvider, address: Option<IpAddr>, now: Timestamp, error: Error) -> Error {
        self.sign_in.attempts().federation_failed(address, now);
        let origin = Origin { address: address.map(|ip| ip.to_string().into()), ..System::ORIGIN };
        let detail = json!({"reason": error.code, "message": error.message});
        let line = audit_line(&origin, now, "session.refuse", format_args!("oidc_provider:{}", provider.id), detail);
        if let Err(failed) = self.store.commit(&System, vec![line]).await {
            tracing::warn!(error = %failed, provider = %provider.id, "cannot record a refused login");
        }
        error
    }
}

/// Returns the code, if the response is that of this login and not an error.
fn check_returned<'a>(
    provider: &OidcProvider,
    pending: &PendingLogIn,
    returned: &'a Returned,
) -> Result<&'a str, Error> {
    let denied = |code, message: String| Err(Error::new(ErrorKind::Unauthenticated, code, message));
    // First of all: nothing else in the response is looked at before it is known to be of this login.
    if !returned.state.as_deref().is_some_and(|state| pending.has_state(state)) {
        return denied("log_in_state", "the response of the provider belongs to another login".to_owned());
    }
    // Another provider, to which the same browser was sent, could have sent it here (RFC 9207).
    if returned.issuer.as_ref().is_some_and(|issuer| *issuer != provider.issuer) {
        return denied("log_in_issuer", "the response comes from another provider".to_owned());
    }
    if let Some(error) = &returned.error {
        let description = returned.error_description.as_deref().unwrap_or_default();
        let said = format!("{error} {description}");
        return denied("log_in_rejected", format!("the provider rejects the login: {}", printable(said.trim())));
    }
    match returned.code.as_deref() {
        // Bounded, because it is sent on to the provider.
        Some(code) if !code.is_empty() && code.len() <= MAX_PARAMETER => Ok(code),
        _ => denied("log_in_code", "the response of the provider has no code".to_owned()),
    }
}

/// Shortens a text of a stranger, without control characters.
fn printable(text: &str) -> String {
    let plain: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    shortened_to(&plain, SHOWN).into_owned()
}

fn refusal(error: &ProviderError) -> Error {
    let kind = if error.is_outage() { ErrorKind::Unavailable } else { ErrorKind::Unauthenticated };
    // The cause is shown too: only an administrator can do something about it, and gets to see this message.
    Error::new(kind, error.code(), muster_core::error_chain::chain(error).to_string())
}

fn conflict(error: StoreError, person: &Person) -> Error {
    match error {
        StoreError::Conflict(Precondition::KeyRefused) => {
            let message = "this login was completed before";
            Error::new(ErrorKind::Unauthenticated, "log_in_used", message).remedy("log in again")
        }
        StoreError::Conflict(Precondition::NameTaken(name)) => {
            let message = format!("there is already another user {name:?}");
            let remedy = format!(
                "if it is the same person, an administrator can link it: muster user link {name} --subject {} …",
                person.subject
            );
            Error::new(ErrorKind::Unauthenticated, "user_name_taken", message).remedy(remedy)
        }
        other => other.into(),
    }
}

fn new_user(provider: &OidcProvider, person: &Person, id: UserId, now: Timestamp) -> User {
    User {
        created_by: format!("oidc_provider:{}", provider.id),
        id,
        kind: UserKind::Person,
        name: person.name.clone(),
        full_name: person.full_name.clone(),
        password: None,
        federated: Some(FederatedId { issuer: provider.issuer.clone(), subject: person.subject.clone() }),
        locked_at: None,
        version: 1,
        created_at: now,
        updated_at: now,
    }
}
