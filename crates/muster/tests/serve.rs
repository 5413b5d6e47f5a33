//! `muster serve` as a process: exit codes, what it prints, signals.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{self, Receiver};
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

/// A process that does not outlive its test: it is killed when dropped.
struct Process(Option<Child>);

impl Process {
    fn spawn(command: &mut Command) -> Self {
        Self(Some(command.spawn().unwrap()))
    }

    fn wait_with_output(mut self) -> std::io::Result<Output> {
        self.0.take().unwrap().wait_with_output()
    }
}

impl std::ops::Deref for Process {
    type Target = Child;

    fn deref(&self) -> &Child {
        self.0.as_ref().unwrap()
    }
}

impl std::ops::DerefMut for Process {
    fn deref_mut(&mut self) -> &mut Child {
        self.0.as_mut().unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            // Fails if it has ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn start(directory: &Path) -> Process {
    start_with(directory, &[])
}

fn start_with(directory: &Path, more: &[&str]) -> Process {
    start_logging_to(Stdio::piped(), directory, more)
}

fn start_logging_to(log: Stdio, directory: &Path, more: &[&str]) -> Process {
    let data = directory.to_str().unwrap();
    let mut command = muster(&["serve", "--data-dir", data, "--agent-listen", "127.0.0.1:0", "--local-listen", "none"]);
    command.args(["--admin-listen", "127.0.0.1:0"]).args(more);
    let child = Process::spawn(command.stdout(Stdio::piped()).stderr(log));
    let end = Instant::now() + Duration::from_secs(30);
    while !directory.join("listen.json").try_exists().unwrap() {
        assert!(Instant::now() < end, "it does not start");
        std::thread::sleep(Duration::from_millis(10));
    }
    child
}

/// What a process logs, read while it runs.
struct Log {
    lines: Receiver<String>,
    read: String,
}

impl Log {
    fn of(child: &mut Process) -> Self {
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let (sender, lines) = mpsc::channel();
        // Ends with the process, or with the receiver.
        std::thread::spawn(move || stderr.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Self { lines, read: String::new() }
    }

    /// Waits for a line that contains `wanted`.
    fn wait_for(&mut self, wanted: &str) {
        while !self.read.contains(wanted) {
            let line = self.lines.recv_timeout(Duration::from_secs(30));
            let line = line.unwrap_or_else(|error| panic!("no {wanted:?} in the log ({error}): {}", self.read));
            self.read += &(line + "\n");
        }
    }

    /// Everything up to the end of the process.
    fn rest(self) -> String {
        self.lines.iter().fold(self.read, |read, line| read + &line + "\n")
    }
}

fn signal(child: &Process, name: &str) {
    let done = Command::new("kill").args([name, &child.id().to_string()]).status().unwrap();
    assert!(done.success());
}

#[test]
fn an_invalid_configuration_is_rejected_with_exit_code_2() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("muster.toml");
    std::fs::write(&file, "[timeouts]\nidel = \"1s\"\n").unwrap();
    let output = run(&["serve", "--config", file.to_str().unwrap(), "--log-format", "xml"]);
    assert_eq!(output.status.code(), Some(2));
    let message = text(&output.stderr);
    assert!(message.contains("muster.toml:2: timeouts.idel: unknown key; did you mean timeouts.idle?"), "{message}");
    assert!(message.contains("--log-format: log.format: \"xml\" is not one of text, json"), "{message}");
    let output = run(&["serve", "--config", "/nowhere/muster.toml"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("/nowhere/muster.toml: cannot read the file"));
    assert_eq!(run(&["serve", "--nonsense"]).status.code(), Some(2));
}

/// The reader of the log can go away: a `head`, a log collector, a terminal.
#[test]
fn a_server_whose_log_has_no_reader_serves_on() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let mut child = start(&data);
    drop(child.stderr.take());
    let listen: serde_json::Value = serde_json::from_slice(&std::fs::read(data.join("listen.json")).unwrap()).unwrap();
    let address = listen["agent"].as_str().unwrap();
    // Each of these connections is refused, and logged.
    for _ in 0..3 {
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nhost: h\r\n\r\n").unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        assert!(text(&answer).starts_with("HTTP/1.1 400 "), "{}", text(&answer));
    }
    signal(&child, "-TERM");
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

/// The reader of the log can stand still without closing it: a stopped log collector, a terminal that is paused.
#[test]
fn a_server_whose_log_stands_still_serves_on() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let (reader, mut log) = std::io::pipe().unwrap();
    let size = nix::fcntl::fcntl(&log, nix::fcntl::FcntlArg::F_SETPIPE_SZ(4096)).unwrap();
    log.write_all(&vec![b'\n'; usize::try_from(size).unwrap()]).unwrap();
    let mut child = start_logging_to(log.into(), &data, &["--log-level", "debug"]);
    let listen: serde_json::Value = serde_json::from_slice(&std::fs::read(data.join("listen.json")).unwrap()).unwrap();
    for _ in 0..50 {
        let ready = get(listen["admin"].as_str().unwrap(), "/readyz");
        assert!(ready.starts_with("HTTP/1.1 200"), "{ready}");
    }
    signal(&child, "-TERM");
    assert_eq!(child.wait().unwrap().code(), Some(0));
    drop(reader);
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

/// Each flag sets its key, and the file that `--config` names the rest.
#[test]
fn every_flag_sets_its_key() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("muster.toml");
    std::fs::write(&file, "[timeouts]\nidle = \"7s\"\n").unwrap();
    let flags = [
        ("--data-dir", "/srv/muster", "data_dir"),
        ("--agent-listen", "127.0.0.1:1", "agent.listen"),
        ("--local-listen", "127.0.0.1:2", "local.listen"),
        ("--admin-listen", "127.0.0.1:3", "admin.listen"),
        ("--tls-cert", "/c.pem", "tls.cert"),
        ("--tls-key", "/k.pem", "tls.key"),
        ("--tls-client-ca", "/ca.pem", "tls.client_ca"),
        ("--tls-client-auth", "required", "tls.client_auth"),
        ("--tls-client-crl", "/crl.pem", "tls.client_crl"),
        ("--master-key-file", "/srv/master.key", "master_key_file"),
        ("--log-format", "json", "log.format"),
        ("--log-level", "debug", "log.level"),
    ];
    let mut words = vec!["serve", "--print-config", "--config", file.to_str().unwrap()];
    words.extend(flags.iter().flat_map(|(flag, value, _)| [*flag, *value]));
    words.extend(["--external-url", "https://one:8220", "--external-url", "https://two:8220"]);
    words.extend(["--set", "timeouts.drain=3s", "--set", "limits.enroll.max=9"]);
    let output = run(&words);
    let printed = text(&output.stdout);
    assert!(output.status.success(), "{printed}{}", text(&output.stderr));
    for (flag, value, key) in flags {
        let section = key.split_once('.').map_or(key, |(_, name)| name);
        let line = |it: &str| it.contains(&format!("{section} = \"{value}\"")) && it.contains(flag);
        assert!(printed.lines().any(line), "{flag} is not in force in\n{printed}");
    }
    let urls = "external_url = [\"https://one:8220\", \"https://two:8220\"]";
    for part in [urls, "idle = \"7s\"", "drain = \"3s\"", "enroll.max = 9"] {
        assert!(printed.contains(part), "{part} is missing in\n{printed}");
    }
}

/// What is not there yet is refused before anything starts, not passed over.
#[test]
fn a_database_of_another_program_is_rejected() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().to_str().unwrap();
    let output = run(&["serve", "--data-dir", data, "--database", "postgres://db/muster"]);
    let told = text(&output.stderr);
    assert!(!output.status.success() && told.contains("database"), "{told}");
    assert!(!directory.path().join("muster.db").try_exists().unwrap());
}

