//! Versions of agents, and which of them are let in.

use std::fmt;

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
    /// Whether agents of that version are let in.
    pub fn admits(&self, version: Version) -> bool {
        let (major, minor) = (version.0, version.1);
        let low_enough = match self.highest {
            (highest, Some(highest_minor)) => (major, minor) <= (highest, highest_minor),
            (highest, None) => major <= highest,
        };
        low_enough && (major, minor) >= self.lowest
    }

    /// Whether the version's minor is above what this server was tested with.
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
