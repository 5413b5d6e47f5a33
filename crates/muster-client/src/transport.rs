//! The transport: a Unix socket or HTTP(S), with one way to send requests and one to read responses.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use http::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use muster_protocol::management::ErrorBody;
use muster_protocol::management::envelope::API_VERSION;
use reqwest::{Certificate, ClientBuilder, Method, RequestBuilder, Response, Url};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncWrite, AsyncWriteExt as _};

use crate::{Error, Result};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Maximum time without data. It is long because bulk actions on large fleets take seconds.
const READ_TIMEOUT: Duration = Duration::from_secs(120);

/// Query that makes a change a dry run.
pub(crate) const DRY_RUN: [(&str, &str); 1] = [("dryRun", "true")];

/// Options of HTTP(S) connections.
#[derive(Clone, Debug, Default)]
pub struct HttpOptions {
    /// Certificate authorities (PEM) to trust instead of the system's.
    pub ca_pem: Option<Vec<u8>>,
}

/// A client of the management API. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    base: Url,
    target: String,
    space: Option<String>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Client({})", self.target)
    }
}

impl Client {
    /// Creates a client that connects to the admin socket, `DATA/admin.sock`.
    pub fn unix(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        // The socket's permissions are the credential, so no token is sent.
        let builder = builder(None)?.unix_socket(path).tls_certs_only([]);
        // The host is only a placeholder, because every request goes to the socket.
        Self::build(builder, "http://localhost/", path.display().to_string())
    }

    /// Creates a client that connects over HTTP(S) and trusts the system's CAs. `token` is sent as
    /// `Authorization: Bearer …`.
    pub fn http(url: &str, token: Option<&str>) -> Result<Self> {
        Self::http_with(url, token, &HttpOptions::default())
    }

    /// Creates a client that connects over HTTP(S), with options.
    pub fn http_with(url: &str, token: Option<&str>, options: &HttpOptions) -> Result<Self> {
        let mut builder = builder(token)?;
        let authorities = options.ca_pem.as_deref().map(authorities).transpose()?;
        match authorities {
            Some(authorities) => builder = builder.tls_certs_only(authorities),
            // Plain HTTP verifies no certificates, so that the system's CAs need not be loaded.
            None if url.starts_with("http://") => builder = builder.tls_certs_only([]),
            None => {}
        }
        Self::build(builder, url, url.to_owned())
    }

    /// Returns a client of the same server for another space.
    #[must_use]
    pub fn in_space(mut self, space: &str) -> Self {
        self.space = Some(space.to_owned());
        self
    }

    /// Returns the socket's path or the URL.
    pub fn target(&self) -> &str {
        &self.target
    }

    fn build(builder: ClientBuilder, base: &str, target: String) -> Result<Self> {
        let base = Url::parse(base).map_err(|e| Error::Usage(format!("{base:?} is not a URL: {e}")))?;
        // Without this check, such URLs would fail only with the first request, and not as a usage error.
        if !matches!(base.scheme(), "http" | "https") || base.cannot_be_a_base() {
            return Err(Error::Usage(format!("{base} is not an http or https URL")));
        }
        let http = builder.build().map_err(|e| Error::of_send(&target, e))?;
        Ok(Self { http, base, target, space: None })
    }

    /// Returns a URL under `/api/fleet`, with each segment escaped.
    pub(crate) fn fleet(&self, segments: &[&str]) -> Result<Url> {
        let space = self.space.iter().flat_map(|space| ["s", space.as_str()]);
        self.path(space.chain(["api", "fleet"]).chain(segments.iter().copied()))
    }

    /// Returns a URL under `/api/v1`, with each segment escaped.
    pub(crate) fn v1_url(&self, segments: &[&str]) -> Result<Url> {
        let space = self.space.iter().flat_map(|space| ["s", space.as_str()]);
        self.path(space.chain(["api", "v1"]).chain(segments.iter().copied()))
    }

