//! Reads scoped to a space, and to the part of it that a grant covers. Like commits, reads name their authority.
//!
//! People read through a [`Scoped`], which is constructed from a grant. It adds the space and the scope of the grant to
//! every query, so that no service can forget them. Only the server itself and authenticated agents may read across spaces.
//!
//! ```
//! use muster_core::agent::AgentRecord;
//! use muster_core::authorization::{AgentsRead, Grant};
//! use muster_core::id::AgentId;
//! use muster_fleet::watched_store::WatchedStore;
//! use muster_store::StoreError;
//!
//! async fn show(
//!     store: &WatchedStore,
//!     grant: &Grant<AgentsRead>,
//!     id: &AgentId,
//! ) -> Result<Option<AgentRecord>, StoreError> {
//!     store.seen_by(grant).agent(id).await
//! }
//! ```
//!
//! Without a grant it does not compile:
//!
//! ```compile_fail,E0599
//! # use muster_core::agent::AgentRecord;
//! # use muster_core::id::AgentId;
//! # use muster_fleet::watched_store::WatchedStore;
//! # use muster_store::StoreError;
//! async fn show(store: &WatchedStore, id: &AgentId) -> Result<Option<AgentRecord>, StoreError> {
//!     store.agent(id).await
//! }
//! ```
//!
//! A grant does not give access to all spaces:
//!
//! ```compile_fail,E0277
//! # use muster_core::agent::AgentRecord;
//! # use muster_core::authorization::{AgentsRead, Grant};
//! # use muster_core::id::AgentId;
//! # use muster_fleet::watched_store::WatchedStore;
//! # use muster_store::StoreError;
//! async fn show(
//!     store: &WatchedStore,
//!     grant: &Grant<AgentsRead>,
//!     id: &AgentId,
//! ) -> Result<Option<AgentRecord>, StoreError> {
//!     store.everywhere(grant).agent(id).await
//! }
//! ```

mod actions;
mod agents;
mod carves;
mod disk_keys;
mod host_runs;
mod installers;
mod inventory;
mod live_queries;
mod objects;
mod policies;
mod rollouts;
mod scripts;
mod software;

use muster_core::authorization::{Scope, Selector};
use muster_core::id::SpaceId;
use muster_store::Resources;
use muster_store::query::AgentCondition;

/// A view of the store that is limited to one space, and to the scope of a grant: other objects don't exist in it.
///
/// Dependent data (documents, targets, revisions) is read with the record that it belongs to, which has the space.
#[derive(Clone, Copy)]
pub struct Scoped<'a> {
    store: &'a dyn Resources,
    space: &'a SpaceId,
    scope: &'a Scope,
}

impl<'a> Scoped<'a> {
    /// Called only by the watched store, for a grant or for the server itself.
    pub(crate) fn new(store: &'a dyn Resources, space: &'a SpaceId, scope: &'a Scope) -> Self {
        Self { store, space, scope }
    }

    /// The space.
    pub fn space(&self) -> &'a SpaceId {
        self.space
    }

    fn is_whole(&self) -> bool {
        *self.scope == Scope::Whole
    }

    // For tables without a column for the space. The result for a foreign record is empty and not an error, as if the
    // record did not exist.
    fn holds(&self, space: &SpaceId) -> bool {
        self.space == space
    }
}

fn selected_by(selector: &Selector) -> AgentCondition {
    match selector {
        Selector::Policies(ids) => AgentCondition::Policies(ids.clone()),
        Selector::Tags(tags) => AgentCondition::Tags(tags.clone()),
    }
}
