//! The first start of the server on this host, by the command that enrolls the agent at it.
//!
//! The server runs as a child of the command, under the same supervision as later under the daemon. When the agent is
//! enrolled, the command stops it, and the daemon starts it again.

use muster_core::error_chain::chain;
use std::sync::Arc;
use std::time::Duration;

use camino::Utf8PathBuf;
use http::{Method, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::elasticsearch::Elasticsearch;
use super::{COMPONENT, LocalServer, program};
use crate::components::log_file::LogFile;
use crate::components::supervisor::Supervisor;
use crate::components::{Components, Health, Host};
use crate::control::client;
use crate::entropy::System;
use crate::exit::{self, Failure};
use crate::interrupt::Interrupt;
use crate::launch::Guard;
use crate::model::process::Restart;
use crate::paths::Layout;
use crate::settings::ProcessSettings;
use crate::state::enrollment::Secret;

/// Maximum time for a response of the server's API: longer than the server takes to test an Elasticsearch.
const ANSWER: Duration = Duration::from_secs(40);
/// Name of the policy of agents that run servers.
const POLICY_NAME: &str = "Fleet servers";
/// Validity of the enrollment key, which is used at once.
const KEY_EXPIRES: &str = "1h";

/// The first start of a server.
#[derive(Clone, Debug)]
pub struct Bootstrap {
    /// How the server runs.
    pub server: LocalServer,
    /// Its program, which is copied into the base path.
    pub program: Utf8PathBuf,
    /// Id of the policy of this agent, which is created if it does not exist.
    pub policy: String,
    /// Elasticsearch for the output of this policy.
    pub elasticsearch: Option<Elasticsearch>,
    /// Maximum time for the server to start, and then for its Elasticsearch to respond.
    pub timeout: Duration,
}

/// A server that the command has started.
pub struct Running {
    layout: Layout,
    components: Supervisor,
    /// The record before the start.
    former: Option<LocalServer>,
}

impl Bootstrap {
    /// Starts the server, and returns when it accepts connections.
    pub async fn start(&self, layout: &Layout, interrupt: &Interrupt) -> Result<Running, Failure> {
        let former = LocalServer::load(layout)?;
        self.install_program(layout)?;
        self.server.save(layout)?;
        // Guarded: if this command is killed, the server must end with it, and not keep the port.
        let host = Host::new(layout.clone(), ProcessSettings::default(), Arc::new(System)).guarded(Guard::own());
        let components = Supervisor::new(Arc::new(host));
        // Not restarted: a server that fails to start is reported, not tried for ever.
        components.want(vec![self.server.component(layout, Restart::Never)]);
        let running = Running { layout: layout.clone(), components, former };
        eprintln!("Starting the server; its log is {}", log_path(layout));
        match interrupt.unless(self.wait(&running)).await {
            Ok(()) => Ok(running),
            Err(failure) => {
                running.abandon().await;
                Err(failure)
            }
        }
    }

    /// Copies the program into the base path.
    pub fn install_program(&self, layout: &Layout) -> Result<(), Failure> {
        program::install(layout, &self.program)
            .map_err(|error| Failure::new(exit::FAILED, format!("copying {}: {error}", self.program)))
    }

    async fn wait(&self, running: &Running) -> Result<(), Failure> {
        let deadline = Instant::now() + self.timeout;
        loop {
            // There is one component.
            let states = running.components.states();
            let state = states.first().map(|component| (component.state, component.message.as_str()));
            match state {
                Some((Health::Healthy, _)) => return Ok(()),
                Some((Health::Failed | Health::Stopped, message)) => {
                    let reason = message.strip_prefix("Failed: ").unwrap_or(message);
                    let failure = Failure::new(exit::FAILED, format!("the server did not start: {reason}"));
                    return Err(if reason.contains(".listen") { failure.hint(ADDRESSES) } else { failure });
                }
                _ => {}
            }
            // Woken by each change of the state, so the time of the start is not rounded up to an interval.
            if tokio::time::timeout_at(deadline, running.components.changed()).await.is_err() {
                let last = LogFile::new(log_path(&running.layout), u64::MAX, 0).last_message();
                let last = last.map_or_else(|| "it printed nothing".into(), |line| format!("its last message: {line}"));
                let message = format!("the server did not start within {:?}; {last}", self.timeout);
                return Err(Failure::new(exit::TIMEOUT, message)
                    .hint("--fleet-server-timeout is the maximum time for the server to start"));
            }
        }
    }

    /// Creates the policy of this agent unless it exists, and an enrollment key that can be used once.
    pub async fn token(&self) -> Result<Secret, Failure> {
        #[derive(Deserialize)]
        struct Created {
            item: Key,
        }
        #[derive(Deserialize)]
        struct Key {
            #[serde(default)]
            api_key: String,
        }
        let (status, body) = self.request(Method::GET, &self.policy_path(), None).await?;
        match status {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND => self.create_policy(None).await?,
            _ => return Err(refused("policy", status, &body)),
        }
        // For one use within an hour: the key only has to survive until the command has enrolled.
        let key = json!({"policy_id": self.policy, "expiration": KEY_EXPIRES, "max_uses": 1, "hidden": true});
        let (status, body) = self.request(Method::POST, "enrollment_api_keys", Some(&key)).await?;
        let created: Option<Created> = status.is_success().then(|| serde_json::from_slice(&body).ok()).flatten();
        match created.map(|created| created.item.api_key).filter(|token| !token.is_empty()) {
            Some(token) => Ok(Secret::new(token)),
            None => Err(refused("enrollment key", status, &body)),
        }
    }

    pub(super) async fn create_policy(&self, output: Option<&str>) -> Result<(), Failure> {
        let policy = json!({
            "id": self.policy,
            // A policy with another id was chosen by the administrator, and is named by it.
            "name": if self.policy == DEFAULT_POLICY { POLICY_NAME } else { &self.policy },
            "namespace": "default",
            "description": "Agents that run a fleet server",
            "data_output_id": output,
        });
        let (status, body) = self.request(Method::POST, "agent_policies", Some(&policy)).await?;
        if status.is_success() { Ok(()) } else { Err(refused("policy", status, &body)) }
    }

    pub(super) fn policy_path(&self) -> String {
        format!("agent_policies/{}", segment(&self.policy))
    }

    pub(super) async fn request(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<(StatusCode, bytes::Bytes), Failure> {
        // Over the socket, which only root and the user of the server can reach: no credential is needed.
        let socket = self.server.admin_socket();
        let body = body.map_or_else(Default::default, |body| body.to_string().into());
        let sent = client::send(&socket, method, &format!("/api/fleet/{path}"), body, ANSWER).await?;
        sent.ok_or_else(|| Failure::new(exit::FAILED, format!("{socket}: the server does not respond")))
    }
}

impl Running {
    /// Stops the server, which the daemon will start again.
    pub async fn stop(self) {
        self.components.halt().await;
    }

    /// Stops the server, and restores the record: the daemon must not run a server that nobody has enrolled at. The data
    /// directory stays, because it may belong to a fleet.
    pub async fn abandon(self) {
        self.components.halt().await;
        let restored = match &self.former {
            Some(former) => former.save(&self.layout).map_err(|error| chain(&error).to_string()),
            None => forget(&self.layout).map_err(|error| chain(&error).to_string()),
        };
        if let Err(error) = restored {
            eprintln!("Warning: {error}");
        }
    }
}

/// Remedy for an address that the server cannot use: it names its own flags, which this command does not have.
const ADDRESSES: &str =
    "the addresses are those of --fleet-server-host, --fleet-server-port and --fleet-server-local-port of this command";

/// Id of the policy of agents that run servers, as in Kibana.
pub const DEFAULT_POLICY: &str = "fleet-server-policy";

/// Characters of a path segment that must be escaped.
const SEGMENT: &percent_encoding::AsciiSet = percent_encoding::NON_ALPHANUMERIC;

/// Returns a segment of a path.
pub(super) fn segment(text: &str) -> impl std::fmt::Display {
    percent_encoding::utf8_percent_encode(text, SEGMENT)
}

fn log_path(layout: &Layout) -> Utf8PathBuf {
    layout.logs().join("components").join(format!("{COMPONENT}.log"))
}

fn forget(layout: &Layout) -> std::io::Result<()> {
    crate::state::atomic::remove(&layout.local_server())?;
    crate::state::atomic::remove(&layout.server_program())?;
    std::fs::remove_dir(layout.server_programs())
}

/// Returns the failure of a change that the server rejects.
pub(super) fn refused(what: &str, status: StatusCode, body: &[u8]) -> Failure {
    let reason = serde_json::from_slice::<Value>(body).ok();
    let reason = reason.as_ref().and_then(|body| body["message"].as_str()).unwrap_or("no reason given");
    Failure::new(exit::REFUSED, format!("the server did not create the {what}: {reason} ({status})"))
}
