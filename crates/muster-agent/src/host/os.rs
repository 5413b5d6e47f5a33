//! The operating system, from its release file.

use std::collections::HashMap;

use serde::Serialize;

/// `os` of the metadata.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub struct Os {
    family: String,
    kernel: String,
    platform: String,
    version: String,
    name: String,
    full: String,
}

/// Returns this host's operating system.
pub fn read() -> Os {
    // os-release(5) specifies both paths, in this order.
    let text = fs_err::read_to_string("/etc/os-release").or_else(|_| fs_err::read_to_string("/usr/lib/os-release"));
    let kernel = sysinfo::System::kernel_version().map(|version| version.to_string()).unwrap_or_default();
    from_release(&text.unwrap_or_default(), kernel)
}

/// Returns the machine id: 32 hex digits, or an empty string.
pub fn machine_id() -> String {
    // Old systems have only the file of D-Bus.
    let text =
        fs_err::read_to_string("/etc/machine-id").or_else(|_| fs_err::read_to_string("/var/lib/dbus/machine-id"));
    text.unwrap_or_default().trim().to_owned()
}

fn from_release(text: &str, kernel: String) -> Os {
    let fields = fields(text);
    let field = |name: &str| fields.get(name).cloned().unwrap_or_default();
    let platform = non_empty(field("ID"), std::env::consts::OS);
    let name = non_empty(field("NAME"), &platform);
    let version = non_empty(field("VERSION"), &field("VERSION_ID"));
    let codename = field("VERSION_CODENAME");
    let full = if codename.is_empty() { format!("{name} {version}") } else { format!("{name} {codename}({version})") };
    let family = family(&platform, &field("ID_LIKE")).to_owned();
    Os { family, kernel, platform, version, name, full: full.trim().to_owned() }
}

fn non_empty(text: String, otherwise: &str) -> String {
    if text.is_empty() { otherwise.to_owned() } else { text }
}

fn fields(text: &str) -> HashMap<&str, String> {
    let pairs = text.lines().filter_map(|line| line.split_once('='));
    pairs.map(|(name, value)| (name.trim(), value.trim().trim_matches(['"', '\'']).to_owned())).collect()
}

fn family<'a>(platform: &'a str, like: &'a str) -> &'a str {
    let known = |id: &str| match id {
        "debian" | "ubuntu" | "linuxmint" | "raspbian" => Some("debian"),
        "rhel" | "fedora" | "centos" | "rocky" | "almalinux" | "ol" | "amzn" => Some("redhat"),
        "suse" | "sles" | "opensuse" | "opensuse-leap" | "opensuse-tumbleweed" => Some("suse"),
        "arch" | "archarm" | "manjaro" => Some("arch"),
        "alpine" => Some("alpine"),
        _ => None,
    };
    // A derived distribution lists the distributions that it is based on in `ID_LIKE`.
    std::iter::once(platform).chain(like.split_whitespace()).find_map(known).unwrap_or(platform)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_operating_system_is_reported_as_by_elastic_agents() {
        let text = "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nNAME=\"Debian GNU/Linux\"\nVERSION_ID=\"12\"\n\
                    VERSION=\"12 (bookworm)\"\nVERSION_CODENAME=bookworm\nID=debian\n";
        let os = from_release(text, "6.1.0".into());
        assert_eq!(os.full, "Debian GNU/Linux bookworm(12 (bookworm))");
        assert_eq!(
            (os.family.as_str(), os.platform.as_str(), os.version.as_str()),
            ("debian", "debian", "12 (bookworm)")
        );
        assert_eq!(from_release("ID=rocky\nID_LIKE=\"rhel centos fedora\"\n", String::new()).family, "redhat");
        assert_eq!(from_release("", String::new()).platform, std::env::consts::OS);
    }
}
