//! Detail queries: what the server asks each host about itself, and when (FL §1.7).

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::rows::Row;
use crate::hex::sha256;
use crate::host;
use crate::id::AgentId;
use crate::reported::shortened_to;
use crate::time::Timestamp;

/// Prefix of the names of detail queries, by which results are recognized.
pub const PREFIX: &str = "fleet_detail_query_";

/// Time after which a host is asked for its details again.
const PERIOD: Duration = Duration::from_secs(3600);
/// Maximum minutes by which the period of a host is longer, so that hosts which enrolled together spread: 10 %.
const JITTER_MINUTES: u8 = 6;

/// Maximum length of a fact, bytes, and maximum number of addresses.
const FACT_BYTES: usize = 256;
const ADDRESSES: usize = 32;

/// A detail query.
#[derive(Clone, Copy, Debug)]
pub struct DetailQuery {
    /// Full name.
    pub name: &'static str,
    /// SQL.
    pub sql: &'static str,
    /// SQL that has a row if the query can run. Every query has one, and none can fail: a discovery that fails, or an empty
    /// query, makes osqueryd drop all queries of the response (FL §1.7).
    pub discovery: &'static str,
}

/// Name of the query whose results have the name of the host.
pub const SYSTEM_INFO: &str = "fleet_detail_query_system_info";
/// Name of the query for the operating system.
pub const OS_VERSION: &str = "fleet_detail_query_os_version";
/// Name of the query for osquery itself.
pub const OSQUERY_INFO: &str = "fleet_detail_query_osquery_info";
/// Name of the query for orbit.
pub const ORBIT_INFO: &str = "fleet_detail_query_orbit_info";
/// Name of the query for IP addresses.
pub const ADDRESSES_OF_INTERFACES: &str = "fleet_detail_query_interface_addresses";
/// Name of the query for scheduled queries that osqueryd does not run any more, because one of its processes died with them.
pub const SCHEDULE: &str = "fleet_detail_query_osquery_schedule";

/// Name of the query for the hash of the machine id of Linux, whose file osquery does not read otherwise.
pub const MACHINE_ID: &str = "fleet_detail_query_machine_id";
/// Name of the query for the machine id of Windows.
pub const MACHINE_GUID: &str = "fleet_detail_query_machine_guid";

/// A discovery that finds a table, which not every osquery has.
macro_rules! has_table {
    ($table:literal) => {
        concat!("SELECT 1 FROM osquery_registry WHERE active = true AND registry = 'table' AND name = '", $table, "'")
    };
}
pub(super) use has_table;

/// Discovery of queries that every osquery can run.
pub const ALWAYS: &str = "SELECT 1";

/// The detail queries for facts. Nothing that changes by itself, such as free memory, is asked: unchanged facts are not written.
pub const QUERIES: [DetailQuery; 8] = [
    DetailQuery { name: SYSTEM_INFO, sql: "SELECT * FROM system_info LIMIT 1;", discovery: ALWAYS },
    DetailQuery { name: OS_VERSION, sql: "SELECT * FROM os_version LIMIT 1;", discovery: ALWAYS },
    DetailQuery {
        name: OSQUERY_INFO,
        sql: "SELECT version, instance_id, build_platform FROM osquery_info LIMIT 1;",
        discovery: ALWAYS,
    },
    DetailQuery {
        name: ORBIT_INFO,
        sql: "SELECT * FROM orbit_info LIMIT 1;",
        // The table belongs to an extension, which only fleetd loads.
        discovery: has_table!("orbit_info"),
    },
    DetailQuery {
        name: ADDRESSES_OF_INTERFACES,
        sql: "SELECT DISTINCT address FROM interface_addresses WHERE address NOT IN ('127.0.0.1', '::1') ORDER BY address \
              LIMIT 32;",
        discovery: ALWAYS,
    },
    DetailQuery {
        name: SCHEDULE,
        // Not how often and how long queries run, which changes all the time.
        sql: "SELECT name FROM osquery_schedule WHERE denylisted = 1 ORDER BY name LIMIT 50;",
        discovery: ALWAYS,
    },
    DetailQuery {
        name: MACHINE_ID,
        sql: "SELECT sha256 FROM hash WHERE path = '/etc/machine-id' LIMIT 1;",
        discovery: "SELECT 1 FROM file WHERE path = '/etc/machine-id'",
    },
    DetailQuery {
        name: MACHINE_GUID,
        sql: "SELECT data FROM registry \
              WHERE path = 'HKEY_LOCAL_MACHINE\\SOFTWARE\\Microsoft\\Cryptography\\MachineGuid' LIMIT 1;",
        discovery: has_table!("registry"),
    },
];

