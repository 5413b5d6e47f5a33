//! Who asks, and what they may do.
//!
//! A privilege that was checked is a value: a [`Grant`], which only an [`OpContext`] makes. Whatever acts for people takes
//! one, so that a call without the check does not compile.
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

/// A right to do one kind of thing; implemented by the types below, which have no values.
pub trait Privilege: Send + Sync + 'static {
    /// Its name in messages and in roles.
    const NAME: &'static str;
}

macro_rules! privileges {
    ($($(#[$doc:meta])* $name:ident = $text:literal;)+) => {
        $(
            $(#[$doc])*
            #[derive(Clone, Copy, Debug, PartialEq, Eq)]
            pub enum $name {}

            impl Privilege for $name {
                const NAME: &'static str = $text;
            }
        )+
    };
}

privileges! {
    /// See agents, their documents and their actions.
    AgentsRead = "agents-read";
    /// Tag, reassign, upgrade, unenroll and delete agents; create and cancel actions.
    AgentsWrite = "agents-write";
    /// Unenroll without the agent's consent (M24).
    AgentsForceUnenroll = "agents-force-unenroll";
    /// See policies and outputs.
    PoliciesRead = "policies-read";
    /// Change policies, outputs and artifacts.
    PoliciesWrite = "policies-write";
    /// See enrollment keys and their tokens.
    KeysRead = "enrollment-keys-read";
    /// Create and revoke enrollment keys.
    KeysWrite = "enrollment-keys-write";
    /// Read diagnostics and other uploads.
    FilesRead = "files-read";
    /// Read the audit log. It is one chain over the whole installation, so this is a right over every space.
    AuditRead = "audit-read";
}

/// Who asks, in which space, with what rights, and whether only to know.
#[derive(Clone, Debug)]
pub struct OpContext {
    actor: Actor,
    space: SpaceId,
    privileges: Privileges,
    dry_run: bool,
}

/// The caller's privileges. Roles come with users and tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Privileges {
    All,
    Only(&'static str),
}

/// The caller lacks a privilege.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this needs the privilege {0}")]
pub struct Forbidden(pub &'static str);

impl OpContext {
    /// An administrator: the local root user, the server's own user, the server itself.
    pub fn administrator(actor: Actor) -> Self {
        Self { actor, space: SpaceId::default(), privileges: Privileges::All, dry_run: false }
    }

    /// A caller with one privilege and no other.
    pub fn with_only<P: Privilege>(actor: Actor) -> Self {
        Self { privileges: Privileges::Only(P::NAME), ..Self::administrator(actor) }
    }

    /// The same caller in another space.
    #[must_use]
    pub fn in_space(self, space: SpaceId) -> Self {
        Self { space, ..self }
    }

    /// The same caller, who only wants to know: the operation checks everything, returns what it would do, and commits
    /// nothing.
    #[must_use]
    pub fn trying(self, dry_run: bool) -> Self {
        Self { dry_run, ..self }
    }

    /// Whether nothing may be committed.
    pub fn is_dry_run(&self) -> bool {
        self.dry_run
    }

    /// The proof that the caller holds the privilege `P`.
    pub fn grant<P: Privilege>(&self) -> Result<Grant<P>, Forbidden> {
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

/// The proof that a caller holds the privilege `P`, in the caller's space. Only [`OpContext::grant`] makes one.
pub struct Grant<P> {
    actor: Actor,
    space: SpaceId,
    dry_run: bool,
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

// By hand: a derived one would ask `P` for it, which has no values.
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
    fn a_grant_is_made_only_of_a_privilege_that_the_caller_holds() {
        let reader = OpContext::with_only::<AgentsRead>(Actor::Local { uid: 5 });
        assert!(reader.grant::<AgentsRead>().is_ok());
        assert_eq!(reader.grant::<AgentsWrite>().unwrap_err(), Forbidden("agents-write"));
        assert!(OpContext::administrator(Actor::System).grant::<AgentsForceUnenroll>().is_ok());
    }

    #[test]
    fn a_grant_carries_the_space_and_the_dry_run() {
        let blue = SpaceId::trusted("blue");
        let caller = OpContext::administrator(Actor::System).in_space(blue.clone()).trying(true);
        let grant = caller.grant::<KeysRead>().unwrap();
        assert_eq!((grant.space(), grant.is_dry_run()), (&blue, true));
    }
}
