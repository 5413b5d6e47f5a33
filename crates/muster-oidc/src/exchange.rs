//! Redemption of a code for tokens (RFC 6749 §4.1.3), and the endpoint for further claims (OpenID Connect Core, section 5.3).

use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use muster_core::error_chain::SharedError;
use muster_core::reported::shortened_to;
use muster_fleet::identity::openid::{OpenIdClient, ProviderError, Redemption};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::{RequestBuilder, StatusCode, Url};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::discovery::Metadata;
use crate::fetch::{Answer, Http, shown};

/// What is escaped in forms: everything but unreserved characters. Providers that do not decode a client id in the
/// `Authorization` header, contrary to the RFC, still understand the usual ones.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
/// Maximum length of what a provider says about an error, bytes.
const SAID: usize = 200;

/// The tokens.
#[derive(Deserialize)]
pub(crate) struct Tokens {
    pub(crate) id_token: Option<String>,
    pub(crate) access_token: Option<String>,
}

/// An error response (RFC 6749 §5.2).
#[derive(Deserialize)]
struct ErrorResponse {
    error: String,
    #[serde(default)]
    error_description: String,
}

fn escaped(text: &str) -> String {
    utf8_percent_encode(text, RESERVED).to_string()
}

fn form(fields: &[(&str, &str)]) -> String {
    let pairs: Vec<String> = fields.iter().map(|(name, value)| format!("{name}={}", escaped(value))).collect();
    pairs.join("&")
}

/// Redeems a code.
pub(crate) async fn redeem(
    http: &Http,
    metadata: &Metadata,
    client: &OpenIdClient,
    redemption: &Redemption<'_>,
) -> Result<Tokens, ProviderError> {
    let url = &metadata.token_endpoint;
    let fields = [
        ("grant_type", "authorization_code"),
        ("code", redemption.code),
        ("redirect_uri", &client.redirect_uri),
        ("code_verifier", redemption.verifier),
    ];
    let request = authenticated(http.post(url)?, metadata, client, &fields);
    let request = request
        .header(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"))
        .header(ACCEPT, HeaderValue::from_static("application/json"));
    let answer = Answer::to(request, url).await?;
    // Responses with other statuses need not have the format of the RFC.
    if matches!(answer.status, StatusCode::BAD_REQUEST | StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
        let ErrorResponse { error, error_description } = answer.json()?;
        return Err(ProviderError::Rejected(said(&format!("{error} {error_description}"))));
    }
    answer.success()
}

/// Adds the credentials of this installation, in the way that the provider supports. The header is the default
/// (OpenID Connect Discovery, section 3).
fn authenticated(
    request: RequestBuilder,
    metadata: &Metadata,
    client: &OpenIdClient,
    fields: &[(&str, &str)],
) -> RequestBuilder {
    let id = ("client_id", client.client_id.as_str());
    let Some(secret) = client.secret.as_ref().map(|secret| secret.as_str()) else {
        return request.body(form(&[fields, &[id]].concat()));
    };
    let methods = metadata.token_endpoint_auth_methods_supported.as_deref().unwrap_or_default();
    let has = |method: &str| methods.iter().any(|one| one == method);
    if has("client_secret_post") && !has("client_secret_basic") {
        return request.body(form(&[fields, &[id, ("client_secret", secret)]].concat()));
    }
    request.basic_auth(escaped(&client.client_id), Some(escaped(secret))).body(form(fields))
}

/// Adds the claims of the provider's endpoint. Those of the ID token, which are signed, take precedence.
pub(crate) async fn add_user_info(
    http: &Http,
    endpoint: &Url,
    access_token: &str,
    claims: &mut Map<String, Value>,
) -> Result<(), ProviderError> {
    let mut bearer = HeaderValue::from_str(&format!("Bearer {access_token}"))
        .map_err(|error| ProviderError::Malformed { url: shown(endpoint), source: SharedError::from(error) })?;
    bearer.set_sensitive(true);
    let answer = Answer::to(http.get(endpoint)?.header(AUTHORIZATION, bearer), endpoint).await?;
    let more: Map<String, Value> = answer.success()?;
    // The claims of another person could be substituted here (OpenID Connect Core, section 5.3.2).
    if more.get("sub") != claims.get("sub") {
        return Err(ProviderError::OtherSubject);
    }
    for (name, value) in more {
        claims.entry(name).or_insert(value);
    }
    Ok(())
}

/// Shortens what a provider says, without control characters.
fn said(text: &str) -> String {
    let plain: String = text.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    shortened_to(&plain, SAID).into_owned()
}
