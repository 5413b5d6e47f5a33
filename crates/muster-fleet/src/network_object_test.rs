//! Tests of the connections of a network object, which need not be saved.

use muster_core::Error;
use muster_core::authorization::Grant;
use muster_core::connection_test::{Settings, Tested};
use muster_core::id::NetworkObjectId;
use muster_core::network_object::NetworkObject;
use muster_core::secret_refs::Secrets;
use serde_json::json;

use super::audit::audit_line;
use super::authority::Authorized;
use super::network_objects::{NetworkFamily, NetworkObjectDraft, NetworkObjects, blank};
use super::policy_objects::{Edit, PolicyObject as _, check_proxy};

/// Name of an object that has none yet.
const UNNAMED: &str = "test";

impl<F: NetworkFamily> NetworkObjects<F> {
    /// Tests the connections of an object as it would be after a change; an empty draft changes nothing. Stored secrets are
    /// used under the rules of a change: they are never sent to a new destination.
    pub async fn test(
        &self,
        object: &Authorized<NetworkObject, F::Write>,
        draft: NetworkObjectDraft,
    ) -> Result<Vec<Tested>, Error> {
        self.test_edit(object.grant(), (**object).clone(), draft).await
    }

    /// Tests the connections of an object that does not exist yet.
    pub async fn test_new(&self, grant: &Grant<F::Write>, mut draft: NetworkObjectDraft) -> Result<Vec<Tested>, Error> {
        // The name has no influence on the connections.
        draft.name = draft.name.filter(|name| !name.trim().is_empty()).or_else(|| Some(UNNAMED.to_owned()));
        let now = self.objects.clock.now();
        self.test_edit(grant, blank::<F>(NetworkObjectId::trusted("new"), grant, now), draft).await
    }

    async fn test_edit(
        &self,
        grant: &Grant<F::Write>,
        before: NetworkObject,
        draft: NetworkObjectDraft,
    ) -> Result<Vec<Tested>, Error> {
        let permit = self.tests.admit()?;
        // Validated and sealed as for a change, whose writes are not committed.
        let Edit { after, sealed, .. } = self.edit(before, draft).await?;
        let shared = self.objects.store.seen_by(grant).shared().await?;
        check_proxy(&after.fields, &shared)?;
        let settings = Settings::of(&after, &shared);
        let needed: Vec<_> = settings.secrets().into_iter().collect();
        let mut secrets: Secrets = self.objects.secrets.open(&needed).await?;
        secrets.extend(self.objects.secrets.open_new(&sealed)?);
        // Recorded before it starts: a caller can make this server connect to a host of their choice.
        let detail = json!({"name": after.name, "addresses": settings.addresses()});
        let verb = format!("{}.test", after.word());
        let line = audit_line(grant.origin(), self.objects.clock.now(), &verb, after.subject(), detail);
        self.objects.store.commit(grant, vec![line]).await?;
        if grant.is_dry_run() {
            return Ok(Vec::new());
        }
        let tested = self.tests.run(&after, &shared, settings, &secrets).await;
        drop(permit);
        tested
    }
}
