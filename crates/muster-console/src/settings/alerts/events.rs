//! The recent events below the receivers, and their filter.

use muster_core::Error;
use muster_core::authorization::{AlertsRead, Grant};
use muster_core::event::{Event, EventKind, Severity};
use muster_fleet::Fleet;
use serde::Deserialize;

use crate::subjects::{Shown, Subjects};
use crate::text::{Moment, event_words};
use crate::visitor::Visitor;

/// Number of recent events on the page.
const EVENTS: usize = 50;
/// Urgencies to choose from: the word in the URL, and the name.
const URGENCIES: [(&str, &str); 3] =
    [("problems", "Warnings and errors"), ("error", "Errors only"), ("notice", "Notices and information")];

/// Filters of the events.
#[derive(Default, Deserialize)]
#[serde(default)]
pub struct Asked {
    /// Urgency: a word of [`URGENCIES`]; empty for all.
    urgency: String,
    /// Code of a kind of events; empty for all.
    event: String,
    /// Part of the name of what it happened to.
    pub q: String,
}

impl Asked {
    /// Returns whether events are filtered.
    pub fn is_filtered(&self) -> bool {
        [&self.urgency, &self.event, &self.q].iter().any(|one| !one.trim().is_empty())
    }

    /// The urgencies to choose from, and whether each is chosen.
    pub fn urgencies(&self) -> impl Iterator<Item = (&'static str, &'static str, bool)> {
        URGENCIES.iter().map(|(word, name)| (*word, *name, *word == self.urgency))
    }

    /// The kinds to choose from: code, words, and whether each is chosen.
    pub fn kinds(&self) -> impl Iterator<Item = (&'static str, String, bool)> {
        let all = EventKind::ALL.iter().filter(|kind| **kind != EventKind::Test);
        all.map(|kind| (kind.as_str(), event_words(*kind), kind.as_str() == self.event))
    }

    /// Returns whether an event meets all filters.
    fn fits(&self, event: &Event) -> bool {
        let severity = event.kind.severity();
        let is_urgency = match self.urgency.as_str() {
            "problems" => matches!(severity, Severity::Error | Severity::Warning),
            "error" => severity == Severity::Error,
            "notice" => matches!(severity, Severity::Notice | Severity::Info),
            _ => true,
        };
        let text = self.q.trim().to_lowercase();
        let (name, id) = (event.subject.name.to_lowercase(), event.subject.id.to_lowercase());
        let is_kind = self.event.is_empty() || event.kind.as_str() == self.event;
        is_urgency && is_kind && (text.is_empty() || name.contains(&text) || id.contains(&text))
    }
}

/// What pages show of an event.
pub struct Happened {
    /// When it happened.
    pub at: Moment,
    /// Its kind in words.
    pub kind: String,
    /// Its code, for filters and scripts.
    pub code: &'static str,
    /// Its urgency: class, sign and name.
    pub state: (&'static str, &'static str, &'static str),
    /// What it happened to.
    pub subject: Shown,
    /// The states before and after it.
    pub change: String,
}

/// Reads the newest events that meet the filters.
pub async fn read(
    fleet: &Fleet,
    visitor: &Visitor,
    grant: &Grant<AlertsRead>,
    asked: &Asked,
) -> Result<Vec<Happened>, Error> {
    let mut subjects = Subjects::new(fleet, visitor);
    let mut rows = Vec::new();
    for event in fleet.alerts().recent(grant, EVENTS, |event| asked.fits(event)).await? {
        rows.push(happened(fleet, &mut subjects, event).await);
    }
    Ok(rows)
}

async fn happened(fleet: &Fleet, subjects: &mut Subjects<'_>, event: Event) -> Happened {
    let subject = event.subject;
    Happened {
        at: Moment::new(event.at, fleet.now()),
        kind: event_words(event.kind),
        code: event.kind.as_str(),
        state: match event.kind.severity() {
            Severity::Error => ("bad", "✕", "error"),
            Severity::Warning => ("warn", "▲", "warning"),
            Severity::Notice => ("busy", "●", "notice"),
            Severity::Info => ("quiet", "–", "info"),
        },
        subject: subjects.shown(&format!("{}:{}", subject.kind, subject.id), &subject.name).await,
        change: match (event.before, event.after) {
            (Some(before), Some(after)) => format!("{before} → {after}"),
            (None, Some(after)) => after,
            _ => String::new(),
        },
    }
}

#[cfg(test)]
mod tests {
    use muster_core::event::Subject;
    use muster_core::testing::at;
    use serde_json::json;

    use super::*;

    #[test]
    fn events_are_filtered_by_urgency_kind_and_name() {
        let subject = Subject { kind: "agent".into(), id: "a-1".into(), name: "Web-7".into(), ..Subject::default() };
        let kind = EventKind::AgentOffline;
        let event = Event { at: at(0), kind, space: None, subject, before: None, after: None, detail: json!({}) };
        let asked =
            |urgency: &str, event: &str, q: &str| Asked { urgency: urgency.into(), event: event.into(), q: q.into() };
        for (asked, expected) in [
            (asked("", "", ""), true),
            (asked("problems", "agent.offline", "web"), true),
            (asked("", "", "A-1"), true),
            (asked("error", "", ""), false),
            (asked("notice", "", ""), false),
            (asked("", "agent.online", ""), false),
            (asked("", "", "db"), false),
        ] {
            assert_eq!(asked.fits(&event), expected, "{:?}", (&asked.urgency, &asked.event, &asked.q));
        }
    }
}
