//! MG163: every endpoint that changes something leaves a line in the audit log. The calls are compared with the table of
//! endpoints, so that a new one cannot be left out.

use std::collections::BTreeSet;
use std::time::Duration;

use axum::body::Body;
use axum::http::{Method, Request};
use muster_core::agent::{AgentRecord, Family};
use muster_core::carve::{Announced, Carve, CarveState};
use muster_core::credential::SecretHash;
use muster_core::disk_key::DiskSecret;
use muster_core::file::{FileStatus, Upload};
use muster_core::host::Host;
use muster_core::id::{ActionId, AgentId, FileId, HostId, SpaceId};
use muster_listen::reply::{ListenerKind, Peer};
use muster_management::endpoints;
use muster_store::{AgentWrite, CarveWrite, FileWrite, Write};
use serde_json::{Value, json};

use crate::support::{Answer, Api};

const PASSWORD: &str = "correct horse battery";
/// What requests contain and the audit log must not.
const SECRETS: [&str; 6] = [
    PASSWORD,
    "another horse battery",
    "hunter2-in-an-output",
    "hush-of-a-client",
    "aWQ6c2VjcmV0",
    "s3cret-of-a-policy",
];

/// Endpoints that are not called here, with the reasons.
const LEFT_OUT: [(&str, &str); 21] = [
    ("POST /agents", "only reads"),
    ("POST /outputs/_test", "only connects to the cluster"),
    ("POST /agents/_bulk_get", "only reads"),
    ("POST /agent_policies/_bulk_get", "only reads"),
    ("POST /package_policies/_bulk_get", "only reads"),
    ("POST /package_policies/delete", "there are no integration packages: nothing is deleted"),
    ("POST /package_policies", "there are no integration packages: always rejected"),
    ("PUT /package_policies/{id}", "there are no integration packages: always rejected"),
    ("DELETE /package_policies/{id}", "there are no integration packages: always rejected"),
    ("POST /epm/packages/{name}/{version}", "there are no integration packages: always rejected"),
    ("DELETE /epm/packages/{name}/{version}", "there are no integration packages: always rejected"),
    ("POST /agents/setup", "another path of POST /setup, which creates nothing the second time"),
    ("POST /backups", "needs a data directory (muster/tests/backup)"),
    ("DELETE /backups/{id}", "removes a temporary file of the server, which is removed after an hour in any case"),
    ("POST /nodes/{id}/drain", "needs several servers (muster/tests/cluster)"),
    ("POST /nodes/{id}/resume", "needs several servers (muster/tests/cluster)"),
    ("POST /rollouts/{id}/approve", "needs time in the background (muster-fleet/tests/services/rollouts.rs)"),
    (
        "PUT /v1/software/installers/{id}/blocks/{number}",
        "stores a part of a package, whose creation and completion are recorded",
    ),
    ("POST /v1/device/authorize", "stores a code that grants nothing until it is approved"),
    ("POST /v1/device/deny", "discards such a code"),
    ("POST /v1/device/token", "hands out the token whose creation was recorded"),
];

/// A caller over TCP, who looks after each request what it left in the audit log.
struct Script {
    api: Api,
    token: String,
    /// What the lines of the caller name as the actor.
    actor: String,
    called: BTreeSet<String>,
    lines: usize,
}

impl Script {
    async fn new() -> Self {
        let api = Api::new();
        let v1 = async |path: &str, body| api.v1(Method::POST, path, body).await.ok()["item"].clone();
        let user = v1("/users", json!({"name": "ann", "password": PASSWORD})).await;
        v1("/bindings", json!({"user": "ann", "role": "administrator"})).await;
        let token = v1("/tokens", json!({"owner": "ann", "name": "t"})).await;
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let actor = format!("user:{} token:{}", text(&user["id"]), text(&token["id"]));
        let (token, lines) = (text(&token["token"]), api.audit().await.len());
        Self { api, token, actor, called: BTreeSet::new(), lines }
    }

