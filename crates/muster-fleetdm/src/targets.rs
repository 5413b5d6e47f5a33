//! Targets of a live query, which runs in one team.

use muster_core::authorization::OpContext;
use muster_store::query::{AgentCondition, AgentFilter};
use serde::Deserialize;

use crate::entry::Caller;
use crate::failure::Failure;
use crate::host_acts::{MAX_HOSTS, of_ids};
use crate::host_query::{FoundHost, all_identified, hosts_that};
use crate::labels;

/// Maximum number of labels of one request. Each is looked up.
const MAX_LABELS: usize = 100;

/// Targets by id.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ById {
    #[serde(default)]
    hosts: Option<Vec<u64>>,
    #[serde(default)]
    labels: Option<Vec<u64>>,
    #[serde(default, alias = "fleets")]
    teams: Option<Vec<u64>>,
}

/// Targets by name. Clients send an empty name for none.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ByName {
    #[serde(default)]
    hosts: Option<Vec<String>>,
    #[serde(default)]
    labels: Option<Vec<String>>,
}

/// The hosts of a live query.
#[derive(Clone)]
pub struct Targets {
    /// The rights of the caller in their team.
    pub context: OpContext,
    /// Which hosts.
    pub filter: AgentFilter,
}

impl Targets {
    /// Finds targets by id: the hosts, and those with one of the labels in the team.
    pub async fn by_id(caller: &Caller, selected: ById) -> Result<Self, Failure> {
        let ById { hosts, labels, teams } = selected;
        let (labels, teams) = (labels.unwrap_or_default(), teams.unwrap_or_default());
        check_lengths(0, labels.len())?;
        let hosts = of_ids(caller, &hosts.unwrap_or_default()).await?;
        let mut team = match teams.as_slice() {
            [] => None,
            [team] => Some(caller.in_team(Some(*team)).await?),
            _ => return Err(one_team()),
        };
        let mut any = Vec::new();
        for label in labels {
            let (context, condition) = labels::condition_of(caller, label).await?;
            any.push(condition);
            // A label of a team also selects the team. A built-in one has none, and applies to the chosen team.
            team = match (team, context) {
                (Some(team), Some(context)) if team.space() != context.space() => return Err(one_team()),
                (team, context) => team.or(context),
            };
        }
        Self::of(caller, hosts, any, team)
    }

    /// Finds targets by name.
    pub async fn by_name(caller: &Caller, selected: ByName) -> Result<Self, Failure> {
        let named = |names: Option<Vec<String>>| {
            let trimmed = names.unwrap_or_default().into_iter().map(|name| name.trim().to_owned());
            trimmed.filter(|name| !name.is_empty()).collect::<Vec<_>>()
        };
        let (names, labels) = (named(selected.hosts), named(selected.labels));
        check_lengths(names.len(), labels.len())?;
        let hosts = all_identified(caller, &names).await?;
        // Names of labels are unique only in a team: the one of the named hosts counts.
        let context = hosts.first().map_or_else(|| caller.context.clone(), |host| host.context.clone());
        let mut any = Vec::new();
        for label in labels {
            any.push(labels::condition_named(caller, &context, &label).await?);
        }
        Self::of(caller, hosts, any, None)
    }

    /// Targets hosts alone.
    pub fn hosts(caller: &Caller, hosts: Vec<FoundHost>) -> Result<Self, Failure> {
        Self::of(caller, hosts, Vec::new(), None)
    }

    fn of(
        caller: &Caller,
        hosts: Vec<FoundHost>,
        mut any: Vec<AgentCondition>,
        team: Option<OpContext>,
    ) -> Result<Self, Failure> {
        // A team without labels means all of its hosts; with labels, only those that have one.
        let is_whole_team = team.is_some() && any.is_empty();
        if hosts.is_empty() && any.is_empty() && !is_whole_team {
            return Err(Failure::bad("no hosts targeted"));
        }
        let context = team.or_else(|| hosts.first().map(|host| host.context.clone()));
        let context = context.unwrap_or_else(|| caller.context.clone());
        // A live query belongs to one space, and is authorized there.
        if hosts.iter().any(|host| host.context.space() != context.space()) {
            return Err(one_team());
        }
        any.push(AgentCondition::Ids(hosts.into_iter().map(|host| host.agent.details.record.id).collect()));
        if is_whole_team {
            // An empty conjunction is true for every host.
            any.push(AgentCondition::All(Vec::new()));
        }
        Ok(Self { context, filter: hosts_that(vec![AgentCondition::Any(any)]) })
    }
}

/// Checks the numbers of names, before any of them is looked up.
fn check_lengths(hosts: usize, labels: usize) -> Result<(), Failure> {
    match () {
        () if hosts > MAX_HOSTS => Err(Failure::invalid("selected", format!("at most {MAX_HOSTS} hosts"))),
        () if labels > MAX_LABELS => Err(Failure::invalid("selected", format!("at most {MAX_LABELS} labels"))),
        () => Ok(()),
    }
}

fn one_team() -> Failure {
    Failure::invalid("selected", "a live query runs on the hosts of one team, or on hosts of no team")
}
