//! A query over agents, compiled into what the store can ask.

use std::collections::BTreeSet;

use muster_core::Error;
use muster_core::id::{AgentId, EnrollmentKeyId, PolicyId};
use muster_core::status::Status;
use muster_store::query::AgentFilter;

use super::{Expr, Term, parse, plain_field, syntax_error};

const PREFIXES: [&str; 1] = ["fleet-agents"];

/// The fields that can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    Id,
    Policy,
    Status,
    Tags,
    EnrollmentKey,
}

/// A compiled query.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AgentQuery {
    /// What matches.
    pub filter: AgentFilter,
    /// Statuses that the text itself names, which shows agents that lists leave out by default.
    pub named: BTreeSet<Status>,
}

/// Compiles the text; the empty text means every agent.
pub fn compile(text: &str) -> Result<AgentQuery, Error> {
    let mut query = AgentQuery::default();
    if let Some(expr) = parse(text)? {
        query.require(&expr)?;
    }
    Ok(query)
}

/// Compiles the text into what a list shows (§1.2.1): without unenrolled agents, and without inactive ones unless
/// asked for, as long as the text does not name them itself.
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
    /// Adds a condition that must hold.
    fn require(&mut self, expr: &Expr) -> Result<(), Error> {
        match expr {
            Expr::And(parts) => parts.iter().try_for_each(|part| self.require(part)),
            Expr::Not(inner) => self.forbid(inner),
            Expr::Is(..) | Expr::Or(_) => {
                let (field, terms) = one_field(expr)?;
                self.require_one_of(field, &terms)
            }
            Expr::Compare(field, ..) => Err(syntax_error(format!("{field} can't be compared"))),
            Expr::Text(term) => Err(no_free_text(term)),
        }
    }

    /// Adds a condition that must not hold.
    fn forbid(&mut self, expr: &Expr) -> Result<(), Error> {
        match expr {
            Expr::Not(inner) => self.require(inner),
            Expr::Or(parts) => parts.iter().try_for_each(|part| self.forbid(part)),
            Expr::Is(name, term) => self.forbid_one(field_of(name)?, term),
            Expr::And(_) => Err(unsupported("not (… and …)")),
            Expr::Compare(field, ..) => Err(syntax_error(format!("{field} can't be compared"))),
            Expr::Text(term) => Err(no_free_text(term)),
        }
    }

    fn require_one_of(&mut self, field: Field, terms: &[&Term]) -> Result<(), Error> {
        if terms.iter().any(|term| term.is_any()) {
            return self.require_any(field);
        }
        let words = terms.iter().map(|term| plain(term)).collect::<Result<Vec<_>, _>>()?;
        match field {
            Field::Id => narrow(&mut self.filter.ids, words.into_iter().map(AgentId::trusted).collect()),
            Field::Policy => narrow(&mut self.filter.policy_ids, words.into_iter().map(PolicyId::trusted).collect()),
            Field::Status => {
                let statuses = words.into_iter().map(status).collect::<Result<Vec<_>, _>>()?;
                self.named.extend(&statuses);
                narrow(&mut self.filter.statuses, statuses);
            }
            Field::Tags => match words.as_slice() {
                [tag] => self.filter.tags.push((*tag).to_owned()),
                _ => self.filter.any_tags.push(words.into_iter().map(str::to_owned).collect()),
            },
            Field::EnrollmentKey => self.require_key(&words)?,
        }
        Ok(())
    }

    /// `field:*`: the field is there.
    fn require_any(&mut self, field: Field) -> Result<(), Error> {
        match field {
            // Every agent has both.
            Field::Id => Ok(()),
            Field::Status => {
                self.named.extend(Status::ALL);
                Ok(())
            }
            Field::Policy => Err(unsupported("policy_id:*")),
            Field::Tags => Err(unsupported("tags:*")),
            Field::EnrollmentKey => Err(unsupported("enrollment_key_id:*")),
        }
    }

    fn require_key(&mut self, words: &[&str]) -> Result<(), Error> {
        let [id] = words else { return Err(unsupported("enrollment_key_id:(… or …)")) };
        let id = EnrollmentKeyId::trusted(*id);
        if self.filter.enrollment_key_id.as_ref().is_some_and(|other| *other != id) {
            // One agent came in by one key.
            self.filter.ids = Some(Vec::new());
        }
        self.filter.enrollment_key_id = Some(id);
        Ok(())
    }

    fn forbid_one(&mut self, field: Field, term: &Term) -> Result<(), Error> {
        match field {
            Field::Status if !term.is_any() => self.filter.without_statuses.push(status(plain(term)?)?),
            Field::Tags if term.is_any() => self.filter.untagged = true,
            Field::Tags => self.filter.without_tags.push(plain(term)?.to_owned()),
            Field::Status | Field::Id => return Err(unsupported("not with this field")),
            Field::Policy => return Err(unsupported("not policy_id:…")),
            Field::EnrollmentKey => return Err(unsupported("not enrollment_key_id:…")),
        }
        Ok(())
    }
}

