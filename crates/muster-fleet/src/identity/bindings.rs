//! The service of bindings: who has which role, and where.

use std::sync::Arc;

use muster_core::authorization::{
    BindingScope, Entitlement, Grant, OpContext, PoliciesRead, Privilege, PrivilegeName, Selector, UsersRead,
    UsersWrite,
};
use muster_core::entropy::random_uuid;
use muster_core::id::{BindingId, PolicyId, RoleId, SpaceId};
use muster_core::identity::{Binding, Subject, role_privileges};
use muster_core::time::Clock;
use muster_core::{Entropy, Error};
use muster_store::query::{Listed, Page};
use muster_store::{IdentityWrite, Precondition, StoreError};
use serde_json::json;

use super::check_covers;
use super::roles::Roles;
use super::users::{Users, last_administrator};
use crate::audit::audit_line;
use crate::authority::Authorized;
use crate::tags::clean_tags;
use crate::watched_store::WatchedStore;

/// Maximum number of policies in a scope.
const MOST_POLICIES: usize = 100;
/// Bindings per read.
const BATCH: u32 = 500;
/// Maximum number of bindings of a user.
const MOST_BINDINGS: u64 = 100;
/// Maximum length of the name of a group, bytes.
const MAX_GROUP: usize = 255;

/// A new binding.
#[derive(Clone, Debug, Default)]
pub struct NewBinding {
    /// Id or name of the user; either this or the group.
    pub user: Option<String>,
    /// Name of the group at the OpenID provider.
    pub group: Option<String>,
    /// Id of the role.
    pub role: String,
    /// The space; `None` for the whole installation.
    pub space: Option<String>,
    /// Ids or names of policies in the space, to which the role is limited.
    pub policies: Vec<String>,
    /// Tags of agents in the space, to which the role is limited.
    pub tags: Vec<String>,
}

/// The service of bindings.
pub struct Bindings {
    store: Arc<WatchedStore>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    users: Arc<Users>,
    roles: Arc<Roles>,
}

impl Bindings {
    pub(crate) fn new(
        store: Arc<WatchedStore>,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
        users: Arc<Users>,
        roles: Arc<Roles>,
    ) -> Self {
        Self { store, clock, entropy, users, roles }
    }

    /// Returns a page of bindings, of one user or of all.
    pub async fn list(
        &self,
        grant: &Grant<UsersRead>,
        user: Option<&str>,
        context: &OpContext,
        page: Page,
    ) -> Result<Listed<Binding>, Error> {
        let user = match user {
            Some(user) => Some(self.users.find::<UsersRead>(context, user).await?.id.clone()),
            None => None,
        };
        Ok(self.store.identity(grant).bindings(user.as_ref(), page).await?)
    }

    /// Finds a binding.
    pub async fn find<P: Privilege>(&self, context: &OpContext, id: &str) -> Result<Authorized<Binding, P>, Error> {
        let grant = context.grant::<P>()?;
        let found = match BindingId::parse(id) {
            Ok(id) => self.store.identity(&grant).binding(&id).await?,
            Err(_) => None,
        };
        Ok(Authorized::new(found.ok_or_else(|| Error::not_found("binding", id))?, grant))
    }

    /// Gives a role to a user or a group. The caller must have all its privileges within that scope. Returns the privileges
    /// of the role too that need a wider scope.
    pub async fn create(&self, context: &OpContext, new: &NewBinding) -> Result<(Binding, Vec<PrivilegeName>), Error> {
        let grant = context.grant::<UsersWrite>()?;
        let now = self.clock.now();
        let binding = Binding {
            id: BindingId::trusted(random_uuid(&*self.entropy)),
            // Everything the binding names is looked up in the caller's view: a caller must not learn what it cannot
            // see.
            subject: self.subject(context, new).await?,
            role: RoleId::parse(&new.role).map_err(|_| Error::not_found("role", &new.role))?,
            scope: self.scope(context, &grant, new).await?,
            created_at: now,
            created_by: grant.actor().to_string(),
        };
        let entitlement = self.entitlement(&grant, &binding).await?;
        // A binding to a part of a space confers only what makes sense there. The caller is told what is left out.
        let not_given = entitlement.scope.not_given(entitlement.privileges);
        // The privileges within the scope of the binding, not only those of the role: nobody confers more than they
        // have.
        check_covers(context, &[entitlement])?;
        self.refuse_duplicate(&grant, &binding).await?;
        let line = audit_line(grant.origin(), now, "binding.create", subject(&binding.id), detail(&binding));
        let writes = vec![IdentityWrite::InsertBinding(Box::new(binding.clone())).into(), line];
        match self.store.commit(&grant, writes).await {
            // Looked up above, but deleted before the commit, which checks again under its lock.
            Err(StoreError::Conflict(Precondition::Missing(what))) => {
                Err(Error::conflict("deleted", format!("{what} was deleted at the same time")))
            }
            other => other.map(|_| (binding, not_given)).map_err(Error::from),
        }
    }

    async fn entitlement<P: Privilege>(&self, grant: &Grant<P>, binding: &Binding) -> Result<Entitlement, Error> {
        let stored = self.store.identity(grant).role(&binding.role).await?.map(|role| role.privileges);
        Ok(Entitlement { privileges: role_privileges(&binding.role, stored), scope: binding.scope.clone() })
    }

