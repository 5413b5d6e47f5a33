//! Versions of agents, from their User-Agent (EA §1.7).

use proptest::prelude::*;

use super::*;

const DEFAULT: AcceptedVersions = AcceptedVersions { lowest: (7, 13), highest: (9, None), tested: (9, 5) };

fn checked(header: &str) -> Result<(String, bool), RefusedVersion> {
    check(&DEFAULT, header).map(|accepted| (accepted.version, accepted.newer_than_tested))
}

#[test]
fn ea30_old_versions_and_other_clients_are_refused() {
    assert_eq!(checked("elastic agent 7.0.0"), Err(RefusedVersion::Unsupported));
    assert_eq!(checked("elastic agent 7.12.9"), Err(RefusedVersion::Unsupported));
    for other in ["curl/8", "elastic-agent 8.6.0", "elastic agent", "elastic agent ", "elastic agent x.y"] {
        assert_eq!(checked(other), Err(RefusedVersion::Invalid), "{other}");
    }
}

#[test]
fn ea31_ea33_snapshots_and_patches_are_accepted_and_normalised() {
    assert_eq!(checked("Elastic Agent v9.6.0-SNAPSHOT"), Ok(("9.6.0".into(), true)));
    assert_eq!(checked("Elastic Agent v9.5.2"), Ok(("9.5.2".into(), false)));
    assert_eq!(checked("elastic agent 8.6.0-SNAPSHOT"), Ok(("8.6.0".into(), false)));
    assert_eq!(checked("elastic agent 9.5.2+build202601"), Ok(("9.5.2".into(), false)));
    assert_eq!(checked("elastic agent 7.13"), Ok(("7.13.0".into(), false)));
    assert_eq!(checked("Elastic Agent v9.5.2147483647"), Ok(("9.5.2147483647".into(), false)));
}

#[test]
fn ea32_newer_minors_are_refused_by_highest_version_and_newer_majors_always() {
    let strict = AcceptedVersions { highest: (9, Some(6)), ..DEFAULT };
    assert!(check(&strict, "elastic agent 9.6.7").is_ok());
    assert_eq!(check(&strict, "elastic agent 9.7.0"), Err(RefusedVersion::Unsupported));
    assert_eq!(checked("elastic agent 9.99.0"), Ok(("9.99.0".into(), true)));
    assert_eq!(checked("elastic agent 10.0.0"), Err(RefusedVersion::Unsupported));
}

#[test]
fn d19_an_empty_header_is_invalid() {
    assert_eq!(checked(""), Err(RefusedVersion::Invalid));
}

proptest! {
    #[test]
    fn ea33_accepted_versions_are_plain(header in "(?i)elastic agent v?[0-9a-z.+-]{0,12}") {
        if let Ok(accepted) = check(&DEFAULT, &header) {
            let version = Version::parse(&accepted.version).unwrap();
            prop_assert_eq!(version.to_string(), accepted.version);
        }
    }

    #[test]
    fn arbitrary_headers_do_not_panic(header in any::<String>()) {
        let _ = check(&DEFAULT, &header);
    }
}

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
    fn ea30_ea32_versions_from_the_lowest_to_the_highest_minor_are_accepted(accepted in accepted(), version in version()) {
        let minor = (version.0, version.1);
        let (major, most) = accepted.highest;
        let fits = minor >= accepted.lowest && minor <= (major, most.unwrap_or(u32::MAX));
        let answer = check(&accepted, &format!("Elastic Agent v{version}"));
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
    fn ea31_ea33_patch_and_suffix_are_ignored(accepted in accepted(), version in version(), patch in 0_u32..99, suffix in "([-+][a-zA-Z0-9.]{1,12})?") {
        let plain = check(&accepted, &format!("elastic agent {version}"));
        let other = Version(version.0, version.1, patch);
        let varied = check(&accepted, &format!("ELASTIC AGENT {other}{suffix}"));
        prop_assert_eq!(plain.is_ok(), varied.is_ok());
        if let Ok(varied) = varied {
            prop_assert_eq!(varied.version, other.to_string());
        }
    }

    #[test]
    fn ea30_other_product_names_are_refused(accepted in accepted(), name in "[a-z]{1,12}", version in version()) {
        prop_assume!(!name.eq_ignore_ascii_case("elastic"));
        prop_assert_eq!(check(&accepted, &format!("{name} agent {version}")), Err(RefusedVersion::Invalid));
    }
}
