//! More certificate and key files as people bring them: ten kinds that differ from those of [`super::files`].

use rcgen::{CertificateParams, Issuer, KeyPair};

use super::files::{Files, Made, section};
use super::times::limit;

/// What comes of a pair of files.
#[derive(Clone, Copy, Debug)]
enum Outcome {
    /// Refused, with all of these parts in the message.
    Refused(&'static [&'static str]),
    /// Used, with a warning that has all of these parts.
    Warned(&'static [&'static str]),
}

use Outcome::{Refused, Warned};

/// A server's certificate for `names` by `issuer`, valid between these days from now.
fn leaf(issuer: &Made, names: &[&str], days: (i64, i64)) -> Made {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).unwrap();
    limit(&mut params, days);
    let issuer_key = KeyPair::from_pem(&issuer.key.serialize_pem()).unwrap();
    let issuer = Issuer::from_ca_cert_der(&issuer.der, issuer_key).unwrap();
    let certificate = params.signed_by(&key, &issuer).unwrap();
    Made { pem: certificate.pem(), der: certificate.der().clone(), key }
}

/// As editors of Windows save "Unicode" without a mark at the beginning.
fn wide(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_le_bytes).collect()
}

/// DER of a SEQUENCE that begins with these bytes.
fn sequence(begin: &[u8]) -> Vec<u8> {
    let content = [begin, &[0; 40]].concat();
    [&[0x30, u8::try_from(content.len()).unwrap()][..], &content].concat()
}

type Row = (&'static str, Vec<u8>, Vec<u8>, Outcome);

fn rows(files: &Files) -> Vec<Row> {
    let (chain, key) = (files.chain(), files.key());
    // PKCS#7's OID; and a PBES2 AlgorithmIdentifier, as an encrypted PKCS#8 key begins.
    let pkcs7 = sequence(&[0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x02]);
    let locked = sequence(&[0x30, 0x20, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x05, 0x0d]);
    let by_days = |days| leaf(&files.middle, &["fleet.example"], days);
    let (future, past, soon) = (by_days((3, 90)), by_days((-90, -3)), by_days((-90, 9)));
    let elsewhere = leaf(&files.middle, &["www.example", "192.0.2.7"], (-1, 90));
    let with_chain = |made: &Made| format!("{}{}", made.pem, files.middle.pem).into_bytes();
    let key_of = |made: &Made| made.key.serialize_pem().into_bytes();
    let upside_down = format!("{}{}{}", files.root.pem, files.middle.pem, files.leaf.pem);
    let indefinite = vec![0x30, 0x80, 0x02, 0x01, 0x03, 0x30, 0x80, 0x06, 0x09];
    vec![
        ("root first", upside_down.into(), key.clone().into(), Refused(&["fleet.crt: ", "wrong order", "number 3"])),
        ("UTF-16 without a mark", wide(&chain), key.clone().into(), Refused(&["fleet.crt: is encoded as UTF-16"])),
        ("PKCS#12 of unknown length", indefinite, key.clone().into(), Refused(&["fleet.crt: is a PKCS#12 archive"])),
        ("PKCS#7 in DER", pkcs7, key.into(), Refused(&["fleet.crt: is a PKCS#7 bundle", "hint: openssl pkcs7"])),
        ("locked key in DER", chain.clone().into(), locked, Refused(&["fleet.key: ", "passphrase", "-inform der"])),
        (
            "key of OpenSSH",
            chain.into(),
            section("OPENSSH PRIVATE KEY", b"openssh-key-v1\0").into(),
            Refused(&["fleet.key: contains a key in OpenSSH's format", "ssh-keygen -p -m PKCS8"]),
        ),
        (
            "of the future",
            with_chain(&future),
            key_of(&future),
            Warned(&["the server's certificate", "is not valid before"]),
        ),
        ("expired", with_chain(&past), key_of(&past), Warned(&["the server's certificate", "expired at"])),
        ("nine days left", with_chain(&soon), key_of(&soon), Warned(&["the server's certificate expires in 8 days"])),
        ("other names", with_chain(&elsewhere), key_of(&elsewhere), Warned(&["does not cover", "fleet.example"])),
    ]
}

/// What is wrong with what came of a row; `None`: it is as it should be.
fn fault(files: &Files, (what, cert, key, outcome): Row) -> Option<String> {
    let got = files.open(cert, key).map(|tls| tls.warnings().into_iter().map(|one| one.text).collect::<Vec<_>>());
    let has = |text: &str, parts: &[&str]| parts.iter().all(|part| text.contains(part));
    let right = match (&got, outcome) {
        (Err(text), Refused(parts)) => has(text, parts),
        (Ok(told), Warned(parts)) => told.iter().any(|text| has(text, parts)),
        _ => false,
    };
    (!right).then(|| format!("{what}: {got:?}, not {outcome:?}"))
}

#[test]
fn formats_of_certificate_files_are_detected() {
    let files = Files::new();
    let faults: Vec<_> = rows(&files).into_iter().filter_map(|row| fault(&files, row)).collect();
    assert!(faults.is_empty(), "{} rows: {faults:#?}", faults.len());
}
