//! Documents in osquery's format, as people write them: YAML, or JSON with what osquery accepts beyond the standard (FL §1.5).

use std::borrow::Cow;

use serde_json::Value;

use crate::policy::problem::Problems;
use crate::yaml::{self, Document, Places};

/// Members of scheduled queries and packs that are numbers, and those that are booleans: both can be strings.
const NUMBERS: [&str; 3] = ["interval", "shard", "startup_priority"];
const BOOLEANS: [&str; 3] = ["snapshot", "removed", "denylist"];
/// Maximum length of a string that is read as a number.
const MAX_DIGITS: usize = 10;

/// Parses YAML, of which JSON is a part but for a few numbers and escapes. Callers limit the length.
pub(super) fn read(text: &str) -> Result<Document, Problems> {
    let text = without_comments(text);
    yaml::read(&text).or_else(|problems| match serde_json::from_str(&text.replace("\\\n", "")) {
        Ok(value) => Ok(Document { value, places: Places::default() }),
        Err(_) => Err(problems),
    })
}

/// Replaces the lines that osquery takes for comments by empty ones, so that all positions stay. YAML has comments of its own, and no `//`.
fn without_comments(text: &str) -> Cow<'_, str> {
    let is_comment = |line: &str| ["//", "#"].iter().any(|start| line.trim_start().starts_with(start));
    let content = text.lines().find(|line| !line.trim().is_empty() && !is_comment(line));
    if !content.is_some_and(|line| line.trim_start().starts_with('{')) || !text.lines().any(is_comment) {
        return Cow::Borrowed(text);
    }
    let mut kept = String::with_capacity(text.len());
    // A string can go on in the next line after a backslash, where `//` is a part of it.
    let mut is_continued = false;
    for line in text.split_inclusive('\n') {
        match !is_continued && is_comment(line) {
            true => kept.push('\n'),
            false => kept.push_str(line),
        }
        is_continued = line.trim_end_matches(['\r', '\n']).ends_with('\\');
    }
    Cow::Owned(kept)
}

/// Replaces strings for numbers and booleans in the schedule and in the packs of a configuration, so that they have one form for all who read
/// them. Other strings stay for the check.
pub(super) fn normalize_config(config: &mut Value) {
    config.get_mut("schedule").map(each_member).into_iter().flatten().for_each(normalize);
    config.get_mut("packs").map(each_member).into_iter().flatten().for_each(normalize_pack);
}

/// Does the same in a pack.
pub(super) fn normalize_pack(pack: &mut Value) {
    normalize(pack);
    pack.get_mut("queries").map(each_member).into_iter().flatten().for_each(normalize);
}

fn normalize(one: &mut Value) {
    let Some(fields) = one.as_object_mut() else { return };
    for (name, value) in fields.iter_mut() {
        let Some(text) = value.as_str() else { continue };
        let is_decimal = || (1..=MAX_DIGITS).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
        let parsed = match name.as_str() {
            known if NUMBERS.contains(&known) && is_decimal() => text.parse::<u64>().ok().map(Value::from),
            known if BOOLEANS.contains(&known) => text.to_ascii_lowercase().parse::<bool>().ok().map(Value::from),
            _ => None,
        };
        if let Some(parsed) = parsed {
            *value = parsed;
        }
    }
}

fn each_member(object: &mut Value) -> impl Iterator<Item = &mut Value> {
    object.as_object_mut().into_iter().flat_map(|members| members.values_mut())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn comments_of_json_are_ignored_and_positions_stay() {
        let text = "// about\n # this pack\n{\n  // \"a\": 1,\n  \"b\": \"x // y\", # of YAML\n  \"c\": 2\n}\n// end";
        let Document { value, places } = read(text).unwrap();
        assert_eq!(value, json!({"b": "x // y", "c": 2}));
        let mut problems = Problems::default();
        problems.add("c", "too large");
        problems.locate(&places);
        assert_eq!(problems.0[0].place.unwrap().line, 6);
    }

    #[test]
    fn strings_go_on_after_a_backslash() {
        for text in [
            "{\"q\": \"SELECT 1 \\\n    // 2 \\\n  # 3\"}",
            "{\"q\": \"SELECT 1 \\\n    // 2 \\\n  # 3\", \n\t\"n\": 1e2}",
            "// CRLF\r\n{\"q\": \"SELECT 1 \\\r\n  // 2 \\\r\n  # 3\"}\r\n",
        ] {
            let value = read(text).unwrap().value;
            let sql = value["q"].as_str().unwrap();
            assert_eq!(sql.split_whitespace().collect::<Vec<_>>(), ["SELECT", "1", "//", "2", "#", "3"], "{text}");
        }
    }

    #[test]
    fn yaml_keeps_its_own_rules() {
        let text = "queries:\n  q:\n    query: |\n      SELECT 1\n      // 2\n      # 3\n";
        assert_eq!(read(text).unwrap().value["queries"]["q"]["query"], "SELECT 1\n// 2\n# 3\n");
        assert!(read("// a\nb: 1\n").is_err());
    }

    #[test]
    fn numbers_and_booleans_can_be_strings() {
        let mut pack = json!({"shard": "50", "queries": {
            "a": {"interval": "86400", "snapshot": "True", "removed": "false", "version": "2", "query": "1"},
            "b": {"interval": "soon", "snapshot": "maybe", "shard": "99999999999"},
            "c": {"interval": "-1", "denylist": 1, "query": null},
            "d": 5,
        }});
        normalize_pack(&mut pack);
        let a = json!({"interval": 86_400, "snapshot": true, "removed": false, "version": "2", "query": "1"});
        assert_eq!((&pack["shard"], &pack["queries"]["a"]), (&json!(50), &a));
        assert_eq!(pack["queries"]["b"], json!({"interval": "soon", "snapshot": "maybe", "shard": "99999999999"}));
        assert_eq!(pack["queries"]["c"], json!({"interval": "-1", "denylist": 1, "query": null}));
        let mut config =
            json!({"schedule": {"q": {"interval": "60"}}, "packs": {"p": pack.clone(), "q": "/etc/q.conf"}});
        normalize_config(&mut config);
        assert_eq!(config["schedule"]["q"]["interval"], 60);
        for mut other in [json!(null), json!([]), json!({"schedule": [], "packs": 1}), json!({"queries": "x"})] {
            let before = other.clone();
            normalize_config(&mut other);
            normalize_pack(&mut other);
            assert_eq!(other, before);
        }
    }
}
