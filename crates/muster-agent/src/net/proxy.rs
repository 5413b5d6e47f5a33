//! HTTP proxies: a tunnel to the server, which only the two ends can read.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::Uri;
use muster_core::error_chain::SharedError;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::Server;
use crate::state::enrollment::Secret;

/// Maximum size of the head of a proxy's response.
const HEAD_MAX: usize = 16 << 10;
/// Maximum number of headers in that response.
const HEADERS_MAX: usize = 64;
/// Default port of proxies, as in curl.
const DEFAULT_PORT: u16 = 1080;

/// A proxy, as it is stored. URL and headers can contain credentials.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proxy {
    /// `http://[USER:PASSWORD@]HOST:PORT`.
    pub url: Secret,
    /// Additional headers of the requests to the proxy.
    #[serde(default)]
    pub headers: Vec<(String, Secret)>,
}

/// Why a proxy cannot be used. The texts contain no credentials.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadProxy {
    /// The URL cannot be parsed.
    #[error("not a URL of the form http://[USER:PASSWORD@]HOST:PORT")]
    NotUrl,
    /// A TLS connection to the proxy.
    #[error("the scheme must be http; the connection to the server through the proxy is encrypted anyway")]
    Scheme,
    /// A header is malformed.
    #[error("the header {0:?} is malformed")]
    Header(String),
}

/// A proxy that can be connected to.
#[derive(Clone)]
pub struct Tunnel {
    host: String,
    port: u16,
    /// Lines of the request after the first two.
    headers: String,
}

impl Proxy {
    /// Parses the URL and the headers.
    pub fn tunnel(&self) -> Result<Tunnel, BadProxy> {
        let text = self.url.expose();
        // A proxy is often configured without a scheme, as in `http_proxy`.
        let whole = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
        let uri: Uri = whole.parse().map_err(|_| BadProxy::NotUrl)?;
        // Only plain HTTP: the tunnel carries TLS to the server in any case.
        if uri.scheme_str() != Some("http") {
            return Err(BadProxy::Scheme);
        }
        let authority = uri.authority().filter(|authority| !authority.host().is_empty()).ok_or(BadProxy::NotUrl)?;
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let mut headers = String::new();
        if let Some((user, _)) = authority.as_str().rsplit_once('@') {
            // Escapes in the URL are those of user and password themselves.
            let plain = percent_encoding::percent_decode_str(user).collect::<Vec<u8>>();
            headers.push_str(&format!("Proxy-Authorization: Basic {}\r\n", STANDARD.encode(plain)));
        }
        for (name, value) in &self.headers {
            // A line break in a value would begin another header.
            let valid = http::HeaderName::try_from(name.as_str()).is_ok()
                && http::HeaderValue::from_str(value.expose()).is_ok_and(|value| value.to_str().is_ok());
            if !valid {
                return Err(BadProxy::Header(name.clone()));
            }
            headers.push_str(&format!("{name}: {}\r\n", value.expose()));
        }
        Ok(Tunnel { host, port: authority.port_u16().unwrap_or(DEFAULT_PORT), headers })
    }
}

impl Tunnel {
    /// Returns its address, without credentials.
    pub fn address(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    /// Returns whether the server is reached through the proxy. One on this host never is: the proxy could not reach it.
    pub fn serves(&self, server: &Server) -> bool {
        !server.is_loopback()
    }

    /// Connects to the server through the proxy.
    pub async fn connect(&self, server: &Server) -> Result<TcpStream, SharedError> {
        let named = |error: std::io::Error| SharedError::from(format!("proxy {}:{}: {error}", self.host, self.port));
        let mut stream = TcpStream::connect((self.host.as_str(), self.port)).await.map_err(named)?;
        let to = server.authority();
        // The absolute form of the server only; the proxy sees no path and no key.
        let request = format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n{}\r\n", self.headers);
        stream.write_all(request.as_bytes()).await.map_err(named)?;
        let head = head(&mut stream).await.map_err(named)?;
        match status(&head) {
            Some(200..=299) => Ok(stream),
            Some(407) => Err(self.refused("it requires different credentials (407)")),
            Some(status) => Err(self.refused(&format!("it refused the connection ({status})"))),
            None => Err(self.refused("the response is not HTTP")),
        }
    }

    fn refused(&self, reason: &str) -> SharedError {
        SharedError::from(format!("proxy {}:{}: {reason}", self.host, self.port))
    }
}

/// Reads the head of a response, and nothing behind it.
async fn head(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() >= HEAD_MAX {
            return Err(std::io::ErrorKind::InvalidData.into());
        }
        // Byte by byte: what follows the head belongs to the TLS connection.
        head.push(stream.read_u8().await?);
    }
    Ok(head)
}

