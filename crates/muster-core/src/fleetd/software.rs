//! Software of hosts: what the detail queries ask for it, and what hosts report (FL §1.7).
//!
//! A host has a list of ids, each of which stands for a name, a version and a source. The names are stored once for all hosts.

pub mod postings;
pub mod version;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use super::details::{DetailQuery, has_table};
use super::rows;
use crate::hex::{number_of, sha256};
use crate::raw_json;
use crate::reported::shortened_to;

/// Maximum number of packages of a host that are kept.
pub const MAX_SOFTWARE: usize = 8_192;
/// Maximum length of a name or a version, bytes.
pub const MAX_TEXT: usize = 255;
/// Bytes of an id in a list.
const ID_BYTES: usize = 7;

/// A kind of software. Its word is the name of osquery's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// Applications of macOS.
    Apps,
    /// Extensions of Chrome and its relatives.
    ChromeExtensions,
    /// Packages of Debian and its relatives.
    DebPackages,
    /// Extensions of Firefox.
    FirefoxAddons,
    /// Packages of Homebrew.
    HomebrewPackages,
    /// Programs of Windows.
    Programs,
    /// Packages of Python.
    PythonPackages,
    /// Packages of Red Hat and its relatives.
    RpmPackages,
}

impl Source {
    /// All sources.
    pub const ALL: [Self; 8] = [
        Self::Apps,
        Self::ChromeExtensions,
        Self::DebPackages,
        Self::FirefoxAddons,
        Self::HomebrewPackages,
        Self::Programs,
        Self::PythonPackages,
        Self::RpmPackages,
    ];
    /// Their words.
    pub const NAMES: [&str; 8] = [
        "apps",
        "chrome_extensions",
        "deb_packages",
        "firefox_addons",
        "homebrew_packages",
        "programs",
        "python_packages",
        "rpm_packages",
    ];

    /// Returns its word.
    pub const fn as_str(self) -> &'static str {
        Self::NAMES[self as usize]
    }

    /// Returns what its software is called.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Apps => "macOS app",
            Self::ChromeExtensions => "Chrome extension",
            Self::DebPackages => "deb package",
            Self::FirefoxAddons => "Firefox add-on",
            Self::HomebrewPackages => "Homebrew package",
            Self::Programs => "Windows program",
            Self::PythonPackages => "Python package",
            Self::RpmPackages => "rpm package",
        }
    }

    /// Parses a word.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|source| source.as_str() == word)
    }

    /// Returns a source that exists on the same operating system only; `None` for sources of several systems.
    const fn system(self) -> Option<Self> {
        match self {
            Self::Apps => Some(Self::Apps),
            Self::DebPackages | Self::RpmPackages => Some(Self::DebPackages),
            Self::Programs => Some(Self::Programs),
            Self::ChromeExtensions | Self::FirefoxAddons | Self::HomebrewPackages | Self::PythonPackages => None,
        }
    }
}

macro_rules! queries {
    ($($table:literal $sql:literal,)+) => {
        /// The detail queries for software, in the order of [`Source::ALL`]. Each runs on hosts whose osquery has the table, so that
        /// one that fails does not affect the others.
        pub const QUERIES: [DetailQuery; 8] = [$(DetailQuery {
            name: concat!("fleet_detail_query_software_", $table),
            sql: concat!($sql, " LIMIT 10000;"),
            discovery: has_table!($table),
        }),+];
    };
}

queries! {
    "apps" "SELECT name, bundle_short_version AS version FROM apps",
    // Without the users, only the extensions of root are returned.
    "chrome_extensions" "SELECT name, version FROM users CROSS JOIN chrome_extensions USING (uid)",
    "deb_packages" "SELECT name, version FROM deb_packages WHERE status LIKE '% installed'",
    "firefox_addons" "SELECT name, version FROM users CROSS JOIN firefox_addons USING (uid)",
    "homebrew_packages" "SELECT name, version FROM homebrew_packages",
    "programs" "SELECT name, version FROM programs",
    "python_packages" "SELECT name, version FROM python_packages",
    "rpm_packages" "SELECT name, CASE release WHEN '' THEN version ELSE version || '-' || release END AS version FROM rpm_packages",
}

/// A version of a package or a program.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Software {
    /// Name.
    pub name: String,
    /// Version; empty if the source knows none.
    pub version: String,
    /// Source.
    pub source: Source,
}

