//! Each exit code of the interfaces page, and that errors say what failed, why, and what to do.

use crate::agents::fleet;
use crate::world::{Ran, command, fails, file, finish, new_policy, ok, run, world};

#[test]
fn exit_code_0_is_success() {
    assert_eq!(run(&["status"]).code, 0);
    assert_eq!(run(&["agent", "--help"]).code, 0);
    assert_eq!(run(&["--version"]).code, 0);
}

#[test]
fn exit_code_1_is_failure() {
    let (_, agents) = fleet("code-one", &["code-one"]);
    let action = ok(&["agent", "log-level", &agents[0].id, "--level", "info"]);
    let told = fails(1, &["action", "wait", action.trim(), "--timeout", "0"]);
    assert!(told.contains("is in progress: 0 acked, 0 failed, of 1"), "{told}");
    assert!(told.contains(&format!("\n  hint: muster action show {}", action.trim())), "{told}");
}

#[test]
fn exit_code_2_is_a_usage_error() {
    for words in [
        &["agent"][..],
        &["agent", "list", "--nonsense"],
        &["agent", "list", "--limit", "0"],
        &["agent", "list", "--limit", "many"],
        &["agent", "unenroll"],
        &["agent", "unenroll", "x", "--all"],
        &["agent", "unenroll", "x", "--filter", "tags:x"],
        &["agent", "unenroll", "--filter", "tags:x", "--all"],
        &["agent", "log-level", "x", "--level", "loud"],
        &["agent", "upgrade", "x", "--version", "9.5.2", "--rollout", "soon"],
        &["agent", "reassign", "x"],
        &["policy", "show", "x", "--revision", "1"],
        &["enrollment-key", "create", "--max-uses", "0"],
        &["status", "--url", "http://127.0.0.1:1", "--data-dir", "/x"],
        &["agent", "tag", "x"],
        &["completions", "cmd.exe"],
    ] {
        fails(2, words);
    }
    let told = fails(2, &["agent", "delete"]);
    assert!(told.contains("<AGENT|--filter <KQL>|--all>"), "{told}");
    // What only the server can tell to be wrong.
    let told = fails(2, &["agent", "list", "--filter", "colour:red"]);
    assert!(!told.contains("KQL") && told.contains("unknown field \"colour\""), "{told}");
    let told = fails(2, &["enrollment-key", "create", "--expires", "yesterday"]);
    assert!(told.contains("expiration: must be a duration (30d, 12h, 45m, 90s) or an RFC 3339 time"), "{told}");
    fails(2, &["status", "--url", "ftp://127.0.0.1"]);
}

#[test]
fn an_invalid_ca_file_is_reported_with_its_name_and_a_hint() {
    let good = std::fs::read_to_string(world().data().join("ca.crt")).unwrap();
    for (content, reason) in [
        ("garbage", "it is not PEM"),
        ("", "it is empty"),
        (
            "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
            "it contains a private key instead of a certificate",
        ),
        (&good.replace("MII", "AII"), "certificate 1 is corrupt"),
        (&format!("{good}-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n"), "certificate 2 is corrupt"),
    ] {
        let (_directory, path) = file("given.pem", content);
        let told = fails(2, &["status", "--url", "https://127.0.0.1:1", "--ca", &path]);
        assert!(told.starts_with(&format!("muster: --ca: {path}: ")) && told.contains(reason), "{reason}: {told}");
        assert!(told.contains("\n  hint: pass the PEM file of the CA"), "{told}");
        let drones = ["drones", "--url", "https://127.0.0.1:1", "--ca", &path, "--enrollment-token", "t"];
        let told = fails(1, &drones);
        assert!(told.contains(&path) && !told.contains("shares"), "{told}");
    }
    let told = fails(2, &["status", "--url", "https://127.0.0.1:1", "--ca", "/nowhere.pem"]);
    assert!(told.contains("--ca: /nowhere.pem: cannot read the file: No such file"), "{told}");
    let (_directory, path) = file("good.pem", &good);
    fails(5, &["status", "--url", "https://127.0.0.1:1", "--ca", &path]);
}

#[test]
fn hints_contain_only_commands_that_work() {
    let told = [
        fails(5, &["agent", "list", "--data-dir", "/nowhere"]),
        fails(5, &["status", "--url", "http://127.0.0.1:1"]),
        fails(4, &["agent", "list", "--url", &format!("http://{}", world().admin)]),
    ];
    for told in told {
        assert!(!told.contains("--token") && !told.contains("--url"), "there are no tokens yet: {told}");
    }
}

#[test]
fn only_the_server_warns_about_unknown_variables() {
    let stray = ("MUSTER_TIMEOUTS_IDEL", "1s");
    let ran = finish(command(&["status"]).env(stray.0, stray.1));
    assert_eq!((ran.code, ran.err.contains(stray.0)), (0, false), "{}", ran.err);
    let ran = finish(command(&["serve", "--print-config"]).env(stray.0, stray.1));
    assert_eq!(ran.code, 0, "{}", ran.err);
    let warning = "warning: MUSTER_TIMEOUTS_IDEL: unknown variable, ignored; did you mean MUSTER_TIMEOUTS_IDLE?";
    assert!(ran.err.contains(warning), "{}", ran.err);
}

