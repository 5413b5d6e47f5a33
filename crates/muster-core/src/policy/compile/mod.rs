//! Compiler from a policy as people write it to the policy that agents get (EA §4.8; MG §2.4).
//!
//! It runs once, when a revision is created. Secrets stay references by id, which [`super::render`] replaces. Overrides
//! are merged before the result is signed, so that the readable and the signed part never differ.

mod agent;
mod inputs;
mod keys;
pub(crate) mod network;
mod outputs;
mod overrides;
mod permissions;
mod signed;

pub(super) use self::agent::ADVANCED;

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::Policy;
use super::check::{self, ROOT};
use super::expand::{expand, expand_object};
use super::inline_secrets;
use super::issuers;
use super::problem::Problems;
use crate::id::{OutputId, SecretId};
use crate::network_object::Shared;
use crate::secret_refs::{self, OTEL_COMPONENTS};
use crate::signing::{Signer, SigningError};

/// Input of the compiler.
#[derive(Clone, Copy)]
pub struct Sources<'a> {
    /// The policy. Its `revision` is the one to create.
    pub policy: &'a Policy,
    /// Objects that it refers to.
    pub shared: &'a Shared,
    /// URLs of the server, for `fleet.hosts` without a Fleet Server host.
    pub external_urls: &'a [String],
    /// Base64 of the SHA-256 of the uninstall token.
    pub uninstall_token_hash: &'a str,
    /// Compiled form of the previous revision, from which unchanged inputs keep their revision numbers.
    pub previous: Option<&'a Value>,
    /// Signing key of the installation.
    pub signer: &'a Signer,
}

/// A compiled policy.
#[derive(Clone, Debug, PartialEq)]
pub struct Compiled {
    /// The policy that agents get.
    pub policy: Value,
    /// The output objects that it uses.
    pub outputs: Vec<OutputId>,
    /// Warnings about valid settings that may not have the intended effect.
    pub warnings: Problems,
}

/// Reason why a policy does not compile.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    /// The policy is invalid.
    #[error("{0}")]
    Problems(Problems),
    /// Signing failed.
    #[error(transparent)]
    Signing(#[from] SigningError),
}

impl From<CompileError> for crate::Error {
    fn from(error: CompileError) -> Self {
        match error {
            CompileError::Problems(problems) => problems.into(),
            CompileError::Signing(error) => Self::internal(error),
        }
    }
}

/// Compiles a policy, or returns all of its problems.
pub fn compile(sources: &Sources<'_>) -> Result<Compiled, CompileError> {
    let mut problems = check::check_fields(sources.policy);
    let config = match &sources.policy.config {
        Value::Object(config) => Value::Object(expand(config, ROOT, &mut problems)),
        other => other.clone(),
    };
    let config_problems = check::check(&config, &|name| secret_id(sources.policy, name).is_some());
    problems.0.extend(config_problems.0);
    let warnings = plain_secrets(&config);
    // After the check, which reports names; from here on there are only ids.
    let config = with_secret_ids(sources.policy, config);
    let mut draft = Draft { warnings, sources: *sources, config, problems: Problems::default() };
    // Later stages depend on valid sections, and would only add more messages with the same cause.
    let built = problems.0.is_empty().then(|| draft.build());
    problems.0.append(&mut draft.problems.0);
    problems.into_result().map_err(CompileError::Problems)?;
    let (mut policy, outputs) = built.unwrap_or_default();
    signed::sign(&mut policy, sources.signer)?;
    Ok(Compiled { policy: Value::Object(policy), outputs, warnings: draft.warnings })
}

/// Returns warnings for secrets in sections without references, in which they cannot be encrypted.
fn plain_secrets(config: &Value) -> Problems {
    let mut warnings = Problems::default();
    for path in inline_secrets::paths_without_references(config) {
        let reason =
            "contains a secret, which is stored and shown in plain text: this section does not support references";
        warnings.advise(
            secret_refs::join(ROOT, &path),
            reason,
            "remove the secret, or use one that protects nothing else",
        );
    }
    warnings
}