/// A data directory that lost its database is refused, with the remedy; `--new-fleet` starts anew.
#[test]
fn a_lost_database_is_rejected_without_new_fleet() {
    let directory = tempfile::tempdir().unwrap();
    let child = start(directory.path());
    signal(&child, "-TERM");
    assert!(child.wait_with_output().unwrap().status.success());
    for suffix in ["", "-wal", "-shm"] {
        let _ = std::fs::remove_file(directory.path().join(format!("muster.db{suffix}")));
    }
    let refused = run(&["serve", "--data-dir", directory.path().to_str().unwrap(), "--admin-listen", "none"]);
    let message = text(&refused.stderr);
    assert!(!refused.status.success() && message.contains("--new-fleet"), "{message}");
    let child = start_with(directory.path(), &["--new-fleet"]);
    signal(&child, "-TERM");
    assert!(child.wait_with_output().unwrap().status.success());
}

/// A certificate of one's own is what agents see, and the address that they are told is the one that was given.
#[test]
fn a_configured_certificate_and_address_are_used() {
    let directory = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(vec!["fleet.example".into()]).unwrap();
    let (cert, key) = (directory.path().join("cert.pem"), directory.path().join("key.pem"));
    std::fs::write(&cert, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let data = directory.path().join("data");
    let files = ["--tls-cert", cert.to_str().unwrap(), "--tls-key", key.to_str().unwrap()];
    let child = start_with(&data, &[&files[..], &["--external-url", "https://fleet.example:8220"]].concat());
    let seen = handshake(&agent_address(&data), &made.cert.pem());
    assert!(seen.is_ok(), "{seen:?}");
    signal(&child, "-TERM");
    let output = child.wait_with_output().unwrap();
    let out = text(&output.stdout);
    assert!(out.contains("https://fleet.example:8220"), "{out}");
}

fn agent_address(data: &Path) -> String {
    let listen: serde_json::Value = serde_json::from_slice(&std::fs::read(data.join("listen.json")).unwrap()).unwrap();
    listen["agent"].as_str().unwrap().to_owned()
}

/// A server that holds no poll, and what simulated agents need to enroll in it.
struct Unheld {
    directory: tempfile::TempDir,
    child: Process,
    token: String,
}

impl Unheld {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let settings = ["--set", "timeouts.checkin_long_poll=0s", "--set", "timeouts.checkin_jitter=0s"];
        let child = start_with(directory.path(), &settings);
        let data = directory.path().to_str().unwrap();
        let key = run(&["enrollment-key", "create", "--data-dir", data, "--output", "json"]);
        let key: serde_json::Value = serde_json::from_slice(&key.stdout).unwrap();
        Self { token: key["api_key"].as_str().unwrap().to_owned(), directory, child }
    }

    /// Runs simulated agents to their end; returns their summary.
    fn drones(&self, arguments: &[&str]) -> serde_json::Value {
        let (url, ca) =
            (format!("https://{}", agent_address(self.directory.path())), self.directory.path().join("ca.crt"));
        let mut command = muster(&["drones", "--json", "--url", &url, "--ca", ca.to_str().unwrap()]);
        command.args(["--enrollment-token", &self.token]).args(arguments).stdin(Stdio::piped());
        let mut drones = Process::spawn(command.stdout(Stdio::piped()).stderr(Stdio::piped()));
        // They would stop at the end of their input.
        let input = drones.stdin.take();
        let output = drones.wait_with_output().unwrap();
        drop(input);
        assert!(output.status.success(), "{}", text(&output.stderr));
        serde_json::from_str(text(&output.stdout).lines().last().unwrap()).unwrap()
    }

    fn stop(self) {
        signal(&self.child, "-TERM");
        assert!(self.child.wait_with_output().unwrap().status.success());
    }
}

