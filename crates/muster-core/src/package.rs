//! Names of the files of muster-agent's packages: an archive, and the signed manifest that describes it.

/// Prefix of every name.
const PREFIX: &str = "muster-agent-";
/// Suffixes of the archive and of its manifest.
const SUFFIXES: [&str; 2] = [".tar.gz", ".manifest.json"];
/// Maximum length of a name in bytes.
const NAME_MAX: usize = 128;

/// Returns whether `name` names a file of a package: `muster-agent-VERSION-OS-ARCH.tar.gz` or `….manifest.json`.
pub fn is_package_file(name: &str) -> bool {
    let rest = name.strip_prefix(PREFIX).and_then(|rest| SUFFIXES.iter().find_map(|suffix| rest.strip_suffix(suffix)));
    let Some(rest) = rest.filter(|_| name.len() <= NAME_MAX) else { return false };
    // From the end, because a version can contain hyphens.
    let mut parts = rest.rsplitn(3, '-');
    let (arch, os, version) = (parts.next(), parts.next(), parts.next().unwrap_or_default());
    let word = |part: Option<&str>| {
        part.is_some_and(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'))
    };
    word(arch) && word(os) && crate::canonical::version(version).as_deref() == Ok(version)
}

/// Returns the version of muster-agent in `elastic.agent.build.original`: `9.5.0 (muster-agent 0.1.0)`. `None` for other
/// agents.
pub fn own_version(build: &str) -> Option<&str> {
    let (_, rest) = build.split_once("(muster-agent ")?;
    let (version, _) = rest.split_once(')')?;
    (!version.is_empty() && version.len() <= NAME_MAX).then_some(version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_packages_contain_version_system_and_processor() {
        for good in [
            "muster-agent-0.2.0-linux-x86_64.tar.gz",
            "muster-agent-0.2.0-rc.1-linux-aarch64.manifest.json",
            "muster-agent-1.0.0+build7-linux-x86_64.tar.gz",
        ] {
            assert!(is_package_file(good), "{good}");
        }
        for bad in [
            "muster-agent-0.2-linux-x86_64.tar.gz",
            "muster-agent-0.2.0-linux.tar.gz",
            "muster-agent-0.2.0-linux-x86_64.zip",
            "elastic-agent-0.2.0-linux-x86_64.tar.gz",
            "muster-agent-0.2.0-linux-../x.tar.gz",
            "",
        ] {
            assert!(!is_package_file(bad), "{bad}");
        }
    }

    #[test]
    fn the_version_of_muster_agent_is_read_from_its_build() {
        assert_eq!(own_version("9.5.0 (muster-agent 0.1.0)"), Some("0.1.0"));
        for other in ["9.5.0+build202601", "9.5.0 (muster-agent )", "9.5.0 (muster-agent 0.1.0", ""] {
            assert_eq!(own_version(other), None, "{other}");
        }
    }
}
