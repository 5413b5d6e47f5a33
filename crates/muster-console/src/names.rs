//! Names of policies and enrollment keys, for whoever may see agents that have them. Their contents need privileges of their own.

use std::collections::HashMap;

use muster_core::authorization::AgentsRead;
use muster_core::id::{EnrollmentKeyId, PolicyId};
use muster_fleet::Fleet;

use crate::agents::agent::name_or_id;
use crate::visitor::Visitor;

/// Returns the names of policies; ids without a name are those of policies that are gone, or that the visitor may not see.
pub async fn policies(fleet: &Fleet, visitor: &Visitor, ids: &[PolicyId]) -> HashMap<PolicyId, String> {
    let Ok(grant) = visitor.context.grant::<AgentsRead>() else { return HashMap::new() };
    fleet.policies().names(&grant, ids).await.unwrap_or_default()
}

/// Returns the name of a policy; `None` if it is gone, or the visitor may not see it.
pub async fn policy(fleet: &Fleet, visitor: &Visitor, id: &str) -> Option<String> {
    let id = PolicyId::parse(id).ok()?;
    policies(fleet, visitor, std::slice::from_ref(&id)).await.remove(&id)
}

/// Returns the names of enrollment keys. Keys without a visible name have their id.
pub async fn keys(fleet: &Fleet, visitor: &Visitor, ids: &[EnrollmentKeyId]) -> HashMap<EnrollmentKeyId, String> {
    let Ok(grant) = visitor.context.grant::<AgentsRead>() else { return HashMap::new() };
    let found = fleet.enrollment_keys().names(&grant, ids).await.unwrap_or_default();
    found.into_iter().map(|(id, name)| (id.clone(), name_or_id(&name, id.as_str()).to_owned())).collect()
}

/// Returns the name of an enrollment key; `None` if it is gone, or the visitor may not see it.
pub async fn key(fleet: &Fleet, visitor: &Visitor, id: &str) -> Option<String> {
    let id = EnrollmentKeyId::parse(id).ok()?;
    keys(fleet, visitor, std::slice::from_ref(&id)).await.remove(&id)
}
