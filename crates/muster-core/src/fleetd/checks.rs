//! Host checks: yes-or-no questions that each host of a space answers every hour. FleetDM calls them policies (FL §1.7, §1.8).

use serde::{Deserialize, Serialize};

use super::labels::MAX_CHOSEN;
use super::platform::{self, Platform};
use super::questions;
pub use super::questions::Answer;
use crate::error::{Error, ErrorKind};
use crate::id::HostCheckId;
use crate::time::Timestamp;

/// Name of the query that a host gets if no check is for it (FL29).
pub const WILDCARD: &str = "fleet_no_policies_wildcard";
/// Prefix of the names of the queries, by which FleetDM's tools recognize them.
pub const PREFIX: &str = "fleet_policy_query_";
/// Maximum number of checks of a space.
pub const MAX_CHECKS: usize = 100;
/// Maximum length of the SQL of all checks of a space, bytes: a host gets them in one response.
pub const MAX_SQL: usize = 256 * 1024;
/// Maximum length of a name, and of a description or a resolution, bytes.
const MAX_NAME: usize = 255;
const MAX_TEXT: usize = 4096;

/// A check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// Id, unique in all spaces: a result with the id of a check of another space is no result of any check.
    pub id: HostCheckId,
    /// Number of changes, from 1.
    pub version: i64,
    /// Name, unique in the space.
    pub name: String,
    /// What it is about.
    pub description: String,
    /// SQL: the host passes if it returns a row.
    pub query: String,
    /// What the user of a host can do if it fails.
    pub resolution: String,
    /// Names of the platforms whose hosts are checked; empty for all.
    pub platforms: Vec<String>,
    /// Names of labels, of which the hosts that are checked have one; empty for all.
    #[serde(default)]
    pub labels: Vec<String>,
}

impl Check {
    /// Returns the name under which hosts get and answer the query.
    pub fn query_name(&self) -> String {
        format!("{PREFIX}{}", self.id)
    }

    /// Returns whether hosts of a platform are checked; `None` stands for a platform that is unknown.
    pub fn applies_to(&self, platform: Option<Platform>) -> bool {
        platform::applies(&self.platforms, platform)
    }

    fn check(&self) -> Result<(), Error> {
        if self.name.trim().is_empty() || self.name.len() > MAX_NAME {
            return Err(Error::invalid("name", format!("must have 1 to {MAX_NAME} bytes")));
        }
        if self.name.chars().any(crate::reported::is_deceptive) {
            return Err(Error::invalid("name", "must not contain control characters"));
        }
        if self.query.trim().is_empty() {
            return Err(Error::invalid("query", "must be SQL"));
        }
        for (field, text) in [("description", &self.description), ("resolution", &self.resolution)] {
            if text.len() > MAX_TEXT {
                return Err(Error::invalid(field, format!("at most {MAX_TEXT} bytes")));
            }
        }
        if self.labels.len() > MAX_CHOSEN {
            return Err(Error::invalid("labels", format!("at most {MAX_CHOSEN} labels")));
        }
        platform::check_names("platforms", &self.platforms)
    }
}

/// Checks all checks of a space after a change of one of them.
pub fn check_all(checks: &[Check]) -> Result<(), Error> {
    checks.iter().try_for_each(Check::check)?;
    if checks.len() > MAX_CHECKS {
        let message = format!("the space already has {MAX_CHECKS} host checks, the maximum");
        return Err(Error::conflict("too_many_host_checks", message).remedy("delete one that is not needed"));
    }
    if checks.iter().map(|check| check.query.len()).sum::<usize>() > MAX_SQL {
        return Err(Error::invalid(
            "query",
            format!("the SQL of all host checks must not exceed {MAX_SQL} bytes in total"),
        ));
    }
    let mut names: Vec<String> = checks.iter().map(|check| check.name.to_lowercase()).collect();
    names.sort_unstable();
    match names.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => {
            let message = format!("there is already a host check named {:?}", pair[0]);
            Err(Error::new(ErrorKind::Conflict, "host_check_exists", message))
        }
        None => Ok(()),
    }
}

/// What is known of a check on a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckResult {
    /// The check.
    pub check: HostCheckId,
    /// Whether the host passed when the query last ran; `None` if it never did.
    pub passes: Option<bool>,
    /// Time since when this has been the case.
    pub since: Timestamp,
    /// Why the query did not run the last time; empty if it did.
    pub error: String,
    /// Time at which the host first reported this error; `None` without one.
    pub failed_at: Option<Timestamp>,
}

