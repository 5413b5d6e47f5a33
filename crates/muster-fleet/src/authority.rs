//! The authority of a commit, and proofs that a caller may act on an object.
//!
//! Each commit names its authority: an administrator's grant, an authenticated agent, or the server itself. Without
//! one, commits don't compile, so a service method can't forget the authorization.
//!
//! A service call takes the proof that a look-up returns:
//!
//! ```
//! use muster_core::Error;
//! use muster_core::authorization::{EnrollmentRevoke, OpContext};
//! use muster_fleet::Fleet;
//!
//! async fn revoke(fleet: &Fleet, context: &OpContext, id: &str) -> Result<(), Error> {
//!     let key = fleet.enrollment_keys().find::<EnrollmentRevoke>(context, id).await?;
//!     fleet.enrollment_keys().revoke(&key).await
//! }
//! ```
//!
//! Without the proof it does not compile:
//!
//! ```compile_fail,E0308
//! use muster_core::Error;
//! use muster_core::authorization::OpContext;
//! use muster_core::enrollment_key::EnrollmentKey;
//! use muster_fleet::Fleet;
//!
//! async fn revoke(fleet: &Fleet, context: &OpContext, key: &EnrollmentKey) -> Result<(), Error> {
//!     fleet.enrollment_keys().revoke(key).await
//! }
//! ```
//!
//! The proof of another privilege does not compile either:
//!
//! ```compile_fail,E0308
//! use muster_core::Error;
//! use muster_core::authorization::{EnrollmentRead, OpContext};
//! use muster_fleet::Fleet;
//!
//! async fn revoke(fleet: &Fleet, context: &OpContext, id: &str) -> Result<(), Error> {
//!     let key = fleet.enrollment_keys().find::<EnrollmentRead>(context, id).await?;
//!     fleet.enrollment_keys().revoke(&key).await
//! }
//! ```
//!
//! Callers can't construct a proof:
//!
//! ```compile_fail,E0624
//! use muster_core::authorization::{Grant, EnrollmentRevoke};
//! use muster_core::enrollment_key::EnrollmentKey;
//! use muster_fleet::authority::Authorized;
//!
//! fn made_up(key: EnrollmentKey, grant: Grant<EnrollmentRevoke>) -> Authorized<EnrollmentKey, EnrollmentRevoke> {
//!     Authorized::new(key, grant)
//! }
//! ```

use std::fmt;
use std::net::IpAddr;
use std::ops::Deref;

use muster_core::authorization::{Actor, Grant, OpContext, Origin, Privilege};
use muster_core::id::{SpaceId, UserId};
use muster_core::{Error, ErrorKind};

use super::enroll::Admission;
use super::registry::AgentEntry;

/// The authority of a commit. Sealed: implemented by [`Grant`] and types of this crate.
pub trait Authority: sealed::Sealed + Sync {
    /// Returns true for a dry run, which commits nothing.
    fn is_dry_run(&self) -> bool {
        false
    }

    /// Returns the only space whose agents may be changed; `None` if there is no such limit.
    fn space(&self) -> Option<&SpaceId> {
        None
    }
}

/// An authority that may read across spaces: the server itself and authenticated agents, but no administrator.
pub trait Unscoped: Authority {}

mod sealed {
    /// Implemented in this crate only, and thereby [`Authority`](super::Authority).
    pub trait Sealed {}
}

/// The server itself: timers, housekeeping, the first start. Never used on behalf of an administrator.
#[derive(Clone, Copy, Debug)]
pub(crate) struct System;

impl System {
    /// The server's name in the audit log.
    pub(crate) const ACTOR: Actor = Actor::System;
    /// The server as the origin of an audit event.
    pub(crate) const ORIGIN: Origin = Origin::of(Self::ACTOR);

    /// Returns the server as the origin of an audit event about an object of a space.
    pub(crate) fn in_space(space: &SpaceId) -> Origin {
        Self::ORIGIN.in_space(space)
    }
}

impl sealed::Sealed for System {}
impl Authority for System {}
impl Unscoped for System {}

/// A user acting on what is its own: tokens, password, sessions. Needs no privilege.
#[derive(Clone, Debug)]
pub(crate) struct Own {
    origin: Origin,
    user: UserId,
    is_dry_run: bool,
}

impl Own {
    /// Fails for callers that are no user, such as root on the server's host.
    pub(crate) fn of(context: &OpContext) -> Result<Self, Error> {
        let user = context.actor().user().cloned().ok_or_else(|| {
            Error::new(ErrorKind::Forbidden, "no_account", "only a user can do this, and the caller is not a user")
                .remedy("specify a user")
        })?;
        Ok(Self { origin: context.origin().clone(), user, is_dry_run: context.is_dry_run() })
    }

    /// For a user that has just proved who it is.
    pub(crate) fn proven(user: UserId, address: Option<IpAddr>) -> Self {
        let address = address.map(|address| address.to_string().into());
        let origin = Origin { address, ..Origin::of(Actor::User(user.clone())) };
        Self { origin, user, is_dry_run: false }
    }

    pub(crate) fn user(&self) -> &UserId {
        &self.user
    }

    pub(crate) fn origin(&self) -> &Origin {
        &self.origin
    }
}

impl sealed::Sealed for Own {}
impl Authority for Own {
    fn is_dry_run(&self) -> bool {
        self.is_dry_run
    }
}

impl<P: Privilege> sealed::Sealed for Grant<P> {}
impl<P: Privilege> Authority for Grant<P> {
    fn is_dry_run(&self) -> bool {
        Self::is_dry_run(self)
    }

    fn space(&self) -> Option<&SpaceId> {
        Some(Self::space(self))
    }
}

// Only authentication hands an entry to an adapter, so holding one proves that the agent presented its key. Background
// tasks get entries from the registry, but commit as `System`.
impl sealed::Sealed for AgentEntry {}
impl Authority for AgentEntry {}
impl Unscoped for AgentEntry {}

// An admission is constructed only from an enrollment key that was verified.
impl sealed::Sealed for Admission {}
impl Authority for Admission {}
impl Unscoped for Admission {}

/// An object that was found in the caller's space, with the caller's grant of `P`. Only look-ups construct one.
pub struct Authorized<T, P> {
    subject: T,
    grant: Grant<P>,
}

impl<T, P: Privilege> Authorized<T, P> {
    /// To be called only by look-ups, with an object that they found in the space of the grant.
    pub(crate) fn new(subject: T, grant: Grant<P>) -> Self {
        Self { subject, grant }
    }

    /// The grant.
    pub fn grant(&self) -> &Grant<P> {
        &self.grant
    }

    /// Returns the object without the grant.
    pub fn into_inner(self) -> T {
        self.subject
    }
}

impl<T, P> Deref for Authorized<T, P> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.subject
    }
}

impl<T: fmt::Debug, P: Privilege> fmt::Debug for Authorized<T, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authorized").field("subject", &self.subject).field("grant", &self.grant).finish()
    }
}
