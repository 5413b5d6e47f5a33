//! Secrets in actions: stored sealed and separately. The action keeps a reference, which is resolved at delivery
//! (MG §5.1, EA84).

use muster_core::Error;
use muster_core::action::ActionType;
use muster_core::action_request::ActionRequest;
use muster_store::Write;
use serde_json::Value;

use super::Actions;

/// An action request whose secrets are sealed.
#[derive(Clone, Debug)]
pub(super) struct Sealed {
    /// The request, with references in place of secrets.
    pub(super) request: ActionRequest,
    /// The writes of the secrets, to be committed with the action.
    pub(super) secrets: Vec<Write>,
}

impl From<ActionRequest> for Sealed {
    /// Wraps a request without secrets.
    fn from(request: ActionRequest) -> Self {
        Self { request, secrets: Vec::new() }
    }
}

const REFERENCE: &str = "$co.elastic.secret{";

/// JSON pointers to the secrets in the data of an action of that type.
fn secret_places(kind: ActionType) -> &'static [&'static str] {
    match kind {
        ActionType::Migrate => &["/enrollment_token", "/settings/replace_token", "/settings/key"],
        ActionType::PrivilegeLevelChange => &["/user_info/password"],
        _ => &[],
    }
}

impl Actions {
    /// Seals the secrets and replaces them with references. Rejects references in the request itself: with the id of
    /// another secret, a caller could have its value delivered to an agent of their choice.
    pub(super) fn seal_secrets(&self, request: ActionRequest) -> Result<Sealed, Error> {
        if mentions_secret(&request.data) {
            return Err(Error::invalid("data", format!("must not contain {REFERENCE}…}}")));
        }
        // Validation must come first, because a sealed value can't be validated any more.
        let mut request = request.canonical()?;
        let mut secrets = Vec::new();
        for place in secret_places(request.kind) {
            let Some(Value::String(text)) = request.data.pointer_mut(place) else { continue };
            // The JSON pointer is also the name of the field in an error message.
            let (id, write) = self.secrets.seal(&place.replace('/', "."), text)?;
            *text = format!("{REFERENCE}{id}}}");
            secrets.push(write);
        }
        Ok(Sealed { request, secrets })
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
