//! Validation of network objects. Unlike policies, their fields are a fixed set (MG13, MG §2.6–2.8).

use serde_json::{Map, Value};

use super::{NetworkObject, NetworkObjectKind};
use crate::policy::check::kind_of;
use crate::policy::problem::Problems;
use crate::secret_refs::join;

/// Maximum length of a name, bytes.
const MAX_NAME: usize = 255;
/// Maximum number of URLs of a Fleet Server host (MG §2.6).
const MAX_URLS: usize = 10;
/// Maximum number of headers, and of entries of other lists.
const MAX_ENTRIES: usize = 100;
/// Maximum length of a string, bytes: a chain of certificates fits.
const MAX_TEXT: usize = 64 << 10;

/// The value that a field may have.
enum Shape {
    Text,
    Url,
    Urls,
    Flag,
    Texts,
    OneOf(&'static [&'static str]),
    Headers,
    /// Headers as a list of `{key, value}`.
    Pairs,
    Fields(&'static [Field]),
    /// References that the service has written itself.
    Sealed,
}

type Field = (&'static str, Shape);

const TLS_CLIENT: &[Field] =
    &[("certificate_authorities", Shape::Texts), ("certificate", Shape::Text), ("key", Shape::Text)];

const AUTH: &[Field] =
    &[("username", Shape::Text), ("password", Shape::Text), ("api_key", Shape::Text), ("headers", Shape::Pairs)];

const SERVER_HOST: &[Field] = &[
    ("host_urls", Shape::Urls),
    ("is_default", Shape::Flag),
    ("is_internal", Shape::Flag),
    ("is_preconfigured", Shape::Flag),
    ("proxy_id", Shape::Text),
    (
        "ssl",
        Shape::Fields(&[
            ("certificate_authorities", Shape::Texts),
            ("certificate", Shape::Text),
            ("es_certificate_authorities", Shape::Texts),
            ("es_certificate", Shape::Text),
            // The service takes the keys out; what is left has another type.
            ("key", Shape::Text),
            ("es_key", Shape::Text),
            ("agent_key", Shape::Text),
            ("agent_certificate_authorities", Shape::Texts),
            ("agent_certificate", Shape::Text),
            ("client_auth", Shape::OneOf(&["optional", "required", "none"])),
        ]),
    ),
    ("secrets", Shape::Sealed),
];

const PROXY: &[Field] = &[
    ("url", Shape::Url),
    ("proxy_headers", Shape::Headers),
    ("certificate_authorities", Shape::Text),
    ("certificate", Shape::Text),
    ("certificate_key", Shape::Text),
    ("is_preconfigured", Shape::Flag),
    ("secrets", Shape::Sealed),
];

const DOWNLOAD_SOURCE: &[Field] = &[
    ("host", Shape::Url),
    ("is_default", Shape::Flag),
    ("is_preconfigured", Shape::Flag),
    ("proxy_id", Shape::Text),
    ("ssl", Shape::Fields(TLS_CLIENT)),
    ("auth", Shape::Fields(AUTH)),
    ("secrets", Shape::Sealed),
];

/// Checks the name and all fields of a network object, whose secrets are sealed. The id must have been validated.
pub fn check_network_object(object: &NetworkObject) -> Problems {
    let mut problems = Problems::default();
    if object.name.trim().is_empty()
        || object.name.len() > MAX_NAME
        || object.name.chars().any(crate::reported::is_deceptive)
    {
        problems.add("name", format!("must have 1 to {MAX_NAME} bytes and no control characters"));
    }
    if object.is_default && !object.kind.has_default() {
        problems.add("is_default", format!("a {} cannot be the default", object.kind));
    }
    let required = match object.kind {
        NetworkObjectKind::ServerHost => "host_urls",
        NetworkObjectKind::Proxy => "url",
        NetworkObjectKind::DownloadSource => "host",
    };
    match &object.fields {
        Value::Object(fields) => {
            if !fields.contains_key(required) {
                // The required field is checked apart from the shapes, because an absent field has no shape.
                problems.add(required, "is missing");
            }
            check_fields(fields, fields_of(object.kind), "", &mut problems);
        }
        other => problems.add("fields", format!("must be an object, not {}", kind_of(other))),
    }
    problems
}

const fn fields_of(kind: NetworkObjectKind) -> &'static [Field] {
    match kind {
        NetworkObjectKind::ServerHost => SERVER_HOST,
        NetworkObjectKind::Proxy => PROXY,
        NetworkObjectKind::DownloadSource => DOWNLOAD_SOURCE,
    }
}

