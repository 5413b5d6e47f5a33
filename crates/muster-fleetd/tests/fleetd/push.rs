//! Hints over WebSocket, with a client over TCP.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::ops::Deref;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use http::Method;
use http::header::AUTHORIZATION;
use muster_core::agent::Family;
use muster_core::authorization::{Actor, OpContext};
use muster_core::host_run::DEFAULT_EXPIRY;
use muster_fleet::host_checks::CheckDraft;
use muster_fleet::live_queries::{NewLiveQuery, QuerySource};
use muster_fleet::scripts::{NewScriptRun, ScriptSource};
use muster_fleetd::FleetdApiOptions;
use muster_listen::reply::{ListenerKind, Peer};
use muster_listen::testing::{self, Setup, handler, until, within};
use muster_store::query::AgentFilter;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

use crate::setting::{Server, UUID, details};

const PATH: &str = "/api/fleet/orbit/notifications";
const OTHER: &str = "4C4C4544-0042-3510-8052-000000000002";

type Socket = WebSocketStream<TcpStream>;

/// A server with push, behind a listener.
struct Pushing {
    server: Server,
    listener: testing::Server,
}

impl Deref for Pushing {
    type Target = Server;

    fn deref(&self) -> &Server {
        &self.server
    }
}

/// The keys of a host.
struct Keys {
    orbit: String,
    osquery: String,
}

impl Pushing {
    async fn start() -> Self {
        let server = Server::start_with(FleetdApiOptions { push: true, ..FleetdApiOptions::default() });
        let api = server.api.clone();
        let listener = Setup::default().start(handler(move |request| {
            let handled = api.handle(request, Peer::new(ListenerKind::Agent));
            async move { handled.await.answer }
        }));
        Self { server, listener }
    }

    /// Enrolls a host that has reported its details.
    async fn host(&self, uuid: &str) -> Keys {
        let secret = self.secret().await;
        let (orbit, osquery) = (self.orbit_key(&secret, uuid).await, self.osquery_key(&secret, uuid).await);
        assert_eq!(self.osquery("distributed/write", &details(&osquery, uuid)).await.status, 200);
        Keys { orbit, osquery }
    }

    async fn connect(&self, authorization: &str) -> Result<Socket, tungstenite::Error> {
        let mut request = format!("ws://localhost{PATH}").into_client_request().unwrap();
        request.headers_mut().insert(AUTHORIZATION, authorization.parse().unwrap());
        let stream = TcpStream::connect(self.listener.address).await.unwrap();
        within(client_async(request, stream)).await.map(|(socket, _)| socket)
    }

    async fn connected(&self, keys: &Keys) -> Socket {
        self.connect(&format!("Node key {}", keys.orbit)).await.unwrap()
    }

    /// Runs a live query on all hosts; returns its id.
    async fn run(&self) -> String {
        let new = NewLiveQuery {
            sql: QuerySource::Sql("SELECT 1;".to_owned()),
            hosts: Vec::new(),
            labels: Vec::new(),
            filter: AgentFilter::default(),
            timeout: Duration::from_secs(3600),
        };
        self.fleet.live_queries().create(&root(), new).await.unwrap().query.id.as_str().to_owned()
    }

    /// Returns the ids of the live queries that a host reads with a key.
    async fn queries(&self, key: &str) -> Vec<String> {
        let read = self.osquery("distributed/read", &json!({"node_key": key})).await.json();
        let names = read["queries"].as_object().unwrap().keys();
        names.filter_map(|name| name.strip_prefix("fleet_distributed_query_")).map(str::to_owned).collect()
    }

    async fn create_check(&self) {
        let draft = CheckDraft { name: Some("disk".into()), query: Some("SELECT 1".into()), ..CheckDraft::default() };
        self.fleet.host_checks().create(&root().grant().unwrap(), draft).await.unwrap();
    }

    async fn host_id(&self, uuid: &str) -> String {
        self.record(Family::Orbit, uuid).await.unwrap().host_id.unwrap().as_str().to_owned()
    }
}

fn root() -> OpContext {
    OpContext::administrator(Actor::Local { uid: 0 })
}

