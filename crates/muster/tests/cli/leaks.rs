//! No secret reaches the database, an answer of the API, or the log at its most verbose, in clear text or encoded. The server works with
//! all of them meanwhile: an agent gets its policy, and the server creates a key for it with the credential of an output.

mod canaries;
mod hosts;
mod server;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::world::file;
use canaries::{Canaries, DELIVERED, POLICY};
use server::Server;

/// A policy that is rejected. Its messages must not quote what they are about.
const REJECTED: &str = r#"
name: rejected
config:
  outputs:
    default:
      type: elasticsearch
      hosts: 5
      service_token: ["canary-rejected-token"]
      password: {a: canary-rejected-password}
      ssl.key_passphrase: canary-rejected-passphrase
      unknown_field: {token: canary-rejected-unknown}
  inputs:
    - type: 7
      auth.basic.password: canary-rejected-input
"#;

#[test]
fn m10_no_secret_is_stored_answered_or_logged_in_clear_text() {
    let mut canaries = Canaries::written();
    let server = Server::start();
    create_network_objects(&server, &canaries);
    create_output(&server, &canaries);
    let named = json!({
        "name": "named", "namespace": "default", "secrets": {"NAMED": "canary-named-secret"},
        "config": {"inputs": [{"type": "httpjson", "use_output": "shared", "auth": {"basic": {"password": "$co.elastic.secret{NAMED}"}}}]}
    });
    canaries.check("the created policy", server.post("/api/fleet/agent_policies", &named).as_bytes());
    let (_kept, policy) =
        file("leaks.yml", &POLICY.replace("CLUSTER", &cluster_for(&server, "canary-policy-host-password")));
    let (_kept_too, rejected) = file("rejected.yml", REJECTED);
    for (words, is_accepted) in [
        (&["policy", "apply", "-f", &policy, "--dry-run"][..], true),
        (&["policy", "apply", "-f", &policy, "--yes"], true),
        (&["policy", "apply", "-f", &rejected, "--yes"], false),
    ] {
        canaries.check_run(&server, words, is_accepted);
    }
    let again = canaries.check_run(&server, &["policy", "apply", "-f", &policy, "--yes", "--output", "json"], true);
    let again: Value = serde_json::from_str(&again).unwrap();
    assert_eq!(again["revision"], 1, "applying the file again changes nothing: {again}");

    let agent = server.agent("leaks");
    // Before the checks below: the agent has its secrets, so the server had them in memory.
    let delivered = agent.policy.to_string();
    for secret in DELIVERED {
        assert!(delivered.contains(secret), "{secret}: {delivered}");
    }
    assert!(
        !delivered.contains("canary-service-token") && !delivered.contains("canary-output-password"),
        "{delivered}"
    );
    canaries.add(&agent.access_key);
    canaries.add(&agent.output_key);
    let token = STANDARD.encode("id:canary-migrate-token");
    let migrate = json!({"settings": {}, "uri": "https://other:8220", "enrollment_token": token});
    let path = format!("/api/fleet/agents/{}/migrate", agent.id);
    canaries.check("the answer to a migration", server.post(&path, &migrate).as_bytes());

    ask_everything(&server, &canaries, &agent.id);
    for words in [
        &["status", "--output", "json"][..],
        &["output", "show", "shared"],
        &["output", "show", "token"],
        &["proxy", "show", "proxy"],
        &["audit", "list", "--output", "json"],
    ] {
        canaries.check_run(&server, words, true);
    }
    let shown = canaries.check_run(&server, &["policy", "show", "leaks", "--output", "json"], true);
    assert!(shown.contains("$co.elastic.secret{inline.outputs.default.service_token}"), "{shown}");
    // A new key signs every policy again, so that each secret is read once more.
    assert_eq!(server.run(&["policy", "rotate-signing-key"]).code, 2, "it asks, and nobody answers");
    canaries.check_run(&server, &["policy", "rotate-signing-key", "--yes"], true);
    let again = canaries.check_run(&server, &["policy", "show", "leaks", "--output", "json"], true);
    assert!(again.contains("\"revision\": 2"), "{again}");
    let (files, log) = server.stop();
    for (path, bytes) in files {
        canaries.check(&path, &bytes);
    }
    let verbose =
        ["TRACE ", "DEBUG ", "INFO "].map(|level| log.windows(level.len()).any(|window| window == level.as_bytes()));
    assert_eq!(verbose, [true; 3], "everything was written to this file");
    canaries.check("the log", &log);
}

