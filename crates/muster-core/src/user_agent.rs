//! Which agents are let in, by the version in their `User-Agent` (EA §1.7).

use std::fmt;

/// What every agent's header begins with, in lower case.
const PREFIX: &str = "elastic agent ";
/// More of a header than this is never a version.
const MAX_HEADER_BYTES: usize = 256;

/// The versions that are let in, and the highest that this server was tested with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AcceptedVersions {
    /// Lowest: major and minor.
    pub lowest: (u32, u32),
    /// Highest: major, and minor unless any.
    pub highest: (u32, Option<u32>),
    /// Highest that this server was tested with: major and minor.
    pub tested: (u32, u32),
}

/// A version that is let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AcceptedVersion {
    /// Without a leading `v` and without a suffix: `9.6.0` (EA33).
    pub version: String,
    /// Its minor is above what this server was tested with.
    pub newer_than_tested: bool,
}

/// Why an agent is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RefusedVersion {
    /// No `Elastic Agent <version>`.
    #[error("user-agent is invalid")]
    Invalid,
    /// A version that this server does not serve.
    #[error("version is not supported")]
    Unsupported,
}

/// A version of an agent: major, minor, patch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u32, pub u32, pub u32);

impl Version {
    /// Reads `9.6.0`, `v9.6.0-SNAPSHOT`, `9.6.0+build1` or `9.6`: whatever follows the first `-` or `+` is cut off.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let text = text.strip_prefix(['v', 'V']).unwrap_or(text);
        let core = text.split(['-', '+']).next().unwrap_or_default().trim_end();
        let mut parts = core.split('.').map(number);
        let version = Self(parts.next()??, parts.next().unwrap_or(Some(0))?, parts.next().unwrap_or(Some(0))?);
        parts.next().is_none().then_some(version)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

/// Decimal digits only: `parse` alone would take a sign.
fn number(text: &str) -> Option<u32> {
    if text.bytes().all(|b| b.is_ascii_digit()) { text.parse().ok() } else { None }
}

impl AcceptedVersions {
    /// Checks a `User-Agent` header; an absent one is as good as an empty one (D19).
    pub fn check(&self, header: &str) -> Result<AcceptedVersion, RefusedVersion> {
        let version = read(header).ok_or(RefusedVersion::Invalid)?;
        if !self.admits(version) {
            return Err(RefusedVersion::Unsupported);
        }
        let newer_than_tested = (version.0, version.1) > self.tested;
        Ok(AcceptedVersion { version: version.to_string(), newer_than_tested })
    }

    /// Whether agents of that version are let in.
    pub fn admits(&self, version: Version) -> bool {
        let (major, minor) = (version.0, version.1);
        let low_enough = match self.highest {
            (highest, Some(highest_minor)) => (major, minor) <= (highest, highest_minor),
            (highest, None) => major <= highest,
        };
        low_enough && (major, minor) >= self.lowest
    }
}

fn read(header: &str) -> Option<Version> {
    let prefix = header.get(..PREFIX.len())?;
    if header.len() > MAX_HEADER_BYTES || !prefix.eq_ignore_ascii_case(PREFIX) {
        return None;
    }
    Version::parse(&header[PREFIX.len()..])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DEFAULT: AcceptedVersions = AcceptedVersions { lowest: (7, 13), highest: (9, None), tested: (9, 5) };

    fn check(header: &str) -> Result<(String, bool), RefusedVersion> {
        DEFAULT.check(header).map(|accepted| (accepted.version, accepted.newer_than_tested))
    }

    #[test]
    fn ea30_old_versions_and_strangers_are_refused() {
        assert_eq!(check("elastic agent 7.0.0"), Err(RefusedVersion::Unsupported));
        assert_eq!(check("elastic agent 7.12.9"), Err(RefusedVersion::Unsupported));
        for stranger in ["curl/8", "elastic-agent 8.6.0", "elastic agent", "elastic agent ", "elastic agent x.y"] {
            assert_eq!(check(stranger), Err(RefusedVersion::Invalid), "{stranger}");
        }
    }

    #[test]
    fn ea31_ea33_snapshots_and_patches_are_accepted_and_normalised() {
        assert_eq!(check("Elastic Agent v9.6.0-SNAPSHOT"), Ok(("9.6.0".into(), true)));
        assert_eq!(check("Elastic Agent v9.5.2"), Ok(("9.5.2".into(), false)));
        assert_eq!(check("elastic agent 8.6.0-SNAPSHOT"), Ok(("8.6.0".into(), false)));
        assert_eq!(check("elastic agent 9.5.2+build202601"), Ok(("9.5.2".into(), false)));
        assert_eq!(check("elastic agent 7.13"), Ok(("7.13.0".into(), false)));
        assert_eq!(check("Elastic Agent v9.5.2147483647"), Ok(("9.5.2147483647".into(), false)));
    }

    #[test]
    fn ea32_a_newer_minor_is_refused_where_the_highest_minor_is_set_and_a_newer_major_always() {
        let strict = AcceptedVersions { highest: (9, Some(6)), ..DEFAULT };
        assert!(strict.check("elastic agent 9.6.7").is_ok());
        assert_eq!(strict.check("elastic agent 9.7.0"), Err(RefusedVersion::Unsupported));
        assert_eq!(check("elastic agent 9.99.0"), Ok(("9.99.0".into(), true)));
        assert_eq!(check("elastic agent 10.0.0"), Err(RefusedVersion::Unsupported));
    }

    #[test]
    fn d19_an_empty_header_is_invalid() {
        assert_eq!(check(""), Err(RefusedVersion::Invalid));
    }

    #[test]
    fn versions_compare_as_numbers() {
        assert!(Version::parse("8.9.0") < Version::parse("8.19.0"));
        for bad in ["", "v", "1.2.3.4", "1..2", "+1.2", "1.-2", "99999999999.0.0"] {
            assert_eq!(Version::parse(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn ea33_whatever_is_accepted_is_a_plain_version(header in "(?i)elastic agent v?[0-9a-z.+-]{0,12}") {
            if let Ok(accepted) = DEFAULT.check(&header) {
                let version = Version::parse(&accepted.version).unwrap();
                prop_assert_eq!(version.to_string(), accepted.version);
            }
        }

        #[test]
        fn any_header_is_answered(header in any::<String>()) {
            let _ = DEFAULT.check(&header);
        }
    }
}
