//! Descriptions of failed TLS handshakes.
//!
//! rustls describes failures by identifiers. The user needs to know which values do not match: the clock and the
//! certificate's dates, the host name and the certificate's names, or the issuer and the trusted CAs.

use std::io;

use muster_core::Timestamp;
use muster_core::certificate_names::plain;
use rustls::pki_types::UnixTime;
use rustls::{CertificateError, Error, InvalidMessage};

use super::TlsFault;

/// Returns the kind of a failed handshake and its description; `None` if the connection failed during it, which says nothing
/// about trust.
pub fn handshake_fault(error: &io::Error) -> Option<(TlsFault, String)> {
    error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()).map(describe)
}

fn describe(error: &Error) -> (TlsFault, String) {
    match error {
        Error::InvalidCertificate(error) => certificate(error),
        Error::InvalidMessage(InvalidMessage::InvalidContentType | InvalidMessage::MissingData(_))
        | Error::InappropriateMessage { .. } => (TlsFault::NotTls, "it does not use TLS".into()),
        Error::InvalidMessage(error) => (TlsFault::NotTls, format!("it does not use TLS ({error:?})")),
        Error::AlertReceived(alert) => (TlsFault::Trust, format!("the server aborted the handshake: {alert:?}")),
        other => (TlsFault::Trust, other.to_string()),
    }
}

fn certificate(error: &CertificateError) -> (TlsFault, String) {
    match error {
        CertificateError::ExpiredContext { time, not_after } => (
            TlsFault::Clock,
            format!("a certificate expired on {}; this host's clock says {}", date(*not_after), date(*time)),
        ),
        CertificateError::NotValidYetContext { time, not_before } => (
            TlsFault::Clock,
            format!("a certificate is not valid before {}; this host's clock says {}", date(*not_before), date(*time)),
        ),
        CertificateError::Expired | CertificateError::NotValidYet => (TlsFault::Clock, error.to_string()),
        CertificateError::NotValidForNameContext { expected, presented } if presented.is_empty() => (
            TlsFault::Name,
            format!("its certificate has no subject alternative names, so it is not valid for {:?}", expected.to_str()),
        ),
        CertificateError::NotValidForNameContext { expected, presented } => (
            TlsFault::Name,
            format!("its certificate is for {}, not for {:?}", plain(&presented.join(", ")), expected.to_str()),
        ),
        CertificateError::NotValidForName => (TlsFault::Name, error.to_string()),
        CertificateError::UnknownIssuer => {
            (TlsFault::Trust, "its certificate was not issued by a trusted certificate authority".into())
        }
        // A certificate of `openssl req -x509` is one of a CA, unless told otherwise.
        CertificateError::Other(cause) if format!("{cause:?}").contains("CaUsedAsEndEntity") => (
            TlsFault::Trust,
            "its certificate is that of a certificate authority, which is not valid for a server".into(),
        ),
        other => (TlsFault::Trust, format!("its certificate is not usable: {other}")),
    }
}

fn date(time: UnixTime) -> String {
    let micros = i64::try_from(time.as_secs()).ok().and_then(|seconds| seconds.checked_mul(1_000_000));
    Timestamp::from_micros(micros.unwrap_or(i64::MAX)).to_rfc3339_seconds()
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::ServerName;

    use super::*;

    fn at(seconds: u64) -> UnixTime {
        UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds))
    }

    #[test]
    fn a_certificate_authority_as_a_server_is_described() {
        let cause = std::sync::Arc::new(io::Error::other("CaUsedAsEndEntity"));
        let (fault, reason) = describe(&CertificateError::Other(rustls::OtherError(cause)).into());
        assert!(fault == TlsFault::Trust && reason.contains("certificate authority"), "{reason}");
    }

    #[test]
    fn date_errors_contain_both_dates() {
        let expired = CertificateError::ExpiredContext { time: at(86_400), not_after: at(0) };
        let (fault, reason) = describe(&expired.into());
        assert_eq!(fault, TlsFault::Clock);
        assert_eq!(
            reason,
            "a certificate expired on 1970-01-01T00:00:00Z; this host's clock says 1970-01-02T00:00:00Z"
        );
        let early = CertificateError::NotValidYetContext { time: at(0), not_before: at(86_400) };
        assert!(
            describe(&early.into()).1.contains("not valid before 1970-01-02T00:00:00Z; this host's clock says 1970")
        );
    }

    #[test]
    fn a_name_error_lists_the_valid_names() {
        let expected = ServerName::try_from("fleet.example").unwrap();
        let wrong = CertificateError::NotValidForNameContext {
            expected,
            presented: ["DnsName(\"a.example\")", "IpAddress(127.0.0.1)"].map(Into::into).into(),
        };
        let (fault, reason) = describe(&wrong.into());
        assert_eq!(
            (fault, reason.as_str()),
            (TlsFault::Name, "its certificate is for a.example, 127.0.0.1, not for \"fleet.example\"")
        );
    }

    #[test]
    fn a_server_without_tls_is_detected() {
        let error = Error::InvalidMessage(InvalidMessage::InvalidContentType);
        assert_eq!(describe(&error), (TlsFault::NotTls, "it does not use TLS".into()));
        let inside = io::Error::new(io::ErrorKind::InvalidData, error);
        assert_eq!(handshake_fault(&inside).map(|(fault, _)| fault), Some(TlsFault::NotTls));
        assert_eq!(handshake_fault(&io::ErrorKind::UnexpectedEof.into()), None, "a balancer without a server");
    }
}
