//! Parses the head of a request with `httparse`, and checks it against the rules that prevent request smuggling, in
//! which a proxy and the server disagree on where a request ends (RFC 9112 §§2.2, 3.2, 6.3; D23).

use std::mem::MaybeUninit;
use std::ops::Range;

use bytes::{Bytes, BytesMut};
use http::header::{CONNECTION, CONTENT_LENGTH, EXPECT, HOST, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, Version};

use super::proxy_protocol;
use super::refusal::Refusal;

/// Maximum length of the head of a request in bytes (EA §1.3).
pub(super) const MAX_HEAD: usize = 8192;
/// Maximum number of header lines of a request.
const MAX_LINES: usize = 100;

/// Length of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Length {
    /// A number of bytes; 0 if there is no body.
    Exact(u64),
    /// Determined by the chunks.
    Chunked,
}

/// A complete head.
#[derive(Debug)]
pub(super) struct Head {
    /// Method, target, version and headers.
    pub request: Request<()>,
    /// Length of the body that follows.
    pub length: Length,
    /// Whether the client allows another request on the connection.
    pub keep_alive: bool,
    /// Whether the client waits for a 100 before it sends the body.
    pub expects_continue: bool,
}

/// Offsets of a header line in the head.
struct Line {
    name: Range<usize>,
    value: Range<usize>,
}

/// Offsets of the parts of a head. With offsets instead of slices, the parser's borrow of the buffer ends before the
/// head is split off, and names and values can share its memory.
struct Layout {
    length: usize,
    method: Method,
    target: Range<usize>,
    version: Version,
    lines: Vec<Line>,
}

/// Removes a head from the front of `input`. Returns `None` if the head is incomplete.
pub(super) fn take(input: &mut BytesMut) -> Result<Option<Head>, Refusal> {
    let Some(layout) = layout(input)? else {
        return if input.len() > MAX_HEAD { Err(Refusal::HeadTooLarge) } else { Ok(None) };
    };
    // The raw bytes are checked, because the parsed head does not contain the line ends.
    check_line_ends(&input[..layout.length])?;
    if layout.length > MAX_HEAD {
        return Err(Refusal::HeadTooLarge);
    }
    let bytes = input.split_to(layout.length).freeze();
    let headers = headers(&bytes, &layout.lines)?;
    check_host(&headers, layout.version)?;
    let length = length(&headers, layout.version)?;
    let mut request = Request::new(());
    *request.uri_mut() = Uri::from_maybe_shared(bytes.slice(layout.target))
        .map_err(|_| Refusal::Malformed("the request target is not a URI"))?;
    *request.method_mut() = layout.method;
    *request.version_mut() = layout.version;
    // HTTP/1.0 connections are closed after the response. `Connection: keep-alive` was never standardized for them, and
    // proxies that forward it blindly leave connections hanging (RFC 9112 Appendix C.2.2).
    let is_11 = layout.version == Version::HTTP_11;
    let keep_alive = is_11 && !has_token(&headers, &CONNECTION, "close");
    let expects_continue = is_11 && has_token(&headers, &EXPECT, "100-continue");
    *request.headers_mut() = headers;
    Ok(Some(Head { request, length, keep_alive, expects_continue }))
}

fn layout(input: &[u8]) -> Result<Option<Layout>, Refusal> {
    // The array is uninitialized, because clearing 100 headers would cost more than parsing the few headers of a
    // request.
    let mut space = [const { MaybeUninit::uninit() }; MAX_LINES];
    let mut request = httparse::Request::new(&mut []);
    let length = match request.parse_with_uninit_headers(input, &mut space) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(_) if proxy_protocol::is_header(input) => return Err(Refusal::ProxyProtocol),
        Err(error) => return Err(refused(error)),
    };
    let place = |part: &[u8]| {
        // httparse returns slices of its input. Their positions outlive the borrow.
        let start = part.as_ptr().addr() - input.as_ptr().addr();
        start..start + part.len()
    };
    let method = Method::from_bytes(request.method.unwrap_or_default().as_bytes())
        .map_err(|_| Refusal::Malformed("the request method is not a token"))?;
    Ok(Some(Layout {
        length,
        method,
        target: place(request.path.unwrap_or_default().as_bytes()),
        version: if request.version == Some(1) { Version::HTTP_11 } else { Version::HTTP_10 },
        lines: request
            .headers
            .iter()
            .map(|line| Line { name: place(line.name.as_bytes()), value: place(line.value) })
            .collect(),
    }))
}

