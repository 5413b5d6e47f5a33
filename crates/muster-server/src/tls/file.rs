//! Certificate and key files of administrators, with a diagnosis of those that can't be used.
//!
//! Files in another format, with a passphrase or in the wrong order are common in a first configuration. The messages
//! of the parsers mention none of these causes.

use std::io::{ErrorKind, Read};

use camino::Utf8Path;
use muster_core::error_chain::SharedError;
use muster_core::private_key;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use x509_parser::prelude::{CertificateRevocationList, FromDer, X509Certificate};
use zeroize::Zeroizing;

use super::TlsError;

/// Maximum size of a file, bytes.
const MAX_BYTES: u64 = 1 << 20;

/// Labels of the private keys that TLS can use (RFC 5958, RFC 8017, RFC 5915).
const KEY_LABELS: [&str; 3] = ["PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY"];

/// DER of `signedData` (RFC 5652 §5.1), with which a PKCS#7 bundle begins.
const SIGNED_DATA: &[u8] = &[0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x02];
/// DER prefixes of the identifiers of algorithms that encrypt a key with a passphrase: PKCS#5 and PKCS#12 (RFC 8018,
/// RFC 7292 appendix C). Without the length byte of the identifier.
const PASSPHRASE: [&[u8]; 2] =
    [&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x05], &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x0c, 0x01]];

/// Expected content of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    Certificate,
    ClientCas,
    Key,
    /// A key with a passphrase.
    EncryptedKey,
    Passphrase,
    Revocations,
}

impl Wanted {
    /// Returns the file as errors name it: files other than those of the server's certificate with their key.
    fn name(self, path: &Utf8Path) -> String {
        match self {
            Self::Certificate | Self::Key | Self::EncryptedKey => path.to_string(),
            Self::Passphrase => format!("{path} (tls.key_passphrase)"),
            Self::ClientCas => format!("{path} (tls.client_ca)"),
            Self::Revocations => format!("{path} (tls.client_crl)"),
        }
    }

    fn error(self, path: &Utf8Path, reason: impl Into<SharedError>) -> TlsError {
        TlsError::Pem { file: self.name(path), source: reason.into() }
    }
}

/// Reads the certificates of a PEM file, in the order of the file.
pub fn read_certificates(path: &Utf8Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    certificates(path, Wanted::Certificate)
}

/// Reads the CAs of client certificates of a PEM file.
pub fn read_client_cas(path: &Utf8Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    certificates(path, Wanted::ClientCas)
}

fn certificates(path: &Utf8Path, wanted: Wanted) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let bytes = read(path, wanted)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    let found = found.map_err(|error| TlsError::pem(wanted.name(path), error))?;
    // Parsed here, so that a defect is reported with its position in the file, not in a handshake.
    for (place, der) in (1..).zip(&found) {
        if let Err(error) = X509Certificate::from_der(der) {
            let reason = format!("certificate {place} is corrupt: {error}\nhint: copy the file again");
            return Err(wanted.error(path, reason));
        }
    }
    Ok(found)
}

/// Reads the certificate revocation lists (RFC 5280 §5) of a PEM file.
pub fn read_revocations(path: &Utf8Path) -> Result<Vec<CertificateRevocationListDer<'static>>, TlsError> {
    let wanted = Wanted::Revocations;
    let bytes = read(path, wanted)?;
    let found: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(&bytes).collect();
    let found = found.map_err(|error| TlsError::pem(wanted.name(path), error))?;
    for (place, der) in (1..).zip(&found) {
        if let Err(error) = CertificateRevocationList::from_der(der) {
            let reason = format!("revocation list {place} is corrupt: {error}\nhint: copy the file again");
            return Err(wanted.error(path, reason));
        }
    }
    Ok(found)
}

/// Reads the private key of a PEM file. `passphrase` is the file with the passphrase of an encrypted key.
pub fn read_key(path: &Utf8Path, passphrase: Option<&Utf8Path>) -> Result<PrivateKeyDer<'static>, TlsError> {
    let parse = |pem: &[u8]| PrivateKeyDer::from_pem_slice(pem).map_err(|error| TlsError::pem(path.as_str(), error));
    match passphrase {
        None => parse(&read(path, Wanted::Key)?),
        Some(passphrase) => {
            let pem = Zeroizing::new(read(path, Wanted::EncryptedKey)?);
            let text = Zeroizing::new(String::from_utf8_lossy(&pem).into_owned());
            let passphrase = Zeroizing::new(read(passphrase, Wanted::Passphrase)?);
            let passphrase = String::from_utf8_lossy(&passphrase);
            let line = passphrase.lines().next().unwrap_or_default();
            let key = private_key::decrypt(&text, line).map_err(|error| Wanted::EncryptedKey.error(path, error))?;
            parse(key.as_bytes())
        }
    }
}