    async fn send(&self, method: &Method, url: &str, body: Vec<u8>, headers: &[(&str, &str)]) -> Answer {
        let address = Some("192.0.2.7:50000".parse().unwrap());
        let peer = Peer { address, ..Peer::new(ListenerKind::Admin) };
        let request = Request::builder().method(method.clone()).uri(url).extension(peer);
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        self.api.send(request.body(Body::from(body)).unwrap()).await
    }

    /// Calls an endpoint with this id in its path; returns the response.
    async fn call(&mut self, endpoint: &str, id: &str, body: Value) -> Value {
        self.call_bytes(endpoint, id, if body.is_null() { Vec::new() } else { body.to_string().into() }).await
    }

    async fn call_bytes(&mut self, endpoint: &str, id: &str, body: Vec<u8>) -> Value {
        let bearer = format!("Bearer {}", self.token);
        self.call_as(endpoint, id, body, &[("authorization", &bearer)], Some(self.actor.clone())).await
    }

    async fn call_as(
        &mut self,
        endpoint: &str,
        id: &str,
        body: Vec<u8>,
        headers: &[(&str, &str)],
        actor: Option<String>,
    ) -> Value {
        let (method, template) = endpoint.split_once(' ').unwrap();
        let (template, query) = template.split_once('?').unwrap_or((template, ""));
        let table = endpoints::all();
        let found = table.iter().find(|one| one.method == method && one.path == template);
        let url = found.unwrap_or_else(|| panic!("there is no {endpoint}")).url();
        let url = ["{id}", "{action_id}", "{file_id}", "{name}"].iter().fold(url, |url, hole| url.replace(hole, id));
        let url = if query.is_empty() { url } else { format!("{url}?{query}") };
        // Each request has a moment of its own, which its lines must state.
        self.api.clock.advance(Duration::from_secs(1));
        let body = self.send(&method.parse().unwrap(), &url, body, headers).await.ok();
        let lines = self.api.fleet.store().audit_events(0, 100_000).await.unwrap();
        assert!(lines.len() > self.lines, "{endpoint} leaves no line");
        let mut of_caller = 0;
        for (_, line, _) in &lines[self.lines..] {
            let line: Value = serde_json::from_str(line).unwrap();
            assert_eq!(line["at"], json!(self.api.now()), "{endpoint}: {line}");
            for field in ["action", "subject"] {
                assert!(line[field].as_str().is_some_and(|text| !text.is_empty()), "{endpoint}: {line}");
            }
            assert!(line["detail"].is_object(), "{endpoint}: {line}");
            // Consequences, such as what an action does to each agent, name the action and no address.
            let is_of_caller = actor.as_ref().is_none_or(|actor| line["actor"] == actor.as_str());
            of_caller += usize::from(is_of_caller && line["address"] == "192.0.2.7");
        }
        assert!(of_caller > 0, "{endpoint} leaves no line of the caller: {:?}", &lines[self.lines..]);
        self.lines = lines.len();
        self.called.insert(format!("{method} {template}"));
        body
    }

    /// Takes notice of what other requests have left.
    async fn skip(&mut self) {
        self.lines = self.api.audit().await.len();
    }

    async fn agent_of(&mut self, id: &str, family: Family) {
        self.api.agent_with(id, None, |agent| agent.family = family).await;
    }

    async fn agent(&mut self, id: &str, policy: Option<&str>) {
        let until = self.api.now().plus(Duration::from_secs(86_400)).to_rfc3339_seconds();
        let rollbacks = json!([{"version": "9.4.0", "valid_until": until}]).to_string();
        self.api.agent_with(id, policy, |agent| agent.upgrade.rollbacks = Some(rollbacks.into())).await;
    }
}

fn id(answer: &Value) -> String {
    answer["item"]["id"].as_str().unwrap_or_else(|| panic!("no id: {answer}")).to_owned()
}

