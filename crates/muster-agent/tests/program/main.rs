//! The program against a TLS server on loopback: enroll, run, status, unenroll.

#![allow(clippy::unwrap_used, reason = "tests")]

mod container;
mod exit_codes;
mod flags;
mod images;
mod install;
mod kills;
mod limits;
mod metrics;
mod package;
mod protection;
mod proxy;
mod server;
mod standalone;
mod terminal;
mod upgrade;
mod users;

use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use camino::Utf8PathBuf;
use muster_agent::host::fingerprint::Fingerprint;
use muster_agent::paths::Layout;
use muster_agent::state::disk::DiskStore;
use muster_agent::state::{Enrollment, State, Store as _};
use server::TlsServer;

/// base64 of `tok:en`.
const TOKEN: &str = "dG9rOmVu";

struct Agent {
    directory: tempfile::TempDir,
}

fn output(command: &mut Command) -> (i32, String) {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    (status.code().unwrap_or(-1), text)
}

impl Agent {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    fn command(&self, name: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_muster-agent"));
        command
            .arg(name)
            .arg("--base-path")
            .arg(self.directory.path().join("agent"))
            .env_remove("MUSTER_ENROLLMENT_TOKEN");
        command
    }

    fn enroll(&self, server: &TlsServer, more: &[&str]) -> (i32, String) {
        let mut command = self.command("enroll");
        command.args(["--url", &server.url, "--enrollment-token", TOKEN, "--attempts", "1"]).args(more);
        output(&mut command)
    }

