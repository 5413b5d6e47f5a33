//! Client of OpenID providers, through which people log in (OpenID Connect Core, Discovery; RFC 7636).
//!
//! [`OpenIdClients`] implements the fleet's port [`OpenIdProviders`]. Every call has a deadline, every response a maximum
//! size, and the number of calls at the same time is limited. What a provider says about an error is shortened before
//! anybody sees it, and no secret, code or token ever reaches a message.

mod discovery;
mod exchange;
mod fetch;
mod id_token;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use muster_core::id::ProviderId;
use muster_core::identity::id_token::{Expected, check};
use muster_fleet::identity::openid::{AuthorizationRequest, OpenIdClient, OpenIdProviders, ProviderError, Redemption};
use reqwest::Url;
use serde_json::{Map, Value};
use tokio::sync::Semaphore;

use self::discovery::Provider;
use self::fetch::Http;

/// Maximum time of a call, from connecting to the last byte of the response.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Maximum number of logins that wait for a provider.
const MOST_AT_ONCE: usize = 32;
/// Maximum number of providers with a cache.
const MOST_CACHED: usize = 64;

/// This installation as a client of OpenID providers, with a cache of their metadata and keys.
pub struct OpenIdClients {
    http: Http,
    slots: Semaphore,
    providers: Mutex<HashMap<ProviderId, Arc<Provider>>>,
}

impl Default for OpenIdClients {
    fn default() -> Self {
        Self::with_timeout(TIMEOUT)
    }
}

impl OpenIdClients {
    /// Creates it with another maximum time of a call.
    pub fn with_timeout(timeout: Duration) -> Self {
        Self { http: Http::new(timeout), slots: Semaphore::new(MOST_AT_ONCE), providers: Mutex::default() }
    }

    fn provider(&self, client: &OpenIdClient) -> Arc<Provider> {
        let mut providers = self.providers.lock().unwrap_or_else(PoisonError::into_inner);
        // A provider that was deleted and created again may have another issuer.
        if let Some(known) = providers.get(&client.id).filter(|known| known.issuer() == client.issuer) {
            return Arc::clone(known);
        }
        if providers.len() >= MOST_CACHED {
            // Costs only further requests.
            providers.clear();
        }
        let provider = Arc::new(Provider::new(&client.issuer));
        providers.insert(client.id.clone(), Arc::clone(&provider));
        provider
    }
}

#[async_trait]
impl OpenIdProviders for OpenIdClients {
    async fn authorization_url(
        &self,
        client: &OpenIdClient,
        request: &AuthorizationRequest<'_>,
    ) -> Result<String, ProviderError> {
        let _slot = self.slots.try_acquire().map_err(|_| ProviderError::Busy)?;
        let metadata = self.provider(client).metadata(&self.http).await?;
        let mut url: Url = metadata.authorization_endpoint.clone();
        url.query_pairs_mut()
            .append_pair("response_type", "code")
            .append_pair("client_id", &client.client_id)
            .append_pair("redirect_uri", &client.redirect_uri)
            .append_pair("scope", &request.scopes.join(" "))
            .append_pair("state", request.state)
            .append_pair("nonce", request.nonce)
            .append_pair("code_challenge", request.challenge)
            .append_pair("code_challenge_method", "S256");
        Ok(url.into())
    }

    async fn redeem(
        &self,
        client: &OpenIdClient,
        redemption: &Redemption<'_>,
    ) -> Result<Map<String, Value>, ProviderError> {
        let _slot = self.slots.try_acquire().map_err(|_| ProviderError::Busy)?;
        let provider = self.provider(client);
        let metadata = provider.metadata(&self.http).await?;
        let tokens = exchange::redeem(&self.http, &metadata, client, redemption).await?;
        let id_token = tokens.id_token.ok_or(ProviderError::NoToken)?;
        let mut claims = provider.verify(&self.http, &metadata, &id_token).await?;
        let expected = Expected {
            issuer: &client.issuer,
            client_id: &client.client_id,
            nonce: redemption.nonce,
            now: redemption.now,
        };
        // Before the endpoint is asked, whose `sub` is compared with this one.
        check(&claims, &expected)?;
        // A request that is only needed if the ID token lacks claims.
        if !(redemption.is_complete)(&claims)
            && let (Some(endpoint), Some(token)) = (&metadata.userinfo_endpoint, &tokens.access_token)
        {
            exchange::add_user_info(&self.http, endpoint, token, &mut claims).await?;
        }
        Ok(claims)
    }
}
