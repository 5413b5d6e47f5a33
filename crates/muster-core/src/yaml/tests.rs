use serde_json::json;

use super::*;

/// `line:column path: reason; remedy` of each problem.
fn rejected(text: &str) -> Vec<String> {
    let problems = read(text).unwrap_err();
    assert!(problems.0.iter().all(|problem| problem.reason.len() < 500));
    let expected = |problem: &crate::policy::problem::Problem| match problem.place {
        Some(place) => format!("{place} {problem}"),
        None => problem.to_string(),
    };
    problems.0.iter().map(expected).collect()
}

#[test]
fn every_type_of_value_is_parsed() {
    let text = "\
# A comment.
---
text: plain words
quoted: '0600'
double: \"yes\\n\"
block: |
  a
   b
folded: >-
  one
  two
number: -3
float: 2.5
truth: true
nothing:
also: ~
tagged: !!str 0471
flow: {a: [1, \"x\"], \"b\": {}}
list:
- a
- - b
# The end.
";
    let expected = json!({
        "text": "plain words", "quoted": "0600", "double": "yes\n", "block": "a\n b\n", "folded": "one two",
        "number": -3, "float": 2.5, "truth": true, "nothing": null, "also": null, "tagged": "0471",
        "flow": {"a": [1, "x"], "b": {}}, "list": ["a", ["b"]]
    });
    assert_eq!(read(text).unwrap().value, expected);
    for empty in ["", "\n\n", "# only a comment\n", "---\n", "---\n# a\n...\n"] {
        assert_eq!(parse_value(empty).unwrap(), json!(null), "{empty:?}");
    }
}

#[test]
fn fields_and_items_have_positions() {
    let text = "name: a\nconfig:\n  inputs:\n    - type: x\n      foo: 1\n    - {a: [7, 8.5, null, ~, 'é', t], b: {c: !!str 4}}\n  ssl.a.b: 1\n  ssl:\n    c: 1\n";
    let places = read(text).unwrap().places;
    for (path, line, column) in [
        ("name", 1, 1),
        ("config", 2, 1),
        ("config.inputs", 3, 3),
        ("config.inputs.0", 4, 7),
        ("config.inputs.0.foo", 5, 7),
        ("config.inputs.1", 6, 7),
        ("config.inputs.1.a", 6, 8),
        ("config.inputs.1.a.1", 6, 15),
        ("config.inputs.1.b.c", 6, 42),
        // A dotted key gives a position to its field, and to enclosing objects without one.
        ("config.ssl.a.b", 7, 3),
        ("config.ssl.a", 7, 3),
        ("config.ssl", 8, 3),
        // A missing field is reported at the closest enclosing one.
        ("config.inputs.0.type.x.y", 4, 7),
        ("config.outputs.default.hosts", 2, 1),
    ] {
        assert_eq!(places.find(path), Some(Place { line, column }), "{path}");
    }
    assert_eq!(places.find("namespace"), None);
}

#[test]
fn aliases_anchors_merge_keys_and_tags_are_rejected_with_positions() {
    for (text, expected) in [
        ("a: &anchor 1\nb: *anchor\n", "1:12 a: aliases and anchors are not allowed; repeat the value instead"),
        ("a: *unknown\n", "1:4 a: not valid YAML: "),
        ("a: &x [1]\n", "a: aliases and anchors are not allowed"),
        ("&k a: 1\n", "aliases and anchors are not allowed"),
        ("a:\n  <<: {b: 1}\n", "2:3 a: merge keys are not allowed; repeat the fields instead"),
        ("a: !odd 1\n", "a: the tag `!odd` is not allowed"),
        ("a: !!int '5'\n", "a: the tag `!!int` is not allowed"),
        ("a: !!binary aGk=\n", "the tag `!!binary` is not allowed"),
        ("? [a, b]\n: 1\n", "a key must be a string"),
    ] {
        let found = rejected(text);
        assert!(found[0].contains(expected), "{text}: {found:?}");
    }
}

#[test]
fn duplicate_keys_are_rejected_with_positions() {
    assert_eq!(rejected("a:\n  b: []\n  b: []\n"), ["3:3 a: duplicate key `b`; remove one of them"]);
    assert_eq!(rejected("a: 1\n'a': 2\n"), ["2:1 duplicate key `a`; remove one of them"]);
}

#[test]
fn every_ambiguous_scalar_is_reported_with_its_position() {
    let text = "mode: 0600\nlist:\n  - yes\n  - 'yes'\n  - 1.10\nno: 5\nfine: 1.5\n";
    let found = rejected(text);
    assert_eq!(found.len(), 4, "{found:?}");
    assert!(found[0].starts_with("1:7 mode: agents read the number `0600` as 384; quote"));
    assert_eq!(found[1].split(':').take(2).collect::<Vec<_>>(), ["3", "5 list.0"], "{found:?}");
    assert!(
        found[2].starts_with("5:5 list.2: agents read the number `1.10`") && found[2].ends_with("else write `1.1`")
    );
    assert!(found[3].starts_with("6:1 no: a key must be a string, but agents read `no` as a boolean; quote it"));
}

#[test]
fn oversized_and_multiple_documents_are_rejected() {
    rejected(&format!("a: {}1{}\n", "[".repeat(10_000), "]".repeat(10_000)));
    let deep: String = (0..80).map(|level| format!("{}a:\n", " ".repeat(level))).collect();
    assert!(rejected(&deep)[0].contains("deeper than 64 levels"));
    assert!(rejected(&format!("a: [{}]\n", "1,".repeat(200_000)))[0].contains("more than 100000 values"));
    assert!(rejected(&format!("a: [{}]\n", "yes,".repeat(90_000))).len() <= 101);
    assert!(rejected(&"x".repeat(MAX_BYTES + 1))[0].contains("longer"));
    assert!(rejected("a: 1\n---\nb: 1\n")[0].starts_with("2:1 more than one document"));
    assert!(rejected("a: [\n")[0].contains("not valid YAML"));
    assert!(rejected("a: b: c\n")[0].contains("not valid YAML"));
    assert!(rejected("a:\n\t- b\n")[0].ends_with("indent with spaces, not with tabs"), "{:?}", rejected("a:\n\t- b\n"));
    assert!(rejected("a: {b: $co.elastic.secret{X}}\n")[0].contains("quote values that contain"));
}
