//! Policy revisions as check-in responses: rendered and compressed once, and completed for each agent.
//!
//! A response is a sequence of pieces. Shared pieces are the same for all agents, and are kept both plain and as gzip
//! members. Per-agent pieces are short templates with placeholders, filled on demand. A gzip body can consist of
//! several members (RFC 1952 §2.2), so a compressed response is the concatenation of the members of its pieces. The
//! member of a per-agent piece has a single stored block, which takes a checksum and a copy, but no compressor state.

use std::fmt;
use std::io::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use flate2::write::GzEncoder;
use flate2::{Compression, Crc};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::id::{PolicyId, SecretId};
use crate::output_key::{AgentKeys, KeyNeed};
use crate::policy::PolicyRevision;
use crate::policy::issuers::{Issuer, has_issued, issuers, needs};
use crate::secret_refs::{self, Secrets};
use crate::signing::{Signer, SigningError};
use crate::time::Timestamp;

mod holes;

pub(crate) use self::holes::EXPORTER;
use self::holes::{Hole, KeyForm, split};

// An allow list: a new internal field of the compiled policy is never delivered by accident.
/// Top-level keys that are delivered to agents; empty ones are omitted (EA96).
pub const WIRE_KEYS: [&str; 15] = [
    "id",
    "revision",
    "outputs",
    "inputs",
    "agent",
    "fleet",
    "signed",
    "output_permissions",
    "extensions",
    "receivers",
    "processors",
    "connectors",
    "exporters",
    "service",
    "secret_paths",
];

/// Reason why a revision can't be rendered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RenderError {
    /// The compiled policy is not an object.
    #[error("the compiled policy is not a JSON object")]
    NotAnObject,
    /// It refers to secrets that do not exist. It is not delivered, so agents keep their current policy.
    #[error("the policy refers to secrets that do not exist: {0:?}")]
    MissingSecrets(Vec<SecretId>),
}

/// Placeholder for a per-agent value.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Placeholder {
    /// Id of the agent, as a quoted JSON string.
    AgentId,
    /// The member `api_key` of an object, or nothing if the agent has no key.
    Key(Hole),
}

/// Part of a per-agent piece.
enum Part {
    Text(&'static str),
    Placeholder(Placeholder),
}

enum Piece {
    /// Filled for each agent.
    PerAgent(Vec<Part>),
    /// The same for all agents.
    Shared { plain: Bytes, gzip: Bytes },
}

/// A rendered policy revision, for any number of agents.
pub struct RenderedPolicy {
    /// The policy.
    pub policy_id: PolicyId,
    /// Its revision.
    pub revision: i64,
    /// Creation time of the revision.
    pub created_at: Timestamp,
    /// The keys that each agent needs to run it.
    pub needs: Vec<KeyNeed>,
    /// Where these keys are created.
    pub issuers: Vec<Issuer>,
    /// Whether agents may have keys of an earlier revision, even if this one needs none.
    pub has_issued: bool,
    /// The public key that it is signed with, and that agents trust from then on; empty if it is not signed.
    pub signing_key: String,
    pieces: Vec<Piece>,
}

/// The fields of the POLICY_CHANGE after `agent_id`. That one comes first in the JSON object, so that everything after
/// it can be shared.
#[derive(Serialize)]
struct Rest<'a> {
    created_at: String,
    id: String,
    #[serde(rename = "type")]
    kind: &'static str,
    input_type: &'static str,
    data: Data<'a>,
}

#[derive(Serialize)]
struct Data<'a> {
    policy: &'a Map<String, Value>,
}

/// Returns the action id with which a revision is delivered and acked (EA94).
pub fn action_id(policy_id: &PolicyId, revision: i64) -> String {
    format!("policy:{policy_id}:{revision}")
}