/// Receives the reason of a hint.
async fn hint(socket: &mut Socket) -> String {
    reason(&within(socket.next()).await.unwrap().unwrap())
}

fn reason(message: &Message) -> String {
    let hint: Value = serde_json::from_str(message.to_text().unwrap()).unwrap();
    let reason = hint["reason"].as_str().unwrap();
    let kind = if reason == "activity" { "orbit/config" } else { "distributed/read" };
    assert_eq!(hint["type"], kind, "{hint}");
    reason.to_owned()
}

/// Returns the code with which the server closes the connection; `None` if it cuts it.
async fn closed(socket: &mut Socket) -> Option<CloseCode> {
    loop {
        match within(socket.next()).await {
            Some(Ok(Message::Close(frame))) => return frame.map(|frame| frame.code),
            Some(Ok(_)) => {}
            Some(Err(_)) | None => return None,
        }
    }
}

/// Asserts that nothing comes for a while.
async fn silent(socket: &mut Socket) {
    let received = tokio::time::timeout(Duration::from_millis(300), socket.next()).await;
    assert!(received.is_err(), "{received:?}");
}

#[tokio::test]
async fn fl67_fl166_the_key_is_checked_with_case_before_the_upgrade() {
    let pushing = Pushing::start().await;
    let keys = pushing.host(UUID).await;
    for wrong in ["node key KEY", "Node Key KEY", "NodeKey KEY", "Node key ", "Node key wrong", "Bearer KEY"] {
        let refused = pushing.connect(&wrong.replace("KEY", &keys.orbit)).await.unwrap_err();
        let tungstenite::Error::Http(response) = refused else { panic!("{refused}") };
        assert_eq!(response.status(), 401, "{wrong}");
        assert_eq!(response.body().as_deref(), Some(&b"Authentication required\n"[..]));
        assert_eq!(response.headers()["content-type"], "text/plain; charset=utf-8");
    }
    assert!(pushing.connect(&format!("Node key {}", keys.osquery)).await.is_err());
    let authorization = format!("Node key {}", keys.orbit);
    let got = pushing.raw(Method::GET, PATH, &[("authorization", &authorization)], "").await;
    assert_eq!(got.status, 400, "without a handshake: {got:?}");
    assert_eq!(pushing.raw(Method::POST, PATH, &[], "").await.status, 405);
    pushing.connected(&keys).await;
}

#[tokio::test]
async fn push_is_off_by_default() {
    let server = Server::start().await;
    let key = server.orbit_key(&server.secret().await, UUID).await;
    let got = server.raw(Method::GET, PATH, &[("authorization", &format!("Node key {key}"))], "").await;
    assert_eq!(got.status, 404);
    let config = server.orbit("config", &json!({"orbit_node_key": key})).await.json();
    assert_eq!(config.get("websocket_transport"), None);
    let pushing = Pushing::start().await;
    let key = pushing.orbit_key(&pushing.secret().await, UUID).await;
    let config = pushing.orbit("config", &json!({"orbit_node_key": key})).await.json();
    assert_eq!(config["websocket_transport"], json!({"enabled": true}));
}

#[tokio::test]
async fn fl171_a_host_is_told_of_a_live_query_within_a_second_also_on_a_new_connection() {
    let pushing = Pushing::start().await;
    let keys = pushing.host(UUID).await;
    let mut socket = pushing.connected(&keys).await;
    silent(&mut socket).await;
    let began = Instant::now();
    let id = pushing.run().await;
    assert_eq!(hint(&mut socket).await, format!("live-{id}"));
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    silent(&mut socket).await;
    let mut again = pushing.connected(&keys).await;
    assert_eq!(hint(&mut again).await, format!("live-{id}"));
    // As orbit fetches and answers it, with its own key.
    let read = pushing.osquery("distributed/read", &json!({"node_key": keys.orbit})).await.json();
    let name = format!("fleet_distributed_query_{id}");
    assert_eq!(read["queries"][&name], "SELECT 1;");
    let body = json!({"node_key": keys.orbit, "queries": {&name: []}, "statuses": {&name: 0}, "messages": {}});
    assert_eq!(pushing.osquery("distributed/write", &body).await.status, 200);
    silent(&mut pushing.connected(&keys).await).await;
}

