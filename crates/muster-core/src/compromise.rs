//! What a compromised agent could read, and what to do about each item (M5).

use serde_json::Value;

use crate::enrollment_key::EnrollmentKey;
use crate::file::DeliverableFile;
use crate::output::Output;
use crate::policy::Policy;
use crate::secret_refs::{OPEN, join};
use crate::shell;

/// Something that an agent could read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exposure {
    /// What it is.
    pub kind: ExposureKind,
    /// Its name.
    pub name: String,
    /// What to do about it.
    pub remedy: String,
}

/// Kind of an exposure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExposureKind {
    /// The value of a secret of its policy.
    PolicySecret,
    /// A credential that an output object holds for all agents.
    OutputCredential,
    /// A file that was stored for the agent.
    File,
    /// The key with which it enrolled, which lay on its host.
    EnrollmentKey,
}

impl ExposureKind {
    /// Returns the word for the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::PolicySecret => "policy_secret",
            Self::OutputCredential => "output_credential",
            Self::File => "file",
            Self::EnrollmentKey => "enrollment_key",
        }
    }
}

/// The secrets of a policy.
pub fn of_policy(policy: &Policy) -> impl Iterator<Item = Exposure> {
    policy.secrets.iter().map(|(name, _)| {
        let set = format!("{name}=@FILE");
        Exposure {
            kind: ExposureKind::PolicySecret,
            name: format!("{}/{name}", policy.name),
            remedy: format!(
                "change it where it is used, then: muster policy apply -f FILE --secret {}",
                shell::argument(&set)
            ),
        }
    })
}

/// The credentials of an output object: its fields that refer to secrets.
pub fn of_output(output: &Output) -> impl Iterator<Item = Exposure> {
    let mut paths = Vec::new();
    secret_paths(&output.fields, "", &mut paths);
    let (id, name) = (output.id.clone(), output.name.clone());
    paths.into_iter().map(move |path| Exposure {
        kind: ExposureKind::OutputCredential,
        name: format!("{name}/{path}"),
        remedy: format!("change it where it is used, then set {path} with PUT /api/fleet/outputs/{id}"),
    })
}

/// A file that was stored for the agent.
pub fn of_file(file: &DeliverableFile) -> Exposure {
    Exposure {
        kind: ExposureKind::File,
        name: file.name.clone(),
        remedy: "replace any secrets that it contains".to_owned(),
    }
}

/// The key with which the agent enrolled; `None` if it can't admit anybody any more.
pub fn of_enrollment_key(key: &EnrollmentKey) -> Option<Exposure> {
    key.revoked_at.is_none().then(|| Exposure {
        kind: ExposureKind::EnrollmentKey,
        name: key.name.clone(),
        remedy: format!("muster enrollment-key replace {}", shell::argument(key.id.as_str())),
    })
}

/// Collects the dotted paths of the secrets of outputs, which are stored as `{"id": "…"}` or as references in strings.
fn secret_paths(value: &Value, path: &str, found: &mut Vec<String>) {
    let fields = match value {
        // A reference inside a longer string, such as a URL with a password.
        Value::String(text) if text.contains(OPEN) => return found.push(path.to_owned()),
        Value::Array(items) => {
            let nested = items.iter().enumerate();
            return nested.for_each(|(index, item)| secret_paths(item, &join(path, &index.to_string()), found));
        }
        Value::Object(fields) => fields,
        _ => return,
    };
    // The form in which a secret is stored: an object with nothing but its id.
    if fields.len() == 1 && fields.get("id").is_some_and(Value::is_string) {
        found.push(path.to_owned());
        return;
    }
    for (name, field) in fields {
        secret_paths(field, &join(path, name), found);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn secrets_of_outputs_are_found_at_any_depth() {
        let mut found = Vec::new();
        let fields = json!({"hosts": ["https://es:9200"], "secrets": {"ssl": {"key": {"id": "s1"}}}, "password": {"id": "s2"}, "id": 7,
            "proxy_url": "http://u:$co.elastic.secret{s3}@p", "headers": [{"key": "Authorization", "value": "$co.elastic.secret{s4}"}]});
        secret_paths(&fields, "", &mut found);
        found.sort();
        assert_eq!(found, ["headers.0.value", "password", "proxy_url", "secrets.ssl.key"]);
    }
}
