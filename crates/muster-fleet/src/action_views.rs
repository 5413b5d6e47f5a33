//! Read access to actions for administrators: progress, errors, and targets.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use muster_core::action::{Action, ActionCounts, ActionResult, Outcome, Target, TargetState};
use muster_core::action_request::{ActionProgress, progress};
use muster_core::agent::AgentRecord;
use muster_core::authorization::{AgentsRead, Grant, OpContext};
use muster_core::id::{ActionId, AgentId, PolicyId};
use muster_core::status::Status;
use muster_core::time::Timestamp;
use muster_core::{Error, ErrorKind};
use muster_store::query::{ActionCursor, ActionFilter, AgentCondition, AgentFilter, AgentSort, Listed, Page};

use super::actions::Actions;
use super::authority::Authorized;
use super::scope::Scoped;

/// Targets per read.
const READ_BATCH: u32 = 5000;
/// Maximum errors returned for one action; each costs a read of the agent's host name.
const MAX_ERRORS: u32 = 100;

/// An action and its progress.
#[derive(Clone, Debug)]
pub struct ActionView {
    /// The action.
    pub action: Action,
    /// Number of targets.
    pub created: i64,
    /// Its progress.
    pub progress: ActionProgress,
    /// The latest errors.
    pub errors: Vec<AgentResult>,
}

/// A result with its agent's host name.
#[derive(Clone, Debug)]
pub struct AgentResult {
    /// The result.
    pub result: ActionResult,
    /// The host's name; `None` if the agent was deleted or never reported one.
    pub hostname: Option<String>,
}

/// One target of an action.
#[derive(Clone, Debug)]
pub struct TargetView {
    /// Its position among the targets, after which a next page begins.
    pub position: i64,
    /// The agent.
    pub agent: AgentId,
    /// Its host's name.
    pub hostname: Option<String>,
    /// State of this target.
    pub state: TargetState,
    /// The agent's result, once it has sent one.
    pub result: Option<ActionResult>,
}

/// An action of one agent.
#[derive(Clone, Debug)]
pub struct AgentAction {
    /// The action.
    pub action: Action,
    /// Its state for the agent.
    pub state: TargetState,
}

/// An entry of the list of actions.
#[derive(Clone, Debug)]
pub enum ListedAction {
    /// An action.
    Action(Box<Action>),
    /// A new revision of a policy.
    PolicyChange {
        /// The policy.
        policy: PolicyId,
        /// Its revision.
        revision: i64,
        /// When the revision was created.
        at: Timestamp,
    },
}

/// Filter and paging of a list of actions.
#[derive(Clone, Debug, Default)]
pub struct ActionListQuery {
    /// Only actions that have this agent as a target.
    pub agent: Option<AgentId>,
    /// Only actions of the day that starts at this time.
    pub day: Option<Timestamp>,
    /// Only actions no older than this.
    pub latest: Option<Duration>,
    /// Maximum errors to return for each action.
    pub errors: u32,
    /// Cursor: only actions after this one.
    pub after: Option<ActionCursor>,
}

/// Parses `<policy>:<revision>`. Unambiguous, because the ids of actions contain no colon.
fn policy_change(id: &str) -> Option<(PolicyId, i64)> {
    let (policy, revision) = id.rsplit_once(':')?;
    Some((PolicyId::parse(policy).ok()?, revision.parse().ok()?))
}

impl Actions {
    /// Returns a page of actions and policy changes, newest first, without CANCEL actions.
    pub async fn list(
        &self,
        grant: &Grant<AgentsRead>,
        question: &ActionListQuery,
        page: Page,
    ) -> Result<Listed<ActionView>, Error> {
        let now = self.clock.now();
        let since = question.latest.map(|latest| now.minus(latest));
        let filter = ActionFilter {
            space: None,
            before: question.day.map(|day| day.plus(Duration::from_secs(86_400))),
            since: since.max(question.day),
            agent_id: question.agent.clone(),
            without_cancels: true,
            with_policy_changes: true,
            after: question.after.clone(),
            within: None,
        };
        let seen = self.store.seen_by(grant);
        let found = seen.actions(filter, page).await?;
        let mut items = Vec::with_capacity(found.items.len());
        for (action, counts) in found.items {
            items.push(self.action_view(seen, action, counts, question.errors).await?);
        }
        Ok(Listed { items, total: found.total, unreadable: found.unreadable })
    }

