//! Policy files and their secrets.

use std::collections::BTreeMap;
use std::io::Read as _;

use camino::{Utf8Path, Utf8PathBuf};
use muster_core::policy::check;
use muster_core::policy::problem::Problems;
use muster_core::yaml::{Places, PolicyFile, YamlError, parse_policy_file};
use muster_protocol::management::agent_policy::SaveAgentPolicy;
use serde_json::Value;

use super::failure::Failed;

/// Maximum size of a policy file in bytes.
const MAX_BYTES: u64 = 8 << 20;

/// A parsed policy file with the positions of its fields.
#[derive(Debug)]
pub struct Written {
    /// Request for the server.
    pub policy: SaveAgentPolicy,
    source: Source,
}

#[derive(Debug)]
struct Source {
    file: Utf8PathBuf,
    places: Places,
}

/// Reads the file (`-`: standard input) and the `NAME=VALUE` secrets.
pub fn read(file: &Utf8Path, secrets: &[String]) -> Result<Written, Failed> {
    let text = read_text(file)?;
    let read = parse_policy_file(&text).map_err(|error| refused(file, &error))?;
    let source = Source { file: file.to_owned(), places: Places::of(&text) };
    // Whether a secret is there, only the server knows; the rest is told before it is asked, a dry run's too.
    if let Some(config) = &read.config {
        check::check(config, &|_| true).into_result().map_err(|problems| source.refuse(&problems))?;
    }
    Ok(Written { policy: wanted(read, read_secrets(secrets)?), source })
}

fn wanted(read: PolicyFile, secrets: Option<BTreeMap<String, Option<String>>>) -> SaveAgentPolicy {
    let PolicyFile { name, description, namespace, tags, settings, config } = read;
    let (is_managed, is_default) = (settings.is_managed, settings.is_default);
    let (inactivity_timeout, unenroll_timeout) = (settings.inactivity_timeout, settings.unenroll_timeout);
    let mut fields = settings.into_fields();
    fields.insert("tags".to_owned(), Value::from(tags));
    SaveAgentPolicy {
        name,
        // A line that was taken out of the file is meant to be gone.
        description: Some(description.unwrap_or_default()),
        is_managed,
        is_default,
        inactivity_timeout,
        unenroll_timeout: unenroll_timeout.map(Some),
        namespace: Some(namespace.unwrap_or_else(|| "default".to_owned())),
        config,
        secrets,
        fields,
        ..SaveAgentPolicy::default()
    }
}

impl Written {
    /// Adds positions in the file to errors of the server.
    pub fn failed(&self, error: muster_client::Error) -> Failed {
        match error.body() {
            // One line per problem; the last one may be `and 7 more`.
            Some(body) if body.status_code == 400 && body.field.is_some() => {
                let lines: Vec<String> = body.message.lines().map(|line| self.source.placed(line)).collect();
                let told_already = error.remedy().is_some_and(|remedy| body.message.contains(&remedy));
                let failed = Failed::usage(lines.join("\n"));
                error.remedy().filter(|_| !told_already).into_iter().fold(failed, Failed::remedy)
            }
            _ => error.into(),
        }
    }
}

impl Source {
    fn refuse(&self, problems: &Problems) -> Failed {
        let told = problems.to_string();
        Failed::usage(told.lines().map(|line| self.placed(line)).collect::<Vec<_>>().join("\n"))
    }

    /// Prefixes `path: reason` with file, line and column.
    fn placed(&self, line: &str) -> String {
        let path = line.split_once(": ").map_or(line, |(path, _)| path);
        // In the API the fields of `settings` are at the top level.
        let first = path.split_once('.').map_or(path, |(first, _)| first);
        let is_setting = self.places.has(&format!("settings.{first}"));
        let place = self.places.find(&if is_setting { format!("settings.{path}") } else { path.to_owned() });
        match place {
            Some((row, column)) => format!("{}:{row}:{column}: {line}", self.file),
            None => format!("{}: {line}", self.file),
        }
    }
}

