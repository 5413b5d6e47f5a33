//! Scheduled queries as the server follows them: which of them a configuration has, how rarely its hosts send requests, and what hosts tell of
//! those that fail (FL §1.5, §1.6).

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::{Map, Value};

use super::log_lines::MAX_LINES;
use super::packs::Pack;
use crate::raw_json;
use crate::reported::shortened_to;
use crate::time::Timestamp;

/// Interval of distributed reads if the configuration has none, seconds.
const DISTRIBUTED_INTERVAL: u32 = 60;
/// What osquery puts between the parts of a name if the configuration does not say it.
const DELIMITER: &str = "_";
/// Beginning of the message of osquery for a query that failed. The name, `: ` and the error follow.
const FAILED: &str = "Error executing scheduled query ";
/// Maximum number of scheduled queries of a host that are known to be denylisted, and of those that are known to fail.
pub const MAX_FAILURES: usize = 50;
/// Maximum length of a name, and of an error, bytes.
const MAX_NAME: usize = 256;
const MAX_ERROR: usize = 512;
/// Interval of a query that is not in the configuration of its host.
const UNKNOWN_INTERVAL: Duration = Duration::from_secs(3_600);
/// Time by which the failure of a query may reach the server later than its interval. A query that fails with every run costs a write in
/// half of it at most.
const SLACK: Duration = Duration::from_secs(3_600);

/// What the server follows of a configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Schedule {
    /// Maximum seconds between two requests of a host that is online (FL19).
    pub contact_interval: u32,
    /// Seconds between two runs of each query, by its name.
    intervals: BTreeMap<String, u64>,
    /// Names of queries of packs that are not for the hosts of this configuration.
    elsewhere: BTreeSet<String>,
}

impl Schedule {
    /// Takes it from a configuration with its packs, the flags of osqueryd that the same hosts get, and the packs that are not for them.
    pub(super) fn of<'a>(
        config: &Map<String, Value>,
        flags: Option<&Value>,
        others: impl IntoIterator<Item = &'a Pack>,
    ) -> Self {
        let delimiter = delimiter(config);
        let mut intervals = BTreeMap::new();
        let mut insert = |name: String, query: &Value| {
            intervals.insert(name, query.get("interval").and_then(Value::as_u64).unwrap_or_default());
        };
        for (name, query) in members(config.get("schedule")) {
            insert(name.clone(), query);
        }
        for (pack, document) in members(config.get("packs")) {
            for (name, query) in members(document.get("queries")) {
                insert(name_of(delimiter, pack, name), query);
            }
        }
        let others = others.into_iter().flat_map(|pack| {
            let queries = members(pack.document.get("queries"));
            queries.map(|(name, _)| name_of(delimiter, &pack.name, name))
        });
        // Two packs can have a query of the same name, since the delimiter may be a part of names.
        let elsewhere = others.filter(|name| !intervals.contains_key(name)).collect();
        Self { contact_interval: contact_interval(config, flags), intervals, elsewhere }
    }

    /// Returns whether a query is known to be on the schedule of other hosts, and not on that of the hosts of this configuration (FL162).
    pub fn is_elsewhere(&self, name: &str) -> bool {
        self.elsewhere.contains(name)
    }

    /// Returns whether there are no such queries.
    pub fn is_complete(&self) -> bool {
        self.elsewhere.is_empty()
    }

    /// Returns from when on a failure that was stored at `now` is stored again.
    pub fn renewed_at(&self, name: &str, now: Timestamp) -> Timestamp {
        now.plus(self.life(name) - self.margin(name))
    }

    fn interval(&self, name: &str) -> Duration {
        self.intervals.get(name).map_or(UNKNOWN_INTERVAL, |seconds| Duration::from_secs(*seconds))
    }

    /// Time after which a query that failed counts as working: two runs without an error, and the time that a log may take.
    fn life(&self, name: &str) -> Duration {
        2 * self.interval(name) + SLACK
    }

    /// Remaining time with which a failure is stored again: the next one, after another interval, comes before the end.
    fn margin(&self, name: &str) -> Duration {
        self.interval(name) / 2 + SLACK / 2
    }
}

