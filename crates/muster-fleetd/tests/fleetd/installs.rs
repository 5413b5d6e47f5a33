//! The installation of software: how hosts learn of it, fetch the details and the package, and report.

use std::time::Duration;

use bytes::Bytes;
use muster_core::agent::Family;
use muster_core::authorization::{Actor, OpContext};
use muster_core::fleetd::numbers;
use muster_core::host_run::DEFAULT_EXPIRY;
use muster_core::install::{InstallKind, InstallOnHost, InstallRun};
use muster_core::installer::{BLOCK, Installer};
use muster_fleet::installs::{NewInstall, NewInstaller};
use muster_store::query::AgentFilter;
use serde_json::{Value, json};

use crate::setting::{Got, Server, UUID, agent_id, orbit_enroll};

const OTHER: &str = "4C4C4544-0042-3510-8052-000000000002";

fn root() -> OpContext {
    OpContext::administrator(Actor::Local { uid: 0 })
}

/// A package of more than one block.
fn package() -> Vec<u8> {
    let mut package = b"!<arch>\n".to_vec();
    package.resize(usize::try_from(BLOCK).expect("as expected") + 9, b'x');
    package
}

async fn upload(server: &Server, new: NewInstaller) -> Installer {
    upload_of(server, new, package()).await
}

async fn upload_of(server: &Server, new: NewInstaller, package: Vec<u8>) -> Installer {
    let grant = root().grant().expect("as expected");
    let new = NewInstaller { size: package.len() as u64, ..new };
    let made = server.fleet.installs().create_installer(&grant, new).await.expect("as expected");
    for (number, data) in package.chunks(usize::try_from(BLOCK).expect("as expected")).enumerate() {
        let (number, data) = (i64::try_from(number).expect("as expected"), Bytes::copy_from_slice(data));
        server.fleet.installs().store_block(&grant, made.id.as_str(), number, &data).await.expect("as expected");
    }
    server.fleet.installs().complete_installer(&grant, made.id.as_str()).await.expect("as expected")
}

/// Uploads a short package, and begins its install.
pub async fn installed(server: &Server) -> (Installer, InstallRun) {
    let installer = upload_of(server, zsh(), b"!<arch>\ndebian-binary".to_vec()).await;
    let run = run(server, InstallKind::Install, &installer, 0).await;
    (installer, run)
}

fn zsh() -> NewInstaller {
    NewInstaller {
        file_name: "zsh_5.9_amd64.deb".into(),
        condition: "SELECT 1".into(),
        post_install_script: "zsh --version".into(),
        ..NewInstaller::default()
    }
}

async fn run(server: &Server, kind: InstallKind, installer: &Installer, retries: u64) -> InstallRun {
    let new = NewInstall {
        kind,
        installer: installer.clone(),
        hosts: Vec::new(),
        filter: AgentFilter::default(),
        expiry: DEFAULT_EXPIRY,
        max_retries: retries,
    };
    server.clock.advance(Duration::from_secs(1));
    server.fleet.installs().create(&root().grant().expect("as expected"), new).await.expect("as expected")
}

async fn notifications(server: &Server, key: &str) -> Value {
    let got = server.orbit("config", &json!({"orbit_node_key": key})).await;
    assert_eq!(got.status, 200, "{got:?}");
    got.json()["notifications"].clone()
}

async fn details(server: &Server, key: &str, run: &InstallRun) -> Got {
    server.orbit("software_install/details", &json!({"orbit_node_key": key, "install_uuid": run.id})).await
}

async fn download(server: &Server, key: &str, installer: &Value) -> Got {
    let body = json!({"orbit_node_key": key, "installer_id": installer});
    server.orbit("software_install/package?alt=media", &body).await
}

async fn report(server: &Server, key: &str, run: &InstallRun, result: Value) -> Got {
    let mut body = result;
    body["orbit_node_key"] = json!(key);
    body["install_uuid"] = json!(run.id);
    server.orbit("software_install/result", &body).await
}

/// Returns what became of a run on its only host.
pub async fn only(server: &Server, run: &InstallRun) -> (InstallOnHost, &'static str) {
    let found = server.fleet.installs().find(&root(), run.id.as_str()).await.expect("as expected");
    let mut all = server.fleet.installs().hosts(&found, None, 100).await.expect("as expected");
    assert_eq!(all.len(), 1);
    let outcome = all[0].outcome(found.run(), server.now());
    (all.remove(0), outcome)
}