/// Reads a file whose labels show that it contains what is expected.
fn read(path: &Utf8Path, wanted: Wanted) -> Result<Vec<u8>, TlsError> {
    let mut bytes = Vec::new();
    // One byte more than the limit shows that the file is too large. Its size is not checked, because the path can be a
    // pipe.
    let read = fs_err::File::open(path).and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut bytes));
    read.map_err(|error| match error.kind() {
        ErrorKind::NotFound => wanted.error(path, "does not exist\nhint: correct its path in the configuration (tls)"),
        ErrorKind::PermissionDenied => {
            wanted.error(path, "cannot be read: permission denied\nhint: make it readable for the server's user")
        }
        _ => TlsError::Io(error),
    })?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(wanted.error(path, "is larger than 1 MiB: neither a certificate chain nor a key"));
    }
    // It is text of any kind.
    if wanted == Wanted::Passphrase {
        return Ok(bytes);
    }
    // Before parsing: the parsers skip what they do not know, and then find nothing.
    match mistake(&bytes, path, wanted) {
        Some(reason) => Err(wanted.error(path, reason)),
        None => Ok(bytes),
    }
}

/// Returns why the file does not contain what is expected, with the remedy; `None` if its labels show that it does.
fn mistake(bytes: &[u8], path: &Utf8Path, wanted: Wanted) -> Option<String> {
    if bytes.iter().all(u8::is_ascii_whitespace) {
        let content = match wanted {
            Wanted::Certificate => "the certificate of the server, followed by those of the CAs that issued it",
            Wanted::ClientCas => "the certificates of the CAs that issue client certificates",
            Wanted::Key | Wanted::EncryptedKey | Wanted::Passphrase => "the private key of the certificate",
            Wanted::Revocations => "the revocation list of each CA in tls.client_ca",
        };
        return Some(format!("is empty\nhint: write {content} to it, in PEM"));
    }
    if let Some(reason) = encoding(bytes) {
        return Some(reason.into());
    }
    let labels = labels(bytes);
    // No label at all: the file may be valid in another format, and the answer can name the command that converts it.
    if labels.is_empty() {
        return Some(binary(bytes, path, wanted));
    }
    let has = |part: &str| labels.iter().any(|label| label.contains(part));
    match wanted {
        // Other sections in the same file do no harm; many bundles contain text and keys, too.
        Wanted::Certificate | Wanted::ClientCas if labels.iter().any(|label| label == "CERTIFICATE") => None,
        Wanted::ClientCas if has("CERTIFICATE REQUEST") => {
            Some("contains a signing request, not a certificate\nhint: use the certificate of the CA".into())
        }
        Wanted::ClientCas if has("PRIVATE KEY") => Some(
            "contains a private key, not a certificate\nhint: use the certificate of the CA; its key is not needed"
                .into(),
        ),
        Wanted::Certificate if has("CERTIFICATE REQUEST") => Some(
            "contains a signing request, not a certificate\nhint: use the certificate that the CA issued for it".into(),
        ),
        Wanted::Certificate | Wanted::ClientCas if has("TRUSTED CERTIFICATE") => Some(format!(
            "contains a certificate in OpenSSL's trusted format\nhint: openssl x509 -in {path} -out PEM_FILE"
        )),
        Wanted::Certificate | Wanted::ClientCas if has("PKCS7") => Some(format!(
            "contains a PKCS#7 bundle, not PEM certificates\nhint: openssl pkcs7 -in {path} -print_certs -out PEM_FILE"
        )),
        Wanted::Certificate if has("PRIVATE KEY") => Some(
            "contains a private key, not a certificate\nhint: check whether tls.cert and tls.key are swapped".into(),
        ),
        Wanted::EncryptedKey if has("ENCRYPTED PRIVATE KEY") => None,
        // First, because an encrypted key of the older form has an ordinary label.
        Wanted::Key if has("ENCRYPTED PRIVATE KEY") || is_encrypted(bytes) => Some(format!(
            "contains a key that is protected by a passphrase, which this server cannot prompt for\n\
             hint: set tls.key_passphrase to a file with it, or openssl pkey -in {path} -out PEM_FILE, readable only by the \
             server's user"
        )),
        Wanted::Key | Wanted::EncryptedKey if labels.iter().any(|label| KEY_LABELS.contains(&label.as_str())) => None,
        Wanted::Key | Wanted::EncryptedKey if has("OPENSSH PRIVATE KEY") => Some(format!(
            "contains a key in OpenSSH's format, but PEM is required\n\
             hint: use the key that the certificate was requested with, or convert it: ssh-keygen -p -m PKCS8 -f {path}"
        )),
        Wanted::Key | Wanted::EncryptedKey if has("PUBLIC KEY") => Some(
            "contains a public key, not a private key\nhint: use the key that the certificate was requested with"
                .into(),
        ),
        Wanted::Key | Wanted::EncryptedKey if has("CERTIFICATE") => Some(
            "contains a certificate, not a private key\nhint: check whether tls.cert and tls.key are swapped".into(),
        ),
        Wanted::Revocations if labels.iter().any(|label| label == "X509 CRL") => None,
        Wanted::Revocations => Some(format!("contains no revocation list (X509 CRL), but {}", labels.join(", "))),
        Wanted::Certificate | Wanted::ClientCas => Some(format!("contains no certificate, but {}", labels.join(", "))),
        // A passphrase is not looked at.
        Wanted::Key | Wanted::EncryptedKey | Wanted::Passphrase => {
            Some(format!("contains no private key, but {}", labels.join(", ")))
        }
    }
}

