//! Installation and removal, without a service manager.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use muster_core::{recovery_code, uninstall_token};
use serde_json::{Value, json};

use crate::server::TlsServer;
use crate::{Agent, Daemon, TOKEN, output};

/// Uninstall token of the protected policy.
pub const UNINSTALL: &str = "0123456789abcdef0123456789abcdef";

impl Agent {
    pub fn install(&self, server: &TlsServer, more: &[&str]) -> (i32, String) {
        let mut command = self.command("install");
        command.args(["--service", "none", "--url", &server.url, "-a", server.ca_file.to_str().unwrap()]);
        // Not in the arguments, so that a search for the token finds only what the agent has written.
        output(command.args(["--attempts", "1"]).args(more).env("MUSTER_ENROLLMENT_TOKEN", TOKEN))
    }

    /// Runs the installed program. It finds its base path by itself.
    pub fn installed(&self, args: &[&str]) -> (i32, String) {
        output(&mut self.installed_command(args))
    }

    pub fn installed_command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(self.path("muster-agent"));
        command.args(args).env_remove("MUSTER_ENROLLMENT_TOKEN").env_remove("MUSTER_AGENT_BASE_PATH");
        command
    }

    pub fn start(&self) -> Daemon {
        let mut command = self.installed_command(&["run", "--set", "process.stop_timeout=1s"]);
        Daemon(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }

    pub fn until_healthy(&self) {
        self.until_status(|code, status| code == 0 && status["components"][0]["state"] == "HEALTHY");
    }

    fn notifier(&self) -> PathBuf {
        self.directory.path().join("agent-notifier")
    }
}

/// Installs an agent with a protected policy, and runs it.
pub fn protected(server: &TlsServer, agent: &Agent) -> Daemon {
    protected_by(server, agent, json!({}))
}

/// Does the same with these members of `agent.protection` beside the usual ones.
fn protected_by(server: &TlsServer, agent: &Agent, mut protection: Value) -> Daemon {
    protection["enabled"] = true.into();
    protection["uninstall_token_hash"] = uninstall_token::hash(UNINSTALL).into();
    server.lock().protection = Some(protection);
    assert_eq!(agent.install(server, &[]).0, 0);
    let daemon = agent.start();
    agent.until_healthy();
    daemon
}

/// Returns all files and directories below `path`, without following links.
pub fn tree(path: &Path) -> Vec<PathBuf> {
    let mut found = vec![path.to_owned()];
    if path.symlink_metadata().unwrap().is_dir() {
        for entry in std::fs::read_dir(path).unwrap() {
            found.extend(tree(&entry.unwrap().path()));
        }
    }
    found
}

pub fn until(what: &str, done: impl Fn() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < Duration::from_secs(60), "{what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn ag4_ag20_ag46_ag88_ag137_an_installed_agent_runs_and_is_uninstalled() {
    let server = TlsServer::start();
    let agent = Agent::new();
    let (code, text) = agent.install(&server, &["--tag", " a ,,b", "--tag", "c"]);
    assert_eq!(code, 0, "{text}");
    assert_eq!(server.lock().enrolled[0]["metadata"]["tags"], json!(["a", "b", "c"]));
    let mut daemon = agent.start();
    agent.until_healthy();
    assert_eq!(agent.installed(&["status"]).0, 0, "without --base-path");
    let odd = "a \"b\"  'c' $d";
    let (code, text) = agent.installed(&["status", "--output", odd]);
    assert!(code == 2 && text.contains(odd), "arguments arrive unchanged: {code} {text}");
    let (code, text) = agent.install(&server, &[]);
    assert!(code == 7 && text.contains(agent.path("").to_str().unwrap().trim_end_matches('/')), "{code} {text}");
    let (code, text) = output(agent.command("uninstall").arg("--force"));
    assert!(code == 2 && text.contains("muster-agent uninstall"), "another copy: {code} {text}");
    let (code, text) = agent.installed(&["uninstall"]);
    assert_eq!((code, text.contains("--force")), (2, true), "without a terminal: {text}");
    let (code, text) = agent.installed(&["uninstall", "--force", "--reason", "replaced"]);
    assert_eq!(code, 0, "{text}");
    assert_eq!(daemon.ended(), 0);
    let audit = server.lock().audits[0].clone();
    assert_eq!((&audit["reason"], &audit["departure"]["why"]), (&"uninstall".into(), &"replaced".into()));
    assert!(audit["departure"]["process"].as_str().unwrap().starts_with("uninstall < "), "{audit}");
    assert_eq!(std::fs::read_dir(agent.directory.path()).unwrap().count(), 0, "nothing is left");
}

