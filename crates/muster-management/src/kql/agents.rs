//! Compiles queries over agents into a filter for the store.

use std::collections::BTreeSet;
use std::time::Duration;

use muster_core::Error;
use muster_core::agent::{AuditReason, Family};
use muster_core::id::{AgentId, EnrollmentKeyId, HostCheckId, HostId, PolicyId};
use muster_core::status::Status;
use muster_core::time::Timestamp;
use muster_core::version::Version;
use muster_fleet::labels;
use muster_store::query::{AgentCondition, AgentFilter, Identifier};
use muster_store::search::Fact;

use super::{Comparison, Expr, Term, parse, plain_field, syntax_error};

const PREFIXES: [&str; 1] = ["fleet-agents"];
/// Maximum number of conditions of a query. Each value of a set is one, because the store compares every agent with it.
const MOST_CONDITIONS: usize = 256;
/// Maximum number of ids of agents in a query. The store looks them up in an index.
const MOST_IDS: usize = 5000;

/// The fields that a query may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    Id,
    Policy,
    Status,
    Tags,
    Labels,
    EnrollmentKey,
    Hostname,
    Hardware(Identifier),
    DuplicateHosts,
    Family,
    Host,
    FailingChecks,
    FailingQueries,
    Os(Fact),
    Version,
    UpgradeState,
    Left,
    LeftAt,
    EnrolledAt,
    LastCheckin,
    PolicyPendingSince,
}

/// A compiled query.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AgentQuery {
    /// What `now` is.
    now: Timestamp,
    /// The filter.
    pub filter: AgentFilter,
    /// Statuses that the query names. Agents with such a status are shown even if lists hide them by default.
    pub named: BTreeSet<Status>,
}

/// Compiles a query; an empty one matches all agents.
pub fn compile(text: &str, now: Timestamp) -> Result<AgentQuery, Error> {
    let mut query = AgentQuery { now, ..AgentQuery::default() };
    if let Some(expr) = parse(text)? {
        Leaves::of(&expr).check()?;
        query.require(&expr)?;
        query.filter.written = Some(text.trim().into());
    }
    query.check_size()
}

/// Compiles a query for a list (MG §1.2.1): hides unenrolled agents, and inactive ones unless `show_inactive`, except where
/// the query names these statuses.
pub fn visible(text: &str, show_inactive: bool, now: Timestamp) -> Result<AgentFilter, Error> {
    let AgentQuery { mut filter, named, .. } = compile(text, now)?;
    let hides = |status: &Status| (*status == Status::Unenrolled || !show_inactive) && !named.contains(status);
    let hidden: Vec<Status> = [Status::Unenrolled, Status::Inactive].into_iter().filter(hides).collect();
    if !hidden.is_empty() {
        filter.conditions.push(!AgentCondition::Statuses(hidden));
    }
    Ok(filter)
}

impl AgentQuery {
    /// Adds a condition that must hold. `a and b` is split, because the store finds agents by the index of a condition that
    /// stands alone.
    fn require(&mut self, expr: &Expr) -> Result<(), Error> {
        match expr {
            Expr::And(parts) => parts.iter().try_for_each(|part| self.require(part)),
            Expr::Not(inner) => self.forbid(inner),
            _ => {
                let condition = self.condition(expr, true)?;
                self.filter.conditions.push(condition);
                Ok(())
            }
        }
    }

    /// Adds a condition that must not hold; `not (a or b)` is `not a and not b`.
    fn forbid(&mut self, expr: &Expr) -> Result<(), Error> {
        match expr {
            Expr::Not(inner) => self.require(inner),
            Expr::Or(parts) => parts.iter().try_for_each(|part| self.forbid(part)),
            _ => {
                // A negated status does not count as named: `not status:inactive` asks to hide these agents.
                let condition = self.condition(expr, false)?;
                self.filter.conditions.push(!condition);
                Ok(())
            }
        }
    }

    /// Converts a tree of conditions. `wanted` is true below an even number of `not`, where a status is one that the caller
    /// wants to see.
    fn condition(&mut self, expr: &Expr, wanted: bool) -> Result<AgentCondition, Error> {
        Ok(match expr {
            Expr::And(parts) => {
                AgentCondition::All(parts.iter().map(|part| self.condition(part, wanted)).collect::<Result<_, _>>()?)
            }
            Expr::Or(parts) => {
                let parts = parts.iter().map(|part| self.condition(part, wanted)).collect::<Result<Vec<_>, _>>()?;
                any_of(merged(parts))
            }
            Expr::Not(inner) => !self.condition(inner, !wanted)?,
            Expr::Is(name, term) => self.leaf(field_of(name)?, term, wanted)?,
            Expr::Compare(name, comparison, value) => self.comparison(name, *comparison, value)?,
            // What lists show of an agent is searched, as one text.
            Expr::Text(term) => AgentCondition::Text(pattern_of(term)),
        })
    }

