//! One call of a cluster: which node is asked, how long it may take, and what an error means.

use std::error::Error as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use http::{Method, StatusCode};
use muster_core::reported::shortened_to;
use muster_fleet::outgoing::{LocalTargets, ResolveError};
use muster_fleet::output_keys::issuer::IssueError;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::{Client, Proxy, Response, Url};
use serde_json::{Map, Value};

use crate::settings::Settings;
use crate::tls;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Maximum size of a response: a page of keys with their permissions.
const MAX_BYTES: usize = 16 << 20;
/// Maximum length of what a cluster says about an error, bytes.
const REASON_BYTES: usize = 300;

/// A cluster, with a client that keeps connections to it.
pub(crate) struct Cluster {
    hosts: Vec<Url>,
    client: Client,
    /// The node that responded last; it is asked first.
    preferred: AtomicUsize,
}

fn unusable(reason: impl Into<String>) -> IssueError {
    IssueError::Unusable(reason.into())
}

impl Cluster {
    pub(crate) fn new(settings: &Settings, local: LocalTargets, timeout: Duration) -> Result<Self, IssueError> {
        let hosts: Result<Vec<Url>, IssueError> = settings.hosts.iter().map(|host| of_host(host, settings)).collect();
        let hosts = hosts?;
        // The resolver below is asked for names only.
        hosts.iter().try_for_each(|host| check_literal(local, "hosts", host))?;
        // Fails only if a provider is installed already.
        drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
        let mut builder = Client::builder()
            .tls_backend_preconfigured(tls::client_config(&settings.ssl)?)
            .default_headers(headers(settings)?)
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(timeout)
            // A redirect must not send the credential to another server.
            .redirect(reqwest::redirect::Policy::none())
            .dns_resolver(Arc::new(Guard(local)));
        if settings.proxy_disable {
            builder = builder.no_proxy();
        } else if let Some((url, proxy)) = proxy(settings)? {
            check_literal(local, "proxy_url", &url)?;
            builder = builder.proxy(proxy);
        }
        // The error could name the proxy's URL, which can contain a password.
        let client = builder.build().map_err(|_| unusable("the HTTP client could not be set up for the output"))?;
        Ok(Self { hosts, client, preferred: AtomicUsize::new(0) })
    }

    /// Sends a request to the first node that responds.
    pub(crate) async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value, IssueError> {
        let first = self.preferred.load(Ordering::Relaxed);
        let mut last = IssueError::Unavailable("the output has no hosts".to_owned());
        for step in 0..self.hosts.len() {
            let place = (first + step) % self.hosts.len();
            match self.ask(&self.hosts[place], &method, path, body).await {
                // Another node of the same cluster may be well. All other errors are of the cluster.
                Err(IssueError::Unavailable(reason)) => last = IssueError::Unavailable(reason),
                answer => {
                    self.preferred.store(place, Ordering::Relaxed);
                    return answer;
                }
            }
        }
        Err(last)
    }

    async fn ask(&self, host: &Url, method: &Method, path: &str, body: Option<&Value>) -> Result<Value, IssueError> {
        let url = host.join(path).map_err(|error| unusable(format!("{} is not a base URL: {error}", shown(host))))?;
        let mut request = self.client.request(method.clone(), url);
        if let Some(body) = body {
            request = request.header(CONTENT_TYPE, "application/json").body(body.to_string());
        }
        let response = request.send().await.map_err(|error| unavailable(host, &error))?;
        let (status, headers) = (response.status(), response.headers().clone());
        let text = read(host, response).await?;
        let answer = serde_json::from_slice::<Value>(&text).ok().filter(Value::is_object);
        match answer {
            Some(answer) if status.is_success() => Ok(answer),
            answer => Err(refusal(host, status, &headers, answer.as_ref())),
        }
    }
}

/// A URL to which paths are appended.
fn base(host: &str) -> Result<Url, IssueError> {
    let host = format!("{}/", host.trim().trim_end_matches('/'));
    match Url::parse(&host) {
        Ok(mut url) if matches!(url.scheme(), "http" | "https") && url.has_host() => {
            // The credential is in other fields; a user in the URL would take its place.
            let _ = (url.set_username(""), url.set_password(None));
            Ok(url)
        }
        _ => Err(unusable("`hosts` must be http or https URLs")),
    }
}

/// Completes a host with the other fields that are part of its URL.
fn of_host(host: &str, settings: &Settings) -> Result<Url, IssueError> {
    let protocol = settings.protocol.as_deref().unwrap_or("http");
    let mut url = if host.contains("://") { base(host)? } else { base(&format!("{protocol}://{host}"))? };
    if let Some(path) = settings.path.as_deref().filter(|_| url.path() == "/") {
        url.set_path(&format!("{}/", path.trim_end_matches('/')));
    }
    Ok(url)
}

