//! Replays recorded sessions of real agents: every request in sequence, with the actions that were created meanwhile. Each
//! must get the same response and the same deliveries as in the recording.

use std::collections::HashMap;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use http::Method;
use muster_core::action::{ActionType, TargetState};
use muster_core::authorization::{Actor, OpContext};
use muster_core::file::FileStatus;
use muster_core::hex;
use muster_core::id::{ActionId, AgentId, PolicyId};
use muster_core::status::Status;
use muster_fleet::force::Force;
use muster_fleet::selection::Selected;
use muster_listen::reply::Answer;
use serde_json::{Value, json};

use crate::setting::{Ask, Got, Server};

const OF_9_5: &str = include_str!("../wire/life-9.5.2.jsonl");
const OF_8_18: &str = include_str!("../wire/life-8.18.8.jsonl");

/// Types of the actions that were created while recording.
const ACTION_TYPES: [ActionType; 4] =
    [ActionType::Settings, ActionType::RequestDiagnostics, ActionType::Upgrade, ActionType::Unenroll];

/// Timeout for a held poll.
const PATIENCE: Duration = Duration::from_secs(10);

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_else(|| panic!("{field} of {value}"))
}

/// Components with their units sorted.
fn units(components: &Value) -> Value {
    let mut components = components.clone();
    for component in components.as_array_mut().into_iter().flatten() {
        let units = component["units"].as_array_mut().expect("units");
        units.sort_by_key(|unit| text(unit, "id").to_owned());
    }
    components
}

struct Life {
    server: Server,
    policy: PolicyId,
    enrollment: String,
    /// Recorded ids and hashes, and their replacements.
    names: HashMap<String, String>,
    /// Access keys by replaced agent id.
    keys: HashMap<String, String>,
    /// Id of the agent that sent the last request; the paths of uploads contain none.
    agent: String,
    revision: i64,
}

impl Life {
    async fn start(recorded: &str) -> Self {
        let server = Server::start().await;
        let id = recorded.split("policy:").nth(1).and_then(|rest| rest.split(':').next()).expect("a policy");
        let policy = server.policy(id).await;
        let enrollment = server.enrollment_key("k", Some(&policy)).await;
        let (names, keys) = (HashMap::new(), HashMap::new());
        Self { server, policy, enrollment, names, keys, agent: String::new(), revision: 1 }
    }

    fn translate(&self, text: &str) -> String {
        self.names.iter().fold(text.to_owned(), |text, (old, new)| text.replace(old, new))
    }

    fn ask(&self, line: &Value) -> Ask {
        let uri = self.translate(text(line, "request_uri"));
        let mut ask = Ask::new(text(line, "method").parse::<Method>().expect("a method"), &uri);
        let headers = line["request_headers"].as_object().expect("headers");
        for (name, values) in headers.iter().filter(|(name, _)| *name != "Content-Encoding") {
            ask = values
                .as_array()
                .into_iter()
                .flatten()
                .fold(ask, |ask, value| ask.header(name, value.as_str().expect("text")));
        }
        let token = if uri.ends_with("/agents/enroll?") { &self.enrollment } else { &self.keys[&self.agent] };
        let ask = ask.key(token).body(self.body(line));
        if headers.contains_key("Content-Encoding") { ask.gzip() } else { ask }
    }

    fn body(&self, line: &Value) -> String {
        if line["request_body"].is_object() { self.translate(&line["request_body"].to_string()) } else { String::new() }
    }

    /// Creates the actions that the recorded response delivered, before the request is sent.
    async fn create_actions(&mut self, line: &Value) {
        for action in line["delivered"].as_array().into_iter().flatten() {
            let (id, kind) = (text(action, "id"), text(action, "type"));
            if kind == "POLICY_CHANGE" {
                let newest = id.rsplit(':').next().and_then(|number| number.parse().ok()).expect("a revision");
                if newest > self.revision {
                    let compiled = json!({"id": self.policy.as_str(), "revision": newest, "outputs": {}, "inputs": []});
                    self.server.revision_with(&self.policy, newest, compiled).await;
                    self.revision = newest;
                }
                continue;
            }
            let kind = ACTION_TYPES.into_iter().find(|known| known.as_str() == kind).expect("a known action type");
            let data = if action["data"].is_null() { String::new() } else { action["data"].to_string() };
            self.server.add_action(id, kind, &self.agent, &data).await;
        }
    }

