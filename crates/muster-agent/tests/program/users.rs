//! Programs of other users.

use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;

use crate::install::until;
use crate::server::TlsServer;
use crate::{Agent, Daemon, TOKEN, output};

/// As in the systemd test, without systemd. Only root can run programs as other users.
#[test]
fn ag2_an_installation_without_root_is_refused_and_changes_nothing() {
    let agent = Agent::new();
    let mut command = shared_command(&agent, "install");
    command.arg("--base-path").arg(agent.path(""));
    command.args(["--service", "systemd", "--url", "https://127.0.0.1:1", "--enrollment-token", TOKEN]);
    if nix::unistd::geteuid().is_root() {
        chown(agent.directory.path(), Some(65_534), Some(65_534)).unwrap();
        command.uid(65_534).gid(65_534);
    }
    let (code, text) = output(&mut command);
    assert!(code == 3 && text.contains("requires root") && text.contains("hint: run it with sudo"), "{code} {text}");
    assert!(!agent.path("").try_exists().unwrap());
}

#[test]
fn ag35_a_container_runs_as_any_user_in_group_0() {
    let (server, agent) = (TlsServer::start(), Agent::new());
    let state = agent.directory.path().join("state");
    std::fs::create_dir(&state).unwrap();
    std::fs::set_permissions(&state, std::fs::Permissions::from_mode(0o770)).unwrap();
    let inside = |name: &str| {
        let mut command = shared_command(&agent, name);
        if nix::unistd::geteuid().is_root() {
            command.uid(4711).gid(0);
        }
        command.env("MUSTER_AGENT_BASE_PATH", state.join("agent"));
        command
    };
    let ca = readable(&agent, &server.ca_file);
    let mut container = inside("container");
    container.env("FLEET_ENROLL", "1").env("FLEET_URL", &server.url).env("FLEET_ENROLLMENT_TOKEN", TOKEN);
    let container = container.env("FLEET_CA", ca).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let mut container = Daemon(container);
    until("a status", || output(&mut inside("status")).0 == 0);
    container.signal(Signal::SIGTERM);
    assert_eq!(container.ended(), 0);
}

#[test]
fn ag47_members_of_the_group_of_an_unprivileged_agent_can_use_status() {
    // Nobody else can become other users.
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let (server, agent) = (TlsServer::start(), Agent::new());
    let (ca, base) = (readable(&agent, &server.ca_file), agent.path(""));
    let as_user = |name: &str, user: u32, group: u32| {
        let mut command = shared_command(&agent, name);
        command.arg("--base-path").arg(&base).uid(user).gid(group).stdout(Stdio::null()).stderr(Stdio::null());
        command
    };
    // As `install --unprivileged` leaves it.
    std::fs::create_dir(&base).unwrap();
    chown(&base, Some(4711), Some(4712)).unwrap();
    let mut enroll = as_user("enroll", 4711, 4712);
    enroll.args(["--url", &server.url, "--enrollment-token", TOKEN, "--attempts", "1", "-a"]).arg(ca);
    assert_eq!(output(&mut enroll).0, 0);
    for directory in ["", "run"] {
        std::fs::set_permissions(agent.path(directory), std::fs::Permissions::from_mode(0o750)).unwrap();
    }
    let _daemon = Daemon(as_user("run", 4711, 4712).spawn().unwrap());
    until("a status of the owner", || output(&mut as_user("status", 4711, 4712)).0 == 0);
    assert_eq!(output(&mut as_user("status", 4713, 4712)).0, 0, "a member of the group");
    assert_eq!(output(&mut as_user("status", 4713, 4714)).0, 3, "somebody else");
    // Everything else would be a way around the protection of the agent.
    for command in ["restart", "unenroll"] {
        let (code, text) = output(as_user(command, 4713, 4712).stderr(Stdio::piped()));
        assert!(code == 3, "{command} by a member of the group: {code} {text}");
    }
    assert_eq!(output(&mut as_user("status", 4711, 4712)).0, 0);
}

/// Returns a copy of a file that every user can read.
fn readable(agent: &Agent, file: &Path) -> PathBuf {
    let copy = agent.directory.path().join("ca.crt");
    std::fs::copy(file, &copy).unwrap();
    std::fs::set_permissions(&copy, std::fs::Permissions::from_mode(0o644)).unwrap();
    copy
}

/// Returns a command of a copy of the program that every user can execute.
pub fn shared_command(agent: &Agent, name: &str) -> Command {
    let program = agent.directory.path().join("program");
    if !program.try_exists().unwrap() {
        std::fs::set_permissions(agent.directory.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        std::fs::copy(env!("CARGO_BIN_EXE_muster-agent"), &program).unwrap();
    }
    let mut command = Command::new(program);
    command.arg(name).env_remove("MUSTER_ENROLLMENT_TOKEN");
    command
}
