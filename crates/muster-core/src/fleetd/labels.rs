//! Labels: groups of the hosts of a space. Hosts answer themselves every hour whether they have a dynamic label (FL §1.7, §1.8), people
//! choose the hosts of a manual one, and built-in labels follow from the platform that a host reports.

use super::platform::{self, Platform};
use super::questions::{self, Answer};
use crate::error::Error;
use crate::id::{LabelId, SpaceId};
use crate::live_query::check_sql;
use crate::time::Timestamp;

/// Prefix of the names of the queries, by which FleetDM's tools recognize them.
pub const PREFIX: &str = "fleet_label_query_";
/// Maximum number of labels of a space, without the built-in ones.
pub const MAX_LABELS: usize = 300;
/// Maximum length of the SQL of all labels of a space, bytes: a host gets them in one response.
pub const MAX_SQL: usize = 256 * 1024;
/// Maximum number of hosts that a request can name. Each is looked up.
pub const MAX_NAMED: usize = 1_000;
/// Maximum number of labels of which hosts must have one.
pub const MAX_CHOSEN: usize = 100;
/// Maximum length of a name, and of a description, bytes.
const MAX_NAME: usize = 255;
const MAX_TEXT: usize = 4096;

/// A label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    /// Id, unique in all spaces: a result with the id of a label of another space is no result of any label.
    pub id: LabelId,
    /// The space that it belongs to.
    pub space: SpaceId,
    /// Number of changes, from 1.
    pub version: i64,
    /// Name, unique in the space ignoring case.
    pub name: String,
    /// What it is about.
    pub description: String,
    /// SQL: a host has the label if it returns a row. `None` for a manual label.
    pub query: Option<String>,
    /// Names of the platforms whose hosts can have a dynamic label; empty for all.
    pub platforms: Vec<String>,
    /// Creation time.
    pub created_at: Timestamp,
}

impl Label {
    /// Returns the name under which hosts get and answer the query.
    pub fn query_name(&self) -> String {
        format!("{PREFIX}{}", self.id)
    }

    /// Returns whether hosts answer for themselves if they have it.
    pub fn is_dynamic(&self) -> bool {
        self.query.is_some()
    }

    /// Returns the query for hosts of a platform; `None` if they are not asked.
    pub fn query_for(&self, platform: Option<Platform>) -> Option<&str> {
        self.query.as_deref().filter(|_| platform::applies(&self.platforms, platform))
    }

    fn check(&self) -> Result<(), Error> {
        if self.name.trim().is_empty() || self.name.len() > MAX_NAME {
            return Err(Error::invalid("name", format!("must have 1 to {MAX_NAME} bytes")));
        }
        if self.name.chars().any(crate::reported::is_deceptive) {
            return Err(Error::invalid("name", "must not contain control characters"));
        }
        // PostgreSQL cannot store a null character.
        if self.description.len() > MAX_TEXT || self.description.contains('\0') {
            return Err(Error::invalid("description", format!("at most {MAX_TEXT} bytes, without null characters")));
        }
        match &self.query {
            Some(query) => check_sql(query).map_err(|error| Error { field: Some("query".into()), ..error })?,
            None if !self.platforms.is_empty() => {
                return Err(Error::invalid("platforms", "a manual label has none"));
            }
            None => {}
        }
        platform::check_names("platforms", &self.platforms)
    }
}

/// Returns whether a host with labels of these names is meant by a choice of labels: it has one of them, or none is chosen.
pub fn is_among(chosen: &[String], names: &[String]) -> bool {
    let has = |name: &String| names.iter().any(|own| name_key(own) == name_key(name));
    chosen.is_empty() || chosen.iter().any(has)
}

/// Returns the form of a name that is compared.
pub fn name_key(name: &str) -> String {
    name.trim().to_lowercase()
}

/// Checks a new or changed label, next to the other labels of its space.
pub fn check(label: &Label, others: &[Label]) -> Result<(), Error> {
    label.check()?;
    let key = name_key(&label.name);
    if BuiltIn::parse(&key).is_some() || others.iter().any(|other| name_key(&other.name) == key) {
        return Err(exists(&label.name));
    }
    if others.len() >= MAX_LABELS {
        return Err(too_many());
    }
    let sql = |label: &Label| label.query.as_ref().map_or(0, String::len);
    if others.iter().map(sql).sum::<usize>() + sql(label) > MAX_SQL {
        return Err(Error::invalid("query", format!("the SQL of all labels must not exceed {MAX_SQL} bytes in total")));
    }
    Ok(())
}