#[test]
fn exit_code_3_is_not_found() {
    let told = fails(3, &["agent", "show", "nobody"]);
    assert!(told.contains("no agent with the id or host name \"nobody\""), "{told}");
    assert!(told.contains("\n  hint: list all agents: muster agent list --inactive --filter"), "{told}");
    let told = fails(3, &["policy", "show", "nothing"]);
    assert!(
        told.contains("no policy with the name or id \"nothing\"\n  hint: list policies: muster policy list"),
        "{told}"
    );
    for words in [
        &["agent", "unenroll", "nobody"][..],
        &["agent", "unenroll", "nobody", "--dry-run"],
        &["agent", "tag", "nobody", "nobody-else", "--tag", "x", "--yes"],
        &["agent", "delete", "nobody"],
        &["agent", "delete", "--filter", "tags:nobody", "--yes"],
        &["policy", "delete", "nothing", "--yes"],
        &["policy", "apply", "-f", "/dev/null", "--secret", "A=@/nowhere"],
        &["policy", "rollback", "Default policy", "--to", "999", "--yes"],
        &["policy", "diff", "Default policy", "998", "999"],
        &["enrollment-key", "revoke", "nokey", "--yes"],
        &["enrollment-key", "replace", "nokey", "--yes"],
        &["enrollment-key", "create", "--policy", "nothing"],
        &["action", "show", "none"],
        &["action", "wait", "none"],
        &["action", "cancel", "none", "--yes"],
    ] {
        // A file that is not there is wrong usage.
        fails(if words.contains(&"A=@/nowhere") { 2 } else { 3 }, words);
    }
}

#[test]
fn exit_code_4_is_refused() {
    let url = format!("http://{}", world().admin);
    for (more, reason) in [(&[][..], "admin.sock"), (&["--token", "nonsense"], "muster token create")] {
        let told = fails(4, &[&["agent", "list", "--url", &url], more].concat());
        assert!(told.contains("  hint: ") && told.contains(reason), "{told}");
    }
    let Ran { code, .. } = finish(command(&["agent", "list"]).env("MUSTER_URL", &url));
    assert_eq!(code, 4, "the variable leads to the same place");
    let data = world().data();
    let flag = ["agent", "list", "--data-dir", data.to_str().unwrap()];
    let Ran { code, err, .. } = finish(command(&flag).env("MUSTER_URL", &url));
    assert_eq!(code, 0, "a flag wins over a variable: {err}");
}

#[test]
fn exit_code_5_is_unreachable() {
    let told = fails(5, &["agent", "list", "--data-dir", "/nowhere"]);
    assert!(told.contains("cannot reach /nowhere/admin.sock: No such file"), "{told}");
    assert!(told.contains("\n  hint: check that the server is running"), "{told}");
    // Nobody listens on port 1.
    let told = fails(5, &["status", "--url", "http://127.0.0.1:1"]);
    assert!(told.contains("cannot reach http://127.0.0.1:1: ") && told.contains("refused"), "{told}");
}

#[test]
fn exit_code_6_is_conflict() {
    new_policy("code-six");
    let told = fails(6, &["policy", "create", "code-six"]);
    assert!(told.contains("another policy is named \"code-six\""), "{told}");
    let (_, agents) = fleet("code-six-used", &["code-six"]);
    let told = fails(6, &["policy", "delete", "code-six-used", "--yes"]);
    assert!(told.contains("\n  hint: reassign or unenroll them first"), "{told}");
    ok(&["agent", "unenroll", &agents[0].id, "--force"]);
    ok(&["policy", "delete", "code-six-used", "--yes"]);
}

#[test]
fn invalid_policy_files_are_rejected_with_file_line_column_and_reason() {
    for (text, place, reason) in [
        ("name: web\nsetings: {}\n", ":2:1: ", "unknown field `setings`; did you mean `settings`?"),
        ("name: web\nconfig:\n  a: &x 1\n  b: *x\n", ":3:", "aliases and anchors are not allowed"),
        ("name: web\nconfig:\n  inputs: []\n  inputs: []\n", ":4:3: config: ", "duplicate key `inputs`"),
        ("name: web\nsettings:\n  inactivity_timeout: soon\n", ":3:", "settings.inactivity_timeout"),
        ("name: [\n", ":", ""),
    ] {
        let (_directory, path) = file("web.yml", text);
        let told = fails(2, &["policy", "apply", "-f", &path]);
        assert!(told.starts_with(&format!("muster: {path}{place}")) && told.contains(reason), "{text}: {told}");
    }
    let (_directory, path) = file("web.yml", "name: wrong-config\nconfig: {inputs: [{id: a}]}\n");
    let told = fails(2, &["policy", "apply", "-f", &path]);
    assert!(told.contains("inputs"), "{told}");
    fails(3, &["policy", "show", "wrong-config"]);
}
