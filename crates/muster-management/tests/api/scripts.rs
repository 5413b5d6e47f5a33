//! `/api/v1/scripts` and `/api/v1/carves`.

use axum::http::Method;
use muster_core::agent::Family;
use muster_core::authorization::{Actor, BindingScope, Entitlement, OpContext, PrivilegeName, Selector};
use muster_core::carve::{Announced, Carve, CarveState};
use muster_core::credential::SecretHash;
use muster_core::disk_key::DiskSecret;
use muster_core::host_run::DEFAULT_EXPIRY;
use muster_core::id::{AgentId, FileId, HostId, SpaceId};
use muster_core::script::ScriptResult;
use muster_fleet::scripts::{NewScriptRun, SavedScriptDraft, ScriptSource};
use muster_store::query::AgentFilter;
use muster_store::{CarveWrite, FileWrite, Write};
use serde_json::{Value, json};

use crate::support::Api;

async fn host(api: &Api, id: &str, family: Family, tag: &str) {
    let change = |agent: &mut muster_core::agent::AgentRecord| {
        (agent.family, agent.hostname, agent.tags) = (family, format!("{id}.example"), vec![tag.to_owned()]);
    };
    api.agent_with(id, None, change).await;
}

/// Stores the disk key `123-456` of an orbit; returns its host.
pub async fn disk_key(api: &Api) -> String {
    let change = |agent: &mut muster_core::agent::AgentRecord| {
        (agent.family, agent.host_id) = (Family::Orbit, Some(HostId::trusted("host-of-o")));
    };
    api.agent_with("o", None, change).await;
    let entry = api.fleet.entry(&AgentId::trusted("o")).await.unwrap();
    let secret = DiskSecret { key: "123-456".into(), salt: None, key_slot: None };
    api.fleet.disk_keys().store(&entry, &secret).await.unwrap();
    "host-of-o".to_owned()
}

async fn report(api: &Api, agent: &str, run: &str, code: i64) {
    let entry = api.fleet.entry(&AgentId::trusted(agent)).await.unwrap();
    api.fleet.scripts().report(&entry, run, ScriptResult::new(code, "out\n", 2)).await.unwrap();
}

async fn run(api: &Api, body: Value) -> Value {
    api.v1(Method::POST, "/scripts/run", body).await.ok()["item"].clone()
}

#[tokio::test]
async fn a_script_runs_on_its_hosts_and_its_results_come_in_pages() {
    let api = Api::new();
    for id in ["a", "b", "c"] {
        host(&api, id, Family::Orbit, "web").await;
    }
    host(&api, "q", Family::Osquery, "web").await;
    let tried = api.v1(Method::POST, "/scripts/run?dryRun=true", json!({"script": "x", "kuery": "family:orbit"})).await;
    assert_eq!((&tried.ok()["item"]["targets"], &json!("")), (&json!(3), &json!("")));
    assert_eq!(api.v1(Method::GET, "/scripts/run", Value::Null).await.ok()["items"], json!([]));
    let made = run(&api, json!({"script": "#!/bin/sh\necho hi\n", "kuery": "tags:web", "timeout_seconds": 60})).await;
    let name = format!("script {}", &made["sha256"].as_str().unwrap()[..12]);
    assert_eq!((&made["name"], &made["state"], &made["targets"]), (&json!(name), &json!("running"), &json!(3)));
    let id = made["id"].as_str().unwrap();
    report(&api, "a", id, 0).await;
    report(&api, "b", id, -2).await;
    let path = |query: &str| format!("/scripts/run/{id}/results{query}");
    let page = api.v1(Method::GET, &path("?limit=2"), Value::Null).await.ok();
    let told: Vec<_> = page["items"].as_array().unwrap().iter().map(|one| one["outcome"].clone()).collect();
    assert_eq!((told, &page["next"]), (vec![json!("success"), json!("disabled")], &json!("b")));
    assert_eq!((&page["items"][0]["output"], &page["items"][0]["exit_code"]), (&json!("out\n"), &json!(0)));
    assert_eq!((&page["run"]["finished"], &page["run"]["failed"]), (&json!(2), &json!(1)));
    assert!(page["run"].get("script").is_none());
    let rest = api.v1(Method::GET, &path("?after=b"), Value::Null).await.ok();
    assert_eq!((&rest["items"][0]["outcome"], rest.get("next")), (&json!("pending"), None));
    let stopped = api.v1(Method::POST, &format!("/scripts/run/{id}/stop"), json!({})).await.ok();
    assert_eq!(stopped["item"]["state"], "stopped");
    let shown = api.v1(Method::GET, &format!("/scripts/run/{id}"), Value::Null).await.ok();
    assert_eq!(shown["item"]["script"], "#!/bin/sh\necho hi\n");
    let listed = api.v1(Method::GET, "/scripts/run", Value::Null).await.ok();
    assert!(listed["items"][0].get("script").is_none());
    assert_eq!(api.audit().await, ["script.run", "script.stop"]);
    api.v1(Method::GET, "/scripts/run/nowhere/results", Value::Null).await.refused(404);
}

