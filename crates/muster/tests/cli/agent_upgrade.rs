//! A real muster-agent that is upgraded from the server, with a package that the server stores.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use camino::Utf8Path;
use muster_agent::homes::{self, HomeName};
use muster_agent::paths::Layout;
use muster_agent::upgrade::pack::{SigningKey, VERSION_FILE, pack_at};
use muster_agent::upgrade::package::{archive_name, manifest_name};
use serde_json::Value;

use crate::world::{World, fails, json, new_policy, new_token, ok, run, world};

/// A program that starts for the test of a new version, and exits at once as a daemon.
const CRASHES: &str = "#!/bin/sh\nif [ \"$1\" = --version ]; then echo muster-agent 0.3.0; exit 0; fi\nexit 1\n";

/// An agent of version 0.1.0 in a directory of its own.
pub struct Installed {
    directory: tempfile::TempDir,
    layout: Layout,
    key: SigningKey,
    program: Vec<u8>,
    daemon: Option<Child>,
}

impl Installed {
    pub fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let layout = Layout::new(Utf8Path::from_path(directory.path()).unwrap().join("agent"));
        let (program, key) = (program(directory.path()), SigningKey::generate().unwrap());
        let name = HomeName::new("0.1.0", &muster_core::hex::sha256(&program)).unwrap();
        let home = layout.home(&name);
        std::fs::create_dir_all(home.path()).unwrap();
        std::fs::set_permissions(layout.base(), std::fs::Permissions::from_mode(0o700)).unwrap();
        std::fs::write(home.program(), &program).unwrap();
        std::fs::set_permissions(home.program(), std::fs::Permissions::from_mode(0o750)).unwrap();
        std::fs::write(home.path().join(VERSION_FILE), "0.1.0\n").unwrap();
        homes::activate(&layout, &name).unwrap();
        let keys = format!("keys: [\"{}\"]", key.public_text());
        let settings = format!("upgrade:\n  {keys}\n  grace_period: 12s\n  check_interval: 1s\n");
        std::fs::write(layout.settings(), settings).unwrap();
        Self { directory, layout, key, program, daemon: None }
    }

    fn command(&self, name: &str) -> Command {
        let mut command = Command::new(self.layout.link());
        command.arg(name).arg("--base-path").arg(self.layout.base()).stdin(Stdio::null());
        command
    }

    pub fn enroll(&mut self, world: &World, token: &str) {
        let mut enroll = self.command("enroll");
        enroll.args(["--url", &format!("https://{}", world.agents), "--enrollment-token", token]);
        let output = enroll.arg("-a").arg(world.data().join("ca.crt")).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let mut run = self.command("run");
        self.daemon = Some(run.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    }

    /// Uploads a package with `muster package upload`.
    fn upload(&self, version: &str, program: &[u8]) {
        let packed = pack_at(flate2::Compression::none(), version, program, &[], &self.key).unwrap();
        let put = |name: String, content: &[u8]| -> String {
            let path = self.directory.path().join(name);
            std::fs::write(&path, content).unwrap();
            path.to_str().unwrap().to_owned()
        };
        let (archive, manifest) =
            (put(archive_name(version), &packed.archive), put(manifest_name(version), &packed.manifest));
        let printed = ok(&["package", "upload", &archive, &manifest]);
        assert_eq!(printed.lines().count(), 2, "{printed}");
    }
}