async fn server() -> (Server, String) {
    let server = Server::start().await;
    let key = server.orbit_key(&server.secret().await, UUID).await;
    notifications(&server, &key).await;
    (server, key)
}

#[tokio::test]
async fn fl55_fl61_software_is_announced_and_its_details_are_fetched() {
    let (server, key) = server().await;
    let installer = upload(&server, zsh()).await;
    let run = run(&server, InstallKind::Install, &installer, 2).await;
    assert_eq!(notifications(&server, &key).await, json!({"pending_software_installer_ids": [run.id]}));
    let got = details(&server, &key, &run).await.json();
    let expected = json!({
        "install_id": run.id, "installer_id": numbers::of(installer.id.as_str()), "pre_install_condition": "SELECT 1",
        "install_script": installer.install_script, "uninstall_script": installer.uninstall_script,
        "post_install_script": "zsh --version", "self_service": false, "max_retries": 2,
    });
    assert_eq!(got, expected);
    assert!(installer.install_script.contains("INSTALLER_PATH") && installer.uninstall_script.contains("'zsh'"));
    let misspelt = |key: &str| json!({"orbot_node_key": key, "install_uuid": run.id});
    assert_eq!(server.orbit("software_install/details", &misspelt(&key)).await.status, 200);
    let both = json!({"orbit_node_key": key, "orbot_node_key": key, "install_uuid": run.id});
    assert_eq!(server.orbit("software_install/details", &both).await.status, 200);
    assert_eq!(server.orbit("software_install/details", &misspelt("x")).await.status, 401);
    assert_eq!(only(&server, &run).await.1, "running");
    assert_eq!(notifications(&server, &key).await, json!({"pending_software_installer_ids": [run.id]}), "may restart");
}

#[tokio::test]
async fn fl62_a_host_fetches_only_packages_that_it_is_to_install() {
    let (server, key) = server().await;
    let other = server.orbit_key(&server.secret().await, OTHER).await;
    let installer = upload(&server, zsh()).await;
    let number = json!(numbers::of(installer.id.as_str()));
    assert_eq!(download(&server, &key, &number).await.status, 404, "nothing is pending");
    let new = NewInstall {
        kind: InstallKind::Install,
        installer: installer.clone(),
        hosts: vec![UUID.to_owned()],
        filter: AgentFilter::default(),
        expiry: DEFAULT_EXPIRY,
        max_retries: 0,
    };
    let run = server.fleet.installs().create(&root().grant().expect("as expected"), new).await.expect("as expected");
    let body = json!({"orbit_node_key": key, "installer_id": number});
    for query in ["", "?alt=json", "?x=alt=media"] {
        assert_eq!(server.orbit(&format!("software_install/package{query}"), &body).await.status, 400, "{query}");
    }
    let got = download(&server, &key, &number).await;
    assert_eq!((got.status, got.text.as_bytes()), (200, package().as_slice()));
    assert_eq!(got.headers["content-disposition"], "attachment; filename=\"zsh_5.9_amd64.deb\"");
    assert_eq!(got.headers["content-length"], package().len().to_string());
    for bad in [json!(0), json!(1), json!(u64::MAX)] {
        assert_eq!(download(&server, &key, &bad).await.status, 404, "{bad}");
    }
    assert_eq!(download(&server, &key, &json!(-1)).await.status, 400);
    assert_eq!(details(&server, &other, &run).await.status, 404, "of another host");
    assert_eq!(download(&server, &other, &number).await.status, 404);
    assert_eq!(report(&server, &other, &run, json!({})).await.status, 404);
    assert_eq!(download(&server, "x", &number).await.status, 401);
    report(&server, &key, &run, json!({"install_script_exit_code": 0})).await;
    assert_eq!(download(&server, &key, &number).await.status, 404, "it is installed");
    let refused = server.fleet.refusals().list(&root().grant().expect("as expected"));
    assert!(refused.iter().any(|one| one.refused.operation == "orbit_install_package"), "administrators see it");
}

