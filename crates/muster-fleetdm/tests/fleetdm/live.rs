//! Live queries: over the WebSocket, and while the client waits.

use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use futures_util::{SinkExt as _, StreamExt as _};
use muster_core::authorization::{Actor, OpContext};
use muster_core::fleetd::numbers;
use muster_core::id::SpaceId;
use muster_core::live_query::MAX_RUNNING_OF_USER;
use muster_listen::refusal::Refusal;
use muster_listen::reply::{Peer, Reply};
use muster_listen::testing::{Server, Setup, reply};
use muster_listen::web::{OnHyper, Web, WebBody, WebWork};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{WebSocketStream, client_async};
use tower::ServiceExt as _;

use crate::setting::{Api, column, in_space};

/// A management listener, as the server has it.
struct Pages(Router);

impl Web for Pages {
    type Body = Body;

    fn refuse(&self, refusal: &Refusal, _: &Peer) -> Reply {
        reply(refusal.to_string())
    }

    fn handle(&self, request: Request<WebBody>, peer: Peer) -> WebWork<Body> {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(peer);
        let work = self.0.clone().oneshot(request);
        Box::pin(async { work.await.unwrap() })
    }
}

/// A client of the WebSocket.
pub struct Client {
    socket: WebSocketStream<TcpStream>,
    _server: Server,
}

impl Client {
    /// Serves the API on a port, and connects to it.
    pub async fn connect(api: &Api) -> Self {
        let server = Setup::default().start(OnHyper(Pages(api.router.clone())));
        let stream = server.client().await.stream;
        let url = "ws://localhost/api/latest/fleet/results/websocket";
        Self { socket: client_async(url, stream).await.expect("as expected").0, _server: server }
    }

    pub async fn send(&mut self, kind: &str, data: Value) {
        self.socket.send(Message::text(json!({"type": kind, "data": data}).to_string())).await.expect("as expected");
    }

    /// Closes the connection, and waits for the server to do the same.
    pub async fn close(&mut self) {
        self.socket.close(None).await.expect("as expected");
        while let Some(Ok(_)) = self.socket.next().await {}
    }

    /// Follows a campaign.
    pub async fn select(&mut self, token: &str, campaign: &Value) {
        self.send("auth", json!({"token": token})).await;
        self.send("select_campaign", json!({"campaign_id": campaign})).await;
    }

    /// Returns the next message; `None` at the end.
    pub async fn next(&mut self) -> Option<Value> {
        loop {
            let received =
                tokio::time::timeout(Duration::from_secs(20), self.socket.next()).await.expect("it is silent");
            match received?.ok()? {
                Message::Text(text) => return Some(serde_json::from_str(&text).expect("as expected")),
                Message::Close(_) => return None,
                _ => {}
            }
        }
    }

    /// Returns the data of the next message of a type.
    pub async fn data(&mut self, kind: &str) -> Value {
        loop {
            let message = self.next().await.expect("the connection ended");
            if message["type"] == kind {
                return message["data"].clone();
            }
        }
    }
}

