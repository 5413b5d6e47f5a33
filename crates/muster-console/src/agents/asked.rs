//! Parameters of the list of agents, which are in its URL: filter, order, columns and position.

use std::ops::Range;

use crate::links::Base;
use muster_core::Error;
use muster_core::status::Status;
use muster_fleet::Fleet;
use muster_management::cursor;
use muster_management::kql::agents as kql;
use muster_store::query::{AgentCondition, AgentCursor, AgentFilter, AgentSort};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;

use super::columns::Column;

/// Path of the list.
pub const TAB: &str = "/agents";

/// Parameters of the list. All of them are in its URL, so that it can be shared.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Asked {
    /// KQL.
    pub q: String,
    /// Names of statuses, separated by commas; empty for all that are not hidden.
    pub status: String,
    /// Column that the list is sorted by.
    pub sort: String,
    /// `asc` or `desc`.
    pub order: String,
    /// Keys of columns, separated by commas or repeated; empty for the usual ones.
    pub columns: Vec<String>,
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
    /// Returns the filter of the list: of a status, or without the statuses that are hidden.
    pub fn filter(&self, fleet: &Fleet) -> Result<AgentFilter, Error> {
        if self.status.is_empty() {
            return kql::visible(&self.q, false, fleet.now());
        }
        let parsed = |name: &str| {
            Status::parse(name).ok_or_else(|| Error::invalid("status", format!("unknown status {name:?}")))
        };
        let statuses: Vec<Status> = self.statuses().map(parsed).collect::<Result<_, _>>()?;
        let mut filter = kql::compile(&self.q, fleet.now())?.filter;
        filter.conditions.push(AgentCondition::Statuses(statuses));
        Ok(filter)
    }

    /// The names of the chosen statuses.
    pub fn statuses(&self) -> impl Iterator<Item = &str> {
        self.status.split(',').filter(|name| !name.is_empty())
    }

    /// Returns the chosen statuses with another one, or without it if it is chosen.
    pub fn toggled_status(&self, status: Status) -> String {
        let others: Vec<&str> = self.statuses().filter(|name| *name != status.as_str()).collect();
        let is_chosen = others.len() < self.statuses().count();
        let more = if is_chosen { None } else { Some(status.as_str()) };
        others.into_iter().chain(more).collect::<Vec<_>>().join(",")
    }

    /// Returns the query and the status as one query, which the command and the API accept.
    pub fn kuery(&self) -> String {
        let statuses: Vec<&str> = self.statuses().collect();
        let condition = match statuses.as_slice() {
            [] => return self.q.clone(),
            [one] => format!("status:{one}"),
            several => format!("status:({})", several.join(" or ")),
        };
        if self.q.is_empty() { condition } else { format!("({}) and {condition}", self.q) }
    }

    /// Checks the order, the columns and the position. What is wrong with them is not typed by people: the link was cut or is of
    /// another version. Showing the first page instead would pass for what was asked for.
    pub fn check(&self) -> Result<(), Error> {
        let unknown =
            |field: &'static str, what: &str, value: &str| Error::invalid(field, format!("unknown {what} {value:?}"));
        if !self.sort.is_empty() && Column::of(&self.sort).is_none_or(|column| column.sort.is_none()) {
            return Err(unknown("sort", "column to sort by", &self.sort));
        }
        if !matches!(self.order.as_str(), "" | "asc" | "desc") {
            return Err(unknown("order", "order", &self.order));
        }
        if let Some(key) = self.column_keys().find(|key| Column::of(key).is_none()) {
            return Err(unknown("columns", "column", key));
        }
        for (field, position) in [("after", &self.after), ("before", &self.before)] {
            if !position.is_empty() && cursor::parse(position, self.sort()).is_none() {
                return Err(unknown(field, "position", position));
            }
        }
        Ok(())
    }

    /// Returns the filter without what [`Self::check`] looks at.
    pub fn only_filter(self) -> Self {
        Self { q: self.q, status: self.status, ..Self::default() }
    }

    /// Whether this is the first page.
    pub fn is_first(&self) -> bool {
        self.after.is_empty() && self.before.is_empty()
    }

    /// Returns the link to a page beside this one: `after` or `before` a row, with `from` rows in front of it.
    pub fn beside(&self, base: &Base, side: &str, row: &AgentCursor, from: u64) -> String {
        self.link(base, &[(side, &cursor::write(row)), ("from", &from.to_string())])
    }

    /// Returns the link that renews the rows of this page, unless the browser has seen the newest change.
    pub fn renewal(&self, base: &Base, newest: i64) -> String {
        let from = if self.is_first() { String::new() } else { self.from.to_string() };
        let here = [("after", self.after.as_str()), ("before", &self.before), ("from", &from)];
        self.link(base, &[here.as_slice(), &[("seen", &newest.to_string())]].concat())
    }

    fn column_keys(&self) -> impl Iterator<Item = &str> {
        self.columns.iter().flat_map(|one| one.split(',')).filter(|key| !key.is_empty())
    }

    /// Returns the order of the list.
    pub fn sort(&self) -> AgentSort {
        let named = Column::ALL.iter().find(|column| column.key == self.sort);
        named.and_then(|column| column.sort).unwrap_or_default()
    }

    /// Times are sorted by the newest first unless the URL says otherwise.
    pub fn is_descending(&self, sort: AgentSort) -> bool {
        match self.order.as_str() {
            "asc" => false,
            "desc" => true,
            _ => matches!(sort, AgentSort::EnrolledAt | AgentSort::LastCheckin),
        }
    }

    /// Returns the chosen columns; unknown ones are ignored.
    pub fn columns(&self) -> Vec<&'static Column> {
        Column::named(self.column_keys())
    }

    /// Returns the parameters of the URL with some of them changed. The list starts at its beginning: a cursor belongs to one order.
    pub fn query(&self, change: &[(&str, &str)]) -> String {
        let columns = self.columns.join(",");
        let kept = [
            ("q", &self.q),
            ("status", &self.status),
            ("sort", &self.sort),
            ("order", &self.order),
            ("columns", &columns),
        ];
        let changed = |name: &str| change.iter().any(|(changed, _)| *changed == name);
        let kept = kept.into_iter().filter(|(name, _)| !changed(name)).map(|(name, value)| (name, value.as_str()));
        let pairs = kept.chain(change.iter().copied()).filter(|(_, value)| !value.is_empty());
        let pairs: Vec<_> = pairs.map(|(name, value)| format!("{name}={}", encoded(value))).collect();
        pairs.join("&")
    }

    /// Returns the URL of the list with some parameters changed.
    pub fn link(&self, base: &Base, change: &[(&str, &str)]) -> String {
        with_query(&format!("{base}{TAB}"), &self.query(change))
    }
}

