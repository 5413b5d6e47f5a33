//! Differences between two revisions, or any two JSON values.

use serde_json::Value;

/// One difference.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    /// JSON pointer (RFC 6901) to the value.
    pub path: String,
    /// Value before; `None` if there was none.
    pub before: Option<Value>,
    /// Value after; `None` if there is none.
    pub after: Option<Value>,
}

/// Returns the differences between two values, ordered by path. Lists are compared item by item; if all items are
/// objects with unique ids, they are matched by id, so that an inserted input is one difference.
pub fn diff(before: &Value, after: &Value) -> Vec<Difference> {
    let mut found = Vec::new();
    compare(Some(before), Some(after), String::new(), &mut found);
    found
}

fn compare(before: Option<&Value>, after: Option<&Value>, path: String, found: &mut Vec<Difference>) {
    match (before, after) {
        (before, after) if before == after => {}
        (Some(Value::Object(one)), Some(Value::Object(other))) => {
            let added = other.keys().filter(|key| !one.contains_key(*key));
            let mut keys: Vec<&String> = one.keys().chain(added).collect();
            // Sorted, so that the same revisions always give the same output.
            keys.sort_unstable();
            for key in keys {
                compare(one.get(key), other.get(key), step(&path, key), found);
            }
        }
        (Some(Value::Array(one)), Some(Value::Array(other))) => match (by_id(one), by_id(other)) {
            (Some(one), Some(other)) => compare_by_id(&one, &other, &path, found),
            _ => {
                for index in 0..one.len().max(other.len()) {
                    compare(one.get(index), other.get(index), step(&path, &index.to_string()), found);
                }
            }
        },
        (before, after) => found.push(Difference { path, before: before.cloned(), after: after.cloned() }),
    }
}

fn compare_by_id(one: &[(&str, &Value)], other: &[(&str, &Value)], path: &str, found: &mut Vec<Difference>) {
    let in_list = |list: &[(&str, &Value)], id: &str| list.iter().any(|(known, _)| *known == id);
    let added = other.iter().filter(|(id, _)| !in_list(one, id));
    let find = |list: &[(&str, &Value)], id: &str| list.iter().position(|(known, _)| *known == id);
    for (id, _) in one.iter().chain(added) {
        let before = find(one, id).map(|index| one[index].1);
        let after = find(other, id).map(|index| other[index].1);
        compare(before, after, step(path, id), found);
    }
    let order = |list: &[(&str, &Value)], both: &[(&str, &Value)]| -> Vec<Value> {
        list.iter().filter(|(id, _)| in_list(both, id)).map(|(id, _)| Value::from(*id)).collect()
    };
    let (before, after) = (order(one, other), order(other, one));
    // The order of inputs matters to agents: report it, but as one entry.
    if before != after {
        let path = step(path, "(order)");
        found.push(Difference { path, before: Some(before.into()), after: Some(after.into()) });
    }
}

/// Returns the items with their ids, if every item has a unique one.
fn by_id(items: &[Value]) -> Option<Vec<(&str, &Value)>> {
    let named: Vec<(&str, &Value)> =
        items.iter().map(|item| Some((item.get("id")?.as_str()?, item))).collect::<Option<_>>()?;
    let mut ids: Vec<&str> = named.iter().map(|(id, _)| *id).collect();
    ids.sort_unstable();
    ids.windows(2).all(|pair| pair[0] != pair[1]).then_some(named)
}

fn step(path: &str, key: &str) -> String {
    // The tilde first, otherwise that of `~1` would be escaped again (RFC 6901 §3).
    format!("{path}/{}", key.replace('~', "~0").replace('/', "~1"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn paths(before: &Value, after: &Value) -> Vec<(String, Option<Value>, Option<Value>)> {
        diff(before, after).into_iter().map(|found| (found.path, found.before, found.after)).collect()
    }

    #[test]
    fn added_changed_and_removed_fields_are_reported() {
        let found =
            paths(&json!({"a": 1, "b": {"c/d": [1, 2]}, "x": 0}), &json!({"a": 2, "b": {"c/d": [1]}, "y": null}));
        let expected = [
            ("/a".to_owned(), Some(json!(1)), Some(json!(2))),
            ("/b/c~1d/1".to_owned(), Some(json!(2)), None),
            ("/x".to_owned(), Some(json!(0)), None),
            ("/y".to_owned(), None, Some(json!(null))),
        ];
        assert_eq!(found, expected);
        assert!(diff(&json!({"a": [1]}), &json!({"a": [1]})).is_empty());
    }

    #[test]
    fn inputs_are_matched_by_id() {
        let before = json!([{"id": "a", "n": 1}, {"id": "b", "n": 1}]);
        let inserted = json!([{"id": "new", "n": 1}, {"id": "a", "n": 1}, {"id": "b", "n": 2}]);
        let found = paths(&before, &inserted);
        assert_eq!(found[0], ("/b/n".to_owned(), Some(json!(1)), Some(json!(2))));
        assert_eq!(found[1], ("/new".to_owned(), None, Some(json!({"id": "new", "n": 1}))));
        assert_eq!(found.len(), 2);
        let turned = json!([{"id": "b", "n": 1}, {"id": "a", "n": 1}]);
        assert_eq!(
            paths(&before, &turned),
            [("/(order)".to_owned(), Some(json!(["a", "b"])), Some(json!(["b", "a"])))]
        );
    }
}
