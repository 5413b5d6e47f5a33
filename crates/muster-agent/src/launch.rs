//! Starts programs so that they end with the agent, even if it is killed (AG64).
//!
//! The kernel can send a signal to a process when its parent dies, but only the process itself can ask for that. So the
//! agent starts itself with [`LAUNCH`], which asks for the signal, sets limits, and then becomes the program.

use std::os::unix::process::CommandExt;
use std::process::ExitCode;

use camino::{Utf8Path, Utf8PathBuf};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::Signal;
use nix::unistd::{Pid, geteuid, getppid};
use serde::{Deserialize, Serialize};

/// First argument of the launcher. It is followed by the limits, the process id of the agent, the command and its arguments.
const LAUNCH: &str = "launch-component";
/// What separates it from the [`Caps`].
const WITH_CAPS: char = '=';
/// The same, for a program that needs as many files as the host allows.
const LAUNCH_SERVER: &str = "launch-server";
/// Exit code if the program cannot be executed, as in a shell.
const NOT_EXECUTED: u8 = 127;
/// Maximum number of open files of a component.
const OPEN_FILES: u64 = 65_536;
/// What the kernel adds to the badness of a component when memory runs out, so that it ends one of them before the agent.
const OOM_SCORE: &str = "500";

/// Limits of a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Limits {
    /// Those of components, which a policy names.
    Component(Caps),
    /// Those of the fleet server: each agent is a connection.
    Server,
}

/// What the launcher sets for a component.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Caps {
    /// Maximum private memory of each process, bytes.
    pub memory: Option<u64>,
    /// Maximum number of processes and threads of the agent's user, who is not root.
    pub processes: Option<u64>,
    /// Maximum number of open files of each process; `None` means [`OPEN_FILES`].
    pub open_files: Option<u64>,
    /// Control group to join.
    pub group: Option<Utf8PathBuf>,
}

impl Caps {
    fn set(&self) {
        let _ = std::fs::write("/proc/self/oom_score_adj", OOM_SCORE);
        if let Some(group) = &self.group {
            // 0 is the writing process.
            if let Err(error) = std::fs::write(group.join("cgroup.procs"), "0") {
                eprintln!("cannot join the control group {group}: {error}");
            }
        }
        // Of data, and not of addresses, which some programs reserve in large amounts and never use.
        if let Some(bytes) = self.memory {
            let _ = setrlimit(Resource::RLIMIT_DATA, bytes, bytes);
        }
        // The kernel counts all processes of the user, and ignores the limit for root.
        if let Some(processes) = self.processes.filter(|_| !geteuid().is_root()) {
            let _ = setrlimit(Resource::RLIMIT_NPROC, processes, processes);
        }
    }
}

impl Limits {
    fn launch(&self) -> String {
        match self {
            Self::Component(caps) => format!("{LAUNCH}{WITH_CAPS}{}", serde_json::to_string(caps).unwrap_or_default()),
            Self::Server => LAUNCH_SERVER.to_owned(),
        }
    }

    fn asked_by(argument: &std::ffi::OsStr) -> Option<Self> {
        match argument.to_str()?.split_once(WITH_CAPS) {
            None if argument == LAUNCH_SERVER => Some(Self::Server),
            Some((LAUNCH, caps)) => serde_json::from_str(caps).ok().map(Self::Component),
            _ => None,
        }
    }

    /// Limits what a faulty program can use up. A limit that cannot be set leaves the program as it would be without.
    fn set(&self) {
        forbid_cores();
        if let Self::Component(caps) = self {
            caps.set();
        }
        if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
            let files = match self {
                Self::Component(caps) => hard.min(caps.open_files.unwrap_or(OPEN_FILES)),
                Self::Server => hard,
            };
            let _ = setrlimit(Resource::RLIMIT_NOFILE, files, files);
        }
    }
}

/// Prevents core files of this process and of what it starts: they could contain keys and the secrets of a policy. A limit of
/// one byte also keeps the kernel from piping a core to a program; a limit of none does not.
pub fn forbid_cores() {
    let _ = setrlimit(Resource::RLIMIT_CORE, 1, 1).or_else(|_| setrlimit(Resource::RLIMIT_CORE, 0, 0));
}

