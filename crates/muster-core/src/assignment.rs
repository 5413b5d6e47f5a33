//! Assignment rules: policy and tags of agents whose enrollment key has no policy (M11).
//!
//! An ordered list, stored as one setting. At enrollment the first matching rule decides. A rule without
//! conditions matches every agent.

use crate::error_chain::chain;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::id::PolicyId;
use crate::raw_json::{as_text, each_element, members};

/// The setting that holds the rules.
pub const SETTING: &str = "assignment_rules";
// Every enrollment evaluates them in order.
/// Maximum number of rules.
const MAX_RULES: usize = 1000;
/// Maximum number of reported addresses that are considered.
const MAX_ADDRESSES: usize = 4096;

/// Rules, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct AssignmentRules(Vec<AssignmentRule>);

/// Rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AssignmentRule {
    /// Name.
    #[serde(default)]
    pub name: String,
    /// Conditions.
    #[serde(rename = "match", default)]
    pub conditions: Conditions,
    /// Policy to assign.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy_id: Option<PolicyId>,
    /// Tags to add.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
}

/// Conditions, all of which must hold. An absent condition always holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Conditions {
    /// Tags that the agent must all have.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// Host name pattern, ignoring case: `*` for any characters, `?` for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// Operating system, ignoring case: `os.platform` or `os.family` (`ubuntu`, `windows`, `debian`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<String>,
    /// `host.architecture`: `x86_64`, `arm64`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub architecture: Option<String>,
    /// Network that contains the agent's address or one that it reports: `10.0.0.0/8`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip: Option<Cidr>,
}

/// Facts about an enrolling agent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostFacts {
    /// Its tags.
    pub tags: Vec<String>,
    /// Host name.
    pub hostname: String,
    /// `os.platform`.
    pub platform: String,
    /// `os.family`.
    pub family: String,
    /// `host.architecture`.
    pub architecture: String,
    /// Its remote address and the addresses that it reports, except loopback and link-local ones.
    pub addresses: Vec<IpAddr>,
}

impl AssignmentRules {
    /// Parses the setting; no setting means no rules.
    pub fn read(setting: Option<&str>) -> Result<Self, Error> {
        // Parsed for each enrollment, which are rare compared to check-ins.
        let Some(text) = setting else { return Ok(Self::default()) };
        // Unknown fields are rejected: a misspelled condition would otherwise match every agent.
        let rules: Self =
            serde_json::from_str(text).map_err(|error| Error::invalid(SETTING, chain(&error).to_string()))?;
        if rules.0.len() > MAX_RULES {
            return Err(Error::invalid(SETTING, format!("at most {MAX_RULES} rules")));
        }
        Ok(rules)
    }

    /// Returns the first matching rule.
    pub fn first_match(&self, facts: &HostFacts) -> Option<&AssignmentRule> {
        // The order of the list is the priority; later rules are not combined with the first match.
        self.0.iter().find(|rule| rule.conditions.hold(facts))
    }

    /// Returns the policies that rules refer to.
    pub fn policies(&self) -> impl Iterator<Item = &PolicyId> {
        self.0.iter().filter_map(|rule| rule.policy_id.as_ref())
    }
}

impl Conditions {
    /// Returns whether all conditions hold.
    pub fn hold(&self, facts: &HostFacts) -> bool {
        // Tags are compared with case, as everywhere in the API; facts of the host without.
        let tags = self.tags.iter().all(|tag| facts.tags.contains(tag));
        let hostname = self.hostname.as_ref().is_none_or(|pattern| glob(pattern, &facts.hostname));
        let platform = self.platform.as_ref().is_none_or(|platform| {
            [&facts.platform, &facts.family].iter().any(|known| known.eq_ignore_ascii_case(platform))
        });
        let architecture = self.architecture.as_ref().is_none_or(|it| it.eq_ignore_ascii_case(&facts.architecture));
        let ip = self.ip.is_none_or(|network| facts.addresses.iter().any(|address| network.contains(*address)));
        tags && hostname && platform && architecture && ip
    }
}