#[tokio::test]
async fn bad_runs_are_rejected() {
    let api = Api::new();
    host(&api, "a", Family::Orbit, "web").await;
    for (body, field) in [
        (json!({"script": "x"}), "hosts"),
        (json!({"script": "x", "kuery": " "}), "hosts"),
        (json!({"script": " ", "hosts": ["a"]}), "script"),
        (json!({"script": "x".repeat(300 * 1024), "hosts": ["a"]}), "script"),
        (json!({"script": "x", "hosts": ["a"], "expires_in_seconds": 5}), "expires_in_seconds"),
        (json!({"script": "x", "hosts": ["a"], "timeout_seconds": 0}), "timeout_seconds"),
        (json!({"script": "x", "hosts": ["a"], "name": "a\nb"}), "name"),
        (json!({"script": "x", "hosts": ["a"], "saved": "s"}), "saved"),
    ] {
        assert_eq!(api.v1(Method::POST, "/scripts/run", body).await.refused(400)["field"], field);
    }
    api.v1(Method::POST, "/scripts/run", json!({"script": "x", "hosts": ["nobody"]})).await.refused(404);
    api.v1(Method::PUT, "/scripts/settings", json!({"enabled": false})).await.ok();
    let refused = api.v1(Method::POST, "/scripts/run", json!({"script": "x", "hosts": ["a"]})).await;
    assert_eq!(refused.refused(409)["code"], "scripts_disabled");
    assert_eq!(api.v1(Method::GET, "/scripts/settings", Value::Null).await.ok()["item"], json!({"enabled": false}));
}

#[tokio::test]
async fn a_caller_with_a_limited_scope_runs_scripts_on_its_hosts_and_sees_its_own_runs() {
    let api = Api::new();
    host(&api, "a", Family::Orbit, "web").await;
    host(&api, "b", Family::Orbit, "db").await;
    let made = run(&api, json!({"script": "x", "kuery": "family:orbit"})).await;
    let selector = Selector::Tags(vec!["web".to_owned()]);
    let scope = BindingScope::Part { space: SpaceId::default(), selector };
    let with = |name| {
        let privileges = [name].into_iter().collect();
        OpContext::entitled(Actor::Local { uid: 7 }, [Entitlement { privileges, scope: scope.clone() }])
    };
    let (caller, scripts) = (with(PrivilegeName::ScriptsRun), api.fleet.scripts());
    assert!(scripts.find(&caller, made["id"].as_str().unwrap()).await.is_err());
    let new = || NewScriptRun {
        source: ScriptSource::Text { name: None, script: "x".into() },
        hosts: Vec::new(),
        filter: AgentFilter::default(),
        expiry: DEFAULT_EXPIRY,
        timeout: 5,
    };
    let own = scripts.create(&caller.grant().unwrap(), new()).await.unwrap();
    assert_eq!(own.targets, 1);
    let listed = scripts.list(&caller).await.unwrap();
    assert_eq!(listed.iter().map(|run| &run.id).collect::<Vec<_>>(), [&own.id]);
    assert!(scripts.list(&with(PrivilegeName::QueriesRun)).await.is_err(), "queries are no scripts");
    let found = scripts.find(&caller, own.id.as_str()).await.unwrap();
    assert_eq!(found.run().work.script, "", "it may be a saved one");
    assert_eq!(scripts.shown(&caller, own).unwrap().work.script, "");
    assert_eq!(scripts.stop(&caller, &found).await.unwrap().state(api.now()), "stopped");
    // With `scripts.read` of the space, it sees the run on the hosts of others, and must not stop it.
    let reading = Entitlement {
        privileges: [PrivilegeName::ScriptsRead].into_iter().collect(),
        scope: BindingScope::Space(SpaceId::default()),
    };
    let running = Entitlement { privileges: [PrivilegeName::ScriptsRun].into_iter().collect(), scope: scope.clone() };
    let both = OpContext::entitled(Actor::Local { uid: 7 }, [reading, running]);
    let seen = scripts.find(&both, made["id"].as_str().unwrap()).await.unwrap();
    assert_eq!(scripts.stop(&both, &seen).await.unwrap_err().code, "not_own_run");
    let draft = SavedScriptDraft { name: "s".into(), script: "x".into(), ..SavedScriptDraft::default() };
    scripts.save(&OpContext::administrator(Actor::Local { uid: 0 }).grant().unwrap(), draft, None).await.unwrap();
    assert_eq!(scripts.show_saved(&both, "S").await.unwrap().script, "x");
    assert_eq!(scripts.show_saved(&caller, "S").await.unwrap().script, "", "only its running");
    assert_eq!(scripts.find_saved(&caller, "S").await.unwrap().script, "x");
}