/// Formats an error as `web.yml:3:7: config.inputs: reason`.
fn refused(file: &Utf8Path, error: &YamlError) -> Failed {
    let YamlError { line, column, path, reason } = error;
    let place = if *line > 0 { format!("{file}:{line}:{column}") } else { file.to_string() };
    let path = if path.is_empty() { String::new() } else { format!("{path}: ") };
    Failed::usage(format!("{place}: {path}{reason}"))
}

/// Reads a text file, or standard input for `-`.
pub fn read_text(file: &Utf8Path) -> Result<String, Failed> {
    let mut text = String::new();
    let read = if file == "-" {
        std::io::stdin().lock().take(MAX_BYTES).read_to_string(&mut text)
    } else {
        std::fs::File::open(file).and_then(|file| file.take(MAX_BYTES).read_to_string(&mut text))
    };
    read.map_err(|error| Failed::usage(format!("cannot read {file}: {error}")))?;
    Ok(text)
}

/// Parses `NAME=VALUE` pairs; `NAME=@FILE` keeps the value out of the process list.
fn read_secrets(given: &[String]) -> Result<Option<BTreeMap<String, Option<String>>>, Failed> {
    let mut secrets = BTreeMap::new();
    for pair in given {
        let (name, value) =
            pair.split_once('=').ok_or_else(|| Failed::usage("--secret expects NAME=VALUE or NAME=@FILE"))?;
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

    fn folder_with(name: &str, text: &str) -> (tempfile::TempDir, Utf8PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let file = Utf8PathBuf::from_path_buf(folder.path().join(name)).unwrap();
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
        assert!(told.starts_with("muster: cannot read /nowhere/web.yml: "), "{told}");
    }

    #[test]
    fn what_is_wrong_in_the_configuration_is_told_with_its_place_too() {
        let text = "name: web\nconfig:\n  inputs:\n    - type: process\n      command: /bin/true\n      restart: maybe\n  input: []\n";
        let (_folder, file) = folder_with("web.yml", text);
        let told = read(&file, &[]).unwrap_err().to_string();
        assert!(told.contains(&format!("{file}:6:7: config.inputs.0.restart: ")), "{told}");
        let unknown = format!("{file}:7:3: config.input: unknown key `input`; did you mean `inputs`?");
        assert!(told.contains(&unknown), "{told}");
    }

    #[test]
    fn what_the_server_finds_is_told_with_its_place() {
        let (_folder, file) =
            folder_with("web.yml", "name: web\nsettings:\n  is_protected: true\nconfig: {agent: {}}\n");
        let written = read(&file, &[]).unwrap();
        let body = |message: &str, remedy: Option<&str>| muster_protocol::management::ErrorBody {
            status_code: 400,
            error: "Bad Request".into(),
            message: message.into(),
            code: "policy_invalid".into(),
            field: Some("x".into()),
            remedy: remedy.map(str::to_owned),
        };
        let failed = |message, remedy| written.failed(muster_client::Error::Answered(Box::new(body(message, remedy))));
        let told = failed("config.agent.x: wrong; mend it\nis_protected: no\nfoo: odd", Some("mend it")).to_string();
        let lines = ["4:10: config.agent.x: wrong; mend it", "3:3: is_protected: no"];
        let expected = format!("muster: {file}:{}\n        {file}:{}\n        {file}: foo: odd", lines[0], lines[1]);
        assert_eq!(told.replace("\n        ", "\n"), expected.replace("\n        ", "\n"));
        assert!(failed("name: taken", Some("choose")).to_string().ends_with("choose"));
    }

    #[test]
    fn what_the_file_leaves_out_is_empty_or_untouched() {
        let (_folder, file) = folder_with("web.yml", "name: web\n");
        let policy = read(&file, &[]).unwrap().policy;
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