/// The cluster's URL with a password in it.
fn cluster_for(server: &Server, password: &str) -> String {
    server.cluster.url().replace("://", &format!("://somebody:{password}@"))
}

fn create_network_objects(server: &Server, canaries: &Canaries) {
    let made = [
        (
            "proxies",
            json!({
                "id": "proxy", "name": "proxy", "url": "http://u:canary-proxy-password@127.0.0.1:1",
                "proxy_headers": {"Proxy-Authorization": "canary-proxy-authorization", "X-Tenant": "shown"}
            }),
        ),
        (
            "fleet_server_hosts",
            json!({"name": "host", "is_default": true, "host_urls": ["https://127.0.0.1:1"], "proxy_id": "proxy"}),
        ),
        (
            "agent_download_sources",
            json!({
                "name": "source", "is_default": true, "host": "https://u:canary-source-password@127.0.0.1:1/",
                "auth": {"headers": [{"key": "Authorization", "value": "canary-source-header"}]}
            }),
        ),
    ];
    for (path, fields) in made {
        canaries.check("the created network object", server.post(&format!("/api/fleet/{path}"), &fields).as_bytes());
    }
}

fn create_output(server: &Server, canaries: &Canaries) {
    let fields = json!({
        "id": "shared", "name": "shared", "type": "remote_elasticsearch",
        "hosts": [cluster_for(server, "canary-output-host-password")],
        "agent_keys": true, "username": "somebody", "password": "canary-output-password",
        "kibana_url": "https://kibana", "kibana_api_key": "canary-output-kibana-key",
        "config_yaml": "proxy_headers:\n  authorization: canary-yaml-password\n\
            loadbalance_by: https://u:canary-yaml-url-password@127.0.0.1:1\n"
    });
    canaries.check("the created output", server.post("/api/fleet/outputs", &fields).as_bytes());
    let token = json!({
        "id": "token", "name": "token", "type": "elasticsearch", "hosts": ["https://127.0.0.1:1"],
        "proxy_url": "http://u:canary-output-proxy-password@127.0.0.1:1",
        "proxy_headers": {"Proxy-Authorization": "canary-output-proxy-header"},
        "service_token": "canary-output-token", "secrets": {"ssl": {"key": "canary-output-ssl-key"}}
    });
    canaries.check("the created output", server.post("/api/fleet/outputs", &token).as_bytes());
}

/// Reads every page of the API that shows something.
fn ask_everything(server: &Server, canaries: &Canaries, agent: &str) {
    let policies: Value = serde_json::from_str(&server.get("/api/fleet/agent_policies")).unwrap();
    let policies = policies["items"].as_array().unwrap();
    let policy = policies.iter().find(|policy| policy["name"] == "leaks").unwrap()["id"].as_str().unwrap().to_owned();
    let paths = [
        "/api/status".to_owned(),
        "/api/fleet/agent_policies".into(),
        format!("/api/fleet/agent_policies/{policy}"),
        format!("/api/fleet/agent_policies/{policy}/full"),
        format!("/api/fleet/agent_policies/{policy}/download"),
        format!("/api/fleet/agent_policies/{policy}/revisions"),
        format!("/api/fleet/agent_policies/{policy}/revisions/1"),
        format!("/api/fleet/agent_policies/{policy}/diff?from=1&to=1"),
        "/api/fleet/outputs".into(),
        "/api/fleet/outputs/shared".into(),
        "/api/fleet/outputs/shared/health".into(),
        "/api/fleet/outputs/token".into(),
        "/api/fleet/outputs/token/health".into(),
        "/api/fleet/proxies".into(),
        "/api/fleet/proxies/proxy".into(),
        "/api/fleet/fleet_server_hosts".into(),
        "/api/fleet/agent_download_sources".into(),
        "/api/fleet/agents".into(),
        format!("/api/fleet/agents/{agent}"),
        format!("/api/fleet/agents/{agent}/uploads"),
        "/api/fleet/agents/action_status".into(),
        "/api/fleet/enrollment_api_keys".into(),
        "/api/fleet/audit".into(),
        "/api/fleet/audit/_verify".into(),
        "/api/fleet/nodes".into(),
        "/api/v1/ca".into(),
        "/api/fleet/refused_requests".into(),
    ];
    for path in paths {
        canaries.check(&path, server.get(&path).as_bytes());
    }
}
