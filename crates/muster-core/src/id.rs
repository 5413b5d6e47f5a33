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
    fn ids_from_outside_never_hold_paths_or_control_characters() {
        for bad in ["", "..", "a/b", "../x", "a\0b", "a\r\nb", "\u{1b}[31m", "a b", "%00", "ä", &"x".repeat(129)] {
            assert_eq!(AgentId::parse(bad), Err(BadId), "{bad:?}");
        }
        assert!(AgentId::parse("my-fixed-id-1").is_ok());
        assert!(AgentId::parse(&"x".repeat(128)).is_ok());
    }
}
