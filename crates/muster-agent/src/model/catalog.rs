//! The installed components and the local rules. Read when the agent starts.

use muster_core::error_chain::chain;
use std::os::unix::fs::MetadataExt;

use camino::{Utf8Path, Utf8PathBuf};

use super::capabilities::Capabilities;
use super::specification::{InputSpecification, Specification};
use crate::paths::Layout;
use crate::regular_file;

/// Ending of specification files.
const ENDING: &str = ".spec.yml";
/// Maximum size of a file.
const FILE_MAX: u64 = 1 << 20;
/// Permissions that nobody except the owner may have.
const WRITABLE_BY_OTHERS: u32 = 0o022;

/// An input type with the program that runs it.
#[derive(Clone, Debug)]
pub struct Installed {
    /// Its specification.
    pub input: InputSpecification,
    /// The program.
    pub binary: Utf8PathBuf,
}

impl Installed {
    /// Returns whether it is a service of the operating system.
    pub fn is_service(&self) -> bool {
        self.input.service.is_some()
    }
}

/// What is installed on this host.
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    installed: Vec<Installed>,
    /// Specifications that are ignored, with the reason.
    ignored: Vec<String>,
    /// The local rules.
    pub capabilities: Capabilities,
}

/// Why the catalog cannot be used. The agent does not start, because it would ignore a rule.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {reason}")]
pub struct BadRules {
    path: Utf8PathBuf,
    reason: String,
}

impl Catalog {
    /// Reads the specifications and the rules.
    pub fn load(layout: &Layout) -> Result<Self, BadRules> {
        let rules = layout.capabilities();
        let capabilities = match trusted(&rules) {
            Ok(None) => Capabilities::default(),
            Ok(Some(text)) => Capabilities::parse(&text).map_err(|reason| BadRules { path: rules.clone(), reason })?,
            Err(reason) => return Err(BadRules { path: rules, reason }),
        };
        let (installed, ignored) = specifications(&layout.components());
        Ok(Self { installed, ignored, capabilities })
    }

    /// Reads only the specifications. Local rules decide what runs, and not what is uninstalled.
    pub fn without_rules(layout: &Layout) -> Self {
        let (installed, ignored) = specifications(&layout.components());
        Self { installed, ignored, capabilities: Capabilities::default() }
    }

    /// Creates a catalog for tests.
    pub fn of(installed: Vec<Installed>, capabilities: Capabilities) -> Self {
        Self { installed, ignored: Vec::new(), capabilities }
    }

    /// Returns the specifications that are ignored, with the reason: the one for an unknown type may be among them.
    pub fn ignored(&self) -> &[String] {
        &self.ignored
    }

    /// Returns the component for inputs of this type. One for `platform` is preferred.
    pub fn find(&self, kind: &str, platform: &str) -> Option<&Installed> {
        let all = || self.installed.iter().filter(|installed| installed.input.runs(kind));
        let fits = |installed: &&Installed| installed.input.platforms.iter().any(|one| one == platform);
        all().find(fits).or_else(|| all().next())
    }
}

/// Reads all specifications of a directory. Also returns those that cannot be used, whose types are then unknown.
fn specifications(directory: &Utf8Path) -> (Vec<Installed>, Vec<String>) {
    let (mut installed, mut ignored) = (Vec::new(), Vec::new());
    let Ok(entries) = directory.read_dir_utf8() else { return (installed, ignored) };
    // Who may write to the directory can put any file into it.
    let owner = directory.metadata().map_err(|error| error.to_string());
    if let Err(reason) = owner.and_then(|found| check_owner(found.uid(), found.mode())) {
        tracing::error!(path = %directory, reason, "component specifications ignored");
        ignored.push(format!("{directory}: {reason}"));
        return (installed, ignored);
    }
    let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path().to_owned()).collect();
    // In a fixed order, in case two specifications define the same type.
    paths.sort();
    for path in paths {
        let Some(stem) = path.as_str().strip_suffix(ENDING) else { continue };
        let text = trusted(&path).map(Option::unwrap_or_default);
        match text.and_then(|text| Specification::parse(&text)) {
            Ok(read) => {
                for input in read.inputs {
                    warn_of_twin(&installed, &input, &path);
                    installed.push(Installed { input, binary: Utf8PathBuf::from(stem) });
                }
            }
            Err(reason) => {
                tracing::error!(%path, reason, "component specification ignored");
                ignored.push(format!("{path}: {reason}"));
            }
        }
    }
    (installed, ignored)
}