/// Rejects a bare LF in a head. Some servers treat it as a line end and some do not (RFC 9112 §2.2). `httparse` does.
fn check_line_ends(head: &[u8]) -> Result<(), Refusal> {
    // The loop runs for every request, and has no early exit so that it can be vectorized.
    let bare = |found, (before, at): (&u8, &u8)| found | (*at == b'\n' && *before != b'\r');
    if head.first() == Some(&b'\n') || head.iter().zip(&head[1..]).fold(false, bare) {
        return Err(Refusal::Malformed("a line of the head ends in a bare LF instead of CRLF"));
    }
    Ok(())
}

fn refused(error: httparse::Error) -> Refusal {
    match error {
        httparse::Error::TooManyHeaders => Refusal::HeadTooLarge,
        httparse::Error::HeaderName => Refusal::Malformed("a header name contains an invalid character"),
        httparse::Error::HeaderValue => Refusal::Malformed("a header value contains a control character"),
        httparse::Error::NewLine => Refusal::Malformed("a line of the head is not terminated"),
        httparse::Error::Version => Refusal::Malformed("the version is not HTTP/1.1 or HTTP/1.0"),
        httparse::Error::Token | httparse::Error::Status => Refusal::Malformed("the request line is not HTTP"),
    }
}

fn headers(head: &Bytes, lines: &[Line]) -> Result<HeaderMap, Refusal> {
    let mut headers = HeaderMap::with_capacity(lines.len());
    for Line { name, value } in lines {
        let name = HeaderName::from_bytes(&head[name.clone()])
            .map_err(|_| Refusal::Malformed("a header name contains an invalid character"))?;
        let value = HeaderValue::from_maybe_shared(head.slice(value.clone()))
            .map_err(|_| Refusal::Malformed("a header value contains a control character"))?;
        headers.append(name, value);
    }
    Ok(headers)
}

/// Requires exactly one `Host`; HTTP/1.0 may omit it (RFC 9112 §3.2).
fn check_host(headers: &HeaderMap, version: Version) -> Result<(), Refusal> {
    // With two Host headers, a proxy and the server could choose different ones.
    match headers.get_all(HOST).iter().count() {
        1 => Ok(()),
        0 if version == Version::HTTP_10 => Ok(()),
        0 => Err(Refusal::Malformed("the Host header is missing")),
        _ => Err(Refusal::Malformed("duplicate Host header")),
    }
}

/// Returns the length of the body. A length that is specified twice or in an unusual form is rejected, even if the RFC
/// allows a recovery. Such a request is an attempt at smuggling, or comes from a faulty proxy.
fn length(headers: &HeaderMap, version: Version) -> Result<Length, Refusal> {
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    let stated = lengths.next();
    let mut encodings = headers.get_all(TRANSFER_ENCODING).iter();
    match (stated, encodings.next()) {
        (None, None) => Ok(Length::Exact(0)),
        (Some(_), Some(_)) => Err(Refusal::Length("both Content-Length and Transfer-Encoding are set")),
        (Some(_), None) if lengths.next().is_some() => Err(Refusal::Length("duplicate Content-Length header")),
        (Some(stated), None) => exact(stated),
        (None, Some(encoding)) => {
            let chunked = encodings.next().is_none() && encoding.as_bytes().eq_ignore_ascii_case(b"chunked");
            if chunked && version == Version::HTTP_11 {
                return Ok(Length::Chunked);
            }
            Err(Refusal::Length("Transfer-Encoding is not exactly chunked"))
        }
    }
}

fn exact(stated: &HeaderValue) -> Result<Length, Refusal> {
    // `parse` alone would accept a leading `+`.
    let text = stated.to_str().ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    let bytes = text.and_then(|text| text.parse().ok());
    bytes.map(Length::Exact).ok_or(Refusal::Length("Content-Length is not a number of bytes"))
}

