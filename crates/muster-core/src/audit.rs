//! The audit log: append-only, and chained by hashes (M25).
//!
//! Each node writes a chain of its own, so that nodes do not wait for each other. A chain begins with the hash of its name, and each
//! event is hashed together with the hash before it. A node regularly *seals* the chains of the others: it appends an event with their newest
//! positions and hashes to its own chain. Whoever removes the end of a chain, or a whole chain, would have to rewrite all
//! chains that sealed it since.

pub mod export;
pub mod verify;

use aws_lc_rs::digest::{Context, SHA256};
use serde::{Deserialize, Serialize};

use crate::hex;
use crate::id::SpaceId;
use crate::time::Timestamp;

/// The action of a seal.
pub const SEAL: &str = "audit.seal";

/// An event, before it is chained.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditEvent {
    /// Time.
    pub at: Timestamp,
    /// Actor: `user:…`, `agent:…`, `system`, `local:root`.
    pub actor: String,
    /// Action: `agent.enroll`, `agent.identity_mismatch`, `enrollment_key.revoke` …
    pub action: String,
    /// Subject: `agent:<id>`, `policy:<id>` …
    pub subject: String,
    /// Details, as a JSON object without secrets.
    pub detail: serde_json::Value,
    /// The address from which the request came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// The reason that the actor gave.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The space of the subject; `None` for what belongs to the installation, such as users.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub space: Option<SpaceId>,
}

/// Position in a chain, counted from 1, with the hash of the event there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChainHead {
    /// Name of the chain: the id of its node.
    pub chain: String,
    /// The position.
    pub position: i64,
    /// The hash, in hex.
    pub hash: String,
}

impl ChainHead {
    /// Creates the head of a chain.
    pub fn new(chain: impl Into<String>, position: i64, hash: &[u8; 32]) -> Self {
        Self { chain: chain.into(), position, hash: hex::encode(hash) }
    }
}

/// The details of a seal.
#[derive(Serialize, Deserialize)]
struct SealDetail {
    heads: Vec<ChainHead>,
}

impl AuditEvent {
    /// Creates the seal with which the node of `chain` confirms the heads of other chains.
    pub fn seal(at: Timestamp, chain: &str, heads: &[ChainHead]) -> Self {
        Self {
            at,
            actor: "system".into(),
            action: SEAL.into(),
            subject: format!("audit:{chain}"),
            detail: serde_json::json!({ "heads": heads }),
            address: None,
            reason: None,
            space: None,
        }
    }

    /// Returns the heads of other chains in a seal; empty for every other event.
    pub fn sealed_heads(&self) -> Vec<ChainHead> {
        if self.action != SEAL {
            return Vec::new();
        }
        // A malformed seal proves nothing. If it was changed, the check of its own chain reports that.
        SealDetail::deserialize(&self.detail).map(|detail| detail.heads).unwrap_or_default()
    }
}

// The prefix separates these hashes from all other uses of SHA-256 in the product.
/// Computes the hash that the first event of a chain is chained to. It binds the events to the name of their chain.
pub fn chain_start(chain: &str) -> [u8; 32] {
    sha256(&[b"muster audit chain ", chain.as_bytes()])
}

/// Computes the hash of an event: SHA-256 over the previous hash and the JSON of the event.
pub fn chain_hash(previous: &[u8; 32], event_json: &[u8]) -> [u8; 32] {
    // No separator is needed: the previous hash has a fixed length.
    sha256(&[previous, event_json])
}

/// Computes the SHA-256 of the concatenated parts.
pub fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    let mut context = Context::new(&SHA256);
    parts.iter().for_each(|part| context.update(part));
    let mut hash = [0; 32];
    hash.copy_from_slice(context.finish().as_ref());
    hash
}

/// Defect of a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChainFault {
    /// The event at this position, or an earlier one, was changed, moved or inserted.
    #[error("the event was changed, moved or inserted")]
    Changed,
    /// The event at this position is missing, but later events exist.
    #[error("the event was removed")]
    Missing,
    /// Another chain contains the seal of an event at this position, which does not exist: it was removed with all later
    /// events, or the chain was rewritten.
    #[error("the seal of another node contains an event at this position that was removed or changed")]
    Sealed,
    /// The event itself is intact, but lists of the events about an object would not find it.
    #[error("the event was hidden from the events about its subject")]
    Hidden,
}

