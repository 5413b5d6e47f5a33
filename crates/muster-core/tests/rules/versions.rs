//! Versions of agents, from their User-Agent (EA §1.7).

use muster_core::user_agent::{AcceptedVersions, RefusedVersion, Version};
use proptest::prelude::*;

prop_compose! {
    fn accepted()(
        lowest in (6_u32..9, 0_u32..20), highest in (8_u32..11, prop::option::of(0_u32..20)), tested in (8_u32..11, 0_u32..20),
    ) -> AcceptedVersions {
        AcceptedVersions { lowest, highest, tested }
    }
}

prop_compose! {
    fn version()(major in 5_u32..12, minor in 0_u32..22, patch in 0_u32..40) -> Version {
        Version(major, minor, patch)
    }
}

proptest! {
    #[test]
    fn ea30_ea32_let_in_is_what_lies_between_the_lowest_and_the_highest_minor(accepted in accepted(), version in version()) {
        let minor = (version.0, version.1);
        let (major, most) = accepted.highest;
        let fits = minor >= accepted.lowest && minor <= (major, most.unwrap_or(u32::MAX));
        let answer = accepted.check(&format!("Elastic Agent v{version}"));
        prop_assert_eq!(answer.is_ok(), fits);
        match answer {
            Ok(answer) => {
                prop_assert_eq!(answer.newer_than_tested, minor > accepted.tested);
                prop_assert_eq!(answer.version, version.to_string());
            }
            Err(refused) => prop_assert_eq!(refused, RefusedVersion::Unsupported),
        }
    }

    #[test]
    fn ea31_ea33_patch_and_suffix_never_matter(accepted in accepted(), version in version(), patch in 0_u32..99, suffix in "([-+][a-zA-Z0-9.]{1,12})?") {
        let plain = accepted.check(&format!("elastic agent {version}"));
        let other = Version(version.0, version.1, patch);
        let dressed = accepted.check(&format!("ELASTIC AGENT {other}{suffix}"));
        prop_assert_eq!(plain.is_ok(), dressed.is_ok());
        if let Ok(dressed) = dressed {
            prop_assert_eq!(dressed.version, other.to_string());
        }
    }

    #[test]
    fn ea30_whoever_does_not_begin_so_is_a_stranger(accepted in accepted(), name in "[a-z]{1,12}", version in version()) {
        prop_assume!(!name.eq_ignore_ascii_case("elastic"));
        prop_assert_eq!(accepted.check(&format!("{name} agent {version}")), Err(RefusedVersion::Invalid));
    }

    #[test]
    fn versions_order_as_their_numbers(a in version(), b in version()) {
        prop_assert_eq!(a.cmp(&b), (a.0, a.1, a.2).cmp(&(b.0, b.1, b.2)));
        prop_assert_eq!(Version::parse(&a.to_string()), Some(a));
    }
}
