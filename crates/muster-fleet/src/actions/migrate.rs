//! Migration of agents to another server, and the change of their privilege level (MG §1.2.3).

use muster_core::Error;
use muster_core::action::ActionType;
use muster_core::action_request::ActionRequest;
use muster_core::authorization::AgentsMigrate;
use muster_core::canonical;
use muster_core::eligibility::Operation;
use serde_json::{Map, Value, json};

use super::{Actions, Submitted};
use crate::authority::Authorized;
use crate::selection::Selection;

/// Settings: their names in the API (MG §1.2.3), the names that agents read (EA §15), and their shapes. Agents silently
/// ignore every other name.
const SETTINGS: [(&str, &str, Shape); 16] = [
    ("ca", "ca", Shape::Texts),
    ("certificate_authorities", "ca", Shape::Texts),
    ("ca_sha256", "ca_sha256", Shape::Texts),
    ("certificate", "certificate", Shape::Text),
    ("elastic_agent_cert", "certificate", Shape::Text),
    ("key", "key", Shape::Text),
    ("elastic_agent_cert_key", "key", Shape::Text),
    ("key_passphrase_path", "key_passphrase_path", Shape::Text),
    ("headers", "headers", Shape::Object),
    ("insecure", "insecure", Shape::Flag),
    ("proxy_disabled", "proxy_disabled", Shape::Flag),
    ("proxy_headers", "proxy_headers", Shape::Object),
    ("proxy_url", "proxy_url", Shape::Text),
    ("replace_token", "replace_token", Shape::Text),
    ("staging", "staging", Shape::Text),
    ("tags", "tags", Shape::Texts),
];

/// Shape of a setting. An agent fails the whole action if one of them has another shape.
#[derive(Clone, Copy, Debug)]
enum Shape {
    Text,
    /// A list of strings; a single string is accepted as a list of one.
    Texts,
    Flag,
    /// An object of strings.
    Object,
}

impl Shape {
    fn read(self, value: Value) -> Result<Value, &'static str> {
        match (self, value) {
            (Self::Texts, Value::String(text)) => Ok(json!([text])),
            (Self::Text, value @ Value::String(_)) | (Self::Flag, value @ Value::Bool(_)) => Ok(value),
            (Self::Texts, Value::Array(items)) if items.iter().all(Value::is_string) => Ok(items.into()),
            (Self::Object, Value::Object(fields)) if fields.values().all(Value::is_string) => Ok(fields.into()),
            (Self::Text, _) => Err("must be a string"),
            (Self::Texts, _) => Err("must be a list of strings"),
            (Self::Flag, _) => Err("must be true or false"),
            (Self::Object, _) => Err("must be an object of strings"),
        }
    }
}

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

/// Converts settings of a request to those that agents read.
fn settings_of_agents(given: &Map<String, Value>) -> Result<Map<String, Value>, Error> {
    let mut settings = Map::new();
    for (name, value) in given {
        let invalid = |reason: &str| Error::invalid(format!("settings.{name}"), reason);
        if name == "elastic_agent_cert_key_passphrase" {
            return Err(invalid("agents read a passphrase only from a file on their host")
                .remedy("set key_passphrase_path to the path of that file"));
        }
        let known = SETTINGS.iter().find(|(known, ..)| known == name);
        let (_, own_name, shape) = known.ok_or_else(|| invalid("unknown setting"))?;
        let value = shape.read(value.clone()).map_err(invalid)?;
        if settings.insert((*own_name).to_owned(), value).is_some() {
            return Err(invalid(&format!("{own_name} is set twice")));
        }
    }
    Ok(settings)
}

impl Actions {
    /// Migrates agents to another server.
    pub async fn migrate(
        &self,
        selection: &Authorized<Selection, AgentsMigrate>,
        wanted: &MigrateRequest,
    ) -> Result<Submitted, Error> {
        // Agents that are sent to a URL they can't parse are lost to both servers.
        canonical::url(&wanted.uri, &["https", "http"]).map_err(|reason| Error::invalid("uri", reason))?;
        let facts = self.policy_facts(selection.grant()).await?;
        let data = json!({
            "target_uri": wanted.uri,
            "enrollment_token": wanted.enrollment_token,
            "settings": settings_of_agents(&wanted.settings)?,
        });
        // The token opens another fleet: it is sealed like a password and never stored or logged in clear.
        let request = self.seal_secrets(ActionRequest::new(ActionType::Migrate, data))?;
        self.submit(selection, request, &|agent, now| facts.check(agent, Operation::Migrate, now)).await
    }

    /// Makes agents run unprivileged; `user` is the account to use.
    pub async fn change_privilege_level(
        &self,
        selection: &Authorized<Selection, AgentsMigrate>,
        user: Option<Value>,
    ) -> Result<Submitted, Error> {
        let mut data = json!({"unprivileged": true});
        if let Some(user) = user {
            data["user_info"] = user;
        }
        let facts = self.policy_facts(selection.grant()).await?;
        let request = self.seal_secrets(ActionRequest::new(ActionType::PrivilegeLevelChange, data))?;
        self.submit(selection, request, &|agent, now| facts.check(agent, Operation::PrivilegeLevel, now)).await
    }
}
