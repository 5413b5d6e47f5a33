//! Which hosts a request is about: filters and order of lists, look-ups by number and by identifier.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::http::StatusCode;
use muster_core::agent::Family;
use muster_core::authorization::{AgentsRead, OpContext, OsqueryRead};
use muster_core::fleetd::{ONLINE, numbers};
use muster_core::host;
use muster_core::id::{AgentId, HostId};
use muster_core::time::Timestamp;
use muster_fleet::agent_views::{AgentListQuery, AgentView, Rows};
use muster_fleet::host_targets::is_called;
use muster_store::query::{AgentCondition, AgentFilter, AgentSort, CheckedHosts, Identifier, Page};

use crate::entry::Caller;
use crate::failure::Failure;
use crate::labels;
use crate::params::{MAX_ROWS, Paging, Params};

/// Age of a host up to which it is new.
const NEW: Duration = Duration::from_secs(24 * 60 * 60);
/// Time without contact after which a host is missing.
const MISSING: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// Number of hosts that are looked up by number at once. SQLite joins at most 500 ranges in a statement.
const NUMBERS: u32 = 100;

/// Filter and order of a list of hosts, and where it is read.
pub struct HostQuery {
    /// The rights of the caller in each of the teams.
    pub contexts: Vec<OpContext>,
    filter: AgentFilter,
    sort: AgentSort,
    descending: bool,
}

/// Adds the condition that all hosts of this API meet.
pub fn hosts_that(mut conditions: Vec<AgentCondition>) -> AgentFilter {
    conditions.push(AgentCondition::Families(vec![Family::Osquery]));
    AgentFilter::all(conditions)
}

/// Returns the condition for a status of FleetDM.
pub fn status(word: &str, now: Timestamp) -> Result<AgentCondition, Failure> {
    let is_online = AgentCondition::Statuses(ONLINE.to_vec());
    match word {
        "online" => Ok(is_online),
        // The complement, so that each host is either online or offline, whatever states Muster has.
        "offline" => Ok(!is_online),
        "new" => Ok(!AgentCondition::EnrolledBy(now.minus(NEW))),
        "missing" | "mia" => Ok(AgentCondition::UnseenSince(now.minus(MISSING))),
        _ => Err(Failure::invalid("status", "must be new, online, offline, missing or mia")),
    }
}

fn order(params: &Params) -> Result<(AgentSort, bool), Failure> {
    const KEYS: [(&str, AgentSort); 11] = [
        ("id", AgentSort::EnrolledAt),
        ("created_at", AgentSort::EnrolledAt),
        ("h.created_at", AgentSort::EnrolledAt),
        ("last_enrolled_at", AgentSort::EnrolledAt),
        ("hostname", AgentSort::Hostname),
        ("display_name", AgentSort::Hostname),
        ("computer_name", AgentSort::Hostname),
        ("seen_time", AgentSort::LastCheckin),
        ("last_seen", AgentSort::LastCheckin),
        ("status", AgentSort::Status),
        ("osquery_version", AgentSort::Version),
    ];
    let descending = params.descending()?;
    let Some(key) = params.text("order_key") else { return Ok((AgentSort::EnrolledAt, descending)) };
    let found = KEYS.iter().find(|(name, _)| *name == key).map(|(_, sort)| *sort);
    let names = || KEYS.map(|(name, _)| name).join(", ");
    let sort = found.ok_or_else(|| Failure::invalid("order_key", format!("must be one of {}", names())))?;
    Ok((sort, descending))
}

/// Filters of FleetDM's lists of hosts that Muster does not have.
const UNSUPPORTED_FILTERS: [&str; 22] = [
    "bootstrap_package",
    "connected_to_fleet",
    "low_disk_space",
    "macos_settings",
    "macos_settings_disk_encryption",
    "mdm_enrollment_status",
    "mdm_id",
    "mdm_name",
    "munki_issue_id",
    "os_id",
    "os_name",
    "os_settings",
    "os_settings_disk_encryption",
    "os_version",
    "os_version_id",
    "profile_status",
    "profile_uuid",
    "script_batch_execution_id",
    "script_batch_execution_status",
    "software_status",
    "software_title_id",
    "vulnerability",
];