fn status(head: &[u8]) -> Option<u16> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut response = httparse::Response::new(&mut headers);
    response.parse(head).ok().filter(httparse::Status::is_complete)?;
    response.code
}

/// Returns whether a list such as that of `NO_PROXY` contains the server.
pub fn is_exempt(list: &str, server: &Server) -> bool {
    list.split(',').map(str::trim).filter(|entry| !entry.is_empty()).any(|entry| {
        let name = entry.trim_start_matches("*.").trim_start_matches('.');
        let host = server.host.as_str();
        // A name covers its subdomains, with or without a leading dot, as in curl.
        entry == "*" || host == name || host.strip_suffix(name).is_some_and(|rest| rest.ends_with('.'))
    })
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncBufReadExt as _;

    use super::*;

    fn proxy(url: &str) -> Proxy {
        Proxy { url: Secret::new(url), headers: Vec::new() }
    }

    #[test]
    fn urls_of_proxies_are_parsed_and_errors_contain_no_password() {
        let tunnel = proxy("http://us%40er:pass%3Aword@proxy.example:3128").tunnel().unwrap();
        assert_eq!((tunnel.host.as_str(), tunnel.port), ("proxy.example", 3128));
        assert_eq!(tunnel.headers, format!("Proxy-Authorization: Basic {}\r\n", STANDARD.encode("us@er:pass:word")));
        assert_eq!(proxy("proxy:8080").tunnel().unwrap().port, 8080);
        assert_eq!(proxy("[::1]").tunnel().unwrap().host, "::1");
        assert_eq!(proxy("https://u:secret@proxy").tunnel().err(), Some(BadProxy::Scheme));
        assert_eq!(proxy("http://u:secret@").tunnel().err(), Some(BadProxy::NotUrl));
        let split = Proxy { headers: vec![("X-A".into(), Secret::new("a\r\nb"))], ..proxy("p:1") };
        assert_eq!(split.tunnel().err(), Some(BadProxy::Header("X-A".into())));
    }

    #[test]
    fn exempt_servers_are_named_by_host_or_domain() {
        let server = Server::parse("https://fleet.example:8220").unwrap();
        for list in ["fleet.example", "other, .example", "*.example", "*", "example"] {
            assert!(is_exempt(list, &server), "{list}");
        }
        for list in ["", "fleet.exampl", "eet.example", "other.example"] {
            assert!(!is_exempt(list, &server), "{list}");
        }
    }

    /// A proxy that gives this answer. Returns its address, and the request.
    async fn answering(answer: &'static str) -> (String, tokio::task::JoinHandle<String>) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let task = tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let (mut stream, mut request) = (tokio::io::BufReader::new(stream), String::new());
            while !request.ends_with("\r\n\r\n") {
                stream.read_line(&mut request).await.unwrap();
            }
            stream.get_mut().write_all(answer.as_bytes()).await.unwrap();
            request
        });
        (address, task)
    }

    #[tokio::test]
    async fn a_tunnel_asks_for_the_server_and_reports_refusals() {
        let server = Server::parse("https://fleet.example:8220").unwrap();
        let (address, request) = answering("HTTP/1.1 200 Connection established\r\nX: y\r\n\r\n").await;
        let tunnel = proxy(&format!("http://u:p@{address}")).tunnel().unwrap();
        tunnel.connect(&server).await.unwrap();
        let expected = "CONNECT fleet.example:8220 HTTP/1.1\r\nHost: fleet.example:8220\r\nProxy-Authorization: Basic dTpw\r\n\r\n";
        assert_eq!(request.await.unwrap(), expected);
        for (answer, reason) in [
            ("HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", "different credentials (407)"),
            ("HTTP/1.0 503 Busy\r\n\r\n", "(503)"),
            ("SSH-2.0\r\n\r\n", "not HTTP"),
            ("HTTP/1.1 2000 OK\r\n\r\n", "not HTTP"),
            ("HTTP/1.1 200 OK\r\nno header\r\n\r\n", "not HTTP"),
            ("HTTP/1.1 2", "end of file"),
        ] {
            let (address, _request) = answering(answer).await;
            let error = proxy(&address).tunnel().unwrap().connect(&server).await.unwrap_err().to_string();
            assert!(error.starts_with("proxy 127.0.0.1:") && error.contains(reason), "{error}");
        }
        assert!(!tunnel.serves(&Server::parse("https://localhost:8221").unwrap()));
    }
}
