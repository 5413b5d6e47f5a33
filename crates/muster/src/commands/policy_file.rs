//! Policies as people write them: a YAML file, and the secrets given beside it.

use std::collections::BTreeMap;
use std::io::Read as _;

use camino::Utf8Path;
use muster_core::yaml::{PolicyFile, YamlError, parse_policy_file};
use muster_protocol::management::agent_policy::SaveAgentPolicy;
use serde_json::Value;

use super::failure::Failed;

/// Longest policy file, bytes.
const MAX_BYTES: u64 = 8 << 20;

/// Reads the file (`-`: standard input) and the `NAME=VALUE` secrets.
pub fn read(file: &Utf8Path, secrets: &[String]) -> Result<SaveAgentPolicy, Failed> {
    let text = read_text(file)?;
    let PolicyFile { name, description, namespace, tags, settings, config } =
        parse_policy_file(&text).map_err(|error| refused(file, &error))?;
    let (is_managed, is_default) = (settings.is_managed, settings.is_default);
    let (inactivity_timeout, unenroll_timeout) = (settings.inactivity_timeout, settings.unenroll_timeout);
    let mut fields = settings.into_fields();
    fields.insert("tags".to_owned(), Value::from(tags));
    Ok(SaveAgentPolicy {
        name,
        // A line that was taken out of the file is meant to be gone.
        description: Some(description.unwrap_or_default()),
        is_managed,
        is_default,
        inactivity_timeout,
        unenroll_timeout: unenroll_timeout.map(Some),
        namespace: Some(namespace.unwrap_or_else(|| "default".to_owned())),
        config,
        secrets: read_secrets(secrets)?,
        fields,
        ..SaveAgentPolicy::default()
    })
}

/// `web.yml:3:7: config.inputs: reason`, as editors and people can follow it.
fn refused(file: &Utf8Path, error: &YamlError) -> Failed {
    let YamlError { line, column, path, reason } = error;
    let place = if *line > 0 { format!("{file}:{line}:{column}") } else { file.to_string() };
    let path = if path.is_empty() { String::new() } else { format!("{path}: ") };
    Failed::usage(format!("{place}: {path}{reason}"))
}

/// A text file, or standard input.
pub fn read_text(file: &Utf8Path) -> Result<String, Failed> {
    let mut text = String::new();
    let read = if file == "-" {
        std::io::stdin().lock().take(MAX_BYTES).read_to_string(&mut text)
    } else {
        std::fs::File::open(file).and_then(|file| file.take(MAX_BYTES).read_to_string(&mut text))
    };
    read.map_err(|error| Failed::usage(format!("can't read {file}: {error}")))?;
    Ok(text)
}

/// `NAME=VALUE`, or `NAME=@FILE` to keep the value out of the process list.
fn read_secrets(given: &[String]) -> Result<Option<BTreeMap<String, Option<String>>>, Failed> {
    let mut secrets = BTreeMap::new();
    for pair in given {
        let (name, value) = pair
            .split_once('=')
            .ok_or_else(|| Failed::usage("--secret takes NAME=VALUE or NAME=@FILE; there is no = in it"))?;
        let value = match value.strip_prefix('@') {
            Some(path) => read_text(Utf8Path::new(path))?.trim_end_matches(['\r', '\n']).to_owned(),
            None => value.to_owned(),
        };
        secrets.insert(name.to_owned(), Some(value));
    }
    Ok((!secrets.is_empty()).then_some(secrets))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder_with(name: &str, text: &str) -> (tempfile::TempDir, camino::Utf8PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let file = camino::Utf8PathBuf::from_path_buf(folder.path().join(name)).unwrap();
        std::fs::write(&file, text).unwrap();
        (folder, file)
    }

    #[test]
    fn refusals_tell_file_line_column_field_and_reason() {
        let (_folder, file) = folder_with("web.yml", "name: web\nsetings: {}\n");
        let told = read(&file, &[]).unwrap_err().to_string();
        let place = format!("muster: {file}:2:1: setings: unknown field `setings`; did you mean `settings`?");
        assert_eq!(told, place);
        let told = read(Utf8Path::new("/nowhere/web.yml"), &[]).unwrap_err().to_string();
        assert!(told.starts_with("muster: can't read /nowhere/web.yml: "), "{told}");
    }

    #[test]
    fn what_the_file_leaves_out_is_empty_or_untouched() {
        let (_folder, file) = folder_with("web.yml", "name: web\n");
        let policy = read(&file, &[]).unwrap();
        assert_eq!((policy.description.as_deref(), policy.namespace.as_deref()), (Some(""), Some("default")));
        assert_eq!((policy.config, policy.inactivity_timeout, policy.unenroll_timeout), (None, None, None));
        assert_eq!(policy.fields["tags"], serde_json::json!([]));
    }

    #[test]
    fn secrets_come_from_the_line_or_from_files_without_their_line_end() {
        let (_folder, file) = folder_with("key.txt", "s3=cret\n");
        let secrets = read_secrets(&[format!("A=@{file}"), "B=x=y".into()]).unwrap().unwrap();
        assert_eq!(secrets["A"].as_deref(), Some("s3=cret"));
        assert_eq!(secrets["B"].as_deref(), Some("x=y"));
        assert!(!read_secrets(&["hunter2".into()]).unwrap_err().to_string().contains("hunter2"));
        assert_eq!(read_secrets(&[]).unwrap(), None);
    }
}
