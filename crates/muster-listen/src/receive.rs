//! Reading of request bodies with a size limit and a deadline. Memory grows with the bytes received, never with the
//! announced `Content-Length`.

use std::convert::Infallible;
use std::future::{Future as _, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, TRANSFER_ENCODING};
use http_body::Body;
use http_body_util::BodyExt as _;

use super::body::RequestBodyError;
use super::gzip::{InflateError, give_back, inflate};

/// Why a body could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyError {
    /// It exceeds the limit, before or after decompression.
    TooLarge {
        /// The limit in bytes.
        limit: usize,
        /// The announced length.
        length: Option<usize>,
    },
    /// It was incomplete at the deadline.
    Late,
    /// The connection was closed, or the framing is malformed.
    Broken,
    /// The announced lengths conflict (D23).
    Lengths,
    /// The header announced gzip, but the body is not valid gzip.
    NotGzip,
    /// The content coding is not supported.
    Coding,
    /// The memory budget of large bodies is exhausted.
    Busy,
}

impl From<RequestBodyError> for BodyError {
    /// The connection has its own deadline. Which of the two fires first makes no difference to the client.
    fn from(error: RequestBodyError) -> Self {
        match error {
            RequestBodyError::Late => Self::Late,
            RequestBodyError::Broken(_) => Self::Broken,
        }
    }
}

impl From<Infallible> for BodyError {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

/// Limits for reading a body.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Maximum bytes.
    pub limit: usize,
    /// Maximum time.
    pub timeout: Duration,
}

/// Reads a complete body. A large one counts against `budget` from the moment it may become large until it is dropped.
pub async fn read<B>(headers: &HeaderMap, body: B, bounds: Bounds, budget: &Budget) -> Result<Received, BodyError>
where
    B: Body<Data = Bytes, Error: Into<BodyError>>,
{
    let stated = check_lengths(headers, bounds.limit)?;
    let mut reading = pin!(collect(body, bounds.limit, stated.unwrap_or(bounds.limit), budget));
    // Most bodies are available at once and need no timer, which would cost a lock of the timer wheel.
    // The timer starts after this poll. That is no gap: nothing was waited for yet.
    let at_once = poll_fn(|cx| Poll::Ready(reading.as_mut().poll(cx))).await;
    if let Poll::Ready(body) = at_once {
        return body;
    }
    tokio::time::timeout(bounds.timeout, reading).await.map_err(|_| BodyError::Late)?
}

/// Returns the announced length, if any. Refuses conflicting or excessive lengths before a byte is read.
fn check_lengths(headers: &HeaderMap, limit: usize) -> Result<Option<usize>, BodyError> {
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    let Some(first) = lengths.next() else { return Ok(None) };
    // The connection layer refuses these too. Checked again, because tests and other listeners don't go through it.
    if headers.contains_key(TRANSFER_ENCODING) || lengths.any(|other| other != first) {
        return Err(BodyError::Lengths);
    }
    let length = first.to_str().ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    match length.ok_or(BodyError::Lengths)?.parse::<usize>() {
        Ok(length) if length <= limit => Ok(Some(length)),
        // Digits that overflow are a number above every limit.
        length => Err(BodyError::TooLarge { limit, length: length.ok() }),
    }
}

/// Collects a body. Most arrive in one piece, which is kept without a copy. `most` is the largest size that the body can
/// have: its announced length, or the limit.
async fn collect<B>(body: B, limit: usize, most: usize, budget: &Budget) -> Result<Received, BodyError>
where
    B: Body<Data = Bytes, Error: Into<BodyError>>,
{
    let mut body = pin!(body);
    let mut first = Bytes::new();
    let mut rest = BytesMut::new();
    let mut share = None;
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(Into::into)?.into_data() else { continue };
        // Checked before the piece is copied. A chunked body has no announced length to check.
        if first.len() + rest.len() + data.len() > limit {
            return Err(BodyError::TooLarge { limit, length: None });
        }
        // Two buffers are used only when a second piece arrives.
        if first.is_empty() && rest.is_empty() {
            first = data;
            if first.len() > SMALL_COMING {
                share = Some(budget.share(first.len())?);
            }
            continue;
        }
        if rest.is_empty() {
            rest.extend_from_slice(&std::mem::take(&mut first));
        }
        // From here on the body may grow to its full length, so that much is reserved now. If the share grew with each
        // piece, thousands of slow clients could each get half of their body in and exhaust the budget together.
        if rest.len() + data.len() > SMALL_COMING && share.as_ref().is_none_or(|share| share.size < most) {
            share = Some(budget.share(most)?);
        }
        rest.extend_from_slice(&data);
    }
    let bytes = if rest.is_empty() { first } else { rest.freeze() };
    // A chunked body reserved the limit of its operation.
    if let Some(share) = &mut share {
        share.shrink_to(bytes.len());
    }
    Ok(Received { bytes, _share: share })
}

/// A received body with its share of the budget.
#[derive(Debug)]
pub struct Received {
    bytes: Bytes,
    _share: Option<Share>,
}

