//! Certificate and key files in the forms in which people bring them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use muster_core::testing::{ENCRYPTED_KEY, PASSPHRASE};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

use super::*;
use crate::config::TlsConfig;

/// A certificate and its key.
pub(super) struct Made {
    pub pem: String,
    pub der: CertificateDer<'static>,
    pub key: KeyPair,
}

pub(super) fn make(name: &str, is_ca: bool, by: Option<&Made>) -> Made {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    if is_ca {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    }
    let certificate = match by {
        Some(by) => {
            let key_of_issuer = KeyPair::from_pem(&by.key.serialize_pem()).unwrap();
            params.signed_by(&key, &Issuer::from_ca_cert_der(&by.der, key_of_issuer).unwrap()).unwrap()
        }
        None => params.self_signed(&key).unwrap(),
    };
    Made { pem: certificate.pem(), der: certificate.der().clone(), key }
}

/// A server's certificate under an intermediate CA, with the files that are configured.
pub(super) struct Files {
    _keep: (tempfile::TempDir, tempfile::TempDir),
    data: Arc<DataDir>,
    config: TlsConfig,
    pub leaf: Made,
    pub middle: Made,
    pub root: Made,
}

impl Files {
    pub fn new() -> Self {
        let (keep, data) = data();
        let files = tempfile::tempdir().unwrap();
        let path = |name: &str| Utf8PathBuf::from_path_buf(files.path().join(name)).unwrap();
        let config = TlsConfig { custom: Some((path("fleet.crt"), path("fleet.key"))), ..TlsConfig::default() };
        let root = make("Root", true, None);
        let middle = make("Middle", true, Some(&root));
        let leaf = make("fleet.example", false, Some(&middle));
        Self { _keep: (keep, files), data, config, leaf, middle, root }
    }

    pub fn key(&self) -> String {
        self.leaf.key.serialize_pem()
    }

    pub fn chain(&self) -> String {
        format!("{}{}", self.leaf.pem, self.middle.pem)
    }

    pub fn open(&self, cert: impl AsRef<[u8]>, key: impl AsRef<[u8]>) -> Result<Arc<Tls>, String> {
        let (cert_path, key_path) = self.config.custom.as_ref().unwrap();
        fs_err::write(cert_path, cert).unwrap();
        fs_err::write(key_path, key).unwrap();
        let urls = urls(&["https://fleet.example:8220"]);
        let opened = Tls::open(self.config.clone(), None, urls, Arc::clone(&self.data), Arc::new(SystemClock));
        opened.map_err(|error| error.to_string())
    }

    /// Both files are told with their names, what they are, and what to do.
    fn refused(&self, cert: impl AsRef<[u8]>, key: impl AsRef<[u8]>, parts: &[&str]) {
        let told = self.open(cert, key).expect_err("these files can't be used");
        for part in parts {
            assert!(told.contains(part), "{part} is missing in: {told}");
        }
    }

    fn warnings(&self, cert: impl AsRef<[u8]>) -> Vec<String> {
        let tls = self.open(cert, self.key()).unwrap();
        tls.warnings().into_iter().map(|warning| warning.text).collect()
    }
}

pub(super) fn section(label: &str, bytes: &[u8]) -> String {
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(bytes))
}

#[test]
fn chain_in_the_right_order_is_accepted_in_every_format() {
    let files = Files::new();
    let (chain, key) = (files.chain(), files.key());
    let windows = chain.replace('\n', "\r\n");
    let explained = format!("Bag Attributes\n    friendlyName: fleet\nsubject=CN = fleet.example\n{chain}");
    let together = format!("{key}{chain}");
    for cert in [chain.clone(), windows, explained, together.clone(), format!("{chain}{}", files.root.pem)] {
        assert_eq!(files.warnings(&cert), Vec::<String>::new(), "{cert}");
    }
    files.open(&together, &together).unwrap();
}

#[test]
fn chain_in_the_wrong_order_is_reported() {
    let files = Files::new();
    let reversed = format!("{}{}", files.middle.pem, files.leaf.pem);
    files.refused(
        reversed,
        files.key(),
        &["fleet.crt: the chain is in the wrong order", "number 2", "hint: put the server's"],
    );
    let swapped = format!("{}{}{}", files.leaf.pem, files.root.pem, files.middle.pem);
    let told = files.warnings(swapped);
    assert!(told.iter().any(|text| text.contains("certificate 2 did not issue certificate 1")), "{told:?}");
    let gap = format!("{}{}", files.leaf.pem, files.root.pem);
    let told = files.warnings(gap);
    assert!(told.len() == 1 && told[0].contains("the issuer of certificate 1, CN=Middle, is missing"), "{told:?}");
}

