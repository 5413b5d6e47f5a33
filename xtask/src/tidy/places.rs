//! Finds files that contain only tests, by their path or because they are modules under `#[cfg(test)]`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Directories of tests.
const DIRECTORIES: [&str; 3] = ["tests", "benches", "fuzz"];

/// Files and directories of test modules, without extension.
pub struct TestPlaces(BTreeSet<PathBuf>);

impl TestPlaces {
    /// Collects `#[cfg(test)] mod name;` from all files.
    pub fn of(files: &[(PathBuf, String)]) -> Self {
        Self(files.iter().flat_map(|(path, text)| declared(path, text)).collect())
    }

    /// Returns whether a file contains only tests.
    pub fn contain(&self, path: &Path) -> bool {
        let by_place = path
            .parent()
            .is_some_and(|directory| directory.iter().any(|part| DIRECTORIES.iter().any(|name| part == *name)));
        let file = path.file_name().unwrap_or_default();
        by_place
            || file == "tests.rs"
            || file == "testing.rs"
            || path.with_extension("").ancestors().any(|place| self.0.contains(place))
    }
}

fn declared(path: &Path, text: &str) -> Vec<PathBuf> {
    let directory = match path.file_stem().and_then(|stem| stem.to_str()) {
        Some("mod" | "lib" | "main") => path.parent().unwrap_or(path).to_owned(),
        _ => path.with_extension(""),
    };
    let mut found = Vec::new();
    let mut is_test = false;
    for line in text.lines().map(str::trim) {
        if line.starts_with("#[") {
            is_test |= line == "#[cfg(test)]";
            continue;
        }
        let name = line.strip_suffix(';').and_then(|line| line.rsplit_once("mod ")).map(|(_, name)| name);
        found.extend(name.filter(|_| is_test).map(|name| directory.join(name)));
        is_test = false;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_are_recognized_by_path_or_parent_module() {
        let parent = "#[cfg(test)]\n#[path = \"x\"]\nmod faults;\npub mod apply;\n#[cfg(test)]\nmod tests {\n";
        let places = TestPlaces::of(&[(PathBuf::from("crates/a/src/sqlite/mod.rs"), parent.to_owned())]);
        for (path, is_test) in [
            ("crates/a/tests/life/main.rs", true),
            ("crates/a/src/b/tests.rs", true),
            ("fuzz/src/x.rs", true),
            ("crates/a/src/sqlite/faults.rs", true),
            ("crates/a/src/sqlite/faults/disk.rs", true),
            ("crates/a/src/sqlite/apply.rs", false),
            ("crates/a/src/contest.rs", false),
        ] {
            assert_eq!(places.contain(Path::new(path)), is_test, "{path}");
        }
    }
}