/// Returns whether a host must be asked for its details, of which it reported the last at `reported_at`.
pub fn are_due(host: &AgentId, reported_at: Option<Timestamp>, now: Timestamp) -> bool {
    // A clock that was set back makes them due, rather than waiting for the time to come again.
    reported_at.is_none_or(|at| at > now || now.since(at) >= period(host))
}

/// Returns the period of a host, which never changes (FL26).
fn period(host: &AgentId) -> Duration {
    let hash = sha256(format!("detail period\n{host}").as_bytes());
    PERIOD + Duration::from_secs(60) * u32::from(hash[0] % (JITTER_MINUTES + 1))
}

/// What a host reports about itself. Fields that it did not report are empty.
#[derive(Clone, Debug, Default)]
pub struct Details<'a> {
    /// Name and hardware.
    pub system_info: Row<'a>,
    /// Operating system.
    pub os_version: Row<'a>,
    /// osquery.
    pub osquery_info: Row<'a>,
    /// orbit and Fleet Desktop.
    pub orbit_info: Row<'a>,
    /// IP addresses.
    pub addresses: Vec<Row<'a>>,
    /// Hash of the machine id of Linux.
    pub machine_id: Row<'a>,
    /// Machine id of Windows.
    pub machine_guid: Row<'a>,
}

impl Details<'_> {
    /// Returns the facts as metadata of an agent, in the form of every family: a JSON object.
    pub fn metadata(&self) -> String {
        let (system, os) = (&self.system_info, &self.os_version);
        let arch = first(&[(os, "arch"), (system, "cpu_type")]);
        let platform = first(&[(os, "platform")]);
        let host = object([
            ("hostname", first(&[(system, "hostname")])),
            ("name", first(&[(system, "computer_name"), (system, "hostname")])),
            ("id", first(&[(system, "uuid"), (&self.osquery_info, "uuid")])),
            ("architecture", arch),
            ("ip", list(&self.addresses, "address", ADDRESSES)),
        ]);
        let os = object([
            ("platform", platform.clone()),
            ("family", first(&[(os, "platform_like")]).or(platform)),
            ("name", first(&[(os, "name")])),
            ("version", first(&[(os, "version")])),
            ("build", first(&[(os, "build")])),
            ("codename", first(&[(os, "codename")])),
        ]);
        let hardware = object([
            ("vendor", first(&[(system, "hardware_vendor")])),
            ("model", first(&[(system, "hardware_model")])),
            ("serial", first(&[(system, "hardware_serial")])),
            ("version", first(&[(system, "hardware_version")])),
            ("cpu", first(&[(system, "cpu_brand")])),
            ("cpu_subtype", first(&[(system, "cpu_subtype")])),
            ("cores", first(&[(system, "cpu_physical_cores")])),
            ("logical_cores", first(&[(system, "cpu_logical_cores")])),
            ("memory", first(&[(system, "physical_memory")])),
        ]);
        let osquery = object([
            ("version", first(&[(&self.osquery_info, "version")])),
            ("instance_id", first(&[(&self.osquery_info, "instance_id")])),
        ]);
        let orbit = object([
            ("version", first(&[(&self.orbit_info, "version")])),
            ("desktop_version", first(&[(&self.orbit_info, "desktop_version")])),
        ]);
        let parts = [("host", host), ("os", os), ("hardware", hardware), ("osquery", osquery), ("orbit", orbit)];
        let told = parts.into_iter().filter(|(_, part)| !part.is_empty());
        Value::Object(told.map(|(name, part)| (name.to_owned(), part.into())).collect()).to_string()
    }

    /// Returns the version of osquery; empty if it is unknown.
    pub fn osquery_version(&self) -> &str {
        self.osquery_info.get("version").map_or("", |version| version)
    }

    /// Returns the version of orbit, if osquery could ask it.
    pub fn orbit_version(&self) -> Option<&str> {
        self.orbit_info.get("version").map(|version| &**version).filter(|version| !version.is_empty())
    }

    /// Returns the machine ids under which orbit may have enrolled on this host.
    pub fn machine_ids(&self) -> Vec<String> {
        let ids = [self.system_info.get("uuid"), self.osquery_info.get("instance_id")];
        ids.into_iter().flatten().filter_map(|id| host::machine_id(id)).collect()
    }

    /// Returns the [`host::system_id`] of the operating system, if osquery has told what it follows from.
    pub fn system_id(&self) -> Option<String> {
        let linux = self.machine_id.get("sha256").and_then(|hash| host::reported_system_id(hash));
        let windows = || host::machine_id(self.machine_guid.get("data")?).map(|id| host::system_id(&id));
        linux.or_else(windows)
    }

    /// Returns whether there are no facts.
    pub fn are_empty(&self) -> bool {
        let rows = [&self.system_info, &self.os_version, &self.osquery_info, &self.orbit_info];
        rows.into_iter().all(Row::is_empty) && self.addresses.is_empty()
    }
}

