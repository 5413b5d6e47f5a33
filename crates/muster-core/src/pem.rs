//! Diagnosis of files that should contain PEM certificates but do not. TLS libraries only report that there is no
//! certificate.

const BEGIN: &str = "-----BEGIN ";

/// Returns what the file contains instead of certificates, and how to convert it; `None` if it contains a certificate,
/// even a malformed one.
pub fn no_certificate(bytes: &[u8]) -> Option<String> {
    if let Some(form) = not_text(bytes) {
        return Some(form.to_owned());
    }
    // PEM files may contain comments in any encoding between the blocks.
    let text = String::from_utf8_lossy(bytes);
    let labels: Vec<&str> = text.split(BEGIN).skip(1).filter_map(|rest| rest.split("-----").next()).collect();
    // A private key next to a certificate is fine.
    if labels.contains(&"CERTIFICATE") {
        return None;
    }
    Some(match labels.first() {
        _ if text.trim().is_empty() => "it is empty".to_owned(),
        Some(&("PKCS7" | "CMS")) => {
            "it is a PKCS#7 bundle; extract its certificates: openssl pkcs7 -print_certs -in FILE".to_owned()
        }
        Some(&("TRUSTED CERTIFICATE" | "X509 CERTIFICATE")) => {
            "it is in OpenSSL's own certificate format; convert it: openssl x509 -in FILE".to_owned()
        }
        // For instance a private key, if its file was given instead of that of the certificate.
        Some(label) => format!("it contains {} {} instead of a certificate", article(label), label.to_lowercase()),
        None => "it is not PEM: it has no line -----BEGIN CERTIFICATE-----".to_owned(),
    })
}

/// Recognizes formats by their first bytes.
fn not_text(bytes: &[u8]) -> Option<&'static str> {
    match bytes {
        // A BOM hides the first line from PEM parsers, and with it the first certificate.
        [0xef, 0xbb, 0xbf, ..] => Some("it begins with a byte order mark; save it as UTF-8 without BOM"),
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => Some("it is UTF-16 text; save it as ASCII or UTF-8 without BOM"),
        [0xfe, 0xed, 0xfe, 0xed, ..] => Some("it is a Java key store; export it: keytool -exportcert -rfc"),
        // The outer sequence of a PFX begins with its version, the integer 3; that of a certificate with another
        // sequence.
        [0x30, 0x82, _, _, 0x02, 0x01, 0x03, ..] | [0x30, 0x80, 0x02, 0x01, 0x03, ..] => {
            Some("it is a PKCS#12 archive (.p12, .pfx); extract its certificates: openssl pkcs12 -in FILE -nokeys")
        }
        [0x30, 0x81..=0x83, ..] => {
            Some("it is in binary form (DER); convert it to PEM: openssl x509 -inform der -in FILE")
        }
        _ => None,
    }
}

fn article(label: &str) -> &'static str {
    if label.starts_with(['A', 'E', 'I', 'O', 'U']) { "an" } else { "a" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_without_a_certificate_are_diagnosed() {
        let reason = |bytes: &[u8]| no_certificate(bytes).unwrap_or_default();
        assert_eq!(reason(b" \n"), "it is empty");
        let pem = |label: &str| format!("-----BEGIN {label}-----\nAA\n");
        assert_eq!(reason(pem("PRIVATE KEY").as_bytes()), "it contains a private key instead of a certificate");
        let encrypted = reason(pem("ENCRYPTED PRIVATE KEY").as_bytes());
        assert_eq!(encrypted, "it contains an encrypted private key instead of a certificate");
        assert!(reason(pem("PKCS7").as_bytes()).contains("PKCS#7"));
        assert!(reason(pem("TRUSTED CERTIFICATE").as_bytes()).contains("OpenSSL's own"));
        assert!(reason(&[0x30, 0x82, 3, 0, 0x30, 0x82]).contains("binary form (DER)"));
        assert!(reason(&[0x30, 0x82, 3, 0, 2, 1, 3, 0x30]).contains("PKCS#12"));
        assert!(reason(&[0xfe, 0xed, 0xfe, 0xed, 0, 0]).contains("Java"));
        assert!(reason("\u{feff}-----BEGIN CERTIFICATE-----".as_bytes()).contains("byte order mark"));
        assert!(reason(b"\xff\xfe-\0-\0").contains("UTF-16"));
        assert!(reason(b"garbage \xff").contains("it is not PEM"));
        assert_eq!(no_certificate(b"x\n-----BEGIN CERTIFICATE-----\n"), None);
        assert_eq!(no_certificate(b"-----BEGIN PRIVATE KEY-----\n-----BEGIN CERTIFICATE-----\n"), None);
    }
}