#[tokio::test]
async fn scripts_are_saved_run_and_deleted() {
    let api = Api::new();
    host(&api, "a", Family::Orbit, "web").await;
    let save = async |body: Value| api.v1(Method::POST, "/scripts", body).await.ok()["item"].clone();
    let made = save(json!({"name": "Clean", "script": "exit 0", "description": "d"})).await;
    let again = save(json!({"name": "clean", "script": "exit 1"})).await;
    assert_eq!((&again["id"], &again["script"]), (&made["id"], &json!("exit 1")));
    let listed = api.v1(Method::GET, "/scripts", Value::Null).await.ok();
    assert_eq!((&listed["total"], listed["items"][0].get("script")), (&json!(1), None));
    assert_eq!(api.v1(Method::GET, "/scripts/CLEAN", Value::Null).await.ok()["item"]["script"], "exit 1");
    let made = run(&api, json!({"saved": "clean", "hosts": ["a"]})).await;
    assert_eq!((&made["name"], &made["script"]), (&json!("clean"), &json!("exit 1")));
    let id = again["id"].as_str().unwrap();
    api.v1(Method::DELETE, &format!("/scripts/{id}"), Value::Null).await.ok();
    api.v1(Method::DELETE, &format!("/scripts/{id}"), Value::Null).await.refused(404);
    api.v1(Method::POST, "/scripts/run", json!({"saved": "clean", "hosts": ["a"]})).await.refused(404);
    let bad = api.v1(Method::POST, "/scripts", json!({"name": " ", "script": "x"})).await;
    assert_eq!(bad.refused(400)["field"], "name");
}

#[tokio::test]
async fn two_editors_of_a_saved_script_do_not_overwrite_each_other() {
    let api = Api::new();
    let save = async |version: &str, script: &str| {
        api.v1_if("/scripts", version, json!({"name": "clean", "script": script})).await
    };
    assert_eq!(save("1", "exit 1").await.refused(409)["code"], "saved_script_changed", "there is none");
    assert_eq!(save("0", "exit 1").await.ok()["item"]["version"], 1);
    assert_eq!(save("0", "exit 2").await.refused(409)["code"], "saved_script_exists");
    assert_eq!(save("\"1\"", "exit 2").await.ok()["item"]["version"], 2);
    assert_eq!(save("\"1\"", "exit 3").await.refused(409)["code"], "saved_script_changed");
    assert_eq!(save("*", "exit 3").await.ok()["item"]["version"], 3);
    assert_eq!(save("3", "exit 3").await.ok()["item"]["version"], 3, "nothing changed");
    assert_eq!(api.audit().await, ["saved_script.save"; 3]);
}