/// Returns what osquery puts between the parts of the name of a query of a pack.
pub(super) fn delimiter(config: &Map<String, Value>) -> &str {
    config.get("options").and_then(|options| options.get("pack_delimiter")?.as_str()).unwrap_or(DELIMITER)
}

/// Returns the name under which osquery logs a query of a pack.
pub fn name_of(delimiter: &str, pack: &str, query: &str) -> String {
    ["pack", pack, query].join(delimiter)
}

fn members(object: Option<&Value>) -> impl Iterator<Item = (&String, &Value)> {
    object.and_then(Value::as_object).into_iter().flatten()
}

/// Returns the seconds after which a host has sent a request. It sends one for queries and one for its configuration, each at an interval of
/// its own. Without one for the configuration, which may be set on the host, that of queries counts.
fn contact_interval(config: &Map<String, Value>, flags: Option<&Value>) -> u32 {
    // Options of the configuration take precedence over flags.
    let option = |name: &str| {
        let found = config.get("options").and_then(|options| options.get(name));
        seconds(found.or_else(|| flags?.get(name))?)
    };
    let queries = option("distributed_interval").unwrap_or(DISTRIBUTED_INTERVAL);
    // The latter is the former name of the option.
    let refresh = option("config_refresh").or_else(|| option("config_tls_refresh"));
    refresh.map_or(queries, |refresh| refresh.min(queries))
}

/// Parses an option, which may be a string; `None` if it is not a positive number.
fn seconds(value: &Value) -> Option<u32> {
    let number = value.as_u64().or_else(|| value.as_str()?.trim().parse().ok())?;
    u32::try_from(number).ok().filter(|seconds| *seconds > 0)
}

/// A scheduled query that does not work on a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueryFailure {
    /// Its name, as osquery logs it.
    pub name: String,
    /// Why it fails; `None` if osqueryd does not run it any more, because it crashed or was killed while it did.
    pub error: Option<String>,
    /// Time since when this has been known.
    pub since: Timestamp,
    /// Time from which it counts as working unless it fails again; `None` if the host tells when it is run again.
    pub until: Option<Timestamp>,
}

impl QueryFailure {
    /// Returns whether the query is denylisted.
    pub fn is_denylisted(&self) -> bool {
        self.error.is_none()
    }
}

/// Changes of the scheduled queries that are known not to work on a host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FailureChanges {
    /// Failures that are new or differ.
    pub put: Vec<QueryFailure>,
    /// Names of those that work.
    pub remove: Vec<String>,
}

impl FailureChanges {
    /// Returns whether there is nothing to change.
    pub fn is_empty(&self) -> bool {
        self.put.is_empty() && self.remove.is_empty()
    }
}

/// Returns the names and errors of the queries that failed by the lines of a status log, a JSON array: at most [`MAX_FAILURES`], of each the
/// last error.
pub fn failures_in(data: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    // Most requests have no such line.
    if !data.contains(FAILED) {
        return found;
    }
    let mut count = 0;
    raw_json::each_element(data, |line| {
        count += 1;
        let message = if line.contains(FAILED) { raw_json::text(line, &["message"]) } else { None };
        if let Some((name, error)) = message.as_deref().and_then(failure_in)
            && (found.len() < MAX_FAILURES || found.contains_key(&*name))
        {
            found.insert(name.into_owned(), error.into_owned());
        }
        count < MAX_LINES
    });
    found
}

fn failure_in(message: &str) -> Option<(Cow<'_, str>, Cow<'_, str>)> {
    let (name, error) = message.strip_prefix(FAILED)?.split_once(": ")?;
    (!name.is_empty()).then(|| (shortened_to(name, MAX_NAME), shortened_to(error.trim_end(), MAX_ERROR)))
}

/// Returns the names of denylisted queries as they are stored.
pub fn denylisted_names<'a>(names: impl IntoIterator<Item = &'a str>) -> BTreeSet<String> {
    let shortened = names.into_iter().filter(|name| !name.is_empty()).map(|name| shortened_to(name, MAX_NAME));
    shortened.map(Cow::into_owned).take(MAX_FAILURES).collect()
}

