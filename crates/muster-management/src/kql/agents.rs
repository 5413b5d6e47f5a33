//! Compiles queries over agents into a filter for the store.

use std::collections::BTreeSet;

use muster_core::Error;
use muster_core::agent::Family;
use muster_core::id::{AgentId, EnrollmentKeyId, HostId, PolicyId};
use muster_core::status::Status;
use muster_store::query::{AgentCondition, AgentFilter};

use super::{Expr, Term, parse, plain_field, syntax_error};

const PREFIXES: [&str; 1] = ["fleet-agents"];
/// Maximum number of conditions of a query; a set counts as one.
const MOST_CONDITIONS: usize = 256;

/// The fields that a query may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    Id,
    Policy,
    Status,
    Tags,
    EnrollmentKey,
    Hostname,
    DuplicateHosts,
    Family,
    Host,
}

/// A compiled query.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AgentQuery {
    /// The filter.
    pub filter: AgentFilter,
    /// Statuses that the query names. Agents with such a status are shown even if lists hide them by default.
    pub named: BTreeSet<Status>,
}

/// Compiles a query; an empty one matches all agents.
pub fn compile(text: &str) -> Result<AgentQuery, Error> {
    let mut query = AgentQuery::default();
    if let Some(expr) = parse(text)? {
        query.require(&expr)?;
    }
    query.check_size()
}

/// Compiles a query for a list (MG §1.2.1): hides unenrolled agents, and inactive ones unless `show_inactive`, except where
/// the query names these statuses.
pub fn visible(text: &str, show_inactive: bool) -> Result<AgentFilter, Error> {
    let AgentQuery { mut filter, named } = compile(text)?;
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
            Expr::Compare(field, ..) => return Err(syntax_error(format!("{field} cannot be compared"))),
            Expr::Text(term) => return Err(no_free_text(term)),
        })
    }

    fn leaf(&mut self, field: Field, term: &Term, wanted: bool) -> Result<AgentCondition, Error> {
        if term.is_any() {
            return Ok(match field {
                // Every agent has these fields.
                Field::Id | Field::Hostname | Field::Family => AgentCondition::All(Vec::new()),
                Field::Status => {
                    self.named.extend(Status::ALL.iter().filter(|_| wanted));
                    AgentCondition::All(Vec::new())
                }
                Field::Policy => AgentCondition::HasPolicy,
                Field::Tags => AgentCondition::HasTags,
                Field::EnrollmentKey => AgentCondition::HasEnrollmentKey,
                Field::DuplicateHosts => AgentCondition::HasDuplicateHosts,
                Field::Host => AgentCondition::HasHost,
            });
        }
        // The store looks up whole values; a pattern would make it read every agent.
        let word = plain(term)?;
        Ok(match field {
            Field::Id => AgentCondition::Ids(vec![AgentId::trusted(word)]),
            Field::Policy => AgentCondition::Policies(vec![PolicyId::trusted(word)]),
            Field::Status => {
                let statuses = statuses(word)?;
                self.named.extend(statuses.iter().filter(|_| wanted));
                AgentCondition::Statuses(statuses)
            }
            Field::Tags => AgentCondition::Tags(vec![word.to_owned()]),
            Field::EnrollmentKey => AgentCondition::EnrollmentKeys(vec![EnrollmentKeyId::trusted(word)]),
            Field::Hostname => AgentCondition::Hostnames(vec![word.to_owned()]),
            Field::Family => AgentCondition::Families(vec![family(word)?]),
            Field::Host => AgentCondition::Hosts(vec![HostId::trusted(word)]),
            Field::DuplicateHosts => return Err(only_any("duplicate_hosts")),
        })
    }

    /// Refuses queries whose SQL would exceed the databases' limits on the depth of an expression.
    fn check_size(self) -> Result<Self, Error> {
        if self.filter.conditions.iter().map(size).sum::<usize>() > MOST_CONDITIONS {
            let message = format!("more than {MOST_CONDITIONS} conditions; write a set as tags:(a or b or …)");
            return Err(syntax_error(message));
        }
        Ok(self)
    }
}

fn size(condition: &AgentCondition) -> usize {
    match condition {
        AgentCondition::All(parts) | AgentCondition::Any(parts) => 1 + parts.iter().map(size).sum::<usize>(),
        AgentCondition::Not(inner) => 1 + size(inner),
        _ => 1,
    }
}

