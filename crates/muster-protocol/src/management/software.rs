//! `/api/fleet/software`: software on the hosts with osquery.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::list_query::list_query;

/// Version of a package or a program.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
pub struct Software {
    /// Its id, the same on every host.
    pub id: String,
    /// Name.
    pub name: String,
    /// Version; empty if unknown.
    #[serde(default)]
    pub version: String,
    /// Table of osquery that it is from, such as `deb_packages`.
    pub source: String,
    /// Number of hosts of the space that have it; absent for the software of a host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hosts: Option<u64>,
}

/// Host that has software.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
pub struct SoftwareHost {
    /// Id of the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Its name.
    pub hostname: String,
    /// Id of its osqueryd.
    pub agent_id: String,
}

list_query! {
    /// `GET /software`.
    ListSoftware, first page 1, with search_after {
        /// Name, ignoring case; `*` stands for any characters.
        name: String,
        /// Conditions on the version, separated by commas, such as `>=3.0,<3.0.7`. Requires a name.
        version: String,
        /// Table of osquery that it is from, such as `deb_packages`.
        source: String,
    }
}

list_query! {
    /// `GET /software/{id}/hosts`.
    ListSoftwareHosts, first page 1, with search_after {}
}