impl Software {
    /// Returns its id.
    pub fn id(&self) -> SoftwareId {
        // No part contains a null character.
        let digest = sha256(format!("{}\0{}\0{}", self.source.as_str(), self.name, self.version).as_bytes());
        SoftwareId(number_of(&digest) >> (8 * (8 - ID_BYTES)))
    }

    /// Returns the name as it is compared and sorted.
    pub fn name_key(&self) -> String {
        self.name.to_lowercase()
    }
}

/// Id of software: 56 bits of a hash of its name, its version and its source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SoftwareId(u64);

impl SoftwareId {
    /// Returns it as a number for the store.
    pub fn number(self) -> i64 {
        self.0.cast_signed()
    }

    /// Returns the id of a number.
    pub fn from_number(number: i64) -> Option<Self> {
        u64::try_from(number).ok().filter(|number| number >> 56 == 0).map(Self)
    }

    /// Parses an id as it is shown.
    pub fn parse(text: &str) -> Option<Self> {
        let is_hex = text.len() == 2 * ID_BYTES && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_hex.then(|| u64::from_str_radix(text, 16).ok().map(Self)).flatten()
    }
}

impl fmt::Display for SoftwareId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:014x}", self.0)
    }
}

/// Packs ids, sorted. Seven bytes each: differences of hashes are hardly shorter.
pub fn packed(ids: impl Iterator<Item = SoftwareId>) -> Vec<u8> {
    ids.flat_map(|id| id.0.to_be_bytes().into_iter().skip(1)).collect()
}

/// Iterates over the ids of a packed list.
pub fn unpacked(list: &[u8]) -> impl Iterator<Item = SoftwareId> {
    list.chunks_exact(ID_BYTES).map(|id| SoftwareId(id.iter().fold(0, |number, byte| number << 8 | u64::from(*byte))))
}

/// What a host reports about its software.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// The software by id.
    pub software: BTreeMap<SoftwareId, Software>,
    /// Sources whose query succeeded.
    pub answered: Vec<Source>,
    /// Number of packages that are left out because of [`MAX_SOFTWARE`].
    pub left_out: u64,
}

impl Report {
    /// Adds software; above the maximum, it is counted only.
    pub fn add(&mut self, software: Software) {
        let id = software.id();
        if self.software.len() < MAX_SOFTWARE {
            self.software.insert(id, software);
        } else if !self.software.contains_key(&id) {
            self.left_out += 1;
        }
    }

    /// Returns the packed list of its ids.
    pub fn list(&self) -> Vec<u8> {
        packed(self.software.keys().copied())
    }

    /// Returns whether software that the host had before, and that is not in the report, is still there: its source did not
    /// answer. A host that answers with the source of another operating system was installed anew.
    pub fn keeps(&self, software: &Software) -> bool {
        let system = software.source.system();
        let is_of_other = |other: &Source| other.system().is_some_and(|other| system.is_some_and(|own| own != other));
        !self.answered.contains(&software.source) && !self.answered.iter().any(is_of_other)
    }

    /// Returns a hash, by which an unchanged report is recognized.
    pub fn digest(&self) -> [u8; 32] {
        let answered = self.answered.iter().map(|source| *source as u8).collect();
        sha256(&[self.list(), self.left_out.to_be_bytes().into(), answered].concat())
    }
}

/// Returns what a host reports in the results of a request, which are JSON objects by query name; `None` if it was not asked
/// for software.
pub fn report(queries: &str, statuses: &str) -> Option<Report> {
    let names = QUERIES.map(|query| query.name);
    let [statuses, results] = [statuses, queries].map(|part| raw_json::members(part, names));
    if statuses.iter().chain(&results).all(Option::is_none) {
        return None;
    }
    let mut report = Report::default();
    for (at, source) in Source::ALL.into_iter().enumerate() {
        // Of a source whose query failed or did not run, nothing is known.
        if rows::outcome(statuses[at], results[at]) == Some(0) {
            report.answered.push(source);
            raw_json::each_element(results[at].unwrap_or("[]"), |row| {
                software(row, source).into_iter().for_each(|software| report.add(software));
                true
            });
        }
    }
    Some(report)
}

/// Reads a row; `None` if it has no name.
fn software(row: &str, source: Source) -> Option<Software> {
    let [name, version] = raw_json::members(row, ["name", "version"]).map(text);
    (!name.is_empty()).then_some(Software { name, version, source })
}

