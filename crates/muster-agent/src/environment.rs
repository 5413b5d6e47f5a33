//! The environment that components and policies see: the agent's own without its secrets.

use std::borrow::Cow;

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

/// Ending of the variables that name a proxy: `HTTPS_PROXY`, `http_proxy`, `ALL_PROXY`. The address can contain a password.
const PROXY: &str = "_PROXY";

/// Returns the value that components and policies see of a variable; `None` if they see nothing of it.
pub fn visible<'a>(name: &str, value: &'a str) -> Option<Cow<'a, str>> {
    if name.starts_with(OWN) || OF_CONTAINERS.contains(&name) {
        return None;
    }
    if name.to_ascii_uppercase().ends_with(PROXY) {
        return Some(without_credentials(value));
    }
    Some(value.into())
}

/// Removes the user and the password from an address, with or without a scheme.
fn without_credentials(address: &str) -> Cow<'_, str> {
    let start = address.find("://").map_or(0, |end| end + "://".len());
    let (scheme, rest) = address.split_at(start);
    // The last one, because a password can contain the character itself.
    match rest.rsplit_once('@') {
        Some((_, host)) => format!("{scheme}{host}").into(),
        None => address.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_of_the_agent_are_hidden_and_ordinary_variables_are_not() {
        for name in ["MUSTER_TOKEN", "FLEET_ENROLLMENT_TOKEN", "KIBANA_FLEET_PASSWORD", "FLEET_HEADER"] {
            assert_eq!(visible(name, "x"), None, "{name}");
        }
        for name in ["PATH", "HOME", "FLEET_URL", "NO_PROXY", "TOKEN"] {
            assert_eq!(visible(name, "a@b").as_deref(), Some(if name == "NO_PROXY" { "b" } else { "a@b" }), "{name}");
        }
    }

    #[test]
    fn ag9_proxies_of_the_environment_are_visible_without_their_passwords() {
        for (value, seen) in [
            ("http://proxy:3128", "http://proxy:3128"),
            ("http://user:pass@proxy:3128/", "http://proxy:3128/"),
            ("user:p@ss@proxy", "proxy"),
            ("socks5://user:p/w@[::1]:1080", "socks5://[::1]:1080"),
            ("", ""),
        ] {
            for name in ["HTTPS_PROXY", "http_proxy", "ALL_PROXY"] {
                assert_eq!(visible(name, value).as_deref(), Some(seen), "{name}={value}");
            }
        }
    }
}
