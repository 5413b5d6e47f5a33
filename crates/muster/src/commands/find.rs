//! Look-ups by name: policies and enrollment keys by id or name, agents by id or host name.

use std::borrow::Cow;

use muster_client::{Client, Error, Failure};
use muster_core::raw_json;
use muster_protocol::management::agent::{Agent, ListAgents, NamedAgent, NamedAgents};
use muster_protocol::management::agent_policy::{AgentPolicy, BulkGet, ListAgentPolicies};
use muster_protocol::management::enrollment_key::{EnrollmentKey, ListEnrollmentKeys};
use muster_protocol::management::envelope::Items;

use super::failure::Failed;

/// Policies and other rows per request. The page is small, because the server counts the agents of each policy.
const PER_PAGE: u32 = 100;
/// Rows of long lists per request.
const ROWS_PER_PAGE: u32 = 1000;
/// Enrollment keys per request.
const KEYS_PER_PAGE: u32 = 1000;
/// Agents per look-up.
const AGENTS_AT_ONCE: usize = 1000;
/// Agents per request.
const AGENTS_PER_PAGE: u32 = 1000;

/// Collects all pages of a list that is counted in pages and not continued by a cursor. `read` takes `page` and `perPage`.
pub async fn all_pages<T>(
    mut read: impl AsyncFnMut(Option<u32>, Option<u32>) -> Result<Items<T>, Error>,
) -> Result<Vec<T>, Failed> {
    let mut found = Vec::new();
    for page in 1.. {
        let listed = read(Some(page), Some(PER_PAGE)).await?;
        let is_last = listed.items.len() < PER_PAGE as usize;
        found.extend(listed.items);
        if is_last {
            break;
        }
    }
    Ok(found)
}

/// Collects a list that is continued by a cursor. `read` takes `searchAfter` and `perPage`.
pub async fn all_rows<T>(
    mut read: impl AsyncFnMut(Option<String>, Option<u32>) -> Result<Items<T>, Error>,
) -> Result<Vec<T>, Failed> {
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let listed = read(after, Some(ROWS_PER_PAGE)).await?;
        found.extend(listed.items);
        after = listed.next_search_after;
        if after.is_none() {
            return Ok(found);
        }
    }
}

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
    let request = BulkGet {
        ids: vec![named.to_owned()],
        names: vec![named.to_owned()],
        full: Some(true),
        ignore_missing: Some(true),
    };
    // The policy with this id comes first.
    client.agent_policies_of(&request).await?.into_iter().next().ok_or_else(|| {
        Failed::not_found(format!("no policy with the name or id {named:?}"))
            .remedy("list policies: muster policy list")
    })
}

/// Returns every policy that matches.
pub async fn all_policies(client: &Client, filter: Option<&str>) -> Result<Vec<AgentPolicy>, Failed> {
    let mut policies = Vec::new();
    let mut query = ListAgentPolicies {
        per_page: Some(PER_PAGE),
        kuery: filter.map(str::to_owned),
        with_agent_count: Some(true),
        ..ListAgentPolicies::default()
    };
    let mut unreadable = 0;
    loop {
        let listed = client.agent_policies(&query).await?;
        policies.extend(listed.items);
        unreadable += listed.unreadable;
        if listed.next_search_after.is_none() {
            warn_of_unreadable(unreadable, "policies");
            return Ok(policies);
        }
        query.search_after = listed.next_search_after;
    }
}

/// Returns the enrollment key with this id, else the only one with this name, without its token.
pub async fn find_key(client: &Client, named: &str) -> Result<EnrollmentKey, Failed> {
    // In lists, because reading a key by its id shows its token: revoking a key does not need this privilege.
    let quoted = quoted(named);
    let mut found = all_keys(client, Some(&format!("id:{quoted} or name:{quoted}"))).await?;
    if let Some(at) = found.iter().position(|key| key.id == named) {
        return Ok(found.swap_remove(at));
    }
    found.retain(|key| key.name == named);
    // Revoked and expired keys keep their names, which may have been reused since.
    if found.iter().any(|key| key.active) {
        found.retain(|key| key.active);
    }
    only("enrollment key", "name", named, found, |key| key.id.clone())
        .map_err(|failed| failed.or_remedy("list enrollment keys: muster enrollment-key list"))
}

/// Quotes a string as a literal of KQL.
pub fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// Returns every enrollment key that matches.
pub async fn all_keys(client: &Client, filter: Option<&str>) -> Result<Vec<EnrollmentKey>, Failed> {
    let mut keys = Vec::new();
    let mut query = ListEnrollmentKeys {
        per_page: Some(KEYS_PER_PAGE),
        kuery: filter.map(str::to_owned),
        // Each token that is shown is an entry of the audit log.
        omit_tokens: Some(true),
        ..ListEnrollmentKeys::default()
    };
    let mut unreadable = 0;
    loop {
        let listed = client.enrollment_keys(&query).await?;
        keys.extend(listed.items);
        unreadable += listed.unreadable;
        if listed.next_search_after.is_none() {
            warn_of_unreadable(unreadable, "enrollment keys");
            return Ok(keys);
        }
        query.search_after = listed.next_search_after;
    }
}

