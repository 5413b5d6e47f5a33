//! Follows the results of a live query: `result` for each one, `progress` in between, and `end` with the live query as it ended.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use muster_core::Error;
use muster_core::authorization::OpContext;
use muster_core::error_chain::chain;
use muster_fleet::Fleet;
use muster_fleet::live_queries::MAX_PAGE;
use muster_protocol::management::live_query::{LiveQuery, StreamContent};
use tokio::time::{Instant, sleep};

use super::{result, viewed};
use crate::entry::Credentials;
use crate::event_stream::{Events, HEARTBEAT, Viewer};
use crate::web_socket::Messages;

/// Interval at which a stream looks for new results.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Pause after results that were not a full page: when thousands of hosts answer within a second, reading each answer on its own
/// would cost as much as storing it.
const GATHER: Duration = Duration::from_millis(25);
/// Minimum time before an event of progress, from the one before or from the start: whoever follows has just seen the live query.
/// Counting the hosts that are offline reads all that have not answered.
const PROGRESS_EVERY: Duration = Duration::from_secs(1);

/// Follows the results of a live query.
pub struct Follower {
    viewer: Viewer,
    id: String,
    /// Number of the last result that was sent.
    position: u64,
    /// The last progress that was sent.
    told: Option<LiveQuery>,
    told_at: Instant,
    sent: Instant,
    /// Whether the last results were all that there were.
    has_caught_up: bool,
    has_ended: bool,
    only: Option<StreamContent>,
}

/// An event. The forms of all streams contain the same.
struct Event {
    kind: &'static str,
    /// Number of the result.
    id: Option<u64>,
    /// JSON.
    data: String,
}

impl Event {
    fn new(kind: &'static str, id: Option<u64>, data: &impl serde::Serialize) -> Self {
        // Strings, numbers and booleans always serialize.
        Self { kind, id, data: serde_json::to_string(data).unwrap_or_default() }
    }

    /// Returns it as a server-sent event.
    fn sent(self) -> String {
        let id = self.id.map(|id| format!("id: {id}\n")).unwrap_or_default();
        format!("{id}event: {}\ndata: {}\n\n", self.kind, self.data)
    }

    /// Returns it as a JSON object.
    fn object(self) -> String {
        let id = self.id.map(|id| format!(r#""id":{id},"#)).unwrap_or_default();
        format!(r#"{{"event":"{}",{id}"data":{}}}"#, self.kind, self.data)
    }
}

impl Events for Follower {
    async fn next(&mut self) -> Option<Bytes> {
        let events = self.wait().await?;
        if events.is_empty() {
            return Some(": heartbeat\n\n".into());
        }
        Some(events.into_iter().map(Event::sent).collect::<String>().into())
    }
}

impl Messages for Follower {
    async fn next(&mut self) -> Option<Vec<String>> {
        Some(self.wait().await?.into_iter().map(Event::object).collect())
    }

    fn is_complete(&self) -> bool {
        self.has_ended
    }
}

impl Follower {
    /// Follows a live query after a result; fails if the caller may not see it, or has too many streams.
    pub async fn open(
        fleet: Arc<Fleet>,
        context: OpContext,
        credentials: Credentials,
        id: String,
        position: u64,
        only: Option<StreamContent>,
    ) -> Result<Self, Error> {
        // Reports an unknown id before the stream begins.
        fleet.live_queries().find(&context, &id).await?;
        let viewer = Viewer::open(fleet, context, credentials)?;
        let now = Instant::now();
        Ok(Self {
            viewer,
            id,
            position,
            told: None,
            told_at: now,
            sent: now,
            has_caught_up: false,
            has_ended: false,
            only,
        })
    }

    /// Returns the next events, none for a heartbeat; `None` at the end.
    async fn wait(&mut self) -> Option<Vec<Event>> {
        if self.has_ended {
            return None;
        }
        if std::mem::take(&mut self.has_caught_up) {
            sleep(GATHER).await;
        }
        loop {
            self.viewer.verify().await?;
            let found = self.look().await;
            let found = found.inspect_err(|error| tracing::info!(error = %chain(error), "ended a stream of results"));
            let events = found.ok()?;
            if !events.is_empty() || self.sent.elapsed() >= HEARTBEAT {
                self.sent = Instant::now();
                return Some(events);
            }
            tokio::select! {
                () = sleep(LOOK_EVERY) => {}
                () = self.viewer.fleet.stopped() => return None,
            }
        }
    }

    /// Returns the next results, the progress if it has changed, or the end.
    async fn look(&mut self) -> Result<Vec<Event>, Error> {
        let queries = self.viewer.fleet.live_queries();
        // First the state: the results that are read after its end are all.
        let found = queries.find(&self.viewer.context, &self.id).await?;
        let page = match self.only {
            Some(StreamContent::Progress) => Vec::new(),
            None => queries.results(&found, self.position, MAX_PAGE).await?,
        };
        if let Some(last) = page.last() {
            (self.position, self.has_caught_up) = (last.seq, page.len() < MAX_PAGE as usize);
            return Ok(page.into_iter().map(|found| Event::new("result", Some(found.seq), &result(found))).collect());
        }
        let has_ended = found.ended.is_some();
        if !has_ended && self.told_at.elapsed() < PROGRESS_EVERY {
            return Ok(Vec::new());
        }
        let view = viewed(queries.view(&found).await?);
        self.told_at = Instant::now();
        self.has_ended = has_ended;
        if has_ended {
            return Ok(vec![Event::new("end", None, &view)]);
        }
        if self.told.as_ref() == Some(&view) {
            return Ok(Vec::new());
        }
        let event = Event::new("progress", None, &view);
        self.told = Some(view);
        Ok(vec![event])
    }
}
