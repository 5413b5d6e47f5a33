//! `bootstrap` of an output: complete settings, with which the server reaches the cluster while those of the output itself
//! do not work. They also complete the settings of the output (AG103–AG105). Agents do not get them.

use std::time::Duration;

use serde_json::{Map, Value};
use zeroize::Zeroizing;

use crate::time::Timestamp;

/// Name of the field.
pub const SECTION: &str = "bootstrap";
/// Fields of the block, apart from `ssl`.
pub const FIELDS: [&str; 8] =
    ["headers", "hosts", "path", "protocol", "proxy_disable", "proxy_headers", "proxy_url", "service_token"];
/// Fields of its `ssl`.
pub const SSL_FIELDS: [&str; 5] =
    ["ca_trusted_fingerprint", "certificate", "certificate_authorities", "key", "verification_mode"];
/// Interval of the tests of an output's own settings while the bootstrap settings are in use.
pub const RETEST: Duration = Duration::from_secs(60);

/// Connection settings of a cluster, as JSON with secrets.
pub struct Settings {
    /// Those of the output, completed by the block.
    pub of_output: Zeroizing<String>,
    /// The block as a whole; `None` if the output has none.
    pub of_bootstrap: Option<Zeroizing<String>>,
}

/// Splits the connection settings of an output.
pub fn settings(connection: &str) -> Settings {
    let parsed = serde_json::from_str::<Map<String, Value>>(connection);
    let mut output = parsed.unwrap_or_default();
    let Some(Value::Object(block)) = output.remove(SECTION) else {
        // Malformed settings are reported by whoever connects with them.
        return Settings { of_output: Zeroizing::new(connection.to_owned()), of_bootstrap: None };
    };
    let text = |fields: Map<String, Value>| Zeroizing::new(Value::Object(fields).to_string());
    Settings { of_output: text(completed(output, &block)), of_bootstrap: Some(text(block)) }
}

/// Returns the settings of an output, with the fields that it lacks from its block (AG103).
pub fn completed(mut output: Map<String, Value>, block: &Map<String, Value>) -> Map<String, Value> {
    // A proxy of the output would otherwise not be used.
    let has_proxy = !is_missing(&output, "proxy_url");
    let wanted = FIELDS.iter().filter(|name| !(has_proxy && **name == "proxy_disable"));
    complete(&mut output, block, wanted);
    // `ssl` is completed field by field: a CA of the output and a key of the block can be used together.
    let Some(Value::Object(more)) = block.get("ssl") else { return output };
    let mut ssl = match output.remove("ssl") {
        Some(Value::Object(ssl)) => ssl,
        _ => Map::new(),
    };
    // Computed before the block is merged, because its own CA must not count as trust of the output.
    let ignores_insecure = is_insecure(more) && has_trust(&ssl);
    let wanted = SSL_FIELDS.iter().filter(|name| !(ignores_insecure && **name == "verification_mode"));
    complete(&mut ssl, more, wanted);
    output.insert("ssl".into(), ssl.into());
    output
}

fn complete<'a>(to: &mut Map<String, Value>, from: &Map<String, Value>, names: impl Iterator<Item = &'a &'a str>) {
    for name in names.filter(|name| !is_missing(from, name)) {
        if is_missing(to, name) {
            to.insert((*name).to_owned(), from[*name].clone());
        }
    }
}

fn is_missing(fields: &Map<String, Value>, name: &str) -> bool {
    match fields.get(name) {
        // Empty values count as missing: forms send them for fields that were not filled in.
        None | Some(Value::Null) => true,
        Some(Value::String(text)) => text.is_empty(),
        Some(Value::Array(items)) => items.is_empty(),
        Some(_) => false,
    }
}

/// Returns whether the block turns off the verification of certificates.
fn is_insecure(ssl: &Map<String, Value>) -> bool {
    ssl.get("verification_mode").and_then(Value::as_str) == Some("none")
}

/// Returns whether an output says which certificates to trust. Then the block must not turn off their verification
/// (AG105).
fn has_trust(ssl: &Map<String, Value>) -> bool {
    !is_missing(ssl, "certificate_authorities") || !is_missing(ssl, "ca_trusted_fingerprint")
}

/// Which settings of a cluster the server uses, and when it tests those of the output.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trial {
    /// Time of the next test of the output's own settings.
    pub next: Option<Timestamp>,
    /// Why the bootstrap settings are in use; `None` while those of the output are.
    pub fallback: Option<Fallback>,
}

/// Why the bootstrap settings are in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fallback {
    /// What the last test of the output's own settings said.
    pub reason: String,
    /// Time since which the bootstrap settings are in use.
    pub since: Timestamp,
}

/// Result of a test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The cluster responds, and has a supported version.
    Works,
    /// It does not respond, or rejects the credential.
    Fails(String),
    /// Its version is not supported, which no further test would change.
    Incompatible(String),
}

impl Trial {
    /// Returns the state of settings that were just stored.
    pub fn of_new(settings: &Settings, now: Timestamp) -> Self {
        Self { next: settings.of_bootstrap.is_some().then_some(now), fallback: None }
    }

    /// Returns whether a test is due.
    pub fn is_due(&self, now: Timestamp) -> bool {
        self.next.is_some_and(|next| next <= now)
    }

    /// Returns the state after a test (AG104).
    #[must_use]
    pub fn after(&self, verdict: Verdict, now: Timestamp) -> Self {
        let (reason, next) = match verdict {
            // No next test: the settings work until a request with them fails.
            Verdict::Works => return Self::default(),
            Verdict::Fails(reason) => (reason, Some(now.plus(RETEST))),
            Verdict::Incompatible(reason) => (reason, None),
        };
        // Further failed tests do not move the beginning, which people see.
        let since = self.fallback.as_ref().map_or(now, |fallback| fallback.since);
        Self { next, fallback: Some(Fallback { reason, since }) }
    }