/// A server that holds nothing answers drones as often as they ask: as often as their schedule says.
#[test]
fn drones_respect_rate_and_duration() {
    let server = Unheld::start();
    for mode in ["heartbeat", "change"] {
        let schedule = ["--mode", mode, "--count", "2", "--rate", "10", "--seconds", "2", "--resume-tls"];
        let last = server.drones(&schedule);
        let check_ins = last["counts"]["check_ins"].as_u64().unwrap();
        // 20 on the schedule, and a few before it; a machine under load may miss some, but none come off the schedule.
        assert!((5..=26).contains(&check_ins), "{mode}: {last}");
        assert!((1.5..10.0).contains(&last["seconds"].as_f64().unwrap()), "{mode}: {last}");
    }
    server.stop();
}

/// In mode `burst` each simulated agent sends one check-in of the size that was asked for.
#[test]
fn drones_send_a_burst_of_large_check_ins() {
    let server = Unheld::start();
    let last = server.drones(&["--mode", "burst", "--count", "3", "--body-bytes", "200000"]);
    assert_eq!((&last["counts"]["errors"], &last["counts"]["enrolled"]), (&serde_json::json!({}), &3.into()), "{last}");
    assert!(last["counts"]["check_ins"].as_u64().unwrap() >= 3, "{last}");
    server.stop();
}