    fn run(&self) -> Daemon {
        let mut command = self.command("run");
        command.args(["--set", "checkin.state_change_gap=100ms", "--set", "process.stop_timeout=1s"]);
        Daemon(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }

    fn status(&self) -> (i32, serde_json::Value) {
        let (code, text) = output(self.command("status").args(["--output", "json"]));
        (code, serde_json::from_str(&text).unwrap_or(serde_json::Value::String(text)))
    }

    fn until_status(&self, good: impl Fn(i32, &serde_json::Value) -> bool) -> serde_json::Value {
        let begun = Instant::now();
        loop {
            let (code, status) = self.status();
            if good(code, &status) {
                return status;
            }
            assert!(begun.elapsed() < Duration::from_secs(30), "{code} {status}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Sends a request to the control socket.
    fn ask(&self, method: &str, path: &str) -> String {
        let mut socket = std::os::unix::net::UnixStream::connect(self.path("run/agent.sock")).unwrap();
        write!(socket, "{method} {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        answer
    }

    fn store(&self) -> DiskStore {
        DiskStore::new(Layout::new(Utf8PathBuf::from_path_buf(self.path("")).unwrap()))
    }

    fn state(&self) -> State {
        self.store().state().unwrap()
    }

    fn enrollment(&self) -> Enrollment {
        self.store().enrollment().unwrap().unwrap()
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.directory.path().join("agent").join(name)
    }
}

/// A running daemon, killed at the end of the test.
struct Daemon(std::process::Child);

impl Daemon {
    fn ended(&mut self) -> i32 {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status.code().unwrap_or(-1);
            }
            assert!(begun.elapsed() < Duration::from_secs(30), "it does not exit");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn signal(&self, signal: nix::sys::signal::Signal) {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.0.id()).unwrap());
        nix::sys::signal::kill(pid, signal).unwrap();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn mode(path: &std::path::Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn ag84_an_enrollment_that_cannot_be_stored_is_withdrawn_from_the_server() {
    let (server, agent) = (TlsServer::start(), Agent::new());
    std::fs::create_dir(agent.path("")).unwrap();
    // Never followed, and noticed only when the files are written.
    std::os::unix::fs::symlink("/etc", agent.path("run")).unwrap();
    let (code, text) = agent.enroll(&server, &["-a", server.ca_file.to_str().unwrap()]);
    assert!(code != 0 && text.contains("symbolic link"), "{code} {text}");
    let server = server.lock();
    assert_eq!((server.enrolled.len(), server.audits.len()), (1, 1), "{text}");
    assert_eq!(server.audits[0]["departure"]["why"], "the enrollment could not be stored");
}

#[test]
fn ag16_ag17_ag44_ag135_ag175_an_agent_enrolls_runs_once_and_unenrolls() {
    let server = TlsServer::start();
    let agent = Agent::new();
    let ca = server.ca_file.to_str().unwrap();
    let (code, text) = agent.enroll(&server, &["--certificate-authorities", ca, "--tag", "prod,web"]);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("Enrolled as agent agent-1 on policy p"), "{text}");
    assert!(text.contains("To start the agent: muster-agent run"), "there is no daemon that it could reach: {text}");
    let enrolled = server.lock().enrolled.clone();
    assert_eq!(enrolled[0]["metadata"]["tags"], serde_json::json!(["prod", "web"]));
    assert!(!enrolled[0]["metadata"]["local"]["host"]["hostname"].as_str().unwrap().is_empty());
    assert_eq!((mode(&agent.path("fleet.enc")), mode(&agent.path(""))), (0o600, 0o700));
    assert_eq!(agent.enroll(&server, &["-a", ca]).0, 7, "not twice without --force");
    assert_eq!(agent.status().0, 12, "no daemon yet");

    let mut daemon = agent.run();
    let status = agent.until_status(|code, status| code == 0 && status["components"][0]["state"] == "HEALTHY");
    assert_eq!((&status["policy"]["id"], &status["fleet"]["state"]), (&"p".into(), &"HEALTHY".into()));
    assert_eq!(mode(&agent.path("run/agent.sock")), 0o600);
    let (code, text) = output(&mut agent.command("run"));
    assert!(code == 1 && text.contains("another muster-agent is running in"), "one daemon: {text}");
    for format in ["human", "full", "json", "yaml"] {
        let (code, text) = output(agent.command("status").args(["--output", format]));
        assert!(code == 0 && text.contains("process-default-web"), "{format}: {code} {text}");
    }
    assert_eq!(output(agent.command("status").args(["--output", "xml"])).0, 2);
    let (_, text) = output(&mut agent.command("status"));
    assert!(text.contains("process-default-web: (HEALTHY)"), "{text}");

    daemon.signal(nix::sys::signal::Signal::SIGKILL);
    daemon.ended();
    let mut daemon = agent.run();
    agent.until_status(|code, status| code == 0 && status["components"][0]["state"] == "HEALTHY");
    let (code, text) = output(&mut agent.command("unenroll"));
    assert_eq!((code, text.contains("Unenrolled")), (0, true), "{text}");
    assert_eq!(daemon.ended(), 0);
    assert_eq!(server.lock().audits.len(), 1);
    assert!(!agent.path("fleet.enc").try_exists().unwrap());
    assert!(agent.state().policy.is_none());
    let (code, status) = agent.status();
    assert_eq!((code, status.as_str().unwrap().contains("was unenrolled")), (13, true), "{status}");
    assert_eq!(agent.run().ended(), 0, "final: nothing to run, and service managers restart only what fails");
}

#[test]
fn ag83_an_enrollment_that_the_running_daemon_does_not_use_is_an_error() {
    let (server, agent) = (TlsServer::start(), Agent::new());
    let ca = ["-a", server.ca_file.to_str().unwrap()];
    let (code, text) = agent.enroll(&server, &ca);
    assert!(code == 0 && text.contains("To start the agent: muster-agent run"), "there is no daemon: {code} {text}");
    let daemon = agent.run();
    agent.until_healthy();
    daemon.signal(nix::sys::signal::Signal::SIGSTOP);
    let forced = |flags: &[&str]| agent.enroll(&server, &[&ca[..], &["--force"], flags].concat());
    let (code, text) = forced(&["--daemon-timeout", "1s"]);
    assert!(code == 8 && text.contains("the running agent does not use the new enrollment"), "{code} {text}");
    assert!(text.contains("Enrolled as agent") && text.contains("hint: restart the agent"), "{text}");
    assert_eq!(forced(&["--skip-daemon-reload"]).0, 0, "the daemon is not asked");
    daemon.signal(nix::sys::signal::Signal::SIGCONT);
    agent.until_healthy();
    let (code, text) = forced(&[]);
    assert!(code == 0 && text.contains("The running agent now uses the new enrollment"), "{code} {text}");
}

#[test]
fn ag53_ag89_ag149_requests_have_the_given_headers_and_monitoring_reads_the_socket() {
    const VALUE: &str = "CANARY-gateway-key";
    let (server, agent) = (TlsServer::start(), Agent::new());
    let file = agent.directory.path().join("header");
    std::fs::write(&file, format!("{VALUE}\n")).unwrap();
    let ca = server.ca_file.to_str().unwrap();
    let (code, text) = agent.enroll(&server, &["-a", ca, "--header", "Authorization=x"]);
    assert!(code == 2 && text.contains("set by the agent itself"), "{code} {text}");
    let (code, text) = agent.enroll(&server, &["-a", ca, "--header", &format!("X-Gateway=@{}", file.display())]);
    assert_eq!(code, 0, "{text}");
    let _daemon = agent.run();
    agent.until_status(|code, status| code == 0 && status["components"][0]["state"] == "HEALTHY");
    let gateway = server.lock().gateway.clone();
    assert!(gateway.iter().any(|(path, _)| path.ends_with("/checkin")), "{gateway:?}");
    assert!(gateway.iter().all(|(_, value)| value.as_deref() == Some(VALUE)), "{gateway:?}");
    let stored = std::fs::read(agent.path("fleet.enc")).unwrap();
    assert!(!stored.windows(VALUE.len()).any(|window| window == VALUE.as_bytes()));
    let ask = |path: &str| agent.ask("GET", path);
    assert!(
        ask("/liveness").starts_with("HTTP/1.1 200") && ask("/liveness?failon=degraded").starts_with("HTTP/1.1 200")
    );
    assert!(ask("/liveness?failon=x").starts_with("HTTP/1.1 400"));
    assert!(agent.ask("POST", "/v1/configure").starts_with("HTTP/1.1 404"), "only policies configure the agent");
    let answer = ask("/stats");
    let stats: serde_json::Value = serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap();
    assert!(stats["memory_rss_bytes"].as_u64().unwrap() > 0 && stats["components"]["HEALTHY"] == 1, "{stats}");
}

#[test]
fn a_terminated_daemon_stops_its_programs_and_keeps_its_state() {
    let server = TlsServer::start();
    let agent = Agent::new();
    assert_eq!(agent.enroll(&server, &["-a", server.ca_file.to_str().unwrap()]).0, 0);
    let mut daemon = agent.run();
    let status = agent.until_status(|code, status| code == 0 && status["components"][0]["state"] == "HEALTHY");
    let message = status["components"][0]["message"].as_str().unwrap().to_owned();
    let pid = message.split('\'').nth(1).unwrap().to_owned();
    assert!(std::path::Path::new(&format!("/proc/{pid}")).try_exists().unwrap());
    daemon.signal(nix::sys::signal::Signal::SIGTERM);
    assert_eq!(daemon.ended(), 0);
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).try_exists().unwrap());
    assert_eq!(agent.state().policy.unwrap().id, "p");
}

/// The reader of the log can stand still without closing it.
#[test]
fn an_agent_whose_log_stands_still_runs_on() {
    let (server, agent) = (TlsServer::start(), Agent::new());
    assert_eq!(agent.enroll(&server, &["-a", server.ca_file.to_str().unwrap()]).0, 0);
    let (reader, mut log) = std::io::pipe().unwrap();
    let size = nix::fcntl::fcntl(&log, nix::fcntl::FcntlArg::F_SETPIPE_SZ(4096)).unwrap();
    log.write_all(&vec![b'\n'; usize::try_from(size).unwrap()]).unwrap();
    let mut command = agent.command("run");
    let mut daemon = Daemon(command.stdout(Stdio::null()).stderr(log).spawn().unwrap());
    agent.until_status(|code, _| code == 0);
    daemon.signal(nix::sys::signal::Signal::SIGTERM);
    assert_eq!(daemon.ended(), 0);
    drop(reader);
}

#[test]
fn a_self_signed_server_certificate_is_accepted_as_a_ca() {
    let server = TlsServer::self_signed(|_| {});
    let (file, pin) = (server.ca_file.to_str().unwrap(), server.fingerprint.as_str());
    for flags in [&["-a", file][..], &["--ca-sha256", pin], &["-a", file, "--ca-sha256", pin]] {
        let (code, text) = Agent::new().enroll(&server, flags);
        assert_eq!(code, 0, "{flags:?}: {text}");
    }
    let other = TlsServer::self_signed(|_| {});
    let (code, text) = Agent::new().enroll(&server, &["-a", other.ca_file.to_str().unwrap()]);
    assert_eq!(code, 5, "{text}");
    let elsewhere = TlsServer::self_signed(|params| {
        params.subject_alt_names = vec![rcgen::SanType::DnsName("fleet.example".try_into().unwrap())];
    });
    let (code, text) = Agent::new().enroll(&elsewhere, &["-a", elsewhere.ca_file.to_str().unwrap()]);
    assert_eq!(code, 5, "it is trusted, but for another name: {text}");
    assert!(text.contains("is for fleet.example, not for \"127.0.0.1\""), "{text}");
}

#[test]
fn errors_about_certificate_dates_contain_the_hosts_clock() {
    let past = |params: &mut rcgen::CertificateParams| params.not_after = rcgen::date_time_ymd(2020, 1, 2);
    let future = |params: &mut rcgen::CertificateParams| params.not_before = rcgen::date_time_ymd(2999, 1, 2);
    for (server, words) in [
        (TlsServer::issued(past), "expired on 2020-01-02T00:00:00Z; this host's clock says 20"),
        (TlsServer::self_signed(past), "expired on 2020-01-02T00:00:00Z; this host's clock says 20"),
        (TlsServer::issued(future), "not valid before 2999-01-02T00:00:00Z; this host's clock says 20"),
        (TlsServer::self_signed(future), "not valid before 2999-01-02T00:00:00Z; this host's clock says 20"),
    ] {
        let (code, text) = Agent::new().enroll(&server, &["-a", server.ca_file.to_str().unwrap()]);
        assert_eq!(code, 5, "{text}");
        assert!(text.contains(words) && text.contains("hint: if this host's clock is wrong, set it"), "{text}");
    }
}

#[test]
fn a_server_without_tls_is_detected() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let _ = stream.unwrap().write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        }
    });
    let mut command = Agent::new().command("enroll");
    command.args(["--url", &url, "--enrollment-token", TOKEN, "--attempts", "1"]);
    let (code, text) = output(&mut command);
    assert!(code == 5 && text.contains("does not use TLS"), "{code} {text}");
}