fn text(raw: Option<&str>) -> String {
    let text: Cow<'_, str> = raw.and_then(raw_json::as_text).unwrap_or_default();
    // PostgreSQL stores no null characters.
    shortened_to(text.trim(), MAX_TEXT).replace('\0', "\u{fffd}")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn deb(name: &str, version: &str) -> Software {
        Software { name: name.into(), version: version.into(), source: Source::DebPackages }
    }

    #[test]
    fn ids_depend_on_every_part_and_are_read_back() {
        let one = deb("a", "1");
        let others = [deb("a", "2"), deb("b", "1"), Software { source: Source::Apps, ..one.clone() }, deb("a1", "")];
        assert!(others.iter().all(|other| other.id() != one.id()));
        let id = one.id();
        assert_eq!((SoftwareId::from_number(id.number()), SoftwareId::parse(&id.to_string())), (Some(id), Some(id)));
        assert_eq!([SoftwareId::from_number(-1), SoftwareId::from_number(1 << 56)], [None; 2]);
        assert_eq!(["", "x", "+0000000000000", "000000000000000"].map(SoftwareId::parse), [None; 4]);
    }

    #[test]
    fn fl24_every_source_has_a_query_with_a_discovery_that_cannot_fail() {
        for (query, source) in QUERIES.iter().zip(Source::NAMES) {
            assert_eq!(query.name, format!("{}software_{source}", super::super::details::PREFIX));
            assert!(query.sql.contains(source) && query.sql.ends_with(';') && query.discovery.contains(source));
        }
        assert!(Source::ALL.into_iter().all(|source| Source::parse(source.as_str()) == Some(source)));
    }

    #[test]
    fn rows_of_all_sources_are_one_report() {
        let name = |source: Source| QUERIES[source as usize].name;
        let queries = json!({
            name(Source::DebPackages): [{"name": " openssl ", "version": "3.0.1"}, {"name": ""}, {"version": "1"}, 7,
                {"name": "openssl", "version": "3.0.1"}],
            name(Source::PythonPackages): [{"name": "pip", "version": 7}],
        });
        let statuses = json!({name(Source::DebPackages): "0", name(Source::PythonPackages): 0, name(Source::Apps): 1});
        let found = report(&queries.to_string(), &statuses.to_string()).unwrap();
        assert!(
            report(&queries.to_string(), "null").unwrap().answered.contains(&Source::DebPackages),
            "without statuses"
        );
        let pip = Software { name: "pip".into(), version: String::new(), source: Source::PythonPackages };
        let expected: BTreeMap<_, _> = [deb("openssl", "3.0.1"), pip].map(|one| (one.id(), one)).into();
        assert_eq!(
            (found.software, found.answered, found.left_out),
            (expected, vec![Source::DebPackages, Source::PythonPackages], 0)
        );
        assert_eq!(report("{}", r#"{"fleet_detail_query_os_version": 0}"#), None);
    }

    #[test]
    fn the_software_of_a_host_is_limited() {
        let rows: Vec<_> = (0..MAX_SOFTWARE + 3).map(|n| json!({"name": n.to_string(), "version": "1"})).collect();
        let name = QUERIES[Source::DebPackages as usize].name;
        let found = report(&json!({name: rows}).to_string(), &json!({name: 0}).to_string()).unwrap();
        assert_eq!((found.software.len(), found.left_out), (MAX_SOFTWARE, 3));
        let long = json!({name: [{"name": "x".repeat(1000)}]}).to_string();
        let found = report(&long, &json!({name: 0}).to_string()).unwrap();
        assert_eq!(found.software.into_values().next().unwrap().name.len(), MAX_TEXT);
    }

    proptest! {
        #[test]
        fn lists_are_read_back(numbers in prop::collection::btree_set(0_u64..1 << 56, 0..600)) {
            let ids: Vec<_> = numbers.into_iter().map(SoftwareId).collect();
            let list = packed(ids.iter().copied());
            prop_assert!(list.len() == ids.len() * ID_BYTES);
            prop_assert_eq!(unpacked(&list).collect::<Vec<_>>(), ids);
        }

        #[test]
        fn any_text_can_be_read(queries in ".*", statuses in ".*") {
            let _ = report(&queries, &statuses);
        }
    }
}