impl Received {
    /// Returns the bytes. They must not outlive this value, whose drop returns the share.
    pub fn bytes(&self) -> Bytes {
        self.bytes.clone()
    }
}

impl std::ops::Deref for Received {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

/// A content coding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coding {
    /// Not encoded.
    Identity,
    /// gzip.
    Gzip,
}

/// Returns the content coding of the body (RFC 9110 §8.4). Names are case-insensitive, and `x-gzip` is `gzip`. Unknown and
/// multiple codings are refused here, because an encoded body would otherwise be reported as invalid JSON.
pub fn coding(headers: &HeaderMap) -> Result<Coding, BodyError> {
    let mut values = headers.get_all(CONTENT_ENCODING).iter();
    let Some(value) = values.next() else { return Ok(Coding::Identity) };
    let is = |name: &[u8]| value.as_bytes().eq_ignore_ascii_case(name);
    match values.next() {
        None if is(b"gzip") || is(b"x-gzip") => Ok(Coding::Gzip),
        // An empty value announces no coding.
        None if is(b"identity") || is(b"") => Ok(Coding::Identity),
        _ => Err(BodyError::Coding),
    }
}

/// Bodies up to this size don't count against the [`Budget`] while they arrive.
const SMALL_COMING: usize = 32 * 1024;

/// Decoded bodies and copies up to this size don't count against the [`Budget`].
const SMALL: usize = 64 * 1024;

/// Limits the memory of all large bodies of all connections: while they arrive, inflated, and copies of them that are
/// being written to the store. A limit per body is not enough: a kilobyte of gzip may become 20 MiB.
#[derive(Clone, Debug)]
pub struct Budget(Arc<AtomicUsize>);

impl Budget {
    /// Creates a budget of `bytes`.
    pub fn new(bytes: usize) -> Self {
        Self(Arc::new(AtomicUsize::new(bytes)))
    }

    /// Inflates a body of at most `cap` bytes.
    pub fn inflate(&self, body: &[u8], cap: usize) -> Result<Decoded, BodyError> {
        let bytes = inflate(body, cap).map_err(|error| match error {
            InflateError::TooLarge => BodyError::TooLarge { limit: cap, length: None },
            InflateError::Malformed => BodyError::NotGzip,
        })?;
        // Counted after inflating: the size is unknown before. Inflating is synchronous, so at most one uncounted body
        // per worker thread exists at a time.
        let share = if bytes.capacity() > SMALL { Some(self.share(bytes.capacity())?) } else { None };
        Ok(Decoded { bytes, _share: share })
    }

    /// Reserves a share for copies of a body of `bytes`; none for a small one.
    pub fn copies(&self, bytes: usize) -> Result<Option<Share>, BodyError> {
        if bytes > SMALL { self.share(bytes).map(Some) } else { Ok(None) }
    }

    fn share(&self, size: usize) -> Result<Share, BodyError> {
        // Never waits for others to return their shares: bodies that wait would hold connections and their own shares.
        let taken = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(size));
        taken.map(|_| Share { budget: self.clone(), size }).map_err(|_| BodyError::Busy)
    }
}

/// An inflated body with its share of the budget.
#[derive(Debug)]
pub struct Decoded {
    bytes: Vec<u8>,
    _share: Option<Share>,
}