fn headers(settings: &Settings) -> Result<HeaderMap, IssueError> {
    let mut credential = HeaderValue::from_str(&settings.authorization()?)
        .map_err(|_| unusable("the credential of the output contains characters that are not allowed in a header"))?;
    credential.set_sensitive(true);
    let mut headers = header_map("headers", &settings.headers)?;
    // Last: the output's headers cannot take its place.
    headers.insert(AUTHORIZATION, credential);
    Ok(headers)
}

fn header_map(field: &str, fields: &Map<String, Value>) -> Result<HeaderMap, IssueError> {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| invalid(field))?;
        let value = value.as_str().and_then(|value| HeaderValue::from_str(value).ok());
        headers.insert(name, value.ok_or_else(|| invalid(field))?);
    }
    Ok(headers)
}

fn invalid(field: &str) -> IssueError {
    unusable(format!("`{field}` is invalid"))
}

/// Resolves names to addresses that may be connected to.
struct Guard(LocalTargets);

impl Resolve for Guard {
    fn resolve(&self, name: Name) -> Resolving {
        let local = self.0;
        Box::pin(async move {
            // The port is set by the client.
            let found = local.resolve(name.as_str(), 0).await?;
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

/// Returns why a host is not connected to, if its URL tells that.
pub(crate) fn refuses(local: LocalTargets, host: &str) -> Option<String> {
    let url = base(host).ok()?;
    local.check_literal(url.host_str().unwrap_or_default()).err().map(|error| error.to_string())
}

fn check_literal(local: LocalTargets, field: &str, url: &Url) -> Result<(), IssueError> {
    let checked = local.check_literal(url.host_str().unwrap_or_default());
    checked.map_err(|error| unusable(format!("`{field}`: {error}")))
}

fn proxy(settings: &Settings) -> Result<Option<(Url, Proxy)>, IssueError> {
    let Some(url) = settings.proxy_url.as_deref().filter(|url| !url.is_empty()) else { return Ok(None) };
    let headers = header_map("proxy_headers", &settings.proxy_headers)?;
    let url = Url::parse(url).map_err(|_| invalid("proxy_url"))?;
    let proxy = Proxy::all(url.clone()).map_err(|_| invalid("proxy_url"))?;
    Ok(Some((url, proxy.headers(headers))))
}

/// Reads a response up to its maximum size.
async fn read(host: &Url, mut response: Response) -> Result<Vec<u8>, IssueError> {
    let mut text = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| unavailable(host, &error))? {
        if text.len() + chunk.len() > MAX_BYTES {
            return Err(IssueError::Unavailable(format!("{}: the response exceeds {MAX_BYTES} bytes", shown(host))));
        }
        text.extend_from_slice(&chunk);
    }
    Ok(text)
}

/// A host without its path.
fn shown(host: &Url) -> String {
    format!("{}://{}:{}", host.scheme(), host.host_str().unwrap_or_default(), host.port_or_known_default().unwrap_or(0))
}

fn unavailable(host: &Url, error: &reqwest::Error) -> IssueError {
    let host = shown(host);
    if error.is_timeout() {
        return IssueError::Unavailable(format!("{host}: no response in time"));
    }
    // The innermost cause says what happened; the outer ones name the operation and the URL.
    let causes = || std::iter::successors(error.source(), |error| (*error).source());
    let resolved = causes().find_map(|cause| cause.downcast_ref::<ResolveError>());
    if let Some(refused @ ResolveError::NotPermitted(_)) = resolved {
        return unusable(format!("{host}: {refused}"));
    }
    let cause = causes().last().map_or_else(|| "the connection failed".to_owned(), ToString::to_string);
    IssueError::Unavailable(format!("{host}: {}", shortened_to(&cause, REASON_BYTES)))
}

/// Tells what a response other than success means.
fn refusal(host: &Url, status: StatusCode, headers: &HeaderMap, answer: Option<&Value>) -> IssueError {
    let host = shown(host);
    let Some(answer) = answer else {
        // A proxy, a load balancer's error page, or another service.
        let kind = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("no content type");
        let kind = shortened_to(kind, 80);
        return match status {
            StatusCode::TOO_MANY_REQUESTS => overloaded(format!("{host}: 429"), headers),
            _ => IssueError::Unavailable(format!("{host}: not a response of Elasticsearch: {status}, {kind}")),
        };
    };
    let said = answer["error"]["reason"].as_str().or(answer["error"].as_str()).unwrap_or("no reason");
    let reason = format!("{host}: {}: {}", status.as_u16(), shortened_to(said, REASON_BYTES));
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => IssueError::Refused(reason),
        StatusCode::TOO_MANY_REQUESTS => overloaded(reason, headers),
        StatusCode::BAD_REQUEST | StatusCode::NOT_FOUND | StatusCode::CONFLICT | StatusCode::PAYLOAD_TOO_LARGE => {
            IssueError::Rejected(reason)
        }
        _ => IssueError::Unavailable(reason),
    }
}

fn overloaded(reason: String, headers: &HeaderMap) -> IssueError {
    let seconds = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse().ok());
    IssueError::Overloaded { reason, retry_after: seconds.map(Duration::from_secs) }
}