    fn leaf(&mut self, field: Field, term: &Term, wanted: bool) -> Result<AgentCondition, Error> {
        if term.is_any() {
            return Ok(match field {
                // Every agent has these fields.
                Field::Id | Field::Hostname | Field::Family | Field::Version | Field::EnrolledAt => {
                    AgentCondition::All(Vec::new())
                }
                Field::UpgradeState => AgentCondition::HasUpgradeDetails,
                Field::Left => {
                    self.named.extend(gone_sooner_or_later(wanted));
                    AgentCondition::HasLeft
                }
                Field::LastCheckin => return Err(only_compared("last_checkin")),
                Field::LeftAt => return Err(only_compared("left_at")),
                Field::PolicyPendingSince => return Err(only_compared("policy_pending_since")),
                Field::Os(fact) => AgentCondition::Os(fact, String::new(), true),
                Field::Status => {
                    self.named.extend(Status::ALL.iter().filter(|_| wanted));
                    AgentCondition::All(Vec::new())
                }
                Field::Policy => AgentCondition::HasPolicy,
                Field::Tags => AgentCondition::HasTags,
                Field::Labels => AgentCondition::HasLabels,
                Field::EnrollmentKey => AgentCondition::HasEnrollmentKey,
                Field::Hardware(identifier) => AgentCondition::HasHardware(identifier),
                Field::DuplicateHosts => AgentCondition::HasDuplicateHosts,
                Field::Host => AgentCondition::HasHost,
                Field::FailingChecks => return Err(syntax_error("failing_checks must be the id of a host check")),
                Field::FailingQueries => {
                    return Err(syntax_error("failing_queries must be the name of a scheduled query"));
                }
            });
        }
        if term.pattern {
            return wildcard(field, &term.text);
        }
        let word = term.text.as_str();
        Ok(match field {
            Field::Id => AgentCondition::Ids(vec![AgentId::trusted(word)]),
            Field::Policy => AgentCondition::Policies(vec![PolicyId::trusted(word)]),
            Field::Status => {
                let statuses = statuses(word)?;
                self.named.extend(statuses.iter().filter(|_| wanted));
                AgentCondition::Statuses(statuses)
            }
            Field::Tags => AgentCondition::Tags(vec![word.to_owned()]),
            Field::Labels => labels::condition(word),
            Field::EnrollmentKey => AgentCondition::EnrollmentKeys(vec![EnrollmentKeyId::trusted(word)]),
            Field::Hostname => AgentCondition::Hostnames(vec![word.to_owned()]),
            Field::Hardware(identifier) => AgentCondition::Hardware(identifier, vec![word.to_owned()]),
            Field::Family => AgentCondition::Families(vec![family(word)?]),
            Field::Host => AgentCondition::Hosts(vec![HostId::trusted(word)]),
            Field::FailingChecks => AgentCondition::FailsChecks(vec![HostCheckId::trusted(word)]),
            Field::FailingQueries => AgentCondition::FailsQueries(vec![word.to_owned()], self.now),
            Field::DuplicateHosts => return Err(only_any("duplicate_hosts")),
            Field::Os(fact) => AgentCondition::Os(fact, word.to_owned(), false),
            Field::Version => AgentCondition::Versions(vec![word.to_owned()]),
            Field::UpgradeState => AgentCondition::UpgradeState(upgrade_state(word)?),
            Field::Left => {
                self.named.extend(gone_sooner_or_later(wanted));
                AgentCondition::Left(vec![left(word)?])
            }
            Field::EnrolledAt => return Err(only_compared("enrolled_at")),
            Field::LastCheckin => return Err(only_compared("last_checkin")),
            Field::LeftAt => return Err(only_compared("left_at")),
            Field::PolicyPendingSince => return Err(only_compared("policy_pending_since")),
        })
    }

