//! Writes the reply to a parked request: the one thing that is framed here and not by hyper.

use std::collections::VecDeque;
use std::io::{self, IoSlice};

use bytes::{Buf, Bytes};
use http::header::{CONNECTION, CONTENT_LENGTH, DATE, TRANSFER_ENCODING};
use http::{HeaderMap, StatusCode};
use http_body_util::BodyExt;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use crate::config::Timeouts;
use crate::reply::Reply;

/// Pieces to send, one after the other.
struct Pieces(VecDeque<Bytes>);

impl Buf for Pieces {
    fn remaining(&self) -> usize {
        self.0.iter().map(Bytes::len).sum()
    }

    fn chunk(&self) -> &[u8] {
        self.0.front().map(AsRef::as_ref).unwrap_or_default()
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let filled = slices.iter_mut().zip(&self.0).map(|(slice, piece)| *slice = IoSlice::new(piece));
        filled.count()
    }

    fn advance(&mut self, mut count: usize) {
        while let Some(piece) = self.0.front_mut().filter(|_| count > 0) {
            let part = piece.len().min(count);
            piece.advance(part);
            count -= part;
            if piece.is_empty() {
                self.0.pop_front();
            }
        }
    }
}

/// Sends a reply within the deadlines of writing.
pub(super) async fn send<S: AsyncWrite + Unpin>(
    stream: &mut S,
    reply: Reply,
    keep_alive: bool,
    timeouts: &Timeouts,
) -> io::Result<()> {
    let mut pieces = pieces(reply, keep_alive).await?;
    let late = || io::Error::from(io::ErrorKind::TimedOut);
    let all = async {
        while pieces.has_remaining() {
            let written = timeout(timeouts.write_stall, stream.write_buf(&mut pieces)).await.map_err(|_| late())??;
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
        }
        timeout(timeouts.write_stall, stream.flush()).await.map_err(|_| late())?
    };
    timeout(timeouts.write, all).await.map_err(|_| late())?
}

/// Head and body. A body that ends short of its length is an error: the connection is cut, so that the client knows.
async fn pieces(reply: Reply, keep_alive: bool) -> io::Result<Pieces> {
    let (parts, mut body) = reply.into_parts();
    let length = body.len();
    let mut pieces = VecDeque::from([Bytes::from(head(parts.status, &parts.headers, length, keep_alive))]);
    if is_bodiless(parts.status) {
        return Ok(Pieces(pieces));
    }
    let mut came = 0;
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame.map_err(io::Error::other)?.into_data() {
            came += data.len();
            pieces.push_back(data);
        }
    }
    if came == length { Ok(Pieces(pieces)) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

fn is_bodiless(status: StatusCode) -> bool {
    status.is_informational() || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
}

/// The head. A header's value can hold no line break: its type does not let it in.
fn head(status: StatusCode, headers: &HeaderMap, length: usize, keep_alive: bool) -> Vec<u8> {
    let mut head = Vec::with_capacity(512);
    head.extend_from_slice(b"HTTP/1.1 ");
    head.extend_from_slice(status.as_str().as_bytes());
    head.push(b' ');
    head.extend_from_slice(status.canonical_reason().unwrap_or("").as_bytes());
    for (name, value) in headers.iter().filter(|(name, _)| !is_ours(name)) {
        line(&mut head, name.as_str(), value.as_bytes());
    }
    if !is_bodiless(status) {
        line(&mut head, "content-length", length.to_string().as_bytes());
    }
    if !keep_alive {
        line(&mut head, "connection", b"close");
    }
    line(&mut head, "date", http_date().as_bytes());
    head.extend_from_slice(b"\r\n\r\n");
    head
}

/// Headers that say how a reply is framed: a handler's own are not believed.
fn is_ours(name: &http::HeaderName) -> bool {
    [CONTENT_LENGTH, TRANSFER_ENCODING, CONNECTION, DATE].contains(name)
}

fn line(head: &mut Vec<u8>, name: &str, value: &[u8]) {
    head.extend_from_slice(b"\r\n");
    head.extend_from_slice(name.as_bytes());
    head.extend_from_slice(b": ");
    head.extend_from_slice(value);
}

fn http_date() -> String {
    jiff::Timestamp::now().strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
}