/// Returns the error for a name that is taken.
pub fn exists(name: &str) -> Error {
    Error::conflict("label_exists", format!("there is already a label named {name:?}"))
}

/// Returns the error for a space that has the maximum number of labels.
pub fn too_many() -> Error {
    let message = format!("the space already has {MAX_LABELS} labels, the maximum");
    Error::conflict("too_many_labels", message).remedy("delete one that is not needed")
}

/// Changes of the labels of a host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelChanges {
    /// Labels that it did not have.
    pub add: Vec<LabelId>,
    /// Labels that it no longer has.
    pub remove: Vec<LabelId>,
}

impl LabelChanges {
    /// Returns whether there is nothing to change.
    pub fn is_empty(&self) -> bool {
        self.add.is_empty() && self.remove.is_empty()
    }
}

/// Decides what changes with the results of a request of a host. `labels` are those of its space, `known` the ones that it has. Results of
/// labels of other spaces are dropped (FL33), a query that did not run changes nothing (FL32), and equal results change nothing.
pub fn decide(
    labels: &[Label],
    platform: Option<Platform>,
    known: &[LabelId],
    queries: &str,
    statuses: &str,
    messages: &str,
) -> LabelChanges {
    let (asked, other): (Vec<&Label>, Vec<&Label>) =
        labels.iter().filter(|label| label.is_dynamic()).partition(|label| label.query_for(platform).is_some());
    let ids: Vec<&str> = asked.iter().map(|label| label.id.as_str()).collect();
    let mut changes = LabelChanges::default();
    for (at, answer) in questions::answers(PREFIX, &ids, queries, statuses, messages) {
        let id = &asked[at].id;
        match (answer, known.contains(id)) {
            (Answer::Ran(true), false) => changes.add.push(id.clone()),
            (Answer::Ran(false), true) => changes.remove.push(id.clone()),
            _ => {}
        }
    }
    // Hosts of other platforms do not have the label, even if it once was for theirs.
    changes.remove.extend(other.into_iter().map(|label| &label.id).filter(|id| known.contains(id)).cloned());
    changes
}

/// Changes of the errors of the labels' queries on a host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelErrors {
    /// Labels whose query fails, with the error: those that worked, or failed for another reason.
    pub put: Vec<(LabelId, String)>,
    /// Labels whose query failed, and has run or is no longer asked.
    pub remove: Vec<LabelId>,
}

impl LabelErrors {
    /// Returns whether there is nothing to change.
    pub fn is_empty(&self) -> bool {
        self.put.is_empty() && self.remove.is_empty()
    }
}

/// Decides the same about errors. `known` are those of the host.
pub fn decide_errors(
    labels: &[Label],
    platform: Option<Platform>,
    known: &[(LabelId, String)],
    queries: &str,
    statuses: &str,
    messages: &str,
) -> LabelErrors {
    let asked: Vec<&Label> = labels.iter().filter(|label| label.query_for(platform).is_some()).collect();
    let ids: Vec<&str> = asked.iter().map(|label| label.id.as_str()).collect();
    let mut changes = LabelErrors::default();
    for (at, answer) in questions::answers(PREFIX, &ids, queries, statuses, messages) {
        let id = &asked[at].id;
        let before = known.iter().find(|(label, _)| label == id).map(|(_, error)| error);
        match answer {
            Answer::Failed(error) if before != Some(&error) => changes.put.push((id.clone(), error)),
            Answer::Ran(_) if before.is_some() => changes.remove.push(id.clone()),
            Answer::Failed(_) | Answer::Ran(_) => {}
        }
    }
    let is_asked = |id: &LabelId| asked.iter().any(|label| label.id == *id);
    changes.remove.extend(known.iter().map(|(id, _)| id).filter(|id| !is_asked(id)).cloned());
    changes
}

/// Returns whether the results of a request contain one of any label, of this or another space.
pub fn has_answers(queries: &str, statuses: &str) -> bool {
    questions::has_answers(PREFIX, queries, statuses)
}

/// A label that every space has. Nothing is stored for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BuiltIn {
    /// Every host.
    AllHosts,
    /// macOS.
    MacOs,
    /// Windows.
    Windows,
    /// Any distribution of Linux.
    AllLinux,
    /// Ubuntu.
    Ubuntu,
    /// CentOS.
    CentOs,
    /// Red Hat Enterprise Linux.
    RedHat,
    /// Fedora.
    Fedora,
}

