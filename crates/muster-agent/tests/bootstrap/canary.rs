//! Marked secrets are searched for in everything that a server and two agents leave behind (AG9, AG39, AG40, AG147).

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use muster_core::hex;

use crate::host::{Daemon, Host, output};

const OUTPUT_PASSWORD: &str = "CANARY-output-password-8d1f";
const PROXY_PASSWORD: &str = "CANARY-proxy-password-77ab";
const ENVIRONMENT_PASSWORD: &str = "CANARY-environment-password-5e2b";
const POLICY_SECRET: &str = "CANARY-policy-secret-31c0";
const REPLACE_TOKEN: &str = "CANARY-replace-token-f00d";

/// A policy with secrets in an output, in a URL, and in the environment of a program.
const POLICY: &str = "
name: canary
settings: { is_protected: true }
config:
  outputs:
    default:
      type: elasticsearch
      hosts: ['https://127.0.0.1:1']
      username: elastic
      password: CANARY-output-password-8d1f
      proxy_url: https://user:CANARY-proxy-password-77ab@proxy:3128
  inputs:
    - id: sleeper
      type: process
      command: /bin/sleep
      args: ['1000']
      env: { API_KEY: '$co.elastic.secret{API}' }
";

/// Arguments for people, and arguments and environment for the search.
type Seen = BTreeSet<(String, Vec<u8>)>;

/// Reads the arguments and the environment of every process of the test, until it is dropped.
struct Processes {
    ended: Arc<AtomicBool>,
    reader: Option<JoinHandle<Seen>>,
}

impl Processes {
    fn watch(marks: Vec<String>) -> Self {
        let ended = Arc::new(AtomicBool::new(false));
        let end = ended.clone();
        let reader = std::thread::spawn(move || {
            let mut seen = BTreeSet::new();
            while !end.load(Ordering::Relaxed) {
                for entry in std::fs::read_dir("/proc").unwrap().flatten() {
                    seen.extend(process(&entry.path(), &marks));
                }
                std::thread::sleep(Duration::from_millis(5));
            }
            seen
        });
        Self { ended, reader: Some(reader) }
    }

    fn seen(mut self) -> Seen {
        self.ended.store(true, Ordering::Relaxed);
        self.reader.take().unwrap().join().unwrap()
    }
}

/// Returns the arguments and the environment of a process that has one of the marks in them.
fn process(path: &Path, marks: &[String]) -> Option<(String, Vec<u8>)> {
    let arguments = std::fs::read(path.join("cmdline")).ok()?;
    let mut both = arguments.clone();
    both.push(0);
    both.extend(std::fs::read(path.join("environ")).unwrap_or_default());
    let arguments = String::from_utf8_lossy(&arguments).replace('\0', " ");
    marks.iter().any(|mark| contains(&both, mark.as_bytes())).then_some((arguments, both))
}

pub fn contains(bytes: &[u8], text: &[u8]) -> bool {
    bytes.windows(text.len()).any(|window| window == text)
}

pub fn files(path: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(path).unwrap().flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => files(&entry.path(), found),
            Ok(kind) if kind.is_file() => found.push(entry.path()),
            _ => {}
        }
    }
}

/// Returns a secret and the forms in which it could be written.
fn forms(secret: &str) -> Vec<String> {
    // The encoding of a part of a longer text depends on its position; the middle of all three is enough.
    let shifted = (0..3).map(|shift| STANDARD.encode([&b"xxx"[..shift], secret.as_bytes()].concat())[4..20].to_owned());
    [secret.to_owned(), hex::encode(secret.as_bytes())].into_iter().chain(shifted).collect()
}

/// Returns the secret half of a key, which is base64 of `id:secret`.
fn half(key: &str) -> String {
    let pair = String::from_utf8(STANDARD.decode(key).unwrap()).unwrap();
    pair.split_once(':').unwrap().1.to_owned()
}

