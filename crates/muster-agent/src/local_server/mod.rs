//! The fleet server that this agent runs on its own host.
//!
//! `enroll` and `install` start it with the `--fleet-server…` options, enroll at it, and leave a record. From then on, the
//! daemon runs it as a component, whether or not the agent is enrolled: agents of other hosts depend on it.

pub mod bootstrap;
pub mod components;
pub mod elasticsearch;
pub mod program;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use camino::Utf8PathBuf;
use muster_core::resource_limits::ResourceLimits;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::model::process::{ProcessSpec, Restart};
use crate::model::{Component, Direction, Level, Unit, Work};
use crate::paths::Layout;
use crate::state::{StoreError, record};

/// Version of the record.
pub const LOCAL_SERVER_VERSION: u32 = 1;
/// Type of the component.
pub const KIND: &str = "fleet-server";
/// Id of the component.
pub const COMPONENT: &str = "fleet-server-local";

/// How the server runs: `server.json`. It contains no secrets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalServer {
    /// [`LOCAL_SERVER_VERSION`].
    pub version: u32,
    /// Data directory of the server. It is outside of the base path, so that `uninstall` does not delete the fleet.
    pub data_dir: Utf8PathBuf,
    /// Address of the listener for agents.
    pub host: IpAddr,
    /// Port of the listener for agents.
    pub port: u16,
    /// Port of the listener for this agent, on loopback.
    pub local_port: u16,
    /// URLs for agents; empty means that the server derives one from the host name.
    #[serde(default)]
    pub external_urls: Vec<String>,
    /// The server's certificate and key; `None` means a certificate of the fleet's own CA.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<Certificate>,
    /// Whether the server uses plain HTTP.
    #[serde(default)]
    pub insecure_http: bool,
    /// URL of a PostgreSQL database; `None` means the embedded store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database: Option<String>,
    /// Hash of the settings of an Elasticsearch with which its output was configured. The server keeps the settings themselves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub elasticsearch: Option<String>,
    /// Further configuration keys, as `KEY=VALUE`.
    #[serde(default)]
    pub settings: Vec<String>,
}

/// A certificate that the user provides.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    /// PEM file with the certificate and its chain.
    pub chain: Utf8PathBuf,
    /// PEM file with the private key.
    pub key: Utf8PathBuf,
}

/// A server as a component: its program, and how to find out that it serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerSpec {
    /// The program.
    pub process: ProcessSpec,
    /// File that the server writes when it accepts connections.
    pub ready_file: Utf8PathBuf,
}

impl LocalServer {
    /// Loads the record; `None` if this host runs no server.
    pub fn load(layout: &Layout) -> Result<Option<Self>, StoreError> {
        record::load(&layout.local_server(), LOCAL_SERVER_VERSION)
    }

    /// Replaces the record.
    pub fn save(&self, layout: &Layout) -> Result<(), StoreError> {
        record::save(&layout.local_server(), self)
    }

    /// Returns the URL that this agent uses. It has a listener of its own, so that a rush of other agents cannot cut off
    /// the agent that supervises the server.
    pub fn local_url(&self) -> String {
        let scheme = if self.insecure_http { "http" } else { "https" };
        format!("{scheme}://localhost:{}", self.local_port)
    }

    /// Returns the admin socket of the server.
    pub fn admin_socket(&self) -> Utf8PathBuf {
        self.data_dir.join("admin.sock")
    }

    /// Returns the certificate of the fleet's own CA.
    pub fn own_ca(&self) -> Utf8PathBuf {
        self.data_dir.join("ca.crt")
    }

    fn arguments(&self) -> Vec<String> {
        let mut arguments = vec!["serve".to_owned()];
        let mut option = |name: &str, value: String| arguments.extend([name.to_owned(), value]);
        option("--data-dir", self.data_dir.to_string());
        option("--agent-listen", SocketAddr::new(self.host, self.port).to_string());
        option("--local-listen", format!("127.0.0.1:{}", self.local_port));
        for url in &self.external_urls {
            option("--external-url", url.clone());
        }
        if let Some(Certificate { chain, key }) = &self.certificate {
            option("--tls-cert", chain.to_string());
            option("--tls-key", key.to_string());
        }
        if let Some(database) = &self.database {
            option("--database", database.clone());
        }
        for setting in &self.settings {
            option("--set", setting.clone());
        }
        arguments.extend(self.insecure_http.then(|| "--insecure-http".to_owned()));
        arguments
    }

    /// Returns the component that runs the server.
    pub fn component(&self, layout: &Layout, restart: Restart) -> Arc<Component> {
        let process = ProcessSpec {
            command: layout.server_program().into(),
            args: self.arguments(),
            env: BTreeMap::new(),
            restart,
            stop_timeout: None,
            limits: ResourceLimits::default(),
        };
        let work = Work::Server(ServerSpec { process, ready_file: self.data_dir.join("listen.json") });
        let unit = Unit {
            id: format!("{COMPONENT}-{KIND}"),
            direction: Direction::Input,
            config: Arc::new(json!({})),
            level: Level::default(),
            fault: None,
        };
        let (features, limits) = Default::default();
        let (id, kind) = (COMPONENT.into(), KIND.into());
        Arc::new(Component { id, kind, units: vec![unit], work: Ok(work), features, limits })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn server() -> LocalServer {
        LocalServer {
            version: LOCAL_SERVER_VERSION,
            data_dir: "/srv/fleet".into(),
            host: "0.0.0.0".parse().unwrap(),
            port: 8220,
            local_port: 8221,
            external_urls: Vec::new(),
            certificate: None,
            insecure_http: false,
            database: None,
            elasticsearch: None,
            settings: Vec::new(),
        }
    }

    #[test]
    fn the_arguments_of_the_server_follow_from_the_record() {
        let plain = server();
        let expected = "serve --data-dir /srv/fleet --agent-listen 0.0.0.0:8220 --local-listen 127.0.0.1:8221";
        assert_eq!(
            (plain.arguments().join(" "), plain.local_url()),
            (expected.into(), "https://localhost:8221".into())
        );
        let full = LocalServer {
            external_urls: vec!["https://fleet.example:8220".into()],
            certificate: Some(Certificate { chain: "/c".into(), key: "/k".into() }),
            database: Some("postgres://u@h/d".into()),
            settings: vec!["limits.max_connections=5".into()],
            ..server()
        };
        let more = "--external-url https://fleet.example:8220 --tls-cert /c --tls-key /k --database postgres://u@h/d \
                    --set limits.max_connections=5";
        assert_eq!(full.arguments().join(" "), format!("{expected} {more}"));
        let http = LocalServer { insecure_http: true, host: "127.0.0.1".parse().unwrap(), ..server() };
        assert!(http.arguments().ends_with(&["--insecure-http".into()]));
        assert_eq!(http.local_url(), "http://localhost:8221");
    }

    #[test]
    fn a_record_of_a_newer_version_is_rejected() {
        let directory = tempfile::tempdir().unwrap();
        let layout = Layout::new(camino::Utf8Path::from_path(directory.path()).unwrap());
        assert_eq!(LocalServer::load(&layout).unwrap(), None);
        server().save(&layout).unwrap();
        assert_eq!(LocalServer::load(&layout).unwrap(), Some(server()));
        LocalServer { version: 9, ..server() }.save(&layout).unwrap();
        assert!(matches!(LocalServer::load(&layout).unwrap_err(), StoreError::Newer { found: 9, .. }));
    }
}
