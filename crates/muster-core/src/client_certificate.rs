//! The client certificate of a host, to which its keys may be bound (FL148).

use crate::credential::SecretHash;

/// The client certificate of an agent's connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientCertificate {
    /// Certificates are not bound to hosts.
    #[default]
    Irrelevant,
    /// The client presented none.
    Missing,
    /// SHA-256 of the names in the certificate. Not of the certificate itself, which is renewed under the same names.
    Named(SecretHash),
}

impl ClientCertificate {
    /// Returns what a key that is issued now is bound to.
    pub const fn binding(self) -> Option<SecretHash> {
        match self {
            Self::Named(names) => Some(names),
            Self::Irrelevant | Self::Missing => None,
        }
    }

    /// Returns whether a key with this binding may be used.
    pub fn permits(self, binding: Option<SecretHash>) -> bool {
        self == Self::Irrelevant || binding.is_none() || binding == self.binding()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fl148_a_bound_key_needs_its_certificate_and_others_need_none() {
        let [own, other] = [1, 2].map(|byte| ClientCertificate::Named(SecretHash([byte; 32])));
        let bound = own.binding();
        assert!(own.permits(bound) && !other.permits(bound) && !ClientCertificate::Missing.permits(bound));
        assert!(ClientCertificate::Irrelevant.permits(bound), "binding was switched off");
        for any in [own, ClientCertificate::Missing, ClientCertificate::Irrelevant] {
            assert!(any.permits(None), "{any:?}");
        }
        assert_eq!(
            [ClientCertificate::Missing, ClientCertificate::Irrelevant].map(ClientCertificate::binding),
            [None; 2]
        );
    }
}
