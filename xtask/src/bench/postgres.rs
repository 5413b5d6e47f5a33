//! A PostgreSQL server on this machine, in a temporary directory, with the settings of a new installation.

use std::cell::Cell;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Context as _;

use crate::process::{Process, cpu_with_children};

/// Directory of Debian's packages, with one directory for each version.
const PACKAGES: &str = "/usr/lib/postgresql";
/// Environment variable with another directory that contains `initdb` and `postgres`.
const PROGRAMS: &str = "MUSTER_TEST_POSTGRES";
const STOP: Duration = Duration::from_secs(30);

/// The running server. It is stopped and removed on drop.
pub struct Cluster {
    process: Process,
    programs: PathBuf,
    directory: PathBuf,
    databases: Cell<u32>,
}

impl Cluster {
    /// Starts the newest version that is installed; `None` if none is.
    pub fn start(log: &Path) -> anyhow::Result<Option<Self>> {
        let Some(programs) = programs() else { return Ok(None) };
        // The path of a Unix socket is limited to 107 bytes, so that the build directory may be too deep.
        let directory = std::env::temp_dir().join(format!("muster-bench-{}", std::process::id()));
        std::fs::DirBuilder::new().mode(0o700).create(&directory)?;
        if let Some((user, group)) = unprivileged() {
            chown(&directory, Some(user), Some(group))?;
        }
        let data = directory.join("data");
        let mut initdb = as_user(&programs, "initdb");
        initdb.args(["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8", "-D"]).arg(&data);
        let made = initdb.output().with_context(|| format!("initdb of {}", programs.display()))?;
        anyhow::ensure!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
        let mut postgres = as_user(&programs, "postgres");
        postgres.arg("-D").arg(&data).arg("-k").arg(&directory).args(["-c", "listen_addresses="]);
        let process = Process::start(&mut postgres, log)?;
        let mut cluster = Self { process, programs, directory, databases: Cell::new(0) };
        let (psql, directory) = (cluster.programs.join("psql"), cluster.directory.clone());
        cluster.process.wait_until(|| query(&psql, &directory, "SELECT 1").is_ok())?;
        Ok(Some(cluster))
    }

    /// Creates an empty database, and returns its address.
    pub fn database(&self) -> anyhow::Result<String> {
        self.databases.set(self.databases.get() + 1);
        let name = format!("bench_{}", self.databases.get());
        query(&self.programs.join("psql"), &self.directory, &format!("CREATE DATABASE {name}"))?;
        Ok(format!("postgres://postgres@{}/{name}", self.directory.display().to_string().replace('/', "%2F")))
    }

    /// Returns the CPU time of all its processes so far, in seconds.
    pub fn cpu(&self) -> anyhow::Result<f64> {
        cpu_with_children(self.process.usage().pid())
    }

    /// Returns the version of the server: `PostgreSQL 15.14`.
    pub fn version(&self) -> anyhow::Result<String> {
        let version = query(&self.programs.join("psql"), &self.directory, "SHOW server_version")?;
        Ok(format!("PostgreSQL {}", version.split_whitespace().next().unwrap_or_default()))
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // A server that is killed leaves its shared memory behind.
        let _ = self.process.stop(STOP);
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

fn query(psql: &Path, directory: &Path, sql: &str) -> anyhow::Result<String> {
    let arguments = ["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-U", "postgres", "-d", "postgres", "-c", sql];
    let output = Command::new(psql).args(arguments).arg("-h").arg(directory).output()?;
    anyhow::ensure!(output.status.success(), "{sql}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn programs() -> Option<PathBuf> {
    if let Some(programs) = std::env::var_os(PROGRAMS) {
        return Some(programs.into());
    }
    let versions = std::fs::read_dir(PACKAGES).ok()?.flatten();
    let newest = versions.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok()).max()?;
    Some(Path::new(PACKAGES).join(newest.to_string()).join("bin"))
}

/// Returns a command of a program of the server. The server does not run as root.
fn as_user(programs: &Path, name: &str) -> Command {
    // The server ends with this task, even if the task is killed.
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "INT"]);
    if let Some((user, group)) = unprivileged() {
        command.args(["--reuid", &user.to_string(), "--regid", &group.to_string(), "--clear-groups"]);
    }
    command.arg(programs.join(name)).current_dir("/");
    command
}

/// Returns the user and group of the package if this task runs as root.
fn unprivileged() -> Option<(u32, u32)> {
    let is_root = std::fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0);
    let users = is_root.then(|| std::fs::read_to_string("/etc/passwd").unwrap_or_default())?;
    users.lines().find_map(|line| {
        let mut fields = line.strip_prefix("postgres:")?.split(':').skip(1);
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    })
}
