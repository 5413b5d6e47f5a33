//! Completions, man pages, help, and the examples of docs/cli.md.

use crate::world::{fails, ok, run};

#[test]
fn completions_exist_for_every_shell() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = ok(&["completions", shell]);
        for word in ["enrollment-key", "log-level", "rollback"] {
            assert!(script.contains(word), "{shell}: {word}");
        }
    }
}

#[test]
fn man_pages_are_written_for_every_command() {
    let directory = tempfile::tempdir().unwrap();
    let made = directory.path().join("new/man1");
    ok(&["man", made.to_str().unwrap()]);
    for page in [
        "muster.1",
        "muster-agent-unenroll.1",
        "muster-policy-apply.1",
        "muster-serve.1",
        "muster-enrollment-key-replace.1",
    ] {
        let text = std::fs::read_to_string(made.join(page)).unwrap();
        assert!(text.contains(".SH SYNOPSIS") && text.contains("Examples:"), "{page}");
    }
    let told = fails(1, &["man", "/dev/null/man1"]);
    assert!(told.contains("cannot write man pages to /dev/null/man1: "), "{told}");
}

#[test]
fn help_lists_exactly_the_existing_nouns() {
    let help = ok(&["--help"]);
    let nouns = [
        "serve",
        "agent",
        "policy",
        "query",
        "enrollment-key",
        "action",
        "server-host",
        "proxy",
        "download-source",
        "uninstall-token",
        "alert",
        "oidc-provider",
        "device",
        "package",
        "change",
        "audit",
        "status",
        "completions",
        "man",
        "drones",
    ];
    for noun in nouns.into_iter().chain([
        "user", "role", "token", "space", "context", "rollout", "backup", "doctor", "host", "label", "pack", "script",
        "carve",
    ]) {
        assert!(help.contains(&format!("\n  {noun} ")), "{noun} is missing in\n{help}");
    }
    assert!(!help.contains("\n  campaign "));
    assert_eq!(run(&["campaign"]).code, 2);
    assert!(
        help.contains("Exit codes: 0 success, 1 failure, 2 usage, 3 not found, 4 denied, 5 unreachable, 6 conflict")
    );
    let help = ok(&["agent", "unenroll", "--help"]);
    assert!(help.contains("Examples:\n  muster agent unenroll web-1\n"), "{help}");
}
