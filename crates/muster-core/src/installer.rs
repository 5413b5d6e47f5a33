//! Installers: software packages with the scripts that orbit installs and uninstalls them with (FL §2.6).

use std::time::Duration;

use crate::error::Error;
use crate::fleetd::platform::Platform;
use crate::id::{FileId, InstallerId, SpaceId};
use crate::script::MAX_SCRIPT;
use crate::time::Timestamp;

/// Maximum length of a package, bytes.
pub const MAX_BYTES: u64 = 2 << 30;
/// Maximum number of installers of a space.
pub const MAX_INSTALLERS: u64 = 500;
/// Maximum total length of the packages of a space, bytes.
pub const MAX_TOTAL: u64 = 20 << 30;
/// Length of each stored block of a package but the last, bytes. A download has one block in memory.
pub const BLOCK: u64 = 1 << 20;
/// Maximum length of a condition, bytes.
pub const MAX_CONDITION: usize = 64 * 1024;
/// Time after which an installer without its package is deleted.
pub const UPLOAD_WITHIN: Duration = Duration::from_secs(24 * 60 * 60);
/// Maximum length of a name, a version and a file name, bytes.
const MAX_NAME: usize = 255;

/// Format of a package.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Debian.
    Deb,
    /// RPM.
    Rpm,
    /// macOS.
    Pkg,
    /// Windows Installer.
    Msi,
    /// A program for Windows that installs software.
    Exe,
    /// An archive, which orbit unpacks before it runs the script.
    TarGz,
}

impl Format {
    /// All formats.
    pub const ALL: [Self; 6] = [Self::Deb, Self::Rpm, Self::Pkg, Self::Msi, Self::Exe, Self::TarGz];

    /// Returns the word, which is the extension of files.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Deb => "deb",
            Self::Rpm => "rpm",
            Self::Pkg => "pkg",
            Self::Msi => "msi",
            Self::Exe => "exe",
            Self::TarGz => "tar.gz",
        }
    }

    /// Parses a word.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.as_str() == word)
    }

    /// Returns the format of a file, by its extension.
    pub fn of_file(name: &str) -> Option<Self> {
        let name = name.to_ascii_lowercase();
        if name.ends_with(".tgz") {
            return Some(Self::TarGz);
        }
        Self::ALL.into_iter().find(|format| name.strip_suffix(format.as_str()).is_some_and(|rest| rest.ends_with('.')))
    }

    /// Returns the platform that the format is for. Archives are for any.
    pub const fn platform(self) -> Option<Platform> {
        match self {
            Self::Deb | Self::Rpm => Some(Platform::Linux),
            Self::Pkg => Some(Platform::Darwin),
            Self::Msi | Self::Exe => Some(Platform::Windows),
            Self::TarGz => None,
        }
    }

    /// Returns whether a file begins with the signature of the format.
    pub fn matches(self, beginning: &[u8]) -> bool {
        let magic: &[u8] = match self {
            Self::Deb => b"!<arch>\n",
            Self::Rpm => &[0xed, 0xab, 0xee, 0xdb],
            Self::Pkg => b"xar!",
            Self::Msi => &[0xd0, 0xcf, 0x11, 0xe0, 0xa1, 0xb1, 0x1a, 0xe1],
            Self::Exe => b"MZ",
            Self::TarGz => &[0x1f, 0x8b],
        };
        beginning.starts_with(magic)
    }

    /// Returns the script that installs a package, whose path is in the variable `INSTALLER_PATH`; empty if there is none for the format.
    pub const fn default_install(self) -> &'static str {
        match self {
            Self::Deb => {
                "#!/bin/sh\nset -e\nexport DEBIAN_FRONTEND=noninteractive\napt-get install --assume-yes \"$INSTALLER_PATH\"\n"
            }
            Self::Rpm => {
                "#!/bin/sh\nset -e\nif command -v dnf >/dev/null; then\n  dnf install --assumeyes \"$INSTALLER_PATH\"\nelse\n  \
                 rpm --upgrade --verbose \"$INSTALLER_PATH\"\nfi\n"
            }
            Self::Pkg => "#!/bin/sh\nset -e\ninstaller -pkg \"$INSTALLER_PATH\" -target /\n",
            Self::Msi => {
                "$log = Join-Path $env:TEMP \"install.log\"\n$arguments = \"/quiet /norestart /i `\"$env:INSTALLER_PATH`\" /lv \
                 `\"$log`\"\"\n$process = Start-Process msiexec.exe -ArgumentList $arguments -PassThru -Verb RunAs -Wait\n\
                 Get-Content $log -Tail 200\nExit $process.ExitCode\n"
            }
            Self::Exe | Self::TarGz => "",
        }
    }

    /// Returns the script that uninstalls the package of this name; empty if there is none for the format.
    pub fn default_uninstall(self, name: &str) -> String {
        // The name becomes a part of the script, so it must have the form of the names of packages.
        if !is_package_name(name) {
            return String::new();
        }
        match self {
            Self::Deb => format!(
                "#!/bin/sh\nset -e\nexport DEBIAN_FRONTEND=noninteractive\napt-get remove --assume-yes -- '{name}'\n"
            ),
            Self::Rpm => format!(
                "#!/bin/sh\nset -e\nif command -v dnf >/dev/null; then\n  dnf remove --assumeyes '{name}'\nelse\n  \
                 rpm --erase --verbose '{name}'\nfi\n"
            ),
            Self::Pkg | Self::Msi | Self::Exe | Self::TarGz => String::new(),
        }
    }
}

