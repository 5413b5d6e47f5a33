//! The policy file of a standalone agent, `policy.yml`, with further inputs in `inputs.d/*.yml`.

use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt as _;
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use muster_core::policy::check::CONFIG_KEYS;
use muster_core::policy::expand::expand;
use muster_core::policy::problem::{Problem, Problems, nearest};
use muster_core::yaml;
use serde_json::{Map, Value};

use crate::model::catalog::{check_owner, trusted};
use crate::paths::Layout;

/// Maximum number of files with further inputs.
const INPUT_FILES_MAX: usize = 100;
/// Interval at which the metadata of the files is read. It costs a few system calls, unlike a watch of the directory works on every
/// file system, and follows links.
const LOOK: Duration = Duration::from_secs(2);
/// Time for which a changed file must stay as it is: an editor may write it in several steps, and half of a policy can be valid.
const SETTLED: Duration = Duration::from_millis(500);
/// Maximum number of such delays, in case that something keeps changing the file.
const SETTLE_MAX: usize = 10;
/// Id of a policy that names none.
const ID: &str = "local";
/// Sections that only a server may send: they are about the fleet, and about who may change the policy.
const OF_SERVERS: [&str; 2] = ["fleet", "signed"];

/// Further sections that a policy can have.
const OTHERS: [&str; 3] = ["id", "revision", "name"];

/// The policy file.
#[derive(Clone, Debug)]
pub struct PolicyFile {
    path: Utf8PathBuf,
    inputs: Utf8PathBuf,
}

/// Metadata of the files, by which a change is noticed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Marks(Vec<(Utf8PathBuf, Option<Mark>)>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mark {
    file: (u64, u64),
    length: u64,
    access: (u32, u32),
    changed: (i64, i64),
}

impl PolicyFile {
    /// The file of the agent in this base path.
    pub fn new(layout: &Layout) -> Self {
        Self { path: layout.policy_file(), inputs: layout.input_files() }
    }

    /// Returns its path.
    pub fn path(&self) -> &Utf8Path {
        &self.path
    }

    /// Reads the policy, in the form in which a server sends it. The error names the file and the place, and quotes no value of a field
    /// whose name suggests a secret.
    pub fn read(&self) -> Result<Map<String, Value>, String> {
        let policy = document(&self.path)?.ok_or_else(|| format!("{}: the file does not exist", self.path))?;
        // What a full disk, or a program that has not begun to write, leaves behind. It must not stop every program.
        let mut policy =
            policy.ok_or_else(|| format!("{}: the file is empty; to run nothing: inputs: []", self.path))?;
        self.check_sections(&policy)?;
        for section in OF_SERVERS {
            policy.remove(section);
        }
        if let Some(Value::Object(agent)) = policy.get_mut("agent") {
            agent.remove("protection");
        }
        let mut inputs = list(&mut policy, "inputs", &self.path)?;
        for path in self.input_files().map_err(|error| format!("{}: {error}", self.inputs))? {
            let mut more = document(&path)?.flatten().unwrap_or_default();
            if let Some(other) = more.keys().find(|name| *name != "inputs") {
                return Err(format!("{path}: {other} belongs into {}; this file can only contain inputs", self.path));
            }
            inputs.extend(list(&mut more, "inputs", &path)?);
        }
        policy.insert("inputs".into(), inputs.into());
        if policy.get("id").and_then(Value::as_str).is_none_or(str::is_empty) {
            policy.insert("id".into(), ID.into());
        }
        // Counted by the agent: the revision of a file would have to be changed by hand.
        policy.remove("revision");
        Ok(policy)
    }

