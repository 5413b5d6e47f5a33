//! Hosts in FleetDM's format.

use std::collections::HashMap;

use muster_core::agent::Family;
use muster_core::fleetd::inventory::Inventory;
use muster_core::fleetd::inventory::fleetdm::system_form;
use muster_core::fleetd::numbers;
use muster_core::fleetd::software::{Software, SoftwareId};
use muster_core::id::SpaceId;
use muster_core::identity::Space;
use muster_core::raw_json;
use muster_core::time::Timestamp;
use muster_fleet::agent_views::AgentView;
use muster_fleet::host_checks::AnsweredCheck;
use muster_fleet::host_views::HostView;
use muster_fleet::labels::LabelView;
use serde_json::{Value, json};

use crate::entry::team_id;
use crate::host_inventory;
use crate::host_query::{number, status_of};
use crate::labels;

/// Names of teams.
pub struct TeamNames(HashMap<SpaceId, String>);

impl TeamNames {
    /// Remembers the names of spaces.
    pub fn of(spaces: &[Space]) -> Self {
        Self(spaces.iter().map(|space| (space.id.clone(), space.name.clone())).collect())
    }

    fn get<'a>(&'a self, space: &'a SpaceId) -> Option<&'a str> {
        let name = self.0.get(space).map_or(space.as_str(), String::as_str);
        team_id(space).map(|_| name)
    }
}

/// Formats a time.
pub fn time(at: Timestamp) -> String {
    at.to_rfc3339_seconds()
}

/// Returns a host as in lists.
pub fn summary(agent: &AgentView, teams: &TeamNames, inventory: &Inventory, now: Timestamp) -> Value {
    let record = &agent.details.record;
    let metadata = agent.details.documents.local_metadata.as_deref().unwrap_or("{}");
    let display = raw_json::text(metadata, &["host", "name"]).filter(|name| !name.is_empty());
    let display = display.unwrap_or_else(|| record.hostname.as_str().into());
    let updated = time(record.updated_at);
    let (team, team_name) = (team_id(&record.space), teams.get(&record.space));
    let host = json!({
        "id": number(agent),
        "created_at": time(record.enrolled_at),
        "updated_at": updated,
        "detail_updated_at": updated,
        "label_updated_at": updated,
        "policy_updated_at": updated,
        "last_enrolled_at": time(record.enrolled_at),
        "seen_time": time(agent.last_checkin.unwrap_or(record.enrolled_at)),
        "refetch_requested": agent.refetching,
        "hostname": record.hostname,
        "computer_name": display,
        "display_name": display,
        "display_text": display,
        "osquery_version": record.agent_version,
        "public_ip": record.last_address,
        "team_id": team,
        "team_name": team_name,
        // The present names of teams in FleetDM.
        "fleet_id": team,
        "fleet_name": team_name,
        "status": status_of(agent),
    });
    with(with(with(host, facts(metadata)), unknown()), system_form(inventory, now))
}

/// Returns what osquery reports about a host.
fn facts(metadata: &str) -> Value {
    let fact = |part, key| raw_json::text(metadata, &[part, key]).unwrap_or_default();
    let addresses: Vec<String> =
        raw_json::at(metadata, &["host", "ip"]).and_then(|raw| serde_json::from_str(raw).ok()).unwrap_or_default();
    let count = |name| fact("hardware", name).parse::<u32>().unwrap_or_default();
    json!({
        "uuid": fact("host", "id"),
        "platform": fact("os", "platform"),
        "platform_like": fact("os", "family"),
        "os_version": format!("{} {}", fact("os", "name"), fact("os", "version")).trim(),
        "build": fact("os", "build"),
        "code_name": fact("os", "codename"),
        "orbit_version": some(&fact("orbit", "version")),
        "fleet_desktop_version": some(&fact("orbit", "desktop_version")),
        "memory": fact("hardware", "memory").parse::<i64>().unwrap_or_default(),
        "cpu_type": fact("host", "architecture"),
        "cpu_subtype": fact("hardware", "cpu_subtype"),
        "cpu_brand": fact("hardware", "cpu"),
        "cpu_physical_cores": count("cores"),
        "cpu_logical_cores": count("logical_cores"),
        "hardware_vendor": fact("hardware", "vendor"),
        "hardware_model": fact("hardware", "model"),
        "hardware_version": fact("hardware", "version"),
        "hardware_serial": fact("hardware", "serial"),
        "primary_ip": addresses.first().map_or("", String::as_str),
    })
}

/// Returns what clients expect and Muster does not record.
fn unknown() -> Value {
    json!({
        "primary_mac": "",
        "pack_stats": null,
        "mdm": {"enrollment_status": null, "server_url": null, "name": "", "encryption_key_available": false},
    })
}

/// Adds the members of an object to another one.
fn with(mut object: Value, members: Value) -> Value {
    if let (Value::Object(object), Value::Object(members)) = (&mut object, members) {
        object.extend(members);
    }
    object
}

fn some(text: &str) -> Option<&str> {
    Some(text).filter(|text| !text.is_empty())
}

/// Returns a host with its software, its answers to policies, and its labels among those of its team; `None` if no osquery is on it.
pub fn detail(view: &HostView, teams: &TeamNames, labels: &[LabelView], now: Timestamp) -> Option<Value> {
    let agent = view.agents.iter().find(|agent| agent.details.record.family == Family::Osquery)?;
    let host = summary(agent, teams, &view.inventory, now);
    let failing = view.checks.iter().filter(|one| response(one) == "fail").count();
    let record = &agent.details.record;
    let members = json!({
        "software": view.software.software.iter().map(installed).collect::<Vec<_>>(),
        "software_updated_at": time(view.software.changed_at.unwrap_or(record.updated_at)),
        "policies": view.checks.iter().map(|one| policy(one, &record.space)).collect::<Vec<_>>(),
        "labels": labels.iter().filter(|one| view.labels.contains(&one.label.name)).map(labels::json).collect::<Vec<_>>(),
        "issues": {"failing_policies_count": failing, "total_issues_count": failing},
        "packs": [],
        "users": view.inventory.users.items.iter().map(host_inventory::user).collect::<Vec<_>>(),
        "batteries": null,
        "additional": {},
    });
    Some(with(host, members))
}

/// Returns software in FleetDM's format.
pub fn installed((id, software): &(SoftwareId, Software)) -> Value {
    json!({
        "id": numbers::of_software(*id),
        "name": software.name,
        "version": software.version,
        "source": software.source.as_str(),
        "browser": "",
        "generated_cpe": "",
        "vulnerabilities": null,
    })
}

/// Returns FleetDM's word for an answer.
fn response(answered: &AnsweredCheck) -> &'static str {
    match answered.result.as_ref().and_then(|result| result.passes) {
        Some(true) => "pass",
        Some(false) => "fail",
        None => "",
    }
}

fn policy(answered: &AnsweredCheck, space: &SpaceId) -> Value {
    let mut policy = crate::policies::json(&answered.check, space);
    policy["response"] = response(answered).into();
    policy
}
