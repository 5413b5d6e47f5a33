//! Host checks on the page of a device, and in what Fleet Desktop reads.

use std::fmt::Write as _;

use muster_core::fleetd::numbers;
use muster_core::time::Timestamp;
use muster_fleet::host_checks::AnsweredCheck;
use serde_json::{Value, json};

use super::device::escaped;

fn passes(check: &AnsweredCheck) -> Option<bool> {
    check.result.as_ref().and_then(|result| result.passes)
}

/// Returns why the last run of the query failed, if it did.
fn error_of(check: &AnsweredCheck) -> Option<&str> {
    check.result.as_ref().map(|result| result.error.as_str()).filter(|error| !error.is_empty())
}

/// Returns the number of checks that the host fails.
pub(super) fn failing(checks: &[AnsweredCheck]) -> usize {
    checks.iter().filter(|check| passes(check) == Some(false)).count()
}

/// Returns the checks for programs, in FleetDM's form: without the SQL, which is none of the user's business.
pub(super) fn data(checks: &[AnsweredCheck]) -> Value {
    let one = |answered: &AnsweredCheck| {
        let response = match passes(answered) {
            Some(true) => "pass",
            Some(false) => "fail",
            None => "",
        };
        let check = &answered.check;
        json!({
            // Clients of FleetDM read integers, as they are in its REST API.
            "id": numbers::of(check.id.as_str()),
            "name": check.name,
            "description": check.description,
            "resolution": check.resolution,
            "response": response,
        })
    };
    checks.iter().map(one).collect()
}

/// Returns the part of the page with the checks; empty without any. Those that the host fails come first, with the remedy.
pub(super) fn section(checks: &[AnsweredCheck]) -> String {
    if checks.is_empty() {
        return String::new();
    }
    let mut sorted: Vec<&AnsweredCheck> = checks.iter().collect();
    sorted.sort_by_cached_key(|check| (passes(check).unwrap_or(true), check.check.name.to_lowercase()));
    let mut section = String::from("<h2>Checks</h2><table>");
    for answered in sorted {
        let check = &answered.check;
        let (result, remedy) = match passes(answered) {
            Some(true) => ("passes", None),
            Some(false) => ("fails", Some(&check.resolution).filter(|remedy| !remedy.is_empty())),
            None if error_of(answered).is_some() => ("cannot be checked", None),
            None => ("not checked yet", None),
        };
        let since = answered.result.as_ref().filter(|result| result.passes.is_some()).map(|result| result.since);
        let since = since.map_or_else(String::new, |at| format!(" since {}", Timestamp::to_rfc3339_seconds(at)));
        let remedy = remedy.map_or_else(String::new, |remedy| format!("<br>{}", escaped(remedy)));
        let error = error_of(answered).map_or_else(String::new, |error| format!("<br>Error: {}", escaped(error)));
        let name = escaped(&check.name);
        let _ = write!(section, "<tr><th scope=\"row\">{name}</th><td>{result}{since}{remedy}{error}</td></tr>");
    }
    section.push_str("</table>");
    section
}

#[cfg(test)]
mod tests {
    use muster_core::fleetd::checks::{Check, CheckResult};
    use muster_core::id::HostCheckId;
    use muster_core::testing::at;

    use super::*;

    fn answered(name: &str, passes: Option<bool>) -> AnsweredCheck {
        let check = Check {
            id: HostCheckId::trusted(name),
            version: 1,
            name: name.into(),
            description: String::new(),
            query: "SELECT secret".into(),
            resolution: "<b>restart</b>".into(),
            platforms: Vec::new(),
            labels: Vec::new(),
        };
        let result =
            CheckResult { check: check.id.clone(), passes, since: at(0), error: String::new(), failed_at: None };
        AnsweredCheck { check, result: Some(result), history: Vec::new() }
    }

    #[test]
    fn failing_checks_come_first_with_their_remedy_and_without_sql() {
        let checks = [answered("a", Some(true)), answered("b", None), answered("c", Some(false))];
        let section = section(&checks);
        assert!(section.find(">c<").unwrap() < section.find(">a<").unwrap(), "{section}");
        assert_eq!(section.matches("&lt;b&gt;restart&lt;/b&gt;").count(), 1);
        assert!(!section.contains("SELECT") && !data(&checks).to_string().contains("SELECT"));
        assert_eq!((failing(&checks), &data(&checks)[2]["response"]), (1, &json!("fail")));
        assert_eq!(super::section(&[]), "");
        let mut unknown = answered("d", None);
        unknown.result.as_mut().unwrap().error = "no such table: <b>".into();
        let shown = super::section(&[unknown]);
        assert!(shown.contains("cannot be checked<br>Error: no such table: &lt;b&gt;"), "{shown}");
    }
}