/// Returns the agent with this id, else the only one with this host name.
pub async fn find_agent(client: &Client, named: &str) -> Result<Agent, Failed> {
    let ids = find_agents(client, std::slice::from_ref(&named.to_owned())).await?;
    let id = ids.first().ok_or_else(|| Failed::new("internal error: the look-up returned no agent"))?;
    Ok(client.agent(id).await?)
}

/// Returns the ids of the agents with these ids or host names, without duplicates. Active agents of a host take
/// precedence over unenrolled ones. A name without an agent, or with several, is an error.
pub async fn find_agents(client: &Client, named: &[String]) -> Result<Vec<String>, Failed> {
    let mut ids: Vec<String> = Vec::with_capacity(named.len());
    // A name can be an id or a host name, so that each is sent as both.
    for some in named.chunks(AGENTS_AT_ONCE) {
        let request = NamedAgents { ids: some.to_vec(), hostnames: some.to_vec() };
        let found = client.agents_named(&request).await?;
        for name in some {
            let id = one_of(&found, name)?;
            if !ids.contains(&id) {
                ids.push(id);
            }
        }
    }
    Ok(ids)
}

fn one_of(found: &[NamedAgent], name: &str) -> Result<String, Failed> {
    if found.iter().any(|agent| agent.id == *name) {
        return Ok(name.to_owned());
    }
    let mut on_host: Vec<NamedAgent> =
        found.iter().filter(|agent| agent.hostname.eq_ignore_ascii_case(name)).cloned().collect();
    // A host that has enrolled again has one active agent and its former, unenrolled ones.
    if on_host.iter().any(|agent| agent.active) {
        on_host.retain(|agent| agent.active);
    }
    only("agent", "host name", name, on_host, |agent| agent.id.clone())
        .map(|agent| agent.id)
        .map_err(|failed| failed.or_remedy("list all agents: muster agent list --inactive --filter 'status:*'"))
}

/// Returns the agents that match, at most `limit`, and the total number of matches. Reads them in pages, over a point
/// in time of the list.
pub async fn list_agents(
    client: &Client,
    query: &ListAgents,
    limit: Option<usize>,
) -> Result<(Vec<Agent>, u64), Failed> {
    let limit = limit.unwrap_or(usize::MAX);
    let per_page = u32::try_from(limit).unwrap_or(u32::MAX).clamp(1, AGENTS_PER_PAGE);
    // The point in time excludes agents that enroll while the pages are read.
    let keep = Some("5m".to_owned());
    let mut query =
        ListAgents { per_page: Some(per_page), open_pit: Some(true), pit_keep_alive: keep, ..query.clone() };
    let (mut agents, mut unreadable) = (Vec::new(), 0);
    loop {
        let listed = client.agents(&query).await?;
        agents.extend(listed.items);
        unreadable += listed.unreadable;
        if listed.next_search_after.is_none() || agents.len() >= limit {
            warn_of_unreadable(unreadable, "agents");
            agents.truncate(limit);
            return Ok((agents, listed.total));
        }
        query = ListAgents { search_after: listed.next_search_after, open_pit: None, pit_id: listed.pit, ..query };
    }
}

/// Warns on stderr that a list is not complete.
pub fn warn_of_unreadable(count: u64, what: &str) {
    if count > 0 {
        eprintln!(
            "muster: warning: {count} {what} cannot be read and are missing from the list\n  \
             hint: the server's log contains their ids; the database may be corrupt"
        );
    }
}

/// Returns the host name of an agent.
pub fn hostname(agent: &Agent) -> Cow<'_, str> {
    // The metadata can be large, so that it is scanned instead of parsed.
    raw_json::text(agent.local_metadata.get(), &["host", "hostname"]).unwrap_or("-".into())
}

/// Returns the only item, or an error that lists the candidates.
pub fn only<T>(what: &str, word: &str, named: &str, mut found: Vec<T>, id: fn(&T) -> String) -> Result<T, Failed> {
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
    fn agents_are_found_by_id_then_by_host_active_ones_first() {
        let agent = |id: &str, hostname: &str, active| NamedAgent {
            id: id.into(),
            hostname: hostname.into(),
            status: String::new(),
            active,
        };
        let found = [
            agent("a", "Web-1", false),
            agent("b", "web-1", true),
            agent("web-2", "x", true),
            agent("c", "web-2", true),
        ];
        assert_eq!(one_of(&found, "WEB-1").unwrap(), "b");
        assert_eq!(one_of(&found, "web-2").unwrap(), "web-2", "an id comes first");
        assert_eq!(one_of(&found[..1], "web-1").unwrap(), "a", "an unenrolled one is found too");
        assert!(one_of(&found, "other").unwrap_err().to_string().contains("no agent with the id or host name"));
        assert_eq!(quoted(r#"a "b" \c"#), r#""a \"b\" \\c""#);
    }

    #[test]
    fn ambiguous_name_is_an_error() {
        let of = |ids: &[&str]| {
            only("agent", "host name", "web", ids.iter().map(ToString::to_string).collect(), String::clone)
        };
        assert_eq!(of(&["a"]).unwrap(), "a");
        assert!(of(&[]).unwrap_err().to_string().contains("no agent with the id or host name"));
        let told = of(&["a", "b"]).unwrap_err().to_string();
        assert_eq!(told, "muster: 2 agents have the host name \"web\": a, b\n  hint: pass the id of one of them");
    }
}
