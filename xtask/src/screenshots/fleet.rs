//! What the pages of the screenshots show beside the demo's agents: a fleet in use, in which not everything is well.

use std::time::Duration;

use anyhow::Context as _;
use serde_json::json;

use crate::admin::Admin;
use crate::demo::{Muster, Steps, items};
use crate::process::Process;

/// Percentage of the web servers that are degraded on a changed policy, so that its rollout halts.
const DEGRADED: &str = "30";
/// Passphrase of a disk.
const PASSPHRASE: &str = "correct horse battery staple";
/// Number of hosts with orbit and osquery.
const FLEETD_HOSTS: &str = "60";

/// Simulated agents. They end with this value.
pub struct Fleet {
    _drones: Vec<Process>,
    /// Beginnings of paths of an agent and a host of which there is more to see than of others.
    best: [String; 2],
    /// Path of a host whose disk key is stored.
    locked: String,
}

impl Fleet {
    /// Returns the paths of pages to which only some hosts have a link.
    pub fn pages(&self) -> Vec<String> {
        let of = |host: &str, pages: &[&str]| pages.iter().map(|page| format!("{host}/{page}")).collect::<Vec<_>>();
        let mut pages = of(&self.best[1], &["software", "transfer"]);
        pages.extend(of(&self.locked, &["disk-key", "disk-key/reveal", "disk-key/request"]));
        pages
    }

    /// Returns the path of the same page of an agent or a host of which there is more to see.
    pub fn with_more(&self, path: &str) -> String {
        let words: Vec<&str> = path.splitn(4, '/').collect();
        let best = self.best.iter().find(|best| words.len() > 2 && best.starts_with(&format!("/{}/", words[1])));
        match (best, words.get(3)) {
            // Ids have 36 characters; other words stand for pages of their own.
            (Some(best), rest) if words[2].len() == 36 => {
                rest.map_or_else(|| best.clone(), |rest| format!("{best}/{rest}"))
            }
            _ => path.to_owned(),
        }
    }
}

/// Creates the fleet with about this number of agents.
pub fn furnish(muster: &Muster, steps: &mut Steps, agents: u32) -> anyhow::Result<Fleet> {
    settings(muster)?;
    let count = (agents / 2).max(1).to_string();
    let token = policy(muster, "Web servers", "Serve the shop", "nginx")?;
    let web =
        muster.start_drones(&["--degrade-percent", DEGRADED, "--tags", "web,berlin", "--count", &count], &token)?;
    let token = policy(muster, "Databases", "Hold the orders", "postgresql")?;
    muster.run(&["policy", "recovery-code", "Databases", "--yes"])?;
    let databases = muster.start_drones(&["--tags", "database", "--first", "5000", "--count", &count], &token)?;
    let secret = muster.json(&["enrollment-key", "create", "--family", "fleetd", "--name", "Laptops"])?;
    let secret = secret["api_key"].as_str().context("no secret")?;
    let hosts = ["--family", "fleetd", "--first", "9000", "--interval", "2", "--count", FLEETD_HOSTS];
    let hosts = muster.start_drones(&hosts, secret)?;
    steps.wait("simulated agents enrolled", || {
        let of = |filter: &str| -> anyhow::Result<usize> {
            Ok(items(&muster.json(&["agent", "list", "--filter", filter, "--limit", "1000"])?).count())
        };
        Ok((of("tags:database and status:online")? == of("tags:database")? && of("family:osquery")? >= 60)
            .then_some(()))
    })?;
    let found = muster.json(&["host", "list", "--filter", "family:osquery"])?;
    let host = items(&found).next().and_then(|host| host["id"].as_str()).context("no host of osquery")?;
    queries(muster)?;
    let carve = "SELECT * FROM carves WHERE carve = 1 AND path = '/etc/hosts'";
    muster.run(&["query", "run", carve, "--host", host, "--timeout", "20"])?;
    let locked = disk_key(muster, secret)?;
    let agent = act(muster)?;
    let rollout = roll_out(muster)?;
    steps.wait("the rollout has halted", || {
        let state = muster.json(&["rollout", "show", &rollout])?;
        Ok(state["state"].as_str().is_some_and(|state| state.starts_with("halted")).then_some(()))
    })?;
    let best = [format!("/agents/{agent}"), format!("/hosts/{host}")];
    Ok(Fleet { _drones: vec![web, databases, hosts], best, locked: format!("/hosts/{locked}") })
}

