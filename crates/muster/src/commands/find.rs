//! Look-ups by name: policies and enrollment keys by id or name, agents by id or host name.

use std::borrow::Cow;

use muster_client::{Client, Error, Failure};
use muster_core::raw_json;
use muster_protocol::management::agent::{Agent, ListAgents};
use muster_protocol::management::agent_policy::{AgentPolicy, ListAgentPolicies};
use muster_protocol::management::enrollment_key::EnrollmentKey;

use super::failure::Failed;

/// Rows per request.
const PER_PAGE: u32 = 100;
/// Maximum number of rows that the API lists.
pub const MOST_ROWS: u32 = 10_000;
/// Agents per request.
const AGENTS_PER_PAGE: u32 = 1000;

/// Turns a not-found error into `None`.
pub fn if_there<T>(answer: Result<T, Error>) -> Result<Option<T>, Failed> {
    match answer {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.failure() == Failure::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Returns the policy with this id, else with this name.
pub async fn find_policy(client: &Client, named: &str) -> Result<AgentPolicy, Failed> {
    if let Some(policy) = if_there(client.agent_policy(named).await)? {
        return Ok(policy);
    }
    let listed = all_policies(client, None).await?.into_iter().find(|policy| policy.name == named);
    let found = listed.ok_or_else(|| {
        Failed::not_found(format!("no policy with the name or id {named:?}"))
            .remedy("list policies: muster policy list")
    })?;
    Ok(client.agent_policy(&found.id).await?)
}

/// Returns every policy that matches.
pub async fn all_policies(client: &Client, filter: Option<&str>) -> Result<Vec<AgentPolicy>, Failed> {
    let mut policies = Vec::new();
    for page in 1..=MOST_ROWS / PER_PAGE {
        let query = ListAgentPolicies {
            page: Some(page),
            per_page: Some(PER_PAGE),
            kuery: filter.map(str::to_owned),
            with_agent_count: Some(true),
            ..ListAgentPolicies::default()
        };
        let listed = client.agent_policies(&query).await?;
        policies.extend(listed.items);
        if policies.len() as u64 >= listed.total {
            break;
        }
    }
    Ok(policies)
}

/// Returns the enrollment key with this id, else the only one with this name.
pub async fn find_key(client: &Client, named: &str) -> Result<EnrollmentKey, Failed> {
    if let Some(key) = if_there(client.enrollment_key(named).await)? {
        return Ok(key);
    }
    let mut found = all_keys(client, None).await?;
    found.retain(|key| key.name == named);
    if found.iter().any(|key| key.active) {
        found.retain(|key| key.active);
    }
    only("enrollment key", "name", named, found, |key| key.id.clone())
        .map_err(|failed| failed.or_remedy("list enrollment keys: muster enrollment-key list"))
}

/// Returns every enrollment key that matches.
pub async fn all_keys(client: &Client, filter: Option<&str>) -> Result<Vec<EnrollmentKey>, Failed> {
    let mut keys = Vec::new();
    for page in 1..=MOST_ROWS / PER_PAGE {
        let listed = client.enrollment_keys(page, PER_PAGE, filter).await?;
        keys.extend(listed.items);
        if keys.len() as u64 >= listed.total {
            break;
        }
    }
    Ok(keys)
}

/// Returns the agent with this id, else the only one with this host name.
pub async fn find_agent(client: &Client, named: &str) -> Result<Agent, Failed> {
    if let Some(agent) = if_there(client.agent(named).await)? {
        return Ok(agent);
    }
    let query = ListAgents { show_inactive: Some(true), ..ListAgents::default() };
    let (mut found, total) = list_agents(client, &query, MOST_ROWS).await?;
    found.retain(|agent| hostname(agent) == named);
    let hint = match total > u64::from(MOST_ROWS) {
        true => format!("host names are searched in the newest {MOST_ROWS} of {total} agents: pass the id"),
        false => "list all agents: muster agent list --inactive --filter 'status:*'; pass the id of an unenrolled one"
            .to_owned(),
    };
    let agent = only("agent", "host name", named, found, |agent| agent.id.clone()).map_err(|e| e.or_remedy(hint))?;
    Ok(client.agent(&agent.id).await?)
}

/// Returns at most `limit` agents that match, and the total.
pub async fn list_agents(client: &Client, query: &ListAgents, limit: u32) -> Result<(Vec<Agent>, u64), Failed> {
    let mut agents = Vec::new();
    let per_page = limit.clamp(1, AGENTS_PER_PAGE);
    let mut page = 1;
    loop {
        let query = ListAgents { page: Some(page), per_page: Some(per_page), ..query.clone() };
        let listed = client.agents(&query).await?;
        let last = listed.items.len() < per_page as usize || (page + 1) * per_page > MOST_ROWS;
        agents.extend(listed.items);
        if last || agents.len() >= limit as usize {
            agents.truncate(limit as usize);
            return Ok((agents, listed.total));
        }
        page += 1;
    }
}

/// Returns the host name of an agent.
pub fn hostname(agent: &Agent) -> Cow<'_, str> {
    raw_json::text(agent.local_metadata.get(), &["host", "hostname"]).unwrap_or("-".into())
}

/// Returns the only item, or an error that lists the candidates.
fn only<T>(what: &str, word: &str, named: &str, mut found: Vec<T>, id: fn(&T) -> String) -> Result<T, Failed> {
    match (found.pop(), found.is_empty()) {
        (Some(one), true) => Ok(one),
        (None, _) => Err(Failed::not_found(format!("no {what} with the id or {word} {named:?}"))),
        (Some(last), false) => {
            found.push(last);
            let ids: Vec<String> = found.iter().take(10).map(id).collect();
            let message = format!("{} {what}s have the {word} {named:?}: {}", found.len(), ids.join(", "));
            Err(Failed::usage(message).remedy("pass the id of one of them"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ambiguous_name_is_an_error() {
        let of = |ids: &[&str]| {
            only("agent", "host name", "web", ids.iter().map(ToString::to_string).collect(), String::clone)
        };
        assert_eq!(of(&["a"]).unwrap(), "a");
        assert!(of(&[]).unwrap_err().is_not_found());
        let told = of(&["a", "b"]).unwrap_err().to_string();
        assert_eq!(told, "muster: 2 agents have the host name \"web\": a, b\n  hint: pass the id of one of them");
    }
}
