//! Parameters of the list of hosts, which are in its URL.

use muster_core::Error;
use muster_core::id::HostId;
use muster_core::status::Status;
use muster_core::time::Timestamp;
use muster_management::kql::agents as kql;
use muster_store::query::{AgentFilter, HostCursor, HostRows, Page};
use serde::Deserialize;

use super::TAB;
use crate::agents::asked::{encoded, quoted, with_query};
use crate::links::Base;

/// Value of the parameter `check` for hosts that fail any check.
const ANY: &str = "any";
/// Platforms to filter by: the word in the URL, the name, and the condition.
pub const PLATFORMS: [(&str, &str, &str); 3] = [
    ("linux", "Linux", "not local_metadata.os.platform:(\"\" or darwin or windows)"),
    ("darwin", "macOS", "local_metadata.os.platform:darwin"),
    ("windows", "Windows", "local_metadata.os.platform:windows"),
];

/// Parameters of the list.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Asked {
    /// KQL over the agents of hosts.
    pub q: String,
    /// Status of an agent of the host.
    pub status: String,
    /// Platform: `linux`, `darwin` or `windows`.
    pub platform: String,
    /// Id of a host check that the host fails, or `any`.
    pub check: String,
    /// Name of a label that the host has.
    pub label: String,
    /// Cursor: the last row of the previous page.
    pub after: String,
    /// Cursor: the first row of the next page, if the page was reached from there.
    pub before: String,
    /// Number of rows in front of the page, as it was when its link was made.
    pub from: u64,
    /// The newest change that the browser has seen. Only in requests that renew the rows.
    pub seen: Option<i64>,
}

impl Asked {
    /// Checks what people do not type: a link that was cut would otherwise show other hosts than it was made for.
    pub fn check(&self) -> Result<(), Error> {
        let unknown = |field: &'static str, value: &str| Error::invalid(field, format!("unknown value {value:?}"));
        if !self.status.is_empty() && Status::parse(&self.status).is_none() {
            return Err(unknown("status", &self.status));
        }
        if !self.platform.is_empty() && self.platform_condition().is_none() {
            return Err(unknown("platform", &self.platform));
        }
        for (field, position) in [("after", &self.after), ("before", &self.before)] {
            if !position.is_empty() && cursor(position).is_none() {
                return Err(unknown(field, position));
            }
        }
        Ok(())
    }

    /// Returns whether the list is filtered.
    pub fn is_filtered(&self) -> bool {
        [&self.q, &self.status, &self.platform, &self.check, &self.label].iter().any(|one| !one.is_empty())
    }