    /// Compiles `field < value`. Times are moments of RFC 3339, dates, or `now` with an offset.
    fn comparison(&mut self, name: &str, comparison: Comparison, value: &str) -> Result<AgentCondition, Error> {
        let field = field_of(name)?;
        if field == Field::Version {
            return version_range(comparison, value);
        }
        if field == Field::LeftAt {
            self.named.extend(gone_sooner_or_later(true));
        }
        let time = || moment(value, self.now).map_err(|reason| syntax_error(format!("{name}: {reason}")));
        Ok(match (field, comparison) {
            (Field::EnrolledAt, Comparison::AtMost) => AgentCondition::EnrolledBy(time()?),
            (Field::EnrolledAt, Comparison::Less) => AgentCondition::EnrolledBy(just_before(time()?)),
            (Field::EnrolledAt, Comparison::Greater) => !AgentCondition::EnrolledBy(time()?),
            (Field::EnrolledAt, Comparison::AtLeast) => !AgentCondition::EnrolledBy(just_before(time()?)),
            (Field::LastCheckin, Comparison::Less) => AgentCondition::UnseenSince(time()?),
            (Field::LastCheckin, Comparison::AtMost) => !AgentCondition::SeenAfter(time()?),
            (Field::LastCheckin, Comparison::Greater) => AgentCondition::SeenAfter(time()?),
            (Field::LastCheckin, Comparison::AtLeast) => !AgentCondition::UnseenSince(time()?),
            (Field::LeftAt, Comparison::Greater) => AgentCondition::LeftAfter(time()?),
            (Field::LeftAt, Comparison::AtLeast) => AgentCondition::LeftAfter(just_before(time()?)),
            (Field::PolicyPendingSince, Comparison::Less) => AgentCondition::PolicyPendingSince(time()?),
            (Field::LeftAt, _) => return Err(syntax_error("left_at can be compared with > and >= only")),
            (Field::PolicyPendingSince, _) => {
                return Err(syntax_error("policy_pending_since can be compared with < only"));
            }
            _ => return Err(syntax_error(format!("{name} cannot be compared"))),
        })
    }

    /// Refuses queries whose SQL would exceed the databases' limits on the depth of an expression.
    fn check_size(self) -> Result<Self, Error> {
        if self.filter.conditions.iter().map(size).sum::<usize>() > MOST_CONDITIONS {
            return Err(too_many_conditions());
        }
        Ok(self)
    }
}

/// Number of leaves of a query: comparisons with the id of an agent, and others.
#[derive(Clone, Copy, Default)]
struct Leaves {
    ids: usize,
    others: usize,
}

impl Leaves {
    fn of(expr: &Expr) -> Self {
        let mut leaves = Self::default();
        leaves.count(expr);
        leaves
    }

    fn count(&mut self, expr: &Expr) {
        match expr {
            Expr::And(parts) | Expr::Or(parts) => parts.iter().for_each(|part| self.count(part)),
            Expr::Not(inner) => self.count(inner),
            Expr::Is(name, _) if field_of(name).is_ok_and(|field| field == Field::Id) => self.ids += 1,
            Expr::Is(..) | Expr::Compare(..) | Expr::Text(_) => self.others += 1,
        }
    }

    /// Checks the numbers before the query is compiled, which takes time for long ones.
    fn check(self) -> Result<(), Error> {
        if self.ids > MOST_IDS {
            let error = syntax_error(format!("more than {MOST_IDS} agent ids"));
            return Err(error.remedy("divide the ids among several queries, or select the agents by a policy or a tag"));
        }
        if self.others > MOST_CONDITIONS { Err(too_many_conditions()) } else { Ok(()) }
    }
}

fn too_many_conditions() -> Error {
    let message = format!("more than {MOST_CONDITIONS} conditions; each value of a set counts, except agent ids");
    syntax_error(message).remedy(format!(
        "divide the query into several, or select the agents by their ids: id:(a or b or …), at most {MOST_IDS}"
    ))
}

fn size(condition: &AgentCondition) -> usize {
    match condition {
        AgentCondition::All(parts) | AgentCondition::Any(parts) => parts.iter().map(size).sum(),
        AgentCondition::Not(inner) => size(inner),
        _ => 1,
    }
}

/// Merges alternatives on the same field into one set, wherever they stand. The store passes a set as a single parameter.
fn merged(parts: Vec<AgentCondition>) -> Vec<AgentCondition> {
    use AgentCondition::{
        EnrollmentKeys, FailsChecks, FailsQueries, Families, Hardware, Hostnames, Hosts, Ids, Labels, Left, Policies,
        Statuses, Tags,
    };
    let mut kept: Vec<AgentCondition> = Vec::new();
    'parts: for mut part in parts {
        for other in &mut kept {
            match (other, &mut part) {
                (Ids(all), Ids(more)) => all.append(more),
                (Policies(all), Policies(more)) => all.append(more),
                (Statuses(all), Statuses(more)) => all.append(more),
                (Tags(all), Tags(more)) => all.append(more),
                (Labels(all), Labels(more)) => all.append(more),
                (Hostnames(all), Hostnames(more)) => all.append(more),
                (Hardware(one, all), Hardware(other, more)) if one == other => all.append(more),
                (EnrollmentKeys(all), EnrollmentKeys(more)) => all.append(more),
                (Families(all), Families(more)) => all.append(more),
                (Hosts(all), Hosts(more)) => all.append(more),
                (FailsChecks(all), FailsChecks(more)) => all.append(more),
                (FailsQueries(all, _), FailsQueries(more, _)) => all.append(more),
                (Left(all), Left(more)) => all.append(more),
                _ => continue,
            }
            continue 'parts;
        }
        kept.push(part);
    }
    kept
}