/// The token of this test is in no other one, whose processes are searched, too.
#[test]
fn ag9_the_enrollment_token_is_in_no_argument_or_environment_of_an_installation() {
    const OWN_TOKEN: &str = "Q0FOQVJZLWluc3RhbGw6dG9rZW4=";
    let (server, agent) = (TlsServer::start(), Agent::new());
    let file = agent.directory.path().join("token");
    std::fs::write(&file, format!("{OWN_TOKEN}\n")).unwrap();
    let mut install = agent.command("install");
    install.args(["--service", "none", "--url", &server.url, "-a", server.ca_file.to_str().unwrap()]);
    install.args(["--enrollment-token", &format!("@{}", file.display())]).stdout(Stdio::null());
    let mut running = install.spawn().unwrap();
    let base = agent.path("");
    let base = base.to_str().unwrap().trim_end_matches('/');
    let mut seen = 0;
    let status = loop {
        for process in std::fs::read_dir("/proc").unwrap().flatten() {
            let part = |name: &str| std::fs::read(process.path().join(name)).unwrap_or_default();
            let text = [part("cmdline"), part("environ")].concat();
            let text = String::from_utf8_lossy(&text);
            seen += usize::from(text.contains(base));
            assert!(!text.contains(OWN_TOKEN), "{text}");
        }
        if let Some(status) = running.try_wait().unwrap() {
            break status;
        }
    };
    assert!(status.success() && seen > 0, "{status} {seen}");
    let daemon = agent.start();
    agent.until_healthy();
    let environment = std::fs::read(format!("/proc/{}/environ", daemon.0.id())).unwrap();
    assert!(!String::from_utf8_lossy(&environment).contains(OWN_TOKEN));
}

#[test]
fn ag23_ag38_ag40_ag41_an_installation_is_private_and_no_secret_is_readable() {
    let server = TlsServer::start();
    let agent = Agent::new();
    assert_eq!(agent.install(&server, &[]).0, 0);
    let mut daemon = agent.start();
    agent.until_healthy();
    daemon.signal(nix::sys::signal::Signal::SIGTERM);
    assert_eq!(daemon.ended(), 0);
    for path in tree(&agent.path("")) {
        let metadata = path.symlink_metadata().unwrap();
        let mode = metadata.permissions().mode();
        assert!(metadata.is_symlink() || mode & 0o007 == 0, "{} {mode:o}", path.display());
        if metadata.is_file() && !path.ends_with("muster-agent") {
            let bytes = std::fs::read(&path).unwrap();
            for secret in [TOKEN, "azpz", agent.enrollment().replace_token.unwrap().expose()] {
                let found = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
                assert!(!found, "{} contains {secret}", path.display());
            }
        }
    }
    let (code, text) = agent.installed(&["inspect", "--output", "json"]);
    let shown: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((code, &shown["agent_id"], &shown["installed"]), (0, &"agent-1".into(), &true.into()));
    assert!(shown["key"].as_str().unwrap().starts_with("file "), "{text}");
    assert!(!text.contains("azpz"), "{text}");
}

#[test]
fn ag38_ag39_ag153_an_installation_consists_of_these_files() {
    let (server, agent) = (TlsServer::start(), Agent::new());
    assert_eq!(agent.install(&server, &[]).0, 0);
    let base = agent.path("");
    let mut found: Vec<String> = tree(&base).iter().map(|path| entry(&base, path)).collect();
    found.sort();
    let expected = [
        " 0700",
        "fleet.enc 0600",
        "install.json 0600",
        "logs 0700",
        "muster-agent -> versions/VERSION/muster-agent",
        "run 0700",
        "secret.key 0600",
        "state.enc 0600",
        "versions 0700",
        "versions/VERSION 0700",
        "versions/VERSION/muster-agent 0700",
        "versions/VERSION/package.version 0600",
    ];
    assert_eq!(found, expected);
}

/// Returns the path of an entry with its mode, or its target; the name of the version is replaced.
fn entry(base: &Path, path: &Path) -> String {
    let home = std::fs::read_dir(base.join("versions")).unwrap().next().unwrap().unwrap().file_name();
    let plain = |path: &Path| path.to_str().unwrap().replace(home.to_str().unwrap(), "VERSION");
    let name = plain(path.strip_prefix(base).unwrap());
    let metadata = path.symlink_metadata().unwrap();
    if metadata.is_symlink() {
        return format!("{name} -> {}", plain(&path.read_link().unwrap()));
    }
    format!("{name} {:04o}", metadata.permissions().mode() & 0o7777)
}

