//! Secrets that people write into YAML: found by the names of their fields, and taken out of the text.
//!
//! The text stays as it was written, with its comments and its order, as far as a secret can be taken out line by line.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{Places, YamlError, parse_value};
use crate::secret_refs::{OPEN, join};

/// Parts of names of fields that hold secrets.
const PARTS: [&str; 6] = ["password", "passphrase", "secret", "token", "api_key", "apikey"];
/// Whole names of such fields.
const NAMES: [&str; 3] = ["authorization", "proxy-authorization", "access_key"];
/// Ends of names that say where something is, and not what it is.
const PLACES: [&str; 4] = ["_url", "_path", "_file", "_uri"];

/// Every plain secret of a value, by dotted path.
pub fn plain_secrets(value: &Value) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    collect(value, "", &mut found);
    found
}

fn collect(value: &Value, path: &str, found: &mut BTreeMap<String, String>) {
    match value {
        Value::Object(fields) => fields.iter().for_each(|(name, field)| collect(field, &join(path, name), found)),
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                collect(item, &join(path, &index.to_string()), found);
            }
        }
        Value::String(text) if is_secret(path) && !text.is_empty() && !text.contains(OPEN) => {
            found.insert(path.to_owned(), text.clone());
        }
        // Agents take a number for the text that it was written as.
        Value::Number(number) if is_secret(path) => {
            found.insert(path.to_owned(), number.to_string());
        }
        _ => {}
    }
}

fn is_secret(path: &str) -> bool {
    let path = path.to_ascii_lowercase();
    let name = path.rsplit('.').find(|step| step.parse::<usize>().is_err()).unwrap_or_default();
    let is_key = name == "key" && (path.ends_with("ssl.key") || path.ends_with("tls.key"));
    is_key
        || NAMES.contains(&name)
        || (PARTS.iter().any(|part| name.contains(part)) && !PLACES.iter().any(|end| name.ends_with(end)))
}

/// The text with `references` in the places of the values at these paths.
pub fn with_references(text: &str, references: &BTreeMap<String, String>) -> Result<String, YamlError> {
    let mut value = parse_value(text)?;
    let mut text = text.to_owned();
    for (path, reference) in references {
        if let Some(slot) = value_at(&mut value, path) {
            *slot = reference.as_str().into();
        }
        let in_place = replaced(&text, path, reference);
        text = match in_place.filter(|text| parse_value(text).is_ok_and(|now| now == value)) {
            Some(text) => text,
            // Written in a way that can't be followed line by line: the same content in our own way.
            None => serde_saphyr::to_string(&value).map_err(|error| YamlError {
                line: 0,
                column: 0,
                path: path.clone(),
                reason: error.to_string(),
            })?,
        };
    }
    Ok(text)
}

/// The text with what follows the field's colon replaced, and the lines that belong to it removed.
fn replaced(text: &str, path: &str, reference: &str) -> Option<String> {
    let places = Places::of(text);
    let (line, column) = places.has(path).then(|| places.find(path))??;
    let (line, column) = (usize::try_from(line).ok()?.checked_sub(1)?, usize::try_from(column).ok()?.checked_sub(1)?);
    let mut lines = text.split_inclusive('\n');
    let mut changed: String = lines.by_ref().take(line).collect();
    let own = lines.next()?;
    let name = own.char_indices().nth(column)?.0;
    let colon = name + own[name..].find(": ").or_else(|| own[name..].find(":\n"))?;
    changed.push_str(&own[..=colon]);
    changed.push_str(&format!(" {reference:?}\n"));
    let indent = |line: &str| line.chars().take_while(|c| *c == ' ').count();
    // A block of text, or a value on lines of its own.
    changed.extend(lines.skip_while(|line| line.trim().is_empty() || indent(line) > column));
    Some(changed)
}