/// Combines alternatives; a single one needs no `Any`.
fn any_of(mut parts: Vec<AgentCondition>) -> AgentCondition {
    match parts.pop() {
        Some(only) if parts.is_empty() => only,
        last => {
            parts.extend(last);
            AgentCondition::Any(parts)
        }
    }
}

/// Returns whether queries over agents may use a field.
pub fn is_field(name: &str) -> bool {
    field_of(name).is_ok() || name == "_exists_"
}

fn field_of(name: &str) -> Result<Field, Error> {
    match plain_field(name, &PREFIXES).as_str() {
        "id" | "_id" | "agent.id" => Ok(Field::Id),
        "policy_id" => Ok(Field::Policy),
        "status" => Ok(Field::Status),
        "tags" => Ok(Field::Tags),
        "labels" => Ok(Field::Labels),
        "enrollment_key_id" => Ok(Field::EnrollmentKey),
        "hostname" | "local_metadata.host.hostname" => Ok(Field::Hostname),
        "serial" | "local_metadata.hardware.serial" => Ok(Field::Hardware(Identifier::Serial)),
        "hardware_uuid" | "local_metadata.host.id" => Ok(Field::Hardware(Identifier::Uuid)),
        "duplicate_hosts" => Ok(Field::DuplicateHosts),
        "family" => Ok(Field::Family),
        "host_id" => Ok(Field::Host),
        "failing_checks" => Ok(Field::FailingChecks),
        "failing_queries" => Ok(Field::FailingQueries),
        "version" | "agent.version" | "local_metadata.elastic.agent.version" => Ok(Field::Version),
        "enrolled_at" => Ok(Field::EnrolledAt),
        "last_checkin" => Ok(Field::LastCheckin),
        "upgrade_details.state" => Ok(Field::UpgradeState),
        "audit_unenrolled_reason" => Ok(Field::Left),
        "left_at" | "audit_unenrolled_time" => Ok(Field::LeftAt),
        "policy_pending_since" => Ok(Field::PolicyPendingSince),
        "local_metadata.os.platform" => Ok(Field::Os(Fact::Platform)),
        "local_metadata.os.family" => Ok(Field::Os(Fact::Family)),
        "os" | "local_metadata.os.name" => Ok(Field::Os(Fact::Name)),
        "local_metadata.os.version" => Ok(Field::Os(Fact::Version)),
        "architecture" | "local_metadata.host.architecture" => Ok(Field::Os(Fact::Architecture)),
        other => Err(syntax_error(format!(
            "unknown field {other:?}; fields of agents: id, policy_id, status, tags, hostname, serial, hardware_uuid, version, enrolled_at, \
             last_checkin, upgrade_details.state, os, architecture, local_metadata.os.platform, local_metadata.os.family, \
             local_metadata.os.version, enrollment_key_id, duplicate_hosts, family, host_id, failing_checks, failing_queries, labels, \
             audit_unenrolled_reason, left_at, policy_pending_since"
        ))),
    }
}

/// Returns the statuses of a word: a status, or `healthy` or `unhealthy`, the words of Kibana's pages for one and two.
fn statuses(word: &str) -> Result<Vec<Status>, Error> {
    let known = || Status::ALL.map(Status::as_str).join(", ");
    match word.to_ascii_lowercase().as_str() {
        "healthy" => Ok(vec![Status::Online]),
        "unhealthy" => Ok(vec![Status::Error, Status::Degraded]),
        word => Status::parse(word)
            .map(|status| vec![status])
            .ok_or_else(|| syntax_error(format!("unknown status {word:?}; known: {}, healthy, unhealthy", known()))),
    }
}

/// Returns the status that every agent gets which was reported as gone and does not return.
fn gone_sooner_or_later(wanted: bool) -> Option<Status> {
    wanted.then_some(Status::Inactive)
}

