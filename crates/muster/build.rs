//! Tells the binary which commit it is made of: `COMMIT_HASH` and `COMMIT_TIME`, the commit's own time, so
//! that the same commit gives the same binary. Both may be set from outside; without them and without git (a source
//! archive) the hash is empty and the time `SOURCE_DATE_EPOCH`, if any.

use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    for name in ["COMMIT_HASH", "COMMIT_TIME", "SOURCE_DATE_EPOCH"] {
        println!("cargo::rerun-if-env-changed={name}");
    }
    let given = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let ours = is_our_repository();
    if ours {
        watch_commits();
    }
    let from_git = |arguments: &[&str]| if ours { git(arguments) } else { None };
    let hash = given("COMMIT_HASH").or_else(|| from_git(&["rev-parse", "HEAD"])).unwrap_or_default();
    let commit_time = || from_git(&["show", "-s", "--format=%cd", "--date=format-local:%Y-%m-%dT%H:%M:%SZ", "HEAD"]);
    let time = given("COMMIT_TIME").or_else(commit_time).or_else(|| given("SOURCE_DATE_EPOCH")).unwrap_or_default();
    println!("cargo::rustc-env=COMMIT_HASH={hash}");
    println!("cargo::rustc-env=COMMIT_TIME={time}");
}

/// Whether git knows this folder as what it is, and not as a part of somebody else's repository.
fn is_our_repository() -> bool {
    let Ok(here) = std::env::var("CARGO_MANIFEST_DIR") else { return false };
    let canonical = |path: &Path| path.canonicalize().ok();
    git(&["rev-parse", "--show-toplevel"])
        .and_then(|top| canonical(&Path::new(&top).join("crates/muster")))
        .is_some_and(|ours| Some(ours) == canonical(Path::new(&here)))
}

/// Another commit, another branch: these files change, and nothing else does. One that is not there would be taken for
/// changed at every build.
fn watch_commits() {
    let branch = git(&["symbolic-ref", "-q", "HEAD"]);
    for name in ["HEAD", "packed-refs"].into_iter().chain(branch.as_deref()) {
        let path = git(&["rev-parse", "--path-format=absolute", "--git-path", name]);
        if let Some(path) = path.filter(|path| Path::new(path).try_exists().unwrap_or(false)) {
            println!("cargo::rerun-if-changed={path}");
        }
    }
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).env("TZ", "UTC").output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (output.status.success() && !text.is_empty()).then_some(text)
}
