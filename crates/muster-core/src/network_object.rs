//! Network objects: Fleet Server hosts, proxies and download sources, which policies refer to (MG §2.6–2.8).

mod check;

use std::fmt;

use serde_json::Value;

use crate::id::{NetworkObjectId, SpaceId};
use crate::output::Output;
use crate::time::Timestamp;

pub use self::check::{check_network_object, field_names};

/// Kind of a network object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NetworkObjectKind {
    /// URLs at which agents reach the fleet, with what they need for TLS (MG §2.6).
    ServerHost,
    /// A proxy for agents (MG §2.7).
    Proxy,
    /// Where agents download their binaries (MG §2.8).
    DownloadSource,
}

impl NetworkObjectKind {
    /// All kinds.
    pub const ALL: [Self; 3] = [Self::ServerHost, Self::Proxy, Self::DownloadSource];

    /// Returns the word for columns, error codes and the audit log.
    pub const fn word(self) -> &'static str {
        match self {
            Self::ServerHost => "server_host",
            Self::Proxy => "proxy",
            Self::DownloadSource => "download_source",
        }
    }

    /// Returns the kind of a word.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.word() == word)
    }

    /// Whether one object of the kind is the default of its space. Nothing uses a proxy that it does not name.
    pub const fn has_default(self) -> bool {
        !matches!(self, Self::Proxy)
    }

    /// Returns the paths of secret fields, both below `secrets` and below the object itself.
    pub const fn secret_fields(self) -> &'static [&'static str] {
        match self {
            Self::ServerHost => &["ssl.agent_key", "ssl.es_key", "ssl.key"],
            Self::Proxy => &["certificate_key"],
            Self::DownloadSource => &["auth.api_key", "auth.password", "ssl.key"],
        }
    }

    /// Returns the field by which policies refer to an object of the kind.
    pub const fn policy_field(self) -> Option<&'static str> {
        match self {
            Self::ServerHost => Some("fleet_server_host_id"),
            Self::Proxy => None,
            Self::DownloadSource => Some("download_source_id"),
        }
    }
}

impl fmt::Display for NetworkObjectKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ServerHost => "Fleet Server host",
            Self::Proxy => "proxy",
            Self::DownloadSource => "download source",
        })
    }
}

/// A network object of the management API.
#[derive(Clone, Debug, PartialEq)]
pub struct NetworkObject {
    /// Its id, unique among all objects of its kind.
    pub id: NetworkObjectId,
    /// Its kind.
    pub kind: NetworkObjectKind,
    /// The space that it belongs to.
    pub space: SpaceId,
    /// Its name, unique among the objects of its kind in its space.
    pub name: String,
    /// Whether it is used by every policy of its space that names none. Always false for proxies.
    pub is_default: bool,
    /// Other fields as a JSON object, with secrets as `{"id": SECRET_ID}` below `secrets`.
    pub fields: Value,
    /// Creation time.
    pub created_at: Timestamp,
    /// Time of the last change.
    pub updated_at: Timestamp,
}

impl NetworkObject {
    /// Returns a field; `null` is treated as absent.
    pub fn field(&self, name: &str) -> Option<&Value> {
        self.fields.get(name).filter(|value| !value.is_null())
    }
}

/// The objects of a space that its policies refer to: what a policy is compiled from, besides itself.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Shared {
    /// Outputs.
    pub outputs: Vec<Output>,
    /// Fleet Server hosts, proxies and download sources.
    pub network: Vec<NetworkObject>,
}

impl Shared {
    /// Returns the object of a kind with an id.
    pub fn find(&self, kind: NetworkObjectKind, id: &str) -> Option<&NetworkObject> {
        self.of(kind).find(|object| object.id.as_str() == id)
    }

    /// Returns the default object of a kind.
    pub fn default_of(&self, kind: NetworkObjectKind) -> Option<&NetworkObject> {
        self.of(kind).find(|object| object.is_default)
    }

    /// Returns the objects of a kind.
    pub fn of(&self, kind: NetworkObjectKind) -> impl Iterator<Item = &NetworkObject> {
        self.network.iter().filter(move |object| object.kind == kind)
    }

    /// Returns the objects as they will be after the commit of `changed`, which may be the new default.
    #[must_use]
    pub fn with_output(mut self, changed: &Output) -> Self {
        self.outputs.retain(|output| output.id != changed.id);
        for output in &mut self.outputs {
            // Only one can be the default.
            output.is_default &= !changed.is_default;
            output.is_default_monitoring &= !changed.is_default_monitoring;
        }
        self.outputs.push(changed.clone());
        self
    }

    /// Returns the objects as they will be after the commit of `changed`, which may be the new default.
    #[must_use]
    pub fn with_network_object(mut self, changed: &NetworkObject) -> Self {
        self.network.retain(|object| object.kind != changed.kind || object.id != changed.id);
        for object in self.network.iter_mut().filter(|object| object.kind == changed.kind) {
            object.is_default &= !changed.is_default;
        }
        self.network.push(changed.clone());
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::network_object;

    #[test]
    fn mg105_a_new_default_replaces_the_previous_one_of_its_kind_only() {
        let (host, source) = (NetworkObjectKind::ServerHost, NetworkObjectKind::DownloadSource);
        let default = |kind, id: &str| NetworkObject { is_default: true, ..network_object(kind, id) };
        let shared = Shared::default()
            .with_network_object(&default(host, "one"))
            .with_network_object(&default(source, "one"))
            .with_network_object(&default(host, "two"));
        assert_eq!(shared.default_of(host).map(|object| object.id.as_str()), Some("two"));
        assert_eq!(shared.default_of(source).map(|object| object.id.as_str()), Some("one"));
        assert_eq!(shared.of(host).count(), 2);
        let again = shared.with_network_object(&network_object(host, "two"));
        assert_eq!((again.of(host).count(), again.default_of(host)), (2, None));
    }

    #[test]
    fn words_of_kinds_are_read_back() {
        for kind in NetworkObjectKind::ALL {
            assert_eq!(NetworkObjectKind::from_word(kind.word()), Some(kind));
        }
    }
}
