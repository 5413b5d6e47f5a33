//! Applying a draft to a policy.

use std::collections::BTreeMap;

use muster_core::Error;
use muster_core::authorization::{Forbidden, Grant, PoliciesProtect, PrivilegeName};
use muster_core::id::{PolicyId, SecretId, SpaceId};
use muster_core::policy::inline_secrets;
use muster_core::policy::problem::Problems;
use muster_core::policy::{DEFAULT_INACTIVITY_TIMEOUT, Policy};
use muster_core::secret_refs::inline_names;
use muster_core::time::Timestamp;
use muster_store::Write;
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use super::{Policies, PolicyDraft};
use crate::connection::connection;

/// Maximum length of a secret's name in bytes.
const MAX_SECRET_NAME: usize = 64;

/// Returns a policy with default values.
pub(super) fn blank(id: PolicyId, space: SpaceId, now: Timestamp) -> Policy {
    Policy {
        id,
        space,
        name: String::new(),
        namespace: "default".into(),
        description: String::new(),
        revision: 0,
        is_managed: false,
        is_default: false,
        inactivity_timeout: i64::try_from(DEFAULT_INACTIVITY_TIMEOUT.as_secs()).unwrap_or(i64::MAX),
        unenroll_timeout: None,
        config: Value::Object(Map::new()),
        secrets: Vec::new(),
        fields: Value::Object(Map::new()),
        recovery_code_hash: None,
        updated_by: String::new(),
        created_at: now,
        updated_at: now,
    }
}

impl Policies {
    /// Applies a draft; returns the changed policy and the writes of its new secrets.
    pub(super) async fn apply_draft(
        &self,
        mut policy: Policy,
        mut draft: PolicyDraft,
    ) -> Result<(Policy, Vec<Write>), Error> {
        take_out_secrets(&policy, &mut draft);
        refuse_moved_secrets(&policy, &draft)?;
        let writes = self.apply_secrets(&mut policy.secrets, draft.secrets).await?;
        set(&mut policy.name, draft.name.map(|name| name.trim().to_owned()));
        set(&mut policy.namespace, draft.namespace);
        set(&mut policy.description, draft.description);
        set(&mut policy.is_managed, draft.is_managed);
        set(&mut policy.is_default, draft.is_default);
        set(&mut policy.inactivity_timeout, draft.inactivity_timeout);
        set(&mut policy.unenroll_timeout, draft.unenroll_timeout);
        set(&mut policy.config, draft.config);
        let fields =
            policy.fields.as_object_mut().ok_or_else(|| Error::internal("the fields of a policy are not an object"))?;
        fields.extend(draft.fields);
        // After merging: a `null` in the draft removes the stored field.
        fields.retain(|_, value| !value.is_null());
        Ok((policy, writes))
    }

    /// Applies changes of secrets. An unchanged value keeps its id, so that saving the same values creates no revision.
    async fn apply_secrets(
        &self,
        secrets: &mut Vec<(String, SecretId)>,
        changes: impl IntoIterator<Item = (String, Option<Zeroizing<String>>)> + Send,
    ) -> Result<Vec<Write>, Error> {
        let changes: Vec<(String, Option<Zeroizing<String>>)> = changes.into_iter().collect();
        let known = secrets.iter().filter(|(name, _)| changes.iter().any(|(changed, _)| changed == name));
        let known: Vec<SecretId> = known.map(|(_, id)| id.clone()).collect();
        let now = self.secrets.open(&known).await?;
        let mut writes = Vec::new();
        for (name, value) in changes {
            check_secret_name(&name)?;
            let place = secrets.iter().position(|(known, _)| *known == name);
            match (place, value) {
                // The sealed value of a removed or replaced secret stays: older revisions refer to it, and agents can
                // be assigned to them. It is deleted with the policy.
                (Some(place), None) => drop(secrets.remove(place)),
                (None, None) => {}
                (Some(place), Some(value)) if now.get(&secrets[place].1) == Some(&value) => {}
                (place, Some(value)) => {
                    let (id, write) = self.secrets.seal(&format!("secrets.{name}"), &value)?;
                    writes.push(write);
                    match place {
                        Some(place) => secrets[place].1 = id,
                        None => secrets.push((name, id)),
                    }
                }
            }
        }
        // Sorted by name: the order in which secrets were set must not count as a difference.
        secrets.sort_unstable();
        Ok(writes)
    }

