//! Versions that the agent reports.

use std::sync::OnceLock;

use crate::upgrade::pack::VERSION_FILE;

/// Version of Elastic Agent whose behavior on the wire this agent implements. Servers check it (EA §1.7) and would
/// reject our own version 0.1.0 (`docs/agent.md`).
pub const PROTOCOL_VERSION: &str = "9.5.0";
/// Version that this program was built as.
const BUILT_AS: &str = env!("CARGO_PKG_VERSION");

/// Returns the version of this program: that of its package, which is in a file beside it, or that of its build.
pub fn agent_version() -> &'static str {
    static VERSION: OnceLock<String> = OnceLock::new();
    VERSION.get_or_init(|| packaged().unwrap_or_else(|| BUILT_AS.to_owned()))
}

fn packaged() -> Option<String> {
    let program = std::env::current_exe().ok()?;
    let text = fs_err::read_to_string(program.parent()?.join(VERSION_FILE)).ok()?;
    // Anything else is not the file of a package.
    muster_core::canonical::version(&text).ok().filter(|version| version == text.trim())
}

/// Returns the `User-Agent` header.
pub fn user_agent() -> String {
    format!("Elastic Agent v{PROTOCOL_VERSION}")
}

/// Returns the value of `elastic.agent.build.original`.
pub fn build() -> String {
    format!("{PROTOCOL_VERSION} (muster-agent {})", agent_version())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_are_reported() {
        assert_eq!(user_agent(), format!("Elastic Agent v{PROTOCOL_VERSION}"));
        assert_eq!(muster_core::package::own_version(&build()), Some(agent_version()));
    }
}