/// Returns a path with parameters, if there are any.
pub fn with_query(path: &str, query: &str) -> String {
    if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") }
}

/// Returns a value for a URL.
pub fn encoded(value: &str) -> String {
    utf8_percent_encode(value, NON_ALPHANUMERIC).to_string()
}

/// Returns a value in a query: in quotation marks, so that it is one word and no wildcard.
pub fn quoted(value: &str) -> String {
    format!("\"{}\"", value.replace('\\', r"\\").replace('"', "\\\""))
}

/// Returns the value that [`quoted`] has written; `None` for anything else.
pub fn unquoted(text: &str) -> Option<String> {
    let inner = text.strip_prefix('"')?.strip_suffix('"')?;
    let (mut value, mut is_escaped) = (String::with_capacity(inner.len()), false);
    for c in inner.chars() {
        match c {
            '\\' if !is_escaped => is_escaped = true,
            '"' if !is_escaped => return None,
            c => {
                is_escaped = false;
                value.push(c);
            }
        }
    }
    Some(value)
}

/// Returns a query with another condition, or without it if it has it.
pub fn toggled(query: &str, condition: &str) -> String {
    let query = query.trim();
    match (query, conjuncts(query)) {
        ("", _) => condition.to_owned(),
        (_, None) => format!("({query}) and {condition}"),
        (_, Some(mut parts)) => match position(&parts, condition) {
            None => format!("{query} and {condition}"),
            Some(found) => {
                parts.drain(found);
                match parts.as_slice() {
                    // Parentheses were added with the condition, around alternatives.
                    [one] => inside_parentheses(one).unwrap_or(one).to_owned(),
                    several => several.join(" and "),
                }
            }
        },
    }
}

/// Returns whether a query has a condition that [`toggled`] would remove.
pub fn has(query: &str, condition: &str) -> bool {
    conjuncts(query).is_some_and(|parts| position(&parts, condition).is_some())
}

/// Returns where a condition is among those of a query. It may consist of several.
fn position(parts: &[&str], condition: &str) -> Option<Range<usize>> {
    let wanted = conjuncts(condition)?;
    let begin = parts.windows(wanted.len()).position(|window| window == wanted)?;
    Some(begin..begin + wanted.len())
}

fn inside_parentheses(text: &str) -> Option<&str> {
    let inner = text.strip_prefix('(')?.strip_suffix(')')?;
    (!inner.contains(['(', ')'])).then_some(inner)
}

