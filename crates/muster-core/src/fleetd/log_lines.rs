//! Lines of osquery's logs, as they are passed on: JSON lines with the host that sent them (FL §1.6).

use std::fmt::Write as _;

use super::schedule::Schedule;
use crate::error::{Error, ErrorKind};
use crate::raw_json;
use crate::time::Timestamp;

/// Maximum number of lines in a request. osqueryd sends 1,024 unless it is told otherwise.
pub const MAX_LINES: usize = 16_384;

/// Maximum bytes that are added to a line: ids of at most 64 bytes, with their names.
const ADDED: usize = 384;

/// Kind of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogType {
    /// Results of scheduled queries.
    Result,
    /// osqueryd's own messages.
    Status,
}

impl LogType {
    /// All kinds.
    pub const ALL: [Self; 2] = [Self::Result, Self::Status];

    /// Returns its name in the protocol.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Result => "result",
            Self::Status => "status",
        }
    }

    /// Parses a name of the protocol.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }
}

/// The host that sent lines.
#[derive(Clone, Copy, Debug)]
pub struct Sender<'a> {
    /// Its space.
    pub space: &'a str,
    /// Id of the host; empty if it is unknown.
    pub host: &'a str,
    /// Id of its osqueryd.
    pub agent: &'a str,
    /// What is on its schedule, if that is known.
    pub schedule: Option<&'a Schedule>,
}

/// Returns an upper bound of the bytes that [`lines`] returns: short lines grow twenty-fold by what is added to each.
pub fn max_length(data: &str) -> usize {
    let objects = data.bytes().filter(|byte| *byte == b'{').count();
    data.len() + objects.min(MAX_LINES) * ADDED
}

/// Returns the lines of a request, each as JSON with a newline: the host's ids, the time at which it was received, and the
/// line as osqueryd wrote it. Elements that are no lines are left out, and those of queries that are on the schedule of other hosts only
/// (FL162). Fails if there are too many.
///
/// The line is a member of its own: if the ids were added to its members, a host could send lines with the ids of another.
pub fn lines(data: &str, kind: LogType, from: Sender<'_>, now: Timestamp) -> Result<String, Error> {
    let head = head(kind, from, now);
    let (mut text, mut count) = (String::new(), 0);
    raw_json::each_element(data, |line| {
        if is_line(line, kind, from.schedule) {
            count += 1;
            text.push_str(&head);
            push_on_one_line(&mut text, line);
            text.push_str("}\n");
        }
        count <= MAX_LINES
    });
    if count > MAX_LINES {
        let message = format!("more than {MAX_LINES} log lines in a request");
        return Err(Error::new(ErrorKind::Invalid, "too_many_log_lines", message).remedy("lower logger_tls_max_lines"));
    }
    Ok(text)
}

/// Returns the beginning of each line.
fn head(kind: LogType, from: Sender<'_>, now: Timestamp) -> String {
    let mut head = String::from("{");
    let Sender { space, host, agent, schedule: _ } = from;
    let at = now.to_rfc3339_millis();
    for (name, value) in [
        ("received_at", at.as_str()),
        ("space", space),
        ("host_id", host),
        ("agent_id", agent),
        ("log_type", kind.as_str()),
    ] {
        // Ids have no characters that JSON escapes but those that an agent may choose, so they are quoted properly.
        let _ = write!(head, "\"{name}\":{},", serde_json::Value::from(value));
    }
    head.push_str("\"line\":");
    head
}

fn is_line(line: &str, kind: LogType, schedule: Option<&Schedule>) -> bool {
    if !line.starts_with('{') || kind == LogType::Status {
        return line.starts_with('{');
    }
    let [Some(name)] = raw_json::members(line, ["name"]) else { return false };
    // Decoded only if it matters.
    let schedule = schedule.filter(|schedule| !schedule.is_complete());
    let is_elsewhere = |schedule: &Schedule| raw_json::as_text(name).is_some_and(|name| schedule.is_elsewhere(&name));
    !schedule.is_some_and(is_elsewhere)
}

/// Appends JSON text without line breaks. Within strings they are escaped, so that only white space is replaced.
fn push_on_one_line(text: &mut String, json: &str) {
    let mut parts = json.split(['\n', '\r']);
    text.push_str(parts.next().unwrap_or_default());
    for part in parts {
        text.push(' ');
        text.push_str(part);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::fleetd::options::Options;
    use crate::fleetd::packs::Pack;
    use crate::fleetd::platform::Platform;
    use crate::testing::{at, pack};

    const FROM: Sender<'_> = Sender { space: "blue", host: "h", agent: "a", schedule: None };

    fn split(data: &str, kind: LogType) -> Vec<Value> {
        let text = lines(data, kind, FROM, at(0)).unwrap();
        assert!(text.is_empty() || text.ends_with('\n'));
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[test]
    fn fl162_elements_without_a_name_are_dropped_and_the_rest_is_kept_as_it_was() {
        let data =
            "[{\"name\":\"pack/x\",\n \"unixTime\":\"1\",\"new\":{}}, 5, [], {\"columns\":{}}, {\"name\":\"y\"}]";
        let lines = split(data, LogType::Result);
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[0]["line"], json!({"name": "pack/x", "unixTime": "1", "new": {}}));
        assert_eq!((&lines[1]["space"], &lines[1]["agent_id"]), (&json!("blue"), &json!("a")));
        assert_eq!(lines[1]["log_type"], "result");
    }

    #[test]
    fn fl162_results_of_queries_that_only_other_hosts_have_are_dropped() {
        let pack = Pack { platforms: vec!["darwin".into()], ..pack("other", "x") };
        let schedule = Options::parse("config: {}").unwrap().schedule(Some(Platform::Linux), [], [&pack]);
        let data = r#"[{"name":"pack_other_x"},{"name":"pack\u005fother_x"},{"name":"pack_other_y"},{"name":5}]"#;
        let from = Sender { schedule: Some(&schedule), ..FROM };
        assert_eq!(lines(data, LogType::Result, from, at(0)).unwrap().lines().count(), 2, "unknown ones are passed on");
        assert_eq!(lines(data, LogType::Status, from, at(0)).unwrap().lines().count(), 4);
    }

    #[test]
    fn fl163_status_lines_have_no_name() {
        let data = r#"[{"severity":"0","message":"a\nb","agent_id":"other"}]"#;
        let lines = split(data, LogType::Status);
        assert_eq!(lines[0]["line"]["message"], "a\nb");
        assert_ne!(lines[0]["agent_id"], "other", "a host cannot write in the name of another");
        for none in ["null", "{}", "[]", "\"x\"", "[1,2"] {
            assert_eq!(split(none, LogType::Status), Vec::<Value>::new(), "{none}");
        }
    }

    #[test]
    fn the_memory_for_lines_is_known_before() {
        let id = "x".repeat(64);
        let from = Sender { space: &id, host: &id, agent: &id, schedule: None };
        for data in [r#"[{"name":1},{"name":{}}]"#, "[]", "{", &format!("[{}{{}}]", "{},".repeat(1000))] {
            for kind in LogType::ALL {
                assert!(lines(data, kind, from, at(0)).unwrap().len() <= max_length(data), "{data}");
            }
        }
    }

    #[test]
    fn the_number_of_lines_is_limited() {
        let data = |count: usize| format!("[{}{{}}]", "{},".repeat(count - 1));
        assert!(lines(&data(MAX_LINES), LogType::Status, FROM, at(0)).is_ok());
        let error = lines(&data(MAX_LINES + 1), LogType::Status, FROM, at(0)).unwrap_err();
        assert_eq!(error.code, "too_many_log_lines");
    }
}
