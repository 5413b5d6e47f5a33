//! `/v1/changes`: changes since a number, as a list and as server-sent events.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::response::Response;
use muster_core::error_chain::chain;
use muster_fleet::Fleet;
use muster_fleet::change_log::{MAX_PAGE, SeenChange};
use muster_protocol::management::change::{Change, Changes, FollowChanges, ListChanges};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::answer::Answer;
use super::endpoints::Endpoint;
use super::entry::{Caller, Credentials};
use super::error::ApiResult;
use super::event_stream::{CONTENT as EVENTS, Events, HEARTBEAT, LastEventId, Viewer, response};
use super::query::Query;

/// Default number of changes on a page.
const DEFAULT_PAGE: u32 = 100;

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

async fn stream(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    credentials: Credentials,
    LastEventId(last): LastEventId,
    Query(query): Query<FollowChanges>,
) -> ApiResult<Response> {
    let newest = fleet.change_log().newest();
    let viewer = Viewer::open(fleet, context, credentials)?;
    // Reports a gap before the stream begins.
    let first = viewer.fleet.change_log().after(&viewer.context, last.or(query.after), 1).await?;
    let position = last.or(query.after).unwrap_or(first.next);
    Ok(response(Follower { viewer, newest, position, begun: false, sent: Instant::now() }))
}

/// A stream of changes.
struct Follower {
    viewer: Viewer,
    newest: watch::Receiver<i64>,
    /// Number of the last change that was sent or that the caller may not see.
    position: i64,
    begun: bool,
    /// When something was last sent.
    sent: Instant,
}

impl Events for Follower {
    /// Returns the next piece; `None` at the end: the server shuts down, the credentials were revoked, or the log cannot be
    /// read. The client reconnects, and then gets the error.
    async fn next(&mut self) -> Option<Bytes> {
        let piece = self.wait().await?;
        self.sent = Instant::now();
        Some(piece.into())
    }
}

impl Follower {
    async fn wait(&mut self) -> Option<String> {
        if !self.begun {
            self.begun = true;
            // Sent at once, so that the client gets the head of the response.
            return Some(format!("retry: 1000\n{}", self.heartbeat()));
        }
        loop {
            // Before the read, so that a change that is committed meanwhile ends the wait below.
            self.newest.borrow_and_update();
            self.viewer.verify().await?;
            let page = self.viewer.fleet.change_log().after(&self.viewer.context, Some(self.position), MAX_PAGE).await;
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
                    self.viewer.verify().await?;
                    return Some(self.heartbeat());
                }
                () = self.viewer.fleet.stopped() => return None,
            }
        }
    }

    /// Returns a comment, with the number that the client reconnects with.
    fn heartbeat(&self) -> String {
        format!(": heartbeat\nid: {}\n\n", self.position)
    }
}

fn event(seen: SeenChange) -> String {
    let seq = seen.seq;
    // Strings, numbers and booleans always serialize.
    let data = serde_json::to_string(&change(seen)).unwrap_or_default();
    format!("id: {seq}\nevent: change\ndata: {data}\n\n")
}
