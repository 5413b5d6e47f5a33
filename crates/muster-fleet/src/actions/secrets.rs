//! Secrets inside orders: sealed apart; the order keeps a reference that is resolved at hand-out (MG §5.1, EA84).

use muster_core::Error;
use muster_core::action::ActionType;
use muster_core::action_request::ActionRequest;
use muster_store::Write;
use serde_json::Value;

use super::Actions;

/// An order whose secrets are sealed.
#[derive(Debug)]
pub(super) struct Sealed {
    /// The order, with references in place of secrets.
    pub(super) order: ActionRequest,
    /// What is committed with it.
    pub(super) secrets: Vec<Write>,
}

impl From<ActionRequest> for Sealed {
    /// An order that has no secrets.
    fn from(order: ActionRequest) -> Self {
        Self { order, secrets: Vec::new() }
    }
}

const REFERENCE: &str = "$co.elastic.secret{";

/// JSON pointers to what is secret in an order of that type.
fn secret_places(kind: ActionType) -> &'static [&'static str] {
    match kind {
        ActionType::Migrate => &[
            "/enrollment_token",
            "/settings/replace_token",
            "/settings/elastic_agent_cert_key",
            "/settings/elastic_agent_cert_key_passphrase",
        ],
        ActionType::PrivilegeLevelChange => &["/user_info/password"],
        _ => &[],
    }
}

impl Actions {
    /// Seals what is secret in the order and puts references in its place. References from outside are refused: they
    /// could name somebody else's secret.
    pub(super) fn seal_secrets(&self, order: ActionRequest) -> Result<Sealed, Error> {
        if mentions_secret(&order.data) {
            return Err(Error::invalid("data", format!("must not contain {REFERENCE}…}}")));
        }
        // Before anything is sealed: afterwards nobody can judge it.
        let mut order = order.canonical()?;
        let mut secrets = Vec::new();
        for place in secret_places(order.kind) {
            let Some(Value::String(text)) = order.data.pointer_mut(place) else { continue };
            let (id, write) = self.secrets.seal(&place.replace('/', "."), text)?;
            *text = format!("{REFERENCE}{id}}}");
            secrets.push(write);
        }
        Ok(Sealed { order, secrets })
    }
}

fn mentions_secret(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains(REFERENCE),
        Value::Array(items) => items.iter().any(mentions_secret),
        Value::Object(fields) => fields.values().any(mentions_secret),
        _ => false,
    }
}
