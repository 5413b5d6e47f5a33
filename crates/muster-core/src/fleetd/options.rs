//! The fleetd options of a space: the configuration of its hosts' osquery (FL §1.5).
//!
//! A document has `config`, an osquery configuration, and `overrides.platforms`, which replace it as a whole for a platform.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::options_advice::advise;
use super::options_check::check;
use super::osquery_json::{normalize_config, read};
use super::packs::Pack;
use super::platform::Platform;
use super::schedule::{Schedule, delimiter};
use crate::credential::SecretHash;
use crate::error::{Error, ErrorKind};
use crate::hex;
use crate::policy::diff::{Difference, diff};
use crate::policy::problem::Problems;
use crate::yaml::{Document, Places};

/// Maximum length of a document, bytes.
pub const MAX_DOCUMENT: usize = 256 * 1024;

/// Document of a space for which none was set.
pub const DEFAULT: &str = r"config:
  options:
    pack_delimiter: /
    distributed_plugin: tls
    disable_distributed: false
    distributed_interval: 10
    distributed_tls_max_attempts: 3
    logger_plugin: tls
    logger_tls_period: 10
  decorators:
    load:
      - SELECT uuid AS host_uuid FROM system_info;
      - SELECT hostname AS hostname FROM system_info;
  schedule: {}
  packs: {}
";

/// Valid options.
#[derive(Clone, Debug)]
pub struct Options {
    value: Value,
    places: Places,
}

/// A configuration as osqueryd gets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendered {
    /// The configuration: a JSON object without a member `etag`.
    pub plain: String,
    /// The same, with its etag.
    pub with_etag: String,
    /// SHA-256 of `plain`, in hexadecimal digits.
    pub etag: String,
}

impl Options {
    /// Parses a document, YAML or JSON. All problems are reported at once, with their positions.
    pub fn parse(text: &str) -> Result<Self, Error> {
        if text.len() > MAX_DOCUMENT {
            return Err(invalid(Error::invalid("options", format!("at most {MAX_DOCUMENT} bytes"))));
        }
        let Document { value, places } = normalized(text).map_err(|problems| invalid(problems.into()))?;
        let mut problems = Problems::default();
        check(&value, &mut problems);
        problems.locate(&places);
        problems.into_result().map_err(|problems| invalid(problems.into()))?;
        Ok(Self { value, places })
    }

    /// Parses a document that was checked when it was stored, by this or an older version of the server.
    pub fn stored(text: &str) -> Result<Self, Error> {
        let read = normalized(text).map_err(|problems| invalid(problems.into()));
        read.map(|Document { value, places }| Self { value, places })
    }

    /// Returns warnings, with their positions.
    pub fn advice(&self) -> Problems {
        let mut problems = Problems::default();
        advise(&self.value, &mut problems);
        problems.locate(&self.places);
        problems
    }

    /// Renders the configuration of the hosts of a platform that get these packs; `None` stands for a platform that is unknown. An override
    /// replaces the common configuration as a whole (FL14).
    pub fn render<'a>(&self, platform: Option<Platform>, packs: impl IntoIterator<Item = &'a Pack>) -> Rendered {
        Rendered::of(&self.config(platform, packs))
    }

    /// Returns what the server follows of the same configuration. `others`: the packs that are not for its hosts.
    pub fn schedule<'a>(
        &self,
        platform: Option<Platform>,
        packs: impl IntoIterator<Item = &'a Pack>,
        others: impl IntoIterator<Item = &'a Pack>,
    ) -> Schedule {
        Schedule::of(&self.config(platform, packs), self.member("command_line_flags"), others)
    }

    /// Returns what osquery may put between the parts of the names of queries: that of each platform, and the usual ones, which hosts may still
    /// use after a change.
    pub fn delimiters(&self) -> BTreeSet<String> {
        let platforms = Platform::ALL.map(Some).into_iter().chain([None]);
        let configured = platforms.map(|one| delimiter(&self.config(one, [])).to_owned());
        configured.chain(["/", "_"].map(str::to_owned)).collect()
    }

    fn config<'a>(&self, platform: Option<Platform>, packs: impl IntoIterator<Item = &'a Pack>) -> Map<String, Value> {
        let overrides = self.value.pointer("/overrides/platforms").and_then(Value::as_object);
        let own = overrides.zip(platform).and_then(|(all, platform)| all.get(platform.as_str()));
        let config = own.filter(|config| !config.is_null()).or_else(|| self.value.get("config"));
        // `null` counts as an empty configuration (FL170).
        let mut config = config.and_then(Value::as_object).cloned().unwrap_or_default();
        // Its only valid value is the default of osqueryd. With push, orbit sets another one by a flag, which the configuration would
        // overrule (FL §2.9).
        if let Some(options) = config.get_mut("options").and_then(Value::as_object_mut) {
            options.remove("distributed_plugin");
        }
        for pack in packs {
            let all = config.entry("packs").or_insert(Value::Null);
            if !all.is_object() {
                *all = Value::Object(Map::new());
            }
            all[&pack.name] = pack.document.clone();
        }
        config
    }

    /// Returns a member of the document.
    pub(super) fn member(&self, name: &str) -> Option<&Value> {
        self.value.get(name)
    }

    /// Returns the differences from other options, in the order of their paths.
    pub fn differences_from(&self, before: &Self) -> Vec<Difference> {
        diff(&before.value, &self.value)
    }
}

