//! What people do with agents from the pages: each act with its privilege, its service and the same act elsewhere.

use muster_core::Error;
use muster_core::action::ActionType;
use muster_core::action_request::ActionRequest;
use muster_core::authorization::{
    AgentsForceUnenroll, AgentsPurge, AgentsReassign, AgentsSettings, AgentsTag, AgentsUnenroll, AgentsUpgrade,
    DiagnosticsRequest, OpContext, PrivilegeName,
};
use muster_core::id::{ActionId, AgentId};
use muster_core::shell;
use muster_core::time::Timestamp;
use muster_fleet::Fleet;
use muster_fleet::actions::{Submitted, Surveyed, UpgradeRequest};
use muster_fleet::force::Force;
use muster_fleet::moment::parse_time;
use muster_fleet::selection::Selected;
use muster_fleet::tags::TagChange;
use serde_json::{Value, json};

use super::bulk::Order;
use crate::durations;
use crate::preferences;

/// Choice of no policy, which no policy has as its id.
pub const NO_POLICY: &str = "/none";
/// Log levels, as agents know them. The last one returns to that of the policy.
pub const LEVELS: [&str; 6] = ["trace", "debug", "info", "warning", "error", "reset"];

/// An act.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Adds and removes tags.
    Tag,
    /// Assigns a policy.
    Assign,
    /// Upgrades to a version.
    Upgrade,
    /// Returns to the version before.
    Rollback,
    /// Requests diagnostics.
    Diagnostics,
    /// Sets the log level.
    LogLevel,
    /// Unenrolls with the agent's ack.
    Unenroll,
    /// Unenrolls immediately.
    Revoke,
    /// Deletes the records.
    Delete,
}

/// What an act did, or would do.
#[derive(Debug, Default)]
pub struct Done {
    /// Number of agents.
    pub agents: u64,
    /// Those that are not eligible, with the reasons.
    pub refused: Vec<(AgentId, String)>,
    /// Number of agents to which the person's role does not apply.
    pub excluded: u64,
    /// The actions; none for a deletion.
    pub actions: Vec<ActionId>,
}

impl Done {
    fn of(given: &[Submitted], excluded: u64) -> Self {
        Self {
            agents: given.iter().map(|one| one.targets).sum(),
            refused: given.iter().flat_map(|one| one.refused.clone()).collect(),
            excluded,
            actions: given.iter().map(|one| one.action.id.clone()).collect(),
        }
    }
}

impl Act {
    /// All acts, in the order of the menu.
    pub const ALL: [Self; 9] = [
        Self::Tag,
        Self::Assign,
        Self::Upgrade,
        Self::Rollback,
        Self::Diagnostics,
        Self::LogLevel,
        Self::Unenroll,
        Self::Revoke,
        Self::Delete,
    ];

