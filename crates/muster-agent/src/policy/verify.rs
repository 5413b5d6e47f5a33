//! Verifies signatures of policies and actions with the pinned key (EA §10.9).
//!
//! The first key in a policy is pinned if the policy is signed with it. From then on, every policy must be signed with
//! the pinned key. If the signed part contains another key, that key replaces the pinned one, because the old key has
//! signed it.
//!
//! A server signs the id and the type of each input, and for programs also the command, arguments and environment, so
//! that nobody else can make the agent run programs.

use std::collections::{BTreeMap, BTreeSet};

use muster_core::action::Signed;
use muster_core::error_chain::SharedError;
use muster_core::{secret_refs, signing};
use serde::Deserialize;
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Map, Value};

use crate::model::process::PROCESS;
use crate::state::Action;
use crate::state::action::SignedBlock;

/// Why verification failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unverified {
    /// Not signed, although a key is pinned.
    #[error("not signed, although a signing key is pinned")]
    NotSigned,
    /// The signature is malformed or does not match.
    #[error("invalid signature: {0}")]
    Signature(#[from] signing::VerifyError),
    /// The signed part is malformed.
    #[error("malformed signed part: {0}")]
    Unreadable(#[source] SharedError),
    /// A program differs from the signed part.
    #[error("input {0:?} differs from its signed copy")]
    Program(String),
    /// A secret that the server inserts after signing is missing.
    #[error("the server has not inserted the secret {0:?}")]
    Secret(String),
    /// The signed part is for something else.
    #[error("signed for a different {0}")]
    Other(&'static str),
}

#[derive(Deserialize)]
struct Policy {
    #[serde(default)]
    id: String,
    #[serde(default)]
    agent: Option<Agent>,
    #[serde(default)]
    inputs: Option<Vec<Input>>,
    #[serde(default)]
    signed: Option<SignedBlock>,
}

#[derive(Default, Deserialize)]
struct Agent {
    #[serde(default)]
    protection: Option<Protection>,
}

#[derive(Default, Deserialize)]
struct Protection {
    #[serde(default)]
    signing_key: Option<String>,
    #[serde(default)]
    recovery_code_hash: Option<String>,
}

#[derive(Deserialize)]
struct Input {
    #[serde(default)]
    id: Option<String>,
    #[serde(rename = "type", default)]
    kind: Option<String>,
    #[serde(default)]
    command: Value,
    #[serde(default)]
    args: Value,
    #[serde(default)]
    env: Value,
}

impl Input {
    fn name(&self) -> (Option<&str>, Option<&str>) {
        (self.id.as_deref(), self.kind.as_deref())
    }

    /// Returns whether `sent` runs exactly the program of this signed copy. `null` in the environment of the copy is a
    /// placeholder for a secret, which the server inserts after signing.
    fn allows(&self, sent: &Self) -> bool {
        let fits = |name: &String, value: &Value| match self.env.get(name) {
            None => false,
            // The value is a secret, which the server inserts after signing.
            Some(signed) => signed.is_null() || signed == value,
        };
        let fields = |env: &Value| env.as_object().map_or(0, Map::len);
        let same_names = fields(&self.env) == fields(&sent.env) && (sent.env.is_object() || sent.env.is_null());
        let same_env = same_names && sent.env.as_object().into_iter().flatten().all(|(name, value)| fits(name, value));
        self.command == sent.command && self.args == sent.args && same_env
    }
}

#[derive(Deserialize)]
struct SignedAction {
    #[serde(default)]
    action_id: String,
    #[serde(rename = "type", default)]
    kind: String,
    #[serde(default)]
    agents: Vec<String>,
    #[serde(default)]
    data: Option<Box<RawValue>>,
}

impl Policy {
    fn signing_key(&self) -> Option<&str> {
        let key = self.agent.as_ref()?.protection.as_ref()?.signing_key.as_deref()?;
        (!key.is_empty()).then_some(key)
    }

    fn recovery_code_hash(&self) -> Option<&str> {
        self.agent.as_ref()?.protection.as_ref()?.recovery_code_hash.as_deref()
    }

    fn inputs(&self) -> BTreeSet<(Option<&str>, Option<&str>)> {
        self.inputs.iter().flatten().map(Input::name).collect()
    }

    /// Checks that each program in `sent` is in this signed part and unchanged.
    fn check_programs(&self, sent: &Self) -> Result<(), Unverified> {
        let signed: BTreeMap<_, _> = self.inputs.iter().flatten().map(|input| (input.name(), input)).collect();
        // Only programs are checked: other inputs configure components that are installed on the host, and servers do
        // not sign their fields (AG §10.1).
        let programs = sent.inputs.iter().flatten().filter(|input| input.kind.as_deref() == Some(PROCESS));
        for program in programs {
            if !signed.get(&program.name()).is_some_and(|signed| signed.allows(program)) {
                return Err(Unverified::Program(program.id.clone().unwrap_or_default()));
            }
        }
        Ok(())
    }
}

/// Verifies a policy and returns the key to pin from now on.
pub fn policy(policy: &RawValue, pinned: Option<&str>) -> Result<Option<String>, Unverified> {
    let outer: Policy = parse(policy.get().as_bytes())?;
    // The key in the policy itself is trusted only while no key is pinned.
    let Some(key) = pinned.or_else(|| outer.signing_key()) else { return Ok(None) };
    let Some(signed) = &outer.signed else {
        // Until a key is pinned, an unsigned policy cannot be verified.
        return if pinned.is_some() { Err(Unverified::NotSigned) } else { Ok(None) };
    };
    let inner: Policy = parse(&checked(key, signed)?)?;
    // The signature of another policy of the same fleet is also valid, but not for this policy.
    if inner.id != outer.id {
        return Err(Unverified::Other("policy"));
    }
    if inner.inputs.is_some() && inner.inputs() != outer.inputs() {
        return Err(Unverified::Other("set of inputs"));
    }
    inner.check_programs(&outer)?;
    // Who could add a hash of his own could remove the agent.
    if inner.recovery_code_hash() != outer.recovery_code_hash() {
        return Err(Unverified::Other("recovery code"));
    }
    let next = inner.signing_key().map(str::to_owned);
    // The unsigned copy of the key is not used, but a difference shows that the policy was changed after signing.
    if outer.signing_key().map(str::to_owned) != next && next.is_some() {
        return Err(Unverified::Other("signing key"));
    }
    Ok(next.or_else(|| Some(key.to_owned())))
}

/// Verifies an action and returns its signed data. The unsigned data must not be trusted. Without a pinned key, nothing
/// is verified, and the result is `None`.
pub fn action(action: &Action, agent_id: &str, pinned: Option<&str>) -> Result<Option<Box<RawValue>>, Unverified> {
    let Some(key) = pinned else { return Ok(None) };
    let signed = action.signed.as_ref().ok_or(Unverified::NotSigned)?;
    let inner: SignedAction = parse(&checked(key, signed)?)?;
    // These checks follow the check of the signature: before it, nothing in the signed part can be trusted.
    if inner.action_id != action.id {
        return Err(Unverified::Other("action"));
    }
    if inner.kind != action.kind.as_str() {
        return Err(Unverified::Other("type of action"));
    }
    if !inner.agents.iter().any(|agent| agent == agent_id) {
        return Err(Unverified::Other("agent"));
    }
    let data = inner.data.unwrap_or_else(|| RawValue::NULL.to_owned());
    let mut completed: Value = parse(data.get().as_bytes())?;
    if secret_refs::inline_names(&completed).is_empty() {
        return Ok(Some(data));
    }
    let sent: Value = action.data.as_deref().map(|sent| parse(sent.get().as_bytes())).transpose()?.unwrap_or_default();
    insert_secrets(&mut completed, &sent, "")?;
    let completed = to_raw_value(&completed).map_err(|error| Unverified::Unreadable(error.into()))?;
    Ok(Some(completed))
}

/// Inserts secrets, such as the enrollment token of a MIGRATE, into signed data. The signature covers references to them, and
/// the server sends their values beside it (EA84). All other values are those that were signed.
fn insert_secrets(signed: &mut Value, sent: &Value, path: &str) -> Result<(), Unverified> {
    match signed {
        Value::String(_) if !secret_refs::inline_names(signed).is_empty() => {
            // A reference must not be used as a secret: another server would get it.
            let value = sent.as_str().filter(|_| secret_refs::inline_names(sent).is_empty());
            *signed = value.ok_or_else(|| Unverified::Secret(path.to_owned()))?.into();
            Ok(())
        }
        Value::Array(items) => items
            .iter_mut()
            .enumerate()
            .try_for_each(|(n, item)| insert_secrets(item, &sent[n], &format!("{path}/{n}"))),
        Value::Object(fields) => fields
            .iter_mut()
            .try_for_each(|(name, field)| insert_secrets(field, &sent[name.as_str()], &format!("{path}/{name}"))),
        _ => Ok(()),
    }
}

fn checked(key: &str, signed: &SignedBlock) -> Result<Vec<u8>, Unverified> {
    let signed = Signed { data: signed.data.clone(), signature: signed.signature.clone() };
    Ok(signing::verify(key, &signed)?)
}

fn parse<T: for<'de> Deserialize<'de>>(bytes: &[u8]) -> Result<T, Unverified> {
    serde_json::from_slice(bytes).map_err(|error| Unverified::Unreadable(error.into()))
}

#[cfg(test)]
mod tests {
    use muster_core::policy;
    use muster_core::signing::Signer;
    use muster_core::time::Timestamp;
    use serde_json::json;

    use super::*;

    fn signer() -> Signer {
        Signer::generate().unwrap().0
    }

    fn signed(mut policy: Value, signer: &Signer, inner: &Value) -> Box<RawValue> {
        let block = signer.sign(inner.to_string().as_bytes()).unwrap();
        policy["signed"] = json!({"data": block.data, "signature": block.signature});
        to_raw_value(&policy).unwrap()
    }

    fn body(id: &str, key: &str) -> Value {
        json!({"id": id, "agent": {"protection": {"signing_key": key}}, "inputs": [{"id": "i", "type": "process"}]})
    }

    #[test]
    fn the_first_key_is_pinned_and_a_signed_successor_replaces_it() {
        let (first, second) = (signer(), signer());
        let policy_one = signed(body("p", first.public_key()), &first, &body("p", first.public_key()));
        let pinned = policy(&policy_one, None).unwrap().unwrap();
        assert_eq!(pinned, first.public_key());
        let rotated = signed(body("p", second.public_key()), &first, &body("p", second.public_key()));
        assert_eq!(policy(&rotated, Some(&pinned)).unwrap().unwrap(), second.public_key());
        let usurper = signed(body("p", second.public_key()), &second, &body("p", second.public_key()));
        assert!(matches!(policy(&usurper, Some(&pinned)), Err(Unverified::Signature(_))));
    }

    #[test]
    fn a_policy_must_match_its_signed_part() {
        let key = signer();
        let good = body("p", key.public_key());
        let other_id = signed(good.clone(), &key, &body("q", key.public_key()));
        assert_eq!(policy(&other_id, Some(key.public_key())), Err(Unverified::Other("policy")));
        let mut more = good.clone();
        more["inputs"] = json!([{"id": "i", "type": "process"}, {"id": "smuggled", "type": "process"}]);
        let more = signed(more, &key, &good);
        assert_eq!(policy(&more, Some(key.public_key())), Err(Unverified::Other("set of inputs")));
        let mut recoverable = good.clone();
        recoverable["agent"]["protection"]["recovery_code_hash"] = "of somebody else".into();
        let added = signed(recoverable.clone(), &key, &good);
        assert_eq!(policy(&added, Some(key.public_key())), Err(Unverified::Other("recovery code")));
        let removed = signed(good.clone(), &key, &recoverable);
        assert_eq!(policy(&removed, Some(key.public_key())), Err(Unverified::Other("recovery code")));
        assert!(policy(&signed(recoverable.clone(), &key, &recoverable), Some(key.public_key())).is_ok());
        let unsigned = to_raw_value(&good).unwrap();
        assert_eq!(policy(&unsigned, Some(key.public_key())), Err(Unverified::NotSigned));
        assert_eq!(policy(&to_raw_value(&json!({"id": "p"})).unwrap(), None), Ok(None));
    }

    /// A policy with these inputs, compiled and signed as by a server, with one secret.
    fn compiled(inputs: &Value, signer: &Signer) -> Value {
        let policy = policy::Policy {
            config: json!({
                "outputs": {"default": {"type": "elasticsearch", "hosts": ["https://es.example:9200"], "api_key": "a:b"}},
                "inputs": inputs
            }),
            secrets: vec![("S".into(), muster_core::id::SecretId::trusted("s"))],
            ..muster_core::testing::policy("p", Timestamp::from_micros(0))
        };
        let sources = policy::compile::Sources {
            policy: &policy,
            shared: &muster_core::network_object::Shared::default(),
            external_urls: &[],
            uninstall_token_hash: "",
            previous: None,
            signer,
        };
        let mut made = policy::compile::compile(&sources).unwrap().policy;
        let secrets = [(muster_core::id::SecretId::trusted("s"), "secret".to_owned().into())].into();
        secret_refs::resolve(made.as_object_mut().unwrap(), &secrets);
        made
    }

    #[test]
    fn a_program_must_match_its_signed_copy() {
        let key = signer();
        let inputs = json!([
            {"id": "web", "type": "process", "command": "/bin/web", "args": ["-p", "80"],
             "env": {"A": "b", "TOKEN": "x$co.elastic.secret{S}"}, "secrets": {"env": {"KEY": {"id": "S"}}}},
            {"id": "log", "type": "filestream", "command": "not ours"}
        ]);
        let sent = compiled(&inputs, &key);
        assert_eq!(sent["inputs"][0]["env"], json!({"A": "b", "KEY": "secret", "TOKEN": "xsecret"}));
        let check = |sent: &Value| policy(&to_raw_value(sent).unwrap(), Some(key.public_key())).map(|_| ());
        assert_eq!(check(&sent), Ok(()));
        for (pointer, value) in [
            ("/inputs/0/command", json!("/bin/evil")),
            ("/inputs/0/command", json!(null)),
            ("/inputs/0/args", json!(["-p", "81"])),
            ("/inputs/0/args", json!([])),
            ("/inputs/0/env", json!({"A": "b", "KEY": "", "TOKEN": "", "LD_PRELOAD": "/evil"})),
            ("/inputs/0/env", json!({"LD_PRELOAD": "/evil", "KEY": "", "TOKEN": ""})),
            ("/inputs/0/env", json!({"A": "b"})),
            ("/inputs/0/env/A", json!("c")),
        ] {
            let mut changed = sent.clone();
            *changed.pointer_mut(pointer).unwrap() = value.clone();
            assert_eq!(check(&changed), Err(Unverified::Program("web".into())), "{pointer} {value}");
        }
        let mut twice = sent.clone();
        let mut other = sent["inputs"][0].clone();
        other["command"] = json!("/bin/evil");
        twice["inputs"].as_array_mut().unwrap().push(other);
        assert_eq!(check(&twice), Err(Unverified::Program("web".into())));
        let mut unsigned_field = sent.clone();
        unsigned_field["inputs"][1]["command"] = json!("still not ours");
        assert_eq!(check(&unsigned_field), Ok(()));
    }

    #[test]
    fn a_signed_part_without_inputs_allows_no_program() {
        let key = signer();
        let mut sent = body("", key.public_key());
        sent["inputs"][0]["command"] = json!("/bin/evil");
        // An action is signed with the same key, and its signed part has no inputs.
        let action = json!({"action_id": "x", "type": "UNENROLL", "agents": ["me"]});
        let sent = signed(sent, &key, &action);
        assert_eq!(policy(&sent, Some(key.public_key())), Err(Unverified::Program("i".into())));
        let older = json!({"id": "p", "inputs": [{"id": "i", "type": "process"}]});
        let mut sent = body("p", key.public_key());
        sent["inputs"][0]["command"] = json!("/bin/web");
        let sent = signed(sent, &key, &older);
        assert_eq!(policy(&sent, Some(key.public_key())), Err(Unverified::Program("i".into())));
    }

    #[test]
    fn ag119_ea84_secrets_beside_the_signed_data_are_inserted_and_nothing_else() {
        let key = signer();
        let data =
            |token: &str, uri: &str| json!({"target_uri": uri, "enrollment_token": token, "settings": {"tags": ["a"]}});
        let reference = "$co.elastic.secret{s1}";
        let inner =
            json!({"action_id": "x", "type": "MIGRATE", "agents": ["me"], "data": data(reference, "https://b")});
        let block = key.sign(inner.to_string().as_bytes()).unwrap();
        let verified = |sent: Value| {
            let sent: Action = serde_json::from_value(json!({"id": "x", "kind": "MIGRATE", "data": sent,
                "signed": {"data": block.data, "signature": block.signature}}))
            .unwrap();
            action(&sent, "me", Some(key.public_key())).map(|data| data.unwrap().get().to_owned())
        };
        let parsed = |text: String| serde_json::from_str::<Value>(&text).unwrap();
        assert_eq!(parsed(verified(data("token", "https://b")).unwrap()), data("token", "https://b"));
        assert_eq!(parsed(verified(data("token", "https://evil")).unwrap()), data("token", "https://b"));
        for without in [data(reference, "https://b"), json!({"enrollment_token": 7}), Value::Null] {
            assert_eq!(verified(without), Err(Unverified::Secret("/enrollment_token".into())));
        }
    }

    #[test]
    fn an_action_must_be_signed_for_its_id_type_and_agent() {
        let key = signer();
        let act = |document: Value| -> Action {
            let block = key.sign(document.to_string().as_bytes()).unwrap();
            serde_json::from_value(json!({"id": "x", "kind": "UNENROLL",
                "signed": {"data": block.data, "signature": block.signature}}))
            .unwrap()
        };
        let check = |document: Value| action(&act(document), "me", Some(key.public_key()));
        let good = json!({"action_id": "x", "type": "UNENROLL", "agents": ["you", "me"], "data": {"a": 1}});
        assert_eq!(check(good).unwrap().unwrap().get(), r#"{"a":1}"#);
        let refused = |document: Value| check(document).unwrap_err();
        assert_eq!(
            refused(json!({"action_id": "y", "type": "UNENROLL", "agents": ["me"]})),
            Unverified::Other("action")
        );
        assert_eq!(
            refused(json!({"action_id": "x", "type": "UPGRADE", "agents": ["me"]})),
            Unverified::Other("type of action")
        );
        assert_eq!(
            refused(json!({"action_id": "x", "type": "UNENROLL", "agents": ["you"]})),
            Unverified::Other("agent")
        );
        let mut bare = act(json!({}));
        bare.signed = None;
        assert_eq!(action(&bare, "me", Some(key.public_key())).unwrap_err(), Unverified::NotSigned);
        assert!(action(&bare, "me", None).unwrap().is_none());
    }
}