impl Drop for Installed {
    fn drop(&mut self) {
        if let Some(daemon) = &mut self.daemon {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
        // The daemon that a watcher has started.
        let pid = std::fs::read_to_string(self.layout.lock()).unwrap_or_default();
        let _ = Command::new("kill").args(["-9", pid.trim()]).stderr(Stdio::null()).status();
    }
}

/// The program of muster-agent without symbols, which are most of a debug build.
fn program(directory: &Path) -> Vec<u8> {
    let built = PathBuf::from(env!("CARGO_BIN_EXE_muster")).with_file_name("muster-agent");
    assert!(built.try_exists().unwrap(), "build it first: cargo build --package muster-agent");
    let stripped = directory.join("stripped");
    let status = Command::new("strip").arg("-o").arg(&stripped).arg(built).status().unwrap();
    assert!(status.success());
    std::fs::read(stripped).unwrap()
}

pub fn until(what: &str, good: impl Fn() -> Option<Value>) -> Value {
    let end = Instant::now() + Duration::from_secs(150);
    loop {
        if let Some(found) = good() {
            return found;
        }
        assert!(Instant::now() < end, "{what}");
        std::thread::sleep(Duration::from_millis(200));
    }
}

#[test]
fn ag125_ag131_muster_agent_is_upgraded_from_the_server_and_rolled_back_if_the_new_version_crashes() {
    let policy = new_policy("upgrade-of-muster-agent");
    let mut host = Installed::new();
    host.enroll(world(), &new_token(&policy));
    let filter = format!("policy_id:\"{policy}\"");
    let agent = || json(&["agent", "list", "--filter", &filter])[0].clone();
    let known = until("the agent is online", || Some(agent()).filter(|agent| agent["status"] == "online"));
    let id = known["id"].as_str().unwrap();
    assert_eq!(known["agent"]["version"], "0.1.0", "{known}");
    let refused = run(&["agent", "upgrade", id, "--version", "0.1.0"]);
    assert!(refused.code != 0 && refused.err.contains("not newer"), "{}", refused.err);

    host.upload("0.2.0", &host.program);
    let ended = |version: &str| {
        let action = ok(&["agent", "upgrade", id, "--version", version]).trim().to_owned();
        until("the upgrade ends", || {
            let shown = json(&["action", "show", &action]);
            Some(shown.clone())
                .filter(|shown| matches!(shown["action"]["status"].as_str(), Some("COMPLETE" | "FAILED")))
        })
    };
    let shown = ended("0.2.0");
    assert_eq!(shown["action"]["status"], "COMPLETE", "{shown}");
    assert_eq!(agent()["agent"]["version"], "0.2.0");

    host.upload("0.3.0", CRASHES.as_bytes());
    let shown = ended("0.3.0");
    assert_eq!(shown["action"]["status"], "FAILED", "{shown}");
    let error = shown["results"][0]["error"].as_str().unwrap();
    assert!(error.contains("rolled back to 0.2.0"), "{shown}");
    assert_eq!(agent()["agent"]["version"], "0.2.0");
    let shown = ended("0.4.0");
    let error = shown["results"][0]["error"].as_str().unwrap();
    assert!(error.contains("has no file muster-agent-0.4.0"), "a version that nobody uploaded: {shown}");
}

#[test]
fn a_file_that_is_no_package_is_rejected_before_anything_is_uploaded() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("elastic-agent-9.6.0-linux-x86_64.tar.gz");
    std::fs::write(&file, "x").unwrap();
    let error = fails(2, &["package", "upload", file.to_str().unwrap()]);
    assert!(error.contains("not a file of a package") && error.contains("muster-agent-VERSION"), "{error}");
    let error = fails(2, &["package", "upload", "/nowhere/muster-agent-0.2.0-linux-x86_64.tar.gz"]);
    assert!(error.contains("No such file"), "{error}");
}

#[test]
fn packages_are_deleted_only_after_confirmation() {
    let directory = tempfile::tempdir().unwrap();
    let name = "muster-agent-0.9.0-linux-x86_64.tar.gz";
    let file = directory.path().join(name);
    std::fs::write(&file, b"cut").unwrap();
    ok(&["package", "upload", file.to_str().unwrap()]);
    std::fs::write(&file, b"whole").unwrap();
    let error = fails(6, &["package", "upload", file.to_str().unwrap()]);
    assert!(error.contains("muster package delete"), "{error}");
    assert!(ok(&["package", "delete", name, "--dry-run"]).contains("would delete"));
    ok(&["package", "delete", name, "--yes"]);
    fails(3, &["package", "delete", name, "--yes"]);
    ok(&["package", "upload", file.to_str().unwrap()]);
    ok(&["package", "delete", name, "--yes"]);
}