/// Adds to reported metadata what is only in the stored one. For a report in which a query failed: its facts did not change,
/// and must not be lost.
pub fn completed(reported: &str, stored: &str) -> String {
    let parse = |raw: &str| serde_json::from_str::<Map<String, Value>>(raw).unwrap_or_default();
    let mut all = parse(stored);
    for (part, facts) in parse(reported) {
        match (all.get_mut(&part), facts) {
            (Some(Value::Object(known)), Value::Object(facts)) => known.extend(facts),
            (_, facts) => drop(all.insert(part, facts)),
        }
    }
    Value::Object(all).to_string()
}

/// Facts that an orbit which enrolls again does not replace: it knows some of them only sometimes.
const KEPT: [(&str, &str); 4] = [("host", "id"), ("host", "name"), ("hardware", "serial"), ("hardware", "model")];

/// Returns the metadata of an orbit that enrolls again: what it reports, with those facts that were known before (FL50).
pub fn kept(reported: &str, stored: &str) -> String {
    let parse = |raw: &str| serde_json::from_str::<Map<String, Value>>(raw).unwrap_or_default();
    let (mut all, stored) = (parse(reported), parse(stored));
    for (part, name) in KEPT {
        let known = stored.get(part).and_then(|part| part.get(name)).filter(|fact| fact.as_str() != Some(""));
        if let (Some(known), Some(facts)) =
            (known, all.entry(part).or_insert_with(|| Map::new().into()).as_object_mut())
        {
            facts.insert(name.to_owned(), known.clone());
        }
    }
    Value::Object(all).to_string()
}

/// Returns the metadata of orbit: what it reports when it enrolls.
pub fn orbit_metadata(facts: &OrbitFacts<'_>) -> String {
    let text = |text: &str| Some(text).filter(|text| !text.is_empty()).map(shortened);
    let host = object([
        ("hostname", text(facts.hostname)),
        ("name", text(facts.computer_name).or(text(facts.hostname))),
        ("id", text(facts.hardware_uuid)),
    ]);
    let os =
        object([("platform", text(facts.platform)), ("family", text(facts.platform_like).or(text(facts.platform)))]);
    let hardware = object([("model", text(facts.hardware_model)), ("serial", text(facts.hardware_serial))]);
    json!({"host": host, "os": os, "hardware": hardware}).to_string()
}

/// What orbit reports when it enrolls (FL §2.3). Any field may be empty.
#[derive(Clone, Copy, Debug, Default)]
pub struct OrbitFacts<'a> {
    /// Hardware UUID.
    pub hardware_uuid: &'a str,
    /// Serial number.
    pub hardware_serial: &'a str,
    /// Model.
    pub hardware_model: &'a str,
    /// Host name.
    pub hostname: &'a str,
    /// Name that the user gave the computer.
    pub computer_name: &'a str,
    /// Platform.
    pub platform: &'a str,
    /// Family of Linux distributions.
    pub platform_like: &'a str,
}

fn shortened(text: &str) -> Value {
    Value::from(&*shortened_to(text, FACT_BYTES))
}

fn fact(row: &Row<'_>, column: &str) -> Option<Value> {
    row.get(column).filter(|value| !value.is_empty()).map(|value| shortened(value))
}