impl Rendered {
    fn of(config: &Map<String, Value>) -> Self {
        let plain = serde_json::to_string(config).unwrap_or_else(|_| "{}".to_owned());
        let etag = hex::encode(&SecretHash::of(plain.as_bytes()).0);
        let comma = if plain.len() > 2 { "," } else { "" };
        Self { with_etag: format!(r#"{{"etag":"{etag}"{comma}{}"#, &plain[1..]), etag, plain }
    }
}

/// Parses a document, and gives numbers and booleans that osquery accepts as strings one form.
fn normalized(text: &str) -> Result<Document, Problems> {
    let mut document = read(text)?;
    document.value.get_mut("config").into_iter().for_each(normalize_config);
    let platforms = document.value.pointer_mut("/overrides/platforms").and_then(Value::as_object_mut);
    platforms.into_iter().flat_map(Map::values_mut).for_each(normalize_config);
    Ok(document)
}

fn invalid(error: Error) -> Error {
    Error { kind: ErrorKind::Invalid, code: "fleetd_options_invalid", ..error }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::pack;

    fn options(text: &str) -> Options {
        Options::parse(text).unwrap()
    }

    fn value(options: &Options, platform: Option<Platform>) -> Value {
        serde_json::from_str(&options.render(platform, []).plain).unwrap()
    }

    #[test]
    fn the_plugin_that_orbit_sets_is_left_to_it() {
        let sent = value(&options("config: {options: {distributed_plugin: tls, distributed_interval: 7}}"), None);
        assert_eq!(sent["options"], json!({"distributed_interval": 7}));
    }

    #[test]
    fn fl13_the_default_is_valid_and_at_top_level() {
        let options = options(DEFAULT);
        let config = value(&options, None);
        assert_eq!(config["options"]["distributed_interval"], 10);
        assert!(config.get("error").is_none() && config.get("etag").is_none());
        assert_eq!(options.render(None, []).etag.len(), 64);
    }

    #[test]
    fn fl14_an_override_replaces_the_configuration_of_its_platform_as_a_whole() {
        let options = options(
            "config: {options: {a: 1}, schedule: {}}\noverrides: {platforms: {darwin: {options: {b: 2}}, windows: null}}\n",
        );
        assert_eq!(value(&options, Some(Platform::Darwin)), json!({"options": {"b": 2}}));
        for other in [None, Some(Platform::Linux), Some(Platform::Windows)] {
            assert_eq!(value(&options, other)["options"], json!({"a": 1}), "{other:?}");
        }
    }

    #[test]
    fn fl15_packs_are_added_under_their_names() {
        let (global, team) = (pack("Global", "q"), pack("team-blue", "q"));
        for text in ["config: null", "config: {packs: null}", "config: {packs: {own: {queries: {}}, Global: {}}}"] {
            let options = options(text);
            let rendered = options.render(None, [&global, &team]);
            let config: Value = serde_json::from_str(&rendered.plain).unwrap();
            for name in ["Global", "team-blue"] {
                assert_eq!(config["packs"][name]["queries"]["q"]["interval"], 60, "{text}");
            }
            assert_eq!(config["packs"]["own"].is_object(), text.contains("own"));
            assert_ne!(rendered.etag, options.render(None, [&global]).etag);
            assert_eq!(rendered, options.render(None, [&global, &team]));
        }
    }

    #[test]
    fn names_of_queries_have_the_delimiters_of_all_platforms() {
        let options = options(
            "config: {options: {pack_delimiter: ':'}}\noverrides: {platforms: {darwin: {options: {pack_delimiter: '-'}}}}\n",
        );
        assert_eq!(options.delimiters().into_iter().collect::<Vec<_>>(), ["-", "/", ":", "_"]);
    }

    #[test]
    fn fl170_no_configuration_is_an_empty_object() {
        for text in ["config: null", "{}", "overrides: {}", r#"{"config": null}"#] {
            let none = options(text).render(None, []);
            assert_eq!(none.plain, "{}", "{text}");
            let with: Value = serde_json::from_str(&none.with_etag).unwrap();
            assert_eq!(with, json!({"etag": none.etag}));
        }
    }

    #[test]
    fn json_may_contain_what_is_ambiguous_in_yaml() {
        let options = options(r#"{"config": {"options": {"a": 1e2, "b": "\/x"}}}"#);
        assert_eq!(value(&options, None)["options"]["b"], "/x");
    }

    #[test]
    fn fl16_schedules_can_be_those_of_osquerys_own_files() {
        let query = r#""q": {"query": "SELECT 1;", "interval": "3600"}"#;
        let config =
            format!("{{\n// hourly\n\"schedule\": {{{query}}}, \"packs\": {{\"p\": {{\"queries\": {{{query}}}}}}}}}");
        let text = format!(r#"{{"config": {config}, "overrides": {{"platforms": {{"darwin": {config}}}}}}}"#);
        let options = options(&text);
        for platform in [None, Some(Platform::Darwin)] {
            for read in [&options, &Options::stored(&text).unwrap()] {
                let config = value(read, platform);
                assert_eq!(config["schedule"]["q"]["interval"], 3600);
                assert_eq!(config["packs"]["p"]["queries"]["q"]["interval"], 3600);
            }
        }
    }

    #[test]
    fn problems_have_positions() {
        let error = Options::parse("config:\n  schedule:\n    users:\n      query: ''\n").unwrap_err();
        assert_eq!((error.code, error.kind), ("fleetd_options_invalid", ErrorKind::Invalid));
        let problems = error.problems.unwrap();
        let lines: Vec<_> = problems.0.iter().map(|problem| problem.place.unwrap().line).collect();
        assert_eq!(lines, [3, 4], "no interval, no SQL");
        let long = format!("# {}", "x".repeat(MAX_DOCUMENT));
        assert!(Options::parse(&long).is_err() && Options::parse("config: [").is_err());
    }
}
