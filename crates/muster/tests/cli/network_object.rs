//! `muster server-host`, `proxy` and `download-source`.

use crate::world::{fails, file, json, ok, run};

#[test]
fn network_objects_are_created_changed_and_deleted() {
    ok(&["proxy", "create", "corporate", "--id", "corp", "--address", "http://proxy:3128", "--header", "X-Site=7"]);
    let shown = json(&["proxy", "show", "corporate"]);
    assert_eq!((&shown["id"], &shown["proxy_headers"]["X-Site"]), (&"corp".into(), &"7".into()));
    let renamed = json(&["proxy", "update", "corp", "--rename", "office", "--address", "http://proxy:3129"]);
    assert_eq!((&renamed["name"], &renamed["url"]), (&"office".into(), &"http://proxy:3129".into()));
    assert_eq!(renamed["proxy_headers"], shown["proxy_headers"], "what is not given stays");

    let two = ["--address", "https://one:8220", "--address", "https://two:8220"];
    let host = json(&[&["server-host", "create", "branch", "--id", "branch", "--proxy", "office"][..], &two].concat());
    assert_eq!(host["host_urls"], serde_json::json!(["https://one:8220", "https://two:8220"]));
    assert_eq!((&host["proxy_id"], host.get("is_default")), (&"corp".into(), None));
    let kept = json(&["server-host", "update", "branch", "--address", "https://three:8220"]);
    assert_eq!(kept["proxy_id"], "corp");
    assert_eq!(json(&["server-host", "update", "branch", "--no-proxy"]).get("proxy_id"), None);
    assert!(fails(3, &["server-host", "update", "branch", "--proxy", "nobody"]).contains("no proxy"));
    fails(2, &["proxy", "create", "bad", "--address", "http://p", "--header", "novalue"]);

    let made =
        ["download-source", "create", "mirror", "--id", "mirror", "--address", "https://mirror/", "--proxy", "corp"];
    ok(&made);
    let (_directory, path) = file("downloads.yml", "name: downloads\nsettings: {download_source_id: mirror}\n");
    ok(&["policy", "apply", "-f", &path]);
    let download = || json(&["policy", "show", "downloads", "--full"])["agent"]["download"].clone();
    assert_eq!(download()["proxy_url"], "http://proxy:3129");
    ok(&["download-source", "update", "mirror", "--rename", "first", "--no-proxy"]);
    assert_eq!(download(), serde_json::json!({"sourceURI": "https://mirror/"}));
    ok(&["download-source", "update", "first", "--address", "https://other/", "--proxy", "office"]);
    assert_eq!(download()["sourceURI"], "https://other/");
    ok(&["proxy", "delete", "office", "--yes"]);
    assert_eq!(download(), serde_json::json!({"sourceURI": "https://other/"}));
    ok(&["download-source", "delete", "mirror", "--yes"]);
    assert_eq!(download(), serde_json::Value::Null);
    ok(&["server-host", "update", "branch", "--rename", "office"]);
    ok(&["server-host", "delete", "office", "--yes"]);
    fails(3, &["server-host", "show", "office"]);
    fails(3, &["download-source", "show", "office", "--output", "json"]);
    fails(3, &["server-host", "show", "nothing", "--output", "yaml"]);
}

/// Other tests share the server, and a default would revise their policies: these are rejected by the server.
#[test]
fn network_objects_are_marked_as_default() {
    for noun in ["server-host", "download-source"] {
        let told = fails(2, &[noun, "create", "marked", "--default", "--address", "nonsense"]);
        assert!(told.contains("must be a URL"), "{told}");
        ok(&[noun, "create", "unmarked", "--address", "https://here"]);
        fails(2, &[noun, "update", "unmarked", "--default", "--address", "nonsense"]);
        let listed = ok(&[noun, "list"]);
        assert!(listed.contains("unmarked") && !listed.contains("yes"), "{listed}");
        ok(&[noun, "delete", "unmarked", "--yes"]);
    }
    assert!(ok(&["proxy", "list", "--output", "json"]).starts_with('['));
    fails(3, &["server-host", "delete", "nothing", "--yes"]);
}

#[test]
fn connections_are_tested_and_the_exit_code_tells_the_result() {
    ok(&["server-host", "create", "unreachable", "--id", "unreachable", "--address", "https://fleet.invalid:8220"]);
    let ran = run(&["server-host", "test", "unreachable"]);
    assert_eq!(ran.code, 1, "{}{}", ran.out, ran.err);
    assert!(ran.out.contains("resolve") && ran.out.contains("failed"), "{}", ran.out);
    assert!(ran.err.contains("https://fleet.invalid:8220: cannot resolve") && ran.err.contains("hint:"), "{}", ran.err);
    let ran = run(&["server-host", "test", "unreachable", "--output", "json"]);
    let printed: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!((ran.code, &printed["usable"]), (1, &false.into()), "{printed}");
    ok(&["server-host", "delete", "unreachable", "--yes"]);

    // The server of these tests does not connect to its own host.
    ok(&["download-source", "create", "own", "--address", "http://127.0.0.1:9/"]);
    let told = run(&["download-source", "test", "own"]).err;
    assert!(told.contains("outgoing.allow_local_targets"), "{told}");
    ok(&["download-source", "delete", "own", "--yes"]);
    ok(&["proxy", "create", "tested", "--address", "http://proxy.invalid:3128"]);
    assert!(run(&["proxy", "test", "tested"]).err.contains("proxy.invalid"));
    ok(&["proxy", "delete", "tested", "--yes"]);
}
