//! MIGRATE: enrolls at another server, and leaves the current one (EA §10.8).
//!
//! The new enrollment is part of the stored state until the current server has the ack and the notice. Only then does one
//! write of `fleet.enc` switch the agent over. After a crash at any moment, the agent is enrolled at one of the two
//! servers, and continues (AG119).

use std::sync::Arc;

use muster_core::error_chain::chain;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::{Coordinator, Done, Ending, PROBE, SAVE_AGAIN, leave};
use crate::enroll::{Patience, enroll};
use crate::fleet::FleetClient;
use crate::fleet::enroll::Wish;
use crate::host::Own;
use crate::host::fingerprint::Fingerprint;
use crate::net::{Server, Transport, pem};
use crate::state::enrollment::{ENROLLMENT_VERSION, Enrollment, Secret, Trust};
use crate::state::{Action, PendingAck, State};

/// Attempts to enroll at the other server.
const ATTEMPTS: u32 = 3;

/// Creates a connection to another server, which is verified as given.
pub type Connect = Arc<dyn Fn(&Trust) -> Result<Arc<dyn Transport>, String> + Send + Sync>;

/// Data of a MIGRATE action. Every connection option comes from it, and none from the current enrollment.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(expecting = "an object with target_uri and enrollment_token")]
pub struct Request {
    target_uri: String,
    enrollment_token: String,
    #[serde(default)]
    settings: Settings,
}

impl std::fmt::Debug for Request {
    /// Omits the tokens.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Request").field("target_uri", &self.target_uri).finish_non_exhaustive()
    }
}

/// Settings that this agent supports. An action with others is rejected, because they would be needed to connect.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "an object")]
struct Settings {
    ca: Vec<String>,
    ca_sha256: Vec<String>,
    insecure: bool,
    replace_token: Option<String>,
    tags: Vec<String>,
}

impl Request {
    /// Reads the data of an action.
    pub fn read(data: Option<&RawValue>) -> Result<Self, String> {
        let data = data.ok_or("the action has no data")?;
        serde_json::from_str(data.get()).map_err(|error| format!("malformed or unsupported data: {error}"))
    }

    fn server(&self) -> Result<Server, String> {
        let server = Server::parse(&self.target_uri).map_err(|error| chain(&error).to_string())?;
        // Plain HTTP would expose the new access key.
        if server.tls || self.settings.insecure && server.is_loopback() {
            return Ok(server);
        }
        Err(format!("{server} would send credentials unencrypted"))
    }

    fn trust(&self) -> Result<Trust, String> {
        let certificate_authorities =
            self.settings.ca.iter().map(|given| pem::authority(given)).collect::<Result<_, _>>()?;
        let (ca_sha256, insecure) = (self.settings.ca_sha256.clone(), self.settings.insecure);
        Ok(Trust { certificate_authorities, ca_sha256, insecure, ..Trust::default() })
    }
}

