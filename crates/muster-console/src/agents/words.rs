//! What events and lines of the audit log about an agent say to people. Their codes are for filters and scripts.

use muster_core::audit::AuditEvent;
use muster_core::event::{Event, EventKind};
use serde_json::Value;

/// Returns what happened to an agent.
pub fn of_event(event: &Event) -> String {
    let is_forced = event.detail["forced"] == true;
    let to = event.after.as_deref().map(|version| format!(" to {version}")).unwrap_or_default();
    let text = match event.kind {
        EventKind::AgentEnrolled => "Enrolled",
        EventKind::AgentReenrolled => "Enrolled again",
        EventKind::AgentOnline => "Came back online",
        EventKind::AgentOffline => "Went offline",
        EventKind::AgentInactive => "Became inactive",
        EventKind::AgentDegraded => "Reported that it is degraded",
        EventKind::AgentError => "Reported a failure",
        EventKind::AgentRecovered => "Recovered",
        EventKind::AgentUninstalled => "Reported that it was uninstalled",
        EventKind::AgentOrphaned => "A component reported that the agent is gone",
        EventKind::AgentLeftSpace => "Enrolled in another space",
        EventKind::AgentMigrated => "Reported that it moved to another server",
        EventKind::AgentKeyRevoked => "A credential was revoked",
        EventKind::AgentUnenrolled if is_forced => "Unenrolled, and its access key revoked",
        EventKind::AgentUnenrolled => "Unenrolled",
        EventKind::AgentPurged => "Deleted after its retention",
        EventKind::AgentDuplicated => "Two hosts use its key",
        EventKind::UpgradeStarted => return format!("Upgrade{to} requested"),
        EventKind::UpgradeSucceeded => return format!("Upgraded{to}"),
        EventKind::UpgradeFailed => return format!("Upgrade{to} failed"),
        EventKind::UpgradeRolledBack => "Upgrade rolled back to the previous version",
        EventKind::AgentPolicyFailed => {
            return format!("Could not apply revision {} of its policy", event.detail["revision"]);
        }
        // Events of policies, keys and servers are not about an agent.
        other => return other.as_str().to_owned(),
    };
    match (&event.before, &event.after) {
        (Some(before), Some(after)) => format!("{text}: {before} to {after}"),
        _ => text.to_owned(),
    }
}

/// Returns what was done to an agent.
pub fn of_audit(event: &AuditEvent) -> String {
    let detail = &event.detail;
    let text = match event.action.as_str() {
        "agent.enroll" => "Enrolled",
        "agent.replace" => "Enrolled again, which replaced its record",
        "agent.duplicate_identifier" => "Enrolled with an identifier that another host uses",
        "agent.claimed_identifier" if detail["identifier"] == "machine_id" => "Reported the machine id of another host",
        "agent.claimed_identifier" => "Reported the hardware UUID or serial number of another host",
        "agent.duplicate_hosts" => "Two hosts use its key",
        "agent.reenroll" => "Another host that uses its key was told to enroll again",
        "agent.reenroll_by_hand" => "Another host that uses its key must be enrolled again by hand",
        "agent.unenroll" if detail["reason"] == "forced" => "Unenrolled, and its access key revoked",
        "agent.unenroll" => "Unenrolled",
        "agent.report_unenroll" => "Reported that it has left",
        "agent.refuse_command" => "Refused a command on its host",
        "agent.use_recovery_code" => "Allowed a command on its host with the recovery code",
        "agent.respond" => "Response to a compromise",
        "agent.update" => return changed(detail),
        "agent.delete" => "Deleted",
        "agent.leave_space" => "Enrolled in another space",
        "agent.credential_issue" => "Another credential was issued",
        "agent.credential_revoke" => "A credential was revoked",
        "agent.identity_mismatch" => "A request with the key of another agent was rejected",
        "disk_key.escrow" => "The key of its disk was requested",
        "disk_key.reveal" => "The key of its disk was revealed",
        // A code without words of its own is better than a wrong text.
        other => other,
    };
    text.to_owned()
}

/// Returns what a change of an agent's tags and metadata consists of.
fn changed(detail: &Value) -> String {
    let tags = |side: &str| detail[side]["tags"].as_array().map(|tags| tags.iter().filter_map(Value::as_str).collect());
    let (before, after): (Option<Vec<&str>>, Option<Vec<&str>>) = (tags("before"), tags("after"));
    match (before, after, detail["user_provided_metadata"] == true) {
        (Some(before), Some(after), _) => {
            let or_none = |tags: &[&str]| if tags.is_empty() { "none".to_owned() } else { tags.join(", ") };
            format!("Tags changed: {} to {}", or_none(&before), or_none(&after))
        }
        (_, _, true) => "Metadata changed".to_owned(),
        _ => "Changed".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use muster_core::event::Subject;
    use muster_core::testing::at;
    use serde_json::json;

    use super::*;

    fn event(kind: EventKind) -> Event {
        let subject = Subject { kind: "agent".into(), ..Subject::default() };
        Event { at: at(0), kind, space: None, subject, before: None, after: None, detail: json!({"revision": 7}) }
    }

    #[test]
    fn every_event_of_an_agent_has_words() {
        for kind in EventKind::ALL.iter().filter(|kind| kind.as_str().starts_with("agent.")) {
            let text = of_event(&event(*kind));
            assert!(text.contains(' ') || text.chars().next().is_some_and(char::is_uppercase), "{text}");
        }
        let offline =
            Event { before: Some("online".into()), after: Some("offline".into()), ..event(EventKind::AgentOffline) };
        assert_eq!(of_event(&offline), "Went offline: online to offline");
        assert_eq!(of_event(&event(EventKind::AgentPolicyFailed)), "Could not apply revision 7 of its policy");
    }

    #[test]
    fn a_change_of_tags_is_told_with_both_sides() {
        let detail = json!({"before": {"tags": []}, "after": {"tags": ["a", "b"]}, "user_provided_metadata": false});
        assert_eq!(changed(&detail), "Tags changed: none to a, b");
        assert_eq!(changed(&json!({"before": {}, "after": {}, "user_provided_metadata": true})), "Metadata changed");
    }
}
