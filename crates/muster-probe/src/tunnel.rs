//! The tunnel through a proxy (`CONNECT`).

use http::header::{HeaderName, HeaderValue, PROXY_AUTHORIZATION};
use muster_core::connection_test::Cause;
use reqwest::Url;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::fault::{Fault, of_io};
use crate::stream::Stream;
use crate::{authority, basic_of, host};

/// Maximum length of the head of the proxy's response, bytes.
const HEAD_MAX: usize = 16 << 10;
/// Maximum headers in it.
const HEADERS_MAX: usize = 100;

/// Has the proxy connect to the target.
pub(crate) async fn open(
    stream: &mut Box<dyn Stream>,
    target: &Url,
    proxy: &Url,
    headers: &[(String, String)],
) -> Result<(), Fault> {
    let to = authority(target);
    let mut request = format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n").into_bytes();
    for (name, value) in headers_for(proxy, headers)? {
        request.extend_from_slice(name.as_str().as_bytes());
        request.extend_from_slice(b": ");
        request.extend_from_slice(value.as_bytes());
        request.extend_from_slice(b"\r\n");
    }
    request.extend_from_slice(b"\r\n");
    stream.write_all(&request).await.map_err(|error| of_io(&error))?;
    stream.flush().await.map_err(|error| of_io(&error))?;
    let head = head(stream, proxy).await?;
    check(status(&head), proxy, &to)
}

/// Rejects the response of a proxy that does not let the request pass.
fn check(status: Option<u16>, proxy: &Url, to: &str) -> Result<(), Fault> {
    let name = host(proxy);
    match status {
        Some(200..=299) => Ok(()),
        Some(407) => Err(Fault::of(Cause::ProxyCredentials, format!("{name} requires other credentials (407)"))),
        Some(status) => {
            Err(Fault::of(Cause::ProxyRefused, format!("{name} does not connect to {to}: it responds with {status}")))
        }
        None => Err(Fault::of(Cause::NotHttp, format!("{name} does not respond like an HTTP proxy"))),
    }
}

/// Returns the headers for a proxy, with the credentials of its URL.
pub(crate) fn headers_for(proxy: &Url, headers: &[(String, String)]) -> Result<Vec<(HeaderName, HeaderValue)>, Fault> {
    let of_url = basic_of(proxy).map(|value| (PROXY_AUTHORIZATION.as_str().to_owned(), value));
    // The value of a header may be a secret.
    let invalid = |name: &str| Fault::of(Cause::Settings, format!("the header {name} is invalid"));
    let parsed = of_url.iter().chain(headers).map(|(name, value)| {
        let parsed = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(value));
        let (Ok(header), Ok(value)) = parsed else { return Err(invalid(name)) };
        Ok((header, value))
    });
    parsed.collect()
}

/// Reads the head of a response, and nothing behind it.
async fn head(stream: &mut Box<dyn Stream>, proxy: &Url) -> Result<Vec<u8>, Fault> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() >= HEAD_MAX {
            return Err(Fault::of(Cause::NotHttp, format!("the response of {} is too long", host(proxy))));
        }
        // Byte by byte: what follows the head belongs to the connection through the tunnel.
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
                return Err(Fault::of(Cause::ProxyRefused, format!("{} closes the connection", host(proxy))));
            }
            Err(error) => return Err(of_io(&error)),
        }
    }
    Ok(head)
}

fn status(head: &[u8]) -> Option<u16> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut response = httparse::Response::new(&mut headers);
    response.parse(head).ok().filter(httparse::Status::is_complete)?;
    response.code
}