/// Returns the names of the fields that objects of a kind can have, besides the name.
pub fn field_names(kind: NetworkObjectKind) -> Vec<&'static str> {
    fields_of(kind).iter().map(|(name, _)| *name).collect()
}

fn check_fields(fields: &Map<String, Value>, known: &'static [Field], path: &str, problems: &mut Problems) {
    for (name, value) in fields {
        let path = join(path, name);
        // Unknown fields are rejected, unlike in policies: nothing but this server reads these objects.
        match known.iter().find(|(field, _)| field == name) {
            Some((_, shape)) => check_value(value, shape, &path, problems),
            None => {
                let names: Vec<&str> = known.iter().map(|(field, _)| *field).collect();
                problems.unknown(path, "field", name, &names);
            }
        }
    }
}

fn check_value(value: &Value, shape: &Shape, path: &str, problems: &mut Problems) {
    match (shape, value) {
        (Shape::Text, Value::String(text)) => check_text(text, path, problems),
        (Shape::Url, Value::String(url)) => check_url(url, path, problems),
        // Sealed values were written by the service itself, after it had checked them in plain text.
        (Shape::Flag, Value::Bool(_)) | (Shape::Sealed, _) => {}
        (Shape::Urls, Value::Array(urls)) if (1..=MAX_URLS).contains(&urls.len()) => {
            for_each(urls, path, problems, |url, path, problems| check_value(url, &Shape::Url, path, problems));
        }
        (Shape::Urls, Value::Array(_)) => problems.add(path, format!("must have 1 to {MAX_URLS} URLs")),
        (Shape::Texts, Value::Array(texts)) if texts.len() <= MAX_ENTRIES => {
            for_each(texts, path, problems, |text, path, problems| check_value(text, &Shape::Text, path, problems));
        }
        (Shape::OneOf(words), Value::String(word)) if words.contains(&word.as_str()) => {}
        (Shape::OneOf(words), Value::String(word)) => problems.unknown(path, "value", word, words),
        (Shape::Headers, Value::Object(headers)) if headers.len() <= MAX_ENTRIES => {
            for (name, value) in headers {
                check_header(name, value, &join(path, name), problems);
            }
        }
        (Shape::Pairs, Value::Array(pairs)) if pairs.len() <= MAX_ENTRIES => {
            for_each(pairs, path, problems, |pair, path, problems| {
                // Both parts are checked as a header, whatever else the entry contains.
                check_header(pair["key"].as_str().unwrap_or_default(), &pair["value"], path, problems);
            });
        }
        (Shape::Fields(known), Value::Object(fields)) => check_fields(fields, known, path, problems),
        // Too many: the arms above have taken the others.
        (Shape::Texts | Shape::Pairs, Value::Array(_)) | (Shape::Headers, Value::Object(_)) => {
            problems.add(path, format!("must have at most {MAX_ENTRIES} entries"));
        }
        (shape, other) => problems.add(path, format!("must be {}, not {}", shape.noun(), kind_of(other))),
    }
}

impl Shape {
    fn noun(&self) -> &'static str {
        match self {
            Self::Text | Self::OneOf(_) => "a string",
            Self::Url => "a URL",
            Self::Flag => "a boolean",
            Self::Urls => "a list of URLs",
            Self::Texts => "a list of strings",
            Self::Pairs => "a list of headers",
            Self::Headers | Self::Fields(_) | Self::Sealed => "an object",
        }
    }
}

fn for_each(items: &[Value], path: &str, problems: &mut Problems, check: impl Fn(&Value, &str, &mut Problems)) {
    for (index, item) in items.iter().enumerate() {
        check(item, &join(path, &index.to_string()), problems);
    }
}