/// The one field that all alternatives are about, with their values.
fn one_field(expr: &Expr) -> Result<(Field, Vec<&Term>), Error> {
    match expr {
        Expr::Is(name, term) => Ok((field_of(name)?, vec![term])),
        Expr::Or(parts) => {
            let mut all = parts.iter().map(one_field).collect::<Result<Vec<_>, _>>()?.into_iter();
            let (field, mut terms) = all.next().ok_or_else(|| syntax_error("nothing between or"))?;
            for (other, more) in all {
                if other != field {
                    return Err(unsupported("or between different fields"));
                }
                terms.extend(more);
            }
            Ok((field, terms))
        }
        _ => Err(unsupported("this condition inside or")),
    }
}

fn field_of(name: &str) -> Result<Field, Error> {
    match plain_field(name, &PREFIXES).as_str() {
        "id" | "_id" | "agent.id" => Ok(Field::Id),
        "policy_id" => Ok(Field::Policy),
        "status" => Ok(Field::Status),
        "tags" => Ok(Field::Tags),
        "enrollment_key_id" => Ok(Field::EnrollmentKey),
        other => Err(syntax_error(format!(
            "agents have no field {other:?} to search by; there are id, policy_id, status, tags, enrollment_key_id"
        ))),
    }
}

fn status(word: &str) -> Result<Status, Error> {
    let known = || Status::ALL.map(Status::as_str).join(", ");
    Status::parse(&word.to_ascii_lowercase())
        .ok_or_else(|| syntax_error(format!("{word:?} is no status; there are {}", known())))
}

fn plain(term: &Term) -> Result<&str, Error> {
    if term.pattern { Err(unsupported(&format!("the wildcard in {:?}", term.text))) } else { Ok(&term.text) }
}

/// Both conditions must hold, so only what is in both sets stays.
fn narrow<T: PartialEq>(set: &mut Option<Vec<T>>, more: Vec<T>) {
    *set = Some(match set.take() {
        None => more,
        Some(old) => old.into_iter().filter(|one| more.contains(one)).collect(),
    });
}

fn no_free_text(term: &Term) -> Error {
    syntax_error(format!("{:?}: agents are not searched by free text yet; write field:value", term.text))
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
    fn m18_the_prefix_changes_nothing() {
        let plain = filter(r#"policy_id:"x""#);
        assert_eq!(plain.policy_ids, Some(vec![PolicyId::trusted("x")]));
        for text in [r#"fleet-agents.policy_id:"x""#, "fleet-agents.attributes.policy_id:x", "attributes.policy_id:x"] {
            assert_eq!(filter(text), plain, "{text}");
        }
    }

    #[test]
    fn m19_m20_conditions_are_combined() {
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
    fn m27_m28_inactive_and_unenrolled_are_left_out_unless_named() {
        let left_out = |text, inactive| visible(text, inactive).unwrap().without_statuses;
        assert_eq!(left_out("", false), [Status::Unenrolled, Status::Inactive]);
        assert_eq!(left_out("", true), [Status::Unenrolled]);
        assert_eq!(left_out("status:unenrolled", true), []);
        assert_eq!(left_out("status:*", false), []);
        assert_eq!(left_out("status:inactive", false), [Status::Unenrolled]);
    }

    #[test]
    fn m23_what_can_not_be_answered_says_so() {
        let texts = [
            "nonsense:1",
            "local_metadata.host.hostname:web*",
            "tags:we*",
            "status:well",
            "tags:a or status:online",
            "just words",
            "enrolled_at >= now-10m",
            "not (status:online and tags:a)",
        ];
        for text in texts {
            let error = compile(text).expect_err(text);
            assert!(error.message.starts_with("KQLSyntaxError"), "{text}: {}", error.message);
            assert_eq!(error.field.as_deref(), Some("kuery"));
        }
    }
}