async fn policies(script: &mut Script) {
    script.call("POST /setup", "", Value::Null).await;
    let output = json!({"type": "elasticsearch", "hosts": ["https://es:9200"], "password": "s3cret-of-a-policy"});
    let config = json!({"outputs": {"default": output}, "inputs": [{"id": "i", "type": "filestream"}]});
    let body = json!({"id": "web", "name": "web", "namespace": "default", "is_protected": true, "config": config});
    script.call("POST /agent_policies", "", body).await;
    let body = json!({"name": "web", "namespace": "default", "description": "d"});
    script.call("PUT /agent_policies/{id}", "web", body).await;
    script.call("POST /agent_policies/{id}/rollback", "web", json!({"revision": 1})).await;
    let copied = script.call("POST /agent_policies/{id}/copy", "web", json!({"name": "copy"})).await;
    script.call("POST /uninstall_tokens/{id}/rotate", "web", json!({})).await;
    script.call("POST /agent_policies/{id}/recovery_code", "web", json!({})).await;
    script.call("DELETE /agent_policies/{id}/recovery_code", "web", Value::Null).await;
    script.call("POST /agent_policies/_apply", "", json!({"policy": "name: filed\n"})).await;
    script.call("POST /agent_policies/delete", "", json!({"agentPolicyId": id(&copied)})).await;
}

async fn objects(script: &mut Script) {
    let output = json!({"id": "es", "name": "es", "type": "elasticsearch", "hosts": ["https://es:9200"],
        "secrets": {"service_token": "hunter2-in-an-output"}});
    script.call("POST /outputs", "", output).await;
    script
        .call(
            "PUT /outputs/{id}",
            "es",
            json!({"hosts": ["https://new:9200"], "service_token": "hunter2-in-an-output"}),
        )
        .await;
    script.call("DELETE /outputs/{id}", "es", Value::Null).await;
    // A proxy is tested with a connection to it.
    let host = json!({"name": "behind", "host_urls": ["https://behind:8220"], "is_default": true});
    script.call("POST /fleet_server_hosts", "", host).await;
    for (path, body, change) in [
        (
            "/fleet_server_hosts",
            json!({"id": "o", "name": "o", "host_urls": ["https://o:8220"]}),
            json!({"name": "o", "host_urls": ["https://n:8220"]}),
        ),
        (
            "/proxies",
            json!({"id": "o", "name": "o", "url": "http://o:3128"}),
            json!({"name": "o", "url": "http://n:3128"}),
        ),
        (
            "/agent_download_sources",
            json!({"id": "o", "name": "o", "host": "https://o/"}),
            json!({"name": "o", "host": "https://n/"}),
        ),
    ] {
        let tested = body.clone();
        script.call(&format!("POST {path}"), "", body).await;
        script.call(&format!("PUT {path}/{{id}}"), "o", change).await;
        script.call(&format!("POST {path}/{{id}}/_test"), "o", json!({})).await;
        script.call(&format!("POST {path}/_test"), "", tested).await;
        script.call(&format!("DELETE {path}/{{id}}"), "o", Value::Null).await;
    }
    for path in ["/enrollment_api_keys", "/enrollment-api-keys"] {
        let made = script.call(&format!("POST {path}"), "", json!({"name": path})).await;
        let next = script.call(&format!("POST {path}/{{id}}/replace"), &id(&made), json!({})).await;
        script.call(&format!("DELETE {path}/{{id}}"), &id(&next), Value::Null).await;
    }
    let webhook = json!({"name": "on-call", "webhook": {"url": "https://hooks.example.com/a"}});
    let made = id(&script.call("POST /alerts", "", webhook).await);
    script.call("PUT /alerts/{id}", &made, json!({"events": ["agent.offline"]})).await;
    script.call("POST /alerts/{id}/mute", &made, json!({"duration_seconds": 60})).await;
    script.call("POST /alerts/{id}/test", &made, json!({})).await;
    script.call("DELETE /alerts/{id}", &made, Value::Null).await;
    script.call("PUT /settings", "", json!({"prerelease_integrations_enabled": true})).await;
    script.call("PUT /space_settings", "", json!({"allowed_namespace_prefixes": ["default", "team"]})).await;
    script.call("PUT /fleetd_options", "", json!({"options": "config: {}"})).await;
    script.call("DELETE /fleetd_options", "", Value::Null).await;
    let made = id(&script.call("POST /host_checks", "", json!({"name": "c", "query": "SELECT 1"})).await);
    script.call("PUT /host_checks/{id}", &made, json!({"name": "d"})).await;
    script.call("DELETE /host_checks/{id}", &made, Value::Null).await;
    let pack = json!({"name": "p", "pack": "queries: {}"});
    let made = id(&script.call("POST /packs", "", pack).await);
    script.call("DELETE /packs/{id}", &made, Value::Null).await;
    let made = id(&script.call("POST /v1/queries", "", json!({"name": "q", "sql": "SELECT 1"})).await);
    script.call("DELETE /v1/queries/{id}", &made, Value::Null).await;
    script.call("POST /message_signing_service/rotate_key_pair?acknowledge=true", "", json!({})).await;
}