#[tokio::test]
async fn fl36_results_reach_a_client_of_the_websocket_and_offline_hosts_are_counted() {
    let api = Api::new().await;
    let host = api.host("m-1", |_| {}).await;
    api.host("m-2", |_| {}).await;
    let run = json!({"query": "SELECT 1", "selected": {"labels": ["All Hosts"], "hosts": [""]}});
    let made = api.post("/reports/run_by_identifiers", run).await.ok()["campaign"].clone();
    assert_eq!(made["Metrics"]["TotalHosts"], 2);
    let mut client = Client::connect(&api).await;
    client.select(&api.token, &made["id"]).await;
    let totals = client.data("totals").await;
    assert_eq!((&totals["count"], &totals["missing_in_action"]), (&json!(2), &json!(0)));
    assert_eq!(totals["online"].as_u64().unwrap() + totals["offline"].as_u64().unwrap(), 2);
    assert_eq!(client.data("status").await["actual_results"], 0);
    let query = api.running().await;
    api.answer("m-1", &query, r#"[{"pid":"1"}]"#).await;
    let result = client.data("result").await;
    assert_eq!((&result["host"]["id"], &result["host"]["hostname"]), (&json!(host), &json!("m-1.example")));
    assert_eq!(
        result["rows"],
        json!([{"pid": "1", "host_hostname": "m-1.example", "host_display_name": "m-1.example"}])
    );
    assert_eq!((&result["distributed_query_execution_id"], &result["error"]), (&made["id"], &Value::Null));
    api.answer("m-2", &query, "[]").await;
    assert_eq!(client.data("result").await["rows"], json!([]));
    let status = client.data("status").await;
    assert_eq!((&status["actual_results"], &status["status"]), (&json!(2), &json!("finished")));
}

#[tokio::test]
async fn a_live_query_is_stopped_when_its_client_leaves() {
    let api = Api::new().await;
    api.host("m-1", |_| {}).await;
    let run = json!({"query": "SELECT 1", "selected": {"hosts": ["m-1.example"]}});
    let made = api.post("/queries/run_by_names", run).await.ok()["campaign"]["id"].clone();
    let mut client = Client::connect(&api).await;
    client.select(&api.token, &made).await;
    client.data("status").await;
    drop(client);
    for _ in 0..500 {
        if api.audit().await.contains(&"live_query.stop".to_owned()) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("it still runs");
}

#[tokio::test]
async fn a_live_query_goes_on_when_somebody_else_leaves_or_the_server_stops() {
    let api = Api::new().await;
    api.host("m-1", |_| {}).await;
    let other = api.user("bob", "administrator", None).await;
    let run = json!({"query": "SELECT 1", "selected": {"hosts": ["m-1.example"]}});
    let made = api.post("/queries/run_by_names", run).await.ok()["campaign"]["id"].clone();
    let (mut own, mut foreign) = (Client::connect(&api).await, Client::connect(&api).await);
    own.select(&api.token, &made).await;
    foreign.select(&other, &made).await;
    own.data("status").await;
    foreign.data("status").await;
    // The server answers the end of a connection after it has decided about the live query.
    foreign.close().await;
    api.fleet.stop();
    while own.next().await.is_some() {}
    assert!(!api.audit().await.contains(&"live_query.stop".to_owned()));
}

#[tokio::test]
async fn a_live_query_that_nobody_follows_ends_after_a_minute_and_each_user_has_a_limit() {
    let api = Api::new().await;
    api.host("m-1", |_| {}).await;
    let run = json!({"query": "SELECT 1", "selected": {"hosts": ["m-1.example"]}});
    let start = async || api.post("/queries/run_by_names", run.clone()).await;
    let followed = start().await.ok()["campaign"]["id"].clone();
    for _ in 1..MAX_RUNNING_OF_USER {
        start().await.ok();
    }
    let (_, reason) = start().await.refused(409);
    assert!(reason.contains("muster query list") && reason.contains("muster query stop"), "{reason}");
    let mut client = Client::connect(&api).await;
    client.select(&api.token, &followed).await;
    client.data("status").await;
    api.clock.advance(Duration::from_secs(61));
    api.fleet.live_queries().advance().await.expect("as expected");
    let context = OpContext::administrator(Actor::System).in_space(SpaceId::default());
    let queries = api.fleet.live_queries().list(&context).await.expect("as expected");
    let running: Vec<_> = queries.iter().filter(|query| query.ended.is_none()).collect();
    assert_eq!(running.iter().map(|query| json!(numbers::of(query.id.as_str()))).collect::<Vec<_>>(), [followed]);
    api.clock.advance(Duration::from_secs(600));
    api.fleet.live_queries().advance().await.expect("as expected");
    let queries = api.fleet.live_queries().list(&context).await.expect("as expected");
    assert!(queries.iter().all(|query| query.ended.is_some()), "ten minutes are enough for everybody");
}

#[tokio::test]
async fn a_websocket_is_closed_with_the_reason() {
    let api = Api::new().await;
    for (kind, data) in [
        ("auth", json!({"token": "wrong"})),
        ("auth", json!({"token": "aWQ6c2VjcmV0"})),
        ("select_campaign", json!({"campaign_id": 7})),
        ("other", json!({})),
    ] {
        let mut client = Client::connect(&api).await;
        client.send(kind, data).await;
        assert_eq!(client.next().await.expect("an error")["type"], "error");
        assert!(client.next().await.is_none());
    }
    let mut client = Client::connect(&api).await;
    client.select(&api.token, &json!(7)).await;
    assert_eq!(client.next().await.unwrap()["data"], "campaign 7 was not found");
    let plain = api.get("/results/websocket").await;
    plain.refused(400);
}

#[tokio::test]
async fn a_request_waits_for_the_answers_of_hosts() {
    let api = Api::new().await;
    let host = api.host("m-1", |_| {}).await;
    let made = api.post("/queries", json!({"name": "q", "query": "SELECT 1"})).await.ok()["query"]["id"].clone();
    let answer = async {
        let query = api.running().await;
        api.answer("m-1", &query, r#"[{"x":"1"}]"#).await;
    };
    let path = format!("/queries/{made}/run");
    let (ran, ()) = tokio::join!(api.post(&path, json!({"host_ids": [host]})), answer);
    let ran = ran.ok();
    assert_eq!((&ran["targeted_host_count"], &ran["responded_host_count"]), (&json!(1), &json!(1)));
    assert_eq!(ran["results"], json!([{"host_id": host, "rows": [{"x": "1"}], "error": null}]));
    let answer = async {
        let query = api.running().await;
        api.answer("m-1", &query, r#"[{"x":"2"}]"#).await;
    };
    let path = format!("/hosts/{host}/query");
    let (ran, ()) = tokio::join!(api.post(&path, json!({"query": "SELECT 2"})), answer);
    assert_eq!(ran.ok()["rows"], json!([{"x": "2"}]));
    api.post(&format!("/hosts/{host}/query"), json!({"query": " "})).await.refused(422);
}

#[tokio::test]
async fn a_live_query_runs_in_one_team() {
    let api = Api::new().await;
    let team = api.team("blue").await;
    let (own, other) = (api.host("m-1", in_space("blue")).await, api.host("m-2", |_| {}).await);
    let run =
        async |selected: Value| api.post("/queries/run", json!({"query": "SELECT 1", "selected": selected})).await;
    assert_eq!(run(json!({"hosts": [own, other]})).await.refused(422).0, "selected");
    assert_eq!(run(json!({"hosts": [], "labels": []})).await.refused(400).1, "no hosts targeted");
    assert_eq!(run(json!({"hosts": [own]})).await.ok()["campaign"]["Metrics"]["TotalHosts"], 1);
    assert_eq!(run(json!({"teams": [team]})).await.ok()["campaign"]["Metrics"]["TotalHosts"], 1);
    let all = api.get("/labels").await.ok()["labels"].clone();
    let linux = column(&all, "name").iter().position(|name| name == "All Linux").unwrap();
    let linux = column(&all, "id")[linux].clone();
    assert_eq!(run(json!({"labels": [linux]})).await.ok()["campaign"]["Metrics"]["TotalHosts"], 1);
    run(json!({"labels": [7]})).await.refused(404);
    let label = async |name: &str, team: u64| {
        let new = json!({"name": name, "query": "SELECT 1", "team_id": team});
        api.post("/labels", new).await.ok()["label"]["id"].clone()
    };
    let (here, there) = (label("here", 0).await, label("there", team).await);
    for selected in [
        json!({"labels": [here, there]}),
        json!({"labels": [here], "teams": [team]}),
        json!({"labels": [here], "hosts": [own]}),
        json!({"labels": vec![7; 101]}),
        json!({"hosts": vec![7; 1001]}),
    ] {
        run(selected).await.refused(422);
    }
    let of_team = json!({"labels": [there, linux], "teams": [team], "hosts": [own, own]});
    assert_eq!(run(of_team).await.ok()["campaign"]["Metrics"]["TotalHosts"], 1);
    let unsent = api.post("/queries/run", json!({"selected": {"hosts": [own]}})).await;
    assert_eq!(unsent.refused(422).0, "query");
}
