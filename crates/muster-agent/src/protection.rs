//! Protection of an agent against its removal (MG §4.5): if the policy is protected, commands that would remove the
//! agent or detach it from its server need the policy's uninstall token or its recovery code (AG142, AG143).
//!
//! This stops users who may run commands as root but do not want to damage the host. It cannot stop somebody who
//! deletes the files.

pub mod assess;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use camino::Utf8Path;
use muster_core::{recovery_code, uninstall_token};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::state::{Enrollment, Store};

/// Maximum size of a file with tokens.
const FILE_MAX: u64 = 64 << 10;
/// Maximum number of tokens.
const TOKENS_MAX: usize = 100;

/// Whether the stored policy protects the agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Protection {
    /// Every user with the necessary permissions may remove the agent.
    Off,
    /// A token with this SHA-256, or the recovery code, is required.
    On {
        /// Hash of the uninstall token.
        hash: Vec<u8>,
        /// Slow hash of the recovery code, if the policy has one.
        recovery: Option<String>,
    },
}

/// With what a command is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pass {
    /// The agent is not protected.
    Open,
    /// The uninstall token.
    Token,
    /// The recovery code.
    RecoveryCode,
}

/// Why a command is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// No token was passed.
    #[error("the agent's policy is protected, and neither its uninstall token nor its recovery code was passed")]
    Missing,
    /// None of the tokens is the right one.
    #[error(
        "the agent's policy is protected, and what was passed is neither its uninstall token nor its recovery code"
    )]
    Wrong,
}

/// Why a file with tokens cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BadTokens {
    /// It cannot be read.
    #[error("cannot read {path}: {source}")]
    File {
        /// The file.
        path: String,
        /// The system's error.
        source: std::io::Error,
    },
    /// It is too large.
    #[error("{0} is larger than 64 KiB")]
    TooLarge(String),
}

#[derive(Default, Deserialize)]
struct Policy {
    #[serde(default)]
    agent: Agent,
}

#[derive(Default, Deserialize)]
struct Agent {
    #[serde(default)]
    protection: Part,
}

#[derive(Default, Deserialize)]
struct Part {
    #[serde(default)]
    enabled: bool,
    #[serde(default)]
    uninstall_token_hash: String,
    #[serde(default)]
    recovery_code_hash: Option<String>,
}

impl Protection {
    /// Reads the protection from the stored policy. Without one, that of the enrollment counts, or else it would be enough to
    /// delete the state. A new policy or a new enrollment repairs it.
    pub fn stored(store: &dyn Store) -> Self {
        if let Some(policy) = store.state().ok().and_then(|state| state.policy) {
            return Self::of(&policy.policy);
        }
        let Some(enrollment) = store.enrollment().ok().flatten() else { return Self::Off };
        let hash = enrollment.uninstall_token_hash.and_then(|hash| STANDARD.decode(hash).ok());
        hash.map_or(Self::Off, |hash| Self::On { hash, recovery: enrollment.recovery_code_hash })
    }

    /// Stores the hashes in the enrollment, or removes them from it.
    pub fn keep_in(&self, enrollment: &mut Enrollment) {
        (enrollment.uninstall_token_hash, enrollment.recovery_code_hash) = match self {
            Self::Off => (None, None),
            Self::On { hash, recovery } => (Some(STANDARD.encode(hash)), recovery.clone()),
        };
    }

    /// Reads the protection from a policy.
    pub fn of(policy: &RawValue) -> Self {
        let part = serde_json::from_str::<Policy>(policy.get()).unwrap_or_default().agent.protection;
        match STANDARD.decode(&part.uninstall_token_hash) {
            Ok(hash) if part.enabled && !hash.is_empty() => Self::On { hash, recovery: part.recovery_code_hash },
            _ => Self::Off,
        }
    }

    /// Checks that one of the tokens, or the recovery code among them, allows a command.
    pub fn check(&self, tokens: &[String]) -> Result<Pass, Refused> {
        let Self::On { hash, recovery } = self else { return Ok(Pass::Open) };
        if tokens.is_empty() {
            return Err(Refused::Missing);
        }
        // The token has 128 random bits, so that a fast hash is sufficient. The comparison takes constant time.
        let matches = |token: &String| {
            let given = STANDARD.decode(uninstall_token::hash(token)).unwrap_or_default();
            aws_lc_rs::constant_time::verify_slices_are_equal(&given, hash).is_ok()
        };
        if tokens.iter().any(matches) {
            return Ok(Pass::Token);
        }
        // The slow comparison is only for what has the length and the digits of a code.
        let code = recovery.as_ref().filter(|stored| tokens.iter().any(|given| recovery_code::verify(given, stored)));
        code.map(|_| Pass::RecoveryCode).ok_or(Refused::Wrong)
    }
}