#[tokio::test]
async fn a_host_is_told_within_a_second_that_it_has_a_script_to_run_and_once_for_each() {
    let pushing = Pushing::start().await;
    let keys = pushing.host(UUID).await;
    let mut socket = pushing.connected(&keys).await;
    silent(&mut socket).await;
    let run = async || {
        let new = NewScriptRun {
            source: ScriptSource::Text { name: None, script: "echo".to_owned() },
            hosts: Vec::new(),
            filter: AgentFilter::default(),
            expiry: DEFAULT_EXPIRY,
            timeout: 60,
        };
        pushing.fleet.scripts().create(&root().grant().unwrap(), new).await.unwrap().id
    };
    let began = Instant::now();
    let script = run().await;
    assert_eq!(hint(&mut socket).await, "activity");
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    // orbit requests its configuration every 30 seconds, so that a lost hint is not repeated.
    silent(&mut socket).await;
    let config = pushing.orbit("config", &json!({"orbit_node_key": keys.orbit})).await.json();
    assert_eq!(config["notifications"]["pending_script_execution_ids"], json!([script]));
    run().await;
    assert_eq!(hint(&mut socket).await, "activity", "for each");
    let live = pushing.run().await;
    assert_eq!(hint(&mut socket).await, format!("live-{live}"), "queries beside it");
    let mut again = pushing.connected(&keys).await;
    let both = [hint(&mut again).await, hint(&mut again).await];
    assert_eq!(both, ["activity".to_owned(), format!("live-{live}")], "on a new connection");
}

#[tokio::test]
async fn a_host_is_told_that_the_passphrase_of_its_disk_is_wanted() {
    let pushing = Pushing::start().await;
    let keys = pushing.host(UUID).await;
    let mut socket = pushing.connected(&keys).await;
    let found = pushing.fleet.disk_keys().find(&root(), &pushing.host_id(UUID).await).await.unwrap();
    pushing.fleet.disk_keys().escrow(&found).await.unwrap();
    assert_eq!(hint(&mut socket).await, "activity");
    let config = pushing.orbit("config", &json!({"orbit_node_key": keys.orbit})).await.json();
    assert_eq!(config["notifications"], json!({"run_disk_encryption_escrow": true}));
    silent(&mut pushing.connected(&keys).await).await;
}

#[tokio::test]
async fn fl171_a_hint_is_repeated_every_ten_seconds_while_the_work_is_due() {
    let pushing = Pushing::start().await;
    let keys = pushing.host(UUID).await;
    let id = pushing.run().await;
    let mut socket = pushing.connected(&keys).await;
    assert_eq!(hint(&mut socket).await, format!("live-{id}"));
    tokio::time::pause();
    let began = Instant::now();
    for repeated in 1..4 {
        assert_eq!(hint(&mut socket).await, format!("live-{id}"));
        let (passed, expected) = (began.elapsed(), Duration::from_secs(10 * repeated));
        assert!(passed.abs_diff(expected) < Duration::from_secs(2), "{passed:?}");
    }
}

#[tokio::test]
async fn fl67_a_host_that_reads_no_hints_misses_no_work() {
    let pushing = Pushing::start().await;
    let keys = pushing.host(UUID).await;
    let mut socket = pushing.connected(&keys).await;
    let ids = [pushing.run().await, pushing.run().await];
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let last = pushing.run().await;
    while hint(&mut socket).await != format!("live-{last}") {}
    let queries = pushing.queries(&keys.orbit).await;
    assert!(ids.iter().chain([&last]).all(|id| queries.contains(id)), "{queries:?}");
}

#[tokio::test]
async fn fl68_polling_gives_the_same_queries_with_a_socket_and_without() {
    let pushing = Pushing::start().await;
    let keys = pushing.host(UUID).await;
    let socket = pushing.connected(&keys).await;
    let id = pushing.run().await;
    assert_eq!(pushing.queries(&keys.osquery).await, std::slice::from_ref(&id));
    drop(socket);
    until("the socket is closed", || pushing.listener.connections.inside() == 0).await;
    assert_eq!(pushing.queries(&keys.osquery).await, std::slice::from_ref(&id));
}