fn is_package_name(name: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "+-._".contains(c);
    name.starts_with(|c: char| c.is_ascii_alphanumeric()) && name.chars().all(is_plain)
}

/// Returns the name and the version that the name of a file states, such as `zsh_5.9-4_amd64.deb` or `zsh-5.9-4.x86_64.rpm`. Either may
/// be empty.
pub fn named_in(file_name: &str) -> (String, String) {
    let Some(format) = Format::of_file(file_name) else { return Default::default() };
    let extension =
        if file_name.to_ascii_lowercase().ends_with(".tgz") { ".tgz".len() } else { format.as_str().len() + 1 };
    let stem = &file_name[..file_name.len() - extension];
    let parts = match format {
        Format::Deb => stem.split_once('_').map(|(name, rest)| (name, rest.split('_').next().unwrap_or_default())),
        Format::Rpm => {
            // The architecture follows the last dot, and the release the last hyphen.
            let stem = stem.rsplit_once('.').map_or(stem, |(stem, _)| stem);
            let name_end = stem.rmatch_indices('-').nth(1).map(|(at, _)| at);
            name_end.map(|at| (&stem[..at], &stem[at + 1..]))
        }
        _ => stem
            .match_indices(['-', '_', ' '])
            .find(|(at, _)| stem[at + 1..].starts_with(|c: char| c.is_ascii_digit()))
            .map(|(at, _)| (&stem[..at], &stem[at + 1..])),
    };
    let (name, version) = parts.unwrap_or((stem, ""));
    (name.to_owned(), version.to_owned())
}

/// A package with its scripts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installer {
    /// Id.
    pub id: InstallerId,
    /// The space.
    pub space: SpaceId,
    /// Name of the software.
    pub name: String,
    /// Version of the software. Name, version and platform together are unique in the space.
    pub version: String,
    /// Format.
    pub format: Format,
    /// The platform of the hosts that it is for.
    pub platform: Platform,
    /// Name of the file.
    pub file_name: String,
    /// Length of the package, bytes; as announced until it is stored.
    pub size: u64,
    /// SHA-256 of the package, in hexadecimal digits; empty until it is stored, unless it was announced.
    pub sha256: String,
    /// Query of osquery that must return rows on a host for the package to be installed; empty for none.
    pub condition: String,
    /// Script that installs the package.
    pub install_script: String,
    /// Script that runs after it; empty for none. If it fails, orbit runs the one that uninstalls.
    pub post_install_script: String,
    /// Script that uninstalls the software; empty for none.
    pub uninstall_script: String,
    /// The actor that created it.
    pub created_by: String,
    /// Creation time.
    pub created_at: Timestamp,
    /// Time at which the package was stored completely.
    pub uploaded_at: Option<Timestamp>,
}

