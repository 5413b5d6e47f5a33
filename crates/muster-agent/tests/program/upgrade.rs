//! Upgrades of real processes: the daemon becomes the new version, and a watcher returns to the previous one.

use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use camino::Utf8Path;
use flate2::Compression;
use muster_agent::homes::{self, HomeName};
use muster_agent::paths::Layout;
use muster_agent::upgrade::pack::{SigningKey, VERSION_FILE, pack_at};
use muster_agent::upgrade::package::{archive_name, manifest_name};
use muster_core::hex;
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::server::TlsServer;
use crate::{Agent, Daemon, output};

/// A program that starts for the test of a new version, and exits at once as a daemon.
const CRASHES: &str = "#!/bin/sh\nif [ \"$1\" = --version ]; then echo muster-agent 0.3.0; exit 0; fi\nexit 1\n";

/// An installed agent that is enrolled.
struct Installed {
    agent: Agent,
    server: TlsServer,
    layout: Layout,
    key: SigningKey,
    program: Vec<u8>,
}

impl Installed {
    fn new() -> Self {
        let (agent, server, key) = (Agent::new(), TlsServer::start(), SigningKey::generate().unwrap());
        let layout = Layout::new(Utf8Path::from_path(&agent.path("")).unwrap());
        let program = stripped(agent.directory.path());
        let name = HomeName::new("0.1.0", &hex::sha256(&program)).unwrap();
        let home = layout.home(&name);
        std::fs::create_dir_all(home.path()).unwrap();
        std::fs::write(home.program(), &program).unwrap();
        std::fs::set_permissions(home.program(), std::fs::Permissions::from_mode(0o750)).unwrap();
        std::fs::write(home.path().join(VERSION_FILE), "0.1.0\n").unwrap();
        homes::activate(&layout, &name).unwrap();
        let settings = format!(
            "upgrade:\n  keys: [\"{}\"]\n  grace_period: 12s\n  check_interval: 1s\ncheckin:\n  state_change_gap: 100ms\n",
            key.public_text()
        );
        std::fs::set_permissions(layout.base(), std::fs::Permissions::from_mode(0o700)).unwrap();
        std::fs::write(layout.settings(), settings).unwrap();
        let installed = Self { agent, server, layout, key, program };
        let mut enroll = installed.command("enroll");
        enroll.args(["--url", &installed.server.url, "--enrollment-token", crate::TOKEN, "--attempts", "1"]);
        let (code, text) = output(enroll.arg("-a").arg(&installed.server.ca_file));
        assert_eq!(code, 0, "{text}");
        installed
    }

    /// A command of the active version.
    fn command(&self, name: &str) -> Command {
        let mut command = Command::new(self.layout.link());
        command.arg(name).arg("--base-path").arg(self.layout.base());
        command
    }

