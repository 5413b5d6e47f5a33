//! `muster node …`

use crate::world::{fails, json, ok};

#[test]
fn single_server_is_listed_by_name_and_is_not_drained() {
    let listed = json(&["node", "list"]);
    let node = &listed[0];
    assert_eq!((listed.as_array().unwrap().len(), &node["this"], &node["draining"]), (1, &true.into(), &false.into()));
    assert_eq!(node["version"], env!("CARGO_PKG_VERSION"));
    let (name, id) = (node["name"].as_str().unwrap(), node["id"].as_str().unwrap());
    let table = ok(&["node", "list"]);
    assert!(table.lines().nth(1).is_some_and(|row| row.starts_with(name) && row.contains("ready")), "{table}");
    assert_eq!(ok(&["node", "list", "-o", "name"]).trim(), id);
    for named in [name, id] {
        for care in ["--yes", "--dry-run"] {
            let told = fails(6, &["node", "drain", named, care]);
            assert!(told.contains("no other server accepts the agents"), "{told}");
        }
        ok(&["node", "resume", named]);
    }
    fails(2, &["node", "drain", name]);
    let told = fails(3, &["node", "drain", "nobody"]);
    assert!(told.contains("nobody"), "{told}");
}
