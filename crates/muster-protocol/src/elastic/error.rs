//! The error body (EA §1.11).

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

/// What an error reply holds.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct ErrorBody {
    /// The HTTP status.
    #[serde(rename = "statusCode")]
    pub status_code: u16,
    /// The kind: `ErrAgentIdentity`.
    pub error: Cow<'static, str>,
    /// The text; left out when empty.
    #[serde(default, skip_serializing_if = "str::is_empty")]
    pub message: Cow<'static, str>,
}
