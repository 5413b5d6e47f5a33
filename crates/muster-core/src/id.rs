//! A type for each kind of id, so that the compiler rejects one in place of another.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Maximum length of an id from outside, bytes.
pub const MAX_ID_BYTES: usize = 128;

/// Error for an invalid id from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an id has 1 to {MAX_ID_BYTES} visible ASCII characters without / \\ ? # % \" and spaces")]
pub struct BadId;

fn check(text: &str) -> Result<(), BadId> {
    let fits = (1..=MAX_ID_BYTES).contains(&text.len());
    // Ids go into URL paths, log lines, file names and `policy:<id>:<revision>` without escaping.
    let plain = text.bytes().all(|b| b.is_ascii_graphic() && !br#"/\?#%""#.contains(&b));
    // HTTP clients and proxies resolve `.` and `..` as path segments, so such an id could not be addressed.
    if fits && plain && text != "." && text != ".." { Ok(()) } else { Err(BadId) }
}

/// Path segments of the management API and of the web pages in positions where ids occur. An object with such an id would
/// be unreachable.
const ROUTE_WORDS: [&str; 16] = [
    "_apply",
    "_bulk_get",
    "_test",
    "action_status",
    "actions",
    "available_versions",
    "bulk_actions",
    "bulk_delete",
    "copy",
    "delete",
    "files",
    "list",
    "new",
    "setup",
    "tags",
    "uploads",
];

/// Reason why an id can't be chosen for a new object.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadProposal {
    /// It is not a valid id.
    #[error(transparent)]
    Bad(#[from] BadId),
    /// It begins with a hyphen.
    #[error("an id must not begin with `-`: commands would interpret it as an option")]
    Option,
    /// It is a path segment of the API.
    #[error("`{0}` is reserved for paths of the API and cannot be an id")]
    Route(String),
}

fn check_proposal(text: &str) -> Result<(), BadProposal> {
    check(text)?;
    if text.starts_with('-') {
        return Err(BadProposal::Option);
    }
    // The whole prefix is reserved, so that a new bulk operation never collides with an existing id.
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
        // Shared, because ids are cloned into caches, wake-ups and log fields for every connected agent.
        pub struct $name(Arc<str>);

        impl $name {
            /// Validates an id from outside: 1 to 128 visible ASCII characters that need no escaping in a path.
            pub fn parse(text: &str) -> Result<Self, BadId> {
                check(text).map(|()| Self(text.into()))
            }

            /// Validates an id that is chosen for a new object. In addition to [`Self::parse`], it must not be reserved
            /// by the API or look like a command-line option. Looking up existing objects must use [`Self::parse`],
            /// which accepts ids from before a word was reserved.
            pub fn propose(text: &str) -> Result<Self, BadProposal> {
                check_proposal(text).map(|()| Self(text.into()))
            }

            // Stored ids were validated when they were created. Validating them again on every read would take time,
            // and could make a record unreadable after the rules have changed.
            /// Wraps a string from the store or a generator without validating it.
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
    /// Id of a machine that agents run on.
    HostId
);
id_type!(
    /// Id part of an API key: of an enrollment token or an access key.
    KeyId
);
id_type!(
    /// Id of an OpenID provider, which is part of the URL of logins there.
    ProviderId
);
id_type!(
    /// Id of an Elasticsearch cluster, as an output reaches it.
    ClusterId
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
    /// Id of a Fleet Server host, a proxy or a download source.
    NetworkObjectId
);
id_type!(
    /// Id of an uninstall token.
    UninstallTokenId
);
id_type!(
    /// Id of a host check.
    HostCheckId
);
id_type!(
    /// Id of a pack of scheduled queries.
    PackId
);
id_type!(
    /// Id of a label of hosts.
    LabelId
);
id_type!(
    /// Id of a saved query.
    SavedQueryId
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
    /// Id of a space: the tenant that people, agents, keys, policies and outputs belong to.
    SpaceId
);

id_type!(
    /// Id of a server that uses the store: it stays the same for a data directory.
    NodeId
);

id_type!(
    /// Id of a user or a service account.
    UserId
);
id_type!(
    /// Id of a role.
    RoleId
);
id_type!(
    /// Id of a binding of a role.
    BindingId
);
id_type!(
    /// Id of an API token (not its [`KeyId`]).
    TokenId
);

id_type!(
    /// Id of a staged rollout.
    RolloutId
);

id_type!(
    /// Id of a live query.
    LiveQueryId
);

id_type!(
    /// Id of a run on hosts, of a script or an install, by which each of its hosts knows it.
    HostRunId
);
id_type!(
    /// Id of a saved script.
    SavedScriptId
);
id_type!(
    /// Id of an installer.
    InstallerId
);

id_type!(
    /// Id of a receiver of alerts.
    AlertReceiverId
);

impl Default for SpaceId {
    /// The space that always exists.
    fn default() -> Self {
        Self::trusted("default")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserved_ids_and_options_are_rejected_for_new_objects() {
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
    fn ids_with_paths_or_control_characters_are_rejected() {
        for bad in ["", "..", "a/b", "../x", "a\0b", "a\r\nb", "\u{1b}[31m", "a b", "%00", "ä", &"x".repeat(129)] {
            assert_eq!(AgentId::parse(bad), Err(BadId), "{bad:?}");
        }
        assert!(AgentId::parse("my-fixed-id-1").is_ok());
        assert!(AgentId::parse(&"x".repeat(128)).is_ok());
    }
}