/// Changes of what is known of the checks on a host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckChanges {
    /// Results that are new or differ.
    pub put: Vec<CheckResult>,
    /// Checks that don't exist any more, or not for this host.
    pub remove: Vec<HostCheckId>,
}

impl CheckChanges {
    /// Returns whether there is nothing to change.
    pub fn is_empty(&self) -> bool {
        self.put.is_empty() && self.remove.is_empty()
    }
}

/// Returns the answers in the results of a request to those checks that apply to the host: results for other checks, such as
/// those of another space, are dropped (FL33). Each argument is the JSON text of an object by query name.
pub fn answers(checks: &[&Check], queries: &str, statuses: &str, messages: &str) -> Vec<(HostCheckId, Answer)> {
    let ids: Vec<&str> = checks.iter().map(|check| check.id.as_str()).collect();
    let found = questions::answers(PREFIX, &ids, queries, statuses, messages);
    found.into_iter().map(|(at, answer)| (checks[at].id.clone(), answer)).collect()
}

/// Returns whether the results of a request contain one for any check, of this or another space, or for the query in their place.
pub fn has_answers(queries: &str, statuses: &str) -> bool {
    [PREFIX, WILDCARD].into_iter().any(|prefix| questions::has_answers(prefix, queries, statuses))
}