#[test]
fn a_malformed_token_is_a_usage_error() {
    let server = TlsServer::start();
    let agent = Agent::new();
    for (token, reason) in [
        (format!("{TOKEN}\n"), "line break"),
        (format!("{TOKEN}\r"), "line break"),
        (String::new(), "is empty"),
        (format!("\"{TOKEN}\""), "in quotes"),
        (format!(" {TOKEN}"), "white space"),
        ("not-a-token!".into(), "not base64"),
    ] {
        let mut command = agent.command("enroll");
        command.args(["--url", &server.url, "-a", server.ca_file.to_str().unwrap()]);
        let (code, text) = output(command.env("MUSTER_ENROLLMENT_TOKEN", &token));
        assert_eq!(code, 2, "{token:?}: {text}");
        assert!(text.contains(reason) && text.contains("hint: ") && !text.contains(TOKEN), "{token:?}: {text}");
    }
    assert!(server.lock().enrolled.is_empty());
    assert!(!agent.path("").try_exists().unwrap(), "nothing is created");
}

#[test]
fn a_base_path_of_another_program_is_rejected_and_left_unchanged() {
    let server = TlsServer::start();
    let agent = Agent::new();
    let base = agent.path("");
    let ca = server.ca_file.to_str().unwrap().to_owned();
    for (shared, foreign) in [(0o1777, None), (0o755, Some("notes.txt"))] {
        std::fs::create_dir_all(&base).unwrap();
        std::fs::set_permissions(&base, std::fs::Permissions::from_mode(shared)).unwrap();
        if let Some(file) = foreign {
            std::fs::write(base.join(file), "x").unwrap();
        }
        let (code, text) = agent.enroll(&server, &["-a", &ca]);
        assert!(code == 2 && text.contains("--base-path") && text.contains("hint: "), "{code} {text}");
        assert_eq!(output(&mut agent.command("run")).0, 2);
        assert_eq!(mode(&base), shared & 0o777);
    }
    assert!(server.lock().enrolled.is_empty());
}