    /// Name in URLs.
    pub const fn key(self) -> &'static str {
        match self {
            Self::Tag => "tag",
            Self::Assign => "assign",
            Self::Upgrade => "upgrade",
            Self::Rollback => "rollback",
            Self::Diagnostics => "diagnostics",
            Self::LogLevel => "log-level",
            Self::Unenroll => "unenroll",
            Self::Revoke => "revoke",
            Self::Delete => "delete",
        }
    }

    /// Returns the act of a name.
    pub fn parse(key: &str) -> Result<Self, Error> {
        let found = Self::ALL.into_iter().find(|act| act.key() == key);
        found.ok_or_else(|| Error::invalid("act", format!("unknown act {key:?}")))
    }

    /// Name in the menu.
    pub const fn title(self) -> &'static str {
        match self {
            Self::Tag => "Change tags",
            Self::Assign => "Assign a policy",
            Self::Upgrade => "Upgrade",
            Self::Rollback => "Roll back an upgrade",
            Self::Diagnostics => "Request diagnostics",
            Self::LogLevel => "Set the log level",
            Self::Unenroll => "Unenroll",
            Self::Revoke => "Revoke immediately",
            Self::Delete => "Delete",
        }
    }

    /// What it does.
    pub const fn about(self) -> &'static str {
        match self {
            Self::Tag => "Adds and removes tags.",
            Self::Assign => "The agents run another policy, or none.",
            Self::Upgrade => "The agents install another version of themselves, at once or spread over a time.",
            Self::Rollback => "The agents return to the version that they ran before the last upgrade.",
            Self::Diagnostics => "The agents upload their state and logs.",
            Self::LogLevel => "Until the level is reset to that of the policy.",
            Self::Unenroll => "The agents remove their policy when they receive it, and cannot check in after that.",
            Self::Revoke => "Access keys are revoked now, without waiting for the agents. This cannot be undone.",
            Self::Delete => "The records, results and uploads are deleted, and access ends. This cannot be undone.",
        }
    }

    /// The privilege that it needs.
    pub const fn privilege(self) -> PrivilegeName {
        match self {
            Self::Tag => PrivilegeName::AgentsTag,
            Self::Assign => PrivilegeName::AgentsReassign,
            Self::Upgrade | Self::Rollback => PrivilegeName::AgentsUpgrade,
            Self::Diagnostics => PrivilegeName::DiagnosticsRequest,
            Self::LogLevel => PrivilegeName::AgentsSettings,
            Self::Unenroll => PrivilegeName::AgentsUnenroll,
            Self::Revoke => PrivilegeName::AgentsForceUnenroll,
            Self::Delete => PrivilegeName::AgentsPurge,
        }
    }

    /// What decides which agents are eligible; `None` if all are.
    pub const fn surveyed(self) -> Option<Surveyed> {
        match self {
            Self::Tag => Some(Surveyed::Tags),
            Self::Assign | Self::LogLevel => Some(Surveyed::Other),
            Self::Upgrade => Some(Surveyed::Upgrade),
            Self::Rollback => Some(Surveyed::Rollback),
            Self::Diagnostics => Some(Surveyed::Diagnostics),
            Self::Unenroll => Some(Surveyed::Unenroll),
            Self::Revoke => Some(Surveyed::Revoke),
            Self::Delete => None,
        }
    }

    /// Whether the agent has to do something. The server changes tags, revokes keys and deletes records by itself.
    pub const fn needs_agent(self) -> bool {
        !matches!(self, Self::Tag | Self::Revoke | Self::Delete)
    }

    /// The names of its fields that decide what it does.
    pub const fn fields(self) -> &'static [&'static str] {
        match self {
            Self::Tag => &["add", "remove"],
            Self::Assign => &["policy", "force"],
            Self::Upgrade => &["version", "over", "start", "force"],
            Self::Diagnostics => &["cpu"],
            Self::LogLevel => &["level"],
            Self::Unenroll | Self::Revoke => &["force"],
            Self::Rollback | Self::Delete => &[],
        }
    }

    /// Whether it cannot be undone.
    pub const fn is_destructive(self) -> bool {
        matches!(self, Self::Unenroll | Self::Revoke | Self::Delete)
    }

    /// Whether it can be tried without further details.
    pub const fn is_complete(self) -> bool {
        matches!(self, Self::Rollback | Self::Diagnostics | Self::Unenroll | Self::Revoke | Self::Delete)
    }

    /// Does it, or tries it if the context is that of a dry run.
    pub async fn run(
        self,
        fleet: &Fleet,
        context: &OpContext,
        agents: &Selected,
        order: &Order,
    ) -> Result<Done, Error> {
        let (actions, all) = (fleet.actions(), fleet.agents());
        let force = Force::from(!order.force.is_empty());
        macro_rules! select {
            ($privilege:ty) => {
                all.select::<$privilege>(context, agents).await?
            };
        }
        let (given, excluded) = match self {
            Self::Tag => {
                let (chosen, change) = (select!(AgentsTag), tags(order)?);
                (vec![actions.change_tags(&chosen, &change).await?], chosen.excluded())
            }
            Self::Assign => {
                let chosen = select!(AgentsReassign);
                (vec![actions.reassign(&chosen, policy(order)?, None, force).await?], chosen.excluded())
            }
            Self::Upgrade => {
                let (chosen, wanted) = (select!(AgentsUpgrade), upgrade(order, force)?);
                (vec![actions.upgrade(&chosen, &wanted).await?], chosen.excluded())
            }
            Self::Rollback => {
                let chosen = select!(AgentsUpgrade);
                (actions.roll_back(&chosen).await?, chosen.excluded())
            }
            Self::Diagnostics => {
                let chosen = select!(DiagnosticsRequest);
                let metrics = if order.cpu.is_empty() { Vec::new() } else { vec!["CPU".to_owned()] };
                (vec![actions.request_diagnostics(&chosen, &metrics).await?], chosen.excluded())
            }
            Self::LogLevel => {
                let (chosen, request) = (select!(AgentsSettings), log_level(order)?);
                (vec![actions.change_settings(&chosen, request).await?], chosen.excluded())
            }
            Self::Unenroll => {
                let chosen = select!(AgentsUnenroll);
                (vec![actions.unenroll(&chosen, force).await?], chosen.excluded())
            }
            Self::Revoke => {
                let chosen = select!(AgentsForceUnenroll);
                (vec![actions.force_unenroll(&chosen, force).await?], chosen.excluded())
            }
            Self::Delete => {
                let chosen = select!(AgentsPurge);
                let agents = all.delete_many(&chosen).await?;
                return Ok(Done { agents, excluded: chosen.excluded(), ..Done::default() });
            }
        };
        Ok(Done::of(&given, excluded))
    }

    /// The same act as commands of `muster`, without that word.
    pub fn commands(self, agents: &str, order: &Order) -> Vec<String> {
        let force = if order.force.is_empty() { "" } else { " --force" };
        let optional = |name: &str, value: &str| match value {
            "" => String::new(),
            value => format!(" {}", shell::option(name, value)),
        };
        let command = match self {
            Self::Tag => {
                let change = |verb: &str, tags: &str| match listed(tags).join(",").as_str() {
                    "" => None,
                    tags => Some(format!("agent {verb} {agents} {}", shell::option("--tag", tags))),
                };
                return [change("tag", &order.add), change("untag", &order.remove)].into_iter().flatten().collect();
            }
            Self::Assign if order.policy == NO_POLICY => format!("agent reassign {agents} --no-policy{force}"),
            Self::Assign => format!("agent reassign {agents}{}{force}", optional("--policy", &order.policy)),
            Self::Upgrade => {
                let version = shell::option("--version", &order.version);
                let over = if order.over.is_empty() { String::new() } else { order.over.trim().to_owned() };
                let (over, start) = (optional("--rollout", &over), optional("--start", &start_text(order)));
                format!("agent upgrade {agents} {version}{over}{start}{force}")
            }
            // The command has no rollback.
            Self::Rollback => return Vec::new(),
            Self::Diagnostics => {
                format!("agent diagnostics {agents}{}", if order.cpu.is_empty() { "" } else { " --cpu" })
            }
            Self::LogLevel => format!("agent log-level {agents}{}", optional("--level", &order.level)),
            Self::Unenroll => format!("agent unenroll {agents}{}", optional("--reason", &order.reason)),
            Self::Revoke => format!("agent unenroll {agents} --force{}", optional("--reason", &order.reason)),
            Self::Delete => format!("agent delete {agents}"),
        };
        vec![command]
    }

    /// The same act as a request to the API: its path and its body.
    pub fn request(self, agents: &Value, order: &Order) -> (String, Value) {
        let force = !order.force.is_empty();
        let (path, mut body) = match self {
            Self::Tag => {
                ("update_agent_tags", json!({"tagsToAdd": listed(&order.add), "tagsToRemove": listed(&order.remove)}))
            }
            Self::Assign => {
                let policy = Some(&order.policy).filter(|policy| *policy != NO_POLICY);
                ("reassign", json!({"policy_id": policy, "force": force}))
            }
            Self::Upgrade => {
                let mut body = json!({"version": order.version, "force": force});
                if let Ok(Some(seconds)) = window(order) {
                    body["rollout_duration_seconds"] = seconds.into();
                }
                if !order.start.is_empty() {
                    body["start_time"] = start_text(order).into();
                }
                ("upgrade", body)
            }
            Self::Rollback => ("rollback", json!({})),
            Self::Diagnostics if order.cpu.is_empty() => ("request_diagnostics", json!({})),
            Self::Diagnostics => ("request_diagnostics", json!({"additional_metrics": ["CPU"]})),
            Self::LogLevel => {
                let level = Some(&order.level).filter(|level| *level != "reset");
                ("actions", json!({"action": {"type": "SETTINGS", "data": {"log_level": level}}}))
            }
            Self::Unenroll => ("unenroll", json!({"force": force, "reason": order.reason})),
            Self::Revoke => ("unenroll", json!({"revoke": true, "force": force, "reason": order.reason})),
            Self::Delete => ("delete", json!({})),
        };
        body["agents"] = agents.clone();
        (format!("/api/fleet/agents/bulk_{path}"), body)
    }
}