/// Rejects parameters that would change the meaning of a list if they were ignored.
pub fn reject_unsupported(params: &Params) -> Result<(), Failure> {
    if params.text("after").is_some() {
        // A cursor that was ignored would make a client read the first page forever.
        return Err(Failure::invalid("after", "is not supported; use page and per_page"));
    }
    match UNSUPPORTED_FILTERS.into_iter().find(|name| params.text(name).is_some()) {
        Some(name) => {
            Err(Failure::invalid(name, "is not supported; without this filter, the list would have other hosts"))
        }
        None => Ok(()),
    }
}

impl HostQuery {
    /// Reads the parameters of a list of hosts.
    pub async fn of(caller: &Caller, params: &Params) -> Result<Self, Failure> {
        reject_unsupported(params)?;
        let (sort, descending) = order(params)?;
        let mut query = Self::matching(caller, params, params.team()?).await?;
        (query.sort, query.descending) = (sort, descending);
        if let Some(policy) = params.number("policy_id")? {
            query.only_of_policy(caller, policy, params.text("policy_response")).await?;
        } else if params.text("policy_response").is_some() {
            return Err(Failure::invalid("policy_response", "requires policy_id"));
        }
        if let Some(software) = first_number(params, &["software_version_id", "software_id"])? {
            query.only_with_software(caller, software).await?;
        }
        Ok(query)
    }

    /// Reads the filters that lists and bulk operations have in common.
    pub async fn matching(caller: &Caller, params: &Params, team: Option<u64>) -> Result<Self, Failure> {
        let mut conditions = Vec::new();
        if let Some(words) = params.text("query") {
            conditions.extend(searched(words));
        }
        if let Some(word) = params.text("status") {
            conditions.push(status(word, caller.fleet.now())?);
        }
        if let Some(platform) = params.text("platform") {
            conditions.push(labels::of_platform(platform));
        }
        // One context for each team: the privileges are checked there, and a query of the store never spans spaces.
        let contexts = caller.everywhere::<AgentsRead>(team).await?;
        let filter = hosts_that(conditions);
        let mut query = Self { contexts, filter, sort: AgentSort::EnrolledAt, descending: false };
        if let Some(label) = params.number("label_id")? {
            query.only_with_label(caller, label).await?;
        }
        Ok(query)
    }

    /// Keeps only the hosts with a label.
    pub async fn only_with_label(&mut self, caller: &Caller, label: u64) -> Result<(), Failure> {
        let (context, condition) = labels::condition_of(caller, label).await?;
        if let Some(context) = context {
            self.only_in(&context);
        }
        self.and(condition);
        Ok(())
    }

    /// Keeps only the hosts of one team.
    pub fn only_in(&mut self, context: &OpContext) {
        self.contexts.retain(|other| other.space() == context.space());
    }

    /// Adds a condition.
    pub fn and(&mut self, condition: AgentCondition) {
        self.filter.conditions.push(condition);
    }

    async fn only_of_policy(&mut self, caller: &Caller, policy: u64, response: Option<&str>) -> Result<(), Failure> {
        let selections = match response {
            Some("passing") => [CheckedHosts::Passing].as_slice(),
            Some("failing") => &[CheckedHosts::Failing],
            None => &[CheckedHosts::Passing, CheckedHosts::Failing],
            Some(_) => return Err(Failure::invalid("policy_response", "must be passing or failing")),
        };
        let (context, found) = crate::policies::numbered(caller, policy).await?;
        let (grant, whole) = (context.grant()?, Page { offset: 0, limit: MAX_ROWS });
        let mut ids = Vec::new();
        for which in selections {
            let hosts = caller.fleet.host_checks().hosts(&grant, found.check.id.as_str(), *which, whole).await?.1;
            ids.extend(hosts.into_iter().map(|host| host.agent));
        }
        self.only(&context, ids, "policy_id")
    }