impl RenderedPolicy {
    /// Renders a compiled revision with its secrets. Compresses it, so do not call it on a runtime thread.
    pub fn new(revision: &PolicyRevision, secrets: &Secrets) -> Result<Self, RenderError> {
        let needs = needs(&revision.compiled);
        let policy = wire_policy(&revision.compiled, secrets)?;
        // `agent_id` comes first in the action, so that one small piece precedes everything that is shared.
        let prefix = Part::Text(r#"{"ack_token":"","action":"checkin","actions":[{"agent_id":"#);
        let mut pieces = vec![Piece::PerAgent(vec![prefix, Part::Placeholder(Placeholder::AgentId)])];
        pieces.extend(split(policy, &needs, |policy| body(revision, policy)).into_iter().map(Piece::from));
        Ok(Self {
            policy_id: revision.policy_id.clone(),
            revision: revision.revision,
            created_at: revision.created_at,
            needs,
            issuers: issuers(&revision.compiled, secrets),
            has_issued: has_issued(&revision.compiled),
            signing_key: signing_key(&revision.compiled).unwrap_or_default().to_owned(),
            pieces,
        })
    }

    /// Returns the pieces of the uncompressed response to `agent_id`, with its keys.
    pub fn plain(&self, agent_id: &str, keys: &AgentKeys) -> Vec<Bytes> {
        let piece = |piece: &Piece| match piece {
            Piece::PerAgent(parts) => Bytes::from(fill(parts, agent_id, keys)),
            Piece::Shared { plain, .. } => plain.clone(),
        };
        self.pieces.iter().map(piece).collect()
    }

    /// Returns the pieces of the compressed response to `agent_id`, with its keys: a series of gzip members.
    pub fn gzip(&self, agent_id: &str, keys: &AgentKeys) -> Vec<Bytes> {
        let piece = |piece: &Piece| match piece {
            Piece::PerAgent(parts) => stored_member(&fill(parts, agent_id, keys)),
            Piece::Shared { gzip, .. } => gzip.clone(),
        };
        self.pieces.iter().map(piece).collect()
    }

    /// Length of the uncompressed response without the per-agent values, bytes. Good enough to decide whether to
    /// compress it (EA85).
    pub fn plain_len(&self) -> usize {
        let piece = |piece: &Piece| match piece {
            Piece::PerAgent(parts) => parts.iter().map(Part::len).sum(),
            Piece::Shared { plain, .. } => plain.len(),
        };
        self.pieces.iter().map(piece).sum()
    }

    /// Memory of the shared pieces, bytes, for the limit of the cache.
    pub fn memory(&self) -> usize {
        let piece = |piece: &Piece| match piece {
            Piece::PerAgent(_) => 0,
            Piece::Shared { plain, gzip } => plain.len() + gzip.len(),
        };
        self.pieces.iter().map(piece).sum()
    }
}

impl fmt::Debug for RenderedPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RenderedPolicy({}:{})", self.policy_id, self.revision)
    }
}

impl Part {
    fn len(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Placeholder(_) => 0,
        }
    }
}

/// Returns the public key in a compiled policy.
pub fn signing_key(compiled: &Value) -> Option<&str> {
    compiled.pointer("/agent/protection/signing_key")?.as_str()
}

/// Returns the revision signed with another key, for agents that do not trust its own key yet. The signed bytes stay the
/// same.
pub fn signed_with(revision: PolicyRevision, signer: &Signer) -> Result<PolicyRevision, SigningError> {
    let mut revision = revision;
    let data = revision.compiled.pointer("/signed/data").and_then(Value::as_str).unwrap_or_default();
    let bytes = STANDARD.decode(data).map_err(|_| SigningError::Data)?;
    // The data names the new key; only the key that vouches for it changes.
    let signature = signer.sign(&bytes)?.signature;
    revision.compiled["signed"]["signature"] = signature.into();
    Ok(revision)
}

/// Returns the delivered form of a compiled policy: known, non-empty keys with secrets inserted (EA96–EA98).
fn wire_policy(compiled: &Value, secrets: &Secrets) -> Result<Map<String, Value>, RenderError> {
    let compiled = compiled.as_object().ok_or(RenderError::NotAnObject)?;
    let mut policy = Map::new();
    // `secret_paths` is built below, from what was resolved.
    for key in WIRE_KEYS.iter().filter(|key| **key != "secret_paths") {
        policy.extend(compiled.get(*key).map(|value| ((*key).to_owned(), value.clone())));
    }
    remove_service_tokens(&mut policy);
    let resolved = secret_refs::resolve(&mut policy, secrets);
    if !resolved.missing.is_empty() {
        return Err(RenderError::MissingSecrets(resolved.missing.into_iter().collect()));
    }
    policy.insert("secret_paths".into(), resolved.paths.into_iter().collect());
    // After the secrets, whose removal can empty a section.
    policy.retain(|_, value| !is_empty(value));
    Ok(policy)
}

