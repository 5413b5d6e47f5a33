//! The server that Muster is compared with: the bare Go server, another program, or a running server.
//!
//! A program is started as `PROGRAM -dir DIR -hold DURATION`. It writes `DIR/ca.crt`, `DIR/token` if agents have to
//! enroll, and finally `DIR/listen.json` with `{"agent": "HOST:PORT"}`. It holds each check-in for DURATION (`0s` means
//! not at all) and runs until it is killed. `bench/go-hold` is such a program.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;

use super::drones::Target;
use super::{Against, say, server};
use crate::process::{Process, Usage};
use crate::shell;

/// The other server. If it is a program, it is not running yet.
pub enum Other {
    /// A program to start.
    Program {
        /// Path of the program.
        program: PathBuf,
        /// Directory for its data.
        directory: PathBuf,
        /// Name in the table.
        name: String,
    },
    /// A server that is already running.
    Remote {
        /// URL of its agent listener.
        url: String,
        /// File with the CA certificate to trust.
        ca: PathBuf,
        /// Enrollment token; `None` if the server does not verify credentials.
        token: Option<String>,
        /// Its process, if it runs on this machine.
        pid: Option<u32>,
    },
}

/// The running other server.
pub struct Running {
    /// URL of its agent listener.
    pub url: String,
    /// File with the CA certificate to trust.
    pub ca: PathBuf,
    /// Enrollment token; `None` if the server does not verify credentials.
    pub token: Option<String>,
    /// Its process, if it runs on this machine, to measure CPU time and memory.
    pub usage: Option<Usage>,
    /// Killed when this value is dropped.
    _process: Option<Process>,
}

impl Running {
    /// Returns the target for drones.
    pub fn target(&self) -> Target<'_> {
        Target { url: &self.url, ca: &self.ca, token: self.token.as_deref() }
    }
}

impl Other {
    /// Returns the server of `--against`, or the bare Go server if Go is installed.
    pub fn choose(against: &Against, directory: &Path) -> anyhow::Result<Option<Self>> {
        let Some(other) = &against.against else { return Self::bare_go(directory) };
        // A path cannot contain this, so that URLs and programs are distinguishable.
        if other.contains("://") {
            let ca = against.against_ca.clone().context("--against URL requires --against-ca FILE")?;
            let (token, pid) = (against.against_token.clone(), against.against_pid);
            return Ok(Some(Self::Remote { url: other.clone(), ca, token, pid }));
        }
        let program = std::fs::canonicalize(other).with_context(|| format!("--against {other}"))?;
        let name = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Some(Self::Program { program, directory: directory.to_owned(), name }))
    }

    fn bare_go(directory: &Path) -> anyhow::Result<Option<Self>> {
        let program = directory.join("go-hold");
        let source = shell::root().join("bench/go-hold");
        let mut command = Command::new("go");
        // Without cgo, the program does not depend on a C compiler.
        command.current_dir(source).env("CGO_ENABLED", "0").arg("build").arg("-o").arg(&program).arg(".");
        match command.status() {
            Ok(status) if status.success() => {
                Ok(Some(Self::Program { program, directory: directory.to_owned(), name: "bare Go".into() }))
            }
            Ok(status) => anyhow::bail!("go build of bench/go-hold ended with {status}"),
            Err(_) => {
                say("Go is not installed: there are no figures of another server");
                Ok(None)
            }
        }
    }

    /// Returns the name of its column in the table.
    pub fn name(&self) -> &str {
        match self {
            Self::Program { name, .. } => name,
            Self::Remote { url, .. } => url,
        }
    }

    /// Starts the program, which holds each check-in for this duration (`0s` means not at all). Has no effect on a
    /// running server.
    pub fn start(&self, hold: &str) -> anyhow::Result<Running> {
        match self {
            Self::Remote { url, ca, token, pid } => Ok(Running {
                url: url.clone(),
                ca: ca.clone(),
                token: token.clone(),
                usage: pid.map(Usage::of),
                _process: None,
            }),
            Self::Program { program, directory, .. } => launch(program, &directory.join(format!("other-{hold}")), hold),
        }
    }
}

fn launch(program: &Path, directory: &Path, hold: &str) -> anyhow::Result<Running> {
    if directory.try_exists()? {
        // The address of an earlier run must not be mistaken for the address of this one.
        std::fs::remove_dir_all(directory)?;
    }
    std::fs::create_dir_all(directory)?;
    let log = directory.join("log");
    let mut command = Command::new(program);
    let mut process = Process::start(command.arg("-dir").arg(directory).args(["-hold", hold]), &log)?;
    let mut address = None;
    let ready = process.wait_until(|| {
        address = server::agent_address(&directory.join("listen.json"));
        address.is_some()
    });
    ready.with_context(|| format!("{}, see {}", program.display(), log.display()))?;
    // A program that does not verify credentials writes no token.
    let token = match std::fs::read_to_string(directory.join("token")) {
        Ok(token) => Some(token.trim().to_owned()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => return Err(error.into()),
    };
    Ok(Running {
        url: format!("https://{}", address.context("no address in listen.json")?),
        ca: directory.join("ca.crt"),
        token,
        usage: Some(process.usage()),
        _process: Some(process),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn against(other: &str) -> Against {
        Against { against: Some(other.into()), against_ca: None, against_token: None, against_pid: None }
    }

    #[test]
    fn a_url_is_compared_without_starting_a_program() {
        let directory = tempfile::tempdir().unwrap();
        let error = Other::choose(&against("https://fleet.example:8220"), directory.path()).err().unwrap();
        assert!(error.to_string().contains("--against-ca"), "{error}");
        let against = Against {
            against_ca: Some("ca.crt".into()),
            against_token: Some("token".into()),
            against_pid: Some(std::process::id()),
            ..against("https://fleet.example:8220")
        };
        let other = Other::choose(&against, directory.path()).unwrap().unwrap();
        assert_eq!(other.name(), "https://fleet.example:8220");
        let running = other.start("0s").unwrap();
        assert_eq!((running.target().url, running.target().token), ("https://fleet.example:8220", Some("token")));
        assert!(running.usage.unwrap().resident().unwrap() > 0);
    }

    #[test]
    fn a_program_is_started_in_its_own_directory() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().unwrap();
        let program = directory.path().join("server");
        let script = "#!/bin/sh\n[ \"$1 $3 $4\" = \"-dir -hold 5s\" ] || exit 1\nprintf 'tok\\n' > \"$2/token\"\n\
                      printf '{\"agent\": \"127.0.0.1:1\"}' > \"$2/listen.new\"\nmv \"$2/listen.new\" \"$2/listen.json\"\nexec sleep 60\n";
        std::fs::write(&program, script).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        let other = Other::choose(&against(program.to_str().unwrap()), directory.path()).unwrap().unwrap();
        assert_eq!(other.name(), "server");
        let running = other.start("5s").unwrap();
        assert_eq!((running.url.as_str(), running.token.as_deref()), ("https://127.0.0.1:1", Some("tok")));
        assert!(running.ca.starts_with(directory.path()) && running.usage.is_some());
    }
}