fn first(columns: &[(&Row<'_>, &str)]) -> Option<Value> {
    columns.iter().find_map(|(row, column)| fact(row, column))
}

/// Returns a column of rows as a list of strings, without empty ones.
fn list(rows: &[Row<'_>], column: &str, most: usize) -> Option<Value> {
    let facts: Vec<Value> = rows.iter().filter_map(|row| fact(row, column)).take(most).collect();
    (!facts.is_empty()).then_some(Value::Array(facts))
}

fn object<const N: usize>(members: [(&str, Option<Value>); N]) -> Map<String, Value> {
    members.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::documents::metadata;
    use crate::fleetd::rows::row;
    use crate::testing::at;

    fn details() -> Details<'static> {
        Details {
            system_info: row(
                r#"{"hostname":"web-7","uuid":"4C4C","hardware_serial":"5JX82","cpu_type":"x86_64","cpu_brand":""}"#,
            ),
            os_version: row(
                r#"{"name":"Ubuntu","version":"24.04.1 LTS","platform":"ubuntu","platform_like":"debian"}"#,
            ),
            osquery_info: row(r#"{"version":"5.21.0","instance_id":"c1f0"}"#),
            addresses: vec![row(r#"{"address":"192.0.2.7"}"#), row("{}")],
            ..Details::default()
        }
    }

    #[test]
    fn fl12_facts_have_the_form_of_every_family() {
        let raw = details().metadata();
        let value: Value = serde_json::from_str(&raw).unwrap();
        let expected = json!({
            "host": {"hostname": "web-7", "name": "web-7", "id": "4C4C", "architecture": "x86_64", "ip": ["192.0.2.7"]},
            "os": {"platform": "ubuntu", "family": "debian", "name": "Ubuntu", "version": "24.04.1 LTS"},
            "hardware": {"serial": "5JX82"},
            "osquery": {"version": "5.21.0", "instance_id": "c1f0"},
        });
        assert_eq!(value, expected);
        assert_eq!(metadata::hostname(&raw).as_deref(), Some("web-7"));
        assert!(metadata::os(&raw).contains("ubuntu"));
        assert_eq!(Details::default().metadata(), "{}");
        assert!(!details().are_empty() && Details::default().are_empty());
    }

    #[test]
    fn the_operating_system_is_known_by_the_hash_of_its_machine_id() {
        let text = format!(r#"{{"sha256":"{}"}}"#, host::system_id("m"));
        let linux = Details { machine_id: row(&text), ..details() };
        assert_eq!(linux.system_id(), Some(host::system_id("m")));
        let guid = "4DB4F36D-88D2-4D1E-A4F3-9E3C8F1D2B7A";
        let text = format!(r#"{{"data":"{guid}"}}"#);
        let windows = Details { machine_guid: row(&text), ..details() };
        assert_eq!(windows.system_id(), Some(host::system_id(&guid.to_lowercase())));
        let forged = Details { machine_id: row(r#"{"sha256":"m"}"#), ..details() };
        assert_eq!((details().system_id(), forged.system_id()), (None, None));
    }

    #[test]
    fn facts_of_a_query_that_failed_are_kept() {
        let stored = r#"{"host":{"hostname":"old","ip":["192.0.2.7"]},"hardware":{"serial":"S"},"x":1}"#;
        let reported = r#"{"host":{"hostname":"new"},"os":{"name":"Ubuntu"}}"#;
        let expected = json!({"host": {"hostname": "new", "ip": ["192.0.2.7"]}, "os": {"name": "Ubuntu"},
            "hardware": {"serial": "S"}, "x": 1});
        assert_eq!(serde_json::from_str::<Value>(&completed(reported, stored)).unwrap(), expected);
        assert_eq!(completed(reported, "null"), completed(reported, "{}"));
    }

    #[test]
    fn fl26_details_are_due_after_a_period_that_is_stable_for_each_host() {
        let host = AgentId::trusted("h");
        assert!(are_due(&host, None, at(0)));
        assert!(!are_due(&host, Some(at(0)), at(3599)));
        assert!(are_due(&host, Some(at(0)), at(3600 + 360)));
        assert!(are_due(&host, Some(at(10)), at(0)), "the clock was set back");
        let periods: std::collections::BTreeSet<_> =
            (0..200).map(|n| period(&AgentId::trusted(format!("host-{n}"))).as_secs()).collect();
        assert_eq!(periods.first(), Some(&3600));
        assert_eq!(periods.last(), Some(&3960));
        assert_eq!(periods.len(), 7);
    }

    #[test]
    fn fl24_every_query_has_a_name_sql_and_a_discovery() {
        for query in QUERIES {
            assert!(query.name.starts_with(PREFIX) && query.name.len() > PREFIX.len());
            assert!(query.sql.starts_with("SELECT ") && query.discovery.starts_with("SELECT 1"));
        }
    }

    #[test]
    fn fl50_an_orbit_that_enrolls_again_keeps_what_was_known() {
        let facts = |serial, model, hostname| {
            orbit_metadata(&OrbitFacts {
                hardware_uuid: "u",
                hardware_serial: serial,
                hardware_model: model,
                hostname,
                ..OrbitFacts::default()
            })
        };
        let kept: Value = serde_json::from_str(&kept(&facts("other", "new", "b"), &facts("5JX82", "", "a"))).unwrap();
        assert_eq!(kept["hardware"], json!({"serial": "5JX82", "model": "new"}));
        assert_eq!((&kept["host"]["hostname"], &kept["host"]["id"]), (&json!("b"), &json!("u")));
        assert_eq!(super::kept("{}", "null"), r#"{"hardware":{},"host":{}}"#);
    }

    proptest! {
        #[test]
        fn metadata_is_bounded_json(hostname in ".{0,600}", address in prop::collection::vec(".{0,300}", 0..64)) {
            let system_info = Row::from([("hostname".into(), hostname.into())]);
            let addresses = address.into_iter().map(|address| Row::from([("address".into(), address.into())])).collect();
            let raw = Details { system_info, addresses, ..Details::default() }.metadata();
            prop_assert!(serde_json::from_str::<Value>(&raw).is_ok());
            prop_assert!(raw.len() < 64 * 1024);
        }
    }
}
