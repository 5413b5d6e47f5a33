//! Handing a connection over to another protocol, such as WebSocket (RFC 9110 §7.8).

use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use http::header::UPGRADE;
use http::{HeaderValue, StatusCode};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::reply::{Reply, ReplyBody};

/// A stream of any kind: TCP, TLS over it, a Unix socket.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Stream for S {}

/// What an upgraded connection is used for. The connection keeps its place among connections and requests until this
/// ends; when the server stops, it is cut at the end of the grace period.
pub type Takeover = Box<dyn FnOnce(Upgraded) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send>;

/// A handler's answer that ends HTTP on the connection.
pub struct Upgrade {
    /// The head that is sent first; 101.
    pub reply: Reply,
    /// Called with the connection when the head is sent.
    pub takeover: Takeover,
}

impl Upgrade {
    /// Switches to `protocol`, and gives the connection to `takeover`. Headers that the protocol's handshake needs are
    /// added to the reply.
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

/// A connection that left HTTP: its stream, and what was read of it already.
pub struct Upgraded {
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
        let part = self.early.len().min(buffer.remaining());
        buffer.put_slice(&self.early[..part]);
        self.early.advance(part);
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
