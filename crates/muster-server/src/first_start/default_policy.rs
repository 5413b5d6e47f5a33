//! The policy that a server has from the beginning: nothing to run yet.

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use muster_core::Error;
use muster_core::change::Change;
use muster_core::entropy::{random_bytes, random_uuid};
use muster_core::id::PolicyId;
use muster_core::policy::compile::{Sources, compile};
use muster_core::policy::{DEFAULT_INACTIVITY_TIMEOUT, Policy, PolicyRevision};
use muster_store::Write;
use serde_json::json;

use super::unavailable;
use crate::fleet::Fleet;

const NAME: &str = "Default policy";

/// Its id; made when there is none of that name.
pub(super) async fn ensure(fleet: &Fleet) -> Result<PolicyId, Error> {
    if let Some(policy) = fleet.store.policy_by_name(NAME).await.map_err(unavailable)? {
        return Ok(policy.id);
    }
    let policy = blank(fleet);
    // Uninstall tokens come with the policy's next revision; until then nobody knows this one.
    let unknown = digest(&SHA256, &random_bytes::<32>(&*fleet.entropy));
    let outputs = fleet.store.outputs().await.map_err(unavailable)?;
    let compiled = compile(&Sources {
        policy: &policy,
        outputs: &outputs,
        external_urls: &fleet.settings.external_urls,
        uninstall_token_hash: &STANDARD.encode(unknown.as_ref()),
        previous: None,
        signer: &fleet.signer,
    })?;
    let id = policy.id.clone();
    let revision = PolicyRevision {
        policy_id: id.clone(),
        revision: policy.revision,
        created_at: policy.created_at,
        created_by: policy.updated_by.clone(),
        source: json!({"name": policy.name, "namespace": policy.namespace, "config": policy.config}),
        compiled: compiled.policy,
    };
    let writes = vec![
        Write::PolicyInsert(Box::new(policy)),
        Write::PolicyRevisionInsert(Box::new(revision)),
        Write::Changed(Change::Policy(id.clone())),
    ];
    fleet.store.commit(writes).await.map_err(unavailable)?;
    Ok(id)
}

fn blank(fleet: &Fleet) -> Policy {
    let now = fleet.clock.now();
    Policy {
        id: PolicyId::trusted(random_uuid(&*fleet.entropy)),
        name: NAME.into(),
        namespace: "default".into(),
        description: "Made at the first start".into(),
        revision: 1,
        is_managed: false,
        is_default: true,
        inactivity_timeout: i64::try_from(DEFAULT_INACTIVITY_TIMEOUT.as_secs()).unwrap_or(i64::MAX),
        unenroll_timeout: None,
        config: json!({}),
        secrets: Vec::new(),
        fields: json!({}),
        updated_by: "system".into(),
        created_at: now,
        updated_at: now,
    }
}