    async fn only_with_software(&mut self, caller: &Caller, software: u64) -> Result<(), Failure> {
        // The software of hosts is indexed for each team.
        let contexts = self.contexts.clone().into_iter().filter(|context| context.grant::<OsqueryRead>().is_ok());
        for context in contexts {
            let Some(found) = crate::software::numbered(caller, &context, software).await? else { continue };
            let (grant, whole) = (context.grant()?, Page { offset: 0, limit: MAX_ROWS });
            let hosts = caller.fleet.software().hosts(&grant, &found.id.to_string(), None, whole).await?.1.hosts;
            return self.only(&context, hosts.into_iter().map(|host| host.agent).collect(), "software_id");
        }
        Err(Failure::not_found("software", software))
    }

    fn only(&mut self, context: &OpContext, ids: Vec<AgentId>, parameter: &str) -> Result<(), Failure> {
        // The list was read with this limit, so a full one may be incomplete, and would silently omit hosts.
        if ids.len() >= MAX_ROWS as usize {
            return Err(Failure::invalid(parameter, format!("matches {MAX_ROWS} hosts or more; use Muster's own API")));
        }
        self.only_in(context);
        self.and(AgentCondition::Ids(ids));
        Ok(())
    }

    /// Returns a page of the hosts, ordered within each team, and the number of all.
    pub async fn page(&self, caller: &Caller, paging: &Paging) -> Result<(Vec<AgentView>, u64), Failure> {
        let (mut found, mut total, mut offset) = (Vec::new(), 0, u64::from(paging.offset));
        for context in &self.contexts {
            // Also with a limit of 0: the total needs the number of hosts of each team.
            let limit = paging.limit - u32::try_from(found.len()).unwrap_or(paging.limit);
            let rows = Page { offset: u32::try_from(offset).unwrap_or(u32::MAX), limit };
            let query = AgentListQuery {
                filter: self.filter.clone(),
                sort: self.sort,
                descending: self.descending,
                rows: Rows::Page(rows),
            };
            let listed = caller.fleet.agents().list(&context.grant()?, &query).await?;
            total += listed.total;
            // Hosts of the next team follow those of this one.
            offset = offset.saturating_sub(listed.total);
            found.extend(listed.items);
        }
        Ok((found, total))
    }

    /// Returns the number of the hosts.
    pub async fn count(&self, caller: &Caller) -> Result<u64, Failure> {
        let mut total = 0;
        for context in &self.contexts {
            let counts = caller.fleet.agents().count(&context.grant()?, &self.filter).await?;
            total += counts.into_iter().map(|(_, count)| count).sum::<u64>();
        }
        Ok(total)
    }
}

fn first_number(params: &Params, names: &[&str]) -> Result<Option<u64>, Failure> {
    for name in names {
        if let Some(number) = params.number(name)? {
            return Ok(Some(number));
        }
    }
    Ok(None)
}

/// A host that was found, and the rights of the caller in its team.
#[derive(Clone)]
pub struct FoundHost {
    /// The rights of the caller in the team of the host.
    pub context: OpContext,
    /// Its osquery agent.
    pub agent: AgentView,
}

impl FoundHost {
    /// Returns whether the host reports this as its name, serial number or hardware UUID.
    fn is_called(&self, identifier: &str) -> bool {
        let record = &self.agent.details.record;
        let identifier = identifier.to_ascii_lowercase();
        let hardware = [record.serial(), record.hardware_uuid()];
        record.hostname.to_ascii_lowercase() == identifier || hardware.contains(&identifier.trim())
    }

    /// Returns whether an identifier is its UUID, or an id of it in Muster.
    fn has_id(&self, identifier: &str) -> bool {
        let record = &self.agent.details.record;
        record.id.as_str() == identifier
            || record.host_id.as_ref().is_some_and(|host| host.as_str() == identifier)
            || on_machine(identifier).as_ref() == Some(&record.id)
    }

