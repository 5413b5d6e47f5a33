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
//! use muster_core::authorization::{Actor, AgentsRead, AgentsTag, Grant, OpContext};
//!
//! let context = OpContext::administrator(Actor::System);
//! let grant: Grant<AgentsTag> = context.grant::<AgentsRead>().unwrap();
//! ```

mod privilege;
mod role;
mod scope;

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

pub use self::privilege::*;
pub use self::role::{BuiltIn, Role};
pub use self::scope::{BindingScope, Cover, Scope, Selector};
use crate::id::SpaceId;
use crate::time::Timestamp;

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
    /// A user, logged in to the page or with a password.
    User(crate::id::UserId),
    /// An API token of a user or a service account.
    Token {
        /// The owner.
        owner: crate::id::UserId,
        /// The token.
        token: crate::id::TokenId,
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
            Self::User(id) => write!(f, "user:{id}"),
            Self::Token { owner, token } => write!(f, "user:{owner} token:{token}"),
            Self::Agent(id) => write!(f, "agent:{id}"),
        }
    }
}

impl Actor {
    /// Returns the API token, if the caller has one.
    pub fn token(&self) -> Option<&crate::id::TokenId> {
        match self {
            Self::Token { token, .. } => Some(token),
            Self::System | Self::Local { .. } | Self::User(_) | Self::Agent(_) => None,
        }
    }

    /// Returns the user, for a user and for the tokens of one.
    pub fn user(&self) -> Option<&crate::id::UserId> {
        match self {
            Self::User(id) | Self::Token { owner: id, .. } => Some(id),
            Self::System | Self::Local { .. } | Self::Agent(_) => None,
        }
    }
}

/// Where a request comes from: what audit events contain of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The caller.
    pub actor: Actor,
    /// Its address; `None` for a user of this host.
    pub address: Option<Arc<str>>,
    /// The reason that it gave.
    pub reason: Option<Arc<str>>,
    /// The space of the objects that it acts on; `None` for those of the installation.
    pub space: Option<SpaceId>,
}

impl Origin {
    /// Creates the origin of a request without an address and a reason.
    pub const fn of(actor: Actor) -> Self {
        Self { actor, address: None, reason: None, space: None }
    }

    /// Returns the origin of an operation on objects of a space.
    #[must_use]
    pub fn in_space(self, space: &SpaceId) -> Self {
        Self { space: Some(space.clone()), ..self }
    }
}

/// Context of an operation: the caller, the space, the entitlements, and whether it is a dry run.
#[derive(Clone, Debug)]
pub struct OpContext {
    origin: Origin,
    space: SpaceId,
    entitlements: Arc<[Entitlement]>,
    membership: Option<Arc<Membership>>,
    dry_run: bool,
}

/// The caller's groups at an OpenID provider. What is created with rights from them ends with the login (MG165).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Membership {
    /// The groups; never empty.
    pub groups: Vec<String>,
    /// End of the session, or of the token that was created in it.
    pub until: Timestamp,
}

/// Privileges and where they apply: a binding with the privileges of its role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entitlement {
    /// The privileges.
    pub privileges: PrivilegeSet,
    /// Where they apply.
    pub scope: BindingScope,
}

/// Error for a missing privilege.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the privilege {0} is required")]
pub struct Forbidden(pub PrivilegeName);

impl OpContext {
    /// Creates the context of an administrator: the local root user, the server's own user, or the server itself.
    pub fn administrator(actor: Actor) -> Self {
        let everything = Entitlement { privileges: PrivilegeSet::all(), scope: BindingScope::System };
        Self::entitled(actor, [everything])
    }

    /// Creates the context of a caller with these entitlements.
    pub fn entitled(actor: Actor, entitlements: impl Into<Arc<[Entitlement]>>) -> Self {
        let origin = Origin::of(actor);
        let entitlements = entitlements.into();
        Self { origin, space: SpaceId::default(), entitlements, membership: None, dry_run: false }
    }