    fn platform_condition(&self) -> Option<&'static str> {
        PLATFORMS.iter().find(|(word, ..)| *word == self.platform).map(|(.., condition)| *condition)
    }

    /// Returns all conditions as one query, which the command and the API accept, too. `checks`: the ids of the space's checks.
    pub fn query(&self, checks: &[String]) -> String {
        let mut parts = Vec::new();
        if !self.status.is_empty() {
            parts.push(format!("status:{}", self.status));
        }
        parts.extend(self.platform_condition().map(str::to_owned));
        match self.check.as_str() {
            "" => {}
            // A condition that nothing meets: no check can fail where none exists.
            ANY if checks.is_empty() => parts.push("failing_checks:none".to_owned()),
            ANY => parts.push(format!("failing_checks:({})", checks.join(" or "))),
            id => parts.push(format!("failing_checks:{}", quoted(id))),
        }
        if !self.label.is_empty() {
            parts.push(format!("labels:{}", quoted(&self.label)));
        }
        match (self.q.trim(), parts.is_empty()) {
            ("", _) => {}
            (q, true) => parts.push(q.to_owned()),
            // In parentheses: an `or` in it would otherwise bind to the other conditions.
            (q, false) => parts.insert(0, format!("({q})")),
        }
        parts.join(" and ")
    }

    /// Compiles the filter.
    ///
    /// # Errors
    /// Those of the query that was typed.
    pub fn filter(&self, checks: &[String], now: Timestamp) -> Result<AgentFilter, Error> {
        // Alone first: positions in an error are those of what was typed.
        kql::compile(&self.q, now)?;
        Ok(kql::compile(&self.query(checks), now)?.filter)
    }

    /// Returns the rows of the page.
    pub fn rows(&self, limit: u32) -> HostRows {
        match (cursor(&self.after), cursor(&self.before)) {
            (Some(cursor), _) => HostRows::After(cursor, limit),
            (None, Some(cursor)) => HostRows::Before(cursor, limit),
            (None, None) => HostRows::Page(Page { offset: 0, limit }),
        }
    }

    /// Returns the URL of the list, or of another form of it, with some parameters added.
    pub fn link(&self, base: &Base, path: &str, more: &[(&str, &str)]) -> String {
        let kept = [
            ("q", &self.q),
            ("status", &self.status),
            ("platform", &self.platform),
            ("check", &self.check),
            ("label", &self.label),
        ];
        let kept = kept.into_iter().map(|(name, value)| (name, value.as_str()));
        let pairs = kept.chain(more.iter().copied()).filter(|(_, value)| !value.is_empty());
        let pairs: Vec<_> = pairs.map(|(name, value)| format!("{name}={}", encoded(value))).collect();
        with_query(&format!("{base}{path}"), &pairs.join("&"))
    }

    /// Returns the link to a page beside this one: `after` or `before` a row, with `from` rows in front of it.
    pub fn beside(&self, base: &Base, side: &str, row: &HostCursor, from: u64) -> String {
        self.link(base, TAB, &[(side, &cursor_text(row)), ("from", &from.to_string())])
    }

    /// Returns the link that renews the rows of this page, unless the browser has seen the newest change.
    pub fn renewal(&self, base: &Base, newest: i64) -> String {
        let from = if self.from > 0 { self.from.to_string() } else { String::new() };
        let here = [("after", self.after.as_str()), ("before", &self.before), ("from", &from)];
        self.link(base, TAB, &[here.as_slice(), &[("seen", &newest.to_string())]].concat())
    }
}

fn cursor(text: &str) -> Option<HostCursor> {
    // JSON, because names of hosts can contain every character that could separate them.
    let (name, id): (String, String) = serde_json::from_str(text).ok()?;
    Some(HostCursor { name, id: HostId::parse(&id).ok()? })
}

/// Returns a cursor as the parameters `after` and `before` have it.
pub fn cursor_text(last: &HostCursor) -> String {
    serde_json::json!([last.name, last.id.as_str()]).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked() -> Asked {
        let label = "a \"b\"".into();
        Asked { q: "tags:a or tags:b".into(), platform: "linux".into(), check: ANY.into(), label, ..Asked::default() }
    }

    #[test]
    fn the_filters_are_one_query_that_compiles() {
        let checks = ["c-1".to_owned(), "c-2".to_owned()];
        let query = asked().query(&checks);
        assert!(
            query.starts_with("(tags:a or tags:b) and not ")
                && query.ends_with("(c-1 or c-2) and labels:\"a \\\"b\\\"\"")
        );
        let now = Timestamp::from_micros(0);
        assert_eq!(asked().filter(&checks, now).unwrap().conditions.len(), 6, "{query}");
        for (word, ..) in PLATFORMS {
            let one = Asked { platform: word.into(), check: "x\" or y".into(), ..Asked::default() };
            assert!(one.filter(&[], now).is_ok(), "{word}");
        }
        assert!(Asked { q: "(".into(), ..asked() }.filter(&checks, now).is_err());
        assert_eq!(Asked::default().query(&checks), "");
    }

    #[test]
    fn the_url_of_a_page_contains_its_filters_and_its_position() {
        let last = HostCursor { name: "a\"b".into(), id: HostId::trusted("h-1") };
        let link = asked().beside(&Base::below("shop"), "after", &last, 50);
        let (path, query) = link.split_once('?').unwrap();
        assert_eq!(path, "/s/shop/hosts");
        let read: Asked = muster_management::form::parameters(&format!("/?{query}").parse().unwrap()).unwrap();
        assert_eq!(
            (cursor(&read.after), read.platform.as_str(), read.label.as_str()),
            (Some(last), "linux", "a \"b\"")
        );
        assert!(read.check().is_ok());
        assert!(Asked { after: "[1]".into(), ..Asked::default() }.check().is_err());
        assert!(Asked { status: "odd".into(), ..Asked::default() }.check().is_err());
    }
}
