//! The service of OpenID providers: their configuration.

use std::sync::Arc;

use muster_core::authorization::{BindingScope, Entitlement, Grant, OpContext, Privilege, PrivilegeSet};
use muster_core::authorization::{UsersRead, UsersWrite};
use muster_core::error_chain::SharedError;
use muster_core::id::ProviderId;
use muster_core::identity::provider::check_secure_url;
use muster_core::identity::{NewUsers, OidcProvider, OidcSettings};
use muster_core::seal::{Place, Sealer};
use muster_core::time::Clock;
use muster_core::{Entropy, Error};
use muster_store::{IdentityWrite, Precondition, StoreError};
use serde_json::json;
use zeroize::Zeroizing;

use super::check_covers;
use super::openid::OpenIdClient;
use crate::audit::audit_line;
use crate::authority::{Authority, Authorized, System};
use crate::watched_store::WatchedStore;

/// Maximum number of providers. Each has a cache of its own.
const MOST_PROVIDERS: usize = 20;
/// Maximum length of an id, bytes.
const MAX_ID: usize = 64;
/// Maximum length of a client id, a claim, a scope and a prefix, bytes.
const MAX_FIELD: usize = 255;
/// Maximum length of a client secret, bytes.
const MAX_SECRET: usize = 4_096;
/// Maximum number of scopes.
const MOST_SCOPES: usize = 20;
/// The scope that every request has (OpenID Connect Core, section 3.1.2.1).
const OPENID: &str = "openid";

/// Changes of a provider. `None` keeps a field, or sets its default in a new provider.
#[derive(Clone, Default)]
pub struct ProviderChange {
    /// Id of this installation at the provider.
    pub client_id: Option<String>,
    /// Secret there; empty for a public client.
    pub client_secret: Option<Zeroizing<String>>,
    /// URL of the management API, as browsers reach it.
    pub url: Option<String>,
    /// Scopes.
    pub scopes: Option<Vec<String>>,
    /// Claim with the name of the user.
    pub user_name_claim: Option<String>,
    /// Claim with the groups.
    pub groups_claim: Option<String>,
    /// Prefix of the names of groups.
    pub group_prefix: Option<String>,
    /// Who may log in for the first time.
    pub new_users: Option<NewUsers>,
}

/// The service of OpenID providers.
pub struct Providers {
    store: Arc<WatchedStore>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    sealer: Arc<Sealer>,
}

impl Providers {
    pub(crate) fn new(
        store: Arc<WatchedStore>,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
        sealer: Arc<Sealer>,
    ) -> Self {
        Self { store, clock, entropy, sealer }
    }

    /// Returns all providers, by id.
    pub async fn list(&self, grant: &Grant<UsersRead>) -> Result<Vec<OidcProvider>, Error> {
        Ok(self.store.identity(grant).oidc_providers().await?)
    }

    /// Finds a provider.
    pub async fn find<P: Privilege>(
        &self,
        context: &OpContext,
        id: &str,
    ) -> Result<Authorized<OidcProvider, P>, Error> {
        let grant = context.grant::<P>()?;
        let found = self.read(&grant, id).await?;
        Ok(Authorized::new(found, grant))
    }

    /// Returns the ids of all providers, for everybody who wants to log in.
    pub async fn choices(&self) -> Result<Vec<ProviderId>, Error> {
        let all = self.store.identity(&System).oidc_providers().await?;
        Ok(all.into_iter().map(|provider| provider.id).collect())
    }

    /// Returns the issuer of a provider, to link a user there.
    pub async fn issuer(&self, grant: &Grant<UsersWrite>, id: &str) -> Result<String, Error> {
        Ok(self.read(grant, id).await?.issuer)
    }

    pub(super) async fn read(&self, by: &impl Authority, id: &str) -> Result<OidcProvider, Error> {
        let found = match ProviderId::parse(id) {
            Ok(id) => self.store.identity(by).oidc_provider(&id).await?,
            Err(_) => None,
        };
        found.ok_or_else(|| Error::not_found("OpenID provider", id))
    }

