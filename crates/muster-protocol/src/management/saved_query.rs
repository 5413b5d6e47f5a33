//! `/api/v1/queries`: saved queries.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Saved query.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
pub struct SavedQuery {
    /// Its id.
    pub id: String,
    /// Number of changes, from 1.
    pub version: i64,
    /// Name, unique in the space.
    pub name: String,
    /// Description.
    #[serde(default)]
    pub description: String,
    /// SQL.
    pub sql: String,
    /// Whether only callers with the privilege `queries.run` may run it.
    #[serde(default)]
    pub restricted: bool,
    /// The actor that changed it last.
    pub updated_by: String,
    /// Time of the last change.
    pub updated_at: String,
}

/// `POST /api/v1/queries`: saves a query. One with the same name is replaced.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields)]
pub struct SaveQuery {
    /// Name.
    pub name: String,
    /// Description.
    #[serde(default)]
    pub description: String,
    /// SQL, at most 64 KiB.
    pub sql: String,
    /// Whether only callers with the privilege `queries.run` may run it.
    #[serde(default)]
    pub restricted: bool,
}
