//! Automatic upgrades: which agents of a policy are upgraded next, so that the shares of its agents that its
//! `required_versions` state run these versions (MG §6.4).

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::Value;

use crate::id::AgentId;
use crate::rollout::Place;
use crate::time::Timestamp;
use crate::version::Version;

/// Time from a failed attempt to the next one; after the last one, an agent is not upgraded automatically any more (MG156).
pub const RETRIES: [Duration; 7] = [
    Duration::from_secs(30 * 60),
    Duration::from_secs(60 * 60),
    Duration::from_secs(2 * 60 * 60),
    Duration::from_secs(4 * 60 * 60),
    Duration::from_secs(8 * 60 * 60),
    Duration::from_secs(16 * 60 * 60),
    Duration::from_secs(24 * 60 * 60),
];

/// A version that a share of the agents of a policy must run.
#[derive(Clone, Debug, PartialEq)]
pub struct Required {
    /// The version, as it is sent to agents.
    pub version: String,
    /// Percentage of the policy's agents.
    pub percentage: f64,
}

/// An agent of the policy that is not gone.
#[derive(Clone, Debug, PartialEq)]
pub struct Member {
    /// Its id.
    pub id: AgentId,
    /// The version that it runs, if known.
    pub version: Option<Version>,
    /// The version that it is being upgraded to.
    pub target: Option<Version>,
}

/// The agents of a policy that are not gone, counted by the version that they run and the version that they are being upgraded
/// to. It shows whether agents are to be upgraded, before any agent is read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Census(Vec<Counted>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Counted {
    version: Option<Version>,
    target: Option<Version>,
    agents: usize,
}

impl Census {
    /// Adds agents of the same versions.
    pub fn add(&mut self, version: Option<Version>, target: Option<Version>, agents: usize) {
        self.0.push(Counted { version, target, agents });
    }

    fn count(&self, counts: impl Fn(&Counted) -> bool) -> usize {
        self.0.iter().filter(|row| counts(row)).map(|row| row.agents).sum()
    }

    /// Number of agents that are a percentage.
    fn share(&self, percentage: f64) -> usize {
        // At most 200,000 agents and 100 percent: exact in f64.
        (self.count(|_| true) as f64 * percentage / 100.0).round() as usize
    }

    /// Number of agents that run a version or are being upgraded to it.
    fn there(&self, version: Version) -> usize {
        self.count(|row| row.target.or(row.version) == Some(version))
    }

    /// Returns the highest version to which agents are to be upgraded; `None` if there are none. Only agents of lower versions
    /// matter then. `required` is sorted with the highest version first.
    pub fn highest_demand(&self, required: &[Required]) -> Option<Version> {
        let versions = || required.iter().filter_map(|one| Some((Version::parse(&one.version)?, one.percentage)));
        let is_demanded = |(version, percentage): &(Version, f64)| {
            let lower = self.count(|row| row.target.is_none() && row.version.is_some_and(|own| own < *version));
            // Agents that a lower version needs, at least: some of them may be on their way to another version.
            let kept = |(lower, percentage): (Version, f64)| {
                let of =
                    |is_going: bool| self.count(|row| row.version == Some(lower) && row.target.is_some() == is_going);
                self.share(percentage).min(of(true) + of(false)).saturating_sub(of(true))
            };
            let kept: usize = versions().filter(|(other, _)| other < version).map(kept).sum();
            self.share(*percentage) > self.there(*version) && lower > kept
        };
        versions().find(is_demanded).map(|(version, _)| version)
    }
}

/// Attempts to upgrade an agent to a version.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attempts {
    /// Their number.
    pub count: usize,
    /// When the last one began.
    pub last: Option<Timestamp>,
}

/// Agents to upgrade to a version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// The version, as it is sent to agents.
    pub version: String,
    /// The agents.
    pub agents: Vec<AgentId>,
}

/// Agents that may be upgraded to a version, of which a number is needed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Demand<'a> {
    /// The version, as it is sent to agents.
    pub version: &'a str,
    /// How many are needed.
    pub needed: usize,
    /// The agents, in the order in which they are chosen.
    pub candidates: Vec<&'a AgentId>,
}

impl Attempts {
    /// Whether the next attempt is due.
    pub fn is_due(&self, now: Timestamp) -> bool {
        let (Some(last), Some(retry)) = (self.last, self.count.checked_sub(1)) else { return true };
        RETRIES.get(retry).is_some_and(|pause| now.since(last) >= *pause)
    }
}

/// Returns the required versions of a policy, highest first. Invalid ones, which policies cannot have, are ignored.
pub fn required(fields: &Value) -> Vec<Required> {
    let read = |item: &Value| {
        let version = item["version"].as_str()?.to_owned();
        Version::parse(&version)?;
        Some(Required { version, percentage: item["percentage"].as_f64().filter(|percentage| *percentage > 0.0)? })
    };
    let mut required: Vec<Required> =
        fields["required_versions"].as_array().into_iter().flatten().filter_map(read).collect();
    required.sort_by_key(|one| std::cmp::Reverse(Version::parse(&one.version)));
    required
}

