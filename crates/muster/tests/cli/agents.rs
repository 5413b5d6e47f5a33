//! Agents: as much of the agent API as it takes to be one.

use std::time::{Duration, Instant};

use muster_drones::dial::Dialer;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::world::{World, new_policy, new_token, world};

/// An enrolled agent.
pub struct Agent {
    /// Its id.
    pub id: String,
    key: String,
}

impl Agent {
    /// Enrolls.
    pub fn enroll(token: &str, host: &str, tags: &[&str]) -> Self {
        let local = json!({
            "elastic": {"agent": {"version": "9.5.2", "upgradeable": true, "snapshot": false}},
            "host": {"hostname": host, "name": host},
            "os": {"platform": "debian", "family": "debian"},
        });
        let body = json!({"type": "PERMANENT", "metadata": {"local": local, "user_provided": {}, "tags": tags}});
        let item = &post("/api/fleet/agents/enroll", token, &body)["item"];
        let text = |name: &str| item[name].as_str().unwrap().to_owned();
        Self { id: text("id"), key: text("access_api_key") }
    }

    /// Checks in as one that runs nothing yet: its policy comes at once, and whatever else waits. Gives the actions.
    pub fn check_in(&self) -> Vec<Value> {
        let body = json!({
            "status": "online",
            "message": "Running \u{1b}[31mred",
            "components": [{"id": "log-default", "type": "log", "status": "HEALTHY", "message": "Healthy", "units": []}],
        });
        let path = format!("/api/fleet/agents/{}/checkin", self.id);
        post(&path, &self.key, &body)["actions"].as_array().cloned().unwrap_or_default()
    }

    /// The HTTP status of a check-in.
    pub fn status_of_check_in(&self) -> u16 {
        let path = format!("/api/fleet/agents/{}/checkin", self.id);
        answered(&path, &self.key, "Elastic Agent v9.5.2", &json!({"status": "online", "message": "Running"})).0
    }

    /// Checks in as one that runs `version`, with details of its upgrade.
    pub fn check_in_upgrading(&self, version: &str, more: &Value) {
        let mut body = json!({"status": "online", "message": "Running", "poll_timeout": "1s"});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let path = format!("/api/fleet/agents/{}/checkin", self.id);
        send(&path, &self.key, &format!("Elastic Agent v{version}"), &body);
    }

    /// The waiting action that is meant. An action reaches a node's memory a moment after it was answered.
    pub fn get(&self, meant: impl Fn(&Value) -> bool) -> Value {
        let end = Instant::now() + Duration::from_secs(20);
        loop {
            let actions = self.check_in();
            if let Some(action) = actions.iter().find(|action| meant(action)) {
                return action.clone();
            }
            assert!(Instant::now() < end, "it is not among {actions:?}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Takes the waiting action of that type and acks it, with an error if one is given; gives the action.
    pub fn take(&self, kind: &str, error: Option<&str>) -> Value {
        let action = self.get(|action| action["type"] == kind);
        self.ack(action["id"].as_str().unwrap(), error);
        action
    }

    /// Acks an action, with an error if one is given.
    pub fn ack(&self, action: &str, error: Option<&str>) {
        let mut event = json!({
            "type": "ACTION_RESULT", "subtype": "ACKNOWLEDGED", "agent_id": self.id, "action_id": action,
            "message": "done", "timestamp": "2026-01-02T03:04:05.678Z",
        });
        if let Some(error) = error {
            event["error"] = error.into();
        }
        post(&format!("/api/fleet/agents/{}/acks", self.id), &self.key, &json!({"events": [event]}));
    }
}

/// A new policy called `name` with agents on it, one for each host; gives the policy's id too.
pub fn fleet(name: &str, hosts: &[&str]) -> (String, Vec<Agent>) {
    let policy = new_policy(name);
    let token = new_token(&policy);
    (policy, hosts.iter().map(|host| Agent::enroll(&token, host, &[name])).collect())
}

fn post(path: &str, key: &str, body: &Value) -> Value {
    send(path, key, "Elastic Agent v9.5.2", body)
}

fn send(path: &str, key: &str, user_agent: &str, body: &Value) -> Value {
    let (status, answer) = answered(path, key, user_agent, body);
    assert_eq!(status, 200, "{path}: {answer}");
    serde_json::from_str(&answer).unwrap()
}

pub fn answered(path: &str, key: &str, user_agent: &str, body: &Value) -> (u16, String) {
    answered_by(world(), path, key, user_agent, body)
}

/// What a server answers to a request of an agent.
pub fn answered_by(world: &World, path: &str, key: &str, user_agent: &str, body: &Value) -> (u16, String) {
    answered_text(world, path, key, user_agent, &body.to_string())
}

/// What a server answers to a request whose members have an order.
pub fn answered_text(world: &World, path: &str, key: &str, user_agent: &str, body: &str) -> (u16, String) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(ask(world, path, key, user_agent, body))
}

async fn ask(world: &World, path: &str, key: &str, user_agent: &str, body: &str) -> (u16, String) {
    let url = format!("https://{}", world.agents);
    let dialer = Dialer::new(&url, &world.data().join("ca.crt"), false).await.unwrap();
    let mut stream = dialer.dial(0).await.unwrap();
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\nauthorization: ApiKey {key}\r\n\
         user-agent: {user_agent}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        world.agents,
        body.len()
    );
    stream.write_all((head + body).as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    // The server may leave without a TLS goodbye; the length tells whether all is there.
    drop(stream.read_to_end(&mut answer).await);
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}
