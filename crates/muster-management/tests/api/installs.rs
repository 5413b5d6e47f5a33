//! `/api/v1/software/installers` and `/api/v1/software/installs`.

use axum::body::Body;
use axum::http::{Method, Request};
use muster_core::agent::{AgentRecord, Family};
use muster_core::authorization::{Actor, BindingScope, Entitlement, OpContext, PrivilegeName, Selector};
use muster_core::hex;
use muster_core::host::Host;
use muster_core::id::{AgentId, HostId, SpaceId};
use muster_core::install::{InstallResult, StepResult};
use muster_core::installer::BLOCK;
use muster_store::{AgentWrite, Write};
use serde_json::{Value, json};

use crate::support::{Answer, Api, administrator};

const PACKAGE: &[u8] = b"!<arch>\ndebian-binary";

async fn host(api: &Api, id: &str, os: &str, tag: &str) {
    let change = |agent: &mut AgentRecord| {
        (agent.family, agent.hostname, agent.tags) = (Family::Orbit, format!("{id}.example"), vec![tag.to_owned()]);
        (agent.os, agent.host_id) = (os.into(), Some(HostId::trusted(format!("host-{id}"))));
    };
    let machine = Host {
        id: HostId::trusted(format!("host-{id}")),
        space: SpaceId::default(),
        machine_id: None,
        hostname: format!("{id}.example"),
        created_at: api.now(),
        system_id: None,
    };
    api.fleet.store().commit(vec![Write::Agent(AgentWrite::PutHost(machine))]).await.unwrap();
    api.agent_with(id, None, change).await;
}

async fn post(api: &Api, path: &str, body: Value) -> Answer {
    api.v1(Method::POST, path, body).await
}

async fn block(api: &Api, installer: &str, number: &str, data: &[u8]) -> Answer {
    let request = Request::put(format!("/api/v1/software/installers/{installer}/blocks/{number}"))
        .header("content-type", "application/octet-stream")
        .extension(administrator());
    api.send(request.body(Body::from(data.to_vec())).unwrap()).await
}

fn zsh() -> Value {
    json!({"file_name": "zsh_5.9_amd64.deb", "size": PACKAGE.len(), "condition": "SELECT 1"})
}

async fn created(api: &Api, body: Value) -> String {
    post(api, "/software/installers", body).await.ok()["item"]["id"].as_str().unwrap().to_owned()
}

async fn uploaded(api: &Api, body: Value) -> String {
    let id = created(api, body).await;
    block(api, &id, "0", PACKAGE).await.ok();
    post(api, &format!("/software/installers/{id}/complete"), json!({})).await.ok();
    id
}

async fn report(api: &Api, agent: &str, run: &str, code: Option<i64>) {
    let entry = api.fleet.entry(&AgentId::trusted(agent)).await.unwrap();
    let result = InstallResult { script: StepResult::new(code, "out\n"), ..InstallResult::default() };
    api.fleet.installs().report(&entry, run, result).await.unwrap();
}

#[tokio::test]
async fn a_package_is_uploaded_in_blocks_and_verified() {
    let api = Api::new();
    let tried = post(&api, "/software/installers?dryRun=true", zsh()).await.ok();
    assert_eq!(tried["item"]["id"], "");
    let made = post(&api, "/software/installers", zsh()).await.ok()["item"].clone();
    assert_eq!((&made["name"], &made["version"], &made["platform"]), (&json!("zsh"), &json!("5.9"), &json!("linux")));
    assert_eq!((&made["state"], &made["block_size"]), (&json!("uploading"), &json!(BLOCK)));
    let id = made["id"].as_str().unwrap();
    let complete = format!("/software/installers/{id}/complete");
    assert_eq!(post(&api, &complete, json!({})).await.refused(409)["code"], "installer_not_complete");
    let refused = post(&api, "/software/installs", json!({"installer": id, "kuery": "family:orbit"})).await;
    assert_eq!(refused.refused(409)["code"], "installer_not_complete");
    for (number, data, field) in
        [("1", PACKAGE, "number"), ("x", PACKAGE, "number"), ("0", &PACKAGE[1..], "body"), ("0", &[0; 21], "body")]
    {
        assert_eq!(block(&api, id, number, data).await.refused(400)["field"], field, "{number}");
    }
    block(&api, id, "0", PACKAGE).await.ok();
    block(&api, id, "0", PACKAGE).await.ok();
    let ready = post(&api, &complete, json!({})).await.ok()["item"].clone();
    assert_eq!((&ready["state"], ready["sha256"].as_str().map(str::len)), (&json!("ready"), Some(64)));
    assert_eq!(post(&api, &complete, json!({})).await.ok()["item"]["uploaded_at"], ready["uploaded_at"]);
    assert_eq!(block(&api, id, "0", PACKAGE).await.refused(409)["code"], "installer_changed");
    let shown = api.v1(Method::GET, "/software/installers/ZSH", Value::Null).await.ok()["item"].clone();
    assert!(shown["uninstall_script"].as_str().unwrap().contains("'zsh'") && shown["condition"] == "SELECT 1");
    let listed = api.v1(Method::GET, "/software/installers", Value::Null).await.ok();
    let texts = ["install_script", "condition"].map(|text| listed["items"][0].get(text));
    assert_eq!((&listed["total"], texts), (&json!(1), [None, None]));
    assert_eq!(post(&api, "/software/installers", zsh()).await.refused(409)["code"], "installer_exists");
    let wrong = json!({"file_name": "zsh_6_amd64.deb", "size": PACKAGE.len(), "sha256": "0".repeat(64)});
    let other = created(&api, wrong).await;
    block(&api, &other, "0", PACKAGE).await.ok();
    let refused = post(&api, &format!("/software/installers/{other}/complete"), json!({})).await;
    assert_eq!(refused.refused(400)["field"], "sha256");
    let ambiguous = api.v1(Method::GET, "/software/installers/zsh", Value::Null).await;
    assert_eq!(ambiguous.refused(409)["code"], "installer_ambiguous");
    api.v1(Method::DELETE, &format!("/software/installers/{other}"), Value::Null).await.ok();
    api.v1(Method::DELETE, &format!("/software/installers/{other}"), Value::Null).await.refused(404);
    assert_eq!(api.audit().await, ["installer.create", "installer.upload", "installer.create", "installer.delete"]);
    let created = api.fleet.store().audit_events(0, 1).await.unwrap().remove(0).1;
    let hash = hex::encode(&hex::sha256(b"SELECT 1"));
    assert!(created.contains(&hash) && !created.contains("SELECT 1"), "hosts run it with full privileges: {created}");
}

