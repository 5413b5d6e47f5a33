//! The one place that says which agent we are.

/// The version of the Fleet protocol's reference agent whose wire behaviour we have. Servers check it (§1.7).
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