/// Recognizes text encodings. Some editors write a byte order mark, which hides the first PEM line.
fn encoding(bytes: &[u8]) -> Option<&'static str> {
    match bytes {
        [0xef, 0xbb, 0xbf, ..] => Some("begins with a byte order mark\nhint: save it as UTF-8 without a BOM"),
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => Some(UTF_16),
        // Without the mark. Neither PEM nor DER has zero bytes between letters.
        [a, 0, b, 0, ..] | [0, a, 0, b, ..] if is_text(*a) && is_text(*b) => Some(UTF_16),
        _ => None,
    }
}

const UTF_16: &str = "is encoded as UTF-16\nhint: save it as plain ASCII or UTF-8";

fn is_text(byte: u8) -> bool {
    byte.is_ascii_graphic() || byte.is_ascii_whitespace()
}

/// Returns the labels of the PEM sections.
fn labels(bytes: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(bytes);
    let label = |line: &str| Some(line.trim().strip_prefix("-----BEGIN ")?.split("-----").next()?.to_owned());
    text.lines().filter_map(label).collect()
}

/// Returns whether the section of a key is encrypted in the older form, which has a header for it.
fn is_encrypted(bytes: &[u8]) -> bool {
    String::from_utf8_lossy(bytes).lines().any(|line| line.starts_with("Proc-Type:") && line.contains("ENCRYPTED"))
}

/// Returns the format of a file without PEM sections, and how to convert it.
fn binary(bytes: &[u8], path: &Utf8Path, wanted: Wanted) -> String {
    if X509Certificate::from_der(bytes).is_ok() {
        return format!(
            "is a DER certificate, but PEM is required\nhint: openssl x509 -inform der -in {path} -out PEM_FILE"
        );
    }
    if bytes.starts_with(&[0xfe, 0xed, 0xfe, 0xed]) {
        return "is a Java keystore, but PEM is required\nhint: export it with keytool and openssl pkcs12".into();
    }
    let content = der_sequence(bytes).unwrap_or_default();
    if content.starts_with(SIGNED_DATA) {
        return format!(
            "is a PKCS#7 bundle in DER, but PEM is required\n\
             hint: openssl pkcs7 -inform der -in {path} -print_certs -out PEM_FILE"
        );
    }
    if is_locked(content) {
        return format!(
            "is a DER private key that is protected by a passphrase, which this server cannot prompt for\n\
             hint: openssl pkey -inform der -in {path} -out PEM_FILE, readable only by the server's user"
        );
    }
    match content {
        [0x02, 0x01, 3, ..] if wanted == Wanted::ClientCas => format!(
            "is a PKCS#12 archive, but PEM is required\nhint: openssl pkcs12 -in {path} -nokeys -cacerts -out PEM_FILE"
        ),
        // RFC 7292: the first field of a PFX is version 3.
        [0x02, 0x01, 3, ..] => format!(
            "is a PKCS#12 archive, but PEM is required\n\
             hint: openssl pkcs12 -in {path} -nodes -out PEM_FILE, and use that file for both tls.cert and tls.key"
        ),
        // RFC 5958, RFC 8017 and RFC 5915: keys begin with version 0 or 1.
        [0x02, 0x01, 0 | 1, ..] => {
            format!(
                "is a DER private key, but PEM is required\nhint: openssl pkey -inform der -in {path} -out PEM_FILE"
            )
        }
        _ => "contains no PEM block (-----BEGIN …)".into(),
    }
}

