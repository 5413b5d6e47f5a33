//! `muster alert`, and `muster agent retention`.

use crate::world::{fails, file, json, ok, run};

#[test]
fn a_webhook_is_created_changed_muted_tested_and_deleted() {
    let ran = run(&["alert", "create", "hook", "--webhook", "https://hooks.invalid/a", "--output", "name"]);
    assert!(ran.code == 0 && ran.err.contains("whsec_"), "{}{}", ran.out, ran.err);
    ok(&["policy", "create", "alerted"]);
    let policy = json(&["policy", "show", "alerted"])["id"].clone();
    let changed = json(&[
        "alert",
        "update",
        "hook",
        "--event",
        "agent.offline",
        "--policy",
        "alerted",
        "--tag",
        "web",
        "--except-tag",
        "maintenance",
        "--digest-threshold",
        "5",
        "--digest-window",
        "2m",
        "--rename",
        "on-call",
        "--disable",
    ]);
    assert_eq!((&changed["events"][0], &changed["policy_ids"][0]), (&"agent.offline".into(), &policy));
    assert_eq!((&changed["tags"][0], &changed["except_tags"][0]), (&"web".into(), &"maintenance".into()));
    assert_eq!(changed["digest"], serde_json::json!({"threshold": 5, "window_seconds": 120}));
    assert_eq!(changed["enabled"], false);
    let cleared = json(&["alert", "update", "on-call", "--clear-filter", "--enable", "--event", "agent.error"]);
    assert_eq!((&cleared["events"], &cleared["tags"]), (&serde_json::json!(["agent.error"]), &serde_json::json!([])));
    assert!(json(&["alert", "mute", "on-call", "--for", "2h"])["muted_until"].is_string());
    assert_eq!(json(&["alert", "mute", "on-call", "--end"]).get("muted_until"), None);
    fails(2, &["alert", "mute", "on-call"]);
    let told = fails(1, &["alert", "test", "on-call"]);
    assert!(told.contains("cannot resolve hooks.invalid"), "{told}");
    assert!(ok(&["alert", "list", "--output", "wide"]).contains("on-call"));
    assert_eq!(json(&["alert", "show", "on-call"])["webhook"]["url"], "https://hooks.invalid/a");
    assert!(ok(&["alert", "delete", "on-call", "--dry-run"]).contains("would delete"));
    ok(&["alert", "delete", "on-call", "--yes"]);
    fails(3, &["alert", "show", "on-call"]);
}

#[test]
fn secrets_are_read_from_files_and_local_targets_are_refused() {
    let (_secrets, secret) = file("secret.txt", "a secret of my own\n");
    let told = fails(2, &["alert", "create", "own", "--webhook", "https://127.0.0.1:1/", "--secret-file", &secret]);
    assert!(
        told.contains("127.0.0.1 is a loopback address; to permit it, set `outgoing.allow_local_targets`"),
        "{told}"
    );
    let ran = run(&["alert", "create", "own", "--webhook", "https://hooks.invalid/", "--secret-file", &secret]);
    assert!(ran.code == 0 && !ran.err.contains("signing key"), "{}", ran.err);
    ok(&["alert", "delete", "own", "--yes"]);

    let (_passwords, password) = file("password.txt", "s3cret");
    let mail = [
        "alert",
        "create",
        "mail",
        "--email",
        "ops@example.com",
        "--smtp",
        "mail.example.com",
        "--from",
        "m@example.com",
        "--smtp-security",
        "starttls",
        "--smtp-user",
        "muster",
        "--password-file",
        &password,
    ];
    let made = json(&mail);
    assert_eq!((&made["email"]["port"], made["email"].get("password")), (&587.into(), None));
    ok(&["alert", "delete", "mail", "--yes"]);
    let (_certificates, ca) = file("ca.pem", "no certificate");
    let told = fails(2, &["alert", "create", "log", "--syslog", "log.example.com", "--ca-file", &ca]);
    assert!(told.contains("syslog.ca"), "{told}");
    let log = json(&["alert", "create", "log", "--syslog", "log.example.com:601", "--syslog-plain"]);
    assert_eq!((&log["syslog"]["port"], &log["syslog"]["tls"]), (&601.into(), &false.into()));
    ok(&["alert", "delete", "log", "--yes"]);
}

#[test]
fn an_update_changes_the_target_and_keeps_the_rest() {
    json(&["alert", "create", "moves", "--webhook", "https://hooks.invalid/a", "--event", "agent.error"]);
    let update = |more: &[&str]| json(&[&["alert", "update", "moves"], more].concat());
    let (_files, secret) = file("secret.txt", "a secret of my own\n");
    assert_eq!(update(&["--secret-file", &secret])["webhook"]["url"], "https://hooks.invalid/a");
    let smtp = ["--smtp", "mail.example.com", "--smtp-security", "starttls", "--smtp-user", "muster"];
    let people = ["--email", "ops@example.com", "--from", "m@example.com", "--password-file", &secret];
    let mail = update(&[&smtp[..], &people].concat());
    assert_eq!((mail.get("webhook"), &mail["email"]["port"]), (None, &587.into()));
    let told = fails(2, &["alert", "update", "moves", "--smtp", "relay.example.com"]);
    assert!(told.contains("send the secret again"), "{told}");
    let moved = update(&["--smtp", "relay.example.com", "--password-file", &secret]);
    assert_eq!((&moved["email"]["host"], &moved["email"]["username"]), (&"relay.example.com".into(), &"muster".into()));
    let log = update(&["--syslog", "log.example.com", "--syslog-plain"]);
    assert_eq!((log.get("email"), &log["syslog"]["port"]), (None, &601.into()));
    let told = fails(2, &["alert", "update", "moves", "--syslog", "log.example.com", "--ca-file", &secret]);
    assert!(told.contains("syslog.ca"), "{told}");
    assert_eq!(json(&["alert", "show", "moves"])["syslog"]["tls"], false);
    let moved = update(&["--syslog", "other.example.com"]);
    assert_eq!(moved["syslog"]["tls"], false, "only what was asked for is changed");
    ok(&["alert", "delete", "moves", "--yes"]);
}

/// The setting is that of the space, which the tests share: in the end, it is as before.
#[test]
fn mg153_the_retention_of_unenrolled_agents_is_shown_and_set() {
    assert!(ok(&["agent", "retention"]).contains("are kept"));
    let set = json(&["agent", "retention", "--delete-after", "365d"]);
    assert_eq!((&set["enabled"], &set["retention_seconds"]), (&true.into(), &(365 * 86_400).into()));
    assert!(ok(&["agent", "retention"]).contains("31536000 seconds"));
    assert!(ok(&["agent", "retention", "--keep"]).contains("are kept"));
    fails(2, &["agent", "retention", "--keep", "--delete-after", "1d"]);
}