/// The value at a dotted path; names of fields may have dots themselves.
fn value_at<'a>(value: &'a mut Value, path: &str) -> Option<&'a mut Value> {
    match value {
        value if path.is_empty() => Some(value),
        Value::Array(items) => {
            let (index, rest) = path.split_once('.').unwrap_or((path, ""));
            value_at(items.get_mut(index.parse::<usize>().ok()?)?, rest)
        }
        Value::Object(fields) => fields.iter_mut().find_map(|(name, field)| {
            let rest = path.strip_prefix(name.as_str())?;
            value_at(field, if rest.is_empty() { rest } else { rest.strip_prefix('.')? })
        }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn taken_out(text: &str) -> (String, BTreeMap<String, String>) {
        let secrets = plain_secrets(&parse_value(text).unwrap());
        let references = secrets.keys().map(|path| (path.clone(), format!("{OPEN}{path}}}"))).collect();
        (with_references(text, &references).unwrap(), secrets)
    }

    #[test]
    fn secrets_are_known_by_the_names_of_their_fields() {
        let value = json!({
            "password": "p1", "bulk_max_size": 50, "ssl.key": "p2", "ssl": {"key": "p3", "certificate": "c", "key_passphrase": "p4"},
            "sasl": {"password": 471}, "headers": {"Authorization": "p5", "X-Team": "t"}, "token_url": "https://u",
            "auth": [{"client_secret": "p6"}, {"api_key": "p7"}], "known": {"password": "$co.elastic.secret{x}"}, "empty": {"password": ""},
            "key": "not a secret", "secret_path": "/p",
        });
        let found = plain_secrets(&value);
        let paths: Vec<&str> = found.keys().map(String::as_str).collect();
        let expected = [
            "auth.0.client_secret",
            "auth.1.api_key",
            "headers.Authorization",
            "password",
            "sasl.password",
            "ssl.key",
            "ssl.key_passphrase",
        ];
        assert_eq!(paths, expected);
        assert_eq!(found["sasl.password"], "471");
    }

    #[test]
    fn comments_order_and_everything_else_stay_as_they_were_written() {
        let text = "# by the team\nworker: 2   # two\npassword: hunter2\nssl:\n  key: |\n    -----BEGIN\n    abc\n\n  verification_mode: full\nauth:\n  - token: 'it''s'\n    name: a\n";
        let (after, secrets) = taken_out(text);
        assert_eq!(secrets["ssl.key"], "-----BEGIN\nabc\n");
        assert_eq!(
            after,
            "# by the team\nworker: 2   # two\npassword: \"$co.elastic.secret{password}\"\nssl:\n  key: \"$co.elastic.secret{ssl.key}\"\n  verification_mode: full\nauth:\n  - token: \"$co.elastic.secret{auth.0.token}\"\n    name: a\n"
        );
        assert_eq!(taken_out(&after), (after.clone(), BTreeMap::new()), "once");
    }

    #[test]
    fn what_is_written_otherwise_keeps_its_meaning() {
        for text in [
            "ssl: {key: abc, certificate: d}\n",
            "{\"password\": \"x\", \"hosts\": [\"a\"]}",
            "\"password\" : x\nb: 1",
            "password:\n  hunter2\nb: 1\n",
            "password: x",
            "? password\n: x\n",
            "sasl: [{password: a}, {password: b}]",
        ] {
            let before = parse_value(text).unwrap();
            let (after, secrets) = taken_out(text);
            let mut now = parse_value(&after).unwrap();
            assert!(!secrets.is_empty() && plain_secrets(&now).is_empty(), "{after}");
            for (path, secret) in secrets {
                *value_at(&mut now, &path).unwrap() = secret.into();
            }
            assert_eq!(now, before, "{text}\n{after}");
        }
    }

    proptest! {
        #[test]
        fn no_secret_is_left_in_any_text(
            secret in "[ -~]{8,20}",
            before in "[a-z]{1,5}",
            nested in any::<bool>(),
        ) {
            let value = match nested {
                true => json!({before: {"password": secret, "x": 1}, "y": [2]}),
                false => json!({before: [{"z": 1, "client_secret": secret}], "password": secret}),
            };
            let text = serde_saphyr::to_string(&value).unwrap();
            prop_assume!(parse_value(&text).is_ok_and(|read| read == value) && !secret.contains(OPEN));
            let (after, _) = taken_out(&text);
            prop_assert!(plain_secrets(&parse_value(&after).unwrap()).is_empty());
        }
    }
}
