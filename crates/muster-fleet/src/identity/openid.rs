//! The port through which the services reach OpenID providers: where a browser is sent, and who came back.

use std::fmt;

use async_trait::async_trait;
use muster_core::error_chain::SharedError;
use muster_core::id::ProviderId;
use muster_core::identity::id_token::TokenFault;
use muster_core::time::Timestamp;
use serde_json::{Map, Value};
use zeroize::Zeroizing;

/// A provider, and this installation as its client.
#[derive(Clone)]
pub struct OpenIdClient {
    /// Id of the provider.
    pub id: ProviderId,
    /// Its issuer.
    pub issuer: String,
    /// Id of this installation there.
    pub client_id: String,
    /// Secret of this installation there; `None` for a public client.
    pub secret: Option<Zeroizing<String>>,
    /// URL to which the provider sends browsers back.
    pub redirect_uri: String,
}

impl fmt::Debug for OpenIdClient {
    /// Omits the secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OpenIdClient({} at {})", self.client_id, self.issuer)
    }
}

/// What a login is begun with.
#[derive(Clone, Copy, Debug)]
pub struct AuthorizationRequest<'a> {
    /// Requested scopes.
    pub scopes: &'a [String],
    /// Value that ties the response to the browser.
    pub state: &'a str,
    /// Value that ties the ID token to the login.
    pub nonce: &'a str,
    /// PKCE challenge, method S256.
    pub challenge: &'a str,
}

/// A code that a browser brought back, with what proves that it belongs to the login.
pub struct Redemption<'a> {
    /// The code.
    pub code: &'a str,
    /// PKCE verifier.
    pub verifier: &'a str,
    /// Value that the ID token must have.
    pub nonce: &'a str,
    /// The current time.
    pub now: Timestamp,
    /// Returns whether claims are complete. If those of the ID token are not, the provider is asked for the others.
    pub is_complete: &'a (dyn Fn(&Map<String, Value>) -> bool + Sync),
}

/// Reason why a provider cannot be used, or why it does not vouch for somebody.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProviderError {
    /// It did not respond in time.
    #[error("{0} did not respond in time")]
    Late(String),
    /// It cannot be reached.
    #[error("cannot reach {url}")]
    Unreachable {
        /// The URL.
        url: String,
        /// Reason.
        #[source]
        source: SharedError,
    },
    /// It responded with an error.
    #[error("{url} responds with status {status}")]
    Status {
        /// The URL.
        url: String,
        /// Status.
        status: u16,
    },
    /// The response is no JSON: a proxy, an error page, another service.
    #[error("{url} responds with {content_type} and not with JSON")]
    NotJson {
        /// The URL.
        url: String,
        /// Its content type.
        content_type: String,
    },
    /// The response is too large.
    #[error("the response of {url} exceeds {most} bytes")]
    TooLarge {
        /// The URL.
        url: String,
        /// Maximum, bytes.
        most: usize,
    },
    /// The response is JSON of another shape.
    #[error("the response of {url} is malformed")]
    Malformed {
        /// The URL.
        url: String,
        /// Reason.
        #[source]
        source: SharedError,
    },
    /// The provider is another one than configured.
    #[error("the issuer of the provider is {found:?}, but {expected:?} is configured")]
    OtherIssuer {
        /// The configured issuer.
        expected: String,
        /// What it names itself.
        found: String,
    },
    /// Too many logins at the same time.
    #[error("too many logins at the same time")]
    Busy,
    /// The provider rejected the code, or this client.
    #[error("the provider rejects the login: {0}")]
    Rejected(String),
    /// The response has no ID token, or it is malformed.
    #[error("the provider sent no valid ID token")]
    NoToken,
    /// The token is signed with an algorithm that is not accepted, or not signed.
    #[error("the ID token has the algorithm {0:?}, which is not accepted")]
    Algorithm(String),
    /// The token is signed with a key that the provider does not publish.
    #[error("the ID token is signed with a key that the provider does not publish: {0:?}")]
    UnknownKey(String),
    /// The signature does not match.
    #[error("the signature of the ID token is invalid")]
    Signature,
    /// The claims are not those of this login.
    #[error("{0}")]
    Token(#[from] TokenFault),
    /// The provider's endpoint for claims speaks of somebody else.
    #[error("the provider sent the claims of another subject")]
    OtherSubject,
}

impl ProviderError {
    /// Returns the code of the error in responses and in the audit log.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Late(_) => "provider_late",
            Self::Unreachable { .. } => "provider_unreachable",
            Self::Status { .. } => "provider_failed",
            Self::NotJson { .. } | Self::TooLarge { .. } | Self::Malformed { .. } => "provider_malformed",
            Self::OtherIssuer { .. } => "provider_issuer",
            Self::Busy => "too_many_log_ins",
            Self::Rejected(_) => "log_in_rejected",
            Self::NoToken => "id_token_missing",
            Self::Algorithm(_) => "id_token_algorithm",
            Self::UnknownKey(_) => "id_token_key",
            Self::Signature => "id_token_signature",
            Self::OtherSubject => "id_token_subject",
            Self::Token(TokenFault::Issuer(_)) => "id_token_issuer",
            Self::Token(TokenFault::Audience) => "id_token_audience",
            Self::Token(TokenFault::Nonce) => "id_token_nonce",
            Self::Token(TokenFault::Expired(_)) => "id_token_expired",
            Self::Token(TokenFault::Early) => "id_token_early",
            Self::Token(TokenFault::Missing(_)) => "id_token_claims",
        }
    }

    /// Returns whether the provider is at fault as a whole, so that a later attempt may succeed.
    pub const fn is_outage(&self) -> bool {
        matches!(
            self,
            Self::Late(_)
                | Self::Unreachable { .. }
                | Self::Status { .. }
                | Self::NotJson { .. }
                | Self::TooLarge { .. }
                | Self::Malformed { .. }
                | Self::OtherIssuer { .. }
                | Self::Busy
        )
    }
}

/// OpenID providers. Every call has a deadline, and every response a maximum size.
#[async_trait]
pub trait OpenIdProviders: Send + Sync + 'static {
    /// Returns the URL at the provider to which a browser is sent.
    async fn authorization_url(
        &self,
        client: &OpenIdClient,
        request: &AuthorizationRequest<'_>,
    ) -> Result<String, ProviderError>;

    /// Redeems a code. Returns the claims of the ID token, whose signature, issuer, audience, nonce and times are valid.
    async fn redeem(
        &self,
        client: &OpenIdClient,
        redemption: &Redemption<'_>,
    ) -> Result<Map<String, Value>, ProviderError>;
}

/// No providers: every one is unreachable. For tests of other things.
pub struct NoProviders;

#[async_trait]
impl OpenIdProviders for NoProviders {
    async fn authorization_url(
        &self,
        client: &OpenIdClient,
        _: &AuthorizationRequest<'_>,
    ) -> Result<String, ProviderError> {
        Err(ProviderError::Unreachable { url: client.issuer.clone(), source: "there are no providers".into() })
    }

    async fn redeem(&self, client: &OpenIdClient, _: &Redemption<'_>) -> Result<Map<String, Value>, ProviderError> {
        Err(ProviderError::Unreachable { url: client.issuer.clone(), source: "there are no providers".into() })
    }
}
