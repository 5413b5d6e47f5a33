//! orbit's configuration: flags of osqueryd, extensions and update channels from the options of a space (FL §2.5).

use serde_json::{Map, Value};

use super::options::Options;
use super::options_check::{check_options, must_be, object};
use super::platform::Platform;
use crate::policy::problem::Problems;

/// Names of the platforms in update repositories.
const TARGETS: [&str; 5] = ["macos", "linux", "linux-arm64", "windows", "windows-arm64"];
/// Programs that have an update channel.
const PROGRAMS: [&str; 3] = ["orbit", "osqueryd", "desktop"];
/// Maximum length of the name of a flag, an extension or a channel, bytes.
const MAX_NAME: usize = 128;

/// Returns the platform of a host in update repositories: whether it is ARM decides between two of them.
pub fn target(platform: Platform, is_arm: bool) -> &'static str {
    match (platform, is_arm) {
        (Platform::Darwin, _) => TARGETS[0],
        (Platform::Linux, false) => TARGETS[1],
        (Platform::Linux, true) => TARGETS[2],
        (Platform::Windows, false) => TARGETS[3],
        (Platform::Windows, true) => TARGETS[4],
    }
}

/// Returns whether an architecture, as a host reports it, is ARM.
pub fn is_arm(architecture: &str) -> bool {
    let name = architecture.trim().to_ascii_lowercase();
    name.contains("arm") || name.contains("aarch64")
}

/// The parts of orbit's configuration that come from the options.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OrbitOptions {
    /// Members of the configuration without the extensions: JSON, each with a comma before it.
    members: String,
    /// Extensions: the platform, the name as JSON, and the value as JSON.
    extensions: Vec<(String, String, String)>,
}

impl OrbitOptions {
    /// Takes them from the options of a space.
    pub fn of(options: &Options) -> Self {
        let mut members = String::new();
        for (ours, theirs) in
            [("command_line_flags", "command_line_startup_flags"), ("update_channels", "update_channels")]
        {
            if let Some(Value::Object(found)) =
                options.member(ours).filter(|found| *found != &Value::Object(Map::new()))
            {
                members.push_str(&format!(",\"{theirs}\":{}", Value::Object(found.clone())));
            }
        }
        let extensions = options.member("extensions").and_then(Value::as_object);
        let extension = |(name, value): (&String, &Value)| {
            let platform = value.get("platform")?.as_str()?.to_owned();
            Some((platform, Value::from(name.as_str()).to_string(), value.to_string()))
        };
        Self { members, extensions: extensions.into_iter().flatten().filter_map(extension).collect() }
    }

    /// Returns whether there are extensions, which depend on the platform of the host.
    pub fn have_extensions(&self) -> bool {
        !self.extensions.is_empty()
    }

    /// Returns the members of the configuration of hosts of a platform of update repositories: JSON, each with a comma before it. Extensions
    /// of other platforms are left out (FL57), and without any, the member is absent (FL55).
    pub fn members(&self, target: Option<&str>) -> String {
        let own = self.extensions.iter().filter(|(platform, ..)| Some(platform.as_str()) == target);
        let own: Vec<String> = own.map(|(_, name, value)| format!("{name}:{value}")).collect();
        match own.is_empty() {
            true => self.members.clone(),
            false => format!("{},\"extensions\":{{{}}}", self.members, own.join(",")),
        }
    }
}

/// Adds the problems of the members of a document that are for orbit.
pub(super) fn check(document: &Map<String, Value>, problems: &mut Problems) {
    if let Some(flags) = document.get("command_line_flags") {
        check_options("command_line_flags", flags, problems);
        for name in object("command_line_flags", flags, problems).keys().filter(|name| !is_name(name)) {
            problems.add(format!("command_line_flags.{name}"), "is not the name of a flag");
        }
    }
    if let Some(channels) = document.get("update_channels") {
        for (name, channel) in object("update_channels", channels, problems) {
            let path = format!("update_channels.{name}");
            if !PROGRAMS.contains(&name.as_str()) {
                problems.unknown(path, "program", name, &PROGRAMS);
            } else if !channel.as_str().is_some_and(is_name) {
                problems.add(path, "must be a channel, such as stable");
            }
        }
    }
    if let Some(extensions) = document.get("extensions") {
        for (name, extension) in object("extensions", extensions, problems) {
            check_extension(name, extension, problems);
        }
    }
}

