//! Response to the compromise of an agent (M5, M7): one request revokes it, lists what it could read, and marks the agents
//! that may be compromised too.

use std::collections::BTreeSet;
use std::sync::Arc;

use muster_core::Error;
use muster_core::action::ActionType;
use muster_core::agent::AgentRecord;
use muster_core::authorization::{
    AgentsForceUnenroll, AgentsTag, EnrollmentRead, Grant, OpContext, OutputsRead, PoliciesRead,
};
use muster_core::compromise::{self, Exposure};
use muster_core::id::{ActionId, PolicyId};
use muster_core::time::{Clock, Timestamp};
use muster_store::query::{ActionFilter, AgentCondition, AgentFilter, AgentSort, Page};
use serde_json::{Value, json};

use super::actions::Actions;
use super::audit::audit_line;
use super::authority::Authorized;
use super::force::Force;
use super::policies::Policies;
use super::records::Records;
use super::selection::Selected;
use super::tags::TagChange;
use super::watched_store::WatchedStore;

/// Tag of agents that may be compromised.
pub const UNDER_REVIEW: &str = "under-review";
/// Maximum agents under review that a response lists; all of them are tagged and counted.
const LISTED: u32 = 1_000;
/// Maximum actions of an agent in which reassignments are looked for, newest first.
const MAX_ACTIONS: u32 = 10_000;
/// Maximum length of a reason in bytes.
const MAX_REASON_BYTES: usize = 1_024;

/// A request for a response.
#[derive(Clone, Debug, Default)]
pub struct ResponseRequest {
    /// Why; goes into the audit log.
    pub reason: Option<String>,
    /// Puts the agents under review that enrolled with the same key since then.
    pub review_since: Option<Timestamp>,
    /// Whether to revoke the agent although its policy is managed.
    pub force: Force,
}

/// What was done, or would be.
#[derive(Clone, Debug)]
pub struct Response {
    /// The action that revoked the agent; `None` for a dry run.
    pub action: Option<ActionId>,
    /// Number of revoked access keys.
    pub access_keys: usize,
    /// Number of invalidated keys at the clusters of outputs.
    pub output_keys: usize,
    /// What else it could read.
    pub exposures: Vec<Exposure>,
    /// The first agents under review.
    pub review: Vec<AgentRecord>,
    /// Number of agents under review.
    pub reviewed: u64,
}

/// The service of responses.
pub struct Responses {
    store: Arc<WatchedStore>,
    clock: Arc<dyn Clock>,
    records: Arc<Records>,
    actions: Arc<Actions>,
    policies: Arc<Policies>,
}

impl Responses {
    pub(crate) fn new(
        store: Arc<WatchedStore>,
        clock: Arc<dyn Clock>,
        records: Arc<Records>,
        actions: Arc<Actions>,
        policies: Arc<Policies>,
    ) -> Self {
        Self { store, clock, records, actions, policies }
    }

    /// Responds to the compromise of an agent. A dry run returns the same lists and changes nothing.
    pub async fn respond(
        &self,
        context: &OpContext,
        agent: &Authorized<AgentRecord, AgentsForceUnenroll>,
        request: &ResponseRequest,
    ) -> Result<Response, Error> {
        let grant = agent.grant();
        let reason = request.reason.as_deref().unwrap_or_default();
        if reason.len() > MAX_REASON_BYTES {
            return Err(Error::invalid("reason", format!("at most {MAX_REASON_BYTES} bytes")));
        }
        let output_keys = self.store.seen_by(grant).output_keys(agent).await?.len();
        let exposures = self.exposures(context, agent).await?;
        // Revoked before anything else is done: whatever fails below, the agent is out.
        let revoked = match agent.active {
            true => Some(self.revoke(agent, request.force).await?),
            // It was revoked before; the rest is done all the same.
            false => None,
        };
        let (review, reviewed) = match (&agent.enrollment_key_id, request.review_since) {
            (Some(_), Some(since)) => self.review(&context.grant()?, agent, since).await?,
            _ => (Vec::new(), 0),
        };
        let access_keys = agent.credentials.iter().count();
        let detail = json!({
            "reason": reason,
            "access_keys": access_keys,
            "output_keys": output_keys,
            "exposures": exposures.iter().map(|one| one.name.as_str()).collect::<Vec<_>>(),
            "reviewed": reviewed,
        });
        let line =
            audit_line(grant.origin(), self.clock.now(), "agent.respond", format_args!("agent:{}", agent.id), detail);
        self.store.commit(grant, vec![line]).await?;
        Ok(Response {
            action: revoked.filter(|_| !grant.is_dry_run()),
            access_keys,
            output_keys,
            exposures,
            review,
            reviewed,
        })
    }

