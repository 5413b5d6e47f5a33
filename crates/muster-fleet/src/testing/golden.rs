//! Golden files: compares responses with stored ones.

use std::path::Path;

/// Compares `text` with the file `path` below `directory`; with `UPDATE_GOLDEN=1`, writes it instead. Responses are
/// part of the interface, so a change must show up in the diff.
#[track_caller]
pub fn check(directory: &str, path: &str, text: &str) {
    let path = Path::new(directory).join("tests").join(path);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        return std::fs::write(&path, text).expect("the directory of golden files exists");
    }
    let golden = std::fs::read_to_string(&path).unwrap_or_default();
    let differs = |(line, golden): &(&str, &str)| line != golden;
    let first = text.lines().zip(golden.lines()).find(differs);
    let name = path.display();
    assert!(text == golden, "{name} differs, first at {first:#?}; UPDATE_GOLDEN=1 rewrites it");
}