/// Returns which agents each required version still needs. Those that run the version or are being upgraded to it count
/// (MG154), others are candidates if they run a lower version that does not need them itself. `required` is sorted with the
/// highest version first; `members` are at least the agents of lower versions than [`Census::highest_demand`].
pub fn demands<'a>(required: &'a [Required], census: &Census, members: &'a [Member]) -> Vec<Demand<'a>> {
    let Some(highest) = census.highest_demand(required) else { return Vec::new() };
    let mut order: Vec<&Member> = members.iter().collect();
    // Stable, and independent of ids, which begin with the time of enrollment.
    order.sort_by_key(|member| Place::of(&member.id));
    let mut demands = Vec::new();
    for one in required {
        let Some(version) = Version::parse(&one.version).filter(|version| *version <= highest) else { continue };
        let (wanted, there) = (census.share(one.percentage), census.there(version));
        // What lower versions need of the agents that they have is not taken from them.
        let kept = kept(required, census, &order, version);
        let is_free = |member: &&&Member| {
            let is_lower = member.version.is_some_and(|own| own < version);
            member.target.is_none() && is_lower && !kept.contains(&member.id)
        };
        let candidates: Vec<&AgentId> = order.iter().filter(is_free).map(|member| &member.id).collect();
        let needed = wanted.saturating_sub(there).min(candidates.len());
        if needed > 0 {
            demands.push(Demand { version: &one.version, needed, candidates });
        }
    }
    demands
}

/// Returns the agents that a version lower than `above` has and needs.
fn kept<'a>(required: &[Required], census: &Census, order: &[&'a Member], above: Version) -> BTreeSet<&'a AgentId> {
    let lower = required.iter().filter_map(|one| Some((Version::parse(&one.version)?, one.percentage)));
    lower
        .filter(|(version, _)| *version < above)
        .flat_map(|(version, percentage)| {
            let there = order.iter().filter(move |member| member.version == Some(version));
            there.take(census.share(percentage)).map(|member| &member.id)
        })
        .collect()
}