#[tokio::test]
async fn bad_installers_are_rejected() {
    let api = Api::new();
    for (body, field) in [
        (json!({"file_name": "zsh.zip", "size": 1}), "file_name"),
        (json!({"file_name": "a/b_1.deb", "size": 1, "version": "1"}), "file_name"),
        (json!({"file_name": "zsh_1.deb", "size": 0}), "size"),
        (json!({"file_name": "zsh_1.deb", "size": 3_000_000_000_u64}), "size"),
        (json!({"file_name": "zsh.deb", "size": 1}), "version"),
        (json!({"file_name": "tool-1.tar.gz", "size": 1, "install_script": "x"}), "platform"),
        (json!({"file_name": "tool-1.tar.gz", "size": 1, "platform": "linux"}), "install_script"),
        (json!({"file_name": "zsh_1.deb", "size": 1, "platform": "windows"}), "platform"),
        (json!({"file_name": "zsh_1.deb", "size": 1, "platform": "beos"}), "platform"),
        (json!({"file_name": "zsh_1.deb", "size": 1, "sha256": "x"}), "sha256"),
    ] {
        assert_eq!(post(&api, "/software/installers", body.clone()).await.refused(400)["field"], field, "{body}");
    }
}

#[tokio::test]
async fn software_is_installed_on_its_hosts_and_the_results_come_in_pages() {
    let api = Api::new();
    for id in ["a", "b", "c"] {
        host(&api, id, "ubuntu\ndebian", "web").await;
    }
    host(&api, "m", "darwin\ndarwin", "web").await;
    let installer = uploaded(&api, zsh()).await;
    let tried =
        post(&api, "/software/installs?dryRun=true", json!({"installer": "zsh", "kuery": "family:orbit"})).await.ok();
    assert_eq!((&tried["item"]["targets"], &tried["item"]["id"]), (&json!(3), &json!("")));
    let body = json!({"installer": "zsh", "kuery": "tags:web", "max_retries": 2});
    let made = post(&api, "/software/installs", body).await.ok()["item"].clone();
    assert_eq!((&made["state"], &made["kind"], &made["targets"]), (&json!("running"), &json!("install"), &json!(3)));
    let id = made["id"].as_str().unwrap();
    report(&api, "a", id, Some(0)).await;
    report(&api, "b", id, None).await;
    let hosts = async |query: &str| {
        api.v1(Method::GET, &format!("/software/installs/{id}/hosts{query}"), Value::Null).await.ok()
    };
    let page = hosts("?limit=2").await;
    let outcomes: Vec<_> = page["items"].as_array().unwrap().iter().map(|one| one["outcome"].clone()).collect();
    assert_eq!((outcomes, &page["next"]), (vec![json!("installed"), json!("failed")], &json!("b")));
    assert_eq!((&page["items"][0]["output"], &page["items"][0]["exit_code"]), (&json!("out\n"), &json!(0)));
    assert_eq!(page["items"][1].get("exit_code"), None, "not run");
    assert_eq!((&page["run"]["finished"], &page["run"]["failed"]), (&json!(2), &json!(1)));
    assert_eq!(hosts("?after=b").await["items"][0]["outcome"], "pending");
    let of_host = api.get("/hosts/host-b/installs").await.ok()["items"].clone();
    assert_eq!((&of_host[0]["run"]["id"], &of_host[0]["result"]["outcome"]), (&json!(id), &json!("failed")));
    let of_host = api.get("/hosts/host-a/installs").await.ok()["items"].clone();
    assert_eq!((&of_host[0]["result"]["exit_code"], of_host[0]["result"].get("output")), (&json!(0), None));
    let in_use = api.v1(Method::DELETE, &format!("/software/installers/{installer}"), Value::Null).await;
    assert_eq!(in_use.refused(409)["code"], "installer_in_use");
    let stopped = post(&api, &format!("/software/installs/{id}/stop"), json!({})).await.ok();
    assert_eq!(stopped["item"]["state"], "stopped");
    assert_eq!(hosts("?after=b").await["items"][0]["outcome"], "stopped");
    let body = json!({"installer": installer, "kind": "uninstall", "hosts": ["a.example"]});
    assert_eq!(post(&api, "/software/installs", body).await.ok()["item"]["kind"], "uninstall");
    let listed = api.v1(Method::GET, "/software/installs", Value::Null).await.ok();
    assert_eq!(listed["total"], 2);
    let audited = api.audit().await;
    assert_eq!(audited[2..], ["software.install", "software.stop", "software.uninstall"]);
    api.v1(Method::GET, "/software/installs/nowhere/hosts", Value::Null).await.refused(404);
}