/// Returns whether two compiled policies are equal except for revisions and signatures, so that no new revision is
/// needed.
pub fn is_same(one: &Value, other: &Value) -> bool {
    let key = |policy: &Value| {
        let mut policy = policy.clone();
        if let Value::Object(fields) = &mut policy {
            let signed = fields.remove("signed").as_ref().and_then(signed::payload);
            fields.remove("revision");
            inputs::forget_revisions(fields);
            // The signed payload is derived from the rest, so it differs alone only if an older server signed fewer
            // fields. Then the policy must be signed again.
            fields.insert("signed".into(), signed.unwrap_or_default());
        }
        policy
    };
    key(one) == key(other)
}

struct Draft<'a> {
    sources: Sources<'a>,
    config: Map<String, Value>,
    problems: Problems,
    warnings: Problems,
}

impl Draft<'_> {
    fn build(&mut self) -> (Map<String, Value>, Vec<OutputId>) {
        let mut outputs = self.outputs();
        let inputs = self.inputs(&mut outputs);
        let agent = self.agent(&mut outputs);
        self.export(&mut outputs);
        // Inputs, monitoring and exporters can add outputs, so the permissions come after them.
        let issuers = self.issuers(&mut outputs);
        let permissions = self.permissions(&outputs, &inputs, &agent);
        let used = outputs.values().filter_map(|output| output.record.clone()).collect();
        let named: Map<String, Value> =
            outputs.into_iter().map(|(name, output)| (name, Value::Object(output.entry))).collect();
        let sections: BTreeMap<&str, Value> = [
            ("id", self.sources.policy.id.as_str().into()),
            ("revision", self.sources.policy.revision.into()),
            ("outputs", named.into()),
            ("output_permissions", permissions.into()),
            ("inputs", inputs.into()),
            ("agent", agent.into()),
            ("fleet", self.fleet().into()),
        ]
        .into();
        let mut policy: Map<String, Value> = sections.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        for key in OTEL_COMPONENTS.into_iter().chain(["service"]) {
            policy.extend(self.config.remove(key).map(|section| (key.to_owned(), section)));
        }
        if !issuers.is_empty() {
            policy.insert(issuers::SECTION.into(), issuers.into());
        }
        issuers::mark(&mut policy, self.sources.previous);
        // Last, since overrides apply to the compiled sections, and not to what people wrote.
        self.merge_overrides(&mut policy);
        (policy, used)
    }

    /// Returns a field of the policy as an object with dotted keys expanded; `None` if it is not an object.
    fn object_field(&mut self, name: &str) -> Option<Map<String, Value>> {
        let fields = self.field(name)?.as_object()?.clone();
        Some(expand_object(fields, name, &mut self.problems))
    }

    /// Returns a field of [`Policy::fields`]; `null` is treated as absent.
    fn field(&self, name: &str) -> Option<&Value> {
        self.sources.policy.fields.get(name).filter(|value| !value.is_null())
    }
}

/// Removes a section and returns it as an object, empty if absent.
fn take_object(fields: &mut Map<String, Value>, name: &str) -> Map<String, Value> {
    match fields.remove(name) {
        Some(Value::Object(section)) => section,
        _ => Map::new(),
    }
}

fn secret_id<'a>(policy: &'a Policy, name: &str) -> Option<&'a SecretId> {
    policy.secrets.iter().find(|(known, _)| known == name).map(|(_, id)| id)
}

/// Remedy if there is no output for some data.
const NO_OUTPUT: &str = "define `outputs.default`, or mark an output object as the default";

/// Replaces the names of secrets by the ids under which they are sealed. Names are unique in a policy only, ids
/// everywhere.
fn with_secret_ids(policy: &Policy, config: Value) -> Map<String, Value> {
    let Value::Object(mut config) = config else { return Map::new() };
    secret_refs::for_each(&mut config, &mut |_, name| {
        if let Some(id) = secret_id(policy, name) {
            *name = id.as_str().to_owned();
        }
    });
    config
}

#[cfg(test)]
mod tests;