    pub(crate) fn path<'a>(&self, segments: impl IntoIterator<Item = &'a str>) -> Result<Url> {
        // The path of the base URL is kept as a prefix, because the API may be behind a reverse proxy.
        let mut url = self.base.clone();
        let mut path = url.path_segments_mut().map_err(|()| Error::Usage("not a base URL".into()))?;
        path.pop_if_empty();
        for segment in segments {
            // Dot segments would be resolved, so that the request would go to another resource.
            if matches!(segment, "" | "." | "..") {
                return Err(Error::Usage(format!("invalid id {segment:?}")));
            }
            path.push(segment);
        }
        drop(path);
        Ok(url)
    }

    pub(crate) async fn get<T: DeserializeOwned>(&self, segments: &[&str]) -> Result<T> {
        self.answer(self.http.get(self.fleet(segments)?)).await
    }

    pub(crate) async fn get_with<T: DeserializeOwned>(&self, segments: &[&str], query: &impl Serialize) -> Result<T> {
        self.answer(self.http.get(self.fleet(segments)?).query(query)).await
    }

    pub(crate) async fn post<T: DeserializeOwned>(&self, segments: &[&str], body: &impl Serialize) -> Result<T> {
        self.answer(self.http.post(self.fleet(segments)?).json(body)).await
    }

    /// Sends a `POST` without a body.
    pub(crate) async fn post_with<T: DeserializeOwned>(&self, segments: &[&str], query: &impl Serialize) -> Result<T> {
        self.answer(self.http.post(self.fleet(segments)?).query(query)).await
    }

    /// Sends a `POST` with `?dryRun=true`: the server validates it and changes nothing.
    pub(crate) async fn try_post<T: DeserializeOwned>(&self, segments: &[&str], body: &impl Serialize) -> Result<T> {
        self.answer(self.http.post(self.fleet(segments)?).query(&DRY_RUN).json(body)).await
    }

    /// See [`Self::try_post`].
    pub(crate) async fn try_put<T: DeserializeOwned>(&self, segments: &[&str], body: &impl Serialize) -> Result<T> {
        self.answer(self.http.put(self.fleet(segments)?).query(&DRY_RUN).json(body)).await
    }

    pub(crate) async fn put<T: DeserializeOwned>(&self, segments: &[&str], body: &impl Serialize) -> Result<T> {
        self.answer(self.http.put(self.fleet(segments)?).json(body)).await
    }

    pub(crate) async fn delete<T: DeserializeOwned>(&self, segments: &[&str], query: &impl Serialize) -> Result<T> {
        self.answer(self.http.delete(self.fleet(segments)?).query(query)).await
    }

    pub(crate) fn request(&self, method: Method, url: Url) -> RequestBuilder {
        self.http.request(method, url)
    }

    /// Sends a request and parses the response as `T`.
    pub(crate) async fn answer<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T> {
        let response = self.send(request).await?;
        let status = response.status().as_u16();
        // Read completely before parsing, so that an error names the cause: the connection or the format.
        let bytes = response.bytes().await.map_err(|e| self.broken(e))?;
        serde_json::from_slice(&bytes).map_err(|e| self.unexpected(status, e.to_string(), Some(e)))
    }

    /// Sends a request and turns error responses into errors.
    pub(crate) async fn send(&self, request: RequestBuilder) -> Result<Response> {
        let response = request.send().await.map_err(|e| Error::of_send(&self.target, e))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let bytes = response.bytes().await.map_err(|e| self.broken(e))?;
        match serde_json::from_slice::<ErrorBody>(&bytes) {
            // The status line is authoritative; a body may repeat another status.
            Ok(body) => Err(Error::Answered(Box::new(ErrorBody { status_code: status.as_u16(), ..body }))),
            // This is most likely the page of a proxy. Its beginning is more helpful than the parse error.
            Err(_) => {
                let text = String::from_utf8_lossy(&bytes).chars().take(200).collect();
                Err(self.unexpected(status.as_u16(), text, None))
            }
        }
    }

    /// Sends a request and writes the body of the response to `to`. `watch` receives each piece. Returns the length.
    pub(crate) async fn download(
        &self,
        request: RequestBuilder,
        to: &mut (impl AsyncWrite + Unpin),
        watch: &mut (dyn FnMut(&[u8]) + Send),
    ) -> Result<u64> {
        let mut response = self.send(request).await?;
        let mut length = 0;
        // Copied chunk by chunk, because the body can be larger than the available memory.
        while let Some(chunk) = response.chunk().await.map_err(|e| self.broken(e))? {
            to.write_all(&chunk).await?;
            length += chunk.len() as u64;
            watch(&chunk);
        }
        to.flush().await?;
        Ok(length)
    }

    pub(crate) fn broken(&self, error: reqwest::Error) -> Error {
        Error::of_send(&self.target, error)
    }

    fn unexpected(&self, status: u16, reason: String, source: Option<serde_json::Error>) -> Error {
        Error::Unexpected { target: self.target.clone(), status, reason, source }
    }
}

fn builder(token: Option<&str>) -> Result<ClientBuilder> {
    // The call fails only if a provider is already installed, which is fine.
    drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
    Ok(reqwest::Client::builder()
        .default_headers(headers(token)?)
        .connect_timeout(CONNECT_TIMEOUT)
        .read_timeout(READ_TIMEOUT)
        // A redirect must not send the token to another server.
        .redirect(reqwest::redirect::Policy::none()))
}

fn headers(token: Option<&str>) -> Result<HeaderMap> {
    let mut headers = HeaderMap::new();
    headers.insert("elastic-api-version", HeaderValue::from_static(API_VERSION));
    // Kibana's API requires this header for changes, and scripts send it to both APIs.
    headers.insert("kbn-xsrf", HeaderValue::from_static("true"));
    if let Some(token) = token {
        let bearer = HeaderValue::from_str(&format!("Bearer {token}"));
        let mut value = bearer
            .map_err(|_| Error::Usage("the token contains characters that are not allowed in a header".into()))?;
        // Keeps the token out of debug output.
        value.set_sensitive(true);
        headers.insert(AUTHORIZATION, value);
    }
    Ok(headers)
}

fn authorities(pem: &[u8]) -> Result<Vec<Certificate>> {
    let certificates = Certificate::from_pem_bundle(pem)
        .map_err(|_| Error::Usage("the CA file contains no PEM certificates".into()))?;
    if certificates.is_empty() {
        Err(Error::Usage("the CA file contains no PEM certificates".into()))
    } else {
        Ok(certificates)
    }
}
