//! Callers and their privileges.
//!
//! A checked privilege is a value: a [`Grant`], which only an [`OpContext`] can create. All operations on behalf of
//! people take one, so that a call without the check does not compile.
//!
//! ```
//! use muster_core::authorization::{Actor, AgentsRead, Grant, OpContext};
//!
//! let context = OpContext::administrator(Actor::System);
//! let grant: Grant<AgentsRead> = context.grant().unwrap();
//! ```
//!
//! A grant of one privilege is not a grant of another:
//!
//! ```compile_fail,E0308
//! use muster_core::authorization::{Actor, AgentsRead, AgentsWrite, Grant, OpContext};
//!
//! let context = OpContext::administrator(Actor::System);
//! let grant: Grant<AgentsWrite> = context.grant::<AgentsRead>().unwrap();
//! ```

use std::fmt;
use std::marker::PhantomData;

use crate::id::SpaceId;

/// The caller of an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Actor {
    // Names of actors go into the audit log, so the formats in `Display` must stay stable.
    /// The server itself: timers, first start.
    System,
    /// A user of this host, authenticated by the peer credentials of the socket.
    Local {
        /// User id.
        uid: u32,
    },
    /// An agent, authenticated by its key.
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

/// A privilege; implemented by the types below, which have no values.
pub trait Privilege: Send + Sync + 'static {
    /// Name in messages and roles.
    const NAME: &'static str;
}

macro_rules! privileges {
    ($($(#[$doc:meta])* $name:ident = $text:literal;)+) => {
        $(
            $(#[$doc])*
            #[derive(Clone, Copy, Debug, PartialEq, Eq)]
            // Uninhabited, because it exists as a type parameter only.
            pub enum $name {}

            impl Privilege for $name {
                const NAME: &'static str = $text;
            }
        )+
    };
}

privileges! {
    /// Read agents, their documents and their actions.
    AgentsRead = "agents-read";
    /// Tag, reassign, upgrade, unenroll and delete agents; create and cancel actions.
    AgentsWrite = "agents-write";
    /// Unenroll agents without waiting for their ack (M24).
    AgentsForceUnenroll = "agents-force-unenroll";
    /// Read policies and outputs.
    PoliciesRead = "policies-read";
    /// Change policies, outputs and artifacts.
    PoliciesWrite = "policies-write";
    /// Read enrollment keys and their tokens.
    KeysRead = "enrollment-keys-read";
    /// Create and revoke enrollment keys.
    KeysWrite = "enrollment-keys-write";
    /// Read diagnostics and other uploads.
    FilesRead = "files-read";
    /// Read the audit log. It is one chain for the whole installation, so this privilege covers every space.
    AuditRead = "audit-read";
    /// Read the servers of the fleet, which serve every space.
    NodesRead = "nodes-read";
    /// Drain servers.
    NodesWrite = "nodes-write";
}

/// Context of an operation: the caller, the space, the privileges, and whether it is a dry run.
#[derive(Clone, Debug)]
pub struct OpContext {
    actor: Actor,
    space: SpaceId,
    privileges: Privileges,
    dry_run: bool,
}

/// Privileges of the caller. Roles will come with users and tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Privileges {
    // By name and not by type, because it is chosen at run time.
    All,
    Only(&'static str),
}

/// Error for a missing privilege.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the privilege {0} is required")]
pub struct Forbidden(pub &'static str);

impl OpContext {
    /// Creates the context of an administrator: the local root user, the server's own user, or the server itself.
    pub fn administrator(actor: Actor) -> Self {
        Self { actor, space: SpaceId::default(), privileges: Privileges::All, dry_run: false }
    }

    /// Creates a context with a single privilege.
    pub fn with_only<P: Privilege>(actor: Actor) -> Self {
        Self { privileges: Privileges::Only(P::NAME), ..Self::administrator(actor) }
    }

    /// Returns the context for another space.
    #[must_use]
    pub fn in_space(self, space: SpaceId) -> Self {
        Self { space, ..self }
    }

    /// Returns the context for a dry run, which validates everything and returns the result, but commits nothing.
    #[must_use]
    pub fn trying(self, dry_run: bool) -> Self {
        Self { dry_run, ..self }
    }

    /// Whether nothing may be committed.
    pub fn is_dry_run(&self) -> bool {
        self.dry_run
    }

    /// Returns the proof that the caller has the privilege `P`.
    pub fn grant<P: Privilege>(&self) -> Result<Grant<P>, Forbidden> {
        // The grant has a copy of the space and of the dry run, so that an operation can't combine the privilege of one
        // request with the space of another.
        match self.privileges {
            Privileges::Only(name) if name != P::NAME => Err(Forbidden(P::NAME)),
            Privileges::All | Privileges::Only(_) => Ok(Grant {
                actor: self.actor.clone(),
                space: self.space.clone(),
                dry_run: self.dry_run,
                privilege: PhantomData,
            }),
        }
    }
}

/// Proof that the caller has the privilege `P` in its space. Only [`OpContext::grant`] can create one.
pub struct Grant<P> {
    actor: Actor,
    space: SpaceId,
    dry_run: bool,
    // A function pointer keeps the type `Send` and `Sync` for any `P`.
    privilege: PhantomData<fn() -> P>,
}

impl<P> Grant<P> {
    /// Who acts.
    pub fn actor(&self) -> &Actor {
        &self.actor
    }

    /// The space in which the caller acts.
    pub fn space(&self) -> &SpaceId {
        &self.space
    }

    /// Whether nothing may be committed.
    pub fn is_dry_run(&self) -> bool {
        self.dry_run
    }
}

// Not derived, because that would require `P: Clone`.
impl<P> Clone for Grant<P> {
    fn clone(&self) -> Self {
        Self { actor: self.actor.clone(), space: self.space.clone(), dry_run: self.dry_run, privilege: PhantomData }
    }
}

impl<P: Privilege> fmt::Debug for Grant<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Grant({} for {} in {})", P::NAME, self.actor, self.space)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grant_requires_the_privilege() {
        let reader = OpContext::with_only::<AgentsRead>(Actor::Local { uid: 5 });
        assert!(reader.grant::<AgentsRead>().is_ok());
        assert_eq!(reader.grant::<AgentsWrite>().unwrap_err(), Forbidden("agents-write"));
        assert!(OpContext::administrator(Actor::System).grant::<AgentsForceUnenroll>().is_ok());
    }

    #[test]
    fn a_grant_has_the_space_and_the_dry_run_of_its_context() {
        let blue = SpaceId::trusted("blue");
        let caller = OpContext::administrator(Actor::System).in_space(blue.clone()).trying(true);
        let grant = caller.grant::<KeysRead>().unwrap();
        assert_eq!((grant.space(), grant.is_dry_run()), (&blue, true));
    }
}
