//! `muster serve` as a process: exit codes, what it prints, signals.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

fn muster(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_muster"));
    command.args(arguments).env_remove("MUSTER_CONFIG");
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn run(arguments: &[&str]) -> Output {
    muster(arguments).output().unwrap()
}

fn start(folder: &Path) -> Child {
    let data = folder.to_str().unwrap();
    let child = muster(&["serve", "--data-dir", data, "--agent-listen", "127.0.0.1:0", "--local-listen", "none"])
        .args(["--admin-listen", "127.0.0.1:0"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let end = Instant::now() + Duration::from_secs(30);
    while !folder.join("listen.json").try_exists().unwrap() {
        assert!(Instant::now() < end, "it does not start");
        std::thread::sleep(Duration::from_millis(10));
    }
    child
}

fn signal(child: &Child, name: &str) {
    let done = Command::new("kill").args([name, &child.id().to_string()]).status().unwrap();
    assert!(done.success());
}

#[test]
fn a_wrong_configuration_is_refused_with_exit_code_2() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("muster.toml");
    std::fs::write(&file, "[timeouts]\nidel = \"1s\"\n").unwrap();
    let output = run(&["serve", "--config", file.to_str().unwrap(), "--log-format", "xml"]);
    assert_eq!(output.status.code(), Some(2));
    let message = text(&output.stderr);
    assert!(message.contains("muster.toml:2: timeouts.idel: unknown key; is timeouts.idle meant?"), "{message}");
    assert!(message.contains("--log-format: log.format: \"xml\" is none of text, json"), "{message}");
    let output = run(&["serve", "--config", "/nowhere/muster.toml"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("/nowhere/muster.toml: the file can't be read"));
    assert_eq!(run(&["serve", "--nonsense"]).status.code(), Some(2));
}

#[test]
fn configurations_are_printed() {
    let output = run(&["serve", "--print-default-config"]);
    assert!(output.status.success());
    assert!(text(&output.stdout).contains("\n#checkin_long_poll = \"5m\"\n"));
    let output = run(&["serve", "--print-config", "--insecure-http", "--agent-listen", "127.0.0.1:1"]);
    let lines = text(&output.stdout);
    assert!(lines.contains("agent.listen = \"127.0.0.1:1\"  # --agent-listen\n"), "{lines}");
    assert!(lines.contains("insecure_http = true  # --insecure-http\n"), "{lines}");
}

#[test]
fn the_help_names_every_flag_and_examples() {
    let help = text(&run(&["serve", "--help"]).stdout);
    for flag in [
        "--config",
        "--data-dir",
        "--agent-listen",
        "--local-listen",
        "--admin-listen",
        "--external-url",
        "--tls-cert",
        "--tls-key",
        "--tls-client-ca",
        "--insecure-http",
        "--database",
        "--log-format",
        "--log-level",
        "--set",
        "Examples:",
    ] {
        assert!(help.contains(flag), "{flag} is missing in\n{help}");
    }
}

#[test]
fn a_termination_signal_ends_it_with_exit_code_0_and_a_hangup_does_not() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["-TERM", "-INT"] {
        let child = start(folder.path());
        signal(&child, "-HUP");
        std::thread::sleep(Duration::from_millis(200));
        signal(&child, name);
        let output = child.wait_with_output().unwrap();
        let (out, log) = (text(&output.stdout), text(&output.stderr));
        assert_eq!(output.status.code(), Some(0), "{log}");
        assert!(out.contains("Muster accepts agents at https://127.0.0.1:"), "{out}");
        assert!(log.contains("certificates were read again") && log.contains("stopped"), "{log}");
        assert!(!folder.path().join("listen.json").try_exists().unwrap());
    }
}

#[test]
fn no_secret_of_the_first_start_is_logged() {
    let folder = tempfile::tempdir().unwrap();
    let child = start(folder.path());
    signal(&child, "-TERM");
    let output = child.wait_with_output().unwrap();
    let out = text(&output.stdout);
    let token = out.split("--enrollment-token=").nth(1).and_then(|rest| rest.split(' ').next()).unwrap();
    assert!(token.len() > 20 && !text(&output.stderr).contains(token));
}

#[test]
fn the_server_tells_which_commit_it_is_made_of() {
    use std::io::{Read as _, Write as _};
    let folder = tempfile::tempdir().unwrap();
    let mut child = start(folder.path());
    let mut socket = std::os::unix::net::UnixStream::connect(folder.path().join("admin.sock")).unwrap();
    socket.write_all(b"GET /api/status HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    let hash = format!("\"build_hash\":\"{}\"", env!("COMMIT_HASH"));
    assert!(answer.contains(&hash), "{hash} is missing in {answer}");
    signal(&child, "-TERM");
    assert!(child.wait().unwrap().success());
}