/// Returns the tags of a field.
pub fn listed(tags: &str) -> Vec<String> {
    tags.split(',').map(str::trim).filter(|tag| !tag.is_empty()).map(str::to_owned).collect()
}

fn tags(order: &Order) -> Result<TagChange, Error> {
    let renamed = |error: Error| {
        let field =
            error.field.as_deref().map(|field| if field.starts_with("tagsToRemove") { "remove" } else { "add" });
        Error { field: field.map(Into::into), ..error }
    };
    TagChange::parse(&listed(&order.add), &listed(&order.remove)).map_err(renamed)
}

/// Returns the id of the policy to assign; `None` for no policy.
fn policy(order: &Order) -> Result<Option<&str>, Error> {
    match order.policy.as_str() {
        "" => Err(Error::invalid("policy", "choose a policy")),
        NO_POLICY => Ok(None),
        id => Ok(Some(id)),
    }
}

/// Maximum time over which the starts of an upgrade are spread, seconds: 69 days.
const MAX_WINDOW: i64 = 69 * 86_400;

fn window(order: &Order) -> Result<Option<i64>, Error> {
    let Some(seconds) = durations::parse_optional("over", &order.over)? else { return Ok(None) };
    let fitting = i64::try_from(seconds).ok().filter(|seconds| (60..=MAX_WINDOW).contains(seconds));
    fitting.map(Some).ok_or_else(|| Error::invalid("over", "must be from `1m` to `69d`"))
}