    /// Adds the latest errors to actions that were listed without them.
    pub async fn add_errors(
        &self,
        grant: &Grant<AgentsRead>,
        views: &mut [ActionView],
        errors: u32,
    ) -> Result<(), Error> {
        for view in views.iter_mut().filter(|view| view.progress.failed > 0 && errors > 0) {
            view.errors = latest_errors(self.store.seen_by(grant), &view.action, errors).await?;
        }
        Ok(())
    }

    /// Finds an entry of the list in the caller's space: an action, or a policy change by `<policy>:<revision>`.
    pub async fn find_listed(
        &self,
        context: &OpContext,
        id: &str,
    ) -> Result<Authorized<ListedAction, AgentsRead>, Error> {
        let Some((policy, revision)) = policy_change(id) else {
            let action = self.find::<AgentsRead>(context, id).await?;
            let grant = action.grant().clone();
            return Ok(Authorized::new(ListedAction::Action(Box::new(action.into_inner())), grant));
        };
        let grant = context.grant::<AgentsRead>()?;
        let seen = self.store.seen_by(&grant);
        let Some(found) = seen.policy(&policy).await? else {
            return Err(Error::not_found("change of policy", id));
        };
        let revisions = seen.revisions(&found).await?;
        // Revision 1 is the policy's creation and changes nothing that agents had, so the list does not have it either.
        match revisions.into_iter().find(|(number, _, _)| *number == revision && *number > 1) {
            Some((_, at, _)) => Ok(Authorized::new(ListedAction::PolicyChange { policy, revision, at }, grant)),
            None => Err(Error::not_found("change of policy", id)),
        }
    }

    /// Returns one action with its progress.
    pub async fn show(&self, listed: &Authorized<ListedAction, AgentsRead>, errors: u32) -> Result<ActionView, Error> {
        let seen = self.store.seen_by(listed.grant());
        let (action, counts) = match &**listed {
            ListedAction::PolicyChange { policy, revision, at } => {
                counted_at(seen, *at, &format!("{policy}:{revision}"), "change of policy").await?
            }
            ListedAction::Action(action) => counted_at(seen, action.created_at, action.id.as_str(), "action").await?,
        };
        self.action_view(seen, action, counts, errors).await
    }

    /// Returns an action's targets with their results, after position `after`.
    pub async fn results(
        &self,
        listed: &Authorized<ListedAction, AgentsRead>,
        after: i64,
        limit: u32,
    ) -> Result<Vec<TargetView>, Error> {
        self.results_in(listed, None, after, limit).await
    }

    /// Returns an action's targets in a state, or all, with their results, after position `after`. Reads the targets in between.
    pub async fn results_in(
        &self,
        listed: &Authorized<ListedAction, AgentsRead>,
        wanted: Option<TargetState>,
        after: i64,
        limit: u32,
    ) -> Result<Vec<TargetView>, Error> {
        let seen = self.store.seen_by(listed.grant());
        let mut results = match &**listed {
            ListedAction::PolicyChange { .. } => HashMap::new(),
            // Results have no position of their own, so all of them are read and matched with the targets.
            ListedAction::Action(action) => {
                let results = seen.action_results(action, false, u32::MAX).await?.into_iter();
                results.map(|result| (result.agent_id.clone(), result)).collect()
            }
        };
        let batch = if wanted.is_some() { READ_BATCH } else { limit };
        let (mut views, mut place, most) = (Vec::new(), after, limit as usize);
        loop {
            let targets = match &**listed {
                ListedAction::PolicyChange { policy, revision, .. } => {
                    agents_of_change(seen, policy.clone(), *revision, place, batch).await?
                }
                ListedAction::Action(action) => targets_after(seen, action, place, batch, &mut results).await?,
            };
            let is_last = targets.len() < batch as usize;
            place = targets.last().map_or(place, |last| last.position);
            views.extend(targets.into_iter().filter(|view| wanted.is_none_or(|state| view.state == state)));
            if is_last || views.len() >= most {
                views.truncate(most);
                break;
            }
        }
        for view in views.iter_mut().filter(|view| view.hostname.is_none()) {
            view.hostname = hostname(seen, &view.agent).await?;
        }
        Ok(views)
    }

