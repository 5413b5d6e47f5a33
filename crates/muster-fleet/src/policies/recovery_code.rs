//! Recovery codes of policies: create, replace, remove (AG142).

use std::sync::Arc;

use muster_core::authorization::{UninstallReveal, UninstallRotate};
use muster_core::policy::Policy;
use muster_core::recovery_code;
use muster_core::{Error, ErrorKind};
use muster_store::Write;
use serde_json::json;
use zeroize::Zeroizing;

use super::revise::off_thread;
use super::{Policies, Turn, refused};
use crate::audit::audit_line;
use crate::authority::Authorized;

impl Policies {
    /// Creates the recovery code of a protected policy, or replaces it, and returns it: only its hash is stored. Agents accept
    /// it once they run the new revision, and no longer accept the former one.
    ///
    /// Needs both privileges: the caller learns something that removes agents, and changes the policy.
    pub async fn create_recovery_code(
        &self,
        policy: &Authorized<Policy, UninstallRotate>,
        _reveal: &Authorized<Policy, UninstallReveal>,
    ) -> Result<Zeroizing<String>, Error> {
        if policy.grant().is_dry_run() {
            return Err(Error::invalid("dryRun", "is not supported: a code that is not stored would be of no use"));
        }
        let code = recovery_code::generate(&*self.entropy);
        let (entropy, text) = (Arc::clone(&self.entropy), code.clone());
        // Before the turn, which other changes wait for.
        let hash = off_thread(move || recovery_code::hash(&text, &*entropy)).await?;
        let hash = &hash;
        self.in_turn(move |turn| async move { self.set_recovery_code(&turn, policy, Some(hash.clone())).await })
            .await?;
        Ok(code)
    }

    /// Removes the recovery code of a policy. Agents accept it until they run the new revision.
    pub async fn remove_recovery_code(&self, policy: &Authorized<Policy, UninstallRotate>) -> Result<(), Error> {
        self.in_turn(move |turn| async move { self.set_recovery_code(&turn, policy, None).await }).await
    }

    async fn set_recovery_code(
        &self,
        turn: &Turn,
        policy: &Authorized<Policy, UninstallRotate>,
        hash: Option<String>,
    ) -> Result<(), Error> {
        let (grant, now) = (policy.grant(), self.clock.now());
        let (seen, origin) = (self.store.seen_by(grant), grant.origin());
        let before = self.current(policy).await?;
        let action = match (&before.recovery_code_hash, &hash) {
            (None, None) => {
                return Err(Error::not_found("recovery code", format_args!("of the policy {:?}", before.name)));
            }
            (_, None) => "recovery_code.remove",
            (_, Some(_)) if before.fields["is_protected"] != true => {
                let message = format!("the policy {:?} is not protected: agents do not ask for its code", before.name);
                let error = Error::new(ErrorKind::Invalid, "policy_not_protected", message);
                return Err(error.remedy("set is_protected first"));
            }
            (None, Some(_)) => "recovery_code.create",
            (Some(_), Some(_)) => "recovery_code.replace",
        };
        let subject = format!("policy:{}", before.id);
        let line = audit_line(origin, now, action, subject, json!({"revision": before.revision + 1}));
        let after = Policy { recovery_code_hash: hash, ..before.clone() };
        let shared = Arc::new(seen.shared().await?);
        let mut writes: Vec<Write> = vec![turn.write(), line];
        writes.extend(self.revise_if_changed(origin, seen, &before, Some(after), &shared, now).await?);
        self.store.commit(grant, writes).await.map_err(refused)?;
        Ok(())
    }
}