fn left(word: &str) -> Result<AuditReason, Error> {
    let known = || AuditReason::ALL.map(AuditReason::as_str).join(", ");
    AuditReason::parse(word).ok_or_else(|| syntax_error(format!("unknown reason {word:?}; known: {}", known())))
}

fn family(word: &str) -> Result<Family, Error> {
    let found = Family::ALL.into_iter().find(|family| family.as_str().eq_ignore_ascii_case(word));
    let known = || Family::ALL.map(Family::as_str).join(", ");
    found.ok_or_else(|| syntax_error(format!("unknown family {word:?}; known: {}", known())))
}

/// Compiles a value with wildcards.
fn wildcard(field: Field, pattern: &str) -> Result<AgentCondition, Error> {
    let start = pattern.strip_suffix('*').filter(|start| !start.contains('*'));
    match (field, start) {
        (Field::Hostname, _) => Ok(AgentCondition::HostnameLike(pattern.to_owned())),
        (Field::Os(fact), Some(start)) => Ok(AgentCondition::Os(fact, start.to_owned(), true)),
        (Field::Version, Some(start)) => version_prefix(start.trim_end_matches('.')),
        // The store looks up whole values of the other fields by an index.
        _ => Err(syntax_error(format!("the wildcard in {pattern:?} is not supported in this field"))),
    }
}

/// `9.*` and `9.5.*`.
fn version_prefix(start: &str) -> Result<AgentCondition, Error> {
    let wrong = || syntax_error(format!("version: {start:?} is not the beginning of a version, such as 9.5"));
    let Version(major, minor, _) = Version::parse(start).ok_or_else(wrong)?;
    let (from, to) = match start.split('.').count() {
        1 => (Version(major, 0, 0), Version(major + 1, 0, 0)),
        2 => (Version(major, minor, 0), Version(major, minor + 1, 0)),
        _ => return Err(wrong()),
    };
    Ok(AgentCondition::VersionIn(from.sort_key(), to.sort_key()))
}

fn version_range(comparison: Comparison, value: &str) -> Result<AgentCondition, Error> {
    let wrong = || syntax_error(format!("version: {value:?} is not a version, such as 9.5.2"));
    let key = Version::parse(value).ok_or_else(wrong)?.sort_key();
    // Agents without a readable version have the key 0 and are in no range.
    Ok(match comparison {
        Comparison::Less => AgentCondition::VersionIn(1, key),
        Comparison::AtMost => AgentCondition::VersionIn(1, key + 1),
        Comparison::Greater => AgentCondition::VersionIn(key + 1, i64::MAX),
        Comparison::AtLeast => AgentCondition::VersionIn(key, i64::MAX),
    })
}

/// Parses a time: RFC 3339, a date, or `now` with offsets such as `now-30d` and `now-1h+30m`.
fn moment(text: &str, now: Timestamp) -> Result<Timestamp, String> {
    let Some(offsets) = text.strip_prefix("now") else {
        let date = format!("{text}T00:00:00Z");
        let found = Timestamp::parse_rfc3339(text).or_else(|_| Timestamp::parse_rfc3339(&date));
        return found.map_err(|_| format!("{text:?} is not a time, such as now-30d or 2026-11-29"));
    };
    let wrong = || format!("{text:?} is not an offset to now, such as now-30d; units: s, m, h, d, w");
    let (mut at, mut rest) = (now, offsets);
    while !rest.is_empty() {
        let sign = rest.chars().next().filter(|sign| ['+', '-'].contains(sign)).ok_or_else(wrong)?;
        let digits = rest[1..].bytes().take_while(u8::is_ascii_digit).count();
        let amount: u64 = rest[1..=digits].parse().map_err(|_| wrong())?;
        let unit = match rest[1 + digits..].chars().next() {
            Some('s') => 1,
            Some('m') => 60,
            Some('h') => 3_600,
            Some('d') => 86_400,
            Some('w') => 604_800,
            _ => return Err(wrong()),
        };
        let offset = Duration::from_secs(amount.saturating_mul(unit));
        at = if sign == '+' { at.plus(offset) } else { at.minus(offset) };
        rest = &rest[digits + 2..];
    }
    Ok(at)
}

fn just_before(time: Timestamp) -> Timestamp {
    time.minus(Duration::from_micros(1))
}

/// States are words in capital letters: anything else would be interpreted by the search.
fn upgrade_state(word: &str) -> Result<String, Error> {
    let state = word.to_ascii_uppercase();
    let is_state = state.starts_with("UPG_") && state.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_');
    is_state
        .then_some(state)
        .ok_or_else(|| syntax_error(format!("{word:?} is not the state of an upgrade, such as UPG_FAILED")))
}