    /// Returns the agents for which an action failed, at most `limit`, the latest first.
    pub async fn failed_agents(
        &self,
        action: &Authorized<Action, AgentsRead>,
        limit: u32,
    ) -> Result<Vec<AgentId>, Error> {
        let results = self.store.seen_by(action.grant()).action_results(action, true, limit).await?;
        Ok(results.into_iter().map(|result| result.agent_id).collect())
    }

    /// Returns the newest actions of an agent with the state of each, at most `limit`.
    pub async fn of_agent(
        &self,
        agent: &Authorized<AgentRecord, AgentsRead>,
        limit: u32,
    ) -> Result<Vec<AgentAction>, Error> {
        let seen = self.store.seen_by(agent.grant());
        let filter =
            ActionFilter { agent_id: Some(agent.id.clone()), without_cancels: true, ..ActionFilter::default() };
        let mut found = Vec::new();
        for (action, _) in seen.actions(filter, Page { offset: 0, limit }).await?.items {
            let Some(target) = seen.action_target(&action, &agent.id).await? else { continue };
            let state = match target.state {
                TargetState::Queued if action.cancelled_at.is_some() => TargetState::Cancelled,
                state => state,
            };
            found.push(AgentAction { action, state });
        }
        Ok(found)
    }

    /// Returns the targets of several actions; `<policy>:<revision>` names a policy change (MG148).
    pub async fn agents_of(&self, context: &OpContext, ids: &[String]) -> Result<BTreeSet<AgentId>, Error> {
        let grant = context.grant::<AgentsRead>()?;
        let seen = self.store.seen_by(&grant);
        let mut agents = BTreeSet::new();
        for id in ids {
            match policy_change(id) {
                Some((policy, revision)) => {
                    // A policy of another space has no agents in this one. Not an error: that would reveal that it
                    // exists.
                    if let Some(policy) = seen.policy(&policy).await? {
                        agents.extend(seen.all_agent_ids(&targets_of_change(policy.id, revision)).await?);
                    }
                }
                // An unknown action has no agents (MG104).
                None => match self.find::<AgentsRead>(context, id).await {
                    Ok(action) => agents.extend(targets_of(seen, &action).await?),
                    Err(error) if error.kind == ErrorKind::NotFound => {}
                    Err(error) => return Err(error),
                },
            }
        }
        Ok(agents)
    }

    async fn action_view(
        &self,
        seen: Scoped<'_>,
        action: Action,
        counts: ActionCounts,
        errors: u32,
    ) -> Result<ActionView, Error> {
        let now = self.clock.now();
        let failed = if counts.failed > 0 && errors > 0 { latest_errors(seen, &action, errors).await? } else { vec![] };
        Ok(ActionView { progress: progress(&action, &counts, now), created: counts.created, errors: failed, action })
    }
}

/// Returns the filter for the agents that a revision is for: the enrolled ones that follow the policy or are pinned to
/// this revision.
fn targets_of_change(policy: PolicyId, revision: i64) -> AgentFilter {
    let enrolled = !AgentCondition::Statuses(vec![Status::Unenrolled]);
    AgentFilter::all([AgentCondition::Policies(vec![policy]), AgentCondition::TakesRevision(revision), enrolled])
}

async fn targets_of(seen: Scoped<'_>, action: &Action) -> Result<Vec<AgentId>, Error> {
    let (mut agents, mut place) = (Vec::new(), -1);
    loop {
        let targets = seen.action_targets(action, place, READ_BATCH).await?;
        let Some((last, _, _)) = targets.last() else { return Ok(agents) };
        place = *last;
        agents.extend(targets.into_iter().map(|(_, agent, _)| agent));
    }
}