    async fn revoke(
        &self,
        agent: &Authorized<AgentRecord, AgentsForceUnenroll>,
        force: Force,
    ) -> Result<ActionId, Error> {
        let one = Selected::One(agent.id.clone());
        let selection = Authorized::new(self.records.select(agent.grant(), &one).await?, agent.grant().clone());
        Ok(self.actions.force_unenroll(&selection, force).await?.action.id)
    }

    /// Collects what the agent could read besides its own credentials.
    async fn exposures(
        &self,
        context: &OpContext,
        agent: &Authorized<AgentRecord, AgentsForceUnenroll>,
    ) -> Result<Vec<Exposure>, Error> {
        let mut found = Vec::new();
        let policies: Grant<PoliciesRead> = context.grant()?;
        for id in self.policies_of(context, agent).await? {
            if let Some(policy) = self.store.seen_by(&policies).policy(&id).await? {
                found.extend(compromise::of_policy(&policy));
                found.extend(self.output_exposures(context, &policy.id).await?);
            }
        }
        for file in self.store.seen_by(agent.grant()).files_of(agent).await? {
            found.push(compromise::of_file(&file));
        }
        if let Some(id) = &agent.enrollment_key_id {
            let keys: Grant<EnrollmentRead> = context.grant()?;
            let key = self.store.seen_by(&keys).enrollment_key(id).await?;
            found.extend(key.as_ref().and_then(compromise::of_enrollment_key));
        }
        Ok(found)
    }

    /// Returns the policies that the agent has run: the current one, the running one, which differs during a
    /// reassignment, that of its enrollment key, and those to which it was reassigned.
    async fn policies_of(
        &self,
        context: &OpContext,
        agent: &Authorized<AgentRecord, AgentsForceUnenroll>,
    ) -> Result<BTreeSet<PolicyId>, Error> {
        let mut ids: BTreeSet<PolicyId> = agent.policy_id.iter().chain(&agent.running_policy_id).cloned().collect();
        if let Some(id) = &agent.enrollment_key_id {
            let keys: Grant<EnrollmentRead> = context.grant()?;
            let key = self.store.seen_by(&keys).enrollment_key(id).await?;
            ids.extend(key.and_then(|key| key.policy_id));
        }
        let filter = ActionFilter { agent_id: Some(agent.id.clone()), ..ActionFilter::default() };
        let page = Page { offset: 0, limit: MAX_ACTIONS };
        for (action, _) in self.store.seen_by(agent.grant()).actions(filter, page).await?.items {
            let data = action.data.as_deref().filter(|_| action.kind == ActionType::PolicyReassign);
            let data: Option<Value> = data.and_then(|data| serde_json::from_str(data).ok());
            // An empty id takes the agent off its policy.
            ids.extend(data.and_then(|data| PolicyId::parse(data["policy_id"].as_str()?).ok()));
        }
        Ok(ids)
    }

    async fn output_exposures(&self, context: &OpContext, policy: &PolicyId) -> Result<Vec<Exposure>, Error> {
        let grant: Grant<OutputsRead> = context.grant()?;
        let seen = self.store.seen_by(&grant);
        let mut found = Vec::new();
        for (output, users) in self.policies.output_users(seen).await? {
            if users.iter().any(|user| user.id == *policy)
                && let Some(output) = seen.output(&output).await?
            {
                found.extend(compromise::of_output(&output));
            }
        }
        Ok(found)
    }

    /// Tags the agents that enrolled with the same key since a time. Returns the first ones, and how many there are.
    async fn review(
        &self,
        grant: &Grant<AgentsTag>,
        agent: &AgentRecord,
        since: Timestamp,
    ) -> Result<(Vec<AgentRecord>, u64), Error> {
        let Some(key) = &agent.enrollment_key_id else { return Ok((Vec::new(), 0)) };
        let filter = AgentFilter::all([
            AgentCondition::EnrollmentKeys(vec![key.clone()]),
            !AgentCondition::EnrolledBy(since),
            !AgentCondition::Ids(vec![agent.id.clone()]),
        ]);
        let page = Page { offset: 0, limit: LISTED };
        let listed = self.store.seen_by(grant).agents(&filter, AgentSort::EnrolledAt, false, page).await?;
        let selected = Selected::Matching(Box::new(filter));
        let selection = Authorized::new(self.records.select(grant, &selected).await?, grant.clone());
        if listed.total > 0 {
            let change = TagChange { add: vec![UNDER_REVIEW.to_owned()], remove: Vec::new() };
            self.actions.change_tags(&selection, &change).await?;
        }
        Ok((listed.items.into_iter().map(|one| one.record).collect(), listed.total))
    }
}
