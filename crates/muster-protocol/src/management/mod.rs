//! The management REST API: `/api/fleet/…`, compatible with Kibana (MG §1, §2), with additions.
//!
//! Requests reject unknown fields. Responses accept them, so that an older client works with a newer server.

// Names of fields are those of Kibana, in its mixture of snake case and camel case, because scripts and Terraform
// providers use them. A field of our own follows the style of the object that it is in.
pub mod action;
pub mod agent;
pub mod agent_action;
pub mod agent_policy;
pub mod alert;
pub mod audit;
pub mod backup;
pub mod bulk;
pub mod ca;
pub mod carve;
pub mod change;
pub mod disk_key;
pub mod enrollment_key;
pub mod envelope;
pub mod file;
pub mod fleetd_options;
pub mod host;
pub mod host_check;
pub mod host_run;
pub mod identity;
pub mod install;
pub mod inventory;
pub mod json;
pub mod label;
mod list_query;
pub mod live_query;
pub mod log_in;
pub mod network_object;
pub mod node;
pub mod output;
pub mod pack;
pub mod recovery_code;
pub mod refused;
pub mod respond;
pub mod rollout;
pub mod saved_query;
pub mod script;
pub mod settings;
pub mod setup;
pub mod software;
pub mod status;
pub mod uninstall_token;

pub use envelope::{Empty, ErrorBody, Item, Items};
pub use json::Json;
pub use status::{AgentStatusResults, ServerStatus};

use std::borrow::Cow;
use std::marker::PhantomData;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Deserializer};

// serde treats a missing `Option` as `None`, unless the field has a `deserialize_with` and no default.
/// Deserializes a required field that may be `null`.
pub(crate) fn nullable<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    Option::deserialize(deserializer)
}

/// Schema of a field that [`nullable`] deserializes: an `Option` alone would be described as optional.
pub(crate) struct Nullable<T>(PhantomData<T>);

impl<T: JsonSchema> JsonSchema for Nullable<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        T::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        generator.subschema_for::<Option<T>>()
    }
}

/// Deserializes an optional field, with `None` for an absent one and `Some(None)` for `null`.
pub(crate) fn present<'de, D, T>(deserializer: D) -> Result<Option<Option<T>>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    Option::deserialize(deserializer).map(Some)
}
