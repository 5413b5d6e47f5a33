//! Secrets that people write into YAML: they are recognized by the names of their fields and replaced by references.
//!
//! The text keeps its comments and its order if the secret can be replaced line by line.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{parse_value, read};
use crate::policy::problem::Problems;

/// Substrings of the names of fields with secrets.
const PARTS: [&str; 10] = [
    "password",
    "passphrase",
    "secret",
    "token",
    "api_key",
    "apikey",
    "account_key",
    "connection_string",
    "credentials_json",
    "private_key",
];
/// Full names of fields with secrets.
const NAMES: [&str; 10] = [
    "authorization",
    "proxy-authorization",
    "access_key",
    "bearer",
    "community",
    "pass",
    "passwd",
    "pwd",
    "webhook",
    "webhook_url",
];
/// Substrings of the names of headers with secrets.
const HEADER_PARTS: [&str; 9] =
    ["auth", "cookie", "credential", "key", "passphrase", "password", "secret", "session", "token"];
/// Objects with headers whose values are all secrets.
const BOOTSTRAP: [&str; 2] = ["bootstrap.headers", "bootstrap.proxy_headers"];
/// Suffixes of names of fields that contain a location and not the secret itself.
const PLACES: [&str; 4] = ["_url", "_path", "_file", "_uri"];

/// Returns whether a field contains a secret, by its dotted path.
pub fn is_secret(path: &str) -> bool {
    let path = path.to_ascii_lowercase();
    // For an item of a list, the name is that of the list.
    let mut path = path.as_str();
    while let Some((list, index)) = path.rsplit_once('.')
        && index.parse::<usize>().is_ok()
    {
        path = list;
    }
    let (object, name) = path.rsplit_once('.').unwrap_or(("", path));
    if object.ends_with("headers") {
        // Bootstrap settings are for the server alone, so that nobody needs to read the values.
        return is_secret_header(name) || BOOTSTRAP.iter().any(|headers| object.ends_with(headers));
    }
    let is_key = name == "key" && (path.ends_with("ssl.key") || path.ends_with("tls.key"));
    is_key
        || NAMES.contains(&name)
        || (PARTS.iter().any(|part| name.contains(part)) && !PLACES.iter().any(|end| name.ends_with(end)))
}

/// Returns whether the value of a header is a secret, by its name.
pub fn is_secret_header(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    HEADER_PARTS.iter().any(|part| name.contains(part))
}

/// Returns the text with the values at these paths replaced by `references`.
pub fn with_references(text: &str, references: &BTreeMap<String, String>) -> Result<String, Problems> {
    let mut value = parse_value(text)?;
    let mut text = text.to_owned();
    for (path, reference) in references {
        if let Some(slot) = value_at(&mut value, path) {
            *slot = reference.as_str().into();
        }
        // Replacing lines is a heuristic. Its result is parsed and compared, so that a wrong guess never changes the
        // meaning or leaves a secret in the text.
        let in_place = replaced(&text, path, reference);
        text = match in_place.filter(|text| parse_value(text).is_ok_and(|now| now == value)) {
            Some(text) => text,
            // Fall back to JSON, which is valid YAML and has no ambiguous scalars. Comments are lost.
            None => format!("{value:#}\n"),
        };
    }
    Ok(text)
}

/// Replaces what follows the field's colon, and removes the continuation lines of the value. `None` if the field is not
/// written as `name: value` on a line of its own.
fn replaced(text: &str, path: &str, reference: &str) -> Option<String> {
    let places = read(text).ok()?.places;
    let place = places.has(path).then(|| places.find(path))??;
    let index = |number: u64| usize::try_from(number).ok()?.checked_sub(1);
    let (line, column) = (index(place.line)?, index(place.column)?);
    let mut lines = text.split_inclusive('\n');
    let mut changed: String = lines.by_ref().take(line).collect();
    let own = lines.next()?;
    let name = own.char_indices().nth(column)?.0;
    // A colon without a following space or line end belongs to the key.
    let colon = name + own[name..].find(": ").or_else(|| own[name..].find(":\n"))?;
    changed.push_str(&own[..=colon]);
    changed.push_str(&format!(" {reference:?}\n"));
    let indent = |line: &str| line.chars().take_while(|c| *c == ' ').count();
    // Skip the rest of a block scalar, or a value on the following lines.
    changed.extend(lines.skip_while(|line| line.trim().is_empty() || indent(line) > column));
    Some(changed)
}

/// Returns the value at a dotted path. Names of fields can contain dots themselves, so every prefix is tried.
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
    use std::convert::Infallible;

    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::policy::inline_secrets;
    use crate::secret_refs::OPEN;

    fn replaced_secrets(text: &str) -> (String, BTreeMap<String, String>) {
        let mut secrets = BTreeMap::new();
        let mut reference = |path: &str, secret: &str| -> Result<String, Infallible> {
            secrets.insert(path.to_owned(), secret.to_owned());
            Ok(path.to_owned())
        };
        let Ok(changed) = inline_secrets::replace(&mut parse_value(text).unwrap(), &mut reference);
        (with_references(text, &changed).unwrap(), secrets)
    }

    fn has_secrets(value: &Value) -> bool {
        !inline_secrets::paths(value).is_empty()
    }

    #[test]
    fn comments_order_and_other_fields_are_kept() {
        let text = "# by the team\nworker: 2   # two\npassword: hunter2\nssl:\n  key: |\n    -----BEGIN\n    abc\n\n  verification_mode: full\nauth:\n  - token: 'it''s'\n    name: a\n";
        let (after, secrets) = replaced_secrets(text);
        assert_eq!(secrets["ssl.key"], "-----BEGIN\nabc\n");
        assert_eq!(
            after,
            "# by the team\nworker: 2   # two\npassword: \"$co.elastic.secret{password}\"\nssl:\n  key: \"$co.elastic.secret{ssl.key}\"\n  verification_mode: full\nauth:\n  - token: \"$co.elastic.secret{auth.0.token}\"\n    name: a\n"
        );
        assert_eq!(replaced_secrets(&after), (after.clone(), BTreeMap::new()), "once");
    }

    #[test]
    fn other_notations_keep_their_meaning() {
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
            let (after, secrets) = replaced_secrets(text);
            let mut now = parse_value(&after).unwrap();
            assert!(!secrets.is_empty() && !has_secrets(&now), "{after}");
            for (path, secret) in secrets {
                *value_at(&mut now, &path).unwrap() = secret.into();
            }
            assert_eq!(now, before, "{text}\n{after}");
        }
    }

    proptest! {
        #[test]
        fn no_secret_is_left_in_the_text(
            secret in "[ -~]{8,20}",
            before in "[a-z]{1,5}",
            nested in any::<bool>(),
        ) {
            let value = match nested {
                true => json!({before: {"password": secret, "x": 1}, "y": [2]}),
                false => json!({before: [{"z": 1, "client_secret": secret}], "password": secret}),
            };
            let text = value.to_string();
            prop_assume!(parse_value(&text).is_ok_and(|read| read == value) && !secret.contains(OPEN));
            let (after, _) = replaced_secrets(&text);
            prop_assert!(!has_secrets(&parse_value(&after).unwrap()));
        }
    }
}