#[test]
fn key_of_another_certificate_is_reported() {
    let files = Files::new();
    let other = KeyPair::generate().unwrap().serialize_pem();
    files.refused(
        files.chain(),
        other,
        &["fleet.key: the key does not belong to the certificate in ", "fleet.crt", "\nhint: "],
    );
}

#[test]
fn byte_order_marks_and_utf_16_are_reported() {
    let files = Files::new();
    let marked = |text: &str| [b"\xef\xbb\xbf", text.as_bytes()].concat();
    let wide = |text: &str| {
        text.encode_utf16().fold(vec![0xff, 0xfe], |mut bytes, unit| {
            bytes.extend(unit.to_le_bytes());
            bytes
        })
    };
    let (chain, key) = (files.chain(), files.key());
    files.refused(
        marked(&chain),
        &key,
        &["fleet.crt: begins with a byte order mark", "hint: save it as UTF-8 without"],
    );
    files.refused(&chain, marked(&key), &["fleet.key: begins with a byte order mark"]);
    files.refused(wide(&chain), &key, &["fleet.crt: is encoded as UTF-16", "hint: "]);
    files.refused(&chain, wide(&key), &["fleet.key: is encoded as UTF-16"]);
}

#[test]
fn passphrases_are_reported() {
    let files = Files::new();
    let modern = section("ENCRYPTED PRIVATE KEY", b"whatever");
    let older = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\nAAAA\n-----END RSA PRIVATE KEY-----\n";
    for key in [modern.as_str(), older] {
        files.refused(files.chain(), key, &["fleet.key: ", "passphrase", "openssl pkey -in "]);
    }
}

#[test]
fn der_and_pkcs_12_are_reported() {
    let files = Files::new();
    let (chain, key) = (files.chain(), files.key());
    files.refused(&files.leaf.der, &key, &["fleet.crt: is a DER certificate", "hint: openssl x509 -inform der -in "]);
    files.refused(&chain, files.leaf.key.serialize_der(), &["fleet.key: is a DER private key", "-inform der"]);
    // The beginnings of archives, with lengths of one and of two bytes.
    for archive in [&[0x30, 0x82, 0x0a, 0x10, 0x02, 0x01, 0x03, 0x30, 0x82][..], &[0x30, 0x60, 0x02, 0x01, 0x03, 0x30]]
    {
        files.refused(archive, &key, &["fleet.crt: is a PKCS#12 archive", "hint: openssl pkcs12 -in ", "tls.key"]);
        files.refused(&chain, archive, &["fleet.key: is a PKCS#12 archive"]);
    }
    files.refused([0xfe, 0xed, 0xfe, 0xed, 0, 0, 0, 2], &key, &["fleet.crt: is a Java keystore"]);
}

#[test]
fn swapped_files_are_reported() {
    let files = Files::new();
    files.refused(files.key(), files.key(), &["fleet.crt: contains a private key, not a certificate", "swapped"]);
    files.refused(files.chain(), files.chain(), &["fleet.key: contains a certificate, not a private key", "swapped"]);
}

#[test]
fn other_pem_files_are_reported() {
    let files = Files::new();
    let key = files.key();
    for (label, told) in [
        ("CERTIFICATE REQUEST", "a signing request, not a certificate"),
        ("NEW CERTIFICATE REQUEST", "a signing request, not a certificate"),
        ("TRUSTED CERTIFICATE", "a certificate in OpenSSL's trusted format"),
        ("PKCS7", "a PKCS#7 bundle"),
        ("X509 CRL", "contains no certificate, but X509 CRL"),
    ] {
        files.refused(section(label, b"x"), &key, &["fleet.crt: ", told]);
    }
    files.refused(files.chain(), section("PUBLIC KEY", b"x"), &["fleet.key: contains a public key", "\nhint: "]);
    files.refused(files.chain(), section("DH PARAMETERS", b"x"), &["contains no private key, but DH PARAMETERS"]);
}

