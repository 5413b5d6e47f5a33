//! Uninstall tokens.

use muster_protocol::management::recovery_code::RecoveryCode;
use muster_protocol::management::uninstall_token::{ListUninstallTokens, Message, UninstallToken};
use muster_protocol::management::{Item, Items};

use crate::{Client, Result};

const TOKENS: &str = "uninstall_tokens";

impl Client {
    /// Returns a page of uninstall tokens, newest first, without the tokens themselves.
    pub async fn uninstall_tokens(&self, query: &ListUninstallTokens) -> Result<Items<UninstallToken>> {
        self.get_with(&[TOKENS], query).await
    }

    /// Returns an uninstall token with its text. The server records this in the audit log.
    pub async fn uninstall_token(&self, id: &str) -> Result<UninstallToken> {
        Ok(self.get::<Item<_>>(&[TOKENS, id]).await?.item)
    }

    /// Replaces the uninstall token of a protected policy.
    pub async fn rotate_uninstall_token(&self, policy: &str) -> Result<Message> {
        self.post(&[TOKENS, policy, "rotate"], &()).await
    }

    /// Creates or replaces the recovery code of a protected policy. The server stores only its hash.
    pub async fn create_recovery_code(&self, policy: &str) -> Result<RecoveryCode> {
        Ok(self.post::<Item<_>>(&["agent_policies", policy, "recovery_code"], &()).await?.item)
    }

    /// Removes the recovery code of a policy.
    pub async fn remove_recovery_code(&self, policy: &str) -> Result<Message> {
        self.delete(&["agent_policies", policy, "recovery_code"], &()).await
    }
}
