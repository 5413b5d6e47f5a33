//! Contexts: named servers with credentials, in `$XDG_CONFIG_HOME/muster/contexts.toml` (mode 0600).

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};

use camino::{Utf8Path, Utf8PathBuf};
use serde::{Deserialize, Serialize};

use super::failure::Failed;

/// A server and how to log in there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Context {
    /// URL of the management API.
    pub url: String,
    /// API token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// PEM file with the CA certificate to trust.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<Utf8PathBuf>,
    /// Space.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub space: Option<String>,
}

/// The file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Contexts {
    /// Name of the context that commands use without `--context`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current: Option<String>,
    /// The contexts by name.
    #[serde(default)]
    pub contexts: BTreeMap<String, Context>,
}

impl Contexts {
    /// Reads the file; a missing one has no contexts.
    pub fn load() -> Result<Self, Failed> {
        match path() {
            Some(path) => Self::read(&path),
            None => Ok(Self::default()),
        }
    }

    fn read(path: &Utf8Path) -> Result<Self, Failed> {
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(Failed::new(format!("cannot read {path}: {error}"))),
        };
        // Without the text of the error, which would show a line of the file, perhaps with a token.
        toml::from_str(&text).map_err(|error: toml::de::Error| {
            Failed::usage(format!("{path} is not valid: {}", error.message())).remedy("correct or delete the file")
        })
    }

    /// Writes the file, readable by its owner only.
    pub fn save(&self) -> Result<(), Failed> {
        let path =
            path().ok_or_else(|| Failed::usage("cannot find the configuration directory: set XDG_CONFIG_HOME"))?;
        self.write(&path).map_err(|error| Failed::new(format!("cannot write {path}: {error}")))
    }

    fn write(&self, path: &Utf8Path) -> io::Result<()> {
        let text = toml::to_string(self).map_err(io::Error::other)?;
        if let Some(directory) = path.parent() {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        }
        // Replaced as a whole, so that an interrupted command does not leave half a file.
        let new = Utf8PathBuf::from(format!("{path}.new"));
        let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(new, path)
    }

    /// Returns a context by name.
    pub fn find(&self, name: &str) -> Result<&Context, Failed> {
        self.contexts
            .get(name)
            .ok_or_else(|| Failed::not_found(format!("there is no context {name:?}")).remedy("muster context list"))
    }

    /// Returns the current context.
    pub fn current(&self) -> Result<Option<&Context>, Failed> {
        self.current.as_deref().map(|name| self.find(name)).transpose()
    }
}

fn path() -> Option<Utf8PathBuf> {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty()).map(Utf8PathBuf::from);
    let directory = variable("XDG_CONFIG_HOME").or_else(|| Some(variable("HOME")?.join(".config")))?;
    Some(directory.join("muster").join("contexts.toml"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn contexts_are_stored_for_their_owner_only_and_come_back() {
        let directory = tempfile::tempdir().unwrap();
        let path = Utf8PathBuf::try_from(directory.path().join("a/contexts.toml")).unwrap();
        assert_eq!(Contexts::read(&path).unwrap(), Contexts::default());
        let one = Context { url: "https://fleet:8230".into(), token: Some("secret".into()), ..Context::default() };
        let written = Contexts { current: Some("one".into()), contexts: [("one".to_owned(), one)].into() };
        written.write(&path).unwrap();
        written.write(&path).unwrap();
        assert_eq!(Contexts::read(&path).unwrap(), written);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(written.current().unwrap().unwrap().url, "https://fleet:8230");
        assert!(written.find("two").is_err());
    }

    #[test]
    fn an_invalid_file_is_reported_without_its_content() {
        let directory = tempfile::tempdir().unwrap();
        let path = Utf8PathBuf::try_from(directory.path().join("contexts.toml")).unwrap();
        fs::write(&path, "[contexts.one]\nurl = 1\ntoken = \"hush\"\n").unwrap();
        let told = Contexts::read(&path).unwrap_err().to_string();
        assert!(told.contains("contexts.toml is not valid") && !told.contains("hush"), "{told}");
    }
}
