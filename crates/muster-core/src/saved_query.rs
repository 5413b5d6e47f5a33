//! Saved queries: SQL with a name, which people may run on hosts without the right to run any SQL.

use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::id::SavedQueryId;
use crate::live_query::check_sql;

/// Maximum number of saved queries of a space.
pub const MAX_QUERIES: usize = 200;
/// Maximum length of the SQL of all saved queries of a space, bytes.
pub const MAX_SQL: usize = 1 << 20;
/// Maximum length of a name and of a description, bytes.
const MAX_NAME: usize = 255;
const MAX_TEXT: usize = 4096;

/// A saved query.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedQuery {
    /// Its id.
    pub id: SavedQueryId,
    /// Number of changes, from 1.
    pub version: i64,
    /// Name, unique in the space ignoring case.
    pub name: String,
    /// What it is about.
    pub description: String,
    /// SQL.
    pub sql: String,
    /// Whether only people who may run any SQL may run it.
    pub is_restricted: bool,
    /// The actor that changed it last.
    pub updated_by: String,
    /// Time of the last change, microseconds since 1970.
    pub updated_at: i64,
}

impl SavedQuery {
    /// Returns whether it has this id, or this name ignoring case.
    pub fn is_named(&self, named: &str) -> bool {
        self.id.as_str() == named || self.name.to_lowercase() == named.to_lowercase()
    }

    fn check(&self) -> Result<(), Error> {
        if self.name.trim().is_empty() || self.name.len() > MAX_NAME {
            return Err(Error::invalid("name", format!("must have 1 to {MAX_NAME} bytes")));
        }
        if self.name.chars().any(crate::reported::is_deceptive) {
            return Err(Error::invalid("name", "must not contain control characters"));
        }
        if self.description.len() > MAX_TEXT {
            return Err(Error::invalid("description", format!("at most {MAX_TEXT} bytes")));
        }
        check_sql(&self.sql)
    }
}

/// Checks the saved queries of a space after a change of one of them.
pub fn check_all(queries: &[SavedQuery]) -> Result<(), Error> {
    queries.iter().try_for_each(SavedQuery::check)?;
    if queries.len() > MAX_QUERIES {
        let message = format!("there are {MAX_QUERIES} saved queries in the space already");
        return Err(Error::conflict("too_many_saved_queries", message).remedy("delete one that is not needed"));
    }
    if queries.iter().map(|query| query.sql.len()).sum::<usize>() > MAX_SQL {
        return Err(Error::invalid("sql", format!("the SQL of all saved queries may have {MAX_SQL} bytes together")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(name: &str, sql: &str) -> SavedQuery {
        SavedQuery {
            id: SavedQueryId::trusted(name),
            version: 1,
            name: name.into(),
            description: String::new(),
            sql: sql.into(),
            is_restricted: false,
            updated_by: String::new(),
            updated_at: 0,
        }
    }

    #[test]
    fn saved_queries_are_limited() {
        assert!(check_all(&[query("a", "SELECT 1"), query("b", "SELECT 1")]).is_ok());
        let long = "x".repeat(64 * 1024);
        for (bad, field) in [
            (query(" ", "SELECT 1"), "name"),
            (query("a", " "), "sql"),
            (query("a", &"x".repeat(64 * 1024 + 1)), "sql"),
            (SavedQuery { description: long.clone(), ..query("a", "SELECT 1") }, "description"),
        ] {
            assert_eq!(check_all(&[bad]).unwrap_err().field.as_deref(), Some(field));
        }
        let many: Vec<_> = (0..=MAX_QUERIES).map(|number| query(&number.to_string(), "SELECT 1")).collect();
        assert_eq!(check_all(&many).unwrap_err().code, "too_many_saved_queries");
        let large: Vec<_> = (0..17).map(|number| query(&number.to_string(), &long)).collect();
        assert_eq!(check_all(&large).unwrap_err().field.as_deref(), Some("sql"));
        assert!(query("Disk", "x").is_named("disk") && !query("Disk", "x").is_named("other"));
    }
}