async fn agents(script: &mut Script) {
    let log_level = json!({"type": "SETTINGS", "data": {"log_level": "debug"}});
    let migration = json!({"uri": "https://other:8220", "enrollment_token": "aWQ6c2VjcmV0"});
    for number in 0..12 {
        script.agent(&format!("one-{number}"), None).await;
        script.agent(&format!("many-{number}"), None).await;
    }
    for (number, (path, body)) in [
        ("unenroll", json!({})),
        ("reassign", json!({"policy_id": "web"})),
        ("upgrade", json!({"version": "9.6.0"})),
        ("rollback", json!({})),
        ("request_diagnostics", json!({})),
        ("tags", json!({"tagsToAdd": ["a"]})),
        ("migrate", migration.clone()),
        ("privilege_level_change", json!({})),
        ("actions", json!({"action": log_level.clone()})),
        ("respond", json!({"reason": "stolen"})),
    ]
    .into_iter()
    .enumerate()
    {
        script.call(&format!("POST /agents/{{id}}/{path}"), &format!("one-{number}"), body).await;
    }
    script.call("PUT /agents/{id}/reassign", "one-0", json!({"policy_id": "web"})).await;
    script.call("PUT /agents/{id}", "one-10", json!({"tags": ["b"]})).await;
    script.call("DELETE /agents/{id}", "one-11", Value::Null).await;
    let key = script.api.add_key(None, |_| {}).await;
    let body = json!({"type": "PERMANENT", "machine_id": "m", "metadata": {"local": {}}});
    script.api.enroll(&key, &body).await.unwrap();
    let hosts = script.api.get("/hosts?kuery=host_id:*").await.ok();
    script.skip().await;
    let host = hosts["items"][0]["id"].as_str().unwrap();
    let osquery = |agent: &mut AgentRecord| {
        (agent.family, agent.host_id) = (Family::Osquery, Some(HostId::trusted(host)));
    };
    script.api.agent_with("osquery", None, osquery).await;
    script.call("POST /hosts/{id}/refetch", host, Value::Null).await;
    let label = id(&script.call("POST /labels", "", json!({"name": "l"})).await);
    script.call("PUT /labels/{id}", &label, json!({"name": "m"})).await;
    script.call("POST /labels/{id}/_add_hosts", &label, json!({"hosts": [host]})).await;
    script.call("POST /labels/{id}/_remove_hosts", &label, json!({"hosts": [host]})).await;
    script.call("DELETE /labels/{id}", &label, Value::Null).await;
    script.call("DELETE /hosts/{id}", host, Value::Null).await;
    let mut upgrade = String::new();
    for (number, (path, body)) in [
        ("bulk_unenroll", json!({})),
        ("bulk_reassign", json!({"policy_id": "web"})),
        ("bulk_upgrade", json!({"version": "9.6.0"})),
        ("bulk_rollback", json!({})),
        ("bulk_request_diagnostics", json!({})),
        ("bulk_update_agent_tags", json!({"tagsToAdd": ["a"]})),
        ("bulk_migrate", migration),
        ("bulk_privilege_level_change", json!({})),
        ("bulk_actions", json!({"action": log_level})),
        ("bulk_delete", json!({})),
    ]
    .into_iter()
    .enumerate()
    {
        let mut body = body;
        body["agents"] = json!([format!("many-{number}")]);
        let made = script.call(&format!("POST /agents/{path}"), "", body).await;
        if path == "bulk_upgrade" {
            upgrade = made["actionId"].as_str().unwrap().to_owned();
        }
    }
    script.call("POST /agents/actions/{action_id}/cancel", &upgrade, json!({})).await;

    script.agent_of("osquery-1", Family::Osquery).await;
    let made = id(&script.call("POST /v1/queries/run", "", json!({"sql": "SELECT 1"})).await);
    script.call("POST /v1/queries/run/{id}/stop", &made, json!({})).await;
    scripts_and_carves(script).await;
    let plan = json!({"waves": [{"percent": 50}, {"percent": 100}]});
    let rollout = json!({"agents": ["many-10", "many-11"], "version": "9.6.0", "plan": plan});
    let made = id(&script.call("POST /rollouts", "", rollout).await);
    for verb in ["pause", "resume", "rollback"] {
        script.call(&format!("POST /rollouts/{{id}}/{verb}"), &made, json!({})).await;
    }
    upload(&script.api).await;
    script.call("DELETE /agents/files/{file_id}", "upload-1", Value::Null).await;
    script.call_bytes("POST /agents/{id}/files?name=tool.bin", "one-4", vec![7; 10]).await;
    script.call_bytes("POST /artifacts?name=list-v1", "", b"abc".to_vec()).await;
    script.call_bytes("POST /agent_packages?name=muster-agent-0.2.0-linux-x86_64.tar.gz", "", b"abc".to_vec()).await;
    let package = "muster-agent-0.2.0-linux-x86_64.tar.gz";
    script.call("DELETE /agent_packages/{name}", package, Value::Null).await;
}