/// Returns the start time. What browsers send for a field of a time is without a time zone: the person's is meant.
fn start(order: &Order) -> Result<Option<Timestamp>, Error> {
    let text = order.start.trim();
    if text.is_empty() {
        return Ok(None);
    }
    parse_time("start", text).or_else(|error| preferences::parse_time(text).ok_or(error)).map(Some)
}

/// Returns the start time for commands and requests; what was typed if it is invalid.
fn start_text(order: &Order) -> String {
    start(order).ok().flatten().map_or_else(|| order.start.clone(), Timestamp::to_rfc3339_seconds)
}

fn upgrade(order: &Order, force: Force) -> Result<UpgradeRequest, Error> {
    Ok(UpgradeRequest {
        version: order.version.trim().to_owned(),
        source_uri: None,
        force,
        skip_rate_limit: false,
        start_time: start(order)?,
        rollout_seconds: window(order)?,
    })
}

fn log_level(order: &Order) -> Result<ActionRequest, Error> {
    if !LEVELS.contains(&order.level.as_str()) {
        return Err(Error::invalid("level", format!("must be one of {}", LEVELS.join(", "))));
    }
    // `null` returns to the level of the policy (MG §5.1).
    let level = Some(&order.level).filter(|level| *level != "reset");
    Ok(ActionRequest::new(ActionType::Settings, json!({"log_level": level})))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_act_is_shown_as_a_command_and_as_a_call() {
        let order = Order { version: "9.5.3".into(), over: "90m".into(), add: "a b, c".into(), ..Order::default() };
        let commands = |act: Act| act.commands("--filter='tags:x y'", &order);
        assert_eq!(commands(Act::Upgrade), ["agent upgrade --filter='tags:x y' --version=9.5.3 --rollout=90m"]);
        assert_eq!(commands(Act::Tag), ["agent tag --filter='tags:x y' --tag='a b,c'"]);
        for typed in ["2026-12-01T20:00", "2026-12-01T20:00:00Z", "2026-12-01T21:00:00+01:00"] {
            let order = Order { start: typed.into(), ..order.clone() };
            assert!(Act::Upgrade.commands("x", &order)[0].ends_with(" --start=2026-12-01T20:00:00Z"), "{typed}");
        }
        assert!(start(&Order { start: "tomorrow".into(), ..Order::default() }).is_err());
        let (path, body) = Act::Upgrade.request(&json!(["x"]), &order);
        assert_eq!(
            (path.as_str(), &body["rollout_duration_seconds"]),
            ("/api/fleet/agents/bulk_upgrade", &json!(5400))
        );
        assert!(Act::parse("nonsense").is_err());
        assert!(Act::ALL.iter().all(|act| Act::parse(act.key()).is_ok_and(|parsed| parsed == *act)));
    }

    #[test]
    fn a_malformed_detail_is_an_error_of_its_field() {
        let order = Order { over: "soon".into(), level: "loud".into(), ..Order::default() };
        let field = |error: Error| error.field.unwrap().to_string();
        assert_eq!(field(upgrade(&order, Force::No).unwrap_err()), "over");
        assert_eq!(field(log_level(&order).unwrap_err()), "level");
        assert_eq!(field(tags(&order).unwrap_err()), "add");
    }
}