/// Creates what administrators set up once.
fn settings(muster: &Muster) -> anyhow::Result<()> {
    muster.run(&["space", "create", "shop", "--name", "Shop"])?;
    muster.run(&["enrollment-key", "create", "--name", "Berlin office", "--tag", "berlin", "--expires", "30d"])?;
    muster.run(&["enrollment-key", "create", "--one-time", "--name", "Lena's laptop"])?;
    muster.run(&["proxy", "create", "Head office", "--address", "http://proxy.example.com:3128"])?;
    muster.run(&["server-host", "create", "Head office", "--address", "https://fleet.example.com:8220"])?;
    muster.run(&["download-source", "create", "Mirror", "--address", "https://mirror.example.com/"])?;
    muster.run(&["alert", "create", "On call", "--webhook", "https://hooks.example.com/muster"])?;
    muster.run(&["user", "create", "ann@example.com", "--full-name", "Ann Lee"])?;
    muster.run(&["role", "bind", "helpdesk", "--user", "ann@example.com"])?;
    muster.run(&["role", "create", "Tagger", "--privilege", "agents.read", "--privilege", "agents.tag"])?;
    let provider =
        ["--issuer", "https://id.example.com", "--client-id", "muster", "--api-url", "https://fleet.example.com"];
    muster.run(&[&["oidc-provider", "create", "staff"][..], &provider].concat())?;
    let output = json!({"name": "Logs", "type": "elasticsearch", "hosts": ["https://elasticsearch.example.com:9200"]});
    Admin::new(muster.socket()).post("/api/fleet/outputs", &output)?;
    Ok(())
}

/// Applies a policy, and returns an enrollment token for it.
fn policy(muster: &Muster, name: &str, description: &str, logs: &str) -> anyhow::Result<String> {
    let file = write(muster, &format!("{logs}.yml"), &document(name, description, logs, ""))?;
    muster.run(&["policy", "apply", "-f", &file, "--yes"])?;
    let key = muster.json(&["enrollment-key", "create", "--policy", name, "--name", &format!("{name} in Berlin")])?;
    Ok(key["api_key"].as_str().context("no token")?.to_owned())
}

fn document(name: &str, description: &str, logs: &str, more: &str) -> String {
    format!(
        "\
name: {name}
description: {description}
settings: {{ is_protected: true }}
config:
  outputs:
    default: {{ type: elasticsearch, hosts: ['https://elasticsearch.example.com:9200'] }}
  inputs:
    - id: {logs}-logs
      type: filestream
      paths: ['/var/log/{logs}/*.log']
{more}    - id: host
      type: system/metrics
      period: 10s
"
    )
}

/// Changes the policy of the web servers in waves, and returns the id of the rollout.
fn roll_out(muster: &Muster) -> anyhow::Result<String> {
    let text = document("Web servers", "Serve the shop", "nginx", "      parsers: [{ndjson: {target: ''}}]\n");
    let file = write(muster, "nginx.yml", &text)?;
    let waves = ["--waves", "10,50,100", "--soak", "10m", "--yes", "--output", "name"];
    Ok(muster.run(&[&["rollout", "create", "-f", &file][..], &waves].concat())?.trim().to_owned())
}

