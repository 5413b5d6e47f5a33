//! The service of uninstall tokens: list and reveal. A policy's first token is made with the policy, and
//! [`Policies::rotate_uninstall_token`](super::policies::Policies::rotate_uninstall_token) replaces it.

use std::sync::Arc;

use muster_core::Error;
use muster_core::authorization::{Grant, OpContext, UninstallRead, UninstallReveal};
use muster_core::id::UninstallTokenId;
use muster_core::time::Clock;
use muster_core::uninstall_token::UninstallToken;
use muster_store::query::{ListedToken, TokenSearch};
use serde_json::json;

use super::audit::{audit_line, commit_disclosure};
use super::authority::Authorized;
use super::secrets::SealedSecrets;
use super::watched_store::WatchedStore;

/// Maximum length of a search, characters (MG82).
const MAX_SEARCH: usize = 50;

/// The service of uninstall tokens.
pub struct UninstallTokens {
    store: Arc<WatchedStore>,
    clock: Arc<dyn Clock>,
    secrets: Arc<SealedSecrets>,
}

impl UninstallTokens {
    pub(crate) fn new(store: Arc<WatchedStore>, clock: Arc<dyn Clock>, secrets: Arc<SealedSecrets>) -> Self {
        Self { store, clock, secrets }
    }

    /// Returns the newest token of each matching policy, including deleted ones, without the texts. Newest first.
    pub async fn list(&self, grant: &Grant<UninstallRead>, search: &TokenSearch) -> Result<Vec<ListedToken>, Error> {
        let (field, part) = match search {
            TokenSearch::All => ("", ""),
            TokenSearch::PolicyId(part) => ("policyId", part.as_str()),
            TokenSearch::PolicyIdOrName(part) => ("search", part.as_str()),
        };
        if part.chars().count() > MAX_SEARCH {
            return Err(Error::invalid(field, format!("has at most {MAX_SEARCH} characters")));
        }
        Ok(self.store.seen_by(grant).uninstall_tokens(search).await?)
    }

    /// Finds a token in the caller's space, current or former.
    pub async fn find(
        &self,
        context: &OpContext,
        id: &str,
    ) -> Result<Authorized<UninstallToken, UninstallReveal>, Error> {
        let grant = context.grant::<UninstallReveal>()?;
        let found = match UninstallTokenId::parse(id) {
            Ok(id) => self.store.seen_by(&grant).uninstall_token(&id).await?,
            Err(_) => None,
        };
        let token = found.ok_or_else(|| Error::not_found("uninstall token", id))?;
        Ok(Authorized::new(token, grant))
    }

    /// Returns the text of a token, and the name of its policy unless that was deleted; this is an audit event.
    pub async fn reveal(
        &self,
        token: &Authorized<UninstallToken, UninstallReveal>,
    ) -> Result<(String, Option<String>), Error> {
        let grant = token.grant();
        let text = self.secrets.open_uninstall_token(&token.id, &token.sealed)?;
        let policy = self.store.seen_by(grant).policy(&token.policy_id).await?;
        let detail = json!({"policy": token.policy_id.as_str(), "number": token.number});
        let subject = format!("uninstall_token:{}", token.id);
        let line = audit_line(grant.origin(), self.clock.now(), "uninstall_token.reveal", subject, detail);
        commit_disclosure(&self.store, grant, vec![line]).await?;
        Ok((text, policy.map(|policy| policy.name)))
    }
}
