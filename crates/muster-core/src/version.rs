//! Versions of agents, and the range that the server accepts.

use std::fmt;

/// Accepted versions of agents, and the newest one that this server was tested with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AcceptedVersions {
    /// Minimum: major and minor.
    pub lowest: (u32, u32),
    /// Maximum: major, and minor; `None` accepts every minor version.
    pub highest: (u32, Option<u32>),
    /// Newest version that this server was tested with: major and minor.
    pub tested: (u32, u32),
}

/// Version of an agent: major, minor, patch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u32, pub u32, pub u32);

impl Version {
    /// Parses `9.6.0`, `v9.6.0-SNAPSHOT`, `9.6.0+build1` or `9.6`. Everything from the first `-` or `+` is ignored.
    /// This is for comparing: a version that is sent to agents must come from [`crate::canonical::version`].
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let text = text.strip_prefix(['v', 'V']).unwrap_or(text);
        let core = text.split(['-', '+']).next().unwrap_or_default().trim_end();
        let mut parts = core.split('.').map(number);
        let version = Self(parts.next()??, parts.next().unwrap_or(Some(0))?, parts.next().unwrap_or(Some(0))?);
        // A fourth number, as in Windows file versions, is not a version of an agent.
        parts.next().is_none().then_some(version)
    }
}

impl Version {
    /// Returns a number that sorts versions: 8.9.0 before 8.19.0. Parts above 99,999 count as 99,999.
    pub fn sort_key(self) -> i64 {
        let part = |number: u32| i64::from(number.min(99_999));
        (part(self.0) * 100_000 + part(self.1)) * 100_000 + part(self.2)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

/// Parses decimal digits; `parse` alone would accept a sign.
fn number(text: &str) -> Option<u32> {
    if text.bytes().all(|b| b.is_ascii_digit()) { text.parse().ok() } else { None }
}

impl AcceptedVersions {
    /// Returns whether agents of that version are accepted.
    pub fn admits(&self, version: Version) -> bool {
        // Patch numbers do not count: every patch of an accepted minor is accepted (EA31).
        let (major, minor) = (version.0, version.1);
        let low_enough = match self.highest {
            (highest, Some(highest_minor)) => (major, minor) <= (highest, highest_minor),
            (highest, None) => major <= highest,
        };
        low_enough && (major, minor) >= self.lowest
    }

    /// Returns whether the version has a newer minor than the newest tested one.
    pub fn is_newer_than_tested(&self, version: Version) -> bool {
        (version.0, version.1) > self.tested
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_as_numbers() {
        assert!(Version::parse("8.9.0") < Version::parse("8.19.0"));
        for bad in ["", "v", "1.2.3.4", "1..2", "+1.2", "1.-2", "99999999999.0.0"] {
            assert_eq!(Version::parse(bad), None, "{bad}");
        }
    }
}
