//! Compiles queries over agents into a filter for the store.

use std::collections::BTreeSet;

use muster_core::Error;
use muster_core::agent::Family;
use muster_core::id::{AgentId, EnrollmentKeyId, HostId, PolicyId};
use muster_core::status::Status;
use muster_store::query::{AgentCondition, AgentFilter};

use super::{Expr, Term, parse, plain_field, syntax_error};

const PREFIXES: [&str; 1] = ["fleet-agents"];
/// Maximum conditions of a query; a set counts as one.
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
    if !named.contains(&Status::Unenrolled) {
        filter.without_statuses.push(Status::Unenrolled);
    }
    if !show_inactive && !named.contains(&Status::Inactive) {
        filter.without_statuses.push(Status::Inactive);
    }
    Ok(filter)
}

impl AgentQuery {
    /// Adds a condition that must hold. Where possible it becomes a plain field of the filter, which the store finds by an
    /// index, and otherwise a condition of the tree.
    fn require(&mut self, expr: &Expr) -> Result<(), Error> {
        match expr {
            Expr::And(parts) => parts.iter().try_for_each(|part| self.require(part)),
            Expr::Not(inner) => self.forbid(inner),
            _ => match one_field(expr)? {
                Some((field, terms)) => self.require_one_of(field, &terms),
                None => self.add(expr),
            },
        }
    }

    /// Adds a condition that must not hold. `not (a or b)` is split into `not a and not b`, because the parts may fit plain
    /// fields.
    fn forbid(&mut self, expr: &Expr) -> Result<(), Error> {
        match expr {
            Expr::Not(inner) => self.require(inner),
            Expr::Or(parts) => parts.iter().try_for_each(|part| self.forbid(part)),
            Expr::Is(name, term) => match (field_of(name)?, term.is_any()) {
                // A negated status does not count as named: `not status:inactive` asks to hide these agents.
                (Field::Status, false) => {
                    self.filter.without_statuses.push(status(plain(term)?)?);
                    Ok(())
                }
                (Field::Tags, true) => {
                    self.filter.untagged = true;
                    Ok(())
                }
                (Field::Tags, false) => {
                    self.filter.without_tags.push(plain(term)?.to_owned());
                    Ok(())
                }
                _ => self.add(&Expr::Not(Box::new(expr.clone()))),
            },
            _ => self.add(&Expr::Not(Box::new(expr.clone()))),
        }
    }

    /// Adds a condition that no plain field can express.
    fn add(&mut self, expr: &Expr) -> Result<(), Error> {
        let condition = self.condition(expr, true)?;
        self.filter.conditions.push(condition);
        Ok(())
    }