impl std::ops::Deref for Decoded {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Decoded {
    fn drop(&mut self) {
        give_back(std::mem::take(&mut self.bytes));
    }
}

/// A part of the [`Budget`], returned on drop.
#[derive(Debug)]
pub struct Share {
    budget: Budget,
    size: usize,
}

impl Share {
    fn shrink_to(&mut self, size: usize) {
        let spare = self.size.saturating_sub(size);
        self.budget.0.fetch_add(spare, Ordering::Relaxed);
        self.size -= spare;
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.0.fetch_add(self.size, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use http::HeaderValue;
    use http_body::Frame;
    use http_body_util::{Empty, Full};

    use super::*;
    use crate::gzip::deflate;

    const BOUNDS: Bounds = Bounds { limit: 10, timeout: Duration::from_secs(1) };

    fn lengths(values: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in values {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    async fn read<B>(headers: &HeaderMap, body: B, bounds: Bounds, budget: &Budget) -> Result<Bytes, BodyError>
    where
        B: Body<Data = Bytes, Error: Into<BodyError>>,
    {
        super::read(headers, body, bounds, budget).await.map(|received| received.bytes())
    }

    /// A body of two pieces that never ends.
    struct Slow(u8, usize);

    impl Body for Slow {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
            self.0 += 1;
            if self.0 > 2 { Poll::Pending } else { Poll::Ready(Some(Ok(Frame::data(vec![0; self.1].into())))) }
        }
    }

    #[test]
    fn the_connections_deadline_is_reported_as_late() {
        assert_eq!(BodyError::from(RequestBodyError::Late), BodyError::Late);
        assert_eq!(BodyError::from(RequestBodyError::Broken("gone".into())), BodyError::Broken);
    }

    #[tokio::test(start_paused = true)]
    async fn slow_large_bodies_share_a_budget_and_return_it() {
        let budget = Budget::new(100_000);
        let bounds = Bounds { limit: 60_000, timeout: Duration::from_secs(5) };
        let none = HeaderMap::new();
        let large = || read(&none, Slow(0, 20_000), bounds, &budget);
        let (first, second) = tokio::join!(large(), large());
        assert_eq!((first, second), (Err(BodyError::Late), Err(BodyError::Busy)));
        assert_eq!(large().await, Err(BodyError::Late), "the budget is free again");
        let small = || read(&none, Slow(0, 10_000), bounds, &budget);
        let (first, second) = tokio::join!(small(), small());
        assert_eq!((first, second), (Err(BodyError::Late), Err(BodyError::Late)), "small ones do not count");
    }

    #[tokio::test]
    async fn a_large_body_counts_with_its_own_size_until_it_is_dropped() {
        let budget = Budget::new(100_000);
        let bounds = Bounds { limit: 90_000, timeout: Duration::from_secs(5) };
        let none = HeaderMap::new();
        let held = super::read(&none, Full::from(vec![0; 60_000]), bounds, &budget).await.unwrap();
        assert_eq!(read(&none, Full::from(vec![0; 60_000]), bounds, &budget).await, Err(BodyError::Busy));
        let other = super::read(&none, Full::from(vec![0; 35_000]), bounds, &budget).await;
        drop((held, other));
        assert_eq!(budget.0.load(Ordering::Relaxed), 100_000, "all is given back");
    }

    #[tokio::test]
    async fn ea19_a_body_above_the_limit_is_refused_with_and_without_content_length() {
        let none = HeaderMap::new();
        assert_eq!(
            read(&none, Full::from("0123456789"), BOUNDS, &Budget::new(1 << 20)).await,
            Ok(Bytes::from("0123456789"))
        );
        assert_eq!(
            read(&none, Full::from("0123456789a"), BOUNDS, &Budget::new(1 << 20)).await,
            Err(BodyError::TooLarge { limit: BOUNDS.limit, length: None })
        );
        for absurd in ["11", "18446744073709551615", "99999999999999999999999"] {
            let headers = lengths(&[("content-length", absurd)]);
            assert_eq!(
                read(&headers, Empty::new(), BOUNDS, &Budget::new(1 << 20)).await,
                Err(BodyError::TooLarge { limit: BOUNDS.limit, length: absurd.parse().ok() }),
                "{absurd}"
            );
        }
    }

    #[tokio::test]
    async fn d23_conflicting_lengths_are_refused() {
        let conflicts: [&[_]; 4] = [
            &[("content-length", "3"), ("transfer-encoding", "chunked")],
            &[("content-length", "3"), ("content-length", "4")],
            &[("content-length", "-3")],
            &[("content-length", "+3")],
        ];
        for conflict in conflicts {
            assert_eq!(
                read(&lengths(conflict), Full::from("abc"), BOUNDS, &Budget::new(1 << 20)).await,
                Err(BodyError::Lengths),
                "{conflict:?}"
            );
        }
        let same = lengths(&[("content-length", "3"), ("content-length", "3")]);
        assert!(read(&same, Full::from("abc"), BOUNDS, &Budget::new(1 << 20)).await.is_ok());
    }

    /// A body that never arrives.
    struct Never;
    impl Body for Never {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
            Poll::Pending
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_never_arrives_is_late() {
        assert_eq!(read(&HeaderMap::new(), Never, BOUNDS, &Budget::new(1 << 20)).await, Err(BodyError::Late));
    }

    #[test]
    fn codings_are_case_insensitive_and_unknown_ones_are_refused() {
        let coded = |values: &[&'static str]| {
            coding(&lengths(&values.iter().map(|value| ("content-encoding", *value)).collect::<Vec<_>>()))
        };
        for gzip in ["gzip", "GZIP", "x-gzip", "X-Gzip"] {
            assert_eq!(coded(&[gzip]), Ok(Coding::Gzip), "{gzip}");
        }
        for identity in [&[][..], &[""], &["identity"], &["Identity"]] {
            assert_eq!(coded(identity), Ok(Coding::Identity), "{identity:?}");
        }
        for other in [&["br"][..], &["deflate"], &["gzip, gzip"], &["gzip", "gzip"], &["gzip;q=1"], &["zstd"]] {
            assert_eq!(coded(other), Err(BodyError::Coding), "{other:?}");
        }
    }

    #[test]
    fn large_decoded_bodies_share_a_budget() {
        let budget = Budget::new(1 << 20);
        let body = deflate(&vec![b' '; 700_000]);
        let first = budget.inflate(&body, 1 << 20).unwrap();
        assert_eq!(budget.inflate(&body, 1 << 20).unwrap_err(), BodyError::Busy);
        assert!(budget.inflate(&deflate(b"small"), 1 << 20).is_ok());
        drop(first);
        assert!(budget.inflate(&body, 1 << 20).is_ok());
    }
}