/// Merges alternatives on the same field into one set, wherever they stand: a set may be of any length, since the store
/// passes it as a single parameter.
fn merged(parts: Vec<AgentCondition>) -> Vec<AgentCondition> {
    use AgentCondition::{EnrollmentKeys, Families, Hostnames, Hosts, Ids, Policies, Statuses, Tags};
    let mut kept: Vec<AgentCondition> = Vec::new();
    'parts: for mut part in parts {
        for other in &mut kept {
            match (other, &mut part) {
                (Ids(all), Ids(more)) => all.append(more),
                (Policies(all), Policies(more)) => all.append(more),
                (Statuses(all), Statuses(more)) => all.append(more),
                (Tags(all), Tags(more)) => all.append(more),
                (Hostnames(all), Hostnames(more)) => all.append(more),
                (EnrollmentKeys(all), EnrollmentKeys(more)) => all.append(more),
                (Families(all), Families(more)) => all.append(more),
                (Hosts(all), Hosts(more)) => all.append(more),
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

fn field_of(name: &str) -> Result<Field, Error> {
    match plain_field(name, &PREFIXES).as_str() {
        "id" | "_id" | "agent.id" => Ok(Field::Id),
        "policy_id" => Ok(Field::Policy),
        "status" => Ok(Field::Status),
        "tags" => Ok(Field::Tags),
        "enrollment_key_id" => Ok(Field::EnrollmentKey),
        "hostname" | "local_metadata.host.hostname" => Ok(Field::Hostname),
        "duplicate_hosts" => Ok(Field::DuplicateHosts),
        "family" => Ok(Field::Family),
        "host_id" => Ok(Field::Host),
        other => Err(syntax_error(format!(
            "unknown field {other:?}; fields of agents: id, policy_id, status, tags, hostname, \
             enrollment_key_id, duplicate_hosts, family, host_id"
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

fn family(word: &str) -> Result<Family, Error> {
    let found = Family::ALL.into_iter().find(|family| family.as_str().eq_ignore_ascii_case(word));
    let known = || Family::ALL.map(Family::as_str).join(", ");
    found.ok_or_else(|| syntax_error(format!("unknown family {word:?}; known: {}", known())))
}

fn plain(term: &Term) -> Result<&str, Error> {
    if term.pattern { Err(unsupported(&format!("the wildcard in {:?}", term.text))) } else { Ok(&term.text) }
}

fn only_any(field: &str) -> Error {
    syntax_error(format!("{field} supports only {field}:*"))
}

fn no_free_text(term: &Term) -> Error {
    syntax_error(format!("{:?}: free-text search for agents is not supported yet; use field:value", term.text))
}

fn unsupported(what: &str) -> Error {
    syntax_error(format!("{what} is not supported here yet"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(text: &str) -> AgentFilter {
        compile(text).expect(text).filter
    }

    #[test]
    fn mg18_prefixes_of_fields_are_ignored() {
        let plain = filter(r#"policy_id:"x""#);
        assert_eq!(plain.conditions, [AgentCondition::Policies(vec![PolicyId::trusted("x")])]);
        for text in [r#"fleet-agents.policy_id:"x""#, "fleet-agents.attributes.policy_id:x", "attributes.policy_id:x"] {
            assert_eq!(filter(text), plain, "{text}");
        }
    }

    #[test]
    fn queries_can_filter_by_family_and_host() {
        use AgentCondition::{Families, HasHost, Hosts, Not};
        let hosts = |ids: &[&str]| Hosts(ids.iter().map(|id| HostId::trusted(*id)).collect());
        assert_eq!(filter("family:(orbit or Osquery)").conditions, [Families(vec![Family::Orbit, Family::Osquery])]);
        assert_eq!(filter("host_id:h-1").conditions, [hosts(&["h-1"])]);
        assert_eq!(filter("not family:elastic").conditions, [Not(Box::new(Families(vec![Family::Elastic])))]);
        assert_eq!(filter("host_id:*").conditions, [HasHost]);
        assert!(compile("family:beats").unwrap_err().to_string().contains("orbit"));
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
        assert!(compile("status:ill").unwrap_err().to_string().contains("unhealthy"));
    }

    /// The statuses that a list hides, by its last condition.
    fn hidden(text: &str, show_inactive: bool) -> Vec<Status> {
        match visible(text, show_inactive).unwrap().conditions.pop() {
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
            "local_metadata.host.hostname:web*",
            "tags:we*",
            "status:well",
            "just words",
            "tags:a or just words",
            "not (tags:a and nonsense:1)",
            "enrolled_at >= now-10m",
        ];
        for text in texts {
            let error = compile(text).expect_err(text);
            assert!(error.message.starts_with("KQLSyntaxError"), "{text}: {}", error.message);
            assert_eq!(error.field.as_deref(), Some("kuery"));
        }
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
        let many: Vec<String> = (0..5000).map(|number| format!("tags:t{number} or id:i{number}")).collect();
        let found = filter(&many.join(" or ")).conditions;
        let [AgentCondition::Any(parts)] = found.as_slice() else { panic!("{found:?}") };
        assert_eq!(parts.len(), 2);
        let deep: Vec<String> = (0..300).map(|number| format!("(tags:t{number} or status:online)")).collect();
        assert!(compile(&deep.join(" and ")).unwrap_err().message.contains("more than 256 conditions"));
    }

    #[test]
    fn mg28_a_status_below_an_or_is_named_unless_negated() {
        assert_eq!(hidden("tags:a or status:unenrolled", false), [Status::Inactive]);
        assert_eq!(hidden("tags:a or not status:unenrolled", false), [Status::Unenrolled, Status::Inactive]);
    }
}