    /// Adds a provider.
    pub async fn create(
        &self,
        context: &OpContext,
        id: &str,
        issuer: &str,
        change: &ProviderChange,
    ) -> Result<OidcProvider, Error> {
        let grant = context.grant::<UsersWrite>()?;
        // In addition to the privilege to change users, see `check_may_configure`.
        check_may_configure(context)?;
        let now = self.clock.now();
        let id = new_id(id)?;
        let provider = OidcProvider {
            issuer: check_secure_url(issuer).map_err(|reason| Error::invalid("issuer", reason))?,
            settings: settings(None, change)?,
            sealed_secret: self.secret(&id, None, change)?,
            id,
            version: 1,
            created_at: now,
            updated_at: now,
        };
        // Without a lock: the limit bounds caches, and one more does no harm.
        if self.store.identity(&grant).oidc_providers().await?.len() >= MOST_PROVIDERS {
            return Err(Error::conflict(
                "too_many",
                format!("there are already {MOST_PROVIDERS} OpenID providers, the maximum"),
            ));
        }
        let detail = json!({"after": shown(&provider)});
        let line = audit_line(grant.origin(), now, "oidc_provider.create", subject(&provider), detail);
        let writes = vec![IdentityWrite::InsertProvider(Box::new(provider.clone())).into(), line];
        match self.store.commit(&grant, writes).await {
            Err(StoreError::Conflict(Precondition::Exists(what))) => {
                Err(Error::conflict("exists", format!("{what} already exists")))
            }
            other => other.map(|_| provider).map_err(Error::from),
        }
    }

    /// Changes a provider. It is in force from the next login on. The issuer cannot be changed, because users belong to it.
    pub async fn update(
        &self,
        context: &OpContext,
        provider: &Authorized<OidcProvider, UsersWrite>,
        change: &ProviderChange,
    ) -> Result<OidcProvider, Error> {
        let (grant, now) = (provider.grant(), self.clock.now());
        check_may_configure(context)?;
        let before: &OidcProvider = provider;
        let after = OidcProvider {
            settings: settings(Some(&before.settings), change)?,
            sealed_secret: self.secret(&before.id, before.sealed_secret.as_deref(), change)?,
            // The store compares the version, so that concurrent changes are not merged by accident.
            version: before.version + 1,
            updated_at: now,
            ..before.clone()
        };
        let detail = json!({
            "before": shown(before), "after": shown(&after), "secret_changed": change.client_secret.is_some()
        });
        let line = audit_line(grant.origin(), now, "oidc_provider.update", subject(&after), detail);
        self.store.commit(grant, vec![IdentityWrite::UpdateProvider(Box::new(after.clone())).into(), line]).await?;
        Ok(after)
    }

    /// Deletes a provider, and ends the sessions of its users at once. The users remain.
    pub async fn delete(
        &self,
        context: &OpContext,
        provider: &Authorized<OidcProvider, UsersWrite>,
    ) -> Result<(), Error> {
        let (grant, now) = (provider.grant(), self.clock.now());
        check_may_configure(context)?;
        let detail = json!({"before": shown(provider)});
        let line = audit_line(grant.origin(), now, "oidc_provider.delete", subject(provider), detail);
        // The issuer belongs to the write, because sessions and tokens are found by it.
        let delete = IdentityWrite::DeleteProvider { id: provider.id.clone(), issuer: provider.issuer.clone(), now };
        match self.store.commit(grant, vec![delete.into(), line]).await {
            Err(StoreError::Conflict(Precondition::Missing(_))) => {
                Err(Error::not_found("OpenID provider", &provider.id))
            }
            other => other.map(drop).map_err(Error::from),
        }
    }

    fn secret(
        &self,
        id: &ProviderId,
        before: Option<&[u8]>,
        change: &ProviderChange,
    ) -> Result<Option<Vec<u8>>, Error> {
        // Absent keeps the secret, empty removes it: the stored one cannot be read back and sent again.
        match change.client_secret.as_ref().map(|secret| secret.as_str()) {
            None => Ok(before.map(<[u8]>::to_vec)),
            Some("") => Ok(None),
            Some(secret) if secret.len() > MAX_SECRET || secret.chars().any(char::is_control) => {
                let reason = format!("must have at most {MAX_SECRET} bytes and no control characters");
                Err(Error::invalid("client_secret", reason))
            }
            Some(secret) => {
                // Sealed for this provider: a value that is copied to another row cannot be opened.
                let sealed = self.sealer.seal(Place::client_secret(id), secret.as_bytes(), &*self.entropy);
                let failed = |error| Error::internal(SharedError::during("sealing a client secret", error));
                sealed.map(Some).map_err(failed)
            }
        }
    }