/// Logs that another specification defines the same type for the same platform: the first file in the order of names counts.
fn warn_of_twin(installed: &[Installed], input: &InputSpecification, path: &Utf8Path) {
    let is_twin = |other: &&Installed| {
        other.input.name == input.name && other.input.platforms.iter().any(|one| input.platforms.contains(one))
    };
    if let Some(twin) = installed.iter().find(is_twin) {
        let (kind, first) = (&input.name, &twin.binary);
        tracing::warn!(%path, kind, %first, "another component is specified for this type; the first one runs");
    }
}

/// Reads a file that decides what runs; `None` if it does not exist. Others must not be able to write it.
pub fn trusted(path: &Utf8Path) -> Result<Option<String>, String> {
    let file = match regular_file::open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(|error| chain(&error).to_string())?,
    };
    let metadata = file.metadata().map_err(|error| chain(&error).to_string())?;
    check_owner(metadata.uid(), metadata.mode())?;
    if metadata.len() > FILE_MAX {
        return Err(format!("larger than {FILE_MAX} bytes"));
    }
    // The open file is read, because the path could lead to another one by now.
    let mut text = String::new();
    std::io::Read::read_to_string(&mut std::io::Read::take(file, FILE_MAX), &mut text)
        .map_err(|error| chain(&error).to_string())?;
    Ok(Some(text))
}

/// Checks that only root or the user of the agent can write a file.
pub fn check_owner(owner: u32, mode: u32) -> Result<(), String> {
    if owner != 0 && owner != nix::unistd::geteuid().as_raw() {
        return Err(format!("belongs to another user ({owner})"));
    }
    if mode & WRITABLE_BY_OTHERS != 0 {
        return Err(format!("writable by others (mode {:o})", mode & 0o7777));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const SPEC: &str =
        "version: 2\ninputs:\n- {name: fake, description: x, platforms: [linux/amd64], outputs: [x], command: {}}\n";

    #[test]
    fn ag48_files_that_others_can_write_are_not_used() {
        let directory = tempfile::tempdir().unwrap();
        let layout = Layout::new(Utf8Path::from_path(directory.path()).unwrap());
        fs_err::create_dir(layout.components()).unwrap();
        let file = layout.components().join("fake.spec.yml");
        fs_err::write(&file, SPEC).unwrap();
        fs_err::write(layout.components().join("broken.spec.yml"), "inputs: [").unwrap();
        let find = || Catalog::load(&layout).unwrap().find("fake", "linux/amd64").map(|found| found.binary.clone());
        assert_eq!(find(), Some(layout.components().join("fake")));
        let ignored = Catalog::load(&layout).unwrap().ignored().join(" ");
        assert!(ignored.contains("broken.spec.yml: "), "{ignored}");
        fs_err::set_permissions(&file, std::fs::Permissions::from_mode(0o666)).unwrap();
        assert_eq!(find(), None);
        fs_err::write(layout.capabilities(), "capabilities: [{rule: deny, input: fake}]").unwrap();
        assert!(!Catalog::load(&layout).unwrap().capabilities.allow_input("fake"));
        let mode = |mode: u32| {
            fs_err::set_permissions(layout.capabilities(), std::fs::Permissions::from_mode(mode)).unwrap();
        };
        for writable in [0o620, 0o602] {
            mode(writable);
            assert!(Catalog::load(&layout).unwrap_err().to_string().contains("writable by others"), "{writable:o}");
        }
        mode(0o640);
        assert!(!Catalog::load(&layout).unwrap().capabilities.allow_input("fake"), "readable by its group");
    }
}