/// Returns the tokens of a flag: one, several separated by commas, or the lines of a file with an absolute path.
pub fn tokens(given: &str) -> Result<Vec<String>, BadTokens> {
    let text = if given.starts_with('/') { read(Utf8Path::new(given))? } else { given.replace(',', "\n") };
    let tokens = text.lines().map(str::trim).filter(|token| !token.is_empty());
    Ok(tokens.take(TOKENS_MAX).map(str::to_owned).collect())
}

fn read(path: &Utf8Path) -> Result<String, BadTokens> {
    let failed = |source| BadTokens::File { path: path.to_string(), source };
    let size = std::fs::metadata(path).map_err(failed)?.len();
    if size > FILE_MAX {
        return Err(BadTokens::TooLarge(path.to_string()));
    }
    std::fs::read_to_string(path).map_err(failed)
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use serde_json::value::to_raw_value;

    use super::*;
    use muster_core::testing::Sequence;

    use crate::state::State;
    use crate::state::memory::MemoryStore;

    fn policy(enabled: bool, token: &str) -> Protection {
        let protection = json!({"enabled": enabled, "uninstall_token_hash": uninstall_token::hash(token)});
        Protection::of(&to_raw_value(&json!({"id": "p", "agent": {"protection": protection}})).unwrap())
    }

    #[test]
    fn ag142_only_the_token_of_the_policy_is_accepted() {
        let on = policy(true, "secret");
        assert_eq!(on.check(&[]), Err(Refused::Missing));
        assert_eq!(on.check(&["other".into()]), Err(Refused::Wrong));
        assert_eq!(on.check(&["other".into(), "secret".into()]), Ok(Pass::Token));
        assert_eq!(policy(false, "secret").check(&[]), Ok(Pass::Open));
        let without = Protection::of(&to_raw_value(&json!({"id": "p"})).unwrap());
        assert_eq!(without, Protection::Off);
    }

    #[test]
    fn ag142_the_recovery_code_is_accepted_instead_of_the_token_while_the_policy_has_it() {
        let hash = recovery_code::hash("ABCDE-01234-FGHJK-56789", &Sequence::new());
        let part = |enabled: bool, code: Option<&str>| {
            let token = uninstall_token::hash("secret");
            let protection = json!({"enabled": enabled, "uninstall_token_hash": token, "recovery_code_hash": code});
            Protection::of(&to_raw_value(&json!({"id": "p", "agent": {"protection": protection}})).unwrap())
        };
        let on = part(true, Some(&hash));
        let given = ["other".to_owned(), "abcde-01234-fghjk-56789".to_owned()];
        assert_eq!(on.check(&given), Ok(Pass::RecoveryCode));
        assert_eq!(on.check(&["secret".into(), given[1].clone()]), Ok(Pass::Token));
        assert_eq!(on.check(&["ABCDE-01234-FGHJK-56780".into()]), Err(Refused::Wrong));
        assert_eq!(on.check(&[]), Err(Refused::Missing));
        for removed in [part(true, None), part(true, Some("")), part(true, Some("no hash"))] {
            assert_eq!(removed.check(&given), Err(Refused::Wrong), "{removed:?}");
        }
        assert_eq!(part(false, Some(&hash)), Protection::Off);
    }

    #[test]
    fn ag142_a_lost_state_does_not_end_the_protection() {
        let store = MemoryStore::default();
        let enrollment = json!({"version": 1, "agent_id": "a", "access_api_key": "k", "servers": []});
        let mut enrollment: Enrollment = serde_json::from_value(enrollment).unwrap();
        let Protection::On { hash, .. } = policy(true, "secret") else { panic!("unprotected") };
        let protection = Protection::On { hash, recovery: Some("code".into()) };
        protection.keep_in(&mut enrollment);
        store.save_enrollment(&enrollment).unwrap();
        assert_eq!(Protection::stored(&store), protection);
        // The policy in effect decides.
        let stored = json!({"action_id": "x", "id": "p", "revision": 1, "policy": {"id": "p"}});
        let state = State { policy: Some(serde_json::from_value(stored).unwrap()), ..State::default() };
        store.save_state(&state).unwrap();
        assert_eq!(Protection::stored(&store), Protection::Off);
    }

    #[test]
    fn ag142_several_tokens_and_token_files_are_read() {
        assert_eq!(tokens("a, b,,c").unwrap(), ["a", "b", "c"]);
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("tokens");
        std::fs::write(&file, "one\r\n\n  two\n").unwrap();
        assert_eq!(tokens(file.to_str().unwrap()).unwrap(), ["one", "two"]);
        std::fs::write(&file, vec![b'x'; 70_000]).unwrap();
        assert!(matches!(tokens(file.to_str().unwrap()), Err(BadTokens::TooLarge(_))));
        assert!(matches!(tokens("/nowhere/at/all"), Err(BadTokens::File { .. })));
    }
}