async fn scripts_and_carves(script: &mut Script) {
    let on_host = |agent: &mut AgentRecord| {
        (agent.family, agent.host_id) = (Family::Orbit, Some(HostId::trusted("host-of-orbit-1")));
    };
    script.api.agent_with("orbit-1", None, on_host).await;
    let body = json!({"script": "echo s3cret-of-a-policy", "hosts": ["orbit-1"]});
    let made = id(&script.call("POST /v1/scripts/run", "", body).await);
    script.call("POST /v1/scripts/run/{id}/stop", &made, json!({})).await;
    software(script).await;
    script.call("PUT /v1/scripts/settings", "", json!({"enabled": false})).await;
    let saved = json!({"name": "s", "script": "echo s3cret-of-a-policy"});
    let made = id(&script.call("POST /v1/scripts", "", saved).await);
    script.call("DELETE /v1/scripts/{id}", &made, Value::Null).await;
    let host = disk_key(&script.api).await;
    script.call("POST /hosts/{id}/disk_key/reveal", &host, Value::Null).await;
    script.call("POST /hosts/{id}/disk_key/escrow", &host, Value::Null).await;
    let known = Host {
        id: HostId::trusted(host.as_str()),
        space: SpaceId::default(),
        machine_id: None,
        hostname: String::new(),
        created_at: script.api.now(),
        system_id: None,
    };
    script.api.fleet.commit(vec![Write::Agent(AgentWrite::PutHost(known))]).await.unwrap();
    script.api.v1(Method::POST, "/spaces", json!({"id": "elsewhere"})).await.ok();
    script.skip().await;
    script.call("POST /hosts/_transfer", "", json!({"to_space": "elsewhere", "hosts": [host]})).await;
    carve(&script.api).await;
    script.call("DELETE /v1/carves/{id}", "carve-1", Value::Null).await;
}

