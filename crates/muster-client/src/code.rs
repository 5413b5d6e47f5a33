//! Error codes of the management API.

/// What went wrong, by the `code` of an error response. Messages are for people and may change; codes don't.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorCode {
    /// No agent, policy, key or other object has that id.
    NotFound,
    /// A field has an invalid value.
    Invalid,
    /// A value is too long.
    TooLong,
    /// A filter can't be parsed.
    KqlSyntax,
    /// A policy's configuration is invalid.
    PolicyInvalid,
    /// Another policy has that name.
    PolicyNameTaken,
    /// The policy is managed and may not be changed without force.
    ManagedPolicy,
    /// The action is not for this agent.
    AgentNotEligible,
    /// The action is for none of the selected agents.
    NoAgentEligible,
    /// The credentials are missing or wrong.
    Unauthenticated,
    /// The caller lacks a privilege.
    Forbidden,
    /// The caller is not an administrator.
    NotAnAdministrator,
    /// The store takes no writes at the moment.
    StoreUnavailable,
    /// The server failed.
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
            "store_unavailable" => Self::StoreUnavailable,
            "internal" => Self::Internal,
            other => Self::Other(other.to_owned()),
        }
    }
}
