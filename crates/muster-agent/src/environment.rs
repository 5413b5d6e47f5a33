//! Variables of the agent's own environment that neither its components nor policies may see.

/// Prefix of the agent's own variables.
const OWN: &str = "MUSTER_";
/// Secrets among the variables of Elastic Agent's container images, which `muster-agent container` reads, or which may
/// be set for another image.
const OF_CONTAINERS: [&str; 13] = [
    "ELASTICSEARCH_PASSWORD",
    "FLEET_ENROLLMENT_TOKEN",
    "FLEET_HEADER",
    "FLEET_HEADERS",
    "FLEET_REPLACE_TOKEN",
    "FLEET_SERVER_CERT_KEY_PASSPHRASE",
    "FLEET_SERVER_DATABASE",
    "FLEET_SERVER_ELASTICSEARCH_PASSWORD",
    "FLEET_SERVER_SERVICE_TOKEN",
    "FLEET_SERVER_SET",
    "KIBANA_FLEET_PASSWORD",
    "KIBANA_FLEET_SERVICE_TOKEN",
    "KIBANA_PASSWORD",
];

/// Returns whether a variable can contain a secret of the agent, such as the enrollment token.
pub fn is_secret(name: &str) -> bool {
    name.starts_with(OWN) || OF_CONTAINERS.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_of_the_agent_are_secret_and_ordinary_variables_are_not() {
        for name in ["MUSTER_TOKEN", "FLEET_ENROLLMENT_TOKEN", "KIBANA_FLEET_PASSWORD", "FLEET_HEADER"] {
            assert!(is_secret(name), "{name}");
        }
        for name in ["PATH", "HOME", "FLEET_URL", "HTTPS_PROXY", "TOKEN"] {
            assert!(!is_secret(name), "{name}");
        }
    }
}
