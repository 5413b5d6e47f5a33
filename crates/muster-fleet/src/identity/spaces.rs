//! The service of spaces.

use muster_core::error_chain::chain;
use std::sync::Arc;

use muster_core::Error;
use muster_core::authorization::{EnrollmentRevoke, Grant, OpContext, Privilege, SpacesRead, SpacesWrite};
use muster_core::change::Change;
use muster_core::enrollment_key::EnrollmentKey;
use muster_core::id::SpaceId;
use muster_core::identity::{Space, new_space_id};
use muster_core::time::Clock;
use muster_store::{IdentityWrite, Precondition, SettingWrite, StoreError, Write};
use serde_json::json;

use super::MOST_LISTED;
use super::users::display;
use crate::audit::audit_line;
use crate::authority::{Authority, Authorized, System};
use crate::keys::deletion;
use crate::watched_store::WatchedStore;
use crate::{fleetd_options, host_checks, packs, saved_queries, space_settings};

/// The service of spaces.
pub struct Spaces {
    store: Arc<WatchedStore>,
    clock: Arc<dyn Clock>,
}

impl Spaces {
    pub(crate) fn new(store: Arc<WatchedStore>, clock: Arc<dyn Clock>) -> Self {
        Self { store, clock }
    }

    /// Returns whether a space exists. Reveals nothing else, so it needs no privilege.
    pub async fn exists(&self, id: &SpaceId) -> Result<bool, Error> {
        Ok(*id == SpaceId::default() || self.store.identity(&System).space(id).await?.is_some())
    }

    /// Returns all spaces by id.
    pub async fn list(&self, grant: &Grant<SpacesRead>) -> Result<Vec<Space>, Error> {
        let mut spaces = self.store.identity(grant).spaces().await?;
        // It has no row until it is changed for the first time.
        if !spaces.iter().any(|space| space.id == SpaceId::default()) {
            spaces.push(Space::default_space());
            spaces.sort_by(|a, b| a.id.cmp(&b.id));
        }
        Ok(spaces)
    }

    /// Finds a space.
    pub async fn find<P: Privilege>(&self, context: &OpContext, id: &str) -> Result<Authorized<Space, P>, Error> {
        let grant = context.grant::<P>()?;
        let found = match SpaceId::parse(id) {
            Ok(id) => self.find_in(&grant, &id).await?,
            Err(_) => None,
        };
        Ok(Authorized::new(found.ok_or_else(|| Error::not_found("space", id))?, grant))
    }

    async fn find_in(&self, by: &impl Authority, id: &SpaceId) -> Result<Option<Space>, Error> {
        let found = self.store.identity(by).space(id).await?;
        Ok(found.or_else(|| (*id == SpaceId::default()).then(Space::default_space)))
    }

    /// Creates a space.
    pub async fn create(
        &self,
        grant: &Grant<SpacesWrite>,
        id: &str,
        name: &str,
        description: &str,
    ) -> Result<Space, Error> {
        let now = self.clock.now();
        let id = new_space_id(id).map_err(|error| Error::invalid("id", chain(&error).to_string()))?;
        let taken = || Error::conflict("space_exists", format!("there is already a space {id}"));
        let spaces = self.store.identity(grant).spaces().await?;
        // It may have no row with which the insertion would conflict.
        if id == SpaceId::default() {
            return Err(taken());
        }
        if spaces.len() >= MOST_LISTED {
            return Err(Error::conflict(
                "too_many_spaces",
                format!("there are already {MOST_LISTED} spaces, the maximum"),
            ));
        }
        let name = display("name", if name.trim().is_empty() { id.as_str() } else { name })?;
        let description = display("description", description)?;
        let space = Space { id: id.clone(), name, description, version: 1, created_at: now, updated_at: now };
        let line = audit_line(grant.origin(), now, "space.create", subject(&space.id), json!({"name": space.name}));
        let writes = vec![IdentityWrite::InsertSpace(Box::new(space.clone())).into(), line];
        match self.store.commit(grant, writes).await {
            Err(StoreError::Conflict(Precondition::Exists(_))) => Err(taken()),
            other => other.map(|_| space).map_err(Error::from),
        }
    }

