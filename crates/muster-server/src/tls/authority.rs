//! The fleet's own CA, which all its servers share, and the server certificate that it issues.

use std::collections::BTreeSet;
use std::net::IpAddr;

use muster_core::Entropy;
use muster_core::hex;
use muster_core::seal::Sealer;
use muster_core::time::Timestamp;
use muster_fleet::fleet_keys::{self, FleetKeyError};
use muster_fleet::server_status::CaCertificate;
use muster_store::Store;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, date_time_ymd,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde::{Deserialize, Serialize};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};
use zeroize::Zeroizing;

use super::TlsError;
use super::validity::{Role, Validity};
use crate::data_dir::DataDir;

/// The setting that holds the sealed CA.
const SETTING: &str = "certificate_authority";

const DAY_MICROS: i64 = 86_400_000_000;
/// Lifetime of the CA. Long, because agents pin it.
const CA_DAYS: i64 = 3652;
const SERVER_DAYS: i64 = 365;
/// Remaining lifetime below which a new certificate is issued.
const RENEW_DAYS: i64 = 120;

/// The certificate of the CA, with its private key.
pub struct Authority {
    pem: String,
    der: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

/// The CA in the form in which it is sealed in the database.
#[derive(Serialize, Deserialize)]
struct Kept {
    /// PEM.
    certificate: String,
    /// PEM.
    key: String,
}

impl Authority {
    /// Creates a new CA.
    pub fn generate(now: Timestamp) -> Result<Self, TlsError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = params("Muster CA", now, CA_DAYS)?;
        // It issues server certificates only, so no intermediate CA is allowed.
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key)?;
        Self::from_pem(certificate.pem(), &key.serialize_pem())
    }

    /// Returns the fleet's CA, which the first start of the first server creates.
    pub async fn of_fleet(
        store: &dyn Store,
        sealer: &Sealer,
        entropy: &dyn Entropy,
        now: Timestamp,
    ) -> Result<Self, FleetKeyError> {
        let make = || Self::generate(now)?.to_kept().map_err(Into::into);
        let kept = fleet_keys::ensure(store, sealer, entropy, SETTING, make).await?;
        Self::from_kept(&kept).map_err(|error| FleetKeyError::Unusable { name: SETTING, source: error.into() })
    }

    pub(super) fn to_kept(&self) -> Result<Zeroizing<Vec<u8>>, serde_json::Error> {
        let kept = Kept { certificate: self.pem.clone(), key: self.issuer.key().serialize_pem() };
        serde_json::to_vec(&kept).map(Zeroizing::new)
    }

    pub(super) fn from_kept(kept: &[u8]) -> Result<Self, TlsError> {
        let Kept { certificate, key } =
            serde_json::from_slice(kept).map_err(std::io::Error::from).map_err(TlsError::Io)?;
        Self::from_pem(certificate, &Zeroizing::new(key))
    }

    fn from_pem(pem: String, key: &str) -> Result<Self, TlsError> {
        let der = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|error| TlsError::pem("ca.crt", error))?;
        let issuer = Issuer::from_ca_cert_der(&der, KeyPair::from_pem(key)?)?;
        Ok(Self { pem, der, issuer })
    }

    /// Writes `ca.crt`, which administrators copy to the hosts of the agents. The server itself does not read it.
    pub fn show(&self, data: &DataDir) -> Result<(), TlsError> {
        if read_text(&data.join("ca.crt"))?.as_deref() != Some(&self.pem) {
            data.write_public("ca.crt", self.pem.as_bytes())?;
        }
        Ok(())
    }

    /// Returns the certificate of the CA in PEM.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// Returns the certificate of the CA.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.der
    }

    /// Returns the SHA-256 of the CA's certificate in hex.
    pub fn fingerprint(&self) -> String {
        fingerprint(&self.der)
    }

    /// Returns the certificate for the management API; `None` if its validity can't be parsed.
    pub fn shown(&self) -> Option<CaCertificate> {
        let until = Validity::of(Role::Ca, &self.der)?.until;
        let expires_at = Timestamp::from_micros(until.saturating_mul(1_000_000));
        Some(CaCertificate { pem: self.pem.clone(), fingerprint: self.fingerprint(), expires_at })
    }

    /// Ensures that `server.crt` was issued by this CA, covers `names`, and does not expire soon. Returns whether a new
    /// certificate was issued.
    pub fn ensure_server(&self, data: &DataDir, names: &BTreeSet<String>, now: Timestamp) -> Result<bool, TlsError> {
        if let (Some(pem), Some(key)) = (read_text(&data.join("server.crt"))?, data.read_secret("server.key")?)
            && self.is_usable(&pem, &String::from_utf8_lossy(&key), names, now)
        {
            return Ok(false);
        }
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let certificate = server_params(names, now)?.signed_by(&key, &self.issuer)?;
        data.write_secret("server.key", key.serialize_pem().as_bytes())?;
        // The chain includes the CA, because agents that know only its fingerprint look for it there.
        data.write_public("server.crt", format!("{}{}", certificate.pem(), self.pem).as_bytes())?;
        Ok(true)
    }

    fn is_usable(&self, pem: &str, key: &str, names: &BTreeSet<String>, now: Timestamp) -> bool {
        let Ok(der) = CertificateDer::from_pem_slice(pem.as_bytes()) else { return false };
        let Ok(key) = KeyPair::from_pem(key) else { return false };
        let (Ok((_, own)), Ok((_, ca))) = (X509Certificate::from_der(&der), X509Certificate::from_der(&self.der))
        else {
            return false;
        };
        let seconds = now.as_micros() / 1_000_000;
        let seconds_left = own.validity().not_after.timestamp() - seconds;
        let has = subject_names(&own);
        // The two files are written one after the other; a crash between them leaves a pair that does not match.
        own.public_key().subject_public_key.data == key.public_key_raw()
            && own.verify_signature(Some(ca.public_key())).is_ok()
            // A certificate that was issued while the clock was ahead is not valid yet.
            && own.validity().not_before.timestamp() <= seconds
            && seconds_left > RENEW_DAYS * 86_400
            // Additional names are fine: an address that this host had before does no harm.
            && names.is_subset(&has)
    }
}

