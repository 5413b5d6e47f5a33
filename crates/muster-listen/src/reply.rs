//! A handler's result: a response, or a request to be parked or upgraded.
//!
//! The handler of an agent's request never waits while the request is in memory. It returns [`Answer::Reply`], or
//! [`Answer::Park`] with a slot of a few hundred bytes. The connection layer then drops the request, its buffers and
//! its decoder, and waits for the slot. [`Answer::Upgrade`] switches the connection to another protocol.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::Response;
use http_body::{Body, Frame, SizeHint};
use rustls::pki_types::CertificateDer;
use tokio::sync::mpsc;

use crate::upgrade::Upgrade;

/// A response body. It consists of pieces in memory, some of which are shared between agents, or of a stream of pieces
/// if the content is too large for memory.
#[derive(Debug, Default)]
pub struct ReplyBody {
    pieces: VecDeque<Bytes>,
    tail: Option<Tail>,
}

/// The streamed part of a body.
#[derive(Debug)]
struct Tail {
    pieces: mpsc::Receiver<Bytes>,
    /// Bytes still to be received.
    left: u64,
}

impl ReplyBody {
    /// Creates an empty body.
    pub fn empty() -> Self {
        Self::default()
    }

    /// Creates a body from these pieces, in order.
    pub fn pieces(pieces: impl IntoIterator<Item = Bytes>) -> Self {
        // Empty pieces are dropped, because a reader of frames would interpret them as progress without data.
        Self { pieces: pieces.into_iter().filter(|piece| !piece.is_empty()).collect(), tail: None }
    }

    /// Creates a body of `length` bytes that are received from a channel. If the sender is dropped early, the body is
    /// too short, and the connection layer closes the connection, so that the client detects a truncated response.
    pub fn stream(pieces: mpsc::Receiver<Bytes>, length: u64) -> Self {
        Self { pieces: VecDeque::new(), tail: (length > 0).then_some(Tail { pieces, left: length }) }
    }

    /// Returns the total length in bytes, including the streamed part.
    pub fn len(&self) -> usize {
        let left = self.tail.as_ref().map_or(0, |tail| tail.left);
        // On 32-bit systems a long stream saturates, and the connection is closed when the lengths differ.
        self.pieces.iter().map(Bytes::len).sum::<usize>() + usize::try_from(left).unwrap_or(usize::MAX)
    }

    /// Returns the pieces in memory, without the streamed part.
    pub(crate) fn into_pieces(self) -> impl Iterator<Item = Bytes> {
        self.pieces.into_iter()
    }

    /// Returns whether the body has no bytes.
    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty() && self.tail.is_none()
    }
}

impl Tail {
    /// Ready with the next piece, truncated to the remaining length; `None` if the sender was dropped.
    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let Some(mut piece) = ready!(self.pieces.poll_recv(context)) else { return Poll::Ready(None) };
        // If a file grows while it is read, bytes beyond the announced length must not be sent, because the client
        // would interpret them as the next response.
        piece.truncate(usize::try_from(self.left).unwrap_or(usize::MAX));
        self.left -= piece.len() as u64;
        Poll::Ready(Some(piece))
    }
}

impl From<Bytes> for ReplyBody {
    fn from(bytes: Bytes) -> Self {
        Self::pieces([bytes])
    }
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if let Some(piece) = self.pieces.pop_front() {
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        let Some(tail) = &mut self.tail else { return Poll::Ready(None) };
        let piece = ready!(tail.poll_next(context));
        if piece.is_none() || tail.left == 0 {
            self.tail = None;
        }
        Poll::Ready(piece.map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.len() as u64)
    }
}

/// A response.
pub type Reply = Response<ReplyBody>;

/// The slot of a parked request. Resolves to its response.
pub type Parked = Pin<Box<dyn Future<Output = Reply> + Send>>;

/// A handler's result.
pub enum Answer {
    /// Send this response.
    Reply(Reply),
    /// Drop the request, wait for this slot, and send its response.
    Park(Parked),
    /// Switch to another protocol.
    Upgrade(Upgrade),
}

impl From<Reply> for Answer {
    fn from(reply: Reply) -> Self {
        Self::Reply(reply)
    }
}

/// The listener that accepted a connection. Each has its own limits (EA §1.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ListenerKind {
    /// 8220: agents of every family.
    Agent,
    /// 8221: the agent on this host.
    Local,
    /// 8230: administrators and scripts.
    Admin,
    /// `DATA/admin.sock`.
    Socket,
}

