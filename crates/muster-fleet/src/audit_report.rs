//! Reports of agents and their components that an agent was uninstalled (EA §8), or that somebody tried to.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use muster_core::agent::{AgentRecord, AuditReport, Departure};
use muster_core::audit::AuditEvent;
use muster_core::change::Change;
use muster_core::id::AgentId;
use muster_core::lifecycle::report_left;
use muster_core::time::Timestamp;
use muster_core::{Error, ErrorKind};
use muster_store::Write;
use serde_json::json;

use super::check_in::CheckIns;
use super::registry::AgentEntry;
use super::update::AgentChange;

/// What an agent did with a command that needs its uninstall token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GuardedCommand {
    /// It refused the command: the token was missing or wrong.
    Refused,
    /// It allowed the command with the recovery code of its policy.
    Recovered,
}

impl GuardedCommand {
    /// Returns the action of the audit event.
    fn action(self) -> &'static str {
        match self {
            Self::Refused => "agent.refuse_command",
            Self::Recovered => "agent.use_recovery_code",
        }
    }
}

/// Average minimum time between two reports of guarded commands by one agent. Somebody who keeps trying tokens, or who has
/// stolen an access key, must not fill the audit log.
const REFUSED_EVERY: Duration = Duration::from_secs(10);
/// Number of reports that are accepted at once: as many as an agent stores. It delivers them before it is uninstalled, and
/// cannot deliver any afterwards.
const REFUSED_BURST: u32 = 64;
/// Maximum number of agents whose reports are remembered.
const REFUSED_MAX: usize = 4096;

/// The reports of guarded commands: for each agent a bucket of tokens, represented by the time at which it is full again.
#[derive(Debug, Default)]
pub(crate) struct GuardedCommands(Mutex<HashMap<AgentId, Timestamp>>);

impl GuardedCommands {
    /// Returns whether a report of this agent may be stored now.
    fn admit(&self, agent: &AgentId, now: Timestamp) -> bool {
        let mut full_at = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if full_at.len() >= REFUSED_MAX {
            full_at.retain(|_, at| *at > now);
        }
        let known = full_at.get(agent).copied();
        if known.is_none() && full_at.len() >= REFUSED_MAX {
            return false;
        }
        let after = known.unwrap_or(now).max(now).plus(REFUSED_EVERY);
        if after.since(now) > REFUSED_EVERY * REFUSED_BURST {
            return false;
        }
        full_at.insert(agent.clone(), after);
        true
    }
}

impl CheckIns {
    /// Stores the report. The agent stays active, and its next check-in clears the report (EA61, EA140). The report of
    /// a muster-agent unenrolls it and revokes its credentials immediately. Returns `Denial::LeftForGood` once
    /// `orphaned` was reported (EA138).
    pub async fn report_unenroll(
        &self,
        entry: &AgentEntry,
        report: AuditReport,
        departure: Option<Departure>,
    ) -> Result<(), Error> {
        let update = self.records.update(entry, entry, |record, now| {
            let after = report_left(record, report, departure.clone(), entry.last_seen(now), now)?;
            // A repeated report changes nothing and leaves no second line: agents send it until they get a response.
            let mut writes: Vec<Write> =
                after.iter().map(|_| Write::Audit(audit_line(record, report, departure.as_ref(), now))).collect();
            if after.as_ref().is_some_and(|after| record.active && !after.active) {
                writes.push(Write::Changed(Change::Agent(record.id.clone())));
            }
            Ok(AgentChange { record: after, writes })
        });
        if !update.await?.active {
            // Its poll was authenticated by a key that no longer exists: it ends now, not at its deadline.
            entry.wake();
            tracing::info!(agent = %entry.id(), "agent uninstalled; its credentials were revoked");
        }
        Ok(())
    }

    /// Records what the agent did with a command on its host that needs its uninstall token (AG142, AG143). Returns an
    /// error of the kind `TooMany` if the last report is too recent; the agent retries.
    pub async fn report_guarded(
        &self,
        entry: &AgentEntry,
        what: GuardedCommand,
        at: Timestamp,
        departure: Departure,
    ) -> Result<(), Error> {
        let id = entry.id().clone();
        if !self.guarded_commands.admit(&id, self.clock.now()) {
            return Err(Error::new(ErrorKind::TooMany, "TooManyRequests", "too many reports of guarded commands"));
        }
        let action = what.action();
        tracing::warn!(agent = %id, action, user = departure.user, process = departure.process, "guarded command");
        let update = self.records.update(entry, entry, |record, now| {
            let detail = json!({"at": at.to_rfc3339_millis(), "departure": departure});
            let event = line(record, action, detail, now);
            Ok(AgentChange { record: None, writes: vec![Write::Audit(event)] })
        });
        update.await.map(drop)
    }
}

fn audit_line(agent: &AgentRecord, report: AuditReport, departure: Option<&Departure>, now: Timestamp) -> AuditEvent {
    let mut detail = json!({"reason": report.reason, "at": report.at.to_rfc3339_millis()});
    if let Some(departure) = departure {
        detail["departure"] = json!(departure);
    }
    line(agent, "agent.report_unenroll", detail, now)
}

fn line(agent: &AgentRecord, action: &str, detail: serde_json::Value, now: Timestamp) -> AuditEvent {
    AuditEvent {
        at: now,
        actor: format!("agent:{}", agent.id),
        action: action.to_owned(),
        subject: format!("agent:{}", agent.id),
        detail,
        address: None,
        reason: None,
        space: Some(agent.space.clone()),
    }
}

#[cfg(test)]
mod tests {
    use muster_core::testing::at;

    use super::*;

    #[test]
    fn reports_of_one_agent_are_limited_and_the_memory_is_too() {
        let reports = GuardedCommands::default();
        let (one, two) = (AgentId::trusted("one"), AgentId::trusted("two"));
        // A burst: everything that an agent has stored.
        assert!((0..REFUSED_BURST).all(|_| reports.admit(&one, at(0))));
        assert!(!reports.admit(&one, at(9)) && reports.admit(&two, at(9)));
        assert!(reports.admit(&one, at(10)) && !reports.admit(&one, at(10)));
        for n in 0..REFUSED_MAX {
            reports.admit(&AgentId::trusted(format!("a{n}")), at(20));
        }
        assert!(reports.0.lock().unwrap().len() <= REFUSED_MAX);
        assert!(reports.admit(&AgentId::trusted("late"), at(40)));
        assert!(!reports.admit(&one, at(12)), "a clock that goes back does not fill the bucket");
    }
}
