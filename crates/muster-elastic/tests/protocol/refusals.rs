//! Responses to bad input at each endpoint: exact status and body (EA §1.4, §1.11).
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::fmt::Write as _;

use muster_core::credential::ApiKey;

use crate::setting::{AGENT, Ask, Enrolled, Server};
use muster_fleet::testing::golden;

const UPLOAD: &str = r#"{"action_id":"a","agent_id":"AGENT","src":"agent","file":{"size":5,"name":"x.zip","ext":"zip",
"mime_type":"application/zip","hash":{"sha256":"","md5":""}}}"#;

/// All endpoints: method, path and the body of a valid request. `AGENT` is replaced by the agent's id, `UPLOAD` by the id of
/// an upload in progress.
const ENDPOINTS: [(&str, &str, &str); 11] = [
    ("GET", "/api/status", ""),
    ("POST", "/api/fleet/agents/enroll", r#"{"type":"PERMANENT"}"#),
    ("POST", "/api/fleet/agents/AGENT/checkin", r#"{"status":"online","message":"Running"}"#),
    ("POST", "/api/fleet/agents/AGENT/acks", r#"{"events":[]}"#),
    ("POST", "/api/fleet/agents/AGENT/audit/unenroll", r#"{"reason":"uninstall","timestamp":"2026-01-02T03:00:00Z"}"#),
    ("GET", "/api/fleet/artifacts/list/abababababababababababababababababababababababababababababababab", ""),
    ("POST", "/api/fleet/uploads", UPLOAD),
    ("PUT", "/api/fleet/uploads/UPLOAD/0", "chunk"),
    ("POST", "/api/fleet/uploads/UPLOAD", r#"{"transithash":{"sha256":"ab"}}"#),
    ("GET", "/api/fleet/file/file", ""),
    ("GET", "/api/agents/upgrades/9.5.2/pgp-public-key", ""),
];

/// An endpoint of a server, and the agent that calls it.
struct Endpoint<'a> {
    server: &'a Server,
    agent: &'a Enrolled,
    token: String,
    method: http::Method,
    path: String,
    body: String,
}

impl Endpoint<'_> {
    /// A well-formed request. Its objects need not exist.
    fn good(&self) -> Ask {
        self.sent_as(&self.token)
    }

    fn sent_as(&self, token: &str) -> Ask {
        self.anonymous().key(token)
    }

    fn anonymous(&self) -> Ask {
        Ask::new(self.method.clone(), &self.path).agent(AGENT).body(self.body.clone())
    }

    fn takes_json(&self) -> bool {
        self.body.starts_with('{')
    }

    /// Bad requests by name.
    async fn faults(&self) -> Vec<(&'static str, Ask)> {
        let other = self.server.enrolled().await.token;
        let unknown = unknown_key();
        let token = |text: &str| self.anonymous().header("authorization", text);
        let mut faults = vec![
            ("no credentials", self.anonymous()),
            ("another scheme", token("Basic dXNlcjpwYXNz")),
            ("no token", token("ApiKey ")),
            ("a token that is no base64", self.sent_as("%%%")),
            ("a token without a colon", self.sent_as("bm9jb2xvbg==")),
            ("a key of nobody", self.sent_as(&unknown)),
            ("another agent's key", self.sent_as(&other)),
            ("a version that is no date", self.good().header("elastic-api-version", "one")),
            ("a version to come", self.good().header("elastic-api-version", "2099-01-01")),
            ("another method", Ask::new(http::Method::PATCH, &self.path).key(&self.token)),
        ];
        if self.takes_json() {
            faults.extend(self.bad_bodies());
        }
        faults
    }

    fn bad_bodies(&self) -> Vec<(&'static str, Ask)> {
        let with = |body: &str| self.good().body(body.to_owned());
        vec![
            ("no body", with("")),
            ("no JSON", with("{")),
            ("JSON of another kind", with("[]")),
            ("a key twice", with(r#"{"a":1,"a":2}"#)),
            ("another coding", self.good().header("content-encoding", "br")),
            ("gzip that is none", self.good().header("content-encoding", "gzip")),
            ("a stranger's User-Agent", self.good().agent_instead("curl/8")),
        ]
    }
}

async fn refusals(method: &str, path: &str, body: &str) -> String {
    let server = Server::start().await;
    let agent = server.enrolled().await;
    let upload = begun(&server, &agent).await;
    let named = |text: &str| text.replace("AGENT", &agent.id).replace("UPLOAD", &upload);
    let token = match path.ends_with("/enroll") {
        true => server.enrollment_key("key", None).await,
        false => agent.token.clone(),
    };
    let (path_named, body, method) = (named(path), named(body), method.parse().unwrap());
    let endpoint = Endpoint { server: &server, agent: &agent, token, method, path: path_named, body };
    let mut text = format!("{} {path}\n", endpoint.method);
    for (fault, ask) in endpoint.faults().await {
        let got = match server.ask(ask).await {
            muster_listen::reply::Answer::Reply(reply) => crate::setting::Got::of(reply).await,
            _ => {
                writeln!(text, "  {fault}: held").unwrap();
                continue;
            }
        };
        let body = String::from_utf8(got.body.clone()).unwrap();
        // A success means that the input is valid at this endpoint; other tests cover that.
        let body = if got.status < 300 { "" } else { body.trim_end() };
        writeln!(text, "  {fault}: {} {body}", got.status).unwrap();
        assert!(!body.contains(&endpoint.agent.token), "{fault}: a secret is sent back");
    }
    text.replace(&agent.id, "AGENT").replace(&upload, "UPLOAD")
}

async fn begun(server: &Server, agent: &Enrolled) -> String {
    let body = UPLOAD.replace("AGENT", &agent.id);
    let got = server.get(Ask::post("/api/fleet/uploads").key(&agent.token).body(body)).await;
    got.json()["upload_id"].as_str().expect("an id").to_owned()
}

/// A well-formed key that does not exist.
fn unknown_key() -> String {
    base64_of("bm9ib2R5X2F0X2FsbA00:bm9ib2R5J3Mgc2VjcmV0LCAzMiBieXRlcyBsb25nISE")
}

#[tokio::test]
async fn d23_bad_input_gets_the_golden_response_at_each_endpoint() {
    let mut text = String::new();
    for (method, path, body) in ENDPOINTS {
        text += &refusals(method, path, body).await;
    }
    golden::check(env!("CARGO_MANIFEST_DIR"), "protocol/golden/refusals.txt", &text);
}

/// All invalid keys get the same response, so that it does not reveal what is wrong with a key.
#[tokio::test]
async fn ea14_invalid_keys_get_the_same_401_everywhere() {
    let server = Server::start().await;
    let agent = server.enrolled().await;
    let key = ApiKey::parse(&agent.token).unwrap();
    let upload = begun(&server, &agent).await;
    let unknown = unknown_key();
    let id_alone = base64_of(&format!("{}:", key.id));
    for (method, path, body) in ENDPOINTS.into_iter().filter(|(_, path, _)| path.starts_with("/api/fleet")) {
        let ask = |token: &str| {
            let named = |text: &str| text.replace("AGENT", &agent.id).replace("UPLOAD", &upload);
            let (path, body) = (named(path), named(body));
            Ask::new(method.parse().unwrap(), &path).agent(AGENT).key(token).body(body)
        };
        let first = server.get(ask(&unknown)).await;
        assert_eq!(first.status, 401, "{path}");
        let second = server.get(ask(&id_alone)).await;
        assert_eq!((first.status, first.body), (second.status, second.body), "{path}");
    }
}

fn base64_of(text: &str) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(text)
}