    /// Copies secrets under new ids. With shared ids, deleting one policy would delete the secrets of the other.
    pub(super) async fn copy_secrets(
        &self,
        secrets: &[(String, SecretId)],
    ) -> Result<(Vec<(String, SecretId)>, Vec<Write>), Error> {
        let ids: Vec<SecretId> = secrets.iter().map(|(_, id)| id.clone()).collect();
        let opened = self.secrets.open(&ids).await?;
        let (mut copies, mut writes) = (Vec::new(), Vec::new());
        for (name, id) in secrets {
            let value = opened.get(id).ok_or_else(|| Error::internal(format!("secret {id} no longer exists")))?;
            let (id, write) = self.secrets.seal(name, value)?;
            copies.push((name.clone(), id));
            writes.push(write);
        }
        Ok((copies, writes))
    }
}

/// Turns the secrets that are written into the draft's configuration into secrets of the policy, and removes those that an
/// earlier configuration had.
fn take_out_secrets(policy: &Policy, draft: &mut PolicyDraft) {
    let Some(config) = &mut draft.config else { return };
    let found = inline_secrets::take_out(config);
    let names = policy.secrets.iter().map(|(name, _)| name.as_str());
    for name in inline_secrets::obsolete(names, config) {
        // A value that the caller gives is theirs to decide on.
        draft.secrets.entry(name).or_insert(None);
    }
    draft.secrets.extend(found.into_iter().map(|(name, value)| (name, Some(value))));
}

/// Rejects a configuration that would send a stored secret to another place: whoever may change a policy could read there
/// the credential of a cluster, which the server itself uses.
fn refuse_moved_secrets(policy: &Policy, draft: &PolicyDraft) -> Result<(), Error> {
    let Some(config) = &draft.config else { return Ok(()) };
    let known = places(&policy.config);
    for (name, places) in places(config) {
        let is_given = draft.secrets.get(&name).is_some_and(Option::is_some);
        let is_stored = policy.secrets.iter().any(|(stored, _)| *stored == name);
        if is_given || !is_stored {
            continue;
        }
        let before = known.get(&name);
        if let Some((_, output)) =
            places.iter().find(|(place, _)| before.is_none_or(|known| !known.contains_key(*place)))
        {
            let reason = format!("is required, because the output {output:?} is new or connects to a new destination");
            return Err(Error::invalid(format!("secrets.{name}"), reason).remedy("send the secret again"));
        }
    }
    Ok(())
}

/// Returns where each secret is sent that an output of the configuration refers to: the connection, and the output's name.
/// Private keys are not sent.
fn places(config: &Value) -> BTreeMap<String, BTreeMap<String, String>> {
    let mut found: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    for (output, fields) in config.get("outputs").and_then(Value::as_object).into_iter().flatten() {
        let place = serde_json::json!(connection(fields)).to_string();
        let mut sent = fields.clone();
        if let Some(sent) = sent.as_object_mut() {
            sent.retain(|name, _| name.split('.').next() != Some("ssl"));
        }
        let mut names = inline_names(&sent);
        for (_, reference) in sent.get("secrets").and_then(Value::as_object).into_iter().flatten() {
            names.extend(reference.get("id").and_then(Value::as_str).map(str::to_owned));
        }
        for name in names {
            found.entry(name).or_default().insert(place.clone(), output.clone());
        }
    }
    found
}

/// Rejects switching the tamper protection of a policy on or off without its own privilege.
pub(super) fn check_protection(
    proof: Option<&Grant<PoliciesProtect>>,
    before: Option<&Policy>,
    after: &Policy,
) -> Result<(), Error> {
    let is_protected = |policy: &Policy| policy.fields["is_protected"] == true;
    if before.is_some_and(is_protected) == is_protected(after) {
        return Ok(());
    }
    match proof {
        Some(grant) if grant.scope().has_policy(&after.id) => Ok(()),
        _ => Err(Forbidden(PrivilegeName::PoliciesProtect).into()),
    }
}

/// Returns warnings for new secrets in which agents would expand a variable.
pub(super) fn secret_warnings(secrets: &BTreeMap<String, Option<Zeroizing<String>>>) -> Problems {
    let mut warnings = Problems::default();
    let holds = |value: &Option<Zeroizing<String>>| value.as_ref().is_some_and(|value| value.contains("${"));
    for (name, _) in secrets.iter().filter(|(_, value)| holds(value)) {
        let reason = "contains `${`, which Elastic Agents expand as a variable in inputs and outputs";
        warnings.advise(format!("secrets.{name}"), reason, "write `$${` for a literal `${`");
    }
    warnings
}

fn set<T>(field: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *field = value;
    }
}

fn check_secret_name(name: &str) -> Result<(), Error> {
    let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b));
    if plain && (1..=MAX_SECRET_NAME).contains(&name.len()) {
        return Ok(());
    }
    let reason = format!("a secret's name has 1 to {MAX_SECRET_NAME} letters, digits, `_`, `-` and `.`");
    Err(Error::invalid("secrets", reason))
}
