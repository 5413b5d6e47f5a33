//! The identifier by which a host is recognized when its osqueryd enrolls (FL §1.3).

/// Which identifier counts (`osquery.host_identifier`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HostIdentifier {
    /// The one that osqueryd sends, which its flag `--host_identifier` chooses.
    #[default]
    Provided,
    /// The hardware UUID.
    Uuid,
    /// The instance id of osquery.
    Instance,
    /// The name of the host.
    Hostname,
}

impl HostIdentifier {
    /// Names of the values, as in the configuration.
    pub const NAMES: [&str; 4] = ["provided", "uuid", "instance", "hostname"];

    /// Returns the name of the value.
    pub const fn as_str(self) -> &'static str {
        Self::NAMES[self as usize]
    }

    /// Parses a name.
    pub fn parse(name: &str) -> Option<Self> {
        let all = [Self::Provided, Self::Uuid, Self::Instance, Self::Hostname];
        all.into_iter().zip(Self::NAMES).find(|(_, known)| *known == name).map(|(one, _)| one)
    }

    /// Returns the identifier, and whether the details of the host lack it, so that the provided one is used instead (FL10).
    pub fn choose<'a>(self, details: &EnrolledDetails<'a>) -> (&'a str, bool) {
        let wanted = match self {
            Self::Provided => return (details.provided, false),
            Self::Uuid => details.uuid,
            Self::Instance => details.instance,
            Self::Hostname => details.hostname,
        };
        if wanted.trim().is_empty() { (details.provided, true) } else { (wanted, false) }
    }
}

/// Identifiers in an enrollment of osqueryd. All but the first may be empty.
#[derive(Clone, Copy, Debug, Default)]
pub struct EnrolledDetails<'a> {
    /// `host_identifier`.
    pub provided: &'a str,
    /// Hardware UUID.
    pub uuid: &'a str,
    /// Instance id.
    pub instance: &'a str,
    /// Name of the host.
    pub hostname: &'a str,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fl9_fl10_the_configured_identifier_counts_if_the_host_has_it() {
        let details = EnrolledDetails { provided: "p", uuid: "u", instance: "i", hostname: " " };
        let of = |name: &str| HostIdentifier::parse(name).unwrap().choose(&details);
        assert_eq!([of("provided"), of("uuid"), of("instance")], [("p", false), ("u", false), ("i", false)]);
        assert_eq!(of("hostname"), ("p", true), "missing");
        assert_eq!(HostIdentifier::parse("ephemeral"), None);
    }
}