    /// Rejects a file without inputs whose sections have other names: what it is meant to run would be stopped.
    fn check_sections(&self, policy: &Map<String, Value>) -> Result<(), String> {
        if policy.contains_key("inputs") {
            return Ok(());
        }
        if policy.contains_key("config") {
            return Err(format!("{}: this is a policy file of a server; keep only what is in `config`", self.path));
        }
        let known = |name: &str| CONFIG_KEYS.contains(&name) || OTHERS.contains(&name) || OF_SERVERS.contains(&name);
        let Some(unknown) = policy.keys().find(|name| !known(name)) else { return Ok(()) };
        let remedy =
            nearest(unknown, &CONFIG_KEYS).map(|near| format!(" (did you mean `{near}`?)")).unwrap_or_default();
        Err(format!("{}: there are no `inputs`, and `{unknown}` is unknown{remedy}", self.path))
    }

    /// Returns the files with further inputs, by name.
    fn input_files(&self) -> io::Result<Vec<Utf8PathBuf>> {
        let entries = match self.inputs.read_dir_utf8() {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            opened => opened?,
        };
        // Who can write the directory can also rename a file in it that was not meant to be read.
        let directory = std::fs::metadata(&self.inputs)?;
        check_owner(directory.uid(), directory.mode()).map_err(io::Error::other)?;
        let mut paths = Vec::new();
        for entry in entries {
            let path = entry?.into_path();
            // Editors keep temporary copies under names with a dot.
            let is_hidden = path.file_name().is_some_and(|name| name.starts_with('.'));
            if path.extension() == Some("yml") && !is_hidden {
                paths.push(path);
            }
            if paths.len() > INPUT_FILES_MAX {
                return Err(io::Error::other(format!("more than {INPUT_FILES_MAX} files")));
            }
        }
        paths.sort();
        Ok(paths)
    }

    /// Returns the metadata of the files.
    pub fn marks(&self) -> Marks {
        let mut paths = vec![self.path.clone(), self.inputs.clone()];
        // A directory that cannot be read is an error of `read`.
        paths.extend(self.input_files().unwrap_or_default());
        Marks(paths.into_iter().map(|path| (path.clone(), mark(&path))).collect())
    }

    /// Waits until the files differ from `known`, and have stayed as they are for a moment.
    pub async fn changed(&self, known: &Marks) -> Marks {
        let mut marks = loop {
            tokio::time::sleep(LOOK).await;
            let marks = self.marks();
            if marks != *known {
                break marks;
            }
        };
        for _ in 0..SETTLE_MAX {
            tokio::time::sleep(SETTLED).await;
            let now = self.marks();
            if now == marks {
                break;
            }
            marks = now;
        }
        marks
    }
}

fn mark(path: &Utf8Path) -> Option<Mark> {
    let found = fs_err::metadata(path).ok()?;
    let (access, changed) = ((found.uid(), found.mode()), (found.ctime(), found.ctime_nsec()));
    Some(Mark { file: (found.dev(), found.ino()), length: found.len(), access, changed })
}

/// Reads a file that only root and this user can write, and expands its dotted keys; `None` if it does not exist, or in its
/// place if it is empty.
fn document(path: &Utf8Path) -> Result<Option<Option<Map<String, Value>>>, String> {
    let Some(text) = trusted(path).map_err(|reason| format!("{path}: {reason}"))? else { return Ok(None) };
    let read = yaml::read(&text).map_err(|problems| described(path, &problems))?;
    let fields = match read.value {
        Value::Object(fields) => fields,
        Value::Null => return Ok(Some(None)),
        _ => return Err(format!("{path}: the file must consist of fields, such as inputs and outputs")),
    };
    let mut problems = Problems::default();
    let expanded = expand(&fields, "", &mut problems);
    problems.locate(&read.places);
    if problems.0.is_empty() { Ok(Some(Some(expanded))) } else { Err(described(path, &problems)) }
}

