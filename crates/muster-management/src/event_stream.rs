//! Server-sent events: what all streams have in common.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::FromRequestParts;
use axum::http::HeaderMap;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use futures_util::stream::unfold;
use muster_core::Error;
use muster_core::authorization::OpContext;
use muster_fleet::Fleet;
use muster_fleet::change_log::StreamPlace;
use tokio::time::Instant;

use super::entry::Credentials;
use super::error::ApiError;
use super::openapi::{Extracts, Operation};

/// Content type of a stream.
pub const CONTENT: &str = "text/event-stream";
/// Interval of comments on an idle stream, so that neither side takes the connection for lost.
pub const HEARTBEAT: Duration = Duration::from_secs(15);
/// Maximum age of a check of the caller's credentials when something is sent.
const CHECKED_WITHIN: Duration = Duration::from_secs(1);

/// A source of events.
pub trait Events: Send + 'static {
    /// Returns the next piece; `None` at the end.
    fn next(&mut self) -> impl Future<Output = Option<Bytes>> + Send;
}

/// Returns the response that streams the events.
pub fn response(events: impl Events) -> Response {
    let pieces = unfold(events, async |mut events| {
        let piece = events.next().await?;
        Some((Ok::<_, std::convert::Infallible>(piece), events))
    });
    ([(CONTENT_TYPE, CONTENT), (CACHE_CONTROL, "no-store")], Body::from_stream(pieces)).into_response()
}

/// The caller of a stream, whose credentials are verified again as long as it lasts.
pub struct Viewer {
    /// The fleet.
    pub fleet: Arc<Fleet>,
    /// The caller, with the privileges that it has by now.
    pub context: OpContext,
    credentials: Credentials,
    /// When the credentials were last verified.
    checked: Instant,
    _place: StreamPlace,
}

impl Viewer {
    /// Takes the place of a stream.
    pub fn open(fleet: Arc<Fleet>, context: OpContext, credentials: Credentials) -> Result<Self, Error> {
        if credentials.are_costly() {
            let reason = "is not supported with a name and a password, which take long to verify";
            return Err(Error::invalid("Authorization", reason).remedy("use an API token"));
        }
        let place = fleet.change_log().open_stream(&context)?;
        Ok(Self { fleet, context, credentials, checked: Instant::now(), _place: place })
    }

    /// Verifies the credentials again, and takes over what the caller may see by now. `None` if they were revoked.
    pub async fn verify(&mut self) -> Option<()> {
        if self.checked.elapsed() >= CHECKED_WITHIN {
            self.context = self.credentials.renewed(&self.fleet, &self.context).await.ok()?;
            self.checked = Instant::now();
        }
        Some(())
    }
}

/// The header `Last-Event-ID`, which a client sends when it reconnects.
pub struct LastEventId(pub Option<i64>);

impl<S: Send + Sync> FromRequestParts<S> for LastEventId {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        Ok(Self(last_event_id(&parts.headers)?))
    }
}

impl Extracts for LastEventId {
    fn describe(to: &mut Operation<'_>) {
        let schema = serde_json::json!({"type": "integer", "minimum": 0});
        to.parameter("header", "Last-Event-ID", "`id` of the last event that the client received.", &schema);
    }
}

fn last_event_id(headers: &HeaderMap) -> Result<Option<i64>, Error> {
    // A browser sends an empty id if it has received none.
    let Some(value) = headers.get("last-event-id").filter(|value| !value.is_empty()) else { return Ok(None) };
    let number = value.to_str().ok().and_then(|text| text.parse().ok());
    number.map(Some).ok_or_else(|| Error::invalid("Last-Event-ID", "must be the id of an event"))
}
