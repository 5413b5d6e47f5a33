//! Another server (MG §1.2.3).

use muster_core::Error;
use muster_core::action::ActionType;
use muster_core::action_request::ActionRequest;
use muster_core::authorization::AgentsWrite;
use muster_core::canonical;
use muster_core::eligibility::Operation;
use serde_json::{Map, Value, json};

use super::{Actions, Given};
use crate::authority::Authorized;
use crate::selection::Selection;

/// Settings that agents know.
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

/// An order to move to another server.
#[derive(Clone, Debug, Default)]
pub struct MigrateOrder {
    /// The other server.
    pub uri: String,
    /// A token of its.
    pub enrollment_token: String,
    /// How to reach it.
    pub settings: Map<String, Value>,
}

impl MigrateOrder {
    fn check(&self) -> Result<(), Error> {
        canonical::url(&self.uri, &["https", "http"]).map_err(|reason| Error::invalid("uri", reason))?;
        match self.settings.keys().find(|key| !SETTINGS.contains(&key.as_str())) {
            Some(unknown) => Err(Error::invalid(format!("settings.{unknown}"), "unknown setting")),
            None => Ok(()),
        }
    }
}

impl Actions {
    /// Orders agents to another server.
    pub async fn migrate(
        &self,
        selection: &Authorized<Selection, AgentsWrite>,
        wanted: &MigrateOrder,
    ) -> Result<Given, Error> {
        wanted.check()?;
        let facts = self.policy_facts(selection.grant()).await?;
        let data = json!({
            "target_uri": wanted.uri,
            "enrollment_token": wanted.enrollment_token,
            "settings": wanted.settings,
        });
        let order = self.seal_secrets(ActionRequest::new(ActionType::Migrate, data))?;
        self.give(selection, order, &|agent, now| facts.check(agent, Operation::Migrate, now)).await
    }

    /// Orders agents to drop their privileges.
    pub async fn change_privilege_level(
        &self,
        selection: &Authorized<Selection, AgentsWrite>,
        user: Option<Value>,
    ) -> Result<Given, Error> {
        let mut data = json!({"unprivileged": true});
        if let Some(user) = user {
            data["user_info"] = user;
        }
        let facts = self.policy_facts(selection.grant()).await?;
        let order = self.seal_secrets(ActionRequest::new(ActionType::PrivilegeLevelChange, data))?;
        self.give(selection, order, &|agent, now| facts.check(agent, Operation::PrivilegeLevel, now)).await
    }
}
