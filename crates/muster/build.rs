//! Sets `COMMIT_HASH`, `COMMIT_TIME` and `VERSION_TEXT` for the build. The time is that of the commit, so that builds are reproducible.
//! Both can be set in the environment. Without them and without git (in a source archive), the hash is empty and the
//! time is `SOURCE_DATE_EPOCH`, if it is set.

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
    println!("cargo::rustc-env=VERSION_TEXT={}", version_text(&hash));
}

/// The output of `muster --version`: with the commit, if it is known.
fn version_text(hash: &str) -> String {
    let version = std::env::var("CARGO_PKG_VERSION").unwrap_or_default();
    match hash.get(..12) {
        Some(short) => format!("{version} ({short})"),
        None => version,
    }
}

/// Returns whether this directory belongs to Muster's repository, and not to another repository that contains it.
fn is_our_repository() -> bool {
    let Ok(here) = std::env::var("CARGO_MANIFEST_DIR") else { return false };
    let canonical = |path: &Path| path.canonicalize().ok();
    git(&["rev-parse", "--show-toplevel"])
        .and_then(|top| canonical(&Path::new(&top).join("crates/muster")))
        .is_some_and(|ours| Some(ours) == canonical(Path::new(&here)))
}

/// Rebuilds after a commit or a change of branch, which change only these files. Missing files are omitted, because
/// cargo considers a missing file changed in every build.
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
