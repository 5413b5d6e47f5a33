//! Scripts: how hosts learn of them, fetch them, and report.

use std::time::{Duration, Instant};

use muster_core::agent::Family;
use muster_core::authorization::{Actor, OpContext};
use muster_core::host_run::DEFAULT_EXPIRY;
use muster_core::script::{ScriptOnHost, ScriptRun};
use muster_fleet::scripts::{NewScriptRun, ScriptSource};
use muster_store::query::AgentFilter;
use serde_json::{Value, json};

use crate::setting::{Got, Server, UUID, agent_id};

const OTHER: &str = "4C4C4544-0042-3510-8052-000000000002";

fn root() -> OpContext {
    OpContext::administrator(Actor::Local { uid: 0 })
}

pub async fn run(server: &Server, script: &str, hosts: &[&str]) -> ScriptRun {
    let new = NewScriptRun {
        source: ScriptSource::Text { name: None, script: script.into() },
        hosts: hosts.iter().map(|host| (*host).to_owned()).collect(),
        filter: AgentFilter::default(),
        expiry: DEFAULT_EXPIRY,
        timeout: 60,
    };
    server.fleet.scripts().create(&root().grant().expect("as expected"), new).await.expect("as expected")
}

async fn config(server: &Server, key: &str) -> Value {
    let got = server.orbit("config", &json!({"orbit_node_key": key})).await;
    assert_eq!(got.status, 200, "{got:?}");
    got.json()
}

async fn pending(server: &Server, key: &str) -> Value {
    config(server, key).await["notifications"]["pending_script_execution_ids"].clone()
}

async fn request(server: &Server, key: &str, run: &ScriptRun) -> Got {
    server.orbit("scripts/request", &json!({"orbit_node_key": key, "execution_id": run.id})).await
}

async fn report(server: &Server, key: &str, run: &ScriptRun, exit_code: i64, output: &str) -> Got {
    let body = json!({"orbit_node_key": key, "execution_id": run.id, "output": output, "runtime": 3,
        "exit_code": exit_code, "timeout": 60, "host_id": 999});
    server.orbit("scripts/result", &body).await
}

async fn only(server: &Server, run: &ScriptRun) -> (ScriptOnHost, &'static str) {
    let found = server.fleet.scripts().find(&root(), run.id.as_str()).await.expect("as expected");
    let mut all = server.fleet.scripts().hosts(&found, None, 100).await.expect("as expected");
    assert_eq!(all.len(), 1);
    let outcome = all[0].outcome(found.run(), server.now());
    (all.remove(0), outcome)
}

async fn server() -> (Server, String) {
    let server = Server::start().await;
    let key = server.orbit_key(&server.secret().await, UUID).await;
    config(&server, &key).await;
    (server, key)
}

#[tokio::test]
async fn fl55_fl59_a_script_is_announced_fetched_and_reported_once() {
    let (server, key) = server().await;
    assert_eq!(config(&server, &key).await, json!({"notifications": {}}));
    let (first, second) = (run(&server, "echo 1", &["web-7"]).await, run(&server, "echo 2", &[UUID]).await);
    server.clock.advance(Duration::from_secs(1));
    let third = run(&server, "echo 3", &[]).await;
    let told = config(&server, &key).await;
    let ids = &told["notifications"]["pending_script_execution_ids"];
    assert!(ids.as_array().is_some_and(|ids| ids.len() == 3 && ids[2] == third.id.as_str()), "{told}");
    assert_eq!(told["script_execution_timeout"], 60);
    let got = request(&server, &key, &first).await.json();
    let expected = json!({"host_id": 0, "execution_id": first.id, "script_contents": "echo 1", "output": "",
        "runtime": 0, "exit_code": null, "timeout": 60});
    assert_eq!(got, expected);
    assert_eq!(pending(&server, &key).await.as_array().map(Vec::len), Some(3), "orbit may restart before it reports");
    assert_eq!(report(&server, &key, &first, 7, "hello").await.json(), json!({}));
    assert_eq!(request(&server, &key, &first).await.status, 404, "never handed out again");
    assert_eq!(report(&server, &key, &first, 0, "again").await.status, 200, "a repeated result is accepted");
    let (execution, outcome) = only(&server, &first).await;
    let result = execution.result.expect("as expected");
    assert_eq!((outcome, result.exit_code, result.output.as_str(), result.runtime), ("failed", 7, "hello", 3));
    assert_eq!(execution.agent, agent_id(Family::Orbit, UUID), "whatever host_id says");
    for run in [&second, &third] {
        report(&server, &key, run, 0, "").await;
    }
    assert_eq!(config(&server, &key).await, json!({"notifications": {}}));
    let reads = server.reads();
    config(&server, &key).await;
    assert_eq!(server.reads(), reads, "a configuration without work reads nothing");
}

