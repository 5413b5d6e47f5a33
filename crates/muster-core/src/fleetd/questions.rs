//! Yes-or-no questions to hosts: queries whose answer is whether they return a row (FL §1.8).

use super::rows;
use crate::raw_json;
use crate::reported::shortened_to;

/// Maximum length of an error that is kept, bytes.
const MAX_ERROR: usize = 256;

/// A host's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The query ran, and had a row or none.
    Ran(bool),
    /// It did not run.
    Failed(String),
}

/// Returns the answers in the results of a request to the queries that are named after a prefix and one of the ids, by the position of
/// the id. Results of other queries are dropped. Each argument is the JSON text of an object by query name.
pub fn answers(prefix: &str, ids: &[&str], queries: &str, statuses: &str, messages: &str) -> Vec<(usize, Answer)> {
    let [mut rows, mut codes, mut texts] = [(); 3].map(|()| vec![None; ids.len()]);
    for (raw, found) in [(queries, &mut rows), (statuses, &mut codes), (messages, &mut texts)] {
        raw_json::each_member(raw, |name, value| {
            let id = name.strip_prefix(prefix);
            if let Some(at) = id.and_then(|id| ids.iter().position(|known| *known == id)) {
                found[at] = Some(value);
            }
        });
    }
    let answer = |at: usize| match rows::outcome(codes[at], rows[at])? {
        0 => Some(Answer::Ran(has_row(rows[at].unwrap_or_default()))),
        code => {
            let text = texts[at].and_then(raw_json::as_text).filter(|text| !text.is_empty());
            Some(Answer::Failed(
                text.map_or_else(|| format!("error {code}"), |text| shortened_to(&text, MAX_ERROR).into()),
            ))
        }
    };
    (0..ids.len()).filter_map(|at| Some((at, answer(at)?))).collect()
}

/// Returns whether the results of a request contain one of a query whose name has this prefix.
pub fn has_answers(prefix: &str, queries: &str, statuses: &str) -> bool {
    let mut found = false;
    for part in [queries, statuses] {
        raw_json::each_member(part, |name, _| found |= name.starts_with(prefix));
    }
    found
}

fn has_row(rows: &str) -> bool {
    let mut has_row = false;
    raw_json::each_element(rows, |row| {
        has_row = row.starts_with('{');
        false
    });
    has_row
}