impl BuiltIn {
    /// All of them, in the order of lists.
    pub const ALL: [Self; 8] = [
        Self::AllHosts,
        Self::MacOs,
        Self::Windows,
        Self::AllLinux,
        Self::Ubuntu,
        Self::CentOs,
        Self::RedHat,
        Self::Fedora,
    ];
    const NAMES: [&str; 8] = [
        "All Hosts",
        "macOS",
        "MS Windows",
        "All Linux",
        "Ubuntu Linux",
        "CentOS Linux",
        "Red Hat Linux",
        "Fedora Linux",
    ];
    const IDS: [&str; 8] = ["all-hosts", "macos", "ms-windows", "all-linux", "ubuntu", "centos", "red-hat", "fedora"];

    /// Returns its name, as FleetDM has it.
    pub const fn name(self) -> &'static str {
        Self::NAMES[self as usize]
    }

    /// Returns its id, which no stored label has.
    pub const fn id(self) -> &'static str {
        Self::IDS[self as usize]
    }

    /// Parses a name, ignoring case, or an id.
    pub fn parse(named: &str) -> Option<Self> {
        let named = named.trim();
        Self::ALL.into_iter().find(|one| one.name().eq_ignore_ascii_case(named) || one.id() == named)
    }

    /// Returns whether a host has it. `os`: what an agent reports of the operating system ([`AgentRecord::os`](crate::agent::AgentRecord::os)).
    pub fn has(self, os: &str) -> bool {
        let mut lines = os.lines().map(str::to_ascii_lowercase);
        let (platform, name) = (lines.next().unwrap_or_default(), lines.nth(1).unwrap_or_default());
        // Old versions of osquery call CentOS `rhel`, too.
        let is_centos = platform == "centos" || name.starts_with("centos");
        match self {
            Self::AllHosts => true,
            Self::MacOs => platform == "darwin",
            Self::Windows => platform == "windows",
            Self::AllLinux => !matches!(platform.as_str(), "" | "darwin" | "windows"),
            Self::Ubuntu => platform == "ubuntu",
            Self::CentOs => is_centos,
            Self::RedHat => platform == "rhel" && !is_centos,
            Self::Fedora => platform == "fedora",
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::at;

    fn label(id: &str, query: Option<&str>, platforms: &[&str]) -> Label {
        Label {
            id: LabelId::trusted(id),
            space: SpaceId::default(),
            version: 1,
            name: id.into(),
            description: String::new(),
            query: query.map(str::to_owned),
            platforms: platforms.iter().map(ToString::to_string).collect(),
            created_at: at(0),
        }
    }

    fn ids(labels: &[&str]) -> Vec<LabelId> {
        labels.iter().map(|id| LabelId::trusted(*id)).collect()
    }

    #[test]
    fn fl32_rows_and_no_rows_change_the_membership_and_an_error_does_not() {
        let labels = ["a", "b", "c", "d", "e"].map(|id| label(id, Some("SELECT 1"), &[]));
        let name = |id: &str| format!("{PREFIX}{id}");
        let rows = json!([{"1": "1"}]);
        let queries = json!({name("a"): rows, name("b"): [], name("c"): [], name("d"): [], name("e"): rows});
        let statuses = json!({name("a"): 0, name("b"): "0", name("c"): 1, name("d"): 1, name("e"): 0});
        let messages = json!({name("c"): "no such table"});
        let (queries, statuses, messages) = (queries.to_string(), statuses.to_string(), messages.to_string());
        assert!(has_answers("null", &statuses) && !has_answers("null", r#"{"fleet_policy_query_a":0}"#));
        let changes = decide(&labels, None, &ids(&["b", "c", "e"]), &queries, &statuses, &messages);
        assert_eq!(changes, LabelChanges { add: ids(&["a"]), remove: ids(&["b"]) });
        let again = decide(&labels, None, &ids(&["a", "c", "e"]), &queries, &statuses, &messages);
        assert!(again.is_empty(), "no write for equal results");
    }

    #[test]
    fn fl32_errors_are_known_until_the_query_runs() {
        let labels = ["a", "b", "c"].map(|id| label(id, Some("SELECT 1"), &["linux"]));
        let name = |id: &str| format!("{PREFIX}{id}");
        let queries = json!({name("b"): []}).to_string();
        let statuses = json!({name("a"): 1, name("b"): 0, name("c"): 1}).to_string();
        let messages = json!({name("a"): "no such table: x", name("c"): "near SELEC"}).to_string();
        let decided = |platform, known: &[(&str, &str)]| {
            let known: Vec<_> = known.iter().map(|(id, error)| (LabelId::trusted(*id), (*error).to_owned())).collect();
            decide_errors(&labels, Some(platform), &known, &queries, &statuses, &messages)
        };
        let changes = decided(Platform::Linux, &[("b", "x"), ("c", "near SELEC")]);
        assert_eq!(changes.put, [(LabelId::trusted("a"), "no such table: x".to_owned())]);
        assert_eq!(changes.remove, ids(&["b"]));
        assert!(decided(Platform::Linux, &[("a", "no such table: x"), ("c", "near SELEC")]).is_empty());
        assert_eq!(decided(Platform::Windows, &[("a", "x")]).remove, ids(&["a"]), "no longer of its platform");
    }

    #[test]
    fn fl33_results_of_labels_that_the_host_is_not_asked_for_are_dropped() {
        let labels =
            [label("linux", Some("SELECT 1"), &["linux"]), label("manual", None, &[]), label("other", Some("x"), &[])];
        let yes = |id: &str| (format!("{PREFIX}{id}"), json!([{"1": "1"}]), json!(0));
        let sent = ["linux", "manual", "foreign"].map(yes);
        let queries: serde_json::Map<_, _> = sent.iter().map(|(name, rows, _)| (name.clone(), rows.clone())).collect();
        let statuses: serde_json::Map<_, _> = sent.iter().map(|(name, _, code)| (name.clone(), code.clone())).collect();
        let (queries, statuses) = (json!(queries).to_string(), json!(statuses).to_string());
        let decided = |platform, known: &[&str]| decide(&labels, platform, &ids(known), &queries, &statuses, "null");
        assert_eq!(decided(Some(Platform::Linux), &["manual"]).add, ids(&["linux"]));
        let windows = decided(Some(Platform::Windows), &["linux", "manual"]);
        assert_eq!(windows, LabelChanges { add: Vec::new(), remove: ids(&["linux"]) }, "no longer of its platform");
    }

    #[test]
    fn labels_are_limited_and_their_names_are_unique() {
        let others = [label("a", None, &[]), label("b", Some("SELECT 1"), &["linux"])];
        assert!(check(&label("c", Some("SELECT 1"), &["darwin"]), &others).is_ok());
        for taken in [" A", "all hosts", "MacOS"] {
            let named = Label { name: taken.into(), ..label("c", None, &[]) };
            assert_eq!(check(&named, &others).unwrap_err().code, "label_exists", "{taken}");
        }
        let many: Vec<_> = (0..MAX_LABELS).map(|number| label(&format!("l{number}"), None, &[])).collect();
        assert_eq!(check(&label("c", None, &[]), &many).unwrap_err().code, "too_many_labels");
        let long = "x".repeat(64 * 1024);
        let large: Vec<_> = (0..4).map(|number| label(&format!("l{number}"), Some(&long), &[])).collect();
        for (bad, others, field) in [
            (label("c", Some("x"), &[]), large.as_slice(), "query"),
            (label("c", Some(" "), &[]), &[], "query"),
            (label("c", Some("x"), &["linus"]), &[], "platforms"),
            (label("c", None, &["linux"]), &[], "platforms"),
            (label(" ", None, &[]), &[], "name"),
            (label("a\nb", None, &[]), &[], "name"),
            (Label { description: long.clone(), ..label("c", None, &[]) }, &[], "description"),
        ] {
            assert_eq!(check(&bad, others).unwrap_err().field.as_deref(), Some(field));
        }
    }

    #[test]
    fn built_in_labels_follow_from_the_operating_system() {
        let of = |os: &str| BuiltIn::ALL.into_iter().filter(|one| one.has(os)).map(BuiltIn::name).collect::<Vec<_>>();
        assert_eq!(of("ubuntu\ndebian\nUbuntu\n24.04"), ["All Hosts", "All Linux", "Ubuntu Linux"]);
        assert_eq!(of("rhel\nrhel\nCentOS Linux\n7"), ["All Hosts", "All Linux", "CentOS Linux"]);
        assert_eq!(of("rhel\nfedora\nRed Hat Enterprise Linux\n9"), ["All Hosts", "All Linux", "Red Hat Linux"]);
        assert_eq!(of("darwin\ndarwin\nmacOS"), ["All Hosts", "macOS"]);
        assert_eq!((of("windows"), of("")), (vec!["All Hosts", "MS Windows"], vec!["All Hosts"]));
        assert_eq!(
            [BuiltIn::parse("ms windows"), BuiltIn::parse("macos")],
            [Some(BuiltIn::Windows), Some(BuiltIn::MacOs)]
        );
    }
}