    /// Returns the id of the host in Muster.
    pub fn id(&self) -> Result<HostId, Failure> {
        let id = self.agent.details.record.host_id.clone();
        id.ok_or_else(|| Failure::not_found("host", number(&self.agent)))
    }
}

/// Returns FleetDM's word for the status of a host.
pub fn status_of(agent: &AgentView) -> &'static str {
    if ONLINE.contains(&agent.details.record.status) { "online" } else { "offline" }
}

/// Returns the number of the host of an osquery agent.
pub fn number(agent: &AgentView) -> u64 {
    numbers::of_host(&agent.details.record.id).unwrap_or_default()
}

/// Finds a host by its number.
pub async fn numbered(caller: &Caller, number: u64) -> Result<FoundHost, Failure> {
    let found = all_numbered(caller, &[number]).await?;
    found.into_iter().next().ok_or_else(|| Failure::not_found("host", number))
}

/// Finds hosts by their numbers, each once, with one query for each team and [`NUMBERS`] hosts. Fails if one is missing.
pub async fn all_numbered(caller: &Caller, wanted: &[u64]) -> Result<Vec<FoundHost>, Failure> {
    let mut wanted = wanted.to_vec();
    wanted.sort_unstable();
    wanted.dedup();
    let mut hosts = BTreeMap::new();
    for chunk in wanted.chunks(NUMBERS as usize) {
        let range = |one: &u64| {
            let (from, to) = numbers::ids_of_host(*one).ok_or_else(|| Failure::not_found("host", one))?;
            Ok(AgentCondition::IdsBetween(from, to))
        };
        let mut ranges = chunk.iter().map(range).collect::<Result<Vec<_>, Failure>>()?;
        let condition = if ranges.len() == 1 { ranges.remove(0) } else { AgentCondition::Any(ranges) };
        // If more hosts than these match, two of those that are read have the same number.
        for host in matching(caller, condition, 2 * NUMBERS).await? {
            if let Some(other) = hosts.insert(number(&host.agent), host) {
                return Err(ambiguous(&other));
            }
        }
    }
    match wanted.iter().find(|one| !hosts.contains_key(one)) {
        Some(missing) => Err(Failure::not_found("host", missing)),
        None => Ok(hosts.into_values().collect()),
    }
}

/// Once in a million fleets of 100,000 hosts. A guess could delete the wrong one.
fn ambiguous(host: &FoundHost) -> Failure {
    let number = number(&host.agent);
    Failure::invalid("id", format!("two hosts have the id {number}; use the path hosts/identifier with the UUID"))
}

/// Finds a host to show. Of several hosts with a name, the one that was seen last: FleetDM returns one of them, too.
pub async fn shown(caller: &Caller, identifier: &str) -> Result<FoundHost, Failure> {
    candidates(caller, identifier).await?.pop().ok_or_else(|| Failure::not_found("host", identifier))
}

/// Finds a host that something is done with. A name that several hosts have is rejected, unlike in FleetDM.
pub async fn identified(caller: &Caller, identifier: &str) -> Result<FoundHost, Failure> {
    let mut found = candidates(caller, identifier).await?;
    match found.pop() {
        Some(host) if found.is_empty() => Ok(host),
        Some(_) => Err(several(identifier)),
        None => Err(Failure::not_found("host", identifier)),
    }
}

fn several(identifier: &str) -> Failure {
    let reason = format!("several hosts have the name, serial number or hardware UUID {identifier:?}; use their ids");
    Failure::new(StatusCode::CONFLICT, "Conflict", reason)
}

/// Finds hosts by the UUID under which one enrolled, or an id of one in Muster, or else by what hosts report: they could report the id of
/// another one. The one that was seen last is the last one. More than two of a team are left out.
async fn candidates(caller: &Caller, identifier: &str) -> Result<Vec<FoundHost>, Failure> {
    let mut found = matching(caller, AgentCondition::Any(with_ids(&[identifier])), 2).await?;
    if found.is_empty() {
        found = matching(caller, is_called(&[identifier]), 2).await?;
    }
    found.sort_by_key(|found| found.agent.last_checkin);
    Ok(found)
}

