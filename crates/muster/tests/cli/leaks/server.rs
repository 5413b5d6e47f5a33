//! A server that logs everything, a cluster for its keys, and an agent.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderValue, Method};
use muster_drones::dial::Dialer;
use muster_drones::session::{Ask, Session, Shared};
use muster_drones::tally::Tally;
use muster_drones::wire::{Host, Report, check_in};
use muster_elasticsearch::testing::Stub;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::runtime::Runtime;

use crate::world::{Ran, command, finish};

const PATIENCE: Duration = Duration::from_secs(60);

/// The server. Killed with this value.
pub struct Server {
    directory: tempfile::TempDir,
    child: Child,
    runtime: Runtime,
    /// Where it creates keys.
    pub cluster: Stub,
}

/// An agent that has got its policy.
pub struct Agent {
    pub id: String,
    /// The secret with which it authenticates.
    pub access_key: String,
    /// The secret of its key at the cluster.
    pub output_key: String,
    pub policy: Value,
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Server {
    pub fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let log = std::fs::File::create(directory.path().join("log")).unwrap();
        let mut serve = Command::new(env!("CARGO_BIN_EXE_muster"));
        serve.args(["serve", "--agent-listen", "127.0.0.1:0", "--local-listen", "none", "--log-level", "trace"]);
        serve.args(["--admin-listen", "127.0.0.1:0", "--set", "timeouts.checkin_long_poll=2s"]);
        // Its handshake has a key in a header.
        serve.args(["--set", "osquery.push=true"]);
        // The cluster is a stub on this host.
        serve.args(["--set", "outgoing.allow_local_targets=true"]);
        let data = directory.path().join("data");
        let child = serve.arg("--data-dir").arg(&data).stdout(Stdio::null()).stderr(log).spawn().unwrap();
        let end = Instant::now() + PATIENCE;
        while !data.join("listen.json").try_exists().unwrap() {
            assert!(Instant::now() < end, "the server does not start");
            std::thread::sleep(Duration::from_millis(20));
        }
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let cluster = runtime.block_on(Stub::start());
        cluster.accept_token("canary-service-token");
        cluster.accept_user("somebody", "canary-output-password");
        Self { directory, child, runtime, cluster }
    }

    fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    pub fn run(&self, words: &[&str]) -> Ran {
        finish(command(words).env("MUSTER_DATA_DIR", self.data()))
    }