/// Takes a list out of a document; empty if there is none.
fn list(fields: &mut Map<String, Value>, name: &str, path: &Utf8Path) -> Result<Vec<Value>, String> {
    match fields.remove(name) {
        Some(Value::Array(items)) => match items.iter().position(|item| !item.is_object()) {
            Some(place) => Err(format!("{path}: {name}.{place} must be an object")),
            None => Ok(items),
        },
        Some(Value::Null) | None => Ok(Vec::new()),
        Some(_) => Err(format!("{path}: {name} must be a list")),
    }
}

/// Describes the first problem. The status and the log contain it, and the status belongs to a bundle that leaves the host.
fn described(path: &Utf8Path, problems: &Problems) -> String {
    let Some(problem) = problems.0.first() else { return path.to_string() };
    let place = problem.place.map(|place| format!(":{}:{}", place.line, place.column)).unwrap_or_default();
    let Problem { path: field, reason, remedy, .. } = problem;
    if yaml::is_secret(field) {
        return format!("{path}{place}: the value of {field} is not valid; quote it");
    }
    let field = if field.is_empty() { String::new() } else { format!("{field}: ") };
    let remedy = if remedy.is_empty() { String::new() } else { format!(" ({remedy})") };
    format!("{path}{place}: {field}{reason}{remedy}")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use serde_json::json;

    use super::*;

    struct Place {
        _directory: tempfile::TempDir,
        base: Utf8PathBuf,
        file: PolicyFile,
    }

    impl Place {
        fn with(text: &str) -> Self {
            let directory = tempfile::tempdir().unwrap();
            let base = Utf8Path::from_path(directory.path()).unwrap().to_owned();
            fs_err::write(base.join("policy.yml"), text).unwrap();
            fs_err::create_dir(base.join("inputs.d")).unwrap();
            let file = PolicyFile::new(&Layout::new(&base));
            Self { _directory: directory, base, file }
        }

        fn write(&self, name: &str, text: &str) {
            fs_err::write(self.base.join(name), text).unwrap();
        }

        fn allow(&self, name: &str, mode: u32) {
            fs_err::set_permissions(self.base.join(name), std::fs::Permissions::from_mode(mode)).unwrap();
        }
    }

    #[test]
    fn ag7_a_file_is_read_as_a_policy_of_a_server_without_what_only_a_server_may_send() {
        let place = Place::with(
            "id: mine\nrevision: 7\nagent.logging.level: debug\nagent: { protection: { enabled: true } }\n\
             fleet: { hosts: [x] }\nsigned: { data: x }\noutputs: { default: { type: file } }\ninputs:\n- { id: a, type: process }\n",
        );
        place.write("inputs.d/2.yml", "inputs: [{ id: c, type: process, data_stream.dataset: x }]");
        place.write("inputs.d/1.yml", "inputs: [{ id: b, type: process }]");
        place.write("inputs.d/none.yml", "# nothing");
        place.write("inputs.d/other.txt", "{{{");
        let expected = json!({"id": "mine", "agent": {"logging": {"level": "debug"}}, "outputs": {"default": {"type": "file"}},
            "inputs": [{"id": "a", "type": "process"}, {"id": "b", "type": "process"},
                {"id": "c", "type": "process", "data_stream": {"dataset": "x"}}]});
        assert_eq!(Value::Object(place.file.read().unwrap()), expected);
        place.write("inputs.d/.3.yml", "{{{");
        assert_eq!(Value::Object(place.file.read().unwrap()), expected, "the copy of an editor");
        assert_eq!(Value::Object(Place::with("inputs:").file.read().unwrap()), json!({"id": "local", "inputs": []}));
    }

    #[test]
    fn ag7_a_file_that_cannot_be_read_has_a_reason_with_its_place_and_without_secrets() {
        let fault = |text: &str| Place::with(text).file.read().unwrap_err();
        for (text, expected) in [
            ("inputs: [", "policy.yml:1:"),
            ("inputs:\n- { id: a }\n- { id: 0777 }", "policy.yml:3:"),
            ("a: 1\na: 2", "policy.yml:2:1: duplicate key `a`"),
            ("- a", "must consist of fields"),
            ("inputs: x", "inputs must be a list"),
            ("inputs: [{ id: a }, b]", "policy.yml: inputs.1 must be an object"),
            ("", "policy.yml: the file is empty"),
            ("# inputs: []\n", "policy.yml: the file is empty"),
            ("imputs: []", "`imputs` is unknown (did you mean `inputs`?)"),
            ("name: web\nconfig: { inputs: [] }", "keep only what is in `config`"),
            ("x.y: 1\nx: { y: 2 }", "policy.yml:"),
        ] {
            let reason = fault(text);
            assert!(reason.contains(expected), "{text}: {reason}");
        }
        let secret = fault("outputs: { default: { password: 0123456 } }");
        assert!(secret.contains("outputs.default.password") && !secret.contains("123456"), "{secret}");
        let place = Place::with("inputs: []");
        place.write("inputs.d/bad.yml", "inputs: 1");
        assert!(place.file.read().unwrap_err().contains("inputs.d/bad.yml: inputs must be a list"));
        place.write("inputs.d/bad.yml", "inputs: []\noutputs: {}");
        assert!(place.file.read().unwrap_err().contains("inputs.d/bad.yml: outputs belongs into"));
        fs_err::remove_file(place.base.join("inputs.d/bad.yml")).unwrap();
        nix::unistd::mkfifo(place.base.join("inputs.d/pipe.yml").as_std_path(), nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(place.file.read().unwrap_err().contains("inputs.d/pipe.yml: not a regular file"));
        fs_err::remove_file(place.base.join("policy.yml")).unwrap();
        assert!(place.file.read().unwrap_err().ends_with("policy.yml: the file does not exist"));
        let large = format!("# {}", "x".repeat(2 << 20));
        assert!(fault(&large).contains("larger than"));
        let many = Place::with("inputs: []");
        (0..=INPUT_FILES_MAX).for_each(|n| many.write(&format!("inputs.d/{n}.yml"), ""));
        assert!(many.file.read().unwrap_err().contains("more than 100 files"));
    }

    #[test]
    fn ag7_ag48_files_that_others_can_write_are_not_used() {
        let place = Place::with("inputs: []");
        place.write("inputs.d/a.yml", "");
        for (name, good) in [("policy.yml", 0o640), ("inputs.d/a.yml", 0o644), ("inputs.d", 0o755)] {
            place.allow(name, good | 0o020);
            let reason = place.file.read().unwrap_err();
            assert!(reason.contains(name) && reason.contains("writable by others"), "{name}: {reason}");
            place.allow(name, good);
            assert!(place.file.read().is_ok(), "{name}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn ag7_every_change_of_the_files_is_noticed_when_it_is_complete() {
        let place = Place::with("inputs: []");
        let mut marks = place.file.marks();
        let minute = Duration::from_secs(60);
        assert!(tokio::time::timeout(minute, place.file.changed(&marks)).await.is_err(), "nothing changes");
        let changes: [&dyn Fn(); 4] = [
            &|| place.write("policy.yml", "inputs:  []"),
            &|| place.allow("policy.yml", 0o640),
            &|| place.write("inputs.d/new.yml", "inputs: []"),
            &|| fs_err::remove_file(place.base.join("inputs.d/new.yml")).unwrap(),
        ];
        for change in changes {
            change();
            marks = tokio::time::timeout(minute, place.file.changed(&marks)).await.unwrap();
        }
        // In two steps.
        place.write("policy.yml", "inputs: [");
        let file = place.file.clone();
        let noticed = tokio::spawn(async move { (file.changed(&marks).await, file.read()) });
        tokio::time::sleep(LOOK + SETTLED / 2).await;
        place.write("policy.yml", "inputs: [{ id: a }]");
        let read = noticed.await.unwrap().1;
        assert!(read.is_ok(), "not the half of it: {read:?}");
    }
}
