//! Versions of agents.

use muster_core::version::Version;
use proptest::prelude::*;

prop_compose! {
    fn version()(major in 5_u32..12, minor in 0_u32..22, patch in 0_u32..40) -> Version {
        Version(major, minor, patch)
    }
}

proptest! {
    #[test]
    fn versions_compare_as_numbers(a in version(), b in version()) {
        prop_assert_eq!(a.cmp(&b), (a.0, a.1, a.2).cmp(&(b.0, b.1, b.2)));
        prop_assert_eq!(Version::parse(&a.to_string()), Some(a));
    }
}
