//! The service of roles.

use muster_core::error_chain::chain;
use std::sync::Arc;

use muster_core::Error;
use muster_core::authorization::{
    BindingScope, BuiltIn, Grant, OpContext, Privilege, PrivilegeName, PrivilegeSet, Role, RolesRead, RolesWrite,
};
use muster_core::id::RoleId;
use muster_core::identity::check_name;
use muster_core::time::Clock;
use muster_store::{IdentityWrite, Precondition, StoreError};
use serde_json::json;

use super::users::display;
use super::{MOST_LISTED, none_missing, parse_privileges};
use crate::audit::audit_line;
use crate::authority::{Authority, Authorized};
use crate::watched_store::WatchedStore;

/// A role as a caller describes it.
#[derive(Clone, Debug, Default)]
pub struct RoleDraft {
    /// Name. The id of a new role is its name in lower case, with hyphens for spaces.
    pub name: String,
    /// Description.
    pub description: String,
    /// Names of the privileges.
    pub privileges: Vec<String>,
}

/// The service of roles.
pub struct Roles {
    store: Arc<WatchedStore>,
    clock: Arc<dyn Clock>,
}

impl Roles {
    pub(crate) fn new(store: Arc<WatchedStore>, clock: Arc<dyn Clock>) -> Self {
        Self { store, clock }
    }

    /// Returns all roles, the built-in ones first.
    pub async fn list(&self, grant: &Grant<RolesRead>) -> Result<Vec<Role>, Error> {
        let stored = self.store.identity(grant).roles().await?;
        Ok(BuiltIn::ALL.into_iter().map(BuiltIn::record).chain(stored).collect())
    }

    /// Finds a role.
    pub async fn find<P: Privilege>(&self, context: &OpContext, id: &str) -> Result<Authorized<Role, P>, Error> {
        let grant = context.grant::<P>()?;
        let role = self.find_in(&grant, id).await?.ok_or_else(|| Error::not_found("role", id))?;
        Ok(Authorized::new(role, grant))
    }

    pub(super) async fn find_in(&self, by: &impl Authority, id: &str) -> Result<Option<Role>, Error> {
        let Ok(id) = RoleId::parse(id) else { return Ok(None) };
        match BuiltIn::of(&id) {
            Some(role) => Ok(Some(role.record())),
            None => Ok(self.store.identity(by).role(&id).await?),
        }
    }

    /// Creates a role. The caller must have all its privileges.
    pub async fn create(&self, context: &OpContext, draft: &RoleDraft) -> Result<Role, Error> {
        let (grant, now) = (context.grant::<RolesWrite>()?, self.clock.now());
        let name = role_name(&draft.name)?;
        let id = role_id(&name)?;
        if self.store.identity(&grant).roles().await?.len() >= MOST_LISTED {
            return Err(Error::conflict(
                "too_many_roles",
                format!("there are already {MOST_LISTED} roles, the maximum"),
            ));
        }
        let role = Role {
            id,
            name,
            description: display("description", &draft.description)?,
            privileges: self.privileges(context, draft, PrivilegeSet::default())?,
            is_built_in: false,
            version: 1,
            updated_at: now,
        };
        let line = audit_line(grant.origin(), now, "role.create", subject(&role.id), json!({"after": shown(&role)}));
        self.store.commit(&grant, vec![IdentityWrite::InsertRole(Box::new(role.clone())).into(), line]).await?;
        Ok(role)
    }

    /// Changes a role, for everybody who has it, from the next request on.
    pub async fn update(
        &self,
        context: &OpContext,
        role: &Authorized<Role, RolesWrite>,
        draft: &RoleDraft,
    ) -> Result<Role, Error> {
        check_is_own(role)?;
        let (grant, now) = (role.grant(), self.clock.now());
        let after = Role {
            name: role_name(&draft.name)?,
            description: display("description", &draft.description)?,
            // Only the difference counts: a caller can rename a role that has privileges that it lacks.
            privileges: self.privileges(context, draft, role.privileges)?,
            version: role.version + 1,
            updated_at: now,
            ..Role::clone(role)
        };
        let detail = json!({"before": shown(role), "after": shown(&after)});
        let line = audit_line(grant.origin(), now, "role.update", subject(&role.id), detail);
        self.store.commit(grant, vec![IdentityWrite::UpdateRole(Box::new(after.clone())).into(), line]).await?;
        Ok(after)
    }

    /// Deletes a role that nobody has.
    pub async fn delete(&self, role: &Authorized<Role, RolesWrite>) -> Result<(), Error> {
        // Built-in roles are in the program; bindings to them must always mean the same.
        check_is_own(role)?;
        let (grant, now) = (role.grant(), self.clock.now());
        let line = audit_line(grant.origin(), now, "role.delete", subject(&role.id), json!({"before": shown(role)}));
        match self.store.commit(grant, vec![IdentityWrite::DeleteRole { id: role.id.clone() }.into(), line]).await {
            Err(StoreError::Conflict(Precondition::Missing(_))) => Err(Error::not_found("role", &role.id)),
            Err(StoreError::Conflict(Precondition::InUse(_))) => {
                Err(Error::conflict("role_in_use", format!("the role {:?} is in use", role.name))
                    .remedy("delete the bindings of the role first"))
            }
            other => other.map(drop).map_err(Error::from),
        }
    }

    // What is added and what is removed: to take a privilege from others, one must have it, as for locking them. A role can
    // be bound anywhere, so the privileges must be held everywhere.
    fn privileges(&self, context: &OpContext, draft: &RoleDraft, before: PrivilegeSet) -> Result<PrivilegeSet, Error> {
        let wanted = parse_privileges("privileges", &draft.privileges)?;
        none_missing(context.lacks(wanted.without(before).with(before.without(wanted)), &BindingScope::System))?;
        Ok(wanted)
    }
}

fn check_is_own(role: &Role) -> Result<(), Error> {
    if role.is_built_in {
        return Err(Error::conflict(
            "built_in_role",
            format!("the role {:?} is built in and cannot be changed", role.name),
        )
        .remedy("create a custom role"));
    }
    Ok(())
}

fn role_name(name: &str) -> Result<String, Error> {
    let name = display("name", name)?;
    let is_built_in = |role: &BuiltIn| role.texts().0.eq_ignore_ascii_case(&name);
    if name.is_empty() {
        return Err(Error::invalid("name", "must not be empty"));
    }
    if BuiltIn::ALL.iter().any(is_built_in) {
        return Err(Error::conflict("name_taken", format!("{name:?} is a built-in role")));
    }
    Ok(name)
}

fn role_id(name: &str) -> Result<RoleId, Error> {
    let id = check_name(&name.replace(' ', "-")).map_err(|error| Error::invalid("name", chain(&error).to_string()))?;
    RoleId::propose(&id).map_err(|error| Error::invalid("name", chain(&error).to_string()))
}

fn subject(id: &RoleId) -> String {
    format!("role:{id}")
}

fn shown(role: &Role) -> serde_json::Value {
    let privileges: Vec<&str> = role.privileges.iter().map(PrivilegeName::as_str).collect();
    json!({"name": role.name, "description": role.description, "privileges": privileges})
}