#[test]
fn ag156_one_line_of_input_answers_one_prompt() {
    let server = TlsServer::start();
    let agent = Agent::new();
    assert_eq!(agent.install(&server, &[]).0, 0);
    let uninstall = format!("{} uninstall", agent.path("muster-agent").display());
    let (code, text) = agent.installed(&["uninstall"]);
    assert!(code == 2 && text.contains("requires confirmation"), "without any input: {code} {text}");
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("{uninstall}; echo $?; {uninstall} >/dev/null; echo $?; cat")]);
    let mut shell = shell.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    shell.stdin.take().unwrap().write_all(b"n\ny\nthe rest\n").unwrap();
    let printed = shell.wait_with_output().unwrap().stdout;
    assert_eq!(String::from_utf8(printed).unwrap(), "1\n0\nthe rest\n");
    assert!(!agent.path("").try_exists().unwrap());
}

#[test]
fn ag8_a_failed_installation_leaves_nothing() {
    let server = TlsServer::start();
    let agent = Agent::new();
    server.lock().refuse_enroll = Some(401);
    let (code, text) = agent.install(&server, &[]);
    assert_eq!((code, text.contains("was undone")), (6, true), "{text}");
    assert_eq!(std::fs::read_dir(agent.directory.path()).unwrap().count(), 0);
    // An agent that was enrolled before is kept.
    server.lock().refuse_enroll = None;
    assert_eq!(agent.enroll(&server, &["-a", server.ca_file.to_str().unwrap()]).0, 0);
    server.lock().refuse_enroll = Some(401);
    assert_eq!(agent.install(&server, &[]).0, 6);
    assert_eq!(agent.enrollment().agent_id, "agent-1");
    assert!(!agent.path("install.json").try_exists().unwrap() && !agent.path("versions").try_exists().unwrap());
}

#[test]
fn ag3_ag5_ag154_invalid_requests_change_nothing() {
    let server = TlsServer::start();
    let agent = Agent::new();
    let mut relative = Command::new(env!("CARGO_BIN_EXE_muster-agent"));
    relative.current_dir(agent.directory.path()).args(["install", "--base-path", "agent", "--service", "none"]);
    let (code, text) = output(&mut relative);
    assert_eq!((code, text.contains("not absolute")), (2, true), "{text}");
    let (code, text) = output(agent.command("install").args(["--service", "none", "--url", &server.url]));
    assert_eq!((code, text.contains("--enrollment-token")), (2, true), "{text}");
    let (code, text) = output(agent.command("install").args(["--service", "none", "--enrollment-token", TOKEN]));
    assert_eq!((code, text.contains("--url")), (2, true), "{text}");
    assert_eq!(output(agent.command("install").args(["--service", "none", "--delay-enroll"])).0, 2);
    assert_eq!(output(agent.command("install").args(["--service", "none", "--namespace", "../x"])).0, 2);
    assert_eq!(std::fs::read_dir(agent.directory.path()).unwrap().count(), 0);
    std::fs::create_dir(agent.path("")).unwrap();
    std::fs::write(agent.path("agent.yml"), "").unwrap();
    let (code, text) = output(agent.command("uninstall").arg("--force"));
    assert_eq!((code, text.contains("no agent is installed")), (1, true), "{text}");
    assert!(agent.path("agent.yml").try_exists().unwrap());
}

#[test]
fn ag142_ag143_a_protected_agent_is_removed_only_with_its_token() {
    let server = TlsServer::start();
    let agent = Agent::new();
    let mut daemon = protected(&server, &agent);
    let ca = server.ca_file.to_str().unwrap().to_owned();
    let enroll = ["enroll", "--force", "--url", &server.url, "-a", &ca, "--enrollment-token", TOKEN];
    for (command, args) in [
        ("uninstall", &["uninstall", "--force"][..]),
        ("uninstall", &["uninstall", "--force", "--uninstall-token", "wrong"]),
        ("unenroll", &["unenroll"]),
        ("enroll", &enroll),
        ("upgrade", &["upgrade", "0.0.1"]),
        ("upgrade", &["upgrade", "99.0.0", "--rollback"]),
    ] {
        let (code, text) = agent.installed(args);
        assert_eq!((code, text.contains("protected")), (14, true), "{command}: {text}");
    }
    assert_eq!(agent.install(&server, &["--force"]).0, 14);
    agent.until_healthy();
    let refused: Vec<Value> = server.lock().audits.clone();
    assert_eq!(refused.len(), 7, "{refused:?}");
    assert!(refused.iter().all(|audit| audit["reason"] == "refused"), "{refused:?}");
    let file = agent.directory.path().join("tokens");
    std::fs::write(&file, format!("other\n{UNINSTALL}\n")).unwrap();
    let (code, text) = agent.installed(&["uninstall", "--force", "--uninstall-token", file.to_str().unwrap()]);
    assert_eq!(code, 0, "{text}");
    assert_eq!(daemon.ended(), 0);
    assert_eq!(server.lock().audits[7]["reason"], "uninstall");
}