/// Decides what changes with the answers of a host, which has these checks. Equal results change nothing.
pub fn decide(
    checks: &[&Check],
    known: &[CheckResult],
    answers: Vec<(HostCheckId, Answer)>,
    now: Timestamp,
) -> CheckChanges {
    let known_of = |id: &HostCheckId| known.iter().find(|result| result.check == *id);
    let result = |(check, answer): (HostCheckId, Answer)| {
        let before = known_of(&check);
        let passed = before.and_then(|before| before.passes);
        // A query that did not run is neither: the last answer stays (FL31).
        let (passes, error) = match answer {
            Answer::Ran(passes) => (Some(passes), String::new()),
            Answer::Failed(error) => (passed, error),
        };
        let since = before.filter(|_| passes == passed).map_or(now, |before| before.since);
        // An error that is reported again with the same text keeps its time, so that it is not written every hour.
        let failed_at = match before {
            _ if error.is_empty() => None,
            Some(before) if before.error == error => before.failed_at,
            _ => Some(now),
        };
        let after = CheckResult { check, passes, since, error, failed_at };
        (before != Some(&after)).then_some(after)
    };
    let is_left = |result: &&CheckResult| !checks.iter().any(|check| check.id == result.check);
    CheckChanges {
        put: answers.into_iter().filter_map(result).collect(),
        remove: known.iter().filter(is_left).map(|result| result.check.clone()).collect(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::at;

    fn check(id: &str, platforms: &[&str]) -> Check {
        Check {
            id: HostCheckId::trusted(id),
            version: 1,
            name: id.into(),
            description: String::new(),
            query: "SELECT 1".into(),
            resolution: String::new(),
            platforms: platforms.iter().map(ToString::to_string).collect(),
            labels: Vec::new(),
        }
    }

    fn decided(known: &[CheckResult], answer: Answer, now: u64) -> CheckChanges {
        let check = check("a", &[]);
        decide(&[&check], known, vec![(check.id.clone(), answer)], at(now))
    }

    #[test]
    fn fl31_rows_pass_no_rows_fail_and_an_error_is_neither() {
        let first = decided(&[], Answer::Ran(true), 1).put;
        assert_eq!((first[0].passes, first[0].since), (Some(true), at(1)));
        assert!(decided(&first, Answer::Ran(true), 2).is_empty(), "no write for an equal result");
        let failed = decided(&first, Answer::Failed("no such table".into()), 3).put;
        assert_eq!((failed[0].passes, failed[0].since, failed[0].error.as_str()), (Some(true), at(1), "no such table"));
        assert_eq!(failed[0].failed_at, Some(at(3)));
        assert!(decided(&failed, Answer::Failed("no such table".into()), 4).is_empty(), "no write for an equal error");
        let other = decided(&failed, Answer::Failed("no such column".into()), 4).put;
        assert_eq!((other[0].error.as_str(), other[0].failed_at), ("no such column", Some(at(4))));
        let fails = decided(&failed, Answer::Ran(false), 4).put;
        assert_eq!(fails[0].failed_at, None);
        assert_eq!((fails[0].passes, fails[0].since, fails[0].error.as_str()), (Some(false), at(4), ""));
        let never = decided(&[], Answer::Failed("x".into()), 5).put;
        assert_eq!((never[0].passes, never[0].since), (None, at(5)));
        assert!(decided(&never, Answer::Failed("x".into()), 6).is_empty());
    }

    #[test]
    fn fl33_results_of_checks_that_the_host_does_not_have_are_dropped_and_removed() {
        let own = check("own", &[]);
        let name = |id: &str| format!("{PREFIX}{id}");
        let queries = json!({name("own"): [{"1": "1"}], name("foreign"): [{"1": "1"}], "fleet_detail_query_x": []});
        let statuses = json!({name("own"): "0", name("foreign"): 0});
        assert!(has_answers("null", &statuses.to_string()) && !has_answers("null", r#"{"fleet_detail_query_x":0}"#));
        assert!(has_answers(&queries.to_string(), "null"), "without statuses");
        assert_eq!(answers(&[&own], &queries.to_string(), "null", "null"), [(own.id.clone(), Answer::Ran(true))]);
        let found = answers(&[&own], &queries.to_string(), &statuses.to_string(), "null");
        assert_eq!(found, [(own.id.clone(), Answer::Ran(true))]);
        let left = CheckResult {
            check: HostCheckId::trusted("gone"),
            passes: None,
            since: at(0),
            error: String::new(),
            failed_at: None,
        };
        let changes = decide(&[&own], std::slice::from_ref(&left), found, at(1));
        assert_eq!((changes.put.len(), changes.remove), (1, vec![left.check]));
    }

    #[test]
    fn fl31_answers_tell_why_a_query_did_not_run() {
        let own = check("a", &[]);
        let name = own.query_name();
        let answer = |rows: serde_json::Value, status: serde_json::Value, message: serde_json::Value| {
            let [rows, status, message] = [rows, status, message].map(|value| json!({&name: value}).to_string());
            answers(&[&own], &rows, &status, &message).pop().map(|(_, answer)| answer)
        };
        let denylisted = "distributed query is denylisted";
        assert_eq!(answer(json!([]), json!(1), json!(denylisted)), Some(Answer::Failed(denylisted.into())));
        assert_eq!(answer(json!([]), json!(1), json!("")), Some(Answer::Failed("error 1".into())));
        for (rows, has_row) in [
            (json!([{"a": "b"}]), true),
            (json!([]), false),
            (json!(""), false),
            (json!(null), false),
            (json!([1]), false),
        ] {
            assert_eq!(answer(rows, json!(0), json!("")), Some(Answer::Ran(has_row)));
        }
        assert_eq!(answer(json!([]), json!({}), json!("")), None, "no status");
    }

    #[test]
    fn checks_are_limited_and_their_names_are_unique() {
        assert!(check_all(&[check("a", &["linux"]), check("b", &[])]).is_ok());
        let code = |checks: &[Check]| check_all(checks).unwrap_err().code;
        assert_eq!(code(&[check("a", &[]), check("A", &[])]), "host_check_exists");
        let many: Vec<_> = (0..=MAX_CHECKS).map(|number| check(&number.to_string(), &[])).collect();
        assert_eq!(code(&many), "too_many_host_checks");
        for (bad, field) in [
            (check("a", &["linus"]), "platforms"),
            (check(" ", &[]), "name"),
            (Check { query: " ".into(), ..check("a", &[]) }, "query"),
            (Check { query: "x".repeat(MAX_SQL + 1), ..check("a", &[]) }, "query"),
            (Check { resolution: "x".repeat(MAX_TEXT + 1), ..check("a", &[]) }, "resolution"),
        ] {
            assert_eq!(check_all(&[bad]).unwrap_err().field.as_deref(), Some(field));
        }
        let linux = check("a", &["linux"]);
        assert!(linux.applies_to(Some(Platform::Linux)) && !linux.applies_to(Some(Platform::Windows)));
        assert!(!linux.applies_to(None) && check("a", &[]).applies_to(None));
    }
}
