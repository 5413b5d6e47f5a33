//! Packs: named sets of scheduled queries for the hosts of a space or of all spaces (FL §1.5). What osquery gets of a pack is a document
//! in its own format; for which hosts it is meant is decided here.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::labels::{MAX_CHOSEN, name_key};
use super::options::MAX_DOCUMENT;
use super::options_check::check_pack;
use super::osquery_json::{normalize_pack, read};
use super::platform::{self, Platform};
use crate::error::{Error, ErrorKind};
use crate::id::{PackId, SpaceId};
use crate::policy::problem::Problems;

/// Maximum number of packs of a space, and of packs of all spaces.
pub const MAX_PACKS: usize = 50;
/// Maximum length of the documents of all packs of a space, and of all packs of all spaces, bytes of JSON. With the fleetd options, a
/// configuration stays below the 1 MiB that older versions of osquery accept.
pub const MAX_DOCUMENTS: usize = 256 * 1024;
/// Name of FleetDM's pack for hosts of all teams.
const GLOBAL: &str = "Global";
/// Beginning of the names of FleetDM's packs for the hosts of a team (FL15).
const TEAM: &str = "team-";
/// Maximum length of a name, and of a description, bytes.
const MAX_NAME: usize = 128;
const MAX_TEXT: usize = 4096;

/// A pack.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pack {
    /// Its id.
    pub id: PackId,
    /// Number of changes, from 1.
    pub version: i64,
    /// Name, under which osquery gets it: results of its queries are named `pack/NAME/QUERY`.
    pub name: String,
    /// What it is about.
    pub description: String,
    /// Names of the platforms whose hosts get it; empty for all.
    pub platforms: Vec<String>,
    /// Names of labels, of which the hosts that get it have one; empty for all.
    pub labels: Vec<String>,
    /// What osquery gets: `queries`, and optionally `discovery`, `platform`, `version`, `shard` and `oncall`.
    pub document: Value,
}

impl Pack {
    /// Returns whether hosts of a platform get it; `None` stands for a platform that is unknown.
    pub fn applies_to(&self, platform: Option<Platform>) -> bool {
        platform::applies(&self.platforms, platform)
    }

    /// Checks a pack of a space; `None` stands for all spaces.
    fn check(&self, space: Option<&SpaceId>) -> Result<(), Error> {
        let allowed = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.' | ' ');
        if self.name.is_empty() || self.name.len() > MAX_NAME || !self.name.chars().all(allowed) {
            let reason = format!("must have 1 to {MAX_NAME} bytes: letters, digits, spaces, `-`, `_` and `.`");
            return Err(Error::invalid("name", reason));
        }
        // Names by which tools of FleetDM recognize who a scheduled query is for.
        let is_of_all = self.name.eq_ignore_ascii_case(GLOBAL);
        let of_team = self.name.to_lowercase().strip_prefix(TEAM).map(str::to_owned);
        let is_foreign = of_team.is_some_and(|of| space.is_none_or(|space| of != space.as_str().to_lowercase()));
        if (is_of_all && space.is_some()) || is_foreign {
            let reason = "the name `Global` is for a pack of all spaces, and `team-SPACE` for one of that space";
            return Err(Error::invalid("name", reason));
        }
        if self.description.len() > MAX_TEXT || self.description.contains('\0') {
            return Err(Error::invalid("description", format!("at most {MAX_TEXT} bytes, without null characters")));
        }
        if self.labels.len() > MAX_CHOSEN {
            return Err(Error::invalid("labels", format!("at most {MAX_CHOSEN} labels")));
        }
        platform::check_names("platforms", &self.platforms)
    }
}

/// Parses the document of a pack, YAML or JSON. All problems are reported at once, with their positions.
pub fn parse(text: &str) -> Result<Value, Error> {
    let invalid = |error: Error| Error { kind: ErrorKind::Invalid, code: "pack_invalid", ..error };
    if text.len() > MAX_DOCUMENT {
        return Err(invalid(Error::invalid("pack", format!("at most {MAX_DOCUMENT} bytes"))));
    }
    let mut document = read(text).map_err(|problems| invalid(problems.into()))?;
    normalize_pack(&mut document.value);
    let mut problems = Problems::default();
    check_pack("", &document.value, &mut problems);
    // A file that is empty by mistake must not replace a pack.
    if document.value.get("queries").is_none_or(Value::is_null) && problems.0.is_empty() {
        problems.advise("", "`queries` is missing", "write `queries: {}` for a pack without queries");
    }
    problems.locate(&document.places);
    problems.into_result().map_err(|problems| invalid(problems.into()))?;
    Ok(document.value)
}