/// Returns the conditions of a query that all have to hold; `None` if some of them are alternatives.
pub fn conjuncts(query: &str) -> Option<Vec<&str>> {
    let begins =
        |at: usize, word: &str| query[at..].get(..word.len()).is_some_and(|text| text.eq_ignore_ascii_case(word));
    let (mut parts, mut begin, mut depth) = (Vec::new(), 0, 0_usize);
    let (mut is_quoted, mut is_escaped) = (false, false);
    for (at, c) in query.char_indices() {
        match c {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            '"' => is_quoted = !is_quoted,
            _ if is_quoted => {}
            '(' | '{' => depth += 1,
            ')' | '}' => depth = depth.saturating_sub(1),
            ' ' if depth == 0 && begins(at, " or ") => return None,
            ' ' if depth == 0 && at >= begin && begins(at, " and ") => {
                parts.push(query[begin..at].trim());
                begin = at + " and ".len();
            }
            _ => {}
        }
    }
    // Two words in a row overlap in their space.
    parts.push(query.get(begin..).unwrap_or_default().trim());
    Some(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mg190_the_url_of_a_view_contains_its_filters_its_order_and_its_columns() {
        let asked = Asked { q: "tags:\"a b\"".into(), status: "online".into(), ..Asked::default() };
        assert_eq!(asked.link(&Base::below("shop"), &[]), "/s/shop/agents?q=tags%3A%22a%20b%22&status=online");
        assert_eq!(
            asked.link(&Base::root(), &[("status", ""), ("sort", "version")]),
            "/agents?q=tags%3A%22a%20b%22&sort=version"
        );
        assert_eq!(Asked::default().link(&Base::root(), &[]), "/agents");
        let columns = Asked { columns: vec!["os,id".into(), "nonsense".into()], ..Asked::default() };
        assert_eq!(columns.link(&Base::root(), &[]), "/agents?columns=os%2Cid%2Cnonsense");
        assert_eq!(columns.columns().iter().map(|column| column.key).collect::<Vec<_>>(), ["os", "id"]);
    }

    #[test]
    fn several_statuses_are_chosen_one_by_one() {
        let with = |status: &str| Asked { q: "tags:a or tags:b".into(), status: status.into(), ..Asked::default() };
        assert_eq!(with("").toggled_status(Status::Online), "online");
        assert_eq!(with("online").toggled_status(Status::Error), "online,error");
        assert_eq!(with("online,error").toggled_status(Status::Online), "error");
        assert_eq!(with("online,error").kuery(), "(tags:a or tags:b) and status:(online or error)");
        let query = Asked { q: String::new(), ..with("online,error") }.kuery();
        assert!(kql::compile(&query, muster_core::time::Timestamp::from_micros(0)).is_ok(), "{query}");
    }

    #[test]
    fn times_are_sorted_by_the_newest_first() {
        let by = |sort: &str, order: &str| Asked { sort: sort.into(), order: order.into(), ..Asked::default() };
        let descending = |asked: &Asked| asked.is_descending(asked.sort());
        assert!(descending(&by("", "")) && descending(&by("last_checkin", "")) && descending(&by("hostname", "desc")));
        assert!(!descending(&by("hostname", "")) && !descending(&by("enrolled_at", "asc")));
    }

    #[test]
    fn a_condition_is_added_to_a_query_and_removed_again() {
        for query in ["", "status:online", "status:online or tags:a", "tags:a and status:online"] {
            let with = toggled(query, "duplicate_hosts:*");
            assert!(with.ends_with("duplicate_hosts:*"), "{with}");
            assert_eq!(toggled(&with, "duplicate_hosts:*"), query);
        }
        assert_eq!(toggled("a:1 or b:2", "c:3"), "(a:1 or b:2) and c:3");
        assert_eq!(toggled("(a:1 or b:2) and c:3", "d:4"), "(a:1 or b:2) and c:3 and d:4");
        assert_eq!(toggled("a:1 or b:2 and c:3", "c:3"), "(a:1 or b:2 and c:3) and c:3", "it is no condition of all");
    }

    #[test]
    fn a_condition_is_removed_wherever_it_stands() {
        let both = toggled(&toggled("tags:a", "left_at > now-7d"), "duplicate_hosts:*");
        assert_eq!(toggled(&both, "left_at > now-7d"), "tags:a and duplicate_hosts:*");
        assert_eq!(toggled("left_at > now-7d AND tags:a", "left_at > now-7d"), "tags:a");
        let version = "family:elastic and version:\"9.5.2\"";
        assert_eq!(toggled(&format!("a:1 and {version} and b:2"), version), "a:1 and b:2");
        assert!(has("a:1 and b:2", "a:1") && !has("a:1 or b:2", "a:1") && !has("tags:\"a:1 and b:2\"", "b:2"));
        assert!(!has("a:11", "a:1"), "a part of a word is no condition");
        for odd in ["", " and ", "a and and b", "(", "\"", "\\", "ä and  or ö", "or", "and"] {
            let _ = toggled(&toggled(odd, "a:1"), "a:1");
        }
        assert_eq!(quoted("a\"b\\*"), r#""a\"b\\*""#);
        for value in ["", "a\"b\\*", "\\\""] {
            assert_eq!(unquoted(&quoted(value)).as_deref(), Some(value));
        }
        assert!(unquoted("a").is_none() && unquoted("\"a\" or b:\"c\"").is_none());
    }
}
