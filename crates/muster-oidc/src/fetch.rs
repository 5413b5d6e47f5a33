//! Requests with a deadline and responses with a maximum size.

use std::error::Error as _;
use std::sync::OnceLock;
use std::time::Duration;

use http::header::CONTENT_TYPE;
use muster_core::reported::shortened_to;
use muster_fleet::identity::openid::ProviderError;
use reqwest::{Client, RequestBuilder, Response, StatusCode, Url};
use serde::de::DeserializeOwned;

/// Maximum time for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Maximum size of a response: the keys of a provider, each with its certificates.
const MAX_BYTES: usize = 256 << 10;
/// Maximum length of a content type in a message, bytes.
const SHOWN: usize = 80;

/// The HTTP client. Built at the first login: a server without OpenID providers must start without a trust store.
pub(crate) struct Http {
    timeout: Duration,
    client: OnceLock<Client>,
}

impl Http {
    pub(crate) fn new(timeout: Duration) -> Self {
        Self { timeout, client: OnceLock::new() }
    }

    fn client(&self, url: &Url) -> Result<&Client, ProviderError> {
        if let Some(client) = self.client.get() {
            return Ok(client);
        }
        let built = self.build().map_err(|error| unreachable(&shown(url), &error))?;
        // Two first logins at the same time each build a client; one of them is kept.
        Ok(self.client.get_or_init(|| built))
    }

    fn build(&self) -> Result<Client, reqwest::Error> {
        // Fails only if a provider is installed already.
        drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
        Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(self.timeout)
            // A redirect must not send the client secret to another server.
            .redirect(reqwest::redirect::Policy::none())
            .build()
    }

    pub(crate) fn get(&self, url: &Url) -> Result<RequestBuilder, ProviderError> {
        Ok(self.client(url)?.get(url.clone()))
    }

    pub(crate) fn post(&self, url: &Url) -> Result<RequestBuilder, ProviderError> {
        Ok(self.client(url)?.post(url.clone()))
    }
}

/// A response that was read.
pub(crate) struct Answer {
    url: String,
    pub(crate) status: StatusCode,
    content_type: String,
    text: Vec<u8>,
}

impl Answer {
    /// Sends a request, and reads the response.
    pub(crate) async fn to(request: RequestBuilder, url: &Url) -> Result<Self, ProviderError> {
        let url = shown(url);
        let mut response = request.send().await.map_err(|error| unreachable(&url, &error))?;
        let text = read(&url, &mut response).await?;
        let content_type = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let content_type = shortened_to(content_type.unwrap_or("no content type"), SHOWN).into_owned();
        Ok(Self { status: response.status(), content_type, text, url })
    }

    /// Parses the body, whatever the status is.
    pub(crate) fn json<T: DeserializeOwned>(&self) -> Result<T, ProviderError> {
        // Some providers label JSON as plain text, so the body decides; the type is what the message tells.
        let looks_like_json = self.text.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'{');
        if !looks_like_json {
            return Err(ProviderError::NotJson { url: self.url.clone(), content_type: self.content_type.clone() });
        }
        serde_json::from_slice(&self.text)
            .map_err(|error| ProviderError::Malformed { url: self.url.clone(), source: error.into() })
    }

    /// Parses the body of a successful response.
    pub(crate) fn success<T: DeserializeOwned>(&self) -> Result<T, ProviderError> {
        if self.status.is_success() { self.json() } else { Err(self.failure()) }
    }

    /// The error for the status.
    pub(crate) fn failure(&self) -> ProviderError {
        ProviderError::Status { url: self.url.clone(), status: self.status.as_u16() }
    }
}

async fn read(url: &str, response: &mut Response) -> Result<Vec<u8>, ProviderError> {
    let mut text = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| unreachable(url, &error))? {
        if text.len() + chunk.len() > MAX_BYTES {
            return Err(ProviderError::TooLarge { url: url.to_owned(), most: MAX_BYTES });
        }
        text.extend_from_slice(&chunk);
    }
    Ok(text)
}

/// A URL without its query, which may have secrets.
pub(crate) fn shown(url: &Url) -> String {
    let mut plain = url.clone();
    plain.set_query(None);
    plain.into()
}

fn unreachable(url: &str, error: &reqwest::Error) -> ProviderError {
    if error.is_timeout() {
        return ProviderError::Late(url.to_owned());
    }
    // The innermost cause says what happened; the outer ones repeat the URL with its query.
    let causes = std::iter::successors(error.source(), |error| (*error).source());
    let cause = causes.last().map_or_else(|| "the connection failed".to_owned(), ToString::to_string);
    ProviderError::Unreachable { url: url.to_owned(), source: cause.into() }
}