#[tokio::test]
async fn bad_installs_are_rejected() {
    let api = Api::new();
    host(&api, "a", "ubuntu\ndebian", "web").await;
    host(&api, "m", "darwin\ndarwin", "web").await;
    let installer = uploaded(&api, zsh()).await;
    for (body, field) in [
        (json!({"installer": installer}), "hosts"),
        (json!({"installer": installer, "kuery": " "}), "hosts"),
        (json!({"installer": installer, "hosts": ["a"], "max_retries": 6}), "max_retries"),
        (json!({"installer": installer, "hosts": ["a"], "expires_in_seconds": 5}), "expires_in_seconds"),
    ] {
        assert_eq!(post(&api, "/software/installs", body).await.refused(400)["field"], field);
    }
    for (body, status) in [
        (json!({"installer": "nothing", "hosts": ["a"]}), 404),
        (json!({"installer": installer, "hosts": ["nobody"]}), 404),
        (json!({"installer": installer, "hosts": ["m"]}), 400),
    ] {
        post(&api, "/software/installs", body).await.refused(status);
    }
    api.v1(Method::PUT, "/scripts/settings", json!({"enabled": false})).await.ok();
    let refused = post(&api, "/software/installs", json!({"installer": installer, "hosts": ["a"]})).await;
    assert_eq!(refused.refused(409)["code"], "scripts_disabled");
}

#[tokio::test]
async fn a_caller_with_a_limited_scope_installs_on_its_hosts_and_sees_its_own_runs() {
    let api = Api::new();
    host(&api, "a", "ubuntu\ndebian", "web").await;
    host(&api, "b", "ubuntu\ndebian", "db").await;
    let installer = uploaded(&api, zsh()).await;
    let made = post(&api, "/software/installs", json!({"installer": installer, "kuery": "family:orbit"})).await.ok();
    let scope = BindingScope::Part { space: SpaceId::default(), selector: Selector::Tags(vec!["web".to_owned()]) };
    let privileges = [PrivilegeName::SoftwareInstall].into_iter().collect();
    let caller = OpContext::entitled(Actor::Local { uid: 7 }, [Entitlement { privileges, scope }]);
    let installs = api.fleet.installs();
    assert!(installs.find(&caller, made["item"]["id"].as_str().unwrap()).await.is_err(), "not its own");
    let found = installs.installer(&caller, "zsh").await.unwrap();
    assert_eq!((found.install_script.as_str(), found.condition.as_str()), ("", ""), "it may only install it");
    let new = muster_fleet::installs::NewInstall {
        kind: muster_core::install::InstallKind::Install,
        installer: found,
        hosts: Vec::new(),
        filter: muster_store::query::AgentFilter::default(),
        expiry: muster_core::host_run::DEFAULT_EXPIRY,
        max_retries: 0,
    };
    let own = installs.create(&caller.grant().unwrap(), new).await.unwrap();
    for _ in 0..50 {
        let body = json!({"installer": installer, "hosts": ["a.example"]});
        post(&api, "/software/installs", body).await.ok();
    }
    assert_eq!(own.targets, 1);
    let listed = installs.list(&caller).await.unwrap();
    assert_eq!(listed.iter().map(|run| &run.id).collect::<Vec<_>>(), [&own.id]);
    let of_host = installs.of_host(&caller, &HostId::trusted("host-a"), 9).await.unwrap();
    assert_eq!(of_host.len(), 1, "without the run of the other caller");
    let seen = installs.find(&caller, own.id.as_str()).await.unwrap();
    assert_eq!(installs.stop(&caller, &seen).await.unwrap().state(api.now()), "stopped");
    assert!(caller.grant::<muster_core::authorization::InstallersWrite>().is_err());
}
