//! Why a file that should hold certificates (PEM) holds none, in words for whoever gave it.

const BEGIN: &str = "-----BEGIN ";

/// What the file holds instead of a certificate; `None` when there is one, good or damaged.
pub fn no_certificate(bytes: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(bytes);
    let labels: Vec<&str> = text.split(BEGIN).skip(1).filter_map(|rest| rest.split("-----").next()).collect();
    if labels.contains(&"CERTIFICATE") {
        return None;
    }
    Some(match labels.first() {
        _ if text.trim().is_empty() => "it is empty".to_owned(),
        Some(label) => format!("it holds no certificate but a {}", label.to_lowercase()),
        // A SEQUENCE of more than 255 bytes, as every certificate in DER begins.
        None if bytes.starts_with(&[0x30, 0x82]) => {
            "it is in binary form (DER); PEM is made by: openssl x509 -inform der -in FILE".to_owned()
        }
        None => "it is no PEM: there is no line -----BEGIN CERTIFICATE----- in it".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_instead_of_a_certificate_is_named() {
        let told = |bytes: &[u8]| no_certificate(bytes).unwrap_or_default();
        assert_eq!(told(b" \n"), "it is empty");
        assert_eq!(told(b"-----BEGIN PRIVATE KEY-----\nAA\n"), "it holds no certificate but a private key");
        assert!(told(&[0x30, 0x82, 1, 0, 0xff]).contains("binary form (DER)"));
        assert!(told(b"garbage \xff").contains("it is no PEM"));
        assert_eq!(no_certificate(b"x\n-----BEGIN CERTIFICATE-----\n"), None);
        assert_eq!(no_certificate(b"-----BEGIN PRIVATE KEY-----\n-----BEGIN CERTIFICATE-----\n"), None);
    }
}
