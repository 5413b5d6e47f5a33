//! Policy files: read here, parsed and validated by the server.

use std::collections::BTreeMap;
use std::io::Read as _;

use camino::{Utf8Path, Utf8PathBuf};
use clap::Args;
use muster_protocol::management::agent_policy::{AppliedPolicy, ApplyPolicy};
use muster_protocol::management::envelope::Diagnostic;

use super::failure::Failed;
use super::text::printable;

/// Maximum length of a file in bytes.
const MAX_BYTES: u64 = 8 << 20;

/// Number of errors that are printed; further errors are only counted.
const MAX_PRINTED: usize = 20;

/// Flags of commands that change a policy by a file.
#[derive(Args, Debug)]
pub struct PolicyFileArgs {
    /// Policy file (YAML); - reads standard input
    #[arg(long, short, value_name = "FILE")]
    file: Utf8PathBuf,
    /// Value of a secret that the file refers to as $co.elastic.secret{NAME}; @FILE reads it from a file (repeatable)
    #[arg(long = "secret", value_name = "NAME=VALUE")]
    secrets: Vec<String>,
    /// Change the policy even if it is managed
    #[arg(long)]
    force: bool,
}

impl PolicyFileArgs {
    /// Reads the file (`-`: standard input) and the secrets.
    pub fn read(&self) -> Result<PolicyFile, Failed> {
        let request = ApplyPolicy {
            policy: read_text(&self.file)?,
            secrets: read_secrets(&self.secrets)?,
            force: self.force.then_some(true),
            expected_revision: None,
            rollout: None,
        };
        Ok(PolicyFile { request, file: self.file.clone() })
    }
}

/// A policy file and the flags that belong to it.
#[derive(Debug)]
pub struct PolicyFile {
    /// The request for the server.
    pub request: ApplyPolicy,
    file: Utf8PathBuf,
}

impl PolicyFile {
    /// Formats the server's errors about the file, each with its position.
    pub fn failed(&self, error: muster_client::Error) -> Failed {
        problems_of(&self.file, error)
    }

    /// Prints the server's warnings about the file.
    pub fn warn(&self, applied: &AppliedPolicy) {
        warn_of(&self.file, &applied.warnings);
    }
}

/// Prints the server's warnings about a file, each with its position.
pub fn warn_of(file: &Utf8Path, warnings: &[Diagnostic]) {
    for warning in warnings {
        eprintln!("muster: warning: {}", printable(&line_of(file, warning)));
    }
}

/// Formats the server's errors about a file, each with its position.
pub fn problems_of(file: &Utf8Path, error: muster_client::Error) -> Failed {
    let problems = error.body().map(|body| body.problems.as_slice()).unwrap_or_default();
    // Errors such as a conflict have no position in the file.
    if problems.is_empty() {
        return error.into();
    }
    let mut lines: Vec<String> = problems.iter().take(MAX_PRINTED).map(|problem| line_of(file, problem)).collect();
    // One mistake, such as a wrong indentation, can cause many errors.
    if problems.len() > MAX_PRINTED {
        lines.push(format!("and {} more", problems.len() - MAX_PRINTED));
    }
    Failed::usage(lines.join("\n"))
}

/// Formats an error as `web.yml:3:7: config.inputs: reason; hint`, which editors can parse.
fn line_of(file: &Utf8Path, problem: &Diagnostic) -> String {
    let Diagnostic { path, line, column, reason, hint } = problem;
    let place = match (line, column) {
        (Some(line), Some(column)) => format!(":{line}:{column}"),
        _ => String::new(),
    };
    let path = if path.is_empty() { String::new() } else { format!("{path}: ") };
    let hint = hint.as_ref().map(|hint| format!("; {hint}")).unwrap_or_default();
    format!("{file}{place}: {path}{reason}{hint}")
}

