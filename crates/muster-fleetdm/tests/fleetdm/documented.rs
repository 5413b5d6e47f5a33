//! The documentation lists every route, and no other.

use std::path::Path;

use muster_fleetdm::routes::{self, Route};

fn row(route: &Route) -> String {
    format!("| `{} {}` | {} |", route.method, route.path, route.about)
}

fn is_row(line: &str) -> bool {
    ["GET", "POST", "PATCH", "DELETE"].iter().any(|method| line.starts_with(&format!("| `{method} ")))
}

#[test]
fn the_documentation_lists_every_route() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/fleetdm-api.md");
    let text = std::fs::read_to_string(&path).unwrap();
    let rows: Vec<String> = routes::all().iter().map(row).collect();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        let start = text.lines().position(is_row).expect("the table has a row");
        let mut lines: Vec<String> = text.lines().filter(|line| !is_row(line)).map(str::to_owned).collect();
        lines.splice(start..start, rows);
        return std::fs::write(&path, lines.join("\n") + "\n").unwrap();
    }
    let listed: Vec<&str> = text.lines().filter(|line| is_row(line)).collect();
    assert_eq!(listed, rows, "UPDATE_DOCS=1 rewrites the table");
}