/// Finds hosts by their identifiers, as [`identified`] does, with one query for each team. Fails if one is missing, or stands for several
/// hosts.
pub async fn all_identified(caller: &Caller, identifiers: &[String]) -> Result<Vec<FoundHost>, Failure> {
    if identifiers.is_empty() {
        return Ok(Vec::new());
    }
    let mut conditions = with_ids(identifiers);
    conditions.push(is_called(identifiers));
    let found = matching(caller, AgentCondition::Any(conditions), MAX_ROWS).await?;
    let is_complete = found.len() < MAX_ROWS as usize;
    let mut hosts = Vec::with_capacity(identifiers.len());
    for identifier in identifiers {
        let by_id = found.iter().find(|host| host.has_id(identifier));
        let mut called = found.iter().filter(|host| host.is_called(identifier));
        hosts.push(match (by_id, called.next(), called.next()) {
            (Some(host), ..) => host.clone(),
            (None, Some(host), None) if is_complete => host.clone(),
            (None, Some(_), Some(_)) => return Err(several(identifier)),
            // It may be beyond the rows that were read, if many hosts have the other names.
            _ => identified(caller, identifier).await?,
        });
    }
    Ok(hosts)
}

/// Returns the conditions of hosts with one of these ids.
fn with_ids(identifiers: &[impl AsRef<str>]) -> Vec<AgentCondition> {
    let names = || identifiers.iter().map(AsRef::as_ref);
    // A UUID can be the id of an agent or of the hardware, so both are looked up.
    let ids = names().filter_map(|name| AgentId::parse(name).ok()).chain(names().filter_map(on_machine)).collect();
    let hosts = names().filter_map(|name| HostId::parse(name).ok()).collect();
    vec![AgentCondition::Ids(ids), AgentCondition::Hosts(hosts)]
}

/// Returns the conditions for the words of a search: a part of a name, or a whole serial number or UUID. Nothing else, because bulk deletions
/// use them, too: a few letters are a part of somebody's id or platform.
fn searched(words: &str) -> Vec<AgentCondition> {
    let words = words.trim();
    let named = [words.to_owned()];
    let is_uuid = words.len() == 36 && words.chars().all(|c| c.is_ascii_hexdigit() || c == '-');
    if let Some(id) = on_machine(words).filter(|_| is_uuid) {
        // All of these have an index.
        return vec![AgentCondition::Any(vec![AgentCondition::Ids(vec![id]), is_called(&named)])];
    }
    // The text of an agent contains all of them, and is found by an index or in a small table.
    let text = AgentCondition::Text(words.to_owned());
    let [serial, uuid] =
        [Identifier::Serial, Identifier::Uuid].map(|one| AgentCondition::Hardware(one, named.to_vec()));
    vec![text, AgentCondition::Any(vec![AgentCondition::HostnamePart(words.to_owned()), serial, uuid])]
}

/// Returns the id of the osquery agent on a machine.
fn on_machine(uuid: &str) -> Option<AgentId> {
    host::machine_id(uuid).map(|machine| host::agent_id(Family::Osquery, &machine))
}

/// Returns up to `limit` hosts of each team that meet a condition, those seen last first.
async fn matching(caller: &Caller, condition: AgentCondition, limit: u32) -> Result<Vec<FoundHost>, Failure> {
    let query = AgentListQuery {
        filter: hosts_that(vec![condition]),
        sort: AgentSort::LastCheckin,
        descending: true,
        rows: Rows::Page(Page { offset: 0, limit }),
    };
    let mut found = Vec::new();
    for context in caller.everywhere::<AgentsRead>(None).await? {
        let listed = caller.fleet.agents().list(&context.grant()?, &query).await?;
        found.extend(listed.items.into_iter().map(|agent| FoundHost { context: context.clone(), agent }));
    }
    Ok(found)
}
