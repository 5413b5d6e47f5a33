//! `muster software installer …`, `install`, `uninstall`, `installs`, `results` and `stop`, with a host over the server's listener.

use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::agents::answered_text;
use crate::host::fleetd;
use crate::world::{command, fails, json, ok, world};

/// An orbit that installs software.
struct Orbit {
    key: Value,
}

impl Orbit {
    fn enroll(uuid: &str, hostname: &str) -> Self {
        let secret = json(&["enrollment-key", "create", "--family", "fleetd", "--name", hostname])["api_key"].clone();
        let body = json!({"enroll_secret": secret, "hardware_uuid": uuid, "hostname": hostname, "platform": "ubuntu"});
        let (status, enrolled) = fleetd("/api/fleet/orbit/enroll", &body);
        assert_eq!(status, 200, "{enrolled}");
        let orbit = Self { key: enrolled["orbit_node_key"].clone() };
        orbit.pending("pending_software_installer_ids");
        orbit
    }

    fn pending(&self, list: &str) -> Vec<Value> {
        let (_, config) = fleetd("/api/fleet/orbit/config", &json!({"orbit_node_key": self.key}));
        config["notifications"][list].as_array().cloned().unwrap_or_default()
    }

    fn await_one(&self, list: &str) -> Value {
        let end = Instant::now() + Duration::from_secs(20);
        loop {
            if let Some(id) = self.pending(list).into_iter().next() {
                return id;
            }
            assert!(Instant::now() < end, "nothing in {list}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Waits for an install, downloads the package, and reports a result. Returns the package.
    fn install(&self, exit_code: i64) -> String {
        let id = self.await_one("pending_software_installer_ids");
        let ids = json!({"orbit_node_key": self.key, "install_uuid": id});
        let (status, details) = fleetd("/api/fleet/orbit/software_install/details", &ids);
        assert_eq!((status, &details["max_retries"]), (200, &json!(1)), "{details}");
        let body = json!({"orbit_node_key": self.key, "installer_id": details["installer_id"]}).to_string();
        let path = "/api/fleet/orbit/software_install/package?alt=media";
        let (status, package) = answered_text(world(), path, "-", "orbit", &body);
        assert_eq!(status, 200, "{package}");
        let result = json!({"orbit_node_key": self.key, "install_uuid": id, "install_script_exit_code": exit_code,
            "install_script_output": "done\n"});
        let path = "/api/fleet/orbit/software_install/result";
        assert_eq!(answered_text(world(), path, "-", "orbit", &result.to_string()), (204, String::new()));
        package
    }

    /// Waits for an uninstall, and reports a result. Returns the script.
    fn uninstall(&self) -> String {
        let id = self.await_one("pending_script_execution_ids");
        let ids = json!({"orbit_node_key": self.key, "execution_id": id});
        let (status, script) = fleetd("/api/fleet/orbit/scripts/request", &ids);
        assert_eq!(status, 200, "{script}");
        let result =
            json!({"orbit_node_key": self.key, "execution_id": id, "output": "", "runtime": 1, "exit_code": 0});
        assert_eq!(fleetd("/api/fleet/orbit/scripts/result", &result), (200, json!({})));
        script["script_contents"].as_str().unwrap().to_owned()
    }
}

/// Runs a command while the host does something.
fn during<T>(words: &[&str], act: impl FnOnce() -> T) -> (Option<i32>, String, String, T) {
    let mut running = command(words);
    let running = running.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let done = act();
    let output = running.wait_with_output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr), done)
}

#[test]
fn software_is_uploaded_installed_and_uninstalled() {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, content: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let content = format!("!<arch>\n{}", "x".repeat(3 << 20));
    let package = write("cli-tool_1.2_all.deb", &content);
    let (script, after) = (write("remove.sh", "apt-get purge cli-tool\n"), write("after.sh", "cli-tool --version\n"));
    let installer = |words: &[&str]| ok(&[&["software", "installer"], words].concat());
    let told = installer(&["add", &package, "--dry-run"]);
    assert!(told.contains("would upload cli-tool 1.2"), "{told}");
    let options = ["--uninstall-script", &script, "--post-install-script", &after, "--condition", "SELECT 1"];
    let made = json(&[&["software", "installer", "add", &package], options.as_slice()].concat());
    assert_eq!((&made["state"], &made["size"]), (&json!("ready"), &json!(content.len())), "{made}");
    assert!(installer(&["list"]).contains("cli-tool_1.2_all.deb"));
    assert!(installer(&["show", "CLI-tool"]).contains("apt-get purge cli-tool"));
    fails(6, &["software", "installer", "add", &package]);
    let archive = write("cli-tool-2.tar.gz", "not an archive");
    let words = ["software", "installer", "add", &archive, "--platform", "linux", "--install-script", &script];
    fails(2, &[&words[..], &["--name", "cli-archive", "--version", "2"]].concat());
    assert!(!installer(&["list"]).contains("cli-archive"), "an upload that failed leaves nothing");
    fails(2, &["software", "installer", "add", &package, "--version", "3", "--sha256", &"0".repeat(64)]);

    let orbit = Orbit::enroll("44444444-AAAA-4000-8000-000000000001", "install-1");
    let on = ["--host", "install-1"];
    assert!(
        ok(&[&["software", "install", "cli-tool", "--dry-run"], &on[..]].concat())
            .contains("would install cli-tool 1.2 on 1 host")
    );
    let install = ["software", "install", "cli-tool", "--retries", "1", "--expires", "600"];
    let (code, out, err, fetched) = during(&[&install[..], &on].concat(), || orbit.install(0));
    assert_eq!((code, fetched == content), (Some(0), true), "{err}");
    assert!(out.contains("install-1") && out.contains("installed"), "{out}");
    let filtered = ["--filter", "hostname:install-1", "--yes", "--output", "json"];
    let (code, out, err, _) = during(&[&install[..], &filtered].concat(), || orbit.install(3));
    let results: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &results[0]["failed_step"]), (Some(1), &json!("the install script")), "{err}");
    assert!(err.contains("1 of 1 host reported, 1 failed"), "{err}");
    let (code, out, err, script) =
        during(&[&["software", "uninstall", "cli-tool"], &on[..]].concat(), || orbit.uninstall());
    assert_eq!((code, script.as_str()), (Some(0), "apt-get purge cli-tool\n"), "{err}");
    assert!(out.contains("uninstalled"), "{out}");

    let made = json(&[&["software", "install", "cli-tool", "--no-wait"], &on[..]].concat());
    let id = made["id"].as_str().unwrap();
    assert!(ok(&["software", "results", id]).contains("pending"));
    fails(6, &["software", "installer", "delete", "cli-tool", "--yes"]);
    assert!(ok(&["software", "stop", id]).contains("is stopped"));
    assert!(orbit.pending("pending_software_installer_ids").is_empty());
    let listed = json(&["software", "installs"]);
    assert!(listed.as_array().unwrap().iter().any(|run| run["id"] == made["id"]), "{listed}");
    let of_host = json(&["software", "installs", "--host", "install-1"]);
    assert_eq!(of_host.as_array().map(Vec::len), Some(4), "{of_host}");
    fails(2, &["software", "install", "cli-tool"]);
    fails(2, &["software", "install", "cli-tool", "--all"]);
    installer(&["delete", "cli-tool", "--yes"]);
    fails(3, &["software", "install", "cli-tool", "--all", "--yes"]);
    fails(3, &["software", "installer", "show", "cli-tool"]);
}