/// Returns the content of a DER sequence. The length is not checked, since the beginning is sufficient to recognize the
/// format.
fn der_sequence(bytes: &[u8]) -> Option<&[u8]> {
    let [0x30, length, rest @ ..] = bytes else { return None };
    // The long form: the low bits are the number of length bytes that follow.
    let skip = if length & 0x80 == 0 { 0 } else { usize::from(length & 0x7f) };
    rest.get(skip..)
}

/// Returns whether a key is encrypted: it then begins with the algorithm (RFC 5958 §3).
fn is_locked(content: &[u8]) -> bool {
    let Some([0x06, _, algorithm @ ..]) = der_sequence(content) else { return false };
    PASSPHRASE.iter().any(|begin| algorithm.starts_with(begin))
}

/// Checks that the key belongs to the first certificate of the chain, which is the order in which TLS sends them.
/// Returns warnings about the order of the rest, which most clients tolerate.
pub fn check_chain(
    provider: &CryptoProvider,
    files: (&Utf8Path, &Utf8Path),
    chain: &[CertificateDer<'static>],
    key: &PrivateKeyDer<'static>,
) -> Result<Vec<String>, TlsError> {
    let (cert_path, key_path) = files;
    let signing = provider.key_provider.load_private_key(key.clone_key()).map_err(|_| {
        // The parser's text does not say which of the conditions is not met.
        let reason = "is not a key that TLS can use: RSA with 2048 to 8192 bits, ECDSA with P-256, P-384 or P-521, or Ed25519\n\
                      hint: create a new key, and request a certificate for it";
        TlsError::file(key_path, reason)
    })?;
    // Not every key can tell its public key; the order of the chain is then not checked.
    let Some(public) = signing.public_key() else { return Ok(Vec::new()) };
    let parsed: Vec<_> = chain.iter().filter_map(|der| Some(X509Certificate::from_der(der).ok()?.1)).collect();
    match parsed.iter().position(|certificate| certificate.public_key().raw == public.as_ref()) {
        Some(0) => Ok(odd_order(cert_path, &parsed)),
        Some(place) => {
            let number = place + 1;
            let reason = format!(
                "the chain is in the wrong order: the certificate of the key in {key_path} is number {number}\n\
                 hint: put the server's certificate first, then the CA that issued it, and so on"
            );
            Err(TlsError::file(cert_path, reason))
        }
        None => {
            let reason = format!(
                "the key does not belong to the certificate in {cert_path}, nor to another one in that file\n\
                 hint: use the key that the certificate was requested with, or request a certificate for this key"
            );
            Err(TlsError::file(key_path, reason))
        }
    }
}

/// Returns a warning for each certificate that is not followed by its issuer.
fn odd_order(path: &Utf8Path, chain: &[X509Certificate<'_>]) -> Vec<String> {
    let mut odd = Vec::new();
    for (number, pair) in (1..).zip(chain.windows(2)) {
        let [lower, upper] = pair else { continue };
        // By name, not by signature: a warning must not depend on algorithms that this host does not support.
        if lower.issuer() == upper.subject() {
            continue;
        }
        let (next, issuer) = (number + 1, lower.issuer());
        odd.push(if chain.iter().any(|other| other.subject() == issuer) {
            format!("{path}: the chain is in the wrong order: certificate {next} did not issue certificate {number}")
        } else {
            format!("{path}: the issuer of certificate {number}, {issuer}, is missing in the chain")
        });
    }
    odd
}