/// Reads a text file, or standard input for `-`.
pub fn read_text(file: &Utf8Path) -> Result<String, Failed> {
    let mut text = String::new();
    // The size is limited, because the input may be endless (a device or a pipe).
    let read = if file == "-" {
        std::io::stdin().lock().take(MAX_BYTES).read_to_string(&mut text)
    } else {
        std::fs::File::open(file).and_then(|file| file.take(MAX_BYTES).read_to_string(&mut text))
    };
    read.map_err(|error| Failed::usage(format!("cannot read {file}: {error}")))?;
    Ok(text)
}

/// Parses `NAME=VALUE` pairs. With `NAME=@FILE`, the value is not visible in the process list.
fn read_secrets(given: &[String]) -> Result<Option<BTreeMap<String, Option<String>>>, Failed> {
    let mut secrets = BTreeMap::new();
    for pair in given {
        let (name, value) =
            pair.split_once('=').ok_or_else(|| Failed::usage("--secret expects NAME=VALUE or NAME=@FILE"))?;
        let value = match value.strip_prefix('@') {
            // Editors end files with a newline, which is not part of the secret.
            Some(path) => read_text(Utf8Path::new(path))?.trim_end_matches(['\r', '\n']).to_owned(),
            None => value.to_owned(),
        };
        secrets.insert(name.to_owned(), Some(value));
    }
    Ok((!secrets.is_empty()).then_some(secrets))
}

#[cfg(test)]
mod tests {
    use muster_protocol::management::ErrorBody;

    use super::*;

    fn directory_with(name: &str, text: &str) -> (tempfile::TempDir, Utf8PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let file = Utf8PathBuf::from_path_buf(directory.path().join(name)).unwrap();
        std::fs::write(&file, text).unwrap();
        (directory, file)
    }

    fn named(file: &Utf8Path) -> PolicyFileArgs {
        PolicyFileArgs { file: file.to_owned(), secrets: Vec::new(), force: false }
    }

    #[test]
    fn errors_are_printed_with_file_line_and_column() {
        let (_directory, file) = directory_with("web.yml", "name: web\n");
        let read = named(&file).read().unwrap();
        let problem = |path: &str, place: Option<u64>, hint: Option<&str>| Diagnostic {
            path: path.into(),
            line: place,
            column: place,
            reason: "wrong".into(),
            hint: hint.map(str::to_owned),
        };
        let failed = |problems: Vec<Diagnostic>| {
            let body = ErrorBody { status_code: 400, message: "plain".into(), problems, ..ErrorBody::default() };
            read.failed(muster_client::Error::Answered(Box::new(body))).to_string().replace("\n        ", "\n")
        };
        let told = failed(vec![problem("a.b", Some(3), Some("mend it")), problem("", None, None)]);
        assert_eq!(told, format!("muster: {file}:3:3: a.b: wrong; mend it\n{file}: wrong"));
        assert!(failed(vec![problem("a", None, None); 22]).ends_with("\nand 2 more"));
        assert_eq!(failed(Vec::new()), "muster: plain");
    }

    #[test]
    fn a_missing_file_is_named() {
        let told = named(Utf8Path::new("/nowhere/web.yml")).read().unwrap_err().to_string();
        assert!(told.starts_with("muster: cannot read /nowhere/web.yml: "), "{told}");
    }

    #[test]
    fn secrets_are_read_from_arguments_and_from_files_without_the_final_newline() {
        let (_directory, file) = directory_with("key.txt", "s3=cret\n");
        let secrets = read_secrets(&[format!("A=@{file}"), "B=x=y".into()]).unwrap().unwrap();
        assert_eq!(secrets["A"].as_deref(), Some("s3=cret"));
        assert_eq!(secrets["B"].as_deref(), Some("x=y"));
        assert!(!read_secrets(&["hunter2".into()]).unwrap_err().to_string().contains("hunter2"));
        assert_eq!(read_secrets(&[]).unwrap(), None);
    }
}
