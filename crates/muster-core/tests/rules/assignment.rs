//! Assignment rules (M11).

use muster_core::assignment::{AssignmentRules, Cidr, Conditions, HostFacts};
use proptest::prelude::*;
use serde_json::{Value, json};

prop_compose! {
    fn facts()(
        tags in prop::collection::vec("[a-c]", 0..3),
        hostname in "(web|db)-[12]",
        platform in "(ubuntu|windows)",
        family in "(debian|windows)",
        architecture in "(x86_64|arm64)",
        addresses in prop::collection::vec((10_u8..12, 0_u8..3), 0..3),
    ) -> HostFacts {
        let addresses = addresses.into_iter().map(|(a, b)| std::net::Ipv4Addr::new(a, b, 0, 1).into()).collect();
        HostFacts { tags, hostname, platform, family, architecture, addresses }
    }
}

/// Conditions as written in the setting, each present or absent.
fn conditions() -> impl Strategy<Value = Value> {
    let each = (
        prop::option::of(prop::collection::vec("[a-c]", 1..3)),
        prop::option::of("(web|db|\\*)-(1|\\*)"),
        prop::option::of("(Ubuntu|debian|windows)"),
        prop::option::of("(X86_64|arm64)"),
        prop::option::of("(10|11)\\.[0-2]\\.0\\.0/(8|16)"),
    );
    each.prop_map(|(tags, hostname, platform, architecture, ip)| {
        let all = json!({"tags": tags, "hostname": hostname, "platform": platform,
            "architecture": architecture, "ip": ip});
        let given = all.as_object().unwrap().clone().into_iter().filter(|(_, value)| !value.is_null());
        given.collect::<serde_json::Map<_, _>>().into()
    })
}

fn holds(conditions: &Value, facts: &HostFacts) -> bool {
    serde_json::from_value::<Conditions>(conditions.clone()).unwrap().hold(facts)
}

fn rules(conditions: &[Value]) -> AssignmentRules {
    let rule = |(at, it): (usize, &Value)| json!({"name": at.to_string(), "match": it, "policy_id": format!("p{at}")});
    let rules: Vec<Value> = conditions.iter().enumerate().map(rule).collect();
    AssignmentRules::read(Some(&Value::from(rules).to_string())).unwrap()
}

proptest! {
    #[test]
    fn m11_conditions_hold_if_each_one_holds(conditions in conditions(), facts in facts()) {
        let mut each = conditions.as_object().unwrap().iter().map(|(key, value)| json!({ key: value }));
        prop_assert_eq!(holds(&conditions, &facts), each.all(|one| holds(&one, &facts)));
    }

    #[test]
    fn m11_the_first_matching_rule_wins(all in prop::collection::vec(conditions(), 0..6), facts in facts()) {
        let expected = all.iter().position(|one| holds(one, &facts)).map(|at| at.to_string());
        let rules = rules(&all);
        prop_assert_eq!(rules.first_match(&facts).map(|rule| rule.name.clone()), expected);
    }

    #[test]
    fn m11_rules_after_the_first_match_have_no_effect(
        all in prop::collection::vec(conditions(), 1..6), more in conditions(), facts in facts(),
    ) {
        let before = rules(&all).first_match(&facts).cloned();
        let longer = rules(&[&all[..], &[more]].concat());
        if let Some(before) = before {
            prop_assert_eq!(longer.first_match(&facts), Some(&before));
        }
    }

    #[test]
    fn m11_the_setting_round_trips(all in prop::collection::vec(conditions(), 0..6)) {
        let rules = rules(&all);
        let text = serde_json::to_string(&rules).unwrap();
        prop_assert_eq!(AssignmentRules::read(Some(&text)).unwrap(), rules);
    }

    #[test]
    fn any_setting_is_parsed_without_a_panic(text in any::<String>()) {
        let _ = AssignmentRules::read(Some(&text));
    }

    /// By the definition: the leading bits are equal.
    #[test]
    fn a_network_contains_addresses_with_the_same_leading_bits(network in any::<u128>(), other in any::<u128>(), same in 0_u32..=128, bits in 0_u32..=128) {
        let keep = u128::MAX.checked_shl(128 - same).unwrap_or(0);
        let other = (network & keep) | (other & !keep);
        let (network, other) = (std::net::Ipv6Addr::from_bits(network), std::net::Ipv6Addr::from_bits(other));
        // IPv4 addresses are in no IPv6 network.
        prop_assume!(network.to_ipv4_mapped().is_none() && other.to_ipv4_mapped().is_none());
        let cidr = Cidr::parse(&format!("{network}/{bits}")).unwrap();
        let common = (network.to_bits() ^ other.to_bits()).leading_zeros();
        prop_assert_eq!(cidr.contains(other.into()), common >= bits);
        prop_assert_eq!(Cidr::parse(&String::from(cidr)), Some(cidr));
    }
}