impl Installer {
    /// Validates an installer that is to be stored.
    pub fn check(&self) -> Result<(), Error> {
        check_name("name", &self.name)?;
        check_name("version", &self.version)?;
        check_file_name(&self.file_name)?;
        if let Some(platform) = self.format.platform().filter(|platform| *platform != self.platform) {
            let reason = format!("a file of the format {} is for {}", self.format.as_str(), platform.as_str());
            return Err(Error::invalid("platform", reason));
        }
        if !(1..=MAX_BYTES).contains(&self.size) {
            return Err(Error::invalid("size", format!("must be from 1 to {MAX_BYTES} bytes")));
        }
        let is_hash =
            self.sha256.len() == 64 && self.sha256.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        if !self.sha256.is_empty() && !is_hash {
            return Err(Error::invalid("sha256", "must have 64 hexadecimal digits, in lower case"));
        }
        if self.install_script.trim().is_empty() {
            let reason = format!("is required: there is no default for the format {}", self.format.as_str());
            return Err(Error::invalid("install_script", reason));
        }
        let scripts = [
            ("install_script", &self.install_script, MAX_SCRIPT),
            ("post_install_script", &self.post_install_script, MAX_SCRIPT),
            ("uninstall_script", &self.uninstall_script, MAX_SCRIPT),
            ("condition", &self.condition, MAX_CONDITION),
        ];
        scripts.into_iter().try_for_each(|(field, text, most)| check_text(field, text, most))
    }

    /// Returns the id under which the blocks are stored.
    pub fn content(&self) -> FileId {
        FileId::trusted(self.id.as_str())
    }

    /// Returns the numbers and lengths of the blocks of the package.
    pub fn blocks(&self) -> impl Iterator<Item = (i64, u64)> + Send + use<> {
        let size = self.size;
        let numbers = 0..i64::try_from(size.div_ceil(BLOCK)).unwrap_or(i64::MAX);
        numbers.map(move |number| (number, BLOCK.min(size - number.unsigned_abs() * BLOCK)))
    }
}

fn check_name(field: &'static str, text: &str) -> Result<(), Error> {
    if text.trim().is_empty() || text.len() > MAX_NAME || text.chars().any(char::is_control) {
        return Err(Error::invalid(field, format!("must have 1 to {MAX_NAME} bytes, without control characters")));
    }
    Ok(())
}

/// Rejects names that are not safe as the name of a file on a host, or in the header that contains it.
fn check_file_name(name: &str) -> Result<(), Error> {
    check_name("file_name", name)?;
    if Format::of_file(name).is_none() || name.starts_with('.') || name.contains(['/', '\\', '"', ':']) {
        let formats = Format::ALL.map(Format::as_str).join(", ");
        let reason = format!("must end with one of {formats}, and contain no slash, colon or quotation mark");
        return Err(Error::invalid("file_name", reason));
    }
    Ok(())
}

