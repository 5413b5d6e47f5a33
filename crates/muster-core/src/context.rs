//! Who asks, and what they may do: an argument of every management operation, so that it can't be forgotten.

use std::fmt;

/// Who acts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Actor {
    /// The server itself: timers, first start.
    System,
    /// A user of this host, known by the socket's peer credentials.
    Local {
        /// The user's number.
        uid: u32,
    },
    /// An agent, by its own key.
    Agent(crate::id::AgentId),
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::System => f.write_str("system"),
            Self::Local { uid: 0 } => f.write_str("local:root"),
            Self::Local { uid } => write!(f, "local:{uid}"),
            Self::Agent(id) => write!(f, "agent:{id}"),
        }
    }
}

/// What an operation needs. Users, roles and tokens come in a later piece of work; the places where they are asked
/// for stand already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Privilege {
    /// See agents and their documents.
    AgentsRead,
    /// Tag, reassign, upgrade, unenrol, delete, order.
    AgentsWrite,
    /// Unenrol without the agent's consent (M24).
    AgentsForceUnenroll,
    /// See policies.
    PoliciesRead,
    /// Change policies and outputs.
    PoliciesWrite,
    /// See enrollment keys and their secrets.
    KeysRead,
    /// Make and revoke enrollment keys.
    KeysWrite,
    /// Read diagnostics and other uploads.
    FilesRead,
}

/// The operation context: who asks, with what rights, in which space.
#[derive(Clone, Debug)]
pub struct OpContext {
    /// Who asks.
    pub actor: Actor,
    /// The space, `default` unless the path names one.
    pub space: String,
    all: bool,
    dry_run: bool,
}

/// The caller lacks a privilege.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this needs the privilege {0:?}")]
pub struct Forbidden(pub Privilege);

impl OpContext {
    /// An administrator: the local root user, the server's own user, the server itself.
    pub fn administrator(actor: Actor) -> Self {
        Self { actor, space: "default".into(), all: true, dry_run: false }
    }

    /// The same caller, who only wants to know: the operation checks everything, answers what it would do, and
    /// commits nothing. For operations that say that they heed it.
    #[must_use]
    pub fn trying(self, dry_run: bool) -> Self {
        Self { dry_run, ..self }
    }

    /// Whether nothing may be committed.
    pub fn is_dry_run(&self) -> bool {
        self.dry_run
    }

    /// Refuses callers without `privilege`.
    pub fn require(&self, privilege: Privilege) -> Result<(), Forbidden> {
        if self.all { Ok(()) } else { Err(Forbidden(privilege)) }
    }
}
