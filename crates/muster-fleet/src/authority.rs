//! In whose name something is committed, and what a caller may act on.
//!
//! A commit names its authority: a person's grant, an agent that presented its key, or the server itself. There is no
//! commit without one, so a service method that forgot to ask for authorization has nothing to commit with.
//!
//! A service call takes the proof of a look-up:
//!
//! ```
//! use muster_core::Error;
//! use muster_core::authorization::{KeysWrite, OpContext};
//! use muster_fleet::Fleet;
//!
//! async fn revoke(fleet: &Fleet, context: &OpContext, id: &str) -> Result<(), Error> {
//!     let key = fleet.enrollment_keys().find::<KeysWrite>(context, id).await?;
//!     fleet.enrollment_keys().revoke(&key).await
//! }
//! ```
//!
//! Without one it does not compile:
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
//! Nor with the proof of another privilege:
//!
//! ```compile_fail,E0308
//! use muster_core::Error;
//! use muster_core::authorization::{KeysRead, OpContext};
//! use muster_fleet::Fleet;
//!
//! async fn revoke(fleet: &Fleet, context: &OpContext, id: &str) -> Result<(), Error> {
//!     let key = fleet.enrollment_keys().find::<KeysRead>(context, id).await?;
//!     fleet.enrollment_keys().revoke(&key).await
//! }
//! ```
//!
//! Nor does a proof that the caller made up:
//!
//! ```compile_fail,E0624
//! use muster_core::authorization::{Grant, KeysWrite};
//! use muster_core::enrollment_key::EnrollmentKey;
//! use muster_fleet::authority::Authorized;
//!
//! fn made_up(key: EnrollmentKey, grant: Grant<KeysWrite>) -> Authorized<EnrollmentKey, KeysWrite> {
//!     Authorized::new(key, grant)
//! }
//! ```

use std::fmt;
use std::ops::Deref;

use muster_core::authorization::{Actor, Grant, Privilege};

use super::enroll::Admission;
use super::registry::AgentEntry;

/// Something that stands behind a commit. Only the types of this crate and [`Grant`] are.
pub trait Authority: sealed::Sealed + Sync {
    /// Whether the caller only wants to know: nothing is committed.
    fn is_dry_run(&self) -> bool {
        false
    }
}

/// Someone who reads for no person, and so across spaces: the server itself, and an agent that presented its key.
pub trait Unscoped: Authority {}

mod sealed {
    pub trait Sealed {}
}

/// The server itself: timers, housekeeping, the first start. Never what acts on behalf of a request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct System;

impl System {
    /// How the server stands in the audit log.
    pub(crate) const ACTOR: Actor = Actor::System;
}

impl sealed::Sealed for System {}
impl Authority for System {}
impl Unscoped for System {}

impl<P: Privilege> sealed::Sealed for Grant<P> {}
impl<P: Privilege> Authority for Grant<P> {
    fn is_dry_run(&self) -> bool {
        Self::is_dry_run(self)
    }
}

// An entry of an agent is handed out by authentication; a background task that holds one acts as the server.
impl sealed::Sealed for AgentEntry {}
impl Authority for AgentEntry {}
impl Unscoped for AgentEntry {}

impl sealed::Sealed for Admission {}
impl Authority for Admission {}
impl Unscoped for Admission {}

/// A subject that was found in the caller's space, with the caller's grant of `P` for it. Only look-ups make one.
pub struct Authorized<T, P> {
    subject: T,
    grant: Grant<P>,
}

impl<T, P: Privilege> Authorized<T, P> {
    /// To be called by look-ups alone, with what they found in the space of the grant.
    pub(crate) fn new(subject: T, grant: Grant<P>) -> Self {
        Self { subject, grant }
    }

    /// The grant.
    pub fn grant(&self) -> &Grant<P> {
        &self.grant
    }

    /// The subject alone.
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
