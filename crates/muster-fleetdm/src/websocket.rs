//! Results of live queries over a WebSocket, as `fleetctl query` reads them (FL36): JSON messages without the frames of SockJS.
//! The client sends `auth` with its token, then `select_campaign`; the server sends `totals`, `status` and `result`.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use futures_util::{SinkExt as _, StreamExt as _};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use muster_core::authorization::OpContext;
use muster_core::fleetd::numbers;
use muster_core::live_query::LiveResult;
use muster_fleet::Fleet;
use muster_fleet::change_log::StreamPlace;
use muster_listen::reply::Peer;
use muster_listen::websocket::{self, Limits, handshake};
use muster_management::entry::Connection;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use crate::campaigns::{BATCH, LIFETIME, LOOK_EVERY};
use crate::entry::{Caller, Credentials};
use crate::failure::Failure;
use crate::routes::Route;

/// Maximum time until the client has sent its two messages.
const BEGIN: Duration = Duration::from_secs(10);
/// The client sends its token and the number of a campaign.
const LIMITS: Limits = Limits { read_buffer: 256, max_message: 8 << 10 };
/// Minimum time between two messages of progress. Counting the hosts that are offline reads all that have not answered.
const PROGRESS_EVERY: Duration = Duration::from_secs(1);
/// Maximum age of a check of the client's credentials when something is sent.
const CHECKED_WITHIN: Duration = Duration::from_secs(1);
/// Maximum time to send a message.
const SEND: Duration = Duration::from_secs(30);
/// Interval of pings.
const PING: Duration = Duration::from_secs(30);
/// Time for which a connection stays open after the end of its live query. A client that does not expect the end would fail.
const AFTER_END: Duration = Duration::from_secs(10 * 60);

/// The route of results.
pub fn routes() -> Vec<Route> {
    vec![Route::get("/results/websocket", upgrade, "Follow a live query over a WebSocket")]
}

async fn upgrade(State(fleet): State<Arc<Fleet>>, mut request: Request) -> Response {
    let peer = request.extensions().get::<Peer>().cloned();
    let Some(upgrade) = request.extensions_mut().remove::<OnUpgrade>() else {
        return Failure::bad("expected a WebSocket handshake").into_response();
    };
    let (head, _) = request.into_parts();
    let Ok(completed) = handshake(&head) else {
        return Failure::bad("expected a WebSocket handshake").into_response();
    };
    // The connection is handed over only after this response has been sent.
    tokio::spawn(async move {
        if let Ok(stream) = upgrade.await {
            serve(fleet, stream, peer, head.headers).await;
        }
    });
    (StatusCode::SWITCHING_PROTOCOLS, completed).into_response()
}

/// A message of a client.
#[derive(Deserialize)]
#[serde(tag = "type", content = "data", rename_all = "snake_case")]
pub enum Received {
    /// The first message.
    Auth {
        /// An API token, or one that a login returned.
        token: String,
    },
    /// The second message.
    SelectCampaign {
        /// The number of the live query.
        campaign_id: u64,
    },
}

impl Received {
    /// Parses a message.
    pub fn parse(text: &str) -> Result<Self, Failure> {
        serde_json::from_str(text).map_err(|error| Failure::bad(error.to_string()))
    }
}

/// Why a connection ends.
enum End {
    /// The connection is lost, or the client has closed it.
    Lost,
    /// The client is told the reason.
    Failed(Failure),
}