#[test]
fn empty_huge_and_corrupt_files_are_reported() {
    let files = Files::new();
    let key = files.key();
    files.refused(" \n", &key, &["fleet.crt: is empty", "\nhint: "]);
    files.refused(files.chain(), "", &["fleet.key: is empty", "\nhint: "]);
    let cut = &files.leaf.pem[..files.leaf.pem.len() / 2];
    files.refused(cut, &key, &["fleet.crt: the file is cut off", "\nhint: "]);
    let missing = read_key("/nowhere/fleet.key".into(), None).unwrap_err().to_string();
    assert!(missing.starts_with("/nowhere/fleet.key: does not exist\nhint: "), "{missing}");
    files.refused(
        files.chain(),
        section("RSA PRIVATE KEY", b"x"),
        &["fleet.key: is not a key that TLS can use", "2048", "\nhint: "],
    );
    files.refused("ssh-ed25519 AAAA", &key, &["fleet.crt: contains no PEM block"]);
    files.refused(vec![b'x'; (1 << 20) + 1], &key, &["fleet.crt: is larger than 1 MiB"]);
    let corrupt = format!("{}{}", files.leaf.pem, section("CERTIFICATE", &files.middle.der[..200]));
    files.refused(corrupt, &key, &["fleet.crt: certificate 2 is corrupt"]);
}

#[test]
fn a_key_with_a_passphrase_is_read_with_the_file_of_the_passphrase() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| Utf8PathBuf::from_path_buf(directory.path().join(name)).unwrap();
    let write = |name: &str, text: &str| std::fs::write(path(name), text).unwrap();
    write("fleet.key", ENCRYPTED_KEY);
    write("passphrase", &format!("{PASSPHRASE}\r\n"));
    assert!(read_key(&path("fleet.key"), Some(&path("passphrase"))).is_ok());
    let error = |key: &str, passphrase: Option<&str>| {
        read_key(&path(key), passphrase.map(path).as_deref()).unwrap_err().to_string()
    };
    assert!(error("fleet.key", None).contains("hint: set tls.key_passphrase"));
    write("other", "other-canary\n");
    let wrong = error("fleet.key", Some("other"));
    assert!(wrong.contains("cannot be decrypted") && !wrong.contains("other-canary"), "{wrong}");
    assert!(error("fleet.key", Some("missing")).contains("missing (tls.key_passphrase): does not exist"));
    write("plain.key", &KeyPair::generate().unwrap().serialize_pem());
    assert!(error("plain.key", Some("passphrase")).contains("is not an encrypted PKCS#8 key"));
}

#[test]
fn errors_in_client_cas_are_reported_in_the_same_way() {
    let files = Files::new();
    let path = files.config.custom.as_ref().unwrap().0.with_file_name("clients.der");
    fs_err::write(&path, &files.root.der).unwrap();
    let config = TlsConfig { client_ca: Some(path), ..TlsConfig::default() };
    let opened = Tls::open(config, authority(), urls(&[]), Arc::clone(&files.data), Arc::new(SystemClock));
    let error = opened.unwrap_err().to_string();
    assert!(error.contains("clients.der (tls.client_ca): is a DER certificate"), "{error}");
}

#[test]
fn errors_in_client_cas_name_their_key_and_no_other() {
    let files = Files::new();
    let path = files.config.custom.as_ref().unwrap().0.with_file_name("clients.crt");
    let error_of = |content: Option<&[u8]>| {
        let _ = fs_err::remove_file(&path);
        content.into_iter().for_each(|content| fs_err::write(&path, content).unwrap());
        let config = TlsConfig { client_ca: Some(path.clone()), ..TlsConfig::default() };
        Tls::verify_clients(&config).unwrap_err().to_string()
    };
    let archive = [0x30, 0x82, 0, 9, 0x02, 0x01, 3, 0, 0];
    let key = files.key();
    for (content, expected) in [
        (None, "does not exist"),
        (Some(b"".as_slice()), "is empty"),
        (Some(key.as_bytes()), "contains a private key"),
        (Some(section("CERTIFICATE REQUEST", b"x").as_bytes()), "contains a signing request"),
        (Some(section("X509 CRL", b"x").as_bytes()), "contains no certificate"),
        (Some(&archive), "is a PKCS#12 archive"),
    ] {
        let error = error_of(content);
        assert!(error.contains(&format!("clients.crt (tls.client_ca): {expected}")), "{error}");
        assert!(!error.contains("tls.cert") && !error.contains("tls.key"), "{error}");
    }
}
