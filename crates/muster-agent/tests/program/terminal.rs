//! Commands on a terminal, which `script` gives them.

use std::io::{Read as _, Write as _};
use std::process::{Command, Stdio};

use crate::server::TlsServer;
use crate::{Agent, TOKEN};

/// Runs a command line on a terminal, with answers that are typed ahead. `token` is typed when it is asked for.
pub fn on_a_terminal(line: &str, answers: &str, token: Option<&str>) -> (i32, String) {
    let mut command = Command::new("script");
    command.args(["--quiet", "--return", "--command", line, "/dev/null"]).env_remove("MUSTER_ENROLLMENT_TOKEN");
    let mut running = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut input = running.stdin.take().unwrap();
    input.write_all(answers.as_bytes()).unwrap();
    let (mut screen, mut bytes) = (running.stdout.take().unwrap(), Vec::new());
    while let Some(token) = token {
        let mut byte = [0];
        screen.read_exact(&mut byte).unwrap();
        bytes.push(byte[0]);
        if bytes.ends_with(b"Enrollment token:") {
            input.write_all(format!("{token}\n").as_bytes()).unwrap();
            break;
        }
    }
    screen.read_to_end(&mut bytes).unwrap();
    let status = running.wait().unwrap();
    drop(input);
    (status.code().unwrap(), String::from_utf8_lossy(&bytes).into_owned())
}

#[test]
fn ag14_enroll_asks_on_a_terminal_before_it_replaces_an_enrollment() {
    let (server, agent) = (TlsServer::start(), Agent::new());
    assert_eq!(agent.enroll(&server, &["-a", server.ca_file.to_str().unwrap()]).0, 0);
    let (program, base, ca) = (env!("CARGO_BIN_EXE_muster-agent"), agent.path(""), server.ca_file.display());
    let enroll = format!(
        "{program} enroll --url {} --enrollment-token {TOKEN} --attempts 1 -a {ca} --base-path {}",
        server.url,
        base.display()
    );
    let requests = || server.lock().gateway.len();
    let before = requests();
    for answer in ["n\n", "\n"] {
        let (code, text) = on_a_terminal(&enroll, answer, None);
        assert!(code == 0 && text.contains("enrolled as agent agent-1. Replace the enrollment?"), "{code} {text}");
        assert!(text.contains("The enrollment is unchanged"), "{text}");
    }
    assert_eq!(requests(), before, "nothing was sent");
    let (code, text) = on_a_terminal(&enroll, "y\n", None);
    assert!(code == 0 && text.contains("Enrolled as agent"), "{code} {text}");
    let (code, text) = on_a_terminal(&format!("{enroll} --force"), "", None);
    assert!(code == 0 && !text.contains("Replace the enrollment?"), "{code} {text}");
    assert_eq!(server.lock().enrolled.len(), 3);
}
