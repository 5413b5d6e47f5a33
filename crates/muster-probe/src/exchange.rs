//! One request over the connection of a test.

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderName, HeaderValue, USER_AGENT};
use http::{Method, Request};
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use muster_core::connection_test::{Answer, Cause, Expected, Target};
use muster_core::error_chain::chain;
use tokio::task::JoinSet;

use crate::fault::Fault;
use crate::stream::{Route, Stream};
use crate::{authority, basic, basic_of, tunnel};

/// Maximum length of the head of a response, bytes.
const HEAD_MAX: usize = 64 << 10;
/// Maximum length of what is read of a body, bytes.
const BODY_MAX: usize = 64 << 10;

/// Requests a path below the URL of the target.
pub(crate) async fn ask(
    stream: Box<dyn Stream>,
    route: &Route<'_>,
    target: &Target,
    path: String,
) -> Result<Answer, Fault> {
    let request = request(route, target, &path)?;
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(HEAD_MAX)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| failed(&error))?;
    // Dropping the set ends the connection, whatever is left of the response.
    let mut driver = JoinSet::new();
    driver.spawn(connection);
    let response = sender.send_request(request).await.map_err(|error| failed(&error))?;
    let status = response.status().as_u16();
    let content_type = response.headers().get(CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    let content_type = String::from_utf8_lossy(content_type).into_owned();
    let (mut body, mut rest) = (Vec::new(), response.into_body());
    while body.len() < BODY_MAX {
        let Some(frame) = rest.frame().await else { break };
        if let Ok(data) = frame.map_err(|error| failed(&error))?.into_data() {
            body.extend_from_slice(&data[..data.len().min(BODY_MAX - body.len())]);
        }
    }
    Ok(Answer { path, status, content_type, body })
}

fn request(route: &Route<'_>, target: &Target, path: &str) -> Result<Request<Empty<Bytes>>, Fault> {
    let invalid = |what: &str| Fault::of(Cause::Settings, format!("{what} is invalid"));
    let below = format!("{}/{path}", route.url.path().trim_end_matches('/'));
    let is_forwarded = route.is_forwarded(target.expected);
    let uri = if is_forwarded { format!("http://{}{below}", authority(route.url)) } else { below };
    // A package has hundreds of megabytes, of which nothing is needed.
    let method = if target.expected == Expected::Packages { Method::HEAD } else { Method::GET };
    let mut request = Request::builder()
        .method(method)
        .uri(uri)
        .header(HOST, authority(route.url))
        .header(USER_AGENT, concat!("muster/", env!("CARGO_PKG_VERSION")))
        .body(Empty::new())
        .map_err(|_| invalid("the path of the URL"))?;
    let headers = request.headers_mut();
    if let (true, Some((proxy, via))) = (is_forwarded, route.via) {
        headers.extend(tunnel::headers_for(proxy, &via.headers)?);
    }
    let credential = match &target.basic {
        Some((user, password)) => Some(basic(user, password)),
        None => basic_of(route.url),
    };
    if let Some(credential) = credential {
        headers.insert(AUTHORIZATION, HeaderValue::from_str(&credential).map_err(|_| invalid("the password"))?);
    }
    for (name, value) in &target.headers {
        let header = HeaderName::from_bytes(name.as_bytes()).map_err(|_| invalid("the name of a header"))?;
        headers.insert(header, HeaderValue::from_str(value).map_err(|_| invalid("the value of a header"))?);
    }
    Ok(request)
}

fn failed(error: &hyper::Error) -> Fault {
    let cause = if error.is_parse() || error.is_incomplete_message() { Cause::NotHttp } else { Cause::Other };
    // TLS 1.3 rejects a client certificate only after the handshake: the error arrives with the first response.
    let io = std::error::Error::source(error).and_then(|source| source.downcast_ref::<std::io::Error>());
    match io {
        Some(io) => crate::fault::of_io(io),
        None => Fault::of(cause, chain(error).to_string()),
    }
}
