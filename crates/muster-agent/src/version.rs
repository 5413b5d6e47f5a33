//! The one place that says which agent we are.

/// The version of the Fleet protocol's reference agent whose wire behaviour we have. Servers check it (EA §1.7), and let no
/// agent in that says its own 0.1.0 (`docs/agent.md`).
pub const PROTOCOL_VERSION: &str = "9.5.0";
/// Our own version.
pub const AGENT_VERSION: &str = env!("CARGO_PKG_VERSION");

/// What goes out as `User-Agent`.
pub fn user_agent() -> String {
    format!("Elastic Agent v{PROTOCOL_VERSION}")
}

/// What stands in `elastic.agent.build.original`.
pub fn build() -> String {
    format!("{PROTOCOL_VERSION} (muster-agent {AGENT_VERSION})")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_protocol_s_version_is_told_and_our_own_beside_it() {
        assert_eq!(user_agent(), format!("Elastic Agent v{PROTOCOL_VERSION}"));
        assert!(build().starts_with(PROTOCOL_VERSION) && build().ends_with(&format!("(muster-agent {AGENT_VERSION})")));
    }
}