#[test]
fn a_failed_enrollment_changes_nothing() {
    let server = TlsServer::start();
    let agent = Agent::new();
    std::fs::create_dir(agent.path("")).unwrap();
    std::fs::set_permissions(agent.path(""), std::fs::Permissions::from_mode(0o755)).unwrap();
    server.lock().refuse_enroll = Some(401);
    assert_eq!(agent.enroll(&server, &["-a", server.ca_file.to_str().unwrap()]).0, 6);
    assert_eq!((mode(&agent.path("")), std::fs::read_dir(agent.path("")).unwrap().count()), (0o755, 0));
}

#[test]
fn a_forced_enrollment_notifies_the_previous_server() {
    let (old, new) = (TlsServer::start(), TlsServer::start());
    new.lock().agent_id = Some("agent-2".into());
    let agent = Agent::new();
    assert_eq!(agent.enroll(&old, &["-a", old.ca_file.to_str().unwrap()]).0, 0);
    let (code, text) = agent.enroll(&new, &["-a", new.ca_file.to_str().unwrap(), "--force"]);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("Notified the previous server that agent agent-1 has left"), "{text}");
    assert_eq!(old.lock().audits[0]["reason"], "uninstall");
    // Under the same id nobody is gone.
    let (code, text) = agent.enroll(&new, &["-a", new.ca_file.to_str().unwrap(), "--force"]);
    assert_eq!((code, new.lock().audits.len()), (0, 0), "{text}");
    std::fs::write(agent.path("fleet.enc"), b"{").unwrap();
    let (code, text) = agent.enroll(&new, &["-a", new.ca_file.to_str().unwrap(), "--force"]);
    assert!(code == 0 && text.contains("is still enrolled") && text.contains("hint: "), "{text}");
}

