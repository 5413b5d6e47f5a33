//! Reads of uninstall tokens.

use async_trait::async_trait;
use muster_core::id::{PolicyId, SpaceId, UninstallTokenId};
use muster_core::uninstall_token::UninstallToken;

use super::SqlStore;
use crate::engine::uninstall_tokens;
use crate::port::{StoreError, UninstallTokenStore};
use crate::query::{ListedToken, TokenSearch};

#[async_trait]
impl UninstallTokenStore for SqlStore {
    async fn uninstall_token(&self, id: &UninstallTokenId) -> Result<Option<UninstallToken>, StoreError> {
        let id = id.clone();
        self.points.read(move |c| uninstall_tokens::by_id(c, &id)).await
    }

    async fn newest_uninstall_token(&self, policy: &PolicyId) -> Result<Option<UninstallToken>, StoreError> {
        let policy = policy.clone();
        self.points.read(move |c| uninstall_tokens::newest(c, &policy)).await
    }

    async fn uninstall_tokens(&self, space: &SpaceId, search: &TokenSearch) -> Result<Vec<ListedToken>, StoreError> {
        let (space, search) = (space.clone(), search.clone());
        self.lists.read(move |c| uninstall_tokens::of_space(c, &space, &search)).await
    }
}