impl HostFacts {
    /// Extracts the facts from `local_metadata`, a JSON text.
    pub fn read(metadata: &str, tags: &[String], address: &str) -> Self {
        // Only these members are decoded; the document can be half a megabyte.
        let [host, os] = members(metadata, ["host", "os"]).map(Option::unwrap_or_default);
        let [hostname, name, architecture, ip] = members(host, ["hostname", "name", "architecture", "ip"]);
        let [platform, family] = members(os, ["platform", "family"]);
        let text = |raw: Option<&str>| raw.and_then(as_text).unwrap_or_default().into_owned();
        // The remote address first. Behind a proxy it is that of the proxy, so reported addresses count too, although
        // they are not authenticated.
        let mut addresses: Vec<IpAddr> = address.parse().into_iter().filter(is_routable).collect();
        // Agents report addresses with a prefix length (`10.0.0.7/24`); only the address is compared.
        each_element(ip.unwrap_or_default(), |ip| {
            let ip = as_text(ip).unwrap_or_default();
            let parsed = ip.split('/').next().and_then(|ip| ip.parse().ok());
            addresses.extend(parsed.filter(is_routable));
            addresses.len() < MAX_ADDRESSES
        });
        Self {
            tags: tags.to_vec(),
            hostname: [text(hostname), text(name)].into_iter().find(|name| !name.is_empty()).unwrap_or_default(),
            platform: text(platform),
            family: text(family),
            architecture: text(architecture),
            addresses,
        }
    }
}

/// Returns whether an address says something about the network: every host has loopback and link-local addresses.
fn is_routable(address: &IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => !v4.is_loopback() && !v4.is_link_local(),
        IpAddr::V6(v6) => !v6.is_loopback() && !v6.is_unicast_link_local(),
    }
}