    fn run(&self) -> Daemon {
        let mut command = self.command("run");
        Daemon(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }

    /// Waits longer than other tests do, because a watcher needs its time, also on a busy machine.
    fn until(&self, good: impl Fn(i32, &Value) -> bool) -> Value {
        let begun = Instant::now();
        loop {
            let (code, status) = self.agent.status();
            if good(code, &status) {
                return status;
            }
            assert!(begun.elapsed() < Duration::from_secs(150), "{code} {status}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Puts a package on the server.
    fn offer(&self, version: &str, program: &[u8]) {
        let packed = pack_at(Compression::none(), version, program, &[], &self.key).unwrap();
        let mut server = self.server.lock();
        server.files.insert(archive_name(version), packed.archive);
        server.files.insert(manifest_name(version), packed.manifest);
    }

    fn send_upgrade(&self, id: &str, version: &str) {
        self.server.lock().actions.push(json!({"agent_id": "agent-1", "created_at": "", "id": id, "type": "UPGRADE",
            "input_type": "", "data": {"version": version}}));
    }

    fn acks(&self, id: &str) -> Vec<Value> {
        self.server.lock().acks.iter().filter(|ack| ack["action_id"] == id).cloned().collect()
    }

    fn active(&self) -> String {
        homes::active(&self.layout).unwrap().unwrap().version().to_owned()
    }

    fn is_finished(&self) -> bool {
        !self.layout.upgrade().try_exists().unwrap()
    }

    /// Returns the processes that watch an upgrade of this agent.
    fn watchers(&self) -> Vec<u32> {
        // Commands normalize the path.
        let base = self.layout.base().as_str().trim_end_matches('/');
        let is_watcher = |pid: &u32| {
            let line = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let words: Vec<&str> = line.split('\0').collect();
            words.contains(&"watch") && words.contains(&base)
        };
        let processes = std::fs::read_dir("/proc").unwrap().flatten();
        processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(is_watcher).collect()
    }

    /// Starts another watcher, and restarts the daemon, which does the same.
    fn the_watcher_stays_the_only_one(&self) {
        self.until(|_, _| self.watchers().len() == 1);
        let first = self.watchers();
        let record: Value = serde_json::from_slice(&std::fs::read(self.layout.upgrade()).unwrap()).unwrap();
        let (code, text) = output(self.command("watch").args(["--id", record["id"].as_str().unwrap()]));
        assert_eq!(code, 0, "it ends at once: {text}");
        assert_eq!(output(&mut self.command("restart")).0, 0);
        self.until(|code, _| code == 0);
        // On a slow machine, the upgrade may be complete by now.
        self.until(|_, _| self.watchers() == first || self.is_finished());
    }
}

impl Drop for Installed {
    /// Stops a daemon that a watcher has started.
    fn drop(&mut self) {
        let pid = std::fs::read_to_string(self.layout.lock()).ok().and_then(|text| text.trim().parse().ok());
        if let Some(pid) = pid {
            let _ = nix::sys::signal::kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
}

/// The program without symbols, which are most of a debug build.
fn stripped(directory: &Path) -> Vec<u8> {
    let file = directory.join("stripped");
    let mut strip = Command::new("strip");
    let (code, text) = output(strip.arg("-o").arg(&file).arg(env!("CARGO_BIN_EXE_muster-agent")));
    assert_eq!(code, 0, "{text}");
    let mut bytes = Vec::new();
    std::fs::File::open(file).unwrap().read_to_end(&mut bytes).unwrap();
    bytes
}

fn zombies_of(pid: u32) -> usize {
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    let is_zombie = |child: &&str| {
        let stat = std::fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
        stat.contains(") Z ")
    };
    children.split_whitespace().filter(is_zombie).count()
}

#[test]
fn ag125_ag127_ag129_ag131_ag177_an_upgrade_runs_in_the_same_process_and_a_crashing_version_is_rolled_back() {
    let host = Installed::new();
    let mut daemon = host.run();
    let before = host.until(|code, status| code == 0 && status["components"][0]["state"] == "HEALTHY");
    assert_eq!(before["version"], "0.1.0");
    // What a component remembers, such as its place in a file.
    let position = host.layout.component("process-default-web").join("position");
    std::fs::write(&position, "17").unwrap();

    host.offer("0.2.0", &host.program);
    host.send_upgrade("good", "0.2.0");
    let after = host.until(|code, status| code == 0 && status["version"] == "0.2.0");
    assert_eq!(after["pid"], daemon.0.id(), "the daemon became the new version");
    // The watcher belongs to the old version, and outlives the daemon that started it.
    let watching = host.until(|_, status| status["upgrade"]["state"] == "UPG_WATCHING");
    assert_eq!(watching["upgrade"]["target_version"], "0.2.0");
    host.the_watcher_stays_the_only_one();
    host.until(|code, status| code == 0 && status["upgrade"].is_null() && host.is_finished());
    assert_eq!((host.active(), host.acks("good").len()), ("0.2.0".into(), 1));
    assert_eq!(host.acks("good")[0]["error"], Value::Null);
    assert_eq!(homes::installed(&host.layout).unwrap().len(), 2, "the previous version is kept");
    // Nothing stays a zombie.
    host.until(|_, _| zombies_of(daemon.0.id()) == 0);

    host.offer("0.3.0", CRASHES.as_bytes());
    host.send_upgrade("bad", "0.3.0");
    assert_eq!(daemon.ended(), 1, "the new version exits at once");
    let back = host.until(|_, status| status["version"] == "0.2.0" && status["upgrade"]["state"] == "UPG_FAILED");
    assert_ne!(back["pid"], daemon.0.id(), "the watcher has started the previous version");
    let reason = back["upgrade"]["metadata"]["error_msg"].as_str().unwrap();
    assert!(reason.starts_with("rolled back to 0.2.0: ") && reason.contains("control socket"), "{reason}");
    host.until(|_, _| host.acks("bad").len() == 1 && host.is_finished());
    assert_eq!(host.acks("bad")[0]["error"], reason);
    assert_eq!(host.active(), "0.2.0");
    assert_eq!(std::fs::read_to_string(position).unwrap(), "17", "after an upgrade and a roll-back");
    let left: Vec<String> =
        homes::installed(&host.layout).unwrap().iter().map(|name| name.version().to_owned()).collect();
    assert!(!left.contains(&"0.3.0".to_owned()), "{left:?}");
    assert!(host.server.lock().upgrades.iter().any(|details| details["state"] == "UPG_ROLLBACK"));
}

#[test]
fn ag21_ag52_ag171_a_command_upgrades_from_a_directory_and_returns_to_the_previous_version() {
    let host = Installed::new();
    let daemon = host.run();
    host.until(|code, _| code == 0);
    let packages = host.agent.directory.path().join("packages");
    std::fs::create_dir(&packages).unwrap();
    let packed = pack_at(Compression::none(), "0.2.0", &host.program, &[], &host.key).unwrap();
    std::fs::write(packages.join(archive_name("0.2.0")), packed.archive).unwrap();
    std::fs::write(packages.join(manifest_name("0.2.0")), packed.manifest).unwrap();
    let source = format!("file://{}", packages.display());
    let (code, text) = output(host.command("upgrade").args(["0.2.0", "--source-uri", &source]));
    assert!(code == 1 && text.contains("the server of the fleet decides") && text.contains("--force"), "{code} {text}");
    let (code, text) = output(host.command("upgrade").args(["0.9.0", "--force", "--source-uri", &source]));
    assert_eq!((code, text.contains("upgrade to 0.9.0 failed")), (1, true), "{text}");
    // Signatures are always verified.
    let (code, text) = output(host.command("upgrade").args(["0.2.0", "--force", "--skip-verify"]));
    assert!(code == 2 && text.contains("--skip-verify"), "{code} {text}");
    // The daemon continues although nobody waits for it.
    let mut waiting = host.command("upgrade");
    waiting.args(["0.2.0", "-f", "--source-uri", &source]).stderr(Stdio::piped());
    let mut waiting = waiting.spawn().unwrap();
    let mut progress = [0];
    waiting.stderr.as_mut().unwrap().read_exact(&mut progress).unwrap();
    nix::sys::signal::kill(Pid::from_raw(i32::try_from(waiting.id()).unwrap()), Signal::SIGINT).unwrap();
    // On a busy machine, the upgrade can have ended before the signal.
    waiting.wait().unwrap();
    host.until(|_, status| status["version"] == "0.2.0" && host.is_finished());
    let (code, text) = output(host.command("upgrade").args(["0.1.0", "--rollback", "--force"]));
    assert_eq!((code, text.contains("The agent runs version 0.1.0")), (0, true), "{text}");
    let (code, text) = output(&mut host.command("version"));
    assert_eq!((code, text.as_str()), (0, "Binary: 0.1.0\nDaemon: 0.1.0\n"));
    host.until(|_, _| host.is_finished());
    let (code, text) = output(&mut host.command("restart"));
    assert_eq!((code, text.contains("has restarted")), (0, true), "{text}");
    host.until(|code, status| code == 0 && status["pid"] == daemon.0.id());
    let (code, text) = output(host.command("upgrade").args(["soon"]));
    assert_eq!((code, text.contains("not a version")), (2, true), "{text}");
}

#[test]
fn ag22_ag24_ag150_ag165_logs_and_diagnostics_are_available_without_a_daemon_and_contain_no_secret() {
    let host = Installed::new();
    host.server.lock().program = Some(
        json!({"command": "/bin/sh", "args": ["-c", "echo started; exec /bin/sleep 600"], "env": {"PASSWORD": "canary-1"},
            "api_key": "canary-2"}),
    );
    let mut daemon = host.run();
    host.until(|code, status| code == 0 && status["components"][0]["state"] == "HEALTHY");
    let bundle = |name: &str| {
        let file = host.agent.directory.path().join(name);
        let (code, text) = output(host.command("diagnostics").arg("--file").arg(&file));
        assert_eq!((code, crate::mode(&file)), (0, 0o600), "{text}");
        let plain = muster_agent::net::gzip::decompress(&std::fs::read(&file).unwrap(), 8 << 20).unwrap().unwrap();
        (text, String::from_utf8(plain).unwrap())
    };
    let (_, running) = bundle("running.gz");
    let (code, text) = output(host.command("logs").args(["-n", "5"]));
    assert!(code == 0 && text.contains("\"level\":\"INFO\""), "{text}");
    let (code, text) = output(host.command("logs").args(["--component", "../agent"]));
    assert_eq!((code, text.contains("no log of component")), (2, true), "{text}");
    daemon.signal(Signal::SIGKILL);
    daemon.ended();
    let (text, dead) = bundle("dead.gz");
    assert!(text.contains("no daemon is running"), "{text}");
    let (code, text) = output(host.command("logs").args(["-n", "5", "-C", "process-default-web"]));
    assert_eq!((code, text.as_str()), (0, "started\n"));
    let (code, text) = output(&mut host.command("version"));
    assert!(code == 12 && text.contains("Binary: "), "{code} {text}");
    for bundle in [&running, &dead] {
        // Arguments can contain passwords.
        assert!(bundle.contains("/bin/sh") && !bundle.contains("/bin/sleep"), "{bundle}");
        // The access key is `azpz`.
        for secret in ["canary-", "azpz", crate::TOKEN] {
            assert!(!bundle.contains(secret), "{secret}: {bundle}");
        }
    }
    let (code, text) = output(host.command("completions").arg("bash"));
    assert!(code == 0 && text.contains("complete -F"), "{text}");
}

/// The program alone has a version, too: only a command that names a base path asks for the agent there.
#[test]
fn version_requires_an_agent_only_where_one_is_named() {
    let agent = Agent::new();
    let (code, text) = output(&mut agent.command("version"));
    assert!(code == 13 && text.starts_with("Binary: "), "{code} {text}");
    // Its base path is that of the installed program.
    let home = agent.path("versions/0.1.0-x");
    std::fs::create_dir_all(&home).unwrap();
    std::fs::write(agent.path("install.json"), "{}").unwrap();
    std::fs::copy(env!("CARGO_BIN_EXE_muster-agent"), home.join("muster-agent")).unwrap();
    let mut command = Command::new(home.join("muster-agent"));
    let (code, text) = output(command.arg("version").env_remove("MUSTER_AGENT_BASE_PATH"));
    assert!(code == 0 && text.contains("Daemon: no agent is enrolled under"), "{code} {text}");
}
