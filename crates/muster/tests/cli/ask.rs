//! On a terminal a change of many agents asks, and no is no.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::agents::fleet;
use crate::world::{ok, world};

/// Runs the command on a terminal of its own and presses a key.
fn on_a_terminal(words: &str, key: &str) -> (i32, String) {
    let line = format!("{} {words} --data-dir {}", env!("CARGO_BIN_EXE_muster"), world().data().display());
    let mut child = Command::new("script")
        .args(["--quiet", "--return", "--command", &line, "/dev/null"])
        .env_remove("MUSTER_URL")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("`script` of bsdutils, which is essential in Debian");
    let mut keys = child.stdin.take().unwrap();
    // The terminal keeps what is typed before the question; closing it would answer instead.
    keys.write_all(key.as_bytes()).unwrap();
    let waiting = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_secs(20));
        drop(keys);
    });
    let output = child.wait_with_output().unwrap();
    drop(waiting);
    (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn prompts_accept_yes_and_no() {
    fleet("asked", &["asked-1", "asked-2"]);
    let words = "agent tag --filter tags:asked --tag answered";
    let answered = || ok(&["agent", "list", "--filter", "tags:answered", "-o", "name"]).lines().count();
    let (code, told) = on_a_terminal(words, "n");
    assert!(told.contains("Add answered to 2 agents?") && told.contains("not confirmed"), "{told}");
    assert_eq!((code, answered()), (1, 0), "{told}");
    let (code, told) = on_a_terminal(words, "y");
    assert_eq!((code, answered()), (0, 2), "{told}");
}