/// Returns the limits of a process for core files. With a limit of one byte, the kernel neither writes a file nor pipes one to
/// a program.
fn core_limits(process: &Path) -> Vec<String> {
    let limits = std::fs::read_to_string(process.join("limits")).unwrap();
    let cores = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    cores.split_whitespace().skip(4).take(2).map(str::to_owned).collect()
}

/// Starts an agent that may write a core file into its working directory.
fn run_with_cores(host: &Host, directory: &Path) -> Daemon {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", "ulimit -c unlimited; exec \"$0\" run --set log.level=trace --base-path \"$1\""]);
    command.arg(env!("CARGO_BIN_EXE_muster-agent")).arg(host.path("")).current_dir(directory);
    for name in ["HTTPS_PROXY", "http_proxy", "ALL_PROXY"] {
        command.env(name, format!("http://user:{ENVIRONMENT_PASSWORD}@proxy:3128"));
    }
    Daemon::new(command.stdout(Stdio::null()).stderr(std::fs::File::create(directory.join("stderr")).unwrap()))
}

#[test]
fn ag9_ag39_ag40_ag147_secrets_are_in_no_log_argument_environment_bundle_core_or_file() {
    let (host, remote) = (Host::new(), Host::new());
    let given = tempfile::tempdir().unwrap();
    let left = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = given.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.into_os_string().into_string().unwrap()
    };
    let marks = [&host, &remote].map(|host| host.path("").into_os_string().into_string().unwrap());
    let processes = Processes::watch(marks.to_vec());

    let (code, text) = host.enroll(&[]);
    assert_eq!(code, 0, "{text}");
    let _local = run_with_cores(&host, left.path());
    host.until_healthy();
    let secret = format!("API=@{}", file("secret", POLICY_SECRET));
    host.muster(&["policy", "apply", "-f", &file("policy.yml", POLICY), "--secret", &secret]);
    let token = host.muster_json(&["enrollment-key", "create", "--policy", "canary"])["api_key"].clone();
    let token = token.as_str().unwrap();
    let id = host.muster(&["uninstall-token", "list", "--search", "canary", "--output", "name"]);
    let shown = host.muster_json(&["uninstall-token", "show", id.trim()]);
    let uninstall = shown["token"].as_str().unwrap();

    let mut enroll = remote.command("enroll");
    enroll.arg("--url").arg(format!("https://127.0.0.1:{}", host.port)).arg("-a").arg(host.data().join("ca.crt"));
    enroll.args(["--enrollment-token", &format!("@{}", file("token", token))]);
    enroll.args(["--replace-token", &format!("@{}", file("replace", REPLACE_TOKEN))]);
    let (code, text) = output(&mut enroll);
    assert_eq!(code, 0, "{text}");
    let mut daemon = run_with_cores(&remote, left.path());
    let status = remote.until_healthy();
    assert_eq!(status["log_level"], "trace");
    let bundle = left.path().join("bundle");
    let (code, text) = output(remote.command("diagnostics").arg("--file").arg(&bundle));
    assert_eq!(code, 0, "{text}");
    let agent = status["agent_id"].as_str().unwrap();
    let download = left.path().join("downloaded");
    std::fs::create_dir(&download).unwrap();
    let wait = ["--wait", "--timeout", "60", "--yes", "--download", download.to_str().unwrap()];
    host.muster(&[&["agent", "diagnostics", agent], &wait[..]].concat());
    let enrolled = remote.enrollment();

    for command in ["status", "inspect", "logs"] {
        let (_, text) = output(&mut remote.command(command));
        std::fs::write(left.path().join(command), text).unwrap();
    }

    // A crash with the secrets in memory, of an agent and of a program that must not leave any memory behind.
    assert_eq!(core_limits(&Path::new("/proc").join(status["pid"].to_string())), ["1", "1"]);
    let sleepers = std::fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
    let sleepers: Vec<_> = sleepers.filter(|path| process(path, &[POLICY_SECRET.to_owned()]).is_some()).collect();
    assert!(!sleepers.is_empty(), "the program has the secret");
    for sleeper in sleepers {
        assert_eq!(core_limits(&sleeper), ["1", "1"]);
    }
    daemon.signal(nix::sys::signal::Signal::SIGABRT);
    daemon.wait();
    let bundle = left.path().join("bundle of the dead agent");
    let (code, text) = output(remote.command("diagnostics").arg("--file").arg(&bundle));
    assert_eq!(code, 0, "{text}");
    let mut daemon = run_with_cores(&remote, left.path());
    remote.until_healthy();
    let (code, text) = output(remote.command("unenroll").args(["--uninstall-token", &file("uninstall", uninstall)]));
    assert_eq!(code, 0, "{text}");
    daemon.wait();
    let (key, own) = (enrolled.access_api_key.expose(), host.enrollment());
    let own = own.access_api_key.expose();
    let secrets = [
        OUTPUT_PASSWORD,
        PROXY_PASSWORD,
        POLICY_SECRET,
        REPLACE_TOKEN,
        token,
        &half(token),
        uninstall,
        key,
        &half(key),
        own,
        &half(own),
    ];

    let mut all = Vec::new();
    for directory in [host.path("").parent().unwrap(), remote.path("").parent().unwrap(), left.path()] {
        files(directory, &mut all);
    }
    // The copied program is too large for this search, and is the same as the original.
    all.retain(|file| !file.ends_with("server/muster"));
    let log = all.iter().find(|file| file.ends_with("muster-agent.jsonl")).unwrap();
    assert!(contains(&std::fs::read(log).unwrap(), b"\"agent\":"), "the search finds what is there");
    assert!(!all.iter().any(|file| file.file_name().is_some_and(|name| name.to_string_lossy().starts_with("core"))));
    for path in all {
        let bytes = expanded(&path, std::fs::read(&path).unwrap());
        for secret in secrets.into_iter().chain([ENVIRONMENT_PASSWORD]) {
            let found = forms(secret).into_iter().find(|form| contains(&bytes, form.as_bytes()));
            assert_eq!(found, None, "in {}", path.display());
        }
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if [".enc", ".key", "master.key", "server.json"].iter().any(|ending| name.ends_with(ending)) {
            let mode = std::fs::metadata(&path).unwrap().permissions().mode();
            assert_eq!(mode & 0o077, 0, "{}: {mode:o}", path.display());
        }
    }
    let seen = processes.seen();
    assert!(seen.iter().any(|(arguments, _)| arguments.contains(" serve ")), "{seen:?}");
    // Administrators give this one to the agent itself.
    let components: Vec<_> = seen.iter().filter(|(_, both)| contains(both, b"MUSTER_COMPONENT_ID=")).collect();
    assert!(components.iter().any(|(_, both)| contains(both, b"HTTPS_PROXY=http://proxy:3128")), "{components:?}");
    for (arguments, both) in components {
        assert!(!contains(both, ENVIRONMENT_PASSWORD.as_bytes()), "{arguments}");
    }
    for (arguments, both) in seen {
        for secret in secrets {
            // The policy gives this secret to this program.
            let is_meant = secret == POLICY_SECRET && contains(&both, b"MUSTER_COMPONENT_ID=process-default-sleeper");
            let found = forms(secret).into_iter().find(|form| contains(&both, form.as_bytes()));
            assert!(found.is_none() || is_meant, "{secret} in the arguments or environment of {arguments}");
        }
    }
}

/// Returns the content of a file with that of a compressed bundle.
fn expanded(path: &Path, mut all: Vec<u8>) -> Vec<u8> {
    if all.starts_with(&[0x1f, 0x8b]) {
        let (_, text) = output(Command::new("gzip").arg("-dc").arg(path));
        all.extend(text.into_bytes());
    } else if all.starts_with(b"PK") {
        let (_, text) = output(Command::new("unzip").arg("-p").arg(path));
        all.extend(text.into_bytes());
    }
    all
}