#[tokio::test]
async fn a_host_is_told_of_details_and_host_checks() {
    let pushing = Pushing::start().await;
    let keys = pushing.host(UUID).await;
    let mut socket = pushing.connected(&keys).await;
    pushing.fleet.agents().refetch_host(&root(), &pushing.host_id(UUID).await).await.unwrap();
    assert_eq!(hint(&mut socket).await, "detail");
    assert_eq!(pushing.osquery("distributed/write", &details(&keys.osquery, "web-7")).await.status, 200);
    pushing.create_check().await;
    assert_eq!(hint(&mut socket).await, "policy");
}

#[tokio::test]
async fn an_osqueryd_that_enrolls_after_its_orbit_is_told_of_its_work() {
    let pushing = Pushing::start().await;
    let secret = pushing.secret().await;
    let keys = Keys { orbit: pushing.orbit_key(&secret, UUID).await, osquery: String::new() };
    let mut socket = pushing.connected(&keys).await;
    silent(&mut socket).await;
    pushing.osquery_key(&secret, UUID).await;
    tokio::time::pause();
    assert_eq!(reason(&socket.next().await.unwrap().unwrap()), "detail");
}

#[tokio::test]
async fn fl166_the_connection_of_a_deleted_host_is_closed_within_a_second() {
    let pushing = Pushing::start().await;
    let keys = pushing.host(UUID).await;
    let mut socket = pushing.connected(&keys).await;
    let began = Instant::now();
    pushing.fleet.agents().delete_host(&root(), &pushing.host_id(UUID).await).await.unwrap();
    assert_eq!(closed(&mut socket).await, Some(CloseCode::Policy));
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    assert!(pushing.connect(&format!("Node key {}", keys.orbit)).await.is_err());
}

#[tokio::test]
async fn the_connection_ends_with_the_key_and_at_shutdown_but_not_with_a_device_token() {
    let pushing = Pushing::start().await;
    let keys = pushing.host(UUID).await;
    let mut socket = pushing.connected(&keys).await;
    for token in ["0b1c6b7e-4b39-4b0e-9a7d-3f8f4f7b2f60", "1c2d7c8f-5c4a-4c1f-8b8e-4a9a5a8c3a71"] {
        let body = json!({"orbit_node_key": keys.orbit, "device_auth_token": token});
        assert_eq!(pushing.orbit("device_token", &body).await.status, 200);
        pushing.clock.advance(Duration::from_secs(7200));
    }
    // The clock has moved, so that details are due, too.
    pushing.run().await;
    while !hint(&mut socket).await.starts_with("live-") {}
    let orbit = pushing.orbit_key(&pushing.secret().await, UUID).await;
    // The old key is revoked, and replaced: which of the two the connection sees first depends on the moment.
    assert!(closed(&mut socket).await.is_some(), "it has enrolled again");
    let mut socket = pushing.connected(&Keys { orbit, osquery: String::new() }).await;
    assert!(hint(&mut socket).await.starts_with("live-"));
    pushing.fleet.stop();
    assert_eq!(closed(&mut socket).await, Some(CloseCode::Restart));
}

#[tokio::test]
async fn a_third_connection_replaces_the_first() {
    let pushing = Pushing::start().await;
    let keys = pushing.host(UUID).await;
    let mut sockets = Vec::new();
    for _ in 0..3 {
        sockets.push(pushing.connected(&keys).await);
    }
    assert_eq!(closed(&mut sockets[0]).await, Some(CloseCode::Restart));
    let id = pushing.run().await;
    assert_eq!(hint(&mut sockets[2]).await, format!("live-{id}"));
}