impl<E: Into<Failure>> From<E> for End {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

type Socket = WebSocketStream<TokioIo<Upgraded>>;

async fn serve(fleet: Arc<Fleet>, stream: Upgraded, peer: Option<Peer>, headers: HeaderMap) {
    let mut socket = websocket::serve(TokioIo::new(stream), LIMITS).await;
    // The upgrade needs no credentials. Until they come, a connection must be cheap and short.
    let begun = timeout(BEGIN, begin(&fleet, &mut socket, peer, &headers)).await;
    let late =
        || Failure::new(StatusCode::REQUEST_TIMEOUT, "Request Timeout", "expected auth and select_campaign").into();
    let ended = match begun.unwrap_or_else(|_| Err(late())) {
        Ok(follower) => follower.run(&mut socket).await,
        Err(end) => end,
    };
    if let End::Failed(failure) = ended {
        // The client may be gone.
        let _ = send(&mut socket, "error", json!(failure.reason())).await;
    }
    let _ = timeout(SEND, socket.close(None)).await;
}

async fn begin(
    fleet: &Arc<Fleet>,
    socket: &mut Socket,
    peer: Option<Peer>,
    headers: &HeaderMap,
) -> Result<Follower, End> {
    let Received::Auth { token } = receive(socket).await? else {
        return Err(Failure::bad("expected a message of the type auth").into());
    };
    let credentials = Credentials::of_token(&token, Connection::of(peer.clone()))?;
    let context = credentials.authenticate(fleet, headers).await?;
    if let Some(peer) = peer {
        // From here on, the limits of authenticated connections apply to this one.
        peer.set_authenticated();
    }
    // Counts towards the same limit as the streams of Muster's own API, per caller and server.
    let place = fleet.change_log().open_stream(&context)?;
    let caller = Caller { fleet: Arc::clone(fleet), context, credentials };
    let Received::SelectCampaign { campaign_id } = receive(socket).await? else {
        return Err(Failure::bad("expected a message of the type select_campaign").into());
    };
    let (space, id) = find(&caller, campaign_id).await?;
    let queries = caller.fleet.live_queries();
    queries.prolong(&queries.find(&space, &id).await?, LIFETIME).await?;
    let (told, checked) = ((Value::Null, Value::Null), Instant::now());
    Ok(Follower { caller, space, id, campaign: campaign_id, position: 0, told, checked, _place: place })
}

/// Reads the next message, without pings and the like.
async fn receive(socket: &mut Socket) -> Result<Received, End> {
    loop {
        match socket.next().await {
            Some(Ok(Message::Text(text))) => {
                return Received::parse(&text).map_err(End::from);
            }
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
            _ => return Err(End::Lost),
        }
    }
}

/// Finds a live query by the number of its campaign.
async fn find(caller: &Caller, campaign: u64) -> Result<(OpContext, String), Failure> {
    for space in caller.spaces().await? {
        let context = caller.within(&space.id);
        let Ok(queries) = caller.fleet.live_queries().list(&context).await else { continue };
        if let Some(found) = queries.into_iter().find(|query| numbers::of(query.id.as_str()) == campaign) {
            return Ok((context, found.id.to_string()));
        }
    }
    Err(Failure::not_found("campaign", campaign))
}

async fn send(socket: &mut Socket, kind: &str, data: Value) -> Result<(), End> {
    let text = json!({"type": kind, "data": data}).to_string();
    match timeout(SEND, socket.send(Message::text(text))).await {
        Ok(Ok(())) => Ok(()),
        _ => Err(End::Lost),
    }
}

/// A client that follows a live query.
struct Follower {
    caller: Caller,
    /// The rights of the caller in the team of the live query.
    space: OpContext,
    id: String,
    campaign: u64,
    /// Number of the last result that was sent.
    position: u64,
    /// The totals and the status that were sent last.
    told: (Value, Value),
    /// When the credentials were last verified.
    checked: Instant,
    _place: StreamPlace,
}

impl Follower {
    async fn run(mut self, socket: &mut Socket) -> End {
        let ended = self.follow(socket).await;
        // The client can follow the live query on another server.
        if !self.caller.fleet.is_stopping() {
            self.stop().await;
        }
        ended
    }

    /// Stops the live query if it is the client's own. As in FleetDM, hosts are not asked any more when nobody waits for their answers.
    async fn stop(&self) {
        let queries = self.caller.fleet.live_queries();
        if let Ok(found) = queries.find(&self.space, &self.id).await
            && queries.is_creator(&self.space, &found)
            && let Err(error) = queries.stop(&found).await
        {
            tracing::info!(%error, "cannot stop a live query that nobody follows");
        }
    }