/// Decides what changes with queries that failed on a host, of which these failures are known.
pub fn decide_failed(
    known: &[QueryFailure],
    failed: &BTreeMap<String, String>,
    schedule: &Schedule,
    now: Timestamp,
) -> FailureChanges {
    let is_live = |failure: &&QueryFailure| failure.until.is_none_or(|until| until > now);
    let live = || known.iter().filter(is_live);
    let mut room = MAX_FAILURES.saturating_sub(live().filter(|failure| !failure.is_denylisted()).count());
    let mut changes = FailureChanges::default();
    for (name, error) in failed {
        let before = live().find(|failure| failure.name == *name);
        let until = now.plus(schedule.life(name));
        match before {
            // It failed before osqueryd gave it up: the lines of logs come later.
            Some(before) if before.is_denylisted() => continue,
            Some(before) => {
                let is_same = before.error.as_ref() == Some(error);
                let is_fresh = before.until.is_some_and(|known| known > now.plus(schedule.margin(name)));
                if is_same && is_fresh {
                    continue;
                }
            }
            None if room == 0 => continue,
            None => room -= 1,
        }
        let since = before.map_or(now, |before| before.since);
        changes.put.push(QueryFailure { name: name.clone(), error: Some(error.clone()), since, until: Some(until) });
    }
    changes
}