/// Returns targets of an action after a position, without the names of their hosts. Takes their results out of `results`.
async fn targets_after(
    seen: Scoped<'_>,
    action: &Action,
    after: i64,
    limit: u32,
    results: &mut HashMap<AgentId, ActionResult>,
) -> Result<Vec<TargetView>, Error> {
    let targets = seen.action_targets(action, after, limit).await?.into_iter();
    let view = |(position, agent, target): (i64, AgentId, Target)| {
        let state = match target.state {
            // A cancellation does not write each target.
            TargetState::Queued if action.cancelled_at.is_some() => TargetState::Cancelled,
            state => state,
        };
        TargetView { position, hostname: None, result: results.remove(&agent), agent, state }
    };
    Ok(targets.map(view).collect())
}

async fn latest_errors(seen: Scoped<'_>, action: &Action, limit: u32) -> Result<Vec<AgentResult>, Error> {
    let results = seen.action_results(action, true, limit.min(MAX_ERRORS)).await?;
    let mut errors = Vec::with_capacity(results.len());
    for result in results {
        errors.push(AgentResult { hostname: hostname(seen, &result.agent_id).await?, result });
    }
    Ok(errors)
}

async fn hostname(seen: Scoped<'_>, agent: &AgentId) -> Result<Option<String>, Error> {
    Ok(seen.agent(agent).await?.map(|record| record.hostname).filter(|name| !name.is_empty()))
}

/// Returns the agents that the revision is for: those pinned to it, which must run it, and those that follow the policy,
/// which can run a newer one.
async fn agents_of_change(
    seen: Scoped<'_>,
    policy: PolicyId,
    revision: i64,
    after: i64,
    limit: u32,
) -> Result<Vec<TargetView>, Error> {
    let filter = targets_of_change(policy.clone(), revision);
    let page = Page { offset: u32::try_from(after.saturating_add(1)).unwrap_or(0), limit };
    // Sorted by a time that never changes, so that pages don't shift while agents check in.
    let found = seen.agents(&filter, AgentSort::EnrolledAt, false, page).await?;
    let view = |(position, record): (i64, AgentRecord)| {
        let is_done = match record.target_revision {
            Some(_) => record.policy_revision == revision,
            None => record.policy_revision >= revision,
        };
        let runs = record.running_policy_id.as_ref() == Some(&policy) && is_done;
        // Of an agent that runs a newer revision, it is not known since when it had this one.
        let at = record.policy_revision_at.filter(|_| runs && record.policy_revision == revision);
        TargetView {
            position,
            hostname: Some(record.hostname).filter(|name| !name.is_empty()),
            state: if runs { TargetState::Acked } else { TargetState::Queued },
            result: at.map(|at| ActionResult {
                action_id: ActionId::trusted(format!("{policy}:{revision}")),
                agent_id: record.id.clone(),
                at,
                outcome: Outcome::Acked,
                fields: None,
            }),
            agent: record.id,
        }
    };
    let records = found.items.into_iter().map(|details| details.record);
    Ok((i64::from(page.offset)..).zip(records).map(view).collect())
}

/// Returns one action with its counts. The store counts targets only in lists, so this lists the actions of exactly
/// that microsecond.
async fn counted_at(seen: Scoped<'_>, at: Timestamp, id: &str, what: &str) -> Result<(Action, ActionCounts), Error> {
    let moment = Duration::from_micros(1);
    let filter = ActionFilter {
        since: Some(at),
        before: Some(at.plus(moment)),
        with_policy_changes: true,
        ..ActionFilter::default()
    };
    let mut page = Page { offset: 0, limit: 100 };
    loop {
        let found = seen.actions(filter.clone(), page).await?.items;
        if found.is_empty() {
            // Removed by housekeeping since it was found.
            return Err(Error::not_found(what, id));
        }
        if let Some(found) = found.into_iter().find(|(other, _)| other.id.as_str() == id) {
            return Ok(found);
        }
        page.offset += page.limit;
    }
}
