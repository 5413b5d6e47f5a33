//! What a provider publishes about itself: its endpoints (OpenID Connect Discovery, section 4) and its keys (RFC 7517), cached.

use std::sync::Arc;
use std::time::Duration;

use jsonwebtoken::jwk::Jwk;
use muster_core::reported::shortened_to;
use muster_fleet::identity::openid::ProviderError;
use reqwest::Url;
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::fetch::{Answer, Http};
use crate::id_token;

/// Time for which metadata and keys are cached.
const CACHED: Duration = Duration::from_secs(3_600);
/// Minimum time between two requests for the keys because a token names an unknown one.
const REFETCHED_EVERY: Duration = Duration::from_secs(10);
/// Time for which a failure is remembered, so that a provider that is down does not delay a queue of logins.
const FAILURE_CACHED: Duration = Duration::from_secs(2);
/// Maximum number of keys of a provider.
const MOST_KEYS: usize = 100;
/// Maximum length of a foreign issuer in a message, bytes.
const SHOWN: usize = 200;

/// What a provider says about itself.
#[derive(Debug, Deserialize)]
pub(crate) struct Metadata {
    issuer: String,
    #[serde(deserialize_with = "url")]
    pub(crate) authorization_endpoint: Url,
    #[serde(deserialize_with = "url")]
    pub(crate) token_endpoint: Url,
    #[serde(deserialize_with = "url")]
    jwks_uri: Url,
    #[serde(default, deserialize_with = "optional_url")]
    pub(crate) userinfo_endpoint: Option<Url>,
    #[serde(default)]
    pub(crate) token_endpoint_auth_methods_supported: Option<Vec<String>>,
}

/// Reads a URL that carries credentials: encrypted, or on this host.
fn url<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Url, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse(&text).map_err(serde::de::Error::custom)
}

fn optional_url<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Url>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    text.map(|text| parse(&text)).transpose().map_err(serde::de::Error::custom)
}

fn parse(text: &str) -> Result<Url, String> {
    let shown = shortened_to(text, SHOWN);
    let url = Url::parse(text).map_err(|error| format!("{shown:?} is not a URL: {error}"))?;
    // Any other name could lead to another host.
    let is_local = matches!(url.host_str(), Some("localhost" | "127.0.0.1" | "[::1]"));
    match url.scheme() {
        "https" => Ok(url),
        "http" if is_local => Ok(url),
        _ => Err(format!("{shown:?} is not encrypted")),
    }
}

/// Keys of a provider, as it publishes them. Those of unknown types are left out.
#[derive(Deserialize)]
struct KeySet {
    keys: Vec<Value>,
}

impl KeySet {
    fn read(self) -> Vec<Jwk> {
        let keys = self.keys.into_iter().take(MOST_KEYS);
        keys.filter_map(|key| serde_json::from_value(key).ok()).collect()
    }
}

/// A provider, with a cache.
pub(crate) struct Provider {
    issuer: String,
    // Held while fetching, so that logins at the same time cause one request.
    cache: Mutex<Cache>,
}

#[derive(Default)]
struct Cache {
    metadata: Option<(Arc<Metadata>, Instant)>,
    failure: Option<(ProviderError, Instant)>,
    keys: Option<(Arc<Vec<Jwk>>, Instant)>,
    /// When a token last named an unknown key.
    refetched: Option<Instant>,
}

impl Provider {
    pub(crate) fn new(issuer: &str) -> Self {
        Self { issuer: issuer.to_owned(), cache: Mutex::default() }
    }

    pub(crate) fn issuer(&self) -> &str {
        &self.issuer
    }

    /// Returns the metadata.
    pub(crate) async fn metadata(&self, http: &Http) -> Result<Arc<Metadata>, ProviderError> {
        let mut cache = self.cache.lock().await;
        if let Some((metadata, at)) = &cache.metadata
            && at.elapsed() < CACHED
        {
            return Ok(Arc::clone(metadata));
        }
        if let Some((error, at)) = &cache.failure
            && at.elapsed() < FAILURE_CACHED
        {
            return Err(error.clone());
        }
        match self.fetch_metadata(http).await {
            Ok(metadata) => {
                let metadata = Arc::new(metadata);
                cache.metadata = Some((Arc::clone(&metadata), Instant::now()));
                Ok(metadata)
            }
            Err(error) => {
                cache.failure = Some((error.clone(), Instant::now()));
                Err(error)
            }
        }
    }

    async fn fetch_metadata(&self, http: &Http) -> Result<Metadata, ProviderError> {
        let text = format!("{}/.well-known/openid-configuration", self.issuer.trim_end_matches('/'));
        let malformed = |source| ProviderError::Malformed { url: text.clone(), source };
        let url = parse(&text).map_err(|reason| malformed(reason.into()))?;
        let metadata: Metadata = Answer::to(http.get(&url)?, &url).await?.success()?;
        // Otherwise, one provider could issue tokens in the name of another (OpenID Connect Discovery, section 4.3).
        if metadata.issuer != self.issuer {
            let found = shortened_to(&metadata.issuer, SHOWN).into_owned();
            return Err(ProviderError::OtherIssuer { expected: self.issuer.clone(), found });
        }
        Ok(metadata)
    }

    /// Verifies the signature of an ID token; returns its claims, which are not checked yet.
    pub(crate) async fn verify(
        &self,
        http: &Http,
        metadata: &Metadata,
        token: &str,
    ) -> Result<Map<String, Value>, ProviderError> {
        let header = id_token::header(token)?;
        let keys = self.keys(http, metadata, |keys| id_token::has_key(keys, &header)).await?;
        id_token::verify(token, &header, &keys)
    }

    /// Returns the keys. They are fetched again if they do not suffice, because the provider may have rotated them, but not
    /// often: a token can name any key.
    async fn keys(
        &self,
        http: &Http,
        metadata: &Metadata,
        suffices: impl Fn(&[Jwk]) -> bool,
    ) -> Result<Arc<Vec<Jwk>>, ProviderError> {
        let mut cache = self.cache.lock().await;
        if let Some((keys, at)) = &cache.keys
            && at.elapsed() < CACHED
        {
            let is_early = cache.refetched.is_some_and(|at| at.elapsed() < REFETCHED_EVERY);
            if suffices(keys) || is_early {
                return Ok(Arc::clone(keys));
            }
            // Before the request, so that a failed one counts as well.
            cache.refetched = Some(Instant::now());
        }
        let answer = Answer::to(http.get(&metadata.jwks_uri)?, &metadata.jwks_uri).await?;
        let keys = Arc::new(answer.success::<KeySet>()?.read());
        cache.keys = Some((Arc::clone(&keys), Instant::now()));
        Ok(keys)
    }
}