#[test]
fn ag81_plain_http_is_refused_before_a_connection() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let agent = Agent::new();
    let mut command = agent.command("enroll");
    let (code, text) = output(command.args(["--url", &url, "--enrollment-token", TOKEN, "--attempts", "1"]));
    assert!(code == 2 && text.contains("unencrypted") && text.contains("--insecure"), "{code} {text}");
    assert_eq!(listener.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
}

#[test]
fn ag82_the_policy_of_the_previous_fleet_is_gone_after_an_enrollment_elsewhere() {
    let (old, new) = (TlsServer::start(), TlsServer::start());
    let agent = Agent::new();
    assert_eq!(agent.enroll(&old, &["-a", old.ca_file.to_str().unwrap()]).0, 0);
    let daemon = agent.run();
    agent.until_status(|code, status| code == 0 && status["components"][0]["state"] == "HEALTHY");
    drop(daemon);
    assert!(agent.state().policy.is_some());
    assert_eq!(agent.enroll(&new, &["-a", new.ca_file.to_str().unwrap(), "--force"]).0, 0);
    assert!(agent.state().policy.is_none());
}

/// Replaces the state until it is killed, if [`WRITER`] is set: the body of another process of the test below.
#[test]
fn ag43_a_kill_at_any_moment_of_a_save_leaves_the_old_or_the_new_state() {
    const WRITER: &str = "MUSTER_TEST_WRITER";
    let save = |store: &DiskStore, number: usize| {
        // Documents of different lengths, so that a mixture of two would not be one.
        let ack_token = format!("{number}:{}", "x".repeat(number * 7919 % 200_000));
        store.save_state(&State { ack_token, ..State::default() })
    };
    if let Some(base) = std::env::var_os(WRITER) {
        let store = DiskStore::new(Layout::new(Utf8PathBuf::from_os_string(base).unwrap()));
        // Until the end of this process.
        (0..usize::MAX).for_each(|number| save(&store, number).unwrap());
    }
    let agent = Agent::new();
    let store = agent.store();
    store.prepare().unwrap();
    save(&store, 0).unwrap();
    for round in 0..40_u64 {
        let mut writer = Command::new(std::env::current_exe().unwrap());
        writer.args(["--exact", "ag43_a_kill_at_any_moment_of_a_save_leaves_the_old_or_the_new_state"]);
        let mut writer = writer.env(WRITER, agent.path("")).stdout(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_micros(20_000 + round * 1_700));
        writer.kill().unwrap();
        writer.wait().unwrap();
        // A new store, as after a restart.
        let token = agent.state().ack_token;
        let (number, filler) = token.split_once(':').unwrap();
        assert_eq!(filler.len(), number.parse::<usize>().unwrap() * 7919 % 200_000);
        save(&agent.store(), 1).unwrap();
    }
}

#[test]
fn ag152_an_idle_agent_is_small() {
    let server = TlsServer::start();
    let agent = Agent::new();
    assert_eq!(agent.enroll(&server, &["-a", server.ca_file.to_str().unwrap()]).0, 0);
    let daemon = agent.run();
    agent.until_status(|code, _| code == 0);
    let resident = |part: &str| -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.0.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(part)?.strip_prefix(':')).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    };
    // Without the pages of the file, of which a debug build has many.
    let own = resident("RssAnon");
    assert!(own < 30_000, "{own} kB");
    // Of these, most have only been used by the start.
    let (program, started) = (resident("RssFile"), Instant::now());
    while resident("RssFile") > program * 3 / 4 {
        assert!(started.elapsed() < Duration::from_secs(60), "{program} kB, then {} kB", resident("RssFile"));
        std::thread::sleep(Duration::from_millis(100));
    }
    agent.until_status(|code, _| code == 0);
}

#[test]
fn ag1_run_is_the_default_command() {
    let agent = Agent::new();
    let mut command = Command::new(env!("CARGO_BIN_EXE_muster-agent"));
    let (code, text) = output(command.arg("--base-path").arg(agent.path("")));
    assert_eq!((code, text.contains("not enrolled")), (13, true), "{text}");
}

