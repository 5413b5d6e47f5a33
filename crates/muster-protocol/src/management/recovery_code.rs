//! `/api/fleet/agent_policies/{id}/recovery_code`: an addition of Muster.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Recovery code of a policy, returned once, when it is created.
#[derive(Clone, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
pub struct RecoveryCode {
    /// Policy id.
    pub policy_id: String,
    /// The code: four groups of five letters and digits.
    pub recovery_code: String,
}

impl std::fmt::Debug for RecoveryCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The code stays out of logs.
        write!(f, "RecoveryCode(of {})", self.policy_id)
    }
}
