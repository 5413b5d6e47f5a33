//! A Debian package of muster-agent. It contains only the program: its scripts install and uninstall the agent.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;

use crate::shell;

/// Directory of the program in the package.
const DIRECTORY: &str = "usr/lib/muster-agent";
/// Scripts of the package.
const SCRIPTS: [&str; 2] = ["postinst", "prerm"];

/// Builds a package of a stripped program in the directory `out`. Returns its path.
pub fn package(program: &Path, version: &str, out: &Path) -> anyhow::Result<PathBuf> {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => anyhow::bail!("no Debian architecture for {other}"),
    };
    let tree = out.join("debian");
    let version = debian_version(version);
    // Left behind by a build that failed.
    if tree.try_exists()? {
        std::fs::remove_dir_all(&tree)?;
    }
    for directory in ["DEBIAN", DIRECTORY] {
        std::fs::create_dir_all(tree.join(directory))?;
    }
    copy(program, &tree.join(DIRECTORY).join("muster-agent"))?;
    for script in SCRIPTS {
        let from = shell::root().join("crates/muster-agent/packaging/debian").join(script);
        copy(&from, &tree.join("DEBIAN").join(script))?;
    }
    std::fs::write(tree.join("DEBIAN/control"), control(&version, architecture))?;
    let package = out.join(format!("muster-agent_{version}_{architecture}.deb"));
    let mut build = Command::new("dpkg-deb");
    build.args(["--root-owner-group", "--build"]).arg(&tree).arg(&package);
    shell::run(build)?;
    std::fs::remove_dir_all(&tree)?;
    Ok(package)
}

/// Returns the version as Debian compares it: `1.2.3~rc.1` is older than `1.2.3`, and `1.2.3-rc.1` would be newer.
fn debian_version(version: &str) -> String {
    version.replace('-', "~")
}

fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    std::fs::copy(from, to).with_context(|| format!("cannot copy {}", from.display()))?;
    Ok(std::fs::set_permissions(to, std::fs::Permissions::from_mode(0o755))?)
}

fn control(version: &str, architecture: &str) -> String {
    // The versions of libc6 and systemd in Debian 12. Service managers other than systemd are supported, too.
    format!(
        "Package: muster-agent\nVersion: {version}\nArchitecture: {architecture}\nMaintainer: The Muster authors\n\
         Section: admin\nPriority: optional\nDepends: libc6 (>= 2.36), libgcc-s1\nRecommends: systemd, ca-certificates\n\
         Homepage: {}\nDescription: endpoint agent of the fleet control plane Muster\n \
         Enrolls the host in a fleet, applies its policy, and supervises its components.\n \
         To enroll after the installation: muster-agent enroll --url URL\n",
        env!("CARGO_PKG_REPOSITORY")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pre_release_is_older_than_the_release() {
        assert_eq!(debian_version("1.2.3"), "1.2.3");
        let pre_release = debian_version("1.2.3-rc.1");
        assert_eq!(pre_release, "1.2.3~rc.1");
        let compared = Command::new("dpkg").args(["--compare-versions", &pre_release, "lt", "1.2.3"]).status().unwrap();
        assert!(compared.success());
    }

    #[test]
    fn ag146_the_package_contains_the_program_and_the_scripts_that_uninstall_it() {
        let directory = std::env::temp_dir().join(format!("muster-debian-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let program = directory.join("program");
        std::fs::write(&program, "x").unwrap();
        let package = package(&program, "1.2.3", &directory).unwrap();
        let read = |what: &str| {
            let output = Command::new("dpkg-deb").arg(what).arg(&package).output().unwrap();
            String::from_utf8(output.stdout).unwrap()
        };
        let info = read("--info");
        for part in ["Version: 1.2.3", "postinst", "prerm"] {
            assert!(info.contains(part), "{part}: {info}");
        }
        let contents = read("--contents");
        assert!(
            contents.contains("-rwxr-xr-x root/root") && contents.contains("./usr/lib/muster-agent/muster-agent"),
            "{contents}"
        );
        std::fs::remove_dir_all(directory).unwrap();
    }
}
