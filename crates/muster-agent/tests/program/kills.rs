//! The program is killed at every system call that changes a file. What is on disk is then the old or the new content.
//!
//! strace injects the signal when the program enters the call, before the call has any effect.

use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use muster_agent::state::Store as _;

use crate::server::TlsServer;
use crate::{Agent, Daemon, TOKEN};

/// System calls that change files, as strace names them; `?` is for those that an architecture does not have.
const CHANGES: [&str; 7] =
    ["write", "fsync", "?rename,?renameat,?renameat2", "?mkdir,?mkdirat", "fchmod", "?unlink,?unlinkat", "ftruncate"];

/// Returns the command under strace, which kills it when a thread enters one of these calls for the `n`th time.
fn killed_at(calls: &str, n: usize, command: &Command) -> Command {
    let mut traced = Command::new("strace");
    traced.args(["--follow-forks", "--quiet=all", "--output=/dev/null", "-e", &format!("trace={calls}")]);
    traced.args(["-e", &format!("inject={calls}:signal=SIGKILL:when={n}")]);
    traced.arg(command.get_program()).args(command.get_args()).env_remove("MUSTER_ENROLLMENT_TOKEN");
    traced.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    traced
}

fn was_killed(status: ExitStatus) -> bool {
    status.signal() == Some(9)
}

impl Agent {
    fn enrollment_at(&self, server: &TlsServer) -> Command {
        let mut command = self.command("enroll");
        command.args(["--url", &server.url, "--enrollment-token", TOKEN, "--attempts", "1", "--force", "-a"]);
        command.arg(&server.ca_file);
        command
    }
}

#[test]
fn ag43_an_enrollment_that_is_killed_at_any_write_is_the_old_or_the_new_one() {
    let server = TlsServer::start();
    let mut kills = 0;
    for former in [None, Some("agent-1")] {
        for calls in CHANGES {
            for n in 1.. {
                let agent = Agent::new();
                server.lock().agent_id = Some("agent-1".into());
                if former.is_some() {
                    assert!(agent.enrollment_at(&server).output().unwrap().status.success());
                }
                server.lock().agent_id = Some("agent-2".into());
                let status = killed_at(calls, n, &agent.enrollment_at(&server)).status().unwrap();
                let found = agent.store().enrollment().unwrap().map(|enrollment| enrollment.agent_id);
                assert!(
                    found.as_deref() == former || found.as_deref() == Some("agent-2"),
                    "{calls} {n}: {found:?} instead of {former:?} or agent-2"
                );
                if !was_killed(status) {
                    assert!(status.success() && found.as_deref() == Some("agent-2"), "{calls} {n}: {status}");
                    break;
                }
                kills += 1;
                // Nothing that is left is in the way of another attempt.
                let again = agent.enrollment_at(&server).output().unwrap();
                assert!(again.status.success(), "{calls} {n}: {}", String::from_utf8_lossy(&again.stderr));
                assert_eq!(agent.enrollment().agent_id, "agent-2");
            }
        }
    }
    assert!(kills > 30, "{kills}");
}

#[test]
fn ag43_a_daemon_that_is_killed_at_any_write_of_its_state_continues_with_the_old_or_the_new_one() {
    let server = TlsServer::start();
    let mut kills = 0;
    for calls in ["fsync", "?rename,?renameat,?renameat2"] {
        for n in 1.. {
            let agent = Agent::new();
            assert!(agent.enrollment_at(&server).output().unwrap().status.success());
            let mut traced = Daemon(killed_at(calls, n, &agent.command("run")).spawn().unwrap());
            let ended = ended_or_healthy(&agent, &mut traced);
            let policy = agent.state().policy.map(|policy| policy.id);
            assert!(policy.is_none() || policy.as_deref() == Some("p"), "{calls} {n}: {policy:?}");
            assert_eq!(agent.enrollment().agent_id, server.lock().agent_id.clone().unwrap_or("agent-1".into()));
            let Some(status) = ended else { break };
            assert!(was_killed(status), "{calls} {n}: {status}");
            kills += 1;
            let _daemon = agent.run();
            agent.until_status(|code, status| code == 0 && status["components"][0]["state"] == "HEALTHY");
        }
    }
    assert!(kills > 5, "{kills}");
}

/// Waits until the daemon has ended, or is healthy and has acknowledged its policy; in this case, stops it.
fn ended_or_healthy(agent: &Agent, daemon: &mut Daemon) -> Option<ExitStatus> {
    let begun = Instant::now();
    loop {
        if let Some(status) = daemon.0.try_wait().unwrap() {
            return Some(status);
        }
        let (code, status) = agent.status();
        if code == 0 && status["pending_acks"] == 0 && status["components"][0]["state"] == "HEALTHY" {
            // Of the daemon, whose end strace waits for.
            let pid = i32::try_from(status["pid"].as_i64().unwrap()).unwrap();
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGTERM).unwrap();
            let ended = daemon.0.wait().unwrap();
            return was_killed(ended).then_some(ended);
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "{code} {status}");
        std::thread::sleep(Duration::from_millis(50));
    }
}