impl Coordinator {
    /// Begins a migration. The error is the reason of a refusal.
    pub(super) fn begin_migration(&mut self, action: Action, request: Request) -> Result<(), String> {
        if self.migrating.is_some() {
            return Err("another migration is in progress".into());
        }
        if self.is_protected() {
            return Err("the policy protects this agent from being removed".into());
        }
        // The other server is reached in the same way.
        let proxy = self.enrollment.trust_in_effect().proxy;
        let (server, trust) = (request.server()?, Trust { proxy, ..request.trust()? });
        let transport = (self.deps.connect)(&trust)?;
        tracing::info!(server = %server, "migrating");
        let (entropy, facts) = (self.deps.entropy.clone(), self.deps.facts.clone());
        self.background.ids.insert(action.id.clone());
        let enrollment_id = action.id.clone();
        let joining = async move {
            let token = Secret::new(request.enrollment_token);
            let client = FleetClient::new(transport, vec![server.clone()], token, entropy.clone());
            client.probe(&server, PROBE).await.map_err(|error| format!("{server}: {}", chain(&error)))?;
            let settings = request.settings;
            // The same id in every attempt, also after a crash, so that the server creates one agent (AG87).
            let wish = Wish { id: None, replace_token: settings.replace_token, enrollment_id, tags: settings.tags };
            let metadata = facts.local_metadata(Own { agent_id: "", log_level: "info", upgradeable: false });
            let patience = Patience { attempts: Some(ATTEMPTS), ..Patience::default() };
            let quiet = |line: &str| tracing::warn!(line, "failed to enroll with the other server");
            let item = enroll(&client, &wish, &metadata, &patience, &*entropy, quiet).await;
            let item = item.map_err(|error| chain(&error).to_string())?;
            Ok(Enrollment {
                version: ENROLLMENT_VERSION,
                agent_id: item.id,
                access_api_key: Secret::new(&*item.access_api_key),
                servers: vec![server.to_string()],
                trust,
                overrides: None,
                fallback: None,
                signing_key: None,
                previous_signing_key: None,
                uninstall_token_hash: None,
                recovery_code_hash: None,
                tags: item.tags,
                enrolled_at: item.enrolled_at,
                replace_token: wish.replace_token.map(Secret::new),
                machine: Some(Fingerprint::here()),
                token_hash: None,
                local_server: false,
            })
        };
        self.migrating = Some((action, Box::pin(joining)));
        Ok(())
    }

    pub(super) fn is_protected(&self) -> bool {
        let policy =
            self.state.policy.as_ref().and_then(|policy| serde_json::from_str::<Value>(policy.policy.get()).ok());
        policy.is_some_and(|policy| policy["agent"]["protection"]["enabled"] == true)
    }

    /// Handles the end of the enrollment at the other server.
    pub(super) fn joined(&mut self, action: &Action, joined: Result<Enrollment, String>) {
        self.background.ids.remove(&action.id);
        let outcome = match joined {
            Ok(enrollment) => {
                self.state.migration = Some(enrollment);
                Ok(())
            }
            Err(error) => {
                tracing::error!(error, "migration failed; staying with the current server");
                Err(error)
            }
        };
        // In one write with the ack: after a crash, the agent either begins again, or goes on.
        self.state.handled(PendingAck::of(action, self.deps.clock.now(), outcome));
        self.persist();
        if self.state.migration.is_some() {
            self.abandon_trial();
            self.poll = None;
        }
    }

    /// Notifies the current server, after it has the ack.
    pub(super) fn move_over(&mut self) {
        let (client, agent_id) = (self.client.clone(), self.enrollment.agent_id.clone());
        let (clock, entropy) = (self.deps.clock.clone(), self.deps.entropy.clone());
        self.work = Some(Box::pin(async move {
            let told = leave::tell(&client, &agent_id, "migrated", leave::AUDIT_TIMEOUT, &*clock, &*entropy).await;
            if let Err(error) = told {
                tracing::warn!(error = %chain(&error), "the previous server was not notified of the migration");
            }
            Done::Told
        }));
    }

    /// Switches over to the other server.
    pub(super) fn moved(&mut self) {
        let Some(enrollment) = self.state.migration.clone() else { return };
        // The state still contains the migration, so a crash here repeats this step.
        if let Err(error) = self.deps.store.save_enrollment(&enrollment) {
            self.storage_fault = Some(chain(&error).to_string());
            self.work = Some(Box::pin(async {
                tokio::time::sleep(SAVE_AGAIN).await;
                Done::Told
            }));
            return;
        }
        self.enrollment = enrollment;
        // If this write is lost, `complete_migration` makes up for it at the next start.
        self.state = State::default();
        self.persist();
        self.leaving = Some((Ending::Reload, None));
    }

    /// Completes a migration that was interrupted after the agent had switched over: nothing of the previous server may
    /// run or be sent to the new one.
    pub(super) fn complete_migration(&mut self) {
        let is_over = self.state.migration.as_ref().is_some_and(|next| next.agent_id == self.enrollment.agent_id);
        if is_over {
            self.state = State::default();
            self.persist();
        }
    }
}