    async fn follow(&mut self, socket: &mut Socket) -> End {
        let now = Instant::now();
        // Deadlines rather than intervals: a slow client must not cause a burst of late ticks.
        let (mut look, mut progress, mut ping) = (now, now, now + PING);
        let mut close = None;
        loop {
            let now = Instant::now();
            if close.is_some_and(|close| now >= close) {
                return End::Lost;
            }
            if now >= look {
                look = now + LOOK_EVERY;
                match self.look(socket, now >= progress).await {
                    Ok(Looked::Progress) => progress = now + PROGRESS_EVERY,
                    // There may be more: a full page is followed by the next one without a pause.
                    Ok(Looked::Results) => look = now,
                    Ok(Looked::Nothing) => {}
                    Ok(Looked::Ended) => {
                        close = close.or(Some(now + AFTER_END));
                        // All results are sent; until the connection closes, only pings are left.
                        look = now + PING;
                    }
                    Err(end) => return end,
                }
            }
            if now >= ping {
                ping = now + PING;
                if !matches!(timeout(SEND, socket.send(Message::Ping(Vec::new().into()))).await, Ok(Ok(()))) {
                    return End::Lost;
                }
            }
            tokio::select! {
                () = sleep_until(look.min(ping)) => {}
                received = socket.next() => {
                    if !matches!(received, Some(Ok(Message::Text(_) | Message::Ping(_) | Message::Pong(_)))) {
                        return End::Lost;
                    }
                }
                () = self.caller.fleet.stopped() => return End::Lost,
            }
        }
    }

    /// Refreshes the caller's rights: its token may have been revoked.
    async fn verify(&mut self) -> Result<(), End> {
        if self.checked.elapsed() >= CHECKED_WITHIN {
            // The headers only describe the client in a refusal, and those of the handshake are gone.
            let context = self.caller.credentials.authenticate(&self.caller.fleet, &HeaderMap::new()).await?;
            self.space = context.in_space(self.space.space().clone());
            self.checked = Instant::now();
        }
        Ok(())
    }

    /// Sends the next results, or the progress if it has changed.
    async fn look(&mut self, socket: &mut Socket, with_progress: bool) -> Result<Looked, End> {
        self.verify().await?;
        let queries = Arc::clone(self.caller.fleet.live_queries());
        // First the state: the results that are read after its end are all.
        let found = queries.find(&self.space, &self.id).await?;
        let page = queries.results(&found, self.position, BATCH).await?;
        // Clients show progress relative to the totals, so these come before the first result.
        let is_first = self.told.0.is_null();
        if !page.is_empty() && !is_first {
            for result in page {
                self.position = result.seq;
                send(socket, "result", self.result(&result)).await?;
            }
            return Ok(Looked::Results);
        }
        let has_ended = found.ended.is_some() && page.is_empty();
        if !with_progress && !has_ended && !is_first {
            return Ok(Looked::Nothing);
        }
        let view = queries.view(&found).await?;
        let (targets, answered) = (view.query.targets - view.query.gone.min(view.query.targets), view.query.answered);
        let online = targets - view.offline.min(targets);
        let totals = json!({"count": targets, "online": online, "offline": view.offline, "missing_in_action": 0});
        let is_finished = answered >= online || view.query.ended.is_some();
        // Clients end when the results that they have counted here are as many as the hosts: only those count that were sent.
        let status = json!({
            "expected_results": online,
            "actual_results": self.position,
            "status": if is_finished && page.is_empty() { "finished" } else { "pending" },
        });
        if self.told.0 != totals {
            send(socket, "totals", totals.clone()).await?;
        }
        if self.told.1 != status {
            send(socket, "status", status.clone()).await?;
        }
        self.told = (totals, status);
        Ok(if has_ended { Looked::Ended } else { Looked::Progress })
    }

    fn result(&self, result: &LiveResult) -> Value {
        let host = numbers::of_host(&result.agent).unwrap_or_default();
        let mut rows: Value = serde_json::from_str(&result.answer.rows).unwrap_or_default();
        for row in rows.as_array_mut().into_iter().flatten() {
            // As in FleetDM: rows are printed on their own, so each names its host.
            row["host_hostname"] = result.hostname.as_str().into();
            row["host_display_name"] = result.hostname.as_str().into();
        }
        json!({
            "distributed_query_execution_id": self.campaign,
            "host": {"id": host, "hostname": result.hostname, "display_name": result.hostname},
            "rows": rows,
            "error": result.answer.error,
            "stats": null,
        })
    }
}

/// Result of a look.
enum Looked {
    Results,
    Progress,
    Nothing,
    Ended,
}
