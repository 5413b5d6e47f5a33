//! Versions that the agent reports.

/// Version of Elastic Agent whose behavior on the wire this agent implements. Servers check it (EA §1.7) and would
/// reject our own version 0.1.0 (`docs/agent.md`).
pub const PROTOCOL_VERSION: &str = "9.5.0";
/// Version of this program.
pub const AGENT_VERSION: &str = env!("CARGO_PKG_VERSION");

/// Returns the `User-Agent` header.
pub fn user_agent() -> String {
    format!("Elastic Agent v{PROTOCOL_VERSION}")
}

/// Returns the value of `elastic.agent.build.original`.
pub fn build() -> String {
    format!("{PROTOCOL_VERSION} (muster-agent {AGENT_VERSION})")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_are_reported() {
        assert_eq!(user_agent(), format!("Elastic Agent v{PROTOCOL_VERSION}"));
        assert!(build().starts_with(PROTOCOL_VERSION) && build().ends_with(&format!("(muster-agent {AGENT_VERSION})")));
    }
}