#[test]
fn ag86_an_enrollment_at_the_same_server_requests_the_same_id() {
    let (server, other) = (TlsServer::start(), TlsServer::start());
    let agent = Agent::new();
    let ca = server.ca_file.to_str().unwrap();
    assert_eq!(agent.enroll(&server, &["-a", ca]).0, 0);
    assert_eq!(agent.enroll(&server, &["-a", ca, "--force"]).0, 0);
    // The server does not accept the id: the agent becomes a new one.
    server.lock().refuse_ids = true;
    server.lock().agent_id = Some("agent-2".into());
    let (code, text) = agent.enroll(&server, &["-a", ca, "--force"]);
    assert_eq!((code, agent.enrollment().agent_id.as_str()), (0, "agent-2"), "{text}");
    assert_eq!(agent.enroll(&other, &["-a", other.ca_file.to_str().unwrap(), "--force"]).0, 0);
    let enrolled = server.lock().enrolled.clone();
    let refused = server.lock().refused.clone();
    assert_eq!((&enrolled[0]["id"], &enrolled[1]["id"]), (&serde_json::Value::Null, &"agent-1".into()));
    assert_eq!(enrolled[0]["replace_token"], enrolled[1]["replace_token"]);
    assert_eq!((&refused[0]["id"], &enrolled[2]["id"]), (&"agent-1".into(), &serde_json::Value::Null));
    assert_ne!(enrolled[1]["replace_token"], enrolled[2]["replace_token"]);
    assert_eq!(other.lock().enrolled[0]["id"], serde_json::Value::Null, "another server does not know the id");
}

#[test]
fn a_copy_on_another_machine_does_not_run_as_the_original() {
    let server = TlsServer::start();
    let agent = Agent::new();
    let ca = server.ca_file.to_str().unwrap();
    assert_eq!(agent.enroll(&server, &["-a", ca]).0, 0);
    let machine = Fingerprint { system: "another".into(), hardware: String::new() };
    let copied = Enrollment { machine: Some(machine), ..agent.enrollment() };
    agent.store().save_enrollment(&copied).unwrap();
    if Fingerprint::here().system.is_empty() {
        return assert_eq!(
            Fingerprint::here(),
            Fingerprint::default(),
            "a host without a machine id has no fingerprint"
        );
    }
    let (code, text) = output(&mut agent.command("run"));
    assert_eq!((code, text.contains("reset-identity --keep-id")), (13, true), "{text}");
    // The copy becomes a new agent, and the original is not reported as gone.
    assert_eq!(agent.enroll(&server, &["-a", ca, "--force"]).0, 0);
    assert_eq!(server.lock().enrolled[1]["id"], serde_json::Value::Null);
    assert_eq!(server.lock().audits.len(), 0);
    agent.store().save_enrollment(&copied).unwrap();
    let (code, text) = output(agent.command("reset-identity").arg("--keep-id"));
    assert_eq!((code, agent.enrollment().machine), (0, Some(Fingerprint::here())), "{text}");
    assert_eq!(output(&mut agent.command("reset-identity")).0, 0);
    assert_eq!(output(&mut agent.command("run")).0, 13);
}

#[test]
fn ag86_a_notice_that_cannot_be_delivered_is_left_to_the_daemon() {
    let (old, new) = (TlsServer::start(), TlsServer::start());
    new.lock().agent_id = Some("agent-2".into());
    let agent = Agent::new();
    assert_eq!(agent.enroll(&old, &["-a", old.ca_file.to_str().unwrap()]).0, 0);
    old.lock().audit_status = Some(503);
    let (code, text) = agent.enroll(&new, &["-a", new.ca_file.to_str().unwrap(), "--force"]);
    assert_eq!((code, text.contains("will notify it")), (0, true), "{text}");
    old.lock().audit_status = None;
    let _daemon = agent.run();
    agent.until_status(|_, _| old.lock().audits.len() == 1);
    let audit = old.lock().audits[0].clone();
    assert_eq!((&audit["reason"], &audit["departure"]["new_url"]), (&"uninstall".into(), &new.url.clone().into()));
}