/// Who starts programs.
#[derive(Clone, Debug, Default)]
pub enum Guard {
    /// This program, as the launcher.
    Launcher(Utf8PathBuf),
    /// Nobody: programs are started directly, and survive a killed agent until its next start.
    #[default]
    None,
}

/// Variable with which services start the agent, so that the C library returns freed memory to the system: starting takes
/// much more memory than running. Programs do not inherit this value, because it would make their threads slow.
pub const ALLOCATOR: (&str, &str) =
    ("GLIBC_TUNABLES", "glibc.malloc.arena_max=1:glibc.malloc.trim_threshold=65536:glibc.malloc.top_pad=0");

impl Guard {
    /// The launcher of the running program. The path leads to its file even if that was replaced.
    pub fn own() -> Self {
        Self::Launcher("/proc/self/exe".into())
    }

    /// Returns the command that runs `command` with these limits.
    pub fn command(&self, limits: &Limits, command: &str, args: &[String]) -> tokio::process::Command {
        match self {
            Self::None => {
                let mut direct = tokio::process::Command::new(command);
                direct.args(args);
                direct
            }
            Self::Launcher(launcher) => {
                let mut launched = tokio::process::Command::new(launcher);
                launched.arg(limits.launch()).arg(std::process::id().to_string()).arg(command).args(args);
                launched
            }
        }
    }
}

/// Runs as the launcher if the arguments say so. Returns only if the program cannot be executed.
pub fn run_if_asked(mut args: impl Iterator<Item = std::ffi::OsString>) -> Option<ExitCode> {
    let limits = Limits::asked_by(&args.next()?)?;
    let (agent, command) = (args.next()?, args.next()?);
    let agent: Option<i32> = agent.to_str().and_then(|text| text.parse().ok());
    let signal = nix::sys::prctl::set_pdeathsig(Signal::SIGKILL);
    // The agent may have died before the signal was asked for.
    if signal.is_err() || agent.map(Pid::from_raw) != Some(getppid()) {
        return Some(ExitCode::from(NOT_EXECUTED));
    }
    limits.set();
    let error = std::process::Command::new(&command).args(args).exec();
    eprintln!("cannot execute {}: {error}", command.display());
    Some(ExitCode::from(NOT_EXECUTED))
}

/// Checks that a program can be executed, because the launcher could not report it as an error of the start.
pub fn find(command: &str) -> std::io::Result<()> {
    if command.contains('/') {
        return executable(Utf8Path::new(command));
    }
    let path = std::env::var("PATH").unwrap_or_else(|_| "/usr/local/bin:/usr/bin:/bin".into());
    let found = path.split(':').any(|directory| executable(&Utf8Path::new(directory).join(command)).is_ok());
    if found { Ok(()) } else { Err(std::io::Error::new(std::io::ErrorKind::NotFound, "not found in PATH")) }
}

fn executable(program: &Utf8Path) -> std::io::Result<()> {
    if std::fs::metadata(program)?.is_dir() {
        return Err(std::io::ErrorKind::IsADirectory.into());
    }
    Ok(nix::unistd::access(program.as_std_path(), nix::unistd::AccessFlags::X_OK)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_launcher_understands_the_limits_that_it_is_given() {
        let capped = Caps { memory: Some(1 << 30), group: Some("/sys/fs/cgroup/a b".into()), ..Caps::default() };
        for limits in [Limits::Component(Caps::default()), Limits::Component(capped), Limits::Server] {
            assert_eq!(Limits::asked_by(limits.launch().as_ref()), Some(limits));
        }
        for other in ["run", "launch-component=", "launch-component=x", "launch-server=1"] {
            assert_eq!(Limits::asked_by(other.as_ref()), None, "{other}");
        }
    }

    #[test]
    fn only_programs_that_can_be_executed_are_found() {
        for program in ["/bin/sh", "sh"] {
            assert!(find(program).is_ok(), "{program}");
        }
        for (other, reason) in [
            ("/etc", "is a directory"),
            ("/etc/passwd", "Permission denied"),
            ("/nonexistent/x", "No such file"),
            ("nosuch-x", "not found in PATH"),
        ] {
            let error = find(other).unwrap_err().to_string();
            assert!(error.contains(reason), "{other}: {error}");
        }
    }
}