/// Verifies a chain from its first event.
#[derive(Clone, Debug)]
pub struct ChainCheck {
    position: i64,
    hash: [u8; 32],
}

impl ChainCheck {
    /// Starts before the first event of the chain with this name.
    pub fn new(chain: &str) -> Self {
        Self { position: 0, hash: chain_start(chain) }
    }

    /// Verifies the next event.
    pub fn next(&mut self, position: i64, event_json: &str, hash: &[u8; 32]) -> Result<(), ChainFault> {
        // Before the hash: after a gap every hash is wrong, and "removed" is the more useful report.
        if position != self.position + 1 {
            return Err(ChainFault::Missing);
        }
        // The hash covers the stored text, not the decoded event: decoding and encoding again may change the bytes.
        if chain_hash(&self.hash, event_json.as_bytes()) != *hash {
            return Err(ChainFault::Changed);
        }
        (self.position, self.hash) = (position, *hash);
        Ok(())
    }

    /// Position of the last verified event; 0 before the first.
    pub fn position(&self) -> i64 {
        self.position
    }

    /// Hash of the last verified event. A copy that is kept elsewhere proves later that the chain was not truncated.
    pub fn hash(&self) -> &[u8; 32] {
        &self.hash
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(name: &str, texts: &[&str]) -> Vec<(i64, String, [u8; 32])> {
        let mut previous = chain_start(name);
        let line = |(position, text): (i64, &&str)| {
            previous = chain_hash(&previous, text.as_bytes());
            (position, (*text).to_owned(), previous)
        };
        (1..).zip(texts).map(line).collect()
    }

    fn check(name: &str, lines: &[(i64, String, [u8; 32])]) -> (i64, Option<ChainFault>) {
        let mut check = ChainCheck::new(name);
        let fault = lines.iter().find_map(|(position, text, hash)| check.next(*position, text, hash).err());
        (check.position(), fault)
    }

    #[test]
    fn m25_changed_removed_inserted_and_moved_events_are_found_at_their_position() {
        let whole = chain("n", &["a", "b", "c", "d"]);
        assert_eq!(check("n", &whole), (4, None));
        let mut changed = whole.clone();
        changed[1].1 = "B".into();
        assert_eq!(check("n", &changed), (1, Some(ChainFault::Changed)));
        let mut removed = whole.clone();
        removed.remove(2);
        assert_eq!(check("n", &removed), (2, Some(ChainFault::Missing)));
        let renumbered: Vec<_> = (1..).zip(removed).map(|(position, line)| (position, line.1, line.2)).collect();
        assert_eq!(check("n", &renumbered), (2, Some(ChainFault::Changed)));
        let mut moved = whole.clone();
        (moved[1].1, moved[2].1) = (whole[2].1.clone(), whole[1].1.clone());
        assert_eq!(check("n", &moved), (1, Some(ChainFault::Changed)));
        let mut inserted = whole.clone();
        inserted.insert(1, (2, "x".into(), chain_hash(&whole[0].2, b"x")));
        inserted.iter_mut().skip(2).for_each(|line| line.0 += 1);
        assert_eq!(check("n", &inserted), (2, Some(ChainFault::Changed)));
        assert_eq!(check("n", &whole[1..]), (0, Some(ChainFault::Missing)));
    }

    #[test]
    fn m25_events_are_bound_to_the_name_of_their_chain() {
        assert_eq!(check("other", &chain("n", &["a"])), (0, Some(ChainFault::Changed)));
    }

    #[test]
    fn a_seal_says_which_heads_it_holds() {
        let heads = vec![ChainHead::new("b", 7, &[0xab; 32])];
        let seal = AuditEvent::seal(Timestamp::from_micros(5), "a", &heads);
        assert_eq!(seal.sealed_heads(), heads);
        assert_eq!(AuditEvent { action: "x".into(), ..seal }.sealed_heads(), []);
    }
}