    /// Replays a poll that was cut: it was held when its agent was revoked.
    async fn cut(&self, line: &Value) {
        let parked = self.server.park(self.ask(line)).await;
        let selected = Selected::one(&self.agent).expect("an id");
        let context = OpContext::administrator(Actor::System);
        let selection = self.server.fleet.agents().select(&context, &selected).await.expect("there");
        self.server.fleet.actions().force_unenroll(&selection, Force::No).await.expect("shut out");
        let reply = tokio::time::timeout(Duration::from_secs(1), parked).await.expect("cut in time");
        assert_eq!(u64::from(Got::of(reply).await.status), line["status"], "{}", line["seq"]);
    }

    async fn answer(&self, line: &Value) -> Got {
        let reply = match self.server.ask(self.ask(line)).await {
            Answer::Reply(reply) => reply,
            Answer::Upgrade(_) => panic!("upgraded"),
            Answer::Park(held) => tokio::time::timeout(PATIENCE, held).await.expect("what was given wakes the poll"),
        };
        let got = Got::of(reply).await;
        assert_eq!(u64::from(got.status), line["status"], "{}: {got:?}", line["seq"]);
        got
    }

    async fn step(&mut self, line: &Value) {
        let uri = text(line, "request_uri").to_owned();
        let named = uri.strip_prefix("/api/fleet/agents/").and_then(|rest| rest.split_once('/'));
        if let Some((agent, _)) = named {
            self.agent = self.translate(agent);
        }
        if uri.ends_with("/checkin?") && line["status"] == 401 {
            self.cut(line).await;
            return assert_eq!(self.server.get(self.ask(line)).await.status, 401);
        }
        self.create_actions(line).await;
        if uri.starts_with("/api/fleet/uploads") {
            return self.upload(line, &uri).await;
        }
        let got = self.answer(line).await;
        if line["status"] == 200 {
            self.learn(line, &got);
        }
    }

    fn learn(&mut self, line: &Value, got: &Got) {
        if let Some(recorded) = line["agent_id"].as_str() {
            let item = &got.json()["item"];
            let ours = text(item, "id").to_owned();
            self.keys.insert(ours.clone(), text(item, "access_api_key").to_owned());
            self.names.insert(recorded.to_owned(), ours.clone());
            self.agent = ours;
        }
        if line["delivered"].is_array() {
            let ids = |actions: &Value| {
                let listed = actions.as_array().cloned().unwrap_or_default();
                listed.iter().map(|action| (text(action, "id").to_owned(), text(action, "type").to_owned())).collect()
            };
            let (ours, theirs): (Vec<_>, Vec<_>) = (ids(&got.json()["actions"]), ids(&line["delivered"]));
            assert_eq!(ours, theirs, "{}", line["seq"]);
        }
    }

    /// Uploads bytes of the recorded length, because the recording does not contain the bundle.
    async fn upload(&mut self, line: &Value, uri: &str) {
        let length = line["request_bytes"].as_u64().map(|length| usize::try_from(length).expect("small"));
        if let Some(length) = length {
            let bytes = vec![7; length];
            let hash = digest(&SHA256, &bytes);
            self.names.insert("HASH".into(), hex::encode(digest(&SHA256, hash.as_ref()).as_ref()));
            let chunk = self.ask(line).header("X-Chunk-Sha2", hex::encode(hash.as_ref())).body(bytes);
            return assert_eq!(self.server.get(chunk).await.status, 200);
        }
        if uri.ends_with("/uploads?") {
            let got = self.answer(line).await;
            let ours = text(&got.json(), "upload_id").to_owned();
            self.names.insert(text(line, "upload_id").to_owned(), ours);
            return;
        }
        let mut line = line.clone();
        line["request_body"]["transithash"]["sha256"] = self.names["HASH"].clone().into();
        self.answer(&line).await;
    }

