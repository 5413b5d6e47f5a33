//! Replays recorded requests of real agents: enroll, check in, ack, upload, audit report. Ids and keys are replaced.

use std::collections::HashMap;

use aws_lc_rs::digest::{SHA256, digest};
use http::Method;
use muster_core::action::ActionType;
use muster_core::hex;
use muster_listen::reply::Answer;
use serde_json::{Value, json};

use crate::setting::{Ask, Got, Server};

const V8: &str = include_str!("../wire/v8.jsonl");
const V9: &str = include_str!("../wire/v9.jsonl");

/// Headers that the replayed request sets itself.
const REPLACED: [&str; 3] = ["authorization", "content-length", "x-chunk-sha2"];

fn exchanges(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).expect("a recorded exchange")).collect()
}

/// Recorded ids and their replacements.
#[derive(Default)]
struct Names(HashMap<String, String>);

impl Names {
    fn translate(&self, text: &str) -> String {
        self.0.iter().fold(text.to_owned(), |text, (old, new)| text.replace(old, new))
    }
}

struct Replay {
    server: Server,
    token: String,
    names: Names,
    keys: HashMap<String, String>,
}

impl Replay {
    async fn start() -> Self {
        let server = Server::start().await;
        let policy = server.policy("policy-1").await;
        let token = server.enrollment_key("k", Some(&policy)).await;
        Self { server, token, names: Names::default(), keys: HashMap::new() }
    }

    /// The recorded request with replaced ids.
    fn ask(&self, exchange: &Value) -> Ask {
        let uri = self.names.translate(exchange["request_uri"].as_str().expect("a path"));
        let method: Method = exchange["method"].as_str().expect("a method").parse().expect("a method");
        let mut ask = Ask::new(method, &uri);
        let headers = exchange["request_headers"].as_object().expect("headers");
        for (name, values) in headers {
            if !REPLACED.contains(&name.to_lowercase().as_str()) && !name.eq_ignore_ascii_case("content-encoding") {
                for value in values.as_array().into_iter().flatten() {
                    ask = ask.header(name, value.as_str().expect("text"));
                }
            }
        }
        let agent = uri.split('/').nth(4).unwrap_or_default().trim_end_matches('?');
        let token = if uri.contains("/enroll?") { Some(&self.token) } else { self.key_of(agent) };
        ask = token.into_iter().fold(ask, |ask, token| ask.key(token));
        let body = match &exchange["request_body"] {
            Value::Object(fields) if !fields.is_empty() => self.names.translate(&exchange["request_body"].to_string()),
            _ => String::new(),
        };
        let packed = headers.keys().any(|name| name.eq_ignore_ascii_case("content-encoding"));
        if packed { ask.body(body).gzip() } else { ask.body(body) }
    }

    /// The key of the agent in the path, or of the only agent: the paths of uploads contain none.
    fn key_of(&self, agent: &str) -> Option<&String> {
        self.keys.get(agent).or_else(|| self.keys.values().next())
    }

    async fn enroll(&mut self, exchange: &Value) {
        let got = self.server.get(self.ask(exchange)).await;
        assert_eq!(got.status, 200, "{got:?}");
        let (ours, theirs) = (got.json()["item"].clone(), &exchange["response_body"]["item"]);
        let text = |item: &Value, key: &str| item[key].as_str().expect("text").to_owned();
        let keys = |item: &Value| item.as_object().expect("an object").keys().cloned().collect::<Vec<_>>();
        for key in keys(theirs) {
            assert!(ours.get(&key).is_some(), "the reply lacks {key}");
        }
        self.keys.insert(text(&ours, "id"), text(&ours, "access_api_key"));
        self.names.0.insert(text(theirs, "id"), text(&ours, "id"));
    }

    async fn answered(&self, exchange: &Value) -> Option<Got> {
        match self.server.ask(self.ask(exchange)).await {
            Answer::Reply(reply) => Some(Got::of(reply).await),
            _ => None,
        }
    }

    /// Creates the actions that are acknowledged in the recording.
    async fn create_acked_actions(&self, exchange: &Value) {
        for event in exchange["request_body"]["events"].as_array().into_iter().flatten() {
            let id = event["action_id"].as_str().expect("an id");
            let agent = self.names.translate(event["agent_id"].as_str().expect("an id"));
            let id_type = muster_core::id::ActionId::trusted(id);
            if !id.starts_with("policy:")
                && self.server.fleet.store().action(&id_type).await.expect("readable").is_none()
            {
                self.server.add_action(id, ActionType::Settings, &agent, r#"{"log_level":"info"}"#).await;
            }
        }
    }

    async fn run(&mut self, text: &str) {
        for exchange in exchanges(text) {
            let uri = exchange["request_uri"].as_str().expect("a path");
            if uri.contains("/enroll?") {
                self.enroll(&exchange).await;
                continue;
            }
            if uri.contains("/acks") {
                self.create_acked_actions(&exchange).await;
            }
            if let Some(got) = self.answered(&exchange).await {
                assert_eq!(got.status, 200, "{}: {got:?}", exchange["seq"]);
            }
        }
    }
}

#[tokio::test]
async fn ea147_requests_of_an_8_18_agent_are_replayed() {
    Replay::start().await.run(V8).await;
}

#[tokio::test]
async fn ea48_requests_of_a_9_5_agent_are_replayed() {
    Replay::start().await.run(V9).await;
}

#[tokio::test]
async fn ea128_a_recorded_diagnostics_upload_is_replayed() {
    for text in [V8, V9] {
        let mut replay = Replay::start().await;
        let exchanges = exchanges(text);
        let enroll = exchanges.iter().find(|one| one["request_uri"].as_str().unwrap().contains("/enroll?")).unwrap();
        replay.enroll(enroll).await;
        let mut begin = exchanges.iter().find(|one| one["request_uri"] == "/api/fleet/uploads?").unwrap().clone();
        let bytes = vec![7; 1000];
        begin["request_body"]["file"]["size"] = json!(bytes.len());
        let got = replay.answered(&begin).await.unwrap();
        assert_eq!(got.status, 200, "{got:?}");
        let id = got.json()["upload_id"].as_str().unwrap().to_owned();
        let hash = digest(&SHA256, &bytes);
        let token = replay.keys.values().next().unwrap();
        let chunk = Ask::put(&format!("/api/fleet/uploads/{id}/0?"))
            .key(token)
            .header("X-Chunk-Sha2", hex::encode(hash.as_ref()));
        assert_eq!(replay.server.get(chunk.body(bytes)).await.status, 200);
        let end = json!({"transithash": {"sha256": hex::encode(digest(&SHA256, hash.as_ref()).as_ref())}});
        let end = Ask::post(&format!("/api/fleet/uploads/{id}?")).key(token).json(&end);
        assert_eq!(replay.server.get(end).await.json(), json!({"status": "ok"}));
    }
}