    /// Creates a context with a single privilege.
    pub fn with_only<P: Privilege>(actor: Actor) -> Self {
        let only = Entitlement { privileges: [P::NAME].into_iter().collect(), scope: BindingScope::System };
        Self::entitled(actor, [only])
    }

    /// Returns the context of a member of groups at an OpenID provider.
    #[must_use]
    pub fn with_membership(self, membership: Option<Membership>) -> Self {
        Self { membership: membership.map(Arc::new), ..self }
    }

    /// The caller's groups at an OpenID provider, if it has any.
    pub fn membership(&self) -> Option<&Membership> {
        self.membership.as_deref()
    }

    /// Returns the context for another space.
    #[must_use]
    pub fn in_space(self, space: SpaceId) -> Self {
        Self { space, ..self }
    }

    /// Returns the context for a dry run, which validates everything and returns the result, but commits nothing. A dry run
    /// stays one.
    #[must_use]
    pub fn trying(self, dry_run: bool) -> Self {
        Self { dry_run: self.dry_run || dry_run, ..self }
    }

    /// Returns the context with the address and the reason of the request.
    #[must_use]
    pub fn coming_from(self, address: Option<Arc<str>>, reason: Option<Arc<str>>) -> Self {
        Self { origin: Origin { address, reason, ..self.origin }, ..self }
    }

    /// Returns the context with a reason, if one is given here.
    #[must_use]
    pub fn because(self, reason: Option<&str>) -> Self {
        let reason = reason.map(Arc::from).or(self.origin.reason);
        Self { origin: Origin { reason, ..self.origin }, ..self }
    }

    /// The caller.
    pub fn actor(&self) -> &Actor {
        &self.origin.actor
    }

    /// Where the request comes from.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// The space in which the caller acts.
    pub fn space(&self) -> &SpaceId {
        &self.space
    }

    /// Whether nothing may be committed.
    pub fn is_dry_run(&self) -> bool {
        self.dry_run
    }

    /// Whether any entitlement applies in the space. To everybody else, the space does not exist.
    pub fn may_enter_space(&self) -> bool {
        self.entitlements.iter().any(|one| one.scope.space().is_none_or(|space| *space == self.space))
    }

    /// Returns the proof that the caller has the privilege `P`, for the objects of the space that its entitlements cover.
    pub fn grant<P: Privilege>(&self) -> Result<Grant<P>, Forbidden> {
        let scope = self.scope_of(P::NAME).ok_or(Forbidden(P::NAME))?;
        // An object of the whole installation belongs to no space, so its audit events have none.
        let of_space = P::NAME.reach() != Reach::System;
        let origin = self.origin.clone();
        Ok(self.granted(if of_space { origin.in_space(&self.space) } else { origin }, scope))
    }

    /// Returns the proof that the caller has the privilege `P` in all spaces.
    pub fn grant_everywhere<P: Privilege>(&self) -> Result<Grant<P>, Forbidden> {
        self.check_everywhere(P::NAME)?;
        Ok(self.granted(self.origin.clone(), Scope::Whole))
    }

    // The grant has a copy of the space and of the dry run, so that an operation can't combine the privilege of one request
    // with the space of another.
    fn granted<P: Privilege>(&self, origin: Origin, scope: Scope) -> Grant<P> {
        Grant { origin, space: self.space.clone(), scope, dry_run: self.dry_run, privilege: PhantomData }
    }

    /// Returns the privileges that the caller has anywhere.
    pub fn privileges(&self) -> PrivilegeSet {
        self.entitlements.iter().fold(PrivilegeSet::default(), |all, one| all.with(one.privileges))
    }

    /// Returns the privileges that the caller has in the space, or in a part of it.
    pub fn privileges_in_space(&self) -> PrivilegeSet {
        PrivilegeName::ALL.iter().copied().filter(|name| self.scope_of(*name).is_some()).collect()
    }

    /// The entitlements.
    pub fn entitlements(&self) -> &[Entitlement] {
        &self.entitlements
    }

