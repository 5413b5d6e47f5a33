//! What became of agents: the events of one, and the numbers of all of a space by status, hour by hour.

use muster_core::Error;
use muster_core::agent::{AgentRecord, Family};
use muster_core::authorization::{AgentsRead, Grant};
use muster_core::event::Event;
use muster_core::status::Status;
use muster_core::time::Timestamp;
use muster_store::query::AgentFilter;

use super::agents::Agents;
use super::authority::Authorized;
use super::housekeeping::hour_of;

/// Maximum hours of a history.
const MAX_HOURS: i64 = 30 * 24;
/// Maximum number of operating systems that are told apart: agents report them as they like.
const MAX_SYSTEMS: u32 = 1_000;
/// Microseconds of an hour.
const HOUR: i64 = 3_600_000_000;

/// The numbers of agents at a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CountsAt {
    /// Beginning of the hour.
    pub at: Timestamp,
    /// Number of agents in each status that has any.
    pub counts: Vec<(Status, u64)>,
}

impl Agents {
    /// Returns the events of an agent before number `before`, newest first, as far as they are kept.
    pub async fn events_of(
        &self,
        agent: &Authorized<AgentRecord, AgentsRead>,
        before: Option<i64>,
        limit: u32,
    ) -> Result<Vec<(i64, Event)>, Error> {
        let seen = self.store.seen_by(agent.grant());
        Ok(seen.events_of_agent(agent, before.unwrap_or(i64::MAX), limit).await?)
    }

    /// Returns the numbers of agents of the last `hours`, oldest first. Hours in which no server ran are missing. Empty for
    /// somebody who sees a part of the space.
    pub async fn history(&self, grant: &Grant<AgentsRead>, hours: i64) -> Result<Vec<CountsAt>, Error> {
        let since = hour_of(self.clock.now()) - hours.clamp(1, MAX_HOURS);
        let mut history: Vec<CountsAt> = Vec::new();
        for (hour, status, number) in self.store.seen_by(grant).agent_history(since).await? {
            let at = Timestamp::from_micros(hour * HOUR);
            match history.last_mut().filter(|last| last.at == at) {
                Some(last) => last.counts.push((status, number)),
                None => history.push(CountsAt { at, counts: vec![(status, number)] }),
            }
        }
        Ok(history)
    }

    /// Counts the matching agents by the platform that they report, such as `windows`, the most frequent first.
    pub async fn platforms(
        &self,
        grant: &Grant<AgentsRead>,
        filter: &AgentFilter,
    ) -> Result<Vec<(String, u64)>, Error> {
        let mut platforms: Vec<(String, u64)> = Vec::new();
        for (os, number) in self.store.seen_by(grant).agents_by_os(filter, MAX_SYSTEMS).await? {
            let platform = os.split('\n').next().unwrap_or_default();
            match platforms.iter_mut().find(|(known, _)| known == platform) {
                Some((_, sum)) => *sum += number,
                None => platforms.push((platform.to_owned(), number)),
            }
        }
        platforms.sort_by_key(|(_, number)| std::cmp::Reverse(*number));
        Ok(platforms)
    }

    /// Counts the matching agents by family and version, the most frequent first.
    pub async fn versions(
        &self,
        grant: &Grant<AgentsRead>,
        filter: &AgentFilter,
    ) -> Result<Vec<(Family, String, u64)>, Error> {
        Ok(self.store.seen_by(grant).agents_by_program(filter).await?)
    }
}
