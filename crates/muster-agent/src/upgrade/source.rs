//! Places from which packages are downloaded: the server of the fleet, a mirror, or a directory of this host.
//!
//! Files are read in ranges, so that a download needs little memory and continues after an interruption.

use std::io::{self, Read, Seek, SeekFrom};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use camino::{Utf8Path, Utf8PathBuf};
use http::header::{ACCEPT, CONTENT_RANGE, HeaderMap, HeaderValue, LOCATION, RANGE, USER_AGENT};
use http::{Method, Uri};
use muster_core::error_chain::chain;

use crate::fleet::client::Call;
use crate::fleet::{CallError, FleetClient};
use crate::net::{Reached, Request, Response, Server, Transport, TransportError};
use crate::regular_file;
use crate::version;

/// Time to receive one range.
const RANGE_TIMEOUT: Duration = Duration::from_secs(300);

/// Creates a client for mirrors. It is created only when a mirror is used, because a trust store needs memory.
pub type Mirrors = Arc<dyn Fn() -> Result<Arc<dyn Transport>, String> + Send + Sync>;

/// A place with packages.
#[derive(Clone)]
pub enum Source {
    /// The server of the fleet.
    Fleet(Arc<FleetClient>),
    /// A web server. It gets no credentials.
    Mirror(Arc<dyn Transport>, Server),
    /// A directory.
    Directory(Utf8PathBuf),
}

/// Why a range could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FetchError {
    /// Another attempt would fail too.
    Final(String),
    /// Another attempt may succeed.
    Temporary(String),
}

impl Source {
    /// Parses a URL with the scheme `https`, `http` or `file`.
    pub fn parse(url: &str, mirrors: &Mirrors) -> Result<Self, String> {
        if let Some(path) = url.strip_prefix("file://") {
            let path = Utf8PathBuf::from(path);
            return if path.is_absolute() {
                Ok(Self::Directory(path))
            } else {
                Err(format!("{url:?}: the path is not absolute"))
            };
        }
        Ok(Self::Mirror(mirrors()?, mirror(url)?))
    }

    /// Reads at most `length` bytes of a file from an offset. The result is shorter only at the end of the file, and
    /// longer if the source does not support ranges.
    pub async fn read(&self, name: &str, offset: u64, length: u64) -> Result<Bytes, FetchError> {
        // Both ends are inclusive (RFC 9110 §14.1.2).
        let range = format!("bytes={offset}-{}", offset + length.max(1) - 1);
        let response = match self {
            Self::Directory(path) => {
                let read = read_file(&path.join(name), offset, length);
                return read.map_err(|error| FetchError::Final(chain(&error).to_string()));
            }
            Self::Fleet(client) => from_fleet(client, name, &range).await?,
            Self::Mirror(transport, server) => from_mirror(&**transport, server, name, &range).await?,
        };
        body(&response, offset)
    }
}

/// Parses the URL of a mirror. Unlike the URL of a fleet server, it has the default ports of the web.
fn mirror(url: &str) -> Result<Server, String> {
    let bad = |reason: &str| {
        format!("invalid URL of a download source {:?}: {reason}", url.chars().take(200).collect::<String>())
    };
    let uri: Uri = url.parse().map_err(|_| bad("not a URL"))?;
    let tls = match uri.scheme_str() {
        Some("https") => true,
        Some("http") => false,
        _ => return Err(bad("the scheme must be https, http or file")),
    };
    let authority = uri.authority().ok_or_else(|| bad("no host"))?;
    // Credentials in a URL would end up in logs and reports; a query has no meaning for files in a directory.
    if authority.as_str().contains('@') || uri.query().is_some() {
        return Err(bad("credentials and queries are not allowed"));
    }
    let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
    let port = authority.port_u16().unwrap_or(if tls { 443 } else { 80 });
    Ok(Server { tls, host, port, prefix: uri.path().trim_end_matches('/').to_owned() })
}

async fn from_fleet(client: &FleetClient, name: &str, range: &str) -> Result<Response, FetchError> {
    let call = Call {
        method: Method::GET,
        path: format!("/api/fleet/file/{name}"),
        body: Bytes::new(),
        timeout: RANGE_TIMEOUT,
        headers: vec![(RANGE, header(range)?)],
        reached: Reached::default(),
    };
    let failed = |error: &CallError| match error {
        CallError::Transport(error) => of_transport(error),
        other => FetchError::Final(chain(other).to_string()),
    };
    let response = client.send(call).await.map_err(|error| failed(&error))?;
    // The name of the error says less than that of the file, which tells the version and the platform.
    let shown = || match response.status {
        404 => format!("the server has no file {name}; upload the package with `muster package upload`"),
        _ => format!("{name}: {}", chain(&CallError::from_reply(&response))),
    };
    accept(response.status, shown).map(|()| response)
}

