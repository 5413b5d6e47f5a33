//! Certificates of clients, and their revocation.

use rcgen::{
    CertificateParams, CertificateRevocationListParams, DistinguishedName, DnType, Issuer, KeyIdMethod, KeyPair,
    SerialNumber,
};
use rustls::HandshakeKind;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use super::*;

/// A CA of client certificates.
pub struct Ca {
    /// The certificate.
    pub pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Ca {
    pub fn new() -> Self {
        Self::named("clients")
    }

    pub fn named(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign, rcgen::KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    /// Issues the certificate of a client.
    pub fn issue(&self, serial: u64) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
        self.issue_to("client", serial)
    }

    /// Issues a certificate with this name.
    pub fn issue_to(&self, name: &str, serial: u64) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.serial_number = Some(SerialNumber::from(serial));
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().unwrap();
        let issued = params.signed_by(&key, &self.issuer).unwrap();
        (issued.der().clone(), PrivatePkcs8KeyDer::from(key.serialize_der()).into())
    }

    /// Returns a revocation list with these serial numbers, in PEM.
    pub fn revoke(&self, serials: &[u64]) -> String {
        let revoked = serials.iter().map(|serial| rcgen::RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: rcgen::date_time_ymd(2026, 1, 1),
            reason_code: None,
            invalidity_date: None,
        });
        let list = CertificateRevocationListParams {
            this_update: rcgen::date_time_ymd(2026, 1, 1),
            next_update: rcgen::date_time_ymd(2046, 1, 1),
            crl_number: SerialNumber::from(1_u64),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(&self.issuer).unwrap().pem().unwrap()
    }
}

/// A client that trusts `own` and can resume its sessions.
pub fn connector(own: &str, client: Option<(CertificateDer<'static>, PrivateKeyDer<'static>)>) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(own.as_bytes()).unwrap()).unwrap();
    let builder = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().unwrap();
    let builder = builder.with_root_certificates(roots);
    TlsConnector::from(Arc::new(match client {
        Some((certificate, key)) => builder.with_client_auth_cert(vec![certificate], key).unwrap(),
        None => builder.with_no_client_auth(),
    }))
}

/// Sends a request, and returns the kind of the handshake; an error if the client is rejected.
async fn handshake(address: std::net::SocketAddr, client: &TlsConnector) -> std::io::Result<HandshakeKind> {
    let stream = TcpStream::connect(address).await?;
    let mut stream = client.connect(ServerName::try_from("localhost").unwrap(), stream).await?;
    stream.write_all(b"GET /x HTTP/1.1\r\nhost: h\r\n\r\n").await?;
    // In TLS 1.3, a client learns that its certificate was rejected after its own part of the handshake.
    if stream.read(&mut [0; 1024]).await? == 0 {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    Ok(stream.get_ref().1.handshake_kind().unwrap())
}

#[tokio::test]
async fn a_certificate_that_a_new_list_revokes_is_rejected_also_with_a_ticket() {
    let (_keep, data) = data();
    let ca = Ca::new();
    let (cas, crl) = (data.join("clients.crt"), data.join("clients.crl"));
    fs_err::write(&cas, &ca.pem).unwrap();
    fs_err::write(&crl, ca.revoke(&[7])).unwrap();
    let config = TlsConfig { client_ca: Some(cas), client_crl: Some(crl.clone()), ..TlsConfig::default() };
    let tls = Tls::open(config, authority(), urls(&[]), data, Arc::new(SystemClock)).unwrap();
    let own = tls.authority().unwrap().pem().to_owned();
    let server = Setup { tls: Some(Arc::clone(tls.live())), ..Setup::default() }.start(echo());
    let (revoked, other) = (connector(&own, Some(ca.issue(7))), connector(&own, Some(ca.issue(8))));
    assert!(handshake(server.address, &revoked).await.is_err());
    assert_eq!(handshake(server.address, &other).await.unwrap(), HandshakeKind::Full);
    tls.reload().unwrap();
    assert_eq!(handshake(server.address, &other).await.unwrap(), HandshakeKind::Resumed, "nothing was revoked");

    fs_err::write(&crl, ca.revoke(&[7, 8])).unwrap();
    tls.reload().unwrap();
    assert!(handshake(server.address, &other).await.is_err(), "its ticket is worthless now");
    assert_eq!(handshake(server.address, &connector(&own, None)).await.unwrap(), HandshakeKind::Full);
}

#[test]
fn a_file_without_a_revocation_list_is_explained() {
    let (_keep, data) = data();
    let (path, ca) = (data.join("clients.crl"), Ca::new());
    for (content, expected) in [
        (ca.pem.as_str(), "clients.crl (tls.client_crl): contains no revocation list (X509 CRL), but CERTIFICATE"),
        ("", "clients.crl (tls.client_crl): is empty"),
        (
            "-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n",
            "clients.crl (tls.client_crl): revocation list 1 is corrupt",
        ),
    ] {
        fs_err::write(&path, content).unwrap();
        fs_err::write(data.join("clients.crt"), &ca.pem).unwrap();
        let (client_ca, client_crl) = (Some(data.join("clients.crt")), Some(path.clone()));
        let error = Tls::verify_clients(&TlsConfig { client_ca, client_crl, ..TlsConfig::default() }).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    }
}

#[test]
fn a_leaf_among_the_cas_and_a_list_of_another_ca_are_reported() {
    let (_keep, data) = data();
    let (cas, crl) = (data.join("clients.crt"), data.join("clients.crl"));
    let (ca, other) = (Ca::named("clients"), Ca::named("others"));
    let warnings = |pem: String, list: String| {
        fs_err::write(&cas, pem).unwrap();
        fs_err::write(&crl, list).unwrap();
        let (client_ca, client_crl) = (Some(cas.clone()), Some(crl.clone()));
        let config = TlsConfig { client_ca, client_crl, ..TlsConfig::default() };
        let tls = Tls::open(config, authority(), urls(&[]), Arc::clone(&data), Arc::new(SystemClock)).unwrap();
        let all = tls.warnings().into_iter().filter(|warning| !warning.keeps_agents_out);
        all.map(|warning| warning.text).collect::<Vec<_>>()
    };
    assert_eq!(warnings(ca.pem.clone(), ca.revoke(&[])), Vec::<String>::new());
    let lists = warnings(ca.pem.clone(), ca.revoke(&[]) + &other.revoke(&[]));
    assert!(matches!(&lists[..], [one] if one.starts_with("tls.client_crl contains a list of CN=others")), "{lists:?}");
    let leaf = files::section("CERTIFICATE", &ca.issue(1).0);
    let leaves = warnings(ca.pem.clone() + &leaf, ca.revoke(&[]));
    assert!(matches!(&leaves[..], [one] if one.starts_with("tls.client_ca contains the certificate of")), "{leaves:?}");
}
