//! Outputs: where agents ship data.

use crate::id::{OutputId, SpaceId};
use crate::time::Timestamp;

/// An output object of the management API (MG §2.5).
#[derive(Clone, Debug, PartialEq)]
pub struct Output {
    /// Its id.
    pub id: OutputId,
    /// The space that it belongs to.
    pub space: SpaceId,
    /// Its name, unique in its space.
    pub name: String,
    /// `elasticsearch`, `remote_elasticsearch`, `logstash` or `kafka`.
    pub kind: String,
    /// Whether it is used by every policy of its space that names no output.
    pub is_default: bool,
    /// Whether it is the default for monitoring data.
    pub is_default_monitoring: bool,
    /// Other fields as a JSON object, with secrets as `{"id": SECRET_ID}`.
    pub fields: serde_json::Value,
    /// Creation time.
    pub created_at: Timestamp,
    /// Time of the last change.
    pub updated_at: Timestamp,
}