    fn require_one_of(&mut self, field: Field, terms: &[&Term]) -> Result<(), Error> {
        let words = terms.iter().map(|term| plain(term)).collect::<Result<Vec<_>, _>>()?;
        match (field, words.as_slice()) {
            (Field::Id, words) => narrow(&mut self.filter.ids, words.iter().copied().map(AgentId::trusted).collect()),
            (Field::Policy, words) => {
                narrow(&mut self.filter.policy_ids, words.iter().copied().map(PolicyId::trusted).collect());
            }
            (Field::Status, words) => {
                let statuses = words.iter().copied().map(status).collect::<Result<Vec<_>, _>>()?;
                self.named.extend(&statuses);
                narrow(&mut self.filter.statuses, statuses);
            }
            (Field::Tags, [tag]) => self.filter.tags.push((*tag).to_owned()),
            (Field::Tags, words) => self.filter.any_tags.push(owned(words)),
            (Field::Hostname, words) => self.filter.conditions.push(AgentCondition::Hostnames(owned(words))),
            // The plain field holds one id. A second condition goes into the tree, where both must hold.
            (Field::EnrollmentKey, [id]) if self.filter.enrollment_key_id.is_none() => {
                self.filter.enrollment_key_id = Some(EnrollmentKeyId::trusted(*id));
            }
            (Field::Family, words) => {
                let families = words.iter().copied().map(family).collect::<Result<_, _>>()?;
                self.filter.conditions.push(AgentCondition::Families(families));
            }
            (Field::Host, words) => {
                let ids = words.iter().copied().map(HostId::trusted).collect();
                self.filter.conditions.push(AgentCondition::Hosts(ids));
            }
            // The value would be a list of machine ids, which nobody types; only its existence is of interest.
            (Field::DuplicateHosts, _) => return Err(only_any("duplicate_hosts")),
            (Field::EnrollmentKey, words) => {
                let ids = words.iter().copied().map(EnrollmentKeyId::trusted).collect();
                self.filter.conditions.push(AgentCondition::EnrollmentKeys(ids));
            }
        }
        Ok(())
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
                AgentCondition::Any(merged(parts))
            }
            Expr::Not(inner) => AgentCondition::Not(Box::new(self.condition(inner, !wanted)?)),
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
        let word = plain(term)?;
        Ok(match field {
            Field::Id => AgentCondition::Ids(vec![AgentId::trusted(word)]),
            Field::Policy => AgentCondition::Policies(vec![PolicyId::trusted(word)]),
            Field::Status => {
                let status = status(word)?;
                self.named.extend(wanted.then_some(status));
                AgentCondition::Statuses(vec![status])
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
        let AgentFilter { tags, any_tags, without_tags, conditions, .. } = &self.filter;
        let size = tags.len() + any_tags.len() + without_tags.len() + conditions.iter().map(size).sum::<usize>();
        if size > MOST_CONDITIONS {
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

fn owned(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// Returns the field and its values if all alternatives are about the same field. `None` if they are about several fields,
/// or about the existence of a field.
fn one_field(expr: &Expr) -> Result<Option<(Field, Vec<&Term>)>, Error> {
    match expr {
        Expr::Is(_, term) if term.is_any() => Ok(None),
        Expr::Is(name, term) => Ok(Some((field_of(name)?, vec![term]))),
        Expr::Or(parts) => {
            let mut found: Option<(Field, Vec<&Term>)> = None;
            for part in parts {
                let Some((field, terms)) = one_field(part)? else { return Ok(None) };
                match &mut found {
                    None => found = Some((field, terms)),
                    Some((same, all)) if *same == field => all.extend(terms),
                    Some(_) => return Ok(None),
                }
            }
            Ok(found)
        }
        _ => Ok(None),
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

fn status(word: &str) -> Result<Status, Error> {
    let known = || Status::ALL.map(Status::as_str).join(", ");
    Status::parse(&word.to_ascii_lowercase())
        .ok_or_else(|| syntax_error(format!("unknown status {word:?}; known: {}", known())))
}

fn family(word: &str) -> Result<Family, Error> {
    let found = Family::ALL.into_iter().find(|family| family.as_str().eq_ignore_ascii_case(word));
    let known = || Family::ALL.map(Family::as_str).join(", ");
    found.ok_or_else(|| syntax_error(format!("unknown family {word:?}; known: {}", known())))
}

fn plain(term: &Term) -> Result<&str, Error> {
    if term.pattern { Err(unsupported(&format!("the wildcard in {:?}", term.text))) } else { Ok(&term.text) }
}

/// Intersects two sets: both conditions must hold.
fn narrow<T: PartialEq>(set: &mut Option<Vec<T>>, more: Vec<T>) {
    *set = Some(match set.take() {
        None => more,
        Some(old) => old.into_iter().filter(|one| more.contains(one)).collect(),
    });
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
        assert_eq!(plain.policy_ids, Some(vec![PolicyId::trusted("x")]));
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
        let found = filter("status:(online or error) and not status:error and tags:a and not tags:(b or c) and id:z");
        assert_eq!(found.statuses, Some(vec![Status::Online, Status::Error]));
        assert_eq!(found.without_statuses, [Status::Error]);
        assert_eq!(found.tags, ["a"]);
        assert_eq!(found.without_tags, ["b", "c"]);
        assert_eq!(found.ids, Some(vec![AgentId::trusted("z")]));
        assert_eq!(filter("status:online and status:error").statuses, Some(vec![]));
        assert_eq!(filter("tags:(a or b) and tags:c").any_tags, [["a", "b"]]);
        assert!(filter("not tags:*").untagged && filter("not _exists_:tags").untagged);
        assert_eq!(filter("not not tags:a").tags, ["a"]);
    }

    #[test]
    fn mg27_mg28_inactive_and_unenrolled_agents_are_hidden_unless_named() {
        let left_out = |text, inactive| visible(text, inactive).unwrap().without_statuses;
        assert_eq!(left_out("", false), [Status::Unenrolled, Status::Inactive]);
        assert_eq!(left_out("", true), [Status::Unenrolled]);
        assert_eq!(left_out("status:unenrolled", true), []);
        assert_eq!(left_out("status:*", false), []);
        assert_eq!(left_out("status:inactive", false), [Status::Unenrolled]);
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
        let none = Not(Box::new(AgentCondition::HasTags));
        assert_eq!(
            (found.tags, found.conditions),
            (vec!["z".into()], vec![Any(vec![All(vec![tag(), online()]), none])])
        );
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
        let left_out = |text| visible(text, false).unwrap().without_statuses;
        assert_eq!(left_out("tags:a or status:unenrolled"), [Status::Inactive]);
        assert_eq!(left_out("tags:a or not status:unenrolled"), [Status::Unenrolled, Status::Inactive]);
    }
}