    /// Returns the privileges among these entitlements that the caller does not have itself. Nobody may act for, or lock
    /// out, somebody with more privileges.
    pub fn lacks_of(&self, entitlements: &[Entitlement]) -> PrivilegeSet {
        let missing = entitlements.iter().map(|one| self.lacks(one.privileges, &one.scope));
        missing.fold(PrivilegeSet::default(), PrivilegeSet::with)
    }

    /// Checks that the caller has a privilege for anything in the space.
    pub fn check(&self, privilege: PrivilegeName) -> Result<(), Forbidden> {
        self.scope_of(privilege).map(drop).ok_or(Forbidden(privilege))
    }

    /// Checks that the caller has a privilege in all spaces.
    pub fn check_everywhere(&self, privilege: PrivilegeName) -> Result<(), Forbidden> {
        let missing = self.lacks([privilege].into_iter().collect(), &BindingScope::System);
        if missing.is_empty() { Ok(()) } else { Err(Forbidden(privilege)) }
    }

    fn scope_of(&self, privilege: PrivilegeName) -> Option<Scope> {
        let holding = self.entitlements.iter().filter(|one| one.privileges.gives(privilege));
        // A binding that does not cover the space, or not enough for the privilege, contributes nothing.
        let covers: Vec<Cover<'_>> = holding.filter_map(|one| one.scope.cover(&self.space, privilege)).collect();
        let selectors = covers.iter().map(|cover| match cover {
            Cover::All => None,
            Cover::Part(selector) => Some((*selector).clone()),
        });
        match selectors.collect::<Option<Vec<Selector>>>() {
            // One binding to everything makes all parts irrelevant.
            None => Some(Scope::Whole),
            Some(none) if none.is_empty() => None,
            Some(parts) => Some(Scope::AnyOf(parts)),
        }
    }

    /// Returns the privileges among `wanted` that the caller does not have in the whole of `scope`. Nobody may give others
    /// what is not theirs.
    pub fn lacks(&self, wanted: PrivilegeSet, scope: &BindingScope) -> PrivilegeSet {
        // One entitlement must contain the whole scope. Parts of several are never added up: their union would be
        // guessed.
        let covering = self.entitlements.iter().filter(|one| one.scope.contains(scope));
        covering.fold(wanted, |missing, one| missing.without(one.privileges))
    }
}

/// Proof that the caller has the privilege `P` in its space. Only [`OpContext::grant`] can create one.
pub struct Grant<P> {
    origin: Origin,
    space: SpaceId,
    scope: Scope,
    dry_run: bool,
    // A function pointer keeps the type `Send` and `Sync` for any `P`.
    privilege: PhantomData<fn() -> P>,
}

impl<P> Grant<P> {
    /// Who acts.
    pub fn actor(&self) -> &Actor {
        &self.origin.actor
    }

    /// Where the request comes from.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// The space in which the caller acts.
    pub fn space(&self) -> &SpaceId {
        &self.space
    }

    /// The objects of the space that the grant covers.
    pub fn scope(&self) -> &Scope {
        &self.scope
    }

    /// Whether nothing may be committed.
    pub fn is_dry_run(&self) -> bool {
        self.dry_run
    }
}

// Not derived, because that would require `P: Clone`.
impl<P> Clone for Grant<P> {
    fn clone(&self) -> Self {
        Self {
            origin: self.origin.clone(),
            space: self.space.clone(),
            scope: self.scope.clone(),
            dry_run: self.dry_run,
            privilege: PhantomData,
        }
    }
}

