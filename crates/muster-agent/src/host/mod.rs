//! Metadata of the host and the agent (`local_metadata`, EA §3.1).

pub mod fingerprint;
mod network;
mod os;
pub mod readings;
pub mod variables;

use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use crate::version;

/// The metadata of the agent.
#[derive(Clone, Copy, Debug)]
pub struct Own<'a> {
    /// Agent id; empty before enrollment.
    pub agent_id: &'a str,
    /// Log level: `info`.
    pub log_level: &'a str,
    /// Whether the agent can replace its program.
    pub upgradeable: bool,
}

/// A source of metadata.
pub trait Facts: Send + Sync {
    /// Returns the current metadata.
    fn local_metadata(&self, own: Own<'_>) -> Box<RawValue>;
}

/// Metadata of this host.
#[derive(Clone, Copy, Debug, Default)]
pub struct HostFacts;

#[derive(Serialize)]
struct Metadata<'a> {
    elastic: Elastic<'a>,
    host: Host,
    os: os::Os,
}

#[derive(Serialize)]
struct Elastic<'a> {
    agent: Agent<'a>,
}

#[derive(Serialize)]
struct Agent<'a> {
    id: &'a str,
    version: &'static str,
    snapshot: bool,
    #[serde(rename = "build.original")]
    build: String,
    upgradeable: bool,
    log_level: &'a str,
    complete: bool,
    unprivileged: bool,
    fips: bool,
}

#[derive(Serialize)]
struct Host {
    architecture: String,
    hostname: String,
    name: String,
    id: String,
    ip: Vec<String>,
    mac: Vec<String>,
}

impl Facts for HostFacts {
    fn local_metadata(&self, own: Own<'_>) -> Box<RawValue> {
        // The metadata is read for every check-in, because addresses and host names can change while the agent runs.
        let metadata = Metadata { elastic: Elastic { agent: agent(own) }, host: host(), os: os::read() };
        to_raw_value(&metadata).unwrap_or_else(|_| RawValue::NULL.to_owned())
    }
}

fn agent(own: Own<'_>) -> Agent<'_> {
    Agent {
        id: own.agent_id,
        version: version::PROTOCOL_VERSION,
        snapshot: false,
        build: version::build(),
        upgradeable: own.upgradeable,
        log_level: own.log_level,
        complete: false,
        unprivileged: !nix::unistd::geteuid().is_root(),
        fips: false,
    }
}

fn host() -> Host {
    let name = hostname();
    let (ip, mac) = network::addresses();
    Host { architecture: sysinfo::System::cpu_arch(), hostname: name.clone(), name, id: os::machine_id(), ip, mac }
}

/// Returns the name of this host; in a pod, the name of the pod.
pub fn hostname() -> String {
    sysinfo::System::host_name().map(|name| name.to_string()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_has_the_fields_that_servers_read() {
        let raw = HostFacts.local_metadata(Own { agent_id: "a-1", log_level: "info", upgradeable: false });
        let facts: serde_json::Value = serde_json::from_str(raw.get()).unwrap();
        assert_eq!(facts["elastic"]["agent"]["id"], "a-1");
        assert_eq!(facts["elastic"]["agent"]["upgradeable"], false);
        let build = facts["elastic"]["agent"]["build.original"].as_str().unwrap();
        assert!(build.contains(version::agent_version()) && build.contains("muster-agent"), "{build}");
        for pointer in ["/host/architecture", "/host/hostname", "/host/name", "/os/kernel", "/os/family", "/os/full"] {
            assert!(facts.pointer(pointer).unwrap().as_str().is_some_and(|text| !text.is_empty()), "{pointer}: {raw}");
        }
        assert!(facts["host"]["ip"].as_array().unwrap().iter().all(|ip| ip.as_str().unwrap().contains('/')), "{raw}");
    }
}