async fn from_mirror(
    transport: &dyn Transport,
    server: &Server,
    name: &str,
    range: &str,
) -> Result<Response, FetchError> {
    let mut headers = HeaderMap::new();
    headers.insert(RANGE, header(range)?);
    headers.insert(ACCEPT, HeaderValue::from_static("*/*"));
    headers.insert(USER_AGENT, header(&format!("muster-agent/{}", version::agent_version()))?);
    let request = Request {
        method: Method::GET,
        path: format!("/{name}"),
        headers,
        body: Bytes::new(),
        timeout: RANGE_TIMEOUT,
        reached: Reached::default(),
    };
    let response = transport.send(server, request).await.map_err(|error| of_transport(&error))?;
    let shown = || {
        let location = response.headers.get(LOCATION).and_then(|value| value.to_str().ok());
        // Redirects are not followed: they could lead to a host that the policy does not name.
        let to =
            location.map(|to| format!(" to {:?}, which is not followed", to.chars().take(200).collect::<String>()));
        format!("{server}/{name}: the server responded with {}{}", response.status, to.unwrap_or_default())
    };
    accept(response.status, shown).map(|()| response)
}

fn header(text: &str) -> Result<HeaderValue, FetchError> {
    HeaderValue::from_str(text).map_err(|error| FetchError::Final(chain(&error).to_string()))
}

/// Classifies a status (AG §8.3): those that mean "not here" or "not you" are final (AG122).
fn accept(status: u16, shown: impl FnOnce() -> String) -> Result<(), FetchError> {
    match status {
        200 | 206 => Ok(()),
        // Try again: the source is there, but busy or broken for now.
        408 | 429 | 500.. => Err(FetchError::Temporary(shown())),
        _ => Err(FetchError::Final(shown())),
    }
}

/// Returns the bytes from `offset`.
fn body(response: &Response, offset: u64) -> Result<Bytes, FetchError> {
    if response.status == 200 {
        // The whole file, because the source does not support ranges. Its size was limited when it was received.
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(response.body.len());
        return Ok(response.body.slice(start..));
    }
    let range = response.headers.get(CONTENT_RANGE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    // Another range than the requested one would be put at the wrong place.
    if !range.starts_with(&format!("bytes {offset}-")) {
        return Err(FetchError::Final(format!(
            "the server sent another range: {:?}",
            range.chars().take(60).collect::<String>()
        )));
    }
    Ok(response.body.clone())
}

fn read_file(path: &Utf8Path, offset: u64, length: u64) -> io::Result<Bytes> {
    let mut file =
        regular_file::open(path).map_err(|error| io::Error::new(error.kind(), format!("{path}: {error}")))?;
    file.seek(SeekFrom::Start(offset))?;
    let mut bytes = Vec::new();
    file.take(length).read_to_end(&mut bytes)?;
    Ok(bytes.into())
}

fn of_transport(error: &TransportError) -> FetchError {
    let text = chain(error).to_string();
    // A certificate does not become valid by another attempt.
    match error {
        TransportError::Connect { .. } | TransportError::Timeout(_) | TransportError::Broken(_) => {
            FetchError::Temporary(text)
        }
        TransportError::Tls { .. } | TransportError::TooLarge => FetchError::Final(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mirror_has_the_ports_of_the_web_and_no_credentials() {
        let parse = |url: &str| mirror(url).map(|server| server.to_string());
        assert_eq!(parse("https://mirror.example/agents/").unwrap(), "https://mirror.example:443/agents");
        assert_eq!(parse("http://[::1]/").unwrap(), "http://[::1]:80");
        for bad in ["mirror.example", "ftp://mirror.example", "https://u:p@mirror.example", "https://m.example/?a=b"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_range_must_be_the_requested_one() {
        let reply = |status, range: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_RANGE, range.parse().unwrap());
            Response { status, headers, body: Bytes::from_static(b"0123456789") }
        };
        assert_eq!(body(&reply(206, "bytes 4-13/20"), 4).unwrap().len(), 10);
        assert!(matches!(body(&reply(206, "bytes 0-9/20"), 4), Err(FetchError::Final(_))));
        assert_eq!(body(&reply(200, ""), 4).unwrap(), "456789");
        assert!(body(&reply(200, ""), 40).unwrap().is_empty());
    }

    #[test]
    fn ag122_a_missing_package_is_final_and_a_busy_server_is_not() {
        for status in [301, 400, 401, 403, 404, 410, 416] {
            assert!(matches!(accept(status, String::new), Err(FetchError::Final(_))), "{status}");
        }
        for status in [408, 429, 500, 502, 503, 504] {
            assert!(matches!(accept(status, String::new), Err(FetchError::Temporary(_))), "{status}");
        }
    }
}
