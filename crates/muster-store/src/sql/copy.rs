//! Copying of whole tables. The names of tables and columns are those of the schema, never of a caller.

use super::statements;

statements! {
    /// Selects what is being copied into a store.
    PROGRESS = "SELECT fleet, source, newest_change, position FROM copy_progress";
    /// Begins a copy.
    BEGIN = "INSERT INTO copy_progress (fleet, source, newest_change, position) VALUES ($1, $2, $3, $4)";
    /// Notes the last key that was copied.
    ADVANCE = "UPDATE copy_progress SET position = $1";
    /// Ends a copy.
    END = "DELETE FROM copy_progress";
}

/// A table, as its rows are copied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    /// Its name.
    pub(crate) name: &'static str,
    /// All columns, and whether each has a length (strings and bytes).
    pub(crate) columns: Vec<(String, bool)>,
    /// Positions of the columns of the primary key, in its order.
    pub(crate) key: Vec<usize>,
}

impl Layout {
    fn names(&self) -> String {
        self.columns.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ")
    }

    fn key_names(&self) -> String {
        self.key.iter().map(|at| self.columns[*at].0.as_str()).collect::<Vec<_>>().join(", ")
    }

    /// Selects the number of rows.
    pub(crate) fn count(&self) -> String {
        format!("SELECT count(*) FROM {}", self.name)
    }

    /// Selects the lengths of the next rows in the order of the key, at most the last parameter.
    pub(crate) fn lengths(&self, is_after_a_key: bool) -> String {
        let long = self.columns.iter().filter(|(_, has_length)| *has_length);
        let lengths: Vec<_> = long.map(|(name, _)| format!("coalesce(octet_length({name}), 0)")).collect();
        let sum = if lengths.is_empty() { "0".to_owned() } else { lengths.join(" + ") };
        self.next(&sum, is_after_a_key)
    }

    /// Selects the next rows in the order of the key, at most the last parameter.
    pub(crate) fn rows(&self, is_after_a_key: bool) -> String {
        self.next(&self.names(), is_after_a_key)
    }

    fn next(&self, what: &str, is_after_a_key: bool) -> String {
        let (name, key) = (self.name, self.key_names());
        let limit = if is_after_a_key { self.key.len() + 1 } else { 1 };
        let after = match is_after_a_key {
            true => format!(" WHERE ({key}) > ({})", placeholders(1, self.key.len())),
            false => String::new(),
        };
        format!("SELECT {what} FROM {name}{after} ORDER BY {key} LIMIT ${limit}")
    }

    /// Selects the row with a key.
    pub(crate) fn row(&self) -> String {
        let (names, name, key) = (self.names(), self.name, self.key_names());
        format!("SELECT {names} FROM {name} WHERE ({key}) = ({})", placeholders(1, self.key.len()))
    }

    /// Inserts rows.
    pub(crate) fn insert(&self, rows: usize) -> String {
        let width = self.columns.len();
        let rows: Vec<_> = (0..rows).map(|row| format!("({})", placeholders(row * width + 1, width))).collect();
        format!("INSERT INTO {} ({}) VALUES {}", self.name, self.names(), rows.join(", "))
    }
}

fn placeholders(first: usize, number: usize) -> String {
    (first..first + number).map(|at| format!("${at}")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_are_composed_of_the_columns_and_the_key() {
        let columns = vec![("n".to_owned(), false), ("a".to_owned(), true), ("b".to_owned(), true)];
        let layout = Layout { name: "t", columns, key: vec![1, 0] };
        assert_eq!(layout.rows(true), "SELECT n, a, b FROM t WHERE (a, n) > ($1, $2) ORDER BY a, n LIMIT $3");
        assert_eq!(
            layout.lengths(false),
            "SELECT coalesce(octet_length(a), 0) + coalesce(octet_length(b), 0) FROM t ORDER BY a, n LIMIT $1"
        );
        assert_eq!(layout.row(), "SELECT n, a, b FROM t WHERE (a, n) = ($1, $2)");
        assert_eq!(layout.insert(2), "INSERT INTO t (n, a, b) VALUES ($1, $2, $3), ($4, $5, $6)");
    }
}
