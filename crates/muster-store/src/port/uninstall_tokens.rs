//! Uninstall tokens.

use muster_core::id::{PolicyId, SpaceId, UninstallTokenId};
use muster_core::uninstall_token::UninstallToken;

use super::reads::reads;
use super::{StoreError, Write};
use crate::query::{ListedToken, TokenSearch};

/// A change of uninstall tokens.
#[derive(Clone, Debug)]
pub enum UninstallTokenWrite {
    /// Inserts a token. Fails with `Exists` if the policy has a token with its number.
    Insert(Box<UninstallToken>),
}

impl From<UninstallTokenWrite> for Write {
    fn from(write: UninstallTokenWrite) -> Self {
        Self::UninstallToken(write)
    }
}

reads! {
    /// Reads of uninstall tokens.
    pub trait UninstallTokenStore {
        /// Selects a token.
        async fn uninstall_token(&self, id: &UninstallTokenId) -> Result<Option<UninstallToken>, StoreError>;
        /// Selects the newest token of a policy.
        async fn newest_uninstall_token(&self, policy: &PolicyId) -> Result<Option<UninstallToken>, StoreError>;
        /// Selects the newest token of each policy of a space that matches, including deleted policies, newest first.
        async fn uninstall_tokens(&self, space: &SpaceId, search: &TokenSearch) -> Result<Vec<ListedToken>, StoreError>;
    }
}
