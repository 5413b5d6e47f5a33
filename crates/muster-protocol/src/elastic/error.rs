//! The error body (EA §1.11).

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

/// Body of an error response.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct ErrorBody {
    /// HTTP status.
    #[serde(rename = "statusCode")]
    pub status_code: u16,
    /// Error code, such as `ErrAgentIdentity`.
    pub error: Cow<'static, str>,
    /// Message, omitted if empty.
    #[serde(default, skip_serializing_if = "str::is_empty")]
    // Absent, not empty, in the original (EA9).
    pub message: Cow<'static, str>,
}
