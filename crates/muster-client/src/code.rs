//! Error codes of the management API.

/// The `code` of an error response. Messages are for people and may change; codes are stable.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorCode {
    /// No agent, policy, key or other object has this id.
    NotFound,
    /// A field has an invalid value.
    Invalid,
    /// A value is too long.
    TooLong,
    /// A filter cannot be parsed.
    KqlSyntax,
    /// A policy's configuration is invalid.
    PolicyInvalid,
    /// Another policy has this name.
    PolicyNameTaken,
    /// The policy is managed, and can only be changed with `force`.
    ManagedPolicy,
    /// The agent is not eligible for the action.
    AgentNotEligible,
    /// None of the selected agents is eligible for the action.
    NoAgentEligible,
    /// The credentials are missing or wrong.
    Unauthenticated,
    /// The caller lacks a privilege.
    Forbidden,
    /// The caller is not an administrator.
    NotAnAdministrator,
    /// Nobody has approved the device yet.
    AuthorizationPending,
    /// The device polls too often.
    SlowDown,
    /// The store currently accepts no writes.
    StoreUnavailable,
    /// An internal error of the server.
    Internal,
    /// Any other code.
    Other(String),
}

impl From<&str> for ErrorCode {
    fn from(code: &str) -> Self {
        match code {
            "not_found" => Self::NotFound,
            "invalid" => Self::Invalid,
            "too_long" => Self::TooLong,
            "kql_syntax" => Self::KqlSyntax,
            "policy_invalid" => Self::PolicyInvalid,
            "policy_name_taken" => Self::PolicyNameTaken,
            "managed_policy" => Self::ManagedPolicy,
            "agent_not_eligible" => Self::AgentNotEligible,
            "no_agent_eligible" => Self::NoAgentEligible,
            "unauthenticated" => Self::Unauthenticated,
            "forbidden" => Self::Forbidden,
            "not_an_administrator" => Self::NotAnAdministrator,
            "authorization_pending" => Self::AuthorizationPending,
            "slow_down" => Self::SlowDown,
            "store_unavailable" => Self::StoreUnavailable,
            "internal" => Self::Internal,
            // A newer server may send codes that this version does not know.
            other => Self::Other(other.to_owned()),
        }
    }
}
