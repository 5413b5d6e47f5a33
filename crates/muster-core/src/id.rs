//! A type for each kind of id, so that one can't be passed for another.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Longest id accepted from outside, in bytes.
pub const MAX_ID_BYTES: usize = 128;

/// An id from outside that can't be one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an id has 1 to {MAX_ID_BYTES} visible ASCII characters without / \\ ? # % \" and spaces")]
pub struct BadId;

fn check(text: &str) -> Result<(), BadId> {
    let fits = (1..=MAX_ID_BYTES).contains(&text.len());
    let plain = text.bytes().all(|b| b.is_ascii_graphic() && !br#"/\?#%""#.contains(&b));
    if fits && plain && text != "." && text != ".." { Ok(()) } else { Err(BadId) }
}

/// Words that stand where an id stands in the paths of the management API, and would hide the thing of that id.
const ROUTE_WORDS: [&str; 14] = [
    "_apply",
    "_bulk_get",
    "action_status",
    "actions",
    "available_versions",
    "bulk_actions",
    "bulk_delete",
    "copy",
    "delete",
    "files",
    "list",
    "setup",
    "tags",
    "uploads",
];

/// Why something new can't have the id that somebody proposes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadProposal {
    /// It can't be an id at all.
    #[error(transparent)]
    Bad(#[from] BadId),
    /// It begins with a hyphen.
    #[error("an id must not begin with `-`: commands would interpret it as an option")]
    Option,
    /// It is a word of the API's paths.
    #[error("`{0}` is reserved for paths of the API and cannot be an id")]
    Route(String),
}

fn check_proposal(text: &str) -> Result<(), BadProposal> {
    check(text)?;
    if text.starts_with('-') {
        return Err(BadProposal::Option);
    }
    if ROUTE_WORDS.contains(&text) || text.starts_with("bulk_") {
        return Err(BadProposal::Route(text.to_owned()));
    }
    Ok(())
}

macro_rules! id_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks text from outside: 1 to 128 visible ASCII characters that need no escaping in a path.
            pub fn parse(text: &str) -> Result<Self, BadId> {
                check(text).map(|()| Self(text.into()))
            }

            /// Checks an id that is proposed for something new: one that [`Self::parse`] takes, that can be
            /// addressed in a path, and that no command takes for an option.
            pub fn propose(text: &str) -> Result<Self, BadProposal> {
                check_proposal(text).map(|()| Self(text.into()))
            }

            /// Wraps a trusted string (from the store or a generator).
            pub fn trusted(text: impl Into<Arc<str>>) -> Self {
                Self(text.into())
            }

            /// Returns the id as a string.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}

id_type!(
    /// Id of an enrolled agent. A string and not a UUID, because clients may propose one (EA §3.4).
    AgentId
);
id_type!(
    /// The machine that agents run on.
    HostId
);
id_type!(
    /// Id part of an API key: of an enrollment token or an access key.
    KeyId
);
id_type!(
    /// Id of the record of an enrollment key (not its [`KeyId`]).
    EnrollmentKeyId
);
id_type!(
    /// Id of a policy. Has no colon, because it is part of `policy:<id>:<revision>`.
    PolicyId
);
id_type!(
    /// Id of an action, which is also the ack token that confirms it and everything before it.
    ActionId
);
id_type!(
    /// Id of an output of the management API.
    OutputId
);
id_type!(
    /// Id of an upload from an agent, or of a file for agents.
    FileId
);
id_type!(
    /// Id of a sealed secret, as in `$co.elastic.secret{ID}` in compiled documents.
    SecretId
);

id_type!(
    /// A space: the tenant that people, agents, keys, policies and outputs belong to.
    SpaceId
);

impl Default for SpaceId {
    /// The space that is always there.
    fn default() -> Self {
        Self::trusted("default")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_that_could_not_be_addressed_is_not_given() {
        for word in ["files", "actions", "tags", "action_status", "available_versions", "bulk_unenroll", "delete"] {
            assert_eq!(AgentId::propose(word), Err(BadProposal::Route(word.into())));
        }
        for option in ["--all", "-f", "-"] {
            assert_eq!(AgentId::propose(option), Err(BadProposal::Option), "{option}");
        }
        assert_eq!(AgentId::propose("a/b"), Err(BadProposal::Bad(BadId)));
        assert!(AgentId::propose("files-1").is_ok() && AgentId::parse("--all").is_ok(), "what is there can be found");
    }

    #[test]
    fn ids_from_outside_never_hold_paths_or_control_characters() {
        for bad in ["", "..", "a/b", "../x", "a\0b", "a\r\nb", "\u{1b}[31m", "a b", "%00", "ä", &"x".repeat(129)] {
            assert_eq!(AgentId::parse(bad), Err(BadId), "{bad:?}");
        }
        assert!(AgentId::parse("my-fixed-id-1").is_ok());
        assert!(AgentId::parse(&"x".repeat(128)).is_ok());
    }
}