#[tokio::test]
async fn fl59_the_execution_of_another_host_is_unknown() {
    let (server, key) = server().await;
    let other = server.orbit_key(&server.secret().await, OTHER).await;
    let run = run(&server, "echo 1", &[UUID]).await;
    assert_eq!(pending(&server, &other).await, Value::Null);
    assert_eq!(request(&server, &other, &run).await.status, 404);
    assert_eq!(report(&server, &other, &run, 0, "").await.status, 404);
    for bad in [json!(""), json!("nowhere"), json!("a/../b")] {
        let body = json!({"orbit_node_key": key, "execution_id": bad, "exit_code": 0});
        assert_eq!(server.orbit("scripts/request", &body).await.status, 404);
        assert_eq!(server.orbit("scripts/result", &body).await.status, 404);
    }
    assert_eq!(request(&server, "x", &run).await.status, 401, "FL53");
    let osquery = server.osquery_key(&server.secret().await, UUID).await;
    assert_eq!(request(&server, &osquery, &run).await.status, 401, "FL54");
    assert_eq!(only(&server, &run).await.1, "pending");
}

#[tokio::test]
async fn fl60_disabled_scripts_timeouts_and_long_outputs_are_told() {
    let (server, key) = server().await;
    for (code, outcome) in [(-2, "disabled"), (-1, "timed_out"), (0, "success")] {
        let run = run(&server, "x", &[]).await;
        request(&server, &key, &run).await;
        let long = format!("x{}", "ä".repeat(10_000));
        assert_eq!(report(&server, &key, &run, code, &long).await.status, 200);
        let (execution, told) = only(&server, &run).await;
        let output = execution.result.expect("as expected").output;
        assert_eq!((told, output.chars().count(), output.contains('x')), (outcome, 10_000, false));
    }
}

#[tokio::test]
async fn scripts_are_switched_off_and_expire() {
    let (server, key) = server().await;
    let grant = root().grant().expect("as expected");
    let first = run(&server, "x", &[]).await;
    server.fleet.scripts().enable(&grant, false).await.expect("as expected");
    assert_eq!(pending(&server, &key).await, Value::Null);
    assert_eq!(request(&server, &key, &first).await.status, 404);
    server.fleet.scripts().enable(&grant, true).await.expect("as expected");
    assert_eq!(pending(&server, &key).await, json!([first.id]));
    server.clock.advance(DEFAULT_EXPIRY + Duration::from_secs(1));
    assert_eq!(pending(&server, &key).await, Value::Null);
    assert_eq!(request(&server, &key, &first).await.status, 404);
    assert_eq!(only(&server, &first).await.1, "expired");
    let second = run(&server, "x", &[]).await;
    let found = server.fleet.scripts().find(&root(), second.id.as_str()).await.expect("as expected");
    request(&server, &key, &second).await;
    server.fleet.scripts().stop(&root(), &found).await.expect("as expected");
    assert_eq!(pending(&server, &key).await, Value::Null, "stopped");
    assert_eq!(report(&server, &key, &second, 0, "").await.status, 200, "the host had it already");
}

#[tokio::test]
async fn another_server_announces_and_takes_results_of_a_script() {
    let (server, key) = server().await;
    let other = server.restarted();
    config(&other, &key).await;
    let run = run(&server, "x", &[]).await;
    let end = Instant::now() + Duration::from_secs(10);
    while pending(&other, &key).await != json!([run.id]) {
        assert!(Instant::now() < end, "the other server has not learned of the script");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(request(&other, &key, &run).await.status, 200);
    assert_eq!(report(&other, &key, &run, 0, "").await.status, 200);
    assert_eq!(pending(&server, &key).await, Value::Null);
    assert_eq!(request(&server, &key, &run).await.status, 404);
}
