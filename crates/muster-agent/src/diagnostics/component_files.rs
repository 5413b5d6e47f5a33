//! The diagnostics of components in a bundle. Components return whatever they want, so that every secret that the agent
//! gave them is searched for.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use super::redaction::{REDACTED, is_secret};
use super::text;
use crate::components::Diagnostics;
use crate::components::diagnostics::File;
use crate::net::gzip;
use crate::state::enrollment::Secret;

/// Minimum length of a value that is taken for a secret because of the name of its field. Shorter ones, such as `true`,
/// are part of too many other words.
const SECRET_MIN: usize = 5;
/// Maximum length of a name or a description, in characters.
const NAME_MAX: usize = 256;
/// Maximum size of a compressed file that is searched for secrets, when it is decompressed.
const UNPACKED_MAX: usize = 16 << 20;

/// Renders the diagnostics. `secrets` are removed, and so are the secrets of the components' configurations.
pub(super) fn render(all: &[Diagnostics], secrets: &[Secret]) -> Value {
    let secrets = Secrets::new(all, secrets);
    let render = |one: &Diagnostics| {
        let files = one.files.as_ref().map(|files| files.iter().map(|file| secrets.file(file)).collect::<Vec<_>>());
        json!({
            "component": one.component.id,
            "unit": one.unit,
            "error": files.as_ref().err().map(|error| secrets.redacted(error)),
            "files": files.unwrap_or_default(),
        })
    };
    all.iter().map(render).collect()
}

/// Texts that must not be in a bundle, the longest first.
struct Secrets(Vec<String>);

impl Secrets {
    fn new(all: &[Diagnostics], known: &[Secret]) -> Self {
        let mut found = BTreeSet::new();
        for unit in all.iter().flat_map(|one| &one.component.units) {
            collect(&unit.config, false, &mut found);
        }
        found.retain(|secret| secret.len() >= SECRET_MIN);
        // A component may indent the lines of a key, or escape line breaks.
        let known = known.iter().map(Secret::expose);
        let lines = known.chain(found.iter().map(String::as_str)).flat_map(str::lines).map(str::trim);
        let mut texts: Vec<String> =
            lines.filter(|line| !line.is_empty()).flat_map(|line| [line.to_owned(), escaped(line)]).collect();
        texts.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        texts.dedup();
        Self(texts)
    }

    fn redacted(&self, text: &str) -> String {
        self.0.iter().fold(
            text.to_owned(),
            |text, secret| {
                if text.contains(secret) { text.replace(secret, REDACTED) } else { text }
            },
        )
    }

    fn name(&self, name: &str) -> String {
        self.redacted(&name.chars().take(NAME_MAX).collect::<String>())
    }

    fn file(&self, file: &File) -> Value {
        let (kind, content) = match (file.dropped, std::str::from_utf8(&file.file.content)) {
            (Some(size), _) => ("omitted", format!("too large: {size} bytes")),
            (None, Ok(content)) => ("text", self.redacted(content)),
            (None, Err(_)) => self.binary(&file.file.content),
        };
        json!({
            "name": self.name(&file.file.name),
            "filename": self.name(&file.file.filename),
            "description": self.name(&file.file.description),
            "content_type": self.name(&file.file.content_type),
            kind: content,
        })
    }

    /// A binary file cannot be redacted, and is omitted if it contains a secret, or cannot be searched (AG148).
    fn binary(&self, content: &[u8]) -> (&'static str, String) {
        let unpacked = if content.starts_with(&[0x1f, 0x8b]) {
            gzip::decompress(content, UNPACKED_MAX).ok().flatten()
        } else {
            Some(content.to_vec())
        };
        match unpacked {
            None => ("omitted", "compressed, and cannot be searched for secrets".into()),
            Some(bytes) if self.are_in(&bytes) => ("omitted", "contains a secret".into()),
            Some(_) => ("base64", BASE64_STANDARD.encode(content)),
        }
    }

    fn are_in(&self, bytes: &[u8]) -> bool {
        // Only the parts that are text can contain one.
        let text = String::from_utf8_lossy(bytes);
        self.0.iter().any(|secret| text.contains(secret))
    }
}

/// Collects the scalars in fields whose names suggest secrets.
fn collect(value: &Value, is_inside: bool, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                collect(value, is_inside || is_secret(name), found);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| collect(item, is_inside, found)),
        scalar if is_inside => found.extend(text(scalar)),
        _ => {}
    }
}

/// Returns the text as it is within a JSON string.
fn escaped(line: &str) -> String {
    let quoted = Value::from(line).to_string();
    quoted[1..quoted.len() - 1].to_owned()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::{Component, Direction, Level, Unit};
    use crate::protocol::messages::DiagnosticFile;

    fn diagnostics(files: Vec<DiagnosticFile>) -> Diagnostics {
        let config = json!({"id": "x", "ssl": {"key": "-----BEGIN-----\n  line-one\nline-two\n"}, "password": "pass\"word",
            "tokens": ["first-token"], "enabled_token": true});
        let unit = Unit {
            id: "fake-default-x".into(),
            direction: Direction::Input,
            config: Arc::new(config),
            level: Level::Info,
            fault: None,
        };
        let component = Component {
            id: "fake-default".into(),
            kind: "fake".into(),
            units: vec![unit],
            work: Err("of a test".into()),
            features: json!({}),
            limits: json!({}),
        };
        let files = files.into_iter().map(|file| File { file, dropped: None }).collect();
        Diagnostics { component: Arc::new(component), unit: None, files: Ok(files) }
    }

    fn file(name: &str, content: impl Into<Vec<u8>>) -> DiagnosticFile {
        DiagnosticFile { name: name.into(), content: content.into(), ..DiagnosticFile::default() }
    }

    #[test]
    fn ag147_no_secret_of_a_component_is_in_its_diagnostics() {
        let text = "key: line-one, line-two; password: pass\"word; json: pass\\\"word; first-token, given-secret, true";
        let mut with_secret = b"\xff\xfe".to_vec();
        with_secret.extend(text.as_bytes());
        let packed = gzip::compress(text.as_bytes()).unwrap();
        let files = vec![file("given-secret", text), file("b", with_secret), file("c", packed)];
        let rendered = render(&[diagnostics(files)], &[Secret::new("given-secret")]);
        let shown = rendered.to_string();
        for secret in ["line-one", "line-two", "word;", "first-token", "given-secret"] {
            assert!(!shown.contains(secret), "{secret}: {shown}");
        }
        assert!(rendered[0]["files"][0]["text"].as_str().unwrap().ends_with("true"), "not a secret: {shown}");
        assert_eq!(rendered[0]["files"][1]["omitted"], "contains a secret");
        assert_eq!(rendered[0]["files"][2]["omitted"], "contains a secret");
    }

    #[test]
    fn ag148_a_compressed_file_that_cannot_be_read_is_omitted_and_another_one_kept() {
        let (damaged, profile) = (b"\x1f\x8b\xff".to_vec(), gzip::compress(b"a profile").unwrap());
        let rendered = render(&[diagnostics(vec![file("a", damaged), file("b", profile.clone())])], &[]);
        assert!(rendered[0]["files"][0]["omitted"].as_str().unwrap().contains("cannot be searched"));
        assert_eq!(rendered[0]["files"][1]["base64"], BASE64_STANDARD.encode(profile));
    }
}