    async fn check_shown(&self, line: &Value) {
        let body = &line["request_body"];
        if !text(line, "request_uri").ends_with("/checkin?") || line["status"] != 200 {
            return;
        }
        let record = self.server.stored(&self.agent).await;
        assert_eq!(record.health.status, text(body, "status"), "{}", line["seq"]);
        assert_eq!(record.upgrade.upgraded_at, None, "{}: no upgrade succeeded", line["seq"]);
        let details = record.upgrade.details.map(|details| serde_json::from_str(&details).expect("JSON"));
        assert_eq!(details.as_ref().unwrap_or(&Value::Null), &body["upgrade_details"], "{}", line["seq"]);
        let id = AgentId::trusted(self.agent.as_str());
        let kept = self.server.fleet.store().agent_documents(&id).await.expect("readable").expect("there").components;
        let kept: Value = kept.map_or(json!([]), |kept| serde_json::from_str(&kept).expect("JSON"));
        // Agents list units in any order. A change of the order alone is not stored.
        assert_eq!(units(&kept), units(&body["components"]), "{}", line["seq"]);
    }

    async fn check_acks(&self, line: &Value) {
        for event in line["request_body"]["events"].as_array().into_iter().flatten() {
            let agent = AgentId::trusted(self.agent.as_str());
            if let Some(policy) = text(event, "action_id").strip_prefix("policy:") {
                let revision = self.server.stored(&self.agent).await.policy_revision.to_string();
                assert_eq!(policy.rsplit(':').next(), Some(revision.as_str()));
                continue;
            }
            let (id, store) = (ActionId::trusted(text(event, "action_id")), self.server.fleet.store());
            let target = store.action_target(&id, &agent).await.expect("readable");
            assert_eq!(target.map(|target| target.state), Some(TargetState::Acked));
            let results = store.action_results(&id, false, 10).await.expect("readable");
            let fields: Value = serde_json::from_str(results[0].fields.as_deref().unwrap_or("null")).expect("JSON");
            let upload = event["data"]["upload_id"].as_str().map(|id| self.translate(id));
            assert_eq!(fields["data"]["upload_id"].as_str(), upload.as_deref());
        }
    }

    async fn run(mut self, recorded: &str) -> Self {
        for line in recorded.lines() {
            let line = serde_json::from_str(line).expect("a recorded request");
            self.step(&line).await;
            self.check_shown(&line).await;
            self.check_acks(&line).await;
        }
        self
    }

    /// Final status and upload of each agent, in the order of enrollment.
    async fn endings(&self, recorded: &str) -> Vec<(Status, Option<FileStatus>)> {
        let mut endings = Vec::new();
        let lines = recorded.lines().map(|line| serde_json::from_str::<Value>(line).expect("a recorded request"));
        for line in lines.filter(|line| line["agent_id"].is_string()) {
            let ours = self.translate(text(&line, "agent_id"));
            let uploads = self.server.fleet.store().uploads(&AgentId::trusted(ours.as_str())).await.expect("readable");
            endings.push((self.server.stored(&ours).await.status, uploads.first().map(|upload| upload.status)));
        }
        endings
    }
}

#[tokio::test]
async fn ea40_ea48_ea128_sessions_of_9_5_agents_are_replayed() {
    let life = Life::start(OF_9_5).await.run(OF_9_5).await;
    // Revoked, unenrolled, and one that was replaced and then uninstalled.
    let left = (Status::Uninstalled, None);
    let shut_out = (Status::Unenrolled, Some(FileStatus::Ready));
    assert_eq!(life.endings(OF_9_5).await, [shut_out, (Status::Unenrolled, None), left, left]);
}

#[tokio::test]
async fn ea128_ea147_sessions_of_8_18_agents_are_replayed() {
    let life = Life::start(OF_8_18).await.run(OF_8_18).await;
    let unenrolled = (Status::Unenrolled, Some(FileStatus::Ready));
    assert_eq!(life.endings(OF_8_18).await, [unenrolled, (Status::Unenrolled, None), (Status::Uninstalled, None)]);
}
