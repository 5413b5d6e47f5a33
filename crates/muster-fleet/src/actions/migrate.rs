//! Migration of agents to another server, and the change of their privilege level (MG §1.2.3).

use muster_core::Error;
use muster_core::action::ActionType;
use muster_core::action_request::ActionRequest;
use muster_core::authorization::AgentsWrite;
use muster_core::canonical;
use muster_core::eligibility::Wish;
use serde_json::{Map, Value, json};

use super::{Actions, Submitted};
use crate::authority::Authorized;
use crate::selection::Selection;

/// Settings that agents accept. Unknown ones are rejected here, because agents ignore them silently.
const SETTINGS: [&str; 13] = [
    "ca_sha256",
    "certificate_authorities",
    "elastic_agent_cert",
    "elastic_agent_cert_key",
    "elastic_agent_cert_key_passphrase",
    "headers",
    "insecure",
    "proxy_disabled",
    "proxy_headers",
    "proxy_url",
    "staging",
    "tags",
    "replace_token",
];

/// A request to migrate agents to another server.
#[derive(Clone, Debug, Default)]
pub struct MigrateRequest {
    /// URL of the other server.
    pub uri: String,
    /// An enrollment token of the other server.
    pub enrollment_token: String,
    /// Connection settings.
    pub settings: Map<String, Value>,
}

impl MigrateRequest {
    fn check(&self) -> Result<(), Error> {
        // Agents that are sent to a URL they can't parse are lost to both servers.
        canonical::url(&self.uri, &["https", "http"]).map_err(|reason| Error::invalid("uri", reason))?;
        match self.settings.keys().find(|key| !SETTINGS.contains(&key.as_str())) {
            Some(unknown) => Err(Error::invalid(format!("settings.{unknown}"), "unknown setting")),
            None => Ok(()),
        }
    }
}

impl Actions {
    /// Migrates agents to another server.
    pub async fn migrate(
        &self,
        selection: &Authorized<Selection, AgentsWrite>,
        wanted: &MigrateRequest,
    ) -> Result<Submitted, Error> {
        wanted.check()?;
        let facts = self.policy_facts(selection.grant()).await?;
        let data = json!({
            "target_uri": wanted.uri,
            "enrollment_token": wanted.enrollment_token,
            "settings": wanted.settings,
        });
        // The token opens another fleet: it is sealed like a password and never stored or logged in clear.
        let request = self.seal_secrets(ActionRequest::new(ActionType::Migrate, data))?;
        self.submit(selection, request, &|agent, now| facts.check(agent, Wish::Migrate, now)).await
    }

    /// Makes agents run unprivileged; `user` is the account to use.
    pub async fn change_privilege_level(
        &self,
        selection: &Authorized<Selection, AgentsWrite>,
        user: Option<Value>,
    ) -> Result<Submitted, Error> {
        let mut data = json!({"unprivileged": true});
        if let Some(user) = user {
            data["user_info"] = user;
        }
        let facts = self.policy_facts(selection.grant()).await?;
        let request = self.seal_secrets(ActionRequest::new(ActionType::PrivilegeLevelChange, data))?;
        self.submit(selection, request, &|agent, now| facts.check(agent, Wish::PrivilegeLevel, now)).await
    }
}
