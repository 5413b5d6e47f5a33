//! The scripts of the Debian package, and the questions of an installation by hand.

use std::path::Path;
use std::process::Command;

use crate::install::{UNINSTALL, protected};
use crate::server::TlsServer;
use crate::terminal::on_a_terminal;
use crate::{Agent, TOKEN, output};

/// A package manager runs the scripts of the package as root. Without a service manager, they need no root.
#[test]
fn ag146_removing_the_package_uninstalls_the_agent_and_sends_the_notice() {
    let (server, agent) = (TlsServer::start(), Agent::new());
    let script = |name: &str, argument: &str| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/debian").join(name);
        let mut command = Command::new("/bin/sh");
        command
            .arg(path)
            .arg(argument)
            .env("MUSTER_AGENT_BASE_PATH", agent.path(""))
            .env("MUSTER_AGENT_SERVICE", "none");
        command.env("MUSTER_AGENT_PROGRAM", env!("CARGO_BIN_EXE_muster-agent")).env_remove("MUSTER_ENROLLMENT_TOKEN");
        output(&mut command)
    };
    let (code, text) = script("postinst", "configure");
    assert!(code == 0 && text.contains("To enroll it"), "{code} {text}");
    assert_eq!(agent.enroll(&server, &["-a", server.ca_file.to_str().unwrap()]).0, 0);
    let (id, mut daemon) = (agent.enrollment().agent_id, agent.start());
    agent.until_healthy();
    let (code, text) = script("postinst", "configure");
    assert_eq!((code, agent.enrollment().agent_id, daemon.ended()), (0, id, 0), "replaced by another version: {text}");
    let (code, text) = script("prerm", "upgrade");
    assert!(code == 0 && agent.path("install.json").try_exists().unwrap(), "{text}");
    let (code, text) = script("prerm", "remove");
    assert_eq!(code, 0, "{text}");
    let audit = server.lock().audits[0].clone();
    assert_eq!(audit["departure"]["why"], "the package was removed", "{audit}");
    assert_eq!((agent.path("").try_exists().unwrap(), script("prerm", "remove").0), (false, 0));
}

#[test]
fn ag143_ag146_the_package_of_a_protected_agent_stays() {
    let (server, agent) = (TlsServer::start(), Agent::new());
    let mut daemon = protected(&server, &agent);
    let mut remove = Command::new("/bin/sh");
    remove.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/debian/prerm")).arg("remove");
    remove.env("MUSTER_AGENT_BASE_PATH", agent.path("")).env_remove("MUSTER_ENROLLMENT_TOKEN");
    assert_eq!(output(&mut remove).0, 14);
    agent.until_healthy();
    assert_eq!(output(remove.env("MUSTER_UNINSTALL_TOKEN", UNINSTALL)).0, 0);
    assert_eq!(daemon.ended(), 0);
}

#[test]
fn ag6_ag156_an_installation_asks_on_a_terminal_and_can_be_declined() {
    let (server, agent) = (TlsServer::start(), Agent::new());
    let install = |answers: &str, token: Option<&str>| {
        let program = env!("CARGO_BIN_EXE_muster-agent");
        let (base, ca) = (agent.path(""), server.ca_file.display());
        let line = format!("{program} install --service none --attempts 1 -a {ca} --base-path {}", base.display());
        on_a_terminal(&line, answers, token)
    };
    let (code, text) = install("n\n", None);
    assert!(code == 1 && text.contains("Install muster-agent in") && text.contains("not installed"), "{code} {text}");
    let (code, text) = install("y\ny\n\n", None);
    assert!(code == 1 && text.contains("URL of the server:"), "an empty URL: {code} {text}");
    assert_eq!(std::fs::read_dir(agent.directory.path()).unwrap().count(), 0, "nothing is left");
    let (code, text) = install("y\nn\n", None);
    assert!(code == 0 && text.contains("To enroll it"), "{code} {text}");
    assert!(server.lock().gateway.is_empty());
    assert!(agent.path("policy.yml").try_exists().unwrap(), "a standalone agent");
    assert_eq!(agent.installed(&["uninstall", "--force"]).0, 0);
    let (code, text) = install(&format!("\n\n{}\n", server.url), Some(TOKEN));
    assert!(code == 0 && text.contains("Enrolled as agent agent-1"), "{code} {text}");
    assert!(!text.contains(TOKEN), "the token is on the screen: {text}");
}