/// Matches `text` against `pattern`, ignoring case. Backtracking to the last `*` is sufficient, so the time is bounded
/// by the product of both lengths.
fn glob(pattern: &str, text: &str) -> bool {
    // Characters, not bytes: `?` must match one character of a host name outside ASCII.
    let pattern: Vec<char> = pattern.to_lowercase().chars().collect();
    let text: Vec<char> = text.to_lowercase().chars().collect();
    let (mut p, mut t, mut backtrack) = (0, 0, None);
    while t < text.len() {
        match pattern.get(p) {
            Some('*') => {
                backtrack = Some((p, t));
                p += 1;
            }
            Some(c) if *c == '?' || *c == text[t] => (p, t) = (p + 1, t + 1),
            // Let the last `*` take one more character, and try the rest of the pattern again.
            _ => match backtrack {
                Some((star, from)) => {
                    backtrack = Some((star, from + 1));
                    (p, t) = (star + 1, from + 1);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

/// Network in CIDR notation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Cidr {
    address: IpAddr,
    bits: u32,
}

impl Cidr {
    /// Parses `10.0.0.0/8`. A single address is a network of its own.
    pub fn parse(text: &str) -> Option<Self> {
        let (address, bits) = text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
        let address: IpAddr = address.parse().ok()?;
        let width = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.map_or(Some(width), |bits| bits.parse().ok())?;
        (bits <= width).then_some(Self { address, bits })
    }

    /// Returns whether the network contains `address`. IPv4-mapped IPv6 addresses count as IPv4.
    pub fn contains(self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            // Comparing under the mask ignores host bits in the rule, such as `10.1.2.3/8`.
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                // A shift by the full width, for `/0`, is not defined: the mask is then zero.
                let mask = u32::MAX.checked_shl(32 - self.bits).unwrap_or(0);
                (network.to_bits() ^ address.to_bits()) & mask == 0
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                let mask = u128::MAX.checked_shl(128 - self.bits).unwrap_or(0);
                (network.to_bits() ^ address.to_bits()) & mask == 0
            }
            _ => false,
        }
    }
}

impl From<Cidr> for String {
    fn from(cidr: Cidr) -> Self {
        format!("{}/{}", cidr.address, cidr.bits)
    }
}

impl TryFrom<String> for Cidr {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text).ok_or("not a network like 10.0.0.0/8")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn facts() -> HostFacts {
        let metadata = json!({
            "host": {"hostname": "Web-1.example", "architecture": "x86_64", "ip": ["127.0.0.1/8", "10.1.2.3/24", "fe80::1/64", "fd00::2/64"]},
            "os": {"platform": "ubuntu", "family": "debian"},
        });
        HostFacts::read(&metadata.to_string(), &["prod".to_owned()], "192.0.2.7")
    }

    fn holds(conditions: Value) -> bool {
        serde_json::from_value::<Conditions>(conditions).unwrap().hold(&facts())
    }

    #[test]
    fn m11_all_conditions_must_hold() {
        for good in [
            json!({}),
            json!({"tags": ["prod"]}),
            json!({"hostname": "web-*"}),
            json!({"platform": "Debian"}),
            json!({"platform": "ubuntu", "architecture": "X86_64", "hostname": "*"}),
            json!({"ip": "10.0.0.0/8"}),
            json!({"ip": "192.0.2.7"}),
            json!({"ip": "fd00::/8"}),
        ] {
            assert!(holds(good.clone()), "{good}");
        }
        for bad in [
            json!({"tags": ["prod", "web"]}),
            json!({"hostname": "db-*"}),
            json!({"platform": "windows"}),
            json!({"ip": "127.0.0.0/8"}),
            json!({"ip": "fe80::/10"}),
            json!({"ip": "10.1.3.0/24"}),
            json!({"tags": ["prod"], "architecture": "arm64"}),
        ] {
            assert!(!holds(bad.clone()), "{bad}");
        }
    }

    #[test]
    fn m11_the_first_match_wins() {
        let rules = json!([
            {"name": "databases", "match": {"hostname": "db*"}, "policy_id": "db"},
            {"match": {"tags": ["prod"]}, "policy_id": "prod", "tags": ["paged"]},
            {"policy_id": "rest"},
        ]);
        let rules = AssignmentRules::read(Some(&rules.to_string())).unwrap();
        let rule = rules.first_match(&facts()).unwrap();
        assert_eq!((rule.policy_id.as_ref().unwrap().as_str(), &rule.tags[..]), ("prod", &["paged".to_owned()][..]));
        assert_eq!(rules.first_match(&HostFacts::default()).unwrap().policy_id, Some(PolicyId::trusted("rest")));
        assert_eq!(rules.policies().count(), 3);
    }

    #[test]
    fn m11_invalid_rules_are_rejected() {
        assert_eq!(AssignmentRules::read(None).unwrap(), AssignmentRules::default());
        for bad in ["{}", r#"[{"match":{"hostnam":"x"}}]"#, r#"[{"match":{"ip":"10.0.0.0/33"}}]"#] {
            assert_eq!(AssignmentRules::read(Some(bad)).unwrap_err().field.as_deref(), Some(SETTING));
        }
    }

    #[test]
    fn patterns_match_like_in_a_shell() {
        for (pattern, text) in [("*", ""), ("a*b*c", "aXXbYYbc"), ("w?b-*", "WEB-1"), ("**x", "x"), ("é?", "Éa")] {
            assert!(glob(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in [("", "a"), ("a", ""), ("?", ""), ("a*b", "abc"), ("web", "web1")] {
            assert!(!glob(pattern, text), "{pattern} {text}");
        }
    }

    proptest! {
        #[test]
        fn a_network_contains_its_own_addresses(bits in 0_u32..=32, address in any::<u32>()) {
            let address = std::net::Ipv4Addr::from_bits(address);
            let cidr = Cidr::parse(&format!("{address}/{bits}")).unwrap();
            prop_assert!(cidr.contains(address.into()));
            prop_assert!(cidr.contains(IpAddr::V6(address.to_ipv6_mapped())));
            if bits > 0 {
                let other = std::net::Ipv4Addr::from_bits(address.to_bits() ^ 0x8000_0000);
                prop_assert!(!cidr.contains(other.into()));
            }
        }

        #[test]
        fn text_matches_itself_with_an_added_star(text in "[a-c]{0,6}", at in 0_usize..7) {
            let mut pattern = text.clone();
            pattern.insert(at.min(text.len()), '*');
            prop_assert!(glob(&pattern, &text));
        }
    }
}