    async fn subject(&self, context: &OpContext, new: &NewBinding) -> Result<Subject, Error> {
        match (&new.user, &new.group) {
            (Some(user), None) => {
                let user = self.users.find::<UsersWrite>(context, user).await?;
                let store = self.store.identity(user.grant());
                // Each request reads them all.
                if store.bindings(Some(&user.id), Page { offset: 0, limit: 0 }).await?.total >= MOST_BINDINGS {
                    return Err(Error::invalid("user", format!("already has {MOST_BINDINGS} bindings, the maximum")));
                }
                Ok(Subject::User(user.id.clone()))
            }
            (None, Some(group)) => {
                let fits = (1..=MAX_GROUP).contains(&group.len()) && !group.chars().any(char::is_control);
                if !fits {
                    let reason = format!("must have 1 to {MAX_GROUP} bytes and no control characters");
                    return Err(Error::invalid("group", reason));
                }
                Ok(Subject::Group(group.clone()))
            }
            (Some(_), Some(_)) | (None, None) => Err(Error::invalid("user", "specify either a user or a group")),
        }
    }

    async fn scope(
        &self,
        context: &OpContext,
        grant: &Grant<UsersWrite>,
        new: &NewBinding,
    ) -> Result<BindingScope, Error> {
        if self.roles.find_in(grant, &new.role).await?.is_none() {
            return Err(Error::not_found("role", &new.role));
        }
        let Some(space) = &new.space else {
            // Ids of policies and tags mean something only within a space.
            if !new.policies.is_empty() || !new.tags.is_empty() {
                return Err(Error::invalid("space", "must be specified with policies or tags"));
            }
            return Ok(BindingScope::System);
        };
        let id = SpaceId::parse(space).map_err(|_| Error::not_found("space", space))?;
        if id != SpaceId::default() && self.store.identity(grant).space(&id).await?.is_none() {
            return Err(Error::not_found("space", space));
        }
        let selector = match (new.policies.is_empty(), new.tags.is_empty()) {
            (true, true) => return Ok(BindingScope::Space(id)),
            (false, true) => Selector::Policies(self.policies(context, &id, &new.policies).await?),
            (true, false) => Selector::Tags(clean_tags("tags", &new.tags)?),
            (false, false) => {
                return Err(Error::invalid("tags", "specify either policies or tags; for both, create two bindings"));
            }
        };
        Ok(BindingScope::Part { space: id, selector })
    }

    /// Returns the ids of policies of a space, which are given by id or name. The caller must be able to read them.
    async fn policies(&self, context: &OpContext, space: &SpaceId, wanted: &[String]) -> Result<Vec<PolicyId>, Error> {
        if wanted.len() > MOST_POLICIES {
            return Err(Error::invalid("policies", format!("at most {MOST_POLICIES}")));
        }
        // In the space of the binding, which need not be that of the request.
        let grant = context.clone().in_space(space.clone()).grant::<PoliciesRead>()?;
        let seen = self.store.seen_by(&grant);
        let mut found = Vec::new();
        for text in wanted {
            // Not every name is a valid id; one that is not can still be a name.
            let by_id = match PolicyId::parse(text) {
                Ok(id) => seen.policy(&id).await?,
                Err(_) => None,
            };
            let policy = match by_id {
                Some(policy) => policy,
                None => seen.policy_by_name(text).await?.ok_or_else(|| Error::not_found("agent policy", text))?,
            };
            if !found.contains(&policy.id) {
                found.push(policy.id);
            }
        }
        Ok(found)
    }

    /// Rejects a binding that exists already.
    async fn refuse_duplicate(&self, grant: &Grant<UsersWrite>, new: &Binding) -> Result<(), Error> {
        let user = match &new.subject {
            Subject::User(id) => Some(id),
            Subject::Group(_) => None,
        };
        // All pages are read. A duplicate would be harmless, so a race with another server does not matter.
        let mut page = Page { offset: 0, limit: BATCH };
        loop {
            let found = self.store.identity(grant).bindings(user, page).await?;
            let same = |old: &&Binding| (&old.subject, &old.role, &old.scope) == (&new.subject, &new.role, &new.scope);
            if let Some(old) = found.items.iter().find(same) {
                let message = format!("the binding {} already gives this role in this scope", old.id);
                return Err(Error::conflict("binding_exists", message));
            }
            page.offset += BATCH;
            if u64::from(page.offset) >= found.total {
                return Ok(());
            }
        }
    }

    /// Takes a role from a user or a group.
    pub async fn delete(&self, context: &OpContext, binding: &Authorized<Binding, UsersWrite>) -> Result<(), Error> {
        let (grant, now) = (binding.grant(), self.clock.now());
        // As for creating one: whoever could take privileges from others without having them could lock out
        // administrators.
        check_covers(context, &[self.entitlement(grant, binding).await?])?;
        let line = audit_line(grant.origin(), now, "binding.delete", subject(&binding.id), detail(binding));
        let mut writes = vec![IdentityWrite::DeleteBinding { id: binding.id.clone() }.into()];
        // Checked with the deletion in one commit: two administrators could otherwise remove each other.
        if binding.is_administrator() {
            writes.push(IdentityWrite::KeepsAdministrator.into());
        }
        writes.push(line);
        match self.store.commit(grant, writes).await {
            Err(StoreError::Conflict(Precondition::Missing(_))) => Err(Error::not_found("binding", &binding.id)),
            other => other.map(drop).map_err(last_administrator),
        }
    }
}

fn subject(id: &BindingId) -> String {
    format!("binding:{id}")
}

fn detail(binding: &Binding) -> serde_json::Value {
    let (user, group) = match &binding.subject {
        Subject::User(id) => (Some(id.as_str()), None),
        Subject::Group(name) => (None, Some(name.as_str())),
    };
    json!({"user": user, "group": group, "role": binding.role, "scope": binding.scope})
}
