//! Versioned homes: each installed version of the agent has a directory of its own, and a link in the base directory
//! leads to the program of the active version.
//!
//! An upgrade creates a home and changes the link, a roll-back only changes the link. The configuration, the state and
//! the working directories of components are outside of the homes, so that they survive both.

use std::fmt;
use std::io;
use std::str::FromStr;

use camino::{Utf8Path, Utf8PathBuf};

use crate::paths::{Layout, PROGRAM};
use crate::state::atomic;
use muster_core::hex;

/// Number of hexadecimal digits of the program's SHA-256 in the name of a home.
const DIGEST_DIGITS: usize = 12;
/// Maximum length of a name.
const NAME_MAX: usize = 100;

/// Name of a versioned home: `VERSION-DIGEST`, with the first twelve digits of the SHA-256 of the program.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HomeName(String);

/// Why a text is not the name of a home.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not the name of a versioned home: expected VERSION-DIGEST")]
pub struct BadHomeName(String);

impl HomeName {
    /// Returns the name for a program of this version with this SHA-256.
    pub fn new(version: &str, digest: &[u8; 32]) -> Result<Self, BadHomeName> {
        format!("{version}-{}", &hex::encode(digest)[..DIGEST_DIGITS]).parse()
    }

    /// Returns the name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the version, which may contain hyphens: `9.6.0-SNAPSHOT`.
    pub fn version(&self) -> &str {
        self.0.rsplit_once('-').map_or("", |(version, _)| version)
    }
}

impl FromStr for HomeName {
    type Err = BadHomeName;

    /// Parses a name. A name never contains a separator and never begins with a dot, because it becomes part of a path.
    fn from_str(text: &str) -> Result<Self, BadHomeName> {
        let bad = || BadHomeName(text.chars().take(NAME_MAX).collect());
        let (version, digest) = text.rsplit_once('-').ok_or_else(bad)?;
        let digits = digest.len() == DIGEST_DIGITS && digest.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let plain = version.bytes().all(|b| b.is_ascii_alphanumeric() || b"._+-".contains(&b));
        let begins = version.starts_with(|c: char| c.is_ascii_alphanumeric());
        if !(digits && plain && begins) || text.len() > NAME_MAX {
            return Err(bad());
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for HomeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The directory of one version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Home {
    path: Utf8PathBuf,
}

impl Home {
    /// Creates the home at `path`.
    pub fn new(path: impl Into<Utf8PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// The directory.
    pub fn path(&self) -> &Utf8Path {
        &self.path
    }

    /// The program of this version.
    pub fn program(&self) -> Utf8PathBuf {
        self.path.join(PROGRAM)
    }

    /// Components that were delivered with this version.
    pub fn components(&self) -> Utf8PathBuf {
        self.path.join("components")
    }
}

/// Returns the active version; `None` if there is no link, or if it leads elsewhere.
pub fn active(layout: &Layout) -> io::Result<Option<HomeName>> {
    let target = match fs_err::read_link(layout.link()) {
        Ok(target) => target,
        // InvalidInput: it is not a link.
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidInput) => return Ok(None),
        Err(error) => return Err(error),
    };
    let name = target.parent().and_then(|home| home.file_name()).and_then(|name| name.to_str());
    // Only the link that `activate` writes counts. Any other target was not installed by us.
    Ok(name.and_then(|name| name.parse().ok()).filter(|name| target == target_of(name)))
}

/// Makes the program of `name` the active one, atomically and durably.
pub fn activate(layout: &Layout, name: &HomeName) -> io::Result<()> {
    point(layout, &layout.link(), name)
}

/// Lets the second link lead to the program of `name`, while another version is tried.
pub fn remember(layout: &Layout, name: &HomeName) -> io::Result<()> {
    point(layout, &layout.previous_link(), name)
}

fn point(layout: &Layout, link: &Utf8Path, name: &HomeName) -> io::Result<()> {
    let new = link.with_extension("new");
    // After a crash, the temporary link may be left.
    atomic::remove(&new)?;
    fs_err::os::unix::fs::symlink(target_of(name), &new)?;
    fs_err::rename(&new, link)?;
    atomic::sync(layout.base())
}

/// Returns the versions that are installed, in no particular order. Other entries of the directory are ignored.
pub fn installed(layout: &Layout) -> io::Result<Vec<HomeName>> {
    let entries = match fs_err::read_dir(layout.homes()) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry?;
        // The type of the entry itself: a link to a directory is not a home.
        if entry.file_type()?.is_dir() {
            names.extend(entry.file_name().to_str().and_then(|name| name.parse::<HomeName>().ok()));
        }
    }
    Ok(names)
}

/// Returns the target of the link, which is relative, so that the base directory can be moved.
fn target_of(name: &HomeName) -> Utf8PathBuf {
    Utf8Path::new("versions").join(name.as_str()).join(PROGRAM)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout() -> (tempfile::TempDir, Layout) {
        let directory = tempfile::tempdir().unwrap();
        let layout = Layout::new(Utf8Path::from_path(directory.path()).unwrap());
        (directory, layout)
    }

    #[test]
    fn a_name_contains_the_version_and_the_digest() {
        let name = HomeName::new("9.6.0-SNAPSHOT", &[0xab; 32]).unwrap();
        assert_eq!((name.as_str(), name.version()), ("9.6.0-SNAPSHOT-abababababab", "9.6.0-SNAPSHOT"));
        for bad in
            ["", "1.0", "-abababababab", "../x-abababababab", ".1-abababababab", "1/2-abababababab", "1-ABABABABABAB"]
        {
            assert!(bad.parse::<HomeName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn the_link_is_replaced_and_only_leads_to_a_home() {
        let (_directory, layout) = layout();
        let (old, new) = (HomeName::new("1", &[1; 32]).unwrap(), HomeName::new("2", &[2; 32]).unwrap());
        assert_eq!(active(&layout).unwrap(), None);
        for name in [&old, &new, &old] {
            activate(&layout, name).unwrap();
            assert_eq!(active(&layout).unwrap().as_ref(), Some(name));
        }
        // A temporary link of an interrupted change.
        std::os::unix::fs::symlink("/etc/passwd", layout.link().with_extension("new")).unwrap();
        activate(&layout, &new).unwrap();
        assert_eq!(active(&layout).unwrap(), Some(new));
        for target in ["/bin/sh", "versions/1-010101010101/other", "other/1-010101010101/muster-agent"] {
            fs_err::remove_file(layout.link()).unwrap();
            std::os::unix::fs::symlink(target, layout.link()).unwrap();
            assert_eq!(active(&layout).unwrap(), None, "{target}");
        }
    }

    #[test]
    fn only_directories_are_homes() {
        let (_directory, layout) = layout();
        assert!(installed(&layout).unwrap().is_empty());
        let (real, linked) = (HomeName::new("1", &[1; 32]).unwrap(), HomeName::new("2", &[2; 32]).unwrap());
        fs_err::create_dir_all(layout.home(&real).path()).unwrap();
        fs_err::create_dir_all(layout.homes().join("notes")).unwrap();
        std::os::unix::fs::symlink(real.as_str(), layout.home(&linked).path()).unwrap();
        assert_eq!(installed(&layout).unwrap(), [real]);
    }
}