/// A TLS handshake as one that trusts `ca` alone and asks for `fleet.example`.
fn handshake(address: &str, ca: &str) -> std::io::Result<()> {
    use rustls::pki_types::pem::PemObject as _;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(rustls::pki_types::CertificateDer::from_pem_slice(ca.as_bytes()).unwrap()).unwrap();
    let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = std::sync::Arc::new(builder.with_root_certificates(roots).with_no_client_auth());
    let name = "fleet.example".try_into().unwrap();
    let mut connection = rustls::ClientConnection::new(config, name).unwrap();
    let mut stream = std::net::TcpStream::connect(address)?;
    connection.complete_io(&mut stream).map(drop)
}

#[test]
fn the_help_contains_every_flag_and_examples() {
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
        "--tls-client-auth",
        "--tls-client-crl",
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
fn sigterm_stops_the_server_with_exit_code_0_and_sighup_does_not() {
    let directory = tempfile::tempdir().unwrap();
    for name in ["-TERM", "-INT"] {
        let mut child = start(directory.path());
        let mut log = Log::of(&mut child);
        signal(&child, "-HUP");
        log.wait_for("certificates reloaded");
        signal(&child, name);
        let output = child.wait_with_output().unwrap();
        let (out, log) = (text(&output.stdout), log.rest());
        assert_eq!(output.status.code(), Some(0), "{log}");
        assert!(out.contains("Muster accepts agents at https://127.0.0.1:"), "{out}");
        assert!(log.contains("stopped"), "{log}");
        assert!(!directory.path().join("listen.json").try_exists().unwrap());
    }
}

#[test]
fn no_secret_of_the_first_start_is_logged() {
    let directory = tempfile::tempdir().unwrap();
    let child = start(directory.path());
    signal(&child, "-TERM");
    let output = child.wait_with_output().unwrap();
    let out = text(&output.stdout);
    let token = out.split("--enrollment-token=").nth(1).and_then(|rest| rest.split(' ').next()).unwrap();
    assert!(token.len() > 20 && !text(&output.stderr).contains(token));
}

#[test]
fn the_status_contains_the_commit_of_the_build() {
    use std::io::{Read as _, Write as _};
    let directory = tempfile::tempdir().unwrap();
    let mut child = start(directory.path());
    let mut socket = std::os::unix::net::UnixStream::connect(directory.path().join("admin.sock")).unwrap();
    socket.write_all(b"GET /api/status HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    let hash = format!("\"build_hash\":\"{}\"", env!("COMMIT_HASH"));
    assert!(answer.contains(&hash), "{hash} is missing in {answer}");
    signal(&child, "-TERM");
    assert!(child.wait().unwrap().success());
}

/// A start that hangs in the system: the certificate comes from a pipe that nobody writes to.
#[test]
fn sigterm_ends_a_start_that_hangs() {
    let keep = tempfile::tempdir().unwrap();
    let (data, pipe, key) = (keep.path().join("data"), keep.path().join("pipe"), keep.path().join("key.pem"));
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let mut command = muster(&["serve", "--agent-listen", "127.0.0.1:0", "--local-listen", "none"]);
    command.args(["--admin-listen", "127.0.0.1:0", "--data-dir"]).arg(&data);
    command.arg("--tls-cert").arg(&pipe).arg("--tls-key").arg(&key);
    let mut child = Process::spawn(command.stdout(Stdio::null()).stderr(Stdio::null()));
    let end = Instant::now() + Duration::from_secs(30);
    // The last thing that is made before the certificate is read; signals are taken before any of it.
    while !data.join("muster.db").try_exists().unwrap() {
        assert!(Instant::now() < end && child.try_wait().unwrap().is_none(), "it does not come so far");
        std::thread::sleep(Duration::from_millis(10));
    }
    signal(&child, "-TERM");
    let status = loop {
        match child.try_wait().unwrap() {
            Some(status) => break status,
            None if Instant::now() >= end => panic!("SIGTERM is ignored during the start"),
            None => std::thread::sleep(Duration::from_millis(20)),
        }
    };
    assert!(status.success(), "{status}");
}

/// A limit on the size of files stands for the full disk: the log that a killed server left can be read and not grow.
#[test]
fn server_that_was_killed_on_a_full_disk_is_not_ready_and_can_be_read() {
    let keep = tempfile::tempdir().unwrap();
    let data = keep.path().join("data");
    std::fs::create_dir(&data).unwrap();
    let mut child = start(&data);
    child.kill().unwrap();
    child.wait().unwrap();
    let log = std::fs::metadata(data.join("muster.db-wal")).unwrap().len();
    assert!(log > 128 * 512, "the log is longer than files may become: {log}");
    std::fs::remove_file(data.join("listen.json")).unwrap();

    let serve = "trap '' XFSZ; ulimit -f 128; exec \"$@\"";
    let mut command = Command::new("sh");
    command
        .args(["-c", serve, "sh", env!("CARGO_BIN_EXE_muster"), "serve", "--local-listen", "none"])
        .args(["--agent-listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--data-dir"])
        .arg(&data)
        .env_remove("MUSTER_CONFIG");
    let mut child = Process::spawn(command.stdout(Stdio::null()).stderr(Stdio::null()));
    let end = Instant::now() + Duration::from_secs(30);
    let listen = data.join("listen.json");
    while !listen.try_exists().unwrap() {
        assert!(Instant::now() < end && child.try_wait().unwrap().is_none(), "it does not start");
        std::thread::sleep(Duration::from_millis(10));
    }
    let told: serde_json::Value = serde_json::from_slice(&std::fs::read(&listen).unwrap()).unwrap();
    let ready = get(told["admin"].as_str().unwrap(), "/readyz");
    assert!(ready.starts_with("HTTP/1.1 503") && ready.contains("the store is read-only: "), "{ready}");
    let place = ["--data-dir", data.to_str().unwrap()];
    let read = run(&[&["policy", "list", "--output", "name"][..], &place].concat());
    assert!(read.status.success() && !text(&read.stdout).is_empty(), "{}", text(&read.stderr));
    let written = run(&[&["policy", "create", "web"][..], &place].concat());
    assert!(!written.status.success());
    signal(&child, "-TERM");
    assert!(child.wait().unwrap().success());
}

fn get(address: &str, path: &str) -> String {
    use std::io::{Read as _, Write as _};

    let mut stream = std::net::TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}
