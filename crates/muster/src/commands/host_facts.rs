//! Hardware and addresses in `muster host show`.

use muster_protocol::management::host::Host;
use serde_json::Value;

use super::host_inventory::gib;
use super::listing::or_dash;

/// Maximum number of addresses that are shown.
const ADDRESSES: usize = 32;

/// Returns a fact that the agents report, a string or a list of strings. `pointer` is its place in their metadata. Agents of different
/// families report different facts; of two, the one that was seen last counts.
fn reported(host: &Host, pointer: &str) -> Option<String> {
    let known = host.agents.iter().filter_map(|agent| {
        let text = match agent.local_metadata.as_ref()?.pointer(pointer)? {
            Value::String(text) => text.clone(),
            Value::Array(all) => all.iter().filter_map(Value::as_str).take(ADDRESSES).collect::<Vec<_>>().join(", "),
            other => other.to_string(),
        };
        Some((agent.last_checkin.as_deref(), text)).filter(|(_, text)| !text.trim().is_empty())
    });
    // Times in RFC 3339 with the same offset are in the order of their texts.
    known.max_by_key(|(seen, _)| *seen).map(|(_, text)| text)
}

/// Formats a fact.
pub fn text(host: &Host, pointer: &str) -> String {
    or_dash(reported(host, pointer).as_deref())
}

/// Formats the size of the memory, which hosts report in bytes.
pub fn memory(host: &Host) -> String {
    match reported(host, "/hardware/memory") {
        Some(bytes) => bytes.parse().map_or(bytes, gib),
        None => or_dash(None),
    }
}

#[cfg(test)]
mod tests {
    use muster_protocol::management::host::HostAgent;
    use serde_json::json;

    use super::*;

    #[test]
    fn the_agent_that_was_seen_last_counts_if_it_reports_a_fact() {
        let agent = |seen: &str, metadata: Value| HostAgent {
            last_checkin: Some(seen.to_owned()),
            local_metadata: Some(metadata),
            ..HostAgent::default()
        };
        let osquery =
            json!({"hardware": {"model": "R740", "memory": "17179869184"}, "host": {"ip": ["10.0.0.1", "::2", 7]}});
        let orbit = json!({"hardware": {"model": "R750", "cpu": ""}});
        let agents = vec![agent("2026-01-02T03:00:00Z", osquery), agent("2026-01-02T03:00:01Z", orbit)];
        let host = Host { agents, ..Host::default() };
        assert_eq!(text(&host, "/hardware/model"), "R750");
        assert_eq!(text(&host, "/hardware/cpu"), "-");
        assert_eq!(text(&host, "/host/ip"), "10.0.0.1, ::2");
        assert_eq!(memory(&host), "16.0 GiB");
        assert_eq!(memory(&Host::default()), "-");
    }
}