/// Chooses the agents to upgrade now among those that can be. `attempts` returns the attempts of an agent, or `None` if it
/// cannot be upgraded to that version.
pub fn choose(
    demands: &[Demand<'_>],
    attempts: &dyn Fn(&str, &AgentId) -> Option<Attempts>,
    now: Timestamp,
) -> Vec<Batch> {
    let mut chosen: BTreeSet<&AgentId> = BTreeSet::new();
    let mut batches = Vec::new();
    for demand in demands {
        let mut able: Vec<(usize, &AgentId)> = demand
            .candidates
            .iter()
            .filter(|id| !chosen.contains(*id))
            .filter_map(|id| Some((attempts(demand.version, id).filter(|tried| tried.is_due(now))?.count, *id)))
            .collect();
        // Agents that have failed come after the others, so that one that never succeeds does not hold up the rest.
        able.sort_by_key(|(count, _)| *count);
        let agents: Vec<AgentId> = able.into_iter().take(demand.needed).map(|(_, id)| id.clone()).collect();
        if !agents.is_empty() {
            let ids = demand.candidates.iter().filter(|id| agents.contains(id));
            chosen.extend(ids.copied());
            batches.push(Batch { version: demand.version.to_owned(), agents });
        }
    }
    batches
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::testing::at;

    fn member(number: usize, version: &str, target: Option<&str>) -> Member {
        let id = AgentId::trusted(format!("agent-{number}"));
        Member { id, version: Version::parse(version), target: target.and_then(Version::parse) }
    }

    fn census(members: &[Member]) -> Census {
        let mut census = Census::default();
        members.iter().for_each(|member| census.add(member.version, member.target, 1));
        census
    }

    fn demands<'a>(required: &'a [Required], members: &'a [Member]) -> Vec<Demand<'a>> {
        super::demands(required, &census(members), members)
    }

    fn requires(rows: &[(&str, f64)]) -> Vec<Required> {
        let rows: Vec<Value> =
            rows.iter().map(|(version, share)| json!({"version": version, "percentage": share})).collect();
        required(&json!({"required_versions": rows}))
    }

    fn fresh(_: &str, _: &AgentId) -> Option<Attempts> {
        Some(Attempts::default())
    }

    fn sizes(batches: &[Batch]) -> Vec<(&str, usize)> {
        batches.iter().map(|batch| (batch.version.as_str(), batch.agents.len())).collect()
    }

    #[test]
    fn mg154_half_of_ten_agents_are_upgraded_with_those_that_are_there_or_on_the_way() {
        let required = requires(&[("9.6.0", 50.0)]);
        let mut members: Vec<Member> = (0..10).map(|number| member(number, "9.5.0", None)).collect();
        assert_eq!(sizes(&choose(&demands(&required, &members), &fresh, at(0))), [("9.6.0", 5)]);
        members[0] = member(0, "9.6.0", None);
        members[1] = member(1, "9.5.0", Some("9.6.0"));
        assert_eq!(sizes(&choose(&demands(&required, &members), &fresh, at(0))), [("9.6.0", 3)]);
        members[2..5].iter_mut().for_each(|member| member.version = Version::parse("9.6.0"));
        assert_eq!(demands(&required, &members), []);
    }

    #[test]
    fn a_higher_version_takes_only_agents_that_a_lower_one_does_not_need() {
        let required = requires(&[("9.5.0", 50.0), ("9.6.0", 50.0)]);
        assert_eq!(required[0].version, "9.6.0", "the highest first");
        let members: Vec<Member> = (0..10).map(|number| member(number, "9.5.0", None)).collect();
        assert_eq!(sizes(&choose(&demands(&required, &members), &fresh, at(0))), [("9.6.0", 5)]);
        let old: Vec<Member> = (0..10).map(|number| member(number, "9.4.0", None)).collect();
        assert_eq!(sizes(&choose(&demands(&required, &old), &fresh, at(0))), [("9.6.0", 5), ("9.5.0", 5)]);
        let newer: Vec<Member> = (0..10).map(|number| member(number, "9.7.0", None)).collect();
        assert_eq!(demands(&required, &newer), [], "nobody is downgraded");
    }

    #[test]
    fn mg156_a_failed_upgrade_is_retried_seven_times_with_growing_pauses() {
        let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
        let mut tried = Attempts::default();
        assert!(tried.is_due(at(0)));
        for (count, pause) in [30, 60, 120, 240, 480, 960, 1440].into_iter().enumerate() {
            tried = Attempts { count: count + 1, last: Some(at(0)) };
            assert!(!tried.is_due(at(0).plus(minutes(pause)).minus(Duration::from_secs(1))), "{count}");
            assert!(tried.is_due(at(0).plus(minutes(pause))), "{count}");
        }
        tried = Attempts { count: 8, last: Some(at(0)) };
        assert!(!tried.is_due(at(0).plus(minutes(1_000_000))), "seven retries after the first attempt");
    }

    #[test]
    fn agents_that_failed_make_room_for_others() {
        let required = requires(&[("9.6.0", 20.0)]);
        let members: Vec<Member> = (0..5).map(|number| member(number, "9.5.0", None)).collect();
        let demands = demands(&required, &members);
        let first = demands[0].candidates[0].clone();
        let failed = |_: &str, id: &AgentId| {
            Some(if *id == first { Attempts { count: 1, last: Some(at(0)) } } else { Attempts::default() })
        };
        let later = at(0).plus(Duration::from_secs(86_400));
        let batches = choose(&demands, &failed, later);
        assert_eq!((sizes(&batches), batches[0].agents.contains(&first)), (vec![("9.6.0", 1)], false));
        assert_eq!(choose(&demands, &|_, _| None, at(0)), [], "nobody can be upgraded");
    }

    proptest! {
        #[test]
        fn mg154_no_share_is_exceeded_and_no_agent_chosen_twice(
            agents in proptest::collection::vec((0_u8..6, proptest::option::of(0_u8..6), any::<bool>()), 0..60),
            shares in proptest::collection::vec(0.0_f64..40.0, 1..4),
        ) {
            let text = |minor: u8| format!("9.{minor}.0");
            let members: Vec<Member> = agents.iter().enumerate().map(|(number, (runs, target, _))| {
                member(number, &text(*runs), target.filter(|target| target > runs).map(text).as_deref())
            }).collect();
            let versions = [text(5), text(3), text(2)];
            let rows: Vec<(&str, f64)> = versions.iter().map(String::as_str).zip(shares.iter().copied()).collect();
            let required = requires(&rows);
            let highest = census(&members).highest_demand(&required);
            let lower: Vec<Member> = members.iter().filter(|member| member.version < highest).cloned().collect();
            let of_lower = super::demands(&required, &census(&members), &lower);
            prop_assert_eq!(&of_lower, &demands(&required, &members), "agents of other versions need not be read");
            let able = |_: &str, id: &AgentId| {
                let number: usize = id.as_str().trim_start_matches("agent-").parse().unwrap();
                agents[number].2.then(Attempts::default)
            };
            let batches = choose(&demands(&required, &members), &able, at(0));
            let mut seen = BTreeSet::new();
            for batch in &batches {
                let version = Version::parse(&batch.version).unwrap();
                let there = members.iter().filter(|member| member.target.or(member.version) == Some(version)).count();
                let share_of = required.iter().find(|one| one.version == batch.version).unwrap().percentage;
                prop_assert!(there + batch.agents.len() <= census(&members).share(share_of));
                for id in &batch.agents {
                    let member = members.iter().find(|member| member.id == *id).unwrap();
                    prop_assert!(member.target.is_none() && member.version < Some(version), "{member:?}");
                    prop_assert!(able("", id).is_some() && seen.insert(id.clone()));
                }
            }
        }
    }
}
