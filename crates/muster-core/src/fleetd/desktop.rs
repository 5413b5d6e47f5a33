//! Fleet Desktop's part of the options of a space (FL §3.1).

use serde_json::{Map, Value};

use super::options::Options;
use super::options_check::{must_be, object};
use crate::canonical::is_host;
use crate::policy::problem::Problems;

/// Name of the section, and of its members.
const SECTION: &str = "fleet_desktop";
const HOST: &str = "alternative_browser_host";
const ORGANIZATION: &str = "organization";
const CONTACT: &str = "contact_url";
/// Maximum length of a host with its port, bytes.
const MAX_HOST: usize = 261;
/// Maximum length of the name of the organization, and of the link, bytes.
const MAX_NAME: usize = 100;
const MAX_URL: usize = 2_048;

/// What Fleet Desktop gets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DesktopOptions {
    /// Host, and optionally the port, at which it opens the page of the device: one that requires no client certificate, which browsers do
    /// not have (FL74). Empty for the server of the agent.
    pub alternative_browser_host: String,
    /// Name of the organization whose server this is, for the users of hosts. Empty if none was set.
    pub organization: String,
    /// Link to a web page, or address of mail, at which users reach the administrators. Empty if none was set.
    pub contact_url: String,
}

impl DesktopOptions {
    /// Takes them from the options of a space.
    pub fn of(options: &Options) -> Self {
        let section = options.member(SECTION);
        let text = |name| section.and_then(|section| section.get(name)?.as_str()).unwrap_or_default().to_owned();
        Self { alternative_browser_host: text(HOST), organization: text(ORGANIZATION), contact_url: text(CONTACT) }
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
            (ORGANIZATION, Value::String(name)) if name.len() <= MAX_NAME && !name.contains(char::is_control) => {}
            (ORGANIZATION, Value::String(_)) => {
                problems.add(path, format!("must have at most {MAX_NAME} bytes, without control characters"));
            }
            (CONTACT, Value::String(url)) if url.is_empty() || is_link(url) => {}
            (CONTACT, Value::String(_)) => problems.add(path, "must begin with https://, http:// or mailto:"),
            (HOST | ORGANIZATION | CONTACT, other) => must_be("a string", path, other, problems),
            _ => problems.unknown(path, "field", name, &[HOST, ORGANIZATION, CONTACT]),
        }
    }
}

/// Returns whether a link leads to a web page or writes a mail: nothing else, such as a script, may become a link on a page.
fn is_link(url: &str) -> bool {
    let rest = ["https://", "http://", "mailto:"].iter().find_map(|scheme| url.strip_prefix(scheme));
    url.len() <= MAX_URL
        && rest.is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_graphic()))
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
        let contact = |url: &str| Options::parse(&format!("fleet_desktop: {{contact_url: '{url}'}}")).is_ok();
        for good in ["", "https://help.example.com/it?from=fleet", "http://it", "mailto:it@example.com"] {
            assert!(contact(good), "{good}");
        }
        for bad in ["it@example.com", "javascript:alert(1)", "https://", "https://a b", "//a", "data:text/html,x"] {
            assert!(!contact(bad), "{bad}");
        }
        assert!(host("fleet_desktop: {transparency: x}").is_err() && host("fleet_desktop: [a]").is_err());
    }
}