#[tokio::test]
async fn fl63_results_are_taken_and_absent_exit_codes_are_steps_that_did_not_run() {
    let (server, key) = server().await;
    let installer = upload(&server, zsh()).await;
    for (result, outcome, step) in [
        (json!({"pre_install_condition_output": ""}), "condition_not_met", None),
        (json!({"pre_install_condition_output": null}), "failed", Some("no step ran")),
        (
            json!({"install_script_exit_code": -3, "install_script_output": "x"}),
            "failed",
            Some("the download of the package"),
        ),
        (json!({"install_script_exit_code": -2}), "failed", Some("scripts are disabled on the host")),
        (json!({"install_script_exit_code": 100}), "failed", Some("the install script")),
        (
            json!({"install_script_exit_code": 0, "post_install_script_exit_code": 1}),
            "failed",
            Some("the post-install script"),
        ),
        (json!({"install_script_exit_code": 0, "install_script_output": "y".repeat(20_000)}), "installed", None),
    ] {
        let run = run(&server, InstallKind::Install, &installer, 0).await;
        details(&server, &key, &run).await;
        let got = report(&server, &key, &run, result.clone()).await;
        assert_eq!((got.status, got.text.as_str()), (204, ""), "{result}");
        assert_eq!(report(&server, &key, &run, json!({"install_script_exit_code": 9})).await.status, 204, "repeated");
        let (host, told) = only(&server, &run).await;
        assert_eq!((told, host.failed_step(run.work.kind)), (outcome, step), "{result}");
        let reported = host.result.expect("as expected");
        assert_eq!(reported.script.is_none(), result.get("install_script_exit_code").is_none(), "{result}");
        assert!(reported.script.is_none_or(|script| script.output.len() <= 10_000));
        assert_eq!(host.agent, agent_id(Family::Orbit, UUID));
    }
    assert_eq!(notifications(&server, &key).await, json!({}));
    let reads = server.reads();
    notifications(&server, &key).await;
    assert_eq!(server.reads(), reads, "a configuration without work reads nothing");
}

#[tokio::test]
async fn fl63_a_failed_install_is_repeated_by_the_host() {
    let (server, key) = server().await;
    let installer = upload(&server, zsh()).await;
    let run = run(&server, InstallKind::Install, &installer, 1).await;
    details(&server, &key, &run).await;
    report(&server, &key, &run, json!({"install_script_exit_code": 1, "retries_remaining": 1})).await;
    let (host, outcome) = only(&server, &run).await;
    assert_eq!((outcome, host.attempts), ("running", 1));
    assert_eq!(
        download(&server, &key, &json!(numbers::of(installer.id.as_str()))).await.status,
        200,
        "it downloads the package again"
    );
    report(&server, &key, &run, json!({"install_script_exit_code": 0, "retries_remaining": 0})).await;
    let (host, outcome) = only(&server, &run).await;
    assert_eq!((outcome, host.attempts), ("installed", 2));
}

#[tokio::test]
async fn a_host_does_not_keep_an_install_open_with_retries_that_its_run_does_not_permit() {
    let (server, key) = server().await;
    let installer = upload(&server, zsh()).await;
    let run = run(&server, InstallKind::Install, &installer, 1).await;
    details(&server, &key, &run).await;
    for (outcome, attempts) in [("running", 1), ("failed", 2)] {
        report(&server, &key, &run, json!({"install_script_exit_code": 1, "retries_remaining": 99})).await;
        let (host, now) = only(&server, &run).await;
        assert_eq!((now, host.attempts), (outcome, attempts));
    }
    let detail = server.events("software.install").await[0]["detail"].clone();
    assert_eq!(detail["agents"], json!([agent_id(Family::Orbit, UUID)]), "{detail}");
}

