//! The documentation lists every route, and no other.

use std::collections::BTreeSet;
use std::path::Path;

use muster_fleetdm::routes;

#[test]
fn the_documentation_lists_every_route() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/fleetdm-api.md");
    let rows: BTreeSet<String> =
        routes::all().iter().map(|route| format!("| `{} {}` | {} |", route.method, route.path, route.about)).collect();
    let text = std::fs::read_to_string(&path).unwrap_or_default();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        let kept: Vec<&str> = text.lines().collect();
        let is_row = |line: &&str| {
            ["GET", "POST", "PATCH", "DELETE"].iter().any(|method| line.starts_with(&format!("| `{method} ")))
        };
        let start = kept.iter().position(is_row).expect("the table has rows");
        let mut lines: Vec<String> = kept.iter().filter(|line| !is_row(line)).map(ToString::to_string).collect();
        let table = routes::all()
            .iter()
            .map(|route| format!("| `{} {}` | {} |", route.method, route.path, route.about))
            .collect::<Vec<_>>();
        lines.splice(start..start, table);
        return std::fs::write(&path, lines.join("\n") + "\n").unwrap();
    }
    let listed: BTreeSet<String> = text.lines().filter(|line| line.starts_with("| `")).map(str::to_owned).collect();
    let missing: Vec<_> = rows.difference(&listed).collect();
    assert!(missing.is_empty(), "UPDATE_DOCS=1 writes {missing:#?}");
    let gone: Vec<_> = listed.difference(&rows).filter(|line| line.contains(" /")).collect();
    assert!(gone.is_empty(), "not in the table of routes: {gone:#?}");
}