/// Removes service tokens, with which the server creates keys in a remote cluster. Agents must never get them, even
/// from revisions that were compiled before this rule.
fn remove_service_tokens(policy: &mut Map<String, Value>) {
    let outputs = policy.get_mut("outputs").and_then(Value::as_object_mut);
    for output in outputs.into_iter().flatten().filter_map(|(_, output)| output.as_object_mut()) {
        output.remove("service_token");
        if let Some(Value::Object(mirror)) = output.get_mut("secrets") {
            mirror.remove("service_token");
        }
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::String(text) => text.is_empty(),
        _ => false,
    }
}

/// Returns the text of the response after the agent's id.
fn body(revision: &PolicyRevision, policy: &Map<String, Value>) -> String {
    let rest = Rest {
        created_at: revision.created_at.to_rfc3339_millis(),
        id: action_id(&revision.policy_id, revision.revision),
        kind: "POLICY_CHANGE",
        input_type: "",
        data: Data { policy },
    };
    // Serialization can't fail: all keys are strings.
    let mut text = serde_json::to_string(&rest).unwrap_or_default();
    // Continue the object that the per-agent piece began: replace `{` by `,`, and close the list and the response at
    // the end.
    text.replace_range(..text.len().min(1), ",");
    text.push_str("]}");
    text
}

impl From<holes::Segment> for Piece {
    fn from(segment: holes::Segment) -> Self {
        match segment {
            holes::Segment::Hole(hole) => Self::PerAgent(vec![Part::Placeholder(Placeholder::Key(hole))]),
            // Best compression: it is done once per revision, and sent to every agent.
            holes::Segment::Text(text) => {
                Self::Shared { gzip: compressed_member(text.as_bytes()).into(), plain: text.into() }
            }
        }
    }
}

fn fill(parts: &[Part], agent_id: &str, keys: &AgentKeys) -> Vec<u8> {
    // Enough for the template with a UUID, or for a key, without growing.
    let mut out = Vec::with_capacity(128);
    for part in parts {
        match part {
            Part::Text(text) => out.extend_from_slice(text.as_bytes()),
            Part::Placeholder(Placeholder::AgentId) => {
                out.extend_from_slice(Value::from(agent_id).to_string().as_bytes());
            }
            Part::Placeholder(Placeholder::Key(hole)) => fill_key(&mut out, hole, keys),
        }
    }
    out
}

/// Writes the member with the agent's key. Without a key, the object has no such member (EA107).
fn fill_key(out: &mut Vec<u8>, hole: &Hole, keys: &AgentKeys) {
    let key = match hole.form {
        KeyForm::Plain => keys.plain(&hole.output).map(|key| Value::from(key).to_string()),
        KeyForm::Encoded => keys.encoded(&hole.output).map(|key| Value::from(key.as_str()).to_string()),
    };
    if let Some(key) = key {
        out.extend_from_slice(hole.before.as_bytes());
        out.extend_from_slice(key.as_bytes());
        out.extend_from_slice(hole.after.as_bytes());
    }
}

fn compressed_member(plain: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(plain.len() / 4), Compression::best());
    encoder.write_all(plain).and_then(|()| encoder.finish()).expect("writing to a vector does not fail")
}

/// Header of a gzip member: magic, deflate, no flags, no time, no extra flags, unknown system (RFC 1952 §2.3).
const GZIP_HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];

