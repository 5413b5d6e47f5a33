//! `muster fleetd mdm-profile`.

use std::os::unix::fs::PermissionsExt as _;

use crate::world::{fails, json, ok};

#[test]
fn m34_documents_for_mdm_servers_contain_the_secret_and_are_private() {
    let secret = json(&["enrollment-key", "create", "--family", "fleetd", "--name", "mdm-laptops"]);
    let secret = secret["api_key"].as_str().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let common = ["fleetd", "mdm-profile", "--fleet-url", "https://fleet.example:8220", "--enrollment-key"];
    let with = |more: &[&str]| common.iter().chain(more).map(ToString::to_string).collect::<Vec<_>>();
    let run = |more: &[&str]| ok(&with(more).iter().map(String::as_str).collect::<Vec<_>>());
    let refused = |more: &[&str]| fails(2, &with(more).iter().map(String::as_str).collect::<Vec<_>>());

    let profile = path("fleetd.mobileconfig");
    run(&["mdm-laptops", "--platform", "macos", "--enable-scripts", "--out", &profile]);
    let text = std::fs::read_to_string(&profile).unwrap();
    assert!(text.contains("com.fleetdm.fleetd.config") && text.contains(secret), "{text}");
    assert_eq!(std::fs::metadata(&profile).unwrap().permissions().mode() & 0o777, 0o600);
    ok(&["enrollment-key", "create", "--one-time", "--name", "mdm-one"]);
    let words = with(&["mdm-one", "--platform", "macos", "--out", &path("one.mobileconfig")]);
    let one = crate::world::run(&words.iter().map(String::as_str).collect::<Vec<_>>());
    assert!(one.err.contains("admits only 1 host"), "{}", one.err);
    let (hash, package) = ("ab".repeat(32), "https://cdn.example/fleetd-base.msi");
    let windows = ["mdm-laptops", "--platform", "windows", "--package-url", package, "--package-sha256", &hash];
    let document = path("fleetd.xml");
    run(&[&windows[..], &["--out", &document]].concat());
    let text = std::fs::read_to_string(&document).unwrap();
    assert!(text.contains("DownloadInstall") && text.contains(package) && text.contains(secret), "{text}");

    let other = path("other");
    assert!(refused(&["mdm-laptops", "--platform", "windows", "--out", &other]).contains("--package-url"));
    let plain = ["fleetd", "mdm-profile", "--fleet-url", "http://fleet", "--enrollment-key", "mdm-laptops"];
    let plain = fails(2, &[&plain[..], &["--platform", "macos", "--out", &other]].concat());
    assert!(plain.contains("must begin with https://"), "{plain}");
    ok(&["policy", "apply", "-f", &crate::world::file("mdm.yml", "name: mdm-elastic\nconfig: {}\n").1]);
    assert!(refused(&["mdm-elastic", "--platform", "macos", "--out", &other]).contains("is not for fleetd"));
}