fn check_text(text: &str, path: &str, problems: &mut Problems) {
    if text.len() > MAX_TEXT {
        problems.add(path, format!("longer than {MAX_TEXT} bytes"));
    }
}

/// Agents accept URLs of these two schemes only. A URL without a host would be resolved relative to something else.
fn check_url(url: &str, path: &str, problems: &mut Problems) {
    check_text(url, path, problems);
    let host = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
    match host {
        None => problems.advise(path, "must be a URL", "such as `https://fleet.example.com:8220`"),
        Some(host) if host.is_empty() || host.starts_with(['/', ':', '?', '#']) => problems.add(path, "has no host"),
        Some(_) if url.chars().any(|c| c.is_whitespace() || c.is_control()) => {
            problems.add(path, "must not contain spaces or control characters");
        }
        Some(_) => {}
    }
}

fn check_header(name: &str, value: &Value, path: &str, problems: &mut Problems) {
    let is_token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    if name.is_empty() || !name.chars().all(is_token) {
        problems.add(path, "is not the name of a header");
    }
    match value {
        // A line break would begin another header.
        Value::String(text) if text.chars().any(char::is_control) => {
            problems.add(path, "must not contain control characters");
        }
        Value::String(text) => check_text(text, path, problems),
        Value::Bool(_) | Value::Number(_) => {}
        other => problems.add(path, format!("must be a string, a number or a boolean, not {}", kind_of(other))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::network_object;

    fn problems(kind: NetworkObjectKind, fields: Value) -> Vec<String> {
        let object = NetworkObject { fields, ..network_object(kind, "o") };
        check_network_object(&object).0.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn complete_objects_are_accepted() {
        let host = json!({"host_urls": ["https://fleet:8220", "http://[::1]:8220"], "is_internal": false,
            "proxy_id": "p", "ssl": {"agent_certificate_authorities": ["PEM"], "agent_certificate": "PEM",
                "client_auth": "required"}, "secrets": {"ssl": {"agent_key": {"id": "s"}}}});
        assert_eq!(problems(NetworkObjectKind::ServerHost, host), Vec::<String>::new());
        let proxy = json!({"url": "http://proxy:3128", "proxy_headers": {"X-Tenant": "a", "X-N": 1, "X-B": true},
            "certificate": "PEM", "is_preconfigured": false});
        assert_eq!(problems(NetworkObjectKind::Proxy, proxy), Vec::<String>::new());
        let source = json!({"host": "https://mirror/downloads/", "ssl": {"certificate_authorities": ["PEM"]},
            "auth": {"username": "u", "headers": [{"key": "X-A", "value": "b"}]}});
        assert_eq!(problems(NetworkObjectKind::DownloadSource, source), Vec::<String>::new());
    }

    #[test]
    fn mg13_unknown_fields_and_wrong_types_are_named() {
        let host = json!({"host_urls": ["fleet:8220", "https://", "https://a b"], "ssl": {"client_auth": "maybe"},
            "proxyid": "p", "is_internal": 1});
        let expected = [
            "host_urls.0: must be a URL; such as `https://fleet.example.com:8220`",
            "host_urls.1: has no host",
            "host_urls.2: must not contain spaces or control characters",
            "is_internal: must be a boolean, not a number",
            "proxyid: unknown field `proxyid`; did you mean `proxy_id`?",
            "ssl.client_auth: unknown value `maybe`; known: optional, required, none",
        ];
        assert_eq!(problems(NetworkObjectKind::ServerHost, host), expected);
        assert_eq!(
            problems(NetworkObjectKind::ServerHost, json!({"host_urls": []})),
            ["host_urls: must have 1 to 10 URLs"]
        );
        assert_eq!(problems(NetworkObjectKind::Proxy, json!({})), ["url: is missing"]);
        let proxy = json!({"url": "http://p", "proxy_headers": {"X-A": "b\r\nX-C: d", "a b": "c", "X-L": []}});
        let expected = [
            "proxy_headers.X-A: must not contain control characters",
            "proxy_headers.X-L: must be a string, a number or a boolean, not a list",
            "proxy_headers.a b: is not the name of a header",
        ];
        assert_eq!(problems(NetworkObjectKind::Proxy, proxy), expected);
    }
}
