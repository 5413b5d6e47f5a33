//! `/api/v1/changes`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `GET /changes`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
#[serde(default)]
pub struct ListChanges {
    /// `next` of the previous response. Without it, the response contains no changes, and the newest number as `next`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<i64>,
    /// Maximum number of changes that are read, from 1 to 1000, default 100. The response contains those that the caller may see.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

/// `GET /changes/_stream`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
#[serde(default)]
pub struct FollowChanges {
    /// Number after which the stream begins, by default the newest. The header `Last-Event-ID` takes precedence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<i64>,
}

/// Change of an object. It carries no data: read the object.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
pub struct Change {
    /// Number, ascending in the order of commits.
    pub seq: i64,
    /// Kind of the object: `agent`, `action`, `policy`, `enrollment_key`, `output`, `server_host`, `proxy`, `download_source`,
    /// `live_query`, `settings`, `fleetd_options`, `host_checks`, `labels`, `packs` or `saved_queries`.
    pub kind: String,
    /// Id of the object.
    pub id: String,
    /// Whether it was deleted.
    pub deleted: bool,
}

/// Changes, oldest first. Of several changes of an object, only the last one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
pub struct Changes {
    /// The changes that the caller may see.
    pub items: Vec<Change>,
    /// `after` of the next request.
    pub next: i64,
    /// Whether more changes follow.
    pub has_more: bool,
}
