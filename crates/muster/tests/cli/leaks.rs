//! No secret of a policy or an output reaches the database file, an answer of the API, or the log at its most verbose.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use muster_client::Client;
use serde_json::{Value, json};

use crate::world::{Ran, command, file, finish};

/// Every one of them is written in plain text by the administrator.
const SECRETS: [&str; 7] = [
    "leak-service-token",
    "leak-ssl-key",
    "leak-input-password",
    "leak-api-key-of-a-collector",
    "leak-output-token",
    "leak-output-password",
    "leak-yaml-password",
];

const POLICY: &str = r#"
name: leaks
config:
  outputs:
    default:
      type: elasticsearch
      hosts: ["https://127.0.0.1:1"]
      service_token: leak-service-token
      ssl.key: leak-ssl-key
  inputs:
    - type: httpjson
      streams:
        - data_stream.dataset: a
          auth.basic.password: leak-input-password
  exporters:
    otlp:
      headers:
        authorization: leak-api-key-of-a-collector
"#;

/// A server of its own, that logs everything. Killed with this value.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn start(data: &Path, log: &Path) -> Server {
    let log = std::fs::File::create(log).unwrap();
    let mut serve = Command::new(env!("CARGO_BIN_EXE_muster"));
    serve.args(["serve", "--agent-listen", "127.0.0.1:0", "--local-listen", "none", "--log-level", "trace"]);
    serve.args(["--admin-listen", "127.0.0.1:0"]);
    let child = serve.arg("--data-dir").arg(data).stdout(Stdio::null()).stderr(log).spawn().unwrap();
    let end = Instant::now() + Duration::from_secs(60);
    while !data.join("listen.json").try_exists().unwrap() {
        assert!(Instant::now() < end, "the server does not start");
        std::thread::sleep(Duration::from_millis(20));
    }
    Server(child)
}

fn create_output(data: &Path) -> Value {
    let fields = json!({
        "id": "shared", "name": "shared", "type": "remote_elasticsearch", "hosts": ["https://127.0.0.1:1"],
        "service_token": "leak-output-token", "secrets": {"password": "leak-output-password"},
        "config_yaml": "proxy_headers:\n  authorization: leak-yaml-password\n"
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let client = Client::unix(data.join("admin.sock")).unwrap();
    let created = runtime.block_on(client.create_output(fields.as_object().unwrap())).unwrap();
    serde_json::to_value(created).unwrap()
}

fn check(place: &str, bytes: &[u8]) {
    for secret in SECRETS {
        let found = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
        assert!(!found, "{secret} in {place}");
    }
}

#[test]
fn m10_no_secret_is_stored_answered_or_logged_in_clear_text() {
    let directory = tempfile::tempdir().unwrap();
    let (data, log) = (directory.path().join("data"), directory.path().join("log"));
    let server = start(&data, &log);
    let run = |words: &[&str]| -> Ran {
        let ran = finish(command(words).env("MUSTER_DATA_DIR", &data));
        assert_eq!(ran.code, 0, "{words:?}: {}{}", ran.out, ran.err);
        check(&words.join(" "), ran.out.as_bytes());
        check(&words.join(" "), ran.err.as_bytes());
        ran
    };
    check("the created output", create_output(&data).to_string().as_bytes());
    let (_kept, policy) = file("leaks.yml", POLICY);
    run(&["policy", "apply", "-f", &policy, "--dry-run"]);
    run(&["policy", "apply", "-f", &policy, "--yes"]);
    let again = run(&["policy", "apply", "-f", &policy, "--yes", "--output", "json"]);
    let again: Value = serde_json::from_str(&again.out).unwrap();
    assert_eq!(again["revision"], 1, "applying the file again changes nothing: {again}");
    for words in [
        &["policy", "show", "leaks", "--output", "json"][..],
        &["policy", "list", "--output", "json"],
        &["policy", "revisions", "leaks", "--output", "json"],
        &["audit", "list", "--output", "json"],
        &["status", "--output", "json"],
        &["output", "list", "--output", "json"],
        &["output", "show", "shared"],
        &["output", "show", "default", "--output", "json"],
    ] {
        run(words);
    }
    let shown = run(&["policy", "show", "leaks", "--output", "json"]).out;
    assert!(shown.contains("$co.elastic.secret{inline.outputs.default.service_token}"), "{shown}");
    drop(server);
    let stored = std::fs::read_dir(&data).unwrap().map(|entry| entry.unwrap().path());
    let files: Vec<_> = stored.filter(|path| path.is_file()).collect();
    assert!(files.iter().any(|path| path.ends_with("muster.db")), "{files:?}");
    for path in files {
        check(&path.display().to_string(), &std::fs::read(&path).unwrap());
    }
    let log = std::fs::read(&log).unwrap();
    assert!(log.windows(5).any(|window| window == b"INFO "), "it was written to this file");
    check("the log", &log);
}
