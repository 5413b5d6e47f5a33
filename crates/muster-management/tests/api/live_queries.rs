//! `/api/v1/queries/run`.

use std::time::Duration;

use axum::Extension;
use axum::body::Body;
use axum::http::{Method, Request};
use futures_util::{SinkExt as _, StreamExt as _};
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use muster_core::agent::Family;
use muster_core::authorization::{Actor, BindingScope, Entitlement, OpContext, PrivilegeName, Selector};
use muster_core::id::{AgentId, SpaceId};
use muster_core::live_query::HostAnswer;
use muster_fleet::live_queries::{NewLiveQuery, QuerySource};
use muster_listen::reply::{ListenerKind, Peer};
use serde_json::{Value, json};
use tokio::io::DuplexStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{WebSocketStream, client_async};
use tower::ServiceExt as _;

use crate::support::{Api, administrator, column};

async fn host(api: &Api, id: &str, tag: &str) {
    let change = |agent: &mut muster_core::agent::AgentRecord| {
        (agent.family, agent.hostname, agent.tags) = (Family::Osquery, format!("{id}.example"), vec![tag.to_owned()]);
    };
    api.agent_with(id, None, change).await;
}

async fn answers(api: &Api, agent: &str, query: &str, rows: &str) {
    let entry = api.fleet.entry(&AgentId::trusted(agent)).await.unwrap();
    let answer = HostAnswer { rows: rows.into(), row_count: 1, ..HostAnswer::default() };
    api.fleet.live_queries().answer(&entry, query, answer).await.unwrap();
}

async fn run(api: &Api, body: Value) -> Value {
    api.v1(Method::POST, "/queries/run", body).await.ok()["item"].clone()
}

