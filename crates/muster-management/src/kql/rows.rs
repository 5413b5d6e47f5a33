//! Evaluates queries on rows in memory, for short lists. Agents are never filtered this way.

use muster_core::Error;

use super::{Expr, Term, parse, plain_field, syntax_error};

/// Reads the values of a field.
pub type Reader<R> = fn(&R) -> Vec<String>;

/// The fields of a type of row.
pub struct Table<R: 'static> {
    /// Prefixes that field names may have.
    pub prefixes: &'static [&'static str],
    /// The fields and their readers.
    pub fields: &'static [(&'static str, Reader<R>)],
    /// Fields in which free text is searched for.
    pub text: &'static [&'static str],
}

/// Maximum number of conditions of a query: each is evaluated on every row.
const MOST_CONDITIONS: usize = 256;
/// Maximum number of comparisons on a thread of the async runtime. More would delay other requests.
const FEW: usize = 1000;

/// Returns the rows that match a query; an empty one matches all.
pub async fn select<R: Send + 'static>(table: &'static Table<R>, text: &str, rows: Vec<R>) -> Result<Vec<R>, Error> {
    match parse(text)? {
        Some(expr) => select_by(table, expr, rows).await,
        None => Ok(rows),
    }
}

/// Returns the rows that match a parsed query.
pub async fn select_by<R>(table: &'static Table<R>, expr: Expr, rows: Vec<R>) -> Result<Vec<R>, Error>
where
    R: Send + 'static,
{
    let conditions = table.check(&expr)?;
    if conditions > MOST_CONDITIONS {
        return Err(syntax_error(format!("more than {MOST_CONDITIONS} conditions")));
    }
    let comparisons = conditions * rows.len();
    let select = move || rows.into_iter().filter(|row| table.matches(&expr, row)).collect();
    if comparisons <= FEW {
        return Ok(select());
    }
    tokio::task::spawn_blocking(select).await.map_err(Error::internal)
}

impl<R: 'static> Table<R> {
    /// Checks the fields of a query, and returns its number of conditions. Evaluation can then ignore errors.
    fn check(&self, expr: &Expr) -> Result<usize, Error> {
        match expr {
            Expr::And(parts) | Expr::Or(parts) => parts.iter().map(|part| self.check(part)).sum(),
            Expr::Not(inner) => self.check(inner),
            Expr::Is(field, _) => self.reader(field).map(|_| 1),
            Expr::Compare(field, ..) => Err(syntax_error(format!("{field} cannot be compared"))),
            Expr::Text(_) => Ok(1),
        }
    }

    fn reader(&self, field: &str) -> Result<Reader<R>, Error> {
        let name = plain_field(field, self.prefixes);
        let found = self.fields.iter().find(|(known, _)| *known == name);
        let known = || self.fields.iter().map(|(known, _)| *known).collect::<Vec<_>>().join(", ");
        found.map(|(_, read)| *read).ok_or_else(|| syntax_error(format!("unknown field {name:?}; known: {}", known())))
    }

    fn matches(&self, expr: &Expr, row: &R) -> bool {
        match expr {
            Expr::And(parts) => parts.iter().all(|part| self.matches(part, row)),
            Expr::Or(parts) => parts.iter().any(|part| self.matches(part, row)),
            Expr::Not(inner) => !self.matches(inner, row),
            Expr::Is(field, term) => self.values(field, row).iter().any(|value| fits(term, value)),
            // Rejected by `check` before.
            Expr::Compare(..) => false,
            Expr::Text(term) => {
                let wanted = term.text.to_lowercase();
                self.text.iter().flat_map(|field| self.values(field, row)).any(|v| v.to_lowercase().contains(&wanted))
            }
        }
    }

    fn values(&self, field: &str, row: &R) -> Vec<String> {
        self.reader(field).map(|read| read(row)).unwrap_or_default()
    }
}

fn fits(term: &Term, value: &str) -> bool {
    if term.pattern { glob(&term.text, value) } else { term.text == value }
}

/// Returns whether `value` matches `pattern`, where `*` matches any characters.
fn glob(pattern: &str, value: &str) -> bool {
    // Taking the leftmost match of each part is enough when `*` is the only wildcard, so no backtracking is needed and
    // a pattern of many stars takes linear time.
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| value.strip_prefix(first)) else { return false };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else { return rest.is_empty() };
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    type Row = (&'static str, bool);
    static TABLE: Table<Row> = Table {
        prefixes: &["rows"],
        fields: &[("name", |row| vec![row.0.to_owned()]), ("hidden", |row| vec![row.1.to_string()])],
        text: &["name"],
    };

    async fn names(text: &str) -> Vec<&'static str> {
        let rows = vec![("web one", false), ("web two", true), ("mail", false)];
        select(&TABLE, text, rows).await.expect(text).into_iter().map(|row| row.0).collect()
    }

    #[tokio::test]
    async fn rows_are_selected_by_field_pattern_and_text() {
        assert_eq!(names("").await, ["web one", "web two", "mail"]);
        assert_eq!(names("rows.name:web* and not hidden:true").await, ["web one"]);
        assert_eq!(names("hidden:true or name:mail").await, ["web two", "mail"]);
        assert_eq!(names("WEB").await, ["web one", "web two"]);
        assert_eq!(names("name:*a*l").await, ["mail"]);
        assert!(select(&TABLE, "nope:1", vec![]).await.is_err());
    }

    #[tokio::test]
    async fn many_comparisons_give_the_same_rows_and_too_many_conditions_are_refused() {
        let rows: Vec<Row> = (0..FEW * 2).map(|number| ("web", number % 2 == 0)).collect();
        assert_eq!(select(&TABLE, "hidden:true", rows.clone()).await.unwrap().len(), FEW);
        let query = |count: usize| vec!["name:a"; count].join(" or ");
        assert!(select(&TABLE, &query(MOST_CONDITIONS), rows.clone()).await.unwrap().is_empty());
        let error = select(&TABLE, &query(MOST_CONDITIONS + 1), rows).await.unwrap_err();
        assert!(error.message.contains("more than 256 conditions"), "{}", error.message);
    }

    #[test]
    fn globs() {
        assert!(glob("*", "") && glob("a*", "a") && glob("a*c", "abc") && glob("*b*", "abc") && glob("abc", "abc"));
        assert!(!glob("a*c", "ab") && !glob("abc", "abcd") && !glob("a*a", "a"));
    }
}