/// The text of a term; a `*` that was quoted stands for itself, which no searched text contains.
fn pattern_of(term: &Term) -> String {
    if term.pattern { term.text.clone() } else { term.text.replace('*', "\u{2217}") }
}

fn only_compared(field: &str) -> Error {
    syntax_error(format!("{field} supports only comparisons, such as {field} < now-30d"))
}

fn only_any(field: &str) -> Error {
    syntax_error(format!("{field} supports only {field}:*"))
}

#[cfg(test)]
mod tests {
    use muster_core::testing::at;

    use super::*;

    fn compile_now(text: &str) -> Result<AgentQuery, Error> {
        compile(text, at(1_000_000))
    }

    fn filter(text: &str) -> AgentFilter {
        compile_now(text).expect(text).filter
    }

    #[test]
    fn mg18_prefixes_of_fields_are_ignored() {
        let plain = filter(r#"policy_id:"x""#).conditions;
        assert_eq!(plain, [AgentCondition::Policies(vec![PolicyId::trusted("x")])]);
        for text in [r#"fleet-agents.policy_id:"x""#, "fleet-agents.attributes.policy_id:x", "attributes.policy_id:x"] {
            assert_eq!(filter(text).conditions, plain, "{text}");
        }
    }

    #[test]
    fn times_of_departures_and_pending_policies_are_compared() {
        let hour_ago = at(1_000_000).minus(Duration::from_secs(3_600));
        assert_eq!(filter("left_at > now-1h").conditions, [AgentCondition::LeftAfter(hour_ago)]);
        let pending = filter("policy_pending_since < now-1h");
        assert_eq!(pending.conditions, [AgentCondition::PolicyPendingSince(hour_ago)]);
        // Agents that left a while ago are inactive, which lists hide otherwise.
        assert!(compile_now("left_at >= now-7d").unwrap().named.contains(&Status::Inactive));
        for text in ["left_at < now", "policy_pending_since > now", "left_at:now", "policy_pending_since:*"] {
            assert!(compile_now(text).is_err(), "{text}");
        }
    }

    #[test]
    fn queries_can_filter_by_labels_of_hosts() {
        use AgentCondition::{HasHost, HasLabels, Labels, Os};
        let named = |names: &[&str]| Labels(names.iter().map(ToString::to_string).collect());
        assert_eq!(filter(r#"labels : "docker hosts""#).conditions, [named(&["docker hosts"])]);
        assert_eq!(filter("labels:(a or b)").conditions, [named(&["a", "b"])]);
        assert_eq!(filter("labels:* and labels:\"all hosts\"").conditions, [HasLabels, HasHost]);
        assert_eq!(filter("labels:MacOS").conditions, [Os(Fact::Platform, "darwin".into(), false)]);
        assert!(compile_now("labels:we*").is_err());
    }

    #[test]
    fn queries_can_filter_by_family_and_host() {
        use AgentCondition::{Families, HasHost, Hosts, Not};
        let hosts = |ids: &[&str]| Hosts(ids.iter().map(|id| HostId::trusted(*id)).collect());
        assert_eq!(filter("family:(orbit or Osquery)").conditions, [Families(vec![Family::Orbit, Family::Osquery])]);
        assert_eq!(filter("host_id:h-1").conditions, [hosts(&["h-1"])]);
        assert_eq!(filter("not family:elastic").conditions, [Not(Box::new(Families(vec![Family::Elastic])))]);
        assert_eq!(filter("host_id:*").conditions, [HasHost]);
        assert!(compile_now("family:beats").unwrap_err().to_string().contains("orbit"));
    }

    #[test]
    fn mg19_mg20_conditions_are_combined() {
        use AgentCondition::{HasTags, Ids, Statuses, Tags};
        let tags = |tags: &[&str]| Tags(tags.iter().map(ToString::to_string).collect());
        let conditions = |text| filter(text).conditions;
        assert_eq!(
            conditions("status:(online or error) and not status:error and tags:a and not tags:(b or c) and id:z"),
            [
                Statuses(vec![Status::Online, Status::Error]),
                !Statuses(vec![Status::Error]),
                tags(&["a"]),
                !tags(&["b"]),
                !tags(&["c"]),
                Ids(vec![AgentId::trusted("z")]),
            ]
        );
        assert_eq!(conditions("tags:(a or b) and tags:c"), [tags(&["a", "b"]), tags(&["c"])]);
        assert_eq!(conditions("not tags:*"), [!HasTags]);
        assert_eq!(conditions("not _exists_:tags"), [!HasTags]);
        assert_eq!(conditions("not not tags:a"), [tags(&["a"])]);
    }

    #[test]
    fn words_of_kibana_for_statuses_are_accepted() {
        let statuses = |statuses: &[Status]| AgentCondition::Statuses(statuses.to_vec());
        assert_eq!(filter("status:Unhealthy").conditions, [statuses(&[Status::Error, Status::Degraded])]);
        assert_eq!(filter("status:healthy").conditions, [statuses(&[Status::Online])]);
        assert_eq!(
            filter("status:(unhealthy or offline)").conditions,
            [statuses(&[Status::Error, Status::Degraded, Status::Offline])]
        );
        assert!(compile_now("status:ill").unwrap_err().to_string().contains("unhealthy"));
    }

    /// The statuses that a list hides, by its last condition.
    fn hidden(text: &str, show_inactive: bool) -> Vec<Status> {
        match visible(text, show_inactive, at(0)).unwrap().conditions.pop() {
            Some(AgentCondition::Not(condition)) => match *condition {
                AgentCondition::Statuses(statuses) => statuses,
                _ => Vec::new(),
            },
            _ => Vec::new(),
        }
    }

    #[test]
    fn mg27_mg28_inactive_and_unenrolled_agents_are_hidden_unless_named() {
        assert_eq!(hidden("", false), [Status::Unenrolled, Status::Inactive]);
        assert_eq!(hidden("", true), [Status::Unenrolled]);
        assert_eq!(hidden("status:unenrolled", true), []);
        assert_eq!(hidden("status:*", false), []);
        assert_eq!(hidden("status:inactive", false), [Status::Unenrolled]);
    }

    #[test]
    fn mg23_unsupported_queries_are_refused() {
        let texts = [
            "nonsense:1",
            "tags:we*",
            "status:well",
            "not (tags:a and nonsense:1)",
            "enrolled_at:5",
            "last_checkin:*",
            "last_checkin < yesterday",
            "last_checkin < now-",
            "last_checkin < now-1y",
            "enrolled_at > now 1d",
            "hostname < a",
            "version > nine",
            "version:9.5.2.*",
            "version:x*",
            "upgrade_details.state:failed",
            "local_metadata.os.name:ub*tu",
        ];
        for text in texts {
            let error = compile_now(text).expect_err(text);
            assert!(error.message.starts_with("KQLSyntaxError"), "{text}: {}", error.message);
            assert_eq!(error.field.as_deref(), Some("kuery"));
        }
    }

    #[test]
    fn mg21_times_are_compared_with_the_servers_clock() {
        use AgentCondition::{EnrolledBy, Not, SeenAfter, UnseenSince};
        let day = Duration::from_secs(86_400);
        let now = at(1_000_000);
        let one = |text| filter(text).conditions.pop().expect("a condition");
        assert_eq!(one("last_checkin < now-30d"), UnseenSince(now.minus(day * 30)));
        assert_eq!(one("last_checkin > now-1w+2h"), SeenAfter(now.minus(day * 7).plus(Duration::from_secs(7_200))));
        assert_eq!(one("enrolled_at <= now"), EnrolledBy(now));
        let midnight = Timestamp::parse_rfc3339("2026-11-29T00:00:00Z").unwrap();
        assert_eq!(one("enrolled_at >= 2026-11-29"), Not(Box::new(EnrolledBy(just_before(midnight)))));
        assert_eq!(
            one("enrolled_at >= \"2026-11-29T01:00:00+01:00\""),
            Not(Box::new(EnrolledBy(just_before(midnight))))
        );
    }

    #[test]
    fn mg22_wildcards_versions_and_facts() {
        use AgentCondition::{HostnameLike, Os, Text, UpgradeState, VersionIn, Versions};
        let one = |text| filter(text).conditions.pop().expect("a condition");
        let key = |major, minor, patch| Version(major, minor, patch).sort_key();
        assert_eq!(one("local_metadata.host.hostname:web*"), HostnameLike("web*".into()));
        let hardware = |identifier, value: &str| AgentCondition::Hardware(identifier, vec![value.into()]);
        assert_eq!(one("serial:5JX82"), hardware(Identifier::Serial, "5JX82"));
        assert_eq!(one("local_metadata.hardware.serial:5JX82"), hardware(Identifier::Serial, "5JX82"));
        assert_eq!(one("hardware_uuid:4C4C"), hardware(Identifier::Uuid, "4C4C"));
        assert_eq!(one("not local_metadata.host.id:*"), !AgentCondition::HasHardware(Identifier::Uuid));
        assert_eq!(
            one("serial:(a or b) or hardware_uuid:a"),
            AgentCondition::Any(vec![
                AgentCondition::Hardware(Identifier::Serial, vec!["a".into(), "b".into()]),
                hardware(Identifier::Uuid, "a"),
            ])
        );
        assert_eq!(one("version:9.5.2"), Versions(vec!["9.5.2".into()]));
        assert_eq!(one("version:9.5.*"), VersionIn(key(9, 5, 0), key(9, 6, 0)));
        assert_eq!(one("local_metadata.elastic.agent.version < 8.19.0"), VersionIn(1, key(8, 19, 0)));
        assert_eq!(one("agent.version >= 9.5.2"), VersionIn(key(9, 5, 2), i64::MAX));
        assert_eq!(one("local_metadata.os.platform:linux"), Os(Fact::Platform, "linux".into(), false));
        assert_eq!(one("os:ubu*"), Os(Fact::Name, "ubu".into(), true));
        assert_eq!(one("upgrade_details.state:\"UPG_FAILED\""), UpgradeState("UPG_FAILED".into()));
        assert_eq!(one("web-1"), Text("web-1".into()));
    }

    #[test]
    fn mg20_alternatives_may_use_different_fields() {
        use AgentCondition::{All, Any, HasPolicy, Not, Policies, Statuses, Tags};
        let conditions = |text| filter(text).conditions;
        let (tag, online) = (|| Tags(vec!["a".into()]), || Statuses(vec![Status::Online]));
        assert_eq!(conditions("tags:a or status:online"), [Any(vec![tag(), online()])]);
        assert_eq!(conditions("not (tags:a and status:online)"), [Not(Box::new(All(vec![tag(), online()])))]);
        assert_eq!(conditions("not policy_id:*"), [Not(Box::new(HasPolicy))]);
        assert_eq!(conditions("not policy_id:p"), [Not(Box::new(Policies(vec![PolicyId::trusted("p")])))]);
        // `and` binds closer than `or`; what must hold in any case stays outside.
        let found = filter("tags:z and (tags:a and status:online or not tags:*)");
        let either = Any(vec![All(vec![tag(), online()]), !AgentCondition::HasTags]);
        assert_eq!(found.conditions, [Tags(vec!["z".into()]), either]);
    }

    #[test]
    fn alternatives_on_one_field_are_merged_and_conditions_are_limited() {
        let many: Vec<String> = (0..256).map(|number| format!("tags:t{number} or id:i{number}")).collect();
        let found = filter(&many.join(" or ")).conditions;
        let [AgentCondition::Any(parts)] = found.as_slice() else { panic!("{found:?}") };
        assert_eq!(parts.len(), 2);
        let deep: Vec<String> = (0..300).map(|number| format!("(tags:t{number} or status:online)")).collect();
        assert!(compile_now(&deep.join(" and ")).unwrap_err().message.contains("more than 256 conditions"));
    }

    #[test]
    fn the_values_of_a_set_are_limited() {
        let set = |field: &str, count: usize| {
            let values: Vec<String> = (0..count).map(|number| format!("v{number}")).collect();
            format!("{field}:({})", values.join(" or "))
        };
        let refused = |text: &str| {
            let error = compile_now(text).unwrap_err();
            (error.message, error.remedy.unwrap_or_default())
        };
        for field in ["tags", "hostname", "policy_id", "version", "os", "enrollment_key_id", "host_id"] {
            assert!(compile_now(&set(field, 256)).is_ok_and(|query| query.filter.conditions.len() == 1), "{field}");
            let (message, remedy) = refused(&set(field, 257));
            assert!(message.contains("more than 256 conditions"), "{field}: {message}");
            assert!(remedy.contains("id:(a or b or …)"), "{field}: {remedy}");
        }
        assert!(compile_now(&set("id", 5000)).is_ok());
        let (message, remedy) = refused(&set("agent.id", 5001));
        assert!(message.contains("more than 5000 agent ids"), "{message}");
        assert!(remedy.contains("divide the ids"), "{remedy}");
        // However the values are distributed.
        let parts = [set("tags", 100), set("hostname", 100), format!("not {}", set("policy_id", 100))];
        assert!(refused(&parts.join(" and ")).0.contains("256"));
    }

    #[test]
    fn mg28_a_status_below_an_or_is_named_unless_negated() {
        assert_eq!(hidden("tags:a or status:unenrolled", false), [Status::Inactive]);
        assert_eq!(hidden("tags:a or not status:unenrolled", false), [Status::Unenrolled, Status::Inactive]);
    }
}