#[test]
fn ag142_a_protected_agent_whose_server_is_lost_is_removed_with_the_recovery_code() {
    let server = TlsServer::start();
    let agent = Agent::new();
    let code = "7RK2M-0D9VW-XQ4TB-H31NZ";
    let hash = recovery_code::hash(code, &muster_core::testing::Sequence::new());
    let mut daemon = protected_by(&server, &agent, json!({"recovery_code_hash": hash}));
    let (status, text) = agent.installed(&["uninstall", "--force", "--uninstall-token", "7RK2M-0D9VW-XQ4TB-H31NY"]);
    assert_eq!((status, text.contains("protected")), (14, true), "{text}");
    let file = agent.directory.path().join("code");
    std::fs::write(&file, format!("{}\n", code.to_lowercase())).unwrap();
    let (status, text) = agent.installed(&["uninstall", "--force", "--uninstall-token", file.to_str().unwrap()]);
    assert_eq!((status, daemon.ended()), (0, 0), "{text}");
    let audits = server.lock().audits.clone();
    let reasons: Vec<_> = audits.iter().map(|audit| audit["reason"].as_str().unwrap()).collect();
    assert_eq!(reasons, ["refused", "recovery_code", "uninstall"]);
    assert!(!audits[1].to_string().to_uppercase().contains(code), "{audits:?}");
}

#[test]
fn ag138_a_notice_that_cannot_be_delivered_is_left_to_the_notifier() {
    let server = TlsServer::start();
    let agent = Agent::new();
    assert_eq!(agent.install(&server, &[]).0, 0);
    server.lock().audit_status = Some(503);
    let begun = Instant::now();
    let (code, text) = agent.installed(&["uninstall", "--force"]);
    assert_eq!((code, text.contains("keeps trying")), (0, true), "{text}");
    assert!(begun.elapsed() < Duration::from_secs(60));
    assert!(!agent.path("").try_exists().unwrap() && agent.notifier().try_exists().unwrap());
    let readable =
        tree(&agent.notifier()).iter().any(|path| path.symlink_metadata().unwrap().permissions().mode() & 0o077 != 0);
    assert!(!readable);
    server.lock().audit_status = None;
    until("the notice is delivered", || server.lock().audits.len() == 1);
    until("the notifier removes itself", || !agent.notifier().try_exists().unwrap());
}

#[test]
fn ag139_without_a_notice_nothing_is_sent() {
    let server = TlsServer::start();
    let agent = Agent::new();
    assert_eq!(agent.install(&server, &[]).0, 0);
    assert_eq!(agent.installed(&["uninstall", "--force", "--skip-fleet-audit"]).0, 0);
    assert!(server.lock().audits.is_empty() && !agent.notifier().try_exists().unwrap());
}

#[test]
fn ag91_a_delayed_enrollment_takes_place_once_at_the_first_start() {
    let server = TlsServer::start();
    let agent = Agent::new();
    let (code, text) = agent.install(&server, &["--delay-enroll"]);
    assert_eq!(code, 0, "{text}");
    assert!(server.lock().enrolled.is_empty() && agent.path("enroll.enc").try_exists().unwrap());
    let mut daemon = agent.start();
    agent.until_healthy();
    assert!(!agent.path("enroll.enc").try_exists().unwrap());
    daemon.signal(nix::sys::signal::Signal::SIGTERM);
    assert_eq!(daemon.ended(), 0);
    let _daemon = agent.start();
    agent.until_healthy();
    assert_eq!(server.lock().enrolled.len(), 1);
}