    /// The body that the management API answers.
    pub fn get(&self, path: &str) -> String {
        self.request(&format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"))
    }

    pub fn post(&self, path: &str, body: &Value) -> String {
        let body = body.to_string();
        let length = body.len();
        self.request(&format!(
            "POST {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\nkbn-xsrf: x\r\n\
             content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
        ))
    }

    fn request(&self, text: &str) -> String {
        let mut socket = UnixStream::connect(self.data().join("admin.sock")).unwrap();
        socket.write_all(text.as_bytes()).unwrap();
        let mut answer = Vec::new();
        socket.read_to_end(&mut answer).unwrap();
        let answer = String::from_utf8(answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 2"), "{text}: {answer}");
        // A chunked body is one chunk here, between its length and the last one.
        let is_chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
        let body = if is_chunked { body.split_once("\r\n").unwrap().1 } else { body };
        body.trim_end_matches("\r\n0\r\n\r\n").to_owned()
    }

    /// Sends a request of fleetd or a browser; returns the status and the body of the response. `first`: method and path;
    /// `headers`: lines.
    pub fn fleetd(&self, first: &str, headers: &str, body: &str) -> (u16, String) {
        self.runtime.block_on(async {
            let listen = self.agents();
            let dialer = Dialer::new(&format!("https://{listen}"), &self.data().join("ca.crt"), false).await.unwrap();
            let mut stream = dialer.dial(0).await.unwrap();
            let length = body.len();
            let request = format!(
                "{first} HTTP/1.1\r\nhost: {listen}\r\nconnection: close\r\nuser-agent: osquery/5.21.0\r\n{headers}\
                 content-length: {length}\r\n\r\n{body}"
            );
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut answer = Vec::new();
            // The server may leave without a TLS goodbye.
            drop(stream.read_to_end(&mut answer).await);
            let answer = String::from_utf8(answer).unwrap();
            let (head, body) = answer.split_once("\r\n\r\n").unwrap();
            (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
        })
    }

    /// Address of the listener for agents.
    fn agents(&self) -> String {
        let listen: Value = serde_json::from_slice(&std::fs::read(self.data().join("listen.json")).unwrap()).unwrap();
        listen["agent"].as_str().unwrap().to_owned()
    }

    /// Enrolls an agent, which checks in until it has its policy with a key of its own.
    pub fn agent(&self, policy: &str) -> Agent {
        let key = self.run(&["enrollment-key", "create", "--policy", policy, "--output", "json"]);
        let key: Value = serde_json::from_str(&key.out).unwrap();
        self.runtime.block_on(self.enrolled(key["api_key"].as_str().unwrap()))
    }

    async fn enrolled(&self, token: &str) -> Agent {
        let url = format!("https://{}", self.agents());
        let (events, _) = tokio::sync::mpsc::unbounded_channel();
        let shared = Shared {
            dialer: Dialer::new(&url, &self.data().join("ca.crt"), true).await.unwrap(),
            tally: Tally::new(0, events),
            user_agent: "Elastic Agent v9.5.2".parse().unwrap(),
            version: "9.5.2".into(),
        };
        let mut session = Session::new(Arc::new(shared), 0);
        let host = Host { number: 0, agent_id: "", version: "9.5.2" };
        let item = post(&mut session, "/api/fleet/agents/enroll?", token, host.enroll(&[]).unwrap()).await;
        let text = |field: &str| item["item"][field].as_str().unwrap().to_owned();
        let (id, access_key) = (text("id"), text("access_api_key"));
        let end = Instant::now() + PATIENCE;
        loop {
            let host = Host { number: 0, agent_id: &id, version: "9.5.2" };
            let body = check_in(&host, &Report { ack_token: "", policy: None, pid: 1, fill: 0, is_degraded: false });
            let answer = post(&mut session, &format!("/api/fleet/agents/{id}/checkin?"), &access_key, body).await;
            let policy = answer["actions"][0]["data"]["policy"].clone();
            let key_of = |output: &str| policy["outputs"][output]["api_key"].as_str().map(str::to_owned);
            if let (Some(own), Some(_)) = (key_of("default"), key_of("shared")) {
                let output_key = own.split_once(':').unwrap().1.to_owned();
                return Agent { id, access_key: key_part(&access_key), output_key, policy };
            }
            assert!(Instant::now() < end, "no keys: {answer}");
        }
    }

    /// Kills the server. Returns the files of its data directory except `master.key`, and its log.
    pub fn stop(mut self) -> (Vec<(String, Vec<u8>)>, Vec<u8>) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        let data = std::fs::read_dir(self.data()).unwrap().map(|entry| entry.unwrap().path());
        let read = |path: &Path| (path.display().to_string(), std::fs::read(path).unwrap());
        let files: Vec<_> = data.filter(|path| path.is_file()).map(|path| read(&path)).collect();
        assert!(files.iter().any(|(path, _)| path.ends_with("muster.db")), "{:?}", self.data());
        (files, read(&self.directory.path().join("log")).1)
    }
}

/// The secret of a token, which is `id:secret` in Base64.
fn key_part(token: &str) -> String {
    use base64::Engine as _;
    let bytes = base64::engine::general_purpose::STANDARD.decode(token).unwrap();
    String::from_utf8(bytes).unwrap().split_once(':').unwrap().1.to_owned()
}

async fn post(session: &mut Session, path: &str, token: &str, body: String) -> Value {
    let authorization = HeaderValue::try_from(format!("ApiKey {token}")).unwrap();
    let ask = Ask {
        method: Method::POST,
        path,
        authorization: Some(&authorization),
        body: body.into(),
        packed: false,
        chunk_sha2: None,
    };
    let answer = session.ask(&ask).await.unwrap();
    let text = answer.text().unwrap().into_owned();
    assert_eq!(answer.status, 200, "{path}: {}", String::from_utf8_lossy(&text));
    serde_json::from_slice(&text).unwrap()
}