async fn software(script: &mut Script) {
    let new = json!({"file_name": "zsh_1_all.deb", "size": 9, "install_script": "echo s3cret-of-a-policy"});
    let made = id(&script.call("POST /v1/software/installers", "", new).await);
    let block = format!("/api/v1/software/installers/{made}/blocks/0");
    let bearer = format!("Bearer {}", script.token);
    script.send(&Method::PUT, &block, b"!<arch>\nx".to_vec(), &[("authorization", &bearer)]).await.ok();
    script.call("POST /v1/software/installers/{id}/complete", &made, json!({})).await;
    let body = json!({"installer": made, "hosts": ["orbit-1"]});
    let run = id(&script.call("POST /v1/software/installs", "", body).await);
    script.call("POST /v1/software/installs/{id}/stop", &run, json!({})).await;
    script.call("DELETE /v1/software/installers/{id}", &made, Value::Null).await;
}

/// Stores a disk key; returns the host.
async fn disk_key(api: &Api) -> String {
    let entry = api.fleet.entry(&AgentId::trusted("orbit-1")).await.unwrap();
    let secret = DiskSecret { key: "s3cret-of-a-policy".into(), salt: None, key_slot: None };
    api.fleet.disk_keys().store(&entry, &secret).await.unwrap();
    "host-of-orbit-1".to_owned()
}