fn check_extension(name: &str, extension: &Value, problems: &mut Problems) {
    let path = format!("extensions.{name}");
    if !is_name(name) {
        problems.add(path.as_str(), "must be a name of letters, digits, `-`, `_` and `.`");
    }
    let Value::Object(fields) = extension else { return must_be("an object", path, extension, problems) };
    for key in fields.keys().filter(|key| !["platform", "channel"].contains(&key.as_str())) {
        problems.unknown(format!("{path}.{key}"), "field", key, &["platform", "channel"]);
    }
    let text = |key: &str| fields.get(key).and_then(Value::as_str).unwrap_or_default();
    if !TARGETS.contains(&text("platform")) {
        problems.add(format!("{path}.platform"), format!("must be one of {}", TARGETS.join(", ")));
    }
    if !is_name(text("channel")) {
        problems.add(format!("{path}.channel"), "must be a channel, such as stable");
    }
}

/// Returns whether a text is a name that can be part of a path or a line of a file of flags.
fn is_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    (1..=MAX_NAME).contains(&name.len()) && name.bytes().all(allowed) && !name.starts_with('.')
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn config(options: &str, target: Option<&str>) -> Value {
        let options = OrbitOptions::of(&Options::parse(options).unwrap());
        serde_json::from_str(&format!("{{\"notifications\":{{}}{}}}", options.members(target))).unwrap()
    }

    #[test]
    fn fl57_extensions_of_other_platforms_are_left_out() {
        let options = "extensions:\n  hello: {platform: linux, channel: stable}\n  world: {platform: linux-arm64, channel: edge}\n";
        let names = |target| {
            let config = config(options, target);
            config.get("extensions").map(|all| all.as_object().unwrap().keys().cloned().collect::<Vec<_>>())
        };
        assert_eq!(names(Some("linux")), Some(vec!["hello".to_owned()]));
        assert_eq!(names(Some(target(Platform::Linux, is_arm("aarch64")))), Some(vec!["world".to_owned()]));
        assert_eq!((names(Some(target(Platform::Darwin, true))), names(None)), (None, None), "absent (FL55)");
        assert!(!is_arm("x86_64") && is_arm("ARM64e"));
    }

    #[test]
    fn flags_and_channels_are_passed_on() {
        let options = "command_line_flags: {verbose: true, logger_min_status: 1}\nupdate_channels: {orbit: edge}\n";
        let expected = json!({
            "notifications": {},
            "command_line_startup_flags": {"verbose": true, "logger_min_status": 1},
            "update_channels": {"orbit": "edge"},
        });
        assert_eq!(config(options, None), expected);
        assert_eq!(
            config("config: null\ncommand_line_flags: {}\nextensions: null\n", None),
            json!({"notifications": {}})
        );
    }

    #[test]
    fn flags_that_cut_hosts_off_and_unsafe_names_are_rejected() {
        for bad in [
            "command_line_flags: {tls_hostname: x}",
            "command_line_flags: {\"a\\nb\": 1}",
            "command_line_flags: {a: [1]}",
            "command_line_flags: [a]",
            "update_channels: {orbt: stable}",
            "update_channels: {orbit: ../x}",
            "extensions: {a: {platform: linux}}",
            "extensions: {a: {platform: amiga, channel: stable}}",
            "extensions: {../a: {platform: linux, channel: stable}}",
            "extensions: {a: {platform: linux, channel: stable, path: x}}",
            "extensions: {a: stable}",
        ] {
            assert!(Options::parse(bad).is_err(), "{bad}");
        }
    }
}