#[test]
fn a_forced_installation_keeps_the_enrollment() {
    let server = TlsServer::start();
    let agent = Agent::new();
    assert_eq!(agent.install(&server, &[]).0, 0);
    let mut daemon = agent.start();
    agent.until_healthy();
    let mut again = agent.command("install");
    let (code, text) = output(again.args(["--service", "none", "--force"]));
    assert_eq!((code, daemon.ended()), (0, 0), "the former daemon is stopped: {text}");
    assert_eq!((agent.enrollment().agent_id.as_str(), server.lock().enrolled.len()), ("agent-1", 1));
    let _daemon = agent.start();
    agent.until_healthy();
}

/// A service whose program fails to uninstall it while there is a file `refuse`.
const SERVICE: &str = r#"#!/bin/sh
case $1 in
check) test -e DIRECTORY/service ;;
install) touch DIRECTORY/service ;;
uninstall) test ! -e DIRECTORY/refuse && rm DIRECTORY/service && echo "$2 $(cat "$3")" >> DIRECTORY/token ;;
esac
"#;

/// Installs an agent with such a service, and runs it until the service is installed.
fn with_service(server: &TlsServer, agent: &Agent) -> Daemon {
    let hash = uninstall_token::hash(UNINSTALL);
    server.lock().protection = Some(json!({"enabled": true, "uninstall_token_hash": hash}));
    server.lock().endpoint = true;
    assert_eq!(agent.install(server, &[]).0, 0);
    std::fs::create_dir(agent.path("components")).unwrap();
    let specification = format!(
        "version: 2\ninputs:\n- name: endpoint\n  description: x\n  platforms: [{}]\n  outputs: [elasticsearch]\n  service:\n    \
         operations:\n      check: {{args: [check]}}\n      install: {{args: [install]}}\n      uninstall: {{args: [uninstall]}}\n",
        muster_agent::host::variables::platform()
    );
    std::fs::write(agent.path("components/endpoint.spec.yml"), specification).unwrap();
    let program = SERVICE.replace("DIRECTORY", agent.directory.path().to_str().unwrap());
    std::fs::write(agent.path("components/endpoint"), program).unwrap();
    std::fs::set_permissions(agent.path("components/endpoint"), std::fs::Permissions::from_mode(0o700)).unwrap();
    let daemon = agent.start();
    until("the service is recorded", || {
        std::fs::read_dir(agent.path("services")).is_ok_and(|mut found| found.any(|_| true))
    });
    until("the service is installed", || agent.directory.path().join("service").try_exists().unwrap());
    daemon
}

#[test]
fn ag77_ag141_a_service_that_cannot_be_uninstalled_keeps_the_agent_on_the_host() {
    let server = TlsServer::start();
    let agent = Agent::new();
    let mut daemon = with_service(&server, &agent);
    let path = |name: &str| agent.directory.path().join(name);
    std::fs::write(path("refuse"), "").unwrap();
    let (code, text) = agent.installed(&["uninstall", "--force", "--uninstall-token", UNINSTALL]);
    assert!(
        code == 1 && text.contains("endpoint was not uninstalled") && text.contains("stays installed"),
        "{code} {text}"
    );
    assert!(text.contains("--keep-services"), "{text}");
    assert_eq!(daemon.ended(), 0);
    assert!(server.lock().audits.is_empty() && agent.path("install.json").try_exists().unwrap());
    std::fs::remove_file(path("refuse")).unwrap();
    let (code, text) = agent.installed(&["uninstall", "--force", "--uninstall-token", UNINSTALL]);
    assert!(code == 0 && text.contains("service of the component endpoint was uninstalled"), "{code} {text}");
    let given = std::fs::read_to_string(path("token")).unwrap();
    assert_eq!(given, format!("--uninstall-token {UNINSTALL}\n"), "from a file, and not in the arguments");
    assert!(!path("service").try_exists().unwrap() && !agent.path("").try_exists().unwrap());
    assert_eq!(server.lock().audits[0]["reason"], "uninstall");
}

#[test]
fn with_keep_services_an_agent_is_uninstalled_without_its_services() {
    let server = TlsServer::start();
    let agent = Agent::new();
    let mut daemon = with_service(&server, &agent);
    let args = ["uninstall", "--force", "--keep-services", "--uninstall-token", UNINSTALL];
    let (code, text) = agent.installed(&args);
    assert_eq!((code, daemon.ended()), (0, 0), "{text}");
    assert!(agent.directory.path().join("service").try_exists().unwrap() && !agent.path("").try_exists().unwrap());
}