    /// Changes the name and the description of a space.
    pub async fn update(
        &self,
        space: &Authorized<Space, SpacesWrite>,
        name: &str,
        description: &str,
    ) -> Result<Space, Error> {
        let (grant, now) = (space.grant(), self.clock.now());
        let name = display("name", if name.trim().is_empty() { space.id.as_str() } else { name })?;
        let description = display("description", description)?;
        let after = Space { name, description, version: space.version + 1, updated_at: now, ..Space::clone(space) };
        let detail = json!({
            "before": {"name": space.name, "description": space.description},
            "after": {"name": after.name, "description": after.description},
        });
        let line = audit_line(grant.origin(), now, "space.update", subject(&space.id), detail);
        self.store.commit(grant, vec![IdentityWrite::UpdateSpace(Box::new(after.clone())).into(), line]).await?;
        Ok(after)
    }

    /// Deletes a space, which must be empty, with the bindings in it. The default space gets the disk keys of hosts that have left it. The
    /// default space cannot be deleted.
    pub async fn delete(&self, space: &Authorized<Space, SpacesWrite>) -> Result<(), Error> {
        self.delete_with_keys(space, &[]).await
    }

    /// Deletes a space that contains nothing but these enrollment keys, which are deleted with it, or nothing at all.
    pub async fn delete_with_keys(
        &self,
        space: &Authorized<Space, SpacesWrite>,
        keys: &[Authorized<EnrollmentKey, EnrollmentRevoke>],
    ) -> Result<(), Error> {
        let (grant, now, id) = (space.grant(), self.clock.now(), &space.id);
        if *id == SpaceId::default() {
            return Err(Error::conflict("default_space", "the default space cannot be deleted"));
        }
        let mut writes = self.check_empty(id).await?;
        writes.extend(keys.iter().flat_map(|key| deletion(key, now)));
        let has_options = self.store.everywhere(&System).setting(&fleetd_options::setting_name(id)).await?.is_some();
        let disk_keys = self.store.everywhere(&System).disk_keys_in(id).await?;
        let detail = json!({"name": space.name, "fleetd_options": has_options, "disk_keys": disk_keys});
        writes.push(IdentityWrite::DeleteSpace { id: id.clone() }.into());
        writes.push(audit_line(grant.origin(), now, "space.delete", subject(id), detail));
        // Another space with this id must not inherit them.
        let settings = [
            space_settings::setting_name(id),
            fleetd_options::setting_name(id),
            host_checks::setting_name(id),
            saved_queries::setting_name(id),
            packs::setting_name(id),
        ];
        for name in settings {
            writes.push(SettingWrite::Delete { name: name.clone() }.into());
            writes.push(Write::Changed(Change::Setting(name)));
        }
        match self.store.commit(grant, writes).await {
            Err(StoreError::Conflict(Precondition::Missing(_))) if keys.is_empty() => {
                Err(Error::not_found("space", id))
            }
            Err(StoreError::Conflict(Precondition::InUse(_))) => {
                let remedy = "delete its agents, policies, outputs, enrollment keys, server hosts, proxies, download sources, alert \
                    receivers, labels, installers and saved scripts first";
                Err(in_use(id, remedy))
            }
            // Missing: one of the keys was deleted meanwhile.
            Err(StoreError::Conflict(Precondition::Changed(_) | Precondition::Missing(_))) => {
                let error = Error::conflict("space_changed", "the contents of the space have changed in the meantime");
                Err(error.remedy("repeat the request"))
            }
            other => other.map(drop).map_err(Error::from),
        }
    }

    /// Rejects deleting a space with host checks, packs or saved queries, which are stored as settings of the space. Returns the
    /// preconditions that keep this true until the commit.
    async fn check_empty(&self, id: &SpaceId) -> Result<Vec<Write>, Error> {
        let store = self.store.everywhere(&System);
        let read = async |name: String| -> Result<_, Error> { Ok((store.setting(&name).await?, name)) };
        let checks = read(host_checks::setting_name(id)).await?;
        let saved = read(packs::setting_name(id)).await?;
        let queries = read(saved_queries::setting_name(id)).await?;
        let contents = [
            ("host checks", host_checks::check_ids(checks.0.as_deref())?.len()),
            ("packs", packs::stored(saved.0.as_deref())?.len()),
            ("saved queries", saved_queries::stored(queries.0.as_deref())?.len()),
        ];
        if let Some((kind, _)) = contents.iter().find(|(_, number)| *number > 0) {
            return Err(in_use(id, format!("delete its {kind} first")));
        }
        let unchanged = |(value, name)| SettingWrite::Unchanged { name, value }.into();
        Ok([checks, saved, queries].map(unchanged).into())
    }
}

fn in_use(id: &SpaceId, remedy: impl Into<String>) -> Error {
    Error::conflict("space_in_use", format!("the space {id} is not empty")).remedy(remedy)
}

fn subject(id: &SpaceId) -> String {
    format!("space:{id}")
}
