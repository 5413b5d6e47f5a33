//! The enrollment document: `fleet.enc`.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::host::fingerprint::Fingerprint;
use crate::net::proxy::Proxy;

/// Version of the enrollment document.
pub const ENROLLMENT_VERSION: u32 = 1;

/// A credential. Debug output redacts it.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Wraps a credential.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Returns the credential.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The length is not printed either.
        f.write_str("[secret]")
    }
}

/// How to reach and verify the server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trust {
    /// Certificate authorities (PEM); empty means the platform's trust store.
    #[serde(default)]
    pub certificate_authorities: Vec<String>,
    /// Fingerprints; one of them must match a certificate in the chain.
    #[serde(default)]
    pub ca_sha256: Vec<String>,
    /// Whether plain HTTP to a loopback address is allowed.
    #[serde(default)]
    pub insecure: bool,
    /// Name that the server's certificate must have; `None` means the host of its URL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_name: Option<String>,
    /// Proxy through which servers of other hosts are reached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy: Option<Proxy>,
    /// Certificate that the agent presents.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<ClientCertificate>,
    /// Additional headers of every request to the server.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<(String, Secret)>,
}

/// A certificate of the agent, with its key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientCertificate {
    /// Certificate chain (PEM).
    pub certificate: String,
    /// Private key (PEM).
    pub key: Secret,
}

/// What a policy changes in the [`Trust`] of the enrollment. It is stored once a server has been reached with it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Overrides {
    /// Proxy.
    pub proxy: ProxyChoice,
    /// Certificate authorities (PEM). They and `ca_sha256` replace both of those of the enrollment, unless both are empty.
    pub certificate_authorities: Vec<String>,
    /// Fingerprints.
    pub ca_sha256: Vec<String>,
    /// Certificate that the agent presents, instead of that of the enrollment.
    pub client: Option<ClientCertificate>,
}

/// A way to the fleet that has worked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredRoute {
    /// URLs of the servers.
    pub servers: Vec<String>,
    /// What a policy changed in the [`Trust`] of the enrollment.
    #[serde(default)]
    pub overrides: Option<Overrides>,
}

/// What a policy says about the proxy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProxyChoice {
    /// Nothing: that of the enrollment, if any, is used.
    #[default]
    AsEnrolled,
    /// No proxy is used.
    None,
    /// This proxy is used.
    Through(Proxy),
}

impl Overrides {
    /// Returns whether the policy says how servers are verified.
    fn verifies(&self) -> bool {
        !self.certificate_authorities.is_empty() || !self.ca_sha256.is_empty()
    }

    /// Returns these changes with the authorities and fingerprints of another policy, if it has any.
    #[must_use]
    pub fn verifying_like(mut self, other: &Self) -> Self {
        if other.verifies() {
            self.certificate_authorities.clone_from(&other.certificate_authorities);
            self.ca_sha256.clone_from(&other.ca_sha256);
        }
        self
    }

    /// Returns `trust` with the changes of the policy.
    pub fn applied_to(&self, trust: &Trust) -> Trust {
        let mut trust = trust.clone();
        match &self.proxy {
            ProxyChoice::AsEnrolled => {}
            ProxyChoice::None => trust.proxy = None,
            ProxyChoice::Through(proxy) => trust.proxy = Some(proxy.clone()),
        }
        if self.verifies() {
            trust.certificate_authorities.clone_from(&self.certificate_authorities);
            trust.ca_sha256.clone_from(&self.ca_sha256);
        }
        if self.client.is_some() {
            trust.client.clone_from(&self.client);
        }
        trust
    }
}

/// The agent's identity, its credential, and its servers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enrollment {
    /// [`ENROLLMENT_VERSION`].
    pub version: u32,
    /// Agent id.
    pub agent_id: String,
    /// Access key: base64 of `id:secret`.
    pub access_api_key: Secret,
    /// URLs of the servers, all of the same fleet.
    pub servers: Vec<String>,
    /// How to reach and verify them, as of the enrollment.
    #[serde(default)]
    pub trust: Trust,
    /// What the policy in effect changes in `trust`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overrides: Option<Overrides>,
    /// The servers and changes before those of the policy in effect, for the time when these do not work.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fallback: Option<StoredRoute>,
    /// Public key (base64 of DER) that signs policies and actions, pinned at first use.
    #[serde(default)]
    pub signing_key: Option<String>,
    /// Hash of the uninstall token of the policy in effect (base64), if that protects the agent. It protects the agent also
    /// if the state with the policy is lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uninstall_token_hash: Option<String>,
    /// Slow hash of the recovery code of that policy, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovery_code_hash: Option<String>,
    /// The key that was pinned before `signing_key`, and signed the policy that introduced it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous_signing_key: Option<String>,
    /// Tags at enrollment.
    #[serde(default)]
    pub tags: Vec<String>,
    /// Time of enrollment (RFC 3339).
    #[serde(default)]
    pub enrolled_at: String,
    /// Secret that allows a later enrollment under the same id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replace_token: Option<Secret>,
    /// The machine on which the agent was enrolled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<Fingerprint>,
    /// Slow hash of the enrollment token, with which a container recognizes a changed token (AG29, AG40).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_hash: Option<String>,
    /// Whether the server runs on this host, as a component of this agent. The agent never leaves it for the servers of a
    /// policy (AG102).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub local_server: bool,
}

impl Enrollment {
    /// Creates the identity of an agent that belongs to no fleet.
    pub fn without_server(agent_id: String) -> Self {
        Self {
            version: ENROLLMENT_VERSION,
            agent_id,
            access_api_key: Secret::default(),
            servers: Vec::new(),
            trust: Trust::default(),
            overrides: None,
            fallback: None,
            signing_key: None,
            uninstall_token_hash: None,
            recovery_code_hash: None,
            previous_signing_key: None,
            tags: Vec::new(),
            enrolled_at: String::new(),
            replace_token: None,
            machine: None,
            token_hash: None,
            local_server: false,
        }
    }

    /// Returns how to reach and verify the servers, with the changes of the policy.
    pub fn trust_in_effect(&self) -> Trust {
        self.overrides.as_ref().map_or_else(|| self.trust.clone(), |overrides| overrides.applied_to(&self.trust))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_previous_route_does_not_bring_back_authorities_that_were_replaced() {
        let old = Overrides { certificate_authorities: vec!["old".into()], ..Overrides::default() };
        let new = Overrides { ca_sha256: vec!["new".into()], proxy: ProxyChoice::None, ..Overrides::default() };
        let mixed = old.clone().verifying_like(&new);
        assert_eq!((mixed.certificate_authorities.len(), &mixed.ca_sha256), (0, &new.ca_sha256));
        assert_eq!(mixed.proxy, ProxyChoice::AsEnrolled);
        assert_eq!(old.clone().verifying_like(&Overrides::default()), old);
    }
}
