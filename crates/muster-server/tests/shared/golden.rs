//! Replies as files: what was answered last time, and whether it still is.

use std::path::Path;

/// Compares `text` with the file; `UPDATE_GOLDEN=1` writes it instead. A reply is part of the interface: whoever
/// changes one sees it in the difference.
#[track_caller]
pub fn check(path: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(path);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        return std::fs::write(&path, text).expect("the folder of golden files is there");
    }
    let golden = std::fs::read_to_string(&path).unwrap_or_default();
    let differs = |(line, golden): &(&str, &str)| line != golden;
    let first = text.lines().zip(golden.lines()).find(differs);
    let name = path.display();
    assert!(text == golden, "{name} says something else, first at {first:#?}; UPDATE_GOLDEN=1 writes it anew");
}