/// Checks the packs of a space, or of all spaces, after a change of one of them.
pub fn check_all(packs: &[Pack], space: Option<&SpaceId>) -> Result<(), Error> {
    packs.iter().try_for_each(|pack| pack.check(space))?;
    if packs.len() > MAX_PACKS {
        let message = format!("there are already {MAX_PACKS} packs, the maximum");
        return Err(Error::conflict("too_many_packs", message).remedy("delete one that is not needed"));
    }
    if packs.iter().map(|pack| pack.document.to_string().len()).sum::<usize>() > MAX_DOCUMENTS {
        return Err(Error::invalid("pack", format!("all packs must not exceed {MAX_DOCUMENTS} bytes in total")));
    }
    let mut names: Vec<String> = packs.iter().map(|pack| name_key(&pack.name)).collect();
    names.sort_unstable();
    match names.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(Error::conflict("pack_exists", format!("there is already a pack named {:?}", pair[0]))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pack(name: &str) -> Pack {
        crate::testing::pack(name, "q")
    }

    #[test]
    fn fl15_names_of_fleetdm_belong_to_all_spaces_or_to_one() {
        let blue = SpaceId::trusted("blue");
        let check = |name: &str, space: Option<&SpaceId>| check_all(&[pack(name)], space).map_err(|error| error.field);
        for (name, space) in [("Global", None), ("team-blue", Some(&blue)), ("it compliance", Some(&blue)), ("x", None)]
        {
            assert_eq!(check(name, space), Ok(()), "{name}");
        }
        for (name, space) in
            [("global", Some(&blue)), ("team-red", Some(&blue)), ("team-blue", None), ("a/b", None), ("", None)]
        {
            assert_eq!(check(name, space), Err(Some("name".into())), "{name}");
        }
    }

    #[test]
    fn packs_are_limited_and_their_names_are_unique() {
        let code = |packs: &[Pack]| check_all(packs, None).unwrap_err().code;
        assert_eq!(code(&[pack("a"), pack("A")]), "pack_exists");
        let many: Vec<_> = (0..=MAX_PACKS).map(|number| pack(&format!("p{number}"))).collect();
        assert_eq!(code(&many), "too_many_packs");
        let large = Pack { document: json!({"queries": {"q": {"query": "x".repeat(MAX_DOCUMENTS)}}}), ..pack("a") };
        let platform = Pack { platforms: vec!["linus".into()], ..pack("a") };
        let labels = Pack { labels: vec![String::new(); MAX_CHOSEN + 1], ..pack("a") };
        for (bad, field) in [(large, "pack"), (platform, "platforms"), (labels, "labels")] {
            assert_eq!(check_all(&[bad], None).unwrap_err().field.as_deref(), Some(field));
        }
    }

    #[test]
    fn fl16_packs_can_be_osquerys_own_files() {
        let text = r#"// Persistence
{
  "platform": "posix", "version": "1.4.5", "oncall": "security",
  "queries": {
    # "crontab": {"query": "select 1;", "interval": 60},
    "crontab": {
      "query" : "select * from crontab where \
        command like '%//%' or \
        // no comment
        command like '%curl%';",
      "interval" : "86400",
      "platform" : "ubuntu,darwin",
      "removed": "false",
      "startup_priority": 1,
      "description" : "Scheduled commands",
      "value" : "Finds malware"
    }
  }
}
"#;
        let query = &parse(text).unwrap()["queries"]["crontab"];
        assert_eq!((&query["interval"], &query["removed"]), (&json!(86_400), &json!(false)));
        assert!(query["query"].as_str().unwrap().ends_with("command like '%curl%';"));
        let error = parse(&text.replace("86400", "700000")).unwrap_err();
        assert_eq!(error.problems.unwrap().0[0].place.unwrap().line, 11);
        assert!(
            parse(&text.replace("86400", "daily")).is_err() && parse(&text.replace("\"false\"", "\"no\"")).is_err()
        );
    }

    #[test]
    fn documents_are_those_of_osquery() {
        let text =
            "queries:\n  ports: {query: SELECT * FROM listening_ports, interval: 600, removed: false}\nshard: 50\n";
        assert_eq!(parse(text).unwrap()["queries"]["ports"]["interval"], 600);
        let error = parse("queries:\n  ports: {query: SELECT 1}\nlabels: [a]\n").unwrap_err();
        let lines: Vec<_> = error.problems.unwrap().0.iter().map(|problem| problem.place.unwrap().line).collect();
        assert_eq!((error.code, lines), ("pack_invalid", vec![2, 3]));
        for (empty, has) in [("", false), ("shard: 50\n", false), ("queries: {}\n", true)] {
            assert_eq!(parse(empty).is_ok(), has, "{empty:?}");
        }
        for bad in ["queries: {'': {query: SELECT 1, interval: 60}}", "queries: {}\ndiscovery: [5]"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        assert!(parse("[]").is_err() && parse(&"x".repeat(MAX_DOCUMENT + 1)).is_err());
    }
}