fn check_text(field: &'static str, text: &str, most: usize) -> Result<(), Error> {
    if text.len() > most || text.contains('\0') {
        return Err(Error::invalid(field, format!("at most {most} bytes, without null characters")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::at;

    fn installer(file_name: &str, platform: Platform) -> Installer {
        let format = Format::of_file(file_name).unwrap();
        Installer {
            id: InstallerId::trusted("i"),
            space: SpaceId::default(),
            name: "zsh".into(),
            version: "5.9-4".into(),
            format,
            platform,
            file_name: file_name.into(),
            size: 5,
            sha256: String::new(),
            condition: String::new(),
            install_script: format.default_install().into(),
            post_install_script: String::new(),
            uninstall_script: format.default_uninstall("zsh"),
            created_by: String::new(),
            created_at: at(0),
            uploaded_at: None,
        }
    }

    #[test]
    fn names_of_files_state_format_name_and_version() {
        for (file, format, name, version) in [
            ("zsh_5.9-4+b2_amd64.deb", Format::Deb, "zsh", "5.9-4+b2"),
            ("zsh-common-5.9-4.fc40.x86_64.rpm", Format::Rpm, "zsh-common", "5.9-4.fc40"),
            ("Firefox 128.0.pkg", Format::Pkg, "Firefox", "128.0"),
            ("7z2408-x64.MSI", Format::Msi, "7z2408-x64", ""),
            ("setup.exe", Format::Exe, "setup", ""),
            ("tool-1.2.tgz", Format::TarGz, "tool", "1.2"),
            ("tool-1.2.tar.gz", Format::TarGz, "tool", "1.2"),
        ] {
            assert_eq!(Format::of_file(file), Some(format), "{file}");
            assert_eq!(named_in(file), (name.to_owned(), version.to_owned()), "{file}");
        }
        for none in ["deb", "a.zip", "", "a.deb.txt"] {
            assert_eq!((Format::of_file(none), named_in(none).0.as_str()), (None, ""), "{none}");
        }
        assert!(Format::ALL.into_iter().all(|format| Format::parse(format.as_str()) == Some(format)));
    }

    #[test]
    fn a_name_that_is_no_package_gets_no_script() {
        assert!(Format::Deb.default_uninstall("libc++1").contains("'libc++1'"));
        for name in ["", "a b", "a'; rm -rf /", "-y", "ä"] {
            assert_eq!(Format::Rpm.default_uninstall(name), "", "{name}");
        }
        assert_eq!(Format::Msi.default_uninstall("zsh"), "");
    }

    #[test]
    fn bad_installers_are_rejected() {
        let good = installer("zsh_5.9_amd64.deb", Platform::Linux);
        good.check().unwrap();
        installer("tool.tar.gz", Platform::Darwin).check().unwrap_err();
        let with_script = Installer { install_script: "x".into(), ..installer("tool.tar.gz", Platform::Darwin) };
        with_script.check().unwrap();
        for (field, bad) in [
            ("name", Installer { name: " ".into(), ..good.clone() }),
            ("version", Installer { version: "1\n".into(), ..good.clone() }),
            ("file_name", Installer { file_name: "../a.deb".into(), ..good.clone() }),
            ("file_name", Installer { file_name: "a\".deb".into(), ..good.clone() }),
            ("platform", Installer { platform: Platform::Windows, ..good.clone() }),
            ("size", Installer { size: 0, ..good.clone() }),
            ("size", Installer { size: MAX_BYTES + 1, ..good.clone() }),
            ("sha256", Installer { sha256: "AB".into(), ..good.clone() }),
            ("install_script", Installer { install_script: "x".repeat(MAX_SCRIPT + 1), ..good.clone() }),
            ("condition", Installer { condition: "\0".into(), ..good.clone() }),
        ] {
            assert_eq!(bad.check().unwrap_err().field.as_deref(), Some(field));
        }
    }

    #[test]
    fn blocks_add_up_to_the_package() {
        let of = |size| installer("a.deb", Platform::Linux).blocks_of(size);
        assert_eq!(of(1), [(0, 1)]);
        assert_eq!(of(BLOCK), [(0, BLOCK)]);
        assert_eq!(of(BLOCK + 7), [(0, BLOCK), (1, 7)]);
    }

    impl Installer {
        fn blocks_of(self, size: u64) -> Vec<(i64, u64)> {
            Self { size, ..self }.blocks().collect()
        }
    }

    #[test]
    fn the_beginning_of_a_file_tells_its_format() {
        assert!(Format::Deb.matches(b"!<arch>\ndebian-binary") && !Format::Deb.matches(b"!<arch"));
        assert!(Format::TarGz.matches(&[0x1f, 0x8b, 8]) && !Format::Msi.matches(b"MZ"));
    }
}