/// Decides what changes with the names of all queries that a host has denylisted, of which these failures are known.
pub fn decide_denylisted(known: &[QueryFailure], names: &BTreeSet<String>, now: Timestamp) -> FailureChanges {
    let denylisted = || known.iter().filter(|failure| failure.is_denylisted());
    let is_news = |name: &&String| !denylisted().any(|failure| failure.name == **name);
    let put = |name: &String| QueryFailure { name: name.clone(), error: None, since: now, until: None };
    FailureChanges {
        put: names.iter().filter(is_news).map(put).collect(),
        remove: denylisted().filter(|failure| !names.contains(&failure.name)).map(|one| one.name.clone()).collect(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::fleetd::options::Options;
    use crate::testing::{at, pack};

    fn interval(text: &str) -> u32 {
        Options::parse(text).unwrap().schedule(None, [], []).contact_interval
    }

    #[test]
    fn fl19_a_host_sends_requests_at_the_smaller_of_its_intervals() {
        assert_eq!(interval(super::super::options::DEFAULT), 10);
        assert_eq!(interval("config: null"), 60, "the default of osquery");
        assert_eq!(interval("config: {options: {distributed_interval: 3600}}"), 3600);
        assert_eq!(interval("config: {options: {distributed_interval: 30, config_refresh: 20}}"), 20);
        assert_eq!(interval("config: {options: {distributed_interval: '900', config_tls_refresh: '1200'}}"), 900);
        let flags = "config: {options: {}}\ncommand_line_flags: {distributed_interval: 900, config_refresh: 700}\n";
        assert_eq!(interval(flags), 700, "what the options leave open");
        let both = "config: {options: {config_refresh: 800}}\ncommand_line_flags: {distributed_interval: 900, config_refresh: 7}\n";
        assert_eq!(interval(both), 800, "options take precedence");
    }

    #[test]
    fn fl162_a_query_is_elsewhere_if_no_pack_of_the_host_has_it() {
        let (own, other, same) = (pack("a", "b_c"), pack("x", "y"), pack("a_b", "c"));
        let options = Options::parse("config: {schedule: {z: {query: SELECT 1, interval: 5}}}").unwrap();
        let schedule = options.schedule(None, [&own], [&other, &same]);
        assert!(schedule.is_elsewhere("pack_x_y") && !schedule.is_complete());
        for name in ["pack_a_b_c", "z", "pack/x/y", "unknown"] {
            assert!(!schedule.is_elsewhere(name), "{name}");
        }
        assert_eq!((schedule.interval("z").as_secs(), schedule.interval("pack_a_b_c").as_secs()), (5, 60));
        let options = Options::parse("config: {options: {pack_delimiter: /}}").unwrap();
        assert!(options.schedule(None, [], [&other]).is_elsewhere("pack/x/y"));
        assert!(options.schedule(None, [&own], []).is_complete());
    }

    fn line(message: &str) -> Value {
        json!({"severity": "2", "filename": "scheduler.cpp", "message": message})
    }

    #[test]
    fn failed_queries_are_found_in_lines_of_status_logs() {
        let data = json!([
            line("Error executing scheduled query pack/a/b: no such table: x"),
            line("Executing scheduled query pack/a/c: SELECT 1"),
            line("Error executing scheduled query pack/a/b: no such column: y"),
            line("Error executing scheduled query : near \"x\": syntax error"),
            {"message": ["Error executing scheduled query a: b"]}, 5,
        ]);
        let found = failures_in(&data.to_string());
        assert_eq!(found, BTreeMap::from([("pack/a/b".to_owned(), "no such column: y".to_owned())]));
        let many: Vec<Value> =
            (0..99).map(|at| line(&format!("{FAILED}{at}{}: {}", "n".repeat(999), "é".repeat(999)))).collect();
        let found = failures_in(&Value::from(many).to_string());
        assert_eq!(found.len(), MAX_FAILURES);
        assert!(found.iter().all(|(name, error)| name.len() <= MAX_NAME && error.len() <= MAX_ERROR));
        assert!(failures_in("[").is_empty() && failures_in("").is_empty());
    }

    #[test]
    fn a_failure_is_written_when_it_is_new_or_would_end() {
        let schedule = Options::parse("config: {schedule: {q: {query: SELECT 1, interval: 60}}}").unwrap();
        let schedule = schedule.schedule(None, [], []);
        let failed = BTreeMap::from([("q".to_owned(), "no such table: x".to_owned())]);
        let first = decide_failed(&[], &failed, &schedule, at(0)).put;
        assert_eq!((first[0].since, first[0].until), (at(0), Some(at(3720))));
        assert!(decide_failed(&first, &failed, &schedule, at(1800)).is_empty());
        let later = decide_failed(&first, &failed, &schedule, at(1900)).put;
        assert_eq!((later[0].since, later[0].until), (at(0), Some(at(5620))));
        assert_eq!(decide_failed(&first, &failed, &schedule, at(3720)).put[0].since, at(3720), "it worked in between");
        let other = BTreeMap::from([("q".to_owned(), "other".to_owned())]);
        assert_eq!(decide_failed(&first, &other, &schedule, at(1)).put[0].error.as_deref(), Some("other"));
    }

    #[test]
    fn denylisted_queries_are_those_of_the_last_report() {
        let names = denylisted_names(["a", "", "b"]);
        let known = decide_denylisted(&[], &names, at(0)).put;
        assert_eq!(known.len(), 2);
        assert!(decide_denylisted(&known, &names, at(9)).is_empty());
        let failed = BTreeMap::from([("a".to_owned(), "x".to_owned())]);
        assert!(
            decide_failed(&known, &failed, &Schedule::default(), at(9)).is_empty(),
            "from before it was denylisted"
        );
        let changes = decide_denylisted(&known, &denylisted_names(["b", "c"]), at(9));
        assert_eq!((changes.put[0].name.as_str(), changes.remove), ("c", vec!["a".to_owned()]));
        let many: Vec<String> = (0..99).map(|at| at.to_string()).collect();
        assert_eq!(denylisted_names(many.iter().map(String::as_str)).len(), MAX_FAILURES);
    }

    #[test]
    fn the_failures_of_a_host_are_limited() {
        let failed = |from: usize| (from..from + 40).map(|at| (at.to_string(), String::new())).collect();
        let known = decide_failed(&[], &failed(0), &Schedule::default(), at(0)).put;
        assert_eq!(decide_failed(&known, &failed(100), &Schedule::default(), at(1)).put.len(), MAX_FAILURES - 40);
    }
}