/// Requests actions of agents, some of which end well. Returns the id of an agent that has run several.
fn act(muster: &Muster) -> anyhow::Result<String> {
    muster.run(&[
        "agent",
        "upgrade",
        "--filter",
        "tags:database",
        "--version",
        "9.5.3",
        "--rollout",
        "10m",
        "--yes",
    ])?;
    muster.run(&["agent", "tag", "drone-3", "--tag", "canary", "--yes"])?;
    muster.run(&["agent", "unenroll", "drone-5001", "--yes"])?;
    muster.run(&["agent", "respond", "drone-5002", "--reason", "Stolen from the data center", "--yes"])?;
    let agent = muster.json(&["agent", "show", "drone-5003"])?;
    let agent = agent["id"].as_str().context("no agent")?.to_owned();
    muster.run(&["agent", "log-level", "--level", "debug", &agent])?;
    muster.run(&["agent", "diagnostics", &agent, "--yes"])?;
    // Its failure is a rejected request.
    let mut stranger = muster.start_drones(&["--count", "1", "--mode", "enroll"], "bm8tc3VjaC1rZXk6bm90aGluZw==")?;
    std::thread::sleep(Duration::from_secs(2));
    stranger.stop(Duration::from_secs(5))?;
    Ok(agent)
}

/// Creates what asks the hosts of fleetd.
fn queries(muster: &Muster) -> anyhow::Result<()> {
    let sql = "SELECT name, version FROM deb_packages WHERE name = 'openssl'";
    muster.run(&["query", "save", "OpenSSL version", sql, "--description", "Which hosts need the update"])?;
    muster.run(&["label", "create", "Laptops", "--query", "SELECT 1 FROM battery", "--platform", "linux"])?;
    let remedy = "Open Settings, then Privacy, and switch disk encryption on.";
    let encrypted = "SELECT 1 FROM disk_encryption WHERE encrypted = 1";
    muster.run(&["host-check", "create", "Disk is encrypted", "--query", encrypted, "--resolution", remedy])?;
    let pack = write(muster, "pack.yml", "queries:\n  users: {query: SELECT * FROM logged_in_users, interval: 600}\n")?;
    muster.run(&["pack", "apply", "Logins", "-f", &pack])?;
    let script = write(muster, "free-space.sh", "#!/bin/sh\ndf -h /\n")?;
    muster.run(&["script", "save", "Free space", &script, "--description", "Space on the root file system"])?;
    muster.run(&["script", "run", "--saved", "Free space", "--all", "--yes", "--no-wait"])?;
    let package = write(muster, "nginx_1.26.0_amd64.deb", "!<arch>\n")?;
    muster.run(&["software", "installer", "add", &package])?;
    muster.run(&["software", "install", "nginx", "--all", "--yes", "--no-wait"])?;
    muster.run(&["query", "run", sql, "--all", "--timeout", "20"])?;
    Ok(())
}

/// Enrolls a host with orbit alone, which stores a disk key: simulated hosts have none. Returns the host's id.
fn disk_key(muster: &Muster, secret: &str) -> anyhow::Result<String> {
    let enroll = json!({"enroll_secret": secret, "hardware_uuid": "44444444-AAAA-4000-8000-000000000001",
        "hostname": "lena-laptop", "platform": "ubuntu"});
    let enrolled = muster.send("/api/fleet/orbit/enroll", &enroll)?;
    let key =
        json!({"orbit_node_key": enrolled["orbit_node_key"], "passphrase": PASSPHRASE, "salt": "s", "key_slot": 1});
    muster.send("/api/fleet/orbit/luks_data", &key)?;
    let host = muster.json(&["host", "show", "lena-laptop"])?;
    Ok(host["id"].as_str().context("no host with a disk key")?.to_owned())
}

/// Writes a file into the demo's directory, and returns its path.
fn write(muster: &Muster, name: &str, text: &str) -> anyhow::Result<String> {
    let file = muster.directory().join(name);
    std::fs::write(&file, text)?;
    Ok(file.display().to_string())
}