#[tokio::test]
async fn results_are_read_in_the_order_in_which_they_arrive() {
    let api = Api::new();
    for id in ["a", "b", "c"] {
        host(&api, id, "web").await;
    }
    api.agent_with("elastic", None, |_| {}).await;
    let made = run(&api, json!({"sql": "SELECT 1", "kuery": "tags:web", "timeout_seconds": 90})).await;
    assert_eq!((&made["state"], &made["targets"], &made["answered"]), (&json!("running"), &json!(3), &json!(0)));
    let line = api.fleet.store().audit_events(0, 100).await.unwrap().pop().unwrap().1;
    let line: Value = serde_json::from_str(&line).unwrap();
    assert_eq!((&line["action"], &line["detail"]["kuery"]), (&json!("live_query.run"), &json!("tags:web")));
    let id = made["id"].as_str().unwrap();
    answers(&api, "b", id, r#"[{"x":"1"}]"#).await;
    answers(&api, "a", id, r#"[{"x":"2"}]"#).await;
    let path = |after: u64, limit: u64| format!("/queries/run/{id}/results?after={after}&limit={limit}");
    let page = api.v1(Method::GET, &path(0, 1), Value::Null).await.ok();
    assert_eq!((&page["items"][0]["hostname"], &page["items"][0]["rows"]), (&json!("b.example"), &json!([{"x": "1"}])));
    assert_eq!((&page["next"], &page["query"]["answered"]), (&json!(1), &json!(2)));
    let page = api.v1(Method::GET, &path(1, 9), Value::Null).await.ok();
    assert_eq!((&page["items"][0]["agent_id"], &page["next"]), (&json!("a"), &json!(2)));
    let stopped = api.v1(Method::POST, &format!("/queries/run/{id}/stop"), json!({})).await.ok();
    assert_eq!(stopped["item"]["state"], "stopped");
    let listed = api.v1(Method::GET, "/queries/run", Value::Null).await.ok();
    assert_eq!((&listed["items"][0]["id"], &listed["items"][0]["rows"]), (&json!(id), &json!(2)));
    assert_eq!(api.v1(Method::GET, &path(0, 0), Value::Null).await.refused(400)["field"], "limit");
    api.v1(Method::GET, "/queries/run/nowhere/results", Value::Null).await.refused(404);
}

#[tokio::test]
async fn a_host_that_names_itself_like_another_one_is_not_selected_with_it() {
    let api = Api::new();
    host(&api, "a", "web").await;
    let named = |hostname: &'static str| {
        move |agent: &mut muster_core::agent::AgentRecord| {
            (agent.family, agent.hostname) = (Family::Osquery, hostname.to_owned());
        }
    };
    for (id, hostname) in [("impostor", "a"), ("twin", "a.example")] {
        api.agent_with(id, None, named(hostname)).await;
    }
    let hosts = |name: &str| json!({"sql": "SELECT 1", "hosts": [name]});
    assert_eq!(run(&api, hosts("a")).await["targets"], 1, "an id wins");
    let refused = api.v1(Method::POST, "/queries/run", hosts("a.example")).await.refused(409);
    assert!(refused["message"].as_str().unwrap().contains("2 hosts have the name"), "{refused}");
}

#[tokio::test]
async fn a_stream_sends_results_and_progress_and_ends_with_the_live_query() {
    let api = Api::new();
    host(&api, "a", "web").await;
    let made = run(&api, json!({"sql": "SELECT 1"})).await;
    let id = made["id"].as_str().unwrap();
    let request = Request::builder().uri(format!("/api/v1/queries/run/{id}/_stream")).extension(administrator());
    let response = api.router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let mut stream = response.into_body().into_data_stream();
    let mut next = async || {
        let piece = tokio::time::timeout(Duration::from_secs(20), stream.next()).await.expect("the stream is silent");
        piece.map(|piece| String::from_utf8(piece.unwrap().to_vec()).unwrap())
    };
    let only = format!("/api/v1/queries/run/{id}/_stream?only=progress");
    let request = Request::builder().uri(only).extension(administrator()).body(Body::empty()).unwrap();
    let numbers = api.router.clone().oneshot(request).await.unwrap().into_body();
    let progress = next().await.unwrap();
    assert!(progress.starts_with("event: progress\ndata: ") && progress.contains("\"running\""), "{progress}");
    answers(&api, "a", id, r#"[{"x":"1"}]"#).await;
    let result = next().await.unwrap();
    assert!(result.starts_with("id: 1\nevent: result\n") && result.contains(r#""rows":[{"x":"1"}]"#), "{result}");
    let end = next().await.unwrap();
    assert!(end.starts_with("event: end\n") && end.contains("\"complete\""), "{end}");
    assert_eq!(next().await, None);
    let numbers = tokio::time::timeout(Duration::from_secs(20), axum::body::to_bytes(numbers, 1 << 20)).await;
    let numbers = String::from_utf8(numbers.expect("the stream ends").unwrap().to_vec()).unwrap();
    assert!(numbers.contains("event: end\n") && !numbers.contains("event: result"), "{numbers}");
}

type Socket = WebSocketStream<DuplexStream>;

/// Opens a WebSocket over a connection of its own; the status if it is refused.
async fn socket(api: &Api, path: &str, peer: Peer, headers: &[(&'static str, &str)]) -> Result<Socket, u16> {
    let (ours, theirs) = tokio::io::duplex(64 << 10);
    let service = TowerToHyperService::new(api.router.clone().layer(Extension(peer)));
    let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(theirs), service);
    tokio::spawn(connection.with_upgrades());
    let mut request = format!("ws://muster{path}").into_client_request().unwrap();
    for (name, value) in headers {
        request.headers_mut().insert(*name, value.parse().unwrap());
    }
    match client_async(request, ours).await {
        Ok((socket, _)) => Ok(socket),
        Err(tungstenite::Error::Http(refused)) => Err(refused.status().as_u16()),
        Err(error) => panic!("{error}"),
    }
}

/// The next event; the code of the close frame at the end.
async fn event(socket: &mut Socket) -> Result<Value, Option<CloseCode>> {
    loop {
        let received =
            tokio::time::timeout(Duration::from_secs(20), socket.next()).await.expect("the socket is silent");
        match received {
            Some(Ok(Message::Text(text))) => return Ok(serde_json::from_str(&text).unwrap()),
            Some(Ok(Message::Close(frame))) => return Err(frame.map(|frame| frame.code)),
            Some(Ok(_)) => {}
            None | Some(Err(_)) => return Err(None),
        }
    }
}

fn remote() -> Peer {
    Peer { address: Some("192.0.2.1:50000".parse().unwrap()), ..Peer::new(ListenerKind::Admin) }
}

#[tokio::test]
async fn fl36_a_web_socket_sends_the_same_events_and_is_closed_at_the_end() {
    let api = Api::new();
    host(&api, "a", "web").await;
    host(&api, "b", "web").await;
    let made = run(&api, json!({"sql": "SELECT 1"})).await;
    let id = made["id"].as_str().unwrap();
    let path = format!("/api/v1/queries/run/{id}/_websocket");
    let mut first = socket(&api, &path, administrator(), &[]).await.unwrap();
    let progress = event(&mut first).await.unwrap();
    assert_eq!((&progress["event"], &progress["data"]["state"]), (&json!("progress"), &json!("running")), "{progress}");
    answers(&api, "a", id, r#"[{"x":"1"}]"#).await;
    let result = event(&mut first).await.unwrap();
    assert_eq!((&result["event"], &result["id"]), (&json!("result"), &json!(1)), "{result}");
    assert_eq!((&result["data"]["agent_id"], &result["data"]["rows"]), (&json!("a"), &json!([{"x": "1"}])));
    let mut second = socket(&api, &format!("{path}?after=1"), administrator(), &[]).await.unwrap();
    assert_eq!(event(&mut second).await.unwrap()["event"], "progress", "the first result is known");
    answers(&api, "b", id, "[]").await;
    for socket in [&mut first, &mut second] {
        let mut last = event(socket).await.unwrap();
        if last["event"] == "progress" {
            last = event(socket).await.unwrap();
        }
        assert_eq!((&last["event"], &last["id"]), (&json!("result"), &json!(2)), "{last}");
        let end = event(socket).await.unwrap();
        assert_eq!((&end["event"], &end["data"]["state"]), (&json!("end"), &json!("complete")), "{end}");
        assert_eq!(event(socket).await, Err(Some(CloseCode::Normal)));
    }
}

#[tokio::test]
async fn fl36_a_web_socket_needs_credentials_and_with_a_cookie_a_page_of_this_server() {
    let api = Api::new();
    host(&api, "a", "web").await;
    api.person("ann").await;
    api.v1(Method::POST, "/bindings", json!({"user": "ann", "role": "fleet-operator"})).await.ok();
    let made = run(&api, json!({"sql": "SELECT 1"})).await;
    let path = format!("/api/v1/queries/run/{}/_websocket", made["id"].as_str().unwrap());
    let log_in = json!({"username": "ann", "password": "correct horse battery"}).to_string();
    let entered = api.browse(Method::POST, "/api/v1/session", &[], &log_in).await;
    let cookie = entered.headers["set-cookie"].to_str().unwrap().split(';').next().unwrap().to_owned();
    let session = ("cookie", cookie.as_str());
    let refused = async |path: &str, headers: &[_]| socket(&api, path, remote(), headers).await.err();
    assert_eq!(refused(&path, &[]).await, Some(401));
    for other in [("sec-fetch-site", "cross-site"), ("origin", "https://evil.example"), ("accept", "*/*")] {
        assert_eq!(refused(&path, &[session, other]).await, Some(403), "{other:?}");
    }
    for own in [("sec-fetch-site", "same-origin"), ("origin", "http://muster")] {
        assert_eq!(refused(&path, &[session, own]).await, None, "{own:?}");
    }
    assert_eq!(
        refused("/api/v1/queries/run/nowhere/_websocket", &[session, ("origin", "http://muster")]).await,
        Some(404)
    );
    assert_eq!(
        refused(&path, &[session, ("origin", "http://muster"), ("sec-websocket-version", "7")]).await,
        Some(400)
    );
    // Over a connection that cannot be upgraded.
    let plain = api.v1(Method::GET, path.strip_prefix("/api/v1").unwrap(), Value::Null).await;
    assert_eq!(plain.refused(400)["field"], "Upgrade");
}

#[tokio::test]
async fn fl36_a_web_socket_ends_with_its_token_and_ignores_what_the_client_sends_up_to_a_limit() {
    let api = Api::new();
    host(&api, "a", "web").await;
    api.v1(Method::POST, "/service_accounts", json!({"name": "watcher"})).await.ok();
    api.v1(Method::POST, "/bindings", json!({"user": "watcher", "role": "fleet-operator"})).await.ok();
    let token = api.v1(Method::POST, "/tokens", json!({"owner": "watcher"})).await.ok()["item"].clone();
    let made = run(&api, json!({"sql": "SELECT 1", "timeout_seconds": 3600})).await;
    let path = format!("/api/v1/queries/run/{}/_websocket", made["id"].as_str().unwrap());
    let authorization = format!("Bearer {}", token["token"].as_str().unwrap());
    let open = async || socket(&api, &path, remote(), &[("authorization", &authorization)]).await.unwrap();
    let (mut watching, mut large, mut many) = (open().await, open().await, open().await);
    for socket in [&mut watching, &mut large, &mut many] {
        assert_eq!(event(socket).await.unwrap()["event"], "progress");
    }
    watching.send(Message::text("x".repeat(1024))).await.unwrap();
    large.send(Message::text("x".repeat(1025))).await.unwrap();
    assert_eq!(event(&mut large).await, Err(None));
    for _ in 0..1001 {
        if many.send(Message::text("x")).await.is_err() {
            break;
        }
    }
    assert_eq!(event(&mut many).await, Err(None));
    api.v1(Method::DELETE, &format!("/tokens/{}", token["id"].as_str().unwrap()), Value::Null).await.ok();
    assert_eq!(event(&mut watching).await, Err(Some(CloseCode::Again)));
}

#[tokio::test]
async fn fl36_a_client_of_a_web_socket_that_answers_no_pings_is_given_up() {
    let api = Api::new();
    host(&api, "a", "web").await;
    let made = run(&api, json!({"sql": "SELECT 1", "timeout_seconds": 3600})).await;
    let path = format!("/api/v1/queries/run/{}/_websocket", made["id"].as_str().unwrap());
    let mut silent = socket(&api, &path, administrator(), &[]).await.unwrap();
    event(&mut silent).await.unwrap();
    tokio::time::pause();
    // The socket answers pings only while it is read. With reads of the store in between, because the clock does not wait for those
    // of the server.
    for _ in 0..100 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        for _ in 0..3 {
            api.v1(Method::GET, "/queries/run", Value::Null).await.ok();
        }
    }
    let mut pings = 0;
    while let Some(Ok(message)) = silent.next().await {
        pings += u32::from(message.is_ping());
        assert!(pings < 10, "it is still served");
    }
    assert!((1..=4).contains(&pings), "{pings} pings in a minute");
}

#[tokio::test]
async fn a_dry_run_counts_the_hosts_and_runs_nothing() {
    let api = Api::new();
    host(&api, "a", "web").await;
    let tried = api.v1(Method::POST, "/queries/run?dryRun=true", json!({"sql": "SELECT 1"})).await.ok();
    assert_eq!((&tried["item"]["targets"], &tried["item"]["id"]), (&json!(1), &json!("")));
    assert_eq!(api.v1(Method::GET, "/queries/run", Value::Null).await.ok()["items"], json!([]));
}

#[tokio::test]
async fn sql_hosts_and_timeouts_are_bounded() {
    let api = Api::new();
    host(&api, "a", "web").await;
    for (body, field) in [
        (json!({"sql": " "}), "sql"),
        (json!({"sql": "x".repeat(1 << 20)}), "sql"),
        (json!({"sql": "SELECT 1", "timeout_seconds": 0}), "timeout_seconds"),
        (json!({"sql": "SELECT 1", "timeout_seconds": 3601}), "timeout_seconds"),
        (json!({"sql": "SELECT 1", "hosts": vec!["a"; 101]}), "hosts"),
        (json!({"sql": "SELECT 1", "kuery": "("}), "kuery"),
        (json!({"sql": "SELECT 1", "kuery": " "}), "kuery"),
    ] {
        assert_eq!(api.v1(Method::POST, "/queries/run", body).await.refused(400)["field"], field);
    }
    let refused = api.v1(Method::POST, "/queries/run", json!({"sql": "SELECT 1", "kuery": "tags:db"})).await;
    assert_eq!(refused.refused(400)["code"], "no_host_matches");
}

#[tokio::test]
async fn a_caller_with_a_limited_scope_runs_queries_on_its_hosts_and_sees_its_own() {
    let api = Api::new();
    host(&api, "a", "web").await;
    host(&api, "b", "db").await;
    let selector = Selector::Tags(vec!["web".to_owned()]);
    let scope = BindingScope::Part { space: SpaceId::default(), selector };
    let privileges = [PrivilegeName::QueriesRun].into_iter().collect();
    let caller = OpContext::entitled(Actor::Local { uid: 7 }, [Entitlement { privileges, scope }]);
    let made = run(&api, json!({"sql": "SELECT 1"})).await;
    let queries = api.fleet.live_queries();
    assert!(queries.find(&caller, made["id"].as_str().unwrap()).await.is_err());
    let new = NewLiveQuery {
        sql: QuerySource::Sql("SELECT 2".into()),
        hosts: Vec::new(),
        labels: Vec::new(),
        filter: muster_store::query::AgentFilter::default(),
        timeout: Duration::from_secs(5),
    };
    let own = queries.create(&caller, new).await.unwrap().query;
    assert_eq!(own.targets, 1);
    let listed = queries.list(&caller).await.unwrap();
    assert_eq!(listed.iter().map(|query| &query.id).collect::<Vec<_>>(), [&own.id]);
}

#[tokio::test]
async fn saved_queries_are_saved_replaced_listed_and_deleted() {
    let api = Api::new();
    let save = async |body: Value| api.v1(Method::POST, "/queries", body).await;
    let made = save(json!({"name": "Users", "sql": "SELECT 1"})).await.ok()["item"].clone();
    assert_eq!((&made["version"], made["updated_by"].is_string()), (&json!(1), true));
    assert_eq!(save(json!({"name": "Users", "sql": "SELECT 1"})).await.ok()["item"], made, "nothing changed");
    let changed = save(json!({"name": "users", "sql": "SELECT 2", "description": "d"})).await.ok()["item"].clone();
    assert_eq!((&changed["id"], &changed["version"], &changed["sql"]), (&made["id"], &json!(2), &json!("SELECT 2")));
    save(json!({"name": "disks", "sql": "SELECT 3"})).await.ok();
    for (body, field) in [
        (json!({"name": " ", "sql": "SELECT 1"}), "name"),
        (json!({"name": "x", "sql": " "}), "sql"),
        (json!({"name": "x", "sql": "x".repeat(1 << 20)}), "sql"),
    ] {
        assert_eq!(save(body).await.refused(400)["field"], field);
    }
    let listed = api.v1(Method::GET, "/queries", Value::Null).await.ok();
    assert_eq!(column(&listed, "/name"), ["disks", "users"]);
    let path = format!("/queries/{}", made["id"].as_str().unwrap());
    api.v1(Method::DELETE, &format!("{path}?dryRun=true"), Value::Null).await.ok();
    api.v1(Method::DELETE, &path, Value::Null).await.ok();
    api.v1(Method::DELETE, &path, Value::Null).await.refused(404);
    assert_eq!(api.audit().await, ["saved_query.save", "saved_query.save", "saved_query.save", "saved_query.delete"]);
}

#[tokio::test]
async fn two_editors_of_a_saved_query_do_not_overwrite_each_other() {
    let api = Api::new();
    let save =
        async |version: &str, sql: &str| api.v1_if("/queries", version, json!({"name": "users", "sql": sql})).await;
    assert_eq!(save("1", "SELECT 1").await.refused(409)["code"], "saved_queries_changed", "there is none");
    assert_eq!(save("0", "SELECT 1").await.ok()["item"]["version"], 1);
    assert_eq!(save("0", "SELECT 2").await.refused(409)["code"], "saved_query_exists");
    assert_eq!(save("\"1\"", "SELECT 2").await.ok()["item"]["version"], 2);
    assert_eq!(save("\"1\"", "SELECT 3").await.refused(409)["code"], "saved_queries_changed");
    assert_eq!(save("*", "SELECT 3").await.ok()["item"]["version"], 3);
    assert_eq!(save("x", "SELECT 4").await.refused(400)["field"], "If-Match");
    let run = api.v1_if("/queries/run", "1", json!({"sql": "SELECT 1"})).await;
    assert_eq!(run.refused(400)["field"], "If-Match", "a condition is never ignored");
}

#[tokio::test]
async fn a_caller_with_the_right_to_saved_queries_runs_them_and_no_other_sql() {
    let api = Api::new();
    host(&api, "a", "web").await;
    host(&api, "b", "db").await;
    api.v1(Method::POST, "/queries", json!({"name": "Users", "sql": "SELECT 1"})).await.ok();
    let both = json!({"sql": "SELECT 1", "saved": "users"});
    assert_eq!(api.v1(Method::POST, "/queries/run", both).await.refused(400)["field"], "saved");
    let any = run(&api, json!({"saved": "users"})).await;
    assert_eq!((&any["sql"], &any["targets"]), (&json!("SELECT 1"), &json!(2)), "also with the right to any SQL");
    api.v1(Method::POST, "/queries/run", json!({"saved": "other"})).await.refused(404);
    let scope = BindingScope::Part { space: SpaceId::default(), selector: Selector::Tags(vec!["web".to_owned()]) };
    let privileges = [PrivilegeName::QueriesRunSaved].into_iter().collect();
    let caller = OpContext::entitled(Actor::Local { uid: 7 }, [Entitlement { privileges, scope }]);
    let queries = api.fleet.live_queries();
    let new = |sql: QuerySource| NewLiveQuery {
        sql,
        hosts: Vec::new(),
        labels: Vec::new(),
        filter: muster_store::query::AgentFilter::default(),
        timeout: Duration::from_secs(5),
    };
    let refused = queries.create(&caller, new(QuerySource::Sql("SELECT 2".into()))).await.unwrap_err();
    assert_eq!(refused.code, "forbidden", "{refused:?}");
    let saved = api.fleet.saved_queries().find(&caller.grant().unwrap(), "USERS").await.unwrap();
    let own = queries.create(&caller, new(QuerySource::Saved(Box::new(saved)))).await.unwrap().query;
    assert_eq!((own.targets, own.sql.as_str()), (1, "SELECT 1"), "on its own hosts");
    // Results to SQL of others are none of its business.
    assert!(queries.find(&caller, any["id"].as_str().unwrap()).await.is_err());
    assert_eq!(queries.list(&caller).await.unwrap().len(), 1);
    assert_eq!(api.fleet.saved_queries().list(&caller).await.unwrap().len(), 1);
}