/// The remote side of a connection.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Its address; `None` on the Unix socket.
    pub address: Option<SocketAddr>,
    /// Whether the connection uses TLS.
    pub tls: bool,
    /// The listener that accepted the connection.
    pub listener: ListenerKind,
    /// The peer's uid; only on the Unix socket.
    pub uid: Option<u32>,
    /// The client's certificate chain, leaf first, if it presented one. The handshake verified it.
    pub certificates: Option<Arc<[CertificateDer<'static>]>>,
    /// What the requests of this connection have proved about the client. Shared by all of them.
    pub proved: Arc<Proved>,
}

/// What the requests of a connection have proved about the client.
#[derive(Debug, Default)]
pub struct Proved {
    is_authenticated: AtomicBool,
    key: OnceLock<Arc<str>>,
    certificate_hash: OnceLock<Option<[u8; 32]>>,
    certificate_generation: AtomicU64,
}

impl Peer {
    /// Creates an unauthenticated peer of `listener`, without an address and without TLS.
    pub fn new(listener: ListenerKind) -> Self {
        Self { address: None, tls: false, listener, uid: None, certificates: None, proved: Arc::default() }
    }

    /// Records that a request of this connection carried valid credentials. Until then the connection occupies one of
    /// the few slots for unauthenticated clients.
    pub fn set_authenticated(&self) {
        // The value is loaded first, because a store with each request would invalidate the cache line of other
        // readers.
        if !self.is_authenticated() {
            self.proved.is_authenticated.store(true, Ordering::Relaxed);
        }
    }

    /// Returns whether a request of this connection carried valid credentials.
    pub fn is_authenticated(&self) -> bool {
        self.proved.is_authenticated.load(Ordering::Relaxed)
    }

    /// Records the id of the key that authenticated a request of this connection. Only the first key is recorded. A
    /// proxy that sends requests of many agents has limits of its own.
    pub fn set_key(&self, id: impl FnOnce() -> Option<Arc<str>>) {
        if self.proved.key.get().is_none()
            && let Some(id) = id()
        {
            // This fails if another request was first.
            let _ = self.proved.key.set(id);
        }
    }

    /// Returns the id of the first key that authenticated a request of this connection.
    pub fn key(&self) -> Option<&Arc<str>> {
        self.proved.key.get()
    }

    /// Returns the hash of the client's certificate that `hash` computes, once for all requests of the connection; `None` if the
    /// client presented no certificate.
    pub fn certificate_hash(&self, hash: impl FnOnce(&CertificateDer<'_>) -> Option<[u8; 32]>) -> Option<[u8; 32]> {
        let presented = self.certificates.as_deref().and_then(<[_]>::first)?;
        *self.proved.certificate_hash.get_or_init(|| hash(presented))
    }

    /// Returns with which generation of CAs and revocation lists the client's certificate was last verified; 0 for the handshake.
    pub fn certificate_generation(&self) -> u64 {
        self.proved.certificate_generation.load(Ordering::Relaxed)
    }

    /// Records that the client's certificate was verified with a generation.
    pub fn set_certificate_generation(&self, generation: u64) {
        self.proved.certificate_generation.store(generation, Ordering::Relaxed);
    }

    /// Returns the address without the port, for records and limits; empty on the Unix socket.
    pub fn ip(&self) -> String {
        self.address.map(|address| address.ip().to_string()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    async fn streamed(pieces: &[&'static str], length: u64) -> Bytes {
        let (sender, receiver) = mpsc::channel(8);
        for piece in pieces {
            sender.send(Bytes::from_static(piece.as_bytes())).await.unwrap();
        }
        drop(sender);
        ReplyBody::stream(receiver, length).collect().await.unwrap().to_bytes()
    }

    #[tokio::test]
    async fn a_stream_is_truncated_at_its_length_and_ends_early_if_the_sender_is_dropped() {
        assert_eq!(streamed(&["abc", "def"], 6).await, "abcdef");
        assert_eq!(streamed(&["abc", "def"], 5).await, "abcde");
        assert_eq!(streamed(&["abc"], 6).await, "abc");
        assert_eq!(streamed(&["abc"], 0).await, "");
    }

    #[test]
    fn a_body_knows_its_length_before_it_is_sent() {
        let (_sender, receiver) = mpsc::channel(1);
        let stream = ReplyBody::stream(receiver, 42);
        assert_eq!((stream.size_hint().exact(), stream.is_end_stream()), (Some(42), false));
        let pieces = ReplyBody::pieces([Bytes::from("ab"), Bytes::new(), Bytes::from("c")]);
        assert_eq!((pieces.size_hint().exact(), pieces.len(), ReplyBody::empty().is_end_stream()), (Some(3), 3, true));
    }
}