#[test]
fn programs_inherit_no_secrets_and_leave_no_processes() {
    let server = TlsServer::start();
    let agent = Agent::new();
    let script = "env > $OUT/env; echo $$ > $OUT/pid-0; \
                  env -i /bin/sh -c '(/usr/bin/setsid /bin/sh -c \"echo \\$\\$ > '$OUT'/pid-1; exec /bin/sleep 600\" &)'; \
                  while [ ! -s $OUT/pid-1 ]; do sleep 0.05; done; touch $OUT/done; exec sleep 600";
    let out = agent.directory.path().to_str().unwrap().to_owned();
    server.lock().program =
        Some(serde_json::json!({"command": "/bin/sh", "args": ["-c", script], "env": {"OUT": out}}));
    assert_eq!(agent.enroll(&server, &["-a", server.ca_file.to_str().unwrap()]).0, 0);
    let mut command = agent.command("run");
    command.args(["--set", "process.stop_timeout=1s"]).envs([
        ("MUSTER_ENROLLMENT_TOKEN", TOKEN),
        ("MUSTER_X", "s3cret"),
        muster_agent::launch::ALLOCATOR,
    ]);
    let mut daemon = Daemon(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    agent.until_status(|_, _| agent.directory.path().join("done").try_exists().unwrap());
    let environment = std::fs::read_to_string(agent.directory.path().join("env")).unwrap();
    assert!(!environment.contains(TOKEN) && !environment.contains("s3cret"), "{environment}");
    assert!(!environment.contains("glibc.malloc"), "{environment}");
    assert!(environment.contains("MUSTER_COMPONENT_ID=process-default-web\n"), "{environment}");
    let pids = ["pid-0", "pid-1"].map(|name| std::fs::read_to_string(agent.directory.path().join(name)).unwrap());
    let is_there = |pid: &String| std::path::Path::new(&format!("/proc/{}", pid.trim())).try_exists().unwrap();
    assert!(pids.iter().all(is_there), "{pids:?}");
    daemon.signal(nix::sys::signal::Signal::SIGTERM);
    assert_eq!(daemon.ended(), 0);
    assert_eq!(pids.iter().filter(|pid| is_there(pid)).count(), 0, "{pids:?}");
}

#[test]
fn ag64_a_killed_agent_leaves_no_program_behind() {
    let server = TlsServer::start();
    let agent = Agent::new();
    let out = agent.directory.path().join("pid");
    let script = format!("ulimit -c; echo $$ > {0}.new; mv {0}.new {0}; exec sleep 600", out.display());
    server.lock().program = Some(serde_json::json!({"command": "sh", "args": ["-c", script]}));
    assert_eq!(agent.enroll(&server, &["-a", server.ca_file.to_str().unwrap()]).0, 0);
    let mut daemon = agent.run();
    agent.until_status(|_, _| out.try_exists().unwrap());
    let pid = std::fs::read_to_string(&out).unwrap();
    let stat = || std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
    assert!(stat().contains("(sleep)"), "the launcher has become the program");
    assert_eq!(std::fs::read_to_string(agent.path("logs/components/process-default-web.log")).unwrap(), "0\n");
    daemon.signal(nix::sys::signal::Signal::SIGKILL);
    daemon.ended();
    let begun = Instant::now();
    while stat().contains("(sleep)") && !stat().contains(") Z ") {
        assert!(begun.elapsed() < Duration::from_secs(5), "it is still running");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn ag80_the_server_must_be_trusted() {
    let (server, other) = (TlsServer::start(), TlsServer::start());
    let agent = Agent::new();
    let (code, text) = agent.enroll(&server, &["-a", other.ca_file.to_str().unwrap()]);
    assert_eq!(code, 5, "{text}");
    assert!(text.contains("--certificate-authorities"), "{text}");
    assert_eq!(agent.enroll(&server, &[]).0, 5, "the platform does not know it");
    assert_eq!(agent.enroll(&server, &["--ca-sha256", &other.fingerprint]).0, 5);
    let ca = server.ca_file.to_str().unwrap();
    assert_eq!(agent.enroll(&server, &["-a", ca, "--ca-sha256", &other.fingerprint]).0, 5);
    assert!(server.lock().enrolled.is_empty());
    let (code, text) = agent.enroll(&server, &["--ca-sha256", &server.fingerprint]);
    assert_eq!(code, 0, "the fingerprint alone is enough when the chain holds the authority: {text}");
    let other_agent = Agent::new();
    assert_eq!(other_agent.enroll(&server, &["--ca-sha256", &server.key_pin]).0, 0, "as is the key's");
}

#[test]
fn a_file_without_certificates_is_rejected_with_its_name_and_a_hint() {
    let server = TlsServer::start();
    let agent = Agent::new();
    let good = std::fs::read_to_string(&server.ca_file).unwrap();
    let damaged = good.replace("MII", "AII");
    for (content, reason) in [
        (&b"garbage"[..], "it is not PEM"),
        (b"", "it is empty"),
        (b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "a private key instead of a certificate"),
        (&[0x30, 0x82, 1, 2, 0xff][..], "binary form (DER)"),
        (&[0x30, 0x82, 1, 2, 2, 1, 3][..], "PKCS#12"),
        (format!("\u{feff}{good}").as_bytes(), "byte order mark"),
        (damaged.as_bytes(), "malformed certificate"),
        (b"-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n", "malformed certificate"),
    ] {
        let file = agent.directory.path().join("given.pem");
        std::fs::write(&file, content).unwrap();
        let (code, text) = agent.enroll(&server, &["-a", file.to_str().unwrap()]);
        assert_eq!(code, 2, "{text}");
        assert!(text.contains("given.pem: ") && text.contains(reason) && text.contains("ca.crt"), "{reason}: {text}");
    }
    let (code, text) = agent.enroll(&server, &["-a", "/nowhere/ca.crt"]);
    assert_eq!((code, text.contains("/nowhere/ca.crt: cannot read the file: No such file")), (2, true), "{text}");
    assert!(server.lock().enrolled.is_empty());
}

#[test]
fn invalid_tokens_and_usage_errors_have_a_hint() {
    let server = TlsServer::start();
    let agent = Agent::new();
    server.lock().refuse_enroll = Some(401);
    let (code, text) = agent.enroll(&server, &["-a", server.ca_file.to_str().unwrap()]);
    assert_eq!((code, text.contains("enrollment token is unknown, revoked or expired")), (6, true), "{text}");
    server.lock().refuse_enroll = Some(503);
    let (code, text) = agent.enroll(&server, &["-a", server.ca_file.to_str().unwrap()]);
    assert_eq!((code, text.contains("not enrolled after 1 attempt:")), (8, true), "{text}");
    let enroll = |url: &str, more: &[&str]| {
        let mut command = agent.command("enroll");
        output(command.args(["--url", url, "--enrollment-token", TOKEN, "--attempts", "1"]).args(more))
    };
    let (code, text) = enroll("http://fleet.example:8220", &["--insecure"]);
    assert_eq!((code, text.contains("unencrypted")), (2, true), "{text}");
    assert_eq!(enroll("http://127.0.0.1:1", &[]).0, 2);
    assert_eq!(enroll("http://127.0.0.1:1", &["--insecure"]).0, 4);
    assert_eq!(output(&mut agent.command("run")).0, 13);
    assert_eq!(output(&mut agent.command("unenroll")).0, 13);
    assert_eq!(output(agent.command("run").args(["--set", "nonsense=1"])).0, 2);
    std::fs::create_dir(agent.path("")).unwrap();
    std::fs::write(agent.path("fleet.enc"), b"{\"version\": 1, ").unwrap();
    let (code, text) = output(&mut agent.command("run"));
    assert_eq!((code, text.contains("fleet.enc is corrupt")), (1, true), "{text}");
}

#[test]
fn ag13_the_agent_presents_its_certificate_which_belongs_together_with_its_key() {
    let (server, pems) = TlsServer::requiring_certificates();
    let agent = Agent::new();
    let files = ["client.crt", "client.key"].map(|name| agent.directory.path().join(name).to_str().unwrap().to_owned());
    for (file, pem) in files.iter().zip(pems) {
        std::fs::write(file, pem).unwrap();
    }
    let flags = ["--elastic-agent-cert", &files[0], "--elastic-agent-cert-key", &files[1]];
    for alone in [&flags[..2], &flags[2..]] {
        let (code, text) = agent.enroll(&server, alone);
        assert!(code == 2 && text.contains("--elastic-agent-cert"), "{code} {text}");
    }
    let ca = ["-a", server.ca_file.to_str().unwrap()];
    assert_ne!(agent.enroll(&server, &ca).0, 0, "without a certificate");
    assert!(server.lock().enrolled.is_empty());
    let (code, text) = agent.enroll(&server, &[&ca[..], &flags].concat());
    assert_eq!(code, 0, "{text}");
    let _daemon = agent.run();
    agent.until_status(|code, _| code == 0);
}

#[test]
fn ag45_a_base_path_of_any_length_works_for_the_daemon_and_its_commands() {
    let server = TlsServer::start();
    let outer = tempfile::tempdir().unwrap();
    let deep = outer.path().join("d".repeat(100));
    std::fs::create_dir(&deep).unwrap();
    let agent = Agent { directory: tempfile::tempdir_in(deep).unwrap() };
    assert_eq!(agent.enroll(&server, &["-a", server.ca_file.to_str().unwrap()]).0, 0);
    assert!(agent.path("run/agent.sock").as_os_str().len() > 108);
    let mut daemon = agent.run();
    agent.until_status(|code, status| code == 0 && status["components"][0]["state"] == "HEALTHY");
    assert_eq!(mode(&agent.path("run/agent.sock")), 0o600);
    assert_eq!(output(&mut agent.command("unenroll")).0, 0);
    assert_eq!(daemon.ended(), 0);
}