#[tokio::test]
async fn messages_of_hosts_are_ignored_up_to_their_limit() {
    let pushing = Pushing::start().await;
    let keys = pushing.host(UUID).await;
    let mut socket = pushing.connected(&keys).await;
    for message in [Message::text("x".repeat(1024)), Message::binary(vec![0; 1024]), Message::text("")] {
        socket.send(message).await.unwrap();
    }
    silent(&mut socket).await;
    let mut large = pushing.connected(&keys).await;
    large.send(Message::text("x".repeat(1025))).await.unwrap();
    assert_eq!(closed(&mut large).await, None);
    let mut many = pushing.connected(&keys).await;
    for _ in 0..1001 {
        if many.send(Message::text("x")).await.is_err() {
            break;
        }
    }
    assert_eq!(closed(&mut many).await, None);
}

#[tokio::test]
async fn fl166_a_ping_comes_within_five_minutes_and_must_be_answered() {
    let pushing = Pushing::start().await;
    let keys = pushing.host(UUID).await;
    let mut socket = pushing.connected(&keys).await;
    silent(&mut socket).await;
    tokio::time::pause();
    for _ in 0..2 {
        let began = Instant::now();
        let received = socket.next().await.unwrap().unwrap();
        assert!(received.is_ping(), "{received}");
        assert!(began.elapsed() <= Duration::from_secs(300), "{:?}", began.elapsed());
    }
    // The socket answers pings while it is read, so this host is gone.
    tokio::time::sleep(Duration::from_secs(300 + 120)).await;
    tokio::time::resume();
    until("the connection is closed", || pushing.listener.connections.inside() == 0).await;
}

#[tokio::test]
async fn fl54_with_push_the_key_of_orbit_is_accepted_for_the_osqueryd_of_its_host() {
    let pushing = Pushing::start().await;
    let (keys, other) = (pushing.host(UUID).await, pushing.host(OTHER).await);
    let id = pushing.run().await;
    let answer = async |headers: &[(&str, &str)], key: &str| {
        let body = json!({"node_key": key}).to_string();
        pushing.raw(Method::POST, "/api/v1/osquery/distributed/read", headers, body).await
    };
    let name = format!("fleet_distributed_query_{id}");
    let (own, node) = (format!("Node key {}", keys.orbit), format!("NodeKey {}", keys.orbit));
    for (headers, key) in [
        (vec![], keys.orbit.as_str()),
        (vec![("authorization", own.as_str())], keys.orbit.as_str()),
        (vec![("authorization", own.as_str())], ""),
        (vec![("authorization", node.as_str())], ""),
    ] {
        assert!(answer(&headers, key).await.json()["queries"][&name].is_string(), "{headers:?}");
    }
    assert_eq!(answer(&[("authorization", &own)], &other.orbit).await.status, 401, "FL41");
    // What the orbit of one host answers is not the answer of another.
    let body = json!({"node_key": keys.orbit, "queries": {&name: []}, "statuses": {&name: 0}, "messages": {}});
    assert_eq!(pushing.osquery("distributed/write", &body).await.status, 200);
    assert!(!answer(&[], &keys.osquery).await.json()["queries"][&name].is_string());
    assert!(answer(&[], &other.osquery).await.json()["queries"][&name].is_string());
    // An orbit without an osqueryd, and one whose host was deleted.
    let alone = pushing.orbit_key(&pushing.secret().await, "alone").await;
    assert_eq!(answer(&[], &alone).await.json()["node_invalid"], true);
    pushing.fleet.agents().delete_host(&root(), &pushing.host_id(UUID).await).await.unwrap();
    assert_eq!(answer(&[], &keys.orbit).await.status, 401);
}

#[tokio::test]
async fn a_live_query_does_not_read_the_store_for_each_connection() {
    let mut reads = Vec::new();
    for hosts in [2, 20] {
        let pushing = Pushing::start().await;
        let mut sockets = Vec::new();
        for number in 0..hosts {
            let keys = pushing.host(&format!("host-{number}")).await;
            sockets.push(pushing.connected(&keys).await);
        }
        for socket in &mut sockets {
            silent(socket).await;
        }
        let before = pushing.reads();
        pushing.run().await;
        for socket in &mut sockets {
            hint(socket).await;
        }
        reads.push(pushing.reads() - before);
    }
    assert!(reads[1] <= reads[0] + 2, "{reads:?}");
}
