//! Fleet Desktop's part of the options of a space (FL §3.1).

use serde_json::{Map, Value};

use super::options::Options;
use super::options_check::{must_be, object};
use crate::canonical::is_host;
use crate::policy::problem::Problems;

/// Name of the section, and of its only member.
const SECTION: &str = "fleet_desktop";
const HOST: &str = "alternative_browser_host";
/// Maximum length of a host with its port, bytes.
const MAX_HOST: usize = 261;

/// What Fleet Desktop gets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DesktopOptions {
    /// Host, and optionally the port, at which it opens the page of the device: one that requires no client certificate, which browsers do
    /// not have (FL74). Empty for the server of the agent.
    pub alternative_browser_host: String,
}

impl DesktopOptions {
    /// Takes them from the options of a space.
    pub fn of(options: &Options) -> Self {
        let host = options.member(SECTION).and_then(|section| section.get(HOST)?.as_str());
        Self { alternative_browser_host: host.unwrap_or_default().to_owned() }
    }
}

/// Adds the problems of the section.
pub(super) fn check(document: &Map<String, Value>, problems: &mut Problems) {
    let Some(section) = document.get(SECTION) else { return };
    for (name, value) in object(SECTION, section, problems) {
        let path = format!("{SECTION}.{name}");
        match (name.as_str(), value) {
            (HOST, Value::String(host)) if host.is_empty() || (host.len() <= MAX_HOST && is_host(host)) => {}
            (HOST, Value::String(_)) => problems.add(path, "must be a host name or address, optionally with a port"),
            (HOST, other) => must_be("a string", path, other, problems),
            _ => problems.unknown(path, "field", name, &[HOST]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fl74_the_host_for_browsers_is_a_host_with_or_without_a_port() {
        let host =
            |text: &str| Options::parse(text).map(|options| DesktopOptions::of(&options).alternative_browser_host);
        for good in ["device.example.com", "device.example.com:8443", "192.0.2.7", "'[2001:db8::1]:443'"] {
            let text = format!("fleet_desktop: {{alternative_browser_host: {good}}}");
            assert_eq!(host(&text).unwrap(), good.trim_matches('\''));
        }
        for none in
            ["config: {}", "fleet_desktop: {}", "fleet_desktop: null", "fleet_desktop: {alternative_browser_host: ''}"]
        {
            assert_eq!(host(none).unwrap(), "", "{none}");
        }
        for bad in ["https://a", "a/b", "a b", "user@a", "5", "[a]", "'a:b:c'"] {
            assert!(host(&format!("fleet_desktop: {{alternative_browser_host: {bad}}}")).is_err(), "{bad}");
        }
        assert!(host("fleet_desktop: {transparency: x}").is_err() && host("fleet_desktop: [a]").is_err());
    }
}