/// Returns the SHA-256 of a certificate in hex.
pub fn fingerprint(certificate: &CertificateDer<'_>) -> String {
    hex::encode(&hex::sha256(certificate))
}

fn read_text(path: &camino::Utf8Path) -> Result<Option<String>, TlsError> {
    match fs_err::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(TlsError::Io(error)),
    }
}

pub(super) fn subject_names(certificate: &X509Certificate<'_>) -> BTreeSet<String> {
    let extension = certificate.subject_alternative_name().ok().flatten();
    let names = extension.map(|extension| extension.value.general_names.as_slice()).unwrap_or_default();
    names.iter().filter_map(name_text).collect()
}

fn name_text(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => match bytes.len() {
            4 => <[u8; 4]>::try_from(*bytes).ok().map(|bytes| IpAddr::from(bytes).to_string()),
            16 => <[u8; 16]>::try_from(*bytes).ok().map(|bytes| IpAddr::from(bytes).to_string()),
            _ => None,
        },
        _ => None,
    }
}

fn server_params(names: &BTreeSet<String>, now: Timestamp) -> Result<CertificateParams, TlsError> {
    let mut params = params("Muster server", now, SERVER_DAYS)?;
    params.subject_alt_names = CertificateParams::new(names.iter().cloned().collect::<Vec<_>>())?.subject_alt_names;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

fn params(name: &str, now: Timestamp, days: i64) -> Result<CertificateParams, TlsError> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name.push(DnType::CommonName, name);
    // Valid since yesterday, for agents whose clocks are behind.
    let (from, to) = (date(now, -1)?, date(now, days)?);
    params.not_before = date_time_ymd(from.0, from.1, from.2);
    params.not_after = date_time_ymd(to.0, to.1, to.2);
    Ok(params)
}

/// Returns year, month and day, `days` after `now`.
fn date(now: Timestamp, days: i64) -> Result<(i32, u8, u8), TlsError> {
    let micros = now.as_micros().saturating_add(days * DAY_MICROS);
    let date = jiff::Timestamp::from_microsecond(micros).map_err(|_| TlsError::Clock)?;
    let date = date.to_zoned(jiff::tz::TimeZone::UTC).date();
    let part = |value: i8| u8::try_from(value).map_err(|_| TlsError::Clock);
    Ok((i32::from(date.year()), part(date.month())?, part(date.day())?))
}