/// Creates a gzip member with stored blocks, of at most 65,535 bytes each.
fn stored_member(plain: &[u8]) -> Bytes {
    let mut member = Vec::with_capacity(plain.len() + 32);
    member.extend_from_slice(&GZIP_HEADER);
    let mut rest = plain;
    loop {
        // At least once, also for an empty piece: a member without a block is not valid.
        let (block, after) = rest.split_at(rest.len().min(usize::from(u16::MAX)));
        let length = block.len() as u16;
        // RFC 1951 §3.2.4: the final-block bit with type 00, then the length and its complement.
        member.push(u8::from(after.is_empty()));
        member.extend_from_slice(&length.to_le_bytes());
        member.extend_from_slice(&(!length).to_le_bytes());
        member.extend_from_slice(block);
        if after.is_empty() {
            break;
        }
        rest = after;
    }
    // The trailer: CRC-32 and length modulo 2^32.
    let mut crc = Crc::new();
    crc.update(plain);
    member.extend_from_slice(&crc.sum().to_le_bytes());
    member.extend_from_slice(&crc.amount().to_le_bytes());
    member.into()
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use flate2::read::MultiGzDecoder;
    use serde_json::json;
    use zeroize::Zeroizing;

    use super::*;

    const LIMIT: u64 = 4 << 20;

    fn revision(compiled: Value) -> PolicyRevision {
        PolicyRevision {
            policy_id: PolicyId::trusted("pol-1"),
            revision: 7,
            created_at: Timestamp::parse_rfc3339("2026-01-02T03:00:00.5Z").unwrap(),
            created_by: "system".into(),
            source: Value::Null,
            compiled,
        }
    }

    fn compiled() -> Value {
        json!({
            "id": "pol-1", "revision": 7, "namespaces": ["default"], "secret_references": [{"id": "s1"}],
            "providers": {"env": {}}, "inputs": [{"id": "i", "password": "$co.elastic.secret{s1}", "empty": []}],
            "outputs": {"default": {"type": "elasticsearch", "service_token": "never", "ssl": {},
                        "secrets": {"service_token": {"id": "gone"}}}},
            "output_permissions": {}, "service": null, "signed": {"data": "e30=", "signature": "MEU="}
        })
    }

    fn secrets() -> Secrets {
        [(SecretId::trusted("s1"), Zeroizing::new("hunter2".to_owned()))].into()
    }

    fn plain(rendered: &RenderedPolicy, agent: &str) -> Value {
        serde_json::from_slice(&rendered.plain(agent, &AgentKeys::default()).concat()).unwrap()
    }

    fn unzipped(pieces: &[Bytes]) -> Vec<u8> {
        let mut out = Vec::new();
        MultiGzDecoder::new(pieces.concat().as_slice()).take(LIMIT).read_to_end(&mut out).unwrap();
        out
    }

    #[test]
    fn ea94_ea96_ea98_the_response_has_one_policy_change_with_known_keys() {
        let rendered = RenderedPolicy::new(&revision(compiled()), &secrets()).unwrap();
        let expected = json!({
            "ack_token": "", "action": "checkin", "actions": [{
                "agent_id": "a-1", "created_at": "2026-01-02T03:00:00.500Z", "id": "policy:pol-1:7",
                "type": "POLICY_CHANGE", "input_type": "", "data": {"policy": {
                    "id": "pol-1", "revision": 7, "inputs": [{"id": "i", "password": "hunter2", "empty": []}],
                    "outputs": {"default": {"type": "elasticsearch", "ssl": {}}},
                    "signed": {"data": "e30=", "signature": "MEU="}, "secret_paths": ["inputs.0.password"]
                }}
            }]
        });
        assert_eq!(plain(&rendered, "a-1"), expected);
    }

    #[test]
    fn ea85_gzip_and_plain_are_equal_and_share_all_but_a_small_piece() {
        let mut big = compiled();
        big["inputs"][0]["text"] = "0123456789".repeat(5000).into();
        let rendered = RenderedPolicy::new(&revision(big), &secrets()).unwrap();
        let (first, second) =
            (rendered.gzip("a-1", &AgentKeys::default()), rendered.gzip("b-2", &AgentKeys::default()));
        assert_eq!(unzipped(&first), rendered.plain("a-1", &AgentKeys::default()).concat());
        assert_eq!(unzipped(&second), rendered.plain("b-2", &AgentKeys::default()).concat());
        assert_eq!(first[1].as_ptr(), second[1].as_ptr());
        assert!(first[0].len() < 128 && first[1].len() < 2000);
        assert_eq!(
            rendered.plain_len() + r#""a-1""#.len(),
            rendered.plain("a-1", &AgentKeys::default()).concat().len()
        );
        assert!(rendered.memory() > 50_000);
    }

    #[test]
    fn stored_members_of_any_length_are_valid_gzip() {
        for length in [0, 1, 65_535, 65_536, 200_000] {
            let text = vec![b'x'; length];
            let member = stored_member(&text);
            assert_eq!(unzipped(&[member]), text);
        }
    }

    #[test]
    fn agent_ids_are_escaped() {
        let rendered = RenderedPolicy::new(&revision(compiled()), &secrets()).unwrap();
        assert_eq!(plain(&rendered, "a\"\n\\x")["actions"][0]["agent_id"], "a\"\n\\x");
    }

    #[test]
    fn ea97_a_policy_with_a_missing_secret_is_not_rendered() {
        let gone = RenderedPolicy::new(&revision(compiled()), &Secrets::new()).unwrap_err();
        assert_eq!(gone, RenderError::MissingSecrets(vec![SecretId::trusted("s1")]));
        assert_eq!(RenderedPolicy::new(&revision(json!([])), &secrets()).unwrap_err(), RenderError::NotAnObject);
    }

    #[test]
    fn d12_rendering_does_not_change_the_compiled_policy() {
        let before = revision(compiled());
        let rendered = RenderedPolicy::new(&before, &secrets()).unwrap();
        assert_eq!(before.compiled, compiled());
        assert!(!format!("{rendered:?}").contains("hunter2"));
    }

    fn with_keys() -> PolicyRevision {
        let issuer = json!({"cluster": "c", "output": "o", "connection": {}});
        revision(json!({
            "id": "pol-1", "issuers": {"default": issuer, "far": issuer},
            "outputs": {"default": {"type": "elasticsearch", "a": "first"}, "far": {"hosts": ["h"]}, "k": {"type": "kafka"}},
            "exporters": {"elasticsearch/default": null, "elasticsearch/far": {"a": 1}, "debug": {}}
        }))
    }

    #[test]
    fn ea102_ea103_keys_are_inserted_for_each_agent() {
        let rendered = RenderedPolicy::new(&with_keys(), &Secrets::new()).unwrap();
        let mut keys = AgentKeys::default();
        keys.insert("default", Zeroizing::new("id:s\"3".to_owned()));
        let own: Value = serde_json::from_slice(&rendered.plain("a-1", &keys).concat()).unwrap();
        let policy = &own["actions"][0]["data"]["policy"];
        assert_eq!(policy["outputs"]["default"], json!({"type": "elasticsearch", "a": "first", "api_key": "id:s\"3"}));
        assert_eq!(policy["exporters"]["elasticsearch/default"], json!({"api_key": "aWQ6cyIz"}));
        // Without a key, the member is missing; everything around it is as it was.
        assert_eq!(policy["outputs"]["far"], json!({"hosts": ["h"]}));
        assert_eq!(policy["exporters"]["elasticsearch/far"], json!({"a": 1}));
        assert_eq!((&policy["outputs"]["k"], policy.get("issuers")), (&json!({"type": "kafka"}), None));
        assert_eq!(unzipped(&rendered.gzip("a-1", &keys)), rendered.plain("a-1", &keys).concat());
        assert!(!format!("{rendered:?}").contains("id:s"));
    }

    #[test]
    fn d12_a_key_of_one_agent_never_reaches_another() {
        let rendered = RenderedPolicy::new(&with_keys(), &Secrets::new()).unwrap();
        let keys_of = |secret: &str| {
            let mut keys = AgentKeys::default();
            keys.insert("default", Zeroizing::new(secret.to_owned()));
            keys.insert("far", Zeroizing::new(format!("far-{secret}")));
            keys
        };
        let (one, other) =
            (rendered.plain("a", &keys_of("k:one")).concat(), rendered.plain("b", &keys_of("k:two")).concat());
        let (one, other) = (String::from_utf8(one).unwrap(), String::from_utf8(other).unwrap());
        assert!(one.contains("far-k:one") && !one.contains("k:two"));
        assert!(other.contains("far-k:two") && !other.contains("k:one"));
        let none = String::from_utf8(rendered.plain("c", &AgentKeys::default()).concat()).unwrap();
        assert!(!none.contains("api_key"), "{none}");
    }

    #[test]
    fn texts_of_the_policy_are_not_taken_for_places_of_keys() {
        let mut revision = with_keys();
        let tricky = "\"api_key\":\"key-of-an-agent-0-0\"";
        revision.compiled["outputs"]["k"]["api_key"] = "key-of-an-agent-0-0".into();
        revision.compiled["outputs"]["k"]["text"] = tricky.into();
        let rendered = RenderedPolicy::new(&revision, &Secrets::new()).unwrap();
        let policy = plain(&rendered, "a")["actions"][0]["data"]["policy"].clone();
        assert_eq!(policy["outputs"]["k"], json!({"type": "kafka", "api_key": "key-of-an-agent-0-0", "text": tricky}));
    }
}
