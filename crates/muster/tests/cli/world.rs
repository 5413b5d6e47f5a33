//! One server for all tests of this binary, and the command run against it.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use serde_json::Value;

const MUSTER: &str = env!("CARGO_BIN_EXE_muster");

/// Runs the server until this process is gone, whichever way: then the pipe closes and `cat` ends.
const KEEPER: &str = r#"
dir=$1; shift
trap : TERM INT HUP
"$@" >"$dir/out" 2>"$dir/log" & server=$!
cat >/dev/null
kill -TERM $server; wait $server
rm -rf "$dir"
"#;

/// The server.
pub struct World {
    dir: PathBuf,
    /// `host:port` where agents come.
    pub agents: String,
    /// `host:port` of the REST API.
    pub admin: String,
    // Held open: see `KEEPER`.
    _keeper: std::process::Child,
}

/// What a command did.
pub struct Ran {
    /// Exit code.
    pub code: i32,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

/// The server, started at the first call.
pub fn world() -> &'static World {
    static WORLD: OnceLock<World> = OnceLock::new();
    WORLD.get_or_init(World::start)
}

impl World {
    /// Starts a server of its own, for tests that change what others rely on.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts a server of its own, with more arguments.
    pub fn start_with(more: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap().keep();
        let data = dir.join("data");
        let keeper = Command::new("sh")
            .args(["-c", KEEPER, "keeper"])
            .arg(&dir)
            .args([MUSTER, "serve", "--local-listen", "none", "--agent-listen", "127.0.0.1:0"])
            .args(["--admin-listen", "127.0.0.1:0", "--data-dir"])
            .arg(&data)
            .args(more)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let end = Instant::now() + Duration::from_secs(60);
        let listen = loop {
            if let Ok(text) = std::fs::read(data.join("listen.json")) {
                break serde_json::from_slice::<Value>(&text).unwrap();
            }
            let log = || std::fs::read_to_string(dir.join("log")).unwrap_or_default();
            assert!(Instant::now() < end, "the server does not start: {}", log());
            std::thread::sleep(Duration::from_millis(20));
        };
        let address = |name: &str| listen[name].as_str().unwrap().to_owned();
        Self { agents: address("agent"), admin: address("admin"), dir, _keeper: keeper }
    }

    /// The server's data directory.
    pub fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// What the server has printed.
    pub fn printed(&self) -> String {
        std::fs::read_to_string(self.dir.join("out")).unwrap_or_default()
    }

    /// `muster` with these words, for this server, with nothing of the caller's environment that it would heed.
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(MUSTER);
        for name in ["MUSTER_URL", "MUSTER_TOKEN", "MUSTER_CA", "MUSTER_CONFIG", "MUSTER_CONTEXT", "MUSTER_SPACE"] {
            command.env_remove(name);
        }
        command.args(words).env("MUSTER_DATA_DIR", self.data()).stdin(Stdio::null());
        command
    }

    /// Runs `muster`, which must succeed; gives its output.
    pub fn ok(&self, words: &[&str]) -> String {
        let Ran { code, out, err } = finish(&mut self.command(words));
        assert_eq!(code, 0, "{words:?}: {out}{err}");
        out
    }

    /// Runs `muster` with JSON as the output.
    pub fn json(&self, words: &[&str]) -> Value {
        serde_json::from_str(&self.ok(&[words, &["--output", "json"]].concat())).unwrap()
    }
}

/// `muster` with these words, for the shared server.
pub fn command(words: &[&str]) -> Command {
    world().command(words)
}

/// Runs a command to its end.
pub fn finish(command: &mut Command) -> Ran {
    let output = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    Ran { code: output.status.code().unwrap_or(-1), out: text(&output.stdout), err: text(&output.stderr) }
}

/// Runs `muster`.
pub fn run(words: &[&str]) -> Ran {
    finish(&mut command(words))
}

/// Runs `muster`, which must succeed; gives its output.
pub fn ok(words: &[&str]) -> String {
    world().ok(words)
}

/// Runs `muster`, which must fail so; gives what it said.
pub fn fails(code: i32, words: &[&str]) -> String {
    let ran = run(words);
    assert_eq!(ran.code, code, "{words:?}: {}{}", ran.out, ran.err);
    assert_eq!(ran.out, "", "{words:?}: errors go to stderr alone");
    assert!(!ran.err.contains("panicked"), "{}", ran.err);
    ran.err
}

/// Runs `muster … --output json`.
pub fn json(words: &[&str]) -> Value {
    let text = ok(&[words, &["--output", "json"]].concat());
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{words:?}: {error}: {text}"))
}

/// Runs `muster … --output yaml`.
pub fn yaml(words: &[&str]) -> Value {
    let text = ok(&[words, &["--output", "yaml"]].concat());
    serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{words:?}: {error}: {text}"))
}

/// A new policy; gives its id.
pub fn new_policy(name: &str) -> String {
    json(&["policy", "create", name])["id"].as_str().unwrap().to_owned()
}

/// A token that admits agents to a policy.
pub fn new_token(policy: &str) -> String {
    json(&["enrollment-key", "create", "--policy", policy])["api_key"].as_str().unwrap().to_owned()
}

/// A file that lives as long as its directory.
pub fn file(name: &str, text: &str) -> (tempfile::TempDir, String) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(name);
    std::fs::write(&path, text).unwrap();
    let path = path.to_str().unwrap().to_owned();
    (directory, path)
}