/// Returns whether a comma-separated header contains `token`, ignoring case.
pub(super) fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    let holds = |value: &HeaderValue| {
        value.to_str().is_ok_and(|text| text.split(',').any(|one| one.trim().eq_ignore_ascii_case(token)))
    };
    headers.get_all(name).iter().any(holds)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(head: &str) -> Result<Option<Head>, Refusal> {
        take(&mut BytesMut::from(head))
    }

    fn whole(lines: &str) -> Result<Head, Refusal> {
        of(&format!("POST /a?b=c HTTP/1.1\r\nhost: h\r\n{lines}\r\n")).map(|head| head.expect("it is whole"))
    }

    #[test]
    fn a_head_is_consumed_and_the_bytes_after_it_stay() {
        let mut input = BytesMut::from("\r\nPUT /a?b=c HTTP/1.1\r\nHost: h\r\nX-One:  1 \r\nx-one: 2\r\n\r\nrest");
        let head = take(&mut input).unwrap().unwrap();
        assert_eq!((head.request.method(), head.request.uri().path()), (&Method::PUT, "/a"));
        assert_eq!(head.request.headers().get_all("x-one").iter().collect::<Vec<_>>(), ["1", "2"]);
        assert_eq!((head.length, head.keep_alive, head.expects_continue), (Length::Exact(0), true, false));
        assert_eq!(&input[..], b"rest");
    }

    #[test]
    fn a_head_is_parsed_the_same_when_it_arrives_byte_by_byte() {
        let text = "GET / HTTP/1.1\r\nhost: h\r\ntransfer-encoding: Chunked\r\n\r\n";
        let mut input = BytesMut::new();
        for (at, byte) in text.bytes().enumerate() {
            input.extend_from_slice(&[byte]);
            let head = take(&mut input).unwrap();
            assert_eq!(head.is_some(), at + 1 == text.len(), "after {at} bytes");
            if let Some(head) = head {
                assert_eq!(head.length, Length::Chunked);
            }
        }
    }

    #[test]
    fn d23_a_length_must_be_unique_and_decimal() {
        assert_eq!(whole("content-length: 42\r\n").unwrap().length, Length::Exact(42));
        for lines in [
            "content-length: 3\r\ncontent-length: 4\r\n",
            "content-length: 3\r\ncontent-length: 3\r\n",
            "content-length: 3, 3\r\n",
            "content-length: -1\r\n",
            "content-length: +1\r\n",
            "content-length: \r\n",
            "content-length: 0x10\r\n",
            "content-length: 99999999999999999999999999\r\n",
            "content-length: 3\r\ntransfer-encoding: chunked\r\n",
            "transfer-encoding: chunked\r\ncontent-length: 3\r\n",
            "transfer-encoding: gzip\r\n",
            "transfer-encoding: chunked, chunked\r\n",
            "transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n",
            "transfer-encoding: chunked;q=1\r\n",
        ] {
            assert!(matches!(whole(lines), Err(Refusal::Length(_))), "{lines}");
        }
        assert!(matches!(of("POST / HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n"), Err(Refusal::Length(_))));
    }

    #[test]
    fn exactly_one_host_header_is_required() {
        assert!(matches!(of("GET / HTTP/1.1\r\n\r\n"), Err(Refusal::Malformed(_))));
        assert!(matches!(of("GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n"), Err(Refusal::Malformed(_))));
        assert!(of("GET / HTTP/1.0\r\n\r\n").unwrap().is_some());
    }

    #[test]
    fn malformed_heads_are_rejected_with_a_reason() {
        for head in [
            "\0\u{1}\u{2}\r\n\r\n",
            "GET / HTTP/1.1\r\nbad header\r\n\r\n",
            "GET / HTTP/1.1\r\nhost: h\r\n folded: x\r\n\r\n",
            "GET / HTTP/1.1\r\nhost : h\r\n\r\n",
            "GET / HTTP/1.1\r\nhost: h\r\nx: a\u{1}b\r\n\r\n",
            "GET / HTTP/1.1\r\nhost: h\r\nx: a\rb\r\n\r\n",
            "GET /\u{1b}[31m HTTP/1.1\r\nhost: h\r\n\r\n",
            "GET / HTTP/1.1\nhost: h\n\n",
            "GET / HTTP/1.1\nhost: h\r\n\r\n",
            "GET / HTTP/1.1\r\nhost: h\nx: y\r\n\r\n",
            "GET / HTTP/1.1\r\nhost: h\r\n\n",
            "\nGET / HTTP/1.1\r\nhost: h\r\n\r\n",
            "GET / HTTP/2.0\r\nhost: h\r\n\r\n",
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        ] {
            assert!(matches!(of(head), Err(Refusal::Malformed(reason)) if !reason.is_empty()), "{head:?}");
        }
    }

    #[test]
    fn heads_are_limited_in_bytes_and_in_lines() {
        let long = format!("GET / HTTP/1.1\r\nhost: h\r\nx: {}", "y".repeat(MAX_HEAD));
        assert!(matches!(of(&long), Err(Refusal::HeadTooLarge)));
        assert!(matches!(of(&format!("{long}\r\n\r\n")), Err(Refusal::HeadTooLarge)));
        assert!(matches!(whole(&"a: b\r\n".repeat(MAX_LINES)), Err(Refusal::HeadTooLarge)));
        assert!(matches!(of(&"\r\n".repeat(MAX_HEAD)), Err(Refusal::HeadTooLarge)));
    }

    #[test]
    fn keep_alive_and_expect_continue_are_parsed() {
        assert!(!whole("connection: Foo, Close\r\n").unwrap().keep_alive);
        assert!(whole("connection: keep-alive\r\n").unwrap().keep_alive);
        assert!(!of("GET / HTTP/1.0\r\nconnection: keep-alive\r\n\r\n").unwrap().unwrap().keep_alive);
        assert!(whole("expect: 100-Continue\r\ncontent-length: 3\r\n").unwrap().expects_continue);
    }
}