    /// Returns what the port needs of a provider.
    pub(super) fn client(&self, provider: &OidcProvider) -> Result<OpenIdClient, Error> {
        let failed = |what| move |error| Error::internal(SharedError::during(what, error));
        let secret = match &provider.sealed_secret {
            None => None,
            Some(sealed) => {
                let secret = self.sealer.open(Place::client_secret(&provider.id), sealed);
                let secret = secret.map_err(failed("opening a client secret"))?;
                let text = std::str::from_utf8(&secret).map_err(|error| Error::internal(SharedError::from(error)))?;
                Some(Zeroizing::new(text.to_owned()))
            }
        };
        Ok(OpenIdClient {
            id: provider.id.clone(),
            issuer: provider.issuer.clone(),
            client_id: provider.settings.client_id.clone(),
            secret,
            redirect_uri: provider.redirect_uri(),
        })
    }
}

/// Whoever configures a provider decides who is a member of which group, and so could become anybody.
fn check_may_configure(context: &OpContext) -> Result<(), Error> {
    check_covers(context, &[Entitlement { privileges: PrivilegeSet::all(), scope: BindingScope::System }])
}

fn new_id(text: &str) -> Result<ProviderId, Error> {
    let plain = text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    let fits = (1..=MAX_ID).contains(&text.len()) && !text.starts_with('-');
    if plain && fits {
        return Ok(ProviderId::trusted(text));
    }
    let reason = format!("must have 1 to {MAX_ID} lower-case letters, digits or hyphens, and not begin with a hyphen");
    Err(Error::invalid("id", reason))
}

fn settings(before: Option<&OidcSettings>, change: &ProviderChange) -> Result<OidcSettings, Error> {
    let required = |name: &str, new: &Option<String>, old: Option<&String>| {
        let found = new.as_ref().or(old).filter(|text| !text.is_empty());
        found.cloned().ok_or_else(|| Error::invalid(name, "is required"))
    };
    let url = required("url", &change.url, before.map(|one| &one.url))?;
    let or = |new: &Option<String>, old: Option<&String>, default: &str| {
        new.as_ref().or(old).cloned().unwrap_or_else(|| default.to_owned())
    };
    let settings = OidcSettings {
        client_id: required("client_id", &change.client_id, before.map(|one| &one.client_id))?,
        url: check_secure_url(&url).map_err(|reason| Error::invalid("url", reason))?,
        scopes: scopes(change.scopes.as_deref().or(before.map(|one| one.scopes.as_slice())))?,
        user_name_claim: or(&change.user_name_claim, before.map(|one| &one.user_name_claim), "preferred_username"),
        groups_claim: or(&change.groups_claim, before.map(|one| &one.groups_claim), "groups"),
        group_prefix: or(&change.group_prefix, before.map(|one| &one.group_prefix), ""),
        new_users: change.new_users.or(before.map(|one| one.new_users)).unwrap_or_default(),
    };
    check_text("client_id", &settings.client_id, 1)?;
    check_text("user_name_claim", &settings.user_name_claim, 1)?;
    check_text("groups_claim", &settings.groups_claim, 1)?;
    check_text("group_prefix", &settings.group_prefix, 0)?;
    Ok(settings)
}

fn scopes(wanted: Option<&[String]>) -> Result<Vec<String>, Error> {
    let Some(wanted) = wanted else { return Ok(vec![OPENID.to_owned(), "profile".to_owned()]) };
    if wanted.len() > MOST_SCOPES {
        return Err(Error::invalid("scopes", format!("at most {MOST_SCOPES}")));
    }
    // Always the first, whatever was requested: without it, a provider returns no ID token.
    let mut scopes = vec![OPENID.to_owned()];
    for scope in wanted {
        check_text("scopes", scope, 1)?;
        // Scopes are sent as a list with spaces between.
        if scope.contains(' ') {
            return Err(Error::invalid("scopes", "a scope has no spaces"));
        }
        if !scopes.contains(scope) {
            scopes.push(scope.clone());
        }
    }
    Ok(scopes)
}

fn check_text(field: &str, text: &str, least: usize) -> Result<(), Error> {
    if (least..=MAX_FIELD).contains(&text.len()) && !text.chars().any(char::is_control) {
        return Ok(());
    }
    let reason = format!("must have {least} to {MAX_FIELD} bytes and no control characters");
    Err(Error::invalid(field, reason))
}

fn subject(provider: &OidcProvider) -> String {
    format!("oidc_provider:{}", provider.id)
}

/// What audit events show of a provider.
fn shown(provider: &OidcProvider) -> serde_json::Value {
    json!({"issuer": provider.issuer, "settings": provider.settings, "has_secret": provider.sealed_secret.is_some()})
}
