//! `/v1/changes`: changes since a number, as a list and as server-sent events.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::{FromRequestParts, State};
use axum::http::HeaderMap;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use futures_util::stream::unfold;
use muster_core::Error;
use muster_core::authorization::OpContext;
use muster_core::error_chain::chain;
use muster_fleet::Fleet;
use muster_fleet::change_log::{MAX_PAGE, SeenChange, StreamPlace};
use muster_protocol::management::change::{Change, Changes, FollowChanges, ListChanges};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::answer::Answer;
use super::endpoints::Endpoint;
use super::entry::{Caller, Credentials};
use super::error::{ApiError, ApiResult};
use super::openapi::{Extracts, Operation};
use super::query::Query;

/// Default number of changes on a page.
const DEFAULT_PAGE: u32 = 100;
/// Content type of the stream.
const EVENTS: &str = "text/event-stream";
/// Interval of comments on an idle stream, so that neither side takes the connection for lost.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// Maximum age of a check of the caller's credentials when something is sent.
const CHECKED_WITHIN: Duration = Duration::from_secs(1);

/// Endpoints for changes. What a caller sees depends on the privileges that it has for each kind of object.
pub fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::get("/v1/changes", list).about("List changes since a number").for_everybody(),
        Endpoint::get("/v1/changes/_stream", stream)
            .about("Follow changes as server-sent events")
            .returning(EVENTS)
            .for_everybody(),
    ]
}

fn change(seen: SeenChange) -> Change {
    Change { seq: seen.seq, kind: seen.kind.to_owned(), id: seen.id, deleted: seen.is_deleted }
}

async fn list(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    Query(query): Query<ListChanges>,
) -> Answer<Changes> {
    let page = fleet.change_log().after(&context, query.after, query.limit.unwrap_or(DEFAULT_PAGE)).await?;
    let items = page.changes.into_iter().map(change).collect();
    Ok(Json(Changes { items, next: page.next, has_more: page.has_more }))
}

/// The header `Last-Event-ID`, which a client sends when it reconnects.
struct LastEventId(Option<i64>);

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

async fn stream(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    credentials: Credentials,
    LastEventId(last): LastEventId,
    Query(query): Query<FollowChanges>,
) -> ApiResult<Response> {
    if credentials.are_costly() {
        let reason = "is not supported with a name and a password, which take long to verify";
        return Err(Error::invalid("Authorization", reason).remedy("use an API token").into());
    }
    let newest = fleet.change_log().newest();
    // Reports a gap before the stream begins.
    let first = fleet.change_log().after(&context, last.or(query.after), 1).await?;
    let position = last.or(query.after).unwrap_or(first.next);
    let place = fleet.change_log().open_stream(&context)?;
    let now = Instant::now();
    let follower = Follower {
        fleet,
        context,
        credentials,
        newest,
        position,
        begun: false,
        checked: now,
        sent: now,
        _place: place,
    };
    let pieces = unfold(follower, async |mut follower| {
        let piece = follower.next().await?;
        Some((Ok::<_, std::convert::Infallible>(piece), follower))
    });
    Ok(([(CONTENT_TYPE, EVENTS), (CACHE_CONTROL, "no-store")], Body::from_stream(pieces)).into_response())
}

/// A stream of changes.
struct Follower {
    fleet: Arc<Fleet>,
    context: OpContext,
    credentials: Credentials,
    newest: watch::Receiver<i64>,
    /// Number of the last change that was sent or that the caller may not see.
    position: i64,
    begun: bool,
    /// When the credentials were last verified.
    checked: Instant,
    /// When something was last sent.
    sent: Instant,
    _place: StreamPlace,
}

impl Follower {
    /// Returns the next piece; `None` at the end: the server shuts down, the credentials were revoked, or the log cannot be
    /// read. The client reconnects, and then gets the error.
    async fn next(&mut self) -> Option<Bytes> {
        let piece = self.wait().await?;
        self.sent = Instant::now();
        Some(piece.into())
    }

    async fn wait(&mut self) -> Option<String> {
        if !self.begun {
            self.begun = true;
            // Sent at once, so that the client gets the head of the response.
            return Some(format!("retry: 1000\n{}", self.heartbeat()));
        }
        loop {
            // Before the read, so that a change that is committed meanwhile ends the wait below.
            self.newest.borrow_and_update();
            self.verify().await?;
            let page = self.fleet.change_log().after(&self.context, Some(self.position), MAX_PAGE).await;
            let page =
                page.inspect_err(|error| tracing::info!(error = %chain(error), "ended a stream of changes")).ok()?;
            self.position = page.next;
            if !page.changes.is_empty() {
                return Some(page.changes.into_iter().map(event).collect());
            }
            if page.has_more {
                continue;
            }
            tokio::select! {
                changed = self.newest.changed() => changed.ok()?,
                () = sleep_until(self.sent + HEARTBEAT) => {
                    self.verify().await?;
                    return Some(self.heartbeat());
                }
                () = self.fleet.stopped() => return None,
            }
        }
    }

    /// Returns a comment, with the number that the client reconnects with.
    fn heartbeat(&self) -> String {
        format!(": heartbeat\nid: {}\n\n", self.position)
    }

    /// Verifies the credentials again, and takes over what the caller may see by now.
    async fn verify(&mut self) -> Option<()> {
        if self.checked.elapsed() >= CHECKED_WITHIN {
            self.context = self.credentials.renewed(&self.fleet, &self.context).await.ok()?;
            self.checked = Instant::now();
        }
        Some(())
    }
}

fn event(seen: SeenChange) -> String {
    let seq = seen.seq;
    // Strings, numbers and booleans always serialize.
    let data = serde_json::to_string(&change(seen)).unwrap_or_default();
    format!("id: {seq}\nevent: change\ndata: {data}\n\n")
}