#[tokio::test]
async fn an_uninstall_is_a_script_and_comes_after_the_install_before_it() {
    let (server, key) = server().await;
    let installer = upload(&server, zsh()).await;
    let install = run(&server, InstallKind::Install, &installer, 0).await;
    let uninstall = run(&server, InstallKind::Uninstall, &installer, 0).await;
    assert_eq!(notifications(&server, &key).await, json!({"pending_software_installer_ids": [install.id]}));
    assert_eq!(details(&server, &key, &uninstall).await.status, 404, "not with the protocol of installs");
    report(&server, &key, &install, json!({"install_script_exit_code": 0})).await;
    let config = server.orbit("config", &json!({"orbit_node_key": key})).await.json();
    let expected = json!({"script_execution_timeout": 3600,
        "notifications": {"pending_script_execution_ids": [uninstall.id]}});
    assert_eq!(config, expected);
    let ids = json!({"orbit_node_key": key, "execution_id": uninstall.id});
    let script = server.orbit("scripts/request", &ids).await.json();
    assert_eq!((&script["script_contents"], &script["timeout"]), (&json!(installer.uninstall_script), &json!(3600)));
    let result = json!({"orbit_node_key": key, "execution_id": uninstall.id, "exit_code": 0, "output": "done",
        "runtime": 1});
    assert_eq!(server.orbit("scripts/result", &result).await.status, 200);
    assert_eq!(server.orbit("scripts/result", &result).await.status, 200, "repeated");
    assert_eq!(only(&server, &uninstall).await.1, "uninstalled");
    assert_eq!(server.orbit("scripts/request", &ids).await.status, 404);
    assert_eq!(notifications(&server, &key).await, json!({}));
}

#[tokio::test]
async fn installs_are_stopped_and_expire() {
    let (server, key) = server().await;
    let installer = upload(&server, zsh()).await;
    let first = run(&server, InstallKind::Install, &installer, 0).await;
    let grant = root().grant().expect("as expected");
    server.fleet.scripts().enable(&grant, false).await.expect("as expected");
    assert_eq!(notifications(&server, &key).await, json!({}), "scripts are disabled in the space");
    server.fleet.scripts().enable(&grant, true).await.expect("as expected");
    details(&server, &key, &first).await;
    let found = server.fleet.installs().find(&root(), first.id.as_str()).await.expect("as expected");
    let delete = async || {
        let grant = root().grant().expect("as expected");
        server.fleet.installs().delete_installer(&grant, installer.id.as_str()).await
    };
    assert_eq!(delete().await.expect_err("hosts need it").code, "installer_in_use");
    server.fleet.installs().stop(&root(), &found).await.expect("as expected");
    let number = json!(numbers::of(installer.id.as_str()));
    assert_eq!(
        (details(&server, &key, &first).await.status, download(&server, &key, &number).await.status),
        (404, 404)
    );
    assert_eq!(report(&server, &key, &first, json!({"install_script_exit_code": 0})).await.status, 204, "it had begun");
    assert_eq!(only(&server, &first).await.1, "installed");
    let second = run(&server, InstallKind::Install, &installer, 0).await;
    server.clock.advance(DEFAULT_EXPIRY + Duration::from_secs(1));
    assert_eq!(notifications(&server, &key).await, json!({}));
    assert_eq!(only(&server, &second).await.1, "expired");
    delete().await.expect("nothing needs it");
    assert_eq!(server.audited().await.last().map(String::as_str), Some("installer.delete"));
}

#[tokio::test]
async fn only_hosts_of_the_platform_get_an_installer() {
    let server = Server::start().await;
    let secret = server.secret().await;
    let mut mac = orbit_enroll(&secret, OTHER);
    (mac["platform"], mac["platform_like"]) = (json!("darwin"), json!("darwin"));
    assert_eq!(server.orbit("enroll", &mac).await.status, 200);
    let installer = upload(&server, zsh()).await;
    let new = |kind| NewInstall {
        kind,
        installer: installer.clone(),
        hosts: vec![OTHER.to_owned()],
        filter: AgentFilter::default(),
        expiry: DEFAULT_EXPIRY,
        max_retries: 0,
    };
    let refused =
        server.fleet.installs().create(&root().grant().expect("as expected"), new(InstallKind::Install)).await;
    let error = refused.expect_err("a Debian package on macOS");
    assert_eq!((error.code, error.message.contains("linux")), ("no_host_matches", true), "{error}");
    server.orbit_key(&secret, UUID).await;
    assert_eq!(run(&server, InstallKind::Install, &installer, 0).await.targets, 1);
    let silent = NewInstaller { uninstall_script: Some(String::new()), version: Some("2".into()), ..zsh() };
    let silent = upload(&server, silent).await;
    let new = NewInstall { installer: silent, hosts: Vec::new(), ..new(InstallKind::Uninstall) };
    let refused = server.fleet.installs().create(&root().grant().expect("as expected"), new).await;
    assert_eq!(refused.expect_err("there is no script").code, "no_uninstall_script");
}
