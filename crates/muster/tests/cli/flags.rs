//! Flags that every command for agents takes, verb by verb; and that no flag of any command is without a test.

use std::time::{Duration, Instant};

use crate::agents::{Agent, fleet};
use crate::world::{fails, file, new_policy, new_token, ok, run};

/// Every verb that takes agents, with what it needs besides.
const VERBS: [&[&str]; 10] = [
    &["unenroll"],
    &["reassign", "--no-policy"],
    &["upgrade", "--version", "9.9.9"],
    &["diagnostics"],
    &["log-level", "--level", "info"],
    &["migrate", "--to", "https://other.example:8220", "--enrollment-token", "b3RoZXI6dG9rZW4="],
    &["privilege-level"],
    &["tag", "--tag", "flagged"],
    &["untag", "--tag", "flagged"],
    &["delete"],
];

fn command(verb: &[&'static str], more: &[&'static str]) -> Vec<&'static str> {
    [&["agent"], verb, more].concat()
}

/// How many agents the words would concern.
fn counted(words: &[&str]) -> u64 {
    let told = ok(words);
    let number = told.split_whitespace().find_map(|word| word.parse().ok());
    number.unwrap_or_else(|| panic!("{words:?}: no number in {told}"))
}

#[test]
fn all_selects_every_agent_for_every_verb() {
    fleet("everybody", &["everybody-1", "everybody-2"]);
    for verb in VERBS {
        let ours = counted(&command(verb, &["--filter", "tags:everybody", "--dry-run"]));
        let all = counted(&command(verb, &["--all", "--dry-run"]));
        assert!(ours == 2 && all >= ours, "{verb:?}: {all} of which {ours}");
        fails(2, &command(verb, &["--all"]));
    }
}

/// Inactive agents are passed over unless asked for; those actions that they can't take are refused for that reason.
#[test]
fn inactive_agents_are_included_on_request() {
    new_policy("idle");
    Agent::enroll(&new_token("idle"), "idle-1", &["idle"]);
    let end = Instant::now() + Duration::from_secs(60);
    // The server looks for agents that have become inactive only from a minute after its start, but a changed timeout
    // reaches the agents of the policy at once. It is changed until the agent has been silent for long enough.
    for timeout in [1, 2].into_iter().cycle() {
        let (_directory, path) =
            file("idle.yml", &format!("name: idle\nsettings: {{inactivity_timeout: {timeout}}}\n"));
        ok(&["policy", "apply", "-f", &path]);
        if !ok(&["agent", "list", "--filter", "tags:idle and status:inactive", "-o", "name"]).is_empty() {
            break;
        }
        assert!(Instant::now() < end, "{}", ok(&["agent", "list", "--inactive", "--filter", "tags:idle"]));
    }
    let listed = |more: &[&str]| ok(&[&["agent", "list", "--filter", "tags:idle", "-o", "name"], more].concat());
    assert_eq!((listed(&[]).lines().count(), listed(&["--inactive"]).lines().count()), (0, 1));
    for verb in VERBS {
        let told = fails(3, &command(verb, &["--filter", "tags:idle", "--dry-run"]));
        assert!(told.contains("no agent matches"), "{verb:?}: {told}");
        let ran = run(&command(verb, &["--filter", "tags:idle", "--include-inactive", "--dry-run"]));
        let reached = ran.out.contains("1 agent") || ran.err.contains("inactive");
        assert!(reached && ran.code != 3, "{verb:?}: {} {}{}", ran.code, ran.out, ran.err);
        // It widens a filter; an agent that is named is named.
        fails(2, &command(verb, &["idle-1", "--include-inactive"]));
    }
}

#[test]
fn a_wait_that_times_out_prints_the_action() {
    for (number, verb) in VERBS.iter().enumerate() {
        let help = ok(&["agent", verb[0], "--help"]);
        if !help.contains("--wait") {
            continue;
        }
        let host = format!("patient-{number}");
        fleet(&host, &[&host]);
        let words = [&["agent"], &verb[..], &[&host, "--wait", "--timeout", "0"]].concat();
        let ran = run(&words);
        // What the server does by itself is done; what an agent must do is not.
        let done = ran.code == 0 && ran.err.is_empty();
        let waits = ran.code == 1 && ran.err.contains("is in progress: 0 acked, 0 failed, of 1");
        assert!(done || waits, "{words:?}: {} {}{}", ran.code, ran.out, ran.err);
        let action = ran.out.lines().next().unwrap_or_default();
        assert!(ok(&["action", "show", action]).contains(action), "{words:?}");
        fails(2, &[&["agent"], &verb[..], &[&host, "--wait", "--timeout", "soon"]].concat());
    }
}

/// A flag in the reference that no test gives would break unseen. A test gives it in the same function as the words of
/// its command.
#[test]
fn every_flag_of_every_command_is_tested() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let reference = std::fs::read_to_string(root.join("../../docs/cli.md")).unwrap();
    let functions = functions(&root.join("tests"));
    let (mut command, mut untested) = (Vec::new(), Vec::new());
    for line in reference.lines() {
        if let Some(title) = line.strip_prefix("## ") {
            // What stands above all commands is taken by each of them.
            command = title.strip_prefix("muster ").unwrap_or_default().split_whitespace().collect();
        }
        let Some(flag) = line.strip_prefix("| `").and_then(|rest| rest.split('`').next()) else { continue };
        let forms: Vec<&str> = flag.split([',', ' ']).filter(|part| part.starts_with('-')).collect();
        let given = |text: &String| {
            let words = command.iter().all(|word| text.contains(word));
            words
                && forms.iter().any(|form| {
                    [format!("{form}\""), format!("{form} "), format!("{form}=")].iter().any(|it| text.contains(it))
                })
        };
        if !forms.is_empty() && !functions.iter().any(given) {
            untested.push(format!("{} {flag}", command.join(" ")));
        }
    }
    assert!(untested.is_empty(), "without a test: {untested:#?}");
}

/// The text of each function under `directory`, with the constants of its file.
fn functions(directory: &std::path::Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(functions(&path));
        } else if path.extension().is_some_and(|it| it == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            let head = text.split("\n#[test]").next().unwrap_or_default().to_owned();
            found.extend(text.split("\n#[test]").skip(1).map(|function| format!("{head}{function}")));
        }
    }
    found
}