    /// Returns the state after a request with the settings in use has failed.
    #[must_use]
    pub fn doubted(&self, now: Timestamp) -> Self {
        // The bootstrap settings are the last resort; those of the output are tested anyway.
        let next = if self.fallback.is_none() { Some(now) } else { self.next };
        Self { next, fallback: self.fallback.clone() }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::at;

    fn merged(output: Value, block: Value) -> Value {
        let mut connection = output;
        connection[SECTION] = block;
        serde_json::from_str(&settings(&connection.to_string()).of_output).unwrap()
    }

    #[test]
    fn ag103_missing_fields_come_from_the_block_and_present_ones_stay() {
        let block = json!({
            "hosts": ["https://boot:9200"], "service_token": "T", "headers": {"X": "1"}, "proxy_url": "http://p:1",
            "proxy_headers": {"P": "1"}, "path": "/es", "protocol": "https", "proxy_disable": false, "other": 1,
            "ssl": {"certificate_authorities": ["CA"], "certificate": "C", "key": "K", "ca_trusted_fingerprint": "F",
                    "verification_mode": "full", "other": 1}
        });
        let mut whole = block.clone();
        whole.as_object_mut().unwrap().remove("other");
        whole["ssl"].as_object_mut().unwrap().remove("other");
        assert_eq!(merged(json!({}), block.clone()), whole);
        let own = json!({
            "hosts": ["https://own:9200"], "service_token": "O", "headers": {}, "proxy_url": "http://o:1",
            "proxy_headers": {}, "path": "/o", "protocol": "http", "proxy_disable": true,
            "ssl": {"certificate_authorities": ["A"], "certificate": "B", "key": "J", "ca_trusted_fingerprint": "E",
                    "verification_mode": "certificate", "enabled": true}
        });
        assert_eq!(merged(own.clone(), block), own);
        let some = merged(json!({"hosts": [], "ssl": null}), json!({"hosts": ["h"], "ssl": {"key": "K"}}));
        assert_eq!(some, json!({"hosts": ["h"], "ssl": {"key": "K"}}));
        let proxied = merged(json!({"proxy_url": "http://o:1"}), json!({"proxy_disable": true}));
        assert_eq!(proxied, json!({"proxy_url": "http://o:1"}), "a proxy of the output is used");
    }

    #[test]
    fn an_output_without_a_block_is_not_changed() {
        let text = r#"{"hosts": ["h"], "bootstrap": 1}"#;
        for text in [text, "{", r#"{"hosts":["h"]}"#] {
            let found = settings(text);
            assert_eq!((found.of_output.as_str(), found.of_bootstrap.is_none()), (text, true));
        }
        assert_eq!(settings(r#"{"bootstrap":{"hosts":["h"]}}"#).of_bootstrap.unwrap().as_str(), r#"{"hosts":["h"]}"#);
    }

    #[test]
    fn ag105_insecure_is_ignored_if_the_policy_says_what_to_trust() {
        let mode = |ssl: Value| {
            let found = merged(json!({"ssl": ssl}), json!({"ssl": {"verification_mode": "none"}}));
            found["ssl"]["verification_mode"].as_str().map(str::to_owned)
        };
        assert_eq!(mode(json!({})).as_deref(), Some("none"));
        assert_eq!(mode(json!({"certificate_authorities": []})).as_deref(), Some("none"));
        assert_eq!(mode(json!({"certificate_authorities": ["CA"]})), None);
        assert_eq!(mode(json!({"ca_trusted_fingerprint": "F"})), None);
        let asked = json!({"ca_trusted_fingerprint": "F", "verification_mode": "none"});
        assert_eq!(mode(asked).as_deref(), Some("none"), "the policy asks for it itself");
        let certificate = merged(
            json!({"ssl": {"certificate_authorities": ["A"]}}),
            json!({"ssl": {"verification_mode": "certificate"}}),
        );
        assert_eq!(certificate["ssl"]["verification_mode"], "certificate", "only `none` is ignored");
    }

    #[test]
    fn ag104_failing_settings_are_tested_again_after_a_minute_and_an_old_version_is_not() {
        let fails = |reason: &str| Verdict::Fails(reason.into());
        let fallback = |reason: &str| Some(Fallback { reason: reason.into(), since: at(5) });
        let new = Trial { next: Some(at(5)), fallback: None };
        assert!(new.is_due(at(5)) && !new.is_due(at(4)));
        let down = new.after(fails("a"), at(5));
        assert_eq!(down, Trial { next: Some(at(65)), fallback: fallback("a") });
        let still = down.after(fails("b"), at(65));
        assert_eq!(still, Trial { next: Some(at(125)), fallback: fallback("b") }, "since the first failure");
        assert_eq!(still.after(Verdict::Works, at(125)), Trial::default());
        let old = still.after(Verdict::Incompatible("c".into()), at(125));
        assert_eq!(old, Trial { next: None, fallback: fallback("c") });
        assert!(!old.is_due(at(9_999)));
        assert_eq!(Trial::default().doubted(at(7)), Trial { next: Some(at(7)), fallback: None });
        assert_eq!(down.doubted(at(7)), down);
        let block = |text: &str| Trial::of_new(&settings(text), at(9)).next;
        assert_eq!((block("{}"), block(r#"{"bootstrap":{}}"#)), (None, Some(at(9))));
    }
}