#[tokio::test]
async fn carves_are_listed_downloaded_and_deleted() {
    let api = Api::new();
    host(&api, "q", Family::Osquery, "web").await;
    let id = FileId::trusted("carve-1");
    let announced = Announced {
        block_count: 2,
        block_size: 3,
        size: 5,
        carve_id: "a3f".into(),
        request_id: "fleet_distributed_query_9".into(),
    };
    let carve = Carve {
        id: id.clone(),
        space: SpaceId::default(),
        agent: AgentId::trusted("q"),
        host: None,
        hostname: "we\"b".into(),
        announced,
        session: SecretHash::of(b"s"),
        blocks: 0,
        is_compressed: false,
        state: CarveState::Receiving,
        error: None,
        began_at: api.now(),
        ended_at: None,
        expires_at: api.now(),
    };
    let block = |number: u64, data: &[u8]| -> [Write; 2] {
        let chunk = i64::try_from(number).unwrap();
        let put = FileWrite::PutChunk { file: id.clone(), number: chunk, sha256: [0; 32], data: data.to_vec() };
        [CarveWrite::Block { id: id.clone(), number, is_compressed: false }.into(), put.into()]
    };
    let begin = CarveWrite::Begin { carve: Box::new(carve), max_bytes: 100 };
    api.fleet.store().commit([vec![begin.into()], block(0, b"abc").into()].concat()).await.unwrap();
    let listed = api.v1(Method::GET, "/carves", Value::Null).await.ok()["items"].clone();
    assert_eq!((&listed[0]["state"], &listed[0]["received"]), (&json!("receiving"), &json!(3)));
    let content = "/carves/carve-1/content";
    assert_eq!(api.v1(Method::GET, content, Value::Null).await.refused(409)["code"], "carve_not_complete");
    let done = CarveWrite::Complete { id: id.clone(), now: api.now(), expires_at: api.now() };
    api.fleet.store().commit([block(1, b"de").into(), vec![done.into()]].concat()).await.unwrap();
    let shown = api.v1(Method::GET, "/carves/carve-1", Value::Null).await.ok()["item"].clone();
    assert_eq!((&shown["state"], &shown["query_id"], &shown["size"]), (&json!("complete"), &json!("9"), &json!(5)));
    assert_eq!(shown["file_name"], "carve-we_b-carve-1.tar");
    let dry = api.v1(Method::GET, &format!("{content}?dryRun=true"), Value::Null).await;
    assert_eq!(dry.refused(400)["field"], "dryRun");
    let file = api.v1(Method::GET, content, Value::Null).await;
    assert!(file.headers["content-disposition"].to_str().unwrap().starts_with("attachment"));
    assert_eq!(file.ok(), "abcde");
    assert_eq!(api.audit().await, ["carve.download"]);
    api.v1(Method::DELETE, "/carves/carve-1", Value::Null).await.ok();
    api.v1(Method::GET, "/carves/carve-1", Value::Null).await.refused(404);
    assert_eq!(api.audit().await, ["carve.download", "carve.delete"]);
}

#[tokio::test]
async fn a_dry_run_does_not_reveal_a_disk_key() {
    let api = Api::new();
    let path = format!("/hosts/{}/disk_key", disk_key(&api).await);
    assert_eq!(api.post(&format!("{path}/reveal?dryRun=true"), json!({})).await.refused(400)["field"], "dryRun");
    assert!(api.audit().await.is_empty());
    api.post(&format!("{path}/escrow"), json!({})).await.ok();
    let status = api.get(&path).await.ok()["item"].clone();
    assert_eq!((&status["stored"], &status["escrow_pending"]), (&json!(true), &json!(true)));
    assert!(status.get("escrow_requests").is_none(), "the host was not told yet");
}

#[tokio::test]
async fn only_linux_hosts_are_asked_for_a_passphrase() {
    let api = Api::new();
    for (name, os, is_asked) in [("w", "windows", false), ("m", "darwin\n\nmacOS", false), ("l", "ubuntu", true)] {
        let change = |agent: &mut muster_core::agent::AgentRecord| {
            (agent.family, agent.host_id) = (Family::Orbit, Some(HostId::trusted(format!("host-of-{name}"))));
            agent.os = os.into();
        };
        api.agent_with(name, None, change).await;
        let asked = api.post(&format!("/hosts/host-of-{name}/disk_key/escrow"), json!({})).await;
        match is_asked {
            true => drop(asked.ok()),
            false => assert_eq!(asked.refused(400)["code"], "platform_unsupported", "{name}"),
        }
    }
}
