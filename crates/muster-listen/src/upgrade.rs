//! Upgrades a connection to another protocol, such as WebSocket (RFC 9110 §7.8).

use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use http::header::UPGRADE;
use http::{HeaderValue, StatusCode};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::reply::{Reply, ReplyBody};

/// A stream of any kind: TCP, TLS over TCP, or a Unix socket.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Stream for S {}

/// Serves an upgraded connection, which counts as a connection and as a request until this ends. On shutdown, the
/// connection is closed at the end of the grace period.
pub type Takeover = Box<dyn FnOnce(Upgraded) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send>;

/// A handler's result that switches the connection to another protocol.
pub struct Upgrade {
    /// The 101 response that is sent first.
    pub reply: Reply,
    /// Called with the connection after the response is sent.
    pub takeover: Takeover,
}

impl Upgrade {
    /// Switches to `protocol` and passes the connection to `takeover`. If the handshake of the protocol requires other
    /// headers, the caller inserts them into `reply`.
    pub fn new<F>(protocol: HeaderValue, takeover: impl FnOnce(Upgraded) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let mut reply = Reply::new(ReplyBody::empty());
        *reply.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        reply.headers_mut().insert(UPGRADE, protocol);
        Self { reply, takeover: Box::new(move |upgraded| Box::pin(takeover(upgraded))) }
    }
}

/// An upgraded connection: the stream, and the bytes that were already read from it.
pub struct Upgraded {
    // Boxed, so that protocols do not have to be generic over TCP, TLS and Unix sockets.
    stream: Box<dyn Stream>,
    early: Bytes,
}

impl Upgraded {
    pub(super) fn new(stream: impl Stream, early: Bytes) -> Self {
        Self { stream: Box::new(stream), early }
    }
}

impl AsyncRead for Upgraded {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.early.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, buffer);
        }
        // A client may send the first bytes of the new protocol together with its request.
        let part = self.early.len().min(buffer.remaining());
        buffer.put_slice(&self.early[..part]);
        self.early.advance(part);
        if self.early.is_empty() {
            self.early = Bytes::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Upgraded {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