async fn carve(api: &Api) {
    let announced = Announced { block_count: 1, block_size: 1, size: 1, ..Announced::default() };
    let carve = Carve {
        id: FileId::trusted("carve-1"),
        space: SpaceId::default(),
        agent: AgentId::trusted("osquery-1"),
        host: None,
        hostname: String::new(),
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
    let begin = CarveWrite::Begin { carve: Box::new(carve), max_bytes: 1 };
    api.fleet.store().commit(vec![begin.into()]).await.unwrap();
}

async fn upload(api: &Api) {
    let upload = Upload {
        id: FileId::trusted("upload-1"),
        action_id: ActionId::trusted("x"),
        agent_id: AgentId::trusted("one-4"),
        source: "agent".into(),
        name: "bundle.zip".into(),
        mime_type: "application/zip".into(),
        size: 0,
        status: FileStatus::Ready,
        started_at: api.now(),
        transit_hash: None,
    };
    api.fleet.store().commit(vec![Write::File(FileWrite::InsertUpload(Box::new(upload)))]).await.unwrap();
}

async fn identities(script: &mut Script) {
    for path in ["/service_tokens", "/service-tokens"] {
        script.call(&format!("POST {path}"), "", json!({})).await;
    }
    script.call("POST /v1/spaces", "", json!({"id": "blue"})).await;
    script.call("PUT /v1/spaces/{id}", "blue", json!({"name": "Blue"})).await;
    script.call("DELETE /v1/spaces/{id}", "blue", Value::Null).await;
    script.call("POST /v1/roles", "", json!({"name": "reader", "privileges": ["agents.read"]})).await;
    script.call("PUT /v1/roles/{id}", "reader", json!({"name": "reader", "privileges": ["agents.tag"]})).await;
    script.call("POST /v1/users", "", json!({"name": "bob", "password": PASSWORD})).await;
    script.call("PUT /v1/users/{id}", "bob", json!({"full_name": "Bob"})).await;
    script.call("PUT /v1/users/{id}/password", "bob", json!({"password": "another horse battery"})).await;
    let made = script.call("POST /v1/bindings", "", json!({"user": "bob", "role": "reader"})).await;
    script.call("DELETE /v1/bindings/{id}", &id(&made), Value::Null).await;
    script.call("DELETE /v1/roles/{id}", "reader", Value::Null).await;
    let made = script.call("POST /v1/tokens", "", json!({"owner": "bob", "name": "t"})).await;
    script.call("DELETE /v1/tokens/{id}", &id(&made), Value::Null).await;
    script.call("POST /v1/service_accounts", "", json!({"name": "ci"})).await;
    script.call("PUT /v1/service_accounts/{id}", "ci", json!({"locked": true})).await;
    script.call("DELETE /v1/service_accounts/{id}", "ci", Value::Null).await;
    let provider = json!({"id": "corp", "issuer": "https://id.example", "client_id": "muster",
        "client_secret": "hush-of-a-client", "url": "https://fleet.example"});
    script.call("POST /v1/oidc_providers", "", provider).await;
    script.call("PUT /v1/users/{id}/identity", "bob", json!({"provider": "corp", "subject": "7"})).await;
    script.call("DELETE /v1/users/{id}/identity", "bob", Value::Null).await;
    script.call("PUT /v1/oidc_providers/{id}", "corp", json!({"url": "https://new.example"})).await;
    script.call("DELETE /v1/oidc_providers/{id}", "corp", Value::Null).await;
    sessions(script).await;
    script.call("DELETE /v1/users/{id}", "bob", Value::Null).await;
}

/// Endpoints of people, who authenticate with a password.
async fn sessions(script: &mut Script) {
    let link = script.call("POST /v1/users/{id}/setup_link", "bob", json!({})).await;
    let with_link = json!({"token": link["item"]["token"], "password": PASSWORD}).to_string();
    script.call_as("POST /v1/setup", "", with_link.into(), &[], None).await;
    let log_in = json!({"username": "bob", "password": PASSWORD}).to_string();
    let entered = script.send(&Method::POST, "/api/v1/session", log_in.clone().into(), &[]).await;
    let cookie = entered.headers["set-cookie"].to_str().unwrap().split(';').next().unwrap().to_owned();
    script.skip().await;
    script.call_as("POST /v1/session", "", log_in.into(), &[], None).await;
    let page = [("cookie", cookie.as_str()), ("sec-fetch-site", "same-origin")];
    let device = script.send(&Method::POST, "/api/v1/device/authorize", br#"{"device": "laptop"}"#.to_vec(), &[]).await;
    let approve = json!({"user_code": device.ok()["item"]["user_code"]}).to_string();
    script.call_as("POST /v1/device/approve", "", approve.into(), &page, None).await;
    let change = json!({"current_password": PASSWORD, "password": "another horse battery"}).to_string();
    script.call_as("PUT /v1/session/password", "", change.into(), &page, None).await;
    let log_in = json!({"username": "bob", "password": "another horse battery"}).to_string();
    let entered = script.send(&Method::POST, "/api/v1/session", log_in.into(), &[]).await;
    let cookie = entered.headers["set-cookie"].to_str().unwrap().split(';').next().unwrap().to_owned();
    script.skip().await;
    let page = [("cookie", cookie.as_str()), ("sec-fetch-site", "same-origin")];
    script.call_as("DELETE /v1/session", "", Vec::new(), &page, None).await;
}

#[tokio::test]
async fn mg163_every_endpoint_that_changes_something_leaves_a_line_without_secrets() {
    let mut script = Script::new().await;
    policies(&mut script).await;
    objects(&mut script).await;
    agents(&mut script).await;
    identities(&mut script).await;

    let left_out: BTreeSet<String> = LEFT_OUT.iter().map(|(endpoint, _)| (*endpoint).to_owned()).collect();
    assert_eq!(left_out.intersection(&script.called).collect::<Vec<_>>(), [""; 0], "called and left out");
    let table = endpoints::all().into_iter().filter(|endpoint| endpoint.method != Method::GET);
    let missing: Vec<String> = table
        .map(|endpoint| format!("{} {}", endpoint.method, endpoint.path))
        .filter(|endpoint| !script.called.contains(endpoint) && !left_out.contains(endpoint))
        .collect();
    assert_eq!(missing, [""; 0], "not called here");
    let log = script.api.fleet.store().audit_events(0, 100_000).await.unwrap();
    for (_, line, _) in &log {
        let secret = SECRETS.iter().copied().chain([script.token.as_str()]).find(|secret| line.contains(secret));
        assert_eq!(secret, None, "{line}");
        assert!(!line.contains("argon2"), "{line}");
        let line: Value = serde_json::from_str(line).unwrap();
        if line["action"].as_str().unwrap().ends_with(".update") {
            let (before, after) = (&line["detail"]["before"], &line["detail"]["after"]);
            assert!(before.is_object() && after.is_object() && before != after, "{line}");
        }
    }
}
