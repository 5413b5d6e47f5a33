//! The fleetd options of a space: the configuration of its hosts' osquery (FL §1.5).
//!
//! A document has `config`, an osquery configuration, and `overrides.platforms`, which replace it as a whole for a platform.

use serde_json::Value;

use super::options_check::check;
use super::platform::Platform;
use crate::credential::SecretHash;
use crate::error::{Error, ErrorKind};
use crate::hex;
use crate::policy::diff::{Difference, diff};
use crate::policy::problem::Problems;
use crate::yaml::{self, Document, Places};

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
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    value: Value,
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

/// The configurations of a space's hosts, by platform. Shared by all hosts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RenderedOptions {
    every: Rendered,
    platforms: Vec<(Platform, Rendered)>,
}

impl Options {
    /// Parses a document, YAML or JSON. All problems are reported at once, with their positions.
    pub fn parse(text: &str) -> Result<Self, Error> {
        if text.len() > MAX_DOCUMENT {
            return Err(invalid(Error::invalid("options", format!("at most {MAX_DOCUMENT} bytes"))));
        }
        let Document { value, places } = read(text).map_err(|problems| invalid(problems.into()))?;
        let mut problems = Problems::default();
        check(&value, &mut problems);
        problems.locate(&places);
        problems.into_result().map_err(|problems| invalid(problems.into()))?;
        Ok(Self { value })
    }

    /// Parses a document that was checked when it was stored, by this or an older version of the server.
    pub fn stored(text: &str) -> Result<Self, Error> {
        read(text).map(|document| Self { value: document.value }).map_err(|problems| invalid(problems.into()))
    }

    /// Renders the configurations.
    pub fn render(&self) -> RenderedOptions {
        let overrides = self.value.pointer("/overrides/platforms").and_then(Value::as_object);
        let of = |platform: &Platform| {
            let config = overrides?.get(platform.as_str()).filter(|config| !config.is_null())?;
            Some((*platform, Rendered::of(Some(config))))
        };
        RenderedOptions {
            every: Rendered::of(self.value.get("config")),
            platforms: Platform::ALL.iter().filter_map(of).collect(),
        }
    }

    /// Returns the differences from other options, in the order of their paths.
    pub fn differences_from(&self, before: &Self) -> Vec<Difference> {
        diff(&before.value, &self.value)
    }
}

impl RenderedOptions {
    /// Returns the configuration of a host; `None` stands for a host whose platform is unknown (FL14).
    pub fn of(&self, platform: Option<Platform>) -> &Rendered {
        platform.and_then(|platform| self.own(platform)).unwrap_or(&self.every)
    }

    /// Returns the configuration that replaces the common one for a platform.
    pub fn own(&self, platform: Platform) -> Option<&Rendered> {
        self.platforms.iter().find(|(own, _)| *own == platform).map(|(_, rendered)| rendered)
    }
}

impl Rendered {
    fn of(config: Option<&Value>) -> Self {
        // `null` counts as an empty configuration (FL170).
        let plain = config.filter(|config| config.is_object()).map_or_else(|| "{}".to_owned(), Value::to_string);
        let etag = hex::encode(&SecretHash::of(plain.as_bytes()).0);
        let comma = if plain.len() > 2 { "," } else { "" };
        Self { with_etag: format!(r#"{{"etag":"{etag}"{comma}{}"#, &plain[1..]), etag, plain }
    }
}

/// Parses YAML, of which JSON is a part but for a few numbers and escapes.
fn read(text: &str) -> Result<Document, Problems> {
    yaml::read(text).or_else(|problems| match serde_json::from_str(text) {
        Ok(value) => Ok(Document { value, places: Places::default() }),
        Err(_) => Err(problems),
    })
}

fn invalid(error: Error) -> Error {
    Error { kind: ErrorKind::Invalid, code: "fleetd_options_invalid", ..error }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn rendered(text: &str) -> RenderedOptions {
        Options::parse(text).unwrap().render()
    }

    fn value(rendered: &Rendered) -> Value {
        serde_json::from_str(&rendered.plain).unwrap()
    }

    #[test]
    fn fl13_the_default_is_valid_and_at_top_level() {
        let options = rendered(DEFAULT);
        let config = value(options.of(None));
        assert_eq!(config["options"]["distributed_interval"], 10);
        assert!(config.get("error").is_none() && config.get("etag").is_none());
        assert_eq!(options.of(None).etag.len(), 64);
    }

    #[test]
    fn fl14_an_override_replaces_the_configuration_of_its_platform_as_a_whole() {
        let options = rendered(
            "config: {options: {a: 1}, schedule: {}}\noverrides: {platforms: {darwin: {options: {b: 2}}, windows: null}}\n",
        );
        assert_eq!(value(options.of(Some(Platform::Darwin))), json!({"options": {"b": 2}}));
        for other in [None, Some(Platform::Linux), Some(Platform::Windows)] {
            assert_eq!(value(options.of(other))["options"], json!({"a": 1}), "{other:?}");
        }
    }

    #[test]
    fn fl170_no_configuration_is_an_empty_object() {
        for text in ["config: null", "{}", "overrides: {}", r#"{"config": null}"#] {
            let options = rendered(text);
            let none = options.of(None);
            assert_eq!(none.plain, "{}", "{text}");
            let with: Value = serde_json::from_str(&none.with_etag).unwrap();
            assert_eq!(with, json!({"etag": none.etag}));
        }
    }

    #[test]
    fn json_may_contain_what_is_ambiguous_in_yaml() {
        let options = rendered(r#"{"config": {"options": {"a": 1e2, "b": "\/x"}}}"#);
        assert_eq!(value(options.of(None))["options"]["b"], "/x");
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