impl<P: Privilege> fmt::Debug for Grant<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Grant({} for {} in {})", P::NAME, self.origin.actor, self.space)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::PolicyId;

    #[test]
    fn a_grant_requires_the_privilege() {
        let reader = OpContext::with_only::<AgentsRead>(Actor::Local { uid: 5 });
        assert!(reader.grant::<AgentsRead>().is_ok());
        assert_eq!(reader.grant::<AgentsTag>().unwrap_err(), Forbidden(PrivilegeName::AgentsTag));
        assert!(OpContext::administrator(Actor::System).grant::<AgentsForceUnenroll>().is_ok());
    }

    #[test]
    fn a_grant_has_the_space_and_the_dry_run_of_its_context() {
        let blue = SpaceId::trusted("blue");
        let caller = OpContext::administrator(Actor::System).in_space(blue.clone()).trying(true);
        let grant = caller.grant::<EnrollmentRead>().unwrap();
        assert_eq!((grant.space(), grant.is_dry_run()), (&blue, true));
    }

    #[test]
    fn what_is_done_to_objects_of_a_space_comes_from_it() {
        let blue = SpaceId::trusted("blue");
        let caller = OpContext::administrator(Actor::System).in_space(blue.clone());
        assert_eq!(caller.grant::<AgentsTag>().unwrap().origin().space, Some(blue));
        assert_eq!(caller.grant::<UsersWrite>().unwrap().origin().space, None);
        assert_eq!(caller.grant_everywhere::<AuditRead>().unwrap().origin().space, None);
    }

    #[test]
    fn a_privilege_in_one_space_is_none_everywhere() {
        let auditor = |scope| OpContext::entitled(Actor::System, [entitled(BuiltIn::Auditor.privileges(), scope)]);
        assert!(auditor(BindingScope::System).grant_everywhere::<AuditRead>().is_ok());
        let of_space = auditor(BindingScope::Space(SpaceId::default()));
        assert!(of_space.grant::<AuditRead>().is_ok());
        assert_eq!(of_space.grant_everywhere::<AuditRead>().unwrap_err(), Forbidden(PrivilegeName::AuditRead));
    }

    fn entitled(privileges: PrivilegeSet, scope: BindingScope) -> Entitlement {
        Entitlement { privileges, scope }
    }

    fn part(policy: &str) -> BindingScope {
        let selector = Selector::Policies(vec![PolicyId::trusted(policy)]);
        BindingScope::Part { space: SpaceId::default(), selector }
    }

    #[test]
    fn a_grant_covers_what_all_entitlements_with_the_privilege_cover() {
        let operator = BuiltIn::UpgradeOperator.privileges();
        let caller = |scopes: Vec<BindingScope>| {
            let all: Vec<_> = scopes.into_iter().map(|scope| entitled(operator, scope)).collect();
            OpContext::entitled(Actor::System, all)
        };
        let (a, b, c) = (PolicyId::trusted("a"), PolicyId::trusted("b"), PolicyId::trusted("c"));
        let both = caller(vec![part("a"), part("b")]).grant::<AgentsUpgrade>().unwrap();
        assert!(both.scope().has_agent(Some(&a), &[]) && both.scope().has_agent(Some(&b), &[]));
        assert!(!both.scope().has_agent(Some(&c), &[]));
        let wide = caller(vec![part("a"), BindingScope::Space(SpaceId::default())]);
        assert_eq!(wide.grant::<AgentsUpgrade>().unwrap().scope(), &Scope::Whole);
        let elsewhere = caller(vec![part("a")]).in_space(SpaceId::trusted("blue"));
        assert_eq!(elsewhere.grant::<AgentsUpgrade>().unwrap_err(), Forbidden(PrivilegeName::AgentsUpgrade));
        assert!(!elsewhere.may_enter_space() && wide.may_enter_space());
    }

    #[test]
    fn nobody_can_give_what_is_not_theirs() {
        let own = BuiltIn::UpgradeOperator.privileges();
        let caller = OpContext::entitled(Actor::System, vec![entitled(own, part("a"))]);
        assert!(caller.lacks(own, &part("a")).is_empty());
        assert_eq!(caller.lacks(own, &part("b")), own);
        assert_eq!(caller.lacks(own, &BindingScope::System), own);
        let more = caller.lacks(BuiltIn::Helpdesk.privileges(), &part("a"));
        assert!(more.contains(PrivilegeName::AgentsTag) && !more.contains(PrivilegeName::AgentsRead));
        let root = OpContext::administrator(Actor::System);
        assert!(root.lacks(PrivilegeSet::all(), &BindingScope::System).is_empty());
    }
}
